"""Quantities, their bounds, and units."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.quantity import QUANTITIES, Aggregation, UnitError, bounds_of, conversion, convert, parse_key

HOUSE = {
    "ug/m3": "pm1 pm2_5 pm10 no2 so2 o3",
    "mg/m3": "co",
    "ppm": "co2",
    "degC": "temperature",
    "%": "relative_humidity occupancy",
    "hPa": "pressure",
    "m/s": "wind_speed",
    "deg": "wind_direction",
    "dB": "noise",
    "veh": "vehicle_count",
    "veh/h": "vehicle_flow",
    "km/h": "speed",
    "s": "travel_time",
    "W": "active_power",
    "kWh": "energy_import energy_export energy heat_energy",
    "V": "voltage",
    "A": "current",
    "1": "power_factor",
    "Hz": "frequency",
    "m3": "water_volume gas_volume",
    "m3/h": "flow_rate",
}


def test_the_catalogue_is_the_one_of_the_house() -> None:
    assert {name: quantity.unit for name, quantity in QUANTITIES.items()} == {
        name: unit for unit, names in HOUSE.items() for name in names.split()
    }


@pytest.mark.parametrize(
    ("name", "aggregation"),
    [
        pytest.param("pm2_5", Aggregation.MEAN, id="a concentration is averaged"),
        pytest.param("vehicle_count", Aggregation.SUM, id="vehicles are added up"),
        pytest.param("energy", Aggregation.SUM, id="interval energy is added up"),
        pytest.param("energy_import", Aggregation.COUNTER, id="a running total is only subtracted"),
        pytest.param("speed", Aggregation.FLOW_WEIGHTED, id="a speed is weighted by its flow"),
        pytest.param("noise", Aggregation.ENERGETIC, id="a level is averaged by energy"),
        pytest.param("wind_direction", Aggregation.CIRCULAR, id="a direction is a vector"),
    ],
)
def test_every_quantity_says_how_it_may_be_combined(name: str, aggregation: Aggregation) -> None:
    assert QUANTITIES[name].aggregation is aggregation


@pytest.mark.parametrize("name", QUANTITIES)
def test_suspect_bounds_lie_within_fail_bounds(name: str) -> None:
    bounds = QUANTITIES[name].bounds
    assert bounds is not None
    assert bounds.fail[0] <= bounds.suspect[0] < bounds.suspect[1] <= bounds.fail[1]


def test_a_quantity_that_can_be_stuck_has_a_resolution() -> None:
    assert [q.name for q in QUANTITIES.values() if q.stuck_after_s is not None and q.resolution <= 0] == []


def test_bounds_of_a_sum_grow_with_its_span() -> None:
    minute = bounds_of(QUANTITIES["vehicle_count"], span_s=60)
    hour = bounds_of(QUANTITIES["vehicle_count"], span_s=3600)
    assert minute is not None
    assert hour is not None
    assert hour.fail[1] == 60 * minute.fail[1]


def test_bounds_of_a_mean_do_not_depend_on_its_span() -> None:
    assert bounds_of(QUANTITIES["speed"], span_s=300) == QUANTITIES["speed"].bounds


def test_power_is_judged_by_the_devices_rated_power() -> None:
    bounds = bounds_of(QUANTITIES["active_power"], rated_kw=100)
    assert bounds is not None
    assert bounds.fail == (-120_000, 120_000)


@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        pytest.param(0.035, "mg/m3", "ug/m3", 35.0, id="mg to ug"),
        pytest.param(93_210, "Pa", "hPa", 932.1, id="Pa to hPa"),
        pytest.param(932.1, "mbar", "hPa", 932.1, id="mbar is hPa"),
        pytest.param(760, "mmHg", "hPa", 1013.250144354, id="mmHg to hPa"),
        pytest.param(1234, "Wh", "kWh", 1.234, id="Wh to kWh"),
        pytest.param(1, "GJ", "kWh", 277.777777777, id="GJ to kWh"),
        pytest.param(1, "Gcal", "kWh", 1163.0, id="Gcal to kWh"),
        pytest.param(2.5, "kW", "W", 2500.0, id="kW to W"),
        pytest.param(14, "degF", "degC", -10.0, id="Fahrenheit"),
        pytest.param(273.15, "K", "degC", 0.0, id="Kelvin"),
        pytest.param(60, "mph", "km/h", 96.56064, id="mph to km/h"),
        pytest.param(10, "m/s", "km/h", 36.0, id="m/s to km/h"),
        pytest.param(1500, "L", "m3", 1.5, id="litres to m3"),
        pytest.param(0.57, "1", "%", 57.0, id="a share to per cent"),
        pytest.param(95, "%", "1", 0.95, id="per cent to a share"),
        pytest.param(230_100, "mV", "V", 230.1, id="mV to V"),
        pytest.param(415, "ppb", "ppm", 0.415, id="ppb to ppm"),
        pytest.param(1, "L/s", "m3/h", 3.6, id="L/s to m3/h"),
        pytest.param(7, "µg/m³", "ug/m3", 7.0, id="micro sign and superscript"),
        pytest.param(7, "μg/m3", "ug/m3", 7.0, id="Greek mu"),
        pytest.param(21.5, "°C", "degC", 21.5, id="degree sign"),
        pytest.param(71, " % ", "%", 71.0, id="spaces around"),
    ],
)
def test_units_convert(value: float, source: str, target: str, expected: float) -> None:
    assert convert(value, source, target) == pytest.approx(expected, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        pytest.param("furlong", "m", "not known", id="an unknown unit"),
        pytest.param("V", "kWh", "cannot be converted", id="another dimension"),
        pytest.param("m3", "m3/h", "cannot be converted", id="an amount is no flow"),
        pytest.param("ppb", "ug/m3", "depends on the gas", id="a gas without its reference state"),
    ],
)
def test_an_impossible_conversion_is_an_error_with_a_hint(source: str, target: str, says: str) -> None:
    with pytest.raises(UnitError, match=says) as caught:
        conversion(source, target)
    assert caught.value.hint


@given(
    value=st.floats(-1e6, 1e6),
    pair=st.sampled_from(
        [("degF", "degC"), ("K", "degC"), ("mph", "m/s"), ("Gcal", "GJ"), ("mmHg", "hPa"), ("1", "%")]
    ),
)
def test_there_and_back_is_the_same_value(value: float, pair: tuple[str, str]) -> None:
    source, target = pair
    assert math.isclose(convert(convert(value, source, target), target, source), value, rel_tol=1e-9, abs_tol=1e-6)


def test_a_key_is_a_quantity_and_a_channel() -> None:
    assert parse_key("speed") == ("speed", "")
    assert parse_key("active_power.L1") == ("active_power", "L1")
