"""The DuckDB file: opening it, its schema and version, its errors in our words, and cursors to read with."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from devices.errors import ConfigError, CorruptError, QalaError, UnavailableError, VersionError
from qala.store.duckdb_gate import BEGINNING_US
from qala.store.duckdb_overview_sql import ROLLUPS

SCHEMA_VERSION = 2

# Readings live in two tables: `hot` in the order of arrival, `cold` sorted by (series, time) in runs. One boundary parts
# them: those before `settled.until_us` are in `cold`. No primary key on them: an index over all readings costs four times
# the time and six times the space, and one writer can keep (series, time) unique by itself. `delay_us` is how long after
# its time a reading was received: half the bits of when.
_SCHEMA = """
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE series (
    id INTEGER NOT NULL, device VARCHAR NOT NULL, quantity VARCHAR NOT NULL, channel VARCHAR NOT NULL,
    span_s INTEGER NOT NULL, unit VARCHAR NOT NULL);
CREATE TABLE positions (journal VARCHAR NOT NULL, number BIGINT NOT NULL);
CREATE TABLE indicator_values (
    indicator VARCHAR NOT NULL, zone VARCHAR NOT NULL, "window" VARCHAR NOT NULL, start_us BIGINT NOT NULL,
    stop_us BIGINT NOT NULL, value DOUBLE, unit VARCHAR NOT NULL, n_good BIGINT NOT NULL, n_expected BIGINT NOT NULL,
    method VARCHAR NOT NULL, method_version VARCHAR NOT NULL, final_us BIGINT NOT NULL, status VARCHAR NOT NULL,
    detail VARCHAR NOT NULL, known_us BIGINT NOT NULL, revision BIGINT NOT NULL);
INSERT INTO schema_version VALUES ($version);
"""

# `days` is of the UTC days in `cold`: `late` rows are not in the day's sorted run, a `tidy` day has one run.
_PARTED = """
CREATE TABLE hot (
    series INTEGER NOT NULL, time_us BIGINT NOT NULL, value DOUBLE NOT NULL, flag UTINYINT NOT NULL,
    revision INTEGER NOT NULL, origin BIGINT NOT NULL, delay_us BIGINT NOT NULL);
CREATE TABLE cold (
    series INTEGER NOT NULL, time_us BIGINT NOT NULL, value DOUBLE NOT NULL, flag UTINYINT NOT NULL,
    revision INTEGER NOT NULL, origin BIGINT NOT NULL, delay_us BIGINT NOT NULL);
CREATE VIEW readings AS SELECT * FROM cold UNION ALL SELECT * FROM hot;
CREATE TABLE settled (until_us BIGINT NOT NULL);
INSERT INTO settled VALUES ($beginning);
CREATE TABLE days (day INTEGER NOT NULL, late BIGINT NOT NULL, tidy BOOLEAN NOT NULL, rolled BOOLEAN NOT NULL);
$rollups
"""

_TAKEN_OVER = {
    1: f"""
