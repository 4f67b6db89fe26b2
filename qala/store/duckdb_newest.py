"""The newest reading of each series, held in memory: what `latest` is mostly asked for."""

from __future__ import annotations

import threading

import duckdb
import msgspec
import numpy as np
import pyarrow as pa

from devices.reading import Batch, BoolArray, Int32Array, Int64Array
from qala.store import duckdb_sql as sql
from qala.store.arrival import DAY_US, Extent
from qala.store.base import READINGS, Span
from qala.store.rows import batch_of, readings_table

_NEVER = np.iinfo(np.int64).min
_NEAR_US = (
    2 * DAY_US // 24,
    2 * DAY_US,
)  # before the newest reading of all: how far back those of the series are looked for


class Newest:
    """Columns of readings by series id. Of a series that is not `known`, `time_us` is only a bound: its newest is no later.

    The writer calls it after its commit, readers at any time.
    """

    def __init__(self, series: int) -> None:
        self._lock = threading.Lock()
        self._known = np.ones(series + 1, np.bool_)
        self._rows = _nothing(series + 1)

    def grow(self, series: int) -> None:
        """Make room for the series ids 1 to `series`."""
        with self._lock:
            more = series + 1 - len(self._known)
            self._known = np.concatenate([self._known, np.ones(more, np.bool_)])
            self._rows = _joined(self._rows, _nothing(more))

    def bound(self, last_us: Int64Array) -> None:
        """Know of each series only that its newest reading is no later: int64[series + 1]."""
        with self._lock:
            self._rows.time_us[:] = last_us
            self._known = last_us == _NEVER

    def add(self, batch: Batch) -> None:
        """Take in readings that were written, each (series, time) at most once, by the store's rule of precedence."""
        with self._lock:
            rows, at = self._rows, batch.series
            known, kept_us = self._known[at], rows.time_us[at]
            again = np.flatnonzero(known & (batch.time_us == kept_us))
            again = again[self._outranks(batch, again)]
            last_us = rows.time_us.copy()
            np.maximum.at(last_us, at, batch.time_us)
            later = np.flatnonzero((batch.time_us > kept_us) & (batch.time_us == last_us[at]))
            for picked in (again, later):
                self._put(batch.take(picked))

    def put(self, found: Batch) -> None:
        """Take in the newest readings of series, as they are stored."""
        with self._lock:
            self._put(found)

    def _put(self, found: Batch) -> None:
        for kept, column in zip(msgspec.structs.astuple(self._rows), msgspec.structs.astuple(found), strict=True):
            kept[found.series] = column
        self._known[found.series] = True

    def _outranks(self, batch: Batch, rows: Int64Array) -> BoolArray:
        at = batch.series[rows]
        revision, kept = batch.revision[rows], self._rows.revision[at]
        wins: BoolArray = (revision > kept) | ((revision == kept) & (batch.origin[rows] >= self._rows.origin[at]))
        return wins

    def retracted(self, series: Int32Array, time_us: Int64Array) -> None:
        """Forget the readings that may have been deleted; of their series only the bound stays."""
        with self._lock:
            there = (series > 0) & (series < len(self._known))
            series, time_us = series[there], time_us[there]
            self._known[series[self._rows.time_us[series] == time_us]] = False

    def deleted_before(self, ids: Int64Array, time_us: int) -> None:
        """Know that series have nothing before a time."""
        with self._lock:
            empty = ids[self._rows.time_us[ids] < time_us]
            self._rows.time_us[empty] = _NEVER
            self._known[empty] = True

    def within(self, ids: Int64Array, span: Span) -> tuple[pa.Table, Int64Array]:
        """Return the newest readings (READINGS) in a span of rising series ids, and the ids that have to be looked up."""
        with self._lock:
            times, known = self._rows.time_us[ids], self._known[ids]
            unsure = (times >= span.start_us) & (~known | (times >= span.stop_us))
            found = self._rows.take(ids[known & (times >= span.start_us) & (times < span.stop_us)])
        return readings_table(found), ids[unsure]


def stored(connection: duckdb.DuckDBPyConnection, extent: Extent) -> Newest:
    """Make the map of what is stored; series that have been silent for long get only their bound."""
    newest = Newest(len(extent.last_us) - 1)
    newest.bound(extent.last_us)
    last_us = int(extent.last_us.max())
    for near_us in _NEAR_US:
        span = Span(last_us - near_us, last_us + 1)
        _, ids = newest.within(np.flatnonzero(extent.last_us >= span.start_us), span)
        if len(ids):
            only, parameters = sql.only(ids.tolist())
            query = sql.READ + only + sql.NEWEST
            for rows in connection.sql(query, params=parameters | sql.bounds(span)).to_arrow_reader():
                newest.put(batch_of(rows))
    return newest


def _nothing(rows: int) -> Batch:
    columns = [np.zeros(rows, field.type.to_pandas_dtype()) for field in READINGS]
    empty = Batch(*columns)
    empty.time_us[:] = _NEVER
    return empty


def _joined(one: Batch, other: Batch) -> Batch:
    columns = zip(msgspec.structs.astuple(one), msgspec.structs.astuple(other), strict=True)
    return Batch(*(np.concatenate(pair) for pair in columns))
