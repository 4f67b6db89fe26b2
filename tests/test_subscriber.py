"""The subscriber of existing brokers: its conversation, packet by packet, and what flows from a real mosquitto."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import subprocess
from pathlib import Path

import mqtt5
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from pydantic import ValidationError

from dashboards.health import judge
from devices.errors import ConfigError
from ingest.brokers.session import BrokerError, Phase, Plan, Session
from ingest.brokers.settings import BrokerSettings
from ingest.brokers.subscriber import Subscriber
from ingest.message import Message, MessageType, Source
from ingest.mqtt.packets import V5, Limits, Publish
from ingest.mqtt.packets import publish as packet
from ingest.mqtt.rows import properties_of
from ingest.mqtt.wire import Properties as WireProperties
from ingest.mqtt.wire import Property
from ingest.report import DoorReport
from ingest.segments import Row
from qala import measures
from qala.standing import of_brokers
from tests.mosquitto import Mosquitto
from tests.pki import Authority
from tests.subscribing import Memory, publish, publish_many, subscribing
from tests.wait import until

TOPIC = "qala/1/demo/d/t"
CONNACK = mqtt5.ConnAckPacket().write()


class Talk:
    """A conversation without a connection."""

    def __init__(self, *filters: str, accepted: bool = True, **plan) -> None:
        self.session = Session(Plan("city", "me", filters or ("a/#",), **plan), Limits())
        self.rows: list[Row] = []
        self.ids: list[bytes] = []
        self.sent = self.said()
        if accepted:
            self.hears(CONNACK)

    def hears(self, data: bytes, room: int = 100) -> int:
        return self.session.take(data, 7, self.rows, self.ids, room)

    def said(self) -> list[mqtt5.Packet]:
        """Read what was to be sent since the last time."""
        packets = [mqtt5.read(memoryview(each))[0] for each in self.session.out]
        self.session.out.clear()
        return packets


def message(number: int, topic: str = TOPIC, **rest) -> bytes:
    return packet(V5, Publish(topic, str(number).encode(), 1, number, **rest))


def ids(*numbers: int) -> list[bytes]:
    return [number.to_bytes(2, "big") for number in numbers]


# --- the conversation -------------------------------------------------------------------------------------------------


def test_it_asks_for_a_session_that_lasts_and_for_quality_1() -> None:
    talk = Talk("a/#", "$share/g/b", accepted=False, session_expiry_s=99, receive_max=5, username="u", password=b"p")
    [connect] = talk.sent
    assert isinstance(connect, mqtt5.ConnectPacket)
    assert (connect.client_id, connect.clean_start, connect.session_expiry_interval) == ("me", False, 99)
    assert (connect.receive_max, connect.username, connect.password) == (5, "u", b"p")
    talk.hears(CONNACK)
    [subscribe] = talk.said()
    assert isinstance(subscribe, mqtt5.SubscribePacket)
    assert [each.pattern for each in subscribe.topic_filters] == ["a/#", "$share/g/b"]
    for each in subscribe.topic_filters:
        assert each.max_qos == mqtt5.QoS.AT_LEAST_ONCE
        assert each.retain_handling == mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS
        assert not each.retain_as_published


def test_it_subscribes_anew_at_each_connection_eight_at_a_time_and_leaves_what_was_dropped() -> None:
    talk = Talk(*(f"t/{n}" for n in range(20)), dropped=["old/#"])
    said = talk.said()
    sizes = [len(each.topic_filters) for each in said if isinstance(each, mqtt5.SubscribePacket)]
    [leaving] = [each for each in said if isinstance(each, mqtt5.UnsubscribePacket)]
    assert sizes == [8, 8, 4]
    assert leaving.patterns == ["old/#"]
    for number, size in enumerate(sizes, 1):
        talk.hears(mqtt5.SubAckPacket(number, [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE] * size).write())
    assert talk.session.phase is Phase.SUBSCRIBING
    talk.hears(mqtt5.UnsubAckPacket(leaving.packet_id, [mqtt5.UnsubAckReasonCode.SUCCESS]).write())
    assert talk.session.phase is Phase.READY


def test_messages_of_every_kind_become_rows_in_their_order() -> None:
    talk = Talk()
    data = message(1) + message(2) + message(3, duplicate=True) + packet(V5, Publish(TOPIC, b"0"))
    assert talk.hears(data + message(4, retained=True)) == len(data) + len(message(4))
    assert [row[1] for row in talk.rows] == [b"1", b"2", b"3", b"0", b"4"]
    assert talk.ids == ids(1, 2, 3, 4)
    taken = [Message(*row) for row in talk.rows]
    assert [each.duplicate for each in taken] == [False, False, True, False, False]
    assert [each.retained for each in taken] == [False, False, False, False, True]
    assert {each.topic for each in taken} == {TOPIC}
    assert {each.principal for each in taken} == {"broker:city"}
    assert {(each.received_us, each.source, each.type) for each in taken} == {
        (7, Source.SUBSCRIBER, MessageType.PUBLISH)
    }
    assert talk.session.acknowledge(talk.ids) == b"".join(b"\x40\x02" + each for each in ids(1, 2, 3, 4))


def test_a_packet_in_pieces_is_the_packet() -> None:
    talk, data, at = Talk(), b"".join(message(n) for n in range(1, 30)), 0
    for end in range(len(data) + 1):
        at += talk.hears(data[at:end])
    assert talk.ids == ids(*range(1, 30))


def test_messages_beyond_the_room_wait() -> None:
    talk = Talk()
    data = b"".join(message(n) for n in range(1, 6))
    at = talk.hears(data, room=3)
    assert talk.ids == ids(1, 2, 3)
    assert talk.hears(data[at:], room=3) == 0
    assert talk.hears(data[at:], room=9) == len(data) - at


def test_quality_2_of_an_older_session_is_answered_to_the_end() -> None:
    talk = Talk()
    talk.said()
    talk.hears(packet(V5, Publish(TOPIC, b"x", 2, 9)) + message(10))
    assert [row[7] for row in talk.rows] == [2, 1]
    assert talk.session.acknowledge(talk.ids) == b"\x50\x02\x00\x09\x40\x02\x00\x0a"
    talk.hears(mqtt5.PubRelPacket(9).write())
    [comp] = talk.said()
    assert isinstance(comp, mqtt5.PubCompPacket)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"\x32\x08\x00\x02\xff\xfe\x00\x05\x00x", "bad_utf8", id="a topic that is not UTF-8"),
        pytest.param(message(5, "a/#"), "bad_topic", id="a topic with a wildcard"),
        pytest.param(message(5, "a\0b"), "bad_topic", id="a topic with a NUL"),
        pytest.param(message(5, "t" * 300), "bad_topic", id="a topic that is too long"),
        pytest.param(b"\x32\x06\x00\x00\x00\x05\x00x", "malformed_packet", id="no topic and no alias"),
        pytest.param(b"\x32\x09\x00\x00\x00\x05\x03\x23\x00\x01x", "bad_topic", id="an alias that nobody allowed"),
        pytest.param(packet(V5, Publish(TOPIC, bytes(70_000), 1, 5)), "too_large", id="a payload over the limit"),
        pytest.param(
            b"\x32\x0e\x00\x01a\x00\x05\x07\x26\x00\x01\xff\x00\x01bx", "bad_utf8", id="a property that is not UTF-8"
        ),
    ],
)
def test_a_message_that_cannot_be_taken_is_recorded_and_acknowledged(data: bytes, reason: str) -> None:
    talk = Talk()
    talk.hears(data + message(6))
    assert talk.ids == ids(5, 6)
    refused, after = talk.rows
    assert (refused[6], refused[10]["reason"]) == (MessageType.REFUSED, reason)
    assert after[1] == b"6"
    assert talk.session.turned_down == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"\x32\xff\xff\xff\xff\x7f", "malformed", id="a length of five bytes"),
        pytest.param(b"\x32\x03\x00\x09a", "malformed", id="a topic beyond the packet"),
        pytest.param(b"\x32\x06\x00\x01a\x00\x00\x00", "identifier 0", id="packet identifier 0"),
        pytest.param(b"\x00\x00", "malformed", id="a type that does not exist"),
        pytest.param(b"\x10\x00", "malformed", id="what clients send"),
        pytest.param(mqtt5.PubAckPacket(1).write(), "do not send", id="an acknowledgement of what was never sent"),
        pytest.param(CONNACK, "does not belong", id="a second CONNACK"),
        pytest.param(b"\x32\xff\xff\x7f", "were allowed", id="a packet larger than was allowed"),
        pytest.param(b"\x90\x04\x00\x63\x00\x01", "was not sent", id="an answer to nothing"),
        pytest.param(
            mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER).write(),
            "session taken over",
            id="a goodbye",
        ),
    ],
)
def test_what_cannot_be_understood_ends_the_connection_with_its_reason(data: bytes, words: str) -> None:
    talk = Talk()
    with pytest.raises(BrokerError, match=words):
        talk.hears(message(1) + data)
    assert len(talk.rows) == 1


@pytest.mark.parametrize(
    ("connack", "words", "hopeless"),
    [
        pytest.param(b"\x20\x03\x00\x86\x00", "bad user name or password", True, id="a wrong password"),
        pytest.param(b"\x20\x03\x00\x87\x00", "not authorized", True, id="not allowed"),
        pytest.param(b"\x20\x03\x00\x89\x00", "server busy", False, id="busy"),
        pytest.param(
            mqtt5.ConnAckPacket(
                reason_code=mqtt5.ConnAckReasonCode.SERVER_MOVED, server_reference="other.example:1883"
            ).write(),
            "other.example",
            True,
            id="moved",
        ),
        pytest.param(b"\x20\x02\x00\x01", "MQTT 5 is needed", True, id="an older protocol"),
        pytest.param(message(1), "before it accepted", False, id="a message at once"),
        pytest.param(
            b"\x20\x08\x00\x86\x05\x1f\x00\x02\xff\xfe",
            "malformed",
            False,
            id="a reason that is not UTF-8",
            marks=pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
        ),
    ],
)
def test_a_broker_that_does_not_let_us_in_is_told_apart(connack: bytes, words: str, hopeless: bool) -> None:
    with pytest.raises(BrokerError, match=words) as caught:
        Talk(accepted=False).hears(connack)
    assert caught.value.hopeless is hopeless


def test_what_the_broker_refuses_is_said_and_asked_for_again() -> None:
    talk = Talk("a/#", "b/#", "c/#")
    talk.said()
    codes = mqtt5.SubAckReasonCode
    answer = [codes.NOT_AUTHORIZED, codes.GRANTED_QOS_AT_LEAST_ONCE, codes.GRANTED_QOS_AT_MOST_ONCE]
    talk.hears(mqtt5.SubAckPacket(1, answer).write())
    assert talk.session.phase is Phase.READY
    assert (
        talk.session.trouble()
        == "it refuses 'a/#': not authorized; it refuses 'c/#': it gives QoS 0 only, so messages may be lost"
    )
    talk.session.ask_again()
    [again] = talk.said()
    assert isinstance(again, mqtt5.SubscribePacket)
    assert [each.pattern for each in again.topic_filters] == ["a/#", "c/#"]
    talk.hears(mqtt5.SubAckPacket(again.packet_id, [codes.GRANTED_QOS_AT_LEAST_ONCE] * 2).write())
    assert talk.session.trouble() == ""


def test_what_the_broker_grants_less_than_was_asked_is_said() -> None:
    talk = Talk(accepted=False, session_expiry_s=1000)
    talk.hears(mqtt5.ConnAckPacket(session_expiry_interval=60, server_keep_alive=11).write())
    assert talk.session.notes == ["it keeps our session for 60 s only, not 1000 s"]
    assert talk.session.keep_alive_s == 11


@given(cuts=st.lists(st.integers(0, 400), max_size=12), room=st.integers(1, 9))
def test_however_the_bytes_come_and_however_little_room_there_is_the_messages_are_the_same(
    cuts: list[int], room: int
) -> None:
    stream = b"".join(
        [message(1), message(2, retained=True), packet(V5, Publish(TOPIC, b"0")), message(3, "a/#"), b"\xd0\x00"]
        + [message(n, f"t/{n % 3}", duplicate=n % 4 == 0) for n in range(4, 20)]
    )
    whole, pieces, rest = Talk(), Talk(), b""
    assert whole.hears(stream) == len(stream)
    for begin, end in itertools.pairwise([0, *sorted(cuts), len(stream)]):
        rest += stream[begin:end]
        while at := pieces.hears(rest, room=len(pieces.ids) + room):
            rest = rest[at:]
    assert rest == b""
    assert pieces.rows == whole.rows
    assert pieces.ids == whole.ids


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@given(garbage=st.binary(max_size=40), flips=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=5))
def test_whatever_a_broker_sends_ends_the_connection_at_worst(garbage: bytes, flips: list[tuple[int, int]]) -> None:
    sane = message(1) + mqtt5.SubAckPacket(1, [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE]).write() + message(2)
    data = bytearray(sane + garbage)
    for at, value in flips:
        data[at % len(data)] = value
    with contextlib.suppress(BrokerError):
        Talk().hears(bytes(data))


@pytest.mark.parametrize("topic", ["known", "t/new"])
@given(
    payload=st.binary(max_size=300),
    user=st.lists(
        st.tuples(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60))
        | st.just(("a",)),
        max_size=3,
    ),
    content_type=st.sampled_from(["", "application/json", "тип"]),
    duplicate=st.booleans(),
    retained=st.booleans(),
)
def test_what_is_said_beside_a_message_is_kept_whichever_way_reads_it(
    topic: str, payload: bytes, user: list[tuple[str]], content_type: str, duplicate: bool, retained: bool
) -> None:
    talk = Talk()
    talk.hears(message(1, "known"))
    values = {Property.CONTENT_TYPE: content_type} if content_type else {}
    properties = WireProperties(values, [(name, name * 2) for (name,) in user])
    sent = Publish(topic, payload, 1, 2, retained, duplicate, properties)
    talk.hears(packet(V5, sent))
    taken = Message(*talk.rows[1])
    assert (taken.topic, taken.payload, taken.qos) == (topic, payload, 1)
    assert (taken.retained, taken.duplicate) == (retained, duplicate)
    assert taken.properties == properties_of(properties)
    assert talk.ids == ids(1, 2)


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        pytest.param({"url": "http://x"}, "not an address", id="another protocol"),
        pytest.param({"url": "mqtt://u:secret@x"}, "not an address", id="a password in the address"),
        pytest.param({"url": "mqtt://x:99999"}, "not an address", id="a port that does not exist"),
        pytest.param({"topics": ["a/#/b"]}, "not a topic filter", id="a wildcard in the middle"),
        pytest.param({"topics": ["a+"]}, "not a topic filter", id="a wildcard in a word"),
        pytest.param({"topics": ["$share/g/a"]}, "not a topic filter", id="a share in the filter"),
        pytest.param({"share": "a/b"}, "share group", id="a share with a level"),
        pytest.param({"certificate": "c.pem"}, "come together", id="a certificate without its key"),
        pytest.param({"ca": "ca.pem"}, "mqtts", id="an authority without TLS"),
    ],
)
def test_settings_that_make_no_sense_are_refused_without_repeating_secrets(wrong: dict, words: str) -> None:
    with pytest.raises((ConfigError, ValidationError), match=words) as caught:
        BrokerSettings(**({"url": "mqtt://broker"} | wrong))
    assert "secret" not in str(caught.value)


def test_a_share_goes_before_every_topic() -> None:
    assert BrokerSettings(url="mqtt://b", topics=["a/#", "b"], share="qala").filters == (
        "$share/qala/a/#",
        "$share/qala/b",
    )


# --- a real broker ----------------------------------------------------------------------------------------------------


def test_messages_flow_with_what_was_said_beside_them(tmp_path: Path) -> None:
    sink = Memory()
    with Mosquitto(tmp_path / "m") as broker, subscribing(broker, sink, tmp_path, topics=["qala/1/#"]) as house:
        until(house.is_connected)
        properties = Properties(PacketTypes.PUBLISH)
        properties.ContentType = "application/cbor"
        properties.UserProperty = ("line", "7")
        publish(broker.port, "qala/1/demo/a/t", b"plain")
        publish(broker.port, "qala/1/demo/b/t", b"two", qos=2)
        publish(broker.port, "qala/1/demo/c/t", b"with", properties=properties)
        publish(broker.port, "qala/1/demo/d/t", b"live", retain=True)
        publish(broker.port, "elsewhere", b"not ours")
        publish(broker.port, "qala/1/demo/e/t", b"last", qos=0)
        until(lambda: len(sink.messages) == 5)
        assert sink.payloads() == ["plain", "two", "with", "live", "last"]
        assert [m.qos for m in sink.messages] == [1, 1, 1, 1, 0]
        assert sink.messages[2].properties == {"content_type": "application/cbor", "user.line": "7"}
        assert not any(m.retained for m in sink.messages)  # those that are live are not marked
        assert {(m.principal, m.source) for m in sink.messages} == {("broker:city", Source.SUBSCRIBER)}
        report = house.report()
        assert (report.connected, report.error, report.received, report.waiting) == (True, "", 5, 0)


def test_what_was_published_while_nobody_was_there_comes_afterwards(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "m") as broker:
        with subscribing(broker, Memory(), tmp_path) as house:
            until(house.is_connected)
        publish_many(broker.port, range(2000))
        sink = Memory()
        with subscribing(broker, sink, tmp_path):
            until(lambda: len(sink.messages) == 2000)
            assert sink.payloads() == [str(n) for n in range(2000)]


def test_topics_that_left_the_settings_are_unsubscribed(tmp_path: Path) -> None:
    sink = Memory()
    with Mosquitto(tmp_path / "m") as broker:
        with subscribing(broker, sink, tmp_path, topics=["a/#", "b/#"]) as house:
            until(house.is_connected)
        with subscribing(broker, sink, tmp_path, topics=["b/#", "c/#"]) as house:
            until(house.is_connected)
            for topic in ("a/1", "b/1", "c/1"):
                publish(broker.port, topic, topic.encode())
            until(lambda: sink.payloads() == ["b/1", "c/1"])


def test_two_subscribers_of_a_share_get_every_message_once(tmp_path: Path) -> None:
    one, two = Memory(), Memory()
    with (
        Mosquitto(tmp_path / "m") as broker,
        subscribing(broker, one, tmp_path, name="one", share="g") as first,
        subscribing(broker, two, tmp_path, name="two", share="g") as second,
    ):
        until(lambda: first.is_connected() and second.is_connected())
        publish_many(broker.port, range(1000))
        until(lambda: len(one.messages) + len(two.messages) == 1000)
        assert sorted(map(int, one.payloads() + two.payloads())) == list(range(1000))
        assert len(one.messages) > 300
        assert len(two.messages) > 300


def test_of_two_with_topics_of_their_own_one_that_is_away_holds_nothing_back_and_gets_its_part_later(
    tmp_path: Path,
) -> None:
    air, traffic = Memory(), Memory()
    with (
        Mosquitto(tmp_path / "m") as broker,
        subscribing(broker, air, tmp_path, name="air", topics=["qala/1/air/#"]) as first,
        subscribing(broker, traffic, tmp_path, name="traffic", topics=["qala/1/traffic/#"]) as second,
    ):
        until(lambda: first.is_connected() and second.is_connected())
        first.crash()
        publish_many(broker.port, range(10), topic="qala/1/air/a/t")
        publish_many(broker.port, range(10, 20), topic="qala/1/traffic/a/t")
        until(lambda: len(traffic.messages) == 10)
        assert not air.messages
        with subscribing(broker, air, tmp_path, name="air", topics=["qala/1/air/#"]):
            until(lambda: len(air.messages) == 10)


def test_the_buffer_holds_at_exactly_its_number_while_the_journal_is_slow(tmp_path: Path) -> None:
    sink = Memory()
    lines = "allow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0"  # a broker that does not hold back
    with (
        Mosquitto(tmp_path / "m", lines) as broker,
        subscribing(broker, sink, tmp_path, buffer_max=500, receive_max=65_535, keep_alive_s=4) as house,
    ):
        until(house.is_connected)
        sink.gate.clear()
        publish_many(broker.port, range(5000))
        until(lambda: house.report().waiting == 500)
        connection = house.subscriber._connection
        first = connection._pinged
        seen: set[int] = set()

        def is_later() -> bool:
            seen.add(house.report().waiting)
            return connection._pinged > first + 5

        until(is_later, deadline_s=20)  # longer than the keep-alive: pings go out while nothing is read
        assert seen == {500}
        assert house.subscriber._connection is connection
        sink.gate.set()
        until(lambda: len(sink.messages) == 5000, deadline_s=30)
        assert sink.payloads() == [str(n) for n in range(5000)]


def test_a_wrong_password_is_said_and_the_right_one_helps_without_a_restart(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("wrong\n")
    passwords = tmp_path / "passwords"
    _write_passwords(passwords)
    lines = f"allow_anonymous false\npassword_file {passwords}"
    sink = Memory()
    with (
        Mosquitto(tmp_path / "m", lines) as broker,
        subscribing(broker, sink, tmp_path, username="qala", password_file=secret) as house,
    ):
        until(lambda: "does not let us in: " in house.report().error)
        assert "wrong" not in house.report().error
        secret.write_text("right\n")
        until(house.is_connected)
        publish(broker.port, TOPIC, b"x", login=("qala", "right"))
        until(lambda: sink.payloads() == ["x"])


def _write_passwords(path: Path) -> None:
    command = shutil.which("mosquitto_passwd") or pytest.skip("mosquitto_passwd is missing")
    path.touch(0o600)
    subprocess.run([command, "-b", str(path), "qala", "right"], check=True, capture_output=True)


def test_a_broker_whose_certificate_is_of_our_authority_is_trusted_and_no_other(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    server, client = ours.server(), ours.client("qala")
    tls = [f"cafile {ours.file}", f"certfile {server.certificate}", f"keyfile {server.private_key}"]
    sink = Memory()
    with Mosquitto(tmp_path / "m", tls=[*tls, "require_certificate true"]) as broker:
        shown = {"certificate": client.certificate, "private_key": client.private_key}
        with subscribing(broker, sink, tmp_path, ca=theirs.file, **shown) as house:
            until(lambda: "its certificate is not to be trusted" in house.report().error)
        with subscribing(broker, sink, tmp_path, ca=ours.file) as house:
            until(lambda: house.subscriber.attempts > 1)
            assert not house.is_connected()
        with subscribing(broker, sink, tmp_path, ca=ours.file, **shown) as house:
            until(house.is_connected)
        with subscribing(broker, sink, tmp_path, ca=tmp_path / "missing.pem") as house:
            until(lambda: "cannot read its files" in house.report().error)


def test_a_broker_that_is_down_at_the_start_is_found_when_it_comes(tmp_path: Path) -> None:
    broker, sink = Mosquitto(tmp_path / "m"), Memory()
    with subscribing(broker, sink, tmp_path) as house:
        until(lambda: "cannot reach mqtt://localhost" in house.report().error)
        assert not house.report().connected
        with broker:
            until(house.is_connected)
            assert house.report().error == ""
            publish(broker.port, TOPIC, b"x")
            until(lambda: sink.payloads() == ["x"])
        until(lambda: not house.is_connected())
        assert house.report().error


def test_a_broker_that_is_away_is_a_reason_in_health_and_a_gauge(tmp_path: Path) -> None:
    with subscribing("mqtt://127.0.0.1:1", Memory(), tmp_path) as house:
        until(lambda: "cannot reach" in house.report().error)
        told = DoorReport(brokers=(house.report(),))
    part = of_brokers(told)["brokers"]
    assert part["error"].startswith("city: cannot reach mqtt://127.0.0.1:1")
    assert [reason.code for reason in judge({"brokers": part}, behind_s=30).reasons] == ["brokers_down"]
    connected = next(metric for metric in measures.of_brokers(told) if metric.name == "qala_broker_connected")
    assert [(sample.value, sample.labels) for sample in connected.samples] == [(0.0, {"broker": "city"})]
    well = DoorReport(brokers=(msgspec.structs.replace(told.brokers[0], error="", connected=True),))
    assert of_brokers(well)["brokers"]["up"]
    assert of_brokers(DoorReport()) == {}


def test_waits_between_attempts_grow_and_are_spread() -> None:
    class Waits(Subscriber):
        def __init__(self, failures: int) -> None:
            self._settings = BrokerSettings(url="mqtt://b")
            self._failures = failures

    quick, slow = BrokerError("x"), BrokerError("x", hopeless=True)
    for failures, most in [(1, 1.0), (2, 2.0), (5, 16.0), (7, 60.0), (5000, 60.0)]:
        waits = [Waits(failures)._wait_s(quick) for _ in range(300)]
        assert 0 <= min(waits) < most * 0.1
        assert most * 0.9 < max(waits) <= most
    assert min(Waits(1)._wait_s(slow) for _ in range(100)) >= 30
