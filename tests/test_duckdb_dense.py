"""Even windows of many series, added up by numpy: the same answers as those of the store in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from devices.reading import Batch
from qala.store import Store, open_store
from qala.store.base import Aggregate, Selector
from qala.store.conformance import T0, air
from qala.store.duckdb_dense import DENSE

SERIES = 100
MINUTE_US = 60_000_000


def readings() -> Batch:
    """Make readings of whole numbers with every flag over two hours, at random times."""
    dice = np.random.default_rng(3)
    rows = 5_000
    time_us = T0 + 1_000 * dice.permutation(120 * MINUTE_US // 1_000)[:rows].astype(np.int64)
    flag = dice.choice(np.array([1, 1, 2, 3, 4, 9], np.uint8), rows)
    value = np.where(flag == 9, np.nan, dice.integers(-50, 50, rows)).astype(np.float64)
    series = dice.integers(1, SERIES, rows, dtype=np.int32)  # the last one has none
    zeros = np.zeros(rows, np.int64)
    return Batch(series, time_us, value, flag, zeros.astype(np.int32), zeros + 1, time_us)


def filled(url: str) -> Store:
    store = open_store(url)
    store.register([air(f"air/{n}") for n in range(SERIES)])
    store.append(readings(), None)
    return store


@pytest.mark.parametrize("aggregates", [DENSE, frozenset({Aggregate.MEAN}), frozenset({Aggregate.COUNT})])
@pytest.mark.parametrize("width_us", [MINUTE_US, 7 * MINUTE_US, 60 * MINUTE_US])
@pytest.mark.parametrize("picked", [None, frozenset(range(1, 90))], ids=["all", "most"])
def test_many_series_in_small_windows(
    tmp_path: Path, aggregates: frozenset[Aggregate], width_us: int, picked: frozenset[int] | None
) -> None:
    stores = [filled("memory:"), filled(f"duckdb://{tmp_path}/readings.duckdb")]
    edges = np.arange(T0 + 10 * MINUTE_US, T0 + 100 * MINUTE_US, width_us, dtype=np.int64)
    found = [store.overview(Selector(series=picked), edges, aggregates) for store in stores]
    assert found[0].num_rows > 0
    assert found[0].equals(found[1])
    for store in stores:
        store.close()
