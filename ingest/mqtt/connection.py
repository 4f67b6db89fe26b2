"""One client's connection: from the bytes that it sends to rows of the group commit, and the answers back."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING

from devices.errors import Reason
from ingest.bucket import Bucket
from ingest.commit import ROW_BYTES, Group
from ingest.gate import NOBODY, OWNER, Principal, RefusedError
from ingest.mqtt.downlink import Downlink
from ingest.mqtt.packets import (
    PINGRESP,
    V5,
    V311,
    Ack,
    Connect,
    Disconnect,
    Kind,
    Packet,
    Ping,
    Publish,
    Subscribe,
    Unsubscribe,
    Will,
    connack,
    disconnect,
    puback,
    pubacks,
    pubrec,
    suback,
    unsuback,
)
from ingest.mqtt.parser import parse, take_publishes
from ingest.mqtt.rows import PLAIN, publish_row
from ingest.mqtt.session import EXPIRY_MAX_S, Session
from ingest.mqtt.stream import Hold, Stream
from ingest.mqtt.terms import expiry_s, granted, will_delay_s
from ingest.mqtt.uplink import Uplink
from ingest.mqtt.wire import Code, PacketError, Properties, Property

if TYPE_CHECKING:
    from ingest.mqtt.listener import Listener

__all__ = ["Connection"]

_TURN_MAX = 250  # packets beside plain PUBLISHes, and filters, taken from a connection before others have their turn
_SHARE_MAX = 256 * 1024  # of one connection in a group; it is what others wait for [bytes]
_SAID_TO_ALL = {Code.UNSUPPORTED_VERSION, Code.BAD_CLIENT_ID, Code.NOT_AUTHORIZED}  # MQTT 3.1.1 has words for these


def _weight(packet: Packet) -> int:
    """Return as how many packets one counts in a connection's turn: a small one can say a lot."""
    if isinstance(packet, Subscribe | Unsubscribe):
        return len(packet.filters)
    if isinstance(packet, Publish) and packet.properties is not None:
        return 1 + len(packet.properties.user) // 4
    return 1


class _Said:
    """An answer that has its place among the PUBACKs of a connection."""

    __slots__ = ("_connection", "_data")

    def __init__(self, connection: Connection, data: bytes) -> None:
        self._connection = connection
        self._data = data

    def acknowledge(self, ids: list[bytes]) -> None:  # noqa: ARG002 - it is about no message that is durable
        self._connection.write(self._data)


