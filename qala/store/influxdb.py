"""The city's server: an InfluxDB 2, through its v2 API. One writing process; readers in as many as there are.

Two buckets: the one of the URL has the readings, BUCKET_qala the series, positions and values, and forgets nothing.
Whoever reads it as it is finds good numbers in the field `value`, under measurements named after quantities.

Readings newer than all of their series are written as they are. Before the others are written, what the server has of
them is read: the rule of precedence is kept here, since InfluxDB itself lets whatever comes last win. The position follows
its batch in a request of its own: after a crash in between, the batch is taken again and changes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pyarrow as pa

from devices.errors import UnavailableError
from devices.reading import Batch, BoolArray, Int32Array, Int64Array, Position, SeriesInfo
from devices.value import Value
from qala.store import influx_lines as lines
from qala.store.arrival import Extent
from qala.store.base import Aggregate, Appended, Capabilities, Selector, Span, Upkeep, ValueSelector
from qala.store.influx_buckets import Buckets
from qala.store.influx_http import RefusedError, Server, find_token, parse_address
from qala.store.influx_points import Points, Runs, concatenated, runs, stretches
from qala.store.influx_rows import find
from qala.store.influx_turns import Turns
from qala.store.influx_values import Ledger
from qala.store.influx_windows import overview
from qala.store.rows import check_registered, readings_table, selected
from qala.store.settings import StoreSettings

_ROWS_MAX = 65_536  # rows of one record batch


def open_url(url: str, settings: StoreSettings) -> InfluxDBStore:
    """Open `influxdb://HOST:PORT/ORG/BUCKET`, with the token of the settings or of INFLUX_TOKEN.

    Raises ConfigError where the URL, the token or the bucket is not right, UnavailableError where the server does not answer,
    CorruptError where the two buckets do not belong together.
    """
    server = Server(parse_address(url), find_token(settings))
    try:
        store = InfluxDBStore(server, Buckets(server, settings))
    except BaseException:
        server.close()
        raise
    server.opening = False
    return store


class InfluxDBStore:
    """Readings, values and positions on an InfluxDB server.

    Counts, sums, means, extremes, first and last come from the server's storage. Quantiles and soundness are computed here,
    exactly, from raw readings, of which one call takes a bounded number: beyond it raises UnsupportedError.
    """

    capabilities = Capabilities(engine="influxdb", persistent=True)

    def __init__(self, server: Server, buckets: Buckets) -> None:
        self._server = server
        self._buckets = buckets
        self._points = Points(server, buckets.readings)
        self._ledger = Ledger(server, buckets.ledger)
        self._turns = Turns()
        self._lock = threading.Lock()  # of those that write
        self._closed = False
        self._learn(self._ledger.catalog())
        self._extent = Extent(len(self._catalog))
        self._extent.widen(*self._points.newest(self._catalog))

    def __repr__(self) -> str:
        return f"InfluxDBStore({self._server.address!r})"

    def _learn(self, catalog: dict[int, SeriesInfo]) -> None:
        self._catalog: Mapping[int, SeriesInfo] = MappingProxyType(catalog)
        self._ids = {info: id_ for id_, info in catalog.items()}
        self._prefixes = lines.prefixes(catalog)

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError("the store is closed", hint="open it again")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        self._check_open()
        with self._turns.reading():
            yield

    # ---- series and positions

    def register(self, series: Sequence[SeriesInfo]) -> Int32Array:
        self._check_open()
        if not all(info in self._ids for info in series):
            self._add(series)
        return np.array([self._ids[info] for info in series], np.int32)

    def _add(self, series: Sequence[SeriesInfo]) -> None:
        with self._lock:
            new = [info for info in dict.fromkeys(series) if info not in self._ids]
            added = dict(enumerate(new, start=len(self._catalog) + 1))
            self._ledger.add(added.items())
            self._extent.grow(len(self._catalog) + len(added))
            self._learn({**self._catalog, **added})

    def catalog(self) -> Mapping[int, SeriesInfo]:
        self._check_open()
        return self._catalog

    def applied(self, journal: str) -> Position | None:
        self._check_open()
        self._server.look()
        return self._ledger.positions.get(journal)

    def positions(self) -> Sequence[Position]:
        self._check_open()
        return sorted(self._ledger.positions.values())

    # ---- writing readings

    def append(self, batch: Batch, upto: Position | None) -> Appended:
        """Write readings and then the position.

        Readings older than the bucket keeps are left out, told in `upkeep`, and not counted. Raises RefusedError, with the
        lines and the reason, where the server does not take some: the position stays then.
        """
        with self._lock:
            self._check_open()
            check_registered(batch.series, len(self._catalog))
            appended = self._append(batch)
            self._ledger.advance(upto)
            return appended

    def _append(self, batch: Batch) -> Appended:
        kept = self._within_retention(batch)
        new, rest = self._extent.split(kept)
        found = self._judged(rest)
        written = concatenated([new, *found.winners])
        is_new = np.concatenate([np.ones(len(new), np.bool_), *found.is_new])
        # Before the write: what is stored of a batch that fails half-way must be within the bounds when it comes again.
        self._extent.widen(kept.series, kept.time_us)
        with self._turns.writing():
            for moved in found.moved:
                self._points.delete(*moved)
            there = self._write(written, is_new)
        inserted, updated = int((is_new & there).sum()), int((there & ~is_new).sum())
        return Appended(inserted, updated, len(kept) - len(written))

    def _write(self, batch: Batch, is_new: BoolArray) -> BoolArray:
        """Write readings, and tell which the bucket keeps: that may have become less since the store was opened."""
        try:
            self._points.write(batch, is_new, self._prefixes)
        except RefusedError as refusal:
            if not self._buckets.learn(refusal, _now_us()):
                raise
            kept = self._is_kept(batch)
            self._buckets.count_expired(int(len(batch) - kept.sum()))
            self._points.write(batch.take(kept), is_new[kept], self._prefixes)
        return self._is_kept(batch)

    def _is_kept(self, batch: Batch) -> BoolArray:
        kept: BoolArray = batch.time_us >= self._buckets.oldest_us(_now_us())
        return kept

    def _within_retention(self, batch: Batch) -> Batch:
        kept = self._is_kept(batch)
        if kept.all():
            return batch
        self._buckets.count_expired(int(len(batch) - kept.sum()))
        return batch.take(kept)

    def _judged(self, batch: Batch) -> _Judged:
        """Compare readings with the stored ones of their (series, time)."""
        found = _Judged([], [], [])
        for rows, span in stretches(batch.time_us):
            part = batch.take(rows)
            stored = self._points.stored(part.series, span, self._catalog)
            places = find(stored.series, stored.time_us, part.series, part.time_us)
            wins, moves = _compared(part, stored, places)
            found.winners.append(part.take(wins))
            found.moved.append(runs(stored, _marked(stored, places[moves])))
            found.is_new.append(places[wins] < 0)
        return found

    def retract(self, series: Int32Array, time_us: Int64Array, origin: Int64Array) -> int:
        gone = 0
        with self._lock:
            self._check_open()
            for rows, span in stretches(time_us):
                stored = self._points.stored(series[rows], span, self._catalog)
                places = find(stored.series, stored.time_us, series[rows], time_us[rows])
                known = np.flatnonzero(places >= 0)
                stems = stored.origin[places[known]] == origin[rows][known]
                going = _marked(stored, places[known][stems])
                with self._turns.writing():
                    self._points.delete(*runs(stored, going))
                gone += int(going.sum())
        return gone

    def delete_before(self, time_us: int, select: Selector | None = None) -> None:
        with self._lock, self._turns.writing():
            self._check_open()
            ids = selected(select or Selector(), self._catalog)
            if ids:
                self._points.delete_before(time_us, ids, self._catalog)

    # ---- reading readings

    def extent(self) -> Span | None:
        with self._reading():
            return self._points.extent()

    def read(
        self,
        select: Selector,
        span: Span,
        *,
        bracket: bool = False,
        limit: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield readings; what one request to the server brings (some 100,000 of them) is of one moment."""
        self._check_open()
        ids = selected(select, self._catalog)
        return self._stream(ids, span, bracket, limit) if ids and limit != 0 else iter(())

    def _stream(self, ids: Sequence[int], span: Span, bracket: bool, limit: int | None) -> Iterator[pa.RecordBatch]:
        with self._reading():
            plan = self._points.plan(ids, span, self._catalog)
        left = limit
        for part in plan:
            with self._reading():
                found = self._points.read(part, self._catalog, bracket=bracket, limit=left)
            table = readings_table(found).slice(0, left)
            yield from table.to_batches(_ROWS_MAX)
            if left is not None:
                left -= len(table)
                if left <= 0:
                    return

    def overview(self, select: Selector, edges_us: Int64Array, aggregates: frozenset[Aggregate]) -> pa.Table:
        with self._reading():
            return overview(self._points, selected(select, self._catalog), edges_us, aggregates, self._catalog)

    def latest(self, select: Selector, *, at_us: int, lookback_s: int) -> pa.Table:
        span = Span(at_us - lookback_s * 1_000_000 + 1, at_us + 1)
        with self._reading():
            ids = selected(select, self._catalog)
            found = self._points.edge(ids, span, self._catalog, "last") if ids else Batch.empty()
        return readings_table(found)

    # ---- values

    def put_values(self, values: Sequence[Value]) -> int:
        with self._lock, self._turns.writing():
            self._check_open()
            return self._ledger.put(values) if values else 0

    def values(self, select: ValueSelector, span: Span, *, as_of_us: int | None = None) -> pa.Table:
        with self._reading():
            return self._ledger.values(select, span, as_of_us)

    def revisions(self, select: ValueSelector, span: Span) -> pa.Table:
        with self._reading():
            return self._ledger.revisions(select, span)

    def values_extent(self) -> Span | None:
        with self._reading():
            return self._ledger.extent()

    # ---- upkeep

    def tend(self, now_us: int) -> bool:  # noqa: ARG002 - the server tends itself, once it knows how long to keep readings
        self._check_open()
        self._buckets.set_retention()
        return False

    def upkeep(self) -> Sequence[Upkeep]:
        return self._buckets.upkeep()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._server.close()


