"""Commands that send commands to devices, and tell what became of them."""

from __future__ import annotations

import getpass
import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from devices.errors import ConfigError
from qala.cli.records import devices
from qala.cli.shell import FAILED, ConfigOption, DataOption, JsonOption, LimitOption, ask, say, show

if TYPE_CHECKING:
    from qala.client import Client

DeviceOption = Annotated[str | None, typer.Option("--device", help="Only of this device.", metavar="FLEET/DEVICE")]
_COLUMNS = [
    "id",
    "device",
    "state",
    "requested",
    "requested_by",
    "expires",
    "delivered",
    "code",
    "answered_by",
    "reason",
]
_OPEN = frozenset({"pending", "sent"})
_LOOK_S = 0.2
_S = 1_000_000


@devices.command("command")
def devices_command(
    device: Annotated[str, typer.Argument(metavar="FLEET/DEVICE", help="The device.")],
    payload: Annotated[str, typer.Argument(metavar="JSON", help="What it gets: a JSON object.")],
    config: ConfigOption = None,
    data: DataOption = None,
    expires: Annotated[str, typer.Option("--expires", help="How long it is worth delivering.", metavar="TIME")] = "1h",
    wait: Annotated[
        str | None, typer.Option("--wait", help="Wait so long for the device's answer.", metavar="TIME")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="Ask only once for what has this key.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Send a command to a device as soon as it listens; with --wait, exit with 1 where it did not take it in time."""
    body = {"payload": _object(payload), "expires_in_s": _seconds(expires), "actor": getpass.getuser()}
    wait_s = _seconds(wait) if wait is not None else 0

    def question(api: Client) -> Any:
        headers = {"Idempotency-Key": key} if key is not None else {}
        asked = api.post(f"/devices/{device}/commands", body, headers=headers)
        return _watched(api, asked, wait_s)

    row = ask(config, data, question)
    show([row], _COLUMNS, as_json=as_json)
    if wait is not None and row["state"] != "delivered":
        say(
            f"{device} has not taken the command: it is {row['state']}" + (f", {why}" if (why := row["reason"]) else "")
        )
        raise typer.Exit(FAILED)


@devices.command("commands")
def devices_commands(
    config: ConfigOption = None,
    data: DataOption = None,
    device: DeviceOption = None,
    state: Annotated[
        str | None,
        typer.Option(
            "--state", help="pending, sent, delivered, refused, expired, unconfirmed, too_large or cancelled."
        ),
    ] = None,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
) -> None:
    """List commands, the newest first: what was asked, by whom, and how it ended."""
    rows = ask(config, data, lambda api: api.items("/commands", limit=limit, device=device, state=state))
    show(rows, _COLUMNS, as_json=as_json)


@devices.command("cancel")
def devices_cancel(
    command: Annotated[str, typer.Argument(metavar="ID", help="The command, as `devices commands` lists it.")],
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take back a command that was not delivered yet."""
    row = ask(config, data, lambda api: api.delete(f"/commands/{command}"))
    show([row], _COLUMNS, as_json=as_json)


def _watched(api: Client, row: dict[str, Any], wait_s: float) -> dict[str, Any]:
    """Look at a command until it has ended, at most so long."""
    deadline = time.monotonic() + wait_s
    while row["state"] in _OPEN and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
        row = api.get(f"/commands/{row['id']}")
    return row


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"the command is not JSON: {error}", hint="""write it as '{"reboot": true}'""") from None
    if not isinstance(found, dict):
        raise ConfigError("the command is not a JSON object", hint="""write it as '{"reboot": true}'""")
    return found


def _seconds(text: str) -> int:
    from analytics.rulebook import parse_duration_us

    return max(parse_duration_us(text) // _S, 1)
