"""The SQL of the DuckDB store.

Names in `$` are parameters; `added`, `arrivals`, `stems`, `touched`, `ends` and `fresh` are Arrow tables.
"""

# ruff: noqa: S608 -- only constants of this module are joined; what comes from outside is a parameter

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qala.store.base import Span

PREPARE_SERIES = "PREPARE add_series AS INSERT INTO series SELECT * FROM added"
INSERT_SERIES = "EXECUTE add_series"
SERIES = "SELECT id, device, quantity, channel, span_s, unit FROM series ORDER BY id"
EXTENT = "SELECT series, min(time_us) AS first_us, max(time_us) AS last_us FROM readings GROUP BY series"
WHOLE = "SELECT min(time_us), max(time_us) FROM readings"
WHOLE_VALUES = "SELECT min(start_us), max(start_us) FROM indicator_values"

POSITIONS = "SELECT journal, number FROM positions"
INSERT_POSITION = "INSERT INTO positions (number, journal) VALUES (?, ?)"
UPDATE_POSITION = "UPDATE positions SET number = ? WHERE journal = ?"

HOT, COLD, READINGS = "hot", "cold", "readings"
SETTLED = "SELECT until_us FROM settled"

PREPARE_READINGS = {
    table: f"PREPARE arrive_{table} AS INSERT INTO {table} SELECT * FROM arrivals" for table in (HOT, COLD)
}
INSERT_READINGS = {table: f"EXECUTE arrive_{table}" for table in (HOT, COLD)}

# The bounds on time let DuckDB skip the row groups that cannot hold a match.
_MERGE_READINGS = """
MERGE INTO {table} r USING arrivals a
ON r.series = a.series AND r.time_us = a.time_us AND r.time_us >= $start AND r.time_us < $stop
WHEN MATCHED AND (
    a.revision > r.revision
    OR (a.revision = r.revision AND a.origin > r.origin)
    OR (a.revision = r.revision AND a.origin = r.origin
        AND (a.value IS DISTINCT FROM r.value OR a.flag <> r.flag OR a.delay_us <> r.delay_us)))
THEN UPDATE SET value = a.value, flag = a.flag, revision = a.revision, origin = a.origin, delay_us = a.delay_us
WHEN NOT MATCHED THEN INSERT
VALUES (a.series, a.time_us, a.value, a.flag, a.revision, a.origin, a.delay_us)
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

_DAY = "time_us // 86_400_000_000"
# The times of every second series run backwards: the step from one series to the next is then no longer than the others, and
# steps are what a column of times is packed by.
_IN_RUNS = "series, if(series % 2 = 0, time_us, -time_us)"
OLDEST_HOT = "SELECT min(time_us) FROM hot"
SETTLE = (
    "MERGE INTO days d USING (SELECT DISTINCT (" + _DAY + ")::INTEGER AS day FROM hot WHERE time_us < $stop) m"
    " ON d.day = m.day WHEN MATCHED THEN UPDATE SET tidy = false, rolled = false"
    " WHEN NOT MATCHED THEN INSERT VALUES (m.day, 0, (m.day + 1) * 86_400_000_000 <= $stop, false)",
    "INSERT INTO cold SELECT * FROM hot WHERE time_us < $stop ORDER BY " + _DAY + ", " + _IN_RUNS,
    "DELETE FROM hot WHERE time_us < $stop",
    "UPDATE settled SET until_us = $stop",
)  # fmt: skip

_UNTIDY = " WHERE (day + 1) * 86_400_000_000 <= $closed AND (NOT tidy OR late > $late) ORDER BY day"
UNTIDY_DAYS = "SELECT day, late, tidy FROM days" + _UNTIDY
COUNT_DAYS = (
    "SELECT count(*), count(*) FILTER (over), count(*) FILTER (over AND tidy), count(*) FILTER (over AND rolled)"
    " FROM (SELECT tidy, rolled, (day + 1) * 86_400_000_000 <= $closed AS over FROM days)"
)
_OF_COLD = " FROM cold WHERE time_us >= $start AND time_us < $stop"
ROWS = "SELECT count(*)" + _OF_COLD
LAST_ROW = "SELECT coalesce(max(rowid), -1)" + _OF_COLD
SORT_DAY = "INSERT INTO cold SELECT *" + _OF_COLD + " ORDER BY " + _IN_RUNS
DELETE_UNSORTED = "DELETE" + _OF_COLD + " AND rowid <= $last"
TIDY_DAY = "UPDATE days SET late = 0, tidy = true WHERE day = $day"

_ONLY = " AND series IN (SELECT unnest($series))"
INLINE_MAX = 64  # ids: so many in the query itself, without the join that a list takes

_COLUMNS = "series, time_us, value, flag, revision, origin, time_us + delay_us AS received_us"
_IN_SPAN = " FROM readings WHERE time_us >= $start AND time_us < $stop"
READ = "SELECT " + _COLUMNS + _IN_SPAN
READ_ENDS = " UNION ALL SELECT * FROM ends"
BY_SERIES_AND_TIME = " ORDER BY series, time_us"
NEWEST = " QUALIFY row_number() OVER (PARTITION BY series ORDER BY time_us DESC) = 1 ORDER BY series"
OLDEST = " QUALIFY row_number() OVER (PARTITION BY series ORDER BY time_us) = 1 ORDER BY series"

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


def bounds(span: Span) -> dict[str, int]:
    """Return the parameters of a span."""
    return {"start": span.start_us, "stop": span.stop_us}


def only(ids: Sequence[int]) -> tuple[str, dict[str, Any]]:
    """Return a condition that picks series, to append to another on readings, and its parameters."""
    if len(ids) > INLINE_MAX:
        return _ONLY, {"series": list(ids)}
    return f" AND series IN ({', '.join(map(str, map(int, ids)))})", {}


def read_few(table: str, only: str, span: Span, most: int) -> str:
    """Return the query for at most so many readings in a span, in any order."""
    where = f" WHERE time_us >= {span.start_us:d} AND time_us < {span.stop_us:d}"
    return f"SELECT {_COLUMNS} FROM {table}{where}{only} LIMIT {most:d}"


def read(only: str, *, ends: bool, limit: int | None) -> str:
    """Return the query for readings in a span, and at its ends."""
    return READ + only + (READ_ENDS if ends else "") + BY_SERIES_AND_TIME + ("" if limit is None else " LIMIT $limit")


def values(only: str) -> str:
    """Return the query for the newest revisions."""
    return _VALUES_IN_SPAN + only + _NEWEST_REVISION + " ORDER BY " + _PLACE


def revisions(only: str) -> str:
    """Return the query for all revisions."""
    return _VALUES_IN_SPAN + only + " ORDER BY " + _PLACE + ", revision"
