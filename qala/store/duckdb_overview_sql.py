"""The SQL of overviews and roll-ups in the DuckDB store.

An overview is put together of *pieces* of windows: from readings, from roll-ups of an hour, from what numpy judged. Names in
`$` are parameters; `edges`, `reaches` and `judged` are Arrow tables.
"""

# ruff: noqa: S608 -- only constants of this module and whole numbers are joined; what comes from outside is a parameter

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from qala.store.base import Aggregate, Span

ROLLUPS = """
CREATE TABLE rollups (
    series INTEGER NOT NULL, hour_us BIGINT NOT NULL, n INTEGER NOT NULL, good INTEGER NOT NULL, sound INTEGER NOT NULL,
    sum DOUBLE, min DOUBLE, max DOUBLE, first DOUBLE, last DOUBLE, p50 DOUBLE, p95 DOUBLE);
CREATE TABLE tidy_weeks (week INTEGER NOT NULL);
"""
"""The tables of roll-ups; a week is `day // 7`, tidy ones lie in one run."""

HOUR_US = 3_600_000_000
_DAY_US, _WEEK_DAYS = 86_400_000_000, 7
DISTRUST = (
    "CREATE TABLE IF NOT EXISTS judged_by (checks VARCHAR NOT NULL)",
    "UPDATE days SET rolled = false WHERE rolled AND NOT EXISTS (FROM judged_by WHERE checks = $checks)",
    "DELETE FROM judged_by WHERE checks <> $checks",
    "INSERT INTO judged_by SELECT $checks WHERE NOT EXISTS (FROM judged_by)",
)
_COLUMNS = "series, hour_us, n, good, sound, sum, min, max, first, last, p50, p95"

ROLLED_DAYS = "SELECT day FROM days WHERE rolled AND day >= $first AND day <= $last ORDER BY day"
UNROLLED_DAYS = f"SELECT day FROM days WHERE NOT rolled AND (day + 1) * {_DAY_US} <= $closed ORDER BY day"
ROLLED = "UPDATE days SET rolled = true WHERE day = $day"
DELETE_ROLLUPS = "DELETE FROM rollups WHERE hour_us >= $start AND hour_us < $stop"
FORGET_ROLLUPS = f"DELETE FROM rollups WHERE hour_us < $stop // {_DAY_US} * {_DAY_US}"
ROWS_BY_SERIES = (
    "SELECT series, count(*) FROM readings WHERE time_us >= $start AND time_us < $stop GROUP BY series ORDER BY series"
)

BARE_READINGS = "SELECT series, time_us, value, flag FROM readings WHERE time_us >= $start AND time_us < $stop"

# A week is put in one run when a later one has begun and none of its days waits to be rolled.
UNTIDY_WEEKS = f"""
SELECT day // {_WEEK_DAYS} AS week FROM days
WHERE week NOT IN (SELECT week FROM tidy_weeks) AND week < (SELECT max(day) // {_WEEK_DAYS} FROM days)
GROUP BY week HAVING bool_and(rolled) ORDER BY week
"""
HOLD_ROLLUPS = f"""
CREATE TEMP TABLE held AS
SELECT {_COLUMNS} FROM rollups WHERE hour_us >= $start AND hour_us < $stop ORDER BY series, hour_us
"""
PUT_ROLLUPS = "INSERT INTO rollups SELECT * FROM held"
DROP_HELD = "DROP TABLE held"
UNTIDY = "DELETE FROM tidy_weeks WHERE week = $week"
TIDIED = "INSERT INTO tidy_weeks VALUES ($week)"

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
    "first_us": "min(at_us) FILTER (usable)",
    "last_us": "max(at_us) FILTER (usable)",
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
    Aggregate.FIRST: ("arg_min(first, first_us) FILTER (good > 0)", "first"),
    Aggregate.LAST: ("arg_max(last, last_us) FILTER (good > 0)", "last"),
    Aggregate.P50: ("any_value(p50)", "p50"),
    Aggregate.P95: ("any_value(p95)", "p95"),
}
_NEEDS = {
    Aggregate.MEAN: {"sum", "good"},
    Aggregate.FIRST: {"first", "good", "first_us"},
    Aggregate.LAST: {"last", "good", "last_us"},
}


class Grid(NamedTuple):
    """Even windows [us], or uneven ones (`width_us` 0) whose starts are in the table `edges`."""

    first_us: int = 0
    width_us: int = 0

    def placed(self, source: str) -> tuple[str, str]:
        """Return the expression for a row's window, and the source, which has a time `at_us`, to select it from."""
        if not self.width_us:
            return "start_us", f"({source}) r ASOF JOIN edges e ON r.at_us >= e.start_us"
        first, width = f"{self.first_us:d}", f"{self.width_us:d}"
        return f"{first} + (at_us - {first}) // {width} * {width} AS start_us", f"({source}) r"


