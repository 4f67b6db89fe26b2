"""Commands about the rehearsal city."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from devices.errors import ConfigError
from qala.cli.shell import ConfigOption, JsonOption, app, configuration, show

if TYPE_CHECKING:
    from devices.rehearsal.faults import Fault

_COLUMNS = ("device", "kind", "start", "end", "detail")


@app.command()
def truth(
    config: ConfigOption = None,
    start: Annotated[str, typer.Option("--start", help="From when: a time, or one before now such as -48h.")] = "-24h",
    stop: Annotated[str, typer.Option("--stop", help="Until when.")] = "now",
    device: Annotated[str | None, typer.Option("--device", help="Of one device.", metavar="FLEET/DEVICE")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Of one kind of fault, such as stuck.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the ground truth of the rehearsal city: which faults spoil whose readings, from when to when.

    It follows from the settings alone (rehearsal.seed, .devices, .with_faults, .faults), so nothing needs to run.
    """
    from dashboards.times import parse_span
    from devices.rehearsal.city import FIRST_DAY
    from devices.rehearsal.faults import FaultKind
    from qala.city import rehearsal_city

    if kind is not None and kind not in set(FaultKind):
        raise ConfigError(f"there is no fault {kind!r}", hint=f"there are {', '.join(FaultKind)}")
    loaded = configuration(config)
    span = parse_span(start, stop, time.time_ns() // 1000, days_max=loaded.dashboards.range_max_days)
    founded_us = FIRST_DAY * 86_400_000_000
    rows = [
        _row(fault, as_text=not as_json)
        for fault in rehearsal_city(loaded.rehearsal).truth(max(span.start_us, founded_us), span.stop_us)
        if device in {None, fault.device} and kind in {None, fault.kind.value}
    ]
    show(rows, _COLUMNS, as_json=as_json)


def _row(fault: Fault, *, as_text: bool) -> dict[str, Any]:
    from dashboards.times import iso

    detail: Any = dict(fault.detail)
    if as_text:
        detail = [f"{name}={value}" for name, value in detail.items()]
    return {
        "device": fault.device,
        "kind": fault.kind.value,
        "start": iso(fault.start_us),
        "end": iso(fault.end_us),
        "detail": detail,
    }
