"""From InfluxDB's CSV to columns: whole columns at once, and readings put together from their fields."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from devices.errors import ConflictError, QalaError, UnavailableError
from devices.reading import Batch, BoolArray, Flag, Int32Array, Int64Array
from qala.store.influx_flux import NUMBERS, RECEIPTS, TEXTS
from qala.store.influx_lines import MISFIT
from qala.store.rows import last_of_run, numbers, usable

_COLUMNS = {
    "series": pa.int32(),
    "_field": pa.dictionary(pa.int32(), pa.string()),
    "_time": pa.timestamp("us", "UTC"),
    "journal": pa.string(),
}
_VALUES = {NUMBERS: pa.float64(), TEXTS: pa.string(), RECEIPTS: pa.string(), "sum": pa.float64(), "mean": pa.float64()}
_VALUES |= dict.fromkeys(("min", "max", "first", "last"), pa.float64())


def tables(answer: bytes) -> dict[str, pa.Table]:
    """Return the results of a query by name, their tables one below the other.

    Raises UnavailableError where the answer breaks off with an error.
    """
    found: dict[str, list[pa.Table]] = {}
    for section in answer.split(b"\r\n\r\n"):
        text = section.strip(b"\r\n")
        if text:
            name, table = _table(text)
            found.setdefault(name, []).append(table)
    return {name: pa.concat_tables(some, promote_options="default") for name, some in found.items()}


def _table(section: bytes) -> tuple[str, pa.Table]:
    header, _, body = section.partition(b"\r\n")
    names = header.decode().split(",")
    if "error" in names:
        raise UnavailableError(f"InfluxDB broke off: {body.decode()[:500]}", hint="see its log; it is tried again")
    result = body.split(b",", 2)[1].decode()
    if result != TEXTS and not {"series", "journal"} & set(names):
        raise _strange("they name no series")
    types = _COLUMNS | {"_value": _VALUES.get(result, pa.int64())}
    options = csv.ConvertOptions(
        column_types=types, include_columns=[name for name in names if name in types], strings_can_be_null=False
    )
    reading = csv.ReadOptions(use_threads=False, block_size=max(len(section), 1))
    try:
        return result, csv.read_csv(io.BytesIO(section), reading, csv.ParseOptions(newlines_in_values=True), options)
    except pa.ArrowInvalid as error:
        raise _strange(str(error)) from None


def _strange(why: str) -> QalaError:
    return ConflictError(f"the bucket holds points that are not Qala's: {why}", hint="give Qala a bucket of its own")


def times(table: pa.Table) -> Int64Array:
    """Return the column of times [us]."""
    return numbers(table, "_time", np.int64)


def readings(results: Mapping[str, pa.Table]) -> Batch:
    """Put readings together from their fields, ordered by (series, time); what lacks one of them is left out.

    Points that were written before there was a `receipt` have `origin`, `received_us` and `flag` instead. Where one of them
    was written over since, its `receipt` is what counts.
    """
    fields = {name: column for table in results.values() for name, column in _columns(table)}
    series, time_us = _keys(fields)
    if not len(series):
        return Batch.empty()

    def placed(name: str) -> _Placed:
        return _placed(fields, name, series, time_us)

    code, flagged = placed("flag")
    code = np.where(flagged, code, int(Flag.GOOD))
    origin, known = placed(_ORIGIN)
    received_us = placed(_DELAY)[0] + time_us
    if not known.all():
        (old_origin, old), (old_us, too) = placed("origin"), placed("received_us")
        origin, received_us = np.where(known, origin, old_origin), np.where(known, received_us, old_us)
        known = known | (flagged & old & too)
    value, numbered = _numbers(placed("value"), placed("held"), code)
    batch = Batch(
        series=series,
        time_us=time_us,
        value=value,
        flag=(code % MISFIT).astype(np.uint8),
        revision=placed("revision")[0].astype(np.int32),
        origin=origin,
        received_us=received_us,
    )
    there = known & numbered
    return batch if there.all() else batch.take(there)


_ORIGIN, _DELAY = "receipt: origin", "receipt: delay"  # what the texts of `receipt` are taken apart to
_Placed = tuple[np.ndarray, BoolArray]
"""Contents, and where there are any."""
_Column = tuple[Int32Array, Int64Array, np.ndarray]


def _columns(table: pa.Table) -> Iterator[tuple[str, _Column]]:
    """Yield the fields of a result: name, and (series, time, content) ordered by series and time."""
    if not len(table):
        return
    table = table.unify_dictionaries().combine_chunks()
    names = table["_field"].chunk(0)
    codes = np.frombuffer(names.indices.buffers()[1], np.int32)[
        names.indices.offset : names.indices.offset + len(names)
    ]
    if pa.types.is_string(table["_value"].type):
        yield from _receipts(table)
        return
    kind = np.float64 if pa.types.is_floating(table["_value"].type) else np.int64
    series, time_us, content = numbers(table, "series", np.int32), times(table), numbers(table, "_value", kind)
    for code, name in enumerate(names.dictionary.to_pylist()):
        rows = np.flatnonzero(codes == code)
        rows = rows[np.lexsort((time_us[rows], series[rows]))]
        yield name, (series[rows], time_us[rows], content[rows])


def _receipts(table: pa.Table) -> Iterator[tuple[str, _Column]]:
    """Take texts "<origin> <delay>" apart."""
    texts = table["_value"].combine_chunks()
    try:
        numbers_ = pc.split_pattern(texts, " ").flatten().cast(pa.int64()).to_numpy().reshape(len(texts), 2)
    except (pa.ArrowInvalid, ValueError) as error:
        raise _strange(str(error)) from None
    series, time_us = numbers(table, "series", np.int32), times(table)
    order = np.lexsort((time_us, series))
    for name, content in zip((_ORIGIN, _DELAY), numbers_[order].T, strict=True):
        yield name, (series[order], time_us[order], content)


def _keys(fields: Mapping[str, _Column]) -> tuple[Int32Array, Int64Array]:
    """Return where there are numbers, by (series, time)."""
    found = [fields[name][:2] for name in ("value", "held") if name in fields]
    if not found:
        return np.empty(0, np.int32), np.empty(0, np.int64)
    if len(found) == 1:
        return found[0]
    series, time_us = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((time_us, series))
    series, time_us = series[order], time_us[order]
    once = last_of_run(series, time_us)
    return series[once], time_us[once]


def _placed(fields: Mapping[str, _Column], name: str, series: Int32Array, time_us: Int64Array) -> _Placed:
    """Return a field at the places of keys, 0 where it is missing, and where it is there."""
    if name not in fields:
        return np.zeros(len(series), np.int64), np.zeros(len(series), np.bool_)
    its_series, its_time, content = fields[name]
    if np.array_equal(its_series, series) and np.array_equal(its_time, time_us):
        return content, np.ones(len(series), np.bool_)
    places = find(its_series, its_time, series, time_us)
    return np.where(places < 0, 0, content[places]), places >= 0


def _numbers(value: _Placed, held: _Placed, code: Int64Array) -> _Placed:
    """Return the numbers of readings: the field that the flag says, NaN where it says that there is none."""
    missing = (code % MISFIT == Flag.MISSING) != (code >= MISFIT)
    is_value = usable((code % MISFIT).astype(np.uint8)) & ~missing
    found = np.where(is_value, value[0], held[0])
    return np.where(missing, np.nan, found), np.where(is_value, value[1], held[1])


def find(series: Int32Array, time_us: Int64Array, wanted: Int32Array, at_us: Int64Array) -> Int64Array:
    """Return where keys (series, time) stand among ordered unique ones: int64[n], -1 where they don't.

    >>> find(np.array([1, 1, 2]), np.array([5, 7, 5]), np.array([2, 1, 1]), np.array([5, 7, 6])).tolist()
    [2, 1, -1]
    """
    if not len(series):
        return np.full(len(wanted), -1, np.int64)
    asked = np.repeat([0, 1], [len(series), len(wanted)])
    order = np.lexsort((asked, np.concatenate([time_us, at_us]), np.concatenate([series, wanted])))
    nearest = np.cumsum(order < len(series)) - 1
    is_asked = order >= len(series)
    places = np.empty(len(wanted), np.int64)
    places[order[is_asked] - len(series)] = nearest[is_asked]
    same = (places >= 0) & (series[places] == wanted) & (time_us[places] == at_us)
    return np.where(same, places, -1)
