"""Backups: made while the store is in use, checked against their manifest, and put back so that nothing is missing."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import httpx
import numpy as np
import pytest

from devices.device import Placement
from devices.errors import ConflictError, CorruptError, NotFoundError, UnsupportedError
from devices.value import Value
from ingest.journal import Journal
from ingest.published import read_published
from qala.config import load_config
from qala.process import Hold
from qala.safekeeping import back_up, manifest_of, restore, verify
from qala.state import open_state, registry
from qala.state.database import METADATA
from qala.state.dirty import BUCKET_US, DirtyMarks, Due
from qala.state.judged import Judged, set_judged
from qala.state.reopened import reopen
from qala.state.rewound import Rewound, set_rewound
from qala.store import open_store
from qala.store.base import Selector
from qala.store.manifest import differences, read_manifest
from tests.builders import EVER
from tests.processes import Qala, native
from tests.test_store_rebuild import (
    LATECOMER,
    MINUTE_US,
    Place,
    admit_latecomer,
    episodes,
    hours,
    now_us,
    told,
)
from tests.wait import until


def quiet(_text: str) -> None:
    """Say nothing."""


@pytest.fixture
def place(tmp_path: Path) -> Any:
    made = Place(tmp_path)
    yield made
    made.close()


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def a_few_hours(place: Place, minutes: int = 60) -> None:
    place.send(hours(minutes, now_us()))
    with place.serve():
        pass


# ---- a backup is what it was made of


def test_a_backup_holds_what_the_store_holds_and_says_so(place: Place, tmp_path: Path) -> None:
    a_few_hours(place)
    file = tmp_path / "backup.duckdb"
    manifest = back_up(place.config, file, say=quiet)
    assert differences(manifest, read_manifest(manifest_of(file))) == []
    assert manifest.positions[place.journal.id] > 100
    assert manifest.readings == sum(one.rows for one in place.readings())
    assert manifest.values >= len(place.values()) > 0
    before = sha(file)
    assert verify(place.config, str(file), None)[1] == []
    assert sha(file) == before


def test_verify_names_the_days_that_differ(place: Place, tmp_path: Path) -> None:
    a_few_hours(place)
    file = tmp_path / "backup.duckdb"
    back_up(place.config, file, say=quiet)
    store = open_store(f"duckdb://{file}")
    store.delete_before(now_us() - 30 * MINUTE_US)
    store.close()
    _, differing = verify(place.config, str(file), None)
    assert any(line.startswith("readings of 20") for line in differing)
    assert not any(line.startswith("values") for line in differing)


def test_verify_compares_any_store_with_a_manifest(place: Place, tmp_path: Path) -> None:
    a_few_hours(place)
    file = tmp_path / "backup.duckdb"
    back_up(place.config, file, say=quiet)
    assert verify(place.config, place.config.store_url, manifest_of(file))[1] == []
    with pytest.raises(NotFoundError):
        verify(place.config, "memory:", None)


def test_a_backup_never_writes_over_anything(place: Place, tmp_path: Path) -> None:
    a_few_hours(place, 5)
    file = tmp_path / "backup.duckdb"
    file.write_bytes(b"somebody's")
    with pytest.raises(ConflictError):
        back_up(place.config, file, say=quiet)
    assert file.read_bytes() == b"somebody's"


def test_engines_that_make_no_backups_are_copied_instead(tmp_path: Path) -> None:
    config = load_config(flags={"data": tmp_path, "store.url": "memory:"})
    with pytest.raises(UnsupportedError) as caught:
        back_up(config, tmp_path / "backup", say=quiet)
    assert "qala store copy" in caught.value.hint


# ---- the way back


def test_a_restored_store_catches_up_and_equals_one_that_was_never_restored(place: Place, tmp_path: Path) -> None:
    messages = hours(180, now_us())
    place.send(messages[:700])
    with place.serve():
        pass
    file = tmp_path / "backup.duckdb"
    back_up(place.config, file, say=quiet)
    place.send(messages[700:])
    with place.serve():
        pass
    held, computed, known = place.readings(), place.values(), episodes(place)
    former = restore(place.config, file, force=False, say=quiet)
    assert former is not None
    assert place.readings() != held
    with place.serve():
        pass
    assert place.readings() == held
    restored = place.values()
    assert {key: restored.get(key) for key in computed} == computed
    assert episodes(place) == known
    assert former.exists()


def test_what_happened_outside_the_journal_since_a_backup_comes_back_too(place: Place, tmp_path: Path) -> None:
    messages = hours(120, now_us())
    place.send(messages)
    with place.serve():
        pass
    file = tmp_path / "backup.duckdb"
    back_up(place.config, file, say=quiet)
    with place.serve() as app:
        admit_latecomer(app)  # decodes what it had sent before the backup
        moved = Placement("town/s1", ("district0",), since_us=now_us() - 60 * MINUTE_US)
        devices = [app.registry().devices["town/s1"]]
        registry.import_registry(app._engine, devices, [], [moved], now_us())
        app.reload()
    held, computed = place.readings(), place.values()
    assert LATECOMER in {one.series.device for one in held}
    restore(place.config, file, force=False, say=quiet)
    assert LATECOMER not in {one.series.device for one in place.readings()}
    with place.serve():
        pass
    assert place.readings() == held
    restored = place.values()
    assert {key: restored.get(key) for key in computed} == computed


def test_a_change_of_the_registry_since_a_backup_counts_for_what_was_computed_before(
    place: Place, tmp_path: Path
) -> None:
    place.send(hours(60, now_us()))
    with place.serve() as app:
        admit_latecomer(app)
    file = tmp_path / "backup.duckdb"
    back_up(place.config, file, say=quiet)
    with place.serve() as app:
        moved = Placement(LATECOMER, ("district1",), since_us=now_us() - 30 * MINUTE_US)
        devices = [app.registry().devices[LATECOMER]]
        registry.import_registry(app._engine, devices, [], [moved], now_us())
        app.reload()
    computed = place.values()
    restore(place.config, file, force=False, say=quiet)
    engine = open_state(place.config.state_url)
    set_rewound(engine, place.journal.id, Rewound())  # what is taken once more would hide it
    engine.dispose()
    assert place.values() != computed
    with place.serve():
        pass
    restored = place.values()
    assert {key: restored.get(key) for key in computed} == computed


def test_what_begins_to_wait_while_the_state_is_read_for_a_backup_is_computed_after_it_is_restored(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.send(hours(120, now_us()))
    with place.serve():
        pass
    computed = place.values()
    with duckdb.connect(str(place.folder / "readings.duckdb")) as connection:
        connection.execute("DELETE FROM indicator_values")
    let_wait(place, "messages", computed)
    read_due = DirtyMarks.due

    def server_goes_on(marks: DirtyMarks, *given: int) -> list[Due]:
        """Take a server's marks out of its memory, put the windows off, and note that all is judged."""
        found = read_due(marks, *given)
        engine = open_state(place.config.state_url)
        set_judged(engine, place.journal.id, Judged(read_published(place.folder / "journal" / "applied") or 0))
        engine.dispose()
        return found

    monkeypatch.setattr(DirtyMarks, "due", server_goes_on)
    file = tmp_path / "backup.duckdb"
    back_up(place.config, file, say=quiet)
    monkeypatch.undo()
    restore(place.config, file, force=False, say=quiet)
    with place.serve():
        pass
    restored = place.values()
    assert {key: restored.get(key) for key in computed} == computed


