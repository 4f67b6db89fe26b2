"""Wills that wait: an MQTT 5 client may ask that its will is kept back for a while, in case it comes again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ingest.session import Key

__all__ = ["Wills"]

_WILLS_MAX = 10_000  # that wait; further ones do not


class Wills:
    """Carry wills out, now or after their delay (section 3.1.3.2.2). Lives in one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[Key, tuple[asyncio.TimerHandle, Callable[[], None]]] = {}

    def leave(self, key: Key, record: Callable[[], None], delay_s: float) -> None:
        """Record a will after `delay_s`, unless its client has resumed its session by then."""
        self.carry_out(key)
        if delay_s <= 0 or len(self._waiting) >= _WILLS_MAX:
            self._loop.call_soon(record)  # not while a connection is adding rows
        else:
            self._waiting[key] = self._loop.call_later(delay_s, self.carry_out, key), record

    def drop(self, key: Key) -> None:
        """Forget a client's will: it is back."""
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            waiting[0].cancel()

    def carry_out(self, key: Key) -> None:
        """Record a client's will now: its session is over."""
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            waiting[0].cancel()
            waiting[1]()

    def carry_out_all(self) -> None:
        """Record all that wait: nobody will be there to do it later."""
        for key in tuple(self._waiting):
            self.carry_out(key)
