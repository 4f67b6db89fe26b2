"""Messages that are not a device's own: answers to commands, probes, and what a device says of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devices.errors import Reason
from ingest.message import PROBE_TOPIC, Message, MessageType, Source
from ingest.mqtt.downlink import LARGER, UNCONFIRMED
from qala.state.commands import TOO_LARGE, command, request_command
from qala.state.ledger import entries
from qala.state.rejected import list_rejected
from tests.builders import NOW_MS, NOW_US, City, cities, message, telemetry

Cities = Callable[..., City]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Cities]:
    yield from cities(tmp_path)


def reasons(city: City) -> list[tuple[str, str]]:
    return [(row.reason, row.device) for row in list_rejected(city.engine)[0]]


def by(principal: str, sent: Message) -> Message:
    sent.principal = principal
    return sent


@pytest.mark.parametrize(
    ("sent", "rejected"),
    [
        pytest.param(telemetry({"pm1": 1}, device="air/a2"), "air/a2", id="telemetry"),
        pytest.param(message({"on": 1}, device="air/a2", leaf="s"), "air/a2", id="status"),
        pytest.param(message({"q": {"x": {"u": "m"}}}, device="air/a2", leaf="m"), "air/a2", id="metadata"),
        pytest.param(message({"d": {"a2": {"v": {"pm1": 1}}}}, device="air/a1", leaf="g"), "air/a2", id="as a gateway"),
    ],
)
def test_what_a_device_says_of_another_is_rejected(make: Cities, sent: Message, rejected: str) -> None:
    city = make()

    city.send(by("air/a1", sent))

    assert reasons(city) == [(Reason.TOPIC_MISMATCH, rejected)]
    assert city.readings() == {}


def test_the_rest_of_such_a_message_stays(make: Cities) -> None:
    city = make()
    both = {"d": {"a1": {"t": NOW_MS, "v": {"pm1": 1}}, "a2": {"t": NOW_MS, "v": {"pm1": 2}}}}

    city.send(by("air/a1", message(both, leaf="g")))

    assert city.readings() == {("air/a1", "pm1", NOW_US): 1}


@pytest.mark.parametrize("principal", ["", "air/a1", "gateway", "broker:main", "@owner"])
def test_whoever_may_speak_of_a_device_is_heard(make: Cities, principal: str) -> None:
    city = make()

    city.send(by(principal, telemetry({"pm1": 1})))

    assert (len(city.readings()), reasons(city)) == (1, [])


def test_a_probe_is_no_rejected_message_and_measures_the_way_to_the_store(make: Cities) -> None:
    city = make()
    city.journal.append(
        [Message(PROBE_TOPIC, str(NOW_US - 200_000).encode(), NOW_US), Message(PROBE_TOPIC, b"x", NOW_US)]
    )

    city.project(NOW_US)

    probe = city.projector.counters.probe
    assert reasons(city) == []
    assert sum(probe.counts) == 1
    assert 0.2 <= probe.sum < 5


@pytest.mark.parametrize(
    ("principal", "source"),
    [
        pytest.param("air/a1", Source.LISTENER, id="device"),
        pytest.param("gateway", Source.LISTENER, id="gateway"),
        pytest.param("broker:main", Source.SUBSCRIBER, id="broker"),
    ],
)
def test_nobody_else_can_probe(make: Cities, principal: str, source: Source) -> None:
    city = make()

    city.send(by(principal, Message(PROBE_TOPIC, str(NOW_US).encode(), NOW_US, source=source)))

    assert reasons(city) == [(Reason.BAD_TOPIC, "")]
    assert sum(city.projector.counters.probe.counts) == 0


def test_an_answer_to_a_command_is_noted_and_no_rejected_message(make: Cities) -> None:
    city = make()
    asked = request_command(city.engine, "air/a1", b"on", by="me", now_us=NOW_US, expires_us=NOW_US + 10**9)
    answer = Message(
        "qala/1/air/a1/c", b"", NOW_US + 5, type=MessageType.DELIVERED, properties={"command": asked.id, "code": "0"}
    )

    city.send(answer, telemetry({"pm1": 1}))
    city.send(answer)

    noted = command(city.engine, asked.id)
    assert (noted.delivered_us, noted.code) == (NOW_US + 5, 0)
    assert (len(city.readings()), reasons(city)) == (1, [])


def test_a_command_that_went_out_with_qos_0_is_noted_as_sent_and_stops_nothing(make: Cities) -> None:
    city = make()
    asked = request_command(city.engine, "air/a1", b"on", by="me", now_us=NOW_US, expires_us=NOW_US + 10**9)
    told = {"command": asked.id, "code": UNCONFIRMED}

    city.send(Message("qala/1/air/a1/c", b"", NOW_US + 5, type=MessageType.DELIVERED, properties=told))
    city.send(telemetry({"pm1": 1}))

    noted = command(city.engine, asked.id)
    assert (noted.sent_us, noted.delivered_us) == (NOW_US + 5, None)
    assert (len(city.readings()), reasons(city)) == (1, [])


@pytest.mark.parametrize(("said", "code"), [("0", 0), ("135", 0x87), (LARGER, TOO_LARGE)])
def test_who_answered_a_command_is_noted(make: Cities, said: str, code: int) -> None:
    city = make()
    asked = request_command(city.engine, "air/a1", b"on", by="me", now_us=NOW_US, expires_us=NOW_US + 10**9)
    told = {"command": asked.id, "code": said}

    city.send(by("roof", Message("qala/1/air/a1/c", b"", NOW_US + 5, type=MessageType.DELIVERED, properties=told)))

    noted = command(city.engine, asked.id)
    assert (noted.code, noted.delivered_us, noted.answered_by) == (code, NOW_US + 5, "roof")


def test_what_the_door_refused_of_a_device_is_found_under_it(make: Cities) -> None:
    city = make()
    refused = Message("", b"", NOW_US, type=MessageType.REFUSED, properties={"reason": "topic_mismatch"})

    city.send(by("air/a1", refused))

    assert reasons(city) == [(Reason.TOPIC_MISMATCH, "air/a1")]
    [counted] = entries(city.engine, 0, NOW_US + 1, limit=10)
    assert (counted.device, counted.counts.messages, counted.counts.rejected) == ("air/a1", 1, {"topic_mismatch": 1})


def test_what_the_door_refused_of_a_gateway_names_no_device(make: Cities) -> None:
    city = make()

    city.send(by("roof-7", Message("", b"", NOW_US, type=MessageType.REFUSED, properties={"reason": "bad_topic"})))

    assert reasons(city) == [(Reason.BAD_TOPIC, "")]
