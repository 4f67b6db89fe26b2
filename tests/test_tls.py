"""TLS of what listens, with real handshakes: versions, client certificates, and files that change meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from devices.errors import ConfigError, UnavailableError
from ingest.tls import Tls, server_context
from tests.pki import Authority, Pair

Address = tuple[str, int]


@contextlib.contextmanager
def echoing(tls: Tls, *, loop: asyncio.AbstractEventLoop | None = None) -> Iterator[Address]:
    """Answer every line over TLS with the name in the client's certificate, and the line."""
    running = loop or asyncio.new_event_loop()
    thread = threading.Thread(target=running.run_forever)
    thread.start()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown = writer.get_extra_info("peercert") or {}
        names = [value for part in shown.get("subject", ()) for key, value in part if key == "commonName"]
        while line := await reader.readline():
            writer.write(" ".join(names).encode() + b":" + line)
            await writer.drain()
        writer.close()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls.context)

    async def stop() -> None:
        server.close()
        ours = asyncio.current_task()
        for task in asyncio.all_tasks() - {ours}:
            task.cancel()
        await asyncio.sleep(0.01)

    server = asyncio.run_coroutine_threadsafe(start(), running).result(10)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        asyncio.run_coroutine_threadsafe(stop(), running).result(10)
        running.call_soon_threadsafe(running.stop)
        thread.join(10)
        running.close()


def dial(
    address: Address,
    context: ssl.SSLContext,
    name: str | None = "localhost",
    session: ssl.SSLSession | None = None,
) -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection(address, timeout=10), server_hostname=name, session=session)


