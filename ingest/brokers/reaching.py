"""How an existing broker is reached: its TLS, what keeps us from it, and a trial of both without taking anything."""

from __future__ import annotations

import socket
import ssl
import time

from ingest.brokers.session import BrokerError, Phase, Plan, Session
from ingest.brokers.settings import BrokerSettings
from ingest.mqtt.packets import Limits

__all__ = ["FILES", "REACH", "password", "tls_context", "try_broker", "unreachable", "unreadable"]

REACH = "is it running, and is the url right?"
FILES = "check password_file, ca, certificate and private_key, and that the data folder can be written"
_TRIAL_S = 5.0


def tls_context(settings: BrokerSettings) -> ssl.SSLContext:
    """Make a context that trusts nobody but the authorities. Files are read anew each time. Raises OSError."""
    context = ssl.create_default_context(cafile=settings.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.certificate is not None:
        context.load_cert_chain(settings.certificate, settings.private_key)
    return context


def password(settings: BrokerSettings) -> bytes:
    """Read the password; empty where there is none. Raises OSError."""
    return settings.password_file.read_bytes().rstrip(b"\r\n") if settings.password_file else b""


def unreadable(error: OSError) -> BrokerError:
    """Say which of a broker's files cannot be read."""
    where = f"{error.filename}: " if error.filename else ""
    return BrokerError(f"cannot read its files: {where}{error.strerror}", hint=FILES, hopeless=True)


def unreachable(error: OSError, settings: BrokerSettings) -> BrokerError:
    """Say why a broker is not reached."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return BrokerError(
            f"its certificate is not to be trusted: {error.verify_message}",
            hint="name its authority with `ca`, and its host as its certificate does",
            hopeless=True,
        )
    if isinstance(error, TimeoutError):
        return BrokerError(f"no answer from {settings.url} in time", hint=REACH)
    return BrokerError(f"cannot reach {settings.url}: {error.strerror or error}", hint=REACH)


def try_broker(name: str, settings: BrokerSettings, *, within_s: float = _TRIAL_S) -> str:
    """Connect to a broker while no door does, hang up again, and return as which client it let us in. Raises BrokerError.

    Nothing is subscribed to or acknowledged. A client id of the settings is used as it is, since brokers may bind a
    credential to it, and its session stays; without one it is an id, and a session, that end with the trial.
    """
    client = settings.client_id or f"qala-{name}-trial"
    try:
        secret = password(settings)
        context = tls_context(settings) if settings.address.tls else None
    except OSError as error:
        raise unreadable(error) from error
    plan = Plan(
        name=name,
        client=client,
        filters=(),
        username=settings.username,
        password=secret,
        session_expiry_s=settings.session_expiry_s if settings.client_id else 0,
        receive_max=1,
        packet_max=settings.packet_max,
    )
    try:
        _converse(Session(plan, Limits()), settings, context, within_s)
    except OSError as error:
        raise unreachable(error, settings) from error
    return client


def _converse(session: Session, settings: BrokerSettings, context: ssl.SSLContext | None, within_s: float) -> None:
    """Say hello, hear the answer, and say goodbye. Raises BrokerError, OSError."""
    deadline = time.monotonic() + within_s
    host, port, _ = settings.address
    with socket.create_connection((host, port), within_s) as plain:
        link = context.wrap_socket(plain, server_hostname=host) if context is not None else plain
        with link:
            link.sendall(b"".join(session.out))
            data = b""
            while session.phase is Phase.CONNECTING:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError
                link.settimeout(left_s)
                more = link.recv(65_536)
                if not more:
                    raise BrokerError("it hung up without an answer", hint="see the broker's log")
                data += more
                data = data[session.take(data, 0, [], [], 0) :]
            link.sendall(session.leave())
