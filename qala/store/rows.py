"""What engines do alike: batches and values as Arrow columns, selectors over a catalog, one row a (series, time)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray

from devices.errors import NotFoundError
from devices.reading import USABLE, Batch, BoolArray, Int32Array, Int64Array, SeriesInfo, UInt8Array
from devices.value import Value
from qala.store.base import READINGS, VALUES, Aggregate, Selector

SERIES = pa.schema(
    [
        ("id", pa.int32()),
        ("device", pa.string()),
        ("quantity", pa.string()),
        ("channel", pa.string()),
        ("span_s", pa.int32()),
        ("unit", pa.string()),
    ],
)

COUNTS = frozenset({Aggregate.COUNT, Aggregate.GOOD, Aggregate.SOUND})
AGGREGATE_TYPES: Mapping[Aggregate, pa.DataType] = {
    aggregate: pa.int64() if aggregate in COUNTS else pa.float64() for aggregate in Aggregate
}

_USABLE = np.isin(np.arange(256), list(USABLE))

_encode_detail = msgspec.json.Encoder(order="deterministic").encode


def column(data: NDArray[Any], type_: pa.DataType) -> pa.Array:
    """Return an array's own memory as an Arrow array without nulls (`pa.array` would import pandas)."""
    data = np.ascontiguousarray(data)
    return pa.Array.from_buffers(type_, len(data), [None, pa.py_buffer(data)])


def array(items: Sequence[Any], type_: pa.DataType) -> pa.Array:
    """Return strings, or numbers where None is null, as an Arrow array (`pa.array` would import pandas)."""
    if pa.types.is_string(type_):
        return _strings(items)
    valid = np.array([item is not None for item in items], np.bool_)
    data = np.array([0 if item is None else item for item in items], type_.to_pandas_dtype())
    bitmap = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(type_, len(data), [bitmap, pa.py_buffer(data)])


def _strings(items: Sequence[str]) -> pa.Array:
    encoded = [item.encode() for item in items]
    ends = np.zeros(len(encoded) + 1, np.int32)
    np.cumsum([len(item) for item in encoded], out=ends[1:])
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))


def numbers(rows: pa.Table, name: str, dtype: DTypeLike) -> NDArray[Any]:
    """Return a column of numbers without nulls as an array (`to_numpy` would import pandas)."""
    if not len(rows):
        return np.empty(0, dtype)
    return _numbers(rows[name].combine_chunks(), dtype)


def batch_of(rows: pa.RecordBatch) -> Batch:
    """Return READINGS as a batch that shares their memory, and cannot be written to."""
    return Batch(*(_numbers(data, field.type.to_pandas_dtype()) for data, field in zip(rows, READINGS, strict=True)))


def _numbers(data: pa.Array, dtype: DTypeLike) -> NDArray[Any]:
    if not len(data):
        return np.empty(0, dtype)
    return np.frombuffer(data.buffers()[1], dtype)[data.offset : data.offset + len(data)]


def usable(flag: UInt8Array) -> BoolArray:
    """Tell which flags are usable: bool[n]."""
    found: BoolArray = _USABLE[flag]
    return found


def readings_table(batch: Batch) -> pa.Table:
    """Return a batch as READINGS, sharing its memory."""
    columns = msgspec.structs.astuple(batch)
    return pa.table([column(data, field.type) for data, field in zip(columns, READINGS, strict=True)], schema=READINGS)


def series_table(series: Sequence[tuple[int, SeriesInfo]]) -> pa.Table:
    """Return series and their ids as columns: id, and the fields of SeriesInfo."""
    return _table([(id_, *msgspec.structs.astuple(info)) for id_, info in series], SERIES)


def check_registered(series: Int32Array, registered: int) -> None:
    """Raise NotFoundError where a series id is none of 1 to `registered`."""
    if len(series) and (series.min() < 1 or series.max() > registered):
        strange = series[(series < 1) | (series > registered)][0]
        raise NotFoundError(f"the store has no series {strange}", hint="register it first")


def values_table(values: Iterable[Value]) -> pa.Table:
    """Return values as VALUES; `detail` becomes JSON with sorted keys, so that equal details are equal text."""
    return _table([value_row(value) for value in values], VALUES)


def _table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return pa.table([array(data, field.type) for data, field in zip(columns, schema, strict=True)], schema=schema)


def value_row(value: Value) -> tuple[Any, ...]:
    """Return the fields of a value in the order and types of VALUES."""
    fields = msgspec.structs.asdict(value)
    fields["detail"] = _encode_detail(value.detail).decode()
    if value.value is not None and np.isnan(value.value):
        fields["value"] = None
    return tuple(fields[name] for name in VALUES.names)


def overview_schema(aggregates: frozenset[Aggregate]) -> pa.Schema:
    """Return the columns of an overview: series, start_us, and the aggregates in their declared order."""
    fields = [(aggregate.value, AGGREGATE_TYPES[aggregate]) for aggregate in Aggregate if aggregate in aggregates]
    return pa.schema([("series", pa.int32()), ("start_us", pa.int64()), *fields])


def selected(select: Selector, catalog: Mapping[int, SeriesInfo]) -> Sequence[int]:
    """Return the ids of the series that a selector picks, rising."""
    ids = list(catalog) if select.series is None else sorted(select.series & catalog.keys())
    if select.devices is not None:
        ids = [id_ for id_ in ids if catalog[id_].device in select.devices]
    if select.quantities is not None:
        ids = [id_ for id_ in ids if catalog[id_].quantity in select.quantities]
    if select.channels is not None:
        ids = [id_ for id_ in ids if catalog[id_].channel in select.channels]
    return ids


def winners(batch: Batch) -> Int64Array:
    """Return the indices, by (series, time), of the one reading of each (series, time) that stays.

    The highest (revision, origin) stays; of equal ones the last in the batch.
    """
    order = np.lexsort((batch.origin, batch.revision, batch.time_us, batch.series))
    return order[last_of_run(batch.series[order], batch.time_us[order])]


def last_of_run(series: Int32Array, time_us: Int64Array) -> NDArray[np.bool_]:
    """Mark the last row of each run of equal (series, time) in sorted columns: bool[n]."""
    last = np.ones(len(series), np.bool_)
    np.logical_or(series[1:] != series[:-1], time_us[1:] != time_us[:-1], out=last[:-1])
    return last