class _Shared:
    """A connection that reads on once the group is durable in which it has had its share."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def acknowledge(self, ids: list[bytes]) -> None:  # noqa: ARG002 - its messages may need no acknowledgement
        self._connection.have_share()


class Connection(Stream):
    """What the listener knows of one client. `principal` is who it was authenticated as."""

    __slots__ = (
        "_bucket", "_downlink", "_group", "_heard", "_ids", "_in_flight", "_keep_alive_s", "_name", "_session", "_share",
        "_sharing", "_topics", "_uplink", "_will", "address", "client", "listener", "owned", "principal", "version",
    )  # fmt: skip

    def __init__(self, listener: Listener, loop: asyncio.AbstractEventLoop, *, owned: bool = False) -> None:
        super().__init__(loop)
        self.client = ""
        self.principal = NOBODY
        self.address = ""
        self.version = 0
        self.listener = listener
        self.owned = owned  # it came through the owner's socket
        self._name = ""  # of the principal
        self._topics = listener.topics  # those that the quick way knows
        self._bucket: Bucket | None = None
        self._session: Session | None = None
        self._uplink: Uplink | None = None
        self._downlink: Downlink | None = None
        self._in_flight = 0
        self._group: Group | None = None  # the group that `_ids` belongs to
        self._ids: list[bytes] = []
        self._share = 0  # bytes that it added to the group `_sharing`
        self._sharing: Group | None = None
        self._will: Will | None = None
        self._keep_alive_s = 0
        self._heard = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self.listener.admit(self):
            self._ended = True
            self.abort()
            return
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else "the owner's socket"
        self._timer = self.loop.call_later(self.listener.settings.connect_timeout_s, self.abort)
        if self.listener.commit.full:
            self.hold()

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        if self._held:
            self._rest += data
            return
        self._read(self._rest + data if self._rest else data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._ended = True
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self.listener.forget(self)
        self.leave()

    def acknowledge(self, ids: list[bytes]) -> None:
        """Send the PUBACKs of messages that are durable now."""
        self._in_flight -= len(ids)
        if self._transport is None or self._ended or not ids:
            return
        self._transport.write(pubacks(ids))
        if self._held & Hold.IN_FLIGHT:
            self._release(Hold.IN_FLIGHT)

    def have_share(self) -> None:
        """Go on after the group in which it had its share."""
        self._release(Hold.SHARE)

    def leave(self, *, resumed: bool = False) -> None:
        """Give up its place: its session is kept as long as it wants to be, its will is carried out.

        `resumed`: another connection goes on with the session, so that a will that waits would be void.
        """
        session, will = self._session, self._will
        self._session = self._will = None
        self._deafen()
        if session is None:
            return
        self.listener.sessions.keep(session, self.loop.time())
        if will is None:
            return
        delay_s = will_delay_s(will, session.expiry_s)
        if not (resumed and delay_s):
            self.listener.leave_will(self, session.key, will, delay_s)

    def end(self, code: Code) -> None:
        """Tell the client why (MQTT 3.1.1 has no words for it) and end the connection."""
        transport = self._transport
        if transport is None or self._ended:
            return
        self._deafen()
        if self.version == V5:
            transport.write(disconnect(code))
        self._linger(transport)

    def _read(self, data: bytes) -> None:
        listener = self.listener
        if self._ended or listener.stopping:
            return
        group = listener.commit.open
        rows, before = group.rows, len(group.rows)
        ids: list[bytes] = []
        now_us = time.time_ns() // 1000
        at, refused = len(data), None
        try:
            at = self._take_all(data, now_us, group, ids)
        except PacketError as error:
            refused = error
        if ids:
            self._await(group, ids)
        added = len(rows) - before
        if added:
            group.bytes += at + added * ROW_BYTES
            self._share = self._share + at if self._sharing is group else at
            self._sharing = group
            if self._share > _SHARE_MAX:
                self._hold(Hold.SHARE)
                group.members.append((_Shared(self), []))
            listener.commit.touch()
        if refused is not None:
            self._refuse(refused, now_us)
        self._rest = data[at:] if at < len(data) and not self._ended else b""

    def _await(self, group: Group, ids: list[bytes]) -> None:
        """Note that these packets are to be acknowledged when the group is durable."""
        self._in_flight += len(ids)
        if self._group is group:
            self._ids += ids
        else:
            self._group, self._ids = group, ids
            group.members.append((self, ids))

    def _answer_in_turn(self, data: bytes, group: Group, ids: list[bytes], answers: list[bytes]) -> None:
        """Answer a message that is not taken, after the PUBACKs of those that came before it."""
        if ids:
            self._await(group, ids.copy())
            ids.clear()
        if not self._in_flight or self._group is None:
            answers.append(data)
            return
        self._ids = []
        self._group.members += ((_Said(self, data), []), (self, self._ids))

    def _take_all(self, data: bytes, now_us: int, group: Group, ids: list[bytes]) -> int:
        """Take the packets of `data` one after another; return where the first one begins that must wait."""
        limits, size, at = self.listener.limits, len(data), 0
        answers: list[bytes] = []
        taken = 0
        while at < size and not self._ended:
            if self.version:
                before, bucket = len(ids), self._bucket
                room = self.listener.in_flight_max - self._in_flight - before
                if bucket is not None:
                    room = min(room, bucket.room(self.loop.time()))
                tail = (now_us, self.client, self._name, *PLAIN)
                at = take_publishes(data, at, self.version, limits, self._topics, group.rows, ids, room, tail)
                if bucket is not None:
                    bucket.take(len(ids) - before)
                if at == size:
                    break
            if self._must_wait(data[at], len(ids)):
                break
            parsed = parse(data, at, self.version, limits)
            if parsed is None:
                break
            packet, at = parsed
            self._take(packet, now_us, group, ids, answers)
            taken += _weight(packet)
            if taken >= _TURN_MAX:
                self._hold(Hold.TURN)
                self.loop.call_soon(self._release, Hold.TURN)
                break
        if answers and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(answers))
        return at

    def _must_wait(self, head: int, taken: int) -> bool:
        """Tell whether the packet that begins with `head` must wait, and read nothing more meanwhile."""
        if self._in_flight + taken >= self.listener.in_flight_max:
            self._hold(Hold.IN_FLIGHT)
            return True
        if self._bucket is None or head >> 4 != Kind.PUBLISH:
            return False
        wait_s = self._bucket.wait_s(self.loop.time())
        if wait_s:
            self._hold(Hold.RATE)
            self.loop.call_later(wait_s, self._release, Hold.RATE)
        return wait_s > 0

    def _take(self, packet: Packet, now_us: int, group: Group, ids: list[bytes], answers: list[bytes]) -> None:
        uplink, downlink = self._uplink, self._downlink
        if isinstance(packet, Connect):
            self._connect(packet)
        elif uplink is None or downlink is None or isinstance(packet, Disconnect):
            self._disconnect(packet)
        elif isinstance(packet, Publish):
            self._publish(packet, uplink, now_us, group, ids, answers)
        elif isinstance(packet, Ping):
            answers.append(PINGRESP)
        elif isinstance(packet, Subscribe):
            answers.append(suback(self.version, packet.id, downlink.subscribe(packet)))
        elif not isinstance(packet, Ack):
            answers.append(unsuback(self.version, packet.id, downlink.unsubscribe(packet)))
        elif packet.kind is Kind.PUBREL:
            answers.append(uplink.release(packet, self.version))
        elif packet.kind is Kind.PUBACK:
            group.rows += downlink.acknowledged(packet)

    def _publish(
        self, packet: Publish, uplink: Uplink, now_us: int, group: Group, ids: list[bytes], answers: list[bytes]
    ) -> None:
        if self._bucket is not None:
            self._bucket.take(1)
        topic = uplink.topic_of(packet)
        if self._topics is self.listener.topics:
            self.listener.know(topic)
        elif not uplink.may_publish(topic):
            self._turn_down(packet, topic, now_us, group, ids, answers)
            return
        if packet.qos == 1:
            ids.append(packet.id.to_bytes(2, "big"))
        elif packet.qos == 2 and not uplink.receive(packet, group, answers):
            return
        group.rows.append(publish_row(packet, topic, now_us, self.client, self._name))

    def _turn_down(
        self, packet: Publish, topic: str, now_us: int, group: Group, ids: list[bytes], answers: list[bytes]
    ) -> None:
        """Refuse a message on a topic that is not its principal's. MQTT 3.1.1 and QoS 0 have no word for it but the end."""
        detail = f"{self._name} may not publish on {topic}"
        if self.version == V311 or packet.qos == 0:
            raise PacketError(detail, reason=Reason.TOPIC_MISMATCH, answer=Code.NOT_AUTHORIZED)
        group.rows += self.listener.refused(self, Reason.TOPIC_MISMATCH, detail, now_us)
        said = (puback if packet.qos == 1 else pubrec)(packet.id, Code.NOT_AUTHORIZED)
        self._answer_in_turn(said, group, ids, answers)

    def _connect(self, packet: Connect) -> None:
        try:
            principal = self._authenticate(packet)
            self.listener.check_share(principal, packet.client)
        except RefusedError as error:
            self.listener.deny(self, error)
            self._send_away(packet.version, error.answer)
            return
        if packet.will is not None and not principal.may_publish(packet.will.topic):
            raise PacketError(
                f"{principal.name} may not leave a will on {packet.will.topic}",
                reason=Reason.TOPIC_MISMATCH,
                answer=Code.NOT_AUTHORIZED,
                version=packet.version,
            )
        self.version, self.principal, self._name = packet.version, principal, principal.name
        self.client = packet.client or f"qala-{secrets.token_hex(8)}"
        self._bucket = self.listener.buckets.of(principal, self.loop.time())
        session, present = self.listener.take_in(self, clean=packet.clean)
        self._begin(packet, session, present=present)

    def _authenticate(self, packet: Connect) -> Principal:
        if self.owned:
            return OWNER
        certificate = self._transport.get_extra_info("peercert") if self._transport is not None else None
        return self.listener.gate.authenticate(packet.username, packet.password, certificate or None)

    def _begin(self, packet: Connect, session: Session, *, present: bool) -> None:
        """Say that it is in, and go on with its session."""
        asked = packet.properties or Properties()
        session.peer, session.expiry_s = self, expiry_s(packet)
        self._session, self._will = session, packet.will
        self._uplink = Uplink(self.principal, session, self.listener.settings.in_flight_max)
        if self.principal.filters is not None:
            self._topics = self._uplink.topics
        self._downlink = Downlink(
            self,
            session,
            window=asked.number(Property.RECEIVE_MAX) or 65_535,
            packet_max=asked.number(Property.PACKET_MAX) or 2**32,
        )
        self._watch(packet.keep_alive_s)
        terms = granted(packet, self.client, self.listener.limits, self.listener.settings.in_flight_max)
        self.write(connack(packet.version, Code.SUCCESS, terms, present=present))
        self._downlink.resume()

    def _watch(self, keep_alive_s: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if keep_alive_s:
            self._keep_alive_s = keep_alive_s
            self._timer = self.loop.call_later(1.5 * keep_alive_s, self._check_alive)

    def _disconnect(self, packet: Packet) -> None:
        if isinstance(packet, Disconnect):
            self._part(packet)
        self._ended = True
        self._deafen()
        if self._transport is not None:
            self._transport.close()

    def _part(self, packet: Disconnect) -> None:
        session = self._session
        if packet.expiry_s is not None and session is not None:
            if packet.expiry_s and not session.expiry_s:
                raise PacketError("a session that was to end is to be kept", answer=Code.PROTOCOL_ERROR)
            session.expiry_s = min(packet.expiry_s, EXPIRY_MAX_S)
        if packet.code == Code.SUCCESS:  # any other asks for the will, or is an error
            self._will = None

    def _deafen(self) -> None:
        """Hear no commands any more."""
        if self._downlink is not None:
            self._downlink.close()
            self._downlink = None

    def _send_away(self, version: int, code: Code) -> None:
        """Answer a CONNECT with a refusal."""
        if self._transport is not None:
            self._transport.write(connack(version, code))
            self._linger(self._transport)

    def _refuse(self, error: PacketError, now_us: int) -> None:
        self.listener.refuse(self, error, now_us)
        if self.version:
            self.end(error.answer)
        elif error.version == V5 or error.answer in _SAID_TO_ALL:
            self._send_away(error.version, error.answer)
        elif self._transport is not None:
            self._linger(self._transport)

    def _check_alive(self) -> None:
        limit_s = 1.5 * self._keep_alive_s
        left_s = limit_s - (self.loop.time() - self._heard)
        if self._held or left_s > 0:
            self._timer = self.loop.call_later(limit_s if self._held else left_s, self._check_alive)
        else:
            self.end(Code.KEEP_ALIVE_TIMEOUT)

    def _resume(self) -> None:
        super()._resume()
        self._heard = self.loop.time()  # what it has sent meanwhile was not read
