"""The outbox: sends every notice through every channel, at least once, under the key that it was written with."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping

from sqlalchemy import Engine

from analytics.notify import Channel
from qala.state.outbox import Delivery, due_deliveries, mark_delivered, mark_failed

__all__ = ["GIVE_UP_AFTER_US", "Outbox"]

logger = logging.getLogger(__name__)

BATCH_MAX = 100
GIVE_UP_AFTER_US = 24 * 3_600_000_000


class Outbox:
    """Sends what is due and keeps what failed, with growing pauses, for a day."""

    def __init__(self, engine: Engine, channels: Mapping[str, Channel], *, retry_max_s: float = 300.0) -> None:
        self._engine = engine
        self._retry_max_s = retry_max_s
        self._channels = channels
        self.sent = 0
        self.failed = 0

    def step(self, now_us: int) -> int:
        """Try everything that is due once and return how much was tried."""
        due = due_deliveries(self._engine, now_us, BATCH_MAX)
        for delivery in due:
            self._try(delivery, now_us)
        return len(due)

    def _try(self, delivery: Delivery, now_us: int) -> None:
        try:
            self._channels[delivery.channel].send(json.loads(delivery.body))
        except Exception as error:  # noqa: BLE001 - a channel is somebody else's code and network; the notice is kept
            self.failed += 1
            logger.warning("notice %s was not taken by %s: %s", delivery.key, delivery.channel, error)
            mark_failed(self._engine, delivery, str(error), now_us + backoff_us(delivery.attempts, self._retry_max_s))
        else:
            self.sent += 1
            mark_delivered(self._engine, delivery, now_us)

    def run(self, stop: threading.Event) -> None:
        """Send until told to stop; looks once a second."""
        while not stop.is_set():
            if not self.step(time.time_ns() // 1000):
                stop.wait(1.0)


def backoff_us(attempts: int, most_s: float = 300.0) -> int:
    """Return the pause after a failed attempt [us]: twice as long each time, up to `most_s`.

    >>> [backoff_us(n) // 1_000_000 for n in (0, 1, 5, 20)]
    [1, 2, 32, 300]
    """
    return round(min(1 << min(attempts, 20), most_s) * 1_000_000)
