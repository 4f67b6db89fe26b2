"""Commands to devices: asked over the API, delivered by the door, and how they ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, insert

from dashboards.api.app import create_app
from devices.device import Registry
from devices.errors import ConflictError
from qala.state import commands as state
from qala.state import open_state
from qala.state.commands import SENT, CommandRow, CommandState
from tests.api_city import NOW, SECOND, City

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


@given(st.lists(st.sampled_from([(SENT, 1), (0, 2), (0x83, 3)]), max_size=6))
def test_answers_may_be_taken_any_number_of_times(answers: list[tuple[int, int]]) -> None:
    engine = open_state("sqlite://")
    row = ask(engine)
    state.record_delivered(engine, [(row.id, code, at) for code, at in answers])
    once = state.command(engine, row.id)
    state.record_delivered(engine, [(row.id, code, at) for code, at in answers] + [("unknown", 0, 1)])
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
    state.record_delivered(engine, [(first.id, 0, now_us), (third.id, SENT, now_us)])
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
    state.record_delivered(city.state, [(id_, 0, NOW)])
    answer = city.request("DELETE", f"/api/v1/commands/{id_}")
    assert (answer.status_code, answer.json()["detail"]) == (409, "the command has ended already: it is delivered")


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
