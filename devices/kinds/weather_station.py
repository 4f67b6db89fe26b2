"""A weather station."""

from devices.kind import Kind

KIND = Kind(
    name="weather_station",
    title="Weather station",
    domain="weather",
    quantities=("temperature", "relative_humidity", "pressure", "wind_speed", "wind_direction"),
    interval_s=300,
)
