"""Commands at the listener: who may hear them, how they go out, and what the journal is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ingest.gate import NOBODY, OWNER, Principal
from ingest.message import MessageType
from ingest.mqtt.downlink import LARGER, judge
from ingest.mqtt.packets import V5, V311, Code, Publish, puback
from ingest.mqtt.parser import parse
from ingest.mqtt.wire import Properties, Property, text_bytes, varint
from qala.state.commands import SENT
from tests.mqtt_client import RawClient
from tests.test_listener import VERSIONS, House, house
from tests.test_listener_gate import Lodge, entered
from tests.test_packets import LIMITS
from tests.wait import until

MINE = "qala/1/demo/d1/c"


def packet(head: int, version: int, *filters: str, qos: int | None, properties: bytes = b"") -> bytes:
    """Encode a SUBSCRIBE with `qos`, or an UNSUBSCRIBE."""
    options = b"" if qos is None else bytes([qos])
    body = b"\0\7" + (varint(len(properties)) + properties if version == V5 else b"")
    body += b"".join(text_bytes(topic_filter) + options for topic_filter in filters)
    return bytes([head]) + varint(len(body)) + body


def subscribe(client: RawClient, *filters: str, qos: int = 1, properties: bytes = b"") -> list[int]:
    """Subscribe, and return the codes of the SUBACK."""
    client.send(packet(0x82, client.version, *filters, qos=qos, properties=properties))
    answer = client.packet()
    assert (answer[0], answer[2:4]) == (0x90, b"\0\7")
    return list(answer[5 if client.version == V5 else 4 :])


def unsubscribe(client: RawClient, *filters: str) -> list[int]:
    client.send(packet(0xA2, client.version, *filters, qos=None))
    answer = client.packet()
    assert (answer[0], answer[2:4]) == (0xB0, b"\0\7")
    return list(answer[5:])


def command(
    home: House, command_id: str, payload: bytes = b"{}", expires_in_s: float = 60, to: str = "demo/d1"
) -> bool:
    """Send a command as the desk does; False where nobody hears, too."""

    def send() -> bool:
        ear = home.listener.hearing().get(to)
        return ear is not None and ear.command(command_id, payload, expires_in_s)

    return bool(home.live.call(send))


def received(client: RawClient) -> Publish:
    parsed = parse(client.packet(), 0, client.version, LIMITS)
    assert parsed is not None
    assert isinstance(parsed[0], Publish)
    return parsed[0]


def told(home: House) -> list[tuple[str, str]]:
    """Return the commands of which the journal was told, and the code of each."""
    found = home.messages(MessageType.DELIVERED)
    return [((message.properties or {})["command"], (message.properties or {})["code"]) for message in found]


def delivered(home: House) -> list[tuple[str, str]]:
    """Return those that need to go out no more."""
    return [each for each in told(home) if each[1] != str(SENT)]


class Roof(Lodge):
    """A lodge whose gateways may publish for all devices of fleet "demo", and for one of "yard"."""

    def authenticate(
        self, username: str | None, password: bytes | None, certificate: Mapping[str, Any] | None
    ) -> Principal:
        principal = super().authenticate(username, password, certificate)
        if principal.is_gateway:
            principal = Principal(
                principal.name, "credential", ("qala/1/demo/+/+", "qala/1/yard/d1/#", "qala/1/mill/+/t")
            )
        return principal


# --- who may hear ----------------------------------------------------------------------------------------------------

DEVICE = Principal("demo/d1", "a", ("qala/1/demo/d1/+",))
GATEWAY = Principal("gw", "b", ("qala/1/demo/+/+", "qala/1/yard/d1/#", "qala/1/mill/+/t"))


@pytest.mark.parametrize(
    ("topic_filter", "principal", "expected"),
    [
        pytest.param(MINE, DEVICE, "demo/d1", id="its own"),
        pytest.param(MINE, NOBODY, "demo/d1", id="anybody where nobody is asked"),
        pytest.param(MINE, OWNER, "demo/d1", id="owner"),
        pytest.param(MINE, GATEWAY, "demo/d1", id="gateway of its fleet"),
        pytest.param("qala/1/yard/d1/c", GATEWAY, "yard/d1", id="gateway of this one"),
        pytest.param("qala/1/yard/d2/c", GATEWAY, Code.NOT_AUTHORIZED, id="gateway of another one"),
        pytest.param("qala/1/mill/d1/c", GATEWAY, Code.NOT_AUTHORIZED, id="gateway for telemetry alone"),
        pytest.param("qala/1/demo/d1/t", GATEWAY, Code.NOT_AUTHORIZED, id="gateway, telemetry"),
        pytest.param("qala/1/demo/+/c", GATEWAY, Code.NO_WILDCARDS, id="gateway, all of its fleet"),
        pytest.param(MINE, Principal("gw", "b", ("#",)), "demo/d1", id="gateway of everything"),
        pytest.param("qala/1/demo/d2/c", DEVICE, Code.NOT_AUTHORIZED, id="another's"),
        pytest.param("qala/1/demo/d1/t", DEVICE, Code.NOT_AUTHORIZED, id="its own telemetry"),
        pytest.param("other/1/demo/d1/c", DEVICE, Code.NOT_AUTHORIZED, id="another root"),
        pytest.param("x/qala/1/demo/d1/c", NOBODY, Code.NOT_AUTHORIZED, id="a level before"),
        pytest.param(MINE + "/x", DEVICE, Code.NOT_AUTHORIZED, id="a level after"),
        pytest.param("qala/1//d1/c", NOBODY, Code.NOT_AUTHORIZED, id="empty fleet"),
        pytest.param("$SYS/broker", NOBODY, Code.NOT_AUTHORIZED, id="the broker's own"),
        pytest.param("a", NOBODY, Code.NOT_AUTHORIZED, id="one level"),
        pytest.param("#", DEVICE, Code.NO_WILDCARDS, id="everything"),
        pytest.param("qala/1/demo/+/c", DEVICE, Code.NO_WILDCARDS, id="plus"),
        pytest.param("$share/g/" + MINE, DEVICE, Code.NO_SHARED_SUBSCRIPTIONS, id="shared"),
        pytest.param("qala/#/c", DEVICE, Code.BAD_FILTER, id="# before the end"),
        pytest.param("qala/a+/c", DEVICE, Code.BAD_FILTER, id="+ within a level"),
        pytest.param("qala/a#", DEVICE, Code.BAD_FILTER, id="# within a level"),
    ],
)
def test_a_filter_is_judged(topic_filter: str, principal: Principal, expected: str | Code) -> None:
    assert judge(topic_filter, "qala", principal) == expected


def test_each_filter_of_a_subscribe_has_its_answer(tmp_path: Path) -> None:
    filters = (MINE, "qala/1/demo/d2/c", "#", "$share/a/b", "a#")
    with house(tmp_path, gate=Lodge()) as home:
        with entered(home) as five:
            assert subscribe(five, *filters, qos=2) == [1, 0x87, 0xA2, 0x9E, 0x8F]
            assert subscribe(five, MINE, qos=0) == [0]
            assert subscribe(five, MINE, properties=b"\x0b\x05") == [0xA1]
        with entered(home, version=V311) as three:
            assert subscribe(three, *filters, qos=2) == [1, 0x80, 0x80, 0x80, 0x80]


def test_unsubscribing_is_answered_truthfully(tmp_path: Path) -> None:
    with house(tmp_path) as home, home.connected("c", V5) as client:
        assert unsubscribe(client, MINE) == [0x11]
        assert subscribe(client, MINE) == [1]
        assert command(home, "k1")
        assert received(client).id == 1
        assert unsubscribe(client, MINE, MINE, "#") == [0, 0x11, 0x11]
        assert not command(home, "k2")


def test_subscriptions_of_one_client_are_bounded(tmp_path: Path) -> None:
    with house(tmp_path) as home, home.connected("c", V5) as client:
        codes = subscribe(client, *(f"qala/1/demo/x{number}/c" for number in range(105)))
        assert codes == [1] * 100 + [0x97] * 5
        assert len(home.listener.hearing()) == 100
    until(lambda: not home.listener.hearing())


# --- how commands go out ---------------------------------------------------------------------------------------------


@VERSIONS
def test_a_command_goes_out_at_qos_1_and_the_journal_is_told_when_it_is_acknowledged(
    tmp_path: Path, version: int
) -> None:
    heard: list[str] = []
    answered: list[tuple[str, str]] = []
    with house(tmp_path, gate=Lodge()) as home, entered(home, version=version) as client:
        home.listener.on_heard = heard.append
        home.listener.on_answered = lambda device, command_id: answered.append((device, command_id))
        assert not command(home, "k1")
        assert subscribe(client, MINE) == [1]
        until(lambda: heard == ["demo/d1"])
        assert command(home, "k1", b'{"on":1}', 59.5)
        assert command(home, "k1")  # it is on its way: not sent twice
        properties = Properties({Property.MESSAGE_EXPIRY: 60}) if version == V5 else None
        assert received(client) == Publish(MINE, b'{"on":1}', 1, 1, properties=properties)
        assert delivered(home) == []
        client.send(b"\x40\x02\x00\x01")
        until(lambda: told(home) == [("k1", str(SENT)), ("k1", "0")])
        for message in home.messages(MessageType.DELIVERED):
            assert (message.topic, message.principal, message.client, message.payload) == (MINE, "demo/d1", "c", b"")
        assert answered == [("demo/d1", "k1")]
        client.send(b"\x40\x02\x00\x01")  # nothing waits for this one
        client.publish(5, topic="qala/1/demo/d1/t")
        assert client.pubacks(1) == [5]
        assert len(delivered(home)) == 1


def test_the_code_of_a_device_that_does_not_want_a_command_is_recorded(tmp_path: Path) -> None:
    with house(tmp_path) as home, home.connected("c", V5) as client:
        subscribe(client, MINE)
        command(home, "k1")
        client.send(puback(received(client).id, Code.NOT_AUTHORIZED))
        until(lambda: delivered(home) == [("k1", "135")])


def test_a_command_at_qos_0_is_recorded_as_unconfirmed(tmp_path: Path) -> None:
    with house(tmp_path) as home, home.connected("c", V5) as client:
        subscribe(client, MINE, qos=0)
        assert command(home, "k1")
        assert (received(client).qos, until(lambda: delivered(home))) == (0, [("k1", "unconfirmed")])


def test_the_clients_receive_maximum_and_packet_size_are_honoured(tmp_path: Path) -> None:
    limits = Properties({Property.RECEIVE_MAX: 2, Property.PACKET_MAX: 100})
    with house(tmp_path) as home, home.connected("c", V5, properties=limits) as client:
        subscribe(client, MINE)
        assert [command(home, f"k{number}") for number in range(3)] == [True, True, False]
        first = received(client).id
        client.send(puback(first, Code.SUCCESS))
        until(lambda: delivered(home))
        assert command(home, "k2")


@pytest.mark.parametrize("qos", [0, 1])
def test_a_command_larger_than_the_client_takes_ends_at_once_and_holds_up_none(tmp_path: Path, qos: int) -> None:
    answered: list[tuple[str, str]] = []
    limits = Properties({Property.PACKET_MAX: 100})
    with house(tmp_path, gate=Lodge()) as home, entered(home, properties=limits) as client:
        home.listener.on_answered = lambda device, command_id: answered.append((device, command_id))
        subscribe(client, MINE, qos=qos)
        assert [command(home, "large", b"x" * 80), command(home, "k1")] == [True, True]
        assert received(client).payload == b"{}"
        until(lambda: delivered(home)[:1] == [("large", LARGER)])
        assert answered[0] == ("demo/d1", "large")
        assert {message.principal for message in home.messages(MessageType.DELIVERED)} == {"demo/d1"}
        assert ("large", str(SENT)) not in told(home)


def test_what_was_sent_is_too_large_for_a_client_that_comes_back_with_less_room(tmp_path: Path) -> None:
    def limits(size: int) -> Properties:
        return Properties({Property.SESSION_EXPIRY: 60, Property.PACKET_MAX: size})

    with house(tmp_path) as home:
        with home.connected("c", V5, clean=False, properties=limits(1_000)) as client:
            subscribe(client, MINE)
            command(home, "k1", b"x" * 80)
            assert len(received(client).payload) == 80
        until(lambda: not home.listener.connections)
        with home.connected("c", V5, clean=False, properties=limits(100)) as client:
            until(lambda: delivered(home) == [("k1", LARGER)])
            command(home, "k2")
            assert received(client).payload == b"{}"


@VERSIONS
def test_no_more_than_a_window_of_commands_is_on_its_way(tmp_path: Path, version: int) -> None:
    with house(tmp_path) as home, home.connected("c", version) as client:
        subscribe(client, MINE)
        assert sum(command(home, f"k{number}") for number in range(40)) == 16


def test_a_client_that_reads_nothing_gets_no_more_commands(tmp_path: Path) -> None:
    with house(tmp_path) as home, home.connected("c", V5) as client:
        subscribe(client, MINE, qos=0)
        sent = 0
        while sent < 2000 and command(home, f"k{sent}", b"x" * 60_000):
            sent += 1
        assert sent < 2000


@VERSIONS
def test_a_session_goes_on_with_its_subscription_and_with_what_was_not_acknowledged(
    tmp_path: Path, version: int
) -> None:
    heard: list[str] = []
    kept = Properties({Property.SESSION_EXPIRY: 60}) if version == V5 else None
    with house(tmp_path) as home:
        home.listener.on_heard = heard.append
        with home.connected("c", version, clean=False, properties=kept) as client:
            subscribe(client, MINE)
            assert command(home, "k1", b"1", 60)
            assert command(home, "late", b"2", 0.05)
            assert [received(client).id, received(client).id] == [1, 2]
            assert client.hears_nothing(0.1)  # the second one expires
        until(lambda: not home.listener.connections)
        assert not command(home, "k2")
        with home.connected("c", version, clean=False, properties=kept) as client:
            again = received(client)
            assert (again.id, again.duplicate, again.payload) == (1, True, b"1")
            until(lambda: heard == ["demo/d1", "demo/d1"])
            assert command(home, "k2", b"3")
            assert received(client).payload == b"3"
            client.send(b"\x40\x02\x00\x01")
            until(lambda: delivered(home) == [("k1", "0")])
        with home.connected("c", version, properties=kept):
            assert not command(home, "k3")


def test_the_newest_subscription_hears_and_an_older_one_that_leaves_takes_nothing_with_it(tmp_path: Path) -> None:
    with house(tmp_path) as home, home.connected("new", V5) as new:
        with home.connected("old", V5) as old:
            subscribe(old, MINE)
            subscribe(new, MINE)
        until(lambda: home.listener.connections == 1)
        assert command(home, "k1")
        assert received(new).payload == b"{}"


# --- gateways ---------------------------------------------------------------------------------------------------------


@VERSIONS
def test_a_gateway_hears_the_commands_of_its_devices_and_its_puback_counts(tmp_path: Path, version: int) -> None:
    filters = (MINE, "qala/1/demo/d2/c", "qala/1/yard/d2/c")
    with house(tmp_path, gate=Roof()) as home, entered(home, "gw", "roof", version=version) as gateway:
        assert subscribe(gateway, *filters) == [1, 1, 0x87 if version == V5 else 0x80]
        assert [command(home, "k1", b"1"), command(home, "k2", b"2", to="demo/d2")] == [True, True]
        got = [received(gateway), received(gateway)]
        assert [(each.topic, each.payload, each.qos) for each in got] == [(MINE, b"1", 1), (filters[1], b"2", 1)]
        for each in got:
            gateway.send(b"\x40\x02" + each.id.to_bytes(2, "big"))
        until(lambda: delivered(home) == [("k1", "0"), ("k2", "0")])
        assert {(one.principal, one.client) for one in home.messages(MessageType.DELIVERED)} == {("gw", "roof")}


@pytest.mark.parametrize("device_first", [True, False])
def test_where_a_device_and_its_gateway_listen_the_device_gets_its_commands(tmp_path: Path, device_first: bool) -> None:
    heard: list[str] = []
    with house(tmp_path, gate=Roof()) as home, entered(home, "gw", "roof") as gateway:
        with entered(home) as device:
            for client in (device, gateway) if device_first else (gateway, device):
                assert subscribe(client, MINE) == [1]
            assert command(home, "k1", b"1")
            assert received(device).payload == b"1"
            home.listener.on_heard = heard.append
        until(lambda: heard == ["demo/d1"])  # so that what waits goes to the gateway now
        assert command(home, "k2", b"2")
        assert received(gateway).payload == b"2"


def test_a_gateway_may_listen_for_many_devices(tmp_path: Path) -> None:
    with house(tmp_path, gate=Roof()) as home, entered(home, "gw", "roof") as gateway:
        for hundred in range(10):
            some = (f"qala/1/demo/x{hundred}-{number}/c" for number in range(100))
            assert subscribe(gateway, *some) == [1] * 100
        assert subscribe(gateway, MINE) == [0x97]


def test_what_a_gateway_has_not_answered_goes_to_no_device_that_it_may_not_speak_for_any_more(tmp_path: Path) -> None:
    gate = Roof()
    kept = Properties({Property.SESSION_EXPIRY: 60})
    with house(tmp_path, gate=gate) as home:
        with entered(home, "gw", "roof", clean=False, properties=kept) as gateway:
            subscribe(gateway, MINE)
            command(home, "k1")
            received(gateway)
        until(lambda: not home.listener.connections)
        home.listener.gate = Lodge()  # it may publish on other topics now
        with entered(home, "gw", "roof", clean=False, properties=kept) as gateway:
            assert gateway.hears_nothing(0.2)
            assert not home.listener.hearing()


def test_what_a_gateway_has_not_answered_is_left_to_the_device_that_listens_by_itself_now(tmp_path: Path) -> None:
    kept = Properties({Property.SESSION_EXPIRY: 60})
    with house(tmp_path, gate=Roof()) as home:
        with entered(home, "gw", "roof", clean=False, properties=kept) as gateway:
            subscribe(gateway, MINE)
            command(home, "k1")
            received(gateway)
        until(lambda: not home.listener.connections)
        with entered(home) as device:
            subscribe(device, MINE)
            with entered(home, "gw", "roof", clean=False, properties=kept) as again:
                assert again.hears_nothing(0.2)
                assert command(home, "k1")
                assert received(device).payload == b"{}"
