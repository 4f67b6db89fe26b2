"""A copy of the DuckDB file at one moment, while it stays in use."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb

from devices.errors import ConflictError, UnavailableError
from qala.store.duckdb_file import translated
from qala.store.durable import sync, sync_folder


def check_free(file: Path) -> None:
    """Raise ConflictError where the file exists."""
    if file.exists():
        raise ConflictError(f"{file} exists", hint="name a file that does not exist yet: a backup never replaces one")


def copy_file(path: Path, file: Path) -> None:
    """Copy a database file that nobody writes to while it is copied, with its log, into one file that is on disk in whole.

    Raises UnavailableError where it cannot be written; nothing stays of it then.
    """
    part = file.with_name(file.name + ".part")
    logs = (path.with_name(path.name + ".wal"), part.with_name(part.name + ".wal"))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _clear(part, logs[1])  # what a killed copy left: its log must not lie beside another file
        shutil.copyfile(path, part)
        if logs[0].exists():
            shutil.copyfile(*logs)
    except OSError as error:
        _clear(part, logs[1])
        raise UnavailableError(
            f"{file} cannot be written: {error}", hint="see to disk space and permissions"
        ) from error
    except BaseException:
        _clear(part, logs[1])
        raise


def finish(file: Path) -> None:
    """Write the log of a copy into it and give it its name. Raises as `copy_file` does."""
    part = file.with_name(file.name + ".part")
    log = part.with_name(part.name + ".wal")
    try:
        with duckdb.connect(str(part), config={"memory_limit": "512MB", "threads": 1}) as connection:
            connection.execute("CHECKPOINT")
        sync(part)
        check_free(file)
        part.rename(file)
        sync_folder(file.parent)
    except (OSError, duckdb.Error) as error:
        raise UnavailableError(
            f"{file} cannot be written: {error}", hint="see to disk space and permissions"
        ) from error
    finally:
        _clear(part, log)


def read_through(file: Path) -> None:
    """Read all of a file that nobody has open, what is derived from readings too. Raises CorruptError where it is damaged."""
    with translated(file), duckdb.connect(str(file), read_only=True) as connection:
        for (table,) in connection.execute("SELECT table_name FROM duckdb_tables() ORDER BY table_name").fetchall():
            connection.execute(f'SELECT bit_xor(hash(t)) FROM "{table}" t').fetchall()  # noqa: S608 - its own names


def _clear(*files: Path) -> None:
    for file in files:
        file.unlink(missing_ok=True)
