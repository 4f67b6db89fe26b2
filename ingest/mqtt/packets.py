"""The MQTT 3.1.1 and 5.0 packets that a server takes, and the bytes that it answers with. `ingest.mqtt.parser` reads them.

Section numbers are those of "MQTT Version 5.0" (OASIS, 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import msgspec

from ingest.mqtt.wire import Code, Properties, text_bytes, varint

__all__ = [
    "PINGRESP",
    "TOPIC_ALIAS_MAX",
    "V5",
    "V311",
    "Ack",
    "Code",
    "Connect",
    "Disconnect",
    "Kind",
    "Limits",
    "Packet",
    "Ping",
    "Properties",
    "Publish",
    "Subscribe",
    "Unsubscribe",
    "Will",
    "connack",
    "connect",
    "disconnect",
    "puback",
    "pubacks",
    "pubcomp",
    "publish",
    "pubrec",
    "pubrecs",
    "suback",
    "unsuback",
]

V311 = 4
V5 = 5
PINGRESP = b"\xd0\x00"
TOPIC_ALIAS_MAX = 16  # highest topic alias that a client may use towards us
_PROPERTIES_MAX = 8192


class Kind(IntEnum):
    """Control packet types (section 2.1.2)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


class Limits(msgspec.Struct, frozen=True):
    """How large a topic and a payload may be [bytes]."""

    topic_max: int = 256
    payload_max: int = 64 * 1024

    @property
    def packet_max(self) -> int:
        """Largest packet, with room for properties [bytes]."""
        return self.topic_max + self.payload_max + _PROPERTIES_MAX


class Will(msgspec.Struct):
    """What a client leaves to be published when its connection breaks (section 3.1.3.2)."""

    topic: str
    payload: bytes
    qos: int = 0
    retained: bool = False
    properties: Properties | None = None


class Connect(msgspec.Struct):
    """Section 3.1. `version` is the protocol level, V311 or V5."""

    version: int
    client: str
    clean: bool = True
    keep_alive_s: int = 0
    will: Will | None = None
    username: str | None = None
    password: bytes | None = None
    properties: Properties | None = None


class Publish(msgspec.Struct):
    """Section 3.3. `id` is 0 with QoS 0; `topic` is empty where a topic alias among the properties stands for it."""

    topic: str
    payload: bytes
    qos: int = 0
    id: int = 0
    retained: bool = False
    duplicate: bool = False
    properties: Properties | None = None


class Ack(msgspec.Struct):
    """PUBACK, PUBREC, PUBREL or PUBCOMP (sections 3.4 to 3.7)."""

    kind: Kind
    id: int
    code: int = 0


class Subscribe(msgspec.Struct):
    """Section 3.8. `filters` are (topic filter, QoS asked for); `numbered`: with a subscription identifier."""

    id: int
    filters: list[tuple[str, int]]
    numbered: bool = False


class Unsubscribe(msgspec.Struct):
    """Section 3.10."""

    id: int
    filters: list[str]


class Ping(msgspec.Struct):
    """Section 3.12."""


class Disconnect(msgspec.Struct):
    """Section 3.14. `expiry_s` is a new session expiry, None where it stays as it is."""

    code: int = 0
    expiry_s: int | None = None


Packet = Connect | Publish | Ack | Subscribe | Unsubscribe | Ping | Disconnect


def _packet(head: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes([head]) + varint(len(body)) + body


def connack(version: int, code: Code, properties: Properties | None = None, *, present: bool = False) -> bytes:
    """Encode a CONNACK; a code that MQTT 3.1.1 has no word for becomes "server unavailable". `present`: a session is."""
    if version == V5:
        return _packet(0x20, bytes([present, code]), (properties or Properties()).encode())
    return _packet(0x20, bytes([present, _CONNACK_311.get(code, 3)]))


_CONNACK_311 = {
    Code.SUCCESS: 0,
    Code.UNSUPPORTED_VERSION: 1,
    Code.BAD_CLIENT_ID: 2,
    Code.BAD_CREDENTIALS: 4,
    Code.NOT_AUTHORIZED: 5,
}


def pubacks(ids: Sequence[bytes]) -> bytes:
    """Encode a successful PUBACK for each packet identifier (two bytes); both versions write it alike."""
    return b"\x40\x02" + b"\x40\x02".join(ids)


def pubrecs(ids: Sequence[bytes]) -> bytes:
    """Encode a successful PUBREC for each packet identifier (two bytes); both versions write it alike."""
    return b"\x50\x02" + b"\x50\x02".join(ids)


def puback(packet_id: int, code: Code) -> bytes:
    """Encode the PUBACK with which an MQTT 5 server turns a message down; a client may send it too."""
    return _packet(0x40, packet_id.to_bytes(2, "big"), bytes([code]))


def pubrec(packet_id: int, code: Code) -> bytes:
    """Encode the PUBREC with which an MQTT 5 server turns a message down."""
    return _packet(0x50, packet_id.to_bytes(2, "big"), bytes([code]))


def pubcomp(version: int, packet_id: int, code: Code = Code.SUCCESS) -> bytes:
    """Encode a PUBCOMP; MQTT 3.1.1 has no codes in it."""
    said = b"" if version == V311 or code == Code.SUCCESS else bytes([code])
    return _packet(0x70, packet_id.to_bytes(2, "big"), said)


def suback(version: int, packet_id: int, codes: Sequence[int]) -> bytes:
    """Encode a SUBACK: for each filter the QoS that is granted, or why it is refused (3.1.1: only that it is)."""
    if version == V5:
        return _packet(0x90, packet_id.to_bytes(2, "big"), b"\0", bytes(codes))
    return _packet(0x90, packet_id.to_bytes(2, "big"), bytes(min(code, 0x80) for code in codes))


def unsuback(version: int, packet_id: int, codes: Sequence[int]) -> bytes:
    """Encode an UNSUBACK; MQTT 3.1.1 has no codes in it."""
    if version == V5:
        return _packet(0xB0, packet_id.to_bytes(2, "big"), b"\0", bytes(codes))
    return _packet(0xB0, packet_id.to_bytes(2, "big"))


def disconnect(code: Code) -> bytes:
    """Encode the DISCONNECT with which an MQTT 5 server ends a connection."""
    return _packet(0xE0, bytes([code]))


def connect(packet: Connect) -> bytes:
    """Encode a CONNECT, as a client sends it."""
    will, five = packet.will, packet.version == V5
    flags = packet.clean << 1 | (packet.password is not None) << 6 | (packet.username is not None) << 7
    parts = [text_bytes(packet.client)]
    if will is not None:
        flags |= 4 | will.qos << 3 | will.retained << 5
        parts += [(will.properties or Properties()).encode()] if five else []
        parts += [text_bytes(will.topic), len(will.payload).to_bytes(2, "big"), will.payload]
    if packet.username is not None:
        parts.append(text_bytes(packet.username))
    if packet.password is not None:
        parts += [len(packet.password).to_bytes(2, "big"), packet.password]
    head = text_bytes("MQTT") + bytes([packet.version, flags]) + packet.keep_alive_s.to_bytes(2, "big")
    return _packet(0x10, head, (packet.properties or Properties()).encode() if five else b"", *parts)


def publish(version: int, packet: Publish) -> bytes:
    """Encode a PUBLISH."""
    head = 0x30 | packet.duplicate << 3 | packet.qos << 1 | packet.retained
    packet_id = packet.id.to_bytes(2, "big") if packet.qos else b""
    properties = (packet.properties or Properties()).encode() if version == V5 else b""
    return _packet(head, text_bytes(packet.topic), packet_id, properties, packet.payload)
