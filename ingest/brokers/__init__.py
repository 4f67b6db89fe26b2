"""Existing brokers: their messages go into the journal, and are acknowledged after it."""
