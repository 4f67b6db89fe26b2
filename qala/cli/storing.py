"""Commands that compare stores and copy between them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from devices.errors import ConfigError, NotFoundError
from qala.cli.shell import ConfigOption, DataOption, JsonOption, app, configuration, show

if TYPE_CHECKING:
    from qala.store import Store, StoreSettings
    from qala.store.base import Span
    from qala.store.checksum import DaySum, ValueSum

store = typer.Typer(help="The store: where readings and values live.", no_args_is_help=True)
app.add_typer(store, name="store")

SinceOption = Annotated[
    str | None, typer.Option("--since", help="Only from this time on; UTC where no offset is said.", metavar="TIME")
]
UntilOption = Annotated[
    str | None, typer.Option("--until", help="Only before this time; UTC where no offset is said.", metavar="TIME")
]
_FIRST_US, _LAST_US = -(2**62), 2**62


@store.command("checksum")
def checksum(
    url: Annotated[str | None, typer.Argument(metavar="[URL]", help="The store; else the configured one.")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a checksum of each day's readings and values: two stores that hold the same print the same."""
    from qala.store.checksum import reading_checksums, value_checksums

    loaded = configuration(config, data)
    span = span_of(since, until)
    with opened(url or loaded.store_url, loaded.store) as one:
        rows = [*_by_day("readings", reading_checksums(one, span)), *_by_day("values", value_checksums(one, span))]
    show(rows, ["day", "of", "sums", "rows", "checksum"], as_json=as_json)


def _by_day(what: str, sums: Iterator[DaySum] | Iterator[ValueSum]) -> list[dict[str, Any]]:
    from qala.store.checksum import total

    found = []
    for number, group in groupby(sums, key=lambda one: one.day):
        day = list(group)
        rows, digest = total(day)
        found.append(
            {"day": day_name(number), "of": what, "sums": len(day), "rows": rows, "checksum": f"{digest:016x}"}
        )
    return found


def day_name(day: int) -> str:
    """Return the date of a UTC day number."""
    return datetime.fromtimestamp(day * 86_400, UTC).date().isoformat()


def span_of(since: str | None, until: str | None) -> Span | None:
    """Return the span of two times as people write them, None where neither is given. Raises ConfigError."""
    from qala.store.base import Span

    if since is None and until is None:
        return None
    start_us = _FIRST_US if since is None else _time_us(since)
    stop_us = _LAST_US if until is None else _time_us(until)
    if stop_us <= start_us:
        raise ConfigError(f"nothing is from {since} until {until}", hint="--since is the earlier one")
    return Span(start_us, stop_us)


def _time_us(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no time", hint="write 2026-01-31 or 2026-01-31T12:00+05:00") from None
    known = time if time.tzinfo else time.replace(tzinfo=UTC)
    return int((known - datetime.fromtimestamp(0, UTC)).total_seconds()) * 1_000_000 + known.microsecond


@contextmanager
def opened(url: str, settings: StoreSettings) -> Iterator[Store]:
    """Open a store that is there. Raises NotFoundError instead of making an empty file."""
    from qala.store import open_store

    scheme, _, rest = url.partition(":")
    if scheme == "duckdb" and not Path(rest.removeprefix("//")).exists():
        raise NotFoundError(
            f"there is no file {rest.removeprefix('//')}", hint="name the file of a store that is there"
        )
    one = open_store(url, settings)
    try:
        yield one
    finally:
        one.close()
