"""Commands that look into the journal. None of them writes to it: they work beside a running door and on a copy."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from devices.errors import ConfigError, ConflictError, UnavailableError
from qala.cli.shell import FAILED, ConfigOption, DataOption, JsonOption, app, configuration, printable, say, show

if TYPE_CHECKING:
    from ingest.message import Message

journal = typer.Typer(help="The journal: what was acknowledged.", no_args_is_help=True)
app.add_typer(journal, name="journal")

_LOOK_S = 0.2
_SHOWN = ("number", "received", "type", "principal", "topic", "bytes", "payload")
_PAYLOAD_SHOWN = 60
_LAST = 1 << 62


@journal.command("ls")
def journal_ls(config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the files of the journal: which messages each holds, when they were received, how many are damaged."""
    from ingest.inspection import when
    from ingest.journal import list_segments

    found = list_segments(configuration(config, data).folder / "journal")
    now_us = time.time_ns() // 1000
    rows = [
        {
            "first": one.first,
            "last": one.last,
            "messages": one.messages,
            "damaged": one.damaged,
            "bytes": one.bytes,
            "begin": None if one.begin_us is None else when(one.begin_us),
            "end": None if one.end_us is None else when(one.end_us),
            "age_s": None if one.end_us is None else (now_us - one.end_us) // 1_000_000,
            "state": "damaged" if one.damaged else "open" if one is found[-1] else "sealed",
        }
        for one in found
    ]
    show(rows, ["first", "last", "messages", "damaged", "bytes", "begin", "end", "state"], as_json=as_json)


@journal.command("tail")
def journal_tail(
    config: ConfigOption = None,
    data: DataOption = None,
    count: Annotated[int, typer.Option("-n", "--limit", min=1, max=1_000_000, help="At most so many.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    topic: Annotated[str | None, typer.Option("--topic", help="Only on these topics.", metavar="FILTER")] = None,
    device: Annotated[str | None, typer.Option("--device", help="Only of this device.", metavar="FLEET/DEVICE")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the newest messages. With --follow and --json, each is a line of its own."""
    from ingest.inspection import messages, tail
    from ingest.journal import JournalReader

    loaded = configuration(config, data)
    folder = _folder(loaded.folder)
    wanted = _wanted(topic, device, loaded.ingest.topic_root)
    end = JournalReader(folder).synced()
    rows = [_row(number, message) for number, message in tail(folder, count, wanted) if number <= end]
    if not follow:
        show(rows, _SHOWN, as_json=as_json)
        return
    _print(rows, as_json=as_json)
    while True:
        for number, message in messages(folder, end, _LAST):
            end = number
            if wanted(message):
                _print([_row(number, message)], as_json=as_json)
        time.sleep(_LOOK_S)


@journal.command("export")
def journal_export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; - writes to stdout.")],
    config: ConfigOption = None,
    data: DataOption = None,
    first: Annotated[int | None, typer.Option("--from", min=1, help="From this number.", metavar="N")] = None,
    last: Annotated[int | None, typer.Option("--to", min=1, help="Up to this number.", metavar="N")] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Received at this time or later.", metavar="TIME")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="Received before this time.", metavar="TIME")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write messages as lines of JSON, which a batch of HTTP ingest takes again."""
    from ingest import inspection

    folder = _folder(configuration(config, data).folder)
    begin = max(first or 1, inspection.since(folder, _time_us(since)) if since else 1)
    until_us = _time_us(until) if until else None
    written = 0
    with _new_file(file) as out:
        for number, message in inspection.messages(folder, begin - 1, last or _LAST):
            if until_us is not None and message.received_us >= until_us:
                continue
            out.write(inspection.line_of(number, message) + b"\n")
            written += 1
    if str(file) == "-":
        say(f"{written} messages")
    else:
        show([{"file": str(file), "messages": written}], ["file", "messages"], as_json=as_json)


@journal.command("verify")
def journal_verify(config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Check every byte of the journal; exit code 1 where something of it cannot be read any more."""
    from ingest.inspection import verify

    found = list(verify(_folder(configuration(config, data).folder)))
    rows = [
        {
            "first": one.first,
            "last": one.last,
            "frames": one.frames,
            "messages": one.messages,
            "damaged": [f"{low}-{high}" for low, high in one.damaged],
            "gaps": one.gaps,
            "header": one.header,
            "stray_bytes": one.stray,
            "ok": one.is_good,
        }
        for one in found
    ]
    show(rows, ["first", "last", "frames", "messages", "damaged", "gaps", "header", "ok"], as_json=as_json)
    lost = sum(high - low + 1 for one in found for low, high in one.damaged)
    say(f"{sum(one.messages for one in found):,} messages are whole, {lost:,} cannot be read")
    if not all(one.is_good for one in found):
        raise typer.Exit(FAILED)


def _folder(data: Path) -> Path:
    """Return the journal's folder. Raises UnavailableError where there is none."""
    folder = data / "journal"
    if not folder.is_dir():
        raise UnavailableError(f"no journal is in {data}", hint="name the data folder with --data")
    return folder


def _wanted(topic: str | None, device: str | None, root: str) -> Callable[[Message], bool]:
    from ingest.gate import matches

    def wanted(message: Message) -> bool:
        if topic is not None and not matches(topic, message.topic):
            return False
        return device is None or message.principal == device or matches(f"{root}/1/{device}/+", message.topic)

    return wanted


def _row(number: int, message: Message) -> dict[str, Any]:
    from ingest.inspection import told_of

    return told_of(number, message) | {
        "bytes": len(message.payload),
        "payload": message.payload[:_PAYLOAD_SHOWN].decode("utf-8", "replace"),
    }


def _print(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print rows at once, each on a line."""
    import json

    for row in rows:
        text = (
            json.dumps(row, ensure_ascii=False) if as_json else printable("  ".join(str(row[name]) for name in _SHOWN))
        )
        print(text, flush=True)  # noqa: T201 - what was asked for


def _time_us(text: str) -> int:
    """Read a time; one without a zone is UTC. Raises ConfigError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"not a time: {text!r}", hint="write it as 2026-11-22T09:00:00Z") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e6)


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that must not exist yet, whole and durable at the end. Raises ConflictError, UnavailableError."""
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with path.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise ConflictError(f"{path} exists", hint="choose another name: nothing is written over") from None
    except OSError as error:
        raise UnavailableError(f"cannot write {path}: {error.strerror}", hint="choose another place") from error
