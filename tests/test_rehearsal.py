"""The rehearsal city: it is drawn whole, lives by its seed alone, and its faults are where its truth says."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices import rehearsal
from devices.device import Registry
from devices.kinds import kinds
from devices.quality import derive_flags, limits_of, point_flags
from devices.quantity import QUANTITIES, bounds_of
from devices.rehearsal import City, Fault, FaultKind, Planned, plan
from devices.rehearsal.geometry import inside, position
from devices.zone_file import parse_zones

HERE = Path(rehearsal.__file__).parent
MINUTE_US, HOUR_US, DAY_US = 60_000_000, 3_600_000_000, 86_400_000_000
MONDAY_US = 20_780 * DAY_US  # 2026-11-23, 05:00 in the city
MAIN = {"traffic": "speed", "air": "pm2_5", "energy": "voltage", "weather": "temperature"}


@cache
def city(devices: int = 30, *kinds_of_fault: FaultKind, seed: int = 1) -> City:
    return City(seed, devices, dict.fromkeys(kinds_of_fault, 40.0))


def told(messages: Iterable[Planned]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Decode messages to (device, time [ms] as sent, values): what is not JSON of the format is left out."""
    for message in messages:
        try:
            body = json.loads(message.payload)
            values, time = body["v"], body["t"]
        except (ValueError, KeyError, TypeError):
            continue
        device = message.topic.removeprefix("qala/1/").removesuffix("/t")
        if isinstance(time, str):
            continue
        if isinstance(time, int) and "i" not in body:
            yield device, time, values
            continue
        count = len(next(iter(values.values())))
        times = time if isinstance(time, list) else [time + i * body["i"] for i in range(count)]
        yield from ((device, at, {key: column[i] for key, column in values.items()}) for i, at in enumerate(times))


def test_the_files_are_what_the_plan_draws() -> None:
    for name, drawn in plan.DRAWINGS.items():
        shipped, now = json.loads((HERE / name).read_text()), json.loads(plan.as_text(drawn()))
        assert numbers(shipped) == pytest.approx(numbers(now), abs=2e-6), f"{name} is old: plan.py says how to write it"


def numbers(tree: Any) -> list[float]:
    if isinstance(tree, dict):
        return [number for value in tree.values() for number in numbers(value)]
    if isinstance(tree, list):
        return [number for value in tree for number in numbers(value)]
    return [float(tree)] if isinstance(tree, int | float) else []


def test_the_file_of_zones_is_valid() -> None:
    zones = parse_zones((HERE / "city.geojson").read_text())
    assert [zone.id for zone in zones] == [zone.id for zone in plan.city()]
    assert Counter(zone.kind for zone in zones) == {"district": 10, "road": 38, "feeder": 24, "site": 8}


def test_every_name_is_there_in_three_languages() -> None:
    assert [
        zone.id for zone in plan.city() if set(zone.names) != {"en", "ru", "kk"} or not all(zone.names.values())
    ] == []


@pytest.mark.parametrize("kind", ["district", "feeder"])
def test_areas_cover_the_city_without_gap_or_overlap(kind: str) -> None:
    outlines = [np.array(zone.geometry["coordinates"][0]) for zone in plan.city() if zone.kind == kind]
    whole = plan.Block(0.0, plan.OUTER_KM, 0, 360).outline()
    edge = np.array([position(point) for point in whole])
    points = np.random.default_rng(7).uniform(edge.min(axis=0), edge.max(axis=0), (4000, 2))
    points = points[inside(points, edge)]
    assert len(points) > 2000
    covered = sum(inside(points, outline).astype(int) for outline in outlines)
    assert set(np.asarray(covered).tolist()) == {1}


def test_the_registry_holds_together() -> None:
    devices, zones, placements = City().registry()
    registry = Registry(devices, zones, placements)
    assert Counter(device.kind for device in devices) == {
        "traffic_detector": 120,
        "air_station": 60,
        "electricity_meter": 100,
        "weather_station": 20,
    }
    for placement in placements:
        stood = [registry.zones[zone].kind for zone in placement.zones]
        assert len(stood) == len(set(stood))
        assert placement.lat is not None
    needs = {"traffic_detector": "road", "air_station": "district", "electricity_meter": "feeder"}
    for kind, needed in needs.items():
        of_kind = {device.id for device in devices if device.kind == kind}
        served = {zone for placement in placements if placement.device in of_kind for zone in placement.zones}
        assert {zone.id for zone in registry.zones_of_kind(needed)} <= served


