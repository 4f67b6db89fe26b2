"""Quantities: what can be observed, in which unit, within which bounds, and how it may be aggregated."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from math import inf
from types import MappingProxyType

import msgspec

from devices.unit import UnitError, conversion, convert

__all__ = [
    "QUANTITIES",
    "Aggregation",
    "Bounds",
    "Quantity",
    "UnitError",
    "bounds_of",
    "conversion",
    "convert",
    "parse_key",
]

HOUR_S = 3600


class Aggregation(StrEnum):
    """How readings of a quantity combine over time and place."""

    MEAN = "mean"
    SUM = "sum"  # over the span: counts, interval energy
    COUNTER = "counter"  # running total: only differences mean anything, never averaged
    CIRCULAR = "circular"  # degrees: vector mean
    ENERGETIC = "energetic"  # decibels: mean of powers
    FLOW_WEIGHTED = "flow_weighted"  # speeds: weighted by the flow they belong to
    STATE = "state"  # declared codes: last value


class Bounds(msgspec.Struct, frozen=True):
    """Inclusive limits of a gross-range check, in the quantity's unit: outside `fail` is flag 4, outside `suspect` 3.

    The bounds of a sum are for a span of one hour: `bounds_of` scales them.
    """

    fail: tuple[float, float]
    suspect: tuple[float, float]


class Quantity(msgspec.Struct, frozen=True):
    """One observable property.

    `resolution` is the smallest step a sensor reports; a series whose spread stays below it for `stuck_after_s` is stuck,
    unless it rests at one of `rests_at` (no power drawn, no vehicle, saturated air), where standing still is normal.
    `step_max_per_h` is the largest change that one hour brings; `spike_max` how far a lone reading may stand out from
    both its neighbours. None leaves a check out.
    """

    name: str
    unit: str
    aggregation: Aggregation = Aggregation.MEAN
    bounds: Bounds | None = None
    resolution: float = 0.0
    step_max_per_h: float | None = None
    stuck_after_s: int | None = None
    codes: Mapping[str, int] = {}
    title: str = ""
    spike_max: float | None = None
    rests_at: tuple[float, ...] = ()


def parse_key(key: str) -> tuple[str, str]:
    """Split a native key into quantity and channel.

    >>> parse_key("vehicle_count.lane1.car")
    ('vehicle_count', 'lane1.car')
    """
    quantity, _, channel = key.partition(".")
    return quantity, channel


def bounds_of(quantity: Quantity, *, span_s: int = 0, rated_kw: float | None = None) -> Bounds | None:
    """Return the gross-range bounds of a series: those of a sum scaled to its span [s], those of power by the rated power.

    >>> bounds_of(QUANTITIES["vehicle_count"], span_s=60).fail
    (0.0, 300.0)
    >>> bounds_of(QUANTITIES["active_power"], rated_kw=10.0).suspect
    (-10000.0, 10000.0)
    """
    if quantity.name == "active_power" and rated_kw is not None:
        rated_w = 1000.0 * rated_kw
        return _bounds(-1.2 * rated_w, 1.2 * rated_w, -rated_w, rated_w)
    if quantity.bounds is None or quantity.aggregation is not Aggregation.SUM or not span_s:
        return quantity.bounds
    hours = span_s / HOUR_S
    (fail_low, fail_high), (low, high) = quantity.bounds.fail, quantity.bounds.suspect
    return _bounds(fail_low * hours, fail_high * hours, low * hours, high * hours)


def _bounds(fail_low: float, fail_high: float, low: float, high: float) -> Bounds:
    return Bounds(fail=(fail_low, fail_high), suspect=(low, high))


# Where the numbers come from. Ranges, steps and stuck times are starting values of our own after the common practice of
# QARTOD manuals and of Kazakhstan's climate (Almaty region: -42 to 45 degC), to be tuned per device model. Gas limits were
# set in ppb and ppm and converted at 20 degC and 1013.25 hPa (Directive 2008/50/EC, Annex VI): NO2 1.91, O3 2.00, SO2 2.66
# ug/m3 a ppb, CO 1.16 mg/m3 a ppm. Traffic: Chen et al. 2003, TRR 1855 (3000 veh/h a lane is impossible; here six lanes),
# speeds over 200 km/h likewise. Voltage: EN 50160, 230 V -15 %, +10 % and the meters' own tolerance. Suspect ranges, steps
# and spikes stand above what real air and traffic do, since a suspect reading is left out of every indicator: a winter of
# hourly PM2.5 in Beijing went over 500 ug/m3 in 56 of 12,675 readings, and none of its steps is flagged here.

_GAS_STUCK_S = 6 * HOUR_S
_UNBOUNDED = _bounds(0.0, inf, 0.0, inf)

_AIR = (
    Quantity(
        "pm1", "ug/m3", title="PM1", bounds=_bounds(0, 1000, 0, 800), resolution=0.1,
        step_max_per_h=400, spike_max=150, stuck_after_s=_GAS_STUCK_S,
    ),
    Quantity(
        "pm2_5", "ug/m3", title="PM2.5", bounds=_bounds(0, 1000, 0, 800), resolution=0.1,
        step_max_per_h=400, spike_max=150, stuck_after_s=_GAS_STUCK_S,
    ),
    Quantity(
        "pm10", "ug/m3", title="PM10", bounds=_bounds(0, 2000, 0, 1500), resolution=0.1,
        step_max_per_h=1000, spike_max=400, stuck_after_s=_GAS_STUCK_S,
    ),
    Quantity(
        "no2", "ug/m3", title="Nitrogen dioxide", bounds=_bounds(-10, 1910, 0, 575), resolution=0.2,
        step_max_per_h=575, spike_max=190, stuck_after_s=_GAS_STUCK_S,
    ),
    Quantity(
        "so2", "ug/m3", title="Sulphur dioxide", bounds=_bounds(-13, 2660, 0, 1330), resolution=0.2,
        step_max_per_h=800, spike_max=270, stuck_after_s=_GAS_STUCK_S,
    ),
    Quantity(
        "o3", "ug/m3", title="Ozone", bounds=_bounds(-10, 1000, 0, 400), resolution=0.2,
        step_max_per_h=300, spike_max=120, stuck_after_s=_GAS_STUCK_S,
    ),
    Quantity(
        "co", "mg/m3", title="Carbon monoxide", bounds=_bounds(-0.6, 116, 0, 35), resolution=0.01,
        step_max_per_h=35, spike_max=12, stuck_after_s=12 * HOUR_S,
    ),
    Quantity(
        "co2", "ppm", title="Carbon dioxide", bounds=_bounds(0, 10_000, 350, 5000), resolution=1,
        step_max_per_h=4000, spike_max=1500, stuck_after_s=_GAS_STUCK_S,
    ),
)  # fmt: skip

_WEATHER = (
    Quantity(
        "temperature", "degC", title="Temperature", bounds=_bounds(-50, 55, -42, 45), resolution=0.05,
        step_max_per_h=15, spike_max=5, stuck_after_s=6 * HOUR_S,
    ),
    Quantity(
        "relative_humidity", "%", title="Relative humidity", bounds=_bounds(0, 100, 5, 100), resolution=0.5,
        step_max_per_h=70, spike_max=30, stuck_after_s=24 * HOUR_S, rests_at=(100.0,),
    ),
    Quantity(  # 600 to 3000 m above the sea, and the valley of the Ili: 530 to 1085 hPa is every pressure ever measured
        "pressure", "hPa", title="Air pressure", bounds=_bounds(530, 1090, 600, 1060), resolution=0.05,
        step_max_per_h=15, spike_max=5, stuck_after_s=24 * HOUR_S,
    ),
    Quantity(
        "wind_speed", "m/s", title="Wind speed", bounds=_bounds(0, 75, 0, 50), resolution=0.05,
        step_max_per_h=40, spike_max=25, stuck_after_s=6 * HOUR_S, rests_at=(0.0,),
    ),
    Quantity(
        "wind_direction", "deg", Aggregation.CIRCULAR, title="Wind direction", bounds=_bounds(0, 360, 0, 360),
        resolution=0.5, stuck_after_s=12 * HOUR_S, rests_at=(0.0,),
    ),
    Quantity(
        "noise", "dB", Aggregation.ENERGETIC, title="Noise level", bounds=_bounds(0, 150, 20, 130), resolution=0.05,
        stuck_after_s=2 * HOUR_S,
    ),
)  # fmt: skip

_TRAFFIC = (
    Quantity(
        "vehicle_count", "veh", Aggregation.SUM, title="Vehicles", bounds=_bounds(0, 18_000, 0, 14_400), resolution=1,
        stuck_after_s=HOUR_S, rests_at=(0.0,),
    ),
    Quantity(
        "vehicle_flow", "veh/h", title="Traffic flow", bounds=_bounds(0, 18_000, 0, 14_400), resolution=1,
        stuck_after_s=2 * HOUR_S, rests_at=(0.0,),
    ),
    Quantity(
        "speed", "km/h", Aggregation.FLOW_WEIGHTED, title="Speed", bounds=_bounds(0, 200, 3, 140), resolution=0.1,
        stuck_after_s=2 * HOUR_S,
    ),
    Quantity(
        "occupancy", "%", title="Occupancy", bounds=_bounds(0, 100, 0, 80), resolution=0.05,
        stuck_after_s=2 * HOUR_S, rests_at=(0.0,),
    ),
    Quantity("travel_time", "s", title="Travel time", bounds=_bounds(0, 86_400, 1, 14_400), resolution=0.1),
)  # fmt: skip

_ENERGY = (
    Quantity(  # the largest feeder of a city; bounds_of narrows this to a device's rated power
        "active_power", "W", title="Active power", bounds=_bounds(-1e8, 1e8, -1e8, 1e8), resolution=0.5,
        stuck_after_s=6 * HOUR_S, rests_at=(0.0,),
    ),
    Quantity("energy_import", "kWh", Aggregation.COUNTER, title="Energy imported", bounds=_UNBOUNDED),
    Quantity("energy_export", "kWh", Aggregation.COUNTER, title="Energy exported", bounds=_UNBOUNDED),
    Quantity("energy", "kWh", Aggregation.SUM, title="Energy", bounds=_bounds(0, 100_000, 0, 100_000)),
    Quantity(
        "voltage", "V", title="Voltage", bounds=_bounds(0, 300, 195.5, 264), resolution=0.01,
        spike_max=40, stuck_after_s=HOUR_S, rests_at=(0.0,),
    ),
    Quantity(
        "current", "A", title="Current", bounds=_bounds(0, 20_000, 0, 20_000), resolution=0.001,
        stuck_after_s=6 * HOUR_S, rests_at=(0.0,),
    ),
    Quantity("power_factor", "1", title="Power factor", bounds=_bounds(-1, 1, -1, 1), resolution=0.001),
    Quantity(
        "frequency", "Hz", title="Frequency", bounds=_bounds(40, 60, 47, 52), resolution=0.001,
        step_max_per_h=5, spike_max=2, stuck_after_s=HOUR_S,
    ),
    Quantity("water_volume", "m3", Aggregation.COUNTER, title="Water volume", bounds=_UNBOUNDED),
    Quantity("gas_volume", "m3", Aggregation.COUNTER, title="Gas volume", bounds=_UNBOUNDED),
    Quantity("heat_energy", "kWh", Aggregation.COUNTER, title="Heat", bounds=_UNBOUNDED),
    Quantity("flow_rate", "m3/h", title="Flow rate", bounds=_bounds(-10_000, 10_000, -10_000, 10_000), resolution=0.001),
)  # fmt: skip

QUANTITIES: Mapping[str, Quantity] = MappingProxyType(
    {quantity.name: quantity for quantity in (*_AIR, *_WEATHER, *_TRAFFIC, *_ENERGY)},
)
"""Every quantity that the native format knows by name."""
