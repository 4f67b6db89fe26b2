"""Gases: from mass concentrations to mixing ratios, by the ideal gas law. Pure.

`ug/m3 = ppb * M * p / (R T)`; molar masses [g/mol] from the IUPAC standard atomic weights. The US EPA states its limits at
25 degC and 1013.25 hPa, the EU and the WHO at 20 degC: the reference belongs to the unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["EPA_PRESSURE_HPA", "EPA_TEMPERATURE_C", "ug_m3_per_ppb"]

EPA_TEMPERATURE_C = 25.0
EPA_PRESSURE_HPA = 1013.25
_GAS_CONSTANT = 8.314462618  # J/(mol K), CODATA 2018

_MOLAR_MASS: Mapping[str, float] = MappingProxyType(
    {"no2": 46.0055, "no": 30.0061, "o3": 47.9982, "so2": 64.064, "co": 28.010, "nh3": 17.0305, "h2s": 34.081},
)


def ug_m3_per_ppb(gas: str, t_c: float = EPA_TEMPERATURE_C, p_hpa: float = EPA_PRESSURE_HPA) -> float:
    """Return how many ug/m3 one ppb of a gas is (the same number in mg/m3 for one ppm).

    >>> round(ug_m3_per_ppb("no2"), 2), round(ug_m3_per_ppb("no2", 20.0), 2)
    (1.88, 1.91)
    """
    return _MOLAR_MASS[gas] * p_hpa * 100.0 / (_GAS_CONSTANT * (273.15 + t_c)) * 1e-3
