"""How fast an endpoint acknowledges, and how calm devices do beside one that floods it."""

from __future__ import annotations

import multiprocessing
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import msgspec

from devices.errors import UnavailableError
from ingest.mqtt.packets import V311, Connect, Publish, connect, publish
from qala.bench.fleet import messages
from qala.bench.generator import Generator, Sent, Shape, generator
from qala.bench.processes import cpu_of
from qala.bench.servers import ENDPOINTS, Endpoint

__all__ = ["LOADS", "Acknowledged", "Beside", "bench_acknowledging", "bench_flood"]

LOADS = (
    Shape("1x1000", connections=1, in_flight=1000, devices=1000, messages=400_000),
    Shape("50x20", connections=50, in_flight=20, devices=1000, messages=400_000),
    Shape("900x1", connections=900, in_flight=1, devices=900, messages=150_000),
    Shape("10000/s", connections=50, in_flight=200, devices=1000, messages=100_000, rate=10_000.0),
)
_PATIENCE_S, _LOOK_S, _READ = 30.0, 0.01, 256 * 1024
_CHUNK, _CHUNKS = 500, 4  # messages of the flood that go at once, and how many such are unacknowledged at most
_CALM = Shape("calm", connections=100, in_flight=1, devices=100, messages=2_000, rate=200.0)


class Acknowledged(msgspec.Struct):
    """What one load came to at one endpoint."""

    endpoint: str
    load: str
    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float  # a message


class Beside(msgspec.Struct):
    """PUBACKs of calm devices, 2 messages a second each, alone and beside one that sends as fast as it can."""

    endpoint: str
    alone_p50_ms: float
    alone_p99_ms: float
    beside_p50_ms: float
    beside_p99_ms: float
    flood_per_s: float  # acknowledged to the flooding device meanwhile


def bench_acknowledging(load: Shape, say: Callable[[str], None]) -> list[Acknowledged]:
    """Let each endpoint acknowledge the same load, one after another. Raises UnavailableError where one is missing."""
    return [_acknowledge(name, load, say) for name in ENDPOINTS]


def _acknowledge(name: str, load: Shape, say: Callable[[str], None]) -> Acknowledged:
    with tempfile.TemporaryDirectory(prefix="qala-") as folder, ENDPOINTS[name](Path(folder), None) as endpoint:
        say(f"PUBACKs of {name}, {load.name}")
        with _load(load, endpoint) as sending:
            before = cpu_of({name: endpoint.pid}).whole_s
            sending.start()
            sent = sending.wait()
            used_s = cpu_of({name: endpoint.pid}).whole_s - before
        return Acknowledged(
            endpoint=name,
            load=load.name,
            per_s=round(load.messages / sent.seconds),
            p50_ms=_ms(sent.p50_s),
            p99_ms=_ms(sent.p99_s),
            cpu_us=round(1e6 * used_s / load.messages, 2),
        )


def bench_flood(share: float, say: Callable[[str], None]) -> list[Beside]:
    """Time calm devices beside a flooding one at each endpoint, by a share of their messages."""
    calm = msgspec.structs.replace(_CALM, messages=int(_CALM.messages * share))
    return [_flood(name, calm, say) for name in ENDPOINTS]


def _flood(name: str, devices: Shape, say: Callable[[str], None]) -> Beside:
    with tempfile.TemporaryDirectory(prefix="qala-") as folder, ENDPOINTS[name](Path(folder), None) as endpoint:
        say(f"100 calm devices at {name}, alone, then beside a flood")
        with _load(devices, endpoint) as calm:
            alone = _sent(calm)
        with _load(devices, endpoint) as calm, _flooding(endpoint.mqtt) as flooded:
            beside = _sent(calm)
            per_s = flooded() / beside.seconds
        return Beside(
            name, _ms(alone.p50_s), _ms(alone.p99_s), _ms(beside.p50_s), _ms(beside.p99_s), flood_per_s=round(per_s)
        )


@contextmanager
def _flooding(address: tuple[str, int]) -> Iterator[Callable[[], int]]:
    """Flood an endpoint from a process of its own; the block's value returns how many messages it acknowledged."""
    context = multiprocessing.get_context("spawn")
    acknowledged = context.Value("q", 0)
    process = context.Process(target=_send_flood, args=(address, acknowledged), daemon=True)
    process.start()
    try:
        _await(acknowledged)
        before = acknowledged.value
        yield lambda: int(acknowledged.value - before)
    finally:
        process.terminate()
        process.join()


def _await(acknowledged: Synchronized[int]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not acknowledged.value:
        if time.monotonic() > deadline:
            raise UnavailableError("nothing of the flood was acknowledged", hint="see the endpoint's log")
        time.sleep(_LOOK_S)


def _send_flood(address: tuple[str, int], acknowledged: Synchronized[int]) -> None:
    """Send the same messages again and again, as many as may be unacknowledged, until the process is ended."""
    topic, payload = next(messages(1, 1, stop_us=time.time_ns() // 1000))
    chunk = b"".join(publish(V311, Publish(topic, payload, 1, number)) for number in range(1, _CHUNK + 1))
    with socket.create_connection(address) as client:
        client.sendall(connect(Connect(V311, "flood")))
        got, sent = 0, 0  # bytes of answers: four of the CONNACK, four of each PUBACK
        while True:
            while sent - got // 4 < _CHUNKS * _CHUNK:
                client.sendall(chunk)
                sent += _CHUNK
            answer = client.recv(_READ)
            if not answer:
                return
            got += len(answer)
            acknowledged.value = got // 4 - 1


def _sent(load: Generator) -> Sent:
    load.start()
    return load.wait()


def _load(load: Shape, endpoint: Endpoint, client: str = "load") -> AbstractContextManager[Generator]:
    return generator(load, endpoint.mqtt, stop_us=time.time_ns() // 1000, client=client)


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)
