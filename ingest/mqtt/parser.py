"""Read MQTT 3.1.1 and 5.0 packets as a server gets them. No I/O; a bad packet is a PacketError and nothing else.

Section numbers are those of "MQTT Version 5.0" (OASIS, 2019).
"""

from __future__ import annotations

from collections.abc import Callable

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
)
from ingest.mqtt.wire import Body, Code, PacketError, Properties, Property, remaining_length
from ingest.segments import Row

__all__ = ["PacketError", "parse", "take_publishes"]

_CLIENT_MAX = 256
_FILTERS_MAX = 1_000  # in one packet
_P = Property
_IN_CONNECT = {
    _P.SESSION_EXPIRY, _P.RECEIVE_MAX, _P.PACKET_MAX, _P.TOPIC_ALIAS_MAX, _P.REQUEST_RESPONSE, _P.REQUEST_PROBLEM,
    _P.USER, _P.AUTHENTICATION_METHOD, _P.AUTHENTICATION_DATA,
}  # fmt: skip
_IN_PUBLISH = {
    _P.PAYLOAD_FORMAT, _P.MESSAGE_EXPIRY, _P.TOPIC_ALIAS, _P.RESPONSE_TOPIC, _P.CORRELATION_DATA, _P.USER, _P.CONTENT_TYPE,
}  # fmt: skip
_IN_WILL = (_IN_PUBLISH - {_P.TOPIC_ALIAS}) | {_P.WILL_DELAY}
_IN_ACK = {_P.REASON_STRING, _P.USER}
_IN_DISCONNECT = _IN_ACK | {_P.SESSION_EXPIRY}


def parse(data: bytes, at: int, version: int, limits: Limits) -> tuple[Packet, int] | None:
    """Read the packet that begins at byte `at`: (packet, where it ends), or None where it is not all there yet.

    `version` is the connection's protocol level, 0 before its CONNECT.

    Raises:
        PacketError: it is malformed, too large, or not what a client may send now.
    """
    if at >= len(data):
        return None
    kind = data[at] >> 4
    if (kind == Kind.CONNECT) != (version == 0):
        raise PacketError(
            "a second CONNECT" if version else "the first packet is no CONNECT", answer=Code.PROTOCOL_ERROR
        )
    header = remaining_length(data, at + 1)
    if header is None:
        return None
    length, begin = header
    if length > limits.packet_max:
        raise PacketError(
            f"a packet of {length} bytes, {limits.packet_max} are allowed",
            reason=Reason.TOO_LARGE,
            answer=Code.TOO_LARGE,
        )
    if kind not in _PARSERS:
        raise PacketError(f"a client cannot send packet type {kind}", answer=Code.PROTOCOL_ERROR)
    if begin + length > len(data):
        return None
    body = Body(data[begin : begin + length])
    packet = _PARSERS[kind](data[at], body, version, limits)
    body.finish()
    return packet, begin + length


def _parse_connect(head: int, body: Body, _: int, limits: Limits) -> Connect:
    _flags(head, 0)
    name, version = body.binary(), body.number(1)
    if name != b"MQTT" or version not in {V311, V5}:
        raise PacketError(
            f"protocol {name[:16]!r} level {version}, MQTT 3.1.1 and 5 are spoken",
            reason=Reason.UNSUPPORTED,
            answer=Code.UNSUPPORTED_VERSION,
        )
    try:
        return _connect_fields(body, version, limits)
    except PacketError as error:
        error.version = version
        raise


def _connect_fields(body: Body, version: int, limits: Limits) -> Connect:
    flags, keep_alive_s = body.number(1), body.number(2)
    named, secret, retained, qos, willed, clean = _connect_flags(flags, version)
    properties = Properties.read(body, _IN_CONNECT) if version == V5 else None
    if properties is not None and _P.AUTHENTICATION_METHOD in properties.values:
        raise PacketError("extended authentication", reason=Reason.UNSUPPORTED, answer=Code.BAD_AUTHENTICATION_METHOD)
    client = body.text()
    if len(client) > _CLIENT_MAX or (not client and not clean and version == V311):
        raise PacketError(f"a bad client id: {client[:64]!r}", answer=Code.BAD_CLIENT_ID)
    return Connect(
        version=version,
        client=client,
        clean=clean,
        keep_alive_s=keep_alive_s,
        will=_parse_will(body, version, limits, qos, retained) if willed else None,
        username=body.text() if named else None,
        password=body.binary() if secret else None,
        properties=properties,
    )


