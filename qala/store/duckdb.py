"""The embedded store: one DuckDB file, owned by one process. One writer, a few readers beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from devices.reading import Batch, Int32Array, Int64Array, Position, SeriesInfo
from devices.value import Value
from qala.store import duckdb_sql as sql
from qala.store.arrival import DAY_US, Extent
from qala.store.base import READINGS, Aggregate, Appended, Capabilities, Selector, Span, Upkeep, ValueSelector
from qala.store.duckdb_backup import check_free, copy_file, finish
from qala.store.duckdb_few import read_few
from qala.store.duckdb_file import Cursors, close, closed, connect, tables, transaction, translated
from qala.store.duckdb_gate import BEGINNING_US, Gate
from qala.store.duckdb_newest import stored
from qala.store.duckdb_overview import overview
from qala.store.duckdb_rollups import distrust
from qala.store.duckdb_settling import Tender
from qala.store.duckdb_writing import FreshSeries, arrivals_of, delete_before, put, retract
from qala.store.rows import (
    check_registered,
    numbers,
    overview_schema,
    selected,
    values_table,
)
from qala.store.settings import StoreSettings
from qala.store.sound import checks

_ROWS_MAX = 65_536  # rows of one record batch
_NEAR_US = (DAY_US // 12, 2 * DAY_US)  # where a series' nearest reading is looked for first

Only = tuple[str, dict[str, Any]]
"""A condition to append to a query, and its parameters."""


def open_url(url: str, settings: StoreSettings) -> DuckDBStore:
    """Open `duckdb:///absolute/path`. Raises as `DuckDBStore.open` does."""
    return DuckDBStore.open(
        url.partition(":")[2].removeprefix("//"),
        memory_max_mb=settings.memory_mb,
        threads=settings.threads,
        readers=settings.readers,
        settle_after_s=settings.settle_after_s,
    )


class DuckDBStore:
    """Readings, values and positions in a DuckDB file. Make one with `open`."""

    capabilities = Capabilities(engine="duckdb", persistent=True)

    def __init__(self, path: Path, connection: duckdb.DuckDBPyConnection, *, readers: int, settle_after_s: int) -> None:
        self._path = path
        self._writer = connection
        with transaction(connection):
            distrust(connection, checks())
        self._arrivals, self._fresh = arrivals_of(connection), FreshSeries(connection)
        self._cursors = Cursors(connection, count=readers)
        [(settled_us,)] = _rows(connection, sql.SETTLED)
        self._gate = Gate(settled_us)
        self._tender = Tender(connection.cursor(), self._gate, path, settle_after_s=settle_after_s)
        self._closed = False
        self._positions = {journal: Position(journal, n) for journal, n in _rows(connection, sql.POSITIONS)}
        series = {id_: SeriesInfo(*info) for id_, *info in _rows(connection, sql.SERIES)}
        self._catalog: Mapping[int, SeriesInfo] = MappingProxyType(series)
        self._ids = {info: id_ for id_, info in series.items()}
        self._extent = _stored_extent(connection, len(self._catalog))
        self._newest = stored(connection, self._extent)

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        memory_max_mb: int = 1024,
        threads: int = 2,
        readers: int = 4,
        settle_after_s: int = 3600,
    ) -> DuckDBStore:
        """Open a file, making it where it is missing. Raises as `qala.store.duckdb_file.connect` does."""
        path = Path(path)
        connection = connect(path, memory_max_mb=memory_max_mb, threads=threads)
        try:
            with translated(path):
                return cls(path, connection, readers=readers, settle_after_s=settle_after_s)
        except BaseException:
            connection.close()
            raise

    @contextmanager
    def _writing(self, time_us: Int64Array | Span | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._gate.writing(time_us), translated(self._path):
            self._check_open()
            yield self._writer

    @contextmanager
    def _reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with translated(self._path), self._cursors.take() as cursor:
            yield cursor

    def _check_open(self) -> None:
        if self._closed:
            raise closed()

    def register(self, series: Sequence[SeriesInfo]) -> Int32Array:
        self._check_open()
        if not all(info in self._ids for info in series):
            self._add(series)
        return np.array([self._ids[info] for info in series], np.int32)

    def _add(self, series: Sequence[SeriesInfo]) -> None:
        """Give ids to new series. Nothing refers to them before the next batch, so that they are written with it."""
        with self._writing():
            new = [info for info in dict.fromkeys(series) if info not in self._ids]
            added = dict(enumerate(new, start=len(self._catalog) + 1))
            self._fresh.add(added.items())
            self._extent.grow(len(self._catalog) + len(added))
            self._newest.grow(len(self._catalog) + len(added))
            self._catalog = MappingProxyType({**self._catalog, **added})
            self._ids.update((info, id_) for id_, info in added.items())

    def catalog(self) -> Mapping[int, SeriesInfo]:
        self._check_open()
        return self._catalog

    def append(self, batch: Batch, upto: Position | None) -> Appended:
        with self._writing(batch.time_us) as connection:
            check_registered(batch.series, len(self._catalog))
            new, rest = self._extent.split(batch)
            # Before the commit: whoever sees the readings must find them within the bounds.
            self._extent.widen(batch.series, batch.time_us)
            with self._with_fresh(connection):
                inserted, updated = put(self._arrivals, new, rest, self._gate.settled_us)
                self._advance(connection, upto)
            self._newest.add(new)
            self._newest.add(rest)
            if upto is not None:
                self._positions[upto.journal] = max(upto, self._positions.get(upto.journal, upto))
        return Appended(inserted, updated, len(batch) - inserted - updated)

    @contextmanager
    def _with_fresh(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        with transaction(connection):
            self._fresh.write()
            yield
        self._fresh.written()

    def _advance(self, connection: duckdb.DuckDBPyConnection, upto: Position | None) -> None:
        if upto is None:
            return
        stands = self._positions.get(upto.journal)
        if stands is None or stands < upto:
            statement = sql.INSERT_POSITION if stands is None else sql.UPDATE_POSITION
            connection.execute(statement, [upto.number, upto.journal])

    def applied(self, journal: str) -> Position | None:
        self._check_open()
        return self._positions.get(journal)

    def positions(self) -> Sequence[Position]:
        self._check_open()
        return sorted(self._positions.values())

    def extent(self) -> Span | None:
        return self._whole(sql.WHOLE)

    def _whole(self, query: str) -> Span | None:
        self._check_open()
        with self._reading() as cursor:
            [(first, last)] = _rows(cursor, query)
        return None if first is None else Span(first, last + 1)

    def read(
        self,
        select: Selector,
        span: Span,
        *,
        bracket: bool = False,
        limit: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        self._check_open()
        ids = selected(select, self._catalog)
        return self._stream(ids, span, bracket, limit) if ids else iter(())

    def _stream(self, ids: Sequence[int], span: Span, bracket: bool, limit: int | None) -> Iterator[pa.RecordBatch]:
        only, parameters = self._only(ids)
        parameters |= sql.bounds(span) | ({} if limit is None else {"limit": limit})
        # Looked up before the transaction begins: the boundary only rises, so all that is before it is in `cold`.
        table = sql.COLD if span.stop_us <= self._gate.settled_us else sql.READINGS
        with self._reading() as cursor:
            if len(ids) <= sql.INLINE_MAX and not bracket and (few := read_few(cursor, table, ids, span)) is not None:
                yield from few.slice(0, limit).to_batches()
                return
            ends = {"ends": self._ends(cursor, ids, span)} if bracket else {}
            query = sql.read(only, ends=bracket, limit=limit)
            with (
                tables(cursor, **ends),
                closing(cursor.sql(query, params=parameters).to_arrow_reader(_ROWS_MAX)) as batches,
            ):
                yield from batches

    def _only(self, ids: Sequence[int]) -> Only:
        return ("", {}) if len(ids) == len(self._catalog) else sql.only(ids)

    def _ends(self, cursor: duckdb.DuckDBPyConnection, ids: Sequence[int], span: Span) -> pa.Table:
        """Return each series' last reading before a span and its first at or after its end."""
        every = np.array(ids, np.int64)
        first, last = self._extent.first_us[every], self._extent.last_us[every]
        earlier = every[first < span.start_us]
        later = every[last >= span.stop_us]
        before = [Span(span.start_us - near, span.start_us) for near in _NEAR_US]
        after = [Span(span.stop_us, span.stop_us + near) for near in _NEAR_US]
        before.append(Span(int(first.min()), span.start_us))
        after.append(Span(span.stop_us, int(last.max()) + 1))
        return pa.concat_tables(
            [
                *self._nearest(cursor, sql.NEWEST, earlier, before),
                *self._nearest(cursor, sql.OLDEST, later, after),
                pa.Table.from_batches([], schema=READINGS),
            ],
        )

    def _nearest(
        self,
        cursor: duckdb.DuckDBPyConnection,
        which: str,
        ids: Int64Array,
        spans: Sequence[Span],
    ) -> Iterator[pa.Table]:
        """Yield one reading a series, looking in ever longer spans for the series that had none in the shorter."""
        for span in spans:
            if not len(ids):
                return
            only, parameters = self._only(ids.tolist())
            found = cursor.sql(sql.READ + only + which, params=parameters | sql.bounds(span)).to_arrow_table()
            yield found
            ids = np.setdiff1d(ids, numbers(found, "series", np.int32))

    def overview(self, select: Selector, edges_us: Int64Array, aggregates: frozenset[Aggregate]) -> pa.Table:
        schema = overview_schema(aggregates)
        self._check_open()
        ids = selected(select, self._catalog)
        if not ids or len(edges_us) < 2:
            return pa.Table.from_batches([], schema=schema)
        with self._reading() as cursor:
            return overview(cursor, self._catalog, ids, edges_us, aggregates)

    def latest(self, select: Selector, *, at_us: int, lookback_s: int) -> pa.Table:
        self._check_open()
        ids = selected(select, self._catalog)
        if not ids:
            return pa.Table.from_batches([], schema=READINGS)
        span = Span(at_us - lookback_s * 1_000_000 + 1, at_us + 1)
        found, unsure = self._newest.within(np.array(ids, np.int64), span)
        if not len(unsure):
            return found
        only, parameters = self._only(unsure.tolist())
        with self._reading() as cursor:
            asked = cursor.sql(sql.READ + only + sql.NEWEST, params=parameters | sql.bounds(span)).to_arrow_table()
        return pa.concat_tables([found, asked]).sort_by("series") if len(found) else asked

    def retract(self, series: Int32Array, time_us: Int64Array, origin: Int64Array) -> int:
        with self._writing(time_us) as connection:
            with transaction(connection):
                gone = retract(connection, series, time_us, origin, self._gate.settled_us)
            self._newest.retracted(series, time_us)
            return gone

    def put_values(self, values: Sequence[Value]) -> int:
        with self._writing() as connection, transaction(connection):
            return sum(_put(connection, part) for part in _once_each(values))

    def values(self, select: ValueSelector, span: Span, *, as_of_us: int | None = None) -> pa.Table:
        only, parameters = _which(select)
        if as_of_us is not None:
            only, parameters = only + sql.KNOWN, parameters | {"as_of": as_of_us}
        return self._values(sql.values(only), parameters | sql.bounds(span))

    def revisions(self, select: ValueSelector, span: Span) -> pa.Table:
        only, parameters = _which(select)
        return self._values(sql.revisions(only), parameters | sql.bounds(span))

    def _values(self, query: str, parameters: dict[str, Any]) -> pa.Table:
        self._check_open()
        with self._reading() as cursor:
            return cursor.sql(query, params=parameters).to_arrow_table()

    def values_extent(self) -> Span | None:
        return self._whole(sql.WHOLE_VALUES)

    def delete_before(self, time_us: int, select: Selector | None = None) -> None:
        ids = selected(select or Selector(), self.catalog())
        with self._writing(Span(BEGINNING_US, time_us)) as connection:
            if ids:
                only, parameters = self._only(ids)
                with transaction(connection):
                    delete_before(connection, only, parameters | {"stop": time_us})
                self._newest.deleted_before(np.array(ids, np.int64), time_us)

    def tend(self, now_us: int) -> bool:
        return self._tender.tend(now_us, self.catalog)

    def upkeep(self) -> Sequence[Upkeep]:
        return self._tender.upkeep()

    def backup(self, file: Path) -> None:
        """Copy all of one moment to a file (`Backups`); readers go on, writers wait while the file is copied."""
        check_free(file)
        with self._tender.resting(), self._writing() as connection:
            with self._with_fresh(connection):
                pass
            # A reader in a transaction may stand in the way; the log is copied as well.
            with suppress(duckdb.TransactionException):
                connection.execute("CHECKPOINT")
            copy_file(self._path, file)
        finish(file)

    def close(self) -> None:
        with self._gate.writing():
            if not self._closed:
                self._closed = True
                self._cursors.close()
                self._tender.end()
                if len(self._fresh):
                    with suppress(duckdb.Error), self._with_fresh(self._writer):
                        pass
                close(self._writer)


