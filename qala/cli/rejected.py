"""Commands about what was not accepted."""

from __future__ import annotations

from typing import Annotated

import typer

from qala.cli.shell import ConfigOption, DataOption, JsonOption, LimitOption, app, ask, say, show

rejected = typer.Typer(help="Messages and readings that were not accepted.", no_args_is_help=True)
app.add_typer(rejected, name="rejected")

ReasonOption = Annotated[str | None, typer.Option("--reason", help="Only with this reason.")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="Only of this device.", metavar="FLEET/DEVICE")]


@rejected.command("ls")
def rejected_ls(
    config: ConfigOption = None,
    data: DataOption = None,
    reason: ReasonOption = None,
    device: DeviceOption = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List rejected messages and readings, with the reasons."""
    rows = ask(config, data, lambda api: api.items("/rejected", limit=limit, reason=reason, device=device))
    show(rows, ["received", "reason", "detail", "device", "key", "offset", "topic"], as_json=as_json)


@rejected.command("summary")
def rejected_summary(config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Count what was rejected by reason and device, and how much more was dropped because there was too much."""
    rows = ask(config, data, lambda api: api.get("/rejected/summary"))["items"]
    say(f"{sum(row['count'] for row in rows):,} kept, {sum(row['dropped'] for row in rows):,} dropped")
    show(rows, ["reason", "device", "count", "dropped", "last"], as_json=as_json)


@rejected.command("replay")
def rejected_replay(
    config: ConfigOption = None,
    data: DataOption = None,
    reason: ReasonOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decode rejected messages again, with today's registry and formats."""
    body = {name: value for name, value in (("reason", reason), ("device", device)) if value is not None}
    done = ask(config, data, lambda api: api.post("/rejected/replay", body))
    show([done], ["replayed", "accepted", "still_rejected"], as_json=as_json)
