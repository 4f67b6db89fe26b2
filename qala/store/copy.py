"""Copying a store to another, of any engine: by the protocol alone, day by day, compared as it goes.

Days whose checksums are equal already are passed over: a copy that was broken off goes on when it is called again. A day
that is copied is read from the source once; what was read is what the target is compared with. Takes the memory of one
append and of one day's checksums and values, however much there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge, nlargest
from itertools import groupby

import msgspec
import numpy as np
import pyarrow as pa

from devices.reading import Batch, Int32Array
from devices.value import Value
from qala.store.arrival import DAY_US
from qala.store.base import Selector, Span, Store, ValueSelector
from qala.store.checksum import (
    DaySum,
    DaySums,
    ValueSum,
    day_checksums,
    days,
    differing,
    each_day,
    value_sums,
    within,
)
from qala.store.rows import batch_of

__all__ = ["Copied", "Difference", "Progress", "copy_store"]

ROWS_MAX = 50_000  # readings of one append
VALUES_MAX = 5_000  # values of one put
WORST_MAX = 20  # differences that are named
_ALL = Selector()

Pair = tuple[DaySum | ValueSum | None, DaySum | ValueSum | None]


class Progress(msgspec.Struct, frozen=True):
    """How a copy stands: the days of readings done, of them those that were equal already, and what was written."""

    stage: str  # "readings", "values"
    share: float  # of the time to copy, 0 to 1
    days: int
    days_equal: int
    readings: int
    values: int


class Difference(msgspec.Struct, frozen=True):
    """What is not the same after copying: readings of a series and day, or values of an indicator, zone and day."""

    what: str
    day: int  # UTC days since 1970-01-01
    rows: int  # in the source
    rows_copied: int  # in the target


class Copied(msgspec.Struct):
    """What a copy did. Without differences the target holds all that the span of the source held."""

    readings: int = 0
    values: int = 0
    days: int = 0
    days_equal: int = 0  # passed over: they were equal already
    positions: int = 0
    differences: int = 0
    worst: list[Difference] = []


def copy_store(
    source: Store,
    target: Store,
    span: Span | None = None,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> Copied:
    """Copy series, readings, values with all their revisions and, of the whole store, the positions.

    Nothing is deleted in the target. The positions come last, and only when there is no difference: they are those of
    the source from before its readings were read, so that the target misses nothing when it goes on from them.
    """
    copying = _Copying(source, target, span, on_progress)
    positions = source.positions()
    copying.note(copying.readings())
    copying.note(copying.values())
    if span is None and not copying.done.differences:
        for position in positions:
            target.append(Batch.empty(), position)
        copying.done.positions = len(positions)
    return copying.done


class _Copying:
    """One copy under way."""

    def __init__(
        self, source: Store, target: Store, span: Span | None, on_progress: Callable[[Progress], None]
    ) -> None:
        self.source, self.target, self.span, self.on_progress = source, target, span, on_progress
        self.done = Copied()

    def note(self, pairs: Iterable[Pair]) -> None:
        """Count differences, and keep the worst."""
        for pair in pairs:
            self.done.differences += 1
            self.done.worst = nlargest(WORST_MAX, [*self.done.worst, _difference(*pair)], key=_missing)

    def tell(self, stage: str, whole: Span, reached_us: int) -> None:
        share = (reached_us - whole.start_us) / (whole.stop_us - whole.start_us)
        done = self.done
        self.on_progress(Progress(stage, share, done.days, done.days_equal, done.readings, done.values))

    def readings(self) -> Iterator[Pair]:
        """Copy the readings of the span and yield what differs then."""
        series = _Series(self.source, self.target)
        whole = _both(within(self.span, self.source.extent()), within(self.span, self.target.extent()))
        for day in _days_of_both(self.source, self.target, whole):
            theirs = day_checksums(self.target, day, _ALL)
            if theirs and theirs == day_checksums(self.source, day, _ALL):
                self.done.days_equal += 1
            else:
                yield from self._day(series, whole, day)
            self.done.days += 1
            self.tell("readings", whole, day.stop_us)

    def _day(self, series: _Series, whole: Span, day: Span) -> Iterator[Pair]:
        mine = DaySums()
        for part in _appends(self.source.read(_ALL, day), mine):
            self.target.append(series.renumbered(part), None)
            self.done.readings += len(part)
            self.tell("readings", whole, day.start_us)
        number = day.start_us // DAY_US
        yield from differing(mine.of(self.source.catalog(), number), day_checksums(self.target, day, _ALL))

    def values(self) -> Iterator[Pair]:
        """Copy the values whose windows start in the span, revision by revision, and yield what differs then."""
        whole = _both(within(self.span, self.source.values_extent()), within(self.span, self.target.values_extent()))
        for day in each_day(whole):
            number = day.start_us // DAY_US
            given, kept = (store.revisions(ValueSelector(), day) for store in (self.source, self.target))
            mine = value_sums(given, number)
            if mine != value_sums(kept, number):
                for values in _to_put(given, kept):
                    self.done.values += self.target.put_values(values)
                yield from differing(mine, value_sums(self.target.revisions(ValueSelector(), day), number))
            self.tell("values", whole, day.stop_us)


def _missing(difference: Difference) -> int:
    return abs(difference.rows - difference.rows_copied)


def _difference(mine: DaySum | ValueSum | None, theirs: DaySum | ValueSum | None) -> Difference:
    known = next(one for one in (mine, theirs) if one)
    what = " ".join(str(part) for part in known.place[1:] if part != "")
    return Difference(what, known.day, mine.rows if mine else 0, theirs.rows if theirs else 0)


class _Series:
    """The ids of the target for those of the source."""

    def __init__(self, source: Store, target: Store) -> None:
        self._source, self._target = source, target
        self._theirs: Int32Array = np.empty(0, np.int32)
        self._learn()

    def _learn(self) -> None:
        catalog = self._source.catalog()
        self._theirs = np.zeros(max(catalog, default=0) + 1, np.int32)
        self._theirs[list(catalog)] = self._target.register(list(catalog.values()))

    def renumbered(self, batch: Batch) -> Batch:
        """Return readings by the target's ids; series that the source got since are registered."""
        if len(batch) and batch.series.max() >= len(self._theirs):
            self._learn()
        return msgspec.structs.replace(batch, series=self._theirs[batch.series])


