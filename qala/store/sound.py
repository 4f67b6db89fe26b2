"""Which readings the context checks leave usable: counts for engines, from rows sorted by (series, time).

Soundness is a matter of a reading and its neighbours, never of the edges that are asked for: engines read as far around
their edges as `reach_us` says and leave those rows out of the counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping

import msgspec
import numpy as np
import pyarrow as pa

from devices.quality import VERSION, Limits, context_s, derive_flags, limits_of
from devices.quantity import QUANTITIES
from devices.reading import BoolArray, Float64Array, Int32Array, Int64Array, SeriesInfo, UInt8Array
from qala.store.rows import column, numbers, usable

__all__ = ["JUDGED", "checks", "count_sound", "limits_by_name", "reach_us", "soundness", "whole_series"]

JUDGED = pa.schema([("series", pa.int32()), ("start_us", pa.int64()), ("sound", pa.int64())])
"""Columns of `count_sound`."""

_SECOND_US = 1_000_000
_PART_ROWS = 500_000  # judged at once: enough that numpy's calls cost nothing, few enough to stay small


def limits_by_name(quantity: str) -> Limits:
    """Return the context limits of a quantity by its name; those of an unknown one check nothing."""
    known = QUANTITIES.get(quantity)
    return limits_of(known) if known else Limits()


def checks() -> str:
    """Return a digest of what soundness depends on beside the readings: the checks and the limits of all quantities."""
    told = msgspec.json.encode((VERSION, {name: limits_by_name(name) for name in sorted(QUANTITIES)}))
    return hashlib.blake2b(told, digest_size=8).hexdigest()


def reach_us(quantities: Iterable[str]) -> tuple[int, int]:
    """Return how far (back, ahead) [us] around a span readings are needed to judge those of these quantities inside it.

    >>> reach_us({"temperature", "traffic_light"})
    (29400000000, 600000000)
    """
    reaches = [context_s(limits_by_name(name)) for name in quantities]
    back_s, ahead_s = (max((reach[side] for reach in reaches), default=0) for side in (0, 1))
    return back_s * _SECOND_US, ahead_s * _SECOND_US


def soundness(
    series: Int32Array, time_us: Int64Array, value: Float64Array, flag: UInt8Array, catalog: Mapping[int, SeriesInfo]
) -> BoolArray:
    """Tell which rows are usable by their stored flag and by their neighbours: bool[n]; rows are sorted by (series, time)."""
    derived = flag.copy()
    ids, rows_of = np.unique(series, return_inverse=True)
    limits = [limits_by_name(catalog[id_].quantity) for id_ in ids.tolist()]
    for checks in set(limits):
        mine = np.array([one == checks for one in limits], np.bool_)[rows_of]
        with np.errstate(over="ignore", invalid="ignore"):  # numbers at the ends of the scale may be stored too
            derived[mine] = derive_flags(series[mine], time_us[mine], value[mine], flag[mine], checks)
    return usable(derived)


def count_sound(
    parts: Iterable[pa.Table],
    edges_us: Int64Array,
    inside_us: tuple[int, int],
    catalog: Mapping[int, SeriesInfo],
) -> pa.Table:
    """Count sound readings by series between edges (JUDGED, windows without any left out).

    `parts` are readings (series, time_us, value, flag) sorted by (series, time), each with whole series and their context.
    Only readings within the half-open `inside_us` are counted, which lies between the first edge and the last.
    """
    counts = [_count(part, edges_us, inside_us, catalog) for part in parts]
    return pa.concat_tables([pa.Table.from_batches([], schema=JUDGED), *counts])


def _count(
    part: pa.Table, edges_us: Int64Array, inside_us: tuple[int, int], catalog: Mapping[int, SeriesInfo]
) -> pa.Table:
    series, time_us = numbers(part, "series", np.int32), numbers(part, "time_us", np.int64)
    sound = soundness(series, time_us, numbers(part, "value", np.float64), numbers(part, "flag", np.uint8), catalog)
    counted = np.flatnonzero(sound & (time_us >= inside_us[0]) & (time_us < inside_us[1]))
    ids, start_us = series[counted], edges_us[np.searchsorted(edges_us, time_us[counted], side="right") - 1]
    first = np.ones(len(counted), np.bool_)
    np.logical_or(ids[1:] != ids[:-1], start_us[1:] != start_us[:-1], out=first[1:])
    starts = np.flatnonzero(first)
    count = np.diff(np.append(starts, len(counted)))
    columns = (ids[starts], start_us[starts], count.astype(np.int64))
    return pa.table([column(data, field.type) for data, field in zip(columns, JUDGED, strict=True)], schema=JUDGED)


def whole_series(batches: Iterable[pa.RecordBatch], rows: int = _PART_ROWS) -> Iterator[pa.Table]:
    """Join record batches sorted by series to tables of about so many rows, or of one series, that cut no series in two."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        if not batch.num_rows:
            continue
        held.append(batch)
        if sum(part.num_rows for part in held) >= rows:
            table = pa.Table.from_batches(held)
            cut = int(np.searchsorted(numbers(table, "series", np.int32), table["series"][-1].as_py()))
            if cut:
                yield table.slice(0, cut)
            held = table.slice(cut).combine_chunks().to_batches()
    if held:
        yield pa.Table.from_batches(held)
