"""What goes out: a device subscribes to its own command topic and nothing else, and gets commands there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ingest.gate import OWNER, Principal
from ingest.mqtt.packets import V5, Ack, Publish, Subscribe, Unsubscribe, publish
from ingest.mqtt.rows import delivered_row
from ingest.mqtt.session import Sent, Session
from ingest.mqtt.wire import Code, Properties, Property
from ingest.segments import Row

if TYPE_CHECKING:
    from ingest.mqtt.connection import Connection

__all__ = ["UNCONFIRMED", "Downlink", "Ear", "command_topic", "judge"]

UNCONFIRMED = "unconfirmed"  # the code of a command that was sent with QoS 0
_WINDOW = 16  # commands in flight to one client
_SUBSCRIPTIONS_MAX = 100
_EXPIRY_PROPERTY_MAX = 2**32 - 1


def command_topic(root: str, device: str) -> str:
    """Name the topic on which a device gets its commands.

    >>> command_topic("qala", "demo/d1")
    'qala/1/demo/d1/c'
    """
    return f"{root}/1/{device}/c"


def judge(topic_filter: str, root: str, principal: Principal) -> str | Code:
    """Return the device whose commands a filter asks for, or why it is refused."""
    if topic_filter.startswith("$share/"):
        return Code.NO_SHARED_SUBSCRIPTIONS
    levels = topic_filter.split("/")
    if any(("#" in level or "+" in level) and len(level) > 1 for level in levels) or "#" in levels[:-1]:
        return Code.BAD_FILTER
    if "#" in levels or "+" in levels:
        return Code.NO_WILDCARDS
    fleet, device = levels[-3:-1] if len(levels) > 3 else ("", "")
    name = f"{fleet}/{device}"
    if not fleet or not device or topic_filter != command_topic(root, name):
        return Code.NOT_AUTHORIZED
    return name if principal.name in {"", OWNER.name, name} else Code.NOT_AUTHORIZED


class Ear:
    """A device that hears commands, through the connection that subscribed to its topic."""

    __slots__ = ("_device", "_downlink", "_qos")

    def __init__(self, downlink: Downlink, device: str, qos: int) -> None:
        self._downlink = downlink
        self._device = device
        self._qos = qos

    def belongs_to(self, downlink: Downlink) -> bool:
        """Tell whether it is one of a downlink's."""
        return self._downlink is downlink

    def command(self, command_id: str, payload: bytes, expires_in_s: float) -> bool:
        """Publish a command; False where it cannot be sent now: the client has enough in flight, or is gone.

        Once it is acknowledged a message of type DELIVERED goes to the journal. The same command is not sent twice
        while it waits for that.
        """
        return self._downlink.send(command_id, self._device, payload, expires_in_s, self._qos)


class Downlink:
    """One connection's subscriptions and the commands that are on their way to it."""

    def __init__(self, connection: Connection, session: Session, *, window: int, packet_max: int) -> None:
        self._connection = connection
        self._session = session
        self._listener = connection.listener
        self._window = min(window, _WINDOW)
        self._packet_max = packet_max
        self._open = True

    def resume(self) -> None:
        """Take up the subscriptions of a session that is continued, and send again what was not acknowledged."""
        session, now_s = self._session, self._connection.loop.time()
        for packet_id, sent in tuple(session.sent.items()):
            if sent.until_s > now_s:
                self._publish(packet_id, sent, duplicate=True)
            else:
                del session.sent[packet_id]
        for device, qos in session.granted.items():
            self._hear(device, qos)

    def subscribe(self, packet: Subscribe) -> list[int]:
        """Subscribe, as far as that is allowed, and return the code for each filter."""
        return [self._subscribe(text, asked, numbered=packet.numbered) for text, asked in packet.filters]

    def unsubscribe(self, packet: Unsubscribe) -> list[int]:
        """Take subscriptions back and return the code for each filter."""
        return [self._unsubscribe(text) for text in packet.filters]

    def close(self) -> None:
        """Hear nothing any more."""
        self._open = False
        for device in self._session.granted:
            self._deafen(device)

    def send(self, command_id: str, device: str, payload: bytes, expires_in_s: float, qos: int) -> bool:
        """See `Ear.command`."""
        session = self._session
        if not self._open or self._connection.is_jammed:
            return False
        if any(sent.command == command_id for sent in session.sent.values()):
            return True
        sent = Sent(command_id, device, payload, self._connection.loop.time() + expires_in_s)
        if qos == 0:
            return self._send_unconfirmed(sent)
        if len(session.sent) >= self._window:
            return False
        packet_id = session.next_id()
        if not self._publish(packet_id, sent, duplicate=False):
            return False
        session.sent[packet_id] = sent
        return True

    def acknowledged(self, packet: Ack) -> list[Row]:
        """Take note of a PUBACK, and return the row that tells of it; none where no command was waiting for it."""
        sent = self._session.sent.pop(packet.id, None)
        return [] if sent is None else [self._delivered(sent, str(packet.code), 1)]

    def _subscribe(self, text: str, asked: int, *, numbered: bool) -> int:
        granted = self._session.granted
        found = judge(text, self._listener.settings.topic_root, self._connection.principal)
        if isinstance(found, Code):
            return found
        if numbered:
            return Code.NO_SUBSCRIPTION_IDS
        if found not in granted and len(granted) >= _SUBSCRIPTIONS_MAX:
            return Code.QUOTA
        granted[found] = min(asked, 1)
        self._hear(found, granted[found])
        return granted[found]

    def _unsubscribe(self, text: str) -> int:
        found = judge(text, self._listener.settings.topic_root, self._connection.principal)
        if isinstance(found, Code) or self._session.granted.pop(found, None) is None:
            return Code.NO_SUBSCRIPTION
        self._deafen(found)
        return Code.SUCCESS

    def _hear(self, device: str, qos: int) -> None:
        self._listener.ears[device] = Ear(self, device, qos)
        self._connection.loop.call_soon(self._listener.on_heard, device)  # after the SUBACK

    def _deafen(self, device: str) -> None:
        ear = self._listener.ears.get(device)
        if ear is not None and ear.belongs_to(self):
            del self._listener.ears[device]

    def _send_unconfirmed(self, sent: Sent) -> bool:
        done = self._publish(0, sent, duplicate=False)
        if done:
            self._listener.record(self._delivered(sent, UNCONFIRMED, 0))
        return done

    def _publish(self, packet_id: int, sent: Sent, *, duplicate: bool) -> bool:
        connection = self._connection
        left_s = max(sent.until_s - connection.loop.time(), 0)
        expiry = Properties({Property.MESSAGE_EXPIRY: min(math.ceil(left_s), _EXPIRY_PROPERTY_MAX)})
        packet = Publish(
            topic=command_topic(self._listener.settings.topic_root, sent.device),
            payload=sent.payload,
            qos=1 if packet_id else 0,
            id=packet_id,
            duplicate=duplicate,
            properties=expiry if connection.version == V5 else None,
        )
        data = publish(connection.version, packet)
        if len(data) > self._packet_max:
            return False
        connection.write(data)
        return True

    def _delivered(self, sent: Sent, code: str, qos: int) -> Row:
        """Tell that a command has reached its device, and return the row that tells it to the journal."""
        connection = self._connection
        self._listener.on_answered(sent.device, sent.command)
        topic = command_topic(self._listener.settings.topic_root, sent.device)
        return delivered_row(topic, sent.command, code, qos, connection.client, connection.principal.name)
