"""Traffic flow of a road: vehicles an hour past its detectors."""

from __future__ import annotations

from analytics.cells import covered, results
from analytics.indicator import Indicator, Inputs, Results
from analytics.traffic import COUNTS, road_flow

__all__ = ["INDICATOR", "compute"]


def compute(inputs: Inputs) -> Results:
    """Divide the vehicles of each lane by the time counted, add the lanes of a detector, average the detectors [veh/h].

    >>> from analytics.sample import sample
    >>> compute(sample("road", window="5min", vehicle_count=[[10.0, 12.0, None, 8.0, 10.0]])).value
    array([600.])
    """
    flow = road_flow(inputs)
    return results(
        flow.value,
        flow.counts,
        complete=covered(flow.counts, INDICATOR.min_coverage),
        detail=lambda zone, window: {"detectors": int(flow.devices[zone, window])},
    )


INDICATOR = Indicator(
    name="traffic_flow",
    title="Traffic flow",
    domain="traffic",
    unit="veh/h",
    method="detector-mean-flow",
    method_version="1",
    zone_kind="road",
    quantities=COUNTS,
    windows=("5min", "15min", "1h"),
    compute=compute,
)
