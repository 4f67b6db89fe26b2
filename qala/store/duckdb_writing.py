"""Writing readings into the two tables: those before the boundary live in `cold`, the others in `hot`.

What changes in `cold` is noted in `days` within the same transaction: late rows, and roll-ups that are no longer true.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import duckdb
import msgspec
import numpy as np
import pyarrow as pa

from devices.quantity import QUANTITIES
from devices.reading import Batch, BoolArray, Int32Array, Int64Array, SeriesInfo
from qala.store import duckdb_sql as sql
from qala.store.arrival import DAY_US, runs_of_days
from qala.store.base import READINGS
from qala.store.duckdb_file import tables
from qala.store.duckdb_overview_sql import FORGET_ROLLUPS
from qala.store.rows import column, readings_table, series_table
from qala.store.sound import reach_us

BACK_US, AHEAD_US = reach_us(QUANTITIES)
"""How far before and after a reading others decide whether it is sound [us], at most."""
_REACHED = (-AHEAD_US, *range(0, BACK_US, DAY_US), BACK_US)
"""Steps [us] from a reading through every UTC day of those that it may decide on."""


class Changed(NamedTuple):
    """Times [us] of the readings that were written or deleted, and which of them are new rows."""

    time_us: Int64Array
    fresh: BoolArray


class Source:
    """The rows that a connection's statements find under a name: those of the Arrow table that was set last.

    It is made known to the connection once, and statements over it are prepared once: for a few rows that costs more than to
    write them.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, name: str, nothing: pa.Table, prepare: Iterable[str]
    ) -> None:
        self.connection = connection
        self._table = self._nothing = nothing
        connection.register(name, self)
        for statement in prepare:
            connection.execute(statement)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Give the rows to DuckDB (Arrow's PyCapsule interface)."""
        return self._table.__arrow_c_stream__(requested_schema)

    @contextmanager
    def of(self, table: pa.Table) -> Iterator[duckdb.DuckDBPyConnection]:
        """Let statements of the connection find a table."""
        self._table = table
        try:
            yield self.connection
        finally:
            self._table = self._nothing


def arrivals_of(connection: duckdb.DuckDBPyConnection) -> Source:
    """Make the source of the readings that `put` writes."""
    return Source(connection, "arrivals", _arrivals(Batch.empty()), sql.PREPARE_READINGS.values())


class FreshSeries:
    """Series that have an id and are not in the file yet: they are written with the next batch."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._source = Source(connection, "added", series_table([]), [sql.PREPARE_SERIES])
        self._series: list[tuple[int, SeriesInfo]] = []

    def __len__(self) -> int:
        return len(self._series)

    def add(self, series: Iterable[tuple[int, SeriesInfo]]) -> None:
        self._series += series

    def write(self) -> None:
        """Write them, inside a transaction of the connection; `written` says that it was committed."""
        if self._series:
            with self._source.of(series_table(self._series)) as connection:
                connection.execute(sql.INSERT_SERIES)

    def written(self) -> None:
        self._series = []


def put(arrivals: Source, new: Batch, rest: Batch, settled_us: int) -> tuple[int, int]:
    """Write readings that are certainly new, and the rest, which may meet stored ones: how many are new and updated."""
    done = []
    for table, batch in _parted(rest, settled_us):
        done += [(table, changed) for changed in _merged(arrivals, table, batch)]
    for table, batch in _parted(new, settled_us):
        with arrivals.of(_arrivals(batch)) as connection:
            connection.execute(sql.INSERT_READINGS[table])
        done.append((table, Changed(batch.time_us, np.ones(len(batch), np.bool_))))
    note(arrivals.connection, [changed for table, changed in done if table == sql.COLD])
    inserted = sum(int(changed.fresh.sum()) for _, changed in done)
    return inserted, sum(len(changed.fresh) for _, changed in done) - inserted


def _parted(batch: Batch, settled_us: int) -> Iterator[tuple[str, Batch]]:
    late = batch.time_us < settled_us
    if len(batch) and not late.any():
        yield sql.HOT, batch
    elif len(batch):
        yield sql.COLD, batch.take(late)
        if not late.all():
            yield sql.HOT, batch.take(~late)


def _arrivals(batch: Batch) -> pa.Table:
    """Return a batch as rows of the tables: they keep how long after its time a reading was received."""
    kept = msgspec.structs.replace(batch, received_us=batch.received_us - batch.time_us)
    return readings_table(kept).rename_columns([*READINGS.names[:-1], "delay_us"])


def _merged(arrivals: Source, table: str, batch: Batch) -> Iterator[Changed]:
    for rows, span in runs_of_days(batch.time_us):
        with arrivals.of(_arrivals(batch.take(rows))) as connection:
            found = connection.execute(sql.MERGE_READINGS[table], sql.bounds(span)).fetchnumpy()
        yield Changed(np.asarray(found["time_us"], np.int64), np.asarray(found["fresh"], np.bool_))


def retract(
    connection: duckdb.DuckDBPyConnection,
    series: Int32Array,
    time_us: Int64Array,
    origin: Int64Array,
    settled_us: int,
) -> int:
    """Delete the readings that still stem from these origins, and return how many."""
    gone: dict[str, list[Changed]] = {sql.HOT: [], sql.COLD: []}
    for table, there in ((sql.COLD, time_us < settled_us), (sql.HOT, time_us >= settled_us)):
        for rows, span in runs_of_days(time_us[there]):
            stems = _stems(series[there][rows], time_us[there][rows], origin[there][rows])
            with tables(connection, stems=stems):
                found = connection.execute(sql.RETRACT[table], sql.bounds(span)).fetchnumpy()
            gone[table].append(_gone(found["time_us"]))
    note(connection, gone[sql.COLD])
    return sum(len(changed.time_us) for changed in gone[sql.HOT] + gone[sql.COLD])


def _stems(series: Int32Array, time_us: Int64Array, origin: Int64Array) -> pa.Table:
    columns = [column(series, pa.int32()), column(time_us, pa.int64()), column(origin, pa.int64())]
    return pa.table(columns, names=["series", "time_us", "origin"])


def delete_before(connection: duckdb.DuckDBPyConnection, only: str, parameters: dict[str, object]) -> None:
    """Forget the readings before `$stop` of the series that `only` picks; all of them where it is empty."""
    found = connection.execute(sql.DAYS_BEFORE + only + sql.BY_DAY, parameters).fetchnumpy()
    for table in (sql.COLD, sql.HOT):
        connection.execute(sql.DELETE_BEFORE[table] + only, parameters)
    note(connection, [_gone(found[name]) for name in ("first_us", "last_us")])
    if not only:
        connection.execute(sql.FORGET_DAYS, parameters)
        connection.execute(FORGET_ROLLUPS, parameters)


def note(connection: duckdb.DuckDBPyConnection, changes: list[Changed]) -> None:
    """Note the days of changes in `cold`: their late rows, and that roll-ups which they reach are no longer true."""
    if not sum(len(changed.time_us) for changed in changes):
        return
    time_us = np.concatenate([changed.time_us for changed in changes])
    late_us = np.concatenate([changed.time_us[changed.fresh] for changed in changes])
    days = np.unique(np.concatenate([time_us + reached for reached in _REACHED]) // DAY_US)
    held, late = np.isin(days, time_us // DAY_US), np.zeros(len(days), np.int64)
    np.add.at(late, np.searchsorted(days, late_us // DAY_US), 1)
    columns = [
        column(days.astype(np.int32), pa.int32()),
        column(late, pa.int64()),
        column(held.astype(np.uint8), pa.uint8()),
    ]
    with tables(connection, touched=pa.table(columns, names=["day", "late", "held"])):
        connection.execute(sql.NOTE_DAYS)


def _gone(time_us: Any) -> Changed:
    return Changed(np.asarray(time_us, np.int64), np.zeros(len(time_us), np.bool_))