def _connect_flags(flags: int, version: int) -> tuple[bool, bool, bool, int, bool, bool]:
    """Split the connect flags (section 3.1.2.3): user name, password, will retain, will QoS, will, clean start."""
    named, secret, retained = bool(flags & 0x80), bool(flags & 0x40), bool(flags & 0x20)
    qos, willed, clean = flags >> 3 & 3, bool(flags & 4), bool(flags & 2)
    if flags & 1 or qos == 3 or (not willed and (qos or retained)) or (secret and not named and version == V311):
        raise PacketError(f"connect flags {flags:#04x}")
    return named, secret, retained, qos, willed, clean


def _parse_will(body: Body, version: int, limits: Limits, qos: int, retained: bool) -> Will:
    properties = Properties.read(body, _IN_WILL) if version == V5 else None
    topic, payload = _topic(body, limits), body.binary()
    _check_payload(payload, limits)
    return Will(topic, payload, qos, retained, properties)


def _topic(body: Body, limits: Limits) -> str:
    data = body.binary()
    try:
        topic = data.decode()
    except UnicodeDecodeError as error:
        raise PacketError(
            f"a topic that is not UTF-8: {data[:64]!r}", reason=Reason.BAD_UTF8, answer=Code.BAD_TOPIC
        ) from error
    if not topic or len(data) > limits.topic_max or any(char in topic for char in "\0+#"):
        raise PacketError(f"a bad topic: {topic[:64]!r}", reason=Reason.BAD_TOPIC, answer=Code.BAD_TOPIC)
    return topic


def _check_payload(payload: bytes, limits: Limits) -> None:
    if len(payload) > limits.payload_max:
        raise PacketError(
            f"a payload of {len(payload)} bytes, {limits.payload_max} are allowed",
            reason=Reason.TOO_LARGE,
            answer=Code.TOO_LARGE,
        )


def _parse_publish(head: int, body: Body, version: int, limits: Limits) -> Publish:
    qos, duplicate, retained = head >> 1 & 3, bool(head & 8), bool(head & 1)
    if qos == 3 or (duplicate and not qos):
        raise PacketError(f"publish flags {head & 15:#x}")
    aliased = version == V5 and body.data[:2] == b"\0\0"
    topic = body.text() if aliased else _topic(body, limits)
    packet_id = _packet_id(body) if qos else 0
    properties = Properties.read(body, _IN_PUBLISH) if version == V5 else None
    _check_alias(properties, needed=aliased)
    payload = body.rest()
    _check_payload(payload, limits)
    return Publish(topic, payload, qos, packet_id, retained, duplicate, properties)


def _check_alias(properties: Properties | None, *, needed: bool) -> None:
    given = properties is not None and _P.TOPIC_ALIAS in properties.values
    if needed and not given:
        raise PacketError("neither a topic nor a topic alias", answer=Code.PROTOCOL_ERROR)
    if properties is not None and given and not 0 < properties.number(_P.TOPIC_ALIAS) <= TOPIC_ALIAS_MAX:
        raise PacketError(f"a topic alias that is not 1 to {TOPIC_ALIAS_MAX}", answer=Code.BAD_TOPIC_ALIAS)


def _parse_ack(head: int, body: Body, version: int, _: Limits) -> Ack:
    kind = Kind(head >> 4)
    _flags(head, 2 if kind is Kind.PUBREL else 0)
    ack = Ack(kind, _packet_id(body))
    if version == V5 and body.left():
        ack.code = body.number(1)
        if body.left():
            Properties.read(body, _IN_ACK)
    return ack


def _parse_subscribe(head: int, body: Body, version: int, _: Limits) -> Subscribe:
    _flags(head, 2)
    packet = Subscribe(_packet_id(body), [])
    if version == V5:
        packet.numbered = _P.SUBSCRIPTION_ID in Properties.read(body, {_P.SUBSCRIPTION_ID, _P.USER}).values
    while body.left() or not packet.filters:
        text, options = _filter(body), body.number(1)
        if options & 3 == 3 or options & (0xC0 if version == V5 else 0xFC) or options >> 4 & 3 == 3:
            raise PacketError(f"subscription options {options:#04x}")
        packet.filters.append((text, options & 3))
        _check_filters(len(packet.filters))
    return packet


