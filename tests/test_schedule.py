"""From marks to values: what late, corrected, shuffled and doubled readings change, and what they leave alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest

from analytics.indicators import indicators
from analytics.schedule import Scheduler
from analytics.settings import AnalyticsSettings
from devices.device import Device, Placement, Registry, Zone
from devices.quantity import QUANTITIES, Aggregation
from devices.reading import Batch, Flag, Position, SeriesInfo
from devices.value import Value
from qala.state import open_state
from qala.state.dirty import Backlog, DirtyMarks
from qala.store import Store, open_store
from qala.store.base import Span, ValueSelector

TZ = ZoneInfo("Asia/Almaty")
SECOND, MINUTE, HOUR = 1_000_000, 60_000_000, 3_600_000_000
DAY_US = 1_767_207_600_000_000  # 2026-01-01 00:00 in Almaty
LATER = DAY_US + 72 * HOUR

REGISTRY = Registry(
    devices=[
        Device("air/a1", "air_station", interval_s=600),
        Device("air/a2", "air_station", interval_s=600),
        Device("road/d1", "traffic_detector", interval_s=300),
        Device("grid/m1", "electricity_meter", interval_s=900, modulus=1000.0, rated_kw=100.0),
    ],
    zones=[
        Zone("centre", "district", {}, {}),
        Zone("ring", "road", {}, {}, free_flow_kmh=60.0),
        Zone("f1", "feeder", {}, {}, rated_kw=50.0),
        Zone("f2", "feeder", {}, {}, rated_kw=50.0),
    ],
    placements=[
        Placement("air/a1", ("centre",)),
        Placement("air/a2", ("centre",)),
        Placement("road/d1", ("ring",)),
        Placement("grid/m1", ("f1",)),
    ],
)


class Told(msgspec.Struct, frozen=True):
    """One reading as a message tells it."""

    device: str
    quantity: str
    time_us: int
    value: float
    revision: int = 0
    received_us: int = 0


class Line:
    """A store with its scheduler, and the way that readings take to it."""

    def __init__(self, folder: Path, url: str = "memory:", registry: Registry = REGISTRY, **settings: Any) -> None:
        self.store: Store = open_store(url)
        self.state = open_state(f"sqlite:///{folder / 'state.sqlite'}")
        self.registry = registry
        self.settings = AnalyticsSettings(**{"amend_every_s": 0, **settings})
        self.seen: list[Value] = []
        self.judged: list[Value] = []
        self.disk_is_full = False
        self.restart()
        self.number = 0

    def restart(self) -> None:
        """Make the scheduler anew, as a restart of the process would."""
        self.dirty = DirtyMarks(self.state)
        self.scheduler = Scheduler(
            self.store,
            self.dirty,
            lambda: self.registry,
            indicators(),
            self.settings,
            TZ,
            judge=self.judge,
            on_values=self.seen.extend,
        )

    def judge(self, values: Sequence[Value]) -> None:
        if self.disk_is_full:
            raise OSError("the disk is full")
        self.judged += values

    def tell(self, readings: Sequence[Told]) -> None:
        """Mark and append, as the projector does: one message a reading."""
        series = self.store.register([_series(one) for one in readings])
        times = np.array([one.time_us for one in readings], np.int64)
        self.number += len(readings)
        upto = Position("j", self.number)
        self.dirty.mark(series, times // (300 * SECOND), upto)
        self.store.append(
            Batch(
                series=series,
                time_us=times,
                value=np.array([one.value for one in readings], np.float64),
                flag=np.full(len(readings), Flag.GOOD, np.uint8),
                revision=np.array([one.revision for one in readings], np.int32),
                origin=np.arange(self.number - len(readings), self.number) + 1,
                received_us=np.array([one.received_us or one.time_us for one in readings], np.int64),
            ),
            upto,
        )

    def settle(self, now_us: int = LATER) -> list[Value]:
        """Step until nothing is due; return the values that were new or changed."""
        self.seen.clear()
        while self.scheduler.step(now_us):
            pass
        return list(self.seen)

    def values(self) -> dict[tuple[str, str, str, int], Value]:
        """Return every newest value, without what two stores may differ in."""
        rows = self.store.values(ValueSelector(), Span(0, 2 * LATER)).to_pylist()
        found = [msgspec.convert({**row, "detail": msgspec.json.decode(row["detail"])}, Value) for row in rows]
        return {_key(value): msgspec.structs.replace(value, known_us=0, revision=0) for value in found}


def _series(one: Told) -> SeriesInfo:
    span = REGISTRY.devices[one.device].interval_s if _sums(one.quantity) else 0
    return SeriesInfo(one.device, one.quantity, "", span or 0, QUANTITIES[one.quantity].unit)


def _sums(quantity: str) -> bool:
    return QUANTITIES[quantity].aggregation is Aggregation.SUM


def _key(value: Value) -> tuple[str, str, str, int]:
    return value.indicator, value.zone, value.window, value.start_us


def every(device: str, quantity: str, step_s: int, hours: float, number: Callable[[int], float]) -> list[Told]:
    """Tell a quantity at a steady pace from the day's beginning."""
    steps = range(int(hours * 3600 / step_s))
    return [Told(device, quantity, DAY_US + n * step_s * SECOND, number(n)) for n in steps]