def is_answered(address: Address, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> bool:
    """Tell whether a client gets through; with TLS 1.3 it learns that only when it reads."""
    try:
        with dial(address, context, session=session) as client:
            return bool(ask(client))
    except (ssl.SSLError, ConnectionError):
        return False


def ask(connection: ssl.SSLSocket, line: bytes = b"hello\n") -> bytes:
    """Send a line and return the answer; empty where the other end closes."""
    connection.sendall(line)
    return connection.recv(1000)


def serial(connection: ssl.SSLSocket) -> object:
    return (connection.getpeercert() or {})["serialNumber"]


def put(source: Pair, target: Pair) -> None:
    """Put other files in place of those that are there, as a certificate's renewal does."""
    for new, old in zip(source, target, strict=True):
        draft = old.with_suffix(".new")
        shutil.copyfile(new, draft)
        draft.replace(old)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_of_today_is_spoken(tmp_path: Path, version: ssl.TLSVersion) -> None:
    authority = Authority(tmp_path)
    context = authority.trust()
    context.minimum_version = context.maximum_version = version
    with echoing(Tls(*authority.server())) as address, dial(address, context) as client:
        assert ask(client) == b":hello\n"
        assert client.version() == {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[version]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1")
def test_tls_1_1_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = authority.trust()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2
    with echoing(Tls(*authority.server())) as address:
        with dial(address, context) as client:
            assert client.version() == "TLSv1.2"
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError):
            dial(address, context)


@pytest.mark.parametrize("suite", ["AES128-SHA256", "ECDHE-ECDSA-AES128-SHA256", "aNULL"])
def test_ciphers_without_forward_secrecy_or_authentication_are_refused(tmp_path: Path, suite: str) -> None:
    authority = Authority(tmp_path)
    context = authority.trust()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{suite}:@SECLEVEL=0")
    with echoing(Tls(*authority.server())) as address, pytest.raises(ssl.SSLError):
        dial(address, context)


@pytest.mark.parametrize("make", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("name", ["localhost", None], ids=["by name", "by no name"])
def test_a_renewed_certificate_is_taken_up_while_clients_stay(
    tmp_path: Path, make: type[asyncio.AbstractEventLoop], name: str | None
) -> None:
    authority = Authority(tmp_path)
    files, renewed = authority.server(), authority.server()
    tls, context = Tls(*files), authority.trust()
    context.check_hostname = name is not None
    with echoing(tls, loop=make()) as address, dial(address, context, name) as old:
        assert ask(old) == b":hello\n"
        assert not tls.refresh()
        put(renewed, files)
        assert tls.refresh()
        with dial(address, context, name) as new:
            assert ask(new) == b":hello\n"
            assert serial(new) != serial(old)
        assert ask(old) == b":hello\n"


@pytest.mark.parametrize("spoil", ["certificate", "private_key"])
def test_a_broken_new_file_leaves_the_old_one_in_use_and_is_told_once(
    tmp_path: Path, spoil: str, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    files, other = authority.server(), authority.server()
    tls = Tls(*files)
    whole = getattr(files, spoil).read_bytes()
    with echoing(tls) as address:
        getattr(files, spoil).write_bytes(getattr(other, spoil).read_bytes())  # half of a renewal
        with caplog.at_level(logging.ERROR):
            assert not tls.refresh()
            assert not tls.refresh()
        assert "is not that of the certificate" in tls.trouble
        assert len(caplog.records) == 1
        with dial(address, authority.trust()) as client:
            assert ask(client) == b":hello\n"
        getattr(files, spoil).write_bytes(whole)
        assert tls.refresh()
        assert tls.trouble == ""


def test_a_client_may_show_a_certificate_of_a_known_authority_and_no_other(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    own, foreign = authority.client("demo/d-1"), stranger.client("demo/d-1")
    with echoing(Tls(*authority.server(), authority.file)) as address:
        with dial(address, authority.trust()) as client:
            assert ask(client) == b":hello\n"
        with dial(address, authority.trust(own)) as client:
            assert ask(client) == b"demo/d-1:hello\n"
        assert not is_answered(address, authority.trust(foreign))


def test_an_authority_that_was_taken_away_vouches_for_nobody_any_more(tmp_path: Path) -> None:
    authority, later = Authority(tmp_path), Authority(tmp_path, "later")
    trusted = tmp_path / "trusted.pem"
    shutil.copyfile(authority.file, trusted)
    tls = Tls(*authority.server(), trusted)
    with echoing(tls) as address:
        context = authority.trust(authority.client("demo/d-1"))
        with dial(address, context) as client:
            assert ask(client) == b"demo/d-1:hello\n"
            session = client.session
        shutil.copyfile(later.file, trusted)
        assert tls.refresh()
        assert not is_answered(address, context, session)
        with dial(address, authority.trust(later.client("demo/d-2"))) as client:
            assert ask(client) == b"demo/d-2:hello\n"


def spoiled(folder: Path, what: str) -> tuple[Path, Path, Path | None]:
    """Return files of which one is wrong."""
    authority = Authority(folder)
    server, other = authority.server(), authority.server()
    noise = folder / "noise.pem"
    noise.write_text("no PEM at all")
    return {
        "missing": (folder / "nowhere.pem", server.private_key, None),
        "of another": (server.certificate, other.private_key, None),
        "no PEM": (noise, server.private_key, None),
        "passphrase": (*authority.server(passphrase=b"open sesame"), None),
        "authority": (*server, noise),
        "folder": (folder, server.private_key, None),
    }[what]


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        pytest.param("missing", UnavailableError, "cannot read .*nowhere.pem", id="a missing file"),
        pytest.param("folder", UnavailableError, "cannot read", id="a folder"),
        pytest.param("of another", ConfigError, "is not that of the certificate", id="the key of another certificate"),
        pytest.param("no PEM", ConfigError, "no certificate chain and key", id="a file that is none"),
        pytest.param("passphrase", ConfigError, "no certificate chain and key", id="a key with a passphrase"),
        pytest.param("authority", ConfigError, "no certificates of authorities", id="authorities that are none"),
    ],
)
def test_files_that_cannot_be_used_are_named_with_a_hint(
    tmp_path: Path, what: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        server_context(*spoiled(tmp_path, what))
    assert getattr(caught.value, "hint", "")