def test_a_seed_is_a_city() -> None:
    span = MONDAY_US, MONDAY_US + 5 * MINUTE_US
    assert list(City(3, 30).messages(*span)) == list(City(3, 30).messages(*span))
    assert list(City(3, 30).messages(*span)) != list(City(4, 30).messages(*span))


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(-20 * 60, 20 * 60), min_size=3, max_size=5, unique=True))
def test_the_same_messages_come_however_time_is_cut(cuts: list[int]) -> None:
    edges = [MONDAY_US + second * 1_000_000 for second in sorted(cuts)]
    lived = city(30, *FaultKind)
    parts = [list(lived.messages(a, b)) for a, b in pairwise(edges)]
    assert [message for part in parts for message in part] == list(lived.messages(edges[0], edges[-1]))


def test_messages_come_in_the_order_of_publishing() -> None:
    for batch_s in (None, 3600):
        times = [m.time_us for m in city(30, *FaultKind).messages(MONDAY_US, MONDAY_US + 3 * HOUR_US, batch_s=batch_s)]
        assert times == sorted(times)
        assert MONDAY_US <= times[0] <= times[-1] < MONDAY_US + 3 * HOUR_US


def test_history_in_batches_tells_the_same_as_single_messages() -> None:
    lived, span = city(30, *FaultKind), (MONDAY_US + 7 * MINUTE_US, MONDAY_US + 5 * HOUR_US + 21 * MINUTE_US)
    single, batched = list(lived.messages(*span)), list(lived.messages(*span, batch_s=3600))
    assert len(batched) < len(single) / 5
    assert rows(told(batched)) == rows(told(single))


def rows(readings: Iterable[tuple[str, int, dict[str, Any]]]) -> list[tuple[str, int, str]]:
    return sorted((device, time, json.dumps(values)) for device, time, values in readings)


def test_a_message_is_published_soon_after_what_it_tells() -> None:
    for message in city().messages(MONDAY_US, MONDAY_US + 10 * MINUTE_US):
        assert 0 < message.time_us - json.loads(message.payload)["t"] * 1000 < 3_000_000


def test_every_device_tells_all_that_its_kind_reports_at_its_interval() -> None:
    devices = {device.id: kinds()[device.kind] for device in city().registry()[0]}
    heard: dict[str, list[int]] = defaultdict(list)
    for device, time, values in told(city().messages(MONDAY_US, MONDAY_US + HOUR_US)):
        assert tuple(values) == devices[device].quantities
        heard[device].append(time)
    assert set(heard) == set(devices)
    for device, times in heard.items():
        assert len(times) == 3600 // devices[device].interval_s
        assert set(np.diff(times).tolist()) == {devices[device].interval_s * 1000}


def test_detectors_say_what_minute_they_counted() -> None:
    bodies = [
        json.loads(m.payload) for m in city().messages(MONDAY_US, MONDAY_US + 5 * MINUTE_US) if "traffic" in m.topic
    ]
    assert {body["w"] for body in bodies} == {60_000}
    assert {body["t"] % 60_000 for body in bodies} == {0}


def test_payloads_stay_within_the_limits_of_the_format() -> None:
    for message in city().messages(MONDAY_US, MONDAY_US + DAY_US, batch_s=3600):
        assert len(message.payload) < 64 * 1024


def test_energy_is_what_power_adds_up_to() -> None:
    by_device: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for device, _, values in told(city().messages(MONDAY_US - 2 * HOUR_US, MONDAY_US + 2 * HOUR_US)):
        if device.startswith("energy/"):
            by_device[device].append((values["energy_import"], values["active_power"]))
    assert len(by_device) == 10
    for pairs in by_device.values():
        energy, power = np.array(pairs).T
        assert (np.diff(energy) > 0).all()
        assert np.diff(energy) == pytest.approx(power[:-1] / 60_000, abs=0.0025)  # watts and watt-hours are rounded


