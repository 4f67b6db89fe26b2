"""From a sensor's bytes to the store: listener, HTTP, brokers, journal, formats, projector, rejected."""
