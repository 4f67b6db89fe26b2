"""Messages as HTTP requests: the same journal, answered after the sync."""
