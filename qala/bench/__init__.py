"""Measure what the way of a message costs."""
