"""Upkeep of the DuckDB file: closed hours are settled from `hot` to `cold`, closed days put into one sorted run.

Each piece is one transaction beside readers and the writer. Readers see every reading once, before and after; a batch waits
only while it touches the days that are being rewritten.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from devices.reading import SeriesInfo
from qala.store import duckdb_sql as sql
from qala.store.arrival import DAY_US
from qala.store.base import Span, Upkeep
from qala.store.duckdb_file import closed, transaction, translated
from qala.store.duckdb_gate import Gate
from qala.store.duckdb_rollups import Roller
from qala.store.duckdb_writing import AHEAD_US, BACK_US

HOUR_US = 3_600_000_000
CLOSED_US = 6 * HOUR_US  # so long after its end a day is put in order: most of what is late has come by then
LATE_MIN = 4_096  # rows: fewer late ones never make a day untidy
LATE_SHARE = 0.05


class Tender:
    """Does the upkeep of one file, a piece at a time, on a cursor of its own."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, gate: Gate, path: Path, *, settle_after_s: int) -> None:
        self._cursor = cursor
        self._gate = gate
        self._path = path
        self._settle_after_us = settle_after_s * 1_000_000
        self._roller = Roller(cursor, self._rewriting)
        self._alone = threading.Lock()
        self._ended = False
        self._state: Sequence[Upkeep] = ()

    def tend(self, now_us: int, catalog: Callable[[], Mapping[int, SeriesInfo]]) -> bool:
        """Do one piece, the first that waits of each kind, and tell whether there was one."""
        with self._alone, translated(self._path):
            if self._ended:
                raise closed()
            done = (
                self._settle(now_us)
                or self._cluster(now_us)
                or self._roller.tend(now_us, self._closed(now_us)["closed"], catalog)
            )
            self._state = self._measured(now_us)
            return done

    def upkeep(self) -> Sequence[Upkeep]:
        """Say how far each kind of work was after the last piece."""
        return self._state

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Do no piece meanwhile; one that has begun is ended first."""
        with self._alone:
            yield

    def end(self) -> None:
        """Do no more pieces, and break off the one that runs."""
        self._ended = True
        self._cursor.interrupt()

    def _settle(self, now_us: int) -> bool:
        until_us = _whole_hour(now_us - self._settle_after_us)
        if until_us <= self._gate.settled_us:
            return False
        oldest = self._oldest_hot()
        stop_us = until_us if oldest is None else min(until_us, max(_end_of_day(oldest), self._gate.settled_us))
        start_us = min(self._gate.settled_us, stop_us - 1) // DAY_US * DAY_US
        with self._rewriting(Span(start_us, stop_us), settled_us=stop_us):
            for statement in sql.SETTLE:
                self._cursor.execute(statement, {"stop": stop_us})
        return True

    def _oldest_hot(self) -> int | None:
        [(oldest,)] = self._cursor.execute(sql.OLDEST_HOT).fetchall()
        return None if oldest is None else int(oldest)

    def _cluster(self, now_us: int) -> bool:
        for day, late, tidy in self._cursor.execute(
            sql.UNTIDY_DAYS, self._closed(now_us) | {"late": LATE_MIN}
        ).fetchall():
            span = Span(day * DAY_US, (day + 1) * DAY_US)
            if not tidy or late > LATE_SHARE * self._rows(span):
                with self._rewriting(span):
                    [(last,)] = self._cursor.execute(sql.LAST_ROW, sql.bounds(span)).fetchall()
                    self._cursor.execute(sql.SORT_DAY, sql.bounds(span))
                    self._cursor.execute(sql.DELETE_UNSORTED, sql.bounds(span) | {"last": last})
                    self._cursor.execute(sql.TIDY_DAY, {"day": day})
                return True
        return False

    def _rows(self, span: Span) -> int:
        [(rows,)] = self._cursor.execute(sql.ROWS, sql.bounds(span)).fetchall()
        return int(rows)

    def _closed(self, now_us: int) -> dict[str, int]:
        return {"closed": min(now_us - CLOSED_US, self._gate.settled_us)}

    @contextmanager
    def _rewriting(self, span: Span, *, settled_us: int | None = None) -> Iterator[None]:
        """Rewrite the readings of whole days in one transaction; those who write readings of them, or note them, wait."""
        reached = Span(span.start_us - BACK_US, span.stop_us + AHEAD_US)
        with self._gate.closed(reached, settled_us=settled_us), transaction(self._cursor):
            yield

    def _measured(self, now_us: int) -> Sequence[Upkeep]:
        until_us, oldest = _whole_hour(now_us - self._settle_after_us), self._oldest_hot()
        behind = 0 if oldest is None or oldest >= until_us else (until_us - 1) // DAY_US - oldest // DAY_US + 1
        [(days, over, tidy, rolled)] = self._cursor.execute(sql.COUNT_DAYS, self._closed(now_us)).fetchall()
        return (
            Upkeep("settle", days, days + behind, "days"),
            Upkeep("cluster", tidy, over, "days"),
            Upkeep("roll up", rolled, over, "days"),
        )


def _whole_hour(time_us: int) -> int:
    return time_us // HOUR_US * HOUR_US


def _end_of_day(time_us: int) -> int:
    return (time_us // DAY_US + 1) * DAY_US
