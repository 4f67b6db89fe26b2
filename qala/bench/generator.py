"""The load's process: it connects and encodes first, sends when told to, and is not counted."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import msgspec

from devices.errors import UnavailableError
from qala.bench.fleet import messages
from qala.bench.load import run_load

__all__ = ["Generator", "Sent", "Shape", "generator"]

_PATIENCE_S = 300.0


class Shape(msgspec.Struct, frozen=True):
    """A shape of the load. `rate` is of all connections together [1/s]; `goal` is what a ratio should be at least."""

    name: str
    connections: int
    in_flight: int  # of each connection
    devices: int
    messages: int
    goal: float = 1.0
    rate: float | None = None


class Sent(msgspec.Struct):
    """What the generator saw. Latencies are from the sending of a message to its PUBACK [s]."""

    seconds: float
    p50_s: float
    p99_s: float


class Generator:
    """A load that is ready to go."""

    def __init__(self, pid: int, pipe: Connection) -> None:
        self.pid = pid
        self._pipe = pipe

    def start(self) -> None:
        """Let it send."""
        self._pipe.send(None)

    def wait(self) -> Sent:
        """Return when every message is acknowledged. Raises UnavailableError where it fails."""
        try:
            if self._pipe.poll(_PATIENCE_S):
                found: Sent = self._pipe.recv()
                return found
        except EOFError:
            pass
        raise UnavailableError("the generator failed or is stuck", hint="what it said stands above")


@contextmanager
def generator(shape: Shape, address: tuple[str, int], *, stop_us: int, client: str = "load") -> Iterator[Generator]:
    """Make a generator whose readings end before `stop_us`; it is ready when the block begins."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_generate, args=(shape, address, stop_us, client, there), daemon=True)
    process.start()
    try:
        ready = Generator(process.pid or 0, here)
        ready.wait()
        yield ready
    finally:
        process.terminate()
        process.join()


def _generate(shape: Shape, address: tuple[str, int], stop_us: int, client: str, bench: Connection) -> None:
    def on_ready() -> None:
        bench.send(Sent(0.0, 0.0, 0.0))
        bench.recv()

    result = run_load(
        *address,
        connections=shape.connections,
        in_flight=shape.in_flight,
        messages=messages(shape.messages, shape.devices, stop_us=stop_us),
        rate=shape.rate,
        client=client,
        on_ready=on_ready,
    )
    bench.send(Sent(result.seconds, result.percentile(0.5), result.percentile(0.99)))
