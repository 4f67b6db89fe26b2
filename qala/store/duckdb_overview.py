"""Overviews of the DuckDB store: aggregates between edges, from hourly roll-ups where they answer exactly, else from readings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb
import numpy as np
import pyarrow as pa

from devices.reading import Int64Array, SeriesInfo
from qala.store import duckdb_overview_sql as sql
from qala.store.arrival import DAY_US
from qala.store.base import Aggregate
from qala.store.duckdb_file import tables
from qala.store.duckdb_rollups import HOUR_US, Route, route
from qala.store.duckdb_sound import sound
from qala.store.duckdb_sql import only
from qala.store.rows import column, overview_schema

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
    widths = np.unique(np.diff(edges_us))
    if even := len(widths) == 1:
        parameters |= {"start": int(edges_us[0]), "width": int(widths[0])}
    named: dict[str, pa.Table] = {} if even else {"edges": _starts(edges_us)}
    way = _route(cursor, edges_us, aggregates)
    columns = sql.wanted(aggregates)
    pieces = sql.pieces(way.hours, way.rest, columns, those, even=even)
    apart = way.apart
    if Aggregate.SOUND in aggregates and way.rest:
        named["judged"] = pa.concat_tables([sound(cursor, catalog, ids, edges_us, span) for span in way.rest])
        pieces.append(sql.pieces_of_judged(columns))
        apart = False
    with tables(cursor, **named):
        query = sql.overview(pieces, aggregates, apart=apart)
        return cursor.sql(query, params=parameters).to_arrow_table().cast(overview_schema(aggregates))


def _route(cursor: duckdb.DuckDBPyConnection, edges_us: Int64Array, aggregates: frozenset[Aggregate]) -> Route:
    """Ask which days are rolled, unless no window has room for an hour."""
    days: list[int] = []
    if int(np.diff(edges_us).max()) >= HOUR_US:
        bounds = {"first": int(edges_us[0]) // DAY_US, "last": int(edges_us[-1]) // DAY_US}
        days = [day for (day,) in cursor.execute(sql.ROLLED_DAYS, bounds).fetchall()]
    return route(edges_us, np.array(days, np.int64), whole=bool(aggregates & _QUANTILES))


def _starts(edges_us: Int64Array) -> pa.Table:
    return pa.table([column(edges_us[:-1], pa.int64())], names=["start_us"])
