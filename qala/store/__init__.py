"""Where readings and values live: one protocol (`base`), one module an engine, opened by URL."""

from __future__ import annotations

from devices.errors import ConfigError
from qala.store.base import Store

__all__ = ["Store", "open_store"]


def open_store(url: str) -> Store:
    """Open a store by URL: `duckdb:///absolute/path` or `memory:`.

    Raises ConfigError on an unknown scheme, VersionError or CorruptError as the engine finds.
    """
    scheme, _, path = url.partition(":")
    if scheme == "memory":
        from qala.store.memory import MemoryStore

        return MemoryStore()
    if scheme == "duckdb":
        from qala.store.duckdb import DuckDBStore

        return DuckDBStore.open(path.removeprefix("//"))
    raise ConfigError(f"no storage engine is called {scheme!r}", hint="use duckdb:///path/to/file.duckdb")
