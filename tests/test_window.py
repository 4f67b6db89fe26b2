"""Windows tile time without gaps, whatever the zone's clock does, and sums in them depend on nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.window import WINDOWS, aggregate, locate, mean, sum_by, window_at, windows_between
from devices.errors import ConfigError
from devices.quantity import Aggregation

ALMATY = ZoneInfo("Asia/Almaty")
HOUR = 3_600_000_000
ZONES = [ALMATY, ZoneInfo("UTC"), ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kathmandu"), ZoneInfo("America/New_York")]

moments = st.integers(946_684_800_000_000, 2_000_000_000_000_000)
lengths = st.integers(1, 100 * HOUR)


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("day", "hours"),
    [
        pytest.param("2024-02-28", 24, id="before the change"),
        pytest.param("2024-02-29", 25, id="UTC+6 becomes UTC+5 at its end"),
        pytest.param("2024-03-01", 24, id="after it"),
    ],
)
def test_local_days_of_almaty_know_the_change_of_2024(day: str, hours: int) -> None:
    noon = utc(f"{day}T06:30:00")
    start, stop = windows_between("1d", noon, noon + 1, ALMATY)
    assert (int(stop[0]) - int(start[0])) / HOUR == hours
    assert datetime.fromtimestamp(int(start[0]) / 1e6, ALMATY).isoformat()[:16] == f"{day}T00:00"


@pytest.mark.parametrize(
    ("day", "hours"), [pytest.param("2026-03-29", 23, id="spring"), pytest.param("2026-10-25", 25, id="autumn")]
)
def test_days_of_a_zone_with_summer_time_have_23_or_25_hours(day: str, hours: int) -> None:
    noon = utc(f"{day}T10:00:00")
    start, stop = windows_between("1d", noon, noon + 1, ZoneInfo("Europe/Berlin"))
    assert (int(stop[0]) - int(start[0])) / HOUR == hours


@given(start=moments, length=lengths, name=st.sampled_from(WINDOWS), tz=st.sampled_from(ZONES))
def test_windows_tile_a_span(start: int, length: int, name: str, tz: ZoneInfo) -> None:
    starts, stops = windows_between(name, start, start + length, tz)
    assert starts[0] <= start < stops[0]
    assert starts[-1] < start + length <= stops[-1]
    assert (starts[1:] == stops[:-1]).all()


@given(times=st.lists(moments, min_size=1, max_size=20), name=st.sampled_from(WINDOWS), tz=st.sampled_from(ZONES))
def test_a_time_lies_in_its_window_and_the_window_in_the_tiling(times: list[int], name: str, tz: ZoneInfo) -> None:
    starts, stops = window_at(name, np.array(times), tz)
    assert ((starts <= times) & (times < stops)).all()
    for time, start in zip(times, starts.tolist(), strict=True):
        assert windows_between(name, time, time + 1, tz)[0].tolist() == [start]


@given(times=st.lists(moments, max_size=30), start=moments, length=lengths)
def test_locate_finds_the_window_or_none(times: list[int], start: int, length: int) -> None:
    starts, stops = windows_between("15min", start, start + length, ALMATY)
    for time, at in zip(times, locate(np.array(times, np.int64), starts, stops).tolist(), strict=True):
        holding = [n for n in range(len(starts)) if starts[n] <= time < stops[n]]
        assert holding == ([] if at < 0 else [at])


def test_no_span_has_no_windows() -> None:
    assert [len(edges) for edges in windows_between("1h", 5, 5, ALMATY)] == [0, 0]
    assert [len(edges) for edges in window_at("1d", np.empty(0, np.int64), ALMATY)] == [0, 0]


def test_a_window_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match="5min, 15min, 1h, 1d"):
        windows_between("10min", 0, 1, ALMATY)


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-1e6, 1e6)), max_size=60), st.integers(0, 4))
def test_a_groups_sum_is_the_same_to_the_last_bit_whatever_stands_beside_it(
    rows: list[tuple[int, float]], chosen: int
) -> None:
    group, value = np.array([g for g, _ in rows], np.int64), np.array([v for _, v in rows], np.float64)
    alone = group == chosen
    beside = sum_by(group, value, 5)[chosen]
    by_itself = sum_by(group[alone] * 0, value[alone], 1)[0]
    one_by_one = 0.0
    for number in value[alone].tolist():
        one_by_one += number
    assert beside == by_itself == one_by_one


@given(st.lists(st.floats(1.0, 200.0), min_size=1, max_size=20))
def test_a_harmonic_mean_is_never_above_the_arithmetic_one(speeds: list[float]) -> None:
    group, value = np.zeros(len(speeds), np.int64), np.array(speeds)
    slow, plain = aggregate(Aggregation.FLOW_WEIGHTED, group, value, 1)[0], mean(group, value, 1)[0]
    assert min(speeds) * (1 - 1e-12) <= slow <= plain * (1 + 1e-12)


@given(st.floats(0, 359), st.lists(st.floats(-60, 60), min_size=1, max_size=9))
def test_a_mean_direction_turns_with_its_directions(turn: float, spread: list[float]) -> None:
    group = np.zeros(len(spread), np.int64)
    still = aggregate(Aggregation.CIRCULAR, group, np.array(spread) % 360, 1)[0]
    turned = aggregate(Aggregation.CIRCULAR, group, (np.array(spread) + turn) % 360, 1)[0]
    assert abs((turned - still - turn + 180) % 360 - 180) < 1e-6


@given(st.lists(st.floats(20, 120), min_size=1, max_size=20))
def test_a_mean_level_lies_between_the_arithmetic_mean_and_the_loudest(levels: list[float]) -> None:
    loud = aggregate(Aggregation.ENERGETIC, np.zeros(len(levels), np.int64), np.array(levels), 1)[0]
    assert sum(levels) / len(levels) - 1e-9 <= loud <= max(levels) + 1e-9


@pytest.mark.parametrize(
    ("how", "expected"), [pytest.param(Aggregation.SUM, 6.0, id="sum"), pytest.param(Aggregation.MEAN, 3.0, id="mean")]
)
def test_sums_are_summed_and_means_averaged(how: Aggregation, expected: float) -> None:
    found = aggregate(how, np.array([0, 0]), np.array([2.0, 4.0]), 2)
    assert found[0] == expected
    assert np.isnan(found[1])


@pytest.mark.parametrize("how", [Aggregation.COUNTER, Aggregation.STATE])
def test_counters_and_states_are_never_averaged(how: Aggregation) -> None:
    with pytest.raises(ConfigError, match="cannot be averaged"):
        aggregate(how, np.array([0]), np.array([1.0]), 1)


def test_the_days_of_a_year_have_all_its_hours() -> None:
    start, stop = windows_between("1d", utc("2023-12-31T18:00:00"), utc("2024-12-31T19:00:00"), ALMATY)
    assert len(start) == 366
    assert int(stop[-1] - start[0]) == timedelta(days=366, hours=1) / timedelta(microseconds=1)
