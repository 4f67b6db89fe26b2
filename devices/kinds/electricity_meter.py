"""An electricity meter at a building or a feeder, with its running total."""

from devices.kind import Kind

KIND = Kind(
    name="electricity_meter",
    title="Electricity meter",
    domain="energy",
    quantities=("active_power", "energy_import", "voltage", "current"),
    interval_s=60,
)
