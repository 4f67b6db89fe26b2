"""Counts and means of many series over even windows: added up by numpy, sooner than DuckDB groups so many small windows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from devices.reading import BoolArray, Float64Array
from qala.store import duckdb_overview_sql as sql
from qala.store.base import Aggregate, Span
from qala.store.rows import column, numbers, overview_schema, usable

DENSE = frozenset({Aggregate.COUNT, Aggregate.GOOD, Aggregate.SUM, Aggregate.MEAN})
"""What can be added up like this."""
WINDOWS_MAX = 4_000_000
"""Windows of all series together that are added up at once: three numbers each."""

_WIDTH_MAX_US = 3_600_000_000
_ROWS = 500_000  # readings that are looked at together


def dense(
    cursor: duckdb.DuckDBPyConnection,
    those: str,
    parameters: Mapping[str, Any],
    grid: sql.Grid,
    span: Span,
    series: int,
    aggregates: frozenset[Aggregate],
) -> pa.Table:
    """Aggregate the readings in a span by series (ids up to `series`) and window, ordered by both."""
    windows = -(-(span.stop_us - grid.first_us) // grid.width_us)
    cells = (series + 1) * windows
    count, good, total = np.zeros(cells, np.int64), np.zeros(cells, np.int64), np.zeros(cells)
    for rows in _readings(cursor, those, parameters, span):
        window = (numbers(rows, "time_us", np.int64) - grid.first_us) // grid.width_us
        cell = numbers(rows, "series", np.int32) * np.int64(windows) + window
        is_good = usable(numbers(rows, "flag", np.uint8))
        count += np.bincount(cell, minlength=cells)
        good += np.bincount(cell[is_good], minlength=cells)
        total += np.bincount(cell[is_good], numbers(rows, "value", np.float64)[is_good], minlength=cells)
    there = np.flatnonzero(count)
    columns = {
        "series": column((there // windows).astype(np.int32), pa.int32()),
        "start_us": column(grid.first_us + there % windows * grid.width_us, pa.int64()),
        Aggregate.COUNT.value: column(count[there], pa.int64()),
        Aggregate.GOOD.value: column(good[there], pa.int64()),
        Aggregate.SUM.value: _known(total[there], good[there] > 0),
        Aggregate.MEAN.value: _known(total[there] / np.maximum(good[there], 1), good[there] > 0),
    }
    schema = overview_schema(aggregates)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _readings(
    cursor: duckdb.DuckDBPyConnection, those: str, parameters: Mapping[str, Any], span: Span
) -> Iterator[pa.Table]:
    query = sql.BARE_READINGS + those
    asked = {**parameters, "start": span.start_us, "stop": span.stop_us}
    with cursor.sql(query, params=asked).to_arrow_reader(_ROWS) as batches:
        for rows in batches:
            yield pa.Table.from_batches([rows])


def _known(data: Float64Array, known: BoolArray) -> pa.Array:
    """Return numbers as Arrow, null where they are not known."""
    bitmap = None if known.all() else pa.py_buffer(np.packbits(known, bitorder="little"))
    return pa.Array.from_buffers(pa.float64(), len(data), [bitmap, pa.py_buffer(np.ascontiguousarray(data))])


def fits(grid: sql.Grid, windows: int, series: int, aggregates: frozenset[Aggregate]) -> bool:
    """Tell whether so many windows of so many series are added up here: even ones with few readings each."""
    return aggregates <= DENSE and 0 < grid.width_us <= _WIDTH_MAX_US and (series + 1) * windows <= WINDOWS_MAX
