"""Turns for what only so many may do at once: shared out among the networks that ask, whoever asks most."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator

__all__ = ["Turns", "network"]


class Turns:
    """At most `most` at once, and of one network no more than three quarters of them. Lives in one event loop.

    Networks take turns, however many wait in each; within one, who came first goes first. Where `waiting_max` wait, the
    last one goes of the network that has most.
    """

    def __init__(self, most: int, *, waiting_max: int) -> None:
        self._most = most
        self._share = max(most * 3 // 4, 1)
        self._waiting_max = waiting_max
        self._taken: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._count = 0  # of those that wait

    @contextlib.asynccontextmanager
    async def of(self, origin: str) -> AsyncIterator[None]:
        """Wait for a turn of a network, and have it until the end of the block. Raises ConnectionError where too many wait."""
        await self._take(origin)
        try:
            yield
        finally:
            self._return(origin)

    async def _take(self, origin: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(origin, deque()).append(turn)
        self._count += 1
        self._give()
        if self._count > self._waiting_max:
            self._send_away()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it had just been given
                self._return(origin)
            raise

    def _return(self, origin: str) -> None:
        self._taken[origin] -= 1
        if not self._taken[origin]:
            del self._taken[origin]
        self._give()

    def _send_away(self) -> None:
        """Let the last one go of the network in which most wait."""
        origin = max(self._waiting, key=lambda each: len(self._waiting[each]))
        turn = self._pop(origin, last=True)
        if not turn.done():
            turn.set_exception(ConnectionAbortedError("too many wait for a handshake"))

    def _pop(self, origin: str, *, last: bool = False) -> asyncio.Future[None]:
        queue = self._waiting[origin]
        turn = queue.pop() if last else queue.popleft()
        self._count -= 1
        if not queue:
            del self._waiting[origin]
        return turn

    def _give(self) -> None:
        """Give the turns that are free to networks that wait, one after another."""
        while self._taken.total() < self._most:
            origin = next((each for each in self._waiting if self._taken[each] < self._share), None)
            if origin is None:
                return
            self._waiting.move_to_end(origin)
            turn = self._pop(origin)
            if not turn.done():
                self._taken[origin] += 1
                turn.set_result(None)


def network(address: str) -> str:
    """Return an address, or the network that an IPv6 address is in: whoever has one of it has them all.

    >>> network("10.0.0.7"), network("2001:db8:1:2:3::4"), network("::ffff:10.0.0.7"), network("the owner's socket")
    ('10.0.0.7', '2001:db8:1:2::', '10.0.0.7', "the owner's socket")
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)
