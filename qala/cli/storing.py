"""Commands that compare stores and copy between them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from devices.errors import ConfigError, NotFoundError
from qala.cli.shell import ConfigOption, DataOption, JsonOption, app, configuration, say, show

if TYPE_CHECKING:
    from qala.store import Store, StoreSettings
    from qala.store.base import Span
    from qala.store.checksum import DaySum, ValueSum
    from qala.store.copy import Copied, Progress

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


@store.command("copy")
def copy(
    src: Annotated[str, typer.Argument(metavar="SRC", help="URL of the store to read.")],
    dst: Annotated[str, typer.Argument(metavar="DST", help="URL of the store to fill; it may hold a part already.")],
    since: SinceOption = None,
    until: UntilOption = None,
    src_token_file: Annotated[
        Path | None, typer.Option("--src-token-file", help="File with SRC's token, instead of the configured one.")
    ] = None,
    dst_token_file: Annotated[
        Path | None, typer.Option("--dst-token-file", help="File with DST's token, instead of the configured one.")
    ] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a store into another, of any engine, and compare them; called again, it goes on where it was broken off."""
    from qala.store.copy import copy_store

    if src == dst:
        raise ConfigError("SRC and DST are the same store", hint="name another one to fill")
    span, settings = span_of(since, until), configuration(config, data).store
    began = monotonic()
    with (
        opened(src, _with_token(settings, src_token_file)) as source,
        opened(dst, _with_token(settings, dst_token_file), make=True) as target,
        told() as tell,
    ):
        copied = copy_store(source, target, span, tell)
    _report(copied, src, dst, monotonic() - began, as_json=as_json)


def _with_token(settings: StoreSettings, file: Path | None) -> StoreSettings:
    from pydantic import SecretStr

    return settings.model_copy(update={"token": SecretStr(""), "token_file": file}) if file else settings


@contextmanager
def told(every_s: float = 2.0) -> Iterator[Callable[[Progress], None]]:
    """Say how a copy stands on stderr: on one line where a person looks, else now and then."""
    began = last = monotonic()
    live = sys.stderr.isatty()

    def tell(progress: Progress) -> None:
        nonlocal last
        now = monotonic()
        if now - last >= (0.2 if live else every_s):
            last = now
            print(_line(progress, now - began), file=sys.stderr, end="\r" if live else "\n", flush=True)  # noqa: T201

    yield tell
    if live:
        say("")


def _line(progress: Progress, elapsed_s: float) -> str:
    """Return how a copy stands in words.

    >>> from qala.store.copy import Progress
    >>> _line(Progress("readings", 0.25, 12, 3, 8_000_000, 0), 60.0)
    'readings: 25 %, 180 s left; 12 days, 3 equal already; 8,000,000 readings and 0 values written, 133,333 a second'
    """
    left = f"{elapsed_s * (1 / progress.share - 1):,.0f} s left" if progress.share > 0 else "just begun"
    rate = (progress.readings + progress.values) / max(elapsed_s, 1e-9)
    return (
        f"{progress.stage}: {progress.share * 100:.0f} %, {left}; "
        f"{progress.days:,} days, {progress.days_equal:,} equal already; "
        f"{progress.readings:,} readings and {progress.values:,} values written, {rate:,.0f} a second"
    )


def _report(copied: Copied, src: str, dst: str, elapsed_s: float, *, as_json: bool) -> None:
    """Print what a copy did. Exits with 1 where the stores differ."""
    import msgspec

    worst = [{**msgspec.to_builtins(one), "day": day_name(one.day)} for one in copied.worst]
    counts = {
        "readings": copied.readings,
        "values": copied.values,
        "days": copied.days,
        "days_equal": copied.days_equal,
    }
    seconds = round(elapsed_s, 3)
    found = {**counts, "positions": copied.positions, "differences": copied.differences, "seconds": seconds}
    if as_json:
        print(json.dumps({"src": src, "dst": dst, **found, "worst": worst}, ensure_ascii=False, indent=1))  # noqa: T201
    else:
        show([found], list(found), as_json=False)
    if copied.differences:
        if not as_json:
            show(worst, ["day", "what", "rows", "rows_copied"], as_json=False)
        say(f"{copied.differences} sums differ: {dst} does not hold what {src} does")
        say(
            "  hint: what DST has beside SRC's, or of a higher revision, stays; fill an empty store to get an equal one"
        )
        raise typer.Exit(1)


def _by_day(what: str, sums: Iterable[DaySum | ValueSum]) -> list[dict[str, Any]]:
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
def opened(url: str, settings: StoreSettings, *, make: bool = False) -> Iterator[Store]:
    """Open a store. Raises NotFoundError where its file is missing and not to be made."""
    from qala.store import open_store

    scheme, _, rest = url.partition(":")
    if not make and scheme == "duckdb" and not Path(rest.removeprefix("//")).exists():
        raise NotFoundError(
            f"there is no file {rest.removeprefix('//')}", hint="name the file of a store that is there"
        )
    one = open_store(url, settings)
    try:
        yield one
    finally:
        one.close()
