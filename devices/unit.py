"""Units: exact linear conversion between units of one dimension."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from devices.errors import QalaError

__all__ = ["UnitError", "conversion", "convert"]


class UnitError(QalaError):
    """A unit is unknown, or measures something else than the one it should become."""

    code = "bad_unit"


class _Scale(NamedTuple):
    """A unit: `base = value * factor + offset`, in the base unit of its dimension."""

    dimension: str
    factor: Fraction
    offset: Fraction = Fraction(0)


def _scales(dimension: str, **factors: str | int) -> dict[str, _Scale]:
    return {unit: _Scale(dimension, Fraction(factor)) for unit, factor in factors.items()}


# Factors: SI Brochure, 9th edition (2019), tables 4 and 8. The calorie is the International Table one (4.1868 J), by
# which the CIS bills district heat; mmHg is 133.322387415 Pa (ISO 80000-4), the mile 1609.344 m, the knot 1852 m/h.
_UNITS: dict[str, _Scale] = {
    "ug/m3": _Scale("mass concentration", Fraction(1)),
    "mg/m3": _Scale("mass concentration", Fraction(1000)),
    "ng/m3": _Scale("mass concentration", Fraction(1, 1000)),
    "g/m3": _Scale("mass concentration", Fraction(1_000_000)),
    "m/s": _Scale("speed", Fraction(1)),
    "km/h": _Scale("speed", Fraction(10, 36)),
    "mph": _Scale("speed", Fraction("0.44704")),
    "m3/h": _Scale("flow rate", Fraction(1)),
    "m3/s": _Scale("flow rate", Fraction(3600)),
    "L/h": _Scale("flow rate", Fraction(1, 1000)),
    "L/min": _Scale("flow rate", Fraction(60, 1000)),
    "L/s": _Scale("flow rate", Fraction(3600, 1000)),
    "veh/h": _Scale("vehicle flow", Fraction(1)),
    "veh/min": _Scale("vehicle flow", Fraction(60)),
    "degC": _Scale("temperature", Fraction(1)),
    "degF": _Scale("temperature", Fraction(5, 9), Fraction(-160, 9)),
    "1": _Scale("ratio", Fraction(1)),
    "%": _Scale("ratio", Fraction(1, 100)),
    "K": _Scale("temperature", Fraction(1), Fraction("-273.15")),
    "kn": _Scale("speed", Fraction(1852, 3600)),
    **_scales("pressure", Pa=1, hPa=100, mbar=100, kPa=1000, bar=100_000, mmHg="133.322387415"),
    **_scales("energy", J=1, kJ=1000, MJ=10**6, GJ=10**9, Wh=3600, kWh=3_600_000, MWh=3_600_000_000),
    **_scales("energy", kcal="4186.8", Mcal="4186800", Gcal="4186800000"),
    **_scales("power", W=1, kW=1000, MW=10**6, mW="0.001"),
    **_scales("voltage", V=1, mV="0.001", kV=1000),
    **_scales("current", A=1, mA="0.001"),
    **_scales("frequency", Hz=1, kHz=1000),
    **_scales("volume", m3=1, L="0.001"),
    **_scales("time", s=1, ms="0.001", min=60, h=3600),
    **_scales("length", m=1, km=1000, cm="0.01", mm="0.001"),
    **_scales("angle", deg=1, rad="57.29577951308232087679815"),
    **_scales("mole fraction", ppm=1, ppb="0.001"),
    **_scales("sound level", dB=1),
    **_scales("vehicles", veh=1),
}

# Spellings that fleets use for the same unit; the micro sign and the Greek mu are two different characters.
_SPELLINGS = {
    "C": "degC",
    "Cel": "degC",
    "°C": "degC",
    "F": "degF",
    "[degF]": "degF",
    "°F": "degF",
    "°": "deg",
    "": "1",
    "kmh": "km/h",
    "kph": "km/h",
    "knot": "kn",
    "mi/h": "mph",
    "l": "L",
    "l/h": "L/h",
    "l/min": "L/min",
    "l/s": "L/s",
    "dB(A)": "dB",
    "dBA": "dB",
    "%RH": "%",
}


def _scale(unit: str) -> _Scale:
    plain = unit.strip().replace("³", "3").replace("µ", "u").replace("\u03bc", "u")
    known = _UNITS.get(_SPELLINGS.get(plain, plain))
    if known is None:
        raise UnitError(f"the unit {unit!r} is not known", hint="declare one of " + ", ".join(sorted(_UNITS)))
    return known


@lru_cache(maxsize=1024)
def conversion(from_unit: str, to_unit: str) -> tuple[float, float]:
    """Return (factor, offset), so that `value * factor + offset` is in `to_unit`.

    Raises UnitError where a unit is not known, or where the two measure different things.

    >>> conversion("Gcal", "kWh")
    (1163.0, 0.0)
    >>> conversion("mV", "V")
    (0.001, 0.0)
    """
    source, target = _scale(from_unit), _scale(to_unit)
    if source.dimension != target.dimension:
        raise UnitError(
            f"{from_unit!r} ({source.dimension}) cannot be converted to {to_unit!r} ({target.dimension})",
            hint=_hint(source, target),
        )
    return float(source.factor / target.factor), float((source.offset - target.offset) / target.factor)


def _hint(source: _Scale, target: _Scale) -> str:
    if {source.dimension, target.dimension} == {"mole fraction", "mass concentration"}:
        return "it depends on the gas, the temperature and the pressure: let the device report a mass concentration"
    return f"correct the declared unit, or report it under a quantity that is a {source.dimension}"


def convert(value: float, from_unit: str, to_unit: str) -> float:
    """Convert a value between units of one dimension.

    Raises UnitError as `conversion` does.

    >>> convert(41.0, "degF", "degC")
    5.0
    >>> convert(0.035, "mg/m3", "ug/m3")
    35.0
    """
    factor, offset = conversion(from_unit, to_unit)
    return round(value * factor + offset, 12) if offset else value * factor
