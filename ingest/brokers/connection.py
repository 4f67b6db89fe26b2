"""One connection to an existing broker: the conversation on a transport, bounded in what may wait for the journal."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from enum import IntEnum
from typing import cast

import msgspec

from ingest.brokers.session import BrokerError, Phase, Session
from ingest.commit import ROW_BYTES, Group, GroupCommit

__all__ = ["Bounds", "BrokerConnection", "Taken"]

_ANSWER_S = 20.0  # how long a broker may take for its CONNACK, and for its SUBACKs
_LOOK_S = 1.0
_ASK_AGAIN_S = 60.0
_UNREAD_MAX = 64 * 1024  # acknowledgements that the broker has not read; then reading from it stops [bytes]


class _Hold(IntEnum):
    """Why nothing is read from a broker; bits."""

    BUFFER = 1  # too much of what it sent waits for the journal
    UNREAD = 2  # it does not read what we send
    QUEUE = 4  # all who send together have too much waiting


class Bounds(msgspec.Struct, frozen=True):
    """How much may wait for the journal: messages, and bytes of their packets."""

    messages: int = 20_000
    bytes: int = 32 * 1024 * 1024


class Taken(msgspec.Struct):
    """What was taken from a broker since the door started."""

    messages: int = 0
    refused: int = 0  # among them those that could not be taken, and were recorded with their reason


class BrokerConnection(asyncio.Protocol):
    """What goes over one connection, from its making to its end.

    It is who waits for the acknowledgements of what came over it: a later connection numbers its messages anew, so
    what an ended one still had to acknowledge must never be sent over another. `ended` gets why it ended.
    """

    def __init__(self, session: Session, commit: GroupCommit, bounds: Bounds, taken: Taken) -> None:
        self.session = session
        self.waiting = 0  # messages that wait for the journal
        self.ready = asyncio.Event()  # everything is subscribed
        self._gone = asyncio.Event()
        self._commit = commit
        self._bounds = bounds
        self._taken = taken
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[BrokerError] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._rest = b""  # bytes that were received and not taken yet
        self._held = 0
        self._group: Group | None = None  # the group that `_ids` belongs to
        self._ids: list[bytes] = []
        self._sizes: deque[tuple[int, int]] = deque()  # (messages, bytes) that wait, in the order of the reads
        self._bytes = 0
        self._begun = self._ready_at = self._heard = self._asked = self._pinged = self._loop.time()
        self._unread_since = 0.0  # loop time
        self._timer: asyncio.TimerHandle | None = None

    # ---- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_UNREAD_MAX)
        self._send()
        self._timer = self._loop.call_later(_LOOK_S, self._look)
        if self._commit.full:
            self.hold()

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        self._read(self._rest + data if self._rest else data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._gone.set()
        self._finish(BrokerError(f"the connection was lost: {exc}" if exc else "it closed the connection"))

    def pause_writing(self) -> None:
        self._unread_since = self._loop.time()
        self._hold(_Hold.UNREAD)

    def resume_writing(self) -> None:
        self._release(_Hold.UNREAD)

    # ---- what the group commit and the subscriber call

    def acknowledge(self, ids: list[bytes]) -> None:
        """Tell the broker that messages are durable, over the connection that they came by or not at all."""
        self.waiting -= len(ids)
        left = len(ids)
        while left > 0:
            count, size = self._sizes.popleft()
            self._bytes -= size
            left -= count
        if self._transport is None or self.ended.done():
            return
        self._transport.write(self.session.acknowledge(ids))
        if self._held & _Hold.BUFFER and not self._is_full():
            self._release(_Hold.BUFFER)

    def age_s(self) -> float:
        """Return how long ago everything was subscribed [s]; 0: it is not."""
        return self._loop.time() - self._ready_at if self.ready.is_set() else 0.0

    def hold(self) -> None:
        """Read nothing until `go_on`."""
        self._hold(_Hold.QUEUE)

    def go_on(self) -> None:
        """Read again, unless something else speaks against it."""
        self._release(_Hold.QUEUE)

    async def leave(self, within_s: float) -> None:
        """Say goodbye; the broker keeps the session.

        It is the broker who closes, once it has read all our acknowledgements: a reset by what it sent meanwhile would
        take them from it, and it would send all those messages again. Nothing of that is taken any more.
        """
        transport = self._transport
        if transport is None or self.ended.done():
            return
        transport.write(self.session.leave())
        self._conclude(BrokerError("we left", hint=""))
        transport.resume_reading()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._gone.wait()
        transport.abort()

    # ---- reading

    def _read(self, data: bytes) -> None:
        if self.ended.done():
            return
        group = self._commit.open
        before, turned_down = len(group.rows), self.session.turned_down
        ids: list[bytes] = []
        at, error = 0, None
        try:
            room = self._bounds.messages - self.waiting if self._bytes < self._bounds.bytes else 0
            at = self.session.take(data, time.time_ns() // 1000, group.rows, ids, room)
        except BrokerError as caught:
            at, error = len(data), caught
        added = len(group.rows) - before
        if ids:
            self._await(group, ids, at)
        if added:
            self._taken.messages += added
            self._taken.refused += self.session.turned_down - turned_down
            group.bytes += at + added * ROW_BYTES
            self._commit.touch()
        self._rest = data[at:] if at < len(data) else b""
        if error is not None:
            self._finish(error)
            return
        self._send()
        if self._is_full():
            self._hold(_Hold.BUFFER)

    def _await(self, group: Group, ids: list[bytes], size: int) -> None:
        """Note that these packets are to be acknowledged when the group is durable."""
        self.waiting += len(ids)
        self._bytes += size
        self._sizes.append((len(ids), size))
        if self._group is group:
            self._ids += ids
        else:
            self._group, self._ids = group, ids
            group.members.append((self, ids))

    def _is_full(self) -> bool:
        return self.waiting >= self._bounds.messages or self._bytes >= self._bounds.bytes

    def _send(self) -> None:
        if self.session.out and self._transport is not None:
            self._transport.write(b"".join(self.session.out))
            self.session.out.clear()
        if self.session.phase is Phase.READY and not self.ready.is_set():
            self._ready_at = self._loop.time()
            self.ready.set()

    def _hold(self, why: _Hold) -> None:
        if not self._held and self._transport is not None and not self.ended.done():
            self._transport.pause_reading()
        self._held |= why

    def _release(self, why: _Hold) -> None:
        self._held &= ~why
        if self._held or self.ended.done():
            return
        self._heard = self._loop.time()
        if self._rest:
            self._read(self._rest)
        self._resume()

    def _resume(self) -> None:
        if not self._held and self._transport is not None and not self.ended.done():
            self._transport.resume_reading()

    # ---- watching

    def _look(self) -> None:
        """Look every second whether the broker is still there; pings go out even while nothing is read."""
        now = self._loop.time()
        error = self._silence(now)
        if error is not None:
            self._finish(error)
            if self._transport is not None:
                self._transport.abort()
            return
        if self._transport is not None and self.session.phase:
            if now - self._pinged >= self.session.keep_alive_s / 2:
                self._pinged = now
                self._transport.write(self.session.ping())
            if now - self._asked >= _ASK_AGAIN_S:
                self._asked = now
                self.session.ask_again()
                self._send()
        self._timer = self._loop.call_later(min(_LOOK_S, self.session.keep_alive_s / 4), self._look)

    def _silence(self, now: float) -> BrokerError | None:
        """Tell what the broker has not answered in time; nothing can be said of what it sends while nothing is read."""
        if self._held & _Hold.UNREAD and now - self._unread_since > self.session.keep_alive_s:
            return BrokerError(f"it has read nothing of what we send for {self.session.keep_alive_s} s")
        if self._held:
            return None
        if not self.ready.is_set() and now - self._begun > _ANSWER_S:
            return BrokerError(f"no answer to our {self.session.phase.name.lower()} within {_ANSWER_S:g} s")
        if now - self._heard > self.session.keep_alive_s:
            return BrokerError(f"it has been silent for {self.session.keep_alive_s} s")
        return None

    def _finish(self, error: BrokerError) -> None:
        if self.ended.done():
            return
        self._conclude(error)
        if self._transport is not None:
            self._transport.close()

    def _conclude(self, error: BrokerError) -> None:
        """Take and send nothing from here on."""
        self.ended.set_result(error)
        self._rest = b""
        if self._timer is not None:
            self._timer.cancel()
