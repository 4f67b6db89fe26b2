"""Backups of the DuckDB file: whole batches with their position, taken while it is written, read and tended."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from devices.errors import ConflictError, CorruptError, UnavailableError
from devices.reading import Position
from qala.store.conformance.builders import ALWAYS, EVERY, MINUTE, T0, everything, with_series
from qala.store.duckdb import DuckDBStore
from qala.store.duckdb_backup import read_through
from tests.test_duckdb_settling import hourly, numbered, seen

ROOT = Path(__file__).parent.parent


def test_a_backup_beside_a_writer_readers_and_upkeep_holds_whole_batches_and_their_position(tmp_path: Path) -> None:
    store = DuckDBStore.open(tmp_path / "readings.duckdb")
    with_series(store, 50)
    store.append(numbered(1), Position("j", 1))
    stop, done = threading.Event(), [1]

    def write() -> None:
        while not stop.is_set():
            number = done[0] + 1
            store.append(numbered(number), Position("j", number))
            done[0] = number

    def tend() -> None:
        while not stop.is_set():
            store.tend(T0 + done[0] * 10 * MINUTE)

    def read() -> None:
        while not stop.is_set():
            assert (seen(store) == 50).all()

    spans = []
    with ThreadPoolExecutor() as pool:
        work = [pool.submit(one) for one in (write, tend, read)]
        try:
            for copy in range(4):
                before = done[0]
                store.backup(tmp_path / f"copy{copy}")
                spans.append((before, done[0] + 1))
        finally:
            stop.set()
        for one in work:
            one.result(60)
    store.close()
    for copy, (before, after) in enumerate(spans):
        backup = DuckDBStore.open(tmp_path / f"copy{copy}")
        stands = backup.applied("j")
        assert stands is not None
        assert before <= stands.number <= after
        assert seen(backup).tolist() == [50] * stands.number
        backup.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == [*(f"copy{n}" for n in range(4)), "readings.duckdb"]


def test_a_reader_in_the_middle_of_its_rows_holds_no_backup_up(tmp_path: Path) -> None:
    store = DuckDBStore.open(tmp_path / "readings.duckdb")
    with_series(store, 5_000)
    for number in range(1, 41):
        store.append(hourly(number, 5_000), None)
    rows = store.read(EVERY, ALWAYS)
    first = len(next(rows))
    store.append(hourly(41, 5_000), Position("j", 41))
    store.backup(tmp_path / "copy")
    assert first + sum(map(len, rows)) == 40 * 5_000
    store.close()
    copy = DuckDBStore.open(tmp_path / "copy")
    assert len(everything(copy)) == 41 * 5_000
    assert copy.applied("j") == Position("j", 41)
    copy.close()


def test_a_backup_replaces_nothing(tmp_path: Path) -> None:
    store = DuckDBStore.open(tmp_path / "readings.duckdb")
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(ConflictError):
        store.backup(tmp_path / "kept")
    assert (tmp_path / "kept").read_text() == "mine"
    store.close()


def back_up_to_a_full_disk(folder: str) -> None:
    """Fail to write a backup, and go on."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = DuckDBStore.open(f"{folder}/readings.duckdb")
    store.register([])
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    with pytest.raises(UnavailableError, match="disk space"):
        store.backup(Path(folder) / "copy")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.append(numbered(31), None)
    store.backup(Path(folder) / "second")
    store.close()


def test_nothing_stays_of_a_backup_that_failed(tmp_path: Path) -> None:
    store = DuckDBStore.open(tmp_path / "readings.duckdb")
    with_series(store, 50)
    for number in range(1, 31):
        store.append(numbered(number), None)
    store.close()
    code = f"from tests.test_duckdb_backup import back_up_to_a_full_disk; back_up_to_a_full_disk({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["readings.duckdb", "second"]


def test_what_a_killed_backup_left_is_no_part_of_the_next(tmp_path: Path) -> None:
    store = DuckDBStore.open(tmp_path / "readings.duckdb")
    with_series(store, 50)
    store.append(numbered(1), Position("j", 1))
    (tmp_path / "copy.part").write_bytes(b"half")
    shutil.copyfile(tmp_path / "readings.duckdb.wal", tmp_path / "copy.part.wal")
    store.append(numbered(2), Position("j", 2))
    store.backup(tmp_path / "copy")
    kept = everything(store)
    store.close()
    backup = DuckDBStore.open(tmp_path / "copy")
    assert everything(backup) == kept
    backup.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["copy", "readings.duckdb"]


@pytest.mark.parametrize("table", ["cold", "rollups", "days"])
def test_a_flipped_bit_is_found_in_what_is_derived_from_readings_too(tmp_path: Path, table: str) -> None:
    file = tmp_path / "readings.duckdb"
    store = DuckDBStore.open(file)
    with_series(store, 50)
    for hour in range(30):
        store.append(hourly(hour, 50), None)
    while store.tend(T0 + 5 * 1440 * MINUTE):
        pass
    store.close()
    read_through(file)
    flip(file, table)
    with pytest.raises(CorruptError, match="damaged"):
        read_through(file)


def flip(file: Path, table: str) -> None:
    """Flip a bit of a table's first column on disk; blocks of 256 KiB begin after three headers of 4 KiB."""
    with duckdb.connect(str(file), read_only=True) as connection:
        stored = f"SELECT block_id, block_offset FROM pragma_storage_info('{table}') WHERE block_id >= 0 LIMIT 1"
        [(block, offset)] = connection.execute(stored).fetchall()
    data = bytearray(file.read_bytes())
    data[3 * 4096 + block * 262_144 + 8 + offset] ^= 1
    file.write_bytes(data)
