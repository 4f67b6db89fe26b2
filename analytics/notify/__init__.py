"""Ways to tell people: one module each, with a class that has a name and one `send`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["Channel", "Notice"]

Notice = Mapping[str, Any]
"""What is told: a JSON object with key, kind, rule, title, zone, severity, start, end, value, unit, owner and runbook."""


class Channel(Protocol):
    """One way to tell people."""

    name: str

    def send(self, notice: Notice) -> None:
        """Deliver one notice. Raise any exception where that failed: it is tried again later, under the same key."""
