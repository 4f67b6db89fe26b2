"""The projector: the whole route from the journal to the store on one screen. See `Projector.step`."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
from sqlalchemy import Engine

from devices.device import Registry
from devices.errors import QalaError, Reason, UnavailableError
from devices.reading import Batch, Int32Array, Int64Array, Position, SeriesInfo
from ingest.admission import Admission, Admitted
from ingest.aside import delivered, probes
from ingest.bookkeeping import Again, Bookkeeping, Written
from ingest.declarations import Declarations
from ingest.formats import Decoder, find_formats
from ingest.histogram import Histogram
from ingest.intake import Announcements, Intake, Portion, admit, announcements, join, merge, take
from ingest.ledger import Duplicates, as_unknown
from ingest.message import Message
from ingest.nudge import Nudges, nudge
from ingest.published import Published
from ingest.reader import JournalReader
from ingest.rejected import Replayed, replay
from ingest.settings import IngestSettings
from ingest.settling import only
from qala.state import registry as inventory
from qala.state.commands import record_delivered
from qala.state.dirty import BUCKET_US
from qala.state.reopened import forget_reopened, reopened
from qala.store.base import Selector, Span, Store
from qala.store.rows import numbers

__all__ = ["Counters", "Dirty", "Health", "Projector"]

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_LOOK_S = 1.0  # a nudge may be lost
_RETRY_S = (0.1, 5.0)  # first and longest wait after a failure
_REQUESTS_MAX = 64
_PORTION = 10_000  # messages that are decoded and admitted together
_EVER = Span(-(2**62), 2**62)
_NEAR = 256  # messages so close together are read at once


class Dirty(Protocol):
    """Where changed readings are marked (qala.state.dirty)."""

    def mark(self, series: Int32Array, bucket: Int64Array, position: Position, *, lasting: bool = True) -> int:
        """Mark (series, 5-minute bucket) pairs for a batch that ends at a position; durably, or until `save`."""

    def save(self) -> None:
        """Make all marks durable."""


class Counters(msgspec.Struct):
    """What the projector has done since it started; `cpu_s` is by stage [CPU seconds of its thread]."""

    messages: int = 0
    readings: int = 0
    batches: int = 0
    failures: int = 0
    rejected: Counter[str] = msgspec.field(default_factory=Counter)
    probe: Histogram = msgspec.field(default_factory=Histogram)  # from a probe's start until it was in the store
    cpu_s: dict[str, float] = msgspec.field(default_factory=dict)


class Health(msgspec.Struct, frozen=True):
    """How far the projector is. `error` is why it cannot go on, empty where it can."""

    applied: int
    lag_messages: int
    lag_s: float
    damaged: int
    error: str


class Projector:
    """Follows the journal and writes what it says to the store, as the store's only writer of readings.

    `registry` returns the current registry, cheaply: a new object means a change. `data` is the folder of the socket and the
    journal. `on_applied` is told of each batch after it is durable. Everything but `ask`, `health` and `counters` belongs to
    the thread that calls `run`, or `step`.
    """

    def __init__(
        self,
        journal: JournalReader,
        store: Store,
        engine: Engine,
        registry: Callable[[], Registry],
        settings: IngestSettings,
        *,
        data: Path,
        dirty: Dirty,
        on_applied: Callable[[Batch], None] | None = None,
    ) -> None:
        self.engine = engine
        self.counters = Counters()
        self._reader = journal
        self._store = store
        self._current_registry = registry
        self._settings = settings
        self._dirty = dirty
        self._on_applied = on_applied
        self._socket = data / "projector.sock"
        (data / "journal").mkdir(parents=True, exist_ok=True)
        self._published = Published(data / "journal" / "applied")
        self._decoder = Decoder(find_formats(settings))
        self._books = Bookkeeping(engine, settings, journal, save=dirty.save, published=data / "journal" / "counted")
        self._declared = Declarations(engine)
        self._registry = Registry()
        self._admission = self._new_admission()
        self._applied: Position | None = None
        self._repeats = True  # the next batch may have been written in part before
        self._fresh_us = 0  # when nothing waited, or the receipt of the newest message applied
        self._error = ""
        self._requests: queue.Queue[Callable[[], None]] = queue.Queue(_REQUESTS_MAX)

    @property
    def journal(self) -> str:
        """The journal's id."""
        return self._reader.id

    # ---- the route

    def step(self, now_us: int) -> int:
        """Take one batch of messages all the way and return how many they were; 0 where nothing waits.

        Whatever fails, and wherever the process dies, the same messages are taken again: every write is the same the second
        time, and the position moves only with the readings. Raises UnavailableError where the store cannot be reached.
        """
        began_s = time.monotonic()
        with self._again_unless_done():
            self._look_at_registry()
            applied = self._position()
            portions = self._portions(applied)
            if not portions:
                self._fresh_us = max(self._fresh_us, now_us)
                self._books.rest(applied, now_us)
                return 0
            whole = merge(portions)
            with self._stage("rejected"):
                if whole.counted:
                    self._books.write(applied, whole, repeats=self._repeats)
            with self._stage("marks"):
                self._dirty.mark(*whole.marked, whole.upto, lasting=not whole.counted)
            with self._stage("store"):
                self._store.append(whole.batch, whole.upto)
            if whole.upto.number <= self._books.stored:  # the marks may have been taken before all was stored anew
                self._dirty.mark(*whole.marked, whole.upto, lasting=False)
            if whole.counted:
                with self._stage("ledger"):
                    self._books.add(whole)
            self._arrived(whole, now_us + int((time.monotonic() - began_s) * 1e6))
            return whole.messages

    def _portions(self, after: Position) -> list[Portion]:
        """Take messages up to a batch, none that are counted together with none that are not."""
        counted = self._books.counted
        left = self._settings.batch_max
        if after.number < counted:
            left = min(left, counted - after.number)
        portions: list[Portion] = []
        while left > 0 and (portion := self._take(portions[-1].upto if portions else after, left, not portions)):
            portions.append(portion)
            left -= portion.messages
        return portions

    def _take(self, after: Position, limit: int, is_first: bool) -> Portion | None:
        """Decode and admit the messages after a position: so few at a time that they stay in the processor's cache.

        Units that are new let messages in that came before; so what was taken before must be in the store first.
        """
        with self._stage("journal"):
            numbers, messages = join(self._reader.read(after.number, limit=min(limit, _PORTION)))
        counted = self._books.counted
        if messages and after.number < counted < numbers[-1]:  # where some are missing, so many reach further
            known = int((numbers <= counted).sum())
            numbers, messages = numbers[:known], messages[:known]
        if not messages:
            return None
        upto = Position(after.journal, int(numbers[-1]))
        with self._stage("decode"):
            intake = take(numbers, messages, self._decoder)
            said = announcements(intake, self._registry, self._declared.units())
            if said.metadata and not is_first and self._declared.changed(said.metadata):
                return None
            self._listen(intake, said)
        with self._stage("admit"):
            admitted = admit(self._admission, intake)
        with self._stage("ledger"):
            self._books.note_unknown(intake, said.and_unknown(admitted), upto)
            if upto.number <= counted:
                self._books.settle(intake, admitted, after)
                written = Written()
            else:
                written = self._books.prepare(intake, admitted, upto.journal)
        return Portion(
            upto,
            len(messages),
            messages[-1].received_us,
            admitted.batch,
            admitted.marked,
            Counter(str(rejection.reason) for _, rejection in admitted.rejections),
            written.rows,
            written.counted,
            probes(intake.aside),
        )

    def _position(self) -> Position:
        """Return up to where the store has the journal; it is asked at the start, and after a failure."""
        journal = self._reader.id
        if self._applied is None or self._applied.journal != journal:
            applied = (self._store.applied(journal) if journal else None) or Position(journal, 0)
            self._declared.load()
            self._admission = self._new_admission()
            self._applied = self._books.begin(applied) if journal else applied
            self._published.set(self._applied.number)
        return self._applied

    def _listen(self, intake: Intake, said: Announcements) -> None:
        """Keep what devices say of themselves. New units hold for their whole portion, and for what was rejected without them."""
        answers = delivered(intake.aside)
        if answers:
            record_delivered(self.engine, answers)
        if said.statuses:
            inventory.put_status(self.engine, said.statuses)
        if said.metadata:
            changed = self._declared.changed(said.metadata)
            self._declared.take(said.metadata)
            if changed:
                self._admission = self._new_admission()
            for device in changed:
                replay(self, reason=Reason.UNKNOWN_QUANTITY, device=device)
            self._declared.put(said.metadata)

    def _arrived(self, whole: Portion, now_us: int) -> None:
        self._applied, self._repeats = whole.upto, False
        self._published.set(whole.upto.number)
        self._fresh_us = max(self._fresh_us, whole.received_us)
        self.counters.batches += 1
        self.counters.messages += whole.messages
        self.counters.rejected.update(whole.rejected)
        for sent_us in whole.probes:
            self.counters.probe.observe(max(now_us - sent_us, 0) / 1e6)
        self._tell(whole.batch)

    def _tell(self, batch: Batch) -> None:
        self.counters.readings += len(batch)
        if self._on_applied is None or not len(batch):
            return
        try:
            self._on_applied(batch)
        except Exception:  # noqa: BLE001 - the readings are stored, whoever listens
            _LOG.exception("a listener failed on a batch that is stored")

    # ---- once more

    def project_again(self, numbers: Sequence[int]) -> Replayed:
        """Take single messages (rising numbers) of the journal all the way again, with their own origin."""
        with self._again_unless_done():
            self._look_at_registry()
            self._position()
            found = self._find(numbers)
            done = self._project_again(take(*found, self._decoder)) if found[1] else Replayed()
            return done + Replayed(pruned=len(numbers) - len(found[1]))

    def _find(self, numbers: Sequence[int]) -> tuple[Int64Array, list[Message]]:
        found: dict[int, Message] = {}
        read = 0
        for number in numbers:
            if number > read:
                near = bisect_right(numbers, number + _NEAR)
                read = numbers[near - 1]
                at, messages = join(self._reader.read(number - 1, limit=read - number + 1))
                found.update(zip(at.tolist(), messages, strict=True))
        kept = [number for number in numbers if number in found]
        return np.array(kept, np.int64), [found[number] for number in kept]

    def _project_again(self, intake: Intake) -> Replayed:
        """Append first, then mark, then settle what was rejected: a replay that was cut short shows as rejected still."""
        admitted = self._append_again(intake)
        self._books.settle(intake, admitted, self._position())
        bad = len({index for index, _ in admitted.rejections})
        return Replayed(replayed=len(intake.messages), accepted=len(intake.messages) - bad, still_rejected=bad)

    def _look_at_registry(self) -> None:
        """Take a new registry, and what devices had sent before it had them."""
        registry = self._current_registry()
        if registry is not self._registry:
            self._registry = self._books.registry = registry
            self._admission = self._new_admission()
            self._mark_reopened()
        if self._books.admissible()[0]:
            self._project_admitted()

    def _mark_reopened(self) -> None:
        """Mark the readings of devices that count otherwise since the registry changed, as far as they are stored."""
        devices = reopened(self.engine)
        position = self._position()
        if devices and position.number:
            for rows in self._store.read(Selector(devices=frozenset(devices)), _EVER):
                table = pa.Table.from_batches([rows])
                buckets = numbers(table, "time_us", np.int64) // BUCKET_US
                self._dirty.mark(numbers(table, "series", np.int32), buckets, position)
        forget_reopened(self.engine, devices)

    def _project_admitted(self) -> None:
        """Take all that newly admitted devices have sent since they were first seen all the way."""
        applied = self._position()
        devices, first = self._books.admissible()
        duplicates, after = Duplicates(), first - 1
        while after < applied.number:
            numbers, messages = join(self._reader.read(after, limit=self._settings.batch_max))
            known = int((numbers <= applied.number).sum())
            if not known:
                break
            after = int(numbers[known - 1])
            intake = take(numbers[:known], messages[:known], self._decoder)
            duplicate = self._books.duplicates(duplicates, intake)
            theirs, where = only(intake, devices)
            if where:
                before = as_unknown(theirs, duplicate[where])
                again = Again(theirs, self._append_again(theirs), duplicate[where])
                self._books.settle_admitted(before, again, devices, applied)
        self._books.forget_awaited(devices)

    def _append_again(self, intake: Intake) -> Admitted:
        """Take messages of the journal to the store once more, with their own origin."""
        self._listen(intake, announcements(intake, self._registry, self._declared.units()))
        admitted = admit(self._admission, intake)
        position = self._position()
        self._store.append(admitted.batch, None)
        self._dirty.mark(*admitted.marked, position)
        self._tell(admitted.batch)
        return admitted

    def rejected(self, *, reason: str | None = None, device: str | None = None) -> list[int]:
        """Return the numbers of the messages that the store has, and of which something was rejected."""
        return self._books.rejected(self._position(), reason, device)

    def _new_admission(self) -> Admission:
        return Admission(self._registry, self._register, self._settings, declared=self._declared.units())

    def _register(self, series: Sequence[SeriesInfo]) -> Int32Array:
        """Register series; whatever the store fails with says nothing against the messages."""
        try:
            return self._store.register(series)
        except QalaError:
            raise
        except Exception as error:
            raise UnavailableError(f"the store cannot register series: {error}", hint="look at its log") from error

    # ---- the thread

    def run(self, stop: threading.Event) -> None:
        """Project until `stop` is set: at a nudge, or once a second, holding back for more to come. Never raises."""
        wait_s = _RETRY_S[0]
        with Nudges(self._socket) as nudges:
            while not stop.is_set():
                self._answer()
                try:
                    done = self.step(time.time_ns() // 1000)
                except Exception as error:  # noqa: BLE001 - nothing may end the projection; it is shown and tried again
                    self._fail(error)
                    stop.wait(wait_s)
                    wait_s = min(wait_s * 2, _RETRY_S[1])
                    continue
                self._error, wait_s = "", _RETRY_S[0]
                if done < self._settings.batch_max and nudges.wait(_LOOK_S):
                    stop.wait(self._settings.flush_ms / 1000)
                    nudges.drain()
        self._answer()

    def ask(self, request: Callable[[], T]) -> Future[T]:
        """Let the projector's thread call something between two batches, as the store's only writer.

        Raises UnavailableError where too many requests wait.
        """
        future: Future[T] = Future()
        try:
            self._requests.put_nowait(lambda: _resolve(future, request))
        except queue.Full:
            raise UnavailableError("too many requests wait for the projector", hint="try again in a moment") from None
        nudge(self._socket)
        return future

    def wake(self) -> None:
        """Make a running projector look at once, such as at a new registry or a stop."""
        nudge(self._socket)

    def health(self, now_us: int) -> Health:
        """Say how far the projector is."""
        applied = self._published.get()
        lag = max(self._reader.synced() - applied, 0)
        lag_s = max(now_us - self._fresh_us, 0) / 1e6 if lag and self._fresh_us else 0.0
        return Health(applied, lag, lag_s, self._reader.damaged, self._error)

    def _answer(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._requests.get_nowait()()

    def _fail(self, error: Exception) -> None:
        self.counters.failures += 1
        if str(error) != self._error:
            _LOG.error(
                "the projector cannot go on, and tries again: %s", error, exc_info=not isinstance(error, QalaError)
            )
        self._error = str(error) or type(error).__name__

    @contextlib.contextmanager
    def _again_unless_done(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._applied, self._repeats = None, True
            raise

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start_s = time.thread_time()
        try:
            yield
        finally:
            self.counters.cpu_s[name] = self.counters.cpu_s.get(name, 0.0) + time.thread_time() - start_s


def _resolve(future: Future[T], request: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(request())
    except Exception as error:  # noqa: BLE001 - it belongs to whoever asked
        future.set_exception(error)
