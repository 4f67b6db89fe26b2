"""What is remembered of a client while it is away: messages of QoS 2 on their way, subscriptions, commands not answered.

In memory only: a door that was started again has no session, and says so at CONNECT.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from ingest.mqtt.packets import pubrecs

__all__ = ["EXPIRY_MAX_S", "Key", "Peer", "Sent", "Session", "Sessions", "place_of"]

EXPIRY_MAX_S = 7 * 86_400  # longest time for which a session is kept [s]
_SESSIONS_MAX = 20_000
_KEPT_BYTES_MAX = 256 * 1024 * 1024  # of all sessions whose client is away, in memory
_SENT_BYTES_MAX = 64 * 1024  # payloads of commands without an answer that are kept of a client that is away

Key = tuple[str, str]  # principal, client id


def place_of(key: Key) -> Key:
    """Return what only one connection may hold, and one session: a device is there once, whatever it calls itself.

    >>> place_of(("demo/d1", "client")), place_of(("gateway", "client"))
    (('demo/d1', ''), ('gateway', 'client'))
    """
    principal, client = key
    return principal, "" if "/" in principal else client


class Peer(Protocol):
    """The connection of a session."""

    def write(self, data: bytes) -> None:
        """Send bytes, unless it has ended."""


class Sent(msgspec.Struct):
    """A command that was published and is not acknowledged. `until_s` is when it expires, on the loop's clock."""

    command: str
    device: str
    payload: bytes
    until_s: float


class Session:
    """One client's session (MQTT 5, section 4.1). `expiry_s` is how long it outlives its connection [s]."""

    __slots__ = ("expiry_s", "granted", "key", "last_id", "peer", "sent", "size", "unreleased", "until_s")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.expiry_s = 0
        self.until_s = 0.0
        self.peer: Peer | None = None
        self.unreleased: dict[bytes, bool] = {}  # QoS 2: packet identifier -> durable, and so answered with a PUBREC
        self.granted: dict[str, int] = {}  # device whose commands it subscribed to -> QoS
        self.sent: dict[int, Sent] = {}  # packet identifier of a command -> what it was
        self.last_id = 0
        self.size = 0  # about what it took in memory when its client left [bytes]

    def measure(self) -> int:
        """Return about what it takes in memory [bytes]."""
        payloads = sum(len(sent.payload) for sent in self.sent.values())
        return 1_000 + 150 * len(self.unreleased) + 300 * (len(self.granted) + len(self.sent)) + payloads

    def acknowledge(self, ids: list[bytes]) -> None:
        """Send the PUBRECs of messages that are durable now, through whichever connection it has by now."""
        for packet_id in ids:
            self.unreleased[packet_id] = True
        if self.peer is not None:
            self.peer.write(pubrecs(ids))

    def next_id(self) -> int:
        """Return a packet identifier that no command in flight has."""
        while True:
            self.last_id = self.last_id % 65_535 + 1
            if self.last_id not in self.sent:
                return self.last_id


class Sessions:
    """Sessions whose client is away. Over the limit the one that left first is forgotten."""

    def __init__(self, most: int = _SESSIONS_MAX, bytes_max: int = _KEPT_BYTES_MAX) -> None:
        self._most = most
        self._bytes_max = bytes_max
        self._bytes = 0
        self._kept: dict[Key, Session] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, session: Session, now_s: float) -> None:
        """Remember a session, as long as it wants to be."""
        session.peer = None
        if session.expiry_s <= 0:
            return
        place = place_of(session.key)
        self._forget(place)
        session.until_s = now_s + session.expiry_s
        if sum(len(sent.payload) for sent in session.sent.values()) > _SENT_BYTES_MAX:
            session.sent.clear()  # whoever keeps the commands sends them anew
        session.size = session.measure()
        self._bytes += session.size
        self._kept[place] = session
        while len(self._kept) > self._most or self._bytes > self._bytes_max:
            self._forget(next(iter(self._kept)))

    def resume(self, key: Key, now_s: float, *, clean: bool) -> Session | None:
        """Take a session out again; None where there is none any more, or where the client wants a new one."""
        session = self._forget(place_of(key))
        if session is None or clean or session.key != key or session.until_s <= now_s:
            return None
        return session

    def _forget(self, place: Key) -> Session | None:
        session = self._kept.pop(place, None)
        if session is not None:
            self._bytes -= session.size
        return session
