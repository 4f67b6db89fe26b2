"""The durable MQTT endpoint: the codec without I/O, connections, sessions, and the ways in."""