def slice_of_a_day(hours: float = 26) -> list[Told]:
    """Tell of a city's first hours: two stations, a detector and a meter that rolls over."""
    jitter = random.Random(7)
    return [
        *every("air/a1", "pm2_5", 600, hours, lambda n: 20 + 5 * np.sin(n / 9) + jitter.random()),
        *every("air/a2", "pm2_5", 600, hours, lambda n: 30 + 5 * np.sin(n / 7) + jitter.random()),
        *every("air/a1", "no2", 600, hours, lambda n: 40 + 9 * np.sin(n / 5) + jitter.random()),
        *every("road/d1", "vehicle_count", 300, hours, lambda n: 20 + n % 7),
        *every("road/d1", "speed", 300, hours, lambda n: 45 + 10 * np.cos(n / 4) + jitter.random()),
        *every("grid/m1", "energy_import", 900, hours, lambda n: (990 + 2.5 * n + jitter.random()) % 1000),
    ]


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


def test_every_indicator_speaks_of_a_day(line: Line) -> None:
    line.tell(slice_of_a_day())
    line.settle()
    spoken = {(name, window) for name, _, window, _ in line.values()}
    assert spoken == {(one.name, window) for one in indicators().values() for window in one.windows}
    assert {value.status for value in line.values().values()} <= {"ok", "incomplete"}


def test_a_window_is_computed_when_it_has_ended(line: Line) -> None:
    line.tell(every("road/d1", "speed", 300, 1, lambda _: 50.0))
    line.settle(DAY_US + 10 * MINUTE)
    assert [key[3] for key in sorted(line.values()) if key[0] == "space_mean_speed"] == [DAY_US, DAY_US + 5 * MINUTE]
    line.settle(DAY_US + HOUR)
    assert ("space_mean_speed", "ring", "1h", DAY_US) in line.values()


def test_a_value_says_what_it_is_made_of(line: Line) -> None:
    line.tell(every("road/d1", "speed", 300, 1, lambda _: 48.0))
    line.settle()
    value = line.values()["travel_time_index", "ring", "15min", DAY_US]
    assert (value.value, value.unit, value.n_good, value.n_expected) == (1.25, "1", 3, 3)
    assert (value.method, value.status, value.final_us) == ("travel-time-index", "ok", value.stop_us + HOUR)
    assert value.detail == {"free_flow_kmh": 60.0, "weights": "equal"}


def test_a_silent_device_lowers_coverage(line: Line) -> None:
    line.tell(every("air/a1", "pm2_5", 600, 1, lambda _: 20.0))
    line.settle()
    value = line.values()["pm2_5_mean", "centre", "1h", DAY_US]
    assert (value.value, value.n_good, value.n_expected, value.coverage) == (20.0, 6, 12, 0.5)


def test_too_little_coverage_is_no_number(line: Line) -> None:
    line.tell(every("air/a1", "pm2_5", 600, 0.5, lambda _: 20.0))
    line.settle()
    value = line.values()["pm2_5_mean", "centre", "1h", DAY_US]
    assert (value.value, value.status, value.n_good) == (None, "incomplete", 3)


