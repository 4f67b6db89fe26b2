"""One connection's conversation with an existing broker, as its MQTT 5 client: bytes in, rows and bytes out. No I/O, no clock.

Section numbers are those of "MQTT Version 5.0" (OASIS, 2019). The codec `mqtt5` writes all packets and reads what brokers
answer. Of messages it reads only what is known to be text: it ends with a panic on anything else, and that is what a
poisoned message looks like.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from enum import IntEnum

import mqtt5
import msgspec

from devices.errors import QalaError, Reason
from ingest.message import MessageType, Source
from ingest.mqtt.packets import V5, Kind, Limits, Publish, pubacks
from ingest.mqtt.parser import parse, take_publishes
from ingest.mqtt.rows import properties_of
from ingest.mqtt.wire import Body, PacketError, remaining_length
from ingest.segments import Row

__all__ = ["BrokerError", "Phase", "Plan", "Session"]

_FILTERS_MAX = 8  # in one SUBSCRIBE: AWS IoT takes no more
_DETAIL_MAX = 200
_TOPICS_MAX = 100_000
_FAILED = 0x80  # reason codes from here on are failures (section 2.4)
_HOPELESS = [
    mqtt5.ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD,
    mqtt5.ConnAckReasonCode.NOT_AUTHORIZED,
    mqtt5.ConnAckReasonCode.BANNED,
    mqtt5.ConnAckReasonCode.CLIENT_ID_NOT_VALID,
    mqtt5.ConnAckReasonCode.BAD_AUTHENTICATION_METHOD,
    mqtt5.ConnAckReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
    mqtt5.ConnAckReasonCode.USE_ANOTHER_SERVER,
    mqtt5.ConnAckReasonCode.SERVER_MOVED,
]  # only people can change these; the codec's enumerations have no hash


class BrokerError(QalaError):
    """The conversation with a broker cannot go on. `hopeless`: trying again soon will not help either."""

    code = "broker"

    def __init__(self, message: str, *, hint: str = "see the broker's log", hopeless: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.hopeless = hopeless


class Phase(IntEnum):
    """How far a conversation is."""

    CONNECTING = 0
    SUBSCRIBING = 1
    READY = 2


class Plan(msgspec.Struct, frozen=True):
    """Who we are at a broker and what we want of it. `dropped` are filters of earlier that its session still has."""

    name: str
    client: str
    filters: Sequence[str]
    dropped: Sequence[str] = ()
    username: str = ""
    password: bytes = b""
    keep_alive_s: int = 30
    session_expiry_s: int = 86_400
    receive_max: int = 4096
    packet_max: int = 1024 * 1024


class Session:
    """The conversation over one connection. A new connection is a new one: what an old one has to acknowledge ends with it.

    `out` are packets to be sent. `refused` says by filter why the broker does not give it.
    """

    def __init__(self, plan: Plan, limits: Limits, topics: dict[bytes, str] | None = None) -> None:
        self.phase = Phase.CONNECTING
        self.out: list[bytes] = [_connect(plan)]
        self.refused: dict[str, str] = {}
        self.notes: list[str] = []  # what the broker grants less than was asked
        self.resumed = False  # the broker had kept our session
        self.keep_alive_s = plan.keep_alive_s
        self.turned_down = 0  # messages that could not be taken
        self._plan = plan
        self._limits = limits
        self._topics: dict[bytes, str] = {} if topics is None else topics
        self._numbers = itertools.count(1)
        self._asked: dict[int, tuple[str, ...]] = {}  # SUBSCRIBEs without an answer, by packet identifier
        self._leaving: set[int] = set()  # UNSUBSCRIBEs without one
        self._twos: set[bytes] = set()  # unacknowledged messages with QoS 2

    def take(self, data: bytes, now_us: int, rows: list[Row], ids: list[bytes], room: int) -> int:
        """Take the packets that `data` begins with, and return where the first one begins that must wait.

        Messages become rows, and what is to be acknowledged of them, at most `room`, packet identifiers of two bytes.
        Raises BrokerError; what was taken until then counts.
        """
        at, size = 0, len(data)
        tail = (now_us, "", f"broker:{self._plan.name}", Source.SUBSCRIBER, MessageType.PUBLISH, 1)
        while at < size:
            if self.phase and room > len(ids):
                at = take_publishes(
                    data,
                    at,
                    V5,
                    self._limits,
                    topics=self._topics,
                    rows=rows,
                    ids=ids,
                    room=room - len(ids),
                    tail=tail,
                )
            bounds = self._bounds(data, at)
            if bounds is None:
                break
            begin, end = bounds
            if data[at] >> 4 != Kind.PUBLISH:
                self._control(data[at:end])
            elif not self.phase:
                raise BrokerError("it sent a message before it accepted us")
            elif data[at] & 6 and len(ids) >= room:
                break
            elif not self._familiar(data, at, begin, end, tail, rows, ids):
                self._publish(data[at:end], now_us, rows, ids)
            at = end
        return at

    def acknowledge(self, ids: Sequence[bytes]) -> bytes:
        """Return what tells the broker that these messages are durable, in this order (section 4.6)."""
        if not self._twos:
            return pubacks(ids)
        return b"".join((b"\x50\x02" if self._was_two(number) else b"\x40\x02") + number for number in ids)

    def ping(self) -> bytes:
        """Return a PINGREQ."""
        return mqtt5.PingReqPacket().write()

    def leave(self) -> bytes:
        """Return a DISCONNECT; the broker keeps the session."""
        return mqtt5.DisconnectPacket().write()

    def ask_again(self) -> None:
        """Subscribe once more to what was refused: somebody may have allowed it since."""
        if self.refused and not self._asked:
            self._subscribe(tuple(self.refused))

    def trouble(self) -> str:
        """Say in one line what the broker refuses us; empty: nothing."""
        return "; ".join(f"it refuses {topic_filter!r}: {why}" for topic_filter, why in self.refused.items())[:500]

    def _was_two(self, number: bytes) -> bool:
        is_two = number in self._twos
        self._twos.discard(number)
        return is_two

    def _bounds(self, data: bytes, at: int) -> tuple[int, int] | None:
        """Return where the body of the packet at `at` begins and ends; None where it is not all there yet."""
        if at >= len(data):
            return None
        try:
            header = remaining_length(data, at + 1)
        except PacketError as error:
            raise _malformed(error) from error
        if header is None:
            return None
        end = sum(header)
        if end - at > self._plan.packet_max:
            raise BrokerError(
                f"it sent a packet of {end - at} bytes, {self._plan.packet_max} were allowed", hint="raise packet_max"
            )
        return (header[1], end) if end <= len(data) else None

    # ---- messages

    def _familiar(
        self,
        data: bytes,
        at: int,
        begin: int,
        end: int,
        tail: tuple[int, str, str, int, int, int],
        rows: list[Row],
        ids: list[bytes],
    ) -> bool:
        """Take a message on a topic that was checked, with the codec for its properties; False: this is none.

        `_publish` says the same of it at several times the cost. Properties in ASCII are what the codec can be given.
        """
        if data[at] & 6 != 2:
            return False
        middle = begin + 2 + (data[begin] << 8) + data[begin + 1] if end - begin > 4 else end
        payload = middle + 3 + data[middle + 2] if middle + 2 < end else end + 1
        topic = self._topics.get(data[begin + 2 : middle])
        number = data[middle : middle + 2]
        if payload > end or topic is None or number == b"\0\0" or end - payload > self._limits.payload_max:
            return False
        properties = None
        if payload > middle + 3:
            block = data[middle + 2 : payload]
            if block[0] > 0x7F or not block.isascii():
                return False
            packet = _decoded(data[at:end])
            if not isinstance(packet, mqtt5.PublishPacket) or packet.topic_alias is not None:
                return False
            properties = _kept(packet)
        rows.append((topic, data[payload:end], *tail, bool(data[at] & 1), bool(data[at] & 8), properties))
        ids.append(number)
        return True

    def _publish(self, frame: bytes, now_us: int, rows: list[Row], ids: list[bytes]) -> None:
        """Take one message of any kind; one that cannot be taken is recorded, so that it does not come back for ever."""
        qos = frame[0] >> 1 & 3
        number = _packet_id(frame) if qos else b""
        if qos == 2:  # of a session older than us: what we subscribe to is QoS 1
            self._twos.add(number)
            frame = bytes([frame[0] & ~6 | 2]) + frame[1:]
        try:
            packet = _message(frame, self._limits)
        except PacketError as error:
            self.turned_down += 1
            rows.append(self._refusal(error, now_us, qos))
        else:
            self._know(packet.topic)
            rows.append(self._row(packet, now_us, qos))
        if qos:
            ids.append(number)

    def _row(self, packet: Publish, now_us: int, qos: int) -> Row:
        return (
            packet.topic,
            packet.payload,
            now_us,
            "",
            f"broker:{self._plan.name}",
            Source.SUBSCRIBER,
            MessageType.PUBLISH,
            qos,
            packet.retained,
            packet.duplicate,
            properties_of(packet.properties),
        )

    def _refusal(self, error: PacketError, now_us: int, qos: int) -> Row:
        return (
            "",
            b"",
            now_us,
            "",
            f"broker:{self._plan.name}",
            Source.SUBSCRIBER,
            MessageType.REFUSED,
            qos,
            False,
            False,
            {"reason": error.reason.value, "detail": error.message[:_DETAIL_MAX]},
        )

    def _know(self, topic: str) -> None:
        if len(self._topics) >= _TOPICS_MAX:
            self._topics.clear()
        self._topics[topic.encode()] = topic

    # ---- everything else

    def _control(self, frame: bytes) -> None:
        if (frame[0] >> 4 == Kind.CONNACK) != (self.phase is Phase.CONNECTING):
            raise BrokerError(f"it sent packet type {frame[0] >> 4} where that does not belong")
        match _decoded(frame):
            case mqtt5.ConnAckPacket() as packet:
                self._connected(packet)
            case mqtt5.SubAckPacket() as packet:
                self._subscribed(packet)
            case mqtt5.UnsubAckPacket() as packet:
                self._leaving.discard(packet.packet_id)
                self._settle()
            case mqtt5.PubRelPacket() as packet:
                self.out.append(mqtt5.PubCompPacket(packet.packet_id).write())
            case mqtt5.DisconnectPacket() as packet:
                raise BrokerError(
                    f"it ended the connection: {_spoken(packet.reason_code, packet.reason_str)}",
                    hint=_elsewhere(packet.server_reference),
                )
            case mqtt5.PingRespPacket():
                pass
            case _:
                raise BrokerError(f"it sent packet type {frame[0] >> 4}, which brokers do not send to subscribers")

    def _connected(self, packet: mqtt5.ConnAckPacket) -> None:
        code = packet.reason_code
        if int(code) >= _FAILED:
            raise BrokerError(
                f"it does not let us in: {_spoken(code, packet.reason_str)}",
                hint=_elsewhere(packet.server_reference)
                if packet.server_reference
                else "check username, password_file, certificate and client_id, and the broker's log",
                hopeless=code in _HOPELESS,
            )
        self.resumed = packet.session_present
        if packet.server_keep_alive:
            self.keep_alive_s = packet.server_keep_alive
        self.notes = _shortfalls(packet, self._plan)
        self.phase = Phase.SUBSCRIBING
        self._subscribe(self._plan.filters)
        for part in _parts(self._plan.dropped):
            number = next(self._numbers)
            self._leaving.add(number)
            self.out.append(mqtt5.UnsubscribePacket(number, list(part)).write())

    def _subscribe(self, filters: Sequence[str]) -> None:
        """Subscribe with QoS 1, so that QoS 2 never happens.

        Retained messages come where a subscription is new (retain handling 1), not with each connection; they keep their
        flag, and live ones have none (no "retain as published").
        """
        for part in _parts(filters):
            number = next(self._numbers)
            self._asked[number] = part
            wanted = [
                mqtt5.TopicFilter(
                    each,
                    max_qos=mqtt5.QoS.AT_LEAST_ONCE,
                    retain_as_published=False,
                    retain_handling=mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS,
                )
                for each in part
            ]
            self.out.append(mqtt5.SubscribePacket(number, wanted).write())

    def _subscribed(self, packet: mqtt5.SubAckPacket) -> None:
        part = self._asked.pop(packet.packet_id, None)
        if part is None or len(part) != len(packet.reason_codes):
            raise BrokerError("it answered a SUBSCRIBE that was not sent")
        for topic_filter, code in zip(part, packet.reason_codes, strict=True):
            self.refused.pop(topic_filter, None)
            if int(code) >= _FAILED:
                self.refused[topic_filter] = _spoken(code, packet.reason_str)
            elif code == mqtt5.SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE:
                self.refused[topic_filter] = "it gives QoS 0 only, so messages may be lost"
        self._settle()

    def _settle(self) -> None:
        if not self._asked and not self._leaving:
            self.phase = Phase.READY


def _connect(plan: Plan) -> bytes:
    return mqtt5.ConnectPacket(
        plan.client,
        username=plan.username or None,
        password=plan.password or None,
        clean_start=False,
        keep_alive=plan.keep_alive_s,
        session_expiry_interval=plan.session_expiry_s,
        receive_max=plan.receive_max,
        max_packet_size=plan.packet_max,
    ).write()


def _decoded(frame: bytes) -> mqtt5.Packet:
    """Read a packet that is no PUBLISH. Raises BrokerError."""
    if frame[0] == Kind.CONNACK << 4 and len(frame) == 4:
        raise BrokerError("it answers as MQTT 3.1.1 does", hint="MQTT 5 is needed: switch it on there", hopeless=True)
    try:
        return mqtt5.read(memoryview(frame))[0]
    except (ValueError, IndexError) as error:
        raise _malformed(error) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # what the codec raises on text that is not UTF-8
            raise
        raise _malformed(error) from error


def _kept(packet: mqtt5.PublishPacket) -> dict[str, str] | None:
    """Keep of a message's properties what `properties_of` keeps."""
    kept = {f"user.{name}": value for name, value in packet.user_properties}
    if packet.content_type:
        kept["content_type"] = packet.content_type
    return kept or None


