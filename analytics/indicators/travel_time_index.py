"""Travel-time index of a road: its travel time over that of free flow."""

from __future__ import annotations

from analytics.cells import covered, results
from analytics.indicator import Indicator, Inputs, Results
from analytics.traffic import COUNTS, free_flow, road_index

__all__ = ["INDICATOR", "compute"]


def compute(inputs: Inputs) -> Results:
    """Divide the mean travel time by the free-flow one: declared free-flow speed over space-mean speed; not clamped.

    A road without a declared free-flow speed has no index ("undefined").

    >>> from analytics.sample import sample
    >>> compute(sample("road", window="5min", zone={"free_flow_kmh": 60.0}, speed=[[48.0]])).value
    array([1.25])
    """
    speed, index = road_index(inputs)
    return results(
        index,
        speed.counts,
        complete=covered(speed.counts, INDICATOR.min_coverage),
        detail=lambda zone, window: free_flow(inputs, speed, zone, window),
    )


INDICATOR = Indicator(
    name="travel_time_index",
    title="Travel-time index",
    domain="traffic",
    unit="1",
    method="travel-time-index",
    method_version="1",
    zone_kind="road",
    quantities=("speed", *COUNTS),
    windows=("5min", "15min", "1h"),
    compute=compute,
)
