"""The past computed on a cluster over the lake: the live values, to the last byte, whatever happens to a worker."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from distributed import Client, WorkerPlugin

from analytics.backfill import Task, compute, decode, plan, windows_of
from analytics.indicators import indicators
from analytics.schedule import Put, Scheduler
from analytics.settings import AnalyticsSettings
from devices.device import Registry
from devices.errors import ConfigError, UnavailableError
from devices.value import Value
from qala.backfill import Progress, cluster, computed
from qala.state import open_state
from qala.state.dirty import DirtyMarks
from qala.store import Store, open_store
from qala.store.base import Span, ValueSelector
from qala.store.lake import DAY_US, Lake
from qala.store.lake_export import Exporter
from tests import month
from tests.running import alive, free_port

ROOT = Path(__file__).parents[1]
HOUR_US = 3_600_000_000
DAYS = 31
MONTH = Span(month.START_US - DAY_US, month.START_US + (DAYS + 1) * DAY_US)
LATER_US = month.START_US + (DAYS + 9) * DAY_US


class Past:
    """Days of a city in a store and in a lake, with the values that the scheduler computed beside the store."""

    def __init__(self, folder: Path, days: int) -> None:
        self.registry: Registry = month.registry(days=days)
        self.store: Store = open_store(f"duckdb://{folder}/readings.duckdb")
        self.lake = Lake(str(folder / "lake"))
        month.fill(self.store, self.registry, days)
        month.compute_live(self.store, self.registry, folder, LATER_US)
        export(self.store, self.lake)

    def tasks(self, span: Span = MONTH, readings_max: int = 2_000_000) -> list[Task]:
        return plan(self.registry, indicators(), str(month.TZ), span, self.lake, readings_max=readings_max)


def export(store: Store, lake: Lake, now_us: int = LATER_US) -> None:
    exporter = Exporter(store, lake)
    while exporter.step(now_us):
        pass


@pytest.fixture(scope="module")
def january(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    past = Past(tmp_path_factory.mktemp("january"), DAYS)
    yield past
    past.store.close()


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    past = Past(tmp_path_factory.mktemp("week"), 4)
    yield past
    past.store.close()


def by_key(values: Sequence[Value]) -> bytes:
    """Spell values in one order, with every field but the revision."""
    ordered = sorted(values, key=lambda one: (one.indicator, one.zone, one.window, one.start_us))
    return msgspec.json.encode([msgspec.structs.replace(one, revision=0) for one in ordered], order="deterministic")


def alone(tasks: Sequence[Task]) -> list[Value]:
    """Compute tasks in this process."""
    return [value for task in tasks for value in decode(compute(msgspec.json.encode(task))).values]


class Diary(WorkerPlugin):
    """Notes in a file of its own which task a worker is executing."""

    name = "diary"

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:
        if "executing" in {start, finish}:
            page = Path(self.folder) / f"{os.getpid()}.new"
            page.write_text(str(key) if finish == "executing" else "")
            page.rename(page.with_suffix(""))


def kill_one_at_work(pids: Sequence[int], folder: Path) -> tuple[int, str]:
    """Stop a worker until it is found in the middle of a task, then kill it; return it and the task."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
            page = folder / str(pid)
            task = page.read_text() if page.exists() else ""
            if task.startswith("backfill-"):
                os.kill(pid, signal.SIGKILL)
                return pid, task
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.003)  # it goes on, so that another moment is looked at
    raise AssertionError("no worker was ever seen at work")


def fates(client: Client, key: str) -> list[tuple[str, str]]:
    """Return the states that the scheduler saw a task go through."""
    story = client.run_on_scheduler(lambda dask_scheduler: [tuple(row[:3]) for row in dask_scheduler.story(key)])
    return [(start, finish) for name, start, finish in story if name == key]


def test_a_month_with_a_worker_killed_at_work_is_the_live_month(january: Past, tmp_path: Path) -> None:
    killed: list[tuple[int, str]] = []
    with cluster(None, 2) as client:
        client.register_plugin(Diary(str(tmp_path)))
        pids = list(client.run(os.getpid).values())
        assert len(set(pids)) == 2
        killer = threading.Thread(target=lambda: killed.append(kill_one_at_work(pids, tmp_path)))
        killer.start()
        found = [value for part in computed(client, january.tasks()) for value in part.values]
        killer.join(60)
        [(pid, task)] = killed
        assert ("processing", "released") in fates(client, task)  # it was at work, and its work was lost
    assert not alive(pid)
    live = month.values(january.store, MONTH)
    assert len(live) > 100_000
    assert by_key(found) == by_key(live)


@contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of dask until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def test_a_scheduler_that_runs_elsewhere_is_used_by_its_address(week: Past, tmp_path: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    port = address.rpartition(":")[2]
    scheduler = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard", "--no-show")
    worker = ("distributed.cli.dask_worker", address, "--nworkers", "1", "--nthreads", "1", "--no-dashboard")
    seen: list[Progress] = []
    with (
        running(*scheduler),
        running(*worker, "--local-directory", str(tmp_path)),
        cluster(address, 0) as client,
    ):
        assert len(client.nthreads()) == 1
        found = [
            v
            for part in computed(client, week.tasks(), lambda p: seen.append(msgspec.structs.replace(p)))
            for v in part.values
        ]
    assert by_key(found) == by_key(month.values(week.store, MONTH))
    assert [one.done for one in seen] == list(range(1, len(week.tasks()) + 1))
    assert (seen[-1].values, seen[-1].rest_s) == (len(found), 0.0)


def test_a_scheduler_that_is_not_there_is_an_error_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qala.backfill._CONNECT_S", 1)
    reaching = cluster(f"tcp://127.0.0.1:{free_port()}", 0)
    with pytest.raises(UnavailableError, match="no scheduler answers") as raised:
        reaching.__enter__()
    assert "dask scheduler" in raised.value.hint


def test_the_values_do_not_depend_on_how_the_work_is_cut(week: Past) -> None:
    day = Span(month.START_US + DAY_US, month.START_US + 2 * DAY_US)
    small = week.tasks(day, readings_max=1_000)
    assert len(small) > len(week.tasks(day))
    random.Random(1).shuffle(small)
    assert by_key(alone(small)) == by_key(alone(week.tasks(day)))


def test_a_task_has_a_bounded_number_of_windows(week: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analytics.backfill.WINDOWS_MAX", 2_000)
    small = week.tasks()
    assert max(len(windows_of(task)[0]) for task in small) <= 2_000
    assert {zone.id for task in small for zone in task.zones} == week.registry.zones.keys()


def test_a_task_carries_of_the_registry_what_its_zones_need(week: Past) -> None:
    for task in week.tasks(readings_max=1_000):
        assert {zone.kind for zone in task.zones} == {indicators()[name].zone_kind for name in task.indicators}
        assert {zone for placement in task.placements for zone in placement.zones} == {zone.id for zone in task.zones}
        assert len(task.devices) < len(week.registry.devices)


def test_only_windows_that_start_in_the_span_are_computed(week: Past) -> None:
    span = Span(month.START_US + 30 * HOUR_US, month.START_US + 50 * HOUR_US)
    found = alone(week.tasks(span))
    assert by_key(found) == by_key(month.values(week.store, span))
    assert {one.window for one in found} == {"5min", "15min", "1h", "1d"}


def test_windows_that_look_beyond_the_lake_are_left_out(tmp_path: Path) -> None:
    store, lake, city = open_store("memory:"), Lake(str(tmp_path / "lake")), month.registry(2, 2, 2, days=3)
    month.fill(store, city, 3)
    export(store, lake, month.START_US + 2 * DAY_US + HOUR_US)  # two days are closed
    tasks = plan(city, indicators(), "UTC", Span(month.START_US, month.START_US + 3 * DAY_US), lake, readings_max=10**6)
    known = month.START_US + 2 * DAY_US
    due = [window for task in tasks for window in windows_of(task)[0]]
    left_out = sum(windows_of(task)[1] for task in tasks)
    assert max(window.stop_us for window in due) == known
    assert all(one.stop_us <= known - 600 * 10**6 for one in due if one.indicator == "pm2_5_mean")  # spikes look ahead
    assert min(window.start_us for window in due) == month.START_US
    grid = (
        6
        * 3
        * sum({"5min": 288, "15min": 96, "1h": 24, "1d": 1}[w] for one in indicators().values() for w in one.windows)
        // 3
    )
    assert len(due) + left_out == grid


def test_a_worker_of_another_version_refuses_the_work(week: Past) -> None:
    task = msgspec.structs.replace(week.tasks()[0], version="0.0.1")
    with pytest.raises(ConfigError, match=r"0\.0\.1"):
        compute(msgspec.json.encode(task))


# ---- into the store


class Line:
    """A scheduler over a store, which tells what it judged and what it told of."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.judged: list[Value] = []
        self.told: list[Value] = []
        dirty = DirtyMarks(open_state(f"sqlite:///{folder / 'line.sqlite'}"))
        self.scheduler = Scheduler(
            store, dirty, month.registry, indicators(), AnalyticsSettings(amend_every_s=0), month.TZ,
            judge=self.judged.extend, on_values=self.told.extend,
        )  # fmt: skip


def test_values_that_are_in_the_store_write_nothing_and_judge_nothing(week: Past, tmp_path: Path) -> None:
    line = Line(week.store, tmp_path)
    values = alone(week.tasks())[:2_000]
    assert line.scheduler.put(values) == Put(0, 2_000, 0)
    assert (line.judged, line.told) == ([], [])


def test_another_number_becomes_a_revision_that_is_judged(tmp_path: Path) -> None:
    store = open_store("memory:")
    line = Line(store, tmp_path)
    old = Value("pm2_5_mean", "district1", "1h", 0, HOUR_US, 20.0, "ug/m3", 6, 6, "mean", "1", 0, known_us=5)
    new = msgspec.structs.replace(old, value=21.0)
    store.put_values([old])
    assert line.scheduler.put([new]) == Put(1, 0, 0)
    assert [(one.value, one.revision) for one in line.judged] == [(21.0, 2)]
    assert line.told == line.judged
    assert store.values(ValueSelector(), Span(0, 1)).to_pylist()[0]["value"] == 21.0


def test_a_number_made_of_newer_readings_stays(tmp_path: Path) -> None:
    store = open_store("memory:")
    line = Line(store, tmp_path)
    live = Value("pm2_5_mean", "district1", "1h", 0, HOUR_US, 22.0, "ug/m3", 6, 6, "mean", "1", 0, known_us=9)
    store.put_values([live])
    assert line.scheduler.put([msgspec.structs.replace(live, value=21.0, known_us=8)]) == Put(0, 0, 1)
    assert line.scheduler.put([msgspec.structs.replace(live, known_us=8)]) == Put(0, 1, 0)
    assert store.values(ValueSelector(), Span(0, 1)).to_pylist()[0]["value"] == 22.0
    assert line.judged == []
