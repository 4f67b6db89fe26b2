"""The pieces that MQTT packets are made of: reason codes, integers, strings, properties; and the error of a bad one."""

from __future__ import annotations

from collections.abc import Collection
from enum import IntEnum

import msgspec

from devices.errors import QalaError, Reason

__all__ = ["Body", "Code", "PacketError", "Properties", "Property", "remaining_length", "text_bytes", "varint"]


class Code(IntEnum):
    """The MQTT 5 reason codes that this server sends (section 2.4)."""

    SUCCESS = 0x00
    NO_SUBSCRIPTION = 0x11
    MALFORMED = 0x81
    PROTOCOL_ERROR = 0x82
    UNSUPPORTED_VERSION = 0x84
    BAD_CLIENT_ID = 0x85
    BAD_CREDENTIALS = 0x86
    NOT_AUTHORIZED = 0x87
    SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    TAKEN_OVER = 0x8E
    BAD_FILTER = 0x8F
    BAD_TOPIC = 0x90
    NO_SUCH_PACKET = 0x92
    TOO_MANY_IN_FLIGHT = 0x93
    BAD_TOPIC_ALIAS = 0x94
    TOO_LARGE = 0x95
    QUOTA = 0x97
    NO_SHARED_SUBSCRIPTIONS = 0x9E
    NO_SUBSCRIPTION_IDS = 0xA1
    NO_WILDCARDS = 0xA2


class PacketError(QalaError):
    """A packet that cannot be taken. Its connection must be closed.

    `reason` is what is recorded, `answer` what an MQTT 5 client is told; `version` is the protocol level of a CONNECT
    that failed after it was read (0: unknown).
    """

    code = "packet"

    def __init__(
        self, message: str, *, reason: Reason = Reason.MALFORMED_PACKET, answer: Code = Code.MALFORMED, version: int = 0
    ) -> None:
        super().__init__(message, hint="look at the client that sent it: its other messages are not affected")
        self.reason = reason
        self.answer = answer
        self.version = version


def varint(number: int) -> bytes:
    """Encode a variable byte integer (section 1.5.5)."""
    out = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        out.append(low | 0x80 if number else low)
        if not number:
            return bytes(out)


def text_bytes(text: str) -> bytes:
    """Encode a string with its length (section 1.5.4)."""
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def remaining_length(data: bytes, at: int) -> tuple[int, int] | None:
    """Read a variable byte integer at `at`: (number, where it ends), or None where it is not all there yet."""
    number = 0
    for index in range(4):
        if at + index >= len(data):
            return None
        byte = data[at + index]
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if index and not byte:
                raise PacketError("an integer with more bytes than it needs")
            return number, at + index + 1
    raise PacketError("an integer of more than four bytes")


class Body:
    """What remains to be read of one packet."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        """Read `size` bytes."""
        begin, self.at = self.at, self.at + size
        if self.at > len(self.data):
            raise PacketError("the packet ends too early")
        return self.data[begin : self.at]

    def number(self, size: int) -> int:
        """Read an integer of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def varint(self) -> int:
        """Read a variable byte integer."""
        read = remaining_length(self.data, self.at)
        if read is None:
            raise PacketError("the packet ends too early")
        number, self.at = read
        return number

    def binary(self) -> bytes:
        """Read bytes with their length before them."""
        return self.take(self.number(2))

    def text(self) -> str:
        """Read a UTF-8 string with its length before it."""
        data = self.binary()
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise PacketError(f"not UTF-8: {data[:64]!r}", reason=Reason.BAD_UTF8) from error
        if "\0" in text:
            raise PacketError(f"a NUL in a string: {text[:64]!r}")
        return text

    def rest(self) -> bytes:
        """Read all that is left."""
        return self.take(len(self.data) - self.at)

    def left(self) -> bool:
        """Tell whether anything is left."""
        return self.at < len(self.data)

    def finish(self) -> None:
        """Make sure that nothing is left."""
        if self.left():
            raise PacketError(f"{len(self.data) - self.at} bytes too many in a packet")


