"""Commands that list what is there, and the few that change it."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from devices.errors import ConfigError
from qala.cli.shell import (
    ConfigOption,
    DataOption,
    JsonOption,
    LimitOption,
    app,
    ask,
    configuration,
    say,
    show,
)

devices = typer.Typer(help="Devices of the registry, and candidates for it.", no_args_is_help=True)
alerts = typer.Typer(help="Alert episodes.", no_args_is_help=True)
app.add_typer(devices, name="devices")
app.add_typer(alerts, name="alerts")
rules = typer.Typer(help="Alert rules.", no_args_is_help=True)
app.add_typer(rules, name="rules")


@devices.command("ls")
def devices_ls(
    config: ConfigOption = None,
    data: DataOption = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Only of this kind.")] = None,
    zone: Annotated[str | None, typer.Option("--zone", help="Only in this zone.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="live, late, silent or never.")] = None,
    limit: LimitOption = 10_000,
    as_json: JsonOption = False,
) -> None:
    """List the devices of the registry and how they are."""
    rows = ask(config, data, lambda api: api.items("/devices", limit=limit, kind=kind, zone=zone, state=state))
    show(rows, ["id", "kind", "name", "state", "last_time", "zones"], as_json=as_json)


@devices.command("candidates")
def devices_candidates(
    config: ConfigOption = None, data: DataOption = None, limit: LimitOption = 10_000, as_json: JsonOption = False
) -> None:
    """List devices that sent messages and are not in the registry."""
    rows = ask(config, data, lambda api: api.items("/candidates", limit=limit))
    show(rows, ["device", "first", "last", "messages"], as_json=as_json)


@devices.command("import")
def devices_import(
    devices_file: Annotated[Path | None, typer.Argument(metavar="[DEVICES]", help="Devices file, CSV or YAML.")] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    zones: Annotated[Path | None, typer.Option("--zones", help="Zones file, GeoJSON.", metavar="FILE")] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the registry to what files declare; a running server takes it up and replays what was rejected before."""
    from qala.declared import import_files

    done = import_files(configuration(config, data), devices_file, zones)
    show([done], ["devices", "zones", "changes"], as_json=as_json)


@devices.command("admit")
def devices_admit(
    device: Annotated[str, typer.Argument(metavar="FLEET/DEVICE", help="The device.")],
    kind: Annotated[str, typer.Option("--kind", help="Its kind.")],
    config: ConfigOption = None,
    data: DataOption = None,
    name: Annotated[str | None, typer.Option("--name", help="What people call it.")] = None,
    zones: Annotated[
        list[str] | None, typer.Option("--zone", help="A zone it stands in; several may be given.")
    ] = None,
    interval_s: Annotated[int | None, typer.Option("--interval", min=1, help="Seconds between its readings.")] = None,
    lat: Annotated[float | None, typer.Option("--lat", help="Latitude [deg].")] = None,
    lon: Annotated[float | None, typer.Option("--lon", help="Longitude [deg].")] = None,
    as_json: JsonOption = False,
) -> None:
    """Take a device into the registry and replay what it sent before."""
    given = {"name": name, "zones": zones or None, "interval_s": interval_s, "lat": lat, "lon": lon}
    body = {"id": device, "kind": kind} | {key: value for key, value in given.items() if value is not None}
    done = ask(config, data, lambda api: api.post("/devices", body))
    row = {**done.pop("device"), **done}
    show([row], ["id", "kind", "state", "zones", "replayed", "accepted", "still_rejected"], as_json=as_json)


@alerts.command("ls")
def alerts_ls(
    config: ConfigOption = None,
    data: DataOption = None,
    state: Annotated[str, typer.Option("--state", help="firing, ended, withdrawn or all.")] = "firing",
    limit: LimitOption = 100,
    as_json: JsonOption = False,
) -> None:
    """List alert episodes, newest first."""
    rows = ask(config, data, lambda api: api.items("/alerts", limit=limit, state=state))
    show(rows, ["id", "severity", "title", "zone", "state", "start", "end", "value", "unit"], as_json=as_json)


@alerts.command("ack")
def alerts_ack(
    alert: Annotated[str, typer.Argument(metavar="ID", help="The episode, as `alerts ls` lists it.")],
    config: ConfigOption = None,
    data: DataOption = None,
    comment: Annotated[str, typer.Option("--comment", help="What is being done about it.")] = "",
    actor: Annotated[str | None, typer.Option("--actor", help="Who acknowledges; by default the user.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Acknowledge an alert: somebody is looking after it."""
    body = {"actor": actor or getpass.getuser(), "comment": comment}
    row = ask(config, data, lambda api: api.post(f"/alerts/{alert}/acknowledge", body))
    show([row], ["id", "title", "zone", "state", "acknowledged"], as_json=as_json)


@rules.command("ls")
def rules_ls(
    config: ConfigOption = None, data: DataOption = None, limit: LimitOption = 10_000, as_json: JsonOption = False
) -> None:
    """List the rules that are on."""
    rows = ask(config, data, lambda api: api.items("/rules", limit=limit))
    show(rows, ["id", "severity", "condition", "for_s", "window", "owner"], as_json=as_json)


@rules.command("try")
def rules_try(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The rule file (TOML).", exists=True, dir_okay=False)],
    config: ConfigOption = None,
    data: DataOption = None,
    start: Annotated[str, typer.Option("--start", help="From when: a time, or one before now such as -48h.")] = "-48h",
    stop: Annotated[str, typer.Option("--stop", help="Until when.")] = "now",
    as_json: JsonOption = False,
) -> None:
    """Show what a rule would have raised in the past; nothing is switched on and nobody is told."""
    body = {"toml": _text(file), "start": start, "stop": stop}
    tried = ask(config, data, lambda api: api.post("/rules/try", body))
    for failure in tried["failures"]:
        say(f"its own test fails: {failure}")
    say(f"{tried['rule']['id']}: {len(tried['episodes'])} episodes")
    show(tried["episodes"], ["zone", "start", "fired", "end", "worst"], as_json=as_json)


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8: {error.reason}", hint="save it as UTF-8") from None
