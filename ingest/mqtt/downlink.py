"""What goes out: a device subscribes to its own command topic, a gateway to those of its devices, and gets commands there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ingest.gate import OWNER, Principal
from ingest.mqtt.packets import V5, Ack, Publish, Subscribe, Unsubscribe, publish
from ingest.mqtt.rows import delivered_row
from ingest.mqtt.session import Sent, Session
from ingest.mqtt.wire import Code, Properties, Property
from ingest.segments import Row
from qala.state.commands import SENT

if TYPE_CHECKING:
    from ingest.mqtt.connection import Connection

__all__ = ["LARGER", "UNCONFIRMED", "Downlink", "Ear", "Ears", "command_topic", "judge"]

UNCONFIRMED = "unconfirmed"  # the code of a command that was sent with QoS 0
LARGER = "too_large"  # the code of one that cannot go out: its packet is larger than the client takes
_WINDOW = 16  # commands in flight to one client
_SUBSCRIPTIONS_MAX = 100
_GATEWAY_SUBSCRIPTIONS_MAX = 1_000
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
    may_hear = principal.name in {"", OWNER.name, name} or (
        principal.is_gateway and principal.may_publish(topic_filter)
    )
    return name if may_hear else Code.NOT_AUTHORIZED


class Ear:
    """A device that hears commands, through the connection that subscribed to its topic: its own, or a gateway's."""

    __slots__ = ("_device", "_downlink", "_qos", "is_gateway")

    def __init__(self, downlink: Downlink, device: str, qos: int, *, is_gateway: bool) -> None:
        self._downlink = downlink
        self._device = device
        self._qos = qos
        self.is_gateway = is_gateway

    def belongs_to(self, downlink: Downlink) -> bool:
        """Tell whether it is one of a downlink's."""
        return self._downlink is downlink

    def shares(self, other: Ear) -> bool:
        """Tell whether what both hear goes over the same connection."""
        return self._downlink is other._downlink

    def command(self, command_id: str, payload: bytes, expires_in_s: float) -> bool:
        """Publish a command; False where it cannot be sent now: the client has enough in flight, or is gone.

        When it goes out, and once it is acknowledged, a message of type DELIVERED goes to the journal; also where it never
        can go out, since the client takes no packets of its size. The same command is not sent twice while it waits.
        """
        return self._downlink.send(command_id, self._device, payload, expires_in_s, self._qos)


class Ears:
    """Who hears the commands of which device: the device itself before a gateway, and of equals the one that came last."""

    def __init__(self) -> None:
        self.first: dict[str, Ear] = {}
        self._all: dict[str, tuple[Ear, ...]] = {}  # the one that hears comes first

    def add(self, device: str, ear: Ear, downlink: Downlink) -> None:
        """Take an ear in, in place of the one that this downlink had for the device."""
        others = [one for one in self._all.get(device, ()) if not one.belongs_to(downlink)]
        self._put(device, sorted([ear, *others], key=lambda one: one.is_gateway))

    def remove(self, device: str, downlink: Downlink) -> bool:
        """Forget the ear that a downlink had for a device; tell whether another one hears in its place."""
        before = self.first.get(device)
        self._put(device, [one for one in self._all.get(device, ()) if not one.belongs_to(downlink)])
        return device in self.first and self.first[device] is not before

    def still(self, device: str, ear: Ear) -> bool:
        """Tell whether an ear is there, although another one may hear what comes now."""
        return any(one.shares(ear) for one in self._all.get(device, ()))

    def _put(self, device: str, ears: list[Ear]) -> None:
        if ears:
            self.first[device], self._all[device] = ears[0], tuple(ears)
        else:
            self.first.pop(device, None)
            self._all.pop(device, None)


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
        session.granted = {device: qos for device, qos in session.granted.items() if self._may_hear(device)}
        for packet_id, sent in tuple(session.sent.items()):
            if sent.until_s <= now_s or not self._may_hear(sent.device) or self._hears_itself(sent.device):
                del session.sent[packet_id]
            elif not self._publish(packet_id, sent, duplicate=True):
                del session.sent[packet_id]
                self._listener.record(self._answered(sent, LARGER, 1))
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
        if qos and len(session.sent) >= self._window:
            return False
        sent = Sent(command_id, device, payload, self._connection.loop.time() + expires_in_s)
        packet_id = session.next_id() if qos else 0
        if not self._publish(packet_id, sent, duplicate=False):
            self._listener.record(self._answered(sent, LARGER, qos))
        elif qos:
            session.sent[packet_id] = sent
            self._listener.record(self._row(sent, str(SENT), qos))
        else:
            self._listener.record(self._answered(sent, UNCONFIRMED, qos))
        return True

    def acknowledged(self, packet: Ack) -> list[Row]:
        """Take note of a PUBACK, and return the row that tells of it; none where no command was waiting for it."""
        sent = self._session.sent.pop(packet.id, None)
        return [] if sent is None else [self._answered(sent, str(packet.code), 1)]

    def _subscribe(self, text: str, asked: int, *, numbered: bool) -> int:
        granted = self._session.granted
        found = judge(text, self._listener.settings.topic_root, self._connection.principal)
        if isinstance(found, Code):
            return found
        if numbered:
            return Code.NO_SUBSCRIPTION_IDS
        most = _GATEWAY_SUBSCRIPTIONS_MAX if self._connection.principal.is_gateway else _SUBSCRIPTIONS_MAX
        if found not in granted and len(granted) >= most:
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
        ear = Ear(self, device, qos, is_gateway=self._connection.principal.is_gateway)
        self._listener.ears.add(device, ear, self)
        self._connection.loop.call_soon(self._listener.on_heard, device)  # after the SUBACK

    def _may_hear(self, device: str) -> bool:
        root, principal = self._listener.settings.topic_root, self._connection.principal
        return judge(command_topic(root, device), root, principal) == device

    def _hears_itself(self, device: str) -> bool:
        """Tell whether the device listens beside this gateway, and so has been given what is sent again."""
        ear = self._listener.ears.first.get(device)
        return ear is not None and self._connection.principal.is_gateway and not ear.is_gateway

    def _deafen(self, device: str) -> None:
        if self._listener.ears.remove(device, self):
            self._listener.on_heard(device)

    def _publish(self, packet_id: int, sent: Sent, *, duplicate: bool) -> bool:
        """Send a command; False where its packet is larger than the client takes."""
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

    def _answered(self, sent: Sent, code: str, qos: int) -> Row:
        """Tell that a command needs to be sent no more, and return the row that tells it to the journal."""
        self._listener.on_answered(sent.device, sent.command)
        return self._row(sent, code, qos)

    def _row(self, sent: Sent, code: str, qos: int) -> Row:
        connection = self._connection
        topic = command_topic(self._listener.settings.topic_root, sent.device)
        return delivered_row(topic, sent.command, code, qos, connection.client, connection.principal.name)
