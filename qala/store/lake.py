"""The lake: closed days of readings as Parquet, in a folder or at any URL of fsspec, for other tools and other machines.

    <root>/lake.json                          which days an export has looked at
    <root>/series/00000001-00000300.parquet   who the series are; files are added, never changed
    <root>/day=2026-01-31/part-1-0000.parquet readings sorted by (series, time), each described in full
    <root>/day=2026-01-31/manifest.json       which parts are the day, written last

A day is a UTC day. Object stores cannot rename, so a day is what its manifest names, and nothing else: parts are written
under new names, then the manifest is replaced, then older parts go. One exporter writes at a time; readers need no lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from devices.errors import CorruptError, NotFoundError, UnavailableError, VersionError
from devices.reading import Int32Array, SeriesInfo
from qala.store.base import READINGS, Selector, Span
from qala.store.lake_files import LakeFiles
from qala.store.rows import column, numbers, selected, series_table

__all__ = ["DAY_US", "VERSION", "Lake", "Manifest", "Part", "day_name", "day_number", "day_span"]

DAY_US = 86_400_000_000
VERSION = 1
MANIFEST = "manifest.json"
ROWS_MAX = 1_000_000
"""Readings that a read holds at once, about."""

_BATCH_ROWS = 65_536
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = "day="
_COVERED, _SERIES = "lake.json", "series"


class Part(msgspec.Struct, frozen=True):
    """One file of a day."""

    name: str
    rows: int
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What a day is made of. `digest` is of the readings themselves: equal readings have equal ones."""

    version: int
    day: str
    generation: int  # counts the exports of the day
    rows: int
    digest: str
    parts: tuple[Part, ...]

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts)


class _Covered(msgspec.Struct, frozen=True):
    """Ranges of day numbers `[first, last)` that exports have looked at, rising and apart."""

    version: int = VERSION
    covered: tuple[tuple[int, int], ...] = ()


def day_name(day: int) -> str:
    """Return a day's date (days since 1970, UTC).

    >>> day_name(20454)
    '2026-01-01'
    """
    return (_EPOCH + timedelta(days=day)).strftime("%Y-%m-%d")


def day_number(name: str) -> int:
    """Return the number of a date, as `day_name` writes it. Raises ValueError where it is none.

    >>> day_number("2026-01-01")
    20454
    """
    return (datetime.strptime(name, "%Y-%m-%d").replace(tzinfo=UTC) - _EPOCH).days


def day_span(day: int) -> Span:
    """Return the time of a day."""
    return Span(day * DAY_US, (day + 1) * DAY_US)


