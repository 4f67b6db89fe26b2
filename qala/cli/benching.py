"""Commands that measure."""

from __future__ import annotations

import json
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from devices.errors import ConfigError, ConflictError
from qala.cli.shell import JsonOption, app, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qala.bench.ingest import Load, Measured
    from qala.bench.store import Measured as StoreMeasured
    from qala.bench.store import Plan, Skipped

bench = typer.Typer(help="Measure what things cost on this machine.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@bench.command("ingest")
def ingest_(
    load: Annotated[
        list[str] | None, typer.Option("--load", help="Only this load (1x1000, 50x20, 900x1); several may be given.")
    ] = None,
    messages: Annotated[int | None, typer.Option("--messages", min=1, help="Messages of each load.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Send messages of 5 readings through a Qala of its own and measure the CPU time of all its processes."""
    import msgspec

    from qala.bench.ingest import bench_ingest

    found = [bench_ingest(one, say) for one in _chosen(load, messages)]
    if as_json:
        print(json.dumps(_document([msgspec.to_builtins(one) for one in found]), indent=1))  # noqa: T201 - for programs
    else:
        _print(found)


def _chosen(names: Sequence[str] | None, messages: int | None) -> list[Load]:
    import msgspec

    from qala.bench.ingest import LOADS

    unknown = set(names or ()) - {load.name for load in LOADS}
    if unknown:
        raise ConfigError(f"no load is called {min(unknown)}", hint="there are " + ", ".join(x.name for x in LOADS))
    chosen = [load for load in LOADS if not names or load.name in names]
    return [msgspec.structs.replace(load, messages=messages) if messages else load for load in chosen]


def _document(loads: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of the first load, and those of all under `loads`."""
    from qala.bench.machine import describe

    return {"time": datetime.now(UTC).isoformat(timespec="seconds"), "machine": describe(), **loads[0], "loads": loads}


def _print(found: Sequence[Measured]) -> None:
    from rich.console import Console
    from rich.table import Table

    from qala.bench.machine import describe

    console = Console(highlight=False, soft_wrap=True)
    console.print(", ".join(f"{name} {value}" for name, value in describe().items()))
    console.print(
        "CPU in microseconds a message of 5 readings, all processes but the generator; stored = sent in every load"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for one in found:
        table.add_column(one.load, justify="right", no_wrap=True)
    for title, cells in _rows(found):
        table.add_row(title, *cells)
    console.print(table)


def _rows(found: Sequence[Measured]) -> list[tuple[str, list[str]]]:
    """Return the lines of the table: a title, and a cell for each load."""
    return [
        ("CPU a message, until stored", [f"[bold]{one.cpu_us_per_message:.1f}[/]" for one in found]),
        *_nested("  ", [one.cpu_us_by_thread for one in found], at_least=0.05),
        ("  projector, by stage", ["" for _ in found]),
        *_nested("    ", [one.cpu_us_by_stage for one in found], at_least=0.0),
        ("CPU a message, with all indicators", [f"{one.cpu_us_per_message_with_analytics:.1f}" for one in found]),
        ("messages a second, stored", [f"{one.messages_per_s:,}" for one in found]),
        ("readings a second, stored", [f"{one.readings_per_s:,}" for one in found]),
        ("PUBACKs a second", [f"{one.acknowledged_per_s:,}" for one in found]),
        ("PUBACK p50, p99 (ms)", [f"{one.puback_p50_ms:.1f}, {one.puback_p99_ms:.1f}" for one in found]),
        ("bytes a reading, database", [f"{one.bytes_per_reading:.1f}" for one in found]),
        ("bytes a message, journal", [f"{one.journal_bytes_per_message:.1f}" for one in found]),
        ("messages", [f"{one.messages:,}" for one in found]),
        ("commits, batches", [f"{one.commits:,}, {one.batches:,}" for one in found]),
        ("other work on the machine (cores)", [f"{one.others_cores:.1f}" for one in found]),
        ("windows computed", [f"{one.windows:,}" for one in found]),
    ]


def _nested(indent: str, parts: Sequence[dict[str, float]], *, at_least: float) -> list[tuple[str, list[str]]]:
    names = dict.fromkeys(name for part in parts for name in part)
    shown = [name for name in names if any(part.get(name, 0.0) >= at_least for part in parts)]
    return [(indent + name, [f"{part.get(name, 0.0):.2f}" for part in parts]) for name in shown]


PIPE_WIDTH = 200  # nothing is cut where a program reads
TURNS_MIN = 20
"""Readings a series: less is no hour for a bench to look at."""

_COUNTS = {"": 1, "k": 1_000, "m": 1_000_000}


@bench.command("store")
def store_(
    rows: Annotated[
        list[str] | None, typer.Option("--rows", help="Readings (10M); several sizes may be given.")
    ] = None,
    series: Annotated[int, typer.Option("--series", min=20, help="Series that they belong to.")] = 10_000,
    peers: Annotated[str, typer.Option("--peers", help="Only these, with commas between.")] = "",
    runs: Annotated[int, typer.Option("--runs", min=1, help="Runs of each question.")] = 40,
    budget_s: Annotated[float, typer.Option("--budget-s", min=0, help="Time for the runs of a question [s].")] = 20.0,
    folder: Annotated[Path | None, typer.Option("--folder", help="Where the stores' files go.", metavar="DIR")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep those files.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Load the embedded store and others that are installed with the same readings, and time the same questions."""
    from qala.bench.store import PEERS, bench_store
    from qala.bench.store_report import failures

    chosen = peers.split(",") if peers else list(PEERS)
    if unknown := set(chosen) - set(PEERS):
        raise ConfigError(f"no peer is called {min(unknown)!r}", hint="there are " + ", ".join(PEERS))
    documents, failed = [], []
    for plan in [_plan(text, series, runs, budget_s) for text in rows or ["10M"]]:
        found = bench_store(plan, chosen, say, folder=folder, keep=keep)
        documents.append(_store_document(plan, found))
        failed += failures(found)
        if not as_json:
            _print_store(plan, found)
    if as_json:
        print(json.dumps(documents[0] if len(documents) == 1 else documents, indent=1))  # noqa: T201 - for programs
    if failed:
        raise ConflictError("; ".join(failed), hint="figures of the others stand above; please report it")


def _plan(rows: str, series: int, runs: int, budget_s: float) -> Plan:
    from qala.bench.store import Plan
    from qala.bench.store_data import HOUR_US, Shape

    number = re.fullmatch(r"(\d+)([km]?)", rows.lower())
    turns = int(number.group(1)) * _COUNTS[number.group(2)] // series if number else 0
    if turns < TURNS_MIN:
        raise ConfigError(
            f"{rows!r} readings of {series} series cannot be measured",
            hint=f"take {TURNS_MIN} of each at least: 10M, 500k",
        )
    stop_us = time.time_ns() // 1000 // HOUR_US * HOUR_US
    return Plan(Shape(series, turns, stop_us), runs=runs, budget_s=budget_s)


def _store_document(plan: Plan, found: dict[str, StoreMeasured | Skipped]) -> dict[str, Any]:
    import msgspec

    from qala.bench.machine import describe

    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe(),
        "readings": plan.shape.rows,
        "series": plan.shape.series,
        "peers": {name: msgspec.to_builtins(one) for name, one in found.items()},
    }


def _print_store(plan: Plan, found: dict[str, StoreMeasured | Skipped]) -> None:
    from rich.console import Console
    from rich.table import Table

    from qala.bench.machine import describe
    from qala.bench.store_report import figures, measured, notes, ratios

    width = None if sys.stdout.isatty() else PIPE_WIDTH
    console = Console(width=width, highlight=False, soft_wrap=True, markup=False)
    console.print(", ".join(f"{name} {value}" for name, value in describe().items()))
    console.print(f"{plan.shape.rows:,} readings of {plan.shape.series:,} series, five minutes apart")
    names = list(measured(found))
    others = [name for name in names if name != "qala"]
    for title, columns, rows in [("times Qala is ahead", others, ratios(found)), ("", names, figures(found))]:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(title, no_wrap=True)
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        for line, cells in rows:
            table.add_row(line, *cells)
        console.print(table)
        console.print()
    for note in notes(found):
        console.print(note)
