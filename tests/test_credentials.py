"""Credentials as people and devices meet them: a door of its own process, and the commands that issue and revoke."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from devices.device import Device
from devices.errors import ConfigError, ConflictError, NotFoundError, UnavailableError
from ingest.door import DoorReport, read_report
from ingest.journal import JournalReader
from ingest.keyring import key_file, make_key
from ingest.message import Message, MessageType
from ingest.mqtt.packets import V5, V311
from ingest.mqtt.wire import text_bytes
from qala.cli.credentials import credential
from qala.cli.shell import app
from qala.publisher import Login, Publisher
from qala.state import credentials, open_state
from qala.state.credentials import Issue, Issued
from qala.state.registry import import_registry
from tests.api_city import City
from tests.mqtt_client import RawClient
from tests.pki import Authority, Pair
from tests.test_door import door_command
from tests.wait import until

HOUR_US = 3_600_000_000
SECRETS: list[str] = []
"""Every secret that a test of this module used."""


def now_us() -> int:
    return time.time_ns() // 1000


class GuardedDoor:
    """A door that asks everybody, on a plain port, on one with TLS, and on the owner's socket."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.authority = Authority(data)
        self.server = self.authority.server()
        self.state = open_state(f"sqlite:///{data}/state.sqlite")
        self.key = make_key(key_file(data))
        command = door_command(
            data,
            authenticate=True,
            mqtts="127.0.0.1:0",
            https="127.0.0.1:0",
            certificate=str(self.server.certificate),
            private_key=str(self.server.private_key),
            client_ca=str(self.authority.file),
        )
        with (data / "door.log").open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log)
        report = until(self._own_report)
        self.plain, self.tls = _address(report.address), _address(report.tls_address)
        [self.https] = (until(self._own_report)).http_addresses

    def _own_report(self) -> DoorReport | None:
        assert self.process.poll() is None, (self.data / "door.log").read_text()
        report = read_report(self.data)
        return report if report is not None and report.pid == self.process.pid else None

    def report(self) -> DoorReport:
        report = read_report(self.data)
        assert report is not None
        return report

    def issue(self, *principals: str, filters: Sequence[str] = (), expires_us: int | None = None) -> list[Issued]:
        """Issue tokens, and wait until the door knows them."""
        issued = [
            credentials.issue(self.state, self.key, Issue(each, filters, expires_us), now_us()) for each in principals
        ]
        SECRETS.extend(one.token.partition(".")[2] for one in issued)
        until(lambda: self.lets_in(issued[-1].token))
        return issued

    def lets_in(self, token: str) -> bool:
        """Tell whether a token opens; the device that it is of is not disturbed by a connection of HTTP or MQTT."""
        principal = self.principal_of(token)
        with self.client() as client:
            return client.connect("probe", V311, username=principal, password=token.encode())[3] == 0

    def principal_of(self, token: str) -> str:
        rows = credentials.list_credentials(self.state, limit=10_000)
        return next(row.principal for row in rows if row.id == token.partition(".")[0])

    def client(self, context: ssl.SSLContext | None = None) -> RawClient:
        return RawClient(self.plain) if context is None else RawClient(self.tls, tls=context)

    @contextlib.contextmanager
    def device(self, issued: Issued, version: int = V5) -> Iterator[RawClient]:
        """Connect as whom a token was issued to."""
        with self.client() as client:
            name = issued.credential.principal
            answer = client.connect(name, version, username=name, password=issued.token.encode())
            assert answer[3] == 0, answer
            yield client

    def journalled(self, kind: MessageType = MessageType.PUBLISH) -> list[Message]:
        reader = JournalReader(self.data / "journal")
        frames = reader.read(0, limit=10**6)
        reader.close()
        return [message for frame in frames for message in frame.messages if message.type == kind]

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(10) == 0
        self.state.dispose()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedDoor]:
    opened = GuardedDoor(tmp_path_factory.mktemp("guarded"))
    try:
        yield opened
        opened.stop()
        left = [file for file in opened.data.rglob("*") if file.is_file() and holds_a_secret(file)]
        assert SECRETS
        assert left == []  # neither logs, nor reports, nor journal, nor state
    finally:
        opened.process.kill()
        opened.process.wait()


