"""Indicators, one file each: a module with an `INDICATOR`. A new file here is a new indicator."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from analytics.indicator import Indicator
from analytics.window import WINDOWS
from devices.errors import ConfigError
from devices.quantity import QUANTITIES

__all__ = ["indicators"]


@cache
def indicators() -> Mapping[str, Indicator]:
    """Return every indicator by name, found in the modules of this package.

    Raises ConfigError where a file declares none, or one that contradicts its name, the windows or the quantities.
    """
    found = {module.name: _load(module.name) for module in pkgutil.iter_modules(__path__)}
    return MappingProxyType(found)


def _load(name: str) -> Indicator:
    indicator = getattr(importlib.import_module(f"{__name__}.{name}"), "INDICATOR", None)
    if not isinstance(indicator, Indicator) or indicator.name != name:
        raise ConfigError(
            f"analytics/indicators/{name}.py declares no indicator {name!r}",
            hint=f'end the file with INDICATOR = Indicator(name="{name}", ...)',
        )
    unknown = [window for window in indicator.windows if window not in WINDOWS]
    unknown += [quantity for quantity in indicator.quantities if quantity not in QUANTITIES]
    if unknown:
        raise ConfigError(
            f"the indicator {name!r} needs {unknown[0]!r}, which is neither a window nor a quantity",
            hint="use names of analytics/window.py and devices/quantity.py",
        )
    return indicator
