"""Quality checks: exact flags on small arrays, the published vectors, and what must hold for any data."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from devices.quality import (
    Limits,
    aggregate_flags,
    context_s,
    derive_flags,
    flat_flags,
    limits_of,
    point_flags,
    spike_flags,
    step_flags,
)
from devices.quantity import QUANTITIES
from devices.reading import Float64Array, Int64Array, UInt8Array

SHARED = Path(os.environ.get("QALA_SHARED", Path(__file__).parents[2] / "shared"))
SECOND_US = 1_000_000
ALL = Limits(spike_max=20.0, step_max_per_h=60.0, stuck_after_s=1800, resolution=0.5, rests_at=(0.0,))

ONLY_STUCK = Limits(stuck_after_s=1800, resolution=0.5, rests_at=(0.0,))


def values(*numbers: float | None) -> Float64Array:
    return np.array([np.nan if number is None else number for number in numbers])


def minutes(n: int, *, step: int = 1) -> Int64Array:
    return np.arange(n, dtype=np.int64) * step * 60 * SECOND_US


def derived(value: Float64Array, time_us: Int64Array, limits: Limits, flag: UInt8Array | None = None) -> list[int]:
    stored = np.where(np.isnan(value), 9, 1).astype(np.uint8) if flag is None else flag
    return derive_flags(np.zeros(len(value), np.int64), time_us, value, stored, limits).tolist()


@pytest.mark.parametrize(
    ("value", "reported", "expected"),
    [
        pytest.param(2.0, 1, 1, id="good"),
        pytest.param(1.0, 1, 1, id="bounds are inclusive"),
        pytest.param(4.5, 1, 3, id="outside the suspect range"),
        pytest.param(5.5, 1, 4, id="outside the fail range"),
        pytest.param(-0.5, 1, 4, id="below the fail range"),
        pytest.param(None, 1, 9, id="no value"),
        pytest.param(2.0, 9, 9, id="the device says it is missing"),
        pytest.param(2.0, 3, 3, id="the device doubts it"),
        pytest.param(2.0, 4, 4, id="the device says it is bad"),
        pytest.param(5.5, 3, 4, id="the worse verdict counts"),
        pytest.param(4.5, 4, 4, id="the worse verdict counts, from the device"),
        pytest.param(2.0, 2, 1, id="the range check settles what the device left open"),
    ],
)
def test_a_reading_is_judged_by_itself(value: float | None, reported: int, expected: int) -> None:
    flag = point_flags(values(value), np.array([reported], np.uint8), 0.0, 5.0, 1.0, 4.0)
    assert flag.dtype == np.uint8
    assert flag.tolist() == [expected]


def test_bounds_may_differ_row_by_row() -> None:
    low, high = np.array([0.0, -np.inf]), np.array([1.0, np.inf])
    assert point_flags(values(7.0, 7e30), np.ones(2, np.uint8), low, high, low, high).tolist() == [4, 1]


def test_no_readings_have_no_flags() -> None:
    nothing = np.zeros(0)
    assert len(point_flags(nothing, nothing.astype(np.uint8), 0, 1, 0, 1)) == 0
    assert derived(nothing, nothing.astype(np.int64), ALL) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param((10, 11, 60, 11, 10), [1, 1, 3, 1, 1], id="a spike and not its neighbours"),
        pytest.param((10, 11, -60, 11, 10), [1, 1, 3, 1, 1], id="a spike downwards"),
        pytest.param((10, 60, None, 11, 10), [1, 3, 9, 1, 1], id="what is missing is no neighbour"),
        pytest.param((10, 11, 35, 36, 37), [1, 1, 1, 1, 1], id="a rise that stays is no spike"),
        pytest.param((10, 11, 60), [1, 1, 1], id="the newest reading waits for its neighbour"),
        pytest.param((10, 11, 90), [1, 1, 3], id="but a step is seen at once"),
        pytest.param((10, 11, 90, 91, 92), [1, 1, 3, 1, 1], id="a step marks where it happened"),
    ],
)
def test_spikes_and_steps_minute_by_minute(value: tuple[float | None, ...], expected: list[int]) -> None:
    assert derived(values(*value), minutes(len(value)), ALL) == expected


def test_neighbours_far_away_say_nothing() -> None:
    assert derived(values(10, 90, 10), minutes(3, step=61), ALL) == [1, 1, 1]


def test_a_stuck_sensor_is_suspect_once_it_has_been_stuck_long_enough() -> None:
    assert derived(values(*[7.0] * 8), minutes(8, step=6), ALL) == [1, 1, 1, 1, 1, 3, 3, 3]


def test_a_sensor_that_moves_by_its_resolution_is_not_stuck() -> None:
    assert derived(values(*[7.0, 7.5] * 20), minutes(40), ALL) == [1] * 40


def test_standing_still_where_that_is_normal_is_not_stuck() -> None:
    assert derived(values(*[0.0] * 40), minutes(40), ALL) == [1] * 40


def test_a_gap_ends_a_stuck_run() -> None:
    time_us = np.concatenate((minutes(20), minutes(20) + 31 * 60 * SECOND_US))
    assert derived(values(*[7.0] * 40), time_us, ALL) == [1] * 40


def test_bad_readings_take_no_part() -> None:
    stored = np.array([1, 1, 4, 1, 1], np.uint8)
    assert derived(values(10, 11, 900, 11, 10), minutes(5), ALL, stored) == [1, 1, 4, 1, 1]


def test_flags_combine_in_the_order_of_qartod() -> None:
    ladder = np.array([9, 2, 1, 3, 4], np.uint8)
    assert [aggregate_flags(ladder[i : i + 1], ladder[j : j + 1])[0] for i in range(5) for j in range(5)] == [
        ladder[max(i, j)] for i in range(5) for j in range(5)
    ]


# What the vectors call a series of values is one series here, with steps of 1 s where they name none.


def _check(indicator: str, given_: dict[str, Any]) -> list[int]:
    if indicator == "qartod_aggregate":
        return aggregate_flags(*(np.array(flags, np.uint8) for flags in given_["flags"])).tolist()
    value = values(*given_["x"])
    series, time_us = np.zeros(len(value), np.int64), np.arange(len(value), dtype=np.int64)
    time_us *= int(given_.get("step_s", 1)) * SECOND_US
    if indicator == "qartod_gross_range":
        return point_flags(value, np.ones(len(value), np.uint8), *given_["fail"], *given_["suspect"]).tolist()
    if indicator == "qartod_spike_differential":
        return spike_flags(series, time_us, value, given_["suspect"], given_["fail"]).tolist()
    if indicator == "qartod_rate_of_change":
        return step_flags(series, time_us, value, given_["suspect_per_s"]).tolist()
    tolerance, suspect_s, fail_s = given_["tolerance"], given_["suspect_s"], given_["fail_s"]
    return flat_flags(series, time_us, value, tolerance, suspect_s=suspect_s, fail_s=fail_s).tolist()


def _vectors() -> list[Any]:
    path = SHARED / "reference" / "indicator_vectors.csv"
    if not path.exists():
        return [pytest.param("", "", "", marks=pytest.mark.skip(reason=f"{path} is missing"))]
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["indicator"].startswith("qartod_")]
    return [
        pytest.param(row["indicator"], row["inputs_json"], row["expected"], id=f"{row['indicator']}-{number}")
        for number, row in enumerate(rows)
        if row["indicator"] != "qartod_spike_average"  # the house takes the differential method
    ]


@pytest.mark.parametrize(("indicator", "inputs", "expected"), _vectors())
def test_flags_are_those_of_the_published_vectors(indicator: str, inputs: str, expected: str) -> None:
    assert _check(indicator, json.loads(inputs)) == json.loads(expected)


# A few series of a few readings each: times in order, some close and some far apart, some values repeated, some missing.


@st.composite
def readings(draw: st.DrawFn) -> tuple[Int64Array, Int64Array, Float64Array]:
    series, time_us, value = [], [], []
    numbers = st.sampled_from([0.0, 5.0, 5.2, 30.0, 100.0, np.nan])
    for one in range(draw(st.integers(1, 3))):
        runs = draw(st.lists(st.tuples(numbers, st.sampled_from([1, 1, 2, 5])), max_size=8))
        own = [number for number, length in runs for _ in range(length)]
        gap = st.sampled_from([60, 300, 600, 590, 900, 3600])
        gaps = draw(st.lists(gap, min_size=len(own), max_size=len(own)))
        series += [one] * len(own)
        time_us += np.cumsum(np.array(gaps, np.int64) * SECOND_US).tolist()
        value += own
    return np.array(series, np.int64), np.array(time_us, np.int64), np.array(value, np.float64)


def stored_flags(value: Float64Array) -> UInt8Array:
    return np.where(np.isnan(value), 9, 1).astype(np.uint8)


@given(columns=readings(), seed=st.integers(0, 2**32 - 1))
def test_the_order_of_arrival_changes_nothing(columns: tuple[Int64Array, Int64Array, Float64Array], seed: int) -> None:
    series, time_us, value = columns
    shuffled = np.random.default_rng(seed).permutation(len(series))
    order = shuffled[np.lexsort((time_us[shuffled], series[shuffled]))]
    again = derive_flags(series[order], time_us[order], value[order], stored_flags(value[order]), ALL)
    assert again.tolist() == derive_flags(series, time_us, value, stored_flags(value), ALL).tolist()


@given(columns=readings())
def test_a_series_is_judged_by_itself_alone(columns: tuple[Int64Array, Int64Array, Float64Array]) -> None:
    series, time_us, value = columns
    together = derive_flags(series, time_us, value, stored_flags(value), ALL)
    for one in np.unique(series):
        own = series == one
        alone = derive_flags(series[own], time_us[own], value[own], stored_flags(value[own]), ALL)
        assert together[own].tolist() == alone.tolist()


def one_series(gap_s: int, *numbers: float) -> tuple[Int64Array, Int64Array, Float64Array]:
    n = len(numbers)
    return np.zeros(n, np.int64), np.arange(n, dtype=np.int64) * gap_s * SECOND_US, values(*numbers)


@example(columns=one_series(600, 5, 30, 5)).via("the next reading makes a spike of this one")
@example(columns=one_series(590, 5, 5, 5, 5, 5)).via("a stuck run reaches over its first gap")
@example(columns=one_series(600, 30, 5, 30, 5, 30, 5, 30, -100)).via("the first of many spikes is no neighbour")
@given(columns=readings())
def test_the_stated_context_is_enough(columns: tuple[Int64Array, Int64Array, Float64Array]) -> None:
    series, time_us, value = columns
    for limits in (ALL, ONLY_STUCK):
        whole = derive_flags(series, time_us, value, stored_flags(value), limits)
        back_s, ahead_s = context_s(limits)
        for row in range(len(series)):  # each reading as the only one of its window
            since_us = time_us - time_us[row]
            near = (series == series[row]) & (since_us >= -back_s * SECOND_US) & (since_us <= ahead_s * SECOND_US)
            part = derive_flags(series[near], time_us[near], value[near], stored_flags(value[near]), limits)
            assert part[since_us[near] == 0].tolist() == [whole[row]]


@given(columns=readings())
def test_stuck_runs_are_those_that_a_plain_loop_finds(columns: tuple[Int64Array, Int64Array, Float64Array]) -> None:
    series, time_us, value = columns
    got = derive_flags(series, time_us, value, stored_flags(value), ONLY_STUCK)
    for one in np.unique(series):
        rows = [row for row in np.flatnonzero(series == one).tolist() if not np.isnan(value[row])]
        for place, row in enumerate(rows):
            assert (got[row] == 3) == _is_stuck([(int(time_us[r]), float(value[r])) for r in rows[: place + 1]])


def _is_stuck(history: list[tuple[int, float]]) -> bool:
    (now_us, now), within = history[-1], [history[-1][1]]
    for (later_us, _), (time_us, value) in zip(history[::-1], history[-2::-1], strict=False):
        if later_us - time_us > 600 * SECOND_US:
            return False
        within.append(value)
        if now_us - time_us >= 1800 * SECOND_US:
            return max(within) - min(within) < 0.5 and now != 0.0
    return False


def test_limits_come_from_the_quantity() -> None:
    assert limits_of(QUANTITIES["relative_humidity"]).rests_at == (100.0,)
    assert context_s(limits_of(QUANTITIES["energy_import"])) == (0, 0)