def test_a_window_without_readings_has_no_value(line: Line) -> None:
    line.tell(every("air/a1", "pm2_5", 600, 1, lambda _: 20.0))
    line.settle()
    assert {key[3] for key in line.values() if key[:3] == ("nowcast_aqi", "centre", "1h")} == {DAY_US}


def test_suspect_readings_do_not_count(line: Line) -> None:
    line.tell(every("road/d1", "speed", 300, 6, lambda _: 50.0))
    line.settle()
    stuck = line.values()["space_mean_speed", "ring", "1h", DAY_US + 5 * HOUR]
    assert (stuck.value, stuck.status, stuck.n_good) == (None, "incomplete", 0)
    assert line.values()["space_mean_speed", "ring", "1h", DAY_US].value == pytest.approx(50.0)


@pytest.mark.parametrize("seed", range(2))
def test_messages_shuffled_and_doubled_give_the_same_values(tmp_path: Path, seed: int) -> None:
    told = slice_of_a_day()
    told += [msgspec.structs.replace(one, value=one.value + 3, revision=1) for one in told[::50]]
    straight = Line(tmp_path)
    straight.tell(told)
    straight.settle()
    chance = random.Random(seed)
    (tmp_path / "shuffled").mkdir()
    shuffled = Line(tmp_path / "shuffled")
    mixed = chance.sample(told + chance.sample(told, 300), len(told) + 300)
    clock = sorted(chance.choice([DAY_US + 9 * HOUR, LATER]) for _ in mixed[::250])
    for first, now_us in zip(range(0, len(mixed), 250), clock, strict=True):
        shuffled.tell(mixed[first : first + 250])
        shuffled.scheduler.step(now_us)
    shuffled.settle()
    assert _bytes(shuffled.values().values()) == _bytes(straight.values().values())


def _bytes(values: Iterable[Value]) -> bytes:
    ordered = sorted(values, key=_key)
    return msgspec.json.encode(ordered, order="deterministic")


def test_both_engines_give_the_same_values(tmp_path: Path) -> None:
    lines = []
    for n, url in enumerate(["memory:", f"duckdb://{tmp_path / 'readings.duckdb'}"]):
        (tmp_path / str(n)).mkdir()
        lines.append(Line(tmp_path / str(n), url))
        lines[-1].tell(slice_of_a_day())
        lines[-1].settle()
    memory, duckdb = lines
    assert _bytes(memory.values().values()) == _bytes(duckdb.values().values())
    duckdb.store.close()


def test_windows_do_not_depend_on_what_else_is_computed(tmp_path: Path) -> None:
    whole = Line(tmp_path)
    whole.tell(slice_of_a_day(12))
    whole.settle()
    (tmp_path / "pieces").mkdir()
    pieces = Line(tmp_path / "pieces", windows_max=61, readings_max=1000)
    pieces.tell(slice_of_a_day(12))
    pieces.settle()
    assert _bytes(pieces.values().values()) == _bytes(whole.values().values())


