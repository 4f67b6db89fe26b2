"""The life of a store: opened again, closed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices.errors import UnavailableError
from devices.reading import Position
from qala.store import open_store
from qala.store.base import Aggregate, Appended, Backups, Span, Store, ValueSelector
from qala.store.conformance.builders import (
    ALWAYS,
    DAY,
    EVERY,
    MINUTE,
    T0,
    a_value,
    air,
    batch,
    everything,
    offered,
    rows,
    with_series,
)

HOUR = 60 * MINUTE
PIECES_MAX = 1_000  # of upkeep, for a handful of days


def everything_of(store: Store) -> tuple[Any, ...]:
    """Return all that can be asked of a store, in a form that can be compared."""
    edges = np.arange(T0 - DAY, T0 + 5 * DAY, 6 * HOUR)
    return (
        list(map(str, rows(store.read(EVERY, ALWAYS)))),
        list(map(str, rows(store.read(EVERY, Span(T0 + 3 * HOUR, T0 + 9 * HOUR), bracket=True)))),
        str(store.latest(EVERY, at_us=T0 + 2 * DAY, lookback_s=86_400).to_pylist()),
        [rounded(row) for row in store.overview(EVERY, edges, offered(store)).to_pylist()],
        store.revisions(ValueSelector(), ALWAYS).to_pylist(),
        list(store.positions()),
        dict(store.catalog()),
        (store.extent(), store.values_extent()),
    )


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of an overview without the last bits of its numbers, which may depend on how they were summed."""
    return {name: float(f"{value:.12g}") if isinstance(value, float) else value for name, value in row.items()}


class LifetimeConformance:
    def test_opened_again_a_store_has_what_it_had_and_where_it_stood(self, opening: Callable[[], Store]) -> None:
        """One that is not persistent is empty again, and stands nowhere."""
        store = opening()
        with_series(store, 3)
        for number in range(1, 4):
            store.append(batch((number, T0 + number, number / 3), (1, T0 - DAY, math.nan, 9)), Position("j", number))
        store.put_values([a_value(1.0), a_value(2.0)])
        kept = everything_of(store)
        store.close()
        store = opening()
        if store.capabilities.persistent:
            assert everything_of(store) == kept
            assert store.put_values([a_value(2.0)]) == 0
            assert store.append(batch((3, T0 + 3, 1.5)), None) == Appended(0, 1, 0)
            assert store.register([air("air/9"), air("air/2")]).tolist() == [4, 2]
        else:
            assert (everything(store), list(store.positions()), dict(store.catalog())) == ([], [], {})
        store.close()

    def test_a_restored_backup_goes_on_from_where_it_stood_and_ends_the_same(
        self, store: Store, tmp_path: Path
    ) -> None:
        """The position is in the backup, with the readings up to it. Engines without backups have nothing to restore."""
        with_series(store, 2)
        journal = [batch((1, T0 + n, n / 3, 1, 0, n), (2, T0 - n * DAY, n / 7, 1, 0, n)) for n in range(6)]
        for number, readings in enumerate(journal[:3]):
            store.append(readings, Position("j", number))
        if not isinstance(store, Backups):
            return
        store.backup(tmp_path / "backup")
        before = everything_of(store)
        for number, readings in enumerate(journal[3:], start=3):
            store.append(readings, Position("j", number))
        restored = open_store(f"{store.capabilities.engine}://{tmp_path}/backup")
        assert everything_of(restored) == before
        stands = restored.applied("j")
        assert stands == Position("j", 2)
        for number, readings in enumerate(journal[3:], start=3):
            restored.append(readings, Position("j", number))
        assert everything_of(restored) == everything_of(store)
        restored.close()

    def test_upkeep_changes_nothing_that_is_read(self, store: Store) -> None:
        with_series(store, 3)
        for late in (0, 7, 3, 20):
            hours = range(late, late + 50)
            store.append(batch(*((s, T0 + n * HOUR + late, n / 3) for n in hours for s in (3, 1, 2))), None)
        store.put_values([a_value(1.0), a_value(2.0)])
        before = everything_of(store)
        for _ in range(PIECES_MAX):
            more = store.tend(T0 + 400 * DAY)
            assert everything_of(store) == before
            assert all(0 <= one.done <= one.total and one.error == "" for one in store.upkeep())
            if not more:
                break
        assert not more
        late_row = batch((1, T0 - DAY, 7.0), (2, T0 + HOUR, 8.0, 1, 1, 9))
        assert store.append(late_row, None) == Appended(1, 1, 0)
        assert len(everything(store)) == len(before[0]) + 1

    def test_a_closed_store_is_unavailable(self, store: Store) -> None:
        with_series(store)
        store.close()
        ids, times = np.array([1], np.int32), np.array([T0], np.int64)
        for call in (
            lambda: store.register([air()]),
            store.catalog,
            lambda: store.append(batch((1, T0, 1.0)), None),
            lambda: store.applied("j"),
            store.positions,
            store.extent,
            store.values_extent,
            lambda: store.tend(T0),
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
