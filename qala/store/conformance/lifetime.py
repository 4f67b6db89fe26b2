"""The life of a store: opened again, closed."""

from __future__ import annotations

import numpy as np
import pytest

from devices.errors import UnavailableError
from qala.store.base import Aggregate, Store, ValueSelector
from qala.store.conformance.builders import ALWAYS, EVERY, T0, a_value, air, batch, with_series


class LifetimeConformance:
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
