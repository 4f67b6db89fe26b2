"""The HTTP server: uvicorn that ends its live streams when it is told to stop."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI

from dashboards.live import Hub

__all__ = ["Server", "make_server"]

_DRAIN_S = 1  # how long open answers may take when the server stops


class Server(uvicorn.Server):
    """uvicorn waits for open answers before it stops; a live stream is one that never ends by itself."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the live streams, then finish the other answers and stop."""
        self._hub.close()
        await super().shutdown(sockets)


def make_server(app: FastAPI, hub: Hub) -> Server:
    """Make a server; `await server.serve(sockets=[...])` answers on any number of TCP and unix sockets."""
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_DRAIN_S,
        ws="none",
    )
    return Server(config, hub)
