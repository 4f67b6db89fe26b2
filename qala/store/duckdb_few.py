"""Few readings of few series at the least cost: sorted by numpy, without the Arrow stream that costs more than they do."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa

from devices.reading import Batch
from qala.store import duckdb_sql as sql
from qala.store.base import READINGS, Span
from qala.store.rows import readings_table

ROWS_MAX = 16_384  # more are read as a stream


def read_few(cursor: duckdb.DuckDBPyConnection, table: str, ids: Sequence[int], span: Span) -> pa.Table | None:
    """Return the readings (READINGS) of at most `sql.INLINE_MAX` series, None where they are more than a few."""
    only, _ = sql.only(ids)
    found = cursor.execute(sql.read_few(table, only, span, ROWS_MAX + 1)).fetchnumpy()
    batch = Batch(*(np.asarray(found[name]) for name in READINGS.names))
    if len(batch) > ROWS_MAX:
        return None
    return readings_table(batch.take(np.lexsort((batch.time_us, batch.series))))
