"""Reading: spans, selectors, brackets, limits, the latest; beside a writer."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest

from devices.reading import Position
from qala.store.base import READINGS, Aggregate, Selector, Span, Store
from qala.store.conformance.builders import (
    ALWAYS,
    DAY,
    EVERY,
    MINUTE,
    T0,
    air,
    batch,
    brief,
    everything,
    rows,
    with_series,
)


class ReadConformance:
    def test_a_span_holds_its_start_and_not_its_stop(self, store: Store) -> None:
        with_series(store)
        store.append(batch(*((1, T0 + n, float(n)) for n in range(5))), None)
        assert brief(store.read(EVERY, Span(T0 + 1, T0 + 3))) == [(1, T0 + 1, 1.0), (1, T0 + 2, 2.0)]
        assert brief(store.read(EVERY, Span(T0 + 1, T0 + 1))) == []

    @pytest.mark.parametrize(
        ("select", "expected"),
        [
            pytest.param(Selector(), {1, 2, 3, 4}, id="any"),
            pytest.param(Selector(series=frozenset({2, 99})), {2}, id="series"),
            pytest.param(Selector(devices=frozenset({"air/1"})), {1, 2}, id="devices"),
            pytest.param(Selector(quantities=frozenset({"pm10", "speed"})), {2, 4}, id="quantities"),
            pytest.param(Selector(channels=frozenset({"b"})), {3}, id="channels"),
            pytest.param(Selector(devices=frozenset({"air/1"}), quantities=frozenset({"pm10"})), {2}, id="both"),
            pytest.param(Selector(series=frozenset()), set(), id="no series"),
            pytest.param(Selector(devices=frozenset()), set(), id="no devices"),
            pytest.param(Selector(quantities=frozenset({"no2"})), set(), id="unknown"),
        ],
    )
    def test_a_selector_picks_what_matches_all_its_fields(
        self,
        store: Store,
        select: Selector,
        expected: set[int],
    ) -> None:
        store.register([air(), air(quantity="pm10"), air("air/2", channel="b"), air("road/1", "speed")])
        store.append(batch(*((n, T0, float(n)) for n in range(1, 5))), None)
        edges = np.array([T0, T0 + 1], np.int64)
        assert {series for series, _, _ in brief(store.read(select, ALWAYS))} == expected
        assert {series for series, _, _ in brief(store.read(select, ALWAYS, bracket=True))} == expected
        assert set(store.latest(select, at_us=T0, lookback_s=1)["series"].to_pylist()) == expected
        overview = store.overview(select, edges, frozenset({Aggregate.COUNT}))
        assert overview.schema.names == ["series", "start_us", "count"]
        assert set(overview["series"].to_pylist()) == expected

    def test_a_bracket_adds_the_nearest_reading_on_either_side_as_far_as_there_is_one(self, store: Store) -> None:
        with_series(store, 4)
        store.append(
            batch(
                *((1, T0 + n * MINUTE, float(n)) for n in range(6)),
                (2, T0 - 300 * DAY, -1.0),
                (2, T0 - 200 * DAY, -2.0),
                (2, T0 + 200 * DAY, 7.0),
                (2, T0 + 300 * DAY, 8.0),
                (3, T0 + 2 * MINUTE, 2.0),
            ),
            None,
        )
        found = brief(store.read(EVERY, Span(T0 + 2 * MINUTE, T0 + 4 * MINUTE), bracket=True))
        assert found == [
            *((1, T0 + n * MINUTE, float(n)) for n in (1, 2, 3, 4)),
            (2, T0 - 200 * DAY, -2.0),
            (2, T0 + 200 * DAY, 7.0),
            (3, T0 + 2 * MINUTE, 2.0),
        ]

    def test_a_bracket_forgets_what_was_deleted(self, store: Store) -> None:
        with_series(store)
        store.append(batch(*((1, T0 + n, float(n)) for n in range(6))), None)
        store.delete_before(T0 + 2)
        store.retract(np.array([1], np.int32), np.array([T0 + 5], np.int64), np.array([1], np.int64))
        assert brief(store.read(EVERY, Span(T0 + 3, T0 + 4), bracket=True)) == [
            (1, T0 + n, float(n)) for n in (2, 3, 4)
        ]

    @pytest.mark.parametrize("limit", [0, 1, 3, 100])
    def test_a_limit_gives_the_first_of_the_order(self, store: Store, limit: int) -> None:
        with_series(store)
        store.append(batch(*((s, T0 + n, float(n)) for n in range(4) for s in (2, 1))), None)
        expected = [(s, T0 + n, float(n)) for s in (1, 2) for n in range(4)]
        assert brief(store.read(EVERY, ALWAYS, limit=limit)) == expected[:limit]

    def test_a_missing_reading_is_nan_with_its_flag(self, store: Store) -> None:
        with_series(store)
        store.append(batch((1, T0, math.nan, 9)), None)
        [row] = rows(store.read(EVERY, ALWAYS))
        assert math.isnan(row["value"])
        assert row["flag"] == 9

    def test_a_read_left_in_the_middle_blocks_nobody(self, store: Store) -> None:
        with_series(store)
        store.append(batch(*((1, T0 + n, float(n)) for n in range(100_000))), None)
        for _ in range(6):
            started = iter(store.read(EVERY, ALWAYS))
            assert len(next(started)) > 0
            del started
        assert len(everything(store)) == 100_000

    def test_latest_looks_back_so_far_and_not_further(self, store: Store) -> None:
        with_series(store, 4)
        at = T0 + 60_000_000
        store.append(
            batch(
                (1, at - 5, 1.0), (1, at, 2.0), (1, at + 1, 3.0), (2, at - 10_000_000, 4.0), (3, at - 9_999_999, 5.0)
            ),
            None,
        )
        table = store.latest(EVERY, at_us=at, lookback_s=10)
        assert table.schema.equals(READINGS)
        assert brief(table.to_batches()) == [(1, at, 2.0), (3, at - 9_999_999, 5.0)]

    def test_readers_see_whole_batches_beside_a_writer(self, store: Store) -> None:
        with_series(store, 10)
        done = threading.Event()
        torn: list[int] = []

        def look() -> None:
            while not done.is_set():
                seen = len(everything(store))
                if seen % 10:
                    torn.append(seen)

        readers = [threading.Thread(target=look) for _ in range(3)]
        for reader in readers:
            reader.start()
        try:
            for n in range(60):
                store.append(batch(*((s, T0 + n, float(n)) for s in range(1, 11))), Position("j", n + 1))
        finally:
            done.set()
            for reader in readers:
                reader.join()
        assert torn == []
        assert len(everything(store)) == 600