def test_working_days_have_rush_hours() -> None:
    count: Counter[int] = Counter()
    for device, time, values in told(city().messages(MONDAY_US - 5 * HOUR_US, MONDAY_US + 19 * HOUR_US, batch_s=3600)):
        if device.startswith("traffic/"):
            count[(time // 3_600_000 + 5) % 24] += values["vehicle_count"]
    assert min(count[8], count[18]) > 1.2 * count[12] > 3 * count[3]


def test_good_data_passes_the_quality_checks() -> None:
    judged = [flags for _, flags in judge(city(60), MONDAY_US, MONDAY_US + DAY_US)]
    everything = np.concatenate(judged)
    present = everything[everything != 9]
    assert len(present) > 200_000
    assert (present != 1).mean() < 0.001


def judge(lived: City, start_us: int, stop_us: int) -> Iterator[tuple[str, Any]]:
    """Yield (series, flags) of everything told in a span, as the platform would derive them."""
    columns: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for device, time, values in told(lived.messages(start_us, stop_us, batch_s=3600)):
        for quantity, value in values.items():
            columns[device, quantity][time] = np.nan if value is None else value
    rated = {device.id: device.rated_kw for device in lived.registry()[0]}
    for (device, quantity), readings in columns.items():
        time_us = np.array(sorted(readings)) * 1000
        value = np.array([readings[time // 1000] for time in time_us.tolist()])
        bounds = bounds_of(QUANTITIES[quantity], span_s=60, rated_kw=rated[device])
        assert bounds is not None
        flag = point_flags(value, np.ones(len(value), np.uint8), *bounds.fail, *bounds.suspect)
        limits = limits_of(QUANTITIES[quantity])
        yield f"{device}.{quantity}", derive_flags(np.zeros(len(value), np.int64), time_us, value, flag, limits)


def test_every_kind_of_fault_happens_by_default() -> None:
    faults = City(1).truth(MONDAY_US, MONDAY_US + 20 * DAY_US)
    assert {fault.kind for fault in faults} == set(FaultKind)
    assert faults == sorted(faults, key=lambda fault: fault.start_us)
    assert len(faults) < 20 * 30  # and is rare


def test_without_faults_nothing_is_wrong() -> None:
    assert city().truth(MONDAY_US, MONDAY_US + DAY_US) == []


def test_truth_is_what_overlaps_the_span() -> None:
    lived = city(30, FaultKind.GAP)
    fault = lived.truth(MONDAY_US, MONDAY_US + DAY_US)[0]
    assert fault in lived.truth(fault.end_us - 1, fault.end_us)
    assert fault in lived.truth(fault.start_us, fault.start_us + 1)
    assert fault not in lived.truth(fault.end_us, fault.end_us + 1)


def one_fault(kind: FaultKind, prefix: str = "") -> tuple[City, Fault]:
    """Find a fault of a kind that is alone at its device on its day."""
    lived = city(30, kind)
    for day in range(20):
        faults = lived.truth(MONDAY_US + day * DAY_US, MONDAY_US + (day + 1) * DAY_US)
        often = Counter(fault.device for fault in faults)
        alone = [fault for fault in faults if often[fault.device] == 1 and fault.device.startswith(prefix)]
        if alone:
            return lived, alone[0]
    raise AssertionError(f"no {kind} in 20 days")


def around(lived: City, fault: Fault, spare_us: int = 0) -> list[Planned]:
    """Return what a fault's device publishes for the fault's time."""
    messages = lived.messages(fault.start_us, fault.end_us + MINUTE_US + spare_us)
    return [message for message in messages if message.topic == f"qala/1/{fault.device}/t"]


def starts(lived: City, fault: Fault, spare_us: int = 0) -> list[tuple[int, dict[str, Any]]]:
    """Return what a fault's device told of the fault's time: (start [us], values)."""
    window_us = MINUTE_US if fault.device.startswith("traffic/") else 0
    return [
        (time * 1000 - window_us, values)
        for _, time, values in told(around(lived, fault, spare_us))
        if fault.start_us <= time * 1000 - window_us < fault.end_us
    ]


def test_a_gap_is_silence() -> None:
    assert starts(*one_fault(FaultKind.GAP)) == []


def test_a_duplicate_is_the_same_message_again() -> None:
    lived, fault = one_fault(FaultKind.DUPLICATE, "air/")
    told_twice = Counter(time for time, _ in starts(lived, fault))
    assert set(told_twice.values()) == {2}
    assert len(told_twice) == (fault.end_us - fault.start_us) // MINUTE_US


def test_a_late_batch_tells_everything_at_once_afterwards() -> None:
    lived, fault = one_fault(FaultKind.LATE_BATCH, "energy/")
    late = [message for message in around(lived, fault) if b'"i":' in message.payload]
    assert len(late) == 1
    assert late[0].time_us >= fault.end_us
    assert len(starts(lived, fault)) == (fault.end_us - fault.start_us) // MINUTE_US


def test_a_skewed_clock_tells_another_time() -> None:
    lived, fault = one_fault(FaultKind.CLOCK_SKEW, "air/")
    off_us = {
        round((json.loads(message.payload)["t"] * 1000 - message.time_us) / 1e6)
        for message in around(lived, fault)
        if fault.start_us + MINUTE_US <= message.time_us < fault.end_us
    }
    assert off_us == {fault.detail["offset_s"]} or off_us == {fault.detail["offset_s"] - 1, fault.detail["offset_s"]}


def test_a_malformed_payload_tells_nothing_of_its_time() -> None:
    lived, fault = one_fault(FaultKind.MALFORMED)
    assert starts(lived, fault) == []
    assert len(around(lived, fault)) >= 1


def test_a_spike_stands_out_by_what_the_truth_says() -> None:
    lived, fault = one_fault(FaultKind.SPIKE, "air/")
    clean = {time: values for _, time, values in told(around(city(30), fault))}
    wrong = {time: values for _, time, values in told(around(lived, fault))}
    changed = [time for time in clean if clean[time] != wrong[time]]
    assert len(changed) == 1
    added = wrong[changed[0]][fault.detail["quantity"]] - clean[changed[0]][fault.detail["quantity"]]
    assert added == pytest.approx(fault.detail["added"])


def test_a_stuck_sensor_tells_one_value() -> None:
    lived, fault = one_fault(FaultKind.STUCK, "air/")
    readings = [values for _, values in starts(lived, fault)]
    assert len({values["pm2_5"] for values in readings}) == 1
    assert len({values["pm10"] for values in readings}) > 10


def test_a_drift_grows() -> None:
    lived, fault = one_fault(FaultKind.DRIFT)
    true = dict(starts(city(30), fault))
    ratio = [values["pm2_5"] / true[time]["pm2_5"] for time, values in starts(lived, fault)]
    assert ratio[0] == pytest.approx(1.0, abs=0.02)
    assert ratio[-1] == pytest.approx(fault.detail["factor"], abs=0.05)


def test_a_swapped_meter_begins_at_zero_and_goes_on_from_there() -> None:
    lived, fault = one_fault(FaultKind.METER_RESET)
    span = fault.start_us - HOUR_US, fault.start_us + 2 * HOUR_US
    energy = [values["energy_import"] for device, _, values in told(lived.messages(*span)) if device == fault.device]
    steps = np.diff(energy)
    assert (steps < 0).sum() == 1
    assert energy[int(np.argmin(steps)) + 1] == 0.0


@pytest.mark.parametrize("kind", [FaultKind.SPIKE, FaultKind.STUCK])
def test_the_quality_checks_find_what_the_truth_says(kind: FaultKind) -> None:
    lived = city(30, kind)
    faults = lived.truth(MONDAY_US, MONDAY_US + DAY_US)
    flagged = {series for series, flags in judge(lived, MONDAY_US, MONDAY_US + DAY_US) if np.isin(flags, (3, 4)).any()}
    expected = {f"{fault.device}.{fault.detail['quantity']}" for fault in faults}
    assert len(expected) > 2
    assert len(expected & flagged) >= 0.8 * len(expected)
