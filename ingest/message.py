"""A message: bytes on a topic, as they were received, nothing known yet. What the journal keeps."""

from __future__ import annotations

from enum import IntEnum

import msgspec

__all__ = ["PROBE_TOPIC", "RECORD_VERSION", "Message", "MessageType", "Source"]

RECORD_VERSION = 1
PROBE_TOPIC = "$qala/probe"
"""Topic of messages that only measure the way to the store; the payload is when they were sent, in decimal [UTC us]."""


class Source(IntEnum):
    """Which door a message came through."""

    LISTENER = 0
    SUBSCRIBER = 1
    HTTP = 2


class MessageType(IntEnum):
    """What happened."""

    PUBLISH = 0
    WILL = 1
    REFUSED = 2  # a packet that could not be taken: `properties` hold its "reason" and "detail", the payload is empty
    DELIVERED = 3  # a device acknowledged a command: `properties` hold its "command" id and the "code" of the answer


class Message(msgspec.Struct, array_like=True, gc=False):
    """One record of the journal. Field order is the wire format (MessagePack array); new fields go to the end.

    `topic` is UTF-8: the door refuses any other. `received_us` is the door's clock at receipt.
    """

    topic: str
    payload: bytes
    received_us: int
    client: str = ""  # MQTT client id
    principal: str = ""  # who was authenticated
    source: int = Source.LISTENER
    type: int = MessageType.PUBLISH
    qos: int = 0
    retained: bool = False
    duplicate: bool = False
    properties: dict[str, str] | None = None  # MQTT 5: content type, user properties; reasons of a refusal
