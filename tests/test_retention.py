"""Retention: which readings go when, and that no value ever becomes a smaller one because they went."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analytics.indicators import indicators
from analytics.kept import needed_us
from devices.device import Registry
from devices.errors import ConfigError, UnavailableError
from devices.kinds import kinds
from devices.reading import Position
from qala.config import load_config
from qala.doctor import check
from qala.store import open_store
from qala.store.base import Selector, Upkeep
from qala.store.retention import Retention, retained
from qala.store.settings import StoreSettings
from qala.upkeep import StoreUpkeep, retention_of
from qala.wiring import build
from tests.builders import EVER
from tests.test_schedule import DAY_US, HOUR, MINUTE, REGISTRY, Line, Told
from tests.wait import until

DAY = 24 * HOUR
KEEP_DAYS = 5.0
NOW = DAY_US + 20 * DAY


def settings(**keep_days: float) -> StoreSettings:
    return StoreSettings(keep_days=keep_days)


@pytest.mark.parametrize(
    ("keep_days", "quantity", "days"),
    [
        pytest.param({}, "pm2_5", None, id="nothing given: for ever"),
        pytest.param({"default": 90}, "pm2_5", 90, id="the default"),
        pytest.param({"default": 90, "traffic": 30}, "speed", 30, id="the domain before the default"),
        pytest.param({"traffic": 30, "speed": 400}, "speed", 400, id="the quantity before its domain"),
        pytest.param({"traffic": 30}, "pm2_5", None, id="another domain says nothing"),
        pytest.param({"air": 30, "weather": 60}, "temperature", 60, id="of two domains the longer"),
        pytest.param({"default": 90, "traffic": 30}, "made_up", 90, id="a quantity of a device's own: the default"),
    ],
)
def test_the_nearest_name_says_how_long_readings_are_kept(
    keep_days: dict[str, float], quantity: str, days: float | None
) -> None:
    kept = Retention(keep_days, kinds()).keep_us(quantity)
    assert kept == (None if days is None else days * DAY)


@pytest.mark.parametrize(
    ("keep_days", "said"),
    [
        pytest.param({"trafic": 30}, "did you mean 'traffic'?", id="a domain misspelt"),
        pytest.param({"pm25": 30}, "did you mean 'pm2_5'?", id="a quantity misspelt"),
        pytest.param({"qqq": 30}, "default", id="nothing like it"),
        pytest.param({"default": 1}, "days", id="less than indicators need"),
    ],
)
def test_a_retention_that_cannot_be_meant_ends_the_start_with_a_hint(
    tmp_path: Path, keep_days: dict[str, float], said: str
) -> None:
    config = load_config(flags={"data": tmp_path, "store.keep_days": keep_days})
    with pytest.raises(ConfigError) as caught:
        build(config)
    assert said in caught.value.hint
    assert not (tmp_path / "readings.duckdb").exists()
    assert [finding.hint for finding in check(config) if finding.subject == "retention"] == [caught.value.hint]


def test_three_days_are_enough_for_every_shipped_indicator() -> None:
    assert max(needed for needed, _ in needed_us(indicators(), kinds()).values()) < 3 * DAY
    retention_of(settings(default=3))


class Kept(Line):
    """A store with its scheduler and its upkeep, driven by hand."""

    def __init__(self, folder: Path, url: str, **keep_days: float) -> None:
        self.rebuilding = False
        self.town = REGISTRY
        super().__init__(folder, url)
        self.upkeep = StoreUpkeep(
            self.store,
            Retention(keep_days, kinds()),
            messages=lambda: 0,
            may_forget=lambda: not self.rebuilding,
            writing=lambda write: write(),
            now_us=lambda: NOW,
        )
        self.scheduler._kept_since = self.upkeep.kept_since
        self.scheduler._registry = lambda: self.town

    def mark_everything(self) -> None:
        """Mark all stored readings, as a change of the registry does."""
        rows = [row for rows in self.store.read(Selector(), EVER) for row in rows.to_pylist()]
        series = np.array([row["series"] for row in rows], np.int32)
        times = np.array([row["time_us"] for row in rows], np.int64)
        self.dirty.mark(series, times // (5 * MINUTE), Position("j", self.number))

    def times(self, quantity: str) -> list[int]:
        select = Selector(quantities=frozenset({quantity}))
        return [row["time_us"] for rows in self.store.read(select, EVER) for row in rows.to_pylist()]


def engines(folder: Path) -> list[str]:
    return ["memory:", f"duckdb://{folder}/readings.duckdb"]


@pytest.fixture(params=["memory", "duckdb"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    made: list[Kept] = []

    def make(**keep_days: float) -> Kept:
        url = engines(tmp_path)[request.param == "duckdb"]
        made.append(Kept(tmp_path, url, **keep_days))
        return made[-1]

    yield make
    for one in made:
        one.store.close()


def hours_of_air(first_day: int, days: int) -> list[Told]:
    """Readings of two stations, every ten minutes, that never stand still."""
    return [
        Told(device, "pm2_5", DAY_US + first_day * DAY + n * 10 * MINUTE, 20.0 + n % 7)
        for device in ("air/a1", "air/a2")
        for n in range(days * 144)
    ]


def roads(days: int) -> list[Told]:
    return [Told("road/d1", "speed", DAY_US + n * 30 * MINUTE, 40.0 + n % 9) for n in range(days * 48)]


def test_readings_go_when_their_quantity_is_kept_no_longer_and_the_others_stay(kept: Any) -> None:
    line = kept(air=KEEP_DAYS)
    line.tell(hours_of_air(10, 9) + roads(19))
    line.upkeep.forget(NOW)
    assert min(line.times("pm2_5")) == NOW - KEEP_DAYS * DAY
    assert len(line.times("speed")) == 19 * 48
    assert retained(line.store) == {"pm2_5": int(NOW - KEEP_DAYS * DAY)}


def test_values_stay_when_their_readings_go(kept: Any) -> None:
    line = kept(air=KEEP_DAYS)
    line.tell(hours_of_air(10, 9))
    line.settle(NOW)
    before = line.values()
    line.upkeep.forget(NOW)
    assert before
    assert line.values() == before


def test_no_late_reading_makes_a_value_of_the_readings_that_are_left(kept: Any) -> None:
    line = kept(air=KEEP_DAYS)
    line.tell(hours_of_air(10, 9))
    line.settle(NOW)
    line.upkeep.forget(NOW)
    before = line.values()
    edge = int(NOW - KEEP_DAYS * DAY)
    line.tell([Told("air/a1", "pm2_5", edge + offset, 500.0) for offset in (-2 * DAY, -5 * MINUTE, 5 * MINUTE)])
    changed = line.settle(NOW)
    after = line.values()
    assert line.scheduler.counters.let_go > 0
    assert all(after[key] == value for key, value in before.items() if value.start_us < edge)
    assert {value.start_us >= edge for value in changed} <= {True}


def test_a_reading_that_is_not_kept_changes_nothing_before_anything_was_deleted(kept: Any) -> None:
    line = kept(air=KEEP_DAYS)
    line.tell(hours_of_air(10, 3))
    line.settle(DAY_US + 13 * DAY)
    before = line.values()
    line.tell([Told("air/a1", "pm2_5", DAY_US + 11 * DAY, 500.0)])
    assert line.settle(NOW) == []
    assert line.values() == before


def test_a_window_that_looks_back_over_the_edge_is_let_go_and_one_behind_it_is_not(kept: Any) -> None:
    line = kept(air=KEEP_DAYS)
    line.tell(hours_of_air(10, 9))
    line.settle(NOW)
    line.upkeep.forget(NOW)
    edge = int(NOW - KEEP_DAYS * DAY)
    line.tell([Told("air/a1", "pm2_5", edge + 30 * HOUR + MINUTE, 90.0)])
    changed = {(value.indicator, value.start_us) for value in line.settle(NOW)}
    assert ("pm2_5_mean", edge + 30 * HOUR) in changed
    assert all(start >= edge for _, start in changed)


def test_a_change_of_the_registry_leaves_what_is_kept_no_longer(kept: Any) -> None:
    line = kept(air=KEEP_DAYS)
    line.tell(hours_of_air(10, 9))
    line.settle(NOW)
    before = line.values()
    line.upkeep.forget(NOW)
    line.town = Registry(
        devices=list(REGISTRY.devices.values()),
        zones=list(REGISTRY.zones.values()),
        placements=[p for p in REGISTRY.placements if p.device != "air/a2"],
    )
    line.mark_everything()
    line.settle(NOW)
    edge = int(NOW - KEEP_DAYS * DAY)
    after = line.values()
    assert {key: after[key] for key in before if before[key].stop_us <= edge} == {
        key: value for key, value in before.items() if value.stop_us <= edge
    }
    assert any(after[key] != before[key] for key in before if before[key].start_us > edge + DAY)


def test_during_a_rebuild_all_readings_that_there_are_count(kept: Any) -> None:
    line = kept(air=KEEP_DAYS)
    line.rebuilding = True
    line.tell(hours_of_air(10, 9))
    line.upkeep.step()
    assert min(line.times("pm2_5")) == DAY_US + 10 * DAY
    line.settle(NOW)
    assert min(value.start_us for value in line.values().values()) <= DAY_US + 10 * DAY
    line.rebuilding = False
    line.upkeep.step()
    assert min(line.times("pm2_5")) == NOW - KEEP_DAYS * DAY


def test_what_was_deleted_stays_let_go_when_readings_are_to_be_kept_longer_from_now_on(kept: Any) -> None:
    line = kept(air=KEEP_DAYS)
    line.tell(hours_of_air(10, 9))
    line.upkeep.forget(NOW)
    longer = StoreUpkeep(
        line.store,
        Retention({}, kinds()),
        messages=lambda: 0,
        may_forget=lambda: True,
        writing=lambda write: write(),
        now_us=lambda: NOW,
    )
    assert longer.kept_since(NOW) == {"pm2_5": int(NOW - KEEP_DAYS * DAY)}


def test_the_edge_never_goes_back(kept: Any) -> None:
    line = kept(air=KEEP_DAYS)
    line.tell(hours_of_air(10, 1))
    line.upkeep.forget(NOW)
    line.upkeep.forget(NOW - DAY)
    assert retained(line.store) == {"pm2_5": int(NOW - KEEP_DAYS * DAY)}


class Tended:
    """A store that has a few pieces of upkeep to do, and may fail at it."""

    def __init__(self, pieces: int) -> None:
        self.store = open_store("memory:")
        self.pieces = pieces
        self.done = 0
        self.failure: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def tend(self, now_us: int) -> bool:
        if self.failure:
            raise self.failure
        self.done += self.done < self.pieces
        return self.done < self.pieces

    def upkeep(self) -> list[Upkeep]:
        return [Upkeep("settle", self.done, self.pieces, "hours")]


def upkeep_of(store: Any, messages: Any = lambda: 0) -> StoreUpkeep:
    return StoreUpkeep(
        store,
        Retention({}, kinds()),
        messages=messages,
        may_forget=lambda: True,
        writing=lambda write: write(),
        now_us=lambda: NOW,
    )


class Thread:
    """An upkeep that runs until the end of the block."""

    def __init__(self, upkeep: StoreUpkeep) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=upkeep.run, args=[self._stop], daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


def test_the_store_is_tended_until_nothing_waits() -> None:
    store = Tended(pieces=7)
    upkeep = upkeep_of(store)
    with Thread(upkeep):
        until(lambda: store.done == 7)
    assert [(item["name"], item["done"], item["total"]) for item in upkeep.part()["upkeep"]] == [("settle", 7, 7)]
    assert upkeep.part()["upkeep_error"] is None


def test_an_upkeep_that_fails_tells_why_and_goes_on_when_it_can() -> None:
    store = Tended(pieces=3)
    store.failure = UnavailableError("no room left", hint="free some")
    upkeep = upkeep_of(store)
    with Thread(upkeep):
        until(lambda: upkeep.part()["upkeep_error"] == "no room left")
        assert upkeep.part()["hint"] == "free some"
        store.failure = None
        until(lambda: upkeep.part()["upkeep_error"] is None and store.done == 3)
    assert upkeep.counters.failures >= 1


def test_the_upkeep_stands_back_while_messages_pour_in() -> None:
    store, poured = Tended(pieces=1000), [0]

    def pour() -> int:
        poured[0] += 1_000_000
        return poured[0]

    upkeep = upkeep_of(store, pour)
    with Thread(upkeep):
        until(lambda: store.done == 1)
        until(lambda: poured[0] > 3_000_000)
        assert store.done <= 2