def holds_a_secret(file: Path) -> bool:
    text = file.read_bytes()
    return any(secret.encode() in text for secret in SECRETS)


def subscribe(client: RawClient, topic_filter: str) -> int:
    """Ask for a subscription and return the code of the answer."""
    properties = b"\0" if client.version == V5 else b""
    body = b"\0\1" + properties + text_bytes(topic_filter) + b"\1"
    client.send(b"\x82" + bytes([len(body)]) + body)
    return client.packet()[-1]


# ---- who gets in


@pytest.mark.parametrize(("version", "bad"), [(V311, 4), (V5, 0x86)])
def test_whoever_shows_something_wrong_is_told_so_and_closed(door: GuardedDoor, version: int, bad: int) -> None:
    [issued] = door.issue(f"wrong/d-{version}")
    name, [expired] = issued.credential.principal, door.issue(f"late/d-{version}", expires_us=now_us() + 1_500_000)
    until(lambda: now_us() > (expired.credential.expires_us or 0))
    for username, password in [
        (None, None),
        (name, None),
        (name, "aaaaaaaa." + "A" * 43),
        (name, issued.token[:-1] + ("A" if issued.token[-1] != "A" else "B")),
        ("wrong/another", issued.token),
        (expired.credential.principal, expired.token),
    ]:
        with door.client() as client:
            secret = None if password is None else password.encode()
            answer = client.connect("c", version, username=username, password=secret)
            assert (answer[0], answer[3]) == (0x20, bad), (username, password)
            assert client.is_closed()


def test_a_hundred_devices_cannot_speak_or_listen_as_another(door: GuardedDoor) -> None:
    wanted = [Issue(f"town/d-{number}") for number in range(100)]
    issued = credentials.issue_missing(door.state, door.key, wanted, now_us())
    SECRETS.extend(one.token.partition(".")[2] for one in issued)
    until(lambda: door.lets_in(issued[-1].token))
    for number, one in enumerate(issued):
        other = f"qala/1/town/d-{(number + 1) % 100}"
        with door.device(one, V5) as client:
            client.publish(1, topic=f"{other}/t")
            assert client.packet()[:5] == b"\x40\x03\x00\x01\x87"
            assert subscribe(client, f"{other}/c") == 0x87
            client.publish(2, topic=f"qala/1/{one.credential.principal}/t")
            assert client.packet()[:4] == b"\x40\x02\x00\x02"
        with door.device(one, V311) as client:
            assert subscribe(client, f"{other}/c") == 0x80
            client.publish(1, topic=f"{other}/t")
            assert client.is_closed()
    taken = [message for message in door.journalled() if message.principal.startswith("town/")]
    assert sorted(message.topic for message in taken) == sorted(f"qala/1/town/d-{n}/t" for n in range(100))
    assert all(message.topic == f"qala/1/{message.principal}/t" for message in taken)


def test_a_gateway_publishes_where_its_filters_say(door: GuardedDoor) -> None:
    [issued] = door.issue("roof", filters=["qala/1/block/+/t"])
    with door.device(issued) as client:
        client.publish(1, topic="qala/1/block/d-1/t")
        assert client.pubacks(1) == [1]
        client.publish(2, topic="qala/1/other/d-1/t")
        assert client.packet()[:5] == b"\x40\x03\x00\x02\x87"


def test_http_ingest_asks_for_the_same_tokens(door: GuardedDoor) -> None:
    [issued] = door.issue("web/d-1")

    def post(device: str, token: str | None, client: Pair | None = None) -> int:
        shown = {} if token is None else {"authorization": f"Bearer {token}"}
        headers = {"content-type": "application/json", **shown}
        url = f"https://{door.https}/ingest/1/{device}"
        return httpx.post(url, content=b"{}", headers=headers, verify=door.authority.trust(client)).status_code

    assert post("web/d-1", issued.token) == 202
    assert post("web/d-2", issued.token) == 403
    assert post("web/d-1", None) == 401
    assert post("web/d-1", "aaaaaaaa." + "A" * 43) == 401
    assert post("web/d-3", None, door.authority.client("web/d-3")) == 202
    credentials.revoke(door.state, "web/d-1", now_us())
    until(lambda: post("web/d-1", issued.token) == 401, deadline_s=5)


