"""A TCP proxy between clients and a server that can delay what passes, cut every connection, and let nobody through."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType

__all__ = ["Proxy"]


class Proxy:
    """Listens on a free port of the loopback address while the block runs. `delay_s` holds both ways [s, one way]."""

    def __init__(self, server: tuple[str, int], *, delay_s: float = 0.0) -> None:
        self.server, self.delay_s = server, delay_s
        self.address = ("127.0.0.1", 0)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._ways: set[_Way] = set()
        self._is_cut = False
        self._listening: asyncio.Server | None = None

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._do(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> None:
        """Break every connection, and let nobody through until `mend`."""
        self._do(self._cut())

    def mend(self) -> None:
        """Let clients through again."""
        self._is_cut = False

    def accept(self, near: _Way) -> bool:
        """Take a client in, unless the network is cut."""
        if not self._is_cut:
            self._ways.add(near)
        return not self._is_cut

    def forget(self, way: _Way) -> None:
        self._ways.discard(way)

    def join(self, way: _Way) -> None:
        self._ways.add(way)

    async def _open(self) -> None:
        self._listening = await self._loop.create_server(lambda: _Near(self), *self.address, backlog=1024)
        self.address = self._listening.sockets[0].getsockname()[:2]

    async def _cut(self) -> None:
        self._is_cut = True
        for way in tuple(self._ways):
            way.abort()

    async def _close(self) -> None:
        if self._listening is not None:
            self._listening.close()
        await self._cut()
        await asyncio.sleep(0)

    def _do(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)  # type: ignore[arg-type]


class _Way(asyncio.Protocol):
    """One end of a connection that passes; `other` is the end to which its bytes go."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.other: _Way | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        other = self.other
        if other is None:
            return
        if self.proxy.delay_s:
            asyncio.get_running_loop().call_later(self.proxy.delay_s, other.write, data)
        else:
            other.write(data)

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.proxy.forget(self)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class _Near(_Way):
    """The end at the client: connects to the server once it is there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self.proxy.accept(self):
            self.abort()
            return
        assert self.transport is not None
        self.transport.pause_reading()
        self._dialling = asyncio.ensure_future(self._dial())

    async def _dial(self) -> None:
        try:
            _, far = await asyncio.get_running_loop().create_connection(lambda: _Way(self.proxy), *self.proxy.server)
        except OSError:
            self.abort()
            return
        self.other, far.other = far, self
        self.proxy.join(far)
        if self.transport is None:
            far.abort()
        else:
            self.transport.resume_reading()
