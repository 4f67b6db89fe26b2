"""Devices that publish at QoS 1, keep what is not acknowledged, and come back when they are cut off: 3.1.1, one connection each.

A thread of its own drives them all. What was acknowledged, when, and how often a device had to come back is noted.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import uvloop

from ingest.mqtt.packets import V311, Connect, Publish, connect, publish
from tests.wait import until

__all__ = ["Acknowledged", "Credential", "Fleet", "Order", "percentile"]

Credential = Callable[[str], tuple[str, bytes]]
"""Gives a device's user name and password."""

BACKOFF_MIN_S, BACKOFF_MAX_S = 0.05, 1.0
_TICK_S = 0.005
_GOODBYE_S = 5.0
_IDS_MAX = 65_535


class Order(NamedTuple):
    """One message that is to be sent: its number, who sends it, and what."""

    number: int
    device: str
    topic: str
    payload: bytes


class Acknowledged(NamedTuple):
    """When the last try of a message went out, and when it was acknowledged [s, monotonic]."""

    sent_s: float
    acknowledged_s: float


class _Device(asyncio.Protocol):
    """One device's connection, made again and again."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.fleet, self.name = fleet, name
        self.due: deque[Order] = deque()
        self.unacknowledged: dict[int, tuple[Order, float]] = {}  # packet id -> what, and when it was sent
        self.connected = False
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._asked_s = 0.0
        self._id = 0
        self._backoff_s = BACKOFF_MIN_S

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    async def dial(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.fleet.closing:
            try:
                await loop.create_connection(lambda: self, *self.fleet.address, ssl=self.fleet.tls)
            except OSError:
                await asyncio.sleep(self._next_wait_s())
            else:
                return

    def _next_wait_s(self) -> float:
        wait_s, self._backoff_s = self._backoff_s, min(2 * self._backoff_s, BACKOFF_MAX_S)
        return random.uniform(wait_s / 2, wait_s)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        self._rest = b""
        username, password = self.fleet.credential(self.name) if self.fleet.credential else (None, None)
        self._asked_s = time.monotonic()
        self._write(connect(Connect(V311, self.name, True, 60, username=username, password=password)))

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        at = 0
        while len(data) - at >= 4:  # CONNACK and PUBACK of 3.1.1 both have four bytes
            self._take(data[at : at + 4])
            at += 4
        self._rest = data[at:]
        self.send()

    def _take(self, packet: bytes) -> None:
        if packet[:2] == b"\x20\x02":
            if packet[3]:
                self.fleet.refused += 1
                return
            self.connected, self._backoff_s = True, BACKOFF_MIN_S
            self.fleet.greet(time.monotonic() - self._asked_s)
            self._send_again()
        elif packet[:2] == b"\x40\x02":
            order, sent_s = self.unacknowledged.pop(int.from_bytes(packet[2:], "big"))
            self.fleet.take_note(order, sent_s)
        else:
            self.fleet.surprises.append(packet)

    def _send_again(self) -> None:
        now = time.monotonic()
        for packet_id, (order, _) in self.unacknowledged.items():
            self.unacknowledged[packet_id] = (order, now)
            self._write(publish(V311, Publish(order.topic, order.payload, 1, packet_id, duplicate=True)))

    def send(self) -> None:
        """Send what is due, as far as the window allows."""
        if not self.connected:
            return
        now, packets = time.monotonic(), []
        while self.due and len(self.unacknowledged) < self.fleet.window:
            order = self.due.popleft()
            self._id = self._id % _IDS_MAX + 1
            self.unacknowledged[self._id] = (order, now)
            packets.append(publish(V311, Publish(order.topic, order.payload, 1, self._id)))
        if packets:
            self._write(b"".join(packets))

    def connection_lost(self, exc: Exception | None) -> None:
        self.connected, self._transport = False, None
        if not self.fleet.closing:
            self.fleet.losses += 1
            asyncio.get_running_loop().call_later(self._next_wait_s(), self._dial_again)

    def _dial_again(self) -> None:
        self.fleet.keep(asyncio.ensure_future(self.dial()))

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def leave(self) -> None:
        if self._transport is not None:
            self._write(b"\xe0\x00")
            self._transport.close()


class Fleet:
    """Publishes `orders`, those of a device in their order; `rate` limits all devices together [1/s]."""

    def __init__(
        self,
        address: tuple[str, int],
        orders: Iterable[Order],
        *,
        window: int = 20,
        rate: float | None = None,
        credential: Credential | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.address, self.window, self.credential, self.tls = address, window, credential, tls
        self.orders = list(orders)
        self.acknowledged: dict[int, Acknowledged] = {}
        self.connects = self.losses = self.refused = 0
        self.greetings_s: list[float] = []  # from a CONNECT to its CONNACK
        self.surprises: list[bytes] = []
        self.closing = False
        self._rate = rate
        self._devices: dict[str, _Device] = {}
        self._tasks: set[asyncio.Future[None]] = set()
        self._welcome = asyncio.Event()  # all were connected at once
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Fleet:
        """Connect all devices, and begin to publish when they are."""
        self._thread.start()
        return self

    def __enter__(self) -> Fleet:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_done(self) -> bool:
        return len(self.acknowledged) == len(self.orders)

    @property
    def in_flight(self) -> int:
        return sum(len(device.unacknowledged) for device in tuple(self._devices.values()))

    @property
    def connected(self) -> int:
        return sum(device.connected for device in tuple(self._devices.values()))

    def is_all_connected(self) -> bool:
        return bool(self._devices) and self.connected == len(self._devices)

    def wait_until_acknowledged(self, count: int, *, deadline_s: float = 300.0) -> None:
        until(lambda: len(self.acknowledged) >= count, deadline_s=deadline_s, every_s=0.002)

    def wait_until_done(self, *, deadline_s: float = 300.0) -> None:
        """Wait for the last PUBACK, and make sure that nothing but PUBACKs came."""
        self.wait_until_acknowledged(len(self.orders), deadline_s=deadline_s)
        assert self.surprises == []

    def drop(self) -> None:
        """Break every connection; all devices come back at once."""
        self._loop.call_soon_threadsafe(lambda: [device.abort() for device in self._devices.values()])

    def close(self) -> None:
        if not self.closing:
            self._loop.call_soon_threadsafe(self._part)
            self._thread.join(20)

    def latencies_s(self, start_s: float = 0.0, stop_s: float = float("inf")) -> list[float]:
        """Return how long PUBACKs took [s] of what was sent within [start, stop) of the monotonic clock, rising."""
        found = tuple(self.acknowledged.values())
        return sorted(one.acknowledged_s - one.sent_s for one in found if start_s <= one.sent_s < stop_s)

    def calm_p99_s(self, start_s: float, stop_s: float) -> float:
        """Return the p99 of PUBACKs [s] in a calm second from start to stop: a quarter of the seconds are no slower.

        A disk that is held up for a moment spoils single seconds; whatever makes the door slow spoils them all.
        """
        seconds = [self.latencies_s(start, start + 1) for start in np.arange(start_s, stop_s, 1.0)]
        return percentile(sorted(percentile(second, 0.99) for second in seconds if second), 0.25)

    def take_note(self, order: Order, sent_s: float) -> None:
        self.acknowledged.setdefault(order.number, Acknowledged(sent_s, time.monotonic()))

    def greet(self, after_s: float) -> None:
        """Take note that a device was let in."""
        self.connects += 1
        self.greetings_s.append(after_s)
        if self.is_all_connected():
            self._welcome.set()

    def keep(self, task: asyncio.Future[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _run(self) -> None:
        self._loop.create_task(self._feed())
        self._loop.run_forever()
        self._loop.close()

    def _part(self) -> None:
        self.closing = True
        self.keep(self._loop.create_task(self._leave()))

    async def _leave(self) -> None:
        """Say goodbye, and see every connection closed."""
        for device in self._devices.values():
            device.leave()
        for _ in range(int(_GOODBYE_S / _TICK_S)):
            if not any(device.is_open for device in self._devices.values()):
                break
            await asyncio.sleep(_TICK_S)
        for device in self._devices.values():
            device.abort()
        await asyncio.sleep(_TICK_S)
        self._loop.stop()

    async def _feed(self) -> None:
        for order in self.orders:
            if order.device not in self._devices:
                self._devices[order.device] = _Device(self, order.device)
        await asyncio.gather(*(device.dial() for device in self._devices.values()))
        await self._welcome.wait()
        began, given = time.monotonic(), 0
        while given < len(self.orders) and not self.closing:
            due = len(self.orders) if self._rate is None else int((time.monotonic() - began) * self._rate) + 1
            for order in self.orders[given:due]:
                self._devices[order.device].due.append(order)
            for order in self.orders[given:due]:
                self._devices[order.device].send()
            given = min(due, len(self.orders))
            await asyncio.sleep(_TICK_S)


def percentile(rising: list[float], share: float) -> float:
    """Return what a share (0 to 1) of the numbers does not exceed."""
    return rising[min(int(share * len(rising)), len(rising) - 1)]