def test_the_owner_of_the_folder_needs_no_credential(door: GuardedDoor) -> None:
    path = door.data / "mqtt.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    with RawClient(path) as client:
        assert client.connect("owner")[3] == 0
        client.publish(1, topic="qala/1/any/d-1/t")
        assert client.pubacks(1) == [1]
    [message] = [each for each in door.journalled() if each.topic == "qala/1/any/d-1/t"]
    assert message.principal == "@owner"


def test_our_own_publisher_comes_in_over_the_socket_or_shows_a_credential(door: GuardedDoor) -> None:
    [issued] = door.issue("far/d-1")
    host, port = door.tls
    login = Login("far/d-1", issued.token, door.authority.file)
    with (
        Publisher(door.data / "mqtt.sock", client_id="city") as near,
        Publisher(host, port, client_id="far", login=login) as far,
    ):
        near.publish("qala/1/near/d-1/t", b"near")
        far.publish("qala/1/far/d-1/t", b"far")
        assert near.drain(10)
        assert far.drain(10)
        assert (near.refused, far.refused) == (0, 0)
    taken = {message.payload: message.principal for message in door.journalled()}
    assert (taken[b"near"], taken[b"far"]) == ("@owner", "far/d-1")


def test_our_own_publisher_says_why_it_is_refused(door: GuardedDoor) -> None:
    with pytest.raises(UnavailableError, match=r"did not accept us: Bad user name or password"):
        Publisher(*door.plain, client_id="x", login=Login("far/d-1", "wrong")).__enter__()


# ---- until when


def test_a_rotation_lets_both_tokens_in_until_the_old_one_is_revoked(door: GuardedDoor) -> None:
    [old] = door.issue("turn/d-1")
    new = credentials.rotate(door.state, door.key, Issue("turn/d-1"), now_us(), overlap_us=HOUR_US)
    SECRETS.append(new.token.partition(".")[2])
    until(lambda: door.lets_in(new.token))
    assert door.lets_in(old.token)
    credentials.revoke(door.state, "turn/d-1", now_us(), id=old.credential.id)
    until(lambda: not door.lets_in(old.token), deadline_s=5)
    assert door.lets_in(new.token)


@pytest.mark.parametrize("version", [V311, V5])
def test_revoking_cuts_the_connection_within_five_seconds_and_nothing_later_is_taken(
    door: GuardedDoor, version: int
) -> None:
    [issued] = door.issue(f"gone/d-{version}")
    name = issued.credential.principal
    with door.device(issued, version) as client:
        client.publish(1, topic=f"qala/1/{name}/t")
        assert client.packet()[:4] == b"\x40\x02\x00\x01"
        began = time.monotonic()
        credentials.revoke(door.state, name, now_us())
        last = client.packet()
        assert time.monotonic() - began < 5
        assert last == (b"\xe0\x02\x87\x00" if version == V5 else b"") or (version == V5 and last[2] == 0x87)
        with contextlib.suppress(OSError):
            client.publish(2, topic=f"qala/1/{name}/t")
        assert client.is_closed()
    assert not door.lets_in(issued.token)
    assert [message.payload for message in door.journalled() if message.principal == name] == [b"1"]


def test_a_token_that_expires_cuts_the_connection_too(door: GuardedDoor) -> None:
    [issued] = door.issue("brief/d-1", expires_us=now_us() + 2_500_000)
    with door.device(issued) as client:
        assert client.packet()[2] == 0x87
    assert now_us() >= (issued.credential.expires_us or 0)


def test_a_device_that_is_retired_is_refused(door: GuardedDoor) -> None:
    [issued] = door.issue("old/d-1")
    with door.device(issued) as client:
        gone = Device(id="old/d-1", kind="air_quality", name="", until_us=now_us())
        import_registry(door.state, [gone], [], [], now_us())
        assert client.packet()[2] == 0x87
    with door.client() as client:
        assert client.connect("c", V5, username="old/d-1", password=issued.token.encode())[3] == 0x87


# ---- TLS and certificates


def test_a_token_over_tls_gets_in(door: GuardedDoor) -> None:
    [issued] = door.issue("tls/d-1")
    with door.client(door.authority.trust()) as client:
        assert client.connect("c", V5, username="tls/d-1", password=issued.token.encode())[3] == 0
        client.publish(1, topic="qala/1/tls/d-1/t")
        assert client.packet()[:4] == b"\x40\x02\x00\x01"


