"""QoS 2, sessions, topic aliases and delayed wills: what the listener remembers of a client, and for how long."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ingest.message import MessageType
from ingest.mqtt.packets import V5, Publish, Will, publish
from ingest.mqtt.session import EXPIRY_MAX_S, Session, Sessions
from ingest.mqtt.wire import Properties, Property
from tests.disk import Disk
from tests.mqtt_client import RawClient, pubrel
from tests.test_listener import VERSIONS, House, house
from tests.wait import until

KEPT = Properties({Property.SESSION_EXPIRY: 60})


def staying(home: House, client: str = "c", version: int = V5, *, clean: bool = False) -> tuple[RawClient, bool]:
    """Connect with a session that outlives the connection; tell whether it was there already."""
    raw = home.client()
    answer = raw.connect(client, version, clean=clean, properties=KEPT if version == V5 else None)
    assert answer[3] == 0
    return raw, bool(answer[2])


def again(version: int, number: int) -> bytes:
    """The same message of QoS 2 once more, as a client sends it that had no PUBREC."""
    return publish(version, Publish("qala/1/demo/d/t", str(number).encode(), 2, number, duplicate=True))


def pubrec(number: int) -> bytes:
    return b"\x50\x02" + number.to_bytes(2, "big")


def pubcomp(number: int, code: bytes = b"") -> bytes:
    return bytes([0x70, 2 + len(code)]) + number.to_bytes(2, "big") + code


# --- QoS 2 -----------------------------------------------------------------------------------------------------------


@VERSIONS
def test_a_message_of_qos_2_is_taken_once_step_by_step(tmp_path: Path, version: int) -> None:
    with house(tmp_path) as home, home.connected("c", version) as client:
        client.publish(1, 2, 3, qos=2)
        assert [client.packet() for _ in range(3)] == [pubrec(1), pubrec(2), pubrec(3)]
        client.send(again(version, 2))
        assert client.packet() == pubrec(2)
        client.send(pubrel(2))
        assert client.packet() == pubcomp(2)
        client.publish(2, qos=2)
        assert client.packet() == pubrec(2)
        assert home.payloads() == ["1", "2", "3", "2"]
        assert {message.qos for message in home.messages()} == {2}


@VERSIONS
def test_releasing_what_is_not_known_is_answered_as_the_version_can(tmp_path: Path, version: int) -> None:
    with house(tmp_path) as home, home.connected("c", version) as client:
        client.send(pubrel(9))
        assert client.packet() == pubcomp(9, b"\x92" if version == V5 else b"")


@VERSIONS
def test_no_pubrec_before_the_sync_and_a_repetition_meanwhile_is_not_taken_twice(tmp_path: Path, version: int) -> None:
    disk = Disk()
    with house(tmp_path, files=disk) as home, home.connected("c", version) as client:
        disk.gate = threading.Event()
        try:
            client.publish(1, qos=2)
            until(lambda: disk.syncs)
            client.send(again(version, 1))
            assert client.hears_nothing(0.3)
        finally:
            disk.gate.set()
        assert client.packet() == pubrec(1)
        client.send(pubrel(1))
        assert client.packet() == pubcomp(1)
        assert home.payloads() == ["1"]


def test_a_release_before_the_sync_is_refused(tmp_path: Path) -> None:
    disk = Disk()
    with house(tmp_path, files=disk) as home, home.connected("c", V5) as client:
        disk.gate = threading.Event()
        try:
            client.publish(1, qos=2)
            client.send(pubrel(1))
            assert client.packet() == b"\xe0\x01\x82"
        finally:
            disk.gate.set()


@VERSIONS
def test_messages_of_qos_2_in_flight_are_capped(tmp_path: Path, version: int) -> None:
    with house(tmp_path, in_flight_max=5) as home, home.connected("c", version) as client:
        client.publish(1, 2, 3, 4, 5, qos=2)
        assert [client.packet() for _ in range(5)] == [pubrec(number) for number in range(1, 6)]
        client.publish(6, qos=2)
        if version == V5:
            assert client.packet() == b"\xe0\x01\x93"
        assert client.is_closed()
        assert len(home.messages()) == 5


def test_all_qualities_of_service_may_be_mixed(tmp_path: Path) -> None:
    with house(tmp_path) as home, home.connected("c", V5) as client:
        for number in range(1, 61):
            client.publish(number, qos=number % 3)
        answers = [client.packet() for _ in range(40)]
        assert [answer for answer in answers if answer[0] == 0x50] == [pubrec(n) for n in range(1, 61) if n % 3 == 2]
        assert [answer[3] for answer in answers if answer[0] == 0x40] == [n for n in range(1, 61) if n % 3 == 1]
        assert home.payloads() == [str(number) for number in range(1, 61)]


# --- sessions --------------------------------------------------------------------------------------------------------


@VERSIONS
def test_a_session_remembers_what_was_not_released(tmp_path: Path, version: int) -> None:
    with house(tmp_path) as home:
        client, present = staying(home, version=version)
        assert not present
        with client:
            client.publish(1, 2, qos=2)
            assert [client.packet(), client.packet()] == [pubrec(1), pubrec(2)]
        until(lambda: not home.listener.connections)
        client, present = staying(home, version=version)
        assert present
        with client:
            client.send(again(version, 1) + pubrel(2))
            assert {client.packet(), client.packet()} == {pubrec(1), pubcomp(2)}
        assert home.payloads() == ["1", "2"]


def test_a_pubrec_reaches_the_connection_that_went_on_with_the_session(tmp_path: Path) -> None:
    disk = Disk()
    with house(tmp_path, files=disk) as home:
        client, _ = staying(home)
        disk.gate = threading.Event()
        try:
            client.publish(1, qos=2)
            until(lambda: disk.syncs)
            later, present = staying(home)
            assert present
            later.send(again(V5, 1))
            assert later.hears_nothing(0.2)
        finally:
            disk.gate.set()
        assert later.packet() == pubrec(1)
        assert home.payloads() == ["1"]
        client.socket.close()
        later.socket.close()


@VERSIONS
def test_a_clean_start_forgets(tmp_path: Path, version: int) -> None:
    with house(tmp_path) as home:
        client, _ = staying(home, version=version)
        client.publish(1, qos=2)
        assert client.packet() == pubrec(1)
        with client, home.connected("c", version) as fresh:
            fresh.send(again(version, 1))
            assert fresh.packet() == pubrec(1)
        until(lambda: not home.listener.connections)
        client, present = staying(home, version=version)
        assert not present
        client.socket.close()
        assert home.payloads() == ["1", "1"]


def test_a_session_without_an_expiry_ends_with_its_connection(tmp_path: Path) -> None:
    with house(tmp_path) as home:
        with home.connected("c", V5, clean=False):
            pass
        until(lambda: not home.listener.connections)
        assert len(home.listener.sessions) == 0
        client, present = staying(home)
        assert not present
        client.send(b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00")  # DISCONNECT: keep no session after all
        assert client.is_closed()
        until(lambda: not home.listener.connections)
        assert len(home.listener.sessions) == 0
        client.socket.close()


def test_a_session_that_was_to_end_cannot_be_kept_at_the_last_moment(tmp_path: Path) -> None:
    with house(tmp_path) as home, home.connected("c", V5) as client:
        client.send(b"\xe0\x07\x00\x05\x11\x00\x00\x00\x09")
        assert client.packet() == b"\xe0\x01\x82"


def test_a_door_that_was_started_again_has_no_session_and_says_so(tmp_path: Path) -> None:
    for _ in range(2):
        with house(tmp_path) as home:
            client, present = staying(home)
            assert not present
            client.socket.close()


def test_sessions_are_kept_as_long_as_they_want_and_so_many() -> None:
    sessions = Sessions(most=2)
    for name in "abc":
        session = Session(("", name))
        session.expiry_s = 10
        sessions.keep(session, 100.0)
    assert len(sessions) == 2
    assert sessions.resume(("", "a"), 100.0, clean=False) is None
    assert sessions.resume(("", "b"), 109.9, clean=False) is not None
    assert sessions.resume(("", "b"), 109.9, clean=False) is None
    assert sessions.resume(("", "c"), 110.0, clean=False) is None


def test_a_device_has_one_session_and_cannot_push_those_of_others_out() -> None:
    sessions = Sessions(most=2)
    for key in [("demo/other", "c"), *(("demo/d1", str(number)) for number in range(9))]:
        session = Session(key)
        session.expiry_s = 10
        sessions.keep(session, 0.0)
    assert sessions.resume(("demo/other", "c"), 1.0, clean=False) is not None
    assert sessions.resume(("demo/d1", "8"), 1.0, clean=False) is not None


# --- topic aliases ---------------------------------------------------------------------------------------------------


def aliased(topic: str, alias: int, number: int) -> bytes:
    return publish(V5, Publish(topic, b"x", 1, number, properties=Properties({Property.TOPIC_ALIAS: alias})))


def test_a_topic_alias_stands_for_the_topic_that_was_last_given_with_it(tmp_path: Path) -> None:
    with house(tmp_path) as home, home.connected("c", V5) as client:
        client.send(aliased("a", 1, 1) + aliased("b", 16, 2) + aliased("", 1, 3) + aliased("c", 1, 4))
        client.send(aliased("", 1, 5) + aliased("", 16, 6))
        assert client.pubacks(6) == [1, 2, 3, 4, 5, 6]
        assert [message.topic for message in home.messages()] == ["a", "b", "a", "c", "c", "b"]


@pytest.mark.parametrize(
    ("alias", "answer"),
    [pytest.param(2, 0x82, id="unknown"), pytest.param(0, 0x94, id="0"), pytest.param(17, 0x94, id="over the maximum")],
)
def test_a_bad_topic_alias_ends_the_connection(tmp_path: Path, alias: int, answer: int) -> None:
    with house(tmp_path) as home, home.connected("c", V5) as client:
        client.send(aliased("a", 1, 1) + aliased("", alias, 2))
        while (packet := client.packet())[0] == 0x40:
            pass
        assert packet == bytes([0xE0, 1, answer])


def test_topic_aliases_end_with_their_connection(tmp_path: Path) -> None:
    with house(tmp_path) as home:
        client, _ = staying(home)
        with client:
            client.send(aliased("a", 1, 1))
            assert client.pubacks(1) == [1]
        client, _ = staying(home)
        with client:
            client.send(aliased("", 1, 2))
            assert client.packet() == b"\xe0\x01\x82"


# --- wills that wait -------------------------------------------------------------------------------------------------


def leaving(home: House, delay_s: int, *, expiry_s: int = 60, clean: bool = False) -> RawClient:
    will = Will("w", b"gone", 1, properties=Properties({Property.WILL_DELAY: delay_s}))
    raw = home.client()
    properties = Properties({Property.SESSION_EXPIRY: expiry_s} if expiry_s else {})
    assert raw.connect("c", V5, clean=clean, will=will, properties=properties)[3] == 0
    return raw


def wills(home: House) -> int:
    return len(home.messages(MessageType.WILL))


def test_a_will_waits_for_its_delay_and_is_void_when_the_client_is_back(tmp_path: Path) -> None:
    with house(tmp_path) as home:
        leaving(home, 1).socket.close()
        until(lambda: not home.listener.connections)
        assert wills(home) == 0
        until(lambda: wills(home) == 1, deadline_s=5)
        leaving(home, 1).socket.close()
        until(lambda: not home.listener.connections)
        client, present = staying(home)
        assert present
        assert client.hears_nothing(1.3)
        assert wills(home) == 1
        client.socket.close()


@pytest.mark.parametrize(
    ("delay_s", "expiry_s"),
    [pytest.param(0, 60, id="no delay"), pytest.param(60, 0, id="the session ends before the delay")],
)
def test_a_will_is_carried_out_at_once_without_a_delay(tmp_path: Path, delay_s: int, expiry_s: int) -> None:
    with house(tmp_path) as home:
        leaving(home, delay_s, expiry_s=expiry_s).socket.close()
        until(lambda: wills(home) == 1)


def test_a_will_that_waits_is_carried_out_when_the_client_starts_clean(tmp_path: Path) -> None:
    with house(tmp_path) as home:
        leaving(home, 60).socket.close()
        until(lambda: not home.listener.connections)
        with home.connected("c", V5):
            until(lambda: wills(home) == 1)


@pytest.mark.parametrize(
    ("clean", "expected"), [pytest.param(True, 1, id="clean start"), pytest.param(False, 0, id="session resumed")]
)
def test_a_takeover_carries_a_will_out_unless_it_waits_and_the_session_goes_on(
    tmp_path: Path, clean: bool, expected: int
) -> None:
    with house(tmp_path) as home, leaving(home, 60), home.connected("c", V5, clean=clean) as newer:
        newer.publish(1)
        assert newer.pubacks(1) == [1]
        newer.publish(2)
        assert newer.pubacks(1) == [2]
        assert wills(home) == expected


def test_wills_that_wait_are_carried_out_when_the_door_stops(tmp_path: Path) -> None:
    with house(tmp_path) as home:
        leaving(home, 60).socket.close()
        until(lambda: not home.listener.connections)
        home.live.stop()
        assert wills(home) == 1


def test_an_expiry_over_the_limit_is_cut_and_told(tmp_path: Path) -> None:
    with house(tmp_path) as home, home.client() as client:
        answer = client.connect("c", V5, properties=Properties({Property.SESSION_EXPIRY: EXPIRY_MAX_S + 1}))
        assert b"\x11" + EXPIRY_MAX_S.to_bytes(4, "big") in answer