IN_REACH = """
SELECT series, time_us, value, flag FROM readings JOIN reaches USING (series)
WHERE time_us >= $earliest AND time_us < $latest AND time_us >= $start - back_us AND time_us < $stop + ahead_us
ORDER BY series, time_us
"""


def pieces(hours: Sequence[Span], rest: Sequence[Span], wanted: Sequence[str], only: str, grid: Grid) -> list[str]:
    """Return queries for what is `wanted` of pieces of windows: in whole hours from roll-ups, in the rest from readings."""
    rolled = [_pieces_of_rollups(hours, wanted, only, grid)] if hours else []
    return rolled + ([pieces_of_readings(rest, wanted, only, grid)] if rest else [])


def _pieces_of_rollups(hours: Sequence[Span], wanted: Sequence[str], only: str, grid: Grid) -> str:
    columns = "".join(f", {'at_us AS ' if name in {'first_us', 'last_us'} else ''}{name}" for name in wanted)
    rows = f"SELECT * RENAME (hour_us AS at_us) FROM rollups WHERE {_within('hour_us', hours)}{only}"
    start, source = grid.placed(rows)
    return f"SELECT series, {start}{columns} FROM {source}"


def pieces_of_readings(spans: Sequence[Span], wanted: Iterable[str], only: str, grid: Grid) -> str:
    """Return a query for what is `wanted` of the pieces of windows in some spans, from the readings themselves."""
    columns = "".join(f", {_FROM_READINGS[name]} AS {name}" for name in wanted)
    rows = (
        "SELECT series, time_us AS at_us, value, flag IN (1, 2) AS usable FROM readings"
        f" WHERE {_within('time_us', spans)}{only}"
    )
    start, source = grid.placed(rows)
    return f"SELECT series, {start}{columns} FROM {source} GROUP BY series, start_us"


def _within(name: str, spans: Sequence[Span]) -> str:
    """Return a condition on a time; one bound around all spans lets DuckDB skip most of what is in none of them."""
    around = f"{name} >= {spans[0].start_us:d} AND {name} < {spans[-1].stop_us:d}"
    if len(spans) == 1:
        return around
    inside = " OR ".join(f"({name} >= {span.start_us:d} AND {name} < {span.stop_us:d})" for span in spans)
    return f"{around} AND ({inside})"


def pieces_of_judged(wanted: Iterable[str]) -> str:
    """Return a query for the sound readings that were counted in numpy, as pieces of windows."""
    columns = "".join(f", {'sound' if name == 'sound' else 'NULL'} AS {name}" for name in wanted)
    return f"SELECT series, start_us{columns} FROM judged"


def roll(only: str, span: Span) -> str:
    """Return the statement that makes the roll-ups of a span of whole hours."""
    numbers = ["n", "good", "sum", "min", "max", "first", "last", "p50", "p95"]
    return (
        "INSERT INTO rollups SELECT p.series, p.start_us, n, good, coalesce(j.sound, 0), sum, min, max, first, last, p50, p95"
        f" FROM ({pieces_of_readings([span], numbers, only, Grid(span.start_us, HOUR_US))}) p"
        " LEFT JOIN judged j ON p.series = j.series AND p.start_us = j.start_us ORDER BY p.series, p.start_us"
    )


def overview(pieces: Sequence[str], aggregates: frozenset[Aggregate]) -> str:
    """Return the query for aggregates of windows from all their pieces."""
    columns = "".join(f", {sql} AS {name}" for name, (sql, _) in _FROM_PIECES.items() if name in aggregates)
    return f"SELECT series, start_us{columns} FROM ({' UNION ALL '.join(pieces)}) GROUP BY series, start_us"


def overview_apart(
    hours: Sequence[Span], rest: Sequence[Span], aggregates: frozenset[Aggregate], only: str, grid: Grid
) -> str:
    """Return the query for aggregates of windows of which each is one hour of a roll-up, or all of it in readings."""
    columns = "".join(f", {sql} AS {name}" for name, (_, sql) in _FROM_PIECES.items() if name in aggregates)
    rolled = (
        f"SELECT series, hour_us AS start_us{columns} FROM rollups WHERE {_within('hour_us', hours)}{only}"
        if hours
        else ""
    )
    read = f"({pieces_of_readings(rest, wanted(aggregates, apart=True), only, grid)})" if rest else ""
    return " UNION ALL ".join(
        query for query in (rolled, read and f"SELECT series, start_us{columns} FROM {read}") if query
    )


IN_ORDER = " ORDER BY series, start_us"


def wanted(aggregates: frozenset[Aggregate], *, apart: bool = False) -> Sequence[str]:
    """Return what must be known of each piece of a window for these aggregates; less where no window has two pieces."""
    names = set().union(*(_NEEDS.get(name, {_FROM_PIECES[name][1]}) for name in aggregates))
    return sorted(names - {"first_us", "last_us"} if apart else names)
