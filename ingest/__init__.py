"""From MQTT bytes to the store: listener, journal, formats, projector, rejected."""
