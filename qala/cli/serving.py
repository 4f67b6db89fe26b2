"""Commands that run something until they are stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qala.cli.reaching import CaOption, ElsewhereOption, PasswordFileOption, UsernameOption, publisher
from qala.cli.shell import (
    ConfigOption,
    DataOption,
    HttpOption,
    MqttOption,
    ParentOption,
    StoreOption,
    app,
    configuration,
    say,
    tell,
)

if TYPE_CHECKING:
    from ingest.settings import IngestSettings
    from qala.config import Config

RehearseOption = Annotated[bool, typer.Option("--rehearse", help="With the rehearsal city and its sensors.")]

_FORMER_S = 5.0  # how long the locks of a process that just ended are waited for


@app.command()
def run(
    config: ConfigOption = None,
    data: DataOption = None,
    http: HttpOption = None,
    mqtt: MqttOption = None,
    store: StoreOption = None,
    rehearse: RehearseOption = False,
) -> None:
    """Run the whole of Qala: the door and the server, restarted when one of them dies."""
    from qala.run import run as run_children

    loaded = configuration(config, data, http=http, mqtt=mqtt, store=store)
    _log_as(loaded)
    flags = _flags(config=config, data=data, http=http, mqtt=mqtt, store=store)

    def ready(seconds: float) -> None:
        if loaded.log.format == "json":
            say(f"Qala is running (ready in {seconds:.1f} s)")
            return
        _announce(loaded, seconds)

    say("starting")
    guest = _flags(config=config, data=data) if rehearse else None
    raise typer.Exit(run_children(loaded, flags, guest=guest, say=say, ready=ready))


@app.command()
def door(
    config: ConfigOption = None,
    data: DataOption = None,
    mqtt: MqttOption = None,
    http: HttpOption = None,
    store: StoreOption = None,
    parent: ParentOption = None,
) -> None:
    """Run the door alone: it takes messages over MQTT and makes them durable."""
    _follow(parent)
    from ingest.door import serve_door
    from qala.process import Hold

    loaded = configuration(config, data, mqtt=mqtt, http=http, store=store)
    _log_as(loaded)
    hold = Hold(loaded.folder / "door.lock", note=loaded.ingest.mqtt, wait_s=_FORMER_S)
    serve_door(loaded.ingest, loaded.folder, loaded.state_url)
    hold.release()


@app.command()
def serve(
    config: ConfigOption = None,
    data: DataOption = None,
    http: HttpOption = None,
    mqtt: MqttOption = None,
    store: StoreOption = None,
    rehearse: RehearseOption = False,
    parent: ParentOption = None,
) -> None:
    """Run the server alone: it projects the journal, computes indicators and alerts, and answers the API and the page."""
    _follow(parent)
    from devices.errors import CorruptError, VersionError
    from qala.process import DAMAGED
    from qala.serve import serve as serve_until_stopped

    loaded = configuration(config, data, http=http, mqtt=mqtt, store=store)
    _log_as(loaded)
    try:
        serve_until_stopped(loaded, rehearse=rehearse)
    except (CorruptError, VersionError) as error:
        tell(error)
        raise typer.Exit(DAMAGED) from error


@app.command()
def rehearse(
    config: ConfigOption = None,
    data: DataOption = None,
    mqtt: ElsewhereOption = None,
    username: UsernameOption = None,
    password_file: PasswordFileOption = None,
    ca: CaOption = None,
    parent: ParentOption = None,
) -> None:
    """Publish the rehearsal city's last 48 hours over MQTT, as far as they are missing, then live on in real time."""
    _follow(parent)
    from qala.rehearse import rehearse as publish

    loaded = configuration(config, data)
    _log_as(loaded)
    way = publisher(loaded, "rehearsal-city", mqtt=mqtt, username=username, password_file=password_file, ca=ca)
    publish(loaded, way, say=say)


def _log_as(config: Config) -> None:
    """Log as the settings say, from here on."""
    from qala.logs import known_secrets, setup

    setup(config.log.format, config.log.level, secrets=known_secrets(config))


def _follow(parent: int | None) -> None:
    if parent is not None:
        from qala.process import end_with_parent

        end_with_parent(parent)


def _flags(**given: str | Path | None) -> list[str]:
    return [part for name, value in given.items() if value is not None for part in (f"--{name}", str(value))]


def _sensors(ingest: IngestSettings) -> str:
    """List where sensors connect."""
    ways = {"mqtt": ingest.mqtt, "mqtts": ingest.mqtts, "http": ingest.http, "https": ingest.https}
    return "  ".join(f"{scheme}://{address}" for scheme, address in ways.items() if address)


def _announce(loaded: Config, seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    pages = {"http": loaded.dashboards.http, "https": loaded.dashboards.https}
    table.add_row("  page", "  ".join(f"[bold]{scheme}://{at}/[/]" for scheme, at in pages.items() if at))
    if loaded.dashboards.asks_tokens(insecure=loaded.insecure):
        table.add_row("  sign in", "with a token: qala token issue NAME --scope operate")
    table.add_row("  sensors", _sensors(loaded.ingest) or "none but the owner's socket")
    table.add_row("  data", str(loaded.folder))
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold green]Qala is running[/] (ready in {seconds:.1f} s; Ctrl-C stops it)")
    console.print(table)
