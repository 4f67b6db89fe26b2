"""What every storage engine must do. An engine's tests subclass `StoreConformance` and give it a `store` fixture.

class TestMyEngine(StoreConformance):
    @pytest.fixture
    def store(self): ...
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from devices.errors import NotFoundError, UnavailableError
from devices.reading import Batch, Position, SeriesInfo
from devices.value import Value
from qala.store.base import READINGS, VALUES, Aggregate, Appended, Selector, Span, Store, ValueSelector

MINUTE = 60_000_000
DAY = 1440 * MINUTE
T0 = 20_000 * DAY
ALWAYS = Span(0, 40_000 * DAY)
EVERY = Selector()


def batch(*rows: tuple[Any, ...]) -> Batch:
    """Build a batch of (series, time, value[, flag[, revision[, origin]]]); received a second after its time."""
    full = [(*row, *(1, 0, 1)[len(row) - 3 :]) for row in rows]
    series, time_us, value, flag, revision, origin = zip(*full, strict=True) if full else [()] * 6
    times = np.array(time_us, np.int64)
    return Batch(
        np.array(series, np.int32),
        times,
        np.array(value, np.float64),
        np.array(flag, np.uint8),
        np.array(revision, np.int32),
        np.array(origin, np.int64),
        times + 1_000_000,
    )


def air(device: str = "air/1", quantity: str = "pm2_5", channel: str = "") -> SeriesInfo:
    return SeriesInfo(device=device, quantity=quantity, channel=channel, unit="ug/m3")


def a_value(number: float | None = 12.5, **changes: Any) -> Value:
    value = Value(
        indicator="pm2_5_mean",
        zone="almaly",
        window="1h",
        start_us=T0,
        stop_us=T0 + 60 * MINUTE,
        value=number,
        unit="ug/m3",
        n_good=58,
        n_expected=60,
        method="mean",
        method_version="1",
        final_us=T0 + 120 * MINUTE,
        known_us=T0 + 61 * MINUTE,
    )
    return msgspec.structs.replace(value, **changes)


def rows(batches: Iterable[pa.RecordBatch]) -> list[dict[str, Any]]:
    return [row for part in batches for row in part.to_pylist()]


def brief(batches: Iterable[pa.RecordBatch]) -> list[tuple[int, int, float]]:
    """Return (series, time, value) of readings."""
    return [(row["series"], row["time_us"], row["value"]) for row in rows(batches)]


def everything(store: Store) -> list[tuple[int, int, float]]:
    return brief(store.read(EVERY, ALWAYS))


def with_series(store: Store, count: int = 2) -> None:
    """Register series 1, 2, ... up to `count`."""
    ids = store.register([air(f"air/{n}") for n in range(1, count + 1)])
    assert ids.tolist() == list(range(1, count + 1))


class SeriesConformance:
    def test_registering_is_idempotent_and_ids_follow_the_order_given(self, store: Store) -> None:
        first = store.register([air("air/1"), air("air/2"), air("air/1")])
        again = store.register([air("air/2"), air("air/3")])
        assert first.dtype == np.int32
        assert first[0] == first[2] != first[1]
        assert again[0] == first[1]
        assert store.catalog() == {first[0]: air("air/1"), first[1]: air("air/2"), again[1]: air("air/3")}

    @pytest.mark.parametrize(
        "other",
        [
            pytest.param(SeriesInfo("air/1", "pm2_5", "", 300, "ug/m3"), id="span"),
            pytest.param(SeriesInfo("air/1", "pm2_5", "b", 0, "ug/m3"), id="channel"),
            pytest.param(SeriesInfo("air/1", "pm2_5", "", 0, "mg/m3"), id="unit"),
            pytest.param(SeriesInfo("air/1", "pm10", "", 0, "ug/m3"), id="quantity"),
            pytest.param(SeriesInfo("Ауа/1 '\"", "pm2_5", "", 0, "ug/m3"), id="device"),
        ],
    )
    def test_any_other_field_makes_another_series(self, store: Store, other: SeriesInfo) -> None:
        ids = store.register([air(), other])
        assert ids[0] != ids[1]
        assert store.catalog()[int(ids[1])] == other

    def test_a_catalog_does_not_change_under_its_reader(self, store: Store) -> None:
        with_series(store, 1)
        before = store.catalog()
        with_series(store, 2)
        assert len(before) == 1

    def test_ten_thousand_series_are_kept_apart(self, store: Store) -> None:
        with_series(store, 10_000)
        store.append(batch(*((n, T0 + n, float(n)) for n in range(1, 10_001))), None)
        assert everything(store) == [(n, T0 + n, float(n)) for n in range(1, 10_001)]
        picked = Selector(series=frozenset({1, 5_000, 10_000}))
        assert brief(store.read(picked, ALWAYS)) == [(n, T0 + n, float(n)) for n in (1, 5_000, 10_000)]

    def test_a_reading_of_an_unregistered_series_is_refused_with_its_whole_batch(self, store: Store) -> None:
        with_series(store, 1)
        with pytest.raises(NotFoundError):
            store.append(batch((1, T0, 1.0), (2, T0, 1.0)), Position("j", 1))
        assert everything(store) == []
        assert store.applied("j") is None


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


class OverviewConformance:
    def test_all_aggregates_of_usable_readings_and_the_count_of_all(self, store: Store) -> None:
        with_series(store)
        flags = [1, 2, 3, 4, 9]
        store.append(batch(*((1, T0 + n, math.nan if f == 9 else 2.0 + n, f) for n, f in enumerate(flags))), None)
        table = store.overview(EVERY, np.array([T0, T0 + 10], np.int64), frozenset(Aggregate))
        assert table.to_pylist() == [
            {
                "series": 1,
                "start_us": T0,
                "count": 5,
                "good": 2,
                "sum": 5.0,
                "mean": 2.5,
                "min": 2.0,
                "max": 3.0,
                "first": 2.0,
                "last": 3.0,
            },
        ]

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


class ValuesConformance:
    def test_every_field_comes_back(self, store: Store) -> None:
        given = a_value(detail={"main": "pm2_5", "parts": {"b": 1, "a": [1, 2]}}, status="ok")
        assert store.put_values([given]) == 1
        table = store.values(ValueSelector(), ALWAYS)
        assert table.schema.equals(VALUES)
        [row] = table.to_pylist()
        assert msgspec.json.decode(row.pop("detail")) == given.detail
        assert row == {
            name: value for name, value in (msgspec.structs.asdict(given) | {"revision": 1}).items() if name != "detail"
        }

    def test_the_same_number_writes_nothing(self, store: Store) -> None:
        store.put_values([a_value(detail={"a": 1, "b": 2})])
        again = a_value(detail={"b": 2, "a": 1}, known_us=T0 + 99 * MINUTE, revision=5)
        assert store.put_values([again, again]) == 0
        [row] = store.values(ValueSelector(), ALWAYS).to_pylist()
        assert (row["revision"], row["known_us"]) == (1, T0 + 61 * MINUTE)

    @pytest.mark.parametrize(
        "changed",
        [
            pytest.param({"value": 13.0}, id="value"),
            pytest.param({"value": None}, id="no number"),
            pytest.param({"status": "incomplete"}, id="status"),
            pytest.param({"n_good": 59}, id="coverage"),
            pytest.param({"method_version": "2"}, id="method"),
            pytest.param({"detail": {"main": "pm10"}}, id="detail"),
            pytest.param({"final_us": T0}, id="final"),
        ],
    )
    def test_any_other_change_makes_a_new_revision(self, store: Store, changed: dict[str, Any]) -> None:
        store.put_values([a_value()])
        assert store.put_values([msgspec.structs.replace(a_value(), **changed)]) == 1
        [row] = store.values(ValueSelector(), ALWAYS).to_pylist()
        assert row["revision"] == 2
        assert [row["revision"] for row in store.revisions(ValueSelector(), ALWAYS).to_pylist()] == [1, 2]

    def test_no_number_is_null_and_stays_the_same_number(self, store: Store) -> None:
        nothing = a_value(None, status="incomplete")
        assert store.put_values([nothing]) == 1
        assert store.put_values([nothing]) == 0
        assert store.values(ValueSelector(), ALWAYS)["value"].to_pylist() == [None]

    def test_one_call_may_revise_a_value_more_than_once(self, store: Store) -> None:
        assert store.put_values([a_value(1.0), a_value(2.0), a_value(2.0), a_value(1.0)]) == 3
        revisions = store.revisions(ValueSelector(), ALWAYS).to_pylist()
        assert [(row["revision"], row["value"]) for row in revisions] == [(1, 1.0), (2, 2.0), (3, 1.0)]

    def test_as_of_gives_what_was_known_then(self, store: Store) -> None:
        store.put_values([a_value(1.0, known_us=T0 + 10)])
        store.put_values([a_value(2.0, known_us=T0 + 20)])
        known = {
            at: store.values(ValueSelector(), ALWAYS, as_of_us=T0 + at)["value"].to_pylist() for at in (9, 10, 19, 20)
        }
        assert known == {9: [], 10: [1.0], 19: [1.0], 20: [2.0]}

    @pytest.mark.parametrize(
        ("select", "expected"),
        [
            pytest.param(ValueSelector(), ["aqi:a", "aqi:b", "flow:a"], id="any"),
            pytest.param(ValueSelector(indicators=frozenset({"flow"})), ["flow:a"], id="indicator"),
            pytest.param(ValueSelector(zones=frozenset({"b", "c"})), ["aqi:b"], id="zones"),
            pytest.param(ValueSelector(windows=frozenset({"1d"})), ["aqi:b"], id="window"),
            pytest.param(ValueSelector(indicators=frozenset({"aqi"}), zones=frozenset({"a"})), ["aqi:a"], id="both"),
            pytest.param(ValueSelector(zones=frozenset()), [], id="none"),
        ],
    )
    def test_values_are_selected_and_ordered(
        self,
        store: Store,
        select: ValueSelector,
        expected: list[str],
    ) -> None:
        store.put_values(
            [
                a_value(indicator="flow", zone="a"),
                a_value(indicator="aqi", zone="b", window="1d"),
                a_value(indicator="aqi", zone="a"),
            ],
        )
        found = store.values(select, ALWAYS).to_pylist()
        assert [f"{row['indicator']}:{row['zone']}" for row in found] == expected
        assert store.revisions(select, ALWAYS).num_rows == len(expected)

    def test_a_span_of_values_goes_by_their_starts(self, store: Store) -> None:
        store.put_values([a_value(start_us=T0 + n) for n in range(4)])
        span = Span(T0 + 1, T0 + 3)
        assert store.values(ValueSelector(), span)["start_us"].to_pylist() == [T0 + 1, T0 + 2]
        assert store.revisions(ValueSelector(), span)["start_us"].to_pylist() == [T0 + 1, T0 + 2]

    def test_ten_thousand_values_at_once(self, store: Store) -> None:
        many = [a_value(float(n), zone=f"z{n % 100}", start_us=T0 + n // 100) for n in range(10_000)]
        assert store.put_values(many) == 10_000
        assert store.put_values(many) == 0
        changed = [msgspec.structs.replace(v, value=-1.0) if i % 10 == 0 else v for i, v in enumerate(many)]
        assert store.put_values(changed) == 1_000
        assert store.values(ValueSelector(), ALWAYS).num_rows == 10_000

    def test_no_values_are_nothing_to_store(self, store: Store) -> None:
        assert store.put_values([]) == 0
        assert store.values(ValueSelector(), ALWAYS).schema.equals(VALUES)


class ClosingConformance:
    def test_a_closed_store_is_unavailable(self, store: Store) -> None:
        with_series(store)
        store.close()
        ids, times = np.array([1], np.int32), np.array([T0], np.int64)
        for call in (
            lambda: store.register([air()]),
            store.catalog,
            lambda: store.append(batch((1, T0, 1.0)), None),
            lambda: store.applied("j"),
            lambda: list(store.read(EVERY, ALWAYS)),
            lambda: store.overview(EVERY, np.array([T0, T0 + 1]), frozenset({Aggregate.COUNT})),
            lambda: store.latest(EVERY, at_us=T0, lookback_s=1),
            lambda: store.retract(ids, times, times),
            lambda: store.put_values([a_value()]),
            lambda: store.values(ValueSelector(), ALWAYS),
            lambda: store.revisions(ValueSelector(), ALWAYS),
            lambda: store.delete_before(T0),
        ):
            with pytest.raises(UnavailableError):
                call()

    def test_closing_twice_is_allowed(self, store: Store) -> None:
        store.close()
        store.close()


class StoreConformance(
    SeriesConformance,
    AppendConformance,
    ReadConformance,
    OverviewConformance,
    ValuesConformance,
    ClosingConformance,
):
    """All of it."""
