"""A disk that is really full: nothing is acknowledged that is not there, everybody can see why, and it goes on by itself."""

from __future__ import annotations

import contextlib
import itertools
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ingest.journal import JournalReader
from ingest.mqtt.packets import V5, Publish, publish
from ingest.report import DoorReport, read_report
from tests.mqtt_client import RawClient
from tests.processes import Qala, native
from tests.test_door import door_command
from tests.wait import until

MIB = 1 << 20
SETTINGS = {"segment_max": MIB, "keep_free_bytes": MIB, "http": "127.0.0.1:0"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB of its own."""
    with mounted(tmp_path / "disk", "8m") as folder:
        yield folder


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system of that size; skip the test where that is not allowed."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "qala-test", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Filling:
    """A door on a small disk, and a client that sends what cannot be compressed."""

    def __init__(self, disk: Path, log: Path) -> None:
        self.data = disk / "data"
        self.data.mkdir()
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(door_command(self.data, **SETTINGS), stderr=file)
        until(lambda: self.report() is not None and self.process.poll() is None)
        self.client = RawClient(address_of(self.now.address))
        self.client.connect("filler", V5)
        self.serial = itertools.count(1)
        self.sent: dict[int, bytes] = {}
        self.acknowledged: set[int] = set()

    def report(self) -> DoorReport | None:
        found = read_report(self.data)
        return found if found is not None and found.pid == self.process.pid else None

    @property
    def now(self) -> DoorReport:
        found = self.report()
        assert found is not None
        return found

    def send(self, count: int, size: int = 16384) -> None:
        numbers = [next(self.serial) for _ in range(count)]
        self.sent |= {number: random.Random(number).randbytes(size) for number in numbers}
        packets = (Publish("qala/1/demo/d/t", self.sent[number], 1, number) for number in numbers)
        self.client.send(b"".join(publish(V5, packet) for packet in packets))

    def hear(self, for_s: float) -> int:
        """Take PUBACKs until all have come, or none came for so long; return how many that were."""
        heard = 0
        while len(self.acknowledged) < len(self.sent) and not self.client.hears_nothing(for_s):
            packet = self.client.packet()
            assert packet[:1] == b"\x40", packet
            self.acknowledged.add(int.from_bytes(packet[2:4], "big"))
            heard += 1
        return heard

    def fill(self) -> None:
        """Send until nothing is acknowledged any more."""
        while not self.now.disk_full:
            self.send(20)
            self.hear(0.5)

    def post(self) -> httpx.Response:
        return httpx.post(
            f"http://{self.now.http_addresses[0]}/ingest/1/demo/h",
            content=b"{}",
            headers={"content-type": "application/json"},
            timeout=20,
        )

    def payloads(self) -> set[bytes]:
        reader = JournalReader(self.data / "journal")
        frames = reader.read(0, limit=10**6)
        assert reader.damaged == 0
        reader.close()
        return {message.payload for frame in frames for message in frame.messages}

    def close(self) -> None:
        self.client.socket.close()
        self.process.terminate()
        assert self.process.wait(10) == 0


def address_of(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


@contextlib.contextmanager
def filling(disk: Path, log: Path) -> Iterator[Filling]:
    opened = Filling(disk, log)
    try:
        yield opened
    finally:
        opened.process.kill()
        opened.process.wait()
        opened.client.socket.close()


def test_on_a_full_disk_nothing_is_acknowledged_that_is_not_there_and_it_goes_on_when_there_is_room(
    disk: Path, tmp_path: Path
) -> None:
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(3 * MIB))
    log = tmp_path / "door.log"
    with filling(disk, log) as door:
        assert door.post().status_code == 202
        door.fill()
        # everybody can see it
        report = until(lambda: now if (now := door.now).last_error else None)
        assert "No space left" in report.last_error
        assert report.disk_free < MIB
        assert time.time() - report.reported_us / 1e6 < 5  # the report itself needs no room
        assert door.post().status_code == 503
        assert httpx.get(f"http://{report.http_addresses[0]}/ingest/1/ready", timeout=10).status_code == 503
        # nothing was acknowledged that is not in the journal
        assert len(door.acknowledged) < len(door.sent)
        assert {door.sent[number] for number in door.acknowledged} <= door.payloads()
        # it goes on by itself
        ballast.unlink()
        freed = time.monotonic()
        until(lambda: door.hear(1))
        assert time.monotonic() - freed < 10
        until(lambda: not door.now.disk_full and not door.now.last_error)
        until(lambda: door.hear(0.1) == 0 and len(door.acknowledged) == len(door.sent), deadline_s=20)
        assert set(door.sent.values()) <= door.payloads()
        assert door.post().status_code == 202
        door.close()
        said = log.read_text()
    assert said.count("nothing is acknowledged:") == 1
    assert "the journal takes messages again" in said


def test_the_door_warns_before_the_disk_is_full(disk: Path, tmp_path: Path) -> None:
    with filling(disk, tmp_path / "door.log") as door:
        assert not door.now.disk_low
        (disk / "others").write_bytes(bytes(7 * MIB))
        report = until(lambda: now if (now := door.now).disk_low else None)
        assert (report.disk_full, report.last_error) == (False, "")
        door.send(1)
        assert door.hear(5) == 1  # it is a warning: messages are taken
        assert "little room left" in door.log.read_text()
        door.close()


def test_killed_on_a_full_disk_it_starts_again_and_has_what_it_acknowledged(disk: Path, tmp_path: Path) -> None:
    with filling(disk, tmp_path / "door.log") as door:
        door.fill()
        door.process.kill()
        door.process.wait()
        acknowledged = {door.sent[number] for number in door.acknowledged}
    with (tmp_path / "door.log").open("ab") as file:
        again = subprocess.Popen(door_command(disk / "data", **SETTINGS), stderr=file)
    try:
        until(lambda: (found := read_report(disk / "data")) is not None and found.pid == again.pid)
        assert again.poll() is None
        reader = JournalReader(disk / "data" / "journal")
        kept = {message.payload for frame in reader.read(0, limit=10**6) for message in frame.messages}
        reader.close()
        assert acknowledged <= kept
    finally:
        again.terminate()
        assert again.wait(10) == 0


def test_sigterm_on_a_full_disk_ends_the_door_within_five_seconds(disk: Path, tmp_path: Path) -> None:
    with filling(disk, tmp_path / "door.log") as door:
        door.fill()
        began = time.monotonic()
        door.process.terminate()
        assert door.process.wait(10) == 0
        assert time.monotonic() - began < 5
        assert {door.sent[number] for number in door.acknowledged} <= door.payloads()


def test_the_server_on_a_full_disk_goes_on_answering_and_catches_up_by_itself() -> None:
    with tempfile.TemporaryDirectory(prefix="qala-") as name, mounted(Path(name) / "disk", "64m") as disk:
        (Path(name) / "devices.csv").write_text("id,kind\nair/a1,air_station\n")
        qala = Qala(disk / "data", devices=Path(name) / "devices.csv")
        with qala, RawClient(("127.0.0.1", qala.mqtt_port)) as client:
            assert qala.serve is not None
            pid = qala.serve.pid
            client.connect("a1")
            send(client, range(300))
            qala.wait_until_caught_up()
            ballast = disk / "ballast"
            fill(ballast)
            send(client, range(300, 600))
            part = until(lambda: found if (found := qala.get("health")["parts"]["projector"])["error"] else None)
            assert not part["up"]
            assert qala.serve.poll() is None
            ballast.unlink()
            heard = 0
            while heard < 600:
                assert client.packet()
                heard += 1
            qala.wait_until_caught_up()
            assert (qala.serve.poll(), qala.serve.pid) == (None, pid)
            assert qala.get("health")["parts"]["projector"]["applied"] == 600


def send(client: RawClient, seconds: range) -> None:
    for at in seconds:
        payload = native({"pm2_5": at % 50 + 0.5}, t=f"2026-11-22T09:{at // 60:02d}:{at % 60:02d}Z")
        client.publish(at + 1, topic="qala/1/air/a1/t", payload=payload)


def fill(path: Path) -> None:
    """Write until the disk takes no more."""
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
