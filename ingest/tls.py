"""TLS of what listens: version 1.2 and up, certificates that are read again when their files change."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from pathlib import Path

from devices.errors import ConfigError, QalaError, UnavailableError

__all__ = ["Tls", "server_context"]

_log = logging.getLogger(__name__)

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2: forward secret and authenticated; 1.3 has no others
_LOOK_S = 2.0


def server_context(certificate: Path, private_key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """Read the certificate chain, its private key, and the authorities whose client certificates are taken (all PEM).

    With `client_ca`, a client may show a certificate and does not have to; a wrong one ends the handshake. Sessions are not
    resumed: a resumed one would keep a client certificate beyond the authorities that it was checked against.

    Raises:
        UnavailableError: a file is missing or cannot be read.
        ConfigError: a file is not what it should be, or the key is that of another certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    for file in (certificate, private_key, *([client_ca] if client_ca else [])):
        _check_readable(file)
    _load_chain(context, certificate, private_key)
    if client_ca is not None:
        _load_authorities(context, client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _check_readable(file: Path) -> None:
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise UnavailableError(
            f"cannot read {file}: {error.strerror}",
            hint="name it with ingest.certificate, ingest.private_key or ingest.client_ca, and let Qala's user read it",
        ) from error


def _load_chain(context: ssl.SSLContext, certificate: Path, private_key: Path) -> None:
    try:
        context.load_cert_chain(certificate, private_key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"the key {private_key} is not that of the certificate {certificate}",
                hint="the server's own certificate comes first in its file, those of authorities after it",
            ) from error
        raise ConfigError(
            f"{certificate} and {private_key} are no certificate chain and key: {error.reason or error}",
            hint="both are PEM files, and the key has no passphrase",
        ) from error
    except OSError as error:
        raise UnavailableError(
            f"cannot read {certificate} or {private_key}: {error.strerror}", hint="try again"
        ) from error


def _load_authorities(context: ssl.SSLContext, client_ca: Path) -> None:
    try:
        context.load_verify_locations(client_ca)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(
            f"{client_ca} holds no certificates of authorities: {error}", hint="it is a PEM file of one or more"
        ) from error


class Tls:
    """A server's TLS whose files may change while it listens.

    `context` stays the same one for all listeners; each new handshake is given to the newest context that could be read.
    `trouble` says why the files as they are now cannot be used, empty: they can.
    """

    def __init__(self, certificate: Path, private_key: Path, client_ca: Path | None = None) -> None:
        """Read the files. Raises as `server_context` does."""
        self._files = (certificate, private_key, client_ca)
        self._seen = self._look()
        self._current = server_context(*self._files)
        self.context = server_context(*self._files)
        self.context.sni_callback = self._choose
        self.trouble = ""

    def refresh(self) -> bool:
        """Read the files again where they changed; tell whether new ones are in use. Blocks: for a thread."""
        seen = self._look()
        if seen == self._seen and not self.trouble:
            return False
        try:
            current = server_context(*self._files)
        except QalaError as error:
            self._complain(error)
            return False
        changed = seen != self._seen
        self._seen, self._current, self.trouble = seen, current, ""
        if changed:
            _log.info("took up the certificate in %s as it is now", self._files[0])
        return changed

    async def watch(self) -> None:
        """Look after the files every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await asyncio.to_thread(self.refresh)

    def _look(self) -> Sequence[tuple[int, int, int] | None]:
        return [_state(file) for file in self._files if file is not None]

    def _complain(self, error: QalaError) -> None:
        if error.message != self.trouble:
            _log.error("the certificate stays as it was: %s (%s)", error.message, error.hint)
        self.trouble = error.message

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Give a handshake, whatever name it asks for, to the newest context."""
        connection.context = self._current


def _state(file: Path) -> tuple[int, int, int] | None:
    """Return what changes with a file's contents: inode, size, time of the last change [ns]; None where it is missing."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
