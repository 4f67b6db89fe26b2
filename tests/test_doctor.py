"""The doctor's look at existing brokers: whether they let us in, whoever runs, and without taking anything from them."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import msgspec
import pytest

from ingest.brokers.reaching import try_broker
from ingest.brokers.session import BrokerError
from ingest.brokers.settings import BrokerSettings
from ingest.report import BrokerReport, DoorReport, ReportFile
from qala.config import load_config
from qala.doctor import Finding, examine
from qala.process import Hold
from tests.mosquitto import Mosquitto
from tests.pki import Authority
from tests.running import free_port
from tests.subscribing import publish

TOPIC = "qala/1/demo/d/t"


def looked_at(folder: Path, **brokers: dict[str, str]) -> dict[str, Finding]:
    """Ask the doctor about brokers in a folder where no server runs, unless the test says so."""
    file = folder / "qala.toml"
    tables = [
        f"[ingest.brokers.{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        for name, keys in brokers.items()
    ]
    file.write_text("\n".join(tables))
    config = load_config(file, flags={"data": folder / "data", "ingest.mqtt": f"127.0.0.1:{free_port()}"})
    return {finding.subject: finding for finding in examine(config) if finding.subject.startswith("broker ")}


def guarded(folder: Path) -> Mosquitto:
    """Make a broker that knows one user by a password."""
    program = shutil.which("mosquitto_passwd", path="/usr/bin:/usr/local/bin:/usr/sbin")
    if program is None:
        pytest.skip("mosquitto_passwd is missing: install the broker with apt install mosquitto")
    folder.mkdir()
    subprocess.run([program, "-b", "-c", str(folder / "passwords"), "qala", "right"], check=True, capture_output=True)
    return Mosquitto(folder, f"allow_anonymous false\npassword_file {folder / 'passwords'}\npersistence true\n")


def test_each_broker_is_asked_whether_it_lets_us_in_where_nothing_runs(tmp_path: Path) -> None:
    for name in ("right", "wrong"):
        (tmp_path / name).write_text(f"{name}\n")
    with guarded(tmp_path / "mosquitto") as broker:
        known = {"url": broker.url, "username": "qala"}
        found = looked_at(
            tmp_path,
            good=known | {"password_file": str(tmp_path / "right")},
            bad=known | {"password_file": str(tmp_path / "wrong")},
            unread=known | {"password_file": str(tmp_path / "nowhere")},
            gone={"url": f"mqtt://127.0.0.1:{free_port()}"},
        )
    assert {name: finding.ok for name, finding in found.items()} == {
        "broker good": True, "broker bad": False, "broker unread": False, "broker gone": False
    }  # fmt: skip
    assert found["broker good"].found == f"{broker.url} lets us in as qala-good-trial"
    assert "does not let us in" in found["broker bad"].found
    assert "nowhere" in found["broker unread"].found
    assert "Connection refused" in found["broker gone"].found
    assert all(finding.hint for finding in found.values() if not finding.ok)


def test_over_tls_the_brokers_certificate_has_to_be_trusted(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.server()
    tls = [f"certfile {pair.certificate}", f"keyfile {pair.private_key}"]
    with Mosquitto(tmp_path / "mosquitto", tls=tls) as broker:
        found = looked_at(tmp_path, good={"url": broker.url, "ca": str(authority.file)}, bad={"url": broker.url})
    assert (found["broker good"].ok, found["broker bad"].ok) == (True, False)
    assert "not to be trusted" in found["broker bad"].found


def test_a_trial_under_the_doors_own_name_leaves_its_session_and_messages_to_the_door(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "mosquitto") as broker:
        settings = BrokerSettings(url=broker.url, client_id="door")
        subscribe = ["mosquitto_sub", "-p", str(broker.port), "-V", "5", "-i", "door", "-c", "-x", "600", "-q", "1"]
        subprocess.run([*subscribe, "-t", TOPIC, "-E"], check=True, timeout=20)
        publish(broker.port, TOPIC, b"kept")
        assert try_broker("city", settings) == "door"
        done = subprocess.run([*subscribe, "-t", TOPIC, "-C", "1"], check=True, timeout=20, capture_output=True)
    assert done.stdout == b"kept\n"


def test_where_a_door_runs_it_is_the_one_that_knows(tmp_path: Path) -> None:
    city = BrokerReport("city", "mqtt://city", True, 0, "", 0, 0, 0, 1)
    yard = msgspec.structs.replace(city, name="yard", error="it refuses '#'")
    data = tmp_path / "data"
    hold = Hold(data / "door.lock")
    try:
        ReportFile(data / "door.json").write(DoorReport(brokers=(city, yard)))
        urls = {"url": f"mqtt://127.0.0.1:{free_port()}"}
        found = looked_at(tmp_path, city=urls, yard=urls)
    finally:
        hold.release()
    assert found["broker city"][:3] == (True, "broker city", "the door is connected to mqtt://city")
    assert found["broker yard"][:3] == (False, "broker yard", "it refuses '#'")


@pytest.mark.parametrize(("answer", "said"), [(b"", "hung up"), (None, "no answer"), (b"\x20\x02\x00\x00", "MQTT 5")])
def test_who_answers_otherwise_than_a_broker_is_told_of(answer: bytes | None, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def play() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1_000)
                if answer is None:
                    connection.recv(1)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=play)
        thread.start()
        settings = BrokerSettings(url=f"mqtt://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(BrokerError, match=said):
            try_broker("city", settings, within_s=0.5)
        thread.join()