def test_a_client_certificate_gets_in_its_device_until_it_is_revoked(door: GuardedDoor) -> None:
    context = door.authority.trust(door.authority.client("tls/d-2"))
    with door.client(context) as client:
        assert client.connect("c", V5)[3] == 0
        client.publish(1, topic="qala/1/tls/d-2/t")
        assert client.packet()[:4] == b"\x40\x02\x00\x01"
        client.publish(2, topic="qala/1/tls/d-1/t")
        assert client.packet()[:5] == b"\x40\x03\x00\x02\x87"
        credentials.revoke(door.state, "tls/d-2", now_us())
        assert client.packet()[2] == 0x87
    with door.client(context) as client:
        assert client.connect("c", V5)[3] == 0x87
    [message] = [each for each in door.journalled() if each.principal == "tls/d-2"]
    assert message.payload == b"1"


def test_what_is_no_tls_harms_nobody(door: GuardedDoor) -> None:
    [issued] = door.issue("calm/d-1")
    with door.device(issued) as calm:
        for noise in (
            b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00",
            b"GET / HTTP/1.1\r\n\r\n",
            os.urandom(5000),
            b"",
        ):
            with socket.create_connection(door.tls, timeout=10) as stranger:
                stranger.sendall(noise)
                stranger.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):
                    while stranger.recv(4096):
                        pass
        calm.publish(1, topic="qala/1/calm/d-1/t")
        assert calm.packet()[:4] == b"\x40\x02\x00\x01"
    with door.client(door.authority.trust()) as client:
        assert client.connect("c", V5, username="calm/d-1", password=issued.token.encode())[3] == 0


def test_a_renewed_certificate_is_taken_up_and_a_broken_one_is_told(door: GuardedDoor) -> None:
    [issued] = door.issue("stay/d-1")
    context = door.authority.trust()
    with door.client(context) as old:
        assert old.connect("c", V5, username="stay/d-1", password=issued.token.encode())[3] == 0
        before = serial(old)
        put(door.authority.server(), door.server)
        until(lambda: shown(door, context) != before)
        whole = door.server.private_key.read_bytes()
        door.server.private_key.write_text("half a key")
        until(lambda: "no certificate chain and key" in door.report().troubles.get("certificate", ""))
        assert shown(door, context) != before
        door.server.private_key.write_bytes(whole)
        until(lambda: not door.report().troubles)
        old.publish(1, topic="qala/1/stay/d-1/t")
        assert old.packet()[:4] == b"\x40\x02\x00\x01"


def put(source: Pair, target: Pair) -> None:
    for new, old in zip(source, target, strict=True):
        new.replace(old)


def serial(client: RawClient) -> object:
    assert isinstance(client.socket, ssl.SSLSocket)
    return (client.socket.getpeercert() or {})["serialNumber"]


