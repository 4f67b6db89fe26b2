"""Our own engine as a peer, through the store's protocol alone."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import msgspec
import numpy as np

from devices.reading import Batch, Float64Array, Int32Array, Int64Array, Position
from qala.bench.store_data import HOUR_US, STEP_US, Rows, Shape, readings, series_infos
from qala.bench.store_peer import About
from qala.store import Store, open_store
from qala.store.base import Aggregate, Selector, Span
from qala.store.rows import numbers

__all__ = ["Late", "Qala", "late_readings"]

_ALL = Selector()
_LATEST_LOOKBACK_S = 7200
_ZONE_SERIES = 20
_LATE_US = 10 * 24 * HOUR_US


class Qala:
    """The DuckDB engine."""

    name = "qala"

    def __init__(self, folder: Path, shape: Shape) -> None:
        self._url = f"duckdb://{folder / 'readings.duckdb'}"
        self._shape = shape
        self._store: Store | None = None
        self._ids: Int32Array = np.empty(0, np.int32)

    @property
    def store(self) -> Store:
        assert self._store is not None  # noqa: S101 - a peer is asked between start and stop
        return self._store

    def about(self) -> About:
        return About(
            name=self.name,
            version=f"DuckDB {duckdb.__version__}",
            durability="every batch synced",
            interface="in the process, Arrow",
            repeats="each (series, time) once, the highest revision and origin",
        )

    def start(self) -> None:
        self._store = open_store(self._url)
        self._ids = np.concatenate([[0], self.store.register(series_infos(self._shape.series))]).astype(np.int32)

    def stop(self) -> None:
        if self._store:
            self._store.close()
        self._store = None

    def pid(self) -> int:
        return os.getpid()

    def append(self, rows: Rows) -> None:
        origin = np.full(len(rows), rows.number + 1, np.int64)
        revision = np.zeros(len(rows), np.int32)
        batch = Batch(self._ids[rows.series], rows.time_us, rows.value, rows.flag, revision, origin, rows.received_us)
        self.store.append(batch, Position("bench", rows.number + 1))

    def tend(self, now_us: int) -> bool:
        return self.store.tend(now_us)

    def settle(self) -> None:
        """Nothing: what is acknowledged can be read."""

    def count(self) -> int:
        ends = np.array([self._shape.start_us, self._shape.stop_us], np.int64)
        return int(numbers(self.store.overview(_ALL, ends, frozenset({Aggregate.COUNT})), "count", np.int64).sum())

    def latest(self, at_us: int) -> Float64Array:
        return numbers(self.store.latest(_ALL, at_us=at_us, lookback_s=_LATEST_LOOKBACK_S), "value", np.float64)

    def raw(self, series: int, span: Span) -> Float64Array:
        parts = [batch.column("value").to_numpy() for batch in self.store.read(self._one(series), span)]
        return np.concatenate(parts) if parts else np.empty(0)

    def hourly(self, series: int, span: Span, *, p95: bool) -> Float64Array:
        asked = {Aggregate.MEAN, Aggregate.P95} if p95 else {Aggregate.MEAN}
        return self._means(self._one(series), span, HOUR_US, frozenset(asked))

    def windows(self, span: Span) -> Float64Array:
        return self._means(_ALL, span, STEP_US, frozenset({Aggregate.MEAN}))

    def _means(self, select: Selector, span: Span, width_us: int, asked: frozenset[Aggregate]) -> Float64Array:
        found = self.store.overview(select, _edges(span, width_us), asked)
        return found["mean"].to_numpy()  # type: ignore[no-any-return]

    def completeness(self, span: Span) -> Float64Array:
        edges = np.array([span.start_us, span.stop_us], np.int64)
        found = self.store.overview(_ALL, edges, frozenset({Aggregate.COUNT, Aggregate.GOOD}))
        return numbers(found, "good", np.int64).astype(np.float64)

    def _one(self, series: int) -> Selector:
        return Selector(series=frozenset({int(self._ids[series])}))

    def series_ids(self, first: int, count: int) -> Selector:
        """Select neighbouring series, as those of a zone are."""
        return Selector(series=frozenset(map(int, self._ids[first : first + count])))


def _edges(span: Span, width_us: int) -> Int64Array:
    return np.arange(span.start_us, span.stop_us + 1, width_us, dtype=np.int64)


class Late(msgspec.Struct):
    """What one late reading took [s]: to be stored, and to read what its zone's hour and day are computed from."""

    append_s: float
    hour_s: float
    day_s: float


def late_readings(qala: Qala, shape: Shape, count: int) -> Iterator[Late]:
    """Append readings ten days late (or half of all there is), one at a time, and read what their windows need."""
    dice = np.random.default_rng(shape.seed)
    back = min(_LATE_US, (shape.stop_us - shape.start_us) // 2)
    for number in range(count):
        first = int(dice.integers(1, max(2, shape.series - _ZONE_SERIES)))
        turn = max(shape.turn_of(shape.stop_us - back) - int(dice.integers(0, 12)), 0)
        rows = _late_row(shape, first, turn, number)
        began = time.perf_counter()
        qala.append(rows)
        stored = time.perf_counter()
        around = [int(rows.time_us[0]) // width * width for width in (HOUR_US, 24 * HOUR_US)]
        zone = qala.series_ids(first, _ZONE_SERIES)
        _read(qala.store, zone, Span(around[0] - 2 * HOUR_US, around[0] + 2 * HOUR_US))
        hour = time.perf_counter()
        _read(qala.store, zone, Span(around[1] - 2 * HOUR_US, around[1] + 25 * HOUR_US))
        yield Late(stored - began, hour - stored, time.perf_counter() - hour)


def _late_row(shape: Shape, series: int, turn: int, number: int) -> Rows:
    """Make a reading between two others of its series."""
    made = readings(shape, np.array([series]), np.array([turn]))
    received = np.array([shape.stop_us], np.int64)
    return Rows(
        10**9 + number, turn, np.array([series], np.int32), made.time_us + 60_000_000, made.value, made.flag, received
    )


def _read(store: Store, select: Selector, span: Span) -> int:
    return sum(batch.num_rows for batch in store.read(select, span))
