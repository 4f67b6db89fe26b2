"""The whole way, from the socket to the store: Qala on its two engines beside mosquitto, Telegraf and InfluxDB, under one load."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from devices.errors import ConflictError
from qala.bench.fleet import INTERVAL_S, READINGS
from qala.bench.generator import Sent, Shape, generator
from qala.bench.mark import Mark, send_marks
from qala.bench.processes import Cpu, cpu_of, cpu_of_machine_s
from qala.bench.way_systems import SYSTEMS, System

__all__ = ["SHAPES", "Way", "bench_way"]

_MARKS = 16
_MARKING_S = 16.0  # longer apart than Telegraf flushes, or each would be sent just after a flush

SHAPES = (
    Shape("1x1000", connections=1, in_flight=1000, devices=1000, messages=300_000, goal=10.0),
    Shape("50x20", connections=50, in_flight=20, devices=1000, messages=300_000, goal=8.0),
    Shape("900x1", connections=900, in_flight=1, devices=900, messages=180_000, goal=2.5),
    Shape("5000/s", connections=50, in_flight=20, devices=1000, messages=100_000, goal=1.7, rate=5_000.0),
    Shape("200/s", connections=50, in_flight=20, devices=1000, messages=6_000, goal=1.0, rate=200.0),
)


class Way(msgspec.Struct):
    """What one shape came to in one system. CPU is user and system time until everything was stored [us a message]."""

    system: str
    shape: str
    messages: int
    readings: int
    stored: int  # readings; fewer than were sent where the system lost some
    cpu_us: float
    cpu_us_by_process: dict[str, float]
    cpu_us_by_thread: dict[str, float]
    others_cores: float  # what else the machine did meanwhile [cores]
    acknowledged_per_s: float
    stored_per_s: float
    puback_p50_ms: float
    puback_p99_ms: float
    stored_p50_ms: float | None  # of single messages among a paced load, from their sending
    stored_p99_ms: float | None


def bench_way(shapes: Sequence[Shape], systems: Sequence[str], say: Callable[[str], None]) -> list[Way]:
    """Measure each shape in each system, those of one shape one after another.

    Raises ConflictError where Qala does not hold exactly what was sent, UnavailableError where a part is missing or stuck.
    """
    return [_measure(shape, name, say) for shape in shapes for name in systems]


def _measure(shape: Shape, name: str, say: Callable[[str], None]) -> Way:
    with tempfile.TemporaryDirectory(prefix="qala-") as folder, SYSTEMS[name](Path(folder), shape.devices) as system:
        say(f"{shape.name}, {name}: sending {shape.messages:,} messages")
        now_us = time.time_ns() // 1000
        later = _later(shape)
        run = _run(shape, system, now_us - _length_us(later))
        marks = _mark(later, system, shape.messages, now_us, say) if later else []
        sent = (shape.messages + (later.messages if later else 0)) * READINGS + len(marks)
        stored = system.stored()
    if stored != sent and name.startswith("qala"):
        raise ConflictError(
            f"{shape.name}, {name}: {sent} readings were sent, and {stored} are stored",
            hint="something was lost, doubled or rejected on the way: please report it",
        )
    return _way(shape, name, run, marks, sent, stored)


class _Run(msgspec.Struct):
    """The load itself."""

    sent: Sent
    seconds: float
    used: Cpu
    others_cores: float


def _run(shape: Shape, system: System, stop_us: int) -> _Run:
    with generator(shape, system.mqtt, stop_us=stop_us) as load:
        ours = {"generator": load.pid, "bench": os.getpid()}
        before, others_s = cpu_of(system.commands), cpu_of_machine_s() - cpu_of(ours).whole_s
        began = time.perf_counter()
        load.start()
        sent = load.wait()
        seconds = system.wait(shape.messages) - began
        used = cpu_of(system.commands).since(before)
        others_s = cpu_of_machine_s() - cpu_of(ours).whole_s - others_s - used.whole_s
        return _Run(sent, seconds, used, max(others_s, 0.0) / (time.perf_counter() - began))


def _later(shape: Shape) -> Shape | None:
    """Return the load that goes on while single messages are timed; None where the load is not paced."""
    if shape.rate is None:
        return None
    return msgspec.structs.replace(shape, messages=int(shape.rate * _MARKING_S))


def _length_us(later: Shape | None) -> int:
    """Return how much time the readings of what comes later take: the load's own end before it, so that none comes twice."""
    return -(-later.messages // later.devices) * INTERVAL_S * 1_000_000 if later else 0


def _mark(later: Shape, system: System, before: int, stop_us: int, say: Callable[[str], None]) -> list[Mark]:
    say(f"{later.name}: timing single messages")
    with generator(later, system.mqtt, stop_us=stop_us, client="later") as load:
        load.start()
        marks = send_marks(system.mqtt, system.watch, _MARKS, within_s=_MARKING_S)
        load.wait()
    system.wait(before + later.messages + len(marks))
    return marks


def _way(shape: Shape, name: str, run: _Run, marks: Sequence[Mark], sent: int, stored: int) -> Way:
    def each(parts: Mapping[str, float]) -> dict[str, float]:
        return {part: round(1e6 * seconds / shape.messages, 2) for part, seconds in parts.items()}

    waits = [mark.stored_s for mark in marks]
    return Way(
        system=name,
        shape=shape.name,
        messages=shape.messages,
        readings=sent,
        stored=stored,
        cpu_us=round(1e6 * run.used.whole_s / shape.messages, 2),
        cpu_us_by_process=each(run.used.commands),
        cpu_us_by_thread=each(run.used.threads),
        others_cores=round(run.others_cores, 2),
        acknowledged_per_s=round(shape.messages / run.sent.seconds),
        stored_per_s=round(shape.messages / run.seconds),
        puback_p50_ms=round(1000 * run.sent.p50_s, 2),
        puback_p99_ms=round(1000 * run.sent.p99_s, 2),
        stored_p50_ms=round(1000 * float(np.percentile(waits, 50)), 1) if waits else None,
        stored_p99_ms=round(1000 * float(np.percentile(waits, 99)), 1) if waits else None,
    )