ALTER TABLE readings RENAME TO readings_1;
{_PARTED}
INSERT INTO hot SELECT series, time_us, value, flag, revision, origin, received_us - time_us FROM readings_1;
DROP TABLE readings_1;
UPDATE schema_version SET version = 2
""",  # noqa: S608 -- constants of this module
}
"""What makes a file of each older schema version one of the next."""

_FULL = ("could not write", "no space left", "file too large")
_UNUSABLE = (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.FatalException, OSError)
_DAMAGE = ("corrupt", "checksum", "not a valid duckdb", "enough bytes", "replaying wal", "deserialize")


def connect(path: Path, *, memory_max_mb: int, threads: int) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB file, making it with its tables where it is missing.

    Raises UnavailableError where another process has it, VersionError where a newer Qala or DuckDB wrote it,
    ConfigError where it is not Qala's, CorruptError where it is damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with translated(path):
        connection = duckdb.connect(
            str(path),
            config={
                "memory_limit": f"{memory_max_mb}MB",
                "threads": threads,
                "autoload_known_extensions": False,
                "autoinstall_known_extensions": False,
                "immediate_transaction_mode": True,  # a transaction sees the moment at which it begins
            },
        )
    try:
        with translated(path):
            _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    tables = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if not tables:
        with transaction(connection):
            _run(connection, _SCHEMA + _PARTED)
    elif "schema_version" not in tables:
        raise ConfigError(f"{path} is a DuckDB file of something else", hint="name another file for the store")
    else:
        found = _version(connection, path)
        for version in range(found, SCHEMA_VERSION):
            with transaction(connection):
                _run(connection, _TAKEN_OVER[version])


def _run(connection: duckdb.DuckDBPyConnection, statements: str) -> None:
    known = {"$version": str(SCHEMA_VERSION), "$beginning": str(BEGINNING_US), "$rollups": ROLLUPS}
    for name, text in known.items():
        statements = statements.replace(name, text)
    for statement in statements.split(";"):
        if statement.strip():
            connection.execute(statement)


def _version(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    [(found,)] = connection.execute("SELECT max(version) FROM schema_version").fetchall()
    if found is None or found > SCHEMA_VERSION:
        raise VersionError(
            f"{path} has schema version {found}, this Qala knows up to {SCHEMA_VERSION}",
            hint="run the newer Qala, restore a backup made by this one, or move the file away: "
            "it is rebuilt from the journal",
        )
    return int(found)


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit what is done inside, or nothing of it."""
    connection.begin()
    try:
        yield
        connection.commit()
    except BaseException:
        _roll_back(connection)
        raise


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    try:
        connection.rollback()
    except duckdb.Error:
        # A failed commit has rolled back already, and after a fatal error there is nothing to roll back: the first
        # error is the one to tell.
        return


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what DuckDB raises into Qala's errors. Mistakes in our own SQL pass as they are."""
    try:
        yield
    except (duckdb.Error, OSError) as error:  # OSError is how Arrow tells of an error amid a result
        told = _told(error, path)
        if told is None:
            raise
        raise told from error


def _told(error: duckdb.Error | OSError, path: Path) -> QalaError | None:
    text = str(error).lower()
    if "set lock" in text:
        return UnavailableError(
            f"another process has {path} open",
            hint="stop the other Qala, or copy a backup; while it runs, ask it instead of the file",
        )
    if "version number" in text:
        return VersionError(f"{path} was written by a newer DuckDB: {error}", hint="run the Qala that wrote it")
    if any(word in text for word in _DAMAGE):
        return CorruptError(
            f"{path} is damaged: {error}",
            hint="put a backup back with qala store restore FILE, or make the store anew from the journal with "
            "qala store rebuild; both keep the damaged file aside",
        )
    if isinstance(error, duckdb.ConnectionException) or "interrupt" in text:
        return closed()
    if any(word in text for word in _FULL) or isinstance(error, _UNUSABLE):
        return UnavailableError(f"{path} cannot be used: {error}", hint="see to disk space, memory and permissions")
    return None


def closed() -> UnavailableError:
    """Return the error of a store that was closed."""
    return UnavailableError("the store is closed", hint="open it again")


class Cursors:
    """A bounded pool of cursors, each used by one reader at a time.

    A reader that finds none waits at most `wait_s` and then gets an UnavailableError.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, *, count: int, wait_s: float = 30.0) -> None:
        self._wait_s = wait_s
        self._free: queue.LifoQueue[duckdb.DuckDBPyConnection] = queue.LifoQueue()
        self._all = [connection.cursor() for _ in range(count)]
        for cursor in self._all:
            self._free.put(cursor)
        self._closed = threading.Event()

    @contextmanager
    def take(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Lend a cursor inside a transaction: all that it reads is of one moment."""
        cursor = self._get()
        try:
            with transaction(cursor):
                yield cursor
        finally:
            self._free.put(cursor)

    def _get(self) -> duckdb.DuckDBPyConnection:
        if self._closed.is_set():
            raise closed()
        try:
            return self._free.get(timeout=self._wait_s)
        except queue.Empty:
            raise UnavailableError(
                f"all {len(self._all)} read cursors were busy for {self._wait_s:g} s",
                hint="ask for less at a time, or read results to their end",
            ) from None

    def close(self) -> None:
        """Lend no more, and break off what runs."""
        self._closed.set()
        for cursor in self._all:
            cursor.interrupt()


def close(connection: duckdb.DuckDBPyConnection, *, wait_s: float = 30.0) -> None:
    """Close a connection and its cursors, once those that are inside a call have come out of it."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            connection.close()
        except duckdb.ResourceInUseException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return


@contextmanager
def tables(connection: duckdb.DuckDBPyConnection, **named: Any) -> Iterator[None]:
    """Let queries name Arrow tables."""
    for name, table in named.items():
        connection.register(name, table)
    try:
        yield
    finally:
        for name in named:
            connection.unregister(name)
