"""MQTT packets: what a client encodes is read back; what is broken is a PacketError with its reason, nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.errors import Reason
from ingest.mqtt.packets import (
    TOPIC_ALIAS_MAX,
    V5,
    V311,
    Ack,
    Connect,
    Disconnect,
    Kind,
    Limits,
    Packet,
    Ping,
    Publish,
    Subscribe,
    Unsubscribe,
    Will,
    connack,
    connect,
    disconnect,
    puback,
    pubacks,
    pubcomp,
    publish,
    pubrec,
    pubrecs,
    suback,
    unsuback,
)
from ingest.mqtt.parser import PacketError, parse, take_publishes
from ingest.mqtt.wire import Code, Properties, Property, text_bytes, varint
from ingest.segments import Row

LIMITS = Limits(topic_max=256, payload_max=1000)

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
TOPIC = st.text(st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), min_size=1, max_size=30)
VERSION = st.sampled_from([V311, V5])


def properties(
    **values: st.SearchStrategy[int] | st.SearchStrategy[str] | st.SearchStrategy[bytes],
) -> st.SearchStrategy[Properties]:
    named = {int(Property[name.upper()]): strategy for name, strategy in values.items()}
    chosen = st.fixed_dictionaries({}, optional=named)
    return st.builds(Properties, chosen, st.lists(st.tuples(TEXT, TEXT), max_size=3))


PUBLISH_PROPERTIES = properties(
    payload_format=st.integers(0, 1), message_expiry=st.integers(0, 2**32 - 1), content_type=TEXT,
    response_topic=TEXT, correlation_data=st.binary(max_size=9), topic_alias=st.integers(1, TOPIC_ALIAS_MAX),
)  # fmt: skip
WILL_PROPERTIES = properties(will_delay=st.integers(0, 2**32 - 1), content_type=TEXT)
CONNECT_PROPERTIES = properties(
    session_expiry=st.integers(0, 2**32 - 1), receive_max=st.integers(1, 65535), packet_max=st.integers(1, 2**32 - 1),
    topic_alias_max=st.integers(0, 65535), request_problem=st.integers(0, 1), request_response=st.integers(0, 1),
)  # fmt: skip


@st.composite
def publishes(draw: st.DrawFn, version: int) -> Publish:
    qos = draw(st.integers(0, 2))
    found = draw(PUBLISH_PROPERTIES) if version == V5 else None
    aliased = found is not None and Property.TOPIC_ALIAS in found.values and draw(st.booleans())
    return Publish(
        topic="" if aliased else draw(TOPIC),
        payload=draw(st.binary(max_size=300)),
        qos=qos,
        id=draw(st.integers(1, 65535)) if qos else 0,
        retained=draw(st.booleans()),
        duplicate=draw(st.booleans()) if qos else False,
        properties=found,
    )


@st.composite
def connects(draw: st.DrawFn) -> Connect:
    version = draw(VERSION)
    will = None
    if draw(st.booleans()):
        will = Will(
            draw(TOPIC), draw(st.binary(max_size=50)), draw(st.integers(0, 2)), draw(st.booleans()),
            draw(WILL_PROPERTIES) if version == V5 else None,
        )  # fmt: skip
    username = draw(st.none() | TEXT)
    return Connect(
        version=version,
        client=draw(TEXT),
        clean=True,
        keep_alive_s=draw(st.integers(0, 65535)),
        will=will,
        username=username,
        password=draw(st.none() | st.binary(max_size=20)) if username is not None or version == V5 else None,
        properties=draw(CONNECT_PROPERTIES) if version == V5 else None,
    )


# --- what is well-formed ---------------------------------------------------------------------------------------------


@given(connects())
def test_a_connect_is_read_as_it_was_written(packet: Connect) -> None:
    data = connect(packet)
    assert parse(data, 0, 0, LIMITS) == (packet, len(data))


@given(st.data(), VERSION)
def test_a_publish_is_read_as_it_was_written(data: st.DataObject, version: int) -> None:
    packet = data.draw(publishes(version))
    wire = publish(version, packet)
    assert parse(b"..." + wire + b"next", 3, version, LIMITS) == (packet, 3 + len(wire))


@given(st.data(), VERSION)
def test_a_packet_that_is_not_all_there_is_waited_for(data: st.DataObject, version: int) -> None:
    wire = publish(version, data.draw(publishes(version)))
    assert parse(wire[: data.draw(st.integers(0, len(wire) - 1))], 0, version, LIMITS) is None


SUBSCRIBE_311 = b"\x82\x06\x00\x07\x00\x01a\x01"
SUBSCRIBE_5 = b"\x82\x0a\x00\x07\x02\x0b\x05\x00\x02a#\x2d"


@pytest.mark.parametrize(
    ("wire", "version", "expected"),
    [
        pytest.param(b"\xc0\x00", V311, Ping(), id="ping"),
        pytest.param(b"\xe0\x00", V311, Disconnect(), id="disconnect 3.1.1"),
        pytest.param(b"\xe0\x00", V5, Disconnect(), id="disconnect 5"),
        pytest.param(b"\xe0\x01\x04", V5, Disconnect(4), id="disconnect with code"),
        pytest.param(b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00", V5, Disconnect(0, 0), id="disconnect with properties"),
        pytest.param(b"\x40\x02\x00\x09", V311, Ack(Kind.PUBACK, 9), id="puback"),
        pytest.param(b"\x62\x02\x00\x09", V311, Ack(Kind.PUBREL, 9), id="pubrel"),
        pytest.param(b"\x40\x04\x00\x09\x10\x00", V5, Ack(Kind.PUBACK, 9, 0x10), id="puback with code and properties"),
        pytest.param(SUBSCRIBE_311, V311, Subscribe(7, [("a", 1)]), id="subscribe 3.1.1"),
        pytest.param(SUBSCRIBE_5, V5, Subscribe(7, [("a#", 1)], numbered=True), id="subscribe 5"),
        pytest.param(b"\xa2\x05\x00\x07\x00\x01a", V311, Unsubscribe(7, ["a"]), id="unsubscribe 3.1.1"),
        pytest.param(b"\xa2\x06\x00\x07\x00\x00\x01a", V5, Unsubscribe(7, ["a"]), id="unsubscribe 5"),
    ],
)
def test_the_other_packets_are_read(wire: bytes, version: int, expected: Packet) -> None:
    assert parse(wire, 0, version, LIMITS) == (expected, len(wire))


# --- what is not -----------------------------------------------------------------------------------------------------


def framed(head: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes([head]) + varint(len(body)) + body


def hello(version: int = V311, flags: int = 2, rest: bytes = b"\0\1c", name: bytes = b"\0\4MQTT") -> bytes:
    return framed(0x10, name, bytes([version, flags]), b"\0\0", b"\0" if version == V5 else b"", rest)


MALFORMED, UNSUPPORTED = Reason.MALFORMED_PACKET, Reason.UNSUPPORTED
BROKEN = [
    pytest.param(0, b"GET / HTTP/1.1\r\n", MALFORMED, Code.PROTOCOL_ERROR, id="HTTP"),
    pytest.param(0, b"\x16\x03\x01\x02\x00", MALFORMED, Code.MALFORMED, id="TLS hello"),
    pytest.param(0, b"\xc0\x00", MALFORMED, Code.PROTOCOL_ERROR, id="a ping first"),
    pytest.param(V311, hello(), MALFORMED, Code.PROTOCOL_ERROR, id="a second CONNECT"),
    pytest.param(0, hello(3, name=b"\0\6MQIsdp"), UNSUPPORTED, Code.UNSUPPORTED_VERSION, id="MQTT 3.1"),
    pytest.param(0, hello(6), UNSUPPORTED, Code.UNSUPPORTED_VERSION, id="MQTT 6"),
    pytest.param(0, hello(flags=3), MALFORMED, Code.MALFORMED, id="reserved connect flag"),
    pytest.param(0, hello(flags=0x1E), MALFORMED, Code.MALFORMED, id="will QoS 3"),
    pytest.param(0, hello(flags=0x22), MALFORMED, Code.MALFORMED, id="will retain without will"),
    pytest.param(0, hello(flags=0x42), MALFORMED, Code.MALFORMED, id="password without user name"),
    pytest.param(0, hello(flags=0x82), MALFORMED, Code.MALFORMED, id="user name flag, none there"),
    pytest.param(0, hello(rest=b"\0\1cX"), MALFORMED, Code.MALFORMED, id="bytes after the last field"),
    pytest.param(0, hello(rest=b"\0\1\xff"), Reason.BAD_UTF8, Code.MALFORMED, id="client id not UTF-8"),
    pytest.param(0, hello(rest=b"\0\1\0"), MALFORMED, Code.MALFORMED, id="NUL in client id"),
    pytest.param(0, hello(flags=0, rest=b"\0\0"), MALFORMED, Code.BAD_CLIENT_ID, id="session without client id"),
    pytest.param(0, hello(rest=text_bytes("c" * 257)), MALFORMED, Code.BAD_CLIENT_ID, id="client id too long"),
    pytest.param(
        0, framed(0x10, b"\0\4MQTT\5\2\0\0", b"\4\x15\0\1x", b"\0\1c"), UNSUPPORTED, Code.BAD_AUTHENTICATION_METHOD,
        id="extended authentication",
    ),
    pytest.param(V5, b"\xf0\x00", MALFORMED, Code.PROTOCOL_ERROR, id="AUTH"),
    pytest.param(V311, b"\x20\x02\0\0", MALFORMED, Code.PROTOCOL_ERROR, id="CONNACK from a client"),
    pytest.param(V311, b"\x00\x00", MALFORMED, Code.PROTOCOL_ERROR, id="packet type 0"),
    pytest.param(V311, b"\x30\xff\xff\xff\xff\x01", MALFORMED, Code.MALFORMED, id="length of five bytes"),
    pytest.param(V311, b"\xc0\x80\x00", MALFORMED, Code.MALFORMED, id="length with needless bytes"),
    pytest.param(V311, b"\x32\xff\xff\xff\x7f", Reason.TOO_LARGE, Code.TOO_LARGE, id="256 MB claimed"),
    pytest.param(V311, publish(V311, Publish("t", b"x" * 1001)), Reason.TOO_LARGE, Code.TOO_LARGE, id="payload too large"),
    pytest.param(V311, framed(0x36, b"\0\1t\0\1"), MALFORMED, Code.MALFORMED, id="QoS 3"),
    pytest.param(V311, framed(0x38, b"\0\1t"), MALFORMED, Code.MALFORMED, id="duplicate with QoS 0"),
    pytest.param(V311, framed(0x32, b"\0\1t\0\0x"), MALFORMED, Code.PROTOCOL_ERROR, id="packet identifier 0"),
    pytest.param(V311, framed(0x32, b"\0\1t\0"), MALFORMED, Code.MALFORMED, id="half a packet identifier"),
    pytest.param(V311, framed(0x30, b"\0\x09t"), MALFORMED, Code.MALFORMED, id="topic longer than the packet"),
    pytest.param(V311, framed(0x30), MALFORMED, Code.MALFORMED, id="publish without anything"),
    pytest.param(V311, framed(0x30, b"\0\0x"), Reason.BAD_TOPIC, Code.BAD_TOPIC, id="empty topic"),
    pytest.param(V311, framed(0x30, b"\0\3a/+"), Reason.BAD_TOPIC, Code.BAD_TOPIC, id="+ in a topic"),
    pytest.param(V311, framed(0x30, b"\0\3a/#"), Reason.BAD_TOPIC, Code.BAD_TOPIC, id="# in a topic"),
    pytest.param(V311, framed(0x30, b"\0\3a\0b"), Reason.BAD_TOPIC, Code.BAD_TOPIC, id="NUL in a topic"),
    pytest.param(V311, framed(0x30, text_bytes("t" * 257)), Reason.BAD_TOPIC, Code.BAD_TOPIC, id="topic too long"),
    pytest.param(V311, framed(0x30, b"\0\2\xc3\x28"), Reason.BAD_UTF8, Code.BAD_TOPIC, id="topic not UTF-8"),
    pytest.param(V311, framed(0x30, b"\0\3\xed\xa0\x80"), Reason.BAD_UTF8, Code.BAD_TOPIC, id="surrogate in a topic"),
    pytest.param(V5, framed(0x30, b"\0\0\0x"), MALFORMED, Code.PROTOCOL_ERROR, id="no topic and no alias"),
    pytest.param(V5, framed(0x30, b"\0\1t\3\x23\0\0"), MALFORMED, Code.BAD_TOPIC_ALIAS, id="topic alias 0"),
    pytest.param(V5, framed(0x30, b"\0\1t\3\x23\0\x11"), MALFORMED, Code.BAD_TOPIC_ALIAS, id="topic alias too high"),
    pytest.param(V5, framed(0x30, b"\0\1t\2\x0b\1"), MALFORMED, Code.PROTOCOL_ERROR, id="property of another packet"),
    pytest.param(V5, framed(0x30, b"\0\1t\2\x7f\1"), MALFORMED, Code.PROTOCOL_ERROR, id="unknown property"),
    pytest.param(V5, framed(0x30, b"\0\1t\4\1\1\1\1"), MALFORMED, Code.PROTOCOL_ERROR, id="property twice"),
    pytest.param(V5, framed(0x30, b"\0\1t\2\1\2"), MALFORMED, Code.PROTOCOL_ERROR, id="flag property of 2"),
    pytest.param(V5, framed(0x30, b"\0\1t\x09\1\1"), MALFORMED, Code.MALFORMED, id="properties longer than the packet"),
    pytest.param(V5, framed(0x30, b"\0\1t\3\x03\0\5"), MALFORMED, Code.MALFORMED, id="property cut short"),
    pytest.param(V311, b"\x80" + SUBSCRIBE_311[1:], MALFORMED, Code.MALFORMED, id="subscribe with flags 0"),
    pytest.param(V311, framed(0x82, b"\0\7"), MALFORMED, Code.MALFORMED, id="subscribe to nothing"),
    pytest.param(V311, framed(0x82, b"\0\7\0\1a\3"), MALFORMED, Code.MALFORMED, id="subscribe with QoS 3"),
    pytest.param(V311, framed(0x82, b"\0\7\0\1a\4"), MALFORMED, Code.MALFORMED, id="subscribe 3.1.1 with options"),
    pytest.param(V5, framed(0x82, b"\0\7\0\0\1a\x30"), MALFORMED, Code.MALFORMED, id="retain handling 3"),
    pytest.param(V311, framed(0x82, b"\0\7\0\0\1"), MALFORMED, Code.MALFORMED, id="empty filter"),
    pytest.param(V311, framed(0xA2, b"\0\7"), MALFORMED, Code.MALFORMED, id="unsubscribe from nothing"),
    pytest.param(V311, b"\xc1\x00", MALFORMED, Code.MALFORMED, id="ping with flags"),
    pytest.param(V311, b"\xc0\x01x", MALFORMED, Code.MALFORMED, id="ping with a body"),
    pytest.param(V311, b"\xe0\x01\x00", MALFORMED, Code.MALFORMED, id="disconnect 3.1.1 with a code"),
]  # fmt: skip


@pytest.mark.parametrize(("version", "wire", "reason", "answer"), BROKEN)
def test_a_broken_packet_is_refused_with_its_reason(version: int, wire: bytes, reason: Reason, answer: Code) -> None:
    with pytest.raises(PacketError) as caught:
        parse(wire, 0, version, LIMITS)
    assert (caught.value.reason, caught.value.answer) == (reason, answer)
    assert caught.value.hint


def test_a_bad_connect_tells_its_version_so_that_it_can_be_answered() -> None:
    with pytest.raises(PacketError) as caught:
        parse(hello(V5, flags=3), 0, 0, LIMITS)
    assert caught.value.version == V5


def mutations(wire: bytes) -> st.SearchStrategy[bytes]:
    def change(edits: list[tuple[int, int]], cut: int) -> bytes:
        data = bytearray(wire)
        for at, byte in edits:
            data[at % len(data)] = byte
        return bytes(data[: len(data) - cut])

    edits = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4)
    return st.builds(change, edits, st.integers(0, 3))


@settings(max_examples=600)
@given(st.data(), VERSION)
def test_a_mutated_packet_raises_nothing_but_a_packet_error(data: st.DataObject, version: int) -> None:
    first = data.draw(st.booleans())
    wire = connect(data.draw(connects())) if first else publish(version, data.draw(publishes(version)))
    quietly(lambda: parse(data.draw(mutations(wire)), 0, 0 if first else version, LIMITS))


FILTERS = st.lists(st.tuples(TEXT.filter(bool), st.integers(0, 2)), min_size=1, max_size=5)


@given(FILTERS, st.integers(1, 65_535), st.none() | st.integers(1, 2**28 - 1), VERSION)
def test_a_subscribe_is_read_as_it_was_written(
    filters: list[tuple[str, int]], packet_id: int, number: int | None, version: int
) -> None:
    numbered = number is not None and version == V5
    found = Properties({Property.SUBSCRIPTION_ID: number} if number is not None and numbered else {}).encode()
    parts = [text_bytes(text) + bytes([qos]) for text, qos in filters]
    wire = framed(0x82, packet_id.to_bytes(2, "big"), found if version == V5 else b"", *parts)
    assert parse(wire, 0, version, LIMITS) == (Subscribe(packet_id, filters, numbered), len(wire))


OTHERS = [b"\xc0\x00", b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00", b"\x62\x02\x00\x09", SUBSCRIBE_311, SUBSCRIBE_5]
OTHERS += [b"\x40\x04\x00\x09\x10\x00", b"\xa2\x06\x00\x07\x00\x00\x01a", b"\xf0\x02\x00\x00", b"\x62\x02\x00\x07"]


@settings(max_examples=400)
@given(st.sampled_from(OTHERS).flatmap(mutations), VERSION)
def test_any_other_mutated_packet_raises_nothing_but_a_packet_error(wire: bytes, version: int) -> None:
    quietly(lambda: parse(wire, 0, version, LIMITS))


@settings(max_examples=400)
@given(st.binary(max_size=60), st.sampled_from([0, V311, V5]))
def test_noise_raises_nothing_but_a_packet_error(data: bytes, version: int) -> None:
    quietly(lambda: parse(data, 0, version, LIMITS))


def quietly(attempt: Callable[[], object]) -> None:
    with contextlib.suppress(PacketError):
        attempt()


# --- the quick way ---------------------------------------------------------------------------------------------------


def take(data: bytes, version: int, topics: dict[bytes, str], room: int = 1000) -> tuple[int, list[Row], list[bytes]]:
    rows: list[Row] = []
    ids: list[bytes] = []
    tail = (7, "client", "", 0, 0, 1)
    at = take_publishes(data, 0, version, LIMITS, topics=topics, rows=rows, ids=ids, room=room, tail=tail)
    return at, rows, ids


@settings(max_examples=400)
@given(st.data(), VERSION)
def test_the_quick_way_takes_what_the_strict_one_takes(data: st.DataObject, version: int) -> None:
    """Whatever the quick way takes from (mutated) packets, the strict parser reads just so."""
    packets = data.draw(st.lists(publishes(version), min_size=1, max_size=5))
    wire = b"".join(publish(version, packet) for packet in packets)
    wire = data.draw(st.just(wire) | mutations(wire))
    stop, rows, ids = take(wire, version, {packet.topic.encode(): packet.topic for packet in packets})
    at = 0
    for row, packet_id in zip(rows, ids, strict=True):
        parsed = parse(wire, at, version, LIMITS)
        assert parsed is not None
        packet, at = parsed
        assert isinstance(packet, Publish)
        assert (packet.topic, packet.payload, 7, "client", "", 0, 0, 1) == row
        assert (packet.id.to_bytes(2, "big"), packet.qos, packet.retained, packet.duplicate) == (
            packet_id,
            1,
            False,
            False,
        )
    assert at == stop


@pytest.mark.parametrize("version", [V311, V5])
@pytest.mark.parametrize("size", [0, 1, 100, 118, 119, 120, 121, 122, 300, 900])
def test_plain_packets_of_known_topics_all_go_the_quick_way(version: int, size: int) -> None:
    wire = b"".join(publish(version, Publish("a/b", b"p" * size, 1, number)) for number in range(1, 40))
    stop, rows, ids = take(wire, version, {b"a/b": "a/b"})
    assert (stop, len(rows), ids[-1]) == (len(wire), 39, b"\0\x27")
    half, some, _ = take(wire, version, {b"a/b": "a/b"}, room=20)
    assert (half, len(some)) == (len(wire) // 39 * 20, 20)
    assert take(wire, version, {}) == (0, [], [])


# --- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        pytest.param(connack(V311, Code.SUCCESS), b"\x20\x02\x00\x00", id="connack 3.1.1"),
        pytest.param(connack(V311, Code.BAD_CLIENT_ID), b"\x20\x02\x00\x02", id="connack 3.1.1, bad id"),
        pytest.param(connack(0, Code.UNSUPPORTED_VERSION), b"\x20\x02\x00\x01", id="connack to a version unknown"),
        pytest.param(connack(V311, Code.SHUTTING_DOWN), b"\x20\x02\x00\x03", id="connack 3.1.1, any other"),
        pytest.param(connack(V311, Code.BAD_CREDENTIALS), b"\x20\x02\x00\x04", id="connack 3.1.1, bad credentials"),
        pytest.param(connack(V311, Code.NOT_AUTHORIZED), b"\x20\x02\x00\x05", id="connack 3.1.1, not authorized"),
        pytest.param(connack(V311, Code.SUCCESS, present=True), b"\x20\x02\x01\x00", id="connack 3.1.1, session"),
        pytest.param(connack(V5, Code.SUCCESS), b"\x20\x03\x00\x00\x00", id="connack 5"),
        pytest.param(
            connack(V5, Code.SUCCESS, Properties({Property.RECEIVE_MAX: 10, Property.ASSIGNED_CLIENT_ID: "ab"})),
            b"\x20\x0b\x00\x00\x08\x21\x00\x0a\x12\x00\x02ab", id="connack 5 with properties",
        ),
        pytest.param(pubacks([b"\0\1", b"\1\0"]), b"\x40\x02\x00\x01\x40\x02\x01\x00", id="pubacks"),
        pytest.param(pubrecs([b"\0\1", b"\1\0"]), b"\x50\x02\x00\x01\x50\x02\x01\x00", id="pubrecs"),
        pytest.param(puback(5, Code.NOT_AUTHORIZED), b"\x40\x03\x00\x05\x87", id="puback, refused"),
        pytest.param(pubrec(5, Code.NOT_AUTHORIZED), b"\x50\x03\x00\x05\x87", id="pubrec, refused"),
        pytest.param(pubcomp(V311, 5, Code.NO_SUCH_PACKET), b"\x70\x02\x00\x05", id="pubcomp 3.1.1"),
        pytest.param(pubcomp(V5, 5), b"\x70\x02\x00\x05", id="pubcomp 5"),
        pytest.param(pubcomp(V5, 5, Code.NO_SUCH_PACKET), b"\x70\x03\x00\x05\x92", id="pubcomp 5, unknown"),
        pytest.param(suback(V311, 7, [0x87, 1]), b"\x90\x04\x00\x07\x80\x01", id="suback 3.1.1"),
        pytest.param(suback(V5, 7, [0xA2]), b"\x90\x04\x00\x07\x00\xa2", id="suback 5"),
        pytest.param(unsuback(V311, 7, [0]), b"\xb0\x02\x00\x07", id="unsuback 3.1.1"),
        pytest.param(unsuback(V5, 7, [0x11]), b"\xb0\x04\x00\x07\x00\x11", id="unsuback 5"),
        pytest.param(disconnect(Code.TAKEN_OVER), b"\xe0\x01\x8e", id="disconnect 5"),
    ],
)  # fmt: skip
def test_answers_are_written_as_the_standard_has_them(wire: bytes, expected: bytes) -> None:
    assert wire == expected
