"""Energy of a feeder over a window: its meters added up."""

from __future__ import annotations

from analytics.cells import covered, results
from analytics.energy import METERED, meters, zone_energy
from analytics.indicator import Indicator, Inputs, Results

__all__ = ["INDICATOR", "compute"]


def compute(inputs: Inputs) -> Results:
    """Take differences of registers at the window's edges, or add interval readings up, over the feeder's meters [kWh].

    >>> from analytics.sample import sample
    >>> compute(sample("feeder", window="1h", energy_import=[[100.0, 102.0, 105.0]], energy=[[1.0, 2.0]])).value
    array([5.])
    """
    energy = zone_energy(inputs, inputs.start_us, inputs.stop_us)
    return results(
        energy.kwh,
        energy.counts,
        complete=covered(energy.counts, INDICATOR.min_coverage),
        detail=lambda zone, window: meters(energy, zone, window),
    )


INDICATOR = Indicator(
    name="interval_energy",
    title="Energy",
    domain="energy",
    unit="kWh",
    method="register-difference",
    method_version="1",
    zone_kind="feeder",
    quantities=METERED,
    windows=("15min", "1h", "1d"),
    compute=compute,
    min_coverage=0.9,
    bracket=True,
)
