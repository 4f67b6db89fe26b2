"""Checksums that tell whether two stores hold the same, whatever their engines, their ids and their order.

Readings are summed by series and UTC day: over time, bits of the value (every NaN alike, -0.0 unlike 0.0), flag, revision,
origin and receipt. Values by indicator, zone and UTC day of their start: over all fields of all revisions.

Each row is mixed into 64 bits by steps that can be undone, so that one row that differs anywhere always gives another
sum; two wrong rows that make up for each other have a chance of 1 in 2**64. The sums are no seal against forgery.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from devices.reading import Batch, Float64Array, SeriesInfo
from qala.store.arrival import DAY_US
from qala.store.base import VALUES, Selector, Span, Store, ValueSelector
from qala.store.rows import batch_of, numbers

__all__ = [
    "DaySum",
    "DaySums",
    "ValueSum",
    "day_checksums",
    "days",
    "differing",
    "each_day",
    "reading_checksums",
    "total",
    "value_checksums",
    "value_sums",
    "within",
]

UInt64Array = NDArray[np.uint64]
_HALF = np.uint64(32)
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: an odd factor that spreads low bits over high ones
_NAN, _NULL = np.array([0x7FF8000000000000, 0x7FF8000000000001], np.uint64)  # no other NaN is left beside them


class DaySum(msgspec.Struct, frozen=True):
    """The checksum of a series' readings of a UTC day (days since 1970-01-01)."""

    series: SeriesInfo
    day: int
    rows: int
    digest: int

    @property
    def place(self) -> tuple[object, ...]:
        """What is summed, in the order in which sums come."""
        return self.day, *msgspec.structs.astuple(self.series)


class ValueSum(msgspec.Struct, frozen=True):
    """The checksum of all revisions of an indicator's values of a zone whose windows start on a UTC day."""

    indicator: str
    zone: str
    day: int
    rows: int
    digest: int

    @property
    def place(self) -> tuple[object, ...]:
        """What is summed, in the order in which sums come."""
        return self.day, self.indicator, self.zone


Sum = TypeVar("Sum", DaySum, ValueSum)


def reading_checksums(store: Store, span: Span | None = None, select: Selector | None = None) -> Iterator[DaySum]:
    """Yield the checksums of readings, by day and then by the fields of the series; days without readings are absent.

    Takes the memory of one sum a series and one record batch.
    """
    select = select or Selector()
    for day in days(store, within(span, store.extent()), select):
        yield from day_checksums(store, day, select)


def within(span: Span | None, extent: Span | None) -> Span:
    """Return the part of an extent that lies in a span, or all of it; an empty span where there is none."""
    extent = extent or Span(0, 0)
    if span is None:
        return extent
    return Span(max(span.start_us, extent.start_us), min(span.stop_us, extent.stop_us))


def days(store: Store, span: Span, select: Selector) -> Iterator[Span]:
    """Yield the UTC days of a span that have readings, each as the part of it that lies in the span."""
    start_us = span.start_us
    while start_us < span.stop_us:
        start_us = _skip_nothing(store, Span(start_us, span.stop_us), select)
        day = Span(start_us, min(_days_later(start_us, 1), span.stop_us))
        if start_us < span.stop_us:
            yield day
        start_us = day.stop_us


def _skip_nothing(store: Store, span: Span, select: Selector) -> int:
    """Return the start of the first day that has a reading, or the span's stop, by steps that grow while they meet none."""
    start_us, step = span.start_us, 1
    while start_us < span.stop_us:
        stop_us = min(_days_later(start_us, step), span.stop_us)
        if not any(map(len, store.read(select, Span(start_us, stop_us), limit=1))):
            start_us, step = stop_us, step * 2
        elif step == 1:
            break
        else:
            step //= 2
    return start_us