def _both(one: Span, other: Span) -> Span:
    """Return the shortest span that holds two."""
    known = [span for span in (one, other) if span.start_us < span.stop_us]
    return Span(min((span.start_us for span in known), default=0), max((span.stop_us for span in known), default=0))


def _days_of_both(source: Store, target: Store, span: Span) -> Iterator[Span]:
    """Yield each day that either store has readings of."""
    found = merge(days(source, span, _ALL), days(target, span, _ALL), key=lambda day: day.start_us)
    for day, _ in groupby(found):
        yield day


def _appends(parts: Iterable[pa.RecordBatch], sums: DaySums) -> Iterator[Batch]:
    """Yield readings in batches of a good size for an append, summing them up."""
    waiting: list[Batch] = []
    for part in parts:
        batch = batch_of(part)
        sums.add(batch)
        for start in range(0, len(batch), ROWS_MAX):
            some = batch.take(np.arange(start, min(start + ROWS_MAX, len(batch))))
            if sum(map(len, waiting)) + len(some) > ROWS_MAX:
                yield _joined(waiting)
                waiting = []
            waiting.append(some)
    if waiting:
        yield _joined(waiting)


def _joined(batches: Sequence[Batch]) -> Batch:
    columns = zip(*map(msgspec.structs.astuple, batches), strict=True)
    return batches[0] if len(batches) == 1 else Batch(*map(np.concatenate, columns))


def _to_put(given: pa.Table, kept: pa.Table) -> Iterator[list[Value]]:
    """Yield the revisions that a target lacks, oldest first, in parts of a good size.

    A store gives revisions their numbers by itself: those that a broken-off copy has put are not to be put again.
    """
    has = Counter(zip(*(kept[name].to_pylist() for name in ("indicator", "zone", "window", "start_us")), strict=True))
    for part in given.to_batches(max_chunksize=VALUES_MAX):
        values = [_value(row) for row in part.to_pylist()]
        lacking = [one for one in values if one.revision > has[one.indicator, one.zone, one.window, one.start_us]]
        if lacking:
            yield lacking


def _value(row: dict[str, object]) -> Value:
    return msgspec.convert(row | {"detail": msgspec.json.decode(str(row["detail"]))}, Value)
