"""What the city measures: quantities, kinds, devices, zones, readings and values. Pure: no I/O, no clock."""