def _parse_unsubscribe(head: int, body: Body, version: int, _: Limits) -> Unsubscribe:
    _flags(head, 2)
    packet = Unsubscribe(_packet_id(body), [])
    if version == V5:
        Properties.read(body, {_P.USER})
    while body.left() or not packet.filters:
        packet.filters.append(_filter(body))
        _check_filters(len(packet.filters))
    return packet


def _check_filters(count: int) -> None:
    if count > _FILTERS_MAX:
        raise PacketError(f"more than {_FILTERS_MAX} topic filters in one packet", answer=Code.QUOTA)


def _filter(body: Body) -> str:
    text = body.text()
    if not text:
        raise PacketError("an empty topic filter")
    return text


def _parse_ping(head: int, _body: Body, _version: int, _limits: Limits) -> Ping:
    _flags(head, 0)
    return Ping()


def _parse_disconnect(head: int, body: Body, version: int, _: Limits) -> Disconnect:
    _flags(head, 0)
    if version == V311 or not body.left():
        return Disconnect()
    packet = Disconnect(body.number(1))
    if body.left():
        found = Properties.read(body, _IN_DISCONNECT)
        if _P.SESSION_EXPIRY in found.values:
            packet.expiry_s = found.number(_P.SESSION_EXPIRY)
    return packet


def _flags(head: int, expected: int) -> None:
    if head & 15 != expected:
        raise PacketError(f"packet type {head >> 4} with flags {head & 15:#x}")


def _packet_id(body: Body) -> int:
    number = body.number(2)
    if not number:
        raise PacketError("packet identifier 0", answer=Code.PROTOCOL_ERROR)
    return number


_PARSERS: dict[int, Callable[[int, Body, int, Limits], Packet]] = {
    Kind.CONNECT: _parse_connect,
    Kind.PUBLISH: _parse_publish,
    Kind.PUBACK: _parse_ack,
    Kind.PUBREC: _parse_ack,
    Kind.PUBREL: _parse_ack,
    Kind.PUBCOMP: _parse_ack,
    Kind.SUBSCRIBE: _parse_subscribe,
    Kind.UNSUBSCRIBE: _parse_unsubscribe,
    Kind.PINGREQ: _parse_ping,
    Kind.DISCONNECT: _parse_disconnect,
}


def take_publishes(
    data: bytes,
    at: int,
    version: int,
    limits: Limits,
    topics: dict[bytes, str],
    rows: list[Row],
    ids: list[bytes],
    room: int,
    tail: tuple[int, str, str, int, int, int],
) -> int:
    """Read the plain QoS 1 PUBLISH packets that begin at byte `at`, one after another, and return where they end.

    The quick way for nearly all that arrives: `parse` says the same of each of these packets, at ten times the cost. It
    stops at anything else (properties, a topic that is not in `topics`, a packet not all there yet) and after `room`
    packets. Each becomes a row (topic, payload, *tail) and its packet identifier's two bytes in `ids`.
    """
    size = len(data)
    extra = 3 if version == V5 else 2  # packet identifier, and an empty length of properties
    longest = limits.payload_max
    now_us, client, principal, source, kind, qos = tail
    while at + 4 < size and data[at] == 0x32 and room > 0:
        length = data[at + 1]
        begin = at + 2
        if length > 0x7F:
            high = data[begin]
            if not 0 < high < 0x80:
                break
            length += (high << 7) - 0x80
            begin += 1
        end = begin + length
        if end > size or length > longest or length < 2:
            break
        middle = begin + 2 + (data[begin] << 8) + data[begin + 1]
        payload = middle + extra
        if payload > end or (extra == 3 and data[payload - 1]):
            break
        topic = topics.get(data[begin + 2 : middle])
        packet_id = data[middle : middle + 2]
        if topic is None or packet_id == b"\0\0":
            break
        rows.append((topic, data[payload:end], now_us, client, principal, source, kind, qos))
        ids.append(packet_id)
        room -= 1
        at = end
    return at