class Lake:
    """Reads days that were exported, like a store: `catalog` and `read`. Series have ids of the lake's own."""

    def __init__(self, url: str) -> None:
        """Name a lake; nothing is read yet. Raises ConfigError where no file system is known for the URL."""
        self.url = url
        self.files = LakeFiles(url)

    def days(self) -> list[int]:
        """Return the numbers of the days that are complete, rising."""
        return [day for day in self.begun() if self.files.exists(f"{folder_of(day)}/{MANIFEST}")]

    def begun(self) -> list[int]:
        """Return the numbers of the days that have a folder, rising; one without a manifest is not complete, or damaged."""
        return sorted(day_number(name.removeprefix(_DAY)) for name in self.files.names("") if name.startswith(_DAY))

    def manifest(self, day: int) -> Manifest | None:
        """Return what a day is made of, None where it was not exported. Raises CorruptError where it cannot be read."""
        found: Manifest | None = self._decoded(f"{folder_of(day)}/{MANIFEST}", Manifest)
        return found

    def covered(self) -> tuple[tuple[int, int], ...]:
        """Return the ranges of days `[first, last)` that exports have looked at: what is missing there has no readings."""
        found = self._decoded(_COVERED, _Covered)
        return found.covered if found else ()

    def complete(self) -> tuple[tuple[int, int], ...]:
        """Return the ranges of `covered` without the days that lost their manifest: what those held is not known."""
        torn = sorted({*self.begun()} - {*self.days()})
        return _without(self.covered(), torn)

    def cover(self, first: int, last: int) -> None:
        """Note that an export has looked at the days `[first, last)`."""
        before = self.covered()
        after = _united([*before, (first, last)])
        if after != before:
            self.files.replace(_COVERED, msgspec.json.encode(_Covered(covered=after)))

    def catalog(self) -> Mapping[int, SeriesInfo]:
        """Return every series by id."""
        names = sorted(name for name in self.files.names(_SERIES) if name.endswith(".parquet"))
        rows = [row for name in names for row in self._table(f"{_SERIES}/{name}").to_pylist()]
        return {row.pop("id"): SeriesInfo(**row) for row in rows}

    def register(self, series: Sequence[SeriesInfo]) -> Int32Array:
        """Return the ids of series (int32[n]), making those that are new. For the one exporter."""
        ids = {info: id_ for id_, info in self.catalog().items()}
        top = max(ids.values(), default=0)
        new = [(top + n, info) for n, info in enumerate(dict.fromkeys(i for i in series if i not in ids), start=1)]
        if new:
            sink = pa.BufferOutputStream()
            pq.write_table(series_table(new), sink)
            name = f"{_SERIES}/{new[0][0]:08d}-{new[-1][0]:08d}.parquet"
            self.files.replace(name, sink.getvalue().to_pybytes())
            ids.update((info, id_) for id_, info in new)
        return np.array([ids[info] for info in series], np.int32)

    def read(self, select: Selector, span: Span, *, limit: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield readings (READINGS) ordered by (series, time), as far as their days were exported.

        Days and row groups that hold nothing of it are left out. Raises CorruptError where a part is missing or damaged.
        """
        ids = np.array(selected(select, self.catalog()), np.int32)
        left = limit
        for table in self._tables(ids, span):
            rows = table if left is None else table.slice(0, left)
            yield from rows.to_batches(max_chunksize=_BATCH_ROWS)
            if left is not None:
                left -= len(rows)
                if not left:
                    return

    def verify(self, day: int) -> list[str]:
        """Say what is wrong with a day's files: those that are missing, cut or changed."""
        manifest = self.manifest(day)
        if manifest is None:
            return ["it has no manifest"]
        return [
            f"{part.name} is not what its manifest says"
            for part in manifest.parts
            if self.files.measure(f"{folder_of(day)}/{part.name}") != (part.bytes, part.sha256)
        ]

    def _tables(self, ids: Int32Array, span: Span) -> Iterator[pa.Table]:
        """Yield the readings of some series after others, of a bounded number at once."""
        if not len(ids) or span.start_us >= span.stop_us:
            return
        wanted = range(span.start_us // DAY_US, (span.stop_us - 1) // DAY_US + 1)
        rows = {day: manifest.rows for day in self.begun() if day in wanted and (manifest := self.manifest(day))}
        for some in np.array_split(ids, min(len(ids), 1 + sum(rows.values()) // ROWS_MAX)):
            table = self._gathered(list(rows), some, span)
            if len(table):
                yield table

    def _gathered(self, days: Sequence[int], ids: Int32Array, span: Span) -> pa.Table:
        parts = [table for day in days for table in self._of_day(day, ids, span)]
        table = pa.concat_tables(parts) if parts else pa.Table.from_batches([], READINGS)
        return table if len(parts) < 2 else table.sort_by([("series", "ascending"), ("time_us", "ascending")])

    def _of_day(self, day: int, ids: Int32Array, span: Span) -> list[pa.Table]:
        try:
            return self._of_parts(day, ids, span)
        except NotFoundError:  # the day was exported again since its manifest was read: it names other parts now
            return self._of_parts(day, ids, span)

    def _of_parts(self, day: int, ids: Int32Array, span: Span) -> list[pa.Table]:
        manifest = self.manifest(day)
        names = [f"{folder_of(day)}/{part.name}" for part in manifest.parts] if manifest else []
        return [table for name in names for table in self._of_part(name, ids, span)]

    def _of_part(self, name: str, ids: Int32Array, span: Span) -> Iterator[pa.Table]:
        """Read the row groups of a part that may hold what is wanted, and yield what of it is."""
        with self.files.open(name) as file, _undamaged(name):
            part = pq.ParquetFile(file, page_checksum_verification=True)
            groups = [n for n in range(part.num_row_groups) if _may_hold(part.metadata.row_group(n), ids, span)]
            if groups:
                rows = part.read_row_groups(groups, columns=READINGS.names)
                yield rows.take(_wanted(rows, ids, span)).select(READINGS.names)

    def _table(self, name: str) -> pa.Table:
        with self.files.open(name) as file, _undamaged(name):
            return pq.ParquetFile(file, page_checksum_verification=True).read()

    def _decoded(self, name: str, kind: type[Any]) -> Any:
        data = self.files.read(name)
        if data is None:
            return None
        try:
            found = msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError as error:
            raise CorruptError(f"{self.url}/{name} is damaged: {error}", hint="remove it and export again") from None
        if found.version > VERSION:
            raise VersionError(f"{self.url}/{name} was written by a newer Qala", hint="use that Qala, or a newer one")
        return found


class _undamaged:  # noqa: N801 - it reads as the statement that it is
    """Raise CorruptError for what Parquet cannot read in the block, UnavailableError where nothing came to be read."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError) and error.errno is not None:  # Arrow's own errors have no number
            raise UnavailableError(
                f"cannot read {self._name} of the lake: {error}",
                hint="see to the network, the disk and the permissions",
            ) from error
        if isinstance(error, pa.ArrowInvalid | OSError):
            raise CorruptError(
                f"{self._name} of the lake is damaged: {error}", hint="see qala lake verify, and export the day again"
            ) from error


def folder_of(day: int) -> str:
    """Return the folder of a day, by the convention of Hive partitions."""
    return _DAY + day_name(day)


def _united(ranges: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Put ranges together that touch.

    >>> _united([(5, 7), (1, 3), (3, 4), (6, 9)])
    ((1, 4), (5, 9))
    """
    united: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if united and first <= united[-1][1]:
            united[-1] = (united[-1][0], max(last, united[-1][1]))
        else:
            united.append((first, last))
    return tuple(united)


def _without(ranges: Sequence[tuple[int, int]], days: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Take days out of ranges.

    >>> _without([(1, 4), (6, 9)], [1, 7, 20])
    ((2, 4), (6, 7), (8, 9))
    """
    left: list[tuple[int, int]] = []
    for first, last in ranges:
        inside = [day for day in days if first <= day < last]
        starts, stops = [first, *(day + 1 for day in inside)], [*inside, last]
        left += [(start, stop) for start, stop in zip(starts, stops, strict=True) if start < stop]
    return tuple(left)


def _may_hold(group: pq.RowGroupMetaData, ids: Int32Array, span: Span) -> bool:
    """Tell by its statistics whether a row group may hold readings of any of the rising ids in a span."""
    first, last = _bounds(group, "series")
    since, until = _bounds(group, "time_us")
    among = np.searchsorted(ids, first, side="left") < np.searchsorted(ids, last, side="right")
    return bool(among and since < span.stop_us and until >= span.start_us)


def _bounds(group: pq.RowGroupMetaData, name: str) -> tuple[int, int]:
    """Return the least and the greatest of a column in a row group."""
    at = next(n for n in range(group.num_columns) if group.column(n).path_in_schema == name)
    statistics = group.column(at).statistics
    return statistics.min, statistics.max


def _wanted(rows: pa.Table, ids: Int32Array, span: Span) -> pa.Array:
    """Return the indices of the rows of some series in a span."""
    time_us = numbers(rows, "time_us", np.int64)
    inside = (time_us >= span.start_us) & (time_us < span.stop_us)
    return column(np.flatnonzero(inside & np.isin(numbers(rows, "series", np.int32), ids)), pa.int64())
