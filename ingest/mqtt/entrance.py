"""Where the listener listens: plain TCP, TLS, and the socket in the data folder that is its owner's alone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path

from devices.errors import UnavailableError
from ingest.mqtt.refusals import Counters
from ingest.mqtt.turns import Turns, network
from ingest.settings import IngestSettings

__all__ = ["Entrances", "handshakes_waiting_max"]

_log = logging.getLogger(__name__)

_HANDSHAKE_S = 5.0  # longest time that one may take
_BACKLOG = 4096
_AGAIN_S = 0.1  # pause after a connection could not be accepted, such as for want of file descriptors
_WAITING_MAX = 4_000  # connections for TLS whose handshake has not begun; a quarter of them may have said nothing yet

Factory = Callable[[], asyncio.Protocol]


def handshakes_waiting_max(settings: IngestSettings) -> int:
    """Return how many connections may wait for a TLS handshake at one address."""
    return min(_WAITING_MAX, settings.connections_max)


class Entrances:
    """Sockets that are listened on, each with a factory that makes a protocol for whoever comes in."""

    def __init__(self, counters: Counters, settings: IngestSettings) -> None:
        self._counters = counters
        waiting_max = handshakes_waiting_max(settings)
        self._silent_max = max(waiting_max // 4, 1)
        self._turns = Turns(settings.handshakes_max, waiting_max=waiting_max - self._silent_max)
        self._handshake_s = min(settings.connect_timeout_s, _HANDSHAKE_S)
        self._shaking = 0
        self._silent: dict[asyncio.Future[None], None] = {}  # those that wait for a first byte, oldest first
        self._servers: list[asyncio.Server] = []
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def handshakes(self) -> int:
        """How many TLS handshakes go on."""
        return self._shaking

    async def open_plain(self, host: str, port: int, factory: Factory, *, setting: str = "mqtt") -> tuple[str, int]:
        """Listen on TCP and return the address. Raises UnavailableError where it is taken."""
        loop = asyncio.get_running_loop()
        sockets = _bind(host, port, setting)
        for listening in sockets:
            self._servers.append(await loop.create_server(factory, sock=listening, backlog=_BACKLOG))
        return _name(sockets[0])

    async def open_tls(
        self, host: str, port: int, factory: Factory, tls: ssl.SSLContext, *, setting: str = "mqtts"
    ) -> tuple[str, int]:
        """Listen for TLS and return the address. Raises UnavailableError where it is taken."""
        sockets = _bind(host, port, setting)
        for listening in sockets:
            listening.listen(_BACKLOG)
            self._sockets.append(listening)
            self._start(self._accept(listening, factory, tls))
        return _name(sockets[0])

    async def open_unix(self, path: Path, factory: Factory) -> None:
        """Listen where only the owner of the folder gets through. What lies there is of a door that is gone."""
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(factory, sock=_bind_unix(path), backlog=_BACKLOG)
        self._servers.append(server)

    async def close(self) -> None:
        """Accept nobody any more; handshakes that are not done are broken off."""
        for server in self._servers:
            server.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listening in self._sockets:
            listening.close()

    def _start(self, job: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listening: socket.socket, factory: Factory, tls: ssl.SSLContext) -> None:
        """Accept one connection after another."""
        loop = asyncio.get_running_loop()
        failing = False
        while True:
            try:
                accepted, address = await loop.sock_accept(listening)
            except OSError as error:
                if not failing:
                    _log.warning("could not accept a TLS connection: %s", error)
                failing = True
                await asyncio.sleep(_AGAIN_S)
            else:
                failing = False
                self._start(self._welcome(accepted, network(str(address[0])), factory, tls))

    async def _welcome(self, accepted: socket.socket, origin: str, factory: Factory, tls: ssl.SSLContext) -> None:
        """Shake hands with who has begun to, when its turn comes: silence takes no turn from anybody."""
        try:
            async with asyncio.timeout(self._handshake_s):
                await self._first_byte(accepted)
            async with self._turns.of(origin):
                await self._shake_hands(accepted, factory, tls)
        except (OSError, asyncio.CancelledError) as error:  # TimeoutError is an OSError
            self._counters.handshakes_failed += 1
            accepted.close()
            if isinstance(error, asyncio.CancelledError):
                raise

    async def _first_byte(self, accepted: socket.socket) -> None:
        """Wait until there is something to read. Of too many that wait, the oldest goes. Raises ConnectionError then."""
        loop = asyncio.get_running_loop()
        readable: asyncio.Future[None] = loop.create_future()
        if len(self._silent) >= self._silent_max:
            oldest = next(iter(self._silent))
            del self._silent[oldest]
            if not oldest.done():
                oldest.set_exception(ConnectionAbortedError("too many say nothing"))
        self._silent[readable] = None
        loop.add_reader(accepted, _settle, readable)
        try:
            await readable
        finally:
            loop.remove_reader(accepted)
            self._silent.pop(readable, None)

    async def _shake_hands(self, accepted: socket.socket, factory: Factory, tls: ssl.SSLContext) -> None:
        self._shaking += 1
        try:
            async with asyncio.timeout(self._handshake_s):
                await asyncio.get_running_loop().connect_accepted_socket(factory, accepted, ssl=tls)
        finally:
            self._shaking -= 1


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _bind(host: str, port: int, setting: str) -> list[socket.socket]:
    """Bind a socket for each address that a host name stands for; one where the port is to be a free one."""
    found: list[socket.socket] = []
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in infos[: 1 if port == 0 else None]:
            found.append(_bound(family, address))
    except OSError as error:
        for listening in found:
            listening.close()
        raise UnavailableError(
            f"cannot listen on {host}:{port}: {error.strerror}",
            hint=f"another broker or door may use it; choose another port with `{setting}`",
        ) from error
    return found


def _bind_unix(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
    except OSError as error:
        listening.close()
        raise UnavailableError(
            f"cannot listen on {path}: {error.strerror or error}",
            hint="its folder must exist and belong to you, and its path be shorter than 108 bytes",
        ) from error
    finally:
        os.umask(before)
    return listening


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    listening = socket.socket(family)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            with contextlib.suppress(OSError):
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
    except OSError:
        listening.close()
        raise
    return listening


def _name(listening: socket.socket) -> tuple[str, int]:
    address: tuple[str, int] = listening.getsockname()[:2]
    return address
