"""Counting sound readings of the DuckDB store: read with their context, judged in numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from devices.reading import Int64Array, SeriesInfo
from qala.store import duckdb_overview_sql as sql
from qala.store.base import Span
from qala.store.duckdb_file import tables
from qala.store.rows import column
from qala.store.sound import count_sound, reach_us, whole_series

_ROWS_MAX = 65_536  # rows of one record batch


def sound(
    cursor: duckdb.DuckDBPyConnection,
    catalog: Mapping[int, SeriesInfo],
    ids: Sequence[int],
    edges_us: Int64Array,
    span: Span,
) -> pa.Table:
    """Count the sound readings of a span by series between edges (`qala.store.sound.JUDGED`).

    Each series is read as far around the span as its own checks look, all of them in one pass.
    """
    with (
        tables(cursor, reaches=_reaches(catalog, ids)),
        closing(cursor.sql(sql.IN_REACH, params=_widest(catalog, ids, span)).to_arrow_reader(_ROWS_MAX)) as batches,
    ):
        return count_sound(whole_series(batches), edges_us, (span.start_us, span.stop_us), catalog)


def _reaches(catalog: Mapping[int, SeriesInfo], ids: Sequence[int]) -> pa.Table:
    by_name = {name: reach_us({name}) for name in {catalog[id_].quantity for id_ in ids}}
    reaches = np.array([by_name[catalog[id_].quantity] for id_ in ids], np.int64)
    columns = [column(np.array(ids, np.int32), pa.int32()), *(column(side, pa.int64()) for side in reaches.T)]
    return pa.table(columns, names=["series", "back_us", "ahead_us"])


def _widest(catalog: Mapping[int, SeriesInfo], ids: Sequence[int], span: Span) -> dict[str, Any]:
    back_us, ahead_us = reach_us({catalog[id_].quantity for id_ in ids})
    return {
        "start": span.start_us,
        "stop": span.stop_us,
        "earliest": span.start_us - back_us,
        "latest": span.stop_us + ahead_us,
    }
