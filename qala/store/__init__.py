"""Where readings and values live: one protocol (`base`), one module an engine, opened by URL.

An engine is a module with a function `open_url(url, settings) -> Store`. Its name is the scheme of its URLs: a module here, or
an entry point of the group `qala.stores` in any installed package.
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import entry_points
from types import ModuleType

from devices.errors import ConfigError
from qala.store.base import Store
from qala.store.settings import StoreSettings

__all__ = ["Store", "StoreSettings", "open_store"]

_HINT = "use duckdb:///path/to/file.duckdb or influxdb://HOST:PORT/ORG/BUCKET"


def open_store(url: str, settings: StoreSettings | None = None) -> Store:
    """Open a store by URL: `duckdb:///absolute/path`, `influxdb://HOST:PORT/ORG/BUCKET`, `memory:`.

    Raises ConfigError on an unknown scheme, VersionError or CorruptError as the engine finds.
    """
    engine = _engine(url.partition(":")[0])
    store: Store = engine.open_url(url, settings or StoreSettings.model_validate({}))
    return store


def _engine(scheme: str) -> ModuleType:
    if scheme in {module.name for module in pkgutil.iter_modules(__path__)}:
        engine = importlib.import_module(f"{__name__}.{scheme}")
        if hasattr(engine, "open_url"):
            return engine
    for point in entry_points(group="qala.stores", name=scheme):
        found: ModuleType = point.load()
        return found
    raise ConfigError(f"no storage engine is called {scheme!r}", hint=_HINT)
