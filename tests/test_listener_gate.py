"""Who gets in at the listener, and what they may say there: credentials, topics, rates, addresses."""

from __future__ import annotations

import asyncio
import stat
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from ingest.gate import Principal, RefusedError
from ingest.message import MessageType
from ingest.mqtt.packets import V5, V311, Connect, Publish, Will, connect, publish
from ingest.mqtt.wire import Code
from ingest.tls import server_context
from tests.mqtt_client import RawClient
from tests.pki import Authority
from tests.test_listener import House, house
from tests.wait import until

SECRET = b"a secret that nobody logs"


class Lodge:
    """A gate that knows devices of fleet "demo" and the gateway "gw" by one password, or by a certificate's CN."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()

    def authenticate(
        self, username: str | None, password: bytes | None, certificate: Mapping[str, Any] | None
    ) -> Principal:
        name = username or ""
        if certificate is not None:
            name = str(dict(part[0] for part in certificate["subject"])["commonName"])
        elif password != SECRET:
            raise RefusedError(f"{name}: not its secret", answer=Code.BAD_CREDENTIALS)
        if name in self.revoked:
            raise RefusedError(f"{name} was revoked")
        filters = (f"qala/1/{name}/+",) if "/" in name else ("lora/#",)
        return Principal(name, "credential", filters)

    def still_holds(self, principal: Principal) -> bool:
        return principal.name not in self.revoked


def entered(home: House, name: str = "demo/d1", client: str = "c", version: int = V5, **options: Any) -> RawClient:
    raw = home.client()
    assert raw.connect(client, version, username=name, password=SECRET, **options)[3] == 0
    return raw


def refusals(home: House) -> list[str]:
    found = [message.properties or {} for message in home.messages(MessageType.REFUSED)]
    return [f"{one['reason']}: {one['detail']}" for one in found]


# --- credentials -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "revoked", "password", "answer"),
    [
        pytest.param(V311, False, b"wrong", 4, id="3.1.1, wrong password"),
        pytest.param(V5, False, b"wrong", 0x86, id="5, wrong password"),
        pytest.param(V311, True, SECRET, 5, id="3.1.1, revoked"),
        pytest.param(V5, True, SECRET, 0x87, id="5, revoked"),
        pytest.param(V5, False, None, 0x86, id="5, nothing shown"),
    ],
)
def test_who_shows_no_valid_credential_is_told_so_and_left_outside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, version: int, revoked: bool, password: bytes | None, answer: int
) -> None:
    gate = Lodge()
    gate.revoked |= {"demo/d1"} if revoked else set()
    with house(tmp_path, gate=gate) as home, home.client() as client:
        assert client.connect("c", version, username="demo/d1", password=password)[3] == answer
        client.publish(1)
        assert client.is_closed()
        assert home.listener.counters.denied == 1
        assert home.messages() == []
    assert "demo/d1" in caplog.text
    assert SECRET.decode() not in caplog.text


def test_the_principal_is_recorded_with_every_message_and_will(tmp_path: Path) -> None:
    will = Will("qala/1/demo/d1/s", b"gone", 2)
    with house(tmp_path, gate=Lodge()) as home:
        with entered(home, will=will) as client:
            client.publish(1, 2, topic="qala/1/demo/d1/t")
            assert client.pubacks(2) == [1, 2]
        (left,) = until(lambda: home.messages(MessageType.WILL))
        assert {message.principal for message in (*home.messages(), left)} == {"demo/d1"}
        assert left.qos == 2


def test_recheck_ends_the_connections_whose_credential_was_revoked_and_no_other(tmp_path: Path) -> None:
    gate = Lodge()
    with (
        house(tmp_path, gate=gate) as home,
        entered(home, "demo/d1") as five,
        entered(home, "demo/d2", version=V311) as three,
        entered(home, "demo/d3") as stays,
    ):
        gate.revoked |= {"demo/d1", "demo/d2"}
        home.live.call(home.listener.recheck)
        assert five.packet() == b"\xe0\x01\x87"
        assert five.is_closed()
        assert three.is_closed()
        stays.publish(1, topic="qala/1/demo/d3/t")
        assert stays.pubacks(1) == [1]


# --- topics ----------------------------------------------------------------------------------------------------------


def test_mqtt_5_is_told_of_each_message_on_a_topic_that_is_not_its_own_in_the_order_of_all_answers(
    tmp_path: Path,
) -> None:
    own, other = "qala/1/demo/d1/t", "qala/1/demo/d2/t"
    with house(tmp_path, gate=Lodge()) as home, entered(home) as client:
        topics = [other, own, own, other, own, other]
        client.send(b"".join(publish(V5, Publish(topic, b"x", 1, n)) for n, topic in enumerate(topics, 1)))
        answers = [client.packet() for _ in topics]
        assert [(int.from_bytes(answer[2:4], "big"), answer[4:]) for answer in answers] == [
            (n, b"\x87" if topic == other else b"") for n, topic in enumerate(topics, 1)
        ]
        client.publish(9, topic=other, qos=2)
        assert client.packet() == b"\x50\x03\x00\x09\x87"
        client.publish(10, topic=own)
        assert client.pubacks(1) == [10]
        assert [message.topic for message in home.messages()] == [own] * 4
        assert refusals(home) == [f"topic_mismatch: demo/d1 may not publish on {other}"] * 4
        assert home.listener.counters.refused == 4


@pytest.mark.parametrize(
    ("version", "qos"),
    [
        pytest.param(V311, 0, id="3.1.1 QoS 0"),
        pytest.param(V311, 1, id="3.1.1 QoS 1"),
        pytest.param(V5, 0, id="5 QoS 0"),
    ],
)
def test_where_no_answer_can_refuse_a_message_the_connection_ends(tmp_path: Path, version: int, qos: int) -> None:
    with house(tmp_path, gate=Lodge()) as home, entered(home, version=version) as client:
        client.publish(1, topic="qala/1/demo/d2/t", qos=qos)
        assert client.is_closed()
        until(lambda: refusals(home))
        assert home.messages() == []


def test_what_one_device_may_say_does_not_open_the_quick_way_to_another(tmp_path: Path) -> None:
    with house(tmp_path, gate=Lodge()) as home, entered(home, "demo/d1") as one, entered(home, "demo/d2") as two:
        for number in (1, 2, 3):
            one.publish(number, topic="qala/1/demo/d1/t")
            assert one.pubacks(1) == [number]
            two.publish(number, topic="qala/1/demo/d1/t")
            assert two.packet() == bytes([0x40, 3, 0, number, 0x87])
        assert len(home.messages()) == 3


@pytest.mark.parametrize(("version", "answer"), [pytest.param(V311, 5, id="3.1.1"), pytest.param(V5, 0x87, id="5")])
def test_a_will_on_a_topic_that_is_not_its_own_keeps_a_client_out(tmp_path: Path, version: int, answer: int) -> None:
    with house(tmp_path, gate=Lodge()) as home, home.client() as client:
        will = Will("qala/1/demo/d2/s", b"")
        assert client.connect("c", version, username="demo/d1", password=SECRET, will=will)[3] == answer
        assert client.is_closed()
        assert len(until(lambda: refusals(home))) == 1


# --- one place for each ----------------------------------------------------------------------------------------------


def test_a_client_id_is_taken_over_by_its_own_principal_alone(tmp_path: Path) -> None:
    with (
        house(tmp_path, gate=Lodge()) as home,
        entered(home, "gw", "same") as gateway,
        entered(home, "demo/d1", "same") as device,
    ):
        gateway.publish(1, topic="lora/x")
        assert gateway.pubacks(1) == [1]
        device.publish(1, topic="qala/1/demo/d1/t")
        assert device.pubacks(1) == [1]
        with entered(home, "gw", "same"):
            assert gateway.packet() == b"\xe0\x01\x8e"


def test_a_device_is_there_once_whatever_it_calls_itself_and_a_gateway_as_often_as_it_likes(tmp_path: Path) -> None:
    with house(tmp_path, gate=Lodge()) as home, entered(home, "demo/d1", "one") as first:
        with entered(home, "demo/d1", "two"):
            assert first.packet() == b"\xe0\x01\x8e"
        with entered(home, "gw", "one") as one, entered(home, "gw", "two") as two:
            for client in (one, two):
                client.publish(1, topic="lora/x")
                assert client.pubacks(1) == [1]


# --- rates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1])
def test_a_flooder_is_slowed_to_its_bucket_and_nothing_of_it_is_lost(tmp_path: Path, qos: int) -> None:
    rate, burst = 200.0, 100
    with house(tmp_path, gate=Lodge(), rate=rate, burst=burst) as home, entered(home, keep_alive_s=1) as client:
        begin = time.monotonic()
        threading.Thread(
            target=client.publish, args=range(1, 701), kwargs={"topic": "qala/1/demo/d1/t", "qos": qos}
        ).start()
        until(lambda: len(home.messages()) >= 300)
        so_far_s = time.monotonic() - begin
        assert len(home.messages()) <= (burst + so_far_s * rate) * 1.1
        until(lambda: len(home.messages()) == 700, deadline_s=15)
        spent_s = time.monotonic() - begin
        assert 0.9 * 600 / rate < spent_s < 1.5 * 600 / rate + 1
        assert home.payloads() == [str(number) for number in range(1, 701)]
        client.pubacks(700 if qos else 0)
        client.send(b"\xc0\x00")
        assert client.packet() == b"\xd0\x00"


def test_a_client_that_was_held_longer_than_its_keep_alive_has_its_time_again(tmp_path: Path) -> None:
    with house(tmp_path, gate=Lodge(), rate=2.0, burst=1) as home, entered(home, keep_alive_s=1) as client:
        client.publish(1, 2, 3, 4, 5, topic="qala/1/demo/d1/t")
        assert client.pubacks(5) == [1, 2, 3, 4, 5]
        assert client.hears_nothing(1.0)
        client.send(b"\xc0\x00")
        assert client.packet() == b"\xd0\x00"


def test_a_bucket_is_its_principals_over_connections_and_reconnects(tmp_path: Path) -> None:
    with house(tmp_path, gate=Lodge(), rate=1.0, burst=5) as home:
        with entered(home) as client:
            client.publish(*range(1, 6), topic="qala/1/demo/d1/t")
            client.pubacks(5)
        with entered(home) as client, entered(home, "demo/d2") as other:
            client.publish(6, topic="qala/1/demo/d1/t")
            other.publish(1, topic="qala/1/demo/d2/t")
            assert other.pubacks(1) == [1]
            assert client.hears_nothing(0.3)
            client.send(b"\xc0\x00")
            assert {client.packet(), client.packet()} == {b"\x40\x02\x00\x06", b"\xd0\x00"}


def test_a_bucket_holds_from_the_first_write_on(tmp_path: Path) -> None:
    hello = connect(Connect(V5, "c", username="demo/d1", password=SECRET))
    flood = b"".join(publish(V5, Publish("qala/1/demo/d1/t", b"x", 1, number)) for number in range(1, 1001))
    with house(tmp_path, gate=Lodge(), rate=1.0, burst=20) as home, home.client() as client:
        client.send(hello + flood)
        assert client.packet()[3] == 0
        assert client.pubacks(20) == list(range(1, 21))
        assert len(home.messages()) <= 22


def test_a_gateway_has_its_share_of_the_connections_and_no_more(tmp_path: Path) -> None:
    with house(tmp_path, gate=Lodge(), gateway_connections_max=2) as home, entered(home, "gw", "one") as first:
        with entered(home, "gw", "two"), entered(home, "demo/d1"), home.client() as third:
            assert third.connect("three", V5, username="gw", password=SECRET)[3] == 0x97
            with entered(home, "gw", "one"):  # one that it has may come anew
                assert first.packet() == b"\xe0\x01\x8e"
        until(lambda: home.listener.connections == 0)
        with entered(home, "gw", "three"), entered(home, "gw", "four"):
            assert home.listener.connections == 2


def test_a_gateway_has_a_rate_of_its_own(tmp_path: Path) -> None:
    with house(tmp_path, gate=Lodge(), rate=1.0, burst=1, gateway_rate=10_000.0) as home, entered(home, "gw") as client:
        client.publish(*range(1, 301), topic="lora/x")
        assert len(client.pubacks(300)) == 300


# --- addresses -------------------------------------------------------------------------------------------------------


LOOPS = pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


@LOOPS
def test_the_owner_comes_in_through_the_socket_and_may_say_anything(tmp_path: Path, make_loop: Any) -> None:
    path = tmp_path / "m.sock"
    with house(tmp_path / "j", gate=Lodge(), socket_path=path, loop=make_loop(), rate=1.0, burst=1) as home:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with RawClient(path) as owner:
            assert owner.connect("c", V311, username="demo/d1", password=b"wrong")[3] == 0
            owner.publish(*range(1, 101), topic="anything/at all")
            assert len(owner.pubacks(100)) == 100
            gate = home.listener.gate
            assert isinstance(gate, Lodge)
            gate.revoked.add("@owner")
            home.live.call(home.listener.recheck)
            owner.publish(101)
            assert owner.pubacks(1) == [101]
        assert {message.principal for message in home.messages()} == {"@owner"}
    assert not path.exists()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


def secured(authority: Authority) -> dict[str, Any]:
    """What a listener with TLS is given."""
    pair = authority.server()
    context = server_context(pair.certificate, pair.private_key, authority.file)
    return {"tls": context, "mqtts": "127.0.0.1:0"}


@LOOPS
def test_tls_and_plain_serve_side_by_side_and_a_client_certificate_is_shown_to_the_gate(
    tmp_path: Path, authority: Authority, make_loop: Any
) -> None:
    with house(tmp_path, gate=Lodge(), loop=make_loop(), **secured(authority)) as home, entered(home) as plain:
        address = home.live.addresses["mqtts"]
        with (
            RawClient(address, tls=authority.trust(authority.client("demo/d7"))) as shown,
            RawClient(address, tls=authority.trust()) as named,
        ):
            assert shown.connect("c", V5)[3] == 0
            assert named.connect("c", V5, username="demo/d8", password=SECRET)[3] == 0
            for client, device in ((plain, "d1"), (shown, "d7"), (named, "d8")):
                client.publish(*range(1, 501), topic=f"qala/1/demo/{device}/t", payload=b"x" * 900)
                assert client.pubacks(500) == list(range(1, 501))
            shown.publish(1, topic="qala/1/demo/d8/t")
            assert shown.packet() == b"\x40\x03\x00\x01\x87"
            home.listener.gate.revoked.add("demo/d7")  # type: ignore[attr-defined]
            home.live.call(home.listener.recheck)
            assert shown.packet() == b"\xe0\x01\x87"
            assert shown.is_closed()
        assert {message.principal for message in home.messages()} == {"demo/d1", "demo/d7", "demo/d8"}


@LOOPS
def test_handshakes_that_go_nowhere_are_few_at_a_time_and_end(
    tmp_path: Path, authority: Authority, make_loop: Any
) -> None:
    options = secured(authority) | {"handshakes_max": 2, "connect_timeout_s": 0.5}
    with house(tmp_path, loop=make_loop(), **options) as home, home.connected() as calm:
        address = home.live.addresses["mqtts"]
        silent = [RawClient(address) for _ in range(4)]
        calm.publish(1)
        assert calm.pubacks(1) == [1]
        with RawClient(address, tls=authority.trust()) as late:
            assert late.connect("late")[3] == 0
        until(lambda: home.listener.counters.handshakes_failed == 4)
        for client in silent:
            assert client.is_closed()
            client.socket.close()


def test_a_client_that_speaks_plainly_to_the_tls_port_is_dropped(tmp_path: Path, authority: Authority) -> None:
    with house(tmp_path, **secured(authority)) as home, RawClient(home.live.addresses["mqtts"]) as client:
        client.send(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c")
        assert client.is_closed()
        until(lambda: home.listener.counters.handshakes_failed == 1)
