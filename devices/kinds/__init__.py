"""Kinds of devices, one file each: a module with a `KIND`. A new file here is a new kind."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from devices.errors import ConfigError
from devices.kind import Kind
from devices.quantity import QUANTITIES

__all__ = ["kinds"]


@cache
def kinds() -> Mapping[str, Kind]:
    """Return every kind by name, found in the modules of this package.

    Raises ConfigError where a module declares no KIND, or one that contradicts the rest.
    """
    found: dict[str, Kind] = {}
    for module in pkgutil.iter_modules(__path__):
        kind = _load(module.name)
        if kind.name in found:
            raise ConfigError(f"two files declare the kind {kind.name!r}", hint="give one of them another name")
        found[kind.name] = kind
    return MappingProxyType(found)


def _load(name: str) -> Kind:
    kind = getattr(importlib.import_module(f"{__name__}.{name}"), "KIND", None)
    if not isinstance(kind, Kind):
        raise ConfigError(f"devices/kinds/{name}.py declares no KIND", hint="end the file with KIND = Kind(...)")
    unknown = [quantity for quantity in kind.quantities if quantity not in QUANTITIES]
    if unknown:
        raise ConfigError(
            f"the kind {kind.name!r} reports {unknown[0]!r}, which is no quantity",
            hint="use a name of devices/quantity.py, or add the quantity there",
        )
    return kind
