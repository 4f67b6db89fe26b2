"""An air-quality station: particles, gases and the state of the air they are measured in."""

from devices.kind import Kind

KIND = Kind(
    name="air_station",
    title="Air-quality station",
    domain="air",
    quantities=(
        "pm1",
        "pm2_5",
        "pm10",
        "no2",
        "so2",
        "o3",
        "co",
        "temperature",
        "relative_humidity",
        "pressure",
    ),
    interval_s=60,
)
