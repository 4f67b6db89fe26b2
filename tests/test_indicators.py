"""What indicators make of readings: the rules that their formulas do not tell."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from analytics.indicator import Inputs, Results
from analytics.indicators import indicators
from analytics.sample import START_US, sample
from devices.quantity import QUANTITIES

NAN = float("nan")


@pytest.mark.parametrize("name", indicators())
def test_an_indicator_says_what_it_is(name: str) -> None:
    indicator = indicators()[name]
    assert indicator.title
    assert indicator.method
    assert indicator.zone_kind in {"district", "road", "feeder"}
    assert set(indicator.quantities) <= set(QUANTITIES)
    assert 0 < indicator.min_coverage <= 1


def test_indicator_files_do_not_import_one_another() -> None:
    package = importlib.import_module("analytics.indicators")
    for module in pkgutil.iter_modules(package.__path__):
        tree = ast.parse((Path(package.__path__[0]) / f"{module.name}.py").read_text(encoding="utf-8"))
        imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not [name for name in imported if name.startswith("analytics.indicators")]


def compute(name: str, inputs: Inputs) -> Results:
    return indicators()[name].compute(inputs)


def only(results: Results) -> tuple[float, str, Mapping[str, Any]]:
    """Return value, status and detail of the only row."""
    assert len(results.value) == 1
    return float(results.value[0]), results.status[0], results.detail[0]


# ---- air


@pytest.mark.parametrize(
    ("stations", "expected"),
    [
        pytest.param([[10.0] * 4, [30.0] * 4], 20.0, id="stations weigh the same"),
        pytest.param(
            [[10.0] * 4, [30.0, None, 30.0, 30.0]], 20.0, id="three of four readings are enough for a station"
        ),
        pytest.param([[10.0] * 4, [30.0, None, None, 30.0]], 10.0, id="two of four are not"),
        pytest.param([[None] * 4, [30.0, None, None, 30.0]], NAN, id="no station has enough"),
        pytest.param(
            [[10.0] * 4, [None] * 4, [None] * 4], NAN, id="one of three stations does not speak for a district"
        ),
    ],
)
def test_a_district_is_the_mean_of_its_stations(stations: list[list[float | None]], expected: float) -> None:
    value, status, _ = only(compute("pm2_5_mean", sample("district", pm2_5=stations)))
    assert value == pytest.approx(expected, nan_ok=True)
    assert status == ("incomplete" if np.isnan(expected) else "ok")


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        pytest.param([20.0, None, 20.0], 71, id="two of the last three hours"),
        pytest.param([20.0, 20.0, None], 71, id="the newest may be missing"),
        pytest.param([20.0, None, None], NAN, id="one is too few"),
    ],
)
def test_a_nowcast_needs_two_of_the_last_three_hours(last: list[float | None], expected: float) -> None:
    found = compute("nowcast_aqi", sample("district", windows=12, pm2_5=[[20.0] * 9 + last]))
    assert found.value[-1] == pytest.approx(expected, nan_ok=True)


def test_the_worse_of_both_particles_makes_the_nowcast() -> None:
    found = compute("nowcast_aqi", sample("district", windows=12, pm2_5=[[9.0] * 12], pm10=[[155.0] * 12]))
    assert (found.value[-1], found.detail[-1]["main"]) == (101, ["pm10"])
    assert found.detail[-1]["category"] == "Unhealthy for Sensitive Groups"


def test_a_tie_names_every_pollutant() -> None:
    found = compute("european_aqi", sample("district", pm2_5=[[15.0]], no2=[[25.0]], o3=[[10.0]]))
    assert only(found)[2]["main"] == ["pm2_5", "no2"]


def day(**hours: float) -> Inputs:
    """Make a day of one station with even hours."""
    return sample("district", window="1d", **{name: [[value] * 24] for name, value in hours.items()})


@pytest.mark.parametrize(
    ("hours", "part", "expected"),
    [
        pytest.param({"pm2_5": 0.7}, "pm2_5", 4, id="24 equal hours are not truncated below themselves"),
        pytest.param({"pm2_5": 400.0}, "pm2_5", 649, id="above 500 the last segment goes on"),
        pytest.param({"no2": 188.15}, "no2", 100, id="100 ppb at 25 degC"),
        pytest.param({"so2": 196.5}, "so2", 100, id="75 ppb"),
        pytest.param({"co": 10.78}, "co", 100, id="9.4 ppm"),
    ],
)
def test_a_day_converts_gases_and_takes_the_table(hours: dict[str, float], part: str, expected: int) -> None:
    value, status, detail = only(compute("aqi", day(**hours)))
    assert (value, status) == (expected, "ok")
    assert detail["parts"] == {part: expected}
    assert detail["capped"] == min(expected, 500)


def test_ozone_of_a_day_is_known_the_next_morning() -> None:
    two_days = sample("district", window="1d", windows=2, o3=[[137.4] * 48])
    found = compute("aqi", two_days)
    assert (found.value[0], found.detail[0]["parts"]) == (100, {"o3": 100})
    assert found.status[1] == "incomplete"


def test_a_day_needs_18_of_its_24_hours() -> None:
    enough = sample("district", window="1d", pm2_5=[[20.0] * 18 + [None] * 6])
    short = sample("district", window="1d", pm2_5=[[20.0] * 17 + [None] * 7])
    assert only(compute("aqi", enough))[0] == 71
    assert only(compute("aqi", short))[1] == "incomplete"


def test_an_hour_of_sulphur_dioxide_over_304_ppb_is_200_at_least() -> None:
    hours = [2.62 * 400] + [26.2] * 23
    assert only(compute("aqi", sample("district", window="1d", so2=[hours])))[0] == 200


# ---- traffic


def test_speeds_weigh_by_the_vehicles_that_drove_them() -> None:
    inputs = sample("road", window="15min", speed=[[30.0, 60.0, 60.0]], vehicle_count=[[20.0, 10.0, 10.0]])
    value, _, detail = only(compute("space_mean_speed", inputs))
    assert value == pytest.approx(40 / (20 / 30 + 20 / 60))
    assert detail == {"weights": "flow"}


@pytest.mark.parametrize(
    ("speeds", "counts", "value", "status"),
    [
        pytest.param([30.0, 60.0], None, 40.0, "ok", id="without counts all weigh the same"),
        pytest.param([0.0, 60.0], None, 60.0, "ok", id="a zero speed is no travel time"),
        pytest.param([0.0, 0.0], None, NAN, "undefined", id="nothing moved"),
        pytest.param([30.0, 60.0], [0.0, 0.0], NAN, "undefined", id="no vehicle passed"),
        pytest.param([None, None], [3.0, 3.0], NAN, "incomplete", id="no speed was measured"),
    ],
)
def test_what_speeds_come_to(
    speeds: list[float | None], counts: list[float | None] | None, value: float, status: str
) -> None:
    more = {} if counts is None else {"vehicle_count": [counts]}
    found = only(compute("space_mean_speed", sample("road", window="15min", speed=[speeds], **more)))
    assert found[0] == pytest.approx(value, nan_ok=True)
    assert found[1] == status


def test_a_missing_interval_does_not_thin_the_flow() -> None:
    inputs = sample("road", vehicle_count=[[30.0] * 9 + [None] * 3])
    assert only(compute("traffic_flow", inputs))[0] == pytest.approx(360.0)


def test_detectors_that_tell_flow_speak_as_well_as_those_that_count() -> None:
    assert only(compute("traffic_flow", sample("road", vehicle_flow=[[400.0, 600.0]])))[0] == 500.0


def test_a_road_without_free_flow_has_no_index() -> None:
    value, status, _ = only(compute("travel_time_index", sample("road", speed=[[48.0]])))
    assert (np.isnan(value), status) == (True, "undefined")


def test_traffic_faster_than_free_flow_is_below_1_and_below_0() -> None:
    inputs = sample("road", zone={"free_flow_kmh": 45.0}, speed=[[50.0]])
    assert only(compute("travel_time_index", inputs))[0] == pytest.approx(0.9)
    assert only(compute("congestion_level", inputs))[0] == pytest.approx(-10.0)


def lanes(name: str, inputs: Inputs, channels: tuple[str, ...]) -> Inputs:
    """Turn the devices of a sample into channels of its first one."""
    one = inputs.readings[name]
    channel = np.array([sorted(channels).index(channels[s]) for s in one.series], np.int32)
    told = msgspec.structs.replace(one, channel=channel, placed=np.zeros_like(one.placed))
    placed = type(inputs.placed)(*(column[:1] for column in msgspec.structs.astuple(inputs.placed)))
    return msgspec.structs.replace(
        inputs,
        channels=sorted(channels),
        placed=placed,
        devices=inputs.devices[:1],
        readings={**inputs.readings, name: told},
        promised={key: column[:1] for key, column in inputs.promised.items()},
    )


def test_lanes_are_added_and_a_total_is_not_added_to_its_lanes() -> None:
    two = sample("road", vehicle_count=[[10.0] * 12, [20.0] * 12])
    assert only(compute("traffic_flow", lanes("vehicle_count", two, ("lane1", "lane2"))))[0] == 360.0
    assert only(compute("traffic_flow", lanes("vehicle_count", two, ("", "lane1"))))[0] == 120.0


# ---- energy


def registers(*values: float | None, **device: float) -> Inputs:
    """Make an hour of one meter's register, from its beginning to its end."""
    return sample("feeder", device=device, energy_import=[list(values)])


