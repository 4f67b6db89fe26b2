"""Indicators and alerts: pure functions over readings and values, and the schedule that runs them."""
