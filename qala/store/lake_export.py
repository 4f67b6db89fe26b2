"""Exporting: days of a store's readings into a lake, each as a whole, and again when late readings changed it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from devices.reading import Int32Array, Int64Array, SeriesInfo
from qala.store.base import READINGS, Selector, Span, Store, Upkeep
from qala.store.lake import DAY_US, MANIFEST, VERSION, Lake, Manifest, Part, day_name, day_span, folder_of
from qala.store.rows import array, column, numbers

__all__ = ["CLOSED_AFTER_US", "Exported", "Exporter", "closed_days", "days_of", "export_day", "first_kept_day"]

CLOSED_AFTER_US = 3_600_000_000
"""A day counts as closed an hour after its end: what comes later is late, and exports the day again."""

PART_ROWS = 8_000_000
GROUP_ROWS = 100_000
SERIES_AT_ONCE = 256

_FIRST_DAY = 0
_KEYS = ("device", "quantity", "channel", "unit")
_SCHEMA = pa.schema(
    [
        READINGS.field("series"),
        *((name, pa.dictionary(pa.int32(), pa.string())) for name in _KEYS),
        ("span_s", pa.int32()),
        *(field for field in READINGS if field.name != "series"),
    ],
)
_RISING = ("time_us", "origin", "received_us")  # numbers whose differences pack best
_REPEATED = ["series", *_KEYS, "span_s", "value", "flag", "revision"]


class Exported(msgspec.Struct, frozen=True):
    """What became of a day: whether it was written, and what the lake has of it."""

    day: str
    written: bool
    rows: int
    bytes: int
    parts: int


def closed_days(now_us: int) -> int:
    """Return the first day that is not closed yet.

    >>> closed_days(20454 * DAY_US + CLOSED_AFTER_US - 1), closed_days(20454 * DAY_US + CLOSED_AFTER_US)
    (20453, 20454)
    """
    return (now_us - CLOSED_AFTER_US) // DAY_US


def first_kept_day(now_us: int, keep_days: float | None) -> int:
    """Return the first day of which all readings are kept still.

    >>> first_kept_day(20454 * DAY_US + 1, 30.0), first_kept_day(20454 * DAY_US, None)
    (20425, 0)
    """
    return _FIRST_DAY if keep_days is None else -(-(now_us - int(keep_days * DAY_US)) // DAY_US)


def days_of(store: Store, first: int, last: int) -> Iterator[int]:
    """Yield the days of `[first, last)` that the store has readings of, rising."""
    extent = store.extent()
    if extent is not None:
        yield from _halved(store, max(first, extent.start_us // DAY_US), min(last, (extent.stop_us - 1) // DAY_US + 1))


def _halved(store: Store, first: int, last: int) -> Iterator[int]:
    if first >= last or not _has_readings(store, Span(first * DAY_US, last * DAY_US)):
        return
    if last - first == 1:
        yield first
        return
    middle = (first + last) // 2
    yield from _halved(store, first, middle)
    yield from _halved(store, middle, last)


def _has_readings(store: Store, span: Span) -> bool:
    return any(batch.num_rows for batch in store.read(Selector(), span, limit=1))


def export_day(store: Store, lake: Lake, day: int, *, verify: bool = False) -> Exported:
    """Bring the lake to what the store has of a day; where that is there already, nothing is written.

    Parts that are missing or of another length are written again; with `verify` they are read, and so are those that changed.
    What the lake has stays until the new parts are complete. The manifest says what was written even where readings came
    in meanwhile: their day is simply due again.
    """
    before = lake.manifest(day)
    writer = _Day(store, lake, day)
    whole = before and (not lake.verify(day) if verify else _is_complete(lake, day, before))
    if before and whole and before.digest == writer.digest():
        return Exported(before.day, False, before.rows, before.bytes, len(before.parts))
    manifest = writer.write(before.generation + 1 if before else 1)
    return Exported(manifest.day, True, manifest.rows, manifest.bytes, len(manifest.parts))


def _is_complete(lake: Lake, day: int, manifest: Manifest) -> bool:
    return all(lake.files.size(f"{folder_of(day)}/{part.name}") == part.bytes for part in manifest.parts)


class Exporter:
    """Keeps a lake up to date with the store beside it: closed days as they close, and days that late readings touch.

    One thread calls `step`, another may call `touch`. After a start every day is compared once.
    """

    def __init__(self, store: Store, lake: Lake, *, keep_days: float | None = None) -> None:
        """With `keep_days`, days that retention has begun to thin are left as the lake has them."""
        self._store = store
        self._lake = lake
        self._keep_days = keep_days
        self._lock = threading.Lock()
        self._due: set[int] = set()
        self._looked_at: int | None = None  # days before this one are in the lake, due, or have no readings
        self._done = 0
        self._error = ""

    def touch(self, time_us: Int64Array) -> None:
        """Note that readings of these times changed."""
        days = set(np.unique(time_us // DAY_US).tolist())
        with self._lock:
            self._due |= days

    def step(self, now_us: int) -> bool:
        """Export the oldest day that is due, if any, and tell whether more wait."""
        first, last = first_kept_day(now_us, self._keep_days), closed_days(now_us)
        try:
            self._look(first, last)
            day = self._take(first, last)
            if day is not None:
                self._export(day)
                self._done += 1
            self._cover(first, last)
        except Exception as error:
            self._error = str(error)
            raise
        self._error = ""
        return self._waiting(last) > 0

    def upkeep(self) -> Upkeep:
        """Say how many days were compared or exported, of those that had to be."""
        with self._lock:
            return Upkeep("lake", self._done, self._done + len(self._due), "days", self._error)

    def _look(self, first: int, last: int) -> None:
        """Find the days with readings among those that closed since the last look."""
        since = first if self._looked_at is None else max(first, self._looked_at)
        found = set(days_of(self._store, since, last))
        with self._lock:
            self._due |= found
        self._looked_at = last

    def _take(self, first: int, last: int) -> int | None:
        with self._lock:
            self._due = {day for day in self._due if day >= first}
            day = min((day for day in self._due if day < last), default=None)
            self._due.discard(-1 if day is None else day)
        return day

    def _export(self, day: int) -> None:
        try:
            export_day(self._store, self._lake, day)
        except Exception:
            with self._lock:
                self._due.add(day)
            raise

    def _cover(self, first: int, last: int) -> None:
        with self._lock:
            upto = min((day for day in self._due if day < last), default=last)
        if upto > first:
            self._lake.cover(first, upto)

    def _waiting(self, last: int) -> int:
        with self._lock:
            return sum(day < last for day in self._due)


class _Day:
    """One day on its way: read series by series, in the lake's order, a bounded number of them at once."""

    def __init__(self, store: Store, lake: Lake, day: int) -> None:
        self._store = store
        self._lake = lake
        self._day = day
        catalog = store.catalog()
        self._info = list(catalog.values())
        self._theirs = np.fromiter(catalog, np.int32, len(catalog))
        self._ours = lake.register(self._info)

    def digest(self) -> str:
        """Digest what the store has of the day."""
        found = _Digest()
        for rows in self._tables():
            found.add(rows)
        return found.hexdigest()

    def write(self, generation: int) -> Manifest:
        """Write parts, then the manifest, then remove what it does not name."""
        parts: list[Part] = []
        found, tables = _Digest(), _Ahead(self._tables())
        while tables.has_more():
            parts.append(self._write_part(f"part-{generation}-{len(parts):04d}.parquet", tables, found))
        rows = sum(part.rows for part in parts)
        manifest = Manifest(VERSION, day_name(self._day), generation, rows, found.hexdigest(), tuple(parts))
        self._lake.files.replace(f"{folder_of(self._day)}/{MANIFEST}", msgspec.json.encode(manifest))
        self._tidy(manifest)
        return manifest

    def _write_part(self, name: str, tables: _Ahead, found: _Digest) -> Part:
        rows = 0
        with self._lake.files.create(f"{folder_of(self._day)}/{name}") as file:
            with _writer(file) as parquet:
                for group in _row_groups(tables.upto(PART_ROWS)):
                    found.add(group)
                    parquet.write_table(self._described(group), row_group_size=GROUP_ROWS)
                    rows += len(group)
            return Part(name, rows, file.length, file.sha256)

    def _tables(self) -> Iterator[pa.Table]:
        """Yield the day's readings under the lake's ids, sorted by (series, time)."""
        order = np.argsort(self._ours)
        for start in range(0, len(order), SERIES_AT_ONCE):
            block = order[start : start + SERIES_AT_ONCE]
            theirs = self._theirs[block]
            batches = self._store.read(Selector(series=frozenset(theirs.tolist())), day_span(self._day))
            table = pa.Table.from_batches(batches, READINGS)
            if len(table):
                yield _renumbered(table, theirs, self._ours[block])

    def _described(self, rows: pa.Table) -> pa.Table:
        """Add who the series are, so that a part can be read alone."""
        ids, index = np.unique(numbers(rows, "series", np.int32), return_inverse=True)
        info = dict(zip(self._ours.tolist(), self._info, strict=True))
        known = [info[id_] for id_ in ids.tolist()]
        columns = {name: _named(known, name, index.astype(np.int32)) for name in _KEYS}
        spans = np.array([one.span_s for one in known], np.int32)[index]
        columns["span_s"] = column(spans, pa.int32())
        return pa.table([columns[n] if n in columns else rows[n] for n in _SCHEMA.names], schema=_SCHEMA)

    def _tidy(self, manifest: Manifest) -> None:
        folder, named = folder_of(self._day), {part.name for part in manifest.parts}
        for name in self._lake.files.names(folder):
            if name.startswith("part-") and name not in named:
                self._lake.files.remove(f"{folder}/{name}")