def _rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query).fetchall()


def _stored_extent(connection: duckdb.DuckDBPyConnection, series: int) -> Extent:
    extent = Extent(series)
    found = connection.sql(sql.EXTENT).to_arrow_table()
    ids = numbers(found, "series", np.int32)
    extent.widen(ids, numbers(found, "first_us", np.int64))
    extent.widen(ids, numbers(found, "last_us", np.int64))
    return extent


def _once_each(values: Sequence[Value]) -> list[list[Value]]:
    """Split values so that each window of each zone is at most once in a part, in the order given."""
    parts: list[list[Value]] = []
    seen: Counter[tuple[str, str, str, int]] = Counter()
    for value in values:
        key = (value.indicator, value.zone, value.window, value.start_us)
        if seen[key] == len(parts):
            parts.append([])
        parts[seen[key]].append(value)
        seen[key] += 1
    return parts


def _put(connection: duckdb.DuckDBPyConnection, values: Sequence[Value]) -> int:
    starts = [value.start_us for value in values]
    with tables(connection, fresh=values_table(values)):
        [(written,)] = connection.execute(sql.INSERT_VALUES, sql.bounds(Span(min(starts), max(starts) + 1))).fetchall()
    return int(written)


def _which(select: ValueSelector) -> Only:
    conditions = [
        (sql.ONLY_INDICATORS, "indicators", select.indicators),
        (sql.ONLY_ZONES, "zones", select.zones),
        (sql.ONLY_WINDOWS, "windows", select.windows),
    ]
    given = [(condition, name, sorted(wanted)) for condition, name, wanted in conditions if wanted is not None]
    return "".join(condition for condition, _, _ in given), {name: wanted for _, name, wanted in given}
