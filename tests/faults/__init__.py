"""Faults: what is struck while messages come in, and that nothing acknowledged is lost. docs/faults.md has the table."""
