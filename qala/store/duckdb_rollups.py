"""Hourly roll-ups of the DuckDB store: what is known of a series' readings in an hour of a closed UTC day.

A day is rolled as a whole, from its readings, and counts as rolled until something is written that could change a number of it:
the writer says so in the same transaction, so a roll-up that is believed is true. The rows lie in runs sorted by (series,
hour): a run for each day, and once a week has passed, one for the week, so that neither a month of one series nor a day
of all of them has to look at much else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import duckdb
import msgspec
import numpy as np

from devices.reading import Int64Array, SeriesInfo
from qala.store import duckdb_overview_sql as sql
from qala.store.arrival import DAY_US
from qala.store.base import Span
from qala.store.duckdb_file import tables
from qala.store.duckdb_sound import sound
from qala.store.duckdb_sql import only
from qala.store.duckdb_writing import AHEAD_US

HOUR_US = sql.HOUR_US
AGAIN_US = HOUR_US // 4
"""A day that late readings trickle into is rolled up again after so long: it costs the same for one as for many."""
_SPANS_MAX = 64  # stretches of roll-ups in one query
_WEEK_US = 7 * DAY_US
_PART_ROWS = 3_000_000  # readings rolled at once: what bounds the memory


class Roller:
    """Rolls closed days up, a piece at a time, on a cursor of its own.

    `rewriting` opens a transaction on that cursor and keeps writers out of a span, and of what is judged by it, till its end.
    """

    def __init__(
        self, cursor: duckdb.DuckDBPyConnection, rewriting: Callable[[Span], AbstractContextManager[None]]
    ) -> None:
        self._cursor = cursor
        self._rewriting = rewriting
        self._done_us: dict[int, int] = {}

    def tend(self, now_us: int, closed_us: int, catalog: Callable[[], Mapping[int, SeriesInfo]]) -> bool:
        """Roll up one of the days that ended before `closed_us`, or put a week in order; tell whether there was one."""
        self._done_us = {day: then for day, then in self._done_us.items() if now_us - AGAIN_US < then <= now_us}
        for (day,) in self._cursor.execute(sql.UNROLLED_DAYS, {"closed": closed_us - AHEAD_US}).fetchall():
            if day not in self._done_us:
                with self._rewriting(Span(day * DAY_US, (day + 1) * DAY_US)):
                    roll(self._cursor, day, catalog())  # asked for inside: it knows every series that is stored
                self._done_us[day] = now_us
                return True
        return self._tidied()

    def _tidied(self) -> bool:
        weeks = untidy_weeks(self._cursor)
        for week in weeks[:1]:
            with self._rewriting(Span(week * _WEEK_US, (week + 1) * _WEEK_US)):
                tidy(self._cursor, week)
        return bool(weeks)


def distrust(connection: duckdb.DuckDBPyConnection, checks: str) -> None:
    """Use no roll-ups that other context checks have counted, in the caller's transaction: their days are rolled again."""
    create, *others = sql.DISTRUST
    connection.execute(create)
    for statement in others:
        connection.execute(statement, {"checks": checks})


