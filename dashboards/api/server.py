"""The HTTP server: uvicorn that speaks TLS on some of its sockets, and ends its live streams when it is told to stop."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import NamedTuple

import uvicorn
from fastapi import FastAPI

from dashboards.live import Hub

__all__ = ["OverTls", "Server", "make_server"]

_DRAIN_S = 1  # how long open answers may take when the server stops
_HANDSHAKE_S = 10.0
_PROXIES = ["127.0.0.1", "::1"]


class OverTls(NamedTuple):
    """A TCP socket that listens, and what TLS it speaks."""

    socket: socket.socket
    context: ssl.SSLContext


class Server(uvicorn.Server):
    """uvicorn has one TLS context for all of its sockets, while the owner's is plain; so it gets those over TLS here.

    It waits for open answers before it stops; a live stream is one that never ends by itself.
    """

    def __init__(self, config: uvicorn.Config, hub: Hub, over_tls: OverTls | None) -> None:
        super().__init__(config)
        self._hub = hub
        self._over_tls = over_tls

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer on the plain sockets, and on the one over TLS."""
        await super().startup(sockets)
        if self._over_tls is not None:
            listening, context = self._over_tls
            loop = asyncio.get_running_loop()
            self.servers.append(
                await loop.create_server(
                    self._protocol, sock=listening, ssl=context, ssl_handshake_timeout=_HANDSHAKE_S
                )
            )

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the live streams, then finish the other answers and stop."""
        self._hub.close()
        await super().shutdown(sockets)


def make_server(app: FastAPI, hub: Hub, *, over_tls: OverTls | None = None, behind_proxy: bool = False) -> Server:
    """Make a server; `await server.serve(sockets=[...])` answers on any number of plain TCP and unix sockets.

    With `behind_proxy`, a proxy on this machine is believed whom it asks for (X-Forwarded-For, X-Forwarded-Proto).
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=behind_proxy,
        forwarded_allow_ips=_PROXIES,
        timeout_graceful_shutdown=_DRAIN_S,
        ws="none",
    )
    return Server(config, hub, over_tls)
