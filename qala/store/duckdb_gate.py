"""Who may write to the DuckDB file when: one writer at a time, and none into days that upkeep is working on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from devices.reading import Int64Array
from qala.store.base import Span

BEGINNING_US = -(2**62)
"""Before every reading; the boundary of a file that has nothing in `cold`."""


class Gate:
    """Lets one writer in at a time; upkeep closes it for the times that it rewrites, and the others pass.

    It also knows the boundary: readings before `settled_us` are in `cold`, the others in `hot`. It changes only under the
    gate's lock, together with the commit that moved the readings.
    """

    def __init__(self, settled_us: int) -> None:
        self.settled_us = settled_us
        self._condition = threading.Condition(threading.Lock())
        self._closed: Span | None = None

    @contextmanager
    def writing(self, time_us: Int64Array | Span | None = None) -> Iterator[None]:
        """Write readings of these times, or none, alone; waits while one of them is in what upkeep is rewriting."""
        with self._condition:
            while _meets(self._closed, time_us):
                self._condition.wait()
            yield

    @contextmanager
    def closed(self, span: Span, *, settled_us: int | None = None) -> Iterator[None]:
        """Keep writers out of a span; whatever a writer committed before is seen by what is begun inside.

        Where a boundary is given, it counts once the inside has succeeded, before any writer that waited goes on.
        """
        with self._condition:
            self._closed = span
        try:
            yield
            with self._condition:
                self.settled_us = self.settled_us if settled_us is None else settled_us
        finally:
            with self._condition:
                self._closed = None
                self._condition.notify_all()


def _meets(closed: Span | None, time_us: Int64Array | Span | None) -> bool:
    if closed is None or time_us is None:
        return False
    if isinstance(time_us, Span):
        return time_us.start_us < closed.stop_us and time_us.stop_us > closed.start_us
    return bool(((time_us >= closed.start_us) & (time_us < closed.stop_us)).any())
