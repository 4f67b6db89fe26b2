"""`qala bench door`: the door, and the whole way behind it, beside others."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from devices.errors import ConfigError, UnavailableError
from qala.cli.benching import PIPE_WIDTH, bench
from qala.cli.shell import JsonOption, say

if TYPE_CHECKING:
    from qala.bench.door_report import Table

PARTS = ("way", "puback", "flood", "idle", "storm", "broker")


@bench.command("door")
def door_(
    parts: Annotated[str, typer.Option("--parts", help="Only these, with commas between: " + ", ".join(PARTS))] = "",
    shapes: Annotated[str, typer.Option("--shapes", help="Only these loads of the whole way: 1x1000,200/s.")] = "",
    systems: Annotated[str, typer.Option("--systems", help="Only these take the whole way, such as: qala.")] = "",
    share: Annotated[float, typer.Option("--share", min=0.001, max=10, help="Of the messages and connections.")] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Measure the way from a sensor's message to the store beside mosquitto, Telegraf and InfluxDB, all in one run."""
    chosen = parts.split(",") if parts else list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        raise ConfigError(f"no part is called {min(unknown)!r}", hint="there are " + ", ".join(PARTS))
    document, tables = _measure(
        chosen, shapes.split(",") if shapes else [], systems.split(",") if systems else [], share
    )
    if as_json:
        print(json.dumps(document, indent=1))  # noqa: T201 - for programs
    else:
        _print(document["machine"], tables)


def _measure(
    parts: Sequence[str], names: Sequence[str], systems: Sequence[str], share: float
) -> tuple[dict[str, Any], list[Table]]:
    import msgspec

    from qala.bench import door_report as report
    from qala.bench.acknowledging import LOADS, bench_acknowledging, bench_flood
    from qala.bench.broker import SHAPE, bench_broker
    from qala.bench.crowd import bench_idle, bench_storm
    from qala.bench.machine import describe

    found: dict[str, Any] = {}
    tables: list[Table] = []
    if "way" in parts:
        found["way"] = _ways(names, systems, share)
        tables += [report.ratios(found["way"]), *report.ways(found["way"])]
    if "broker" in parts:
        found["broker"] = bench_broker(msgspec.structs.replace(SHAPE, messages=int(SHAPE.messages * share)), say)
        tables.append(report.subscribed(found["broker"]))
    if "puback" in parts:
        loads = [msgspec.structs.replace(load, messages=int(load.messages * share)) for load in LOADS]
        found["puback"] = [one for load in loads for one in bench_acknowledging(load, say)]
        tables.append(report.acknowledged(found["puback"]))
    if "flood" in parts:
        found["flood"] = bench_flood(share, say)
        tables.append(report.flooded(found["flood"]))
    if "idle" in parts:
        found["idle"] = bench_idle(int(10_000 * share), say)
    if "storm" in parts:
        found["storm"] = bench_storm(int(2_000 * share), say)
    if {"idle", "storm"} & found.keys():
        tables.append(report.crowds(found.get("idle", []), found.get("storm", [])))
    document = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "machine": describe()}
    return {**document, **msgspec.to_builtins(found)}, tables


def _ways(names: Sequence[str], systems: Sequence[str], share: float) -> Any:
    import msgspec

    from qala.bench.way import SHAPES, bench_way
    from qala.bench.way_systems import SYSTEMS

    if unknown := set(systems) - SYSTEMS.keys():
        raise ConfigError(f"no system is called {min(unknown)!r}", hint="there are " + ", ".join(SYSTEMS))
    if unknown := set(names) - {shape.name for shape in SHAPES}:
        raise ConfigError(f"no load is called {min(unknown)!r}", hint="there are " + ", ".join(s.name for s in SHAPES))
    chosen = [
        msgspec.structs.replace(shape, messages=int(shape.messages * share))
        for shape in SHAPES
        if not names or shape.name in names
    ]
    return bench_way(chosen, _present_ways(systems or list(SYSTEMS)), say)


def _present_ways(names: Sequence[str]) -> list[str]:
    """Return the ways whose servers are installed, and say which are left out."""
    from qala.bench.way_systems import check_present

    present = []
    for name in names:
        try:
            check_present(name)
            present.append(name)
        except UnavailableError as error:
            say(f"{name} is left out: {error}")
    return present


def _print(machine: dict[str, Any], tables: Sequence[Table]) -> None:
    from rich.console import Console
    from rich.table import Table as Grid

    width = None if sys.stdout.isatty() else PIPE_WIDTH
    console = Console(width=width, highlight=False, soft_wrap=True, markup=False)
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()))
    for title, columns, lines in tables:
        grid = Grid(title, box=None, pad_edge=False, header_style="bold")
        for column in columns:
            grid.add_column(column, justify="right", no_wrap=True)
        for name, cells in lines:
            grid.add_row(name, *cells)
        console.print(grid)
        console.print()
