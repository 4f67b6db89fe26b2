"""The listener: what it acknowledges is durable, and a bad client harms nobody but itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from devices.errors import ConfigError, Reason, UnavailableError
from ingest.commit import CommitLimits, GroupCommit
from ingest.files import Files
from ingest.gate import Gate
from ingest.journal import Journal, JournalReader
from ingest.message import Message, MessageType
from ingest.mqtt.listener import Listener
from ingest.mqtt.packets import V5, V311, Connect, Publish, Will, connect, publish
from ingest.mqtt.wire import Properties, Property
from ingest.segments import Row
from ingest.settings import IngestSettings, parse_address
from tests.disk import Disk
from tests.mqtt_client import RawClient, listening
from tests.test_packets import BROKEN
from tests.wait import until


class House:
    """A listener with a journal on a disk that can fail."""

    def __init__(self, folder: Path, live, disk: Disk) -> None:
        self.live = live
        self.disk = disk
        self.listener: Listener = live.listener
        self._reader = JournalReader(folder)

    def client(self) -> RawClient:
        return self.live.client()

    def connected(self, client: str = "c", version: int = V311, **options) -> RawClient:
        raw = self.client()
        assert raw.connect(client, version, **options)[3] == 0
        return raw

    def messages(self, kind: MessageType = MessageType.PUBLISH) -> list[Message]:
        frames = self._reader.read(0, limit=10**6)
        return [message for frame in frames for message in frame.messages if message.type == kind]

    def payloads(self) -> list[str]:
        return [message.payload.decode() for message in self.messages()]


@contextlib.contextmanager
def house(
    folder: Path,
    *,
    files: Files | None = None,
    gate: Gate | None = None,
    tls: ssl.SSLContext | None = None,
    socket_path: Path | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    **settings,
) -> Iterator[House]:
    disk = files or Disk()
    journal = Journal.open(folder, files=disk)
    with listening(journal, IngestSettings(**settings), gate, tls=tls, socket_path=socket_path, loop=loop) as live:
        yield House(folder, live, disk)
    journal.close()


VERSIONS = pytest.mark.parametrize("version", [pytest.param(V311, id="3.1.1"), pytest.param(V5, id="5")])


# --- taking messages -------------------------------------------------------------------------------------------------


@VERSIONS
def test_messages_are_acknowledged_in_their_order_and_are_in_the_journal(tmp_path: Path, version: int) -> None:
    with house(tmp_path) as home, home.connected("dev", version) as client:
        numbers = list(range(1, 501))
        client.publish(*numbers)
        assert client.pubacks(500) == numbers
        assert home.payloads() == [str(number) for number in numbers]
        first = home.messages()[0]
        assert (first.topic, first.client, first.principal, first.qos) == ("qala/1/demo/d/t", "dev", "", 1)
        assert abs(first.received_us / 1e6 - time.time()) < 60


@VERSIONS
def test_flags_qos_0_and_properties_are_recorded(tmp_path: Path, version: int) -> None:
    with house(tmp_path) as home, home.connected("dev", version) as client:
        properties = Properties({Property.CONTENT_TYPE: "x/y", Property.MESSAGE_EXPIRY: 9}, [("site", "7")])
        client.send(publish(version, Publish("a", b"0", 0, retained=True)))
        client.send(publish(version, Publish("a", b"1", 1, 5, duplicate=True, properties=properties)))
        assert client.pubacks(1) == [5]
        plain, full = home.messages()
        assert (plain.qos, plain.retained, plain.duplicate, plain.properties) == (0, True, False, None)
        expected = {"content_type": "x/y", "user.site": "7"} if version == V5 else None
        assert (full.qos, full.retained, full.duplicate, full.properties) == (1, False, True, expected)


def test_packets_may_come_in_any_pieces(tmp_path: Path) -> None:
    with house(tmp_path) as home, home.connected() as client:
        wire = b"".join(publish(V311, Publish("t/ü", b"x" * number, 1, number)) for number in range(1, 140, 9))
        for at in range(0, len(wire), 7):
            client.send(wire[at : at + 7])
        assert client.pubacks(16) == list(range(1, 140, 9))
        assert [len(message.payload) for message in home.messages()] == list(range(1, 140, 9))


def test_the_largest_payload_is_taken(tmp_path: Path) -> None:
    with house(tmp_path) as home, home.connected() as client:
        client.publish(1, payload=b"x" * 65536)
        assert client.pubacks(1) == [1]
        assert len(home.messages()[0].payload) == 65536


def test_a_new_mqtt_5_client_learns_what_it_may_do(tmp_path: Path) -> None:
    with house(tmp_path, in_flight_max=77) as home, home.client() as client:
        connack = client.connect("", V5, properties=Properties({Property.SESSION_EXPIRY: 2**32 - 1}))
        assert connack[2:4] == b"\0\0"
        assert b"\x21\x00\x4d" in connack  # Receive Maximum 77
        assert b"\x24" not in connack.replace(b"qala-", b"")[:30]  # no Maximum QoS: all of them
        assert b"\x22\x00\x10" in connack  # topic aliases up to 16
        assert b"\x12\x00\x15qala-" in connack  # the client id that it was given
        assert b"\x11\x00\x09\x3a\x80" in connack  # a session is kept for a week
        assert all(bytes([name, 0]) in connack for name in (0x28, 0x29, 0x2A))  # nothing beside plain subscriptions


def test_pings_are_answered_and_subscriptions_refused(tmp_path: Path) -> None:
    with house(tmp_path) as home, home.connected() as client:
        client.send(b"\xc0\x00" + b"\x82\x06\x00\x07\x00\x01a\x01" + b"\xa2\x05\x00\x08\x00\x01a" + b"\x62\x02\x00\x09")
        assert [client.packet() for _ in range(4)] == [
            b"\xd0\x00",
            b"\x90\x03\x00\x07\x80",
            b"\xb0\x02\x00\x08",
            b"\x70\x02\x00\x09",
        ]


# --- PUBACK after the sync, never before -----------------------------------------------------------------------------


def no_puback_before_the_sync(folder: Path, sink_of=lambda journal: journal) -> None:
    """Hold every sync for a while: nothing may be acknowledged until it returns."""
    disk = Disk()
    journal = Journal.open(folder, files=disk)
    disk.gate = threading.Event()
    try:
        with listening(sink_of(journal)) as live, live.client() as client:
            client.connect()
            client.publish(1, 2, 3)
            until(lambda: disk.syncs)
            assert client.hears_nothing(0.3)
            client.publish(4)
            client.send(b"\xc0\x00")
            assert client.packet() == b"\xd0\x00"  # the listener is awake, only the PUBACKs wait
            disk.gate.set()
            assert client.pubacks(4) == [1, 2, 3, 4]
    finally:
        disk.gate.set()
        journal.close()


def test_no_puback_before_the_sync_has_returned(tmp_path: Path) -> None:
    no_puback_before_the_sync(tmp_path)


def test_the_same_check_catches_a_journal_that_does_not_wait_for_its_sync(tmp_path: Path) -> None:
    class Hasty:
        def __init__(self, journal: Journal) -> None:
            self.journal = journal

        def append(self, messages: Sequence[Message | Row]) -> int:
            threading.Thread(target=self._append, args=(messages,)).start()
            return 1

        def _append(self, messages: Sequence[Message | Row]) -> None:
            with contextlib.suppress(ValueError, OSError):  # the journal may be closed by then
                self.journal.append(messages)

    with pytest.raises(AssertionError):
        no_puback_before_the_sync(tmp_path, Hasty)


@pytest.mark.parametrize(
    "fault",
    [pytest.param({"room": 5}, id="disk full"), pytest.param({"bad_syncs": 10**6}, id="sync fails")],
)
def test_a_failing_disk_is_never_acknowledged_and_recovers_by_itself(tmp_path: Path, fault: dict[str, int]) -> None:
    with house(tmp_path) as home, home.connected() as client:
        client.publish(1)
        assert client.pubacks(1) == [1]
        vars(home.disk).update(fault)
        client.publish(2, 3)
        until(lambda: home.listener.commit.trouble)
        assert "hint" not in home.listener.commit.trouble
        assert client.hears_nothing(0.3)
        client.publish(4)
        home.disk.heal()
        assert client.pubacks(3) == [2, 3, 4]
        assert home.payloads() == ["1", "2", "3", "4"]
        assert home.listener.commit.trouble == ""


def test_what_waits_for_a_failing_disk_is_bounded_and_flows_when_it_recovers(tmp_path: Path) -> None:
    with house(tmp_path, queue_max=1 << 20, in_flight_max=65535) as home, home.connected("late") as late:
        home.disk.room = 0
        clients = [home.connected(f"c{index}") for index in range(4)]
        payload = b"x" * 50_000
        senders = [
            threading.Thread(target=client.publish, args=range(1, 201), kwargs={"payload": payload})
            for client in clients
        ]
        for sender in senders:
            sender.start()
        until(lambda: home.listener.commit.full)
        late.publish(1)
        assert late.hears_nothing(0.2)
        assert home.listener.commit.open.bytes < 4 << 20
        home.disk.heal()
        assert late.pubacks(1) == [1]
        for client in clients:
            assert client.pubacks(200) == list(range(1, 201))
            client.socket.close()
        for sender in senders:
            sender.join()
        assert len(home.messages()) == 801


def test_a_connection_that_never_reads_its_answers_is_not_read_for_ever(tmp_path: Path) -> None:
    with house(tmp_path) as home, home.connected() as client:
        client.socket.setblocking(False)
        wire = b"\xc0\x00" * 50_000

        def jammed() -> bool:
            try:
                client.socket.send(wire)
            except BlockingIOError:
                return True
            return False

        until(jammed, every_s=0.001)
        with home.connected("other") as other:
            other.publish(1)
            assert other.pubacks(1) == [1]


def test_in_flight_messages_of_a_connection_are_capped(tmp_path: Path) -> None:
    disk = Disk()
    disk.gate = threading.Event()
    with (
        house(tmp_path, files=disk, in_flight_max=10) as home,
        home.connected() as client,
        home.connected("d") as other,
    ):
        client.publish(*range(1, 101))
        until(lambda: disk.syncs)
        other.publish(7)
        until(lambda: home.listener.commit.open.rows)
        assert len(home.listener.commit.open.rows) <= 11
        disk.gate.set()
        assert client.pubacks(100) == list(range(1, 101))
        assert other.pubacks(1) == [7]


def test_messages_of_many_connections_share_syncs(tmp_path: Path) -> None:
    with house(tmp_path) as home:
        clients = [home.connected(f"c{index}") for index in range(20)]
        before = home.disk.syncs
        for round_number in range(1, 11):
            for client in clients:
                client.publish(round_number)
            for client in clients:
                assert client.pubacks(1) == [round_number]
        assert home.disk.syncs - before <= 60  # 200 messages
        for client in clients:
            client.socket.close()


# --- clients that misbehave ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "wire", "reason", "answer"), BROKEN)
def test_a_broken_packet_closes_its_connection_is_recorded_and_harms_nobody(
    tmp_path: Path, version: int, wire: bytes, reason: Reason, answer: int
) -> None:
    with house(tmp_path, payload_max=1000) as home, home.connected("good") as good:
        bad = home.connected("bad", version) if version else home.client()
        if version:
            bad.publish(1)
            assert bad.pubacks(1) == [1]
        bad.send(wire)
        if version == V5:
            assert bad.packet() == bytes([0xE0, 1, answer])
        assert bad.is_closed()
        bad.socket.close()
        good.publish(2)
        assert good.pubacks(1) == [2]
        (record,) = until(lambda: home.messages(MessageType.REFUSED))
        assert record.properties is not None
        assert (record.properties["reason"], record.payload) == (reason.value, b"")
        assert record.properties["detail"]
        assert record.client == ("bad" if version else "")


def test_what_came_before_a_broken_packet_is_kept(tmp_path: Path) -> None:
    with house(tmp_path) as home, home.connected() as client:
        client.send(
            publish(V311, Publish("t", b"good", 1, 1)) + b"\xff\x00" + publish(V311, Publish("t", b"after", 1, 2))
        )
        assert client.is_closed()
        until(lambda: home.messages(MessageType.REFUSED))
        assert home.payloads() == ["good"]


def test_records_of_broken_packets_are_bounded_and_the_rest_is_counted(tmp_path: Path) -> None:
    with house(tmp_path, refused_per_minute=3) as home:
        for _ in range(8):
            with home.client() as bad:
                bad.send(b"GET /\r\n\r\n")
                assert bad.is_closed()
        counters = home.listener.counters
        assert counters.refused == 8
        assert counters.refused_unrecorded in {2, 5}  # 2 when a minute ended meanwhile
        until(lambda: len(home.messages(MessageType.REFUSED)) == 8 - counters.refused_unrecorded)


def test_garbage_of_many_connections_harms_nobody(tmp_path: Path) -> None:
    """Streams of good packets with some bytes changed: a control client loses nothing, and records stay bounded."""
    chance = random.Random(11)
    good = connect(Connect(V5, "g")) + b"".join(publish(V5, Publish(f"t/{n}", b"x" * n, 1, n)) for n in range(1, 30))
    with house(tmp_path, refused_per_minute=10) as home, home.connected("control") as control:
        for number in range(1, 301):
            wire = bytearray(good)
            for _ in range(chance.randint(1, 5)):
                wire[chance.randrange(len(wire))] = chance.randrange(256)
            with home.client() as client, contextlib.suppress(OSError):
                client.send(wire[: chance.randint(1, len(wire))])
            control.publish(number, topic="control")
            assert control.pubacks(1) == [number]
        until(lambda: home.listener.connections == 1)
        mine = [message.payload for message in home.messages() if message.topic == "control"]
        assert mine == [str(number).encode() for number in range(1, 301)]
        assert home.listener.counters.refused > 50
        assert len(home.messages(MessageType.REFUSED)) <= 20


def test_a_version_that_is_not_spoken_is_told_so(tmp_path: Path) -> None:
    with house(tmp_path) as home, home.client() as old:
        old.send(b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x00\x00\x01c")
        assert old.packet() == b"\x20\x02\x00\x01"
        assert old.is_closed()


def test_a_silent_newcomer_is_closed(tmp_path: Path) -> None:
    with house(tmp_path, connect_timeout_s=0.2) as home, home.client() as client:
        assert client.is_closed()
        until(lambda: not home.listener.connections)


@VERSIONS
def test_a_client_that_is_silent_longer_than_its_keep_alive_is_closed(tmp_path: Path, version: int) -> None:
    with house(tmp_path) as home, home.connected("c", version, keep_alive_s=1) as client:
        begin = time.monotonic()
        if version == V5:
            assert client.packet() == b"\xe0\x01\x8d"
        assert client.is_closed()
        assert 1.3 < time.monotonic() - begin < 4


def test_pings_keep_a_connection_alive(tmp_path: Path) -> None:
    with house(tmp_path) as home, home.connected(keep_alive_s=1) as client:
        for _ in range(4):
            assert client.hears_nothing(0.6)
            client.send(b"\xc0\x00")
            assert client.packet() == b"\xd0\x00"


def test_connections_over_the_limit_are_turned_away(tmp_path: Path) -> None:
    with house(tmp_path, connections_max=2) as home, home.connected("a"), home.connected("b"):
        with home.client() as third:
            assert third.is_closed()
        assert home.listener.counters.turned_away == 1


# --- coming and going ------------------------------------------------------------------------------------------------


@VERSIONS
def test_a_second_connection_with_the_same_client_id_takes_over(tmp_path: Path, version: int) -> None:
    with house(tmp_path) as home, home.connected("same", version) as old, home.connected("same", version) as new:
        if version == V5:
            assert old.packet() == b"\xe0\x01\x8e"
        assert old.is_closed()
        new.publish(1)
        assert new.pubacks(1) == [1]
        with home.connected("same", version) as third:
            assert new.is_closed()
            third.publish(2)
            assert third.pubacks(1) == [2]


WILL = Will("qala/1/demo/d/s", b'{"online":false}', 1, retained=True)


@VERSIONS
@pytest.mark.parametrize(
    ("goodbye", "expected"),
    [
        pytest.param(b"", 1, id="connection lost"),
        pytest.param(b"\xe0\x00", 0, id="disconnect"),
        pytest.param(b"\xff\x00", 1, id="broken packet"),
    ],
)
def test_a_will_is_recorded_when_its_client_leaves_without_a_word(
    tmp_path: Path, version: int, goodbye: bytes, expected: int
) -> None:
    with house(tmp_path) as home, home.connected("watcher") as watcher:
        with home.connected("d", version, will=WILL) as client:
            client.send(goodbye)
        until(lambda: home.listener.connections == 1)
        watcher.publish(1)
        assert watcher.pubacks(1) == [1]
        wills = home.messages(MessageType.WILL)
        assert len(wills) == expected
        for will in wills:
            assert (will.topic, will.payload, will.client, will.retained) == (WILL.topic, WILL.payload, "d", True)


@pytest.mark.parametrize("code", [pytest.param(4, id="asking for it"), pytest.param(0x80, id="with an error")])
def test_an_mqtt_5_client_can_leave_with_a_word_and_have_its_will(tmp_path: Path, code: int) -> None:
    with house(tmp_path) as home:
        with home.connected("d", V5, will=WILL) as client:
            client.send(bytes([0xE0, 1, code]))
            assert client.is_closed()
        assert until(lambda: home.messages(MessageType.WILL))


def test_stopping_makes_durable_and_acknowledges_what_was_taken_then_says_goodbye(tmp_path: Path) -> None:
    with house(tmp_path) as home, home.connected("five", V5, will=WILL) as five, home.connected("three") as three:
        five.publish(*range(1, 51))
        three.publish(1)
        until(lambda: len(home.messages()) + len(home.listener.commit.open.rows) >= 51)
        home.live.stop()
        assert five.pubacks(50) == list(range(1, 51))
        assert five.packet() == b"\xe0\x01\x8b"
        assert three.pubacks(1) == [1]
        assert three.is_closed()
        assert len(home.messages()) == 51
        assert home.messages(MessageType.WILL) == []  # it was the door that left
        with pytest.raises(OSError, match="refused"):
            home.client()


def test_a_taken_port_is_said_with_a_hint(tmp_path: Path) -> None:
    with house(tmp_path) as home:
        port = home.live.address[1]
        with pytest.raises(UnavailableError, match="choose another port"):
            _start_on(home, port)


def _start_on(home: House, port: int) -> None:
    class Nowhere:
        def append(self, messages: Sequence[Message | Row]) -> int:
            return 1

    async def start() -> None:
        listener = Listener(IngestSettings(mqtt=f"127.0.0.1:{port}"), GroupCommit(Nowhere(), CommitLimits()))
        try:
            await listener.start()
        finally:
            listener.commit.close()

    asyncio.run(start())


@pytest.mark.parametrize(
    "text", ["localhost", "127.0.0.1:x", ":1883", "127.0.0.1:65536", "127.0.0.1:", "::1:1883", "[::1]", "[]:1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        IngestSettings(mqtt=text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:1883", ("127.0.0.1", 1883)), ("[::1]:0", ("::1", 0)), ("a.example:1", ("a.example", 1))],
)
def test_addresses_are_read(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("qos", [0, 1])
def test_one_connection_has_its_share_of_a_group_and_the_others_have_theirs(tmp_path: Path, qos: int) -> None:
    disk = Disk()
    with (
        house(tmp_path, files=disk, in_flight_max=65535) as home,
        home.connected("flood") as flood,
        home.connected("calm") as calm,
    ):
        calm.publish(1)
        assert calm.pubacks(1) == [1]
        disk.gate = threading.Event()
        sender = threading.Thread(
            target=flood.publish, args=range(1, 1001), kwargs={"payload": b"x" * 8000, "qos": qos}
        )
        try:
            sender.start()
            until(lambda: home.listener.paused)
            calm.publish(2)
            until(lambda: any(row[3] == "calm" for row in home.listener.commit.open.rows))
            assert sum(home.listener.commit.queued[1:]) < 2 << 20
        finally:
            disk.gate.set()
        assert calm.pubacks(1) == [2]
        until(lambda: len(home.messages()) == 1002)
        sender.join()
