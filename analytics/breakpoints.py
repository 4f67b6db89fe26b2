"""Air-quality indices from concentrations: tables of the standards, and the rules of rounding that go with them. Pure.

US EPA: 40 CFR 58 Appendix G as amended on 2024-05-06 (89 FR 16202), and the Technical Assistance Document EPA-454/B-24-002.
Concentrations are truncated, indices rounded half up. Both are done in whole numbers (a concentration in units of its last
digit), since binary fractions would put a good part of the table's grid one lower or higher. Above 500 the last segment is
extended ("Beyond the AQI").

European index: EEA bands of 2024 on hourly means, upper bounds inclusive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec
import numpy as np

from devices.reading import Float64Array, Int64Array

__all__ = ["EUROPEAN_BANDS", "aqi", "category", "european_band", "so2_aqi", "truncate"]


class _Scale(msgspec.Struct, frozen=True):
    """One row of the EPA table: lower bounds of its segments in units of the last digit, their indices, and the end."""

    digits: int
    low: tuple[int, ...]
    high: tuple[int, ...]
    index: tuple[tuple[int, int], ...]
    open_above: bool = True  # the last segment goes on


_INDEX = ((0, 50), (51, 100), (101, 150), (151, 200), (201, 300), (301, 500))

_EPA: Mapping[str, _Scale] = MappingProxyType(
    {
        "pm2_5_24h": _Scale(1, (0, 91, 355, 555, 1255, 2255), (90, 354, 554, 1254, 2254, 3254), _INDEX),
        "pm10_24h": _Scale(0, (0, 55, 155, 255, 355, 425), (54, 154, 254, 354, 424, 604), _INDEX),
        "co_8h": _Scale(1, (0, 45, 95, 125, 155, 305), (44, 94, 124, 154, 304, 504), _INDEX),
        "no2_1h": _Scale(0, (0, 54, 101, 361, 650, 1250), (53, 100, 360, 649, 1249, 2049), _INDEX),
        "so2_1h": _Scale(0, (0, 36, 76, 186), (35, 75, 185, 304), _INDEX[:4], open_above=False),
        "so2_24h": _Scale(0, (305, 605), (604, 1004), _INDEX[4:]),
        "o3_8h": _Scale(3, (0, 55, 71, 86, 106), (54, 70, 85, 105, 200), _INDEX[:5], open_above=False),
        "o3_1h": _Scale(3, (125, 165, 205, 405), (164, 204, 404, 604), _INDEX[2:]),
    },
)

_CATEGORIES = (
    (50, "Good"),
    (100, "Moderate"),
    (150, "Unhealthy for Sensitive Groups"),
    (200, "Unhealthy"),
    (300, "Very Unhealthy"),
)

EUROPEAN_BANDS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "pm2_5": (5, 15, 50, 90, 140),
        "pm10": (15, 45, 120, 195, 270),
        "no2": (10, 25, 60, 100, 150),
        "o3": (60, 100, 120, 160, 180),
        "so2": (20, 40, 125, 190, 275),
    },
)
"""Upper bounds [ug/m3] of bands 1 to 5; band 6 lies above."""


def truncate(value: Float64Array, digits: int) -> Float64Array:
    """Cut off decimals, after rounding the float noise away: 24 equal hours of 0.7 have the mean 0.7, not 0.6.

    >>> truncate(np.array([0.6999999999999998, 35.92431999]), 1)
    array([ 0.7, 35.9])
    """
    cut: Float64Array = _digits(value, digits) / 10.0**digits
    return cut


def _digits(value: Float64Array, digits: int) -> Float64Array:
    cut: Float64Array = np.floor(np.round(value, 6) * 10**digits + 1e-9)
    return cut


def aqi(pollutant: str, concentration: Float64Array) -> Float64Array:
    """Return the US AQI of concentrations, NaN where a table has none for it; negative ones count as 0.

    `pollutant` is pm2_5_24h or pm10_24h [ug/m3], co_8h [ppm], no2_1h, so2_1h or so2_24h [ppb], o3_8h or o3_1h [ppm].

    >>> aqi("pm2_5_24h", np.array([9.04, 12.0, 35.92431999, 400.0, np.nan]))
    array([ 50.,  56., 102., 649.,  nan])
    >>> aqi("o3_8h", np.array([0.07853333, 0.201]))
    array([126.,  nan])
    """
    scale = _EPA[pollutant]
    known = ~np.isnan(concentration)
    grid = np.maximum(_digits(np.where(known, concentration, 0.0), scale.digits), 0.0).astype(np.int64)
    inside = known & (grid >= scale.low[0])
    if not scale.open_above:
        inside &= grid <= scale.high[-1]
    return np.where(inside, _interpolated(scale, grid), np.nan)


def _interpolated(scale: _Scale, grid: Int64Array) -> Int64Array:
    """Interpolate within segments and round half up, in whole numbers."""
    low, high, index = np.array(scale.low), np.array(scale.high), np.array(scale.index)
    at = np.maximum(np.searchsorted(low, grid, side="right") - 1, 0)
    run, rise = (high - low)[at], (index[:, 1] - index[:, 0])[at]
    rounded: Int64Array = (2 * rise * (grid - low[at]) + run) // (2 * run) + index[at, 0]
    return rounded


def so2_aqi(hour_max_ppb: Float64Array, day_mean_ppb: Float64Array) -> Float64Array:
    """Return the US AQI of sulphur dioxide from a day's largest hour and its mean [ppb].

    From an hour of 305 ppb on, the 24-hour rows apply; where the day's mean stays below them, the index is 200.

    >>> so2_aqi(np.array([75.0, 400.0, 400.0]), np.array([20.0, 400.0, 60.0]))
    array([100., 232., 200.])
    """
    hour, day = aqi("so2_1h", hour_max_ppb), aqi("so2_24h", day_mean_ppb)
    high = truncate(hour_max_ppb, 0) >= _EPA["so2_24h"].low[0]
    result: Float64Array = np.where(high, np.where(np.isnan(day), 200.0, day), hour)
    return result


def category(index: float) -> str:
    """Name the category of a US AQI.

    >>> category(100), category(101), category(649)
    ('Moderate', 'Unhealthy for Sensitive Groups', 'Hazardous')
    """
    return next((name for top, name in _CATEGORIES if index <= top), "Hazardous")


def european_band(pollutant: str, concentration: Float64Array) -> Float64Array:
    """Return the European band, 1 (good) to 6 (extremely poor), of hourly means [ug/m3]; NaN stays NaN.

    >>> european_band("pm2_5", np.array([5.0, 5.1, 140.0, 141.0, np.nan]))
    array([ 1.,  2.,  5.,  6., nan])
    """
    bounds: Sequence[float] = EUROPEAN_BANDS[pollutant]
    band = np.searchsorted(bounds, np.round(concentration, 6), side="left") + 1.0
    return np.where(np.isnan(concentration), np.nan, band)
