"""The SQL of the DuckDB store.

Names in `$` are parameters; `arrivals`, `stems`, `touched`, `edges`, `ends`, `reaches`, `judged` and `fresh` are Arrow tables.
"""

# ruff: noqa: S608 -- only constants of this module are joined; what comes from outside is a parameter

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from qala.store.base import Aggregate, Span

INSERT_SERIES = "INSERT INTO series SELECT * FROM fresh"
SERIES = "SELECT id, device, quantity, channel, span_s, unit FROM series ORDER BY id"
EXTENT = "SELECT series, min(time_us) AS first_us, max(time_us) AS last_us FROM readings GROUP BY series"
WHOLE = "SELECT min(time_us), max(time_us) FROM readings"
WHOLE_VALUES = "SELECT min(start_us), max(start_us) FROM indicator_values"

POSITIONS = "SELECT journal, number FROM positions"
INSERT_POSITION = "INSERT INTO positions (number, journal) VALUES (?, ?)"
UPDATE_POSITION = "UPDATE positions SET number = ? WHERE journal = ?"

HOT, COLD = "hot", "cold"
SETTLED = "SELECT until_us FROM settled"

INSERT_READINGS = {table: f"INSERT INTO {table} SELECT * FROM arrivals" for table in (HOT, COLD)}

# The bounds on time let DuckDB skip the row groups that cannot hold a match.
_MERGE_READINGS = """
MERGE INTO {table} r USING arrivals a
ON r.series = a.series AND r.time_us = a.time_us AND r.time_us >= $start AND r.time_us < $stop
WHEN MATCHED AND (
    a.revision > r.revision
    OR (a.revision = r.revision AND a.origin > r.origin)
    OR (a.revision = r.revision AND a.origin = r.origin
        AND (a.value IS DISTINCT FROM r.value OR a.flag <> r.flag OR a.received_us <> r.received_us)))
THEN UPDATE SET value = a.value, flag = a.flag, revision = a.revision, origin = a.origin, received_us = a.received_us
WHEN NOT MATCHED THEN INSERT
VALUES (a.series, a.time_us, a.value, a.flag, a.revision, a.origin, a.received_us)
RETURNING time_us, merge_action = 'INSERT' AS fresh
"""
MERGE_READINGS = {table: _MERGE_READINGS.format(table=table) for table in (HOT, COLD)}

_RETRACT = """
DELETE FROM {table} r USING stems s
WHERE r.series = s.series AND r.time_us = s.time_us AND r.origin = s.origin
AND r.time_us >= $start AND r.time_us < $stop
RETURNING r.time_us
"""
RETRACT = {table: _RETRACT.format(table=table) for table in (HOT, COLD)}

DELETE_BEFORE = {table: f"DELETE FROM {table} WHERE time_us < $stop" for table in (HOT, COLD)}
DAYS_BEFORE = "SELECT min(time_us) AS first_us, max(time_us) AS last_us FROM cold WHERE time_us < $stop"
BY_DAY = " GROUP BY time_us // 86_400_000_000"
FORGET_DAYS = "DELETE FROM days WHERE (day + 1) * 86_400_000_000 <= $stop"

NOTE_DAYS = """
MERGE INTO days d USING touched t ON d.day = t.day
WHEN MATCHED THEN UPDATE SET late = d.late + t.late, rolled = false
WHEN NOT MATCHED AND t.held = 1 THEN INSERT VALUES (t.day, t.late, false, false)
"""

_ONLY = " AND series IN (SELECT unnest($series))"
_INLINE_MAX = 64  # ids: so many in the query itself, without the join that a list takes

_COLUMNS = "series, time_us, value, flag, revision, origin, received_us"
_IN_SPAN = " FROM readings WHERE time_us >= $start AND time_us < $stop"
READ = "SELECT " + _COLUMNS + _IN_SPAN
READ_ENDS = " UNION ALL SELECT " + _COLUMNS + " FROM ends"
BY_SERIES_AND_TIME = " ORDER BY series, time_us"
NEWEST = " QUALIFY row_number() OVER (PARTITION BY series ORDER BY time_us DESC) = 1 ORDER BY series"
OLDEST = " QUALIFY row_number() OVER (PARTITION BY series ORDER BY time_us) = 1 ORDER BY series"

# What is known of the readings of a series in a piece of a window, and how: from readings, from roll-ups of an hour.
_FROM_READINGS = {
    "n": "count(*)",
    "good": "count(*) FILTER (usable)",
    "sound": "NULL",
    "sum": "sum(value) FILTER (usable)",
    "min": "min(value) FILTER (usable)",
    "max": "max(value) FILTER (usable)",
    "first": "arg_min(value, at_us) FILTER (usable)",
    "last": "arg_max(value, at_us) FILTER (usable)",
    "p50": "quantile_cont(value, 0.5) FILTER (usable)",
    "p95": "quantile_cont(value, 0.95) FILTER (usable)",
    "piece_us": "min(at_us)",
}
# Aggregates of a window from its pieces, and from its only one.
_FROM_PIECES = {
    Aggregate.COUNT: ("sum(n)::BIGINT", "n"),
    Aggregate.GOOD: ("sum(good)::BIGINT", "good"),
    Aggregate.SOUND: ("coalesce(sum(sound), 0)::BIGINT", "sound"),
    Aggregate.SUM: ("sum(sum)", "sum"),
    Aggregate.MEAN: ("sum(sum) / sum(good)", "sum / good"),
    Aggregate.MIN: ("min(min)", "min"),
    Aggregate.MAX: ("max(max)", "max"),
    Aggregate.FIRST: ("arg_min(first, piece_us) FILTER (good > 0)", "first"),
    Aggregate.LAST: ("arg_max(last, piece_us) FILTER (good > 0)", "last"),
    Aggregate.P50: ("any_value(p50)", "p50"),
    Aggregate.P95: ("any_value(p95)", "p95"),
}
_NEEDS = {
    Aggregate.MEAN: {"sum", "good"},
    Aggregate.FIRST: {"first", "good", "piece_us"},
    Aggregate.LAST: {"last", "good", "piece_us"},
}
_EVEN_START = "$start + (at_us - $start) // $width * $width AS start_us"
_NEAREST_START = " ASOF JOIN edges e ON r.at_us >= e.start_us"

