"""Wills that wait: an MQTT 5 client may ask that its will is kept back for a while, in case it comes again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ingest.mqtt.packets import Will
from ingest.mqtt.session import Key

__all__ = ["Wills", "size_of"]

_WILLS_MAX = 10_000  # that wait; further ones do not
_BYTES_MAX = 64 * 1024 * 1024  # of those that wait


def size_of(will: Will) -> int:
    """Return about what a will takes in memory [bytes]."""
    said = len(will.properties.user) if will.properties is not None else 0
    return 1_000 + len(will.payload) + 250 * said


class Wills:
    """Carry wills out, now or after their delay (section 3.1.3.2.2). Lives in one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[Key, tuple[asyncio.TimerHandle, Callable[[], None], int]] = {}
        self._bytes = 0

    def leave(self, key: Key, record: Callable[[], None], delay_s: float, size: int) -> None:
        """Record a will of `size` bytes after `delay_s`, unless its client has resumed its session by then."""
        self.carry_out(key)
        if delay_s <= 0 or len(self._waiting) >= _WILLS_MAX or self._bytes + size > _BYTES_MAX:
            self._loop.call_soon(record)  # not while a connection is adding rows
        else:
            self._bytes += size
            self._waiting[key] = self._loop.call_later(delay_s, self.carry_out, key), record, size

    def drop(self, key: Key) -> None:
        """Forget a client's will: it is back."""
        self._pop(key)

    def carry_out(self, key: Key) -> None:
        """Record a client's will now: its session is over."""
        record = self._pop(key)
        if record is not None:
            record()

    def _pop(self, key: Key) -> Callable[[], None] | None:
        timer, record, size = self._waiting.pop(key, (None, None, 0))
        self._bytes -= size
        if timer is not None:
            timer.cancel()
        return record

    def carry_out_all(self) -> None:
        """Record all that wait: nobody will be there to do it later."""
        for key in tuple(self._waiting):
            self.carry_out(key)
