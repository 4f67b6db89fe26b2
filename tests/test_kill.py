"""Kill -9 at random moments: every acknowledged message is stored, and stored once."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import duckdb
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.processes import Qala, native
from tests.wait import until

DEVICES = 50
START_S = 1_767_225_600  # 2026-01-01T00:00:00Z
IN_FLIGHT = 200


class Fleet:
    """Devices behind one paho client. Message n is the n-th reading; `acknowledged` holds the n that were PUBACKed."""

    def __init__(self, port: int, messages: int) -> None:
        self.messages = messages
        self.acknowledged: set[int] = set()
        self._waiting: set[int] = set()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="fleet", clean_session=False)
        self._client.max_inflight_messages_set(IN_FLIGHT)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_publish = self._on_publish
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._thread = Thread(target=self._publish, daemon=True)
        self._thread.start()

    @property
    def in_flight(self) -> int:
        return len(self._waiting)

    def _publish(self) -> None:
        for n in range(self.messages):
            until(lambda: len(self._waiting) < IN_FLIGHT, deadline_s=60, every_s=0.001)
            self._waiting.add(n)
            payload = native({"active_power": float(n)}, t=1000 * (START_S + n))
            self._client.publish(f"qala/1/kill/m{n % DEVICES}/t", payload, qos=1)

    def _on_publish(self, _client: object, _data: object, packet_id: int, *_: object) -> None:
        number = packet_id - 1  # paho counts its packet ids from 1
        self.acknowledged.add(number)
        self._waiting.discard(number)

    def is_done(self) -> bool:
        return len(self.acknowledged) == self.messages

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def devices_file(tmp_path: Path) -> Path:
    path = tmp_path / "devices.csv"
    lines = [f"kill/m{n},electricity_meter" for n in range(DEVICES)]
    path.write_text("\n".join(["id,kind", *lines]) + "\n")
    return path


def stored(folder: Path) -> list[tuple[int, int]]:
    """Read (n, how often) from the database file itself, past all of our code."""
    with duckdb.connect(str(folder / "readings.duckdb"), read_only=True) as connection:
        rows = connection.execute(
            "SELECT CAST(value AS BIGINT), count(*) FROM readings GROUP BY 1 ORDER BY 1"
        ).fetchall()
    return [(int(n), int(times)) for n, times in rows]


def kill_at_random(qala: Qala, fleet: Fleet, kills: int, kill: list[Callable[[], None]]) -> list[int]:
    """Kill one process after another while the fleet publishes; return how many messages were in flight at each kill."""
    dice = random.Random(20)
    moments = sorted(dice.sample(range(fleet.messages // 50, fleet.messages - fleet.messages // 20), kills))
    in_flight = []
    for turn, moment in enumerate(moments):
        until(lambda moment=moment: len(fleet.acknowledged) >= moment, deadline_s=120, every_s=0.001)
        in_flight.append(fleet.in_flight)
        kill[turn % len(kill)]()
    until(fleet.is_done, deadline_s=120)
    return in_flight


@pytest.mark.timeout(600)
def test_no_kill_loses_or_doubles_an_acknowledged_message(tmp_path: Path, devices_file: Path) -> None:
    messages = 50_000
    with Qala(tmp_path / "data", devices=devices_file) as qala:
        fleet = Fleet(qala.mqtt_port, messages)
        in_flight = kill_at_random(qala, fleet, 20, [qala.kill_door, qala.kill_serve])
        fleet.close()
        qala.wait_until_caught_up()
    assert sum(count > 0 for count in in_flight) >= 15
    assert stored(qala.folder) == [(n, 1) for n in range(messages)]


@pytest.mark.timeout(300)
def test_the_kills_find_out_a_door_that_acknowledges_before_the_sync(tmp_path: Path, devices_file: Path) -> None:
    messages = 10_000
    with Qala(tmp_path / "data", devices=devices_file) as qala:
        qala.stop()
        qala.door_command = [sys.executable, "-m", "tests.mutant_door", "door"]
        qala.start_door()
        qala.start_serve()
        until(qala.is_up, deadline_s=60)
        fleet = Fleet(qala.mqtt_port, messages)
        kill_at_random(qala, fleet, 5, [qala.kill_door])
        fleet.close()
        qala.wait_until_caught_up()
    assert len(stored(qala.folder)) < messages
