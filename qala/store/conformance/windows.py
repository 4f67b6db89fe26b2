"""Overviews: windows by any edges, labelled by their start, over what the stored flags leave usable."""

from __future__ import annotations

import math

import numpy as np
import pytest

from devices.errors import UnsupportedError
from devices.reading import SeriesInfo
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

    def test_windows_hold_their_start_and_are_labelled_by_it(self, store: Store) -> None:
        """Also where they are even and not aligned to anything; what is outside of all windows is in none."""
        with_series(store)
        start, width = T0 + 12_345, 5 * MINUTE
        times = [start - 1, start, start + width - 1, start + width, start + 3 * width - 1, start + 4 * width]
        store.append(batch(*((1, time, float(n)) for n, time in enumerate(times))), None)
        edges = np.arange(start, start + 4 * width + 1, width)
        table = store.overview(EVERY, edges, frozenset({Aggregate.COUNT, Aggregate.FIRST, Aggregate.LAST}))
        assert [tuple(row.values()) for row in table.to_pylist()] == [
            (1, start, 2, 1.0, 2.0),
            (1, start + width, 1, 3.0, 3.0),
            (1, start + 2 * width, 1, 4.0, 4.0),
        ]

    def test_local_days_are_windows_though_the_clock_is_changed_in_one(self, store: Store) -> None:
        with_series(store)
        hour = 60 * MINUTE
        store.append(batch(*((1, T0 + n * hour, float(n)) for n in range(-24, 96))), None)
        edges = np.array([T0 - 5 * hour, T0 + 19 * hour, T0 + 42 * hour, T0 + 67 * hour], np.int64)
        wanted = offered(store)
        found = store.overview(EVERY, edges, wanted).to_pylist()
        assert [(row["count"], row["min"], row["max"]) for row in found] == [
            (24, -5.0, 18.0),
            (23, 19.0, 41.0),
            (25, 42.0, 66.0),
        ]
        middles = [row[Aggregate.P50] for row in found] if Aggregate.P50 in wanted else []
        assert middles == pytest.approx([6.5, 30.0, 54.0][: len(middles)])

    def test_sound_readings_are_those_that_the_context_checks_leave(self, store: Store) -> None:
        """One minute apart; the spike shows by the readings on either side, which are in other windows."""
        store.register([air(), SeriesInfo("lab/1", "something_else", "", 0, "1")])
        values = [10.0, 11.0, 12.0, 500.0, 12.0, 11.0, 10.0]
        store.append(batch(*((s, T0 + n * MINUTE, v) for s in (1, 2) for n, v in enumerate(values))), None)
        edges = T0 + np.array([0, 3, 4, 10], np.int64) * MINUTE
        table = store.overview(EVERY, edges, frozenset({Aggregate.GOOD, Aggregate.SOUND}))
        assert [(row["series"], row["good"], row["sound"]) for row in table.to_pylist()] == [
            *((1, 3, 3), (1, 1, 0), (1, 3, 3)),
            *((2, 3, 3), (2, 1, 1), (2, 3, 3)),
        ]

    def test_a_late_correction_shows_in_the_windows_it_is_in(self, store: Store) -> None:
        with_series(store)
        store.append(batch(*((1, T0 + n * MINUTE, 1.0) for n in range(120))), None)
        edges = T0 + np.arange(0, 121, 60, dtype=np.int64) * MINUTE
        wanted = frozenset({Aggregate.COUNT, Aggregate.GOOD, Aggregate.SUM, Aggregate.MAX})
        before = store.overview(EVERY, edges, wanted).to_pylist()
        store.append(batch((1, T0 + 70 * MINUTE, 5.0, 1, 1, 9), (1, T0 + 71 * MINUTE, math.nan, 9, 1, 9)), None)
        after = store.overview(EVERY, edges, wanted).to_pylist()
        assert after[0] == before[0]
        assert after[1] == {"series": 1, "start_us": edges[1], "count": 60, "good": 59, "sum": 63.0, "max": 5.0}

    def test_an_overview_of_many_series_is_ordered_by_series_and_start(self, store: Store) -> None:
        with_series(store, 500)
        store.append(batch(*((s, T0 + n * MINUTE, float(s)) for n in range(5) for s in range(500, 0, -1))), None)
        edges = T0 + np.arange(6, dtype=np.int64) * MINUTE
        table = store.overview(EVERY, edges, frozenset({Aggregate.MEAN}))
        expected = [(s, int(start), float(s)) for s in range(1, 501) for start in edges[:-1]]
        assert [tuple(row.values()) for row in table.to_pylist()] == expected
