"""Copying a store: every engine to every other, equal to the last bit, going on after a kill, telling what differs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices.reading import Batch, Position, SeriesInfo
from devices.value import Value
from qala.store import Store, open_store
from qala.store.base import Selector, Span
from qala.store.checksum import differing, reading_checksums, value_checksums
from qala.store.conformance import ALWAYS, DAY, MINUTE, T0, a_value, air, batch, everything, with_series
from qala.store.copy import Copied, Progress, copy_store
from qala.store.settings import StoreSettings
from tests.servers import started_influx
from tests.wait import until

ROOT = Path(__file__).parents[1]


def city(series: int, days: int, per_day: int) -> Iterator[Batch]:
    """Yield readings of so many series: with nulls, every flag, corrections, noise of all bits and odd receipts."""
    chance = np.random.default_rng(7)
    ids = np.arange(1, series + 1, dtype=np.int32)
    for number in range(days * per_day):
        times = T0 + number * (DAY // per_day) + chance.integers(0, 1000, series)
        flag = chance.choice(np.array([1, 1, 1, 2, 3, 4, 9], np.uint8), series)
        value = np.where(flag == 9, np.nan, chance.normal(20, 5, series))
        revision = (chance.random(series) < 0.01).astype(np.int32)
        origin = np.full(series, number + 1, np.int64)
        yield Batch(ids, times, value, flag, revision, origin, times + chance.integers(0, 10**9, series))


def fill(store: Store, *, series: int = 20, days: int = 3, per_day: int = 24) -> Store:
    """Fill a store with readings, values with revisions, and a position."""
    store.register(
        [air(f"air/{n}") for n in range(1, series)] + [SeriesInfo("road/Абай, 1", "speed", 'a "b"', 300, "km/h")]
    )
    for number, readings in enumerate(city(series, days, per_day), start=1):
        store.append(readings, Position("journal", number))
    store.put_values(list(values(days)))
    return store


def values(days: int) -> Iterator[Value]:
    for hour in range(days * 24):
        for revision in range(1 + hour % 3):
            yield a_value(
                None if revision == 1 else hour / 7 + revision,
                start_us=T0 + hour * 60 * MINUTE,
                known_us=T0 + hour * 60 * MINUTE + revision,
                detail={"parts": {"a": revision / 3}},
            )


def assert_equal(one: Store, other: Store) -> None:
    assert list(differing(reading_checksums(one), reading_checksums(other))) == []
    assert list(differing(value_checksums(one), value_checksums(other))) == []
    assert list(one.positions()) == list(other.positions())
    assert set(one.catalog().values()) == set(other.catalog().values())


@contextmanager
def opened(url: str) -> Iterator[Store]:
    store = open_store(url)
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def source() -> Store:
    return fill(open_store("memory:"))


@pytest.fixture
def target() -> Store:
    return open_store("memory:")


def test_a_copy_is_equal_on_every_engine_and_back(source: Store, target: Store, tmp_path: Path) -> None:
    with opened(f"duckdb://{tmp_path}/copy.duckdb") as between:
        copied = copy_store(source, between)
        assert (copied.readings, copied.days, copied.days_equal, copied.differences) == (20 * 72, 3, 0, 0)
        assert copied.values == len(list(values(3)))
        assert_equal(source, between)
        assert copy_store(between, target).differences == 0
    assert_equal(source, target)


def test_what_is_equal_already_is_passed_over(source: Store, target: Store) -> None:
    copy_store(source, target)
    again = copy_store(source, target)
    assert (again.readings, again.values, again.days, again.days_equal) == (0, 0, 3, 3)


def test_only_days_that_changed_are_copied_again(source: Store, target: Store) -> None:
    copy_store(source, target)
    source.append(batch((1, T0 + DAY + 5, 3.5, 1, 0, 99)), Position("journal", 80))
    source.put_values([a_value(-1.0, start_us=T0), a_value(-2.0, start_us=T0)])
    again = copy_store(source, target)
    assert (again.readings, again.values, again.days_equal, again.differences) == (20 * 24 + 1, 2, 2, 0)
    assert_equal(source, target)


def test_a_span_is_copied_without_its_positions(source: Store, target: Store) -> None:
    span = Span(T0 + DAY // 2, T0 + DAY)
    copied = copy_store(source, target, span)
    assert (copied.readings, copied.positions, copied.differences) == (20 * 12, 0, 0)
    assert target.extent() == Span(*_ends(everything_in(source, span)))
    assert target.positions() == []
    rest = copy_store(source, target)
    assert (rest.positions, rest.differences) == (1, 0)
    assert_equal(source, target)


def everything_in(store: Store, span: Span) -> list[int]:
    return [time for _, time, _ in everything(store) if span.start_us <= time < span.stop_us]


def _ends(times: list[int]) -> tuple[int, int]:
    return min(times), max(times) + 1


def test_positions_come_last_and_are_those_from_before_the_readings(source: Store, target: Store) -> None:
    seen = []

    def on_progress(progress: Progress) -> None:
        seen.append((progress.share, target.applied("journal")))
        source.append(Batch.empty(), Position("journal", 1_000))

    copy_store(source, target, on_progress=on_progress)
    assert {position for _, position in seen} == {None}
    assert target.applied("journal") == Position("journal", 72)
    assert all(one <= other for (one, _), (other, _) in pairwise(seen[:-3]))


@pytest.mark.parametrize(
    ("beside", "rows"),
    [
        pytest.param((1, T0 + 77, 1.0), (24, 25), id="a reading more"),
        pytest.param((1, T0 + 9 * DAY, 1.0), (0, 1), id="a day more"),
    ],
)
def test_what_the_target_has_beside_the_source_is_told_and_keeps_the_positions_back(
    source: Store, target: Store, beside: tuple[Any, ...], rows: tuple[int, int]
) -> None:
    with_series(target, 1)
    target.append(batch(beside), None)
    copied = copy_store(source, target)
    [worst] = copied.worst
    assert (worst.what, worst.day, worst.rows, worst.rows_copied) == ("air/1 pm2_5 0 ug/m3", beside[1] // DAY, *rows)
    assert (copied.differences, copied.positions, list(target.positions())) == (1, 0, [])


def test_a_reading_of_higher_precedence_in_the_target_stays_and_is_told(source: Store, target: Store) -> None:
    with_series(target, 1)
    [first] = [time for series, time, _ in everything(source) if series == 1][:1]
    target.append(batch((1, first, -5.0, 1, 9, 9)), None)
    copied = copy_store(source, target)
    assert [(one.rows, one.rows_copied) for one in copied.worst] == [(24, 24)]
    assert everything(target)[0] == (1, first, -5.0)


def test_other_values_in_the_target_are_told(source: Store, target: Store) -> None:
    target.put_values([a_value(-99.0, start_us=T0)])
    [worst] = copy_store(source, target).worst
    assert worst.what == "pm2_5_mean almaly"


def test_an_empty_store_copies_to_an_empty_one(target: Store) -> None:
    assert copy_store(open_store("memory:"), target) == Copied()


class Stops(Exception):  # noqa: N818 - no error, the end of a test's patience
    pass


def test_broken_off_at_any_time_it_goes_on_to_the_same_end(source: Store) -> None:
    seen: list[Progress] = []
    copy_store(source, open_store("memory:"), on_progress=seen.append)
    for stop_at in range(1, len(seen)):
        target = open_store("memory:")
        told = 0

        def stop(_progress: Progress, stop_at: int = stop_at) -> None:
            nonlocal told
            told += 1
            if told == stop_at:
                raise Stops

        with pytest.raises(Stops):
            copy_store(source, target, on_progress=stop)
        assert copy_store(source, target).differences == 0
        assert_equal(source, target)


def test_values_that_a_broken_off_copy_has_put_are_not_put_again(source: Store, target: Store) -> None:
    target.put_values(list(values(3))[:20])
    copied = copy_store(source, target)
    assert (copied.values, copied.differences) == (len(list(values(3))) - 20, 0)
    assert_equal(source, target)


def test_appends_are_bounded_whatever_the_source_yields(target: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_store("memory:")
    with_series(source, 3)
    times = T0 + np.arange(70_000, dtype=np.int64)
    for series in (1, 2, 3):
        ids, ones = np.full(len(times), series, np.int32), np.ones(len(times), np.int64)
        source.append(Batch(ids, times, ones * 0.5, ones.astype(np.uint8), ids * 0, ones, times), None)
    sizes, append = [], target.append
    monkeypatch.setattr(target, "append", lambda given, upto: sizes.append(len(given)) or append(given, upto))
    read = source.read
    monkeypatch.setattr(source, "read", lambda *args, **limit: _in_pieces(read(*args, **limit)))
    assert copy_store(source, target).differences == 0
    assert sum(sizes) == 210_000
    assert max(sizes) <= 50_000
    assert len(sizes) < 10


def _in_pieces(parts: Any) -> Iterator[Any]:
    for part in parts:
        for start in range(0, len(part), 7_000):
            yield part.slice(start, 7_000)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "qala", "store", "copy", *words]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.fixture
def urls(tmp_path: Path) -> tuple[str, str]:
    return f"duckdb://{tmp_path}/src.duckdb", f"duckdb://{tmp_path}/dst.duckdb"


def test_a_copy_that_is_killed_goes_on_and_ends_equal(urls: tuple[str, str], tmp_path: Path) -> None:
    src, dst = urls
    with opened(src) as store:
        fill(store, series=2_000, days=20, per_day=24)
    with subprocess.Popen(command(src, dst), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=ROOT) as process:
        log = tmp_path / "dst.duckdb.wal"
        until(lambda: log.exists() and log.stat().st_size > 2_000_000, deadline_s=60)
        process.kill()
    with opened(dst) as store:
        half = sum(len(part) for part in store.read(Selector(), ALWAYS))
        assert 0 < half < 2_000 * 20 * 24
        assert store.positions() == []
    done = run(src, dst, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["days_equal"] > 0
    assert (report["differences"], report["positions"]) == (0, 1)
    with opened(src) as one, opened(dst) as other:
        assert_equal(one, other)


def test_the_command_tells_what_differs_and_fails(urls: tuple[str, str]) -> None:
    src, dst = urls
    with opened(src) as one, opened(dst) as other:
        fill(one, series=2, days=1)
        with_series(other, 1)
        other.append(batch((1, T0 + 3 * DAY, 1.0)), None)
    done = run(src, dst)
    assert done.returncode == 1
    assert "2024-10-07  air/1 pm2_5 0 ug/m3" in done.stdout
    assert "differ" in done.stderr


def test_the_command_copies_a_span(urls: tuple[str, str]) -> None:
    src, dst = urls
    with opened(src) as one:
        fill(one, series=2, days=3)
    done = run(src, dst, "--since", "2024-10-05T05:00+05:00", "--until", "2024-10-06", "--json")
    report = json.loads(done.stdout)
    assert (report["readings"], report["positions"], report["differences"]) == (48, 0, 0)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        pytest.param(("duckdb:///nowhere/a.duckdb", "memory:"), 1, "there is no file", id="missing source"),
        pytest.param(("memory:", "memory:"), 2, "the same store", id="itself"),
        pytest.param(("memory:", "oracle:x"), 2, "oracle", id="unknown engine"),
        pytest.param(("memory:", "duckdb:///x", "--since", "soon"), 2, "is no time", id="time"),
        pytest.param(
            ("memory:", "duckdb:///x", "--since", "2026-01-02", "--until", "2026-01-01"), 2, "earlier", id="span"
        ),
    ],
)
def test_the_command_says_what_is_wrong(words: tuple[str, ...], code: int, told: str) -> None:
    done = run(*words)
    assert done.returncode == code
    assert told in done.stderr


def test_a_file_that_a_running_server_has_is_told(urls: tuple[str, str]) -> None:
    src, dst = urls
    with opened(src):
        done = run(src, dst)
    assert done.returncode == 1
    assert "another process has" in done.stderr
    assert "backup" in done.stderr


@pytest.mark.timeout(600)
def test_a_million_readings_go_to_influxdb_and_back_and_end_equal(tmp_path: Path) -> None:
    with started_influx() as server:
        settings = StoreSettings.model_validate({"token": server.token})
        between = open_store(server.url(server.bucket()), settings)
        with opened(f"duckdb://{tmp_path}/a.duckdb") as one, opened(f"duckdb://{tmp_path}/b.duckdb") as other:
            fill(one, series=5_000, days=2, per_day=100)
            there = copy_store(one, between)
            back = copy_store(between, other)
            assert (there.readings, there.differences) == (1_000_000, 0)
            assert (back.readings, back.differences) == (1_000_000, 0)
            assert_equal(one, other)
        between.close()
