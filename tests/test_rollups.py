"""Hourly roll-ups: overviews answer the same with them as without, and never from one that is no longer true."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from devices.reading import Batch, Int64Array
from qala.store import open_store, sound
from qala.store.base import Aggregate, Selector, Store
from qala.store.conformance import DAY, EVERY, MINUTE, T0, air, batch
from qala.store.duckdb import DuckDBStore
from qala.store.duckdb_rollups import AGAIN_US, HOUR_US, route, untidy_weeks

TODAY = T0 + 5 * DAY  # the readings below end here
NOW = TODAY + 12 * HOUR_US
ALL = frozenset(Aggregate)
COUNTED = frozenset({Aggregate.COUNT, Aggregate.GOOD, Aggregate.SOUND})
EXACT = ALL - {Aggregate.SUM, Aggregate.MEAN, Aggregate.P50, Aggregate.P95}
QUANTITIES = ("temperature", "noise", "relative_humidity", "letters")
EVERY_HOUR = np.arange(T0, TODAY + 1, HOUR_US, dtype=np.int64)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDBStore]:
    store = DuckDBStore.open(tmp_path / "readings.duckdb")
    store.register([air(f"air/{n}", quantity) for n, quantity in enumerate(QUANTITIES)])
    yield store
    store.close()


def five_days(seed: int = 1) -> Batch:
    """Build readings every 20 minutes of four series over five days: noise, steps, stillness, gaps, some bad and missing."""
    chance = np.random.default_rng(seed)
    series = np.repeat(np.arange(1, 5, dtype=np.int32), 5 * 72)
    time_us = np.tile(T0 + np.arange(5 * 72) * 20 * MINUTE, 4).astype(np.int64)
    value = np.round(20 + 5 * chance.standard_normal(len(series)) * (chance.random(len(series)) < 0.4), 1)
    flag = chance.choice(np.array([1, 1, 1, 1, 2, 3, 4, 9], np.uint8), len(series))
    value[flag == 9] = np.nan
    kept = np.flatnonzero(chance.random(len(series)) < 0.9)
    origin = np.ones(len(series), np.int64)
    return Batch(series, time_us, value, flag, origin.astype(np.int32), origin, time_us + 1).take(kept)


def tended(store: Store, now_us: int = NOW) -> None:
    while store.tend(now_us):
        pass


def rolled(store: DuckDBStore) -> list[int]:
    """Return the days, counted from T0, that have roll-ups which may be used."""
    return [day - T0 // DAY for (day,) in asked(store, "SELECT day FROM days WHERE rolled ORDER BY day")]


def asked(store: DuckDBStore, query: str) -> list[Any]:
    return store._writer.execute(query).fetchall()


def agree(one: Store, other: Store, edges_us: Int64Array, aggregates: frozenset[Aggregate] = ALL) -> None:
    """Check that two stores answer the same, but for the last bits of sums and means and of interpolated quantiles."""
    rows, expected = (store.overview(EVERY, edges_us, aggregates).to_pylist() for store in (one, other))
    assert [(row["series"], row["start_us"]) for row in rows] == [(row["series"], row["start_us"]) for row in expected]
    for name in aggregates:
        found, known = ([row[name] for row in side] for side in (rows, expected))
        if name in EXACT:
            assert found == known, name
        else:
            assert [number is None for number in found] == [number is None for number in known]
            pairs = [pair for pair in zip(found, known, strict=True) if pair[0] is not None]
            assert all(math.isclose(*pair, rel_tol=1e-12, abs_tol=1e-9) for pair in pairs), name


def in_memory(*batches: Batch) -> Store:
    store = open_store("memory:")
    store.register([air(f"air/{n}", quantity) for n, quantity in enumerate(QUANTITIES)])
    for readings in batches:
        store.append(readings, None)
    return store


def test_closed_days_are_rolled_up_and_the_last_waits_for_its_context(store: DuckDBStore) -> None:
    store.append(five_days(), None)
    tended(store)
    assert rolled(store) == [0, 1, 2, 3, 4]
    assert asked(store, "SELECT count(*) FROM rollups WHERE n > 0")[0][0] > 400
    later = batch((1, TODAY + HOUR_US, 20.0))
    store.append(later, None)
    tended(store)
    assert rolled(store) == [0, 1, 2, 3, 4]  # the sixth day is still open


def local_midnights(zone: str, first: datetime, days: int) -> Int64Array:
    starts = [(first + timedelta(days=n)).replace(tzinfo=ZoneInfo(zone)) for n in range(days + 1)]
    return np.array([int(start.timestamp()) * 1_000_000 for start in starts], np.int64)


FIRST = datetime(1970, 1, 1) + timedelta(microseconds=T0 - DAY)


@pytest.mark.parametrize(
    "edges",
    [
        pytest.param(EVERY_HOUR, id="hours"),
        pytest.param(EVERY_HOUR[::24], id="UTC days"),
        pytest.param(EVERY_HOUR[:2], id="one hour"),
        pytest.param(EVERY_HOUR + 30 * MINUTE, id="hours from half past"),
        pytest.param(EVERY_HOUR[[0, 1, 2, 5, 6, 30, 31, 90]], id="uneven hours"),
        pytest.param(np.array([T0 + 1, T0 + 2 * DAY + 1, T0 + 3 * DAY, TODAY + DAY], np.int64), id="ends within hours"),
        pytest.param(np.arange(T0, T0 + DAY + 1, 5 * MINUTE, dtype=np.int64), id="five minutes"),
        pytest.param(np.array([0, T0 + DAY, 30_000 * DAY], np.int64), id="before and after everything"),
        pytest.param(local_midnights("Asia/Almaty", FIRST, 6), id="days of Almaty"),
        pytest.param(local_midnights("Asia/Kolkata", FIRST, 6), id="days with half an hour"),
        pytest.param(local_midnights("Asia/Kathmandu", FIRST, 6), id="days with three quarters"),
    ],
)
def test_overviews_from_rollups_are_those_of_the_readings(store: DuckDBStore, edges: Int64Array) -> None:
    store.append(five_days(), None)
    tended(store)
    plain = in_memory(five_days())
    agree(store, plain, edges)
    agree(store, plain, edges, ALL - {Aggregate.P50, Aggregate.P95})
    agree(store, plain, edges, ALL - {Aggregate.P50, Aggregate.P95, Aggregate.SOUND})
    agree(store, plain, edges, COUNTED)


def test_a_day_on_which_the_clock_changes_is_the_sum_of_its_hours(store: DuckDBStore) -> None:
    """Berlin, 31 March 2024: 23 hours; every one of them comes from roll-ups."""
    edges = local_midnights("Europe/Berlin", datetime(2024, 3, 30), 3)
    assert np.diff(edges).tolist() == [24 * HOUR_US, 23 * HOUR_US, 24 * HOUR_US]
    found = route(edges, np.arange(edges[0] // DAY, edges[-1] // DAY + 1), whole=False)
    assert (len(found.hours), list(found.rest)) == (1, [])
    readings = batch(*((1, int(edges[0]) + n * 20 * MINUTE, float(n)) for n in range(213)))
    store.append(readings, None)
    tended(store, int(edges[-1]) + 3 * DAY)
    agree(store, in_memory(readings), edges)
    assert store.overview(EVERY, edges, COUNTED)["count"].to_pylist() == [72, 69, 72]


def poisoned(store: DuckDBStore) -> None:
    """Put numbers into the roll-ups that no reading has, so that it shows where an answer comes from."""
    asked(store, "UPDATE rollups SET n = 1000, good = 1000, sum = 1e9, p95 = 1e9")


@pytest.mark.parametrize(
    ("edges", "aggregates", "from_rollups"),
    [
        pytest.param(EVERY_HOUR, ALL, True, id="quantiles of hours"),
        pytest.param(EVERY_HOUR[::24] - 5 * HOUR_US, frozenset({Aggregate.COUNT}), True, id="counts of local days"),
        pytest.param(EVERY_HOUR[::24], frozenset({Aggregate.P95, Aggregate.COUNT}), False, id="quantiles of days"),
        pytest.param(EVERY_HOUR + 1, frozenset({Aggregate.COUNT}), False, id="hours that are not of the clock"),
    ],
)
def test_rollups_are_used_where_they_answer_exactly(
    store: DuckDBStore, edges: Int64Array, aggregates: frozenset[Aggregate], from_rollups: bool
) -> None:
    store.append(five_days(), None)
    tended(store)
    poisoned(store)
    counts = store.overview(EVERY, edges, aggregates)["count"].to_pylist()
    assert (max(counts) >= 1000) == from_rollups


@pytest.mark.parametrize(
    ("change", "spoiled"),
    [
        pytest.param(lambda s: s.append(batch((1, T0 + DAY + 1, 7.0)), None), [0, 1, 2], id="a late reading"),
        pytest.param(
            lambda s: s.append(batch((3, T0 + 2 * DAY + 20 * HOUR_US + 1, 7.0)), None), [2, 3, 4], id="in the evening"
        ),
        pytest.param(lambda s: s.append(corrected(), None), [2, 3], id="a correction"),
        pytest.param(lambda s: s.retract(*keys(five_days())), [0, 1, 2, 3, 4], id="retraction"),
        pytest.param(
            lambda s: s.delete_before(T0 + DAY + 1, Selector(series=frozenset({2}))), [0, 1, 2], id="deletion"
        ),
    ],
)
def test_what_a_write_may_change_is_no_longer_answered_from_rollups(
    store: DuckDBStore, change: Any, spoiled: list[int]
) -> None:
    plain = in_memory(five_days())
    store.append(five_days(), None)
    tended(store)
    for one in (store, plain):
        change(one)
    assert rolled(store) == [day for day in range(5) if day not in spoiled]
    agree(store, plain, EVERY_HOUR)
    tended(store, NOW + AGAIN_US)
    assert set(rolled(store)) == {day for (day,) in asked(store, f"SELECT day - {T0 // DAY} FROM days")}
    agree(store, plain, EVERY_HOUR)


def corrected() -> Batch:
    """Build a correction of a reading that is there, at noon of the third day, and so neither near nor far enough to more."""
    known = five_days()
    row = int(np.flatnonzero((known.series == 1) & (known.time_us >= T0 + 2 * DAY + 12 * HOUR_US))[0])
    one = known.take(np.array([row]))
    one.revision[:] = 9
    one.value[:], one.flag[:] = 3.5, 1
    return one


def keys(readings: Batch) -> tuple[Any, Any, Any]:
    some = readings.take(np.arange(0, len(readings), 50))
    return some.series, some.time_us, some.origin


def test_a_deletion_of_all_series_forgets_their_rollups(store: DuckDBStore) -> None:
    store.append(five_days(), None)
    tended(store)
    store.delete_before(T0 + 2 * DAY + HOUR_US)
    assert asked(store, f"SELECT count(*) FROM rollups WHERE hour_us < {T0 + 2 * DAY}") == [(0,)]
    plain = in_memory(five_days())
    plain.delete_before(T0 + 2 * DAY + HOUR_US)
    agree(store, plain, EVERY_HOUR)


def test_a_day_that_readings_trickle_into_is_rolled_up_again_after_a_while(store: DuckDBStore) -> None:
    store.append(five_days(), None)
    tended(store)
    store.append(batch((1, T0 + 4 * DAY + HOUR_US + 1, 7.0)), None)
    tended(store, NOW + AGAIN_US // 2)
    assert rolled(store) == [0, 1, 2, 3]
    tended(store, NOW + AGAIN_US)
    assert rolled(store) == [0, 1, 2, 3, 4]


def test_the_rollups_of_a_week_are_put_into_one_run_when_it_is_over(store: DuckDBStore) -> None:
    monday = T0 // (7 * DAY) * 7 * DAY
    readings = batch(*((s, monday + n * 4 * HOUR_US, float(n)) for n in range(9 * 6) for s in (1, 2)))
    store.append(readings, None)
    tended(store, monday + 12 * DAY)
    found = asked(store, f"SELECT series, hour_us FROM rollups WHERE hour_us < {monday + 7 * DAY} ORDER BY rowid")
    assert len(found) == 2 * 42
    assert found == sorted(found)
    assert untidy_weeks(store._writer) == []
    agree(store, in_memory(readings), np.arange(monday, monday + 9 * DAY + 1, HOUR_US))
    store.append(batch((1, monday + 1, 5.0)), None)
    tended(store, monday + 12 * DAY + AGAIN_US)
    found = asked(store, f"SELECT series, hour_us FROM rollups WHERE hour_us < {monday + 7 * DAY} ORDER BY rowid")
    assert found == sorted(found)


LATE = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.integers(-30, 5 * 72 * 4).map(lambda n: T0 + n * 5 * MINUTE),
        st.sampled_from([0.0, 20.0, 20.0, 20.1, 45.0, -3.0]),
        st.sampled_from([1, 1, 1, 2, 3, 4]),
        st.integers(0, 2),
    ),
    max_size=8,
)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("append"), LATE),
        st.tuples(st.just("retract"), st.integers(0, 40)),
        st.tuples(st.just("delete"), st.tuples(st.integers(1, 4), st.integers(0, 60).map(lambda n: T0 + n * HOUR_US))),
        st.tuples(st.just("tend"), st.integers(0, 6).map(lambda n: T0 + n * DAY + 9 * HOUR_US)),
    ),
    max_size=4,
)
STEPS = st.sampled_from([HOUR_US, HOUR_US, 3 * HOUR_US, DAY, 30 * MINUTE, 7 * MINUTE, DAY + 1])
EDGES = st.builds(
    lambda start, steps: np.cumsum([T0 + start, *steps]).astype(np.int64),
    st.sampled_from([0, -5 * HOUR_US, -5 * HOUR_US - 30 * MINUTE, DAY, 17 * HOUR_US, 12_345]),
    st.lists(STEPS, min_size=1, max_size=12) | st.builds(lambda step, n: [step] * n, STEPS, st.integers(1, 100)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 3),
    changes=CHANGES,
    edges=st.lists(EDGES, min_size=1, max_size=3),
    wanted=st.sets(st.sampled_from(list(ALL)), min_size=1),
)
def test_any_overview_is_that_of_the_plain_store_whatever_is_rolled_up(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    changes: list[Any],
    edges: list[Int64Array],
    wanted: set[Aggregate],
) -> None:
    store = DuckDBStore.open(tmp_path_factory.mktemp("store") / "readings.duckdb")
    store.register([air(f"air/{n}", quantity) for n, quantity in enumerate(QUANTITIES)])
    plain = in_memory()
    for one in (store, plain):
        one.append(five_days(seed), None)
    for n, (what, given_) in enumerate([("tend", NOW), *changes]):
        for one in (store, plain):
            changed(one, what, given_, n)
    for some in edges:
        agree(store, plain, some, frozenset(wanted))
    agree(store, plain, EVERY_HOUR)
    store.close()


def changed(store: Store, what: str, how: Any, number: int) -> None:
    if what == "append":
        store.append(batch(*((*reading, 1 + number) for reading in how)), None)
    elif what == "retract":
        some = five_days(0).take(np.arange(how, how + 20))
        store.retract(some.series, some.time_us, some.origin)
    elif what == "delete":
        store.delete_before(how[1], Selector(series=frozenset({how[0]})))
    else:
        tended(store, how + number * AGAIN_US)


def test_rollups_that_other_checks_have_counted_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened() -> DuckDBStore:
        return DuckDBStore.open(tmp_path / "readings.duckdb")

    store = opened()
    store.register([air(f"air/{n}", quantity) for n, quantity in enumerate(QUANTITIES)])
    store.append(five_days(), None)
    tended(store)
    store.close()
    store = opened()
    assert rolled(store) == [0, 1, 2, 3, 4]
    store.close()
    strict = replace(sound.QUANTITIES["temperature"], step_max_per_h=0.1)
    monkeypatch.setattr(sound, "QUANTITIES", {**sound.QUANTITIES, "temperature": strict})
    store = opened()
    assert rolled(store) == []
    agree(store, in_memory(five_days()), EVERY_HOUR)
    tended(store)
    assert rolled(store) == [0, 1, 2, 3, 4]
    agree(store, in_memory(five_days()), EVERY_HOUR)
    store.close()
