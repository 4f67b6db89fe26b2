"""`qala bench ingest`: what a message costs on its whole way, from the socket to the store, in CPU time of all processes.

Each load runs `qala run` over an empty folder, with devices that stand in zones, and a generator in a process of its own.
Messages are counted as done when the store has applied them; how long the indicators then go on is told beside it.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

import duckdb
import httpx
import msgspec

from devices.errors import ConflictError, UnavailableError
from ingest.door import DoorReport, read_report
from ingest.journal import read_published
from qala.bench.fleet import READINGS, ZONES_FILE, devices_csv, messages
from qala.bench.load import run_load
from qala.bench.processes import Cpu, Started, cpu_of, cpu_of_machine_s, start_qala

__all__ = ["LOADS", "Load", "Measured", "bench_ingest"]

_LOOK_S = 0.01
_COMPUTED_LOOK_S = 1.2  # longer than the door's report and the scheduler's round
_PATIENCE_S = 120.0
_STAGES = "qala_projector_cpu_seconds_total"


class Load(msgspec.Struct, frozen=True):
    """A shape of the load. With as many devices as connections, or a multiple, each device keeps to one connection."""

    name: str
    connections: int
    in_flight: int  # of each connection
    devices: int
    messages: int


LOADS = (
    Load("1x1000", connections=1, in_flight=1000, devices=1000, messages=300_000),
    Load("50x20", connections=50, in_flight=20, devices=1000, messages=300_000),
    Load("900x1", connections=900, in_flight=1, devices=900, messages=180_000),
)
"""Many at a time through one connection, some through each of many, and one at a time as devices do."""


class Measured(msgspec.Struct):
    """What one load came to. CPU is user and system time of the door, the serving process and their parent."""

    load: str
    connections: int
    in_flight: int
    devices: int
    messages: int
    readings: int
    stored: int  # readings found in the closed database, each (series, time) once
    seconds: float  # from the first message to the last one's being in the store
    messages_per_s: float
    readings_per_s: float
    acknowledged_per_s: float
    puback_p50_ms: float
    puback_p99_ms: float
    cpu_us_per_message: float  # until everything is in the store
    cpu_us_per_message_with_analytics: float  # until every window that ended is computed, too
    cpu_us_by_process: dict[str, float]
    cpu_us_by_thread: dict[str, float]
    cpu_us_by_stage: dict[str, float]  # of the projector
    cpu_us_by_thread_with_analytics: dict[str, float]
    others_cores: float  # what else the machine did meanwhile [cores]: above 0.1, figures are too high
    commits: int
    batches: int
    windows: int  # computed
    bytes_per_reading: float  # of the database file, after it was closed
    journal_bytes_per_message: float


class _Sent(msgspec.Struct):
    """What the generator saw."""

    seconds: float
    p50_s: float
    p99_s: float


class _Run(msgspec.Struct):
    """One load from its first message on: until the store had everything, and until the indicators were computed."""

    sent: _Sent
    seconds: float
    stored: Cpu
    computed: Cpu
    others_cores: float


def bench_ingest(load: Load, say: Callable[[str], None]) -> Measured:
    """Measure one load. `say` is told how far it is.

    Raises ConflictError where the store does not hold exactly what was sent, UnavailableError where a part does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="qala-bench-") as name:
        say(f"{load.name}: starting")
        with start_qala(Path(name), devices=devices_csv(load.devices), zones=ZONES_FILE) as qala:
            empty = _database_bytes(qala.data)
            run = _run(load, qala, say)
            counts, report = _counts(qala), _door(qala)
        stored = _stored(qala.data / "readings.duckdb")
        if stored != load.messages * READINGS:
            raise ConflictError(
                f"{load.name}: {load.messages * READINGS} readings were sent, and {stored} are stored",
                hint="something was lost, doubled or rejected on the way: please report it",
            )
        return _measured(load, run, counts, report, _database_bytes(qala.data) - empty)


