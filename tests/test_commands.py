"""Commands to devices: asked over the API, delivered by the door, and how they ended."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import Client, MQTTMessage, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from sqlalchemy import Engine, insert

from dashboards.api.app import create_app
from devices.device import Registry
from devices.errors import ConflictError
from qala.state import commands as state
from qala.state import open_state
from qala.state.commands import SENT, TOO_LARGE, Answer, CommandRow, CommandState
from tests.api_city import NOW, SECOND, City
from tests.processes import Qala
from tests.wait import until

HOUR, DAY = 3_600 * SECOND, 86_400 * SECOND
DEVICE = "city/air-1"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = open_state(f"sqlite:///{tmp_path}/state.sqlite")
    yield made
    made.dispose()


@pytest.fixture
def city(tmp_path: Path) -> Iterator[City]:
    made = City(tmp_path)
    yield made
    made.close()


def ask(engine: Engine, payload: bytes = b"{}", *, at_us: int = NOW, **rest: Any) -> CommandRow:
    fields = {"by": "dana", "now_us": at_us, "expires_us": at_us + HOUR, **rest}
    return state.request_command(engine, fields.pop("device", DEVICE), payload, **fields)


# ---- what became of a command


@pytest.mark.parametrize(
    ("happened", "at_us", "ended"),
    [
        pytest.param({}, NOW, CommandState.PENDING, id="nothing yet"),
        pytest.param({}, NOW + HOUR, CommandState.EXPIRED, id="its device never listened"),
        pytest.param({"sent_us": NOW}, NOW, CommandState.SENT, id="on its way"),
        pytest.param({"sent_us": NOW}, NOW + HOUR, CommandState.UNCONFIRMED, id="never acknowledged"),
        pytest.param({"delivered_us": NOW, "code": 0}, NOW + HOUR, CommandState.DELIVERED, id="acknowledged"),
        pytest.param({"delivered_us": NOW, "code": 0x83}, NOW, CommandState.REFUSED, id="refused by the device"),
        pytest.param({"delivered_us": NOW, "code": TOO_LARGE}, NOW, CommandState.TOO_LARGE, id="larger than it takes"),
        pytest.param(
            {"sent_us": NOW, "delivered_us": NOW, "code": TOO_LARGE},
            NOW,
            CommandState.TOO_LARGE,
            id="larger than it took",
        ),
        pytest.param({"cancelled_us": NOW}, NOW + HOUR, CommandState.CANCELLED, id="taken back"),
        pytest.param(
            {"cancelled_us": NOW, "delivered_us": NOW, "code": 0}, NOW, CommandState.DELIVERED, id="taken back too late"
        ),
    ],
)
def test_the_state_of_a_command_follows_from_what_happened_and_the_time(
    engine: Engine, happened: dict[str, int], at_us: int, ended: CommandState
) -> None:
    ask(engine)
    with engine.begin() as connection:
        connection.execute(state.COMMAND.update().values(**{"code": None, **happened}))
    [row] = state.commands(engine, now_us=at_us)
    assert row.state(at_us) is ended
    assert [r.id for r in state.commands(engine, now_us=at_us, state=ended)] == [row.id]
    assert state.command_counts(engine, at_us) == {s.value: int(s is ended) for s in CommandState}


@given(st.lists(st.sampled_from([(SENT, 1), (0, 2), (0x83, 3), (TOO_LARGE, 4)]), max_size=6))
def test_answers_may_be_taken_any_number_of_times(answers: list[tuple[int, int]]) -> None:
    engine = open_state("sqlite://")
    row = ask(engine)
    taken = [Answer(row.id, code, at) for code, at in answers]
    state.record_delivered(engine, taken)
    once = state.command(engine, row.id)
    state.record_delivered(engine, [*taken, Answer("unknown", 0, 1)])
    assert state.command(engine, row.id) == once
    first = next(((code, at) for code, at in answers if code != SENT), (None, None))
    assert (once.code, once.delivered_us) == first
    engine.dispose()


def test_commands_are_awaited_in_the_order_of_request_until_they_end(engine: Engine) -> None:
    first, second, third = (ask(engine, at_us=NOW + second * SECOND) for second in range(3))
    other = ask(engine, device="city/air-2")
    now_us = NOW + 9 * SECOND

    def waiting(*but: str) -> list[str]:
        devices = state.devices_awaited(engine, now_us)
        return [command.id for command in state.awaited(engine, devices, now_us, but=but) if command.id != other.id]

    assert waiting() == [first.id, second.id, third.id]
    assert waiting(first.id) == [second.id, third.id]
    state.record_delivered(engine, [Answer(first.id, 0, now_us), Answer(third.id, SENT, now_us)])
    state.cancel_command(engine, second.id, by="dana", now_us=now_us)
    assert waiting() == [third.id]
    assert state.devices_awaited(engine, now_us) == {DEVICE, "city/air-2"}
    assert state.devices_awaited(engine, NOW + 2 * HOUR) == frozenset()


def test_no_more_than_so_many_wait_for_one_device(engine: Engine) -> None:
    for _ in range(state.PENDING_MAX):
        last = ask(engine)
    with pytest.raises(ConflictError, match="too many"):
        ask(engine)
    ask(engine, device="city/air-2")
    state.cancel_command(engine, last.id, by="dana", now_us=NOW)
    ask(engine)


def test_what_ended_long_ago_is_forgotten(engine: Engine) -> None:
    old, kept = ask(engine), ask(engine, at_us=NOW + DAY)
    new = ask(engine, at_us=old.expires_us + state.KEEP_DAYS * DAY + 1)
    assert {row.id for row in state.commands(engine, now_us=new.requested_us)} == {kept.id, new.id}


def test_a_look_at_many_waiting_commands_is_quick(engine: Engine) -> None:
    rows = [
        {"id": f"{n:016}", "device": f"city/d{n // 100}", "payload": b"{}", "requested_by": "x", "requested_us": n,
         "expires_us": NOW + HOUR}
        for n in range(20_000)
    ]  # fmt: skip
    with engine.begin() as connection:
        connection.execute(insert(state.COMMAND), rows)
        plan = connection.exec_driver_sql(
            "EXPLAIN QUERY PLAN SELECT DISTINCT device FROM command"
            " WHERE delivered_us IS NULL AND cancelled_us IS NULL AND expires_us > 5"
        ).fetchall()
    assert "command_open" in str(plan)
    assert len(state.awaited(engine, ["city/d7", "city/d8"], NOW)) == 2 * 16
    assert len(state.devices_awaited(engine, NOW)) == 200


# ---- the API


def post(city: City, body: dict[str, Any] | None = None, *, device: str = DEVICE, key: str | None = None) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    asked = body or {"payload": {"reboot": True}, "actor": "dana"}
    return city.request("POST", f"/api/v1/devices/{device}/commands", json=asked, headers=headers)


def test_a_command_waits_with_its_payload_as_it_was_written(city: City) -> None:
    raw = '{"payload": {"b": 1.50, "a":  "ж", "n": 12345678901234567890}, "expires_in_s": 60, "actor": "dana"}'
    path = f"/api/v1/devices/{DEVICE}/commands"
    answer = city.request("POST", path, content=raw.encode(), headers={"content-type": "application/json"})
    assert answer.status_code == 202, answer.text
    [row] = state.commands(city.state, now_us=NOW)
    assert row.payload.decode() == '{"b": 1.50, "a":  "ж", "n": 12345678901234567890}'
    assert answer.headers["location"] == f"/api/v1/commands/{row.id}"
    shown = city.get(f"/commands/{row.id}").json()
    assert answer.json() == shown == city.items("/commands")[0] == city.items(f"/devices/{DEVICE}/commands")[0]
    assert (shown["state"], shown["requested_by"], shown["delivered"]) == ("pending", "dana", None)


def test_a_key_asks_once(city: City) -> None:
    first, again = post(city, key="k1"), post(city, key="k1")
    assert first.json() == again.json()
    assert post(city, key="k2").json()["id"] != first.json()["id"]
    other = post(city, {"payload": {}}, key="k1")
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    assert len(city.items("/commands")) == 2


@pytest.mark.parametrize(
    ("device", "body", "status"),
    [
        pytest.param("city/nobody", {"payload": {}}, 404, id="unknown device"),
        pytest.param(DEVICE, {"payload": [1]}, 422, id="no object"),
        pytest.param(DEVICE, {"payload": {}, "expires_in_s": 0}, 422, id="expires at once"),
        pytest.param(DEVICE, {"payload": {}, "expires_in_s": state.EXPIRES_MAX_S + 1}, 422, id="expires too late"),
        pytest.param(DEVICE, {"payload": {"x": "y" * 70_000}}, 413, id="too large"),
    ],
)
def test_a_command_that_cannot_be_is_refused(city: City, device: str, body: dict[str, Any], status: int) -> None:
    assert post(city, body, device=device).status_code == status
    assert city.items("/commands") == []


def test_a_retired_device_gets_no_commands(city: City) -> None:
    city.registry = retired(city.registry)
    answer = post(city)
    assert (answer.status_code, answer.json()["detail"]) == (409, f"{DEVICE} is retired")


def test_the_door_is_told_of_a_new_command_and_of_a_cancellation(city: City) -> None:
    told: list[int] = []
    listen_to(city, lambda: told.append(1))
    id_ = post(city).json()["id"]
    cancelled = city.request("DELETE", f"/api/v1/commands/{id_}")
    assert (cancelled.json()["state"], cancelled.json()["cancelled_by"], len(told)) == ("cancelled", "nobody", 2)
    assert city.request("DELETE", f"/api/v1/commands/{id_}").json() == cancelled.json()


def test_a_command_that_has_ended_is_not_cancelled(city: City) -> None:
    id_ = post(city).json()["id"]
    state.record_delivered(city.state, [Answer(id_, 0, NOW)])
    answer = city.request("DELETE", f"/api/v1/commands/{id_}")
    assert (answer.status_code, answer.json()["detail"]) == (409, "the command has ended already: it is delivered")


@pytest.mark.parametrize(
    ("code", "ended", "reason"),
    [
        pytest.param(0, "delivered", None, id="taken"),
        pytest.param(0x87, "refused", "roof answered with reason code 0x87", id="refused"),
        pytest.param(
            TOO_LARGE,
            "too_large",
            "roof takes no packets of its size (Maximum Packet Size): send a shorter one",
            id="too large",
        ),
    ],
)
def test_who_answered_and_why_a_command_was_not_taken_is_told(
    city: City, code: int, ended: str, reason: str | None
) -> None:
    id_ = post(city).json()["id"]
    state.record_delivered(city.state, [Answer(id_, code, NOW, "roof")])
    shown = city.get(f"/commands/{id_}").json()
    assert (shown["state"], shown["answered_by"], shown["reason"]) == (ended, "roof", reason)
    taken = None if code == TOO_LARGE else (NOW, code)
    assert (shown["delivered"] is None, shown["code"]) == (taken is None, None if taken is None else code)
    assert [item["id"] for item in city.items("/commands", state=ended)] == [id_]


def test_pages_hold_every_command_once(city: City) -> None:
    made = []
    for _ in range(7):
        city.time_us = (city.time_us or 0) + SECOND
        made.append(post(city).json()["id"])
    assert [item["id"] for item in city.walk("/commands", limit=3)] == made[::-1]
    assert [item["id"] for item in city.walk(f"/devices/{DEVICE}/commands", limit=2, state="pending")] == made[::-1]
    assert city.items("/commands", state="delivered") == []


def retired(registry: Registry) -> Registry:
    devices = [
        msgspec.structs.replace(device, until_us=NOW - 1) if device.id == DEVICE else device
        for device in registry.devices.values()
    ]
    return Registry(devices, registry.zones.values(), registry.placements)


def listen_to(city: City, told: Callable[[], None]) -> None:
    """Make the API tell somebody of commands."""
    city.app = create_app(replace(city.context, on_command=told))


# ---- the whole way, with real processes


class Device:
    """A device that listens for its commands with paho, and acknowledges what it gets unless told otherwise."""

    def __init__(
        self, qala: Qala, device: str, *, version: int = MQTTv5, topic: str = "", qos: int = 1, packet_max: int = 0
    ) -> None:
        self.got: list[MQTTMessage] = []
        self.granted: list[int] = []
        self.client = Client(
            CallbackAPIVersion.VERSION2, client_id=f"{device}-{topic}", protocol=version, manual_ack=True
        )
        self.acknowledges = True
        self.client.on_message = self._take
        self.client.on_connect = lambda *_: self.client.subscribe(topic or f"qala/1/{device}/c", qos)
        self.client.on_subscribe = self._subscribed
        limits = None
        if packet_max:
            limits = Properties(PacketTypes.CONNECT)
            limits.MaximumPacketSize = packet_max
        self.client.connect("127.0.0.1", qala.mqtt_port, properties=limits)
        self.client.loop_start()

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.got]

    def _take(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self.got.append(message)
        if self.acknowledges:
            self.client.ack(message.mid, message.qos)

    def _subscribed(self, _client: Client, _data: object, _mid: int, codes: list[ReasonCode], _more: object) -> None:
        self.granted = [code.value for code in codes]


@pytest.fixture(scope="module")
def qala() -> Iterator[Qala]:
    with TemporaryDirectory(prefix="qala-") as folder:
        devices = Path(folder) / "devices.csv"
        devices.write_text("id,kind\n" + "".join(f"yard/d{n},air_station\n" for n in range(10)))
        with Qala(Path(folder) / "data", devices=devices) as made:
            yield made


def request(qala: Qala, device: str, payload: dict[str, Any], **more: Any) -> str:
    body = {"payload": payload, "actor": "dana", **more}
    answer = httpx.post(f"{qala.url}/api/v1/devices/{device}/commands", json=body, timeout=10)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def became(qala: Qala, id_: str, *wanted: str) -> dict[str, Any]:
    """Wait until a command is in one of the wanted states, and return it."""

    def found() -> dict[str, Any]:
        row: dict[str, Any] = qala.get(f"commands/{id_}")
        return row if row["state"] in wanted else {}

    return until(found)


@pytest.mark.parametrize("version", [pytest.param(MQTTv311, id="3.1.1"), pytest.param(MQTTv5, id="5")])
def test_a_device_that_listens_gets_its_commands_at_once_and_in_order(qala: Qala, version: int) -> None:
    device = f"yard/d{version - 4}"
    with Device(qala, device, version=version) as listening:
        until(lambda: listening.granted == [1])
        asked = [request(qala, device, {"n": n}) for n in range(20)]
        ended = [became(qala, id_, "delivered") for id_ in asked]
        assert listening.payloads() == [f'{{"n":{n}}}'.encode() for n in range(20)]
    assert {(row["requested_by"], row["code"]) for row in ended} == {("dana", 0)}
    assert all(row["requested"] <= row["sent"] <= row["delivered"] for row in ended)


def test_a_command_waits_for_a_device_that_is_away_and_no_longer_than_it_is_worth(qala: Qala) -> None:
    short = request(qala, "yard/d2", {"n": 1}, expires_in_s=1)
    waiting = request(qala, "yard/d2", {"n": 2})
    became(qala, short, "expired")
    assert qala.get(f"commands/{waiting}")["state"] == "pending"
    with Device(qala, "yard/d2") as listening:
        became(qala, waiting, "delivered")
        assert listening.payloads() == [b'{"n":2}']
    assert qala.get(f"commands/{short}")["state"] == "expired"


def test_a_cancelled_command_does_not_go_out(qala: Qala) -> None:
    cancelled, kept = request(qala, "yard/d3", {"n": 1}), request(qala, "yard/d3", {"n": 2})
    assert httpx.delete(f"{qala.url}/api/v1/commands/{cancelled}").json()["state"] == "cancelled"
    with Device(qala, "yard/d3") as listening:
        became(qala, kept, "delivered")
        assert listening.payloads() == [b'{"n":2}']


def test_a_command_without_an_answer_is_sent_again_to_a_device_that_comes_back(qala: Qala) -> None:
    with Device(qala, "yard/d4") as silent:
        silent.acknowledges = False
        asked = request(qala, "yard/d4", {"n": 1})
        until(lambda: len(silent.got) == 1)
    assert became(qala, asked, "sent")["delivered"] is None
    with Device(qala, "yard/d4") as listening:
        became(qala, asked, "delivered")
        assert listening.payloads() == [b'{"n":1}']


def test_what_a_device_never_answers_is_unconfirmed(qala: Qala) -> None:
    with Device(qala, "yard/d5") as silent:
        silent.acknowledges = False
        asked = request(qala, "yard/d5", {"n": 1}, expires_in_s=1)
        until(lambda: len(silent.got) == 1)
        assert became(qala, asked, "unconfirmed")["sent"] is not None


def test_a_command_to_a_subscription_of_qos_0_is_sent_and_nothing_stops(qala: Qala) -> None:
    with Device(qala, "yard/d9", qos=0) as listening:
        until(lambda: listening.granted == [0])
        asked = request(qala, "yard/d9", {"n": 1}, expires_in_s=3)
        until(lambda: len(listening.got) == 1)
    assert became(qala, asked, "sent", "unconfirmed")["sent"] is not None
    qala.wait_until_caught_up()


def test_a_command_that_is_too_large_for_its_device_ends_and_the_next_ones_arrive(qala: Qala) -> None:
    large = request(qala, "yard/d6", {"text": "x" * 300})
    small = request(qala, "yard/d6", {"n": 1})
    with Device(qala, "yard/d6", packet_max=200) as listening:
        became(qala, small, "delivered")
        assert listening.payloads() == [b'{"n":1}']
        row = became(qala, large, "too_large")
        assert (row["sent"], "Maximum Packet Size" in row["reason"]) == (None, True)


@pytest.mark.parametrize(
    "topic", ["qala/1/+/+/c", "#", "qala/1/yard/d6/t", "$share/g/qala/1/yard/d6/c", "qala/1/yard/d6/c/"]
)
def test_nothing_but_a_command_topic_can_be_subscribed_to(qala: Qala, topic: str) -> None:
    with Device(qala, "yard/d7", topic=topic) as curious, Device(qala, "yard/d6") as listening:
        until(lambda: curious.granted and listening.granted)
        assert min(curious.granted) >= 0x80
        became(qala, request(qala, "yard/d6", {"n": 1}), "delivered")
        assert (curious.got, len(listening.got)) == ([], 1)


def test_a_door_killed_before_it_wrote_the_answer_down_delivers_once_more(qala: Qala) -> None:
    with Device(qala, "yard/d8") as silent:
        silent.acknowledges = False
        asked = request(qala, "yard/d8", {"n": 1})
        until(lambda: len(silent.got) == 1)
        qala.kill_door()
        silent.acknowledges = True
        row = became(qala, asked, "delivered")
        assert silent.payloads() == [b'{"n":1}'] * 2
    assert [item["id"] for item in qala.all("devices/yard/d8/commands")] == [row["id"]]


def test_what_was_answered_is_not_sent_again_although_the_state_does_not_know_yet(qala: Qala) -> None:
    asked = [request(qala, "yard/d8", {"n": n}) for n in range(3)]
    assert qala.serve is not None
    qala.serve.kill()
    qala.serve.wait()
    with Device(qala, "yard/d8") as listening:
        until(lambda: listening.payloads() == [b'{"n":0}', b'{"n":1}', b'{"n":2}'])
    with Device(qala, "yard/d8") as again:
        until(lambda: again.granted)
        time.sleep(1.5)  # longer than the door needs to look once more
        assert again.payloads() == []
    qala.start_serve()
    until(qala.is_up, deadline_s=60)
    assert {became(qala, id_, "delivered")["code"] for id_ in asked} == {0}


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_mosquitto_sub_gets_a_command(qala: Qala, version: str) -> None:
    program = shutil.which("mosquitto_sub")
    if program is None:
        pytest.skip("mosquitto_sub is missing: install mosquitto-clients")
    asked = request(qala, "yard/d9", {"text": "қала"})
    where = ["-p", str(qala.mqtt_port), "-t", "qala/1/yard/d9/c", "-q", "1", "-C", "1", "-W", "10", "-V", version]
    done = subprocess.run([program, *where], capture_output=True, timeout=20, check=True)
    assert json.loads(done.stdout) == {"text": "қала"}
    assert became(qala, asked, "delivered")["code"] == 0


def test_the_command_line_asks_waits_and_lists(qala: Qala) -> None:
    def qala_devices(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "qala", "devices", *words, "--data", str(qala.folder), "--json"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    with Device(qala, "yard/d0") as listening:
        until(lambda: listening.granted)
        done = qala_devices("command", "yard/d0", '{"reboot": true}', "--wait", "10s")
        assert done.returncode == 0, done.stderr
        [row] = json.loads(done.stdout)
        assert (row["state"], json.loads(listening.got[-1].payload)) == ("delivered", {"reboot": True})
    lost = qala_devices("command", "yard/d0", "{}", "--wait", "1s", "--expires", "1min")
    assert (lost.returncode, "it is pending" in lost.stderr) == (1, True)
    listed = json.loads(qala_devices("commands", "--device", "yard/d0").stdout)
    assert [item["state"] for item in listed[:2]] == ["pending", "delivered"]
    cancelled = json.loads(qala_devices("cancel", listed[0]["id"]).stdout)
    assert cancelled[0]["state"] == "cancelled"
