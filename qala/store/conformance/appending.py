"""Appending: once each, by precedence, in any order, with the position; and what is taken away again."""

from __future__ import annotations

import math

import numpy as np
import pytest

from devices.reading import Batch, Position
from qala.store.base import READINGS, Appended, Selector, Span, Store
from qala.store.conformance.builders import ALWAYS, DAY, EVERY, MINUTE, T0, batch, everything, rows, with_series


class AppendConformance:
    def test_a_batch_delivered_again_changes_nothing(self, store: Store) -> None:
        with_series(store)
        delivered = batch((1, T0, 1.5), (1, T0 + 1, math.nan, 9), (2, T0, 2.5))
        assert store.append(delivered, None) == Appended(3, 0, 0)
        before = repr(rows(store.read(EVERY, ALWAYS)))
        assert store.append(delivered, None) == Appended(0, 0, 3)
        assert repr(rows(store.read(EVERY, ALWAYS))) == before

    def test_every_column_comes_back(self, store: Store) -> None:
        with_series(store)
        store.append(batch((2, T0, 21.25, 3, 4, 77)), None)
        [part] = store.read(EVERY, ALWAYS)
        assert part.schema.equals(READINGS)
        assert part.to_pylist() == [
            {
                "series": 2,
                "time_us": T0,
                "value": 21.25,
                "flag": 3,
                "revision": 4,
                "origin": 77,
                "received_us": T0 + 1_000_000,
            },
        ]

    def test_every_flag_and_the_bits_of_every_number_come_back(self, store: Store) -> None:
        values = [
            0.0,
            -0.0,
            5e-324,
            -2.2250738585072014e-308,
            0.1 + 0.2,
            -1.7976931348623157e308,
            1e22,
            2.0**53 + 2,
            1 / 3,
        ]
        with_series(store)
        flags = [1, 2, 3, 4]
        store.append(batch(*((1, T0 + n, value, flags[n % 4]) for n, value in enumerate(values))), None)
        found = rows(store.read(EVERY, ALWAYS))
        assert [row["value"].hex() for row in found] == [value.hex() for value in values]
        assert [row["flag"] for row in found] == [flags[n % 4] for n in range(len(values))]

    def test_whole_numbers_come_back_exactly_however_large(self, store: Store) -> None:
        with_series(store)
        given = batch((1, T0 + 999_999, 1.5, 1, 2**31 - 1, 2**62 + 1), (2, T0 + DAY - 1, 2.5, 1, 0, 2**53 + 1))
        given.received_us[:] = [T0 + 123_457, 2**53 + 3]
        store.append(given, None)
        columns = ("time_us", "revision", "origin", "received_us")
        assert [tuple(row[name] for name in columns) for row in rows(store.read(EVERY, ALWAYS))] == [
            (T0 + 999_999, 2**31 - 1, 2**62 + 1, T0 + 123_457),
            (T0 + DAY - 1, 0, 2**53 + 1, 2**53 + 3),
        ]

    def test_a_reading_may_turn_missing_and_back(self, store: Store) -> None:
        with_series(store)
        for n, (value, flag) in enumerate([(1.5, 1), (math.nan, 9), (2.5, 4), (math.nan, 9), (3.5, 1)]):
            assert store.append(batch((1, T0, value, flag, 0, n)), None) == Appended(n == 0, n > 0, 0)
            [row] = rows(store.read(EVERY, ALWAYS))
            assert (repr(row["value"]), row["flag"], row["origin"]) == (repr(value), flag, n)

    def test_an_outranked_missing_reading_does_not_hide_a_number(self, store: Store) -> None:
        with_series(store)
        store.append(batch((1, T0, 1.5, 1, 1, 5)), None)
        assert store.append(batch((1, T0, math.nan, 9, 0, 9)), None) == Appended(0, 0, 1)
        assert everything(store) == [(1, T0, 1.5)]

    def test_an_empty_batch_moves_only_the_position(self, store: Store) -> None:
        assert store.append(Batch.empty(), Position("j", 5)) == Appended(0, 0, 0)
        assert store.applied("j") == Position("j", 5)
        assert everything(store) == []

    def test_of_doubles_in_a_batch_the_one_of_highest_precedence_stays(self, store: Store) -> None:
        with_series(store)
        doubled = batch((1, T0, 1.0, 1, 0, 5), (1, T0, 2.0, 1, 1, 3), (1, T0, 3.0, 1, 1, 2), (2, T0, 4.0))
        assert store.append(doubled, None) == Appended(2, 0, 2)
        assert everything(store) == [(1, T0, 2.0), (2, T0, 4.0)]

    def test_of_equal_precedence_in_a_batch_the_last_stays(self, store: Store) -> None:
        with_series(store)
        store.append(batch((1, T0, 1.0), (1, T0 + 1, 9.0), (1, T0, 2.0)), None)
        assert everything(store) == [(1, T0, 2.0), (1, T0 + 1, 9.0)]

    @pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2), (2, 0, 3, 1)])
    def test_the_highest_revision_then_origin_wins_in_any_order(self, store: Store, order: tuple[int, ...]) -> None:
        with_series(store)
        rivals = [(1, T0, 10.0, 1, 0, 1), (1, T0, 20.0, 1, 0, 9), (1, T0, 30.0, 1, 2, 3), (1, T0, 40.0, 1, 2, 4)]
        for n in order:
            store.append(batch(rivals[n]), None)
        assert everything(store) == [(1, T0, 40.0)]

    def test_a_correction_is_counted_as_an_update_and_an_outranked_reading_as_unchanged(self, store: Store) -> None:
        with_series(store)
        store.append(batch((1, T0, 1.0, 1, 1, 10)), None)
        assert store.append(batch((1, T0, 2.0, 1, 2, 11)), None) == Appended(0, 1, 0)
        assert store.append(batch((1, T0, 3.0, 1, 1, 12)), None) == Appended(0, 0, 1)
        assert everything(store) == [(1, T0, 2.0)]

    def test_the_same_message_decoded_otherwise_replaces_its_reading(self, store: Store) -> None:
        with_series(store)
        store.append(batch((1, T0, 1.0, 1, 0, 10)), None)
        assert store.append(batch((1, T0, 1.8, 1, 0, 10)), None) == Appended(0, 1, 0)
        assert everything(store) == [(1, T0, 1.8)]

    def test_late_readings_find_their_place_beside_new_and_known_ones(self, store: Store) -> None:
        with_series(store)
        store.append(batch((1, T0 + 5 * MINUTE, 5.0), (2, T0 + 5 * MINUTE, 5.5)), None)
        mixed = batch(
            (1, T0 + 6 * MINUTE, 6.0),
            (1, T0, 0.0),
            (1, T0 - 400 * DAY, -1.0),
            (1, T0 + 5 * MINUTE, 5.0),
            (2, T0 + 4 * MINUTE, 4.5),
        )
        assert store.append(mixed, None) == Appended(4, 0, 1)
        assert everything(store) == [
            (1, T0 - 400 * DAY, -1.0),
            (1, T0, 0.0),
            (1, T0 + 5 * MINUTE, 5.0),
            (1, T0 + 6 * MINUTE, 6.0),
            (2, T0 + 4 * MINUTE, 4.5),
            (2, T0 + 5 * MINUTE, 5.5),
        ]

    def test_positions_of_journals_are_kept_apart_and_never_go_back(self, store: Store) -> None:
        assert store.applied("a") is None
        store.append(Batch.empty(), Position("a", 7))
        store.append(Batch.empty(), Position("b", 2))
        store.append(Batch.empty(), Position("a", 3))
        store.append(Batch.empty(), None)
        assert store.applied("a") == Position("a", 7)
        assert store.applied("b") == Position("b", 2)

    def test_all_positions_are_listed_by_journal(self, store: Store) -> None:
        assert list(store.positions()) == []
        for journal, number in (("b", 2), ("a", 7), ("b", 1)):
            store.append(Batch.empty(), Position(journal, number))
        assert list(store.positions()) == [Position("a", 7), Position("b", 2)]

    def test_the_extent_is_the_shortest_span_that_holds_every_reading(self, store: Store) -> None:
        with_series(store)
        assert store.extent() is None
        store.append(batch((1, T0 + 5, 1.0), (2, T0, 2.0), (1, T0 - 400 * DAY, math.nan, 9)), None)
        assert store.extent() == Span(T0 - 400 * DAY, T0 + 6)
        store.delete_before(T0)
        assert store.extent() == Span(T0, T0 + 6)
        store.delete_before(T0 + 6)
        assert store.extent() is None

    def test_retracting_again_deletes_nothing(self, store: Store) -> None:
        with_series(store)
        store.append(batch((1, T0, 1.0, 1, 0, 5), (1, T0 + 1, math.nan, 9, 0, 5)), Position("j", 5))
        keys = np.array([1, 1], np.int32), np.array([T0, T0 + 1], np.int64), np.array([5, 5], np.int64)
        assert [store.retract(*keys), store.retract(*keys)] == [2, 0]
        assert store.retract(keys[0][:0], keys[1][:0], keys[2][:0]) == 0
        assert (everything(store), store.applied("j")) == ([], Position("j", 5))

    def test_retraction_deletes_what_still_stems_from_the_origin(self, store: Store) -> None:
        with_series(store)
        store.append(batch((1, T0, 1.0, 1, 0, 5), (1, T0 + 1, 2.0, 1, 0, 6), (2, T0 - 90 * DAY, 3.0, 1, 0, 5)), None)
        gone = store.retract(
            np.array([1, 1, 2, 2], np.int32),
            np.array([T0, T0 + 1, T0 - 90 * DAY, T0], np.int64),
            np.array([5, 5, 5, 5], np.int64),
        )
        assert gone == 2
        assert everything(store) == [(1, T0 + 1, 2.0)]
        assert store.append(batch((1, T0, 4.0, 1, 0, 5)), None) == Appended(1, 0, 0)

    def test_deletion_forgets_what_is_older_than_a_time(self, store: Store) -> None:
        with_series(store)
        store.append(batch(*((s, T0 + n, float(n)) for s in (1, 2) for n in range(3))), None)
        store.delete_before(T0 + 1, Selector(series=frozenset({1})))
        assert everything(store) == [(1, T0 + 1, 1.0), (1, T0 + 2, 2.0), *((2, T0 + n, float(n)) for n in range(3))]
        store.delete_before(T0 + 2)
        assert everything(store) == [(1, T0 + 2, 2.0), (2, T0 + 2, 2.0)]
        assert store.append(batch((1, T0, 0.0)), None) == Appended(1, 0, 0)
