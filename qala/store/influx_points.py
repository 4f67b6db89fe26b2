"""The bucket of readings: reading its points as columns, writing and deleting them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec
import numpy as np
import pyarrow as pa

from devices.errors import CorruptError
from devices.reading import Batch, BoolArray, Int32Array, Int64Array, SeriesInfo
from qala.store import influx_flux as flux
from qala.store import influx_lines as lines
from qala.store.arrival import DAY_US, runs_of_days
from qala.store.base import Aggregate, Span
from qala.store.influx_http import EARLIEST_US, LATEST_US, RefusedError, Server
from qala.store.influx_rows import readings, tables, times
from qala.store.rows import numbers

EVER = Span(EARLIEST_US, LATEST_US)
ROWS_AT_ONCE = 100_000
"""Readings that one request brings, about: some 25 MB of text."""

_SURE_ROWS = 20_000  # fewer than this are asked for without counting them first
_EXPECTED_US = 10_000_000  # between two readings of a series, before they are counted
_FILTER_MAX = 8_000  # characters of a filter by series
_SERIES_AT_ONCE = 1_000
_NEAR_US = 2 * DAY_US  # where a series' nearest reading is looked for first
_GAP_US = 3_600_000_000
_STRETCHES_MAX = 20  # that are read one by one
_BLAMED_MAX = 3  # refused lines that are told

Catalog = Mapping[int, SeriesInfo]
Runs = tuple[Int32Array, Int64Array, Int64Array]
"""Stretches of readings that follow one another: series, first and last time."""


class Part(msgspec.Struct, frozen=True):
    """What one request reads: some series, whole, or one series and a part of the span."""

    ids: Sequence[int]
    span: Span
    first: bool = True
    last: bool = True


class Points:
    """Readings as InfluxDB has them. Whoever calls sees to the turns."""

    def __init__(self, server: Server, bucket: str) -> None:
        self._server = server
        self._bucket = bucket

    # ---- reading

    def newest(self, catalog: Catalog) -> tuple[Int32Array, Int64Array]:
        """Return the time of the last reading of each series that has any.

        Raises CorruptError where there are readings of series that the catalog does not know.
        """
        series, time_us = self._ends(EVER, "", "|> last()")
        strange = set(series.tolist()) - catalog.keys()
        if strange:
            raise CorruptError(
                f"bucket {self._bucket} has readings of series that {self._bucket}_qala does not know: {min(strange)}",
                hint="restore both buckets from one moment, or empty both: they are filled again from the journal",
            )
        return series, time_us

    def extent(self) -> Span | None:
        """Return the shortest span that holds every reading."""
        _, first_us = self._ends(EVER, "", "|> first()")
        _, last_us = self._ends(EVER, "", "|> last()")
        return Span(int(first_us.min()), int(last_us.max()) + 1) if len(first_us) and len(last_us) else None

    def _ends(self, span: Span, only: str, each: str) -> tuple[Int32Array, Int64Array]:
        found = self._tables(flux.ends(self._bucket, span, only, each=each)).get(flux.WHOLE)
        if found is None:
            return np.empty(0, np.int32), np.empty(0, np.int64)
        return numbers(found, "series", np.int32), times(found)

    def _tables(self, query: str) -> dict[str, pa.Table]:
        return tables(self._server.query(query))

    def plan(self, ids: Sequence[int], span: Span, catalog: Catalog) -> list[Part]:
        """Cut a read to parts of about ROWS_AT_ONCE readings, by series, or by time where one series has more."""
        if span.start_us >= span.stop_us:
            return [Part(ids, span)]
        expected = len(ids) * (1 + (span.stop_us - span.start_us) // _EXPECTED_US)
        if expected <= _SURE_ROWS:
            return [Part(ids, span)]
        return list(_parts(ids, self.counts(ids, span, catalog), span))

    def counts(self, ids: Sequence[int], span: Span, catalog: Catalog) -> dict[int, int]:
        """Return how many readings each series has in a span; those without any are left out."""
        found: dict[int, int] = {}
        for some in grouped(ids, catalog):
            table = self._tables(flux.counts(self._bucket, span, flux.which(some, catalog))).get(flux.WHOLE)
            if table is not None:
                for id_, count in zip(table["series"].to_pylist(), table["_value"].to_pylist(), strict=True):
                    found[id_] = found.get(id_, 0) + count
        return found

    def read(self, part: Part, catalog: Catalog, *, bracket: bool = False, limit: int | None = None) -> Batch:
        """Return readings by (series, time); with a limit, at least the first so many of them."""
        each = "" if limit is None else f"|> limit(n: {limit})"
        found = [self._rows(part.ids, part.span, catalog, each)]
        if bracket and part.first:
            found.append(self._nearest(part.ids, Span(EARLIEST_US, part.span.start_us), catalog, "last"))
        if bracket and part.last:
            found.append(self._nearest(part.ids, Span(part.span.stop_us, LATEST_US), catalog, "first"))
        return ordered(found)

    def _nearest(self, ids: Sequence[int], span: Span, catalog: Catalog, which: str) -> Batch:
        """Return each series' last reading before a time, or its first at or after one, near ones first."""
        near = (
            Span(max(span.start_us, span.stop_us - _NEAR_US), span.stop_us)
            if which == "last"
            else Span(span.start_us, min(span.stop_us, span.start_us + _NEAR_US))
        )
        found = [self.edge(ids, near, catalog, which)]
        others = sorted(set(ids) - set(found[0].series.tolist()))
        if others and near != span:
            found.append(self.edge(others, span, catalog, which))
        return ordered(found)

    def edge(self, ids: Sequence[int], span: Span, catalog: Catalog, which: str) -> Batch:
        """Return the first or last reading of each series in a span."""
        found = self._rows(ids, span, catalog, f"|> {which}()")  # up to three: of each kind of point
        beside = np.diff(found.series, append=-1) if which == "last" else np.diff(found.series, prepend=-1)
        return found.take(beside != 0)

    def _rows(self, ids: Sequence[int], span: Span, catalog: Catalog, each: str = "") -> Batch:
        if span.start_us >= span.stop_us:
            return Batch.empty()
        return ordered(
            readings(self._tables(flux.rows(self._bucket, span, flux.which(some, catalog), each=each)))
            for some in grouped(ids, catalog)
        )

    def stored(self, series: Int32Array, span: Span, catalog: Catalog) -> Batch:
        """Return all that is stored of some series in a span, by (series, time)."""
        ids = np.unique(series).tolist()
        return ordered(self.read(part, catalog) for part in self.plan(ids, span, catalog))

    def windows(
        self, ids: Sequence[int], edges_us: Int64Array, names: Sequence[Aggregate], catalog: Catalog
    ) -> Iterator[dict[str, pa.Table]]:
        """Yield aggregates between even edges, some series at a time."""
        for some in grouped(ids, catalog):
            yield self._tables(flux.windows(self._bucket, flux.which(some, catalog), edges_us, names))

    # ---- writing

    def write(self, batch: Batch, is_new: BoolArray, prefixes: pa.Array) -> None:
        """Write readings over whatever stands at their times; `is_new` tells where nothing does.

        Raises RefusedError, naming lines, where some are not taken.
        """
        for body in lines.readings(batch, is_new, prefixes):
            try:
                self._server.write(self._bucket, body)
            except RefusedError as error:
                blamed = self._blame(body, error.hint)
                if blamed is not None:
                    raise blamed from None

    def _blame(self, body: bytes, hint: str) -> RefusedError | None:
        """Find the lines that a write was refused for, by writing ever smaller halves of it.

        None where each half was taken: the whole was only too much at once, for a proxy in between.
        """
        told: list[str] = []
        waiting = [body.splitlines(keepends=True)]
        while waiting and len(told) < _BLAMED_MAX:
            some = waiting.pop()
            try:
                self._server.write(self._bucket, b"".join(some))
            except RefusedError as error:
                if len(some) == 1:
                    told.append(f"{some[0].decode().strip()!r}: {error.message}")
                else:
                    waiting += [some[len(some) // 2 :], some[: len(some) // 2]]
        if not told:
            return None
        more = " and others" if waiting else ""
        return RefusedError(f"readings were not taken: {'; '.join(told)}{more}", hint=hint)

    def delete(self, series: Int32Array, first_us: Int64Array, last_us: Int64Array) -> None:
        """Delete stretches of readings."""
        for id_, first, last in zip(series.tolist(), first_us.tolist(), last_us.tolist(), strict=True):
            self._server.delete(self._bucket, flux.moment(first), flux.moment(last), f'"series"="{id_}"')

    def delete_before(self, time_us: int, ids: Sequence[int], catalog: Catalog) -> None:
        """Delete readings older than a time: of all series, of whole quantities, or of series one by one."""
        if time_us > EARLIEST_US:
            for predicate in _predicates(ids, catalog):
                last = flux.moment(min(time_us, LATEST_US) - 1)
                self._server.delete(self._bucket, flux.moment(EARLIEST_US), last, predicate)


def stretches(time_us: Int64Array) -> list[tuple[Int64Array, Span]]:
    """Return the indices of times, a part for each stretch without a gap of an hour, and the span of each part.

    Where these are many, whole days count: what is read around a late reading costs less than a request.
    """
    order = np.argsort(time_us, kind="stable")
    ordered_us = time_us[order]
    parts = np.split(order, np.flatnonzero(np.diff(ordered_us) > _GAP_US) + 1)
    if len(parts) > _STRETCHES_MAX:
        return list(runs_of_days(time_us))
    return [(rows, Span(int(time_us[rows[0]]), int(time_us[rows[-1]]) + 1)) for rows in parts if len(rows)]


def grouped(ids: Sequence[int], catalog: Catalog) -> list[Sequence[int]]:
    """Cut series to groups that one filter can name."""
    if len(flux.which(ids, catalog)) <= _FILTER_MAX:
        return [ids]
    return [ids[n : n + _SERIES_AT_ONCE] for n in range(0, len(ids), _SERIES_AT_ONCE)]


def _parts(ids: Sequence[int], counts: Mapping[int, int], span: Span) -> Iterator[Part]:
    some: list[int] = []
    rows = 0
    for id_ in ids:
        count = counts.get(id_, 0)
        if some and rows + count > ROWS_AT_ONCE:
            yield Part(some, span)
            some, rows = [], 0
        if count > ROWS_AT_ONCE:
            yield from _in_time(id_, span, 1 + 2 * count // ROWS_AT_ONCE)
        else:
            some.append(id_)
            rows += count
    if some:
        yield Part(some, span)


def _in_time(id_: int, span: Span, parts: int) -> Iterator[Part]:
    edges = [span.start_us + (span.stop_us - span.start_us) * n // parts for n in range(parts + 1)]
    for n in range(parts):
        yield Part([id_], Span(edges[n], edges[n + 1]), first=n == 0, last=n == parts - 1)


def _predicates(ids: Sequence[int], catalog: Catalog) -> list[str]:
    if len(ids) == len(catalog):
        return [""]
    picked = set(ids)
    of_others = {info.quantity for id_, info in catalog.items() if id_ not in picked}
    whole = sorted({catalog[id_].quantity for id_ in ids} - of_others)
    named = [f"_measurement={flux.quoted(lines.spelt(quantity))}" for quantity in whole]
    return named + [f'"series"="{id_}"' for id_ in ids if catalog[id_].quantity in of_others]


def ordered(parts: Iterable[Batch]) -> Batch:
    """Put readings together, by (series, time)."""
    batch = concatenated(parts)
    order = np.lexsort((batch.time_us, batch.series))
    return batch.take(order)


def concatenated(parts: Iterable[Batch]) -> Batch:
    """Put readings together, one part after the other."""
    columns = zip(*map(msgspec.structs.astuple, (Batch.empty(), *parts)), strict=True)
    return Batch(*(np.concatenate(column) for column in columns))


def runs(stored: Batch, marked: BoolArray) -> Runs:
    """Return the stretches of marked readings among all stored ones, by (series, time)."""
    at = np.flatnonzero(marked)
    apart = np.ones(len(at) + 1, np.bool_)
    apart[1:-1] = (np.diff(at) > 1) | (np.diff(stored.series[at]) != 0)
    first, last = at[apart[:-1]], at[apart[1:]]
    return stored.series[first], stored.time_us[first], stored.time_us[last]
