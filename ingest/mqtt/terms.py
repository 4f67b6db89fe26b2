"""The terms on which a client is served: what it asks for in its CONNECT, and what it is told."""

from __future__ import annotations

from ingest.mqtt.packets import TOPIC_ALIAS_MAX, V311, Connect, Limits, Will
from ingest.mqtt.session import EXPIRY_MAX_S
from ingest.mqtt.wire import Properties, Property

__all__ = ["expiry_s", "granted", "will_delay_s"]


def expiry_s(packet: Connect) -> int:
    """Return how long a client's session outlives its connection: as it asks, at most EXPIRY_MAX_S [s].

    MQTT 3.1.1 knows only sessions that end at once and such that last.
    """
    if packet.version == V311:
        return 0 if packet.clean else EXPIRY_MAX_S
    asked = packet.properties.number(Property.SESSION_EXPIRY) if packet.properties is not None else 0
    return min(asked, EXPIRY_MAX_S)


def will_delay_s(will: Will, session_expiry_s: int) -> int:
    """Return how long a will waits: no longer than its session (section 3.1.3.2.2) [s]."""
    asked = will.properties.number(Property.WILL_DELAY) if will.properties is not None else 0
    return min(asked, session_expiry_s)


def granted(packet: Connect, client: str, limits: Limits, in_flight_max: int) -> Properties:
    """Say what an MQTT 5 client may do here (section 3.2.2.3); `client` is the id that it has."""
    values: dict[int, int | str | bytes] = {
        Property.RECEIVE_MAX: in_flight_max,
        Property.PACKET_MAX: limits.packet_max,
        Property.TOPIC_ALIAS_MAX: TOPIC_ALIAS_MAX,
        Property.WILDCARDS: 0,
        Property.SUBSCRIPTION_IDS: 0,
        Property.SHARED: 0,
    }
    if not packet.client:
        values[Property.ASSIGNED_CLIENT_ID] = client
    if packet.properties is not None and packet.properties.number(Property.SESSION_EXPIRY) > EXPIRY_MAX_S:
        values[Property.SESSION_EXPIRY] = EXPIRY_MAX_S
    return Properties(values)
