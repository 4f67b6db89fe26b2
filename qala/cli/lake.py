"""Commands about the lake, and about the past that is computed over it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from devices.errors import ConfigError
from qala.cli.shell import FAILED, ConfigOption, DataOption, JsonOption, StoreOption, app, configuration, say, show

if TYPE_CHECKING:
    from analytics.backfill import Computed, Task
    from analytics.indicator import Indicator
    from devices.value import Value
    from qala.backfill import Progress
    from qala.client import Client
    from qala.config import Config
    from qala.store.base import Span
    from qala.store.lake import Lake

lake = typer.Typer(help="Closed days as Parquet files, for other tools and other machines.", no_args_is_help=True)
analytics = typer.Typer(help="Indicators of the past.", no_args_is_help=True)
app.add_typer(lake, name="lake")
app.add_typer(analytics, name="analytics")

LakeOption = Annotated[
    str | None, typer.Option("--lake", help="Folder or URL of the lake; by default store.lake.", metavar="URL")
]
SinceOption = Annotated[
    datetime | None, typer.Option("--since", help="From this day on, UTC.", formats=["%Y-%m-%d"], metavar="DATE")
]
UntilOption = Annotated[
    datetime | None,
    typer.Option("--until", help="Up to this day, UTC, not included.", formats=["%Y-%m-%d"], metavar="DATE"),
]

_COLUMNS = ("day", "rows", "bytes", "parts", "generation")
_FIRST, _LAST = date(1970, 1, 1), date(2200, 1, 1)
_DAY_S = 3600.0  # how long the export of one day may take
_PORTION = 2_000  # values a request: about a megabyte
_SAY_EVERY_S = 2.0


@lake.command("export")
def export_(
    to: Annotated[
        str | None, typer.Option("--to", help="Folder or URL of the lake; by default store.lake.", metavar="URL")
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    config: ConfigOption = None,
    data: DataOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export the closed days that are new or changed; a running server does it, and the files are read where none runs."""
    from qala.client import connect

    loaded = configuration(config, data, store=store)
    url = _absolute(to or loaded.store.lake or _no_lake("--to"))
    with connect(loaded) as client:
        rows = list(_exported(client, url, _date(since, _FIRST), _date(until, _LAST)))
    show(rows, ("day", "written", "rows", "bytes", "parts"), as_json=as_json)


def _exported(client: Client, url: str, since: date, until: date) -> Iterator[dict[str, Any]]:
    """Export day after day, and tell of each."""
    from qala.store.lake import day_name, day_number

    while True:
        body = {"to": url, "since": since.isoformat(), "until": until.isoformat()}
        row = client.post("/store/lake", body, timeout_s=_DAY_S)["exported"]
        if row is None:
            return
        say(f"{row['day']}: {row['rows']:,} readings, {'written' if row['written'] else 'as it was'}")
        yield row
        since = date.fromisoformat(day_name(day_number(row["day"]) + 1))


