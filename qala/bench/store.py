"""`qala bench store`: our engine beside others, over the same stream, each in a process and a folder of its own.

A peer is loaded, closed and opened again; then the same questions are put to it at rest, while a writer appends, and, for our own
engine, while the writer goes as fast as it can. Every answer is checked.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from devices.errors import ConflictError, QalaError, UnavailableError, UnsupportedError
from qala.bench.processes import cpu_of, cpu_of_machine_s
from qala.bench.store_data import BATCH, Rows, Shape, deliveries
from qala.bench.store_peer import About, Peer, disk_bytes, memory_mib
from qala.bench.store_qala import Qala, late_readings
from qala.bench.store_questions import QUESTIONS, Reach, Timing, measure, summary, wheres
from qala.bench.store_sqlite import ROWS_MAX as SQLITE_ROWS_MAX

__all__ = ["PEERS", "Appending", "Asked", "Late", "Measured", "Plan", "Skipped", "bench_store"]

PEERS = {
    "qala": "store_qala:Qala",
    "influxdb": "store_influxdb:InfluxDB",
    "questdb": "store_questdb:QuestDB",
    "victoria-metrics": "store_victoria:VictoriaMetrics",
    "sqlite": "store_sqlite:SQLite",
}

_PAUSE_S = 0.5  # between two batches of the writer beside the questions
_TEND_PAUSE_S = 0.2
_TEND_TURNS = 72  # upkeep is called each six hours of readings while loading
_LAG = 4  # batches that questions stay behind the writer: some peers show what they acknowledged a second later
_PART = 0.8  # of an answer that must be there meanwhile, with late readings and a lagging log
_SAID_S = 5.0


class Plan(msgspec.Struct, frozen=True):
    """What is measured, and for how long."""

    shape: Shape
    runs: int = 40
    budget_s: float = 20.0  # of each question
    late: int = 20  # late readings


class Appending(msgspec.Struct):
    """How the stream was taken; rates count every row delivered, and leave the generator out."""

    delivered: int
    rows_per_s: float  # until acknowledged
    visible_rows_per_s: float  # until all of it can be read, with the upkeep that the peer leaves to its owner
    batch: Timing
    upkeep_s: float


class Asked(msgspec.Struct):
    """How long each question took. `cannot` says why some were not answered, `wrong` what was answered instead."""

    timings: dict[str, Timing]
    cannot: dict[str, str]
    wrong: dict[str, str]
    written_rows_per_s: float = 0.0  # meanwhile
    write: Timing | None = None  # of each batch of the writer meanwhile


class Late(msgspec.Struct):
    """What a late reading costs: to store it, and to read what its zone's windows of an hour and a day are made of."""

    append: Timing
    hour: Timing
    day: Timing


class Measured(msgspec.Struct):
    """What a peer came to."""

    about: About
    rows: int  # each (series, time) once
    stored: int
    appending: Appending
    start_s: float  # with an empty folder
    open_s: float  # with everything in it
    bytes_per_reading: float  # on disk, after loading and closing
    memory_mib: float  # of its process after all questions; an engine in the process has Python with it
    memory_most_mib: float  # ever
    others_cores: float  # what else the machine did during the questions [cores]: above 0.1, times are too long
    idle: Asked
    writing: Asked
    flat_out: Asked | None = None
    late: Late | None = None


class Skipped(msgspec.Struct):
    """A peer that was left out, and why. `failed` where it was there."""

    reason: str
    failed: bool = False


