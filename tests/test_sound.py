"""Which readings are sound: judged in parts of whole series, the same however a store hands the rows over."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.quality import derive_flags
from devices.reading import USABLE, Batch
from qala.store.conformance import MINUTE, T0, air, batch
from qala.store.rows import readings_table
from qala.store.sound import count_sound, limits_by_name, reach_us, soundness, whole_series

CATALOG = {1: air(quantity="temperature"), 2: air(quantity="letters"), 3: air(quantity="noise")}


def half_a_day() -> Batch:
    """Build three series, ten minutes apart, with spikes and stillness."""
    chance = np.random.default_rng(4)
    value = np.where(chance.random(216) < 0.1, 60.0, 20.0)
    return batch(*((1 + n // 72, T0 + n % 72 * 10 * MINUTE, value[n], 1 if n % 11 else 3) for n in range(216)))


def cut(rows: pa.Table, places: list[int]) -> Iterator[pa.RecordBatch]:
    edges = [0, *sorted(places), rows.num_rows]
    for start, stop in pairwise(edges):
        yield from rows.slice(start, stop - start).to_batches()


def test_each_series_is_judged_by_the_limits_of_its_quantity() -> None:
    given = half_a_day()
    sound = soundness(given.series, given.time_us, given.value, given.flag, CATALOG)
    for id_, info in CATALOG.items():
        mine = given.series == id_
        own = given.take(mine)
        derived = derive_flags(own.series, own.time_us, own.value, own.flag, limits_by_name(info.quantity))
        assert sound[mine].tolist() == np.isin(derived, list(USABLE)).tolist()
    assert np.array_equal(sound[given.series == 2], given.flag[given.series == 2] == 1)
    assert sound[given.series == 1].sum() < (given.flag[given.series == 1] == 1).sum()


@settings(deadline=None)
@given(places=st.lists(st.integers(0, 216), max_size=8), rows=st.sampled_from([1, 50, 72, 100, 1000]))
def test_no_series_is_cut_in_two_whatever_batches_come(places: list[int], rows: int) -> None:
    table = readings_table(half_a_day())
    parts = list(whole_series(cut(table, places), rows))
    assert pa.concat_tables(parts).equals(table)
    assert [id_ for part in parts for id_ in np.unique(part["series"].to_numpy()).tolist()] == [1, 2, 3]


def test_readings_outside_are_context_and_not_counted() -> None:
    table = readings_table(half_a_day())
    edges = np.arange(T0, T0 + 13 * 60 * MINUTE, 60 * MINUTE, dtype=np.int64)
    whole = count_sound([table], edges, (int(edges[0]), int(edges[-1])), CATALOG).to_pylist()
    inside = count_sound([table], edges, (int(edges[3]), int(edges[7])), CATALOG).to_pylist()
    assert inside == [row for row in whole if edges[3] <= row["start_us"] < edges[7]]
    assert count_sound([], edges, (0, 1), CATALOG).num_rows == 0


@pytest.mark.parametrize(
    ("quantities", "reach"),
    [
        pytest.param(set(), (0, 0), id="none"),
        pytest.param({"letters"}, (0, 0), id="unknown"),
        pytest.param({"noise"}, (9_600_000_000, 0), id="stuck after two hours"),
        pytest.param({"noise", "temperature"}, (29_400_000_000, 600_000_000), id="the farthest of each"),
    ],
)
def test_the_reach_is_that_of_the_farthest_looking_check(quantities: set[str], reach: tuple[int, int]) -> None:
    assert reach_us(quantities) == reach
