"""The MQTT 3.1.1 and 5.0 packets that a server takes, and the bytes that it answers with. `ingest.parser` reads them.

Section numbers are those of "MQTT Version 5.0" (OASIS, 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import msgspec

from ingest.wire import Code, Properties, text_bytes, varint

__all__ = [
    "PINGRESP",
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
    "pubacks",
    "pubcomp",
    "publish",
    "suback",
    "unsuback",
]

V311 = 4
V5 = 5
PINGRESP = b"\xd0\x00"
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
    """Section 3.3. `id` is 0 with QoS 0."""

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


class Subscribe(msgspec.Struct):
    """Section 3.8."""

    id: int
    filters: list[str]


class Unsubscribe(msgspec.Struct):
    """Section 3.10."""

    id: int
    filters: list[str]


class Ping(msgspec.Struct):
    """Section 3.12."""


class Disconnect(msgspec.Struct):
    """Section 3.14."""

    code: int = 0


Packet = Connect | Publish | Ack | Subscribe | Unsubscribe | Ping | Disconnect


def _packet(head: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes([head]) + varint(len(body)) + body


def connack(version: int, code: Code, properties: Properties | None = None) -> bytes:
    """Encode a CONNACK without a session; a code that MQTT 3.1.1 has no word for becomes "server unavailable"."""
    if version == V5:
        return _packet(0x20, bytes([0, code]), (properties or Properties()).encode())
    return _packet(0x20, bytes([0, _CONNACK_311.get(code, 3)]))


_CONNACK_311 = {Code.SUCCESS: 0, Code.UNSUPPORTED_VERSION: 1, Code.BAD_CLIENT_ID: 2}


def pubacks(ids: Sequence[bytes]) -> bytes:
    """Encode a successful PUBACK for each packet identifier (two bytes); both versions write it alike."""
    return b"\x40\x02" + b"\x40\x02".join(ids)


def pubcomp(version: int, packet_id: int) -> bytes:
    """Encode a PUBCOMP for a message that this server does not know."""
    known = b"" if version == V311 else bytes([Code.NO_SUCH_PACKET])
    return _packet(0x70, packet_id.to_bytes(2, "big"), known)


def suback(version: int, packet: Subscribe) -> bytes:
    """Encode a SUBACK that refuses every filter."""
    if version == V5:
        return _packet(0x90, packet.id.to_bytes(2, "big"), b"\0", bytes([Code.NOT_IMPLEMENTED]) * len(packet.filters))
    return _packet(0x90, packet.id.to_bytes(2, "big"), b"\x80" * len(packet.filters))


def unsuback(version: int, packet: Unsubscribe) -> bytes:
    """Encode an UNSUBACK: there was no such subscription."""
    if version == V5:
        return _packet(0xB0, packet.id.to_bytes(2, "big"), b"\0", bytes([Code.NO_SUBSCRIPTION]) * len(packet.filters))
    return _packet(0xB0, packet.id.to_bytes(2, "big"))


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
    """Encode a PUBLISH, as a client sends it."""
    head = 0x30 | packet.duplicate << 3 | packet.qos << 1 | packet.retained
    packet_id = packet.id.to_bytes(2, "big") if packet.qos else b""
    properties = (packet.properties or Properties()).encode() if version == V5 else b""
    return _packet(head, text_bytes(packet.topic), packet_id, properties, packet.payload)
