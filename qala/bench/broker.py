"""Measure the subscriber behind mosquitto: beside one that only counts, which is the broker's own limit, and beside paho.

All three take the same messages off a mosquitto of their own, with QoS 1, and acknowledge every one. What paho gets goes
into the same journal as ours, acknowledged after its sync.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from devices.errors import UnavailableError
from ingest.journal import read_published
from ingest.report import read_report
from qala.bench.broker_peers import running
from qala.bench.fleet import ZONES_FILE, devices_csv
from qala.bench.generator import Shape, generator
from qala.bench.peers import Mosquitto
from qala.bench.processes import cpu_of, start_qala

__all__ = ["SHAPE", "Seen", "bench_broker"]

SHAPE = Shape("broker", connections=8, in_flight=200, devices=200, messages=100_000, goal=0.8)
"""What is sent through each broker: as fast as mosquitto takes it."""

_PATIENCE_S = 300.0
_LOOK_S = 0.01


class Seen(msgspec.Struct):
    """What one subscriber came to. `seconds` are from the first message sent to the last one taken and acknowledged.

    `stored_s` is the same until the last one's readings are in the store, 0: it has none. `cpu_s` is the CPU time of the
    process that subscribes, `broker_s` that of mosquitto.
    """

    name: str
    messages: int
    seconds: float
    cpu_s: float
    broker_s: float
    stored_s: float = 0.0

    @property
    def per_second(self) -> float:
        """Messages taken a second."""
        return self.messages / self.seconds

    @property
    def stored_per_second(self) -> float:
        """Messages whose readings were stored a second."""
        return self.messages / self.stored_s if self.stored_s else 0.0

    @property
    def cpu_us(self) -> float:
        """CPU time of a message [us]."""
        return self.cpu_s / self.messages * 1e6


class _Running(msgspec.Struct):
    """A subscriber that is subscribed. `taken` and `stored` count messages; `stored` is None where nothing is."""

    pid: int
    taken: Callable[[], int]
    stored: Callable[[], int] | None = None


def bench_broker(shape: Shape = SHAPE, say: Callable[[str], None] = lambda _: None) -> list[Seen]:
    """Send the same messages to each subscriber, one after another, and return what each came to.

    Raises UnavailableError where mosquitto is missing, or a subscriber does not get everything.
    """
    found = []
    for name, subscribe in _SUBSCRIBERS.items():
        with tempfile.TemporaryDirectory(prefix="qala-") as folder:
            found.append(_measure(name, subscribe, shape, Path(folder)))
        seen = found[-1]
        stored = f", {seen.stored_per_second:,.0f}/s stored" if seen.stored_s else ""
        say(f"{name}: {seen.per_second:,.0f} messages/s{stored}, {seen.cpu_us:.1f} us of CPU each")
    return found


def _measure(
    name: str, subscribe: Callable[[Path, Mosquitto, Shape], Iterator[_Running]], shape: Shape, folder: Path
) -> Seen:
    broker = Mosquitto(folder)
    broker.start()
    try:
        with (
            contextmanager(subscribe)(folder, broker, shape) as subscriber,
            generator(shape, broker.address, stop_us=time.time_ns() // 1000) as load,
        ):
            commands = {"subscriber": subscriber.pid, "broker": broker.pid}
            before, begin = cpu_of(commands), time.perf_counter()
            load.start()
            _until(lambda: subscriber.taken() >= shape.messages, name)
            seconds, used = time.perf_counter() - begin, cpu_of(commands).since(before).commands
            stored_s = 0.0
            if subscriber.stored is not None:
                stored = subscriber.stored
                _until(lambda: stored() >= shape.messages, name)
                stored_s = time.perf_counter() - begin
            load.wait()
            return Seen(name, shape.messages, seconds, used["subscriber"], used["broker"], stored_s)
    finally:
        broker.stop()


def _until(condition: Callable[[], bool], name: str) -> None:
    deadline = time.perf_counter() + _PATIENCE_S
    while not condition():
        if time.perf_counter() > deadline:
            raise UnavailableError(f"{name} did not get everything within {_PATIENCE_S:g} s", hint="see its log")
        time.sleep(_LOOK_S)


def _qala(folder: Path, broker: Mosquitto, shape: Shape) -> Iterator[_Running]:
    table = {"bench": {"url": f"mqtt://127.0.0.1:{broker.port}"}}
    settings: Mapping[str, str] = {
        "QALA_INGEST__BROKERS": json.dumps(table),
        "QALA_INGEST__PROBE_EVERY_S": "0",
    }
    with start_qala(folder, devices=devices_csv(shape.devices), zones=ZONES_FILE, settings=settings) as qala:
        _until(lambda: _is_subscribed(qala.data), "qala")
        journal = qala.data / "journal"
        yield _Running(
            qala.commands["door"],
            lambda: read_published(journal / "synced") or 0,
            lambda: read_published(journal / "applied") or 0,
        )


def _is_subscribed(data: Path) -> bool:
    report = read_report(data)
    return report is not None and any(broker.connected for broker in report.brokers)


def _peer(kind: str) -> Callable[[Path, Mosquitto, Shape], Iterator[_Running]]:
    def subscribe(folder: Path, broker: Mosquitto, _: Shape) -> Iterator[_Running]:
        with running(kind, broker.port, folder / "peer") as peer:
            yield _Running(peer.pid, peer.taken)

    return subscribe


_SUBSCRIBERS = {"only counts": _peer("null"), "qala": _qala, "paho": _peer("paho")}
