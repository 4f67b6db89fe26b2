"""A loop, radar or camera that counts the vehicles of a road section minute by minute."""

from devices.kind import Kind

KIND = Kind(
    name="traffic_detector",
    title="Traffic detector",
    domain="traffic",
    quantities=("vehicle_count", "speed", "occupancy"),
    interval_s=60,
)
