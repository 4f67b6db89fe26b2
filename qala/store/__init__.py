"""Where readings and values live: one protocol (`base`), one module an engine, opened by URL.

An engine is a module here with a function `open_url(url) -> Store`; its name is the scheme of its URLs.
"""

from __future__ import annotations

import importlib
import pkgutil

from devices.errors import ConfigError
from qala.store.base import Store

__all__ = ["Store", "open_store"]


def open_store(url: str) -> Store:
    """Open a store by URL: `duckdb:///absolute/path` or `memory:`.

    Raises ConfigError on an unknown scheme, VersionError or CorruptError as the engine finds.
    """
    scheme = url.partition(":")[0]
    if scheme not in {module.name for module in pkgutil.iter_modules(__path__)}:
        raise ConfigError(f"no storage engine is called {scheme!r}", hint="use duckdb:///path/to/file.duckdb")
    engine = importlib.import_module(f"{__name__}.{scheme}")
    if not hasattr(engine, "open_url"):
        raise ConfigError(f"{scheme!r} is no storage engine", hint="use duckdb:///path/to/file.duckdb")
    store: Store = engine.open_url(url)
    return store
