"""`qala serve`: the process that owns the store. Threads that project, compute and notify; the API on TCP and a unix socket."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from pathlib import Path

from dashboards.api.server import OverTls, make_server
from devices.errors import UnavailableError
from ingest.settings import parse_address
from ingest.tls import Tls
from qala.config import Config
from qala.process import Hold
from qala.wiring import App, build

__all__ = ["serve"]

_FORMER_S = 5.0  # how long the lock of a server that just ended is waited for
_BACKLOG = 512
_RETRY_S = (0.5, 10.0)  # first and longest wait for a store
_log = logging.getLogger(__name__)


def serve(config: Config, *, rehearse: bool = False) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reads the registry again.

    A store that cannot be reached is waited for. Raises ConflictError where another process serves the data folder,
    UnavailableError where the address is taken.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # who sees the lock may send it before there is a loop to handle it
    hold = Hold(config.folder / "serve.lock", note=config.dashboards.http, wait_s=_FORMER_S)
    app = _built(config, rehearse=rehearse)
    try:
        sockets = [*(_tcp(address) for address in _plain(config)), _unix(config.socket)]
        tls = _tls(config)
        over_tls = OverTls(_tcp(parse_address(config.dashboards.https)), tls.context) if tls else None
        app.start()
        _run(app, sockets, over_tls, tls, behind_proxy=bool(config.dashboards.hosts))
    finally:
        app.close()
        config.socket.unlink(missing_ok=True)
        hold.release()


def _built(config: Config, *, rehearse: bool) -> App:
    """Build the server, however long its store cannot be reached: the door takes messages meanwhile."""
    wait_s = _RETRY_S[0]
    while True:
        try:
            return build(config, rehearse=rehearse)
        except UnavailableError as error:
            _log.warning("%s (%s); trying again in %g s", error.message, error.hint, wait_s)
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, _RETRY_S[1])


def _plain(config: Config) -> list[tuple[str, int]]:
    return [parse_address(config.dashboards.http)] if config.dashboards.http else []


def _tls(config: Config) -> Tls | None:
    """Read the certificate where https is spoken. Raises UnavailableError or ConfigError where that cannot be."""
    if not config.dashboards.https:
        return None
    certificate, private_key = config.certificate_of_page()
    return Tls(certificate, private_key)


def _run(
    app: App, sockets: list[socket.socket], over_tls: OverTls | None, tls: Tls | None, *, behind_proxy: bool
) -> None:
    import uvloop

    server = make_server(app.api, app.hub, over_tls=over_tls, behind_proxy=behind_proxy)

    async def until_stopped() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, app.reload)
        app.reload()  # what changed while signals were ignored
        watching = asyncio.create_task(tls.watch()) if tls else None
        await server.serve(sockets=sockets)
        if watching:
            watching.cancel()

    # uvicorn raises the signal that stopped it once more, for whoever comes after it: that is us, and we know
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    uvloop.run(until_stopped())


def _tcp(address: tuple[str, int]) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
    except OSError as error:
        host, port = address
        raise UnavailableError(
            f"cannot listen on {host}:{port}: {error.strerror}",
            hint="choose another address for dashboards.http or dashboards.https",
        ) from error
    listening.listen(_BACKLOG)
    return listening


def _unix(path: Path) -> socket.socket:
    """Listen where only the owner of the data folder gets through. What lies there is of a server that is gone."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
    finally:
        os.umask(before)
    listening.listen(_BACKLOG)
    return listening
