"""The command that publishes recordings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qala.cli.reaching import CaOption, ElsewhereOption, PasswordFileOption, UsernameOption, publisher
from qala.cli.shell import ConfigOption, DataOption, JsonOption, app, configuration, say, show

if TYPE_CHECKING:
    from qala.replay import Progress


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The recording: CSV with a header line.")],
    mapping: Annotated[str, typer.Option("--mapping", help="Name of a mapping, or the path of one (.toml).")],
    speed: Annotated[
        float, typer.Option("--speed", min=0, help="Seconds of the recording in one second; 0: as fast as it is taken.")
    ] = 0,
    config: ConfigOption = None,
    data: DataOption = None,
    mqtt: ElsewhereOption = None,
    username: UsernameOption = None,
    password_file: PasswordFileOption = None,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish a recorded file as devices over MQTT, with its own times; goes on where the last replay of it stopped."""
    from qala.declared import import_items
    from qala.replay import replay as publish
    from qala.replay import rows_of
    from qala.replay.mapping import load_mapping, registry_of

    loaded, layout = configuration(config, data), load_mapping(mapping)
    import_items(loaded, *registry_of(layout, rows_of(file)))
    way = publisher(loaded, f"replay-{file.stem}", mqtt=mqtt, username=username, password_file=password_file, ca=ca)
    with way as opened, _bar() as progress:
        sent = publish(
            file,
            layout,
            opened,
            root=loaded.ingest.topic_root,
            speed=speed,
            memory=loaded.folder / "replays",
            on_progress=progress,
        )
    show([{"file": str(file), "published": sent}], ["file", "published"], as_json=as_json)


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    """Show a progress bar where a person looks."""
    if not sys.stderr.isatty():
        say("publishing")
        yield lambda _progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("messages")
        yield lambda progress: bar.update(task, completed=progress.done, total=progress.total)
