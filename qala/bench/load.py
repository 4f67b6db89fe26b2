"""A load generator: many MQTT 3.1.1 connections that publish with QoS 1 and check every PUBACK.

Packets are encoded before the clock starts, so that one core of it can load several of a server. Meant to be run in
a process of its own.
"""

from __future__ import annotations

import selectors
import socket
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from devices.errors import UnavailableError
from ingest.mqtt.packets import V311, Connect, Publish, connect, pubacks, publish

__all__ = ["LoadResult", "run_load"]

_READ = 256 * 1024
_ID_MAX = 65_535
_PATIENCE_S = 30.0


class LoadResult(msgspec.Struct):
    """What a load came to. `latencies` are from the sending of a message to its PUBACK [s], float64[acked]."""

    acked: int
    seconds: float
    latencies: array[float]

    @property
    def per_second(self) -> float:
        """Acknowledged messages a second."""
        return self.acked / self.seconds

    def percentile(self, share: float) -> float:
        """Return the latency that a share (0 to 1) of the messages did not exceed [s]."""
        ordered = sorted(self.latencies)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


class _Sender:
    """One connection: its packets, how many were sent, and the PUBACKs that must come back."""

    def __init__(self, address: tuple[str, int], client: str, in_flight: int) -> None:
        self.socket = socket.create_connection(address, timeout=_PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(connect(Connect(V311, client)))
        if self.socket.recv(4) != b"\x20\x02\x00\x00":
            raise UnavailableError(
                "the listener refused a connection", hint="raise connections_max, or load it with fewer"
            )
        self.socket.setblocking(False)
        self.packets: list[bytes] = []
        self.expected = b""  # every PUBACK, in order
        self.in_flight = in_flight
        self.sent = 0
        self.received = 0  # bytes of PUBACKs
        self.unsent = b""  # what the kernel did not take of the last packets
        self.waiting: deque[tuple[int, float]] = deque()  # (number of the first message after these, when they went)

    def add(self, topic: str, payload: bytes) -> None:
        number = len(self.packets) % _ID_MAX + 1
        self.packets.append(publish(V311, Publish(topic, payload, 1, number)))

    def ready(self) -> None:
        ids = [(index % _ID_MAX + 1).to_bytes(2, "big") for index in range(len(self.packets))]
        self.expected = pubacks(ids) if ids else b""

    def send(self, now: float, allowed: int) -> int:
        """Send up to `allowed` more messages of the window; return how many went out."""
        stop = min(self.received // 4 + self.in_flight, len(self.packets), self.sent + allowed)
        count = stop - self.sent
        if count > 0:
            self.unsent += b"".join(self.packets[self.sent : stop])
            self.sent = stop
            self.waiting.append((stop, now))
        if self.unsent:
            try:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
            except BlockingIOError:
                return max(count, 0)
        return max(count, 0)

    def receive(self, now: float, latencies: array[float]) -> int:
        """Read PUBACKs; return how many messages they completed."""
        data = self.socket.recv(_READ)
        before, self.received = self.received // 4, self.received + len(data)
        if not data or data != self.expected[self.received - len(data) : self.received]:
            raise UnavailableError(
                "the listener closed, or sent something else than the next PUBACK", hint="see its log"
            )
        acked = self.received // 4
        done = before
        while done < acked:
            stop, sent_at = self.waiting[0]
            reached = min(stop, acked)
            latencies.extend([now - sent_at] * (reached - done))
            done = reached
            if done == stop:
                self.waiting.popleft()
        return acked - before


def run_load(
    host: str,
    port: int,
    *,
    connections: int,
    in_flight: int,
    messages: Iterable[tuple[str, bytes]],
    rate: float | None = None,
    client: str = "load",
    on_ready: Callable[[], None] = lambda: None,
) -> LoadResult:
    """Publish (topic, payload) pairs, dealt out to the connections in turn, and wait for all PUBACKs.

    Each connection has at most `in_flight` messages unacknowledged; `rate` limits all together [1/s]. `on_ready` is called
    when all is connected and encoded, before the first message goes.

    Raises:
        UnavailableError: a connection was refused or lost, or a PUBACK is not the next one due.
    """
    senders = [_Sender((host, port), f"{client}-{index}", in_flight) for index in range(connections)]
    try:
        total = _deal(senders, messages)
        on_ready()
        return _drive(senders, total, rate)
    finally:
        for sender in senders:
            sender.socket.close()


def _deal(senders: list[_Sender], messages: Iterable[tuple[str, bytes]]) -> int:
    total = 0
    for topic, payload in messages:
        senders[total % len(senders)].add(topic, payload)
        total += 1
    for sender in senders:
        sender.ready()
    return total


def _drive(senders: list[_Sender], total: int, rate: float | None) -> LoadResult:
    latencies: array[float] = array("d")
    with selectors.EpollSelector() as selector:
        for sender in senders:
            selector.register(sender.socket, selectors.EVENT_READ, sender)
        begin = now = time.perf_counter()
        acked = sent = turn = 0
        while acked < total:
            due = total if rate is None else min(int((now - begin) * rate) + 1, total)
            if sent < due or any(sender.unsent for sender in senders):
                for step in range(len(senders)):
                    sender = senders[(turn + step) % len(senders)]
                    sent += sender.send(now, due - sent if rate is None else min(1, due - sent))
                turn += 1
            events = selector.select(_PATIENCE_S if rate is None and not _stuck(senders) else 0.001)
            now = time.perf_counter()
            if rate is None and not events and not _stuck(senders):
                raise UnavailableError(f"no PUBACK for {_PATIENCE_S} s", hint="is its disk full? See the door's log")
            for key, _ in events:
                acked += key.data.receive(now, latencies)
                if rate is None:
                    sent += key.data.send(now, total)
    return LoadResult(acked, time.perf_counter() - begin, latencies)


def _stuck(senders: list[_Sender]) -> bool:
    return any(sender.unsent for sender in senders)