def test_a_late_reading_changes_exactly_the_windows_that_depend_on_it(line: Line) -> None:
    late = Told("air/a1", "pm2_5", DAY_US + 90 * MINUTE, 80.0, received_us=LATER)
    on_time = [one for one in slice_of_a_day() if (one.device, one.time_us) != (late.device, late.time_us)]
    line.tell(on_time)
    line.settle()
    before = line.values()
    line.tell([late])
    changed = {(v.indicator, v.window, (v.start_us - DAY_US) // MINUTE) for v in line.settle()}
    assert changed == {
        ("pm2_5_mean", "15min", 90),
        ("pm2_5_mean", "1h", 60),
        *(("nowcast_aqi", "1h", 60 * hour) for hour in range(1, 13)),
        ("european_aqi", "1h", 60),
        ("aqi", "1d", 0),
    }
    untouched = {key for key, value in line.values().items() if before.get(key) == value}
    assert len(before) - len(untouched) == len(changed)


def test_a_correction_writes_a_new_revision_and_the_old_one_can_still_be_read(line: Line) -> None:
    line.tell(every("air/a1", "pm2_5", 600, 1, lambda _: 20.0))
    line.settle()
    line.tell([Told("air/a1", "pm2_5", DAY_US, 80.0, revision=1, received_us=LATER)])
    assert {value.value for value in line.settle() if value.indicator == "pm2_5_mean" and value.window == "1h"} == {
        30.0
    }
    select = ValueSelector(indicators=frozenset({"pm2_5_mean"}), windows=frozenset({"1h"}))
    span = Span(DAY_US, DAY_US + HOUR)
    assert line.store.values(select, span, as_of_us=LATER - 1).to_pylist()[0]["value"] == 20.0
    assert line.store.values(select, span).to_pylist()[0]["revision"] == 2


def test_the_same_reading_again_writes_nothing(line: Line) -> None:
    line.tell(slice_of_a_day())
    line.settle()
    line.tell(slice_of_a_day())
    assert line.settle() == []


def test_a_register_that_rolls_over_goes_on_counting(line: Line) -> None:
    line.tell(every("grid/m1", "energy_import", 900, 2.5, lambda n: (995.0 + 2 * n) % 1000))
    line.settle()
    values = [line.values()["interval_energy", "f1", "1h", DAY_US + n * HOUR].value for n in range(2)]
    assert values == [8.0, 8.0]
    assert line.values()["feeder_load", "f1", "15min", DAY_US].value == 16.0


def test_a_meter_that_moves_takes_its_energy_along(tmp_path: Path) -> None:
    moved = Registry(
        REGISTRY.devices.values(),
        REGISTRY.zones.values(),
        [
            Placement("grid/m1", ("f1",), until_us=DAY_US + HOUR),
            Placement("grid/m1", ("f2",), since_us=DAY_US + HOUR),
        ],
    )
    line = Line(tmp_path, registry=moved)
    line.tell(every("grid/m1", "energy_import", 900, 3.5, lambda n: 100.0 + 2 * n))
    line.settle()
    zones = {
        (key[1], (key[3] - DAY_US) // HOUR)
        for key, v in line.values().items()
        if key[0] == "interval_energy" and v.value
    }
    assert {zone for zone, hour in zones if hour < 1} == {"f1"}
    assert {zone for zone, hour in zones if hour >= 1} == {"f2"}


@pytest.mark.parametrize(
    ("told", "window", "ready"),
    [
        pytest.param(
            Told("air/a1", "pm2_5", DAY_US + 14 * MINUTE, 1.0),
            "15min",
            DAY_US + 15 * MINUTE,
            id="its own reading: at its end",
        ),
        pytest.param(
            Told("air/a1", "pm2_5", DAY_US + 16 * MINUTE, 1.0),
            "15min",
            DAY_US + 20 * MINUTE,
            id="what context checks look at: once a bucket",
        ),
        pytest.param(
            Told("grid/m1", "energy_import", DAY_US + 15 * MINUTE, 1.0),
            "15min",
            DAY_US + 15 * MINUTE,
            id="the closing reading of a slow register: at once",
        ),
    ],
)
def test_when_a_window_may_be_computed(line: Line, told: Told, window: str, ready: int) -> None:
    line.tell([told])
    line.scheduler.step(told.time_us - 1)
    of_it = ("pm2_5_mean", window) if told.quantity == "pm2_5" else ("interval_energy", window)
    due = {(one.indicator, one.window, one.start_us): one.ready_us for one in line.dirty.due(LATER)}
    assert due[*of_it, DAY_US] == ready


def test_a_trickle_of_late_readings_amends_a_window_once_in_a_while(tmp_path: Path) -> None:
    line = Line(tmp_path, amend_every_s=10)
    line.tell(every("air/a1", "pm2_5", 600, 1, lambda _: 20.0))
    line.settle()
    amended = []
    for tick in range(1, 41):
        line.tell([Told("air/a2", "pm2_5", DAY_US + tick * MINUTE, 20.0 + tick, received_us=LATER)])
        found = line.settle(LATER + tick * SECOND)
        amended += [tick for value in found if (value.indicator, value.window) == ("pm2_5_mean", "1h")]
    assert amended == [10, 20, 30, 40]


def test_a_lone_late_reading_amends_its_windows_at_once(tmp_path: Path) -> None:
    line = Line(tmp_path, amend_every_s=10)
    line.tell(every("air/a1", "pm2_5", 600, 1, lambda _: 20.0))
    line.settle()
    line.tell([Told("air/a1", "pm2_5", DAY_US, 80.0, revision=1, received_us=LATER)])
    assert line.settle(LATER + 11 * SECOND) != []


def test_windows_that_wait_to_be_amended_are_not_late(tmp_path: Path) -> None:
    line = Line(tmp_path, amend_every_s=10)
    told = every("road/d1", "speed", 300, 1, lambda _: 50.0)
    line.tell(told)
    line.settle()
    line.tell([msgspec.structs.replace(told[0], value=30.0, revision=1)])
    assert line.settle(LATER + SECOND) == []
    assert line.scheduler.backlog(LATER + 9 * SECOND) == Backlog(due=0, lag_s=0.0, marks=0)
    assert line.scheduler.backlog(LATER + 10 * SECOND).due > 0
    assert line.scheduler.step(LATER + 2 * SECOND, at_once=True) == 0, "those put off before stay so"


def test_a_restart_forgets_no_amendment(tmp_path: Path) -> None:
    line = Line(tmp_path, amend_every_s=10)
    told = every("road/d1", "speed", 300, 1, lambda _: 50.0)
    line.tell(told)
    line.settle()
    line.tell([msgspec.structs.replace(told[0], value=30.0, revision=1)])
    line.settle(LATER + SECOND)
    line.restart()
    assert line.settle(LATER + 10 * SECOND) != []


def test_values_are_looked_up_once(tmp_path: Path) -> None:
    line = Line(tmp_path)
    told = every("road/d1", "speed", 300, 1, lambda _: 50.0)
    line.tell(told)
    line.settle()
    with patch.object(line.store, "values", side_effect=AssertionError("the store was asked")):
        line.tell([msgspec.structs.replace(told[0], value=30.0, revision=1)])
        assert {value.revision for value in line.settle()} == {2}


def test_a_value_is_judged_once_as_it_is_and_again_when_it_could_not_be(tmp_path: Path) -> None:
    line = Line(tmp_path)
    told = every("road/d1", "speed", 300, 0.25, lambda _: 50.0)
    line.tell(told)
    line.disk_is_full = True
    with pytest.raises(OSError, match="full"):
        line.settle()
    line.disk_is_full = False
    line.settle()
    first = {_key(value) for value in line.judged}
    assert first == set(line.values())
    line.judged.clear()
    line.tell(told)
    line.settle()
    assert line.judged == []
    line.tell([msgspec.structs.replace(told[0], value=30.0, revision=1)])
    changed = line.settle()
    assert [_key(value) for value in line.judged] == [_key(value) for value in changed] != []


def test_a_put_that_fails_is_put_again(tmp_path: Path) -> None:
    line = Line(tmp_path)
    told = every("road/d1", "speed", 300, 0.25, lambda _: 50.0)
    line.tell(told)
    with (
        patch.object(line.store, "put_values", side_effect=OSError("no answer")),
        pytest.raises(OSError, match="answer"),
    ):
        line.settle()
    assert line.values() == {}
    assert {value.revision for value in line.settle()} == {1}
    assert line.values() != {}


def test_marks_wait_until_the_store_has_applied_them(line: Line) -> None:
    line.dirty.mark(np.array([1], np.int32), np.array([DAY_US // (300 * SECOND)]), Position("j", 99))
    assert line.scheduler.step(LATER) == 0
    assert line.scheduler.backlog(LATER).marks == 1


def test_the_backlog_says_how_much_is_due_and_for_how_long(line: Line) -> None:
    line.tell(every("road/d1", "speed", 300, 1, lambda _: 50.0))
    line.scheduler.step(DAY_US)
    backlog = line.scheduler.backlog(DAY_US + HOUR)
    assert (backlog.due > 0, backlog.lag_s) == (True, 3300.0)
    line.settle()
    assert line.scheduler.backlog(LATER).due == 0
    assert line.scheduler.counters.values > 0
