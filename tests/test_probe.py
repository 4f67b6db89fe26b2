"""The probe: a message of our own that goes the whole way, and is seen nowhere but in its times."""

from __future__ import annotations

import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from qala.probe import Probe
from tests.processes import Qala
from tests.wait import until

NOW_US = 1_800_000_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now_us = NOW_US
        self.stored = 0

    def probe(self, path: Path, *, answer_s: float = 5.0) -> Probe:
        return Probe(path, 0.01, stored=lambda: self.stored, now_us=lambda: self.now_us, answer_s=answer_s)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="qala-") as path:
        yield Path(path)


def answering(path: Path, *answers: bytes) -> socket.socket:
    """A door that gives one client what it is told to."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def serve() -> None:
        client, _ = listening.accept()
        with client:
            client.recv(4096)
            client.sendall(b"".join(answers))
            while client.recv(4096):
                pass

    threading.Thread(target=serve, daemon=True).start()
    return listening


def test_without_a_door_nothing_is_sent_and_nothing_is_late(folder: Path) -> None:
    probe = Clock().probe(folder / "mqtt.sock")
    assert not probe.send()
    assert (probe.sent, probe.failed, probe.late_s()) == (0, 0, 0.0)


def test_a_probe_is_late_until_it_is_in_the_store(folder: Path) -> None:
    clock = Clock()
    probe = clock.probe(folder / "mqtt.sock")
    with answering(folder / "mqtt.sock", b"\x20\x02\x00\x00", b"\x40\x02\x00\x01"):
        assert probe.send()
    clock.now_us += 40_000_000
    assert probe.late_s() == 40.0
    clock.stored = 1
    assert probe.late_s() == 0.0
    assert (probe.sent, probe.failed, sum(probe.puback.counts)) == (1, 0, 1)


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param((b"\x20\x02\x00\x05",), id="refused"),
        pytest.param((b"\x20\x02\x00\x00",), id="never acknowledged"),
        pytest.param((b"\x20\x02\x00\x00", b"\x40\x02\x00\x02"), id="another acknowledged"),
    ],
)
def test_a_door_that_does_not_acknowledge_is_told_of(folder: Path, answers: tuple[bytes, ...]) -> None:
    clock = Clock()
    probe = clock.probe(folder / "mqtt.sock", answer_s=0.2)
    with answering(folder / "mqtt.sock", *answers):
        assert not probe.send()
    clock.now_us += 1_000_000
    assert (probe.sent, probe.failed, probe.late_s()) == (1, 1, 1.0)


def test_a_probe_goes_all_the_way_and_is_seen_nowhere_else(folder: Path) -> None:
    qala = Qala(folder / "data")
    qala.environment |= {"QALA_INGEST__PROBE_EVERY_S": "0.2", "QALA_INGEST__AUTHENTICATE": "true"}
    with qala:

        def counted(name: str) -> float:
            found = re.search(rf"^{name} (\S+)$", httpx.get(f"{qala.url}/metrics").text, re.MULTILINE)
            return float(found[1]) if found else 0.0

        until(lambda: counted("qala_probe_stored_seconds_count") >= 3, deadline_s=30)
        assert counted("qala_probe_puback_seconds_count") >= 3
        assert counted("qala_probe_failed_total") == 0
        assert counted("qala_probe_stored_seconds_sum") < 3 * counted("qala_probe_stored_seconds_count")
        health = qala.get("health")
        assert health["parts"]["probe"]["puback_s"] < 5
        assert 0 < health["parts"]["probe"]["stored_s"] < 5
        assert "probe_late" not in {reason["code"] for reason in health["reasons"]}
        assert (qala.all("rejected"), qala.all("candidates"), qala.all("devices")) == ([], [], [])


def test_the_thread_ends_when_it_is_told_to(folder: Path) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=Clock().probe(folder / "mqtt.sock").run, args=(stop,))
    began = time.monotonic()
    thread.start()
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
    assert time.monotonic() - began < 5
