"""Commands that keep the store safe: backups, the way back from them, and rebuilding it from the journal."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from qala.cli.shell import FAILED, ConfigOption, DataOption, configuration, say
from qala.cli.storing import store

ForceOption = Annotated[bool, typer.Option("--force", help="Even where something will be missing.")]
_DIFFERENCES_MAX = 20
_SHOW_S = 1.0


@store.command("backup")
def backup(
    file: Annotated[Path, typer.Argument(help="The file to make; FILE.json is made beside it.", metavar="FILE")],
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Copy the store to a file while it is in use, with a manifest of what it holds beside it."""
    from qala.safekeeping import back_up

    with _Growing(file) as growing:
        manifest = back_up(configuration(config, data), file, say=growing.end, on_day=_Days())
    say(f"backed up {manifest.readings:,} readings and {manifest.values:,} values to {file}")


@store.command("verify")
def verify(
    target: Annotated[str, typer.Argument(help="A backup, or the URL of a store.", metavar="FILE|URL")],
    manifest: Annotated[
        Path | None, typer.Option("--manifest", help="What it should hold; else FILE.json.", metavar="FILE")
    ] = None,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Compare a backup, or a store, with a manifest; the exit code is 1 where they differ."""
    from qala.safekeeping import verify as compare

    wanted, differing = compare(configuration(config, data), target, manifest, on_day=_Days())
    for line in differing[:_DIFFERENCES_MAX]:
        say(line)
    if differing:
        rest = len(differing) - _DIFFERENCES_MAX
        say(f"and {rest} more" if rest > 0 else "it is not what was copied")
        raise typer.Exit(FAILED)
    say(f"whole: {wanted.readings:,} readings, {wanted.values:,} values, of {wanted.made}")


@store.command("restore")
def restore(
    file: Annotated[Path, typer.Argument(help="A backup.", metavar="FILE")],
    force: ForceOption = False,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Put a backup in the place of the store; the journal gives what came after it at the next start."""
    from qala.safekeeping import restore as put_back

    former = put_back(configuration(config, data), file, force=force, say=say, on_day=_Days())
    if former is not None:
        say(f"the former store is kept as {former}; delete it when all is well")
    say("restored; start Qala: what came since is read from the journal, and nobody is told of it again")


@store.command("rebuild")
def rebuild(
    into: Annotated[
        str | None, typer.Option("--into", help="An empty store to fill instead; nothing is replaced.", metavar="URL")
    ] = None,
    force: ForceOption = False,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Make the store anew from the journal, while no server runs, and put it in the place of the present one."""
    from qala.rebuild import rebuild as make_anew

    done = make_anew(configuration(config, data), into=into, force=force, say=say)
    say(f"rebuilt from {done.messages:,} messages: {done.readings:,} readings, {done.values:,} values")
    if done.former is not None:
        say(f"the former store is kept as {done.former}; delete it when all is well")


class _Days:
    """Says now and then which day is being read."""

    def __init__(self) -> None:
        self._rows = 0
        self._said = time.monotonic()

    def __call__(self, day: str, rows: int) -> None:
        self._rows += rows
        if time.monotonic() - self._said >= _SHOW_S:
            self._said = time.monotonic()
            say(f"  {day}: {self._rows:,} rows read")


class _Growing:
    """Says while a file is being made how large it is."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Growing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def end(self, text: str) -> None:
        """Say no more of the size, but this."""
        self._done.set()
        say(text)

    def _watch(self) -> None:
        while not self._done.wait(_SHOW_S):
            sizes = [path.stat().st_size for path in self._file.parent.glob(f"{self._file.name}*") if path.is_file()]
            say(f"  {max(sizes, default=0) / 1e6:,.1f} MB copied")
