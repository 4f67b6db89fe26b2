"""What is remembered of a client while it is away: messages of QoS 2 on their way, subscriptions, commands not answered.

In memory only: a door that was started again has no session, and says so at CONNECT.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from ingest.packets import pubrecs

__all__ = ["EXPIRY_MAX_S", "Key", "Peer", "Sent", "Session", "Sessions", "place_of"]

EXPIRY_MAX_S = 7 * 86_400  # longest time for which a session is kept [s]
_SESSIONS_MAX = 20_000
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

    __slots__ = ("expiry_s", "granted", "key", "last_id", "peer", "sent", "unreleased", "until_s")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.expiry_s = 0
        self.until_s = 0.0
        self.peer: Peer | None = None
        self.unreleased: dict[bytes, bool] = {}  # QoS 2: packet identifier -> durable, and so answered with a PUBREC
        self.granted: dict[str, int] = {}  # device whose commands it subscribed to -> QoS
        self.sent: dict[int, Sent] = {}  # packet identifier of a command -> what it was
        self.last_id = 0

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

    def __init__(self, most: int = _SESSIONS_MAX) -> None:
        self._most = most
        self._kept: dict[Key, Session] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, session: Session, now_s: float) -> None:
        """Remember a session, as long as it wants to be."""
        session.peer = None
        if session.expiry_s <= 0:
            return
        place = place_of(session.key)
        self._kept.pop(place, None)
        session.until_s = now_s + session.expiry_s
        if sum(len(sent.payload) for sent in session.sent.values()) > _SENT_BYTES_MAX:
            session.sent.clear()  # whoever keeps the commands sends them anew
        if len(self._kept) >= self._most:
            del self._kept[next(iter(self._kept))]
        self._kept[place] = session

    def resume(self, key: Key, now_s: float, *, clean: bool) -> Session | None:
        """Take a session out again; None where there is none any more, or where the client wants a new one."""
        session = self._kept.pop(place_of(key), None)
        if session is None or clean or session.key != key or session.until_s <= now_s:
            return None
        return session
