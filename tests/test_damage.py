"""A store that is damaged: what is said, how processes end, and that the way back is one command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qala.doctor import Finding, examine
from qala.process import DAMAGED
from qala.rebuild import rebuild
from qala.run import Child
from qala.store import open_store
from tests.test_store_rebuild import Place, lived
from tests.wait import until

WAYS_BACK = ("qala store restore", "qala store rebuild")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    lived(made, 30)
    made.close()
    return made


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


def damage(place: Place, where: str) -> None:
    """Flip one bit of the store's file, or of the log beside it."""
    path = place.folder / "readings.duckdb"
    if where == "log":
        leave_a_log(place)
        path = path.with_name(path.name + ".wal")
        flip(path, path.stat().st_size // 2)
    else:
        flip(path, {"header": 4200, "block": 60_000}[where])


def leave_a_log(place: Place) -> None:
    """Write to the store in a process that ends without closing it."""
    code = f"""
import os
from qala.store import open_store
from devices.reading import SeriesInfo
from qala.store.conformance.builders import batch
store = open_store("{place.config.store_url}")
series = store.register([SeriesInfo("town/x", f"pm{{n}}") for n in range(500)])
store.append(batch(*((id_, 0, 1.0) for id_ in series.tolist())), None)
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def run(place: Place, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "QALA_DATA": str(place.folder),
        "QALA_INGEST__MQTT": "127.0.0.1:0",
        "QALA_DASHBOARDS__HTTP": "127.0.0.1:0",
    }
    command = [sys.executable, "-m", "qala", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("where", ["header", "block", "log"])
def test_a_damaged_store_ends_the_server_with_the_way_back_and_no_traceback(place: Place, where: str) -> None:
    damage(place, where)
    done = run(place, "serve")
    assert done.returncode == DAMAGED, done.stderr
    assert "damaged" in done.stderr
    assert all(way in done.stderr for way in WAYS_BACK)
    assert "Traceback" not in done.stderr


def test_the_doctor_says_the_same(place: Place) -> None:
    damage(place, "header")
    [found] = [finding for finding in examine(place.config) if finding.subject == "store"]
    assert not found.ok
    assert all(way in found.hint for way in WAYS_BACK)


def test_the_doctor_opens_a_store_that_is_there_and_makes_none(place: Place) -> None:
    assert Finding(True, "store", "duckdb opens") in examine(place.config)
    (place.folder / "readings.duckdb").unlink()
    examine(place.config)
    assert not (place.folder / "readings.duckdb").exists()


def test_a_server_whose_store_is_damaged_is_not_started_again_and_again(tmp_path: Path) -> None:
    child = Child("the server", ["journal", "ls", "--data", str(tmp_path)])
    child._command = [sys.executable, "-c", f"raise SystemExit({DAMAGED})"]
    child.start()
    until(lambda: child.look() == DAMAGED)
    assert child.wait_s() > 30


def test_the_way_back_from_damage_is_a_rebuild(tmp_path: Path) -> None:
    place = Place(tmp_path)
    try:
        lived(place, 60)
        held = place.readings()
        damage(place, "block")
        damaged = (place.folder / "readings.duckdb").read_bytes()
        done = rebuild(place.config, into=None, force=False, say=lambda _: None)
        assert place.readings() == held
        assert done.former is not None
        assert done.former.read_bytes() == damaged
        open_store(place.config.store_url).close()
    finally:
        place.close()
