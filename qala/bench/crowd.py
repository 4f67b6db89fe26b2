"""Many connections: what an idle one costs in memory, and how long a crowd takes to come back over TLS."""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from devices.errors import UnavailableError
from ingest.mqtt.packets import V311, Connect, connect
from qala.bench.generator import Generator, Shape, generator
from qala.bench.servers import ENDPOINTS, Endpoint, make_certificate
from qala.bench.store_peer import memory_mib

__all__ = ["Idle", "Storm", "bench_idle", "bench_storm"]

_AT_ONCE = 200  # handshakes that the crowd has under way
_PATIENCE_S = 120.0
_CALM = Shape("calm", connections=1, in_flight=1, devices=1, messages=2_000, rate=100.0)


class Idle(msgspec.Struct):
    """What idle connections take of an endpoint's memory."""

    endpoint: str
    connections: int
    before_mib: float
    after_mib: float

    @property
    def kib_each(self) -> float:
        return round(1024 * (self.after_mib - self.before_mib) / self.connections, 1)


class Storm(msgspec.Struct):
    """A crowd that connects over TLS at once, and a calm device's PUBACKs meanwhile."""

    endpoint: str
    connections: int
    seconds: float  # until all are connected
    connack_p99_ms: float
    calm_p50_ms: float
    calm_p99_ms: float


def bench_idle(connections: int, say: Callable[[str], None]) -> list[Idle]:
    """Measure the memory of so many idle connections at each endpoint. Raises UnavailableError where they are refused."""
    return [_idle(name, connections, say) for name in ENDPOINTS]


def _idle(name: str, connections: int, say: Callable[[str], None]) -> Idle:
    with tempfile.TemporaryDirectory(prefix="qala-") as folder, ENDPOINTS[name](Path(folder), None) as endpoint:
        say(f"{connections:,} idle connections to {name}")
        before, _ = memory_mib(endpoint.pid)
        with _crowd(endpoint.mqtt, connections, tls=False) as crowd:
            crowd.gather()
            after, _ = memory_mib(endpoint.pid)
        return Idle(name, connections, round(before, 1), round(after, 1))


def bench_storm(connections: int, say: Callable[[str], None]) -> list[Storm]:
    """Let a crowd connect over TLS to each endpoint, beside a calm device that sends as many messages as they are.

    Raises UnavailableError where somebody is refused.
    """
    return [_storm(name, connections, say) for name in ENDPOINTS]


def _storm(name: str, connections: int, say: Callable[[str], None]) -> Storm:
    with tempfile.TemporaryDirectory(prefix="qala-") as folder:
        certificate = make_certificate(Path(folder))
        Path(folder).chmod(0o755)
        with ENDPOINTS[name](Path(folder), certificate) as endpoint, _calm(endpoint, connections) as calm:
            say(f"{connections:,} TLS connections at once to {name}")
            with _crowd(endpoint.tls or endpoint.mqtt, connections, tls=True) as crowd:
                calm.start()
                gathered = crowd.gather()
                beside = calm.wait()
    return Storm(
        endpoint=name,
        connections=connections,
        seconds=round(gathered.seconds, 2),
        connack_p99_ms=round(1000 * gathered.p99_s, 1),
        calm_p50_ms=round(1000 * beside.p50_s, 2),
        calm_p99_ms=round(1000 * beside.p99_s, 2),
    )


@contextmanager
def _calm(endpoint: Endpoint, messages: int) -> Iterator[Generator]:
    device = msgspec.structs.replace(_CALM, messages=messages)
    with generator(device, endpoint.mqtt, stop_us=time.time_ns() // 1000, client="calm") as calm:
        yield calm


class _Gathered(msgspec.Struct):
    """How long all took together, and single ones to their CONNACK [s]."""

    seconds: float
    p99_s: float


class _Crowd:
    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def gather(self) -> _Gathered:
        """Connect all, and return when they are; they stay until the crowd's block ends."""
        self._pipe.send(None)
        try:
            if self._pipe.poll(_PATIENCE_S):
                found: _Gathered = self._pipe.recv()
                return found
        except EOFError:
            pass
        raise UnavailableError("not everybody of the crowd was let in", hint="what it said stands above")


@contextmanager
def _crowd(address: tuple[str, int], connections: int, *, tls: bool) -> Iterator[_Crowd]:
    """Keep a crowd in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_connect_all, args=(address, connections, tls, there), daemon=True)
    process.start()
    try:
        yield _Crowd(here)
    finally:
        process.terminate()
        process.join()


def _connect_all(address: tuple[str, int], connections: int, tls: bool, bench: Connection) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, connections + 1_000), most))
    bench.recv()
    asyncio.run(_stay(address, connections, tls, bench))


async def _stay(address: tuple[str, int], connections: int, tls: bool, bench: Connection) -> None:
    context = _trusting() if tls else None
    few = asyncio.Semaphore(_AT_ONCE)
    began = time.perf_counter()
    waits = sorted(await asyncio.gather(*(_join(address, number, context, few) for number in range(connections))))
    bench.send(_Gathered(time.perf_counter() - began, waits[int(0.99 * (len(waits) - 1))]))
    await asyncio.Event().wait()


_staying: list[asyncio.StreamWriter] = []


async def _join(address: tuple[str, int], number: int, context: ssl.SSLContext | None, few: asyncio.Semaphore) -> float:
    """Connect one client and return how long its CONNACK took [s]."""
    async with few:
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection(*address, ssl=context)
        writer.write(connect(Connect(V311, f"crowd-{number}")))
        if await reader.readexactly(4) != b"\x20\x02\x00\x00":
            raise UnavailableError("refused", hint="see the endpoint's log")
        _staying.append(writer)
        return time.perf_counter() - began


def _trusting() -> ssl.SSLContext:
    """Trust whatever certificate: it was made for this bench a moment ago."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
