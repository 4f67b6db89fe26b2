"""Congestion level of a road: how much longer a trip takes than at free flow."""

from __future__ import annotations

from analytics.cells import covered, results
from analytics.indicator import Indicator, Inputs, Results
from analytics.traffic import COUNTS, congestion_level, free_flow, road_index

__all__ = ["INDICATOR", "compute"]


def compute(inputs: Inputs) -> Results:
    """Return 100 (TTI - 1) [%], negative where traffic is faster than the declared free flow.

    >>> from analytics.sample import sample
    >>> compute(sample("road", window="5min", zone={"free_flow_kmh": 60.0}, speed=[[48.0]])).value
    array([25.])
    """
    speed, index = road_index(inputs)
    return results(
        congestion_level(index),
        speed.counts,
        complete=covered(speed.counts, INDICATOR.min_coverage),
        detail=lambda zone, window: free_flow(inputs, speed, zone, window),
    )


INDICATOR = Indicator(
    name="congestion_level",
    title="Congestion",
    domain="traffic",
    unit="%",
    method="congestion-level",
    method_version="1",
    zone_kind="road",
    quantities=("speed", *COUNTS),
    windows=("5min", "15min", "1h"),
    compute=compute,
)
