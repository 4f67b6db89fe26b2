"""Three independent clients publish, are refused and get commands as the specification says, plain and over TLS, in 3.1.1 and 5."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import httpx
import pytest

from ingest.message import Message
from tests.clients import PEERS, Login, Peer
from tests.faults.fleet import Credential
from tests.faults.town import credentials, journalled, qala_town
from tests.pki import Authority
from tests.processes import Qala
from tests.running import free_port
from tests.wait import until

ME, OTHER = "town/m0", "town/m1"
V311, V5 = 4, 5


class Place(NamedTuple):
    """A Qala that asks for credentials, with a plain and a TLS port."""

    qala: Qala
    credential: Credential
    ports: dict[str, int]
    ca: Path

    def login(self, transport: str, version: int, *, name: str = ME, secret: str = "") -> Login:
        """Say who comes in, and how; each time as another client."""
        username, password = self.credential(name)
        used = len(self.names)
        self.names.append(username)
        ca = self.ca if transport == "tls" else None
        return Login(self.ports[transport], version, ca, username, secret or password.decode(), f"client-{used}")

    @property
    def names(self) -> list[str]:
        return _NAMES

    def journalled(self, payload: bytes) -> list[Message]:
        return [message for message in journalled(self.qala.folder) if message.payload == payload]


_NAMES: list[str] = []


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with TemporaryDirectory() as folder:
        authority, port = Authority(Path(folder)), free_port()
        pair = authority.server()
        tls = {
            "QALA_INGEST__AUTHENTICATE": "true",
            "QALA_INGEST__MQTTS": f"127.0.0.1:{port}",
            "QALA_INGEST__CERTIFICATE": str(pair.certificate),
            "QALA_INGEST__PRIVATE_KEY": str(pair.private_key),
        }
        with qala_town(devices=2, **tls) as qala:
            made = Place(qala, credentials(qala), {"plain": qala.mqtt_port, "tls": port}, authority.file)
            until(lambda: PEERS["paho"].connect(made.login("plain", V5)).ok, deadline_s=20)
            yield made


pytestmark = [
    pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS),
    pytest.mark.parametrize("version", [pytest.param(V311, id="3.1.1"), pytest.param(V5, id="5")]),
    pytest.mark.parametrize("transport", ["plain", "tls"]),
]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_it_publishes_and_the_message_is_in_the_journal_once(
    place: Place, peer: Peer, version: int, transport: str, qos: int
) -> None:
    payload = f'{{"v":{{"active_power":1}},"n":"{len(_NAMES)}"}}'.encode()
    login = place.login(transport, version)

    assert peer.publish(login, f"qala/1/{ME}/t", payload, qos).ok

    [message] = until(lambda: place.journalled(payload))
    assert (message.topic, message.principal, message.client) == (f"qala/1/{ME}/t", ME, login.client)
    assert message.qos == qos


def test_a_wrong_secret_is_refused(place: Place, peer: Peer, version: int, transport: str) -> None:
    said = peer.connect(place.login(transport, version, secret=place.credential(OTHER)[1].decode()))
    assert not said.ok


@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_on_the_topic_of_another_device_is_refused_and_not_kept(
    place: Place, peer: Peer, version: int, transport: str, qos: int
) -> None:
    payload = f'{{"v":{{"active_power":2}},"n":"{len(_NAMES)}"}}'.encode()
    said = peer.publish(place.login(transport, version), f"qala/1/{OTHER}/t", payload, qos)
    if version == V311 or peer is not PEERS["gmqtt"]:  # which does not tell of a PUBACK with a reason
        assert not said.ok
    if version == V5 and said.code is not None:  # paho sends a PUBREL even after that PUBREC: there is no such message
        assert said.code == (0x87 if qos == 1 else 0x92)
    assert place.journalled(payload) == []


@pytest.mark.parametrize("topic", [f"qala/1/{OTHER}/c", f"qala/1/{ME}/t", "#", "qala/1/+/+/c", "$SYS/#"])
def test_a_subscription_to_anything_but_its_own_commands_is_refused(
    place: Place, peer: Peer, version: int, transport: str, topic: str
) -> None:
    said = peer.subscribe(place.login(transport, version), topic)
    assert not said.ok
    if said.code is not None:
        wildcard = "#" in topic or "+" in topic
        assert said.code == (0x80 if version == V311 else 0xA2 if wildcard else 0x87)


def test_it_gets_a_command_and_the_command_is_noted_as_delivered(
    place: Place, peer: Peer, version: int, transport: str
) -> None:
    asked: dict[str, str] = {}

    def ask() -> None:
        body = {"payload": {"valve": "open", "n": len(_NAMES)}}
        answer = httpx.post(f"{place.qala.url}/api/v1/devices/{ME}/commands", json=body, timeout=10)
        assert answer.status_code == 202, answer.text
        asked["id"] = answer.json()["id"]

    heard = peer.hear(place.login(transport, version), f"qala/1/{ME}/c", ask)

    assert b"open" in heard
    until(lambda: place.qala.get(f"commands/{asked['id']}")["state"] == "delivered", deadline_s=15)
