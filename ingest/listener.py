"""The durable MQTT endpoint that sensors connect to: 3.1.1 and 5.0 on one port, QoS 0 and 1.

A PUBACK is sent after the message is synced in the journal, never before. Nothing is looked up and no payload is read
here. Subscriptions are refused: there is nothing to subscribe to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

import msgspec

from devices.errors import UnavailableError
from ingest.commit import ROW_BYTES, GroupCommit
from ingest.connection import Connection, properties_of
from ingest.message import MessageType, Source
from ingest.packets import Limits, Will
from ingest.segments import Row
from ingest.settings import IngestSettings, parse_address
from ingest.wire import Code, PacketError

__all__ = ["Counters", "Listener"]

_log = logging.getLogger(__name__)

_TOPICS_MAX = 100_000
_ADDRESSES_MAX = 10_000
_DETAIL_MAX = 200
_GOODBYE_S = 1.0
_MINUTE_US = 60_000_000


class Counters(msgspec.Struct):
    """What the listener has turned down since it started."""

    refused: int = 0
    refused_unrecorded: int = 0  # among the refused: those over the limit of records, only counted
    turned_away: int = 0  # connections over the limit


class Listener:
    """Accepts connections and gathers what they publish in a group commit. Lives in one event loop."""

    def __init__(self, settings: IngestSettings, commit: GroupCommit) -> None:
        self.settings = settings
        self.limits = Limits(topic_max=settings.topic_max, payload_max=settings.payload_max)
        self.counters = Counters()
        self.topics: dict[bytes, str] = {}  # topics that were checked, so that the quick way knows them
        self.stopping = False
        self.commit = commit
        commit.feeders.append(self)
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._clients: dict[str, Connection] = {}
        self._server: asyncio.Server | None = None
        self._minute = 0
        self._records: dict[str, int] = {}  # address -> refusals recorded in this minute

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    async def start(self) -> tuple[str, int]:
        """Listen, and return the address; port 0 in the settings becomes a free one.

        Raises:
            UnavailableError: the address is taken.
        """
        host, port = parse_address(self.settings.mqtt)
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: Connection(self, loop), host, port, backlog=1024)
        except OSError as error:
            raise UnavailableError(
                f"cannot listen on {self.settings.mqtt}: {error.strerror}",
                hint="another broker or door may use it; choose another port with `mqtt`",
            ) from error
        address: tuple[str, int] = self._server.sockets[0].getsockname()[:2]
        return address

    async def stop(self, *, within_s: float = 3.0) -> None:
        """Accept no more, make what was taken durable and acknowledge it, say goodbye to all clients."""
        self.stopping = True
        if self._server is not None:
            self._server.close()
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

    def admit(self, connection: Connection) -> bool:
        """Take a new connection in, unless there are too many or the door is closing."""
        if self.stopping or len(self._connections) >= self.settings.connections_max:
            self.counters.turned_away += 1
            return False
        self._connections.add(connection)
        self._empty.clear()
        return True

    def forget(self, connection: Connection) -> None:
        """Take note that a connection is gone."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()
        if self._clients.get(connection.client) is connection:
            del self._clients[connection.client]

    def take_over(self, connection: Connection) -> None:
        """Make a connection its client id's only one: an older one ends (section 3.1.4)."""
        older = self._clients.get(connection.client)
        self._clients[connection.client] = connection
        if older is not None:
            older.end(Code.TAKEN_OVER)

    def know(self, topic: str) -> None:
        """Remember a topic that was checked."""
        if len(self.topics) >= _TOPICS_MAX:
            self.topics.clear()
        self.topics[topic.encode()] = topic

    def record_will(self, connection: Connection, will: Will) -> None:
        """Record the will of a client that left without a DISCONNECT; not when it was us who left."""
        if self.stopping:
            return
        self._record(
            (
                will.topic,
                will.payload,
                time.time_ns() // 1000,
                connection.client,
                connection.principal,
                Source.LISTENER,
                MessageType.WILL,
                will.qos,
                will.retained,
                False,
                properties_of(will.properties),
            )
        )

    def refuse(self, connection: Connection, error: PacketError, now_us: int) -> None:
        """Count a packet that could not be taken, and record it while its address has not had too many records."""
        self.counters.refused += 1
        if not self._may_record(connection.address, now_us):
            self.counters.refused_unrecorded += 1
            return
        self._record(
            (
                "",
                b"",
                now_us,
                connection.client,
                connection.principal,
                Source.LISTENER,
                MessageType.REFUSED,
                0,
                False,
                False,
                {"reason": error.reason.value, "detail": error.message[:_DETAIL_MAX]},
            )
        )

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

    def _may_record(self, address: str, now_us: int) -> bool:
        minute = now_us // _MINUTE_US
        if minute != self._minute:
            self._minute = minute
            self._records.clear()
        records = self._records.get(address, 0)
        if records >= self.settings.refused_per_minute or (not records and len(self._records) >= _ADDRESSES_MAX):
            return False
        self._records[address] = records + 1
        return True

    def _record(self, row: Row) -> None:
        self.commit.open.rows.append(row)
        self.commit.open.bytes += ROW_BYTES + len(row[1])
        self.commit.touch()
