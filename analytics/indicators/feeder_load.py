"""Load of a feeder: its mean power as a share of what it is rated for."""

from __future__ import annotations

import numpy as np

from analytics.cells import covered, results
from analytics.energy import METERED, meters, zone_energy
from analytics.indicator import Indicator, Inputs, Results

__all__ = ["INDICATOR", "compute"]

_HOUR_US = 3_600_000_000.0


def compute(inputs: Inputs) -> Results:
    """Divide the mean power of the feeder's meters by its rated power [%]; "undefined" where none is declared.

    >>> from analytics.sample import sample
    >>> found = compute(sample("feeder", window="15min", zone={"rated_kw": 100.0}, energy_import=[[0.0, 10.0], [5.0, 15.0]]))
    >>> found.value
    array([80.])
    """
    energy = zone_energy(inputs, inputs.start_us, inputs.stop_us)
    kw = energy.kwh * (_HOUR_US / (inputs.stop_us - inputs.start_us))
    rated = np.array([[zone.rated_kw or np.nan] for zone in inputs.zones])

    def detail(zone: int, window: int) -> dict[str, object]:
        return {
            **meters(energy, zone, window),
            "kw": float(kw[zone, window]),
            "rated_kw": inputs.zones[zone].rated_kw,
        }

    return results(
        100.0 * kw / rated,
        energy.counts,
        complete=covered(energy.counts, INDICATOR.min_coverage),
        detail=detail,
    )


INDICATOR = Indicator(
    name="feeder_load",
    title="Feeder load",
    domain="energy",
    unit="%",
    method="mean-power-over-rated",
    method_version="1",
    zone_kind="feeder",
    quantities=METERED,
    windows=("15min",),
    compute=compute,
    min_coverage=0.9,
    bracket=True,
)