@dataclass
class _Judged:
    """Part by part: readings that are to be written, which of them are new, and stored ones that lie in the other field."""

    winners: list[Batch]
    is_new: list[BoolArray]
    moved: list[Runs]


def _now_us() -> int:
    return time.time_ns() // 1000


def _compared(part: Batch, stored: Batch, places: Int64Array) -> tuple[BoolArray, BoolArray]:
    """Tell which readings are to be written, and which of those lie in the other field so far."""
    known = np.flatnonzero(places >= 0)
    old, new = stored.take(places[known]), part.take(known)
    outranks = (new.revision > old.revision) | ((new.revision == old.revision) & (new.origin >= old.origin))
    same = (new.value.view(np.int64) == old.value.view(np.int64)) | (np.isnan(new.value) & np.isnan(old.value))
    for name in ("flag", "revision", "origin", "received_us"):
        same &= getattr(new, name) == getattr(old, name)
    wins, moves = np.ones(len(part), np.bool_), np.zeros(len(part), np.bool_)
    wins[known] = outranks & ~same
    moves[known] = wins[known] & (lines.in_value(new) != lines.in_value(old))
    return wins, moves


def _marked(stored: Batch, places: Int64Array) -> BoolArray:
    marked = np.zeros(len(stored), np.bool_)
    marked[places] = True
    return marked
