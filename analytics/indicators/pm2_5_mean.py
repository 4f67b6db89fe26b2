"""PM2.5 of a district: the mean over its stations' means."""

from __future__ import annotations

import numpy as np

from analytics.cells import results, zone_means
from analytics.indicator import Indicator, Inputs, Results

__all__ = ["INDICATOR", "compute"]


def compute(inputs: Inputs) -> Results:
    """Average each station's readings of a window, then the stations of the district [ug/m3].

    A station counts with at least 75 % of the readings it owes (Directive 2008/50/EC, Annex VII), a district with half of all.

    >>> from analytics.sample import sample
    >>> compute(sample("district", pm2_5=[[10.0, 20.0], [30.0, 40.0]])).value
    array([25.])
    """
    means = zone_means(inputs, "pm2_5", inputs.start_us, inputs.stop_us, least=INDICATOR.min_coverage)
    return results(means.value, means.counts, complete=~np.isnan(means.value), detail=lambda _zone, _window: {})


INDICATOR = Indicator(
    name="pm2_5_mean",
    title="PM2.5",
    domain="air",
    unit="ug/m3",
    method="station-mean",
    method_version="1",
    zone_kind="district",
    quantities=("pm2_5",),
    windows=("15min", "1h"),
    compute=compute,
)
