"""The two endpoints that are measured as such: our door alone, and mosquitto, which acknowledges from memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from qala.bench.peers import Mosquitto, Process
from qala.bench.processes import free_port

__all__ = ["ENDPOINTS", "Endpoint", "make_certificate"]


class Endpoint(msgspec.Struct, frozen=True):
    """Where it listens with MQTT, and its process. `tls` is None where it has no certificate."""

    name: str
    mqtt: tuple[str, int]
    pid: int
    tls: tuple[str, int] | None = None


@contextmanager
def _door(folder: Path, certificate: Path | None) -> Iterator[Endpoint]:
    ports = free_port(), free_port()
    settings = {"QALA_DATA": str(folder / "data"), "QALA_INGEST__MQTT": f"127.0.0.1:{ports[0]}"}
    settings["QALA_INGEST__CONNECTIONS_MAX"] = "20000"
    if certificate is not None:
        settings["QALA_INGEST__MQTTS"] = f"127.0.0.1:{ports[1]}"
        settings["QALA_INGEST__CERTIFICATE"] = str(certificate)
        settings["QALA_INGEST__PRIVATE_KEY"] = str(certificate.with_suffix(".key"))
    door = Process("qala door", folder / "door.log", environment=_without_qala() | settings)
    try:
        door.run([sys.executable, "-m", "qala", "door"], ports[0])
        yield Endpoint("qala", ("127.0.0.1", ports[0]), door.pid, ("127.0.0.1", ports[1]) if certificate else None)
    finally:
        door.stop()


@contextmanager
def _mosquitto(folder: Path, certificate: Path | None) -> Iterator[Endpoint]:
    broker = Mosquitto(folder, certificate=certificate)
    try:
        broker.start()
        yield Endpoint("mosquitto", broker.address, broker.pid, ("127.0.0.1", broker.tls_port) if certificate else None)
    finally:
        broker.stop()


ENDPOINTS: Mapping[str, Callable[[Path, Path | None], AbstractContextManager[Endpoint]]] = {
    "qala": _door,
    "mosquitto": _mosquitto,
}
"""By name: runs an endpoint in an empty folder, with a certificate or without, until the end of the block."""


def make_certificate(folder: Path) -> Path:
    """Make a certificate for 127.0.0.1 (PEM) and its key beside it (.key), with the openssl of the machine."""
    certificate, key = folder / "server.pem", folder / "server.key"
    what = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    where = ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=127.0.0.1"]
    subprocess.run(["openssl", *what, *where], check=True, capture_output=True)  # noqa: S603, S607
    key.chmod(0o644)  # mosquitto gives its rights up before it reads it; the key lives for one bench
    return certificate


def _without_qala() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("QALA_")}
