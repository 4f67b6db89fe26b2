"""The serving process exports by itself: when it may, what late readings touch, and what health says of it."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from devices.errors import ConfigError
from devices.reading import Batch
from qala.config import load_config
from qala.exporting import Exporting
from qala.store import Store, StoreSettings
from qala.store.lake import DAY_US, Lake
from qala.store.memory import MemoryStore
from qala.wiring import build
from tests.test_lake import DAY, PM, START_US, described, three_days, told
from tests.wait import until

LATER_US = START_US + 9 * DAY_US


def exporting(store: Store, lake: Path, *, may: list[bool] | None = None, **settings: object) -> Exporting:
    allowed = may or [True]
    return Exporting(
        store,
        StoreSettings.model_validate({"lake": str(lake), **settings}),
        may_export=lambda: allowed[-1],
        now_us=lambda: LATER_US,
    )


def test_its_thread_exports_what_is_closed_and_ends_when_told(tmp_path: Path) -> None:
    store, stop = told(MemoryStore(), three_days()), threading.Event()
    thread = threading.Thread(target=exporting(store, tmp_path / "lake").run, args=(stop,))
    thread.start()
    try:
        until(lambda: len(Lake(str(tmp_path / "lake")).days()) == 3)
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()
    assert described(Lake(str(tmp_path / "lake"))) == described(store)


def test_nothing_is_exported_during_a_rebuild(tmp_path: Path) -> None:
    may = [False]
    beside = exporting(told(MemoryStore(), three_days()), tmp_path / "lake", may=may)
    beside.step()
    assert Lake(str(tmp_path / "lake")).days() == []
    may.append(True)
    beside.step()
    assert Lake(str(tmp_path / "lake")).days() == [DAY]


def test_a_batch_of_late_readings_exports_their_day_again(tmp_path: Path) -> None:
    store = told(MemoryStore(), three_days())
    beside = exporting(store, tmp_path / "lake")
    for _ in range(3):
        beside.step()
    told(store, [(PM, START_US + 7, 1.0)])
    batch = Batch.empty()
    batch.time_us = np.array([START_US + 7])
    beside.on_applied(batch)
    [work] = beside.upkeep()
    assert (work.done, work.total) == (3, 4)
    beside.step()
    assert described(Lake(str(tmp_path / "lake"))) == described(store)


def test_the_owner_exports_a_day_at_a_time_to_any_lake(tmp_path: Path) -> None:
    store = told(MemoryStore(), three_days())
    beside = exporting(store, tmp_path / "unused")
    other = str(tmp_path / "other")
    found = [beside.export(other, first, DAY + 99) for first in range(DAY, DAY + 4)]
    assert [day and day.day for day in found] == ["2026-01-10", "2026-01-11", "2026-01-12", None]
    assert Lake(other).covered() == ((DAY, DAY + 8),)
    assert not (tmp_path / "unused").exists()


def test_without_a_lake_there_is_nothing_to_do_and_asking_is_an_error(tmp_path: Path) -> None:
    beside = Exporting(
        MemoryStore(), StoreSettings.model_validate({}), may_export=lambda: True, now_us=lambda: LATER_US
    )
    assert (beside.is_on, beside.upkeep()) == (False, ())
    with pytest.raises(ConfigError, match="no lake is named"):
        beside.export(None, 0, 9)


def test_health_tells_of_the_lake(tmp_path: Path) -> None:
    app = build(load_config(flags={"data": tmp_path / "data", "store.lake": str(tmp_path / "lake")}))
    try:
        assert [work["name"] for work in app.parts()["store"]["upkeep"] if work["unit"] == "days"][-1] == "lake"
    finally:
        app.close()
