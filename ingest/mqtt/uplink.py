"""What comes in from one client beside the plain messages: topics that must be its own, topic aliases, QoS 2."""

from __future__ import annotations

from ingest.commit import Group
from ingest.gate import Principal
from ingest.mqtt.packets import Ack, Publish, pubcomp, pubrecs
from ingest.mqtt.session import Session
from ingest.mqtt.wire import Code, PacketError, Property

__all__ = ["Uplink"]

_TOPICS_MAX = 4096  # topics that one authenticated connection is known to publish on


class Uplink:
    """One connection's way in. `topics` are those that were checked, so that the quick way knows them."""

    __slots__ = ("_aliases", "_most", "_principal", "_session", "topics")

    def __init__(self, principal: Principal, session: Session, in_flight_max: int) -> None:
        self.topics: dict[bytes, str] = {}
        self._principal = principal
        self._session = session
        self._most = in_flight_max
        self._aliases: dict[int, str] | None = None

    def topic_of(self, packet: Publish) -> str:
        """Return the topic that a message is on, and remember its alias (section 3.3.2.3.4).

        Raises:
            PacketError: the alias stands for nothing.
        """
        alias = packet.properties.number(Property.TOPIC_ALIAS) if packet.properties is not None else 0
        if not alias:
            return packet.topic
        if self._aliases is None:
            self._aliases = {}
        if packet.topic:
            self._aliases[alias] = packet.topic
        elif alias not in self._aliases:
            raise PacketError(f"topic alias {alias} stands for nothing yet", answer=Code.PROTOCOL_ERROR)
        return self._aliases[alias]

    def may_publish(self, topic: str) -> bool:
        """Tell whether a topic is one of the principal's own, and remember it."""
        if not self._principal.may_publish(topic):
            return False
        if len(self.topics) >= _TOPICS_MAX:
            self.topics.clear()
        self.topics[topic.encode()] = topic
        return True

    def receive(self, packet: Publish, group: Group, answers: list[bytes]) -> bool:
        """Tell whether a message of QoS 2 is new; its PUBREC follows when it is durable (section 4.3.3).

        Raises:
            PacketError: too many wait for their release.
        """
        unreleased, packet_id = self._session.unreleased, packet.id.to_bytes(2, "big")
        durable = unreleased.get(packet_id)
        if durable is not None:
            answers += [pubrecs([packet_id])] if durable else []
            return False
        if len(unreleased) >= self._most:
            raise PacketError(f"{self._most} messages of QoS 2 without a PUBREL", answer=Code.TOO_MANY_IN_FLIGHT)
        unreleased[packet_id] = False
        if group.members and group.members[-1][0] is self._session:
            group.members[-1][1].append(packet_id)
        else:
            group.members.append((self._session, [packet_id]))
        return True

    def release(self, packet: Ack, version: int) -> bytes:
        """Forget a message of QoS 2, whose sender knows by now that it is durable, and return the PUBCOMP.

        Raises:
            PacketError: it is not durable yet.
        """
        unreleased, packet_id = self._session.unreleased, packet.id.to_bytes(2, "big")
        if unreleased.get(packet_id) is False:
            raise PacketError("a PUBREL before its PUBREC", answer=Code.PROTOCOL_ERROR)
        known = unreleased.pop(packet_id, None)
        return pubcomp(version, packet.id, Code.SUCCESS if known else Code.NO_SUCH_PACKET)
