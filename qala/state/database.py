"""The state database: registry, dirty marks, due windows, rejected messages, episodes, notices. SQLite, or PostgreSQL by URL.

Each sibling module declares its tables on `METADATA` and the functions over them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    ExceptionContext,
    Integer,
    MetaData,
    Table,
    create_engine,
    event,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.pool import NullPool

from devices.errors import CorruptError, VersionError
from qala.state.migrations import migrate

METADATA = MetaData()
SCHEMA_VERSION = 3

_DAMAGED = ("malformed", "not a database")  # what SQLite says of SQLITE_CORRUPT and SQLITE_NOTADB

_PATIENCE = {"connect_timeout": 5, "tcp_user_timeout": 10_000, "keepalives_idle": 5, "keepalives_interval": 5}
"""What libpq is told, so that a server that is gone without a word is noticed [s, ms, s, s]."""

_schema = Table("schema_version", METADATA, Column("version", Integer, nullable=False))


def open_state(url: str) -> Engine:
    """Open the state database, making its tables where they are missing and bringing those of an older Qala up to date.

    A URL as SQLAlchemy reads it; `sqlite:///path` uses the pysqlite3 wheel (the SQLite of Python 3.11 itself predates the
    fix of a WAL corruption bug). Raises VersionError where a newer Qala wrote it. Where an SQLite file is damaged, this
    and whatever reads of it raises CorruptError.
    """
    engine = _sqlite(url) if url.startswith("sqlite") else create_engine(url)
    _check_version(engine)
    if METADATA.tables.keys() - inspect(engine).get_table_names():
        with engine.begin() as connection:
            alone(connection)  # of two processes that open it at once, one makes them
            METADATA.create_all(connection)
    return engine


def state_reader(url: str) -> Engine:
    """Make an engine that only reads a state database, and makes none: for a process beside the one that writes it.

    Where there is none yet, every use of it raises OperationalError. An SQLite file is opened anew each time, so that one
    that was put in its place is seen.
    """
    if not url.startswith("sqlite"):
        patience = _PATIENCE if "psycopg" in url.partition(":")[0] else {}
        return create_engine(url, pool_size=1, max_overflow=0, pool_pre_ping=True, connect_args=patience)
    import pysqlite3.dbapi2

    path = quote(url.removeprefix("sqlite:///"))

    def connect() -> Any:
        connection = pysqlite3.dbapi2.connect(f"file:{path}?mode=rw", uri=True, timeout=10, check_same_thread=False)
        connection.execute("PRAGMA query_only=ON")
        return connection

    return create_engine("sqlite://", module=pysqlite3.dbapi2, creator=connect, poolclass=NullPool)


def alone(connection: Connection) -> None:
    """Let no other process write until this transaction ends, so that what it reads first still holds when it writes."""
    connection.execute(update(_schema).values(version=_schema.c.version))


def _sqlite(url: str) -> Engine:
    import pysqlite3.dbapi2

    path = url.removeprefix("sqlite:///")
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, module=pysqlite3.dbapi2)

    @event.listens_for(engine, "connect")
    def configure(connection, _record) -> None:  # type: ignore[no-untyped-def]
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA busy_timeout=10000")

    @event.listens_for(engine, "handle_error")
    def tell(context: ExceptionContext) -> None:
        if any(word in str(context.original_exception) for word in _DAMAGED):
            raise CorruptError(
                f"{path} is damaged: {context.original_exception}",
                hint="restore a backup of it, or save what is left with sqlite3's .recover command; the journal is untouched",
            )

    return engine


def _check_version(engine: Engine) -> None:
    if not inspect(engine).has_table(_schema.name):
        _schema.create(engine)
        with engine.begin() as connection:
            connection.execute(insert(_schema).values(version=SCHEMA_VERSION))
        return
    with engine.connect() as connection:
        found = connection.execute(select(_schema.c.version)).scalar_one()
    if found > SCHEMA_VERSION:
        raise VersionError(
            f"the state database has schema version {found}, this Qala knows up to {SCHEMA_VERSION}",
            hint="run the newer Qala, or restore the state from a backup made by this one",
        )
    for version in range(found + 1, SCHEMA_VERSION + 1):
        _bring_to(engine, version)


def _bring_to(engine: Engine, version: int) -> None:
    with engine.begin() as connection:
        # First of all, so that of two processes that open it at once the later one waits, and finds it done.
        older = update(_schema).where(_schema.c.version == version - 1).values(version=version)
        if connection.execute(older).rowcount:
            migrate(connection, version)