IN_REACH = """
SELECT series, time_us, value, flag FROM readings JOIN reaches USING (series)
WHERE time_us >= $earliest AND time_us < $latest AND time_us >= $start - back_us AND time_us < $stop + ahead_us
ORDER BY series, time_us
"""

_SAME_VALUE = 'v.indicator = f.indicator AND v.zone = f.zone AND v."window" = f."window" AND v.start_us = f.start_us'
_NUMBER = (
    "stop_us", "value", "unit", "n_good", "n_expected", "method", "method_version", "final_us", "status", "detail",
)  # fmt: skip
_PLACE = 'indicator, zone, "window", start_us'
_OTHER = " OR ".join(f"f.{name} IS DISTINCT FROM v.{name}" for name in _NUMBER)
_VALUES = _PLACE + ", " + ", ".join(_NUMBER) + ", known_us, revision"
_NEWEST_REVISION = " QUALIFY row_number() OVER (PARTITION BY " + _PLACE + " ORDER BY revision DESC) = 1"

INSERT_VALUES = (
    "WITH newest AS (SELECT v.* FROM indicator_values v SEMI JOIN fresh f ON " + _SAME_VALUE
    + " WHERE v.start_us >= $start AND v.start_us < $stop" + _NEWEST_REVISION + ")"
    " INSERT INTO indicator_values SELECT f.* REPLACE (coalesce(v.revision, 0) + 1 AS revision)"
    " FROM fresh f LEFT JOIN newest v ON " + _SAME_VALUE + " WHERE v.revision IS NULL OR " + _OTHER
)  # fmt: skip

_VALUES_IN_SPAN = "SELECT " + _VALUES + " FROM indicator_values WHERE start_us >= $start AND start_us < $stop"
ONLY_INDICATORS = " AND indicator IN (SELECT unnest($indicators))"
ONLY_ZONES = " AND zone IN (SELECT unnest($zones))"
ONLY_WINDOWS = ' AND "window" IN (SELECT unnest($windows))'
KNOWN = " AND known_us <= $as_of"


def only(ids: Sequence[int]) -> tuple[str, dict[str, Any]]:
    """Return a condition that picks series, to append to another on readings, and its parameters."""
    if len(ids) > _INLINE_MAX:
        return _ONLY, {"series": list(ids)}
    return f" AND series IN ({', '.join(map(str, map(int, ids)))})", {}


def read(only: str, *, ends: bool, limit: int | None) -> str:
    """Return the query for readings in a span, and at its ends."""
    return READ + only + (READ_ENDS if ends else "") + BY_SERIES_AND_TIME + ("" if limit is None else " LIMIT $limit")


def pieces_of_readings(only: str, span: Span, wanted: Iterable[str], *, even: bool) -> str:
    """Return a query for what is `wanted` of the pieces of windows in a span, from the readings themselves."""
    columns = "".join(f", {_FROM_READINGS[name]} AS {name}" for name in wanted)
    return (
        f"SELECT series, {_EVEN_START if even else 'start_us'}{columns}"
        " FROM (SELECT series, time_us AS at_us, value, flag IN (1, 2) AS usable FROM readings"
        f" WHERE time_us >= {span.start_us:d} AND time_us < {span.stop_us:d}{only}) r"
        f"{'' if even else _NEAREST_START} GROUP BY series, start_us"
    )


def pieces_of_judged(wanted: Iterable[str]) -> str:
    """Return a query for the sound readings that were counted in numpy, as pieces of windows."""
    return (
        "SELECT series, start_us"
        + "".join(f", {'sound' if n == 'sound' else 'NULL'} AS {n}" for n in wanted)
        + " FROM judged"
    )


def overview(pieces: Sequence[str], aggregates: frozenset[Aggregate], *, apart: bool) -> str:
    """Return the query for aggregates of windows from their pieces; `apart` says that no window has more than one."""
    columns = "".join(f", {sql[apart]} AS {name}" for name, sql in _FROM_PIECES.items() if name in aggregates)
    return (
        f"SELECT series, start_us{columns} FROM ({' UNION ALL '.join(pieces)})"
        f"{'' if apart else ' GROUP BY series, start_us'} ORDER BY series, start_us"
    )


def wanted(aggregates: frozenset[Aggregate]) -> Sequence[str]:
    """Return what must be known of each piece of a window for these aggregates."""
    return sorted(set().union(*(_NEEDS.get(name, {_FROM_PIECES[name][1]}) for name in aggregates)))


def values(only: str) -> str:
    """Return the query for the newest revisions."""
    return _VALUES_IN_SPAN + only + _NEWEST_REVISION + " ORDER BY " + _PLACE


def revisions(only: str) -> str:
    """Return the query for all revisions."""
    return _VALUES_IN_SPAN + only + " ORDER BY " + _PLACE + ", revision"
