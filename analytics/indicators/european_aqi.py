"""The European air-quality index of an hour: the worst band of five pollutants."""

from __future__ import annotations

import numpy as np

from analytics.air import hourly, leaders, sum_counts
from analytics.breakpoints import EUROPEAN_BANDS, european_band
from analytics.cells import results
from analytics.indicator import Indicator, Inputs, Results

__all__ = ["INDICATOR", "compute"]

_NAMES = ("Good", "Fair", "Moderate", "Poor", "Very poor", "Extremely poor")


def compute(inputs: Inputs) -> Results:
    """Band the hourly means of the district by the EEA table of 2024 and take the worst band, 1 to 6.

    The pollutants that had an hour are named; coverage speaks of them.

    >>> from analytics.sample import sample
    >>> found = compute(sample("district", window="1h", pm2_5=[[12.0]], no2=[[70.0]]))
    >>> found.value, found.detail[0]["main"], found.detail[0]["pollutants_used"]
    (array([4.]), ['no2'], ['pm2_5', 'no2'])
    """
    hours = {name: hourly(inputs, name, 0, 1) for name in EUROPEAN_BANDS}
    bands = {name: european_band(name, of.value[..., 0]) for name, of in hours.items()}
    value = np.fmax.reduce(list(bands.values()))

    def detail(zone: int, window: int) -> dict[str, object]:
        if np.isnan(value[zone, window]):
            return {}
        found = leaders({name: band[zone, window] for name, band in bands.items()})
        return {**found, "category": _NAMES[int(value[zone, window]) - 1]}

    own = hours["pm2_5"].inside
    used = [~np.isnan(band) for band in bands.values()]
    counts = sum_counts([of.counts for of in hours.values()], used, own, own)
    return results(value, counts, complete=~np.isnan(value), detail=detail)


INDICATOR = Indicator(
    name="european_aqi",
    title="European air-quality index",
    domain="air",
    unit="1",
    method="eaqi",
    method_version="2024",
    zone_kind="district",
    quantities=tuple(EUROPEAN_BANDS),
    windows=("1h",),
    compute=compute,
)
