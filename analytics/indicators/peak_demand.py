"""Peak demand of a feeder: the largest block of a local day."""

from __future__ import annotations

from analytics.cells import results
from analytics.energy import METERED, day_peak, meters, zone_energy
from analytics.indicator import Indicator, Inputs, Results

__all__ = ["INDICATOR", "compute"]


def compute(inputs: Inputs) -> Results:
    """Return the largest mean power of a 15-minute block [kW], of 30 or 60 minutes where meters are read less often.

    >>> from analytics.sample import sample
    >>> found = compute(sample("feeder", window="1d", energy=[[10.0, 12.0, 15.0, 11.0] * 24]))
    >>> found.value, found.detail[0]["block_s"]
    (array([60.]), 900)
    """
    energy = zone_energy(inputs, inputs.start_us, inputs.stop_us)
    peak = day_peak(inputs, INDICATOR.min_coverage)

    def detail(zone: int, window: int) -> dict[str, object]:
        found: dict[str, object] = dict(meters(energy, zone, window))
        if peak.complete[zone, window]:
            found["block_s"] = int(peak.block_us[zone, window]) // 1_000_000
            found["block_start_us"] = int(peak.start_us[zone, window])
        return found

    return results(peak.kw, energy.counts, complete=peak.complete, detail=detail)


INDICATOR = Indicator(
    name="peak_demand",
    title="Peak demand",
    domain="energy",
    unit="kW",
    method="block-demand",
    method_version="1",
    zone_kind="feeder",
    quantities=METERED,
    windows=("1d",),
    compute=compute,
    min_coverage=0.9,
    bracket=True,
)