class Property(IntEnum):
    """Identifiers of MQTT 5 properties (section 2.2.2.2)."""

    PAYLOAD_FORMAT = 0x01
    MESSAGE_EXPIRY = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_ID = 0x0B
    SESSION_EXPIRY = 0x11
    ASSIGNED_CLIENT_ID = 0x12
    AUTHENTICATION_METHOD = 0x15
    AUTHENTICATION_DATA = 0x16
    REQUEST_PROBLEM = 0x17
    WILL_DELAY = 0x18
    REQUEST_RESPONSE = 0x19
    REASON_STRING = 0x1F
    RECEIVE_MAX = 0x21
    TOPIC_ALIAS_MAX = 0x22
    TOPIC_ALIAS = 0x23
    QOS_MAX = 0x24
    USER = 0x26
    PACKET_MAX = 0x27
    WILDCARDS = 0x28
    SUBSCRIPTION_IDS = 0x29
    SHARED = 0x2A


_P = Property
_BYTES = {  # integers: how many bytes
    _P.PAYLOAD_FORMAT: 1, _P.REQUEST_PROBLEM: 1, _P.REQUEST_RESPONSE: 1, _P.QOS_MAX: 1,
    _P.WILDCARDS: 1, _P.SUBSCRIPTION_IDS: 1, _P.SHARED: 1,
    _P.RECEIVE_MAX: 2, _P.TOPIC_ALIAS_MAX: 2, _P.TOPIC_ALIAS: 2,
    _P.MESSAGE_EXPIRY: 4, _P.SESSION_EXPIRY: 4, _P.WILL_DELAY: 4, _P.PACKET_MAX: 4,
}  # fmt: skip
_TEXT = {
    _P.CONTENT_TYPE, _P.RESPONSE_TOPIC, _P.AUTHENTICATION_METHOD, _P.REASON_STRING, _P.ASSIGNED_CLIENT_ID,
}  # fmt: skip
_BINARY = {_P.CORRELATION_DATA, _P.AUTHENTICATION_DATA}
_FLAGS = {_P.PAYLOAD_FORMAT, _P.REQUEST_PROBLEM, _P.REQUEST_RESPONSE}
_POSITIVE = {_P.RECEIVE_MAX, _P.PACKET_MAX, _P.SUBSCRIPTION_ID}


class Properties(msgspec.Struct):
    """The properties of a packet; `user` holds the user properties in their order."""

    values: dict[int, int | str | bytes] = {}
    user: list[tuple[str, str]] = []

    def number(self, identifier: int) -> int:
        """Return an integer property; 0 where it is absent."""
        value = self.values.get(identifier, 0)
        return value if isinstance(value, int) else 0

    def text(self, identifier: int) -> str:
        """Return a string property; empty where it is absent."""
        value = self.values.get(identifier, "")
        return value if isinstance(value, str) else ""

    def encode(self) -> bytes:
        """Encode them with their length before them."""
        parts = [_encode(identifier, value) for identifier, value in self.values.items()]
        parts += [bytes([_P.USER]) + text_bytes(name) + text_bytes(value) for name, value in self.user]
        data = b"".join(parts)
        return varint(len(data)) + data

    @classmethod
    def read(cls, body: Body, allowed: Collection[int]) -> Properties:
        """Read the properties of a packet in which only `allowed` ones may be (section 2.2.2)."""
        inner = Body(body.take(body.varint()))
        found = cls()
        while inner.left():
            identifier = inner.varint()
            if identifier not in allowed:
                raise PacketError(f"property {identifier:#04x} does not belong there", answer=Code.PROTOCOL_ERROR)
            if identifier == _P.USER:
                found.user.append((inner.text(), inner.text()))
            elif identifier in found.values:
                raise PacketError(f"property {identifier:#04x} is there twice", answer=Code.PROTOCOL_ERROR)
            else:
                found.values[identifier] = _value(inner, identifier)
        return found


def _value(body: Body, identifier: int) -> int | str | bytes:
    if identifier in _TEXT:
        return body.text()
    if identifier in _BINARY:
        return body.binary()
    size = _BYTES.get(_P(identifier))
    number = body.varint() if size is None else body.number(size)
    if (number > 1 and identifier in _FLAGS) or (number == 0 and identifier in _POSITIVE):
        raise PacketError(f"property {identifier:#04x} cannot be {number}", answer=Code.PROTOCOL_ERROR)
    return number


def _encode(identifier: int, value: int | str | bytes) -> bytes:
    head = bytes([identifier])
    if isinstance(value, str):
        return head + text_bytes(value)
    if isinstance(value, bytes):
        return head + len(value).to_bytes(2, "big") + value
    size = _BYTES.get(_P(identifier))
    return head + (varint(value) if size is None else value.to_bytes(size, "big"))
