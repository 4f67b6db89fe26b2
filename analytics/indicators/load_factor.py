"""Load factor of a feeder: how evenly a local day used what its peak asked for."""

from __future__ import annotations

from analytics.cells import covered, results
from analytics.energy import METERED, day_peak, load_factor, zone_energy
from analytics.indicator import Indicator, Inputs, Results

__all__ = ["INDICATOR", "compute"]

_HOUR_US = 3_600_000_000.0


def compute(inputs: Inputs) -> Results:
    """Divide the day's energy by its peak demand over all its hours (23 to 25); "undefined" without any demand.

    >>> from analytics.sample import sample
    >>> compute(sample("feeder", window="1d", energy=[[10.0, 12.0, 15.0, 11.0] * 24])).value
    array([0.8])
    """
    energy = zone_energy(inputs, inputs.start_us, inputs.stop_us)
    peak = day_peak(inputs, INDICATOR.min_coverage)
    hours = (inputs.stop_us - inputs.start_us) / _HOUR_US
    return results(
        load_factor(energy.kwh, peak.kw, hours),
        energy.counts,
        complete=peak.complete & covered(energy.counts, INDICATOR.min_coverage),
        detail=lambda zone, window: (
            {"kwh": float(energy.kwh[zone, window]), "peak_kw": float(peak.kw[zone, window])}
            if peak.complete[zone, window]
            else {}
        ),
    )


INDICATOR = Indicator(
    name="load_factor",
    title="Load factor",
    domain="energy",
    unit="1",
    method="energy-over-peak",
    method_version="1",
    zone_kind="feeder",
    quantities=METERED,
    windows=("1d",),
    compute=compute,
    min_coverage=0.9,
    bracket=True,
)
