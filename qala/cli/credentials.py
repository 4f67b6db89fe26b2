"""Commands about the credentials of devices and gateways: `qala devices credential ...`."""

from __future__ import annotations

import csv
import getpass
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from devices.errors import ConfigError
from qala.cli.records import devices
from qala.cli.shell import ConfigOption, DataOption, JsonOption, LimitOption, ask, say, show

credential = typer.Typer(help="Credentials that devices and gateways show at the door.", no_args_is_help=True)
devices.add_typer(credential, name="credential")

PrincipalArgument = Annotated[str, typer.Argument(metavar="FLEET/DEVICE", help="The device, or the name of a gateway.")]
ExpiresOption = Annotated[
    int | None, typer.Option("--expires-days", min=1, help="Days until it ends; without it, until it is revoked.")
]
NoteOption = Annotated[str, typer.Option("--note", help="What people should know about it.")]
_MANY = ["principal", "username", "password", "expires"]
_S = 600.0  # for a hundred thousand devices


@credential.command("issue")
def credential_issue(
    device: Annotated[str | None, typer.Argument(metavar="[FLEET/DEVICE]", help="The device.")] = None,
    gateway: Annotated[str | None, typer.Option("--gateway", help="A gateway instead of a device.")] = None,
    topics: Annotated[
        list[str] | None,
        typer.Option(
            "--topic", help="Where a gateway may publish, or a device besides its own topics.", metavar="FILTER"
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", help="CSV with a column `id`: all of these that have none.", exists=True, dir_okay=False
        ),
    ] = None,
    all_devices: Annotated[
        bool, typer.Option("--all-devices", help="All devices of the registry that have none.")
    ] = False,
    expires_days: ExpiresOption = None,
    note: NoteOption = "",
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it, this once; for many devices, CSV with the user name and the password of each."""
    if sum([device is not None, gateway is not None, file is not None, all_devices]) != 1:
        raise ConfigError(
            "name one of: a device, --gateway, --file, --all-devices", hint="qala devices credential issue --help"
        )
    body = _body(expires_days=expires_days, note=note)
    if file is not None or all_devices:
        given = {} if file is None else {"principals": _ids(file)}
        done = ask(config, data, lambda api: api.post("/credentials/missing", {**body, **given}, timeout_s=_S))
        say(f"{len(done['items'])} tokens, shown this once; {done['left']} had a valid one already and keep it")
        _print_many(done["items"], as_json=as_json)
        return
    body |= {"principal": device or gateway, "filters": topics or []}
    if gateway is not None and "/" in gateway:
        raise ConfigError(f"{gateway!r} is a device, no gateway", hint="the name of a gateway has no '/'")
    _print_one(ask(config, data, lambda api: api.post("/credentials", body)), as_json=as_json)


@credential.command("rotate")
def credential_rotate(
    device: PrincipalArgument,
    overlap_hours: Annotated[
        float, typer.Option("--overlap-hours", min=0, max=2160, help="How long the token before goes on being valid.")
    ] = 24,
    expires_days: ExpiresOption = None,
    note: NoteOption = "",
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make another token and print it, this once; the one before ends after the overlap."""
    body = _body(expires_days=expires_days, note=note) | {"principal": device, "overlap_hours": overlap_hours}
    _print_one(ask(config, data, lambda api: api.post("/credentials/rotate", body)), as_json=as_json)


@credential.command("revoke")
def credential_revoke(
    device: PrincipalArgument,
    id: Annotated[str | None, typer.Option("--id", help="Only this one, as `credential list` shows it.")] = None,  # noqa: A002
    certificates: Annotated[
        bool, typer.Option("--certificates", help="Refuse its certificates, even where nothing is known of the device.")
    ] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a token, or all of a device and its certificates issued before now; its connection is cut within seconds."""
    if certificates and ("/" not in device or id is not None):
        raise ConfigError("--certificates is about all of a device", hint="name FLEET/DEVICE, and no --id")
    body: dict[str, Any] = {"principal": device, "by": getpass.getuser(), "certificates": certificates}
    if id is not None:
        body["id"] = id.partition(".")[0]
    done = ask(config, data, lambda api: api.post("/credentials/revoke", body))
    if not done["revoked"]:
        say(f"{device} had no valid token; certificates of it from before now are refused")
    show([done], ["principal", "revoked"], as_json=as_json)


@credential.command("list")
def credential_list(
    device: Annotated[str | None, typer.Argument(metavar="[FLEET/DEVICE]", help="Only of this one.")] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    limit: LimitOption = 10_000,
    as_json: JsonOption = False,
) -> None:
    """List credentials: whose they are and until when; the tokens themselves are kept nowhere."""
    rows = ask(config, data, lambda api: api.items("/credentials", limit=limit, principal=device))
    show(
        rows,
        ["principal", "id", "kind", "state", "created", "created_by", "expires", "filters", "note"],
        as_json=as_json,
    )


def _body(*, expires_days: int | None, note: str) -> dict[str, Any]:
    body: dict[str, Any] = {"note": note, "by": getpass.getuser()}
    return body if expires_days is None else {**body, "expires_days": expires_days}


def _ids(file: Path) -> list[str]:
    """Return the column `id` of a CSV file."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            rows = list(csv.DictReader(text))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{file}: {error}", hint="give a CSV file in UTF-8 with a header line") from None
    found = [row["id"].strip() for row in rows if (row.get("id") or "").strip()]
    if not found:
        raise ConfigError(f"{file} has no column `id` with devices in it", hint="a file of devices has one")
    return found


def _print_one(done: Mapping[str, Any], *, as_json: bool) -> None:
    until = done["expires"] or "it is revoked"
    say(
        f"{done['id']} of {done['principal']}, until {until}; the token is shown this once, only a digest of it is kept"
    )
    print(json.dumps(done, ensure_ascii=False, indent=1) if as_json else done["token"])  # noqa: T201 - data goes to stdout


def _print_many(items: Iterable[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print what devices are given: CSV with user name and password."""
    if as_json:
        print(json.dumps(list(items), ensure_ascii=False, indent=1))  # noqa: T201
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(_MANY)
    for one in items:
        writer.writerow([one["principal"], one["principal"], one["token"], one["expires"] or ""])
