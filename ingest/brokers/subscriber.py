"""The subscriber of an existing broker (mosquitto, EMQX, HiveMQ, VerneMQ, RabbitMQ, AWS IoT): its messages go into the journal.

A message is acknowledged to the broker after it is synced, in order, over the connection that it came by. Until then the
broker keeps it and sends it again. Whatever ends a connection, the next one is tried for ever, with growing waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ingest.brokers.connection import Bounds, BrokerConnection, Taken
from ingest.brokers.reaching import FILES, REACH, password, tls_context, unreachable, unreadable
from ingest.brokers.session import BrokerError, Plan, Session
from ingest.brokers.settings import BrokerSettings
from ingest.commit import GroupCommit
from ingest.mqtt.packets import Limits
from ingest.report import BrokerReport
from ingest.settings import is_loopback

__all__ = ["Subscriber"]

_log = logging.getLogger(__name__)

_CONNECT_S = 20.0
_STEADY_S = 10.0  # a connection that lasted so long was a good one: the next wait is short again
_GOODBYE_S = 1.0
_DICE = random.Random()  # noqa: S311 - not for secrets


class _Memory(msgspec.Struct):
    """What the broker's session may still subscribe to, of which client."""

    client: str
    filters: list[str]


class Subscriber:
    """Keeps one broker connected. Lives in the event loop of the group commit that it feeds.

    `memory` is the file in which the filters are kept that the broker's session has: the ones that leave the settings
    are unsubscribed by it.
    """

    def __init__(
        self, name: str, settings: BrokerSettings, commit: GroupCommit, *, limits: Limits, journal: str, memory: Path
    ) -> None:
        self.name = name
        self.client = settings.client_id or f"qala-{name}-{journal}"
        self.taken = Taken()
        self.error = "not connected yet"
        self.attempts = 0
        self._settings = settings
        self._commit = commit
        self._limits = limits
        self._memory = memory
        self._topics: dict[bytes, str] = {}
        self._connection: BrokerConnection | None = None
        self._since_us = 0
        self._failures = 0
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        commit.feeders.append(self)

    def start(self) -> None:
        """Connect, and stay connected."""
        address = self._settings.address
        if self._settings.password_file and not address.tls and not is_loopback(address.host):
            _log.warning("broker %s: the password crosses the network as it is: write mqtts:// in its url", self.name)
        self._task = asyncio.create_task(self._run())

    def stop_reading(self) -> None:
        """Take nothing more, and do not connect again: what was taken is about to be made durable."""
        self._stopping = True
        self.hold()

    async def stop(self) -> None:
        """Say goodbye; what was acknowledged by then is what the broker forgets."""
        self._stopping = True
        if self._connection is not None:
            await self._connection.leave(_GOODBYE_S)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def hold(self) -> None:
        """Read nothing from the broker until `go_on`."""
        if self._connection is not None:
            self._connection.hold()

    def go_on(self) -> None:
        """Read from it again."""
        if self._connection is not None and not self._stopping:
            self._connection.go_on()

    @property
    def connected(self) -> bool:
        return self._connection is not None and self._connection.ready.is_set()

    def report(self) -> BrokerReport:
        """Say how the broker is doing."""
        connection = self._connection
        said = connection.session.trouble() if connection is not None and self.connected else self.error
        return BrokerReport(
            name=self.name,
            address=self._settings.url,
            connected=self.connected,
            since_us=self._since_us,
            error=said,
            received=self.taken.messages,
            refused=self.taken.refused,
            waiting=connection.waiting if connection is not None else 0,
            attempts=self.attempts,
        )

    # ---- staying connected

    async def _run(self) -> None:
        while not self._stopping:
            self.attempts += 1
            error = await self._attend()
            if str(error) != self.error and not self._stopping:
                _log.warning("broker %s: %s", self.name, error)
            self.error = str(error)
            await asyncio.sleep(self._wait_s(error))

    async def _attend(self) -> BrokerError:
        """Connect and stay until the end; return why it ended."""
        try:
            connection = await self._connect()
        except BrokerError as refused:
            self._failures += 1
            return refused
        except Exception as caught:  # noqa: BLE001 - such as a password that no packet holds: it may be put right
            self._failures += 1
            return BrokerError(f"cannot connect: {caught}", hint=FILES, hopeless=True)
        self._connection = connection
        watch = asyncio.create_task(self._welcome(connection))
        try:
            error = await connection.ended
        finally:
            watch.cancel()
            self._connection = None
        self._failures = 1 if connection.age_s() > _STEADY_S else self._failures + 1
        if connection.ready.is_set():
            self._since_us = time.time_ns() // 1000
        return error

    async def _connect(self) -> BrokerConnection:
        """Open a connection and begin the conversation. Raises BrokerError."""
        address, loop, settings = self._settings.address, asyncio.get_running_loop(), self._settings
        bounds = Bounds(settings.buffer_max, settings.buffer_bytes_max)
        try:
            plan = await asyncio.to_thread(self._plan)
            context = await asyncio.to_thread(tls_context, settings) if address.tls else None
        except OSError as caught:
            raise unreadable(caught) from caught
        session = Session(plan, self._limits, self._topics)
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, connection = await loop.create_connection(
                    lambda: BrokerConnection(session, self._commit, bounds, self.taken),
                    address.host,
                    address.port,
                    ssl=context,
                )
        except TimeoutError as caught:
            raise BrokerError(f"no connection to {settings.url} within {_CONNECT_S:g} s", hint=REACH) from caught
        except OSError as caught:
            raise unreachable(caught, settings) from caught
        return connection

    async def _welcome(self, connection: BrokerConnection) -> None:
        """Wait until everything is subscribed, take note of it, and of what the session has from now on."""
        await connection.ready.wait()
        self._since_us = time.time_ns() // 1000
        self.error = ""
        session = connection.session
        how = "it kept our session" if session.resumed else "a new session"
        _log.info("broker %s: connected to %s as %s, %s", self.name, self._settings.url, self.client, how)
        for note in (*session.notes, session.trouble()):
            if note:
                _log.warning("broker %s: %s", self.name, note)
        try:
            await asyncio.to_thread(self._remember, self._settings.filters)
        except OSError as error:  # then it is unsubscribed from once more, which does no harm
            _log.warning("broker %s: %s was not written: %s", self.name, self._memory, error.strerror)

    def _wait_s(self, error: BrokerError) -> float:
        """Return how long to wait before the next attempt [s]: full jitter, so that many do not come at once.

        What only people can change is tried slowly from the start.
        """
        settings = self._settings
        if error.hopeless:
            return settings.reconnect_max_s * _DICE.uniform(0.5, 1.0)
        growth: float = 2.0 ** min(self._failures - 1, 32)
        return _DICE.uniform(0.0, min(settings.reconnect_first_s * growth, settings.reconnect_max_s))

    # ---- files

    def _plan(self) -> Plan:
        """Read what a connection begins with, and note the new filters before the broker knows of them. Raises OSError."""
        settings, filters = self._settings, self._settings.filters
        before = self._remembered()
        self._remember([*filters, *(each for each in before if each not in filters)])
        return Plan(
            name=self.name,
            client=self.client,
            filters=filters,
            dropped=[each for each in before if each not in filters],
            username=settings.username,
            password=password(settings),
            keep_alive_s=settings.keep_alive_s,
            session_expiry_s=settings.session_expiry_s,
            receive_max=settings.receive_max,
            packet_max=settings.packet_max,
        )

    def _remembered(self) -> list[str]:
        try:
            memory = msgspec.json.decode(self._memory.read_bytes(), type=_Memory)
        except (FileNotFoundError, msgspec.DecodeError):
            return []
        return memory.filters if memory.client == self.client else []

    def _remember(self, filters: Sequence[str]) -> None:
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        draft = self._memory.with_suffix(".new")
        draft.write_bytes(msgspec.json.encode(_Memory(self.client, list(filters))))
        draft.replace(self._memory)
