"""Overviews of the DuckDB store: aggregates between edges, from hourly roll-ups where they answer exactly, else from readings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb
import numpy as np
import pyarrow as pa

from devices.reading import Int64Array, SeriesInfo
from qala.store import duckdb_overview_sql as sql
from qala.store.arrival import DAY_US
from qala.store.base import Aggregate, Span
from qala.store.duckdb_dense import dense, fits
from qala.store.duckdb_file import tables
from qala.store.duckdb_rollups import HOUR_US, Route, route
from qala.store.duckdb_sound import sound
from qala.store.duckdb_sql import only
from qala.store.rows import column, numbers, overview_schema

_FEW = 64  # series whose windows are ordered sooner by numpy than by a step more of the engine's
_QUANTILES = frozenset({Aggregate.P50, Aggregate.P95})


def overview(
    cursor: duckdb.DuckDBPyConnection,
    catalog: Mapping[int, SeriesInfo],
    ids: Sequence[int],
    edges_us: Int64Array,
    aggregates: frozenset[Aggregate],
) -> pa.Table:
    """Aggregate series by their ids as `Store.overview` says; at least one id and two edges are given.

    Whole hours of rolled days come from their roll-ups, the rest from readings, and the answer is that of readings alone:
    the very same but for sums and means, whose last bits depend on the order of additions.
    """
    those, parameters = ("", {}) if len(ids) == len(catalog) else only(ids)
    grid, named = _grid(edges_us)
    way = _route(cursor, edges_us, aggregates)
    if not way.hours and len(ids) > _FEW and fits(grid, len(edges_us) - 1, len(catalog), aggregates):
        span = Span(int(edges_us[0]), int(edges_us[-1]))
        return dense(cursor, those, parameters, grid, span, len(catalog), aggregates)
    if Aggregate.SOUND in aggregates and way.rest:
        named["judged"] = pa.concat_tables([sound(cursor, catalog, ids, edges_us, span) for span in way.rest])
    if way.apart and "judged" not in named:
        query = sql.overview_apart(way.hours, way.rest, aggregates, those, grid)
    else:
        columns = sql.wanted(aggregates)
        judged = [sql.pieces_of_judged(columns)] if "judged" in named else []
        query = sql.overview(sql.pieces(way.hours, way.rest, columns, those, grid) + judged, aggregates)
    few = len(ids) <= _FEW
    with tables(cursor, **named):
        found = cursor.sql(query + ("" if few else sql.IN_ORDER), params=parameters).to_arrow_table()
    return _in_order(found.cast(overview_schema(aggregates))) if few else found.cast(overview_schema(aggregates))


def _grid(edges_us: Int64Array) -> tuple[sql.Grid, dict[str, pa.Table]]:
    widths = np.unique(np.diff(edges_us))
    if len(widths) == 1:
        return sql.Grid(int(edges_us[0]), int(widths[0])), {}
    return sql.Grid(), {"edges": pa.table([column(edges_us[:-1], pa.int64())], names=["start_us"])}


def _in_order(found: pa.Table) -> pa.Table:
    order = np.lexsort((numbers(found, "start_us", np.int64), numbers(found, "series", np.int32)))
    return found.take(column(order, pa.int64()))


def _route(cursor: duckdb.DuckDBPyConnection, edges_us: Int64Array, aggregates: frozenset[Aggregate]) -> Route:
    """Ask which days are rolled, unless no window has room for an hour."""
    days: list[int] = []
    if int(np.diff(edges_us).max()) >= HOUR_US:
        bounds = {"first": int(edges_us[0]) // DAY_US, "last": int(edges_us[-1]) // DAY_US}
        days = [day for (day,) in cursor.execute(sql.ROLLED_DAYS, bounds).fetchall()]
    return route(edges_us, np.array(days, np.int64), whole=bool(aggregates & _QUANTILES))
