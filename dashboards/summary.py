"""The summary: one tile an indicator, for the whole city, and the state of devices and alerts. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import msgspec

from analytics.indicator import Indicator
from analytics.window import WIDTHS_US
from dashboards.items import DeviceItem
from dashboards.times import iso
from devices.value import Value

__all__ = ["DOMAINS", "summarize", "tile"]

DOMAINS = ("traffic", "air", "energy")
SPARK_MAX = 24

_Windows = Sequence[tuple[int, Sequence[Value]]]


class _Look(msgspec.Struct, frozen=True):
    """How zones make one number of the city: an index is as bad as its worst zone, energies add up, the rest is a mean."""

    combine: str = "mean"
    worst: Callable[[Iterable[float]], float] = max
    window: str = ""


_LOOKS: Mapping[str, _Look] = {
    "nowcast_aqi": _Look("max"),
    "aqi": _Look("max"),
    "european_aqi": _Look("max"),
    "pm2_5_mean": _Look(window="1h"),
    "traffic_flow": _Look(window="15min"),
    "space_mean_speed": _Look(worst=min, window="15min"),
    "travel_time_index": _Look(window="15min"),
    "congestion_level": _Look(window="15min"),
    "interval_energy": _Look("sum", window="1h"),
    "peak_demand": _Look("max"),
    "load_factor": _Look(worst=min),
}
_COMBINE: Mapping[str, Callable[[Sequence[float]], float]] = {"mean": fmean, "max": max, "sum": math.fsum}


def summarize(
    indicators: Mapping[str, Indicator],
    windows: Callable[[str, str], _Windows],
    devices: Sequence[DeviceItem],
    alerts: tuple[int, int],
    now_us: int,
) -> dict[str, Any]:
    """Make the summary. `windows` gives an indicator's newest windows; `alerts` are those firing and unacknowledged."""
    tiles = [tile(i, windows(i.name, window_of(i)), now_us) for i in indicators.values()]
    others = {i.domain for i in indicators.values()} - set(DOMAINS)
    return {
        "now": iso(now_us),
        "domains": [
            {
                "domain": domain,
                "tiles": [one for one in tiles if one["domain"] == domain],
                "devices": _states(d for d in devices if d.domain == domain),
            }
            for domain in (*DOMAINS, *sorted(others))
        ],
        "devices": _states(devices),
        "alerts": {"firing": alerts[0], "unacknowledged": alerts[1]},
    }


def _states(devices: Iterable[DeviceItem]) -> dict[str, int]:
    counted = Counter(device.state.value for device in devices)
    return {state: counted[state] for state in ("live", "late", "silent", "never")}


def window_of(indicator: Indicator) -> str:
    """Return the window width that an indicator's tile shows."""
    window = _LOOKS.get(indicator.name, _Look()).window
    return window if window in indicator.windows else indicator.windows[0]


def tile(indicator: Indicator, windows: _Windows, now_us: int) -> dict[str, Any]:
    """Combine the newest window's zones into one number, beside the worst zone and the windows before it."""
    look = _LOOKS.get(indicator.name, _Look())
    start_us, values = windows[-1] if windows else (None, ())
    numbers = {value.zone: value.value for value in values if value.value is not None}
    promised = sum(value.n_expected for value in values)
    worst = look.worst(numbers.values()) if numbers else None
    return {
        "domain": indicator.domain,
        "indicator": indicator.name,
        "title": indicator.title,
        "unit": indicator.unit,
        "window": window_of(indicator),
        "combine": look.combine,
        "start": None if start_us is None else iso(start_us),
        "stop": iso(values[0].stop_us) if values else None,
        "value": _combined(look, values),
        "coverage": min(1.0, sum(value.n_good for value in values) / promised) if promised else 0.0,
        "provisional": any(value.provisional(now_us) for value in values),
        "status": "ok" if numbers else values[0].status if values else "none",
        "zones": len(numbers),
        "worst": None if worst is None else {"zone": min(z for z, v in numbers.items() if v == worst), "value": worst},
        "spark": _spark(look, windows, WIDTHS_US[window_of(indicator)]),
    }


def _combined(look: _Look, values: Sequence[Value]) -> float | None:
    numbers = [value.value for value in values if value.value is not None]
    return _COMBINE[look.combine](numbers) if numbers else None


def _spark(look: _Look, windows: _Windows, width_us: int) -> list[float | None]:
    """Return the city's number for the newest windows, evenly spaced, null where there is none."""
    if not windows:
        return []
    last_us = windows[-1][0]
    by_place = {round((last_us - start_us) / width_us): values for start_us, values in windows}
    length = min(SPARK_MAX, max(by_place) + 1)
    return [_combined(look, by_place.get(place, ())) for place in range(length - 1, -1, -1)]