def _run(load: Load, qala: Started, say: Callable[[str], None]) -> _Run:
    """Let the generator send, and look at the processes before and after."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    generator = context.Process(target=_generate, args=(load, qala.mqtt, there), daemon=True)
    generator.start()
    try:
        _await(here)  # connected, and everything encoded
        say(f"{load.name}: sending {load.messages:,} messages")
        others = _Others(generator.pid or 0)
        before, began = cpu_of(qala.commands), time.perf_counter()
        here.send(None)
        seconds = _until_applied(load.messages, qala.data / "journal" / "applied") - began
        stored = cpu_of(qala.commands).since(before)
        others_cores = max(others.used_s() - stored.whole_s, 0.0) / seconds
        sent = _await(here)
        say(f"{load.name}: computing indicators")
        _until_computed(qala)
        return _Run(sent, seconds, stored, cpu_of(qala.commands).since(before), others_cores)
    finally:
        generator.terminate()
        generator.join()


class _Others:
    """What the machine works from now on without the generator and the bench itself."""

    def __init__(self, generator: int) -> None:
        self._ours = {"generator": generator, "bench": os.getpid()}
        self._before_s = self._now_s()

    def used_s(self) -> float:
        return self._now_s() - self._before_s

    def _now_s(self) -> float:
        return cpu_of_machine_s() - cpu_of(self._ours).whole_s


def _generate(load: Load, address: tuple[str, int], bench: Connection) -> None:
    """Send a load when told to. Runs in a process of its own, whose CPU time is not counted."""

    def on_ready() -> None:
        bench.send(_Sent(0.0, 0.0, 0.0))
        bench.recv()

    result = run_load(
        *address,
        connections=load.connections,
        in_flight=load.in_flight,
        messages=messages(load.messages, load.devices, stop_us=time.time_ns() // 1000),
        on_ready=on_ready,
    )
    bench.send(_Sent(result.seconds, result.percentile(0.5), result.percentile(0.99)))


def _await(generator: Connection) -> _Sent:
    try:
        if generator.poll(_PATIENCE_S):
            found: _Sent = generator.recv()
            return found
    except EOFError:
        pass
    raise UnavailableError("the generator failed or is stuck", hint="what it said stands above")


def _until_applied(messages: int, applied: Path) -> float:
    """Wait until the store has so many messages, and return when that was (perf_counter)."""
    deadline = time.perf_counter() + _PATIENCE_S
    while (read_published(applied) or 0) < messages:
        if time.perf_counter() > deadline:
            raise UnavailableError(
                f"the store has not taken everything within {_PATIENCE_S:g} s", hint="see qala doctor"
            )
        time.sleep(_LOOK_S)
    return time.perf_counter()


def _until_computed(qala: Started) -> None:
    """Wait until nothing is due at two looks in a row."""
    deadline = time.perf_counter() + _PATIENCE_S
    idle = 0
    while idle < 2:
        if time.perf_counter() > deadline:
            raise UnavailableError(f"indicators are not computed within {_PATIENCE_S:g} s", hint="see qala doctor")
        time.sleep(_COMPUTED_LOOK_S)
        scheduler = _ask(qala, "/api/v1/health").json()["parts"]["scheduler"]
        idle = idle + 1 if scheduler["due"] == 0 and scheduler["marks"] == 0 else 0


def _ask(qala: Started, path: str) -> httpx.Response:
    host, port = qala.http
    return httpx.get(f"http://{host}:{port}{path}", timeout=_PATIENCE_S).raise_for_status()


def _counts(qala: Started) -> dict[str, float]:
    """Return the server's counters and gauges as /metrics has them, by name and label."""
    lines = _ask(qala, "/metrics").text.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def _door(qala: Started) -> DoorReport:
    """Return what the door last said of itself, which is at most a second old."""
    report = read_report(qala.data)
    if report is None:
        raise UnavailableError("the door has not reported", hint="see qala doctor")
    return report


def _stored(path: Path) -> int:
    """Count the (series, time) that are stored, in the closed file, past all of our code; -1 where one is there twice."""
    with duckdb.connect(str(path), read_only=True) as connection:
        query = "SELECT count(*), count(DISTINCT (series, time_us)) FROM readings"
        [(rows, distinct)] = connection.execute(query).fetchall()
    return int(distinct) if rows == distinct else -1


def _database_bytes(data: Path) -> int:
    return sum(path.stat().st_size for path in data.glob("readings.duckdb*"))


def _measured(load: Load, run: _Run, counts: Mapping[str, float], door: DoorReport, grown: int) -> Measured:
    def each(seconds: float) -> float:
        return round(1e6 * seconds / load.messages, 3)

    def all_of(cpu_s: Mapping[str, float]) -> dict[str, float]:
        return {name: each(seconds) for name, seconds in cpu_s.items()}

    readings = load.messages * READINGS
    stages = {name[len(_STAGES) :]: value for name, value in counts.items() if name.startswith(_STAGES)}
    return Measured(
        load=load.name,
        connections=load.connections,
        in_flight=load.in_flight,
        devices=load.devices,
        messages=load.messages,
        readings=readings,
        stored=readings,
        seconds=round(run.seconds, 3),
        messages_per_s=round(load.messages / run.seconds),
        readings_per_s=round(readings / run.seconds),
        acknowledged_per_s=round(load.messages / run.sent.seconds),
        puback_p50_ms=round(1000 * run.sent.p50_s, 2),
        puback_p99_ms=round(1000 * run.sent.p99_s, 2),
        cpu_us_per_message=each(run.stored.whole_s),
        cpu_us_per_message_with_analytics=each(run.computed.whole_s),
        cpu_us_by_process=all_of(run.stored.commands),
        cpu_us_by_thread=all_of(run.stored.threads),
        cpu_us_by_stage={name.removeprefix('{stage="').removesuffix('"}'): each(s) for name, s in stages.items()},
        cpu_us_by_thread_with_analytics=all_of(run.computed.threads),
        others_cores=round(run.others_cores, 2),
        commits=door.durable.commits,
        batches=round(counts["qala_projector_batches_total"]),
        windows=round(counts["qala_scheduler_windows_total"]),
        bytes_per_reading=round(grown / readings, 2),
        journal_bytes_per_message=round(door.journal_bytes / load.messages, 1),
    )
