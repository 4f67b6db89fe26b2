"""The US AQI of the hour that has just ended: PM2.5 and PM10 by their NowCast, the worse of both."""

from __future__ import annotations

import numpy as np

from analytics.air import hourly, leaders, sum_counts
from analytics.breakpoints import aqi, category, truncate
from analytics.cells import results
from analytics.indicator import Indicator, Inputs, Results
from analytics.nowcast import HOURS, pm_nowcast
from devices.reading import Float64Array

__all__ = ["INDICATOR", "compute"]

_DIGITS = {"pm2_5": 1, "pm10": 0}


def compute(inputs: Inputs) -> Results:
    """Take the NowCast of the last twelve district hours, and its index by the 2024 table; the worse pollutant counts.

    Coverage is that of the twelve hours, but what the method asks for is two of the last three.

    >>> from analytics.sample import sample
    >>> hours = [[34.9, 43.0, 50.0, 64.9, 69.2, 66.2, 53.7, 48.6, 49.2, 35.0, None, 21.0]]
    >>> found = compute(sample("district", window="1h", windows=12, pm2_5=hours))
    >>> found.value[-1], found.detail[-1]["nowcast"]
    (np.float64(87.0), {'pm2_5': 28.4})
    """
    hours = {name: hourly(inputs, name, 1 - HOURS, 1) for name in _DIGITS}
    casts = {name: truncate(pm_nowcast(of.value), _DIGITS[name]) for name, of in hours.items()}
    index = {name: aqi(f"{name}_24h", cast) for name, cast in casts.items()}
    value = np.fmax(index["pm2_5"], index["pm10"])
    own = hours["pm2_5"].inside
    used = [~np.isnan(of) for of in index.values()]
    return results(
        value,
        sum_counts([of.counts for of in hours.values()], used, own, np.ones_like(own)),
        complete=~np.isnan(value),
        detail=lambda zone, window: _detail(index, casts, value, zone, window),
    )


def _detail(
    index: dict[str, Float64Array], casts: dict[str, Float64Array], value: Float64Array, zone: int, window: int
) -> dict[str, object]:
    if np.isnan(value[zone, window]):
        return {}
    found = leaders({name: of[zone, window] for name, of in index.items()})
    nowcast = {name: float(casts[name][zone, window]) for name in found["pollutants_used"]}
    return {**found, "nowcast": nowcast, "category": category(value[zone, window])}


INDICATOR = Indicator(
    name="nowcast_aqi",
    title="Air quality now (US AQI)",
    domain="air",
    unit="AQI",
    method="epa-nowcast-aqi",
    method_version="2024-05-06",
    zone_kind="district",
    quantities=("pm2_5", "pm10"),
    windows=("1h",),
    compute=compute,
    back_s=(HOURS - 1) * 3600,
)
