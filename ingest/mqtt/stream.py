"""The bytes to and from one client: reading that can be held, and last words that are heard."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from enum import IntEnum
from typing import cast

__all__ = ["Hold", "Stream"]

_CLOSE_S = 2.0  # how long a client may take to read our last words
_UNREAD_MAX = 64 * 1024  # answers that a client has not read; then reading from it stops [bytes]
_PROBE_AFTER_S = 120  # of silence, TCP asks whether the other end is still there


class Hold(IntEnum):
    """Why nothing is read from a connection: bits, which as plain integers cost a tenth of what flags do."""

    IN_FLIGHT = 1  # too many of its messages wait for their commit
    UNREAD = 2  # it does not read its answers
    QUEUE = 4  # all connections together have too much waiting
    TURN = 8  # it sent so many packets at once that the others come first
    RATE = 16  # its principal has used up its bucket
    SHARE = 32  # it has had its share of the group that is growing


class Stream(asyncio.Protocol):
    """A transport from which nothing is read while anything speaks against it."""

    __slots__ = ("_ended", "_held", "_rest", "_timer", "_transport", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._transport: asyncio.Transport | None = None
        self._ended = False
        self._rest = b""  # bytes that were received and not taken yet
        self._held = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_UNREAD_MAX)
        _probe_when_silent(self._transport)

    def pause_writing(self) -> None:
        self._hold(Hold.UNREAD)

    def resume_writing(self) -> None:
        self._release(Hold.UNREAD)

    @property
    def is_held(self) -> bool:
        """Whether nothing is read for now."""
        return bool(self._held)

    @property
    def is_jammed(self) -> bool:
        """Whether the client does not read what it was sent."""
        return bool(self._held & Hold.UNREAD)

    def hold(self) -> None:
        """Read nothing until `go_on`."""
        self._hold(Hold.QUEUE)

    def go_on(self) -> None:
        """Read again, unless something else speaks against it."""
        self._release(Hold.QUEUE)

    def write(self, data: bytes) -> None:
        """Send bytes, unless it has ended."""
        if self._transport is not None and not self._ended:
            self._transport.write(data)

    def abort(self) -> None:
        """Close at once, whatever the client has not read yet."""
        if self._transport is not None:
            self._transport.abort()

    def _linger(self, transport: asyncio.Transport) -> None:
        """Close, but read on for a moment: a reset by unread bytes would take our last words from the client."""
        self._ended = True
        self._rest = b""
        if transport.can_write_eof():
            with contextlib.suppress(OSError):
                transport.write_eof()
        transport.resume_reading()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(_CLOSE_S, transport.abort)

    def _read(self, data: bytes) -> None:
        raise NotImplementedError

    def _hold(self, why: Hold) -> None:
        if not self._held and self._transport is not None and not self._ended:
            self._transport.pause_reading()
        self._held |= why

    def _release(self, why: Hold) -> None:
        self._held &= ~why
        if self._held or self._ended:
            return
        if self._rest:
            self._read(self._rest)
        self._resume()

    def _resume(self) -> None:
        if not self._held and self._transport is not None:
            self._transport.resume_reading()


def _probe_when_silent(transport: asyncio.Transport) -> None:
    """Let TCP find out that a client without keep-alive is gone."""
    sock = transport.get_extra_info("socket")
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_AFTER_S)