def _message(frame: bytes, limits: Limits) -> Publish:
    """Read a PUBLISH. Raises PacketError."""
    parsed = parse(frame, 0, V5, limits)
    if parsed is None or not isinstance(parsed[0], Publish):
        raise PacketError("a message that is not all there")
    if not parsed[0].topic:
        raise PacketError("a topic alias, and none was allowed", reason=Reason.BAD_TOPIC)
    return parsed[0]


def _packet_id(frame: bytes) -> bytes:
    """Read where a PUBLISH with QoS names itself; the two bytes. Raises BrokerError."""
    try:
        body = Body(frame)
        body.at = 1
        body.varint()
        body.binary()
        number = body.take(2)
    except PacketError as error:
        raise _malformed(error) from error
    if number == b"\0\0":
        raise BrokerError("it sent a malformed packet: packet identifier 0")
    return number


def _malformed(error: BaseException) -> BrokerError:
    said = error.message if isinstance(error, QalaError) else str(error)
    return BrokerError(f"it sent a malformed packet: {said}")


def _shortfalls(packet: mqtt5.ConnAckPacket, plan: Plan) -> list[str]:
    """Say where a broker grants less than was asked of it."""
    notes = []
    expiry_s = packet.session_expiry_interval
    if expiry_s is not None and expiry_s < plan.session_expiry_s:
        notes.append(f"it keeps our session for {expiry_s} s only, not {plan.session_expiry_s} s")
    if packet.max_qos == mqtt5.QoS.AT_MOST_ONCE:
        notes.append("it takes QoS 0 only")
    return notes


def _parts(filters: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(filters[at : at + _FILTERS_MAX]) for at in range(0, len(filters), _FILTERS_MAX)]


def _spoken(code: IntEnum | mqtt5.ConnAckReasonCode | mqtt5.SubAckReasonCode, reason: str | None) -> str:
    """Name a reason code, with what the broker says beside it."""
    name = code.name.lower().replace("_", " ")
    return f"{name} ({reason[:_DETAIL_MAX]})" if reason else name


def _elsewhere(server: str | None) -> str:
    return f"it names another server: {server[:_DETAIL_MAX]!r}; change the url" if server else "see the broker's log"
