"""The command line: what it prints where, its exit codes, and that it works with a server and without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running import Running, running
from tests.wait import until

DEVICES = "id,kind,name,zones\nair/a1,air_station,Abay,north\n"
ZONES = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "id": "north",
            "properties": {"kind": "district", "name": "North"},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[76.9, 43.2], [77.0, 43.2], [77.0, 43.3], [76.9, 43.2]]],
            },
        }
    ],
}


def qala(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QALA_")}
    return subprocess.run(
        [sys.executable, "-m", "qala", *words],
        cwd=cwd or Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def rows(*words: str) -> Any:
    done = qala(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def city(tmp_path: Path) -> Path:
    """Lay a devices and a zones file into a folder."""
    (tmp_path / "devices.csv").write_text(DEVICES)
    (tmp_path / "zones.geojson").write_text(json.dumps(ZONES))
    return tmp_path


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as started:
        yield started.ready()


def test_help_is_quick() -> None:
    """Half a second is the aim; a busy machine gets more, but not what importing the server would take."""
    best = min(_seconds("--help") for _ in range(3))
    assert best < 1.0


def _seconds(*words: str) -> float:
    began = os.times()
    assert qala(*words).returncode == 0
    ended = os.times()
    return ended.children_user + ended.children_system - began.children_user - began.children_system


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        pytest.param(["config", "--mqtt", "0.0.0.0:1883"], 2, "beyond this machine without TLS", id="wrong setting"),
        pytest.param(["config", "--config", "nowhere.toml"], 2, "cannot read nowhere.toml", id="missing file"),
        pytest.param(["no-such-command"], 2, "No such command", id="wrong command"),
        pytest.param(["run", "--no-such-flag"], 2, "No such option", id="wrong flag"),
        pytest.param(["alerts", "ls", "--data", "nowhere"], 1, "no server runs on", id="nothing runs"),
    ],
)
def test_an_error_is_a_line_with_a_hint_on_stderr(words: list[str], code: int, said: str, tmp_path: Path) -> None:
    done = qala(*words, cwd=tmp_path)
    assert done.returncode == code
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_config_prints_every_setting_its_origin_and_what_it_is_for() -> None:
    found = {row["key"]: row for row in rows("config", "--http", "127.0.0.1:9")}
    http = found["dashboards.http"]
    assert (http["value"], http["origin"], http["description"][:9]) == ("127.0.0.1:9", "flag", "HOST:PORT")
    assert found["ingest.mqtt"]["origin"] == "default"


def test_check_runs_the_rules_own_tests() -> None:
    found = rows("check")
    assert {"rule pm2_5_high", "rule road_congested", "rule feeder_overload"} <= {row["subject"] for row in found}
    assert all(row["ok"] for row in found)


def test_check_names_the_line_of_a_wrong_devices_file(city: Path) -> None:
    (city / "devices.csv").write_text(DEVICES + "air/a2\n")
    (city / "qala.toml").write_text('devices_file = "devices.csv"\nzones_file = "zones.geojson"\n')
    done = qala("check", "--json", cwd=city)
    assert done.returncode == 1
    wrong = [row for row in json.loads(done.stdout) if not row["ok"]]
    assert len(wrong) == 1
    assert "line 3" in wrong[0]["found"]
    assert wrong[0]["hint"]


def test_without_a_server_commands_open_the_files_themselves(city: Path) -> None:
    data = str(city / "data")
    done = rows("devices", "import", str(city / "devices.csv"), "--zones", str(city / "zones.geojson"), "--data", data)
    assert done == [{"devices": 1, "zones": 1, "changes": 3}]
    assert [row["id"] for row in rows("devices", "ls", "--data", data)] == ["air/a1"]
    assert rows("alerts", "ls", "--data", data) == []
    assert rows("journal", "tail", "--data", data) == []
    assert {"pm2_5_high", "road_congested"} <= {row["id"] for row in rows("rules", "ls", "--data", data)}


def test_a_running_server_takes_up_what_is_imported(server: Running, city: Path) -> None:
    data = str(server.data)
    rows("devices", "import", str(city / "devices.csv"), "--zones", str(city / "zones.geojson"), "--data", data)
    until(lambda: [row["id"] for row in rows("devices", "ls", "--data", data)] == ["air/a1"], every_s=0.2)


def test_a_candidate_is_admitted_and_what_it_sent_is_taken(server: Running) -> None:
    data = str(server.data)
    _publish(server, "qala/1/air/new/t", b'{"t": "2026-11-22T09:00:00Z", "v": {"pm2_5": 12.5}}')
    until(lambda: [row["device"] for row in rows("devices", "candidates", "--data", data)] == ["air/new"], every_s=0.2)
    assert rows("rejected", "ls", "--data", data)[0]["reason"] == "unknown_device"
    [segment] = rows("journal", "ls", "--data", data)
    assert (segment["first"], segment["last"], segment["messages"], segment["damaged"]) == (1, 1, 1, 0)

    rows("devices", "admit", "air/new", "--kind", "air_station", "--data", data)

    assert rows("devices", "candidates", "--data", data) == []
    until(lambda: rows("rejected", "ls", "--data", data) == [], every_s=0.2)
    stored = server.get("/api/v1/readings?device=air/new&start=2026-11-22T00:00:00Z&stop=2026-11-23T00:00:00Z")
    assert [item["value"] for item in stored["items"]] == [12.5]
    again = qala("devices", "admit", "air/new", "--kind", "air_station", "--data", data)
    assert again.returncode == 1
    assert "conflict" in again.stderr


def test_the_doctor_finds_a_running_server_well(server: Running) -> None:
    until(server.is_ok)
    found = {row["subject"]: row for row in rows("doctor", "--data", str(server.data))}
    assert found["ingest.mqtt"]["found"] == f"127.0.0.1:{server.mqtt} answers"
    assert found["dashboards.http"]["found"] == f"127.0.0.1:{server.http} answers"
    assert found["server"]["found"] == "ok"


def _publish(server: Running, topic: str, payload: bytes) -> None:
    from qala.publisher import Publisher

    with Publisher("127.0.0.1", server.mqtt, client_id="test") as publisher:
        publisher.publish(topic, payload)
        assert publisher.drain(10)
