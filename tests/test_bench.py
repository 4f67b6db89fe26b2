"""The bench measures what it says: all that was sent is stored, and nothing of the generator is counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest

from devices.errors import ConflictError, UnavailableError
from devices.files import parse_devices
from devices.zone_file import parse_zones
from ingest.formats.native import Native
from ingest.message import Message
from qala.bench.fleet import READINGS, ZONES_FILE, devices_csv, messages
from qala.bench.processes import cpu_of
from qala.bench.store_data import BATCH, LATE_TURNS, Shape, deliveries, readings
from qala.bench.store_influxdb import find_influxd
from qala.bench.store_qala import Qala
from qala.bench.store_questdb import find_questdb
from qala.bench.store_questions import QUESTIONS, Where, measure
from qala.bench.store_victoria import find_victoria
from qala.store.base import Span

MESSAGES = 20_000  # 20 minutes of 1,000 devices: a quarter of an hour ends in them
STOP_US = 1_767_225_600_000_000


def test_the_bench_stores_what_it_sends_and_tells_its_cost() -> None:
    command = [
        sys.executable,
        "-m",
        "qala",
        "bench",
        "ingest",
        "--load",
        "50x20",
        "--messages",
        str(MESSAGES),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["messages"], found["readings"], found["stored"]) == (
        MESSAGES,
        MESSAGES * READINGS,
        MESSAGES * READINGS,
    )
    assert {
        "cpu_us_per_message",
        "messages_per_s",
        "readings_per_s",
        "bytes_per_reading",
        "machine",
        "time",
    } <= found.keys()
    assert [load["load"] for load in found["loads"]] == ["50x20"]
    assert found["cpu_us_by_process"].keys() == {"run", "door", "serve"}
    assert found["cpu_us_by_stage"].keys() == {"journal", "decode", "admit", "rejected", "marks", "store", "ledger"}
    assert 0 < found["cpu_us_per_message"] <= found["cpu_us_per_message_with_analytics"]
    assert found["windows"] > 0
    assert "50x20: sending 20,000 messages" in done.stderr


def test_an_unknown_load_is_refused_with_the_names_of_those_there_are() -> None:
    command = [sys.executable, "-m", "qala", "bench", "ingest", "--load", "7x7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 2
    assert "1x1000, 50x20, 900x1" in done.stderr


def test_every_message_has_five_readings_and_a_device_and_time_of_its_own() -> None:
    decoder = Native()
    sent = [Message(topic, payload, STOP_US) for topic, payload in messages(95, 10, stop_us=STOP_US)]
    reports = [report for message in sent for report in decoder.decode(message).reports]
    assert [len(report.keys) for report in reports] == [READINGS] * 95
    assert len({(report.device, report.time_us) for report in reports}) == 95
    assert max(report.time_us or 0 for report in reports) < STOP_US
    assert sum(len(message.payload) for message in sent) / 95 == pytest.approx(110, rel=0.1)


def test_devices_stand_in_the_zones_of_their_kind() -> None:
    zones = {zone.id: zone.kind for zone in parse_zones(ZONES_FILE.read_text())}
    devices, placements = parse_devices(devices_csv(100), "csv")
    kinds = {device.id: device.kind for device in devices}
    stands = Counter((kinds[placement.device], zones[zone]) for placement in placements for zone in placement.zones)
    assert stands == {("air_station", "district"): 50, ("electricity_meter", "feeder"): 50}


def test_cpu_time_is_that_of_the_processes_asked_for() -> None:
    before = cpu_of({"test": os.getpid()})
    while (used := cpu_of({"test": os.getpid()}).since(before)).whole_s < 0.05:
        sum(range(100_000))
    assert used.commands.keys() == {"test"}
    assert used.threads["test: main"] == pytest.approx(used.whole_s, abs=0.1)


SMALL = Shape(series=100, turns=200, stop_us=STOP_US)
SERVERS: dict[str, Callable[[], object]] = {
    "influxdb": find_influxd,
    "questdb": find_questdb,
    "victoria-metrics": find_victoria,
}


def present(find: Callable[[], object]) -> bool:
    try:
        find()
    except UnavailableError:
        return False
    return True


def bench_store(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qala", "bench", "store", "--rows", "20k", "--series", "100", "--runs", "2"]
    return subprocess.run(
        [*command, "--budget-s", "1", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )


def test_the_store_is_measured_beside_every_peer_that_is_there(tmp_path: Path) -> None:
    servers = [name for name, find in SERVERS.items() if present(find)]
    peers = ["qala", "sqlite", *servers]
    done = bench_store("--peers", ",".join(peers), "--folder", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["readings"], found["series"], list(found["peers"])) == (20_000, 100, peers)
    assert list(tmp_path.iterdir()) == []
    for name, peer in found["peers"].items():
        assert peer["stored"] == 20_000, name
        assert peer["appending"]["delivered"] >= 20_000
        assert peer["bytes_per_reading"] > 0
        assert peer["memory_mib"] > 0
        for part in ("idle", "writing"):
            answered = peer[part]["timings"].keys() | peer[part]["cannot"].keys()
            assert answered == {question.name for question in QUESTIONS}, name
            assert all(0 < timing["p50_ms"] <= timing["p95_ms"] for timing in peer[part]["timings"].values())
        assert peer["writing"]["written_rows_per_s"] > 0
    assert found["peers"]["qala"]["late"]["append"]["runs"] == 20


def test_a_missing_peer_is_left_out_by_name_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("QALA_QUESTDB_JAR", raising=False)
    done = bench_store("--peers", "questdb")
    assert done.returncode == 0, done.stderr
    assert "questdb: left out, QuestDB's jar was not found" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["--peers", "oracle"], "qala, influxdb, questdb, victoria-metrics, sqlite", id="an unknown peer"),
        pytest.param(["--rows", "many"], "10M, 500k", id="no number"),
        pytest.param(["--rows", "100"], "take 20 of each at least", id="too few readings"),
    ],
)
def test_a_store_bench_that_cannot_be_is_refused_with_a_hint(arguments: list[str], said: str) -> None:
    done = bench_store(*arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_the_stream_delivers_every_reading_some_an_hour_late_and_some_batches_twice() -> None:
    delivered = list(deliveries(SMALL, 0, SMALL.turns))
    assert max(len(rows) for rows in delivered) == BATCH
    shape = Shape(series=2_000, turns=200, stop_us=STOP_US)
    batches = list(deliveries(shape, 0, shape.turns))
    numbers = Counter(rows.number for rows in batches)
    assert {number for number, times in numbers.items() if times == 2} == {19, 39}
    once = [rows for rows, before in zip(batches, [None, *batches], strict=False) if before is not rows]
    series, time_us = (np.concatenate([getattr(rows, name) for rows in once]) for name in ("series", "time_us"))
    assert len(series) == shape.rows == len(np.unique(np.stack([series, time_us]), axis=1).T)
    received_us = np.concatenate([rows.received_us for rows in once])
    late = received_us - time_us > LATE_TURNS * 300_000_000
    assert late.mean() == pytest.approx(0.02, abs=0.002)
    assert 1_000_000 <= (time_us - shape.start_us).min() % 300_000_000 < 3_000_000


def test_the_stream_holds_what_the_city_says_of_a_reading() -> None:
    [rows] = {rows.number: rows for rows in deliveries(SMALL, 0, 50)}.values()
    made = readings(SMALL, rows.series.astype(np.int64), (rows.time_us - SMALL.start_us) // 300_000_000)
    assert (made.time_us == rows.time_us).all()
    assert (made.value == rows.value).all()
    assert (made.flag == rows.flag).all()
    assert (np.round(rows.value, 2) == rows.value).all()
    assert 0 < (rows.flag == 4).mean() < 0.02


class Forgetful(Qala):
    """Answers quickly, with one series short."""

    def latest(self, at_us: int) -> np.ndarray:
        return super().latest(at_us)[1:]


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[Forgetful]:
    peer = Forgetful(tmp_path, SMALL)
    peer.start()
    for rows in deliveries(SMALL, 0, SMALL.turns):
        peer.append(rows)
    yield peer
    peer.stop()


def test_an_answer_that_lacks_a_number_fails(loaded: Forgetful) -> None:
    where = Where(series=7, end_us=SMALL.stop_us, now_us=SMALL.stop_us)
    by_name = {question.name: question for question in QUESTIONS}
    assert measure(loaded, by_name["raw_24h"], SMALL, repeat(where), runs=3, budget_s=1).runs == 3
    with pytest.raises(ConflictError, match=r"latest: 99 numbers.* where 100"):
        measure(loaded, by_name["latest"], SMALL, repeat(where), runs=3, budget_s=1)


def test_a_right_answer_is_what_the_stream_delivered() -> None:
    rows = [rows for rows in deliveries(SMALL, 0, SMALL.turns) if (rows.series == 7).any()]
    of = {
        (int(t), float(v)) for x in rows for t, v in zip(x.time_us[x.series == 7], x.value[x.series == 7], strict=True)
    }
    span = Span(SMALL.start_us, SMALL.stop_us)
    right = next(q for q in QUESTIONS if q.name == "raw_24h").right(SMALL, Where(7, SMALL.stop_us, SMALL.stop_us))
    assert (right.count, right.total) == (len(of), pytest.approx(sum(value for _, value in of)))
    assert all(span.start_us <= time_us < span.stop_us for time_us, _ in of)
