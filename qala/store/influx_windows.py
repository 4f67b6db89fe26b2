"""Overviews of an InfluxDB store: what its storage aggregates by itself, and the rest exactly, from raw readings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from devices.errors import UnsupportedError
from devices.reading import Batch, BoolArray, Float64Array, Int32Array, Int64Array
from qala.store import influx_flux as flux
from qala.store.base import Aggregate, Span
from qala.store.influx_points import Catalog, Points, ordered
from qala.store.influx_rows import find, times
from qala.store.rows import AGGREGATE_TYPES, column, last_of_run, numbers, overview_schema, usable
from qala.store.sound import reach_us, soundness

RAW_MAX = 500_000
"""Raw readings that one overview may be made of."""

_RUNS_MAX = 16  # of even windows, in queries of one overview
_FROM_RAW = frozenset({Aggregate.SOUND, Aggregate.P50, Aggregate.P95})
_QUANTILES = {Aggregate.P50: 0.50, Aggregate.P95: 0.95}


def overview(
    points: Points, ids: Sequence[int], edges_us: Int64Array, aggregates: frozenset[Aggregate], catalog: Catalog
) -> pa.Table:
    """Aggregate series between edges.

    Raises UnsupportedError where soundness, quantiles or edges of many widths would take more than RAW_MAX raw readings.
    """
    if not ids or len(edges_us) < 2:
        return pa.Table.from_batches([], schema=overview_schema(aggregates))
    runs = flux.even_runs(edges_us)
    if aggregates & _FROM_RAW or len(runs) > _RUNS_MAX:
        return _from_raw(points, ids, edges_us, aggregates, catalog)
    return _pushed_down(points, ids, runs, aggregates, catalog)


# ---- by the server


def _pushed_down(
    points: Points, ids: Sequence[int], runs: Sequence[Int64Array], aggregates: frozenset[Aggregate], catalog: Catalog
) -> pa.Table:
    names = sorted(aggregates - {Aggregate.MEAN} | {Aggregate.COUNT})
    if Aggregate.MEAN in aggregates:
        names = sorted({*names, Aggregate.GOOD, Aggregate.SUM})
    results = [found for run in runs for found in points.windows(ids, run, names, catalog)]
    columns = {name: _column(results, name) for name in names}
    series, start_us, _ = columns[Aggregate.COUNT]
    placed = {name: _placed(columns[name], series, start_us) for name in names}
    if Aggregate.MEAN in aggregates:
        total, good = placed[Aggregate.SUM][0], placed[Aggregate.GOOD]
        placed[Aggregate.MEAN] = total / np.maximum(good[0], 1), good[1]
    return _table(series, start_us, placed, aggregates)


_Column = tuple[Int32Array, Int64Array, np.ndarray]
_Placed = tuple[np.ndarray, BoolArray]
"""Contents, and where there are any."""


def _column(results: Sequence[Mapping[str, pa.Table]], name: Aggregate) -> _Column:
    """Return an aggregate of all results, by (series, start)."""
    dtype = np.int64 if name in flux.COUNTED else np.float64
    found = [result[name] for result in results if name in result]
    series = np.concatenate([np.empty(0, np.int32), *(numbers(table, "series", np.int32) for table in found)])
    start_us = np.concatenate([np.empty(0, np.int64), *map(times, found)])
    content = np.concatenate([np.empty(0, dtype), *(numbers(table, "_value", dtype) for table in found)])
    order = np.lexsort((start_us, series))
    series, start_us, content = series[order], start_us[order], content[order]
    if name == Aggregate.COUNT and len(series):
        last = last_of_run(series, start_us)
        begins = np.flatnonzero(np.concatenate([[True], last[:-1]]))
        return series[last], start_us[last], np.add.reduceat(content, begins)
    return series, start_us, content


def _placed(found: _Column, series: Int32Array, start_us: Int64Array) -> _Placed:
    places = find(found[0], found[1], series, start_us)
    if not len(found[2]):
        return np.zeros(len(series), found[2].dtype), places >= 0
    return np.where(places < 0, 0, found[2][places]), places >= 0


def _table(
    series: Int32Array, start_us: Int64Array, placed: Mapping[Aggregate, _Placed], aggregates: frozenset[Aggregate]
) -> pa.Table:
    columns = [column(series, pa.int32()), column(start_us, pa.int64())]
    for name in Aggregate:
        if name in aggregates:
            content, there = placed[name]
            type_ = AGGREGATE_TYPES[name]
            counted = pa.types.is_integer(type_)
            columns.append(column(content, type_) if counted else _nullable(content.astype(np.float64), there))
    return pa.table(columns, schema=overview_schema(aggregates))


def _nullable(content: Float64Array, there: BoolArray) -> pa.Array:
    bitmap = pa.py_buffer(np.packbits(there, bitorder="little"))
    return pa.Array.from_buffers(pa.float64(), len(content), [bitmap, pa.py_buffer(np.ascontiguousarray(content))])


# ---- from raw readings


def _from_raw(
    points: Points, ids: Sequence[int], edges_us: Int64Array, aggregates: frozenset[Aggregate], catalog: Catalog
) -> pa.Table:
    back_us, ahead_us = reach_us({catalog[id_].quantity for id_ in ids}) if Aggregate.SOUND in aggregates else (0, 0)
    span = Span(int(edges_us[0]) - back_us, int(edges_us[-1]) + ahead_us)
    expected = sum(points.counts(ids, span, catalog).values())
    if expected > RAW_MAX:
        raise UnsupportedError(
            f"InfluxDB computes this from raw readings, and {expected} are more than {RAW_MAX}",
            hint="ask for fewer series or a shorter time, or leave out sound, p50 and p95",
        )
    rows = ordered(points.read(part, catalog) for part in points.plan(ids, span, catalog))
    sound = soundness(rows.series, rows.time_us, rows.value, rows.flag, catalog)
    inside = (rows.time_us >= edges_us[0]) & (rows.time_us < edges_us[-1])
    return _aggregated(rows.take(inside), sound[inside], edges_us, aggregates)


def _aggregated(rows: Batch, sound: BoolArray, edges_us: Int64Array, aggregates: frozenset[Aggregate]) -> pa.Table:
    window = np.searchsorted(edges_us, rows.time_us, side="right") - 1
    last = last_of_run(rows.series, window)
    group = np.cumsum(np.concatenate([[False], last[:-1]])) if len(rows) else np.empty(0, np.int64)
    groups = int(last.sum())
    good = usable(rows.flag)
    series, start_us = rows.series[last], edges_us[window[last]]
    placed = _of_good(rows.value[good], group[good], groups)
    placed[Aggregate.COUNT] = _counted(group, groups)
    placed[Aggregate.SOUND] = _counted(group[sound], groups)
    return _table(series, start_us, placed, aggregates)


def _counted(group: Int64Array, groups: int) -> _Placed:
    counts = np.bincount(group, minlength=groups).astype(np.int64)
    return counts, counts > 0


def _of_good(value: Float64Array, group: Int64Array, groups: int) -> dict[Aggregate, _Placed]:
    """Aggregate numbers by group; `group` rises."""
    count, there = _counted(group, groups)
    stop = np.cumsum(count)
    start = stop - count
    some = np.flatnonzero(there)
    ordered_ = value[np.lexsort((value, group))]
    numbers_: dict[Aggregate, Float64Array] = {
        Aggregate.SUM: np.add.reduceat(value, start[some]) if len(some) else value,
        Aggregate.MIN: ordered_[start[some]],
        Aggregate.MAX: ordered_[stop[some] - 1],
        Aggregate.FIRST: value[start[some]],
        Aggregate.LAST: value[stop[some] - 1],
    }
    numbers_[Aggregate.MEAN] = numbers_[Aggregate.SUM] / count[some]
    for name, share in _QUANTILES.items():
        numbers_[name] = _quantile(ordered_, start[some], count[some], share)
    placed: dict[Aggregate, _Placed] = {Aggregate.GOOD: (count, there)}
    for name, content in numbers_.items():
        spread = np.zeros(groups)
        spread[some] = content
        placed[name] = spread, there
    return placed


def _quantile(ordered_: Float64Array, start: Int64Array, count: Int64Array, share: float) -> Float64Array:
    """Interpolate between the two nearest of each group, as numpy does."""
    place = (count - 1) * share
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, count - 1)
    low, high, part = ordered_[start + below], ordered_[start + above], place - below
    rising: Float64Array = low + (high - low) * part
    falling: Float64Array = high - (high - low) * (1 - part)
    return np.where(part < 0.5, rising, falling)
