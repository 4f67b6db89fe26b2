"""Every bad message ends as rejected with the right reason, what was good in it is kept, and the next good one flows."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import cbor2
import httpx
import pytest

from devices.device import Device
from devices.errors import Reason
from ingest.message import Message, MessageType
from qala.state.rejected import list_rejected
from tests.builders import NOW_MS, NOW_US, SECOND_US, City, cities, message, telemetry
from tests.mqtt_client import RawClient
from tests.running import Running, running
from tests.wait import until

AT_1970_MS = 1_767_225_600  # seconds where milliseconds belong
AT_2106_MS = 4_291_747_200_000


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[City]:
    """One city for all: whatever is bad must not harm those that come after it."""
    for make in cities(tmp_path_factory.mktemp("bad")):
        yield make(devices=("air/a1", "air/a2", Device("air/gw", "gateway")))


def raw(payload: bytes | str) -> Message:
    return message(payload if isinstance(payload, bytes) else payload.encode())


def single(values: str) -> Message:
    return raw(f'{{"t":{NOW_MS},"v":{values}}}')


def refused(reason: str, detail: str) -> Message:
    return Message("", b"", NOW_US, type=MessageType.REFUSED, properties={"reason": reason, "detail": detail})


PM = ("air/a1", "pm2_5")

BAD: list[Any] = [
    # what is no document
    pytest.param(raw(b""), {(Reason.BAD_JSON, "")}, {}, id="empty payload"),
    pytest.param(raw("{"), {(Reason.BAD_JSON, "")}, {}, id="bad json"),
    pytest.param(raw(f'{{"t":{NOW_MS},"v":{{"pm2_5":1'), {(Reason.BAD_JSON, "")}, {}, id="truncated"),
    pytest.param(raw("temperature=20"), {(Reason.BAD_JSON, "")}, {}, id="plain text"),
    pytest.param(single('{"pm2_5":1}}'), {(Reason.BAD_JSON, "")}, {}, id="trailing brace"),
    pytest.param(single('{"pm2_5":NaN}'), {(Reason.BAD_JSON, "")}, {}, id="NaN"),
    pytest.param(single('{"pm2_5":-Infinity}'), {(Reason.BAD_JSON, "")}, {}, id="Infinity"),
    pytest.param(raw("[" * 60_000), {(Reason.BAD_JSON, "")}, {}, id="deep nesting"),
    pytest.param(raw('{"v":' * 10_000), {(Reason.BAD_JSON, "")}, {}, id="deep objects"),
    pytest.param(raw(b'\xef\xbb\xbf{"v":{"pm2_5":1}}'), {(Reason.BAD_JSON, "")}, {}, id="byte order mark"),
    pytest.param(raw(b'{"v":{"pm2_5":1},"x":"\xff"}'), {(Reason.BAD_UTF8, "")}, {}, id="invalid UTF-8"),
    pytest.param(raw(b"\xa1\x61v\xa1"), {(Reason.BAD_CBOR, "")}, {}, id="truncated CBOR"),
    pytest.param(raw(cbor2.dumps({"v": {}}) + b"x"), {(Reason.BAD_CBOR, "")}, {}, id="bytes after CBOR"),
    pytest.param(raw(b"\xa1\x61v" * 20_000), {(Reason.BAD_CBOR, "")}, {}, id="deep CBOR"),
    pytest.param(raw(b"\xbb" + b"\xff" * 8), {(Reason.BAD_CBOR, "")}, {}, id="CBOR map of 2^64 members"),
    # what is no message of the format
    pytest.param(raw("[1,2]"), {(Reason.BAD_SHAPE, "")}, {}, id="array payload"),
    pytest.param(raw("12.5"), {(Reason.BAD_SHAPE, "")}, {}, id="number payload"),
    pytest.param(raw("null"), {(Reason.BAD_SHAPE, "")}, {}, id="null payload"),
    pytest.param(raw('{"pm2_5":12.5}'), {(Reason.BAD_SHAPE, "")}, {}, id="no v"),
    pytest.param(raw('{"v":[12.5]}'), {(Reason.BAD_SHAPE, "")}, {}, id="v an array"),
    pytest.param(raw('{"!must":1,"v":{"pm2_5":1}}'), {(Reason.UNSUPPORTED, "")}, {}, id="reserved member"),
    pytest.param(raw('{"\\u0021must":1,"v":{"pm2_5":1}}'), {(Reason.UNSUPPORTED, "")}, {}, id="reserved, escaped"),
    pytest.param(
        telemetry({"pm2_5": [1, 2, 3], "pm10": [1, 2]}, i=1000),
        {(Reason.BAD_SHAPE, "pm10")},
        {(*PM, NOW_US + k * SECOND_US): k + 1 for k in range(3)},
        id="columns of unequal lengths",
    ),
    pytest.param(telemetry({"pm2_5": [1, 2]}, i=-1000), {(Reason.BAD_SHAPE, "")}, {}, id="negative step"),
    pytest.param(telemetry({"pm2_5": [1, 2]}, i=0), {(Reason.BAD_SHAPE, "")}, {}, id="no step"),
    pytest.param(telemetry({"pm2_5": 1}, w=-300_000), {(Reason.BAD_SHAPE, "")}, {}, id="negative window"),
    pytest.param(telemetry({"pm2_5": 1}, w=1500), {(Reason.BAD_SHAPE, "")}, {}, id="window of half seconds"),
    pytest.param(telemetry({"pm2_5": 1}, r=2**40), {(Reason.BAD_SHAPE, "")}, {}, id="huge revision"),
    pytest.param(telemetry({"pm2_5": 1}, q="good"), {(Reason.BAD_SHAPE, "")}, {}, id="quality a text"),
    pytest.param(telemetry({"pm2_5": 1}, u="ug/m3"), {(Reason.BAD_SHAPE, "")}, {}, id="units a text"),
    pytest.param(
        telemetry({"pm2_5": [1] * 5001}, i=1000), {(Reason.TOO_MANY_READINGS, "")}, {}, id="too many readings"
    ),
    pytest.param(raw(b'{"v":{"pm2_5":1}}' + b" " * 65_536), {(Reason.TOO_LARGE, "")}, {}, id="payload too large"),
    # times
    pytest.param(telemetry({"pm2_5": 1}, t="yesterday"), {(Reason.BAD_TIME, "")}, {}, id="time garbage"),
    pytest.param(telemetry({"pm2_5": 1}, t="2026-01-01T00:00:00"), {(Reason.BAD_TIME, "")}, {}, id="naive time"),
    pytest.param(telemetry({"pm2_5": 1}, t=True), {(Reason.BAD_TIME, "")}, {}, id="time a bool"),
    pytest.param(telemetry({"pm2_5": 1}, t={"s": 1}), {(Reason.BAD_TIME, "")}, {}, id="time an object"),
    pytest.param(telemetry({"pm2_5": 1}, t=10**30), {(Reason.BAD_TIME, "")}, {}, id="time beyond calendars"),
    pytest.param(raw('{"t":1e999,"v":{"pm2_5":1}}'), {(Reason.BAD_TIME, "")}, {}, id="time infinite"),
    pytest.param(telemetry({"pm2_5": 1}, t=AT_1970_MS), {(Reason.PAST_TIME, "")}, {}, id="1970"),
    pytest.param(telemetry({"pm2_5": 1}, t=-1), {(Reason.PAST_TIME, "")}, {}, id="negative time"),
    pytest.param(telemetry({"pm2_5": 1}, t=AT_2106_MS), {(Reason.FUTURE_TIME, "")}, {}, id="2106"),
    pytest.param(telemetry({"pm2_5": 1}, t=NOW_MS + 300_001), {(Reason.FUTURE_TIME, "")}, {}, id="six minutes ahead"),
    pytest.param(telemetry({"pm2_5": [1, 2]}, t=None, i=1000), {(Reason.BAD_TIME, "")}, {}, id="batch without a time"),
    pytest.param(
        telemetry({"pm2_5": [1, 2]}, t=[NOW_MS, "x"]), {(Reason.BAD_TIME, "")}, {(*PM, NOW_US): 1}, id="one bad time"
    ),
    pytest.param(telemetry({"pm2_5": 1}, t=None), set(), {(*PM, NOW_US): 1}, id="missing t: time of receipt"),
    # values
    pytest.param(
        single('{"pm2_5":1e400,"pm10":2}'), {(Reason.NOT_FINITE, "pm2_5")}, {("air/a1", "pm10", NOW_US): 2}, id="1e400"
    ),
    pytest.param(
        single(f'{{"pm2_5":{"9" * 5000},"pm10":2}}'),
        {(Reason.NOT_FINITE, "pm2_5")},
        {("air/a1", "pm10", NOW_US): 2},
        id="integer of 5,000 digits",
    ),
    pytest.param(
        raw(cbor2.dumps({"t": NOW_MS, "v": {"pm2_5": float("nan"), "pm10": 2}})),
        {(Reason.NOT_FINITE, "pm2_5")},
        {("air/a1", "pm10", NOW_US): 2},
        id="NaN in CBOR",
    ),
    pytest.param(
        telemetry({"pm2_5": "12.5", "pm10": 2}),
        {(Reason.BAD_VALUE, "pm2_5")},
        {("air/a1", "pm10", NOW_US): 2},
        id="number as a text",
    ),
    pytest.param(
        telemetry({"pm2_5": "nan", "pm10": None, "pm1": 3}),
        {(Reason.BAD_VALUE, "pm2_5")},
        {("air/a1", "pm1", NOW_US): 3, ("air/a1", "pm10", NOW_US): None},
        id="text beside a missing one",
    ),
    pytest.param(
        telemetry({"pm2_5": [1], "pm10": 2}),
        {(Reason.BAD_VALUE, "pm2_5")},
        {("air/a1", "pm10", NOW_US): 2},
        id="array where a number belongs",
    ),
    pytest.param(
        telemetry({"pm2_5": {"value": 1}, "pm10": 2}),
        {(Reason.BAD_VALUE, "pm2_5")},
        {("air/a1", "pm10", NOW_US): 2},
        id="object where a number belongs",
    ),
    pytest.param(telemetry({"pm2_5": True}), set(), {(*PM, NOW_US): 1}, id="bool is 0 or 1"),
    # keys and units
    pytest.param(
        telemetry({"pm3": 1, "pm2_5": 2}),
        {(Reason.UNKNOWN_QUANTITY, "pm3")},
        {(*PM, NOW_US): 2},
        id="unknown quantity beside a known one",
    ),
    pytest.param(
        single('{"\\ud800":1,"pm2_5":2}'),
        {(Reason.UNKNOWN_QUANTITY, "\\ud800")},
        {(*PM, NOW_US): 2},
        id="lone surrogate",
    ),
    pytest.param(
        telemetry({"pm2_5.": 1, "pm2_5": 2}),
        {(Reason.UNKNOWN_QUANTITY, "pm2_5.")},
        {(*PM, NOW_US): 2},
        id="key ending in a dot",
    ),
    pytest.param(telemetry({"": 1}), {(Reason.BAD_SHAPE, '""')}, {}, id="empty key"),
    pytest.param(
        telemetry({"temperature": 1, "pm2_5": 2}, u={"temperature": "kg"}),
        {(Reason.BAD_UNIT, "temperature")},
        {(*PM, NOW_US): 2},
        id="bad unit inline",
    ),
    pytest.param(
        telemetry({"x_flow": 1, "pm2_5": 2}, u={"x_flow": 7}),
        {(Reason.BAD_UNIT, "x_flow")},
        {(*PM, NOW_US): 2},
        id="unit a number",
    ),
    pytest.param(
        telemetry({"pressure": 1e308, "pm2_5": 2}, u={"pressure": "bar"}),
        {(Reason.NOT_FINITE, "pressure")},
        {(*PM, NOW_US): 2},
        id="infinite in its unit",
    ),
    # devices and topics
    pytest.param(telemetry({"pm2_5": 1}, device="air/zz"), {(Reason.UNKNOWN_DEVICE, "")}, {}, id="unknown device"),
    pytest.param(message({"on": 1}, device="air/zz", leaf="s"), {(Reason.UNKNOWN_DEVICE, "")}, {}, id="its status"),
    pytest.param(
        message(
            {"d": {"a1": {"t": NOW_MS, "v": {"pm2_5": 5}}, "a2": {"t": "x", "v": {}}, "zz": {"v": {"pm1": 1}}}},
            device="air/gw",
            leaf="g",
        ),
        {(Reason.BAD_TIME, ""), (Reason.UNKNOWN_DEVICE, "")},
        {(*PM, NOW_US): 5},
        id="gateway with a bad and an unknown device",
    ),
    pytest.param(message({"d": []}, device="air/gw", leaf="g"), {(Reason.BAD_SHAPE, "")}, {}, id="gateway without"),
    pytest.param(message(b"{}", topic="qala/1/air/t"), {(Reason.BAD_TOPIC, "")}, {}, id="too few levels"),
    pytest.param(message(b"{}", topic="qala/1/air/a1/x/t"), {(Reason.BAD_TOPIC, "")}, {}, id="too many levels"),
    pytest.param(message(b"{}", topic="/qala/1/air/a1/t"), {(Reason.BAD_TOPIC, "")}, {}, id="leading slash"),
    pytest.param(message(b"{}", topic="qala/2/air/a1/t"), {(Reason.BAD_TOPIC, "")}, {}, id="another version"),
    pytest.param(message(b"{}", topic="qala/1/+/a1/t"), {(Reason.BAD_TOPIC, "")}, {}, id="wildcard in the topic"),
    pytest.param(message(b"{}", topic="qala/1/air/a1/#"), {(Reason.BAD_TOPIC, "")}, {}, id="wildcard at the end"),
    pytest.param(message(b"{}", topic="$SYS/uptime"), {(Reason.BAD_TOPIC, "")}, {}, id="system topic"),
    pytest.param(message(b"{}", leaf="e"), {(Reason.UNSUPPORTED, "")}, {}, id="event"),
    pytest.param(message(b"true", leaf="s"), {(Reason.BAD_SHAPE, "")}, {}, id="status no object"),
    pytest.param(message({"on": []}, leaf="s"), {(Reason.BAD_SHAPE, "")}, {}, id="status neither on nor off"),
    pytest.param(message({"lat": 91}, leaf="m"), {(Reason.BAD_SHAPE, "")}, {}, id="latitude beyond the pole"),
    # what the door already refused
    pytest.param(refused("bad_utf8", "topic"), {(Reason.BAD_UTF8, "")}, {}, id="refused by the door"),
    pytest.param(
        refused("odd", "x"), {(Reason.MALFORMED_PACKET, "")}, {}, id="refused for a reason of another version"
    ),
]


def test_the_table_is_long_enough() -> None:
    assert len(BAD) >= 30


@pytest.mark.parametrize(("bad", "expected", "kept"), BAD)
def test_a_bad_message_is_rejected_with_its_reason(
    city: City, bad: Message, expected: set[tuple[Reason, str]], kept: dict[tuple[str, str, int], float | None]
) -> None:
    good = telemetry({"pm2_5": 7.5}, device="air/a2")

    first = city.send(bad, good)

    found = [row for row in list_rejected(city.engine, limit=1000)[0] if row.position in {first, first + 1}]
    assert {(row.reason, row.key) for row in found} == expected
    assert {row.position for row in found} <= {first}
    assert city.readings_of(first) == kept
    assert city.readings_of(first + 1) == {("air/a2", "pm2_5", NOW_US): 7.5}


def test_what_a_bad_message_was_can_be_seen(city: City) -> None:
    payload = json.dumps({"t": "x", "v": {"pm2_5": 1}, "note": "y" * 5000}).encode()

    first = city.send(message(payload))

    (row,) = [row for row in list_rejected(city.engine)[0] if row.position == first]
    assert (row.topic, row.device, row.received_us) == ("qala/1/air/a1/t", "air/a1", NOW_US)
    assert row.payload == payload[:2048]
    assert row.detail == "not a time by ISO 8601"


def test_retained_telemetry_is_admitted_and_changes_nothing_the_second_time(city: City) -> None:
    sent = {"t": NOW_MS, "v": {"o3": 42}}
    city.send(message(sent))
    before = city.judged()

    first = city.send(message(sent, retained=True))

    assert city.judged() == before
    assert not [row for row in list_rejected(city.engine)[0] if row.position == first]


def test_a_message_that_admission_fails_on_is_rejected_alone(
    city: City, poisoned: Callable[[City, Message], None]
) -> None:
    poisoned(city, telemetry({"o3": 13.0}))

    first = city.send(telemetry({"no2": 1}), telemetry({"o3": 13.0}), telemetry({"so2": 2}))

    found = [(row.position, row.reason) for row in list_rejected(city.engine)[0] if row.position >= first]
    assert found == [(first + 1, Reason.BAD_SHAPE)]
    assert city.readings()[("air/a1", "no2", NOW_US)] == 1
    assert city.readings()[("air/a1", "so2", NOW_US)] == 2


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Callable[[City, Message], None]:
    """Make admission fail on a message, as a bug that nobody has found yet would."""
    from ingest.admission import Admission

    def poison(_city: City, bad: Message) -> None:
        real = Admission.admit

        def admit(self: Admission, numbers: Any, messages: Any, decoded: Any) -> Any:
            if any(m == bad and d.reports for m, d in zip(messages, decoded, strict=True)):
                raise ZeroDivisionError
            return real(self, numbers, messages, decoded)

        monkeypatch.setattr(Admission, "admit", admit)

    return poison


def _publish(topic: bytes, payload: bytes, head: int = 0x32) -> bytes:
    """Write a PUBLISH of MQTT 3.1.1 as no proper client would."""
    body = len(topic).to_bytes(2, "big") + topic + b"\0\1" + payload
    return bytes([head]) + _remaining_length(len(body)) + body


def _remaining_length(size: int) -> bytes:
    out = bytearray()
    while True:
        size, low = divmod(size, 128)
        out.append(low | (0x80 if size else 0))
        if not size:
            return bytes(out)


DOOR = [
    pytest.param(_publish(b"qala/1/air/\xff/t", b"{}"), Reason.BAD_UTF8, id="invalid UTF-8 topic"),
    pytest.param(_publish(b"qala/1/air/a1\0/t", b"{}"), Reason.BAD_TOPIC, id="NUL in the topic"),
    pytest.param(_publish(b"qala/1/+/a1/t", b"{}"), Reason.BAD_TOPIC, id="wildcard in the topic"),
    pytest.param(_publish(b"qala/1/air/a1/t", b" " * 100_000), Reason.TOO_LARGE, id="payload too large"),
    pytest.param(b"\x32\xff\xff\xff\x7f", Reason.TOO_LARGE, id="a packet of 256 MB announced"),
    pytest.param(b"\x32\xff\xff\xff\xff\x01", Reason.MALFORMED_PACKET, id="length of five bytes"),
    pytest.param(_publish(b"qala/1/air/a1/t", b"{}", head=0x36), Reason.MALFORMED_PACKET, id="QoS 3"),
    pytest.param(b"GET / HTTP/1.1\r\nUser-Agent: " + b"x" * 100, Reason.MALFORMED_PACKET, id="another protocol"),
]


@pytest.fixture(scope="module")
def qala() -> Iterator[Running]:
    with running() as started:
        yield started.ready()


@pytest.mark.parametrize(("wire", "reason"), DOOR)
def test_what_only_the_door_sees_is_rejected_too(qala: Running, wire: bytes, reason: Reason) -> None:
    before = len(_rejected(qala))
    with RawClient(("127.0.0.1", qala.mqtt)) as bad, RawClient(("127.0.0.1", qala.mqtt)) as good:
        good.connect("good")
        bad.connect("bad")

        bad.send(wire)

        assert bad.is_closed()
        good.publish(7, topic="qala/1/air/a1/t")
        assert good.pubacks(1) == [7]
    until(lambda: len(_rejected(qala)) == before + 2)
    refused, next_one = _rejected(qala)[1], _rejected(qala)[0]
    assert (refused["reason"], refused["payload"]) == (reason, "")
    assert next_one["reason"] == Reason.BAD_SHAPE  # "7" is no telemetry: it flowed, and was judged by itself


def _rejected(qala: Running) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = qala.get("/api/v1/rejected?limit=500")["items"]
    return items


def test_the_counts_of_the_stages_add_up(qala: Running) -> None:
    """What the door took, the projector took; what is counted as rejected is listed."""
    with RawClient(("127.0.0.1", qala.mqtt)) as client:
        client.connect("count")
        client.publish(*range(1, 101), topic="qala/1/air/zz/t")
        assert client.pubacks(100) == list(range(1, 101))

    def adds_up() -> bool:
        counts = _counts(qala)
        stages = {
            counts[f"qala_{stage}"] for stage in ("door_messages_total", "projector_messages_total", "journal_last")
        }
        return len(stages) == 1 and min(stages) >= 100

    until(adds_up)
    listed = qala.get("/api/v1/rejected/summary")["items"]
    assert sum(row["count"] for row in listed) == _counts(qala)["qala_rejected_total"]
    assert sum(row["count"] for row in listed) >= 100


def _counts(qala: Running) -> dict[str, float]:
    """Read every metric, added up over its labels."""
    counts: dict[str, float] = defaultdict(float)
    for line in httpx.get(f"http://127.0.0.1:{qala.http}/metrics", timeout=10).text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            counts[name.partition("{")[0]] += float(value)
    return counts
