"""What people and machines look at: the API, live events, metrics and the operations centre."""