@lake.command("ls")
def ls(
    at: LakeOption = None,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the days of the lake."""
    rows = [
        {
            "day": manifest.day,
            "rows": manifest.rows,
            "bytes": manifest.bytes,
            "parts": len(manifest.parts),
            "generation": manifest.generation,
        }
        for where in [_lake(configuration(config, data), at)]
        for day in where.days()
        if (manifest := where.manifest(day))
    ]
    show(rows, _COLUMNS, as_json=as_json)


@lake.command()
def verify(
    at: LakeOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read every file of the lake and compare it with its manifest: its length and its SHA-256."""
    from qala.store.lake import day_name

    where = _lake(configuration(config, data), at)
    days = [(day_name(day), where.verify(day)) for day in where.begun() if _is_between(day_name(day), since, until)]
    show(
        [{"day": day, "ok": not wrong, "found": wrong} for day, wrong in days], ("day", "ok", "found"), as_json=as_json
    )
    if any(wrong for _, wrong in days):
        say("export these days again: what is damaged is written anew")
        raise typer.Exit(FAILED)


@analytics.command()
def backfill(
    since: Annotated[str, typer.Option("--since", help="From when: a day (UTC), a time, or -30d.", metavar="TIME")],
    until: Annotated[str, typer.Option("--until", help="Until when, not included.", metavar="TIME")],
    indicator: Annotated[
        list[str] | None, typer.Option("--indicator", help="Only this one; several may be given.", metavar="NAME")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", help="A dask scheduler that runs; by default one here.", metavar="ADDRESS"),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes, where no scheduler is named.")] = 2,
    at: LakeOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Write values.parquet here; the store stays as it is.", metavar="FOLDER"),
    ] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute indicators of the past over the lake, on this machine's cores or on a cluster.

    Windows that start between the two times; those that look beyond the days of the lake are left out. Values go into the
    store, where the same number writes nothing, or with --output into a Parquet file.
    """
    loaded = configuration(config, data, store=store)
    tasks = _planned(loaded, _span(loaded, since, until), _chosen(indicator), _lake(loaded, at))
    say(f"{len(tasks)} tasks")
    total: dict[str, Any] = {"tasks": len(tasks), "windows": 0, "values": 0, "left_out": 0}
    with _sink(loaded, output, total) as put:
        for found in _computed(tasks, scheduler, workers):
            total["windows"] += found.windows
            total["values"] += len(found.values)
            total["left_out"] += found.left_out
            put(found.values)
    if total["left_out"]:
        say(f"{total['left_out']:,} windows look beyond the days of the lake: export more, and run it again")
    show([total], tuple(total), as_json=as_json)


def _planned(loaded: Config, span: Span, chosen: dict[str, Indicator], where: Lake) -> list[Task]:
    from analytics.backfill import plan
    from qala.state import open_state
    from qala.state.registry import load_registry

    engine = open_state(loaded.state_url)
    try:
        registry = load_registry(engine)
    finally:
        engine.dispose()
    return plan(registry, chosen, loaded.time_zone, span, where, readings_max=loaded.analytics.readings_max)


def _computed(tasks: Sequence[Task], scheduler: str | None, workers: int) -> Iterator[Computed]:
    from qala.backfill import cluster, computed

    if tasks:
        with cluster(scheduler, workers) as client:
            yield from computed(client, tasks, _Teller())


class _Teller:
    """Tells now and then how far it is."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        is_last = progress.done == progress.total
        if not is_last and time.monotonic() - self._said < _SAY_EVERY_S:
            return
        self._said = time.monotonic()
        rate = progress.readings / max(progress.seconds, 1e-9)
        rest = "" if is_last or progress.rest_s is None else f", {progress.rest_s:.0f} s to go"
        say(f"{progress.done} of {progress.total} tasks, {progress.values:,} values, {rate:,.0f} readings/s{rest}")


@contextmanager
def _sink(loaded: Config, output: Path | None, total: dict[str, Any]) -> Iterator[Callable[[Sequence[Value]], None]]:
    """Give what takes the values: the store, by the way of the running server or over the files, or a Parquet file."""
    from qala.client import connect
    from qala.values_file import values_file

    if output is not None:
        total["file"] = str(output / "values.parquet")
        with values_file(output / "values.parquet") as write:
            yield write
        return
    total.update(written=0, same=0, outdated=0)
    with connect(loaded) as client:
        yield lambda values: _put(client, values, total)


def _put(client: Client, values: Sequence[Value], total: dict[str, Any]) -> None:
    import msgspec

    for first in range(0, len(values), _PORTION):
        portion = msgspec.to_builtins(list(values[first : first + _PORTION]))
        for name, count in client.post("/store/values", {"values": portion}).items():
            total[name] += count


def _chosen(names: Iterable[str] | None) -> dict[str, Indicator]:
    from analytics.indicators import indicators

    known = dict(indicators())
    wanted = set(names or known)
    if unknown := wanted - known.keys():
        raise ConfigError(f"no indicator is called {min(unknown)!r}", hint="there are " + ", ".join(sorted(known)))
    return {name: one for name, one in known.items() if name in wanted}


def _span(loaded: Config, since: str, until: str) -> Span:
    from dashboards.problem import ProblemError
    from dashboards.times import parse_span

    try:
        return parse_span(since, until, time.time_ns() // 1000, days_max=loaded.dashboards.range_max_days)
    except ProblemError as problem:
        raise ConfigError(problem.message, hint=problem.hint) from None


def _lake(loaded: Config, url: str | None) -> Lake:
    from qala.store.lake import Lake

    return Lake(_absolute(url or loaded.store.lake or _no_lake("--lake")))


def _absolute(url: str) -> str:
    """Make a folder's path mean the same to a server and to workers, whose working folders are others."""
    return url if "://" in url else str(Path(url).expanduser().absolute())


def _no_lake(option: str) -> str:
    raise ConfigError("no lake is named", hint=f"set store.lake in qala.toml, or name one with {option}")


def _date(given: datetime | None, otherwise: date) -> date:
    return given.date() if given else otherwise


def _is_between(day: str, since: datetime | None, until: datetime | None) -> bool:
    return _date(since, _FIRST).isoformat() <= day < _date(until, _LAST).isoformat()
