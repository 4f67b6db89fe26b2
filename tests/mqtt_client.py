"""An MQTT client that says exactly what a test tells it to, right or wrong, over a plain socket; and a listener for it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ingest.commit import CommitLimits, GroupCommit, Sink
from ingest.gate import Gate
from ingest.mqtt.listener import Listener
from ingest.mqtt.packets import V311, Connect, Publish, Will, connect, publish
from ingest.mqtt.wire import Properties, remaining_length
from ingest.settings import IngestSettings

__all__ = ["RawClient", "listening", "pubrel"]

T = TypeVar("T")


def pubrel(packet_id: int) -> bytes:
    """Encode a PUBREL, as a client sends it."""
    return b"\x62\x02" + packet_id.to_bytes(2, "big")


class RawClient:
    """A socket with MQTT on it. Every wait ends after `timeout_s`."""

    def __init__(
        self, address: tuple[str, int] | Path, *, tls: ssl.SSLContext | None = None, timeout_s: float = 10.0
    ) -> None:
        if isinstance(address, Path):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout_s)
            self.socket.connect(str(address))
        else:
            self.socket = socket.create_connection(address, timeout=timeout_s)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.version = V311
        self._data = b""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def connect(
        self,
        client: str = "c",
        version: int = V311,
        *,
        clean: bool = True,
        keep_alive_s: int = 0,
        will: Will | None = None,
        username: str | None = None,
        password: bytes | None = None,
        properties: Properties | None = None,
    ) -> bytes:
        """Connect and return the CONNACK."""
        self.version = version
        self.send(connect(Connect(version, client, clean, keep_alive_s, will, username, password, properties)))
        return self.packet()

    def publish(self, *numbers: int, topic: str = "qala/1/demo/d/t", qos: int = 1, payload: bytes = b"") -> None:
        """Publish one message for each number, in one write; the number is the packet identifier and the payload."""
        packets = (Publish(topic, payload or str(number).encode(), qos, number if qos else 0) for number in numbers)
        self.send(b"".join(publish(self.version, packet) for packet in packets))

    def packet(self) -> bytes:
        """Read one packet; empty when the other end closed."""
        while True:
            header = remaining_length(self._data, 1) if self._data else None
            if header is not None and len(self._data) >= sum(header):
                size = sum(header)
                packet, self._data = self._data[:size], self._data[size:]
                return packet
            try:
                more = self.socket.recv(65536)
            except ConnectionResetError:
                return b""
            if not more:
                return b""
            self._data += more

    def pubacks(self, count: int) -> list[int]:
        """Read so many PUBACKs and return their packet identifiers."""
        packets = [self.packet() for _ in range(count)]
        assert all(packet[:2] == b"\x40\x02" for packet in packets), packets
        return [int.from_bytes(packet[2:], "big") for packet in packets]

    def hears_nothing(self, for_s: float) -> bool:
        """Tell whether nothing comes for so long."""
        before = self.socket.gettimeout()
        self.socket.settimeout(for_s)
        try:
            return not self._data and not self.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(before)

    def is_closed(self) -> bool:
        """Wait until the other end closes; whatever it still says is dropped."""
        while self.packet():
            pass
        return True


class _Live:
    """A listener in a thread of its own."""

    def __init__(
        self, listener: Listener, loop: asyncio.AbstractEventLoop, addresses: dict[str, tuple[str, int]]
    ) -> None:
        self.listener = listener
        self.addresses = addresses
        self.address = addresses["mqtt"]
        self._loop = loop

    def client(self) -> RawClient:
        return RawClient(self.address)

    def call(self, job: Callable[[], T]) -> T:
        """Run a function in the listener's loop and return what it returns."""

        async def run() -> T:
            return job()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)

    async def _stop(self) -> None:
        await self.listener.stop(within_s=1.0)
        self.listener.commit.close()


@contextlib.contextmanager
def listening(
    sink: Sink,
    settings: IngestSettings | None = None,
    gate: Gate | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    socket_path: Path | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
) -> Iterator[_Live]:
    """Run a listener on a free port while the block runs."""
    loop = loop or asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    chosen = settings or IngestSettings()

    async def start() -> _Live:
        commit = GroupCommit(sink, CommitLimits.of(chosen))
        listener = Listener(
            chosen.model_copy(update={"mqtt": "127.0.0.1:0"}), commit, gate, tls=tls, socket=socket_path
        )
        return _Live(listener, loop, await listener.start())

    try:
        live = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        try:
            yield live
        finally:
            if not live.listener.stopping:
                live.stop()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
