"""Wait for a condition instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], *, deadline_s: float = 10.0, every_s: float = 0.01) -> T:
    """Return the condition's first true result; fail when the deadline passes first."""
    stop = time.monotonic() + deadline_s
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > stop:
            raise AssertionError(f"not true within {deadline_s} s: {condition}")
        time.sleep(every_s)
