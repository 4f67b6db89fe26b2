"""The door's bench measures each way beside the others, and every message of each is stored."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qala.bench.fleet import READINGS
from qala.bench.peers import find_mosquitto
from qala.bench.way_systems import SYSTEMS, check_present
from tests.test_bench import present


def bench_door(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qala", "bench", "door", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])


def measured(*arguments: str) -> dict[str, Any]:
    done = bench_door(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_way_that_is_installed_stores_what_was_sent() -> None:
    ways = measured("--parts", "way", "--shapes", "50x20", "--share", "0.01")["way"]
    assert [way["system"] for way in ways] == [name for name in SYSTEMS if present(lambda n=name: check_present(n))]
    for way in ways:
        assert (way["messages"], way["stored"]) == (3_000, 3_000 * READINGS)
        assert way["cpu_us"] == pytest.approx(sum(way["cpu_us_by_process"].values()), abs=0.1)


def test_single_messages_of_a_paced_load_are_timed_until_they_are_stored() -> None:
    [ours] = measured("--parts", "way", "--shapes", "200/s", "--systems", "qala", "--share", "0.05")["way"]
    assert ours["puback_p50_ms"] < ours["stored_p50_ms"] <= ours["stored_p99_ms"]


@pytest.mark.skipif(not present(find_mosquitto), reason="mosquitto is not installed")
def test_acknowledgements_floods_and_crowds_are_measured_at_both_endpoints() -> None:
    found = measured("--parts", "puback,flood,idle,storm", "--share", "0.01")
    assert [(one["load"], one["endpoint"]) for one in found["puback"][:2]] == [
        ("1x1000", "qala"),
        ("1x1000", "mosquitto"),
    ]
    for part in ("flood", "idle", "storm"):
        assert [one["endpoint"] for one in found[part]] == ["qala", "mosquitto"]
    assert all(one["connections"] == 100 for one in found["idle"])
    assert all(one["flood_per_s"] > 1_000 for one in found["flood"])


def test_the_tables_give_the_ratios_first() -> None:
    done = bench_door("--parts", "puback", "--share", "0.005")
    assert done.returncode == 0, done.stderr
    assert "ratio" in done.stdout
    assert bench_door("--parts", "roof").returncode == 2