@pytest.mark.parametrize(
    ("inputs", "kwh", "detail"),
    [
        pytest.param(registers(*range(100, 121)), 20.0, {}, id="difference of the ends"),
        pytest.param(registers(*range(100, 110), None, *range(111, 121)), 20.0, {}, id="a gap inside changes nothing"),
        pytest.param(
            registers(*range(90, 100), *range(11), modulus=100.0, rated_kw=100.0), 20.0, {}, id="a register rolls over"
        ),
        pytest.param(registers(*range(90, 100), *range(11)), 19.0, {"resets": 1}, id="a new meter starts anew"),
        pytest.param(
            registers(*range(100, 110), *range(9000, 9011), rated_kw=30.0), 19.0, {"jumps": 1}, id="a jump is no energy"
        ),
    ],
)
def test_what_a_register_counted(inputs: Inputs, kwh: float, detail: dict[str, int]) -> None:
    value, status, found = only(compute("interval_energy", inputs))
    assert (value, status) == (pytest.approx(kwh), "ok")
    assert found == {"meters": 1, **detail}


def test_a_meter_that_is_off_the_grid_conserves_energy() -> None:
    inputs = sample("feeder", window="15min", windows=4, energy_import=[[float(n * n) for n in range(21)]])
    off = msgspec.structs.replace(inputs.readings["energy_import"])
    off.time_us = off.time_us + 77_000_000
    shifted = msgspec.structs.replace(inputs, readings={**inputs.readings, "energy_import": off})
    found = compute("interval_energy", shifted)
    ends = np.interp(START_US + np.arange(1, 4) * 900_000_000, off.time_us, off.value)
    assert found.value[1:3] == pytest.approx(np.diff(ends))


