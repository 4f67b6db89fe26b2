"""Which windows need readings that are kept no longer. Pure.

Once readings are deleted, a window that looks at them would get another number from the rest: it keeps the one it has,
whoever asks for it again - a late reading, a change of the registry, a rebuild.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analytics.due import interval_us
from analytics.indicator import Indicator
from analytics.inputs import reach_us
from analytics.window import WIDTHS_US
from devices.device import Registry
from devices.kind import Kind
from qala.state.dirty import Due

__all__ = ["beyond", "needed_us"]

_SECOND_US = 1_000_000
_LONGER_DAY_US = 3_600_000_000  # a local day may last 25 hours


def beyond(
    due: Sequence[Due],
    since: Mapping[str, int],
    indicators: Mapping[str, Indicator],
    registry: Registry,
    kinds: Mapping[str, Kind],
) -> list[Due]:
    """Return the windows that need readings older than the time since which their quantity is kept (`since` [UTC us])."""
    if not since:
        return []
    slowest = _slowest(registry, kinds)
    reach: dict[tuple[str, int], Mapping[str, int]] = {}
    found = []
    for window in due:
        key = window.indicator, slowest.get(window.zone, 0)
        if key not in reach:
            reach[key] = _reach(indicators.get(window.indicator), key[1], since)
        if any(window.start_us - back < since[quantity] for quantity, back in reach[key].items()):
            found.append(window)
    return found


def _reach(indicator: Indicator | None, register_interval_us: int, since: Mapping[str, int]) -> dict[str, int]:
    """Return how far before a window its readings begin [us], by quantity that is not kept for ever."""
    names = indicator.quantities if indicator else ()
    return {name: reach_us(indicator, name, register_interval_us)[0] for name in names if indicator and name in since}


def _slowest(registry: Registry, kinds: Mapping[str, Kind]) -> dict[str, int]:
    """Return the longest declared interval of those who stood in a zone [us], by zone."""
    found: dict[str, int] = {}
    for placement in registry.placements:
        interval = interval_us(registry.devices[placement.device], kinds)
        for zone in placement.zones:
            found[zone] = max(interval, found.get(zone, 0))
    return found


def needed_us(indicators: Mapping[str, Indicator], kinds: Mapping[str, Kind]) -> dict[str, tuple[int, str]]:
    """Return how long readings of a quantity are needed until the values made of them are final [us], and for which indicator."""
    found: dict[str, tuple[int, str]] = {}
    for indicator in indicators.values():
        width = max(WIDTHS_US[window] for window in indicator.windows) + _LONGER_DAY_US
        for quantity in indicator.quantities:
            slowest = max((kind.interval_s for kind in kinds.values() if quantity in kind.quantities), default=0)
            back, _ = reach_us(indicator, quantity, slowest * _SECOND_US)
            needed = width + back + indicator.grace_s * _SECOND_US
            found[quantity] = max(found.get(quantity, (0, "")), (needed, indicator.name))
    return found
