"""Overviews: windows by any edges, labelled by their start, over what the stored flags leave usable."""

from __future__ import annotations

import math

import numpy as np
import pytest

from devices.errors import UnsupportedError
from qala.store.base import Aggregate, Span, Store
from qala.store.conformance.builders import EVERY, MINUTE, T0, air, batch, offered, with_series

SOUND = frozenset({Aggregate.SOUND})


class OverviewConformance:
    def test_all_aggregates_of_usable_readings_and_the_count_of_all(self, store: Store) -> None:
        with_series(store)
        flags = [1, 2, 3, 4, 9]
        store.append(batch(*((1, T0 + n, math.nan if f == 9 else 2.0 + n, f) for n, f in enumerate(flags))), None)
        table = store.overview(EVERY, np.array([T0, T0 + 10], np.int64), offered(store))
        numbers = {"sum": 5.0, "mean": 2.5, "min": 2.0, "max": 3.0, "first": 2.0, "last": 3.0}
        quantiles = {"p50": 2.5, "p95": pytest.approx(2.95)} if store.capabilities.exact_quantiles else {}
        counts = {"count": 5, "good": 2, "sound": 2}
        assert table.to_pylist() == [{"series": 1, "start_us": T0, **counts, **numbers, **quantiles}]

    def test_quantiles_are_exact_or_refused(self, store: Store) -> None:
        with_series(store)
        value = [30.0, 10.0, 20.5, 40.0, 11.0, 12.0]
        store.append(batch(*((1, T0 + n, v) for n, v in enumerate(value)), (1, T0 + 9, 99.0, 4)), None)
        edges = np.array([T0, T0 + 10, T0 + 20], np.int64)
        for aggregate, percent in ((Aggregate.P50, 50), (Aggregate.P95, 95)):
            if store.capabilities.exact_quantiles:
                [row] = store.overview(EVERY, edges, frozenset({aggregate})).to_pylist()
                assert row[aggregate] == pytest.approx(np.percentile(value, percent), rel=1e-12)
            else:
                with pytest.raises(UnsupportedError):
                    store.overview(EVERY, edges, frozenset({Aggregate.MEAN, aggregate}))

    def test_a_window_without_usable_readings_is_counted_and_has_no_numbers(self, store: Store) -> None:
        with_series(store)
        store.append(batch((1, T0, math.nan, 9)), None)
        wanted = frozenset({Aggregate.COUNT, Aggregate.GOOD, Aggregate.MEAN, Aggregate.LAST})
        [row] = store.overview(EVERY, np.array([T0, T0 + 10], np.int64), wanted).to_pylist()
        assert row == {"series": 1, "start_us": T0, "count": 1, "good": 0, "mean": None, "last": None}

    def test_edges_may_be_uneven_and_empty_windows_are_absent(self, store: Store) -> None:
        with_series(store)
        store.append(batch(*((s, T0 + n, float(n)) for s in (1, 2) for n in (0, 4, 5, 99, 100, 250, 999, 1000))), None)
        edges = np.array([T0, T0 + 5, T0 + 100, T0 + 101, T0 + 200, T0 + 240, T0 + 1000], np.int64)
        table = store.overview(EVERY, edges, frozenset({Aggregate.COUNT, Aggregate.SUM}))
        expected = [(0, 2, 4.0), (5, 2, 104.0), (100, 1, 100.0), (240, 2, 1249.0)]
        assert [tuple(row.values()) for row in table.to_pylist()] == [
            (s, T0 + start, count, total) for s in (1, 2) for start, count, total in expected
        ]

    def test_fewer_than_two_edges_make_no_window(self, store: Store) -> None:
        with_series(store)
        store.append(batch((1, T0, 1.0)), None)
        assert store.overview(EVERY, np.array([T0], np.int64), frozenset({Aggregate.COUNT})).num_rows == 0

    def test_a_reading_is_sound_or_not_whatever_edges_are_asked_for(self, store: Store) -> None:
        store.register([air(quantity="temperature"), air(quantity="humours"), air("air/2", quantity="temperature")])
        times = [T0 + n * MINUTE for n in range(5)]
        spiked = [20.0, 20.5, 60.0, 20.5, 20.0]
        store.append(batch(*((s, t, v) for s in (1, 2) for t, v in zip(times, spiked, strict=True))), None)
        store.append(batch(*((3, t, 20.0, 3 if t == times[1] else 1) for t in times)), None)
        for span in (Span(times[2], times[2] + 1), Span(times[0], times[-1] + 1), Span(times[1], times[3])):
            inside = [time for time in times if span.start_us <= time < span.stop_us]
            table = store.overview(EVERY, np.array([span.start_us, span.stop_us], np.int64), SOUND)
            good = [len(inside) - (times[2] in inside), len(inside), len(inside) - (times[1] in inside)]
            assert table["sound"].to_pylist() == good

    def test_a_series_that_stands_still_is_stuck_by_what_was_before_the_first_edge(self, store: Store) -> None:
        store.register([air(quantity="noise")])
        start = T0 + 3 * 60 * MINUTE
        store.append(batch(*((1, T0 + n * 5 * MINUTE, 50.0) for n in range(48))), None)
        table = store.overview(EVERY, np.array([T0, T0 + 60 * MINUTE, start, start + 60 * MINUTE], np.int64), SOUND)
        assert [tuple(row.values()) for row in table.to_pylist()] == [
            (1, T0, 12),
            (1, T0 + 60 * MINUTE, 12),
            (1, start, 0),
        ]
        table = store.overview(EVERY, np.array([start, start + 60 * MINUTE], np.int64), SOUND)
        assert table["sound"].to_pylist() == [0]
