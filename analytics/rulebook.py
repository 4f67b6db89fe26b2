"""Rules as people write them: TOML files with their tests inside. Parsing and testing them; reading the folder at the edge."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import msgspec

from analytics.alerts import Condition, NoData, Point, Rule, Severity, fold, no_data_since
from analytics.indicator import Indicator
from analytics.window import WIDTHS_US
from devices.errors import ConfigError

__all__ = ["Rulebook", "failures", "load_rules", "parse_duration_us", "parse_rule"]

UNITS_US = {"s": 1_000_000, "min": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
RULES_MAX = 1000


class _NoData(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    after: str
    severity: Severity = Severity.INFO


class _Expected(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """An episode that a test expects; times are durations from the test's first window."""

    start: str
    end: str | None = None


class _Test(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A recorded course of values, one a window ("-" for no number), and the episodes it must give."""

    name: str
    values: str
    expect: tuple[_Expected, ...] = ()
    now: str | None = None
    no_data: bool = False


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True, rename={"for_": "for"}):
    """A rule file, field by field."""

    id: str
    title: str
    indicator: str
    window: str
    severity: Severity
    owner: str
    runbook: str
    for_: str
    max_age: str
    no_data: _NoData
    tests: tuple[_Test, ...]
    above: float | None = None
    below: float | None = None
    clear: float | None = None


class Rulebook(msgspec.Struct, frozen=True):
    """A parsed rule with the tests of its file."""

    rule: Rule
    tests: tuple[_Test, ...]


def parse_duration_us(text: str) -> int:
    """Read a duration such as "90s", "15min", "2h" or "1d" [us].

    >>> parse_duration_us("15min")
    900000000
    """
    number = text.rstrip("smindh")
    unit = text[len(number) :]
    if unit not in UNITS_US or not number.isdecimal():
        raise ConfigError(
            f"{text!r} is not a duration", hint='write a whole number and s, min, h or d, such as "15min"'
        )
    return int(number) * UNITS_US[unit]


def parse_rule(text: str, *, where: str, indicators: Mapping[str, Indicator]) -> Rulebook:
    """Read one rule file. Raises ConfigError that names the file and the field."""
    try:
        file = msgspec.convert(tomllib.loads(text), _File)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{where}: {error}", hint="docs/extending.md shows a whole rule") from None
    indicator = indicators.get(file.indicator)
    if indicator is None or file.window not in indicator.windows:
        known = ", ".join(f"{i.name} ({' '.join(i.windows)})" for i in indicators.values())
        raise ConfigError(
            f"{where}: no indicator {file.indicator!r} with a window {file.window!r}", hint=f"there are {known}"
        )
    return Rulebook(_rule(file, where, indicator.unit), file.tests)


def _rule(file: _File, where: str, unit: str) -> Rule:
    return Rule(
        id=file.id,
        title=file.title,
        indicator=file.indicator,
        window=file.window,
        condition=_condition(file, where),
        for_us=parse_duration_us(file.for_),
        no_data=NoData(parse_duration_us(file.no_data.after), file.no_data.severity),
        severity=file.severity,
        owner=file.owner,
        runbook=file.runbook,
        max_age_us=parse_duration_us(file.max_age),
        unit=unit,
    )


def _condition(file: _File, where: str) -> Condition:
    above = file.above is not None
    threshold = file.above if above else file.below
    if threshold is None or (above and file.below is not None):
        raise ConfigError(f"{where}: a rule has either above or below", hint="give one of the two")
    clear = threshold if file.clear is None else file.clear
    if (clear > threshold) if above else (clear < threshold):
        raise ConfigError(
            f"{where}: clear lies beyond the threshold", hint="clear is on the normal side of the threshold"
        )
    return Condition(threshold, clear, above)


def failures(book: Rulebook) -> list[str]:
    """Run a rule's own tests and return what went wrong, in sentences; a rule without tests fails."""
    if not book.tests:
        return [f"{book.rule.id}: the file has no tests"]
    return [failure for test in book.tests for failure in _run(book.rule, test)]


def _run(rule: Rule, test: _Test) -> Iterable[str]:
    width = WIDTHS_US[rule.window]
    points = [
        Point(i * width, (i + 1) * width, None if word == "-" else float(word))
        for i, word in enumerate(test.values.split())
    ]
    got = [(e.start_us, e.end_us) for e in fold(rule, points)]
    want = [(parse_duration_us(e.start), parse_duration_us(e.end) if e.end else None) for e in test.expect]
    if got != want:
        yield f"{rule.id}: {test.name!r}: episodes {_spell(got)}, expected {_spell(want)}"
    last = max((p.stop_us for p in points if p.value is not None), default=0)
    now = parse_duration_us(test.now) if test.now else len(points) * width
    if (no_data_since(rule, last, now) is not None) != test.no_data:
        yield f"{rule.id}: {test.name!r}: no data is {not test.no_data}, expected {test.no_data}"


def _spell(spans: Iterable[tuple[int, int | None]]) -> str:
    return str([f"{a // 60_000_000}min to {'now' if b is None else f'{b // 60_000_000}min'}" for a, b in spans])


def load_rules(indicators: Mapping[str, Indicator], extra: Path | None = None) -> dict[str, Rulebook]:
    """Read the shipped rules and those of a folder, by id; a rule of the folder replaces the shipped one of its id.

    A runbook is an address, or the name of a file beside the rule, which is then served by the API. Raises ConfigError where
    a file is wrong or missing, or there are too many. The tests are not run here.
    """
    books: dict[str, Rulebook] = {}
    for folder in [files("analytics").joinpath("rules"), *_folder(extra)]:
        for file in sorted(folder.iterdir(), key=lambda file: file.name):
            if file.name.endswith(".toml"):
                book = parse_rule(_text(file), where=file.name, indicators=indicators)
                books[book.rule.id] = _with_runbook(book, folder, file.name)
    if len(books) > RULES_MAX:
        raise ConfigError(f"{len(books)} rules are more than {RULES_MAX}", hint="merge rules that differ by zone only")
    return books


def _with_runbook(book: Rulebook, folder: Traversable, where: str) -> Rulebook:
    name = book.rule.runbook
    if not name or name.startswith(("http://", "https://")):
        return book
    file = folder.joinpath(Path(name).name)
    if not file.is_file():
        raise ConfigError(f"{where}: there is no runbook {name!r} beside it", hint="write it, or give an http address")
    served = f"/api/v1/rules/{book.rule.id}/runbook"
    return Rulebook(msgspec.structs.replace(book.rule, runbook=served, runbook_text=_text(file)), book.tests)


def _text(file: Traversable) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file.name} is not UTF-8: {error.reason}", hint="save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"cannot read {file.name}: {error.strerror}", hint="check what lies there") from None


def _folder(extra: Path | None) -> list[Path]:
    if extra is None:
        return []
    if not extra.is_dir():
        raise ConfigError(
            f"the rules folder {extra} does not exist", hint="make it, or remove the setting analytics.rules"
        )
    return [extra]


def describe(rule: Rule) -> dict[str, Any]:
    """Return a rule as plain data for people: its condition in words that need no code."""
    sign = ">" if rule.condition.above else "<"
    return {
        "id": rule.id,
        "title": rule.title,
        "indicator": rule.indicator,
        "window": rule.window,
        "condition": f"{rule.indicator} {sign} {rule.condition.threshold:g} {rule.unit}".strip(),
        "threshold": rule.condition.threshold,
        "clear": rule.condition.clear,
        "for_s": rule.for_us // 1_000_000,
        "severity": rule.severity.value,
        "owner": rule.owner,
        "runbook": rule.runbook,
    }
