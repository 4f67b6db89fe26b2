"""Windows: aligned, half-open pieces of time, and how readings inside them are put together. Pure.

"5min", "15min" and "1h" are aligned to the UTC epoch; "1d" is a local day of a time zone, 23 to 25 hours long where the
zone's offset changes. A window is labelled by its start.

Sums are taken in the order of the rows (np.bincount adds one after the other), so that the number of a group depends on
its own rows alone, to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from zoneinfo import ZoneInfo

import numpy as np

from devices.errors import ConfigError
from devices.quantity import Aggregation
from devices.reading import Float64Array, Int64Array

__all__ = [
    "DAY",
    "WIDTHS_US",
    "WINDOWS",
    "aggregate",
    "circular_mean",
    "energetic_mean",
    "harmonic_mean",
    "is_complete",
    "locate",
    "mean",
    "sum_by",
    "total",
    "weighted_mean",
    "window_at",
    "windows_between",
]

SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US
DAY = "1d"
_FIXED_US: Mapping[str, int] = {"5min": 300 * SECOND_US, "15min": 900 * SECOND_US, "1h": HOUR_US}
WIDTHS_US: Mapping[str, int] = MappingProxyType({**_FIXED_US, DAY: 24 * HOUR_US})
"""Width of each window, narrowest first [us]; a local day is about so long."""
WINDOWS: tuple[str, ...] = tuple(WIDTHS_US)


def window_at(name: str, time_us: Int64Array, tz: ZoneInfo) -> tuple[Int64Array, Int64Array]:
    """Return start and stop of the window that each time lies in (int64[n] each).

    >>> start, stop = window_at("15min", np.array([1_700_000_000_000_000]), ZoneInfo("Asia/Almaty"))
    >>> int(start[0]), int(stop[0])
    (1699999200000000, 1700000100000000)
    """
    if name != DAY:
        width = _width(name)
        start = time_us // width * width
        return start, start + width
    if not len(time_us):
        return time_us, time_us
    edges = _midnights(int(time_us.min()), int(time_us.max()) + 1, tz)
    at = np.searchsorted(edges, time_us, side="right") - 1
    return edges[at], edges[at + 1]


def windows_between(name: str, start_us: int, stop_us: int, tz: ZoneInfo) -> tuple[Int64Array, Int64Array]:
    """Return start and stop of every window that overlaps `[start_us, stop_us)`, rising (int64[n] each).

    Asia/Almaty went from UTC+6 to UTC+5 at the end of February 2024, so that its 29th had 25 hours:

    >>> noon = int(datetime(2024, 2, 29, 12, tzinfo=UTC).timestamp()) * SECOND_US
    >>> start, stop = windows_between("1d", noon, noon + 1, ZoneInfo("Asia/Almaty"))
    >>> int(stop[0] - start[0]) // HOUR_US
    25
    """
    if start_us >= stop_us:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if name == DAY:
        edges = _midnights(start_us, stop_us, tz)
        return edges[:-1], edges[1:]
    width = _width(name)
    start = np.arange(start_us // width * width, stop_us, width, dtype=np.int64)
    return start, start + width


def _width(name: str) -> int:
    if name not in _FIXED_US:
        raise ConfigError(f"no window is called {name!r}", hint="use one of " + ", ".join(WINDOWS))
    return _FIXED_US[name]


def _midnights(start_us: int, stop_us: int, tz: ZoneInfo) -> Int64Array:
    """Return the local midnights from the last one not after `start_us` to the first one not before `stop_us`."""
    first = datetime.fromtimestamp(start_us // SECOND_US, UTC).date() - timedelta(days=1)
    last = datetime.fromtimestamp(stop_us // SECOND_US, UTC).date() + timedelta(days=2)
    days = [_midnight(first + timedelta(days=n), tz) for n in range((last - first).days + 1)]
    edges = np.array(days, np.int64)
    low = np.searchsorted(edges, start_us, side="right") - 1
    return edges[low : np.searchsorted(edges, stop_us, side="left") + 1]


@lru_cache(maxsize=4096)
def _midnight(day: date, tz: ZoneInfo) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=tz).timestamp()) * SECOND_US


def locate(time_us: Int64Array, start_us: Int64Array, stop_us: Int64Array) -> Int64Array:
    """Return the index of the window that each time lies in, -1 where it lies in none. Windows rise and do not overlap.

    >>> locate(np.array([0, 10, 25, 30]), np.array([0, 20]), np.array([10, 30]))
    array([ 0, -1,  1, -1])
    """
    if not len(start_us):
        return np.full(len(time_us), -1, np.int64)
    at = np.searchsorted(start_us, time_us, side="right") - 1
    inside = (at >= 0) & (time_us < stop_us[at])
    return np.where(inside, at, -1)


def is_complete(valid: float, possible: float, least: float = 0.75) -> bool:
    """Tell whether enough of what was possible is valid: 75 % by Directive 2008/50/EC, Annex VII, and by EPA.

    >>> is_complete(45, 60), is_complete(5, 8)
    (True, False)
    """
    return possible > 0 and valid >= least * possible


def sum_by(group: Int64Array, value: Float64Array, n: int) -> Float64Array:
    """Add values by group, in the order of the rows (float64[n]); an empty group is 0.

    >>> sum_by(np.array([0, 0, 2]), np.array([1.0, 2.0, 5.0]), 3)
    array([3., 0., 5.])
    """
    return np.bincount(group, value, n).astype(np.float64, copy=False)


def total(group: Int64Array, value: Float64Array, n: int) -> Float64Array:
    """Sum values by group (float64[n]); an empty group is NaN.

    >>> total(np.array([0, 0, 2]), np.array([1.0, 2.0, 5.0]), 3)
    array([ 3., nan,  5.])
    """
    sums = sum_by(group, value, n)
    sums[np.bincount(group, minlength=n) == 0] = np.nan
    return sums


def mean(group: Int64Array, value: Float64Array, n: int) -> Float64Array:
    """Average values by group (float64[n]); an empty group is NaN.

    >>> mean(np.array([0, 0, 2]), np.array([1.0, 2.0, 5.0]), 3)
    array([1.5, nan, 5. ])
    """
    return _quotient(sum_by(group, value, n), np.bincount(group, minlength=n))


def weighted_mean(group: Int64Array, value: Float64Array, weight: Float64Array, n: int) -> Float64Array:
    """Average values by group with weights (float64[n]); a group without weight is NaN.

    >>> weighted_mean(np.array([0, 0]), np.array([10.0, 40.0]), np.array([2.0, 1.0]), 1)
    array([20.])
    """
    return _quotient(sum_by(group, value * weight, n), sum_by(group, weight, n))


def harmonic_mean(group: Int64Array, value: Float64Array, weight: Float64Array, n: int) -> Float64Array:
    """Average rates by what they carry: sum(w) / sum(w / value) by group; values are positive, no weight is NaN.

    >>> harmonic_mean(np.array([0, 0]), np.array([20.0, 60.0]), np.array([1.0, 1.0]), 1)
    array([30.])
    """
    return _quotient(sum_by(group, weight, n), sum_by(group, weight / value, n))


def circular_mean(group: Int64Array, value: Float64Array, n: int) -> Float64Array:
    """Average directions [deg] by group as unit vectors, 0 to 360; NaN where they cancel out.

    >>> circular_mean(np.array([0, 0, 1, 1]), np.array([350.0, 20.0, 0.0, 180.0]), 2).round(6)
    array([ 5., nan])
    """
    angle = np.radians(value)
    east, north = sum_by(group, np.sin(angle), n), sum_by(group, np.cos(angle), n)
    length = np.hypot(east, north)
    direction = np.degrees(np.arctan2(east, north)) % 360.0
    result: Float64Array = np.where(length > 1e-9 * np.maximum(np.bincount(group, minlength=n), 1), direction, np.nan)
    return result


def energetic_mean(group: Int64Array, value: Float64Array, n: int) -> Float64Array:
    """Average levels [dB] by group as powers: Leq = 10 log10(mean(10^(L/10))).

    >>> energetic_mean(np.array([0, 0]), np.array([60.0, 70.0]), 1).round(2)
    array([67.4])
    """
    result: Float64Array = 10.0 * np.log10(mean(group, 10.0 ** (value / 10.0), n))
    return result


def aggregate(
    how: Aggregation, group: Int64Array, value: Float64Array, n: int, weight: Float64Array | None = None
) -> Float64Array:
    """Put the readings of each group together as their quantity asks (float64[n], NaN for an empty group).

    Speeds are averaged harmonically by `weight`, the flow they belong to; without it each counts the same. Raises
    ConfigError for counters and states: only differences of a counter mean anything, and states have no mean.

    >>> aggregate(Aggregation.FLOW_WEIGHTED, np.array([0, 0]), np.array([20.0, 60.0]), 1)
    array([30.])
    """
    if how is Aggregation.MEAN:
        return mean(group, value, n)
    if how is Aggregation.SUM:
        return total(group, value, n)
    if how is Aggregation.CIRCULAR:
        return circular_mean(group, value, n)
    if how is Aggregation.ENERGETIC:
        return energetic_mean(group, value, n)
    if how is Aggregation.FLOW_WEIGHTED:
        return harmonic_mean(group, value, np.ones(len(value)) if weight is None else weight, n)
    raise ConfigError(f"a {how} cannot be averaged", hint="take differences of counters, and the last of states")


def _quotient(above: Float64Array, below: Float64Array | Int64Array) -> Float64Array:
    quotient: Float64Array = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return quotient
