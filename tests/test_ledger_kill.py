"""Kill -9 of the serving process and of the door while devices send: the ledger's sums are what was sent."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from threading import Thread

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.processes import Qala, native
from tests.wait import until

DEVICES = 20
MESSAGES = 6_000
KILLS = 8
START_MS = 1_767_225_600_000
IN_FLIGHT = 100


class Sender:
    """Devices behind one client that sends message n until it is acknowledged: whatever is sent twice says the same."""

    def __init__(self, port: int) -> None:
        self.acknowledged = 0
        self._waiting: set[int] = set()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="fleet", clean_session=False)
        self._client.max_inflight_messages_set(IN_FLIGHT)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_publish = self._on_publish
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._thread = Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        for n in range(MESSAGES):
            until(lambda: len(self._waiting) < IN_FLIGHT, deadline_s=60, every_s=0.001)
            device, payload = message(n)
            self._waiting.add(n)
            self._client.publish(f"qala/1/kill/{device}/t", payload, qos=1)

    def _on_publish(self, _client: object, _data: object, packet_id: int, *_: object) -> None:
        self._waiting.discard(packet_id - 1)  # paho counts its packet ids from 1
        self.acknowledged += 1

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def message(n: int) -> tuple[str, bytes]:
    """Return message n: two good readings, one of them missing in every third; one in ten has an unknown quantity too."""
    values: dict[str, float | None] = {"active_power": float(n), "voltage": None if n % 3 == 0 else 230.0}
    if n % 10 == 0:
        values["nonsense"] = 1.0
    return f"m{n % DEVICES}", native(values, t=START_MS + n)


def expected() -> dict[str, Counter[str]]:
    """Return what the ledger must say of each device, duplicates apart."""
    found: dict[str, Counter[str]] = {}
    for n in range(MESSAGES):
        counts = found.setdefault(f"kill/m{n % DEVICES}", Counter())
        counts.update(taken=1, readings=2, accepted=2, flagged=int(n % 3 == 0))
        if n % 10 == 0:
            counts.update(readings=1, unknown_quantity=1)
    return found


@pytest.fixture
def devices_file(tmp_path: Path) -> Path:
    path = tmp_path / "devices.csv"
    path.write_text("\n".join(["id,kind", *(f"kill/m{n},electricity_meter" for n in range(DEVICES))]) + "\n")
    return path


@pytest.mark.timeout(600)
def test_no_kill_makes_the_ledger_forget_or_count_twice(tmp_path: Path, devices_file: Path) -> None:
    with Qala(tmp_path / "data", devices=devices_file) as qala:
        sender = Sender(qala.mqtt_port)
        moments = sorted(random.Random(5).sample(range(100, MESSAGES - 200), KILLS))
        for turn, moment in enumerate(moments):
            until(lambda moment=moment: sender.acknowledged >= moment, deadline_s=120, every_s=0.001)
            (qala.kill_door if turn % 4 == 3 else qala.kill_serve)()
        until(lambda: sender.acknowledged == MESSAGES, deadline_s=120)
        sender.close()
        qala.wait_until_caught_up()

        def in_the_ledger() -> int:
            rows = qala.get("ledger", by="device", start="-2d")["items"]
            return int(sum(row["messages"] for row in rows))

        until(lambda: in_the_ledger() == qala.journalled(), deadline_s=30, every_s=0.5)
        rows = qala.all("ledger", by="device", start="-2d")

    assert {row["device"]: counts_of(row) for row in rows} == expected()


def counts_of(row: dict[str, object]) -> Counter[str]:
    rejected = row["rejected"]
    assert isinstance(rejected, dict)
    taken = int(str(row["messages"])) - int(str(row["duplicates"]))
    rest = {name: int(str(row[name])) for name in ("readings", "accepted", "flagged")}
    return Counter({"taken": taken, **rest, **rejected})
