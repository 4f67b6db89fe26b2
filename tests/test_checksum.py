"""Checksums of stores: equal for what is the same, whatever the engine, the order and the ids; unequal for one bit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.reading import Batch, SeriesInfo
from devices.value import Value
from qala.store import Store, open_store
from qala.store.base import Selector, Span
from qala.store.checksum import (
    DaySum,
    ValueSum,
    _mixed,
    days,
    differing,
    reading_checksums,
    total,
    value_checksums,
)
from qala.store.conformance import DAY, MINUTE, T0, a_value, air, batch

SERIES = [air("air/1"), air("air/1", "pm10"), SeriesInfo("road/1", "vehicle_count", "lane 1", 300, "veh")]
READINGS = [
    (1, T0, 1.5, 1, 0, 10),
    (1, T0 + 5, 0.0, 2, 1, 11),
    (2, T0, math.nan, 9, 0, 12),
    (3, T0 + DAY, 1e-310, 4, 0, 13),
    (3, T0 + DAY + 7, 0.1, 1, 0, -14),
    (1, T0 + 900 * DAY, 8.0, 1, 0, 15),
]
VALUES = [
    a_value(),
    a_value(13.0, known_us=T0 + 70 * MINUTE),
    a_value(None, zone="bostandyq", status="incomplete", detail={"parts": {"a": 1}}),
    a_value(1.0, indicator="aqi", start_us=T0 + 3 * DAY),
]


def filled(store: Store, readings: Batch, series: list[SeriesInfo] = SERIES, values: list[Value] = VALUES) -> Store:
    """Fill a store with readings of the series numbered 1, 2, 3."""
    ids = store.register(series)
    order = [series.index(info) for info in SERIES]
    given = msgspec.structs.replace(readings, series=ids[order][readings.series - 1])
    store.append(given, None)
    store.put_values(values)
    return store


def sums(store: Store) -> list[DaySum]:
    return list(reading_checksums(store))


def in_memory(readings: Batch, **kwargs: Any) -> list[DaySum]:
    return sums(filled(open_store("memory:"), readings, **kwargs))


@pytest.fixture
def duckdb(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"duckdb://{tmp_path}/a.duckdb")
    yield store
    store.close()


def test_there_is_one_sum_for_each_series_and_utc_day_in_order() -> None:
    assert [(one.series, one.day, one.rows) for one in in_memory(batch(*READINGS))] == [
        (SERIES[1], 20_000, 1),
        (SERIES[0], 20_000, 2),
        (SERIES[2], 20_001, 2),
        (SERIES[0], 20_900, 1),
    ]


def test_engine_order_and_ids_do_not_matter(duckdb: Store) -> None:
    shuffled = filled(duckdb, batch(*READINGS[::-1]), [air("other/1"), *SERIES[::-1]])
    assert sums(shuffled) == in_memory(batch(*READINGS))
    assert list(value_checksums(shuffled)) == list(value_checksums(filled(open_store("memory:"), batch())))


BITS = [
    pytest.param(column, bit, id=f"{column} bit {bit}")
    for column, bits in [
        ("time_us", (0, 1, 20)),
        ("value", (0, 1, 31, 52, 63)),
        ("flag", (0, 1, 3)),
        ("revision", (0, 1, 30)),
        ("origin", (0, 32, 62, 63)),
        ("received_us", (0, 31, 62, 63)),
    ]
    for bit in bits
]


@pytest.mark.parametrize(("column", "bit"), BITS)
@pytest.mark.parametrize("rows", [pytest.param([0], id="one row"), pytest.param([1, 3, 4], id="rows alike")])
def test_a_changed_bit_changes_the_sums_of_its_series_and_day_only(column: str, bit: int, rows: list[int]) -> None:
    readings, before = batch(*READINGS), in_memory(batch(*READINGS))
    flipped(getattr(readings, column), rows, bit)
    places = {(SERIES[readings.series[row] - 1], int(READINGS[row][1] // DAY)) for row in rows}
    changed = list(differing(before, in_memory(readings)))
    assert {(one.series, one.day) for pair in changed for one in pair if one} == places
    assert all(one and other and one.rows == other.rows for one, other in changed)


def flipped(data: Any, rows: list[int], bit: int) -> None:
    raw = data.view(f"u{data.itemsize}")
    raw[rows] ^= raw.dtype.type(1 << bit)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param((1, T0, 0.0), (1, T0, -0.0), id="minus zero"),
        pytest.param((1, T0, math.nan, 9), (1, T0, 0.0, 9), id="null and zero"),
        pytest.param((1, T0, 0.1 + 0.2), (1, T0, 0.3), id="the 17th digit"),
        pytest.param((1, T0, 1.0), (2, T0, 1.0), id="series"),
        pytest.param((1, T0, 1.0), (1, T0 + DAY, 1.0), id="day"),
    ],
)
def test_readings_that_differ_have_other_sums(one: tuple[Any, ...], other: tuple[Any, ...], duckdb: Store) -> None:
    assert in_memory(batch(one)) != in_memory(batch(other))
    assert sums(filled(duckdb, batch(other))) == in_memory(batch(other))


def test_every_nan_is_the_same_missing_reading() -> None:
    missing = batch((1, T0, math.nan, 9), (1, T0 + 1, math.nan, 9))
    other = msgspec.structs.replace(missing, value=np.array([-1, 0x7FF0000000000001], np.int64).view(np.float64))
    assert in_memory(missing) == in_memory(other)


def test_a_missing_or_an_additional_reading_is_seen_on_either_side() -> None:
    whole, less = in_memory(batch(*READINGS)), in_memory(batch(*READINGS[:-1]))
    assert list(differing(whole, less)) == [(whole[-1], None)]
    assert list(differing(less, whole)) == [(None, whole[-1])]
    assert list(differing(whole, whole)) == []


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=40, unique=True),
    st.integers(0, 63),
    st.integers(1, 4),
)
def test_rows_that_are_changed_alike_do_not_make_up_for_each_other(rows: list[int], bit: int, column: int) -> None:
    columns = [np.array(rows, np.uint64)] + [np.full(len(rows), n, np.uint64) for n in range(4)]
    before = int(np.add.reduce(_mixed(*columns)))
    columns[column] = columns[column] ^ np.uint64(1 << bit)
    assert int(np.add.reduce(_mixed(*columns))) != before


def test_a_span_and_a_selector_leave_the_rest_out() -> None:
    store = filled(open_store("memory:"), batch(*READINGS))
    part = list(reading_checksums(store, Span(T0 + 5, T0 + DAY + 1)))
    assert [(one.series, one.day, one.rows) for one in part] == [(SERIES[0], 20_000, 1), (SERIES[2], 20_001, 1)]
    picked = reading_checksums(store, select=Selector(devices=frozenset({"road/1"})))
    assert list(picked) == [one for one in sums(store) if one.series.device == "road/1"]


def test_an_empty_store_has_no_sums() -> None:
    store = open_store("memory:")
    assert (sums(store), list(value_checksums(store))) == ([], [])


def test_days_are_found_over_long_gaps_with_few_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store("memory:")
    store.register([air()])
    with_readings = [0, 1, 2, 40, 41, 9_000, 9_002]
    store.append(batch(*((1, T0 + n * DAY + 5, 1.0) for n in with_readings)), None)
    asked, read = [], store.read
    monkeypatch.setattr(store, "read", lambda *args, **kwargs: asked.append(args) or read(*args, **kwargs))
    found = list(days(store, Span(T0 + 7, T0 + 9_003 * DAY), Selector()))
    assert found == [Span(T0 + n * DAY, T0 + (n + 1) * DAY) for n in with_readings[1:]]
    assert len(asked) < 80


def value_sums(values: list[Value]) -> list[ValueSum]:
    return list(value_checksums(filled(open_store("memory:"), batch(), values=values)))


def test_values_are_summed_with_all_their_revisions() -> None:
    assert [(one.indicator, one.zone, one.day, one.rows) for one in value_sums(VALUES)] == [
        ("pm2_5_mean", "almaly", 20_000, 2),
        ("pm2_5_mean", "bostandyq", 20_000, 1),
        ("aqi", "almaly", 20_003, 1),
    ]


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"value": 13.000000000000002}, id="value"),
        pytest.param({"value": None}, id="no number"),
        pytest.param({"window": "1d"}, id="window"),
        pytest.param({"stop_us": T0 + 61 * MINUTE}, id="stop"),
        pytest.param({"unit": "mg/m3"}, id="unit"),
        pytest.param({"n_good": 59}, id="good"),
        pytest.param({"n_expected": 61}, id="expected"),
        pytest.param({"method": "median"}, id="method"),
        pytest.param({"method_version": "2"}, id="method's version"),
        pytest.param({"final_us": T0}, id="final"),
        pytest.param({"status": "incomplete"}, id="status"),
        pytest.param({"detail": {"a": 1}}, id="detail"),
        pytest.param({"known_us": T0}, id="known"),
        pytest.param({"start_us": T0 + 1}, id="start"),
    ],
)
def test_any_field_of_any_revision_of_a_value_counts(changed: dict[str, Any]) -> None:
    before = value_sums([a_value(12.0), a_value(13.0), a_value(14.0)])
    after = value_sums([a_value(12.0), a_value(13.0, **changed), a_value(14.0)])
    assert list(differing(before, after)) != []


def test_the_order_of_revisions_counts() -> None:
    assert value_sums([a_value(12.0), a_value(13.0)]) != value_sums([a_value(13.0), a_value(12.0)])


def test_a_total_names_what_is_summed() -> None:
    rows, digest = total(in_memory(batch(*READINGS)))
    assert rows == len(READINGS)
    assert total(in_memory(batch(*READINGS[::-1]))) == (rows, digest)
    renamed = [msgspec.structs.replace(info, channel="b") for info in SERIES]
    other = open_store("memory:")
    other.register(renamed)
    other.append(batch(*READINGS), None)
    assert total(reading_checksums(other))[1] != digest
