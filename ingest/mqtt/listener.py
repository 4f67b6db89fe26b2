"""The durable MQTT endpoint that sensors connect to: 3.1.1 and 5.0 on one port, QoS 0, 1 and 2, plain and with TLS.

A PUBACK or PUBREC is sent after the message is synced in the journal, never before. Nothing is looked up and no payload
is read here. The only thing that there is to subscribe to are the commands of devices.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from devices.errors import Reason
from ingest.bucket import Buckets
from ingest.commit import ROW_BYTES, GroupCommit
from ingest.gate import OWNER, Gate, OpenGate, Principal, RefusedError
from ingest.mqtt.connection import Connection
from ingest.mqtt.downlink import Ear, Ears
from ingest.mqtt.entrance import Entrances
from ingest.mqtt.packets import Limits, Will
from ingest.mqtt.refusals import Counters, Refusals
from ingest.mqtt.rows import will_row
from ingest.mqtt.session import Key, Session, Sessions, place_of
from ingest.mqtt.wills import Wills, size_of
from ingest.mqtt.wire import Code, PacketError
from ingest.segments import Row
from ingest.settings import IngestSettings, parse_address

__all__ = ["Counters", "Listener"]

_log = logging.getLogger(__name__)

_TOPICS_MAX = 100_000
_GOODBYE_S = 1.0


class Listener:
    """Accepts connections and gathers what they publish in a group commit. Lives in one event loop.

    `on_heard` is called with a device's id when somebody subscribes to its commands, or comes back to a session that has;
    `on_answered` with a device and the id of a command that it acknowledged.
    """

    def __init__(
        self,
        settings: IngestSettings,
        commit: GroupCommit,
        gate: Gate | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        socket: Path | None = None,
    ) -> None:
        """Prepare; `tls` serves the address `settings.mqtts`, `socket` is where the owner of the data folder comes in."""
        self.settings = settings
        self.limits = Limits(topic_max=settings.topic_max, payload_max=settings.payload_max)
        self.in_flight_max = settings.in_flight_max
        self.gate = gate or OpenGate()
        self.buckets = Buckets(settings)
        self.sessions = Sessions()
        self.topics: dict[bytes, str] = {}  # topics that were checked, so that the quick way knows them
        self.ears = Ears()
        self.on_heard: Callable[[str], None] = lambda _device: None
        self.on_answered: Callable[[str, str], None] = lambda _device, _command: None
        self.stopping = False
        self.commit = commit
        commit.feeders.append(self)
        self._loop = asyncio.get_running_loop()
        self._wills = Wills(self._loop)
        self._refusals = Refusals(settings.refused_per_minute)
        self._entrances = Entrances(self.counters, settings)
        self._tls = tls
        self._socket = socket
        self._connections: set[Connection] = set()
        self._strangers: dict[Connection, None] = {}  # among them those without a CONNECT, oldest first
        self._empty = asyncio.Event()
        self._empty.set()
        self._clients: dict[Key, Connection] = {}
        self._by_gateway: Counter[str] = Counter()  # how many connections each has

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    @property
    def paused(self) -> int:
        """From how many of them nothing is read for now."""
        return sum(1 for connection in self._connections if connection.is_held)

    @property
    def handshakes(self) -> int:
        """How many TLS handshakes go on."""
        return self._entrances.handshakes

    @property
    def counters(self) -> Counters:
        """What was turned down."""
        return self._refusals.counters

    def hearing(self) -> Mapping[str, Ear]:
        """Return the devices that hear commands now, by their ids, and through whom."""
        return self.ears.first

    async def start(self) -> dict[str, tuple[str, int]]:
        """Listen, and return the addresses ("mqtt", "mqtts"); port 0 in the settings becomes a free one.

        Raises:
            UnavailableError: an address is taken.
        """
        found: dict[str, tuple[str, int]] = {}
        if self.settings.mqtt:
            host, port = parse_address(self.settings.mqtt)
            found["mqtt"] = await self._entrances.open_plain(host, port, self._make)
        if self.settings.mqtts and self._tls is not None:
            host, port = parse_address(self.settings.mqtts)
            found["mqtts"] = await self._entrances.open_tls(host, port, self._make, self._tls)
        if self._socket is not None:
            await self._entrances.open_unix(self._socket, self._make_owned)
        return found

    def _make(self) -> Connection:
        return Connection(self, self._loop)

    def _make_owned(self) -> Connection:
        return Connection(self, self._loop, owned=True)

    async def stop(self, *, within_s: float = 3.0) -> None:
        """Accept no more, make what was taken durable and acknowledge it, say goodbye to all clients."""
        await self._entrances.close()
        self._wills.carry_out_all()
        self.stopping = True
        try:
            async with asyncio.timeout(within_s):
                await self.commit.drain()
        except TimeoutError:
            _log.error("stopped with messages that the journal did not take; nobody was told that it had")
        for connection in tuple(self._connections):
            connection.end(Code.SHUTTING_DOWN)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await self._empty.wait()
        for connection in tuple(self._connections):
            connection.abort()
        await asyncio.sleep(0)  # the transports tell their connections
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)

    def recheck(self) -> None:
        """End the connections of those whose credential does not hold any more."""
        for connection in tuple(self._connections):
            principal = connection.principal
            if principal.name and principal is not OWNER and not self.gate.still_holds(principal):
                connection.end(Code.NOT_AUTHORIZED)

    def admit(self, connection: Connection) -> bool:
        """Take a new connection in, unless the door is closing, or there are too many of those that said who they are.

        Who has not, and came first, goes for who comes now; the owner always gets in.
        """
        is_full = len(self._connections) >= self.settings.connections_max and not connection.owned
        if is_full:
            self.counters.turned_away += 1
        if self.stopping or (is_full and not self._strangers):
            return False
        if is_full:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.abort()
        self._connections.add(connection)
        if not connection.owned:
            self._strangers[connection] = None
        self._empty.clear()
        return True

    def forget(self, connection: Connection) -> None:
        """Take note that a connection is gone."""
        self._connections.discard(connection)
        self._strangers.pop(connection, None)
        if not self._connections:
            self._empty.set()
        place = place_of((connection.principal.name, connection.client))
        if self._clients.get(place) is connection:
            del self._clients[place]
            self._leave_gateway(connection.principal)

    def check_share(self, principal: Principal, client: str) -> None:
        """Raise RefusedError where a gateway has as many connections as it may, and this would be one more."""
        most = self.settings.gateway_connections_max
        is_new = principal.is_gateway and (principal.name, client) not in self._clients
        if is_new and self._by_gateway[principal.name] >= most:
            raise RefusedError(f"{principal.name} has {most} connections already", answer=Code.QUOTA)

    def _leave_gateway(self, principal: Principal) -> None:
        if principal.is_gateway:
            self._by_gateway[principal.name] -= 1
            self._by_gateway += Counter()  # only those that have some stay

    def take_in(self, connection: Connection, *, clean: bool) -> tuple[Session, bool]:
        """Give a connection its place, which an older one loses (section 3.1.4), and its session; tell if that was there."""
        self._strangers.pop(connection, None)
        key = (connection.principal.name, connection.client)
        place = place_of(key)
        older = self._clients.get(place)
        self._clients[place] = connection
        if older is None and connection.principal.is_gateway:
            self._by_gateway[connection.principal.name] += 1
        if older is not None:
            older.leave(resumed=not clean and older.client == connection.client)
            older.end(Code.TAKEN_OVER)
        session = self.sessions.resume(key, self._loop.time(), clean=clean)
        if session is None:
            self._wills.carry_out(key)
            return Session(key), False
        self._wills.drop(key)
        return session, True

    def know(self, topic: str) -> None:
        """Remember a topic that was checked."""
        if len(self.topics) >= _TOPICS_MAX:
            self.topics.clear()
        self.topics[topic.encode()] = topic

    def leave_will(self, connection: Connection, key: Key, will: Will, delay_s: float) -> None:
        """Record the will of a client that left without a DISCONNECT; not when it was us who left."""
        client, principal = connection.client, connection.principal.name
        if not self.stopping:
            self._wills.leave(key, lambda: self.record(will_row(will, client, principal)), delay_s, size_of(will))

    def refuse(self, connection: Connection, error: PacketError, now_us: int) -> None:
        """Count a packet that could not be taken, and record it while its address has not had too many records."""
        for row in self.refused(connection, error.reason, error.message, now_us):
            self.record(row)

    def refused(self, connection: Connection, reason: Reason, detail: str, now_us: int) -> list[Row]:
        """Count a refusal and return its row; none while its address has had too many."""
        return self._refusals.rows(
            connection.address, connection.client, connection.principal.name, reason, detail, now_us
        )

    def deny(self, connection: Connection, error: RefusedError) -> None:
        """Count and log somebody who does not get in."""
        self.counters.denied += 1
        if self._refusals.may_record(connection.address, time.time_ns() // 1000):
            _log.warning("%s does not get in: %s", connection.address, error.message)

    def record(self, row: Row) -> None:
        """Add one row to the group commit."""
        self.commit.open.rows.append(row)
        self.commit.open.bytes += ROW_BYTES + len(row[1])
        self.commit.touch()

    def hold(self) -> None:
        """Read from no connection until `go_on`."""
        for connection in self._connections:
            connection.hold()

    def go_on(self) -> None:
        """Read from all connections again."""
        for connection in tuple(self._connections):
            if self.commit.full:
                break
            connection.go_on()
