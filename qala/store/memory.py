"""A store in memory, for tests: the plainest reading of the protocol, and the measure of the other engines."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from devices.errors import UnavailableError
from devices.reading import USABLE, Batch, Int32Array, Int64Array, Position, SeriesInfo
from devices.value import Value
from qala.store.base import READINGS, Aggregate, Appended, Capabilities, Selector, Span, Upkeep, ValueSelector
from qala.store.rows import check_registered, overview_schema, selected, value_row, values_table
from qala.store.settings import StoreSettings
from qala.store.sound import soundness

_ROWS_MAX = 65_536  # rows of one record batch

Key = tuple[str, str, str, int]


class _Reading(NamedTuple):
    series: int
    time_us: int
    value: float
    flag: int
    revision: int
    origin: int
    received_us: int


def open_url(_url: str, _settings: StoreSettings) -> MemoryStore:
    """Open `memory:`, empty every time."""
    return MemoryStore()


class MemoryStore:
    """Readings in a dictionary by series and time, values in lists of revisions. Behind one lock."""

    capabilities = Capabilities(engine="memory", persistent=False)

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._closed = False
        self._ids: dict[SeriesInfo, int] = {}
        self._readings: dict[int, dict[int, _Reading]] = {}
        self._positions: dict[str, Position] = {}
        self._values: dict[Key, list[Value]] = {}

    def register(self, series: Sequence[SeriesInfo]) -> Int32Array:
        with self._open():
            return np.array([self._ids.setdefault(info, len(self._ids) + 1) for info in series], np.int32)

    def catalog(self) -> Mapping[int, SeriesInfo]:
        with self._open():
            return {id_: info for info, id_ in self._ids.items()}

    def append(self, batch: Batch, upto: Position | None) -> Appended:
        with self._open():
            check_registered(batch.series, len(self._ids))
            before = {(r.series, r.time_us): self._at(r) for r in _rows(batch)}
            for reading in _rows(batch):
                self._put(reading)
            if upto is not None:
                self._positions[upto.journal] = max(upto, self._positions.get(upto.journal, upto))
            inserted = sum(old is None for old in before.values())
            updated = sum(old is not None and not _same(old, self._at(old)) for old in before.values())
            return Appended(inserted, updated, len(batch) - inserted - updated)

    def _at(self, reading: _Reading) -> _Reading | None:
        return self._readings.get(reading.series, {}).get(reading.time_us)

    def _put(self, reading: _Reading) -> None:
        old = self._at(reading)
        if old is None or (reading.revision, reading.origin) >= (old.revision, old.origin):
            self._readings.setdefault(reading.series, {})[reading.time_us] = reading

    def applied(self, journal: str) -> Position | None:
        with self._open():
            return self._positions.get(journal)

    def positions(self) -> Sequence[Position]:
        with self._open():
            return sorted(self._positions.values())

    def extent(self) -> Span | None:
        with self._open():
            times = [time for readings in self._readings.values() for time in readings]
        return Span(min(times), max(times) + 1) if times else None

    def read(
        self,
        select: Selector,
        span: Span,
        *,
        bracket: bool = False,
        limit: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        with self._open():
            rows = [row for id_ in self._select(select) for row in _inside(self._series(id_), span, bracket)]
        return _batches(rows[:limit])

    def _select(self, select: Selector) -> Sequence[int]:
        return selected(select, self.catalog())

    def _series(self, id_: int) -> list[_Reading]:
        return [row for _, row in sorted(self._readings.get(id_, {}).items())]

    def overview(self, select: Selector, edges_us: Int64Array, aggregates: frozenset[Aggregate]) -> pa.Table:
        schema = overview_schema(aggregates)
        windows = [Span(start, stop) for start, stop in pairwise(edges_us.tolist())]
        with self._open():
            catalog = self.catalog()
            series = [(id_, self._series(id_)) for id_ in self._select(select)]
        rows = [
            {"series": id_, "start_us": window.start_us, **_aggregates(inside, sound)}
            for id_, readings in series
            for sound in [_sound(readings, catalog[id_])]
            for window in windows
            if (inside := _inside(readings, window))
        ]
        return pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in rows], schema=schema)

    def latest(self, select: Selector, *, at_us: int, lookback_s: int) -> pa.Table:
        span = Span(at_us - lookback_s * 1_000_000 + 1, at_us + 1)
        with self._open():
            rows = [row for id_ in self._select(select) for row in _inside(self._series(id_), span)[-1:]]
        return _table(rows)

    def retract(self, series: Int32Array, time_us: Int64Array, origin: Int64Array) -> int:
        gone = 0
        with self._open():
            for id_, time, stem in zip(series.tolist(), time_us.tolist(), origin.tolist(), strict=True):
                readings = self._readings.get(id_, {})
                if time in readings and readings[time].origin == stem:
                    del readings[time]
                    gone += 1
        return gone

    def put_values(self, values: Sequence[Value]) -> int:
        with self._open():
            return sum(self._put_value(value) for value in values)

    def _put_value(self, value: Value) -> bool:
        kept = self._values.setdefault(_key(value), [])
        if kept and _number(kept[-1]) == _number(value):
            return False
        kept.append(msgspec.structs.replace(value, revision=len(kept) + 1))
        return True

    def values(self, select: ValueSelector, span: Span, *, as_of_us: int | None = None) -> pa.Table:
        with self._open():
            known = [
                [value for value in revisions if as_of_us is None or value.known_us <= as_of_us]
                for revisions in self._revisions(select, span)
            ]
        return values_table(revisions[-1] for revisions in known if revisions)

    def revisions(self, select: ValueSelector, span: Span) -> pa.Table:
        with self._open():
            return values_table(value for revisions in self._revisions(select, span) for value in revisions)

    def _revisions(self, select: ValueSelector, span: Span) -> list[list[Value]]:
        return [revisions for key, revisions in sorted(self._values.items()) if _picks(select, span, key)]

    def values_extent(self) -> Span | None:
        with self._open():
            starts = [start_us for *_, start_us in self._values]
        return Span(min(starts), max(starts) + 1) if starts else None

    def delete_before(self, time_us: int, select: Selector | None = None) -> None:
        with self._open():
            for id_ in self._select(select or Selector()):
                kept = {time: row for time, row in self._readings.get(id_, {}).items() if time >= time_us}
                self._readings[id_] = kept

    def tend(self, now_us: int) -> bool:  # noqa: ARG002 - it needs none
        with self._open():
            return False

    def upkeep(self) -> Sequence[Upkeep]:
        return ()

    def close(self) -> None:
        self._closed = True

    def _open(self) -> threading.RLock:
        """Return the lock to work under. Raises UnavailableError after `close`."""
        if self._closed:
            raise UnavailableError("the store is closed", hint="open it again")
        return self._lock


def _rows(batch: Batch) -> Iterable[_Reading]:
    return map(_Reading, *(column.tolist() for column in msgspec.structs.astuple(batch)))


def _same(old: _Reading, new: _Reading | None) -> bool:
    if new is not None and math.isnan(old.value) and math.isnan(new.value):
        return old._replace(value=0.0) == new._replace(value=0.0)
    return old == new


def _inside(rows: Sequence[_Reading], span: Span, bracket: bool = False) -> Sequence[_Reading]:
    start = bisect_left(rows, span.start_us, key=_time)
    stop = bisect_left(rows, span.stop_us, lo=start, key=_time)
    return rows[max(start - bracket, 0) : stop + bracket]


def _time(row: _Reading) -> int:
    return row.time_us


def _sound(readings: Sequence[_Reading], info: SeriesInfo) -> frozenset[int]:
    """Return the times of a series' readings that are usable once the context checks have seen all of it."""
    time_us = np.array([row.time_us for row in readings], np.int64)
    value = np.array([row.value for row in readings], np.float64)
    flag = np.array([row.flag for row in readings], np.uint8)
    sound = soundness(np.zeros(len(readings), np.int32), time_us, value, flag, {0: info})
    return frozenset(time_us[sound].tolist())