def shown(door: GuardedDoor, context: ssl.SSLContext) -> object:
    with contextlib.suppress(OSError), door.client(context) as client:
        return serial(client)
    return None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        pytest.param({"QALA_INGEST__MQTT": "0.0.0.0:1883"}, "without TLS", id="plain"),
        pytest.param({"QALA_INGEST__MQTT": "[::]:1883"}, "without TLS", id="plain, IPv6"),
        pytest.param(
            {
                "QALA_INGEST__MQTTS": "0.0.0.0:8883",
                "QALA_INGEST__CERTIFICATE": "c.pem",
                "QALA_INGEST__PRIVATE_KEY": "k.pem",
            },
            "without credentials",
            id="TLS, and nobody asked",
        ),
        pytest.param({"QALA_INGEST__MQTTS": "127.0.0.1:8883"}, "certificate", id="TLS without a certificate"),
    ],
)
def test_the_door_does_not_start_where_others_would_get_in(
    tmp_path: Path, settings: dict[str, str], words: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qala", "door", "--data", str(tmp_path)],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "hint:" in done.stderr


# ---- the state


def test_a_third_valid_token_is_refused_with_what_to_do(tmp_path: Path) -> None:
    state = open_state(f"sqlite:///{tmp_path}/state.sqlite")
    for _ in range(2):
        credentials.issue(state, bytes(32), Issue("demo/d-1"), 1)
    with pytest.raises(ConflictError, match="2 valid tokens") as caught:
        credentials.issue(state, bytes(32), Issue("demo/d-1"), 2)
    assert "revoke" in caught.value.hint
    with pytest.raises(ConflictError, match="rotation is under way"):
        credentials.rotate(state, bytes(32), Issue("demo/d-1"), 2, overlap_us=HOUR_US)
    assert credentials.revoke(state, "demo/d-1", 3) == 2
    assert credentials.issue(state, bytes(32), Issue("demo/d-1"), 4)


def test_a_rotation_keeps_filters_and_never_prolongs_the_old_token(tmp_path: Path) -> None:
    state = open_state(f"sqlite:///{tmp_path}/state.sqlite")
    old = credentials.issue(state, bytes(32), Issue("gw", ["a/#"], expires_us=100), 1)
    new = credentials.rotate(state, bytes(32), Issue("gw"), 50, overlap_us=HOUR_US)
    assert new.credential.filters == ["a/#"]
    rows = {row.id: row for row in credentials.list_credentials(state, limit=10)}
    assert rows[old.credential.id].expires_us == 100


def test_nothing_to_rotate_or_to_revoke_is_told(tmp_path: Path) -> None:
    state = open_state(f"sqlite:///{tmp_path}/state.sqlite")
    with pytest.raises(NotFoundError, match="no valid token"):
        credentials.rotate(state, bytes(32), Issue("demo/d-1"), 1, overlap_us=0)
    with pytest.raises(NotFoundError):
        credentials.revoke(state, "gw", 1)
    with pytest.raises(NotFoundError):
        credentials.revoke(state, "demo/d-1", 1, id="aaaaaaaa")


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(Issue("demo/d/1"), id="three levels"),
        pytest.param(Issue("demo/#"), id="a wildcard"),
        pytest.param(Issue(""), id="nothing"),
        pytest.param(Issue("@owner", ["#"]), id="the owner"),
        pytest.param(Issue("broker name", ["#"]), id="a blank"),
        pytest.param(Issue("gw"), id="a gateway without filters"),
        pytest.param(Issue("gw", ["a/#/b"]), id="levels after all levels"),
        pytest.param(Issue("gw", ["a/b+"]), id="a wildcard that is part of a level"),
        pytest.param(Issue("gw", [""]), id="an empty filter"),
        pytest.param(Issue("gw", ["a\0b"]), id="NUL"),
        pytest.param(Issue("gw", ["x" * 257]), id="a long filter"),
        pytest.param(Issue("gw", ["a"] * 101), id="many filters"),
        pytest.param(Issue("broker:city", ["a"]), id="a gateway that would be taken for a broker"),
    ],
)
def test_names_and_filters_that_cannot_be_are_refused(tmp_path: Path, wanted: Issue) -> None:
    state = open_state(f"sqlite:///{tmp_path}/state.sqlite")
    with pytest.raises(ConfigError) as caught:
        credentials.issue(state, bytes(32), wanted, 1)
    assert caught.value.hint
    assert credentials.list_credentials(state, limit=10) == []


# ---- the command line


def command(folder: Path, *words: str, ok: bool = True) -> Result:
    done = CliRunner().invoke(app, ["devices", "credential", *words, "--data", str(folder)])
    assert credential.registered_commands
    assert (done.exception is None) is ok, done.exception
    return done


def test_a_token_is_printed_once_and_then_only_what_is_known_of_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    folder = tmp_path / "data"
    token = command(folder, "issue", "demo/d-1", "--note", "at the school", "--expires-days", "90").stdout.strip()
    assert credentials.split(token)
    [row] = json.loads(command(folder, "list", "--json").stdout)
    assert (row["principal"], row["state"], row["note"]) == ("demo/d-1", "valid", "at the school")
    assert token.partition(".")[2] not in json.dumps(row)

    new = json.loads(command(folder, "rotate", "demo/d-1", "--overlap-hours", "1", "--json").stdout)
    assert new["token"] != token
    states = [row["state"] for row in json.loads(command(folder, "list", "demo/d-1", "--json").stdout)]
    assert states == ["valid", "valid"]

    assert json.loads(command(folder, "revoke", "demo/d-1", "--json").stdout)[0]["revoked"] == 2
    found = json.loads(command(folder, "list", "--json").stdout)
    assert [row["state"] for row in found] == ["revoked", "revoked", "refused if older"]
    secret = token.partition(".")[2].encode()
    assert [file for file in folder.rglob("*") if file.is_file() and secret in file.read_bytes()] == []


