"""Indicators, one file each: a module with an `INDICATOR`. A new file here is a new indicator."""