def roll(connection: duckdb.DuckDBPyConnection, day: int, catalog: Mapping[int, SeriesInfo]) -> None:
    """Make the roll-ups of a UTC day from its readings, in the caller's transaction, and mark it as rolled.

    Until it has ended, the caller keeps out whoever would change readings that the day is judged by.
    """
    span = Span(day * DAY_US, (day + 1) * DAY_US)
    bounds = {"start": span.start_us, "stop": span.stop_us}
    connection.execute(sql.DELETE_ROLLUPS, bounds)
    edges = np.arange(span.start_us, span.stop_us + 1, HOUR_US, dtype=np.int64)
    for ids in _parts(connection, bounds):
        those, parameters = only(ids)
        with tables(connection, judged=sound(connection, catalog, ids, edges, span)):
            connection.execute(sql.roll(those, span), parameters)
    connection.execute(sql.UNTIDY, {"week": day // 7})
    connection.execute(sql.ROLLED, {"day": day})


def _parts(connection: duckdb.DuckDBPyConnection, bounds: Mapping[str, int]) -> Iterator[Sequence[int]]:
    """Yield the series with readings in a span, rising, in parts of about as many readings as are rolled at once."""
    counts = connection.execute(sql.ROWS_BY_SERIES, dict(bounds)).fetchall()
    part: list[int] = []
    rows = 0
    for id_, count in counts:
        part.append(id_)
        rows += count
        if rows >= _PART_ROWS:
            yield part
            part, rows = [], 0
    if part:
        yield part


def untidy_weeks(connection: duckdb.DuckDBPyConnection) -> list[int]:
    """Return the weeks (whole ones since 1970) that are over and rolled up, and lie in more than one run."""
    return [week for (week,) in connection.execute(sql.UNTIDY_WEEKS).fetchall()]


def tidy(connection: duckdb.DuckDBPyConnection, week: int) -> None:
    """Put the roll-ups of a week into one run, in the caller's transaction."""
    bounds = {"start": week * _WEEK_US, "stop": (week + 1) * _WEEK_US}
    connection.execute(sql.HOLD_ROLLUPS, bounds)
    connection.execute(sql.DELETE_ROLLUPS, bounds)
    connection.execute(sql.PUT_ROLLUPS)
    connection.execute(sql.DROP_HELD)
    connection.execute(sql.TIDIED, {"week": week})


class Route(msgspec.Struct, frozen=True):
    """Which parts of a query come from roll-ups (whole hours) and which from readings, each as spans that rise."""

    hours: Sequence[Span]
    rest: Sequence[Span]
    apart: bool  # every hour from roll-ups is a window of its own


def route(edges_us: Int64Array, days: Int64Array, *, whole: bool) -> Route:
    """Part the time between edges into whole hours of rolled days, within one window each, and the rest.

    With `whole`, only hours that are a window by themselves are taken from roll-ups, as quantiles need it. Of many short
    stretches the longest are taken.

    >>> edges_us = np.array([0, 3, 4]) * HOUR_US + HOUR_US // 2
    >>> found = route(edges_us, np.array([0]), whole=False)
    >>> [(span.start_us / HOUR_US, span.stop_us / HOUR_US) for span in found.hours]
    [(1.0, 3.0)]
    >>> [(span.start_us / HOUR_US, span.stop_us / HOUR_US) for span in found.rest]
    [(0.5, 1.0), (3.0, 4.5)]
    """
    hours = (np.repeat(days * DAY_US, 24) + np.tile(np.arange(24) * HOUR_US, len(days))).astype(np.int64)
    hours = hours[(hours >= edges_us[0]) & (hours + HOUR_US <= edges_us[-1])]
    window = np.searchsorted(edges_us, hours, side="right") - 1
    within = edges_us[window + 1] >= hours + HOUR_US
    alone = (edges_us[window] == hours) & (edges_us[window + 1] == hours + HOUR_US)
    hours, alone = (hours[alone], alone[alone]) if whole else (hours[within], alone[within])
    spans = _longest(_runs(hours))
    return Route(spans, _between(spans, Span(int(edges_us[0]), int(edges_us[-1]))), bool(alone.all()))


def _runs(hours: Int64Array) -> list[Span]:
    runs = np.split(hours, np.flatnonzero(np.diff(hours) != HOUR_US) + 1)
    return [Span(int(run[0]), int(run[-1]) + HOUR_US) for run in runs if len(run)]


def _longest(spans: list[Span]) -> list[Span]:
    longest = sorted(spans, key=lambda span: span.start_us - span.stop_us)[:_SPANS_MAX]
    return sorted(longest, key=lambda span: span.start_us)


def _between(spans: Sequence[Span], whole: Span) -> list[Span]:
    starts = [whole.start_us, *(span.stop_us for span in spans)]
    stops = [*(span.start_us for span in spans), whole.stop_us]
    return [Span(start, stop) for start, stop in zip(starts, stops, strict=True) if start < stop]
