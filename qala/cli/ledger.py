"""The command that shows the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from qala.cli.shell import ConfigOption, DataOption, JsonOption, LimitOption, app, ask, say, show

_COLUMNS = ("messages", "duplicates", "readings", "accepted", "flagged", "late", "recovered")


class By(StrEnum):
    """What the rows are summed up by."""

    ALL = "all"
    HOUR = "hour"
    DAY = "day"
    DEVICE = "device"


@app.command()
def ledger(
    config: ConfigOption = None,
    data: DataOption = None,
    device: Annotated[str | None, typer.Option("--device", help="Only this device.", metavar="FLEET/DEVICE")] = None,
    zone: Annotated[str | None, typer.Option("--zone", help="Only devices in this zone.")] = None,
    since: Annotated[str, typer.Option("--since", help="From when: a time, or one before now such as -24h.")] = "-24h",
    until: Annotated[str, typer.Option("--until", help="Until when.")] = "now",
    by: Annotated[By, typer.Option("--by", help="Sum up by device, hour or day; all: by device and hour.")] = By.DEVICE,
    limit: LimitOption = 10_000,
    as_json: JsonOption = False,
) -> None:
    """Show what was received in each hour or of each device, and what became of it."""
    query = {"device": device, "zone": zone, "start": since, "stop": until, "by": by.value}
    rows = ask(config, data, lambda api: api.items("/ledger", limit=limit, **query))
    first = {By.DEVICE: ["device"], By.ALL: ["start", "device"]}.get(by, ["start"])
    reasons: Counter[str] = Counter()
    for row in rows:
        reasons.update(row["rejected"])
    say(_total(rows, reasons))
    if not as_json:
        rows = [{**row, "rejected": ", ".join(f"{k} {n}" for k, n in sorted(row["rejected"].items()))} for row in rows]
    show(rows, [*first, *_COLUMNS, "missing", "rejected"], as_json=as_json)


def _total(rows: Sequence[Mapping[str, Any]], reasons: Mapping[str, int]) -> str:
    sums = {name: sum(row[name] for row in rows) for name in _COLUMNS}
    missing = sum(row["missing"] or 0 for row in rows)
    parts = [f"{value:,} {name}" for name, value in sums.items()]
    return f"in all: {', '.join(parts)}, {sum(reasons.values()):,} rejected, {missing:,} missing"
