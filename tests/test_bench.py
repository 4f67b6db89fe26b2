"""The bench measures what it says: all that was sent is stored, and nothing of the generator is counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from devices.files import parse_devices
from devices.zone_file import parse_zones
from ingest.formats.native import Native
from ingest.message import Message
from qala.bench.fleet import READINGS, ZONES_FILE, devices_csv, messages
from qala.bench.processes import cpu_of

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
    assert found["cpu_us_by_stage"].keys() == {"journal", "decode", "admit", "rejected", "marks", "store"}
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