def _aggregates(readings: Sequence[_Reading], sound: frozenset[int]) -> dict[str, float | None]:
    good = [row.value for row in readings if row.flag in USABLE]
    return {
        Aggregate.COUNT: len(readings),
        Aggregate.GOOD: len(good),
        Aggregate.SOUND: sum(row.time_us in sound for row in readings),
        Aggregate.SUM: sum(good) if good else None,
        Aggregate.MEAN: sum(good) / len(good) if good else None,
        Aggregate.MIN: min(good, default=None),
        Aggregate.MAX: max(good, default=None),
        Aggregate.FIRST: good[0] if good else None,
        Aggregate.LAST: good[-1] if good else None,
        Aggregate.P50: float(np.percentile(good, 50)) if good else None,
        Aggregate.P95: float(np.percentile(good, 95)) if good else None,
    }


def _batches(rows: Iterable[_Reading]) -> Iterator[pa.RecordBatch]:
    remaining = iter(rows)
    while some := list(islice(remaining, _ROWS_MAX)):
        yield from _table(some).to_batches()


def _table(rows: Sequence[_Reading]) -> pa.Table:
    return pa.Table.from_pylist([row._asdict() for row in rows], schema=READINGS)


def _key(value: Value) -> Key:
    return value.indicator, value.zone, value.window, value.start_us


def _number(value: Value) -> object:
    return value_row(msgspec.structs.replace(value, known_us=0, revision=0))


def _picks(select: ValueSelector, span: Span, key: Key) -> bool:
    indicator, zone, window, start_us = key
    return (
        span.start_us <= start_us < span.stop_us
        and (select.indicators is None or indicator in select.indicators)
        and (select.zones is None or zone in select.zones)
        and (select.windows is None or window in select.windows)
    )
