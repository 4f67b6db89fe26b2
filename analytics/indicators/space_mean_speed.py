"""Space-mean speed of a road: the speed that its travel times speak of."""

from __future__ import annotations

from analytics.cells import covered, results
from analytics.indicator import Indicator, Inputs, Results
from analytics.traffic import COUNTS, road_speed

__all__ = ["INDICATOR", "compute"]


def compute(inputs: Inputs) -> Results:
    """Average speeds harmonically by their flows, sum(q) / sum(q / v) [km/h]; the detail says where weights were equal.

    >>> from analytics.sample import sample
    >>> compute(sample("road", window="15min", speed=[[20.0, 60.0, 60.0]], vehicle_count=[[30.0, 10.0, 20.0]])).value
    array([30.])
    """
    speed = road_speed(inputs)
    return results(
        speed.value,
        speed.counts,
        complete=covered(speed.counts, INDICATOR.min_coverage),
        detail=lambda zone, window: {"weights": "flow" if speed.weighted[zone, window] else "equal"},
    )


INDICATOR = Indicator(
    name="space_mean_speed",
    title="Speed",
    domain="traffic",
    unit="km/h",
    method="space-mean-speed",
    method_version="1",
    zone_kind="road",
    quantities=("speed", *COUNTS),
    windows=("5min", "15min", "1h"),
    compute=compute,
)