def test_a_quarter_of_an_hour_is_not_made_up_from_hours() -> None:
    hourly = sample("feeder", energy=[[7.0]])
    quarters = sample("feeder", window="15min", windows=4, energy=[[7.0]])
    assert only(compute("interval_energy", hourly))[0] == 7.0
    assert len(compute("interval_energy", quarters).value) == 0


def test_meters_of_a_feeder_are_added_and_a_silent_one_is_missed() -> None:
    both = sample("feeder", window="15min", zone={"rated_kw": 100.0}, energy=[[2.0, 2.0, 2.0], [3.0, 3.0, 3.0]])
    one = sample("feeder", window="15min", zone={"rated_kw": 100.0}, energy=[[2.0, 2.0, 2.0], [None, None, None]])
    assert only(compute("feeder_load", both))[0] == 60.0
    assert only(compute("feeder_load", one))[1] == "incomplete"


def test_a_feeder_without_rated_power_has_no_load() -> None:
    assert only(compute("feeder_load", sample("feeder", window="15min", energy=[[2.0]])))[1] == "undefined"


@pytest.mark.parametrize(
    ("per_hour", "kw", "block_s"),
    [
        pytest.param(4, 8.0, 900, id="quarters"),
        pytest.param(2, 4.0, 1800, id="halves"),
        pytest.param(1, 2.0, 3600, id="hours"),
    ],
)
def test_the_peak_is_of_the_narrowest_blocks_that_meters_give(per_hour: int, kw: float, block_s: int) -> None:
    inputs = sample("feeder", window="1d", energy=[[1.0] * (24 * per_hour - 1) + [2.0]])
    value, status, detail = only(compute("peak_demand", inputs))
    assert (value, status, detail["block_s"]) == (kw, "ok", block_s)
    assert detail["block_start_us"] == START_US + 86_400_000_000 - block_s * 1_000_000
    assert only(compute("load_factor", inputs))[0] == pytest.approx((24 * per_hour + 1) / (kw * 24))


def test_no_demand_has_no_load_factor() -> None:
    value, status, _ = only(compute("load_factor", sample("feeder", window="1d", energy=[[0.0] * 96])))
    assert (np.isnan(value), status) == (True, "undefined")