def _days_later(time_us: int, count: int) -> int:
    """Return when the UTC day begins that is so many days after that of a time."""
    return (time_us // DAY_US + count) * DAY_US


def day_checksums(store: Store, day: Span, select: Selector) -> list[DaySum]:
    """Return the checksums of the readings of one UTC day, or of a part of it, by the fields of the series."""
    sums = DaySums()
    for part in store.read(select, day):
        sums.add(batch_of(part))
    return sums.of(store.catalog(), day.start_us // DAY_US)


class DaySums:
    """The checksums of one day while its readings pass by, in runs of a series."""

    def __init__(self) -> None:
        self._rows = np.zeros(0, np.int64)
        self._digest = np.zeros(0, np.uint64)

    def add(self, batch: Batch) -> None:
        """Take readings into account that are ordered by series."""
        if not len(batch):
            return
        first = np.flatnonzero(np.diff(batch.series, prepend=-1))
        ids = batch.series[first]  # each once
        self._grow(int(ids[-1]) + 1)
        self._rows[ids] += np.diff(first, append=len(batch))
        self._digest[ids] += np.add.reduceat(_reading_digests(batch), first)

    def _grow(self, size: int) -> None:
        more = max(size - len(self._rows), 0)
        self._rows = np.pad(self._rows, (0, more))
        self._digest = np.pad(self._digest, (0, more))

    def of(self, catalog: Mapping[int, SeriesInfo], day: int) -> list[DaySum]:
        """Return the checksums by the fields of the series."""
        ids = np.flatnonzero(self._rows)
        columns = ids.tolist(), self._rows[ids].tolist(), self._digest[ids].tolist()
        found = (DaySum(catalog[id_], day, rows, digest) for id_, rows, digest in zip(*columns, strict=True))
        return sorted(found, key=lambda one: one.place)


def _reading_digests(batch: Batch) -> UInt64Array:
    """Return uint64[n]."""
    kind = batch.flag.astype(np.uint64) << _HALF | batch.revision.view(np.uint32)
    return _mixed(
        batch.time_us.view(np.uint64),
        _bits(batch.value),
        kind,
        batch.origin.view(np.uint64),
        batch.received_us.view(np.uint64),
    )


def _bits(value: Float64Array) -> UInt64Array:
    """Return the bits of numbers, those of every NaN alike."""
    return np.where(np.isnan(value), _NAN, value.view(np.uint64))


def _mixed(*columns: UInt64Array) -> UInt64Array:
    """Mix the columns of each row into one number: xor, multiply by an odd number and fold, each of which can be undone.

    After the last column three rounds more, until a changed bit of it may have changed any bit: rows that were changed
    alike must not make up for each other in the sum.
    """
    mixed: UInt64Array = np.full(len(columns[0]), _ODD)
    folded = np.empty_like(mixed)
    rounds: list[UInt64Array | np.uint64] = [*columns, _ODD, _ODD, _ODD]
    for column in rounds:
        np.bitwise_xor(mixed, column, out=mixed)
        np.multiply(mixed, _ODD, out=mixed)
        np.right_shift(mixed, _HALF, out=folded)
        np.bitwise_xor(mixed, folded, out=mixed)
    return mixed


def value_checksums(store: Store, span: Span | None = None) -> Iterator[ValueSum]:
    """Yield the checksums of values, by day, indicator and zone; takes the memory of one day's values."""
    for day in each_day(within(span, store.values_extent())):
        yield from value_sums(store.revisions(ValueSelector(), day), day.start_us // DAY_US)


def each_day(span: Span) -> Iterator[Span]:
    """Yield the UTC days of a span, each as the part of it that lies in the span."""
    start_us = span.start_us
    while start_us < span.stop_us:
        stop_us = min(_days_later(start_us, 1), span.stop_us)
        yield Span(start_us, stop_us)
        start_us = stop_us


def value_sums(values: pa.Table, day: int) -> list[ValueSum]:
    """Return the checksums of a day's values (VALUES), by indicator and zone."""
    if not len(values):
        return []
    digests = _mixed(*(_value_column(values, field) for field in VALUES))
    indicators, indicator = _coded(values, "indicator")
    zones, zone = _coded(values, "zone")
    code, group, rows = np.unique(
        indicator.astype(np.int64) * len(zones) + zone, return_inverse=True, return_counts=True
    )
    digest = np.zeros(len(code), np.uint64)
    np.add.at(digest, group, digests)
    found = (
        ValueSum(indicators[one // len(zones)], zones[one % len(zones)], day, n, total)
        for one, n, total in zip(code.tolist(), rows.tolist(), digest.tolist(), strict=True)
    )
    return sorted(found, key=lambda one: one.place)


def _value_column(values: pa.Table, field: pa.Field) -> UInt64Array:
    """Return a column as numbers that are equal where it is: uint64[n]."""
    if pa.types.is_string(field.type):
        texts, codes = _coded(values, field.name)
        return np.array([_text_digest(text) for text in texts], np.uint64)[codes]
    if pa.types.is_floating(field.type):
        known = numbers(
            values.append_column("known", values[field.name].is_valid().cast(pa.uint8())), "known", np.bool_
        )
        return np.where(known, _bits(numbers(values, field.name, np.float64)), _NULL)
    return numbers(values, field.name, np.int64).view(np.uint64)


def _coded(values: pa.Table, name: str) -> tuple[list[str], NDArray[np.int32]]:
    """Return the different texts of a column, and for each row the number of its text: int32[n]."""
    coded = values[name].combine_chunks().dictionary_encode()
    codes = np.frombuffer(coded.indices.buffers()[1], np.int32)
    return coded.dictionary.to_pylist(), codes[coded.indices.offset : coded.indices.offset + len(coded)]


def _text_digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def differing(one: Iterable[Sum], other: Iterable[Sum]) -> Iterator[tuple[Sum | None, Sum | None]]:
    """Yield the pairs of checksums that are not equal, None where a store has nothing; takes both as they come."""
    left, right = iter(one), iter(other)
    mine, theirs = next(left, None), next(right, None)
    while mine is not None or theirs is not None:
        if theirs is None or (mine is not None and mine.place < theirs.place):
            yield mine, None
            mine = next(left, None)
        elif mine is None or theirs.place < mine.place:
            yield None, theirs
            theirs = next(right, None)
        else:
            if mine != theirs:
                yield mine, theirs
            mine, theirs = next(left, None), next(right, None)


def total(sums: Iterable[DaySum | ValueSum]) -> tuple[int, int]:
    """Return the rows of sums, and one digest over them and what they are of, in any order."""
    rows = digest = 0
    for one in sums:
        rows += one.rows
        digest += _text_digest(repr((one.place, one.rows, one.digest)))
    return rows, digest % 2**64
