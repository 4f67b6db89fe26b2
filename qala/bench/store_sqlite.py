"""SQLite as a peer: one table by (series, time), synced at every commit."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pysqlite3.dbapi2 as sqlite

from devices.reading import Float64Array
from qala.bench.store_data import HOUR_US, STEP_US, Rows, Shape
from qala.bench.store_peer import About
from qala.store.base import Span

__all__ = ["ROWS_MAX", "SQLite"]

ROWS_MAX = 10_000_000
"""More than that takes it hours."""

_LATEST_LOOKBACK_US = 2 * HOUR_US
_SCHEMA = """
CREATE TABLE IF NOT EXISTS readings (
    series INTEGER NOT NULL, time_us INTEGER NOT NULL, value REAL NOT NULL, flag INTEGER NOT NULL,
    PRIMARY KEY (series, time_us)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS series (id INTEGER PRIMARY KEY);
"""
_UPSERT = """
INSERT INTO readings VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET value = excluded.value, flag = excluded.flag
"""
_LATEST = """
SELECT id, (SELECT value FROM readings WHERE series = id AND time_us > ? AND time_us <= ? ORDER BY time_us DESC LIMIT 1)
FROM series
"""
_RAW = "SELECT time_us, value, flag FROM readings WHERE series = ? AND time_us >= ? AND time_us < ?"
_HOURLY = """
SELECT time_us / ?, avg(value) FROM readings WHERE series = ? AND time_us >= ? AND time_us < ? AND flag = 1 GROUP BY 1
"""
_WINDOWS = """
SELECT series, time_us / ?, avg(value) FROM series CROSS JOIN readings
WHERE series = id AND time_us >= ? AND time_us < ? AND flag = 1 GROUP BY 1, 2
"""
_COMPLETENESS = """
SELECT series, count(*), sum(flag = 1) FROM series CROSS JOIN readings
WHERE series = id AND time_us >= ? AND time_us < ? GROUP BY series
"""


class SQLite:
    """A file with one writer and readers beside it (WAL)."""

    name = "sqlite"

    def __init__(self, folder: Path, shape: Shape) -> None:
        self._path = folder / "readings.sqlite"
        self._shape = shape
        self._connections = threading.local()
        self._opened: list[Any] = []

    def about(self) -> About:
        return About(
            name=self.name,
            version=f"SQLite {sqlite.sqlite_version}",
            durability="every batch synced (WAL, synchronous=FULL)",
            interface="in the process, rows of Python",
            quantile="of raw readings, by the reader",
        )

    def start(self) -> None:
        connection = self._connection()
        connection.executescript(_SCHEMA)
        if not connection.execute("SELECT count(*) FROM series").fetchone()[0]:
            with connection:
                connection.executemany("INSERT INTO series VALUES (?)", [(n + 1,) for n in range(self._shape.series)])

    def _connection(self) -> Any:
        found = getattr(self._connections, "one", None)
        if found is None:
            found = self._connections.one = sqlite.connect(str(self._path), timeout=60, check_same_thread=False)
            found.execute("PRAGMA journal_mode=WAL")
            found.execute("PRAGMA synchronous=FULL")
            found.execute("PRAGMA cache_size=-262144")
            self._opened.append(found)
        return found

    def stop(self) -> None:
        for connection in self._opened:
            connection.close()
        self._opened, self._connections = [], threading.local()

    def pid(self) -> int:
        return os.getpid()

    def append(self, rows: Rows) -> None:
        columns = (column.tolist() for column in (rows.series, rows.time_us, rows.value, rows.flag))
        with self._connection() as connection:
            connection.executemany(_UPSERT, zip(*columns, strict=True))

    def tend(self, now_us: int) -> bool:  # noqa: ARG002 - it has no upkeep
        return False

    def settle(self) -> None:
        """Nothing: what is acknowledged can be read."""

    def count(self) -> int:
        return int(self._rows("SELECT count(*) FROM readings")[0][0])

    def _rows(self, query: str, *parameters: int) -> list[Any]:
        found: list[Any] = self._connection().execute(query, parameters).fetchall()
        return found

    def latest(self, at_us: int) -> Float64Array:
        return _last(self._rows(_LATEST, at_us - _LATEST_LOOKBACK_US, at_us))

    def raw(self, series: int, span: Span) -> Float64Array:
        return np.array([value for _, value, _ in self._rows(_RAW, series, span.start_us, span.stop_us)], np.float64)

    def hourly(self, series: int, span: Span, *, p95: bool) -> Float64Array:
        if not p95:
            return _last(self._rows(_HOURLY, HOUR_US, series, span.start_us, span.stop_us))
        rows = np.array(self._rows(_RAW, series, span.start_us, span.stop_us), np.float64).reshape(-1, 3)
        good = rows[rows[:, 2] == 1]
        hours = np.split(good[:, 1], np.flatnonzero(np.diff(good[:, 0] // HOUR_US)) + 1)
        return np.array([(hour.mean(), np.percentile(hour, 95)) for hour in hours if len(hour)]).reshape(-1, 2)[:, 0]

    def windows(self, span: Span) -> Float64Array:
        return _last(self._rows(_WINDOWS, STEP_US, span.start_us, span.stop_us))

    def completeness(self, span: Span) -> Float64Array:
        return _last(self._rows(_COMPLETENESS, span.start_us, span.stop_us))


def _last(rows: list[Any]) -> Float64Array:
    """Return the last column."""
    return np.array([row[-1] for row in rows], np.float64)