@pytest.mark.parametrize("waiting", ["messages", "devices", "marks", "windows"])
def test_what_waited_to_be_computed_when_the_backup_was_made_is_computed_after_it_is_restored(
    place: Place, tmp_path: Path, waiting: str
) -> None:
    place.send(hours(120, now_us()))
    with place.serve():
        pass
    computed = place.values()
    aside = tmp_path / "aside.duckdb"
    shutil.copyfile(place.folder / "readings.duckdb", aside)
    with duckdb.connect(str(place.folder / "readings.duckdb")) as connection:
        connection.execute("DELETE FROM indicator_values")
    let_wait(place, waiting, computed)
    file = tmp_path / "backup.duckdb"
    back_up(place.config, file, say=quiet)
    nothing_waits(place)
    aside.replace(place.folder / "readings.duckdb")
    restore(place.config, file, force=False, say=quiet)
    assert place.values() == {}
    with place.serve():
        pass
    restored = place.values()
    assert {key: restored.get(key) for key in computed} == computed


def let_wait(place: Place, waiting: str, computed: dict[tuple[str, str, str, int], Value]) -> None:
    """Put the state to where all is stored and nothing computed, as it is at some moment of each batch."""
    engine = open_state(place.config.state_url)
    store = open_store(place.config.store_url)
    nothing_waits(place)
    if waiting == "messages":
        set_judged(engine, place.journal.id, Judged(0))
    elif waiting == "devices":
        with engine.begin() as connection:
            reopen(connection, {info.device for info in store.catalog().values()})
    elif waiting == "marks":
        rows = [row for rows in store.read(Selector(), EVER) for row in rows.to_pylist()]
        series = np.array([row["series"] for row in rows], np.int32)
        times = np.array([row["time_us"] for row in rows], np.int64)
        applied = store.applied(place.journal.id)
        assert applied is not None
        DirtyMarks(engine).mark(series, times // BUCKET_US, applied)
    else:
        windows = [Due(v.indicator, v.zone, v.window, v.start_us, v.stop_us) for v in computed.values()]
        DirtyMarks(engine).add_due(windows, now_us=0)
    store.close()
    engine.dispose()


def nothing_waits(place: Place) -> None:
    engine = open_state(place.config.state_url)
    with engine.begin() as connection:
        for table in ("dirty", "due_window", "reopened_device"):
            connection.execute(METADATA.tables[table].delete())
    engine.dispose()


def test_a_backup_without_a_manifest_or_that_is_not_what_it_was_is_not_restored(place: Place, tmp_path: Path) -> None:
    a_few_hours(place, 10)
    file = tmp_path / "backup.duckdb"
    back_up(place.config, file, say=quiet)
    held = sha(place.folder / "readings.duckdb")
    manifest = manifest_of(file).read_text()
    manifest_of(file).unlink()
    with pytest.raises(NotFoundError):
        restore(place.config, file, force=True, say=quiet)
    manifest_of(file).write_text(manifest.replace('"computed"', '"computee"', 1))
    with pytest.raises(CorruptError, match="what the state knew"):
        restore(place.config, file, force=True, say=quiet)
    manifest_of(file).write_text(manifest.replace('"readings": ', '"readings": 1'))
    document = json.loads(manifest)
    day = next(iter(document["days"].values()))
    day["checksum"] = "0" * 16
    manifest_of(file).write_text(json.dumps(document))
    with pytest.raises(CorruptError, match="not what was copied"):
        restore(place.config, file, force=True, say=quiet)
    assert sha(place.folder / "readings.duckdb") == held


def test_a_journal_that_no_longer_holds_what_came_after_is_named_and_needs_force(tmp_path: Path) -> None:
    place = Place(tmp_path, segment_max=20_000)
    try:
        messages = hours(240, now_us())
        place.send(messages[:500])
        with place.serve():
            pass
        file = tmp_path / "backup.duckdb"
        applied = back_up(place.config, file, say=quiet).positions[place.journal.id]
        place.send(messages[500:])
        starts = sorted(int(path.stem) for path in place.folder.glob("journal/*.qj"))
        gone = [first for first in starts[:-1] if first <= applied + 500]
        for first in gone:
            (place.folder / "journal" / f"{first:020d}.qj").unlink()
        kept = starts[len(gone)]
        with pytest.raises(ConflictError, match=f"{kept - applied - 1} messages would be missing"):
            restore(place.config, file, force=False, say=quiet)
        said: list[str] = []
        restore(place.config, file, force=True, say=said.append)
        assert "would be missing" in said[0]
    finally:
        place.close()


def test_a_backup_of_another_journal_needs_force(place: Place, tmp_path: Path) -> None:
    a_few_hours(place, 5)
    file = tmp_path / "backup.duckdb"
    back_up(place.config, file, say=quiet)
    other = load_config(flags={"data": tmp_path / "other"})
    journal = Journal.open(tmp_path / "other" / "journal")
    journal.append([told("town/r0", now_us(), {"speed": 5.0})])
    journal.close()
    with pytest.raises(ConflictError, match="another journal"):
        restore(other, file, force=False, say=quiet)


def test_nothing_is_restored_while_a_server_runs(place: Place, tmp_path: Path) -> None:
    a_few_hours(place, 5)
    file = tmp_path / "backup.duckdb"
    back_up(place.config, file, say=quiet)
    hold = Hold(place.folder / "serve.lock")
    try:
        with pytest.raises(ConflictError, match="in use"):
            restore(place.config, file, force=True, say=quiet)
    finally:
        hold.release()


def test_a_store_with_a_log_beside_it_is_put_aside_with_its_log(place: Place, tmp_path: Path) -> None:
    a_few_hours(place, 5)
    file = tmp_path / "backup.duckdb"
    back_up(place.config, file, say=quiet)
    (place.folder / "readings.duckdb.wal").write_bytes(b"of the former store")
    former = restore(place.config, file, force=False, say=quiet)
    assert former is not None
    assert former.with_name(former.name + ".wal").read_bytes() == b"of the former store"
    assert not (place.folder / "readings.duckdb.wal").exists()


# ---- over the running server, as people type it


def type_in(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qala", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def qala(tmp_path: Path) -> Any:
    (tmp_path / "devices.csv").write_text("id,kind\n" + "".join(f"kill/m{n},electricity_meter\n" for n in range(20)))
    with Qala(tmp_path / "data", devices=tmp_path / "devices.csv") as running:
        yield running


def test_a_backup_is_made_while_the_server_goes_on_taking_messages(qala: Qala, tmp_path: Path) -> None:
    from qala.publisher import Publisher

    stop, sent = threading.Event(), [0]

    def publish() -> None:
        with Publisher("127.0.0.1", qala.mqtt_port, client_id="flow") as publisher:
            while not stop.is_set():
                for n in range(20):
                    t = 1000 * (int(time.time()) - 86_400) + sent[0]
                    publisher.publish(f"qala/1/kill/m{n}/t", native({"active_power": float(n)}, t=t))
                    sent[0] += 1
                time.sleep(0.01)
            assert publisher.drain(30)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        until(lambda: sent[0] > 1000, deadline_s=30)
        before = sent[0]
        file = tmp_path / "backup.duckdb"
        done = type_in("store", "backup", str(file), "--data", str(qala.folder))
        assert done.returncode == 0, done.stderr
        assert sent[0] > before
    finally:
        stop.set()
        thread.join()
    manifest = read_manifest(manifest_of(file))
    assert manifest.readings == sum(manifest.positions.values()) >= 900
    qala.wait_until_caught_up()
    assert qala.get("health")["parts"]["projector"]["applied"] == sent[0]
    assert type_in("store", "verify", str(file)).returncode == 0
    store = open_store(f"duckdb://{file}")
    store.delete_before(now_us())
    store.close()
    differing = type_in("store", "verify", str(file))
    assert differing.returncode == 1
    assert "readings of 20" in differing.stderr


def test_the_network_cannot_ask_for_a_backup(qala: Qala, tmp_path: Path) -> None:
    file = tmp_path / "stolen.duckdb"
    answer = httpx.post(f"{qala.url}/api/v1/store/backup", json={"file": str(file)})
    assert (answer.status_code, answer.json()["code"]) == (403, "owner_only")
    assert not file.exists()


@pytest.mark.parametrize("step", ["copyfile", "link", "rename"])
def test_a_restore_that_is_cut_short_leaves_a_store_and_can_be_made_again(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    a_few_hours(place, 10)
    held, file = place.readings(), tmp_path / "backup.duckdb"
    back_up(place.config, file, say=quiet)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        where = {"copyfile": "qala.safekeeping.shutil.copyfile", "link": "qala.safekeeping.os.link"}
        patched.setattr(where.get(step, "pathlib.Path.rename"), die)
        with pytest.raises(KeyboardInterrupt):
            restore(place.config, file, force=False, say=quiet)
    assert place.readings() == held
    restore(place.config, file, force=False, say=quiet)
    with place.serve():
        pass
    assert place.readings() == held


def test_a_backup_into_a_folder_that_is_not_there_is_refused(place: Place, tmp_path: Path) -> None:
    a_few_hours(place, 5)
    with pytest.raises(NotFoundError, match="no folder"):
        back_up(place.config, tmp_path / "nowhere" / "backup.duckdb", say=quiet)
