"""What all commands share: their options, their output, and what they say when something is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from devices.errors import ConfigError, QalaError

if TYPE_CHECKING:
    from qala.client import Client
    from qala.config import Config

__all__ = [
    "ConfigOption",
    "DataOption",
    "HttpOption",
    "JsonOption",
    "LimitOption",
    "MqttOption",
    "ParentOption",
    "StoreOption",
    "app",
    "ask",
    "configuration",
    "main",
    "printable",
    "say",
    "show",
    "tell",
]

FAILED, USAGE = 1, 2
_COMMANDS = (
    "benching",
    "benching_door",
    "commands",
    "credentials",
    "journal",
    "lake",
    "ledger",
    "operate",
    "records",
    "rehearsing",
    "rejected",
    "replaying",
    "safekeeping",
    "serving",
    "storing",
    "tokens",
)  # the modules that declare them
_PIPE_WIDTH = 1000  # nothing is cut where a program reads

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Configuration file.", metavar="FILE")]
DataOption = Annotated[Path | None, typer.Option("--data", help="Data folder.", metavar="DIR")]
HttpOption = Annotated[str | None, typer.Option("--http", help="Address of the page and the API.", metavar="HOST:PORT")]
StoreOption = Annotated[
    str | None, typer.Option("--store", help="Store: duckdb:///FILE or influxdb://HOST:PORT/ORG/BUCKET.", metavar="URL")
]
MqttOption = Annotated[str | None, typer.Option("--mqtt", help="Address for the sensors.", metavar="HOST:PORT")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="At most so many.")]
ParentOption = Annotated[int | None, typer.Option("--parent", hidden=True, help="End when this process does.")]

app = typer.Typer(
    name="qala",
    help="Qala, the telemetry platform of a digital city. Add --debug to any command for the traceback of an error.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> NoReturn:
    """Run the command line and exit."""
    for name in _COMMANDS:
        import_module(f"qala.cli.{name}")

    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments)
    except QalaError as error:
        if debug:
            raise
        tell(error)
        sys.exit(USAGE if isinstance(error, ConfigError) else FAILED)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone, and nobody waits for the rest
        sys.exit(FAILED)
    except Exception as error:
        if debug:
            raise
        say(f"unexpected: {type(error).__name__}: {error}")
        say("  hint: the same command with --debug shows where; please report it")
        sys.exit(FAILED)
    sys.exit(0)


def tell(error: QalaError) -> None:
    """Print what went wrong and what to do about it, to stderr."""
    say(f"{error.code}: {error.message}")
    if error.hint:
        say(f"  hint: {error.hint}")


def say(text: str) -> None:
    """Print a line for the person, to stderr; where the process keeps a log, as that does."""
    logs = sys.modules.get("qala.logs")
    if logs is not None and logs.speak(text):
        return
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - this is the place that prints


def configuration(config: Path | None = None, data: Path | None = None, **flags: Any) -> Config:
    """Load the configuration under the flags of a command, given by name ("http", "mqtt", "store")."""
    from qala.config import load_config

    keys = {"http": "dashboards.http", "mqtt": "ingest.mqtt", "store": "store.url"}
    named = {keys[name]: value for name, value in flags.items()}
    return load_config(config, flags={"data": data, **named})


def ask(config: Path | None, data: Path | None, question: Callable[[Client], Any]) -> Any:
    """Put a question to the running server, or to the files where none runs."""
    from qala.client import connect

    with connect(configuration(config, data)) as client:
        return question(client)


def show(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Print rows to stdout: all their fields as JSON, or the columns as a table."""
    if as_json:
        print(json.dumps(list(rows), ensure_ascii=False, indent=1, default=str))  # noqa: T201
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*(column.replace("_", " ") for column in columns), box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    Console(width=width, highlight=False, markup=False).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return printable(" ".join(str(item) for item in value))
    return printable(str(value))


def printable(text: str) -> str:
    r"""Spell out what a terminal would obey, or not show: whatever devices say may be shown to people.

    >>> printable("қала \x1b[31m"), printable("a\tb")
    ('қала \\x1b[31m', 'a\\tb')
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


@app.command()
def version(as_json: JsonOption = False) -> None:
    """Print the version."""
    number = installed_version("qala")
    print(json.dumps({"version": number}) if as_json else f"qala {number}")  # noqa: T201
