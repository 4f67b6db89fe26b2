"""What happens at the listener, as rows of the journal: messages, wills, refusals, commands that arrived."""

from __future__ import annotations

import time

from devices.errors import Reason
from ingest.message import MessageType, Source
from ingest.mqtt.packets import Publish, Will
from ingest.mqtt.wire import Properties, Property
from ingest.segments import Row

__all__ = ["PLAIN", "delivered_row", "properties_of", "publish_row", "refused_row", "will_row"]

_DETAIL_MAX = 200
PLAIN = (int(Source.LISTENER), int(MessageType.PUBLISH), 1)
"""The last fields of the row of a plain message: source, type, QoS 1. Plain integers are encoded faster than enumerations."""


def publish_row(packet: Publish, topic: str, now_us: int, client: str, principal: str) -> Row:
    """Make the row of a message; `topic` is the one that a topic alias may stand for."""
    return (
        topic,
        packet.payload,
        now_us,
        client,
        principal,
        Source.LISTENER,
        MessageType.PUBLISH,
        packet.qos,
        packet.retained,
        packet.duplicate,
        properties_of(packet.properties),
    )


def will_row(will: Will, client: str, principal: str) -> Row:
    """Make the row of a will that is carried out now."""
    return (
        will.topic,
        will.payload,
        time.time_ns() // 1000,
        client,
        principal,
        Source.LISTENER,
        MessageType.WILL,
        will.qos,
        will.retained,
        False,
        properties_of(will.properties),
    )


def refused_row(reason: Reason, detail: str, now_us: int, client: str, principal: str) -> Row:
    """Make the row of something that was turned down."""
    said = {"reason": reason.value, "detail": detail[:_DETAIL_MAX]}
    return ("", b"", now_us, client, principal, Source.LISTENER, MessageType.REFUSED, 0, False, False, said)


def delivered_row(topic: str, command_id: str, code: str, qos: int, client: str, principal: str) -> Row:
    """Make the row of a command that reached its device now; `code` is what the device answered."""
    return (
        topic,
        b"",
        time.time_ns() // 1000,
        client,
        principal,
        Source.LISTENER,
        MessageType.DELIVERED,
        qos,
        False,
        False,
        {"command": command_id, "code": code},
    )


def properties_of(found: Properties | None) -> dict[str, str] | None:
    """Keep what says how to read a payload: content type, and the user properties under "user.<name>"."""
    if found is None or not (found.values or found.user):
        return None
    kept = {f"user.{name}": value for name, value in found.user}
    if content_type := found.text(Property.CONTENT_TYPE):
        kept["content_type"] = content_type
    return kept or None