class _Ahead:
    """Tables, with a look at whether there are more, given out up to a number of rows at a time."""

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables = tables
        self._next = next(tables, None)

    def has_more(self) -> bool:
        return self._next is not None

    def upto(self, rows: int) -> Iterator[pa.Table]:
        """Yield tables until so many rows are reached."""
        while self._next is not None and rows > 0:
            table, self._next = self._next, None
            if len(table) > rows:
                self._next, table = table.slice(rows), table.slice(0, rows)
            rows -= len(table)
            yield table
            self._next = self._next or next(self._tables, None)


def _renumbered(table: pa.Table, theirs: Int32Array, ours: Int32Array) -> pa.Table:
    order = np.argsort(theirs)
    at = np.searchsorted(theirs[order], numbers(table, "series", np.int32))
    series = ours[order][at]
    table = table.set_column(0, READINGS.field("series"), column(series, pa.int32()))
    if (np.diff(series) < 0).any():
        table = table.take(column(np.argsort(series, kind="stable"), pa.int64()))
    return table


def _row_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Put tables together, and cut them, into row groups of one size."""
    rest: list[pa.Table] = []
    for table in tables:
        rest.append(table)
        if sum(map(len, rest)) >= GROUP_ROWS:
            whole = pa.concat_tables(rest)
            full = len(whole) // GROUP_ROWS * GROUP_ROWS
            yield from (whole.slice(n, GROUP_ROWS) for n in range(0, full, GROUP_ROWS))
            rest = [whole.slice(full)]
    if sum(map(len, rest)):
        yield pa.concat_tables(rest)


def _named(infos: Sequence[SeriesInfo], name: str, index: Int32Array) -> pa.DictionaryArray:
    texts = [getattr(info, name) for info in infos]
    words = sorted(set(texts))
    number = {word: n for n, word in enumerate(words)}
    of_series = np.array([number[text] for text in texts], np.int32)
    return pa.DictionaryArray.from_arrays(column(of_series[index], pa.int32()), array(words, pa.string()))


def _writer(file: Any) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        file,
        _SCHEMA,
        compression="zstd",
        write_page_checksum=True,
        use_dictionary=_REPEATED,
        column_encoding=dict.fromkeys(_RISING, "DELTA_BINARY_PACKED"),
    )


class _Digest:
    """A digest of readings in their order, however they are cut: one of each column. Every NaN is the same one."""

    def __init__(self) -> None:
        self._columns = {field.name: hashlib.blake2b(digest_size=16) for field in READINGS}

    def add(self, rows: pa.Table) -> None:
        for field in READINGS:
            data = numbers(rows, field.name, field.type.to_pandas_dtype())
            if field.name == "value":
                data = np.where(np.isnan(data), np.nan, data)
            self._columns[field.name].update(np.ascontiguousarray(data).tobytes())

    def hexdigest(self) -> str:
        whole = b"".join(column.digest() for column in self._columns.values())
        return hashlib.blake2b(whole, digest_size=16).hexdigest()
