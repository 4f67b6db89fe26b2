"""The journal is the truth: a store that is rebuilt from it, or restored and caught up, holds what it held."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from devices.device import Device, Placement
from devices.errors import ConflictError, NotFoundError
from devices.value import Value
from ingest.journal import Journal
from ingest.message import Message
from ingest.published import read_published
from qala.config import Config, load_config
from qala.process import Hold
from qala.rebuild import rebuild
from qala.safekeeping import back_up, restore
from qala.state.reopened import reopened
from qala.store import open_store
from qala.store.base import Span, ValueSelector
from qala.store.checksum import DaySum, reading_checksums
from qala.wiring import App, build
from tests.builders import message
from tests.wait import until

MINUTE_US = 60_000_000
EVER = Span(-(2**62), 2**62)
ROADS, STATIONS = 3, 3
LATECOMER = "town/late"


class Place:
    """A data folder with a real journal, and the serving process's parts over it."""

    def __init__(self, folder: Path, *, meters: int = 0, segment_max: int = 64 << 20) -> None:
        self.folder = folder / "data"
        devices = [f"town/r{n},traffic_detector,road{n},60" for n in range(ROADS)]
        devices += [f"town/s{n},air_station,district{n},60" for n in range(STATIONS)]
        devices += [f"town/m{n},electricity_meter,,60" for n in range(meters)]
        (folder / "devices.csv").write_text("\n".join(["id,kind,zones,interval_s", *devices]) + "\n")
        zones = [_zone("road", n) for n in range(ROADS)] + [_zone("district", n) for n in range(STATIONS)]
        (folder / "zones.json").write_text(json.dumps({"type": "FeatureCollection", "features": zones}))
        self.config: Config = load_config(
            flags={
                "data": self.folder,
                "devices_file": folder / "devices.csv",
                "zones_file": folder / "zones.json",
                "analytics.amend_every_s": 0,
                "analytics.tick_s": 0.05,
            }
        )
        self.journal = Journal.open(self.folder / "journal", segment_max=segment_max)

    def send(self, messages: list[Message]) -> None:
        for at in range(0, len(messages), 500):
            self.journal.append(messages[at : at + 500])

    def serve(self, deadline_s: float = 120.0) -> _Serving:
        """Run the serving process's threads until all is applied and computed, and go on until the end of the block."""
        return _Serving(self, deadline_s)

    def readings(self) -> list[DaySum]:
        return readings(self.config.store_url)

    def values(self) -> dict[tuple[str, str, str, int], Value]:
        return values(self.config.store_url)

    def close(self) -> None:
        self.journal.close()


class _Serving:
    def __init__(self, place: Place, deadline_s: float) -> None:
        self.place = place
        self.deadline_s = deadline_s

    def __enter__(self) -> App:
        self.app = build(self.place.config)
        self.app.start()
        self.settle()
        return self.app

    def settle(self) -> None:
        for _ in range(2):  # a batch is marked a little before it is stored
            until(self._settled, deadline_s=self.deadline_s, every_s=0.1)
            time.sleep(0.2)

    def _settled(self) -> bool:
        parts = self.app.parts()
        last = read_published(self.place.folder / "journal" / "synced")
        scheduler = parts["scheduler"]
        rests = self.app._patient.is_at_rest(self.place.journal.id)
        taken_up = parts["projector"]["applied"] == last and not reopened(self.app._engine)
        return taken_up and scheduler["due"] == scheduler["marks"] == 0 and rests

    def __exit__(self, *_: object) -> None:
        self.settle()
        self.app.close()


def _zone(kind: str, number: int) -> dict[str, Any]:
    east = 76.8 + 0.1 * number
    road = kind == "road"
    ring = [[east, 43.2], [east + 0.1, 43.2], [east + 0.1, 43.3], [east, 43.2]]
    geometry = {"type": "LineString", "coordinates": ring[:2]} if road else {"type": "Polygon", "coordinates": [ring]}
    properties = {"kind": kind, "name": f"{kind} {number}", **({"free_flow_kmh": 60} if road else {})}
    return {"type": "Feature", "id": f"{kind}{number}", "properties": properties, "geometry": geometry}


