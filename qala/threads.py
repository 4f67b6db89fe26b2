"""Threads that go on whatever fails in them."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from qala.process import name_thread

__all__ = ["Worker"]

_log = logging.getLogger(__name__)

_RETRY_S = (0.5, 30.0)
_WELL_AFTER_S = 60.0  # longer than the longest pause before a failed thread begins again


class Worker(threading.Thread):
    """A thread that runs until told to stop; where it fails, it says so and begins again after a pause."""

    def __init__(self, name: str, run: Callable[[threading.Event], None], stop: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self._run_until = run
        self._stop_asked = stop
        self._failed_at = -math.inf

    def is_well(self) -> bool:
        """Tell whether it runs, and did not fail a moment ago."""
        return self.is_alive() and time.monotonic() - self._failed_at > _WELL_AFTER_S

    def run(self) -> None:
        name_thread(self.name)
        wait_s = _RETRY_S[0]
        while not self._stop_asked.is_set():
            try:
                self._run_until(self._stop_asked)
            except Exception:  # noqa: BLE001 - whatever it is: the other parts go on, and health tells
                _log.exception("the %s failed; it begins again in %g s", self.name, wait_s)
                self._failed_at = time.monotonic()
                self._stop_asked.wait(wait_s)
                wait_s = min(wait_s * 2, _RETRY_S[1])
