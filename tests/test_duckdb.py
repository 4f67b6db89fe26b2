"""The DuckDB file: what a kill, damage, another process or a newer Qala do to it."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import numpy as np
import pytest

from devices.errors import ConfigError, CorruptError, UnavailableError, VersionError
from devices.reading import Batch, Position, SeriesInfo
from qala.store import duckdb_sql as sql
from qala.store.arrival import Extent, by_series, runs_of_days, survivors
from qala.store.base import Selector, Span
from qala.store.conformance import ALWAYS, DAY, EVERY, T0, air, batch, everything, rows, with_series
from qala.store.duckdb import DuckDBStore
from qala.store.duckdb_file import Cursors, connect

ROWS = 1_000  # readings of one batch of the writer below
ROOT = Path(__file__).parent.parent


def numbered(number: int, late: bool = False) -> Batch:
    """Return batch 1, 2, 3, ... of one reading for each of ROWS series; late ones are of the past."""
    series = np.arange(1, ROWS + 1, dtype=np.int32)
    time_us = np.full(ROWS, T0 + (-number if late else number) * 1_000_000, np.int64)
    zeros = np.zeros(ROWS, np.int32)
    origin = np.full(ROWS, number, np.int64)
    value = (series * 0.5 + number).astype(np.float64)
    return Batch(series, time_us, value, np.ones(ROWS, np.uint8), zeros, origin, time_us)


def write_for_ever(path: str) -> None:
    """Append batch after batch from where the store stands, telling each one that is stored."""
    store = DuckDBStore.open(path)
    store.register([air(f"air/{n}") for n in range(ROWS)])
    stands = store.applied("j")
    number = stands.number if stands else 0
    while True:
        number += 1
        store.append(numbered(number, late=number % 3 == 0), Position("j", number))
        print(number, flush=True)  # noqa: T201


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "readings.duckdb"


@pytest.fixture
def store(path: Path) -> Iterator[DuckDBStore]:
    store = DuckDBStore.open(path)
    yield store
    store.close()


def killed_writer(path: Path, *, after: int) -> int:
    """Run a writer, kill it without mercy while it appends, and return the last batch that it told of."""
    code = f"from tests.test_duckdb import write_for_ever; write_for_ever({str(path)!r})"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [int(next(writer.stdout)) for _ in range(after)]
        writer.send_signal(signal.SIGKILL)
        told += [int(line) for line in writer.stdout if line.endswith("\n")]
    return told[-1]


def test_killed_while_appending_it_reopens_to_whole_batches_and_their_position(path: Path) -> None:
    chance = random.Random(5)
    for _ in range(4):
        told = killed_writer(path, after=chance.randrange(1, 30))
        store = DuckDBStore.open(path)
        stands = store.applied("j")
        kept = np.concatenate([part["origin"].to_numpy() for part in store.read(EVERY, ALWAYS)])
        store.close()
        assert stands is not None
        assert stands.number in (told, told + 1)  # a batch may be stored and not yet told of
        assert np.array_equal(np.bincount(kept)[1:], np.full(stands.number, ROWS))


def write_and_crash(path: str, batches: int) -> None:
    """Append so many batches and end without closing."""
    store = DuckDBStore.open(path)
    store.register([air(f"air/{n}") for n in range(ROWS)])
    for number in range(1, batches + 1):
        store.append(numbered(number), Position("j", number))
    os._exit(0)


def crashed(path: Path, batches: int) -> None:
    """Leave a store of so many batches with all of them still in its write-ahead log."""
    code = f"from tests.test_duckdb import write_and_crash; write_and_crash({str(path)!r}, {batches})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_cut_log_reopens_to_the_batches_before_the_cut(tmp_path: Path) -> None:
    crashed(tmp_path / "whole", 8)
    log = (tmp_path / "whole.wal").read_bytes()
    seen = set()
    for cut in random.Random(3).sample(range(len(log) // 2, len(log)), 6):
        shutil.copy(tmp_path / "whole", tmp_path / "cut")
        (tmp_path / "cut.wal").write_bytes(log[:cut])
        store = DuckDBStore.open(tmp_path / "cut")
        stands = store.applied("j")
        assert stands is not None
        assert len(everything(store)) == stands.number * ROWS
        seen.add(stands.number)
        store.close()
    assert len(seen) > 1


def test_a_damaged_log_is_told_with_the_way_back(path: Path) -> None:
    crashed(path, 8)
    log = path.with_name(path.name + ".wal")
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    with pytest.raises(CorruptError, match=r"backup.*journal"):
        DuckDBStore.open(path)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"not a database" * 1000, id="other bytes"),
        pytest.param(lambda data: data[: len(data) // 2], id="cut"),
        pytest.param(lambda data: data[:100], id="cut in the header"),
        pytest.param(lambda data: bytes([data[0] ^ 1]) + data[1:], id="first block"),
        pytest.param(lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:], id="second header"),
    ],
)
def test_a_damaged_file_is_told_with_the_way_back(path: Path, damage: object) -> None:
    store = DuckDBStore.open(path)
    with_series(store, ROWS)
    store.append(numbered(1), None)
    store.close()
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(CorruptError, match=r"backup.*journal"):
        DuckDBStore.open(path)


def test_a_newer_schema_is_refused(path: Path) -> None:
    DuckDBStore.open(path).close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    with pytest.raises(VersionError, match="99"):
        DuckDBStore.open(path)
    with duckdb.connect(str(path)) as connection:  # the file was let go
        assert connection.execute("SELECT version FROM schema_version").fetchall() == [(99,)]


def test_a_file_of_something_else_is_left_alone(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE cats (name VARCHAR)")
    with pytest.raises(ConfigError, match="something else"):
        DuckDBStore.open(path)


def test_a_second_process_is_told_who_has_the_file(store: DuckDBStore, path: Path) -> None:
    code = (
        "import sys\nfrom qala.store import open_store\nfrom devices.errors import UnavailableError\n"
        f"try: open_store('duckdb://{path}')\nexcept UnavailableError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "another process" in out


def test_what_was_stored_is_there_after_reopening(path: Path) -> None:
    store = DuckDBStore.open(path)
    ids = store.register([air(), SeriesInfo("road/1", "vehicle_count", "lane1", 300, "veh")])
    store.append(batch((1, T0, 1.0), (2, T0, 2.0)), Position("j", 9))
    store.append(Batch.empty(), Position("j", 4))
    store.close()
    store = DuckDBStore.open(path)
    assert store.applied("j") == Position("j", 9)
    assert store.register([SeriesInfo("road/1", "vehicle_count", "lane1", 300, "veh")]).tolist() == [ids[1]]
    assert store.append(batch((1, T0, 1.0), (1, T0 + 1, 3.0)), None).inserted == 1
    assert everything(store) == [(1, T0, 1.0), (1, T0 + 1, 3.0), (2, T0, 2.0)]
    store.close()


def test_a_batch_that_fails_half_way_leaves_nothing_and_can_be_repeated(
    store: DuckDBStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_series(store)
    store.append(batch((1, T0 + 10, 1.0)), Position("j", 1))
    mixed = batch((1, T0, 0.0), (1, T0 + 20, 2.0))
    with monkeypatch.context() as broken:
        broken.setattr("qala.store.duckdb_sql.UPDATE_POSITION", "SELECT error('no space left')")
        with pytest.raises(duckdb.Error):
            store.append(mixed, Position("j", 2))
    assert everything(store) == [(1, T0 + 10, 1.0)]
    assert store.applied("j") == Position("j", 1)
    assert store.append(mixed, Position("j", 2)).inserted == 2
    assert store.applied("j") == Position("j", 2)


def test_new_series_are_kept_with_the_first_batch_that_succeeds(
    store: DuckDBStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_series(store)
    with monkeypatch.context() as broken:
        broken.setattr("qala.store.duckdb_sql.INSERT_POSITION", "SELECT error('no space left')")
        with pytest.raises(duckdb.Error):
            store.append(batch((1, T0, 1.0)), Position("j", 1))
    store.append(batch((1, T0, 1.0)), Position("j", 1))
    late = store.register([air("air/late")])
    catalog = dict(store.catalog())
    store.close()

    again = DuckDBStore.open(path)
    assert dict(again.catalog()) == catalog
    assert again.register([air("air/late")]).tolist() == late.tolist() == [3]
    assert everything(again) == [(1, T0, 1.0)]
    again.close()


def append_on_a_full_disk(path: str) -> None:
    """Fill the room for the log, see appends fail, make room, and go on."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = DuckDBStore.open(path)
    store.register([air(f"air/{n}") for n in range(ROWS)])
    store.append(numbered(1), Position("j", 1))
    size = Path(path + ".wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10_000, resource.RLIM_INFINITY))
    for _ in range(2):
        with pytest.raises(UnavailableError, match="disk space"):
            store.append(numbered(2), Position("j", 2))
    assert (store.applied("j"), len(everything(store))) == (Position("j", 1), ROWS)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.append(numbered(2), Position("j", 2))
    os._exit(0)


def test_a_full_disk_stops_nothing_but_the_append(path: Path) -> None:
    code = f"from tests.test_duckdb import append_on_a_full_disk; append_on_a_full_disk({str(path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    store = DuckDBStore.open(path)
    assert (store.applied("j"), len(everything(store))) == (Position("j", 2), 2 * ROWS)
    store.close()


def test_closing_beside_readers_ends_them_with_an_error_or_their_rows(path: Path) -> None:
    store = DuckDBStore.open(path)
    with_series(store, ROWS)
    for number in range(1, 51):
        store.append(numbered(number), None)
    reading = threading.Barrier(4)
    ends: list[int] = []

    def read() -> None:
        parts = store.read(EVERY, ALWAYS)
        rows = len(next(iter(parts)))
        reading.wait()
        try:
            ends.append(rows + sum(map(len, parts)))
        except UnavailableError:
            ends.append(0)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    reading.wait()
    store.close()
    for reader in readers:
        reader.join()
    assert len(ends) == 3
    assert set(ends) <= {0, 50 * ROWS}


def test_a_reader_that_gets_no_cursor_is_told_so(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        cursors = Cursors(connection, count=1, wait_s=0.01)
        with cursors.take(), pytest.raises(UnavailableError, match="busy"), cursors.take():
            pass
        with cursors.take() as cursor:
            assert cursor.execute("SELECT 1").fetchall() == [(1,)]


def test_a_reader_sees_the_moment_at_which_it_begins(path: Path) -> None:
    with closing(connect(path, memory_max_mb=256, threads=1)) as writer:
        with Cursors(writer, count=1).take() as reader:
            writer.execute("INSERT INTO positions VALUES ('j', 1)")
            assert reader.execute(sql.POSITIONS).fetchall() == []
        assert writer.execute(sql.POSITIONS).fetchall() == [("j", 1)]


def test_no_pandas_is_imported(path: Path) -> None:
    code = (
        "import sys\nfrom tests.test_duckdb import *\nfrom qala.store.base import *\n"
        "from qala.store.conformance import *\n"
        f"store = DuckDBStore.open({str(path)!r})\nwith_series(store)\n"
        "store.append(batch((1, T0, 1.0)), None)\nstore.put_values([a_value()])\n"
        "list(store.read(EVERY, Span(T0 + 1, T0 + 2), bracket=True))\n"
        "store.latest(EVERY, at_us=T0, lookback_s=1)\nstore.values(ValueSelector(), ALWAYS)\n"
        "store.overview(EVERY, np.array([T0, T0 + 1]), frozenset(Aggregate))\nstore.close()\n"
        "DuckDBStore.open(" + repr(str(path)) + ").close()\nprint('pandas' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"


def test_only_readings_after_all_stored_ones_are_taken_as_new() -> None:
    extent = Extent(3)
    extent.widen(np.array([1, 1], np.int32), np.array([T0, T0 + 5], np.int64))
    new, rest = extent.split(batch((1, T0 + 5, 1.0), (1, T0 + 6, 2.0), (2, T0, 3.0), (1, T0 + 6, 4.0), (1, T0, 5.0)))
    assert list(zip(new.series.tolist(), new.time_us.tolist(), new.value.tolist(), strict=True)) == [
        (2, T0, 3.0),
        (1, T0 + 6, 4.0),
    ]
    assert sorted(rest.value.tolist()) == [1.0, 5.0]


def test_series_are_ordered_beyond_sixteen_bits() -> None:
    series = np.random.default_rng(1).integers(1, 1_000_000, 10_000).astype(np.int32)
    assert np.array_equal(by_series(series), np.argsort(series, kind="stable"))


def test_rows_that_rise_in_time_all_stay() -> None:
    assert survivors(batch((2, T0, 1.0), (1, T0, 1.0), (2, T0 + 1, 1.0))) is None


def test_times_are_parted_where_a_day_or_more_lies_between() -> None:
    times = np.array([T0 + 5 * DAY, T0 + DAY - 1, T0, T0 + 5 * DAY + 1, T0 + DAY], np.int64)
    parts = [(sorted(times[rows].tolist()), span) for rows, span in runs_of_days(times)]
    assert parts == [
        ([T0, T0 + DAY - 1, T0 + DAY], Span(T0, T0 + DAY + 1)),
        ([T0 + 5 * DAY, T0 + 5 * DAY + 1], Span(T0 + 5 * DAY, T0 + 5 * DAY + 2)),
    ]
    assert list(runs_of_days(np.empty(0, np.int64))) == []


def test_a_reading_long_past_is_merged_into_many_days(store: DuckDBStore) -> None:
    with_series(store)
    days = [(1, T0 + n * 3 * DAY, float(n)) for n in range(50)]
    store.append(batch(*days), None)
    assert store.append(batch(*((s, t + 1, v) for s, t, v in days)), None).inserted == 50
    assert len(everything(store)) == 100
    picked = Selector(devices=frozenset({"air/1"}))
    assert sum(map(len, store.read(picked, Span(T0, T0 + 6 * DAY)))) == 4


def made_by_schema_1(path: Path) -> None:
    """Make a file as it was before readings lived in two tables."""
    store = DuckDBStore.open(path)
    with_series(store)
    store.append(batch((1, T0, 1.0), (2, T0 - 400 * DAY, 2.0)), Position("j", 9))
    store.close()
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "CREATE TABLE before AS SELECT * EXCLUDE delay_us, time_us + delay_us AS received_us FROM hot"
        )
        connection.execute("DROP VIEW readings")
        connection.execute("ALTER TABLE before RENAME TO readings")
        tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        for (table,) in tables:
            if table not in {"schema_version", "series", "positions", "readings", "indicator_values"}:
                connection.execute(f"DROP TABLE {table}")
        connection.execute("UPDATE schema_version SET version = 1")


def test_a_file_of_the_first_schema_is_taken_over(path: Path) -> None:
    made_by_schema_1(path)
    for _ in range(2):
        store = DuckDBStore.open(path)
        assert everything(store) == [(1, T0, 1.0), (2, T0 - 400 * DAY, 2.0)]
        assert [row["received_us"] - row["time_us"] for row in rows(store.read(EVERY, ALWAYS))] == [1_000_000] * 2
        assert store.applied("j") == Position("j", 9)
        store.close()


def test_a_flipped_bit_among_the_readings_is_told_and_never_read(path: Path) -> None:
    store = DuckDBStore.open(path)
    with_series(store, ROWS)
    for number in range(1, 31):
        store.append(numbered(number), None)
    kept = everything(store)
    store.close()
    whole = path.read_bytes()
    hints = []
    for place in random.Random(4).sample(range(3 * 4096, len(whole)), 12):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            store = DuckDBStore.open(path)
            try:
                assert everything(store) == kept  # the bit was of nothing that is in use
            finally:
                store.close()
        except CorruptError as error:
            hints.append(error.hint)
    assert hints
    assert all("qala store restore" in hint for hint in hints)
