"""The US AQI of a local day: the worst of six pollutants, each over its own averaging time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from analytics.air import HOUR_US, Hours, hourly, leaders, running_mean, sum_counts
from analytics.breakpoints import aqi, category, so2_aqi
from analytics.cells import results
from analytics.gases import ug_m3_per_ppb
from analytics.indicator import Indicator, Inputs, Results
from devices.reading import BoolArray, Float64Array

__all__ = ["INDICATOR", "compute"]

_HOURS = 25  # of the longest day
_EIGHT, _SIX = 8, 6  # an 8-hour mean needs 6 of its hours
_AHEAD = _EIGHT - 1  # the last 8 hours of a day end in the next one
_SHARE = 0.75


def compute(inputs: Inputs) -> Results:
    """Take the index of each pollutant by the 2024 table, and the worst of them.

    PM2.5, PM10: mean of the day's hours, 75 % of them (18 of 24). NO2: largest hour; SO2: largest hour, or the rule from
    305 ppb on. CO: largest 8-hour mean that starts in the day (18 of 24); O3: of those that start from 07:00 to 23:00
    (13 of 17), or its largest hour where that is worse. Gases are converted at 25 degC and 1013.25 hPa. Above 500 the last
    segment goes on.

    >>> from analytics.sample import sample
    >>> found = compute(sample("district", window="1d", pm2_5=[[35.92431999] * 24], no2=[[19.0] * 24]))
    >>> found.value, found.detail[0]["main"], found.detail[0]["parts"]
    (array([102.]), ['pm2_5'], {'pm2_5': 102, 'no2': 9})
    """
    hours = {name: hourly(inputs, name, 0, _HOURS + _AHEAD) for name in _INDEX}
    day = (inputs.stop_us - inputs.start_us) / HOUR_US
    index = {name: _INDEX[name](of, day) for name, of in hours.items()}
    value = np.fmax.reduce(list(index.values()))

    def detail(zone: int, window: int) -> dict[str, object]:
        number = value[zone, window]
        if np.isnan(number):
            return {}
        found = leaders({name: of[zone, window] for name, of in index.items()})
        return {**found, "category": category(number), "capped": int(min(number, 500))}

    inside = hours["pm2_5"].inside
    used = [~np.isnan(of) for of in index.values()]
    reached = np.arange(inside.shape[-1]) < inside.sum(axis=-1, keepdims=True) + _AHEAD
    counts = sum_counts([of.counts for of in hours.values()], used, inside, inside, reached)
    return results(value, counts, complete=~np.isnan(value), detail=detail)


def _particles(name: str) -> Callable[[Hours, Float64Array], Float64Array]:
    return lambda of, day: aqi(name, _day_mean(of, day))


def _no2(of: Hours, day: Float64Array) -> Float64Array:
    return aqi("no2_1h", _day_max(of, day) / ug_m3_per_ppb("no2"))


def _so2(of: Hours, day: Float64Array) -> Float64Array:
    factor = ug_m3_per_ppb("so2")
    return so2_aqi(_day_max(of, day) / factor, _day_mean(of, day) / factor)


def _co(of: Hours, day: Float64Array) -> Float64Array:
    eight = running_mean(of.value, _EIGHT, _SIX)
    starts = of.inside[:, : eight.shape[-1]]
    return aqi("co_8h", _largest(eight, starts, _SHARE * day) / ug_m3_per_ppb("co"))


def _o3(of: Hours, day: Float64Array) -> Float64Array:
    ppm = 1000.0 * ug_m3_per_ppb("o3")
    eight = running_mean(of.value, _EIGHT, _SIX)
    starts = of.inside[:, : eight.shape[-1]] & (np.arange(eight.shape[-1]) >= 7)
    by_eight = aqi("o3_8h", _largest(eight, starts, np.full(len(day), 13.0)) / ppm)
    return np.fmax(by_eight, aqi("o3_1h", _day_max(of, day) / ppm))


def _day_mean(of: Hours, day: Float64Array) -> Float64Array:
    """Average the hours of the day, one after the other; NaN with fewer than 75 %."""
    hours = np.where(of.inside, of.value, np.nan)
    total, valid = np.zeros(hours.shape[:-1]), np.zeros(hours.shape[:-1])
    for k in range(hours.shape[-1]):
        there = ~np.isnan(hours[..., k])
        total, valid = total + np.where(there, hours[..., k], 0.0), valid + there
    result: Float64Array = np.divide(total, valid, out=np.full(total.shape, np.nan), where=valid >= _SHARE * day)
    return result


def _day_max(of: Hours, day: Float64Array) -> Float64Array:
    return _largest(of.value, of.inside, _SHARE * day)


def _largest(value: Float64Array, counted: BoolArray, least: Float64Array) -> Float64Array:
    """Return the largest of the hours counted; NaN with fewer than `least` of them."""
    there = counted & ~np.isnan(value)
    largest = np.where(there, value, -np.inf).max(axis=-1)
    return np.where((there.sum(axis=-1) >= least) & np.isfinite(largest), largest, np.nan)


_INDEX: dict[str, Callable[[Hours, Float64Array], Float64Array]] = {
    "pm2_5": _particles("pm2_5_24h"),
    "pm10": _particles("pm10_24h"),
    "no2": _no2,
    "so2": _so2,
    "o3": _o3,
    "co": _co,
}

INDICATOR = Indicator(
    name="aqi",
    title="Air quality of the day (US AQI)",
    domain="air",
    unit="AQI",
    method="epa-aqi",
    method_version="2024-05-06",
    zone_kind="district",
    quantities=tuple(_INDEX),
    windows=("1d",),
    compute=compute,
    ahead_s=_AHEAD * 3600,
    grace_s=(_AHEAD + 2) * 3600,
)
