"""Commands about the tokens that the API and the page ask for."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from qala.cli.shell import ConfigOption, DataOption, JsonOption, app, ask, say, show

token = typer.Typer(help="Tokens for the API and the page.", no_args_is_help=True)
app.add_typer(token, name="token")


class ScopeName(StrEnum):
    """What a token allows."""

    READ = "read"
    OPERATE = "operate"


@token.command("issue")
def token_issue(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who or what uses it; recorded with what it does.")],
    scope: Annotated[ScopeName, typer.Option("--scope", help="read: look at everything; operate: also change things.")],
    expires_days: Annotated[
        int | None, typer.Option("--expires-days", min=1, help="Days until it ends; without it, until it is revoked.")
    ] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Issue a token and print it, this once."""
    body: dict[str, Any] = {"name": name, "scope": scope.value}
    if expires_days is not None:
        body["expires_days"] = expires_days
    done = ask(config, data, lambda api: api.post("/tokens", body))
    say(f"{done['id']}: {done['scope']} for {done['name']!r}; the token is shown this once, only a hash of it is kept")
    print(json.dumps(done, ensure_ascii=False, indent=1) if as_json else done["token"])  # noqa: T201 - data goes to stdout


@token.command("list")
def token_list(config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """List tokens: whose they are, what they allow, and when they were last used."""
    rows = ask(config, data, lambda api: api.get("/tokens"))["items"]
    show(rows, ["id", "name", "scope", "state", "created", "expires", "last_used"], as_json=as_json)


@token.command("revoke")
def token_revoke(
    id: Annotated[str, typer.Argument(metavar="ID", help="The token's id, as `token list` shows it.")],  # noqa: A002
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a token, and every session on the page that was begun with it."""
    row = ask(config, data, lambda api: api.post(f"/tokens/{id.partition('.')[0]}/revoke", {}))
    show([row], ["id", "name", "scope", "state", "revoked"], as_json=as_json)
