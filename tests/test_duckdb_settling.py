"""Settling in the DuckDB file: moves from hot to cold beside a writer and readers, sorted days, and kills amid it."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from devices.reading import Batch, Int64Array, Position
from qala.store.base import Selector, Span, Store
from qala.store.conformance import Opening, StoreConformance
from qala.store.conformance.builders import ALWAYS, DAY, EVERY, MINUTE, T0, air, batch, everything, with_series
from qala.store.duckdb import DuckDBStore
from qala.store.duckdb_gate import Gate

ROOT = Path(__file__).parent.parent
HOUR = 60 * MINUTE
FAR = ALWAYS.stop_us + DAY
"""A time at which everything has long been closed."""


class Tended(DuckDBStore):
    """A store whose upkeep is done after every append: whatever is stored is in `cold`, whatever comes is late."""

    def append(self, batch: Batch, upto: Position | None) -> Any:
        done = super().append(batch, upto)
        tend_all(self)
        return done


class TestTended(StoreConformance):
    histories = 10

    @contextmanager
    def place(self) -> Iterator[Opening]:
        with tempfile.TemporaryDirectory() as folder:
            yield lambda: Tended.open(f"{folder}/readings.duckdb")


def tend_all(store: Store, now_us: int = FAR) -> int:
    """Do all the upkeep that waits, and return how many pieces it was."""
    pieces = 0
    while store.tend(now_us):
        pieces += 1
    return pieces


def inside(path: Path, query: str) -> list[Any]:
    """Ask a closed file."""
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "readings.duckdb"


@pytest.fixture
def store(path: Path) -> Iterator[DuckDBStore]:
    store = DuckDBStore.open(path)
    yield store
    store.close()


def test_a_backlog_is_settled_day_by_day_up_to_the_last_whole_hour(store: DuckDBStore, path: Path) -> None:
    with_series(store)
    given = [(s, T0 + n * HOUR, float(n)) for n in range(60) for s in (2, 1)]
    store.append(batch(*given), None)
    pieces = tend_all(store, T0 + 59 * HOUR + 30 * MINUTE)  # settles what is older than an hour, rolls two days up
    assert pieces == 3 + 2
    assert everything(store) == sorted(given)
    store.close()
    assert inside(path, "SELECT count(*) FROM hot") == [(4,)]
    assert inside(path, "SELECT until_us FROM settled") == [(T0 + 58 * HOUR,)]
    first = T0 // DAY
    assert inside(path, "SELECT day, late, tidy FROM days ORDER BY day") == [
        (first, 0, True),
        (first + 1, 0, True),
        (first + 2, 0, False),
    ]
    assert inside(path, "SELECT series FROM cold LIMIT 48") == [(1,)] * 24 + [(2,)] * 24


def test_a_day_settled_hour_by_hour_is_put_into_one_run_once_it_is_closed(store: DuckDBStore, path: Path) -> None:
    with_series(store)
    for n in range(30):
        store.append(batch((2, T0 + n * HOUR, float(n)), (1, T0 + n * HOUR, float(n))), None)
        tend_all(store, T0 + (n + 1) * HOUR)
    tend_all(store, T0 + 31 * HOUR)
    store.close()
    assert inside(path, f"SELECT tidy FROM days WHERE day = {T0 // DAY}") == [(True,)]
    of_day = inside(path, f"SELECT series, time_us FROM cold WHERE time_us < {T0 + DAY}")
    hours = [T0 + n * HOUR for n in range(24)]
    assert of_day == [(1, time) for time in reversed(hours)] + [(2, time) for time in hours]


def test_late_readings_are_counted_and_make_a_day_untidy_once_there_are_many(store: DuckDBStore, path: Path) -> None:
    with_series(store, 1)
    store.append(batch(*((1, T0 + n * 10_000_000, 0.0) for n in range(8_000))), None)
    tend_all(store)
    late = batch(*((1, T0 + n * 10_000_000 + 1, 0.0) for n in range(5_000)))
    store.append(late.take(np.arange(4_000)), None)
    store.append(late.take(np.arange(4_000)), None)  # again: nothing is late that is there
    assert store._writer.execute("SELECT late, rolled FROM days").fetchall()[0][0] == 4_000
    assert not store.tend(FAR)
    store.append(late, None)
    assert store.tend(FAR)
    assert len(everything(store)) == 13_000
    store.close()
    times = [time for (time,) in inside(path, "SELECT time_us FROM cold")]
    assert times == sorted(times, reverse=True)
    assert inside(path, "SELECT late, tidy FROM days") == [(0, True)]


def test_a_change_in_cold_makes_the_rollups_of_the_days_that_it_reaches_untrue(store: DuckDBStore) -> None:
    with_series(store)
    store.append(batch(*((1, T0 + n * 12 * HOUR + 1, float(n)) for n in range(10))), None)
    tend_all(store)

    def untrue(change: Any) -> list[int]:
        store._writer.execute("UPDATE days SET rolled = true")
        change()
        found = store._writer.execute("SELECT day FROM days WHERE NOT rolled ORDER BY day").fetchall()
        return [day - T0 // DAY for (day,) in found]

    one = np.array([1], np.int32), np.array([T0 + DAY + 1], np.int64), np.array([1], np.int64)
    known, other = (1, T0 + 12 * HOUR + 1, 1.0), (1, T0 + 12 * HOUR + 1, 9.0)
    assert untrue(lambda: store.append(batch(known), None)) == []
    assert untrue(lambda: store.append(batch(other), None)) == [0, 1]  # a day later it may still be stuck
    assert untrue(lambda: store.append(batch((2, T0 + DAY, 9.0)), None)) == [0, 1, 2]  # or show a spike before midnight
    assert untrue(lambda: store.append(batch((2, T0 + 23 * HOUR, 9.0)), None)) == [0, 1, 2]
    assert untrue(lambda: store.retract(*one)) == [0, 1, 2]
    assert untrue(lambda: store.retract(*one)) == []
    assert untrue(lambda: store.delete_before(T0 + 2, Selector(series=frozenset({1})))) == [0, 1]


def numbered(number: int, series: int = 50) -> Batch:
    """Return batch 1, 2, 3, ...: every series a reading ten minutes after the last, every third batch of a day before."""
    ids = np.arange(1, series + 1, dtype=np.int32)
    time_us = np.full(series, T0 + number * 10 * MINUTE - (number % 3 == 0) * DAY, np.int64) + number
    ones = np.ones(series, np.uint8)
    return Batch(
        ids,
        time_us,
        ids.astype(np.float64),
        ones,
        np.zeros(series, np.int32),
        np.full(series, number, np.int64),
        time_us + 1,
    )


def seen(store: Store) -> Int64Array:
    """Return how many readings there are of each batch, 1, 2, 3, ..."""
    found = [part["origin"].to_numpy() for part in store.read(EVERY, ALWAYS)]
    return np.bincount(np.concatenate(found))[1:] if found else np.zeros(0, np.int64)


def test_every_reader_sees_every_reading_once_beside_a_writer_and_upkeep(store: DuckDBStore) -> None:
    with_series(store, 50)
    batches, done = 200, [0]

    def write() -> None:
        for number in range(1, batches + 1):
            store.append(numbered(number), Position("j", number))
            done[0] = number

    def tend() -> None:
        while done[0] < batches:
            store.tend(T0 + done[0] * 10 * MINUTE)

    def read() -> None:
        while done[0] < batches:
            before = done[0]
            found = seen(store)
            assert (found == 50).all(), found
            assert len(found) >= before
            assert len(store.latest(EVERY, at_us=FAR, lookback_s=FAR // 1_000_000)) in {50, 50 * min(before, 1)}

    with ThreadPoolExecutor() as pool:
        for work in [pool.submit(work) for work in (write, tend, read, read)]:
            work.result(60)
    assert tend_all(store) > 0
    assert seen(store).tolist() == [50] * batches


def tend_for_ever(path: str) -> None:
    """Append and tend without end, telling each batch that is stored."""
    store = DuckDBStore.open(path)
    store.register([air(f"air/{n}") for n in range(1, 501)])
    stands = store.applied("j")
    number = stands.number if stands else 0
    while True:
        for _ in range(5):
            number += 1
            store.append(numbered(number, 500), Position("j", number))
        print(number, flush=True)  # noqa: T201
        tend_all(store, T0 + number * 10 * MINUTE)


def test_killed_while_it_tends_it_reopens_to_whole_batches(path: Path) -> None:
    chance = random.Random(7)
    code = f"from tests.test_duckdb_settling import tend_for_ever; tend_for_ever({str(path)!r})"
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(chance.randrange(1, 9)):
                next(writer.stdout)
            writer.send_signal(signal.SIGKILL)
        store = DuckDBStore.open(path)
        stands = store.applied("j")
        assert stands is not None
        assert seen(store).tolist() == [500] * stands.number
        again = store.append(numbered(stands.number, 500), None)
        assert (again.inserted, again.updated) == (0, 0)
        store.close()


def hourly(hour: int, series: int) -> Batch:
    """Return a reading of each series in an hour, at uneven times and of uneven values."""
    chance = np.random.default_rng(hour)
    ids = np.arange(1, series + 1, dtype=np.int32)
    time_us = T0 + hour * HOUR + chance.integers(0, HOUR, series)
    zeros = np.zeros(series, np.int32)
    return Batch(ids, time_us, chance.random(series), zeros.astype(np.uint8) + 1, zeros, time_us // 7, time_us + 1)


def test_the_file_stays_bounded_while_days_are_settled_and_forgotten(path: Path) -> None:
    store = DuckDBStore.open(path)
    with_series(store, 5_000)
    sizes = []
    for hour in range(8 * 24):
        store.append(hourly(hour, 5_000), None)
        if hour % 6 == 5:
            tend_all(store, T0 + hour * HOUR)
        if hour % 24 == 23:
            store.delete_before(T0 + (hour - 47) * HOUR)
            sizes.append(path.stat().st_size)
    store.close()
    assert max(sizes[4:]) <= 1.5 * max(sizes[:4])


def test_a_writer_waits_only_for_the_times_that_are_being_rewritten() -> None:
    gate = Gate(0)
    done = []

    def write(time: int) -> None:
        with gate.writing(np.array([time], np.int64)):
            done.append(time)

    with gate.closed(Span(10, 20)):
        writers = [threading.Thread(target=write, args=(time,)) for time in (9, 10, 19, 20)]
        for writer in writers:
            writer.start()
        for writer in (writers[0], writers[3]):
            writer.join()
        assert sorted(done) == [9, 20]
    for writer in writers:
        writer.join()
    assert sorted(done) == [9, 10, 19, 20]


def test_a_writer_that_waited_for_a_settlement_knows_the_new_boundary() -> None:
    gate, found = Gate(0), []

    def write() -> None:
        with gate.writing(np.array([15], np.int64)):
            found.append(gate.settled_us)

    with gate.closed(Span(10, 20), settled_us=20):
        writer = threading.Thread(target=write)
        writer.start()
        assert gate.settled_us == 0
    assert gate.settled_us == 20
    writer.join()
    assert found == [20]


def test_a_settlement_that_fails_leaves_the_boundary() -> None:
    gate = Gate(0)
    with pytest.raises(duckdb.Error), gate.closed(Span(10, 20), settled_us=20):
        raise duckdb.Error
    assert gate.settled_us == 0
    with gate.writing(np.array([15], np.int64)):
        assert gate.settled_us == 0