def bench_store(
    plan: Plan, peers: Sequence[str], say: Callable[[str], None], *, folder: Path | None = None, keep: bool = False
) -> dict[str, Measured | Skipped]:
    """Measure peers one after the other, by name. Their files lie in `folder` and stay there with `keep`.

    A peer that fails is told as skipped, so that an hour's figures of the others are kept.
    """
    root = Path(tempfile.mkdtemp(prefix="qala-bench-store-", dir=folder))
    try:
        return {name: _apart(plan, name, root, say) for name in peers}
    finally:
        if keep:
            say(f"files stay in {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)


def _apart(plan: Plan, name: str, root: Path, say: Callable[[str], None]) -> Measured | Skipped:
    """Measure one peer in a process of its own, so that its memory is its own."""
    if name == "sqlite" and plan.shape.rows > SQLITE_ROWS_MAX:
        return Skipped(f"only up to {SQLITE_ROWS_MAX:,} readings")
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    work = context.Process(target=_work, args=(plan, name, root / name, there))
    work.start()
    there.close()
    try:
        while True:
            told = here.recv()
            if not isinstance(told, str):
                break
            say(f"{name}: {told}")
    except EOFError:
        told = Skipped("the bench's process ended; what it said stands above", failed=True)
    finally:
        work.join()
    found: Measured | Skipped = told
    return found


def _work(plan: Plan, name: str, folder: Path, bench: Connection) -> None:
    """Run in the process of a peer: measure it, and tell how far it is, and at last what it came to."""
    folder.mkdir(parents=True)
    try:
        peer = _made(name, folder, plan.shape)
    except UnavailableError as error:
        bench.send(Skipped(error.message))
        return
    try:
        bench.send(_measured(plan, peer, folder, bench.send))
    except QalaError as error:
        bench.send(Skipped(str(error), failed=True))
    finally:
        peer.stop()


def _made(name: str, folder: Path, shape: Shape) -> Peer:
    module, _, made = PEERS[name].partition(":")
    peer: Peer = getattr(importlib.import_module(f"qala.bench.{module}"), made)(folder, shape)
    return peer


def _measured(plan: Plan, peer: Peer, folder: Path, say: Callable[[str], None]) -> Measured:
    start_s = _timed(peer.start)
    about = peer.about()
    appending = _append(plan.shape, peer, say)
    stored = _counted(plan.shape, peer)
    loading_mib = memory_mib(peer.pid())[1]
    peer.stop()
    loaded = disk_bytes(folder)
    open_s = _timed(peer.start)
    others = _Others(peer.pid())
    idle = _ask_all(plan, peer, say, "at rest", lambda: Reach(plan.shape.turns, plan.shape.turns))
    with _writer(plan.shape, peer, plan.shape.turns, _PAUSE_S) as writer:
        writing = _beside(plan, peer, say, "while writing", writer)
    others_cores = others.cores()
    flat_out = late = None
    if isinstance(peer, Qala):
        with _writer(plan.shape, peer, writer.turn + 1, 0.0) as faster:
            flat_out = _beside(plan, peer, say, "while writing flat out", faster)
        late = _late(plan, peer, say)
    now_mib, most_mib = memory_mib(peer.pid())
    peer.stop()
    return Measured(
        about=about,
        rows=plan.shape.rows,
        stored=stored,
        appending=appending,
        start_s=round(start_s, 3),
        open_s=round(open_s, 3),
        bytes_per_reading=round(loaded / plan.shape.rows, 2),
        memory_mib=round(now_mib),
        memory_most_mib=round(max(most_mib, loading_mib)),
        others_cores=round(others_cores, 2),
        idle=idle,
        writing=writing,
        flat_out=flat_out,
        late=late,
    )


class _Others:
    """What the machine works from now on without a peer and its bench."""

    def __init__(self, pid: int) -> None:
        self._ours = {str(one): one for one in (pid, os.getpid())}
        self._before_s, self._began = self._now_s(), time.perf_counter()

    def cores(self) -> float:
        return max(self._now_s() - self._before_s, 0.0) / (time.perf_counter() - self._began)

    def _now_s(self) -> float:
        return cpu_of_machine_s() - cpu_of(self._ours).whole_s


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _append(shape: Shape, peer: Peer, say: Callable[[str], None]) -> Appending:
    """Load the whole stream, with the upkeep that belongs to it."""
    took, upkeep_s, delivered, tended = [], 0.0, 0, 0
    said = time.monotonic()
    for rows in deliveries(shape, 0, shape.turns):
        took.append(_timed(partial(peer.append, rows)))
        delivered += len(rows)
        if rows.turn - tended >= _TEND_TURNS:
            tended = rows.turn
            upkeep_s += _timed(partial(_tend, peer, shape.tick_us(tended)))
        if time.monotonic() - said > _SAID_S:
            said = time.monotonic()
            say(f"{delivered:,} readings delivered, {delivered / sum(took):,.0f} a second, upkeep {upkeep_s:.1f} s")
    upkeep_s += _timed(lambda: _tend(peer, shape.stop_us))
    settled_s = _timed(peer.settle)
    append_s = sum(took)
    return Appending(
        delivered=delivered,
        rows_per_s=round(delivered / append_s),
        visible_rows_per_s=round(delivered / (append_s + upkeep_s + settled_s)),
        batch=summary(took),
        upkeep_s=round(upkeep_s, 2),
    )


def _tend(peer: Peer, now_us: int) -> None:
    while peer.tend(now_us):
        pass


def _counted(shape: Shape, peer: Peer) -> int:
    found = peer.count()
    if found != shape.rows:
        raise ConflictError(
            f"{shape.rows} different readings were delivered, and {found} are stored",
            hint="something was lost or doubled: please report it",
        )
    return found


def _ask_all(
    plan: Plan,
    peer: Peer,
    say: Callable[[str], None],
    when: str,
    reach: Callable[[], Reach],
    *,
    part: float = 1.0,
    pause_s: float = 0.0,
) -> Asked:
    asked = Asked({}, {}, {})
    measured = partial(measure, runs=plan.runs, budget_s=plan.budget_s, part=part, pause_s=pause_s)
    for question in QUESTIONS:
        try:
            timing = measured(peer, question, plan.shape, wheres(plan.shape, reach))
        except UnsupportedError as error:
            asked.cannot[question.name] = error.message
            continue
        except ConflictError as error:
            asked.wrong[question.name] = error.message
            say(f"{when}: {question.title}: {error.message}")
            continue
        asked.timings[question.name] = timing
        say(f"{when}: {question.title}: {timing.p50_ms:.1f} / {timing.p95_ms:.1f} ms")
    return asked


class _Writer:
    """Appends batch after batch, and tends the store as its owner does, in two threads beside the questions."""

    def __init__(self, shape: Shape, peer: Peer, first: int, pause_s: float) -> None:
        self._shape, self._peer, self.pause_s = shape, peer, pause_s
        # A tick of all series at most, so that the readings' clock does not run days ahead: VictoriaMetrics takes no more.
        batch = min(BATCH, shape.series)
        self._batches = deliveries(shape, first, 2**40, number=10**6 + first, batch=batch)
        self._done = threading.Event()
        self._last = deque([first - 1] * _LAG, maxlen=_LAG)  # whole turns written by the last batches
        self.took: list[float] = []
        self.rows = 0
        self._began = time.perf_counter()
        self.failed: list[BaseException] = []
        self._threads = [threading.Thread(target=self._guard, args=(work,)) for work in (self._write, self._tend)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def reach(self) -> Reach:
        """Return how far questions may ask; tell what the writer failed of."""
        if self.failed:
            raise self.failed[0]
        return Reach(self._last[0] + 1, self.turn + 3)

    @property
    def turn(self) -> int:
        return self._last[-1]

    @property
    def rows_per_s(self) -> float:
        return self.rows / (time.perf_counter() - self._began)

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told by `reach`, in the thread that asks
            self.failed.append(error)

    def _write(self) -> None:
        while not self._done.is_set():
            rows: Rows = next(self._batches)
            self.took.append(_timed(partial(self._peer.append, rows)))
            self.rows += len(rows)
            self._last.append(max(self.turn, rows.turn - 1))  # the newest turn may go on in the next batch
            self._done.wait(self.pause_s)

    def _tend(self) -> None:
        while not self._done.wait(_TEND_PAUSE_S):
            _tend(self._peer, self._shape.tick_us(self.turn))


@contextmanager
def _writer(shape: Shape, peer: Peer, first: int, pause_s: float) -> Iterator[_Writer]:
    """Let a writer run during the block."""
    writer = _Writer(shape, peer, first, pause_s)
    writer.start()
    try:
        yield writer
    finally:
        writer.stop()


def _beside(plan: Plan, peer: Peer, say: Callable[[str], None], when: str, writer: _Writer) -> Asked:
    while not writer.took and not writer.failed:
        time.sleep(0.01)
    asked = _ask_all(plan, peer, say, when, writer.reach, part=_PART, pause_s=writer.pause_s / 5)
    return msgspec.structs.replace(asked, written_rows_per_s=round(writer.rows_per_s), write=summary(list(writer.took)))


def _late(plan: Plan, qala: Qala, say: Callable[[str], None]) -> Late:
    found = list(late_readings(qala, plan.shape, plan.late))
    late = Late(*(summary([getattr(one, name) for one in found]) for name in ("append_s", "hour_s", "day_s")))
    say(f"late readings: stored in {late.append.p50_ms:.1f} ms, their hour read in {late.hour.p50_ms:.1f} ms")
    return late