def told(device: str, time_us: int, values: Mapping[str, float], **members: Any) -> Message:
    document = {"t": time_us // 1000, **members, "v": dict(values)}
    return message(document, device=device, received_us=time_us + 2_000_000)


def hours(minutes: int, until_us: int, seed: int = 7) -> list[Message]:
    """Minutes of a town: late ones, corrections, doubles, some of a device that nobody declared, some that nobody can read."""
    dice = random.Random(seed)
    sent: list[tuple[float, Message]] = []
    for minute in range(minutes):
        at_us = until_us - (minutes - minute) * MINUTE_US
        for n in range(ROADS):
            values = {"speed": 30 + 10 * n + dice.random() * 5, "vehicle_count": float(dice.randrange(5, 25))}
            sent.append((minute, told(f"town/r{n}", at_us, values, w=60_000)))
        for n in range(STATIONS):
            values = {"pm2_5": 20 + 5 * n + dice.random() * 4, "temperature": dice.random()}
            sent.append(
                (minute + (dice.randrange(90) if dice.random() < 0.1 else 0), told(f"town/s{n}", at_us, values))
            )
            if dice.random() < 0.05:
                sent.append((minute + 30, told(f"town/s{n}", at_us, {"pm2_5": 11.5}, r=1)))
        sent.append((minute, told(LATECOMER, at_us, {"pm2_5": 40 + dice.random() * 4})))
        if dice.random() < 0.05:
            sent.append((minute, message(b"{", device="town/s0", received_us=at_us)))
            sent.append(sent[dice.randrange(len(sent))])
    return [one for _, one in sorted(sent, key=lambda item: item[0])]


def readings(url: str) -> list[DaySum]:
    store = open_store(url)
    try:
        return list(reading_checksums(store))
    finally:
        store.close()


def values(url: str) -> dict[tuple[str, str, str, int], Value]:
    """Return the newest values, without their revision and when they became known."""
    store = open_store(url)
    try:
        rows = store.values(ValueSelector(), EVER).to_pylist()
    finally:
        store.close()
    found = [msgspec.convert({**row, "detail": msgspec.json.decode(row["detail"])}, Value) for row in rows]
    plain = [msgspec.structs.replace(value, known_us=0, revision=0) for value in found]
    return {(value.indicator, value.zone, value.window, value.start_us): value for value in plain}


def now_us() -> int:
    return time.time_ns() // 1000 // MINUTE_US * MINUTE_US


def admit_latecomer(app: App) -> None:
    app.admit(Device(LATECOMER, "air_station", interval_s=60), Placement(LATECOMER, ("district0",)))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


def lived(place: Place, minutes: int = 240) -> None:
    """Let hours pass: messages, an admission of a device that had sent before, and more messages."""
    until_us = now_us()
    messages = hours(minutes, until_us)
    place.send(messages[: len(messages) // 2])
    with place.serve() as app:
        admit_latecomer(app)
        place.send(messages[len(messages) // 2 :])
        app._projector.wake()


def test_a_store_rebuilt_from_the_journal_is_equal(place: Place) -> None:
    lived(place)
    held, computed = place.readings(), place.values()
    done = rebuild(place.config, into=None, force=False, say=lambda _: None)
    assert done.former is not None
    assert done.former.exists()
    assert place.readings() == held
    assert len(computed) > 300
    rebuilt = place.values()
    assert {key: rebuilt.get(key) for key in computed} == computed
    assert {series.series.device for series in held} >= {LATECOMER}
    with place.serve():
        pass
    assert place.readings() == held


def test_a_rebuild_into_another_store_leaves_the_present_one_alone(place: Place, tmp_path: Path) -> None:
    lived(place, 60)
    held = place.readings()
    other = f"duckdb://{tmp_path}/other.duckdb"
    done = rebuild(place.config, into=other, force=False, say=lambda _: None)
    assert done.former is None
    assert readings(other) == held == place.readings()
    with pytest.raises(ConflictError, match="not empty"):
        rebuild(place.config, into=other, force=False, say=lambda _: None)


def test_a_rebuild_tells_nobody_anything(place: Place) -> None:
    lived(place, 60)
    before = episodes(place)
    rebuild(place.config, into=None, force=False, say=lambda _: None)
    with place.serve():
        pass
    assert episodes(place) == before


def episodes(place: Place) -> tuple[list[Any], list[Any]]:
    """Read what people were told, past all of our code."""
    from pysqlite3 import dbapi2

    connection = dbapi2.connect(f"file:{place.folder / 'state.sqlite'}?mode=ro", uri=True)
    try:
        found = connection.execute(
            "SELECT id, state, start_us FROM episode WHERE kind = 'value' ORDER BY id"
        ).fetchall()
        notices = connection.execute("SELECT episode, kind FROM notice ORDER BY 1, 2").fetchall()
    finally:
        connection.close()
    return found, [notice for notice in notices if notice[0] in {id_ for id_, *_ in found}]


def test_a_rebuild_that_is_killed_goes_on_and_ends_equal(place: Place, tmp_path: Path) -> None:
    lived(place)
    held, computed = place.readings(), place.values()
    command = [sys.executable, "-m", "tests.slow_rebuild", str(place.folder), str(tmp_path)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(3):  # batches that are stored
            assert process.stdout.readline().startswith("stored")
        process.send_signal(signal.SIGKILL)
    said: list[str] = []
    assert place.readings() == held
    rebuild(place.config, into=None, force=False, say=said.append)
    assert any("cut short" in line for line in said)
    assert place.readings() == held
    rebuilt = place.values()
    assert {key: rebuilt.get(key) for key in computed} == computed
    assert not (place.folder / "rebuild").exists()


def test_a_rebuild_that_was_cut_short_begins_again_when_the_registry_changed(place: Place) -> None:
    lived(place, 60)
    folder = place.folder / "rebuild"
    folder.mkdir()
    (folder / "begun.json").write_text('{"of":"another registry"}')
    (folder / "state.sqlite").write_bytes(b"half of it")
    held = place.readings()
    rebuild(place.config, into=None, force=False, say=lambda _: None)
    assert place.readings() == held


def test_a_journal_that_was_pruned_is_rebuilt_from_only_when_forced(tmp_path: Path) -> None:
    place = Place(tmp_path, segment_max=20_000)
    try:
        place.send(hours(240, now_us()))
        [first, _, *_] = sorted(place.folder.glob("journal/*.qj"))
        first.unlink()
        with pytest.raises(ConflictError, match="begins at message"):
            rebuild(place.config, into=None, force=False, say=lambda _: None)
        said: list[str] = []
        rebuild(place.config, into=None, force=True, say=said.append)
        assert "would be missing" in said[0]
    finally:
        place.close()


def test_nothing_is_rebuilt_beside_a_running_server_or_without_a_journal(tmp_path: Path) -> None:
    config = load_config(flags={"data": tmp_path})
    with pytest.raises(NotFoundError):
        rebuild(config, into=None, force=False, say=lambda _: None)
    hold = Hold(tmp_path / "serve.lock")
    try:
        with pytest.raises(ConflictError, match="in use"):
            rebuild(config, into=None, force=False, say=lambda _: None)
    finally:
        hold.release()


METERS, READINGS_EACH, READINGS_A_MESSAGE = 400, 2_500, 50


def a_million(until_us: int) -> list[Message]:
    """Meters that tell fifty minutes at a time, some of them twice, some corrected afterwards."""
    dice = random.Random(3)
    sent: list[tuple[float, Message]] = []
    for meter in range(METERS):
        for at in range(0, READINGS_EACH, READINGS_A_MESSAGE):
            times = [(until_us - (READINGS_EACH - at - n) * MINUTE_US) // 1000 for n in range(READINGS_A_MESSAGE)]
            powers = [round(500 + 100 * dice.random(), 1) for _ in times]
            for revision in (0, 1) if dice.random() < 0.02 else (0,):
                document = {"t": times, "v": {"active_power": powers}, "r": revision}
                one = message(document, device=f"town/m{meter}", received_us=times[-1] * 1000)
                sent.append((at + dice.random() * 500, one))
                if dice.random() < 0.02:
                    sent.append((at + 600, one))
    return [one for _, one in sorted(sent, key=lambda item: item[0])]


@pytest.mark.timeout(600)
def test_a_million_readings_come_back_equal_from_the_journal_and_from_a_backup(tmp_path: Path) -> None:
    place = Place(tmp_path, meters=METERS)
    try:
        until_us = now_us()
        messages = a_million(until_us)
        place.send(messages[: len(messages) // 2])
        place.send(hours(60, until_us))
        with place.serve():
            pass
        file = tmp_path / "backup.duckdb"
        back_up(place.config, file, say=lambda _: None)
        place.send(messages[len(messages) // 2 :])
        with place.serve():
            pass
        held, computed = place.readings(), place.values()
        assert sum(one.rows for one in held) >= 1_000_000
        restore(place.config, file, force=False, say=lambda _: None)
        with place.serve():
            pass
        assert place.readings() == held
        rebuild(place.config, into=None, force=False, say=lambda _: None)
        assert place.readings() == held
        rebuilt = place.values()
        assert {key: rebuilt.get(key) for key in computed} == computed
    finally:
        place.close()
