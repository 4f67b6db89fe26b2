"""The door as a process: real clients, kills, and what it leaves for other processes."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from ingest.door import DoorReport, read_report
from ingest.journal import Journal, JournalReader, Published, list_segments
from ingest.message import Message, MessageType
from ingest.mqtt.packets import V5
from ingest.settings import IngestSettings
from qala.bench.load import run_load
from tests.mqtt_client import RawClient
from tests.wait import until


def door_command(data: Path, **settings: Any) -> list[str]:
    """Return the command of a door of its own process, on a free port where none is given."""
    chosen = IngestSettings(**{"mqtt": "127.0.0.1:0", **settings}).model_dump_json()
    script = (
        "import pathlib, sys; from ingest.door import serve_door; from ingest.settings import IngestSettings;"
        "serve_door(IngestSettings.model_validate_json(sys.argv[1]), pathlib.Path(sys.argv[2]))"
    )
    return [sys.executable, "-c", script, chosen, str(data)]


class Door:
    def __init__(self, data: Path) -> None:
        self.data = data
        with (data / "door.log").open("ab") as log:
            self.process = subprocess.Popen(door_command(data), stderr=log)
        self.address = self._address()

    def _address(self) -> tuple[str, int]:
        report = until(self._own_report)
        host, _, port = report.address.rpartition(":")
        return host, int(port)

    def _own_report(self) -> DoorReport | None:
        assert self.process.poll() is None, (self.data / "door.log").read_text()
        report = read_report(self.data)
        return report if report is not None and report.pid == self.process.pid else None

    def client(self) -> RawClient:
        return RawClient(self.address)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(10)


@contextlib.contextmanager
def door(data: Path) -> Iterator[Door]:
    opened = Door(data)
    try:
        yield opened
    finally:
        opened.kill()


def journalled(data: Path, kind: MessageType = MessageType.PUBLISH) -> list[Message]:
    reader = JournalReader(data / "journal")
    frames = reader.read(0, limit=10**6)
    reader.close()
    return [message for frame in frames for message in frame.messages if message.type == kind]


# --- real clients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "protocol",
    [pytest.param(MQTTProtocolVersion.MQTTv311, id="3.1.1"), pytest.param(MQTTProtocolVersion.MQTTv5, id="5")],
)
def test_paho_publishes_and_every_acknowledged_message_is_in_the_journal(
    tmp_path: Path, protocol: MQTTProtocolVersion
) -> None:
    with door(tmp_path) as opened:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="paho", protocol=protocol)
        client.will_set("qala/1/demo/d/s", b"gone", qos=1)
        client.connect(*opened.address)
        client.loop_start()
        infos = [client.publish(f"qala/1/demo/d{number % 5}/t", str(number), qos=1) for number in range(300)]
        for info in infos:
            info.wait_for_publish(10)
        assert [message.payload for message in journalled(tmp_path)] == [str(number).encode() for number in range(300)]
        assert client.is_connected()
        client.disconnect()
        client.loop_stop()
        assert journalled(tmp_path, MessageType.WILL) == []


@pytest.mark.parametrize("version", ["311", "5"])
@pytest.mark.parametrize("qos", ["0", "1"])
def test_mosquitto_pub_publishes(tmp_path: Path, version: str, qos: str) -> None:
    program = shutil.which("mosquitto_pub")
    if program is None:
        if os.environ.get("QALA_REQUIRE_SERVERS") == "1":
            pytest.fail("mosquitto_pub is missing: install mosquitto-clients")
        pytest.skip("mosquitto_pub is missing: install mosquitto-clients")
    with door(tmp_path) as opened:
        host, port = opened.address
        command = [program, "-h", host, "-p", str(port), "-V", version, "-q", qos, "-t", "a/b", "-l", "-r"]
        subprocess.run(command, input=b"one\ntwo\nthree\n", check=True, timeout=20)
        messages = until(lambda: found if len(found := journalled(tmp_path)) == 3 else None)
        assert [message.payload for message in messages] == [b"one", b"two", b"three"]
        assert all((message.qos, message.retained) == (int(qos), True) for message in messages)


def test_a_load_of_many_connections_is_acknowledged_in_order_and_stored_once(tmp_path: Path) -> None:
    with door(tmp_path) as opened:
        sent = [(f"qala/1/demo/d{number % 40}/t", str(number).encode()) for number in range(5000)]
        result = run_load(*opened.address, connections=20, in_flight=10, messages=sent)
        assert result.acked == len(result.latencies) == 5000
        assert 0 < result.percentile(0.5) <= result.percentile(0.99) < 10
        stored = [(message.topic, message.payload) for message in journalled(tmp_path)]
        assert sorted(stored) == sorted(sent)


def test_a_paced_load_keeps_its_rate(tmp_path: Path) -> None:
    with door(tmp_path) as opened:
        result = run_load(*opened.address, connections=5, in_flight=20, messages=[("t", b"x")] * 200, rate=500)
        assert result.acked == 200
        assert result.per_second < 550


# --- ends ------------------------------------------------------------------------------------------------------------


def test_killed_at_any_moment_it_has_every_message_that_it_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(3)
    acknowledged: set[bytes] = set()
    serial = itertools.count(1)
    cut_short = 0
    for _ in range(6):
        with door(tmp_path) as opened, opened.client() as client:
            client.connect()
            threading.Timer(chance.uniform(0.02, 0.3), opened.kill).start()
            waiting: list[int] = []
            with contextlib.suppress(OSError):
                while True:
                    batch = [next(serial) for _ in range(200)]
                    waiting += batch
                    client.publish(*(number % 65535 + 1 for number in batch), topic="t", payload=b"")
                    for _ in range(100):
                        if not client.packet():
                            raise ConnectionResetError
                        acknowledged.add(str(waiting.pop(0) % 65535 + 1).encode())
            cut_short += bool(waiting)
            opened.process.wait(10)
    assert len(acknowledged) > 200
    assert cut_short >= 3
    assert acknowledged <= {message.payload for message in journalled(tmp_path)}


def test_sigterm_ends_it_quickly_with_everything_acknowledged_and_said(tmp_path: Path) -> None:
    with door(tmp_path) as opened, opened.client() as client:
        client.connect("c", V5)
        client.publish(*range(1, 101))
        begin = time.monotonic()
        opened.process.terminate()
        packets = list(iter(client.packet, b""))
        client.socket.close()
        assert opened.process.wait(10) == 0
        assert time.monotonic() - begin < 5
        assert packets[-1] == b"\xe0\x01\x8b"
        stored = {message.payload for message in journalled(tmp_path)}
        assert {str(int.from_bytes(packet[2:], "big")).encode() for packet in packets[:-1]} <= stored


def test_a_second_door_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with door(tmp_path):
        done = subprocess.run(door_command(tmp_path), capture_output=True, text=True, check=False, timeout=20)
        assert done.returncode == 1
        assert "another process writes the journal" in done.stderr


# --- what it leaves for others ---------------------------------------------------------------------------------------


def test_it_nudges_the_projector_after_each_commit(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as projector:
        projector.bind(str(tmp_path / "projector.sock"))
        projector.settimeout(10)
        with door(tmp_path) as opened, opened.client() as client:
            client.connect()
            for number in (1, 2):
                client.publish(number)
                assert projector.recv(10) == b""
                assert len(journalled(tmp_path)) == number


def test_it_reports_what_it_is_doing(tmp_path: Path) -> None:
    assert read_report(tmp_path) is None
    with door(tmp_path) as opened, opened.client() as client:
        client.connect()
        client.publish(1, 2, 3)
        client.pubacks(3)
        with opened.client() as bad:
            bad.send(b"\xff\xff")
            assert bad.is_closed()
        report = until(lambda: found if (found := read_report(tmp_path)) and found.last >= 4 else None)
        assert (report.connections, report.durable.messages, report.counters.refused) == (1, 4, 1)
        assert report.durable.bytes > 3 * len("qala/1/demo/d/t")
        assert report.journal_bytes == sum(segment.bytes for segment in list_segments(tmp_path / "journal"))
        assert report.last_error == ""
        assert 0 <= time.time() - report.reported_us / 1e6 < 60
    (tmp_path / "door.json").write_text("{")
    assert read_report(tmp_path) is None


def test_it_deletes_oldest_segments_when_room_is_short_but_only_what_was_applied(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    journal = Journal.open(folder, segment_max=4096)
    for number in range(1, 11):
        journal.append([Message("t", random.Random(number).randbytes(5000), 1)])
    journal.close()
    applied = Published(folder / "applied")
    applied.set(6)
    process = subprocess.Popen(door_command(tmp_path, segment_max=4096, keep_free_bytes=1 << 60))
    try:
        reader = JournalReader(folder)
        until(lambda: reader.first() >= 7, deadline_s=40)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert reader.first() == 7
    reader.close()
    applied.close()
