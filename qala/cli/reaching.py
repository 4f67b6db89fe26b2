"""How commands that publish reach a door: that of the data folder over its socket, or another one over the network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from devices.errors import ConfigError

if TYPE_CHECKING:
    from qala.config import Config
    from qala.publisher import Publisher

__all__ = ["CaOption", "ElsewhereOption", "PasswordFileOption", "UsernameOption", "publisher"]

ElsewhereOption = Annotated[
    str | None,
    typer.Option("--mqtt", help="Another door; by default that of the data folder.", metavar="HOST:PORT"),
]
UsernameOption = Annotated[str | None, typer.Option("--username", help="Device or gateway, for another door.")]
PasswordFileOption = Annotated[
    Path | None,
    typer.Option(
        "--password-file", help="File whose first line is its token.", exists=True, dir_okay=False, metavar="FILE"
    ),
]
CaOption = Annotated[
    Path | None,
    typer.Option("--ca", help="Authority (PEM) of the other door's certificate; speaks TLS.", metavar="FILE"),
]

_IN_FLIGHT = 1000


def publisher(
    config: Config,
    client_id: str,
    *,
    mqtt: str | None,
    username: str | None = None,
    password_file: Path | None = None,
    ca: Path | None = None,
) -> Publisher:
    """Make the publisher that the options of a command ask for. Raises ConfigError where they contradict each other."""
    from ingest.settings import parse_address
    from qala.publisher import Login, Publisher

    if mqtt is None:
        if username or password_file or ca:
            raise ConfigError("who needs no credential shows none", hint="name the other door with --mqtt HOST:PORT")
        return Publisher(config.mqtt_socket, client_id=client_id, in_flight=_IN_FLIGHT)
    host, port = parse_address(mqtt)
    login = Login(username, _first_line(password_file), ca)
    return Publisher(host, port, client_id=client_id, in_flight=_IN_FLIGHT, login=login)


def _first_line(file: Path | None) -> str | None:
    if file is None:
        return None
    return file.read_text("utf-8").partition("\n")[0].strip()