def test_revoking_what_is_not_there_is_told_and_fails(tmp_path: Path) -> None:
    command(tmp_path, "issue", "demo/d-1")
    command(tmp_path, "revoke", "demo/d-1")
    for words in (["demo/d-1"], ["demo/nowhere"], ["gw"], ["demo/d-1", "--id", "aaaaaaaa"]):
        done = command(tmp_path, "revoke", *words, ok=False)
        assert "nothing was revoked" in str(done.exception)
        assert done.stdout == ""
    with contextlib.closing(open_state(f"sqlite:///{tmp_path}/state.sqlite").raw_connection()) as state:
        assert state.execute("SELECT count(*) FROM credential WHERE principal = 'demo/nowhere'").fetchone() == (0,)


def test_certificates_of_a_device_are_refused_where_it_may_have_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(tmp_path, "revoke", "demo/d-1", "--certificates")
    assert [row["kind"] for row in json.loads(command(tmp_path, "list", "--json").stdout)] == ["certificates"]
    (tmp_path / "devices.csv").write_text("id,kind\ndemo/d-2,air_station\n")
    monkeypatch.setenv("QALA_DEVICES_FILE", str(tmp_path / "devices.csv"))
    command(tmp_path, "revoke", "demo/d-2", ok=False)  # the door takes no certificates
    for key in ("CERTIFICATE", "PRIVATE_KEY", "CLIENT_CA"):
        monkeypatch.setenv(f"QALA_INGEST__{key}", str(tmp_path / "file.pem"))
    monkeypatch.setenv("QALA_INGEST__MQTTS", "127.0.0.1:8883")
    monkeypatch.setenv("QALA_INGEST__AUTHENTICATE", "true")
    done = command(tmp_path, "revoke", "demo/d-2", "--json")
    assert "had no valid token; certificates of it from before now are refused" in done.stderr
    assert json.loads(done.stdout)[0]["revoked"] == 0
    command(tmp_path, "revoke", "demo/nowhere", ok=False)
    command(tmp_path, "revoke", "demo/d-2", "--certificates", "--id", "x", ok=False)


def test_many_devices_get_their_tokens_as_csv_and_keep_them(tmp_path: Path) -> None:
    folder, file = tmp_path / "data", tmp_path / "devices.csv"
    folder.mkdir()
    file.write_text("id,kind\n" + "".join(f"demo/d-{number},air_quality\n" for number in range(5)))
    command(folder, "issue", "demo/d-0")
    rows = list(csv.DictReader(io.StringIO(command(folder, "issue", "--file", str(file)).stdout)))
    assert [row["username"] for row in rows] == [f"demo/d-{number}" for number in range(1, 5)]
    assert all(credentials.split(row["password"]) for row in rows)
    assert len({row["password"] for row in rows}) == 4
    again = command(folder, "issue", "--file", str(file)).stdout
    assert again.splitlines() == ["principal,username,password,expires"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["issue"], "name one of", id="nobody"),
        pytest.param(["issue", "demo/d-1", "--all-devices"], "name one of", id="one and all"),
        pytest.param(["issue", "--gateway", "gw"], "may publish nowhere", id="a gateway without topics"),
        pytest.param(["issue", "--gateway", "a/b", "--topic", "#"], "is a device", id="a gateway that is a device"),
        pytest.param(["rotate", "demo/none"], "no valid token", id="nothing to rotate"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(tmp_path: Path, words: list[str], message: str) -> None:
    done = command(tmp_path, *words, ok=False)
    assert message in str(done.exception)


def test_credentials_are_the_owners_alone(tmp_path: Path) -> None:
    with contextlib.closing(City(tmp_path)) as city:
        for method, path in (("GET", ""), ("POST", ""), ("POST", "/missing"), ("POST", "/rotate"), ("POST", "/revoke")):
            answer = city.request(method, f"/api/v1/credentials{path}")
            assert (answer.status_code, answer.json()["code"]) == (403, "owner_only")
