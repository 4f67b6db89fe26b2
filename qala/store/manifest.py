"""What a store holds, in figures that tell whether another holds the same: written beside a backup, compared when it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import msgspec

from devices.errors import CorruptError, NotFoundError, VersionError
from qala.store.base import Store
from qala.store.checksum import DaySum, ValueSum, reading_checksums, total, value_checksums
from qala.store.durable import put_file

__all__ = ["Day", "Manifest", "describe", "differences", "read_manifest", "write_manifest"]

VERSION = 1
_DAY_S = 86_400

OnDay = Callable[[str, int], None]
"""Told of each day that was summed, and how many rows it has."""


class Day(msgspec.Struct, frozen=True):
    """A UTC day: how many series (or indicators of a zone) it has, how many rows, and their checksum."""

    sums: int
    rows: int
    checksum: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a store held at a moment. `state` is what the state knew then, for `qala store restore`."""

    version: int = VERSION
    qala: str
    made: str
    engine: str
    positions: Mapping[str, int]
    series: int
    readings: int
    values: int
    days: Mapping[str, Day]
    value_days: Mapping[str, Day]
    state: msgspec.Raw = msgspec.Raw(b"null")
    state_digest: str = ""  # of `state`, which nothing else would show to be damaged


def describe(store: Store, *, qala: str, made_us: int, on_day: OnDay = lambda _day, _rows: None) -> Manifest:
    """Read a store through and say what it holds. Raises CorruptError where the engine finds it damaged."""
    days = dict(_days(reading_checksums(store), on_day))
    value_days = dict(_days(value_checksums(store), on_day))
    return Manifest(
        qala=qala,
        made=datetime.fromtimestamp(made_us / 1e6, UTC).isoformat(timespec="seconds"),
        engine=store.capabilities.engine,
        positions={position.journal: position.number for position in store.positions()},
        series=len(store.catalog()),
        readings=sum(day.rows for day in days.values()),
        values=sum(day.rows for day in value_days.values()),
        days=days,
        value_days=value_days,
    )


def _days(sums: Iterable[DaySum | ValueSum], on_day: OnDay) -> Iterator[tuple[str, Day]]:
    for number, group in groupby(sums, key=lambda one: one.day):
        day = list(group)
        rows, digest = total(day)
        name = datetime.fromtimestamp(number * _DAY_S, UTC).date().isoformat()
        on_day(name, rows)
        yield name, Day(len(day), rows, f"{digest:016x}")


def differences(known: Manifest, found: Manifest) -> list[str]:
    """Name what a store holds otherwise than a manifest says."""
    told = []
    if known.positions != found.positions:
        told.append(f"positions: {dict(found.positions)} instead of {dict(known.positions)}")
    if known.series != found.series:
        told.append(f"series: {found.series} instead of {known.series}")
    told += _differing("readings", known.days, found.days)
    told += _differing("values", known.value_days, found.value_days)
    return told


def _differing(what: str, known: Mapping[str, Day], found: Mapping[str, Day]) -> Iterator[str]:
    for day in sorted(known.keys() | found.keys()):
        one, other = known.get(day), found.get(day)
        if one == other:
            continue
        rows = (one.rows if one else 0, other.rows if other else 0)
        said = "not the same" if rows[0] == rows[1] else f"{rows[1]} instead of {rows[0]}"
        yield f"{what} of {day}: {said}"


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest so that it is there as a whole, or not at all."""
    whole = msgspec.structs.replace(manifest, state_digest=_digest(manifest.state))
    put_file(path, msgspec.json.format(msgspec.json.encode(whole), indent=1))


def _digest(state: msgspec.Raw) -> str:
    """Digest a JSON document, however it is spaced."""
    return hashlib.sha256(msgspec.json.format(state, indent=-1)).hexdigest()


def read_manifest(path: Path) -> Manifest:
    """Read a manifest. Raises NotFoundError, CorruptError, or VersionError where a newer Qala wrote it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NotFoundError(
            f"cannot read the manifest {path}: {error.strerror}", hint="it was written beside the backup: FILE.json"
        ) from error
    try:
        found = msgspec.json.decode(content, type=Manifest)
    except msgspec.DecodeError as error:
        raise CorruptError(f"{path} is no manifest: {error}", hint="use another backup") from error
    if found.version > VERSION:
        raise VersionError(f"{path} was written by Qala {found.qala}", hint="run that one, or a newer one")
    if found.state_digest and found.state_digest != _digest(found.state):
        raise CorruptError(f"{path} is damaged: what the state knew is not what was written", hint="use another backup")
    return found
