"""Series: registered once, kept apart, found again."""

from __future__ import annotations

import numpy as np
import pytest

from devices.errors import NotFoundError
from devices.reading import Position, SeriesInfo
from qala.store.base import Selector, Store
from qala.store.conformance.builders import ALWAYS, NAMES, T0, air, batch, brief, everything, with_series


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

    @pytest.mark.parametrize("name", NAMES)
    def test_any_text_may_be_the_name_of_a_device_and_of_a_channel(self, store: Store, name: str) -> None:
        given = [SeriesInfo(name, "pm2_5", name, 0, "µg/m³"), air(name + "b"), air("air/1")]
        ids = store.register(given)
        store.append(batch((1, T0, 1.5), (2, T0, 2.5), (3, T0, 3.5)), None)
        assert [store.catalog()[id_] for id_ in ids.tolist()] == given
        assert store.register(given).tolist() == ids.tolist()
        picked = Selector(devices=frozenset({name}), channels=frozenset({name}))
        assert brief(store.read(picked, ALWAYS)) == [(1, T0, 1.5)]
        assert brief(store.latest(picked, at_us=T0, lookback_s=1).to_batches()) == [(1, T0, 1.5)]
        assert everything(store) == [(1, T0, 1.5), (2, T0, 2.5), (3, T0, 3.5)]
        store.delete_before(T0 + 1, picked)
        assert everything(store) == [(2, T0, 2.5), (3, T0, 3.5)]
