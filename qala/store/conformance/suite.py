"""The suite as a whole, and the one thing that an engine's tests give it: a place to open stores in."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from qala.store.base import Store
from qala.store.conformance.appending import AppendConformance
from qala.store.conformance.histories import check_histories
from qala.store.conformance.lifetime import LifetimeConformance
from qala.store.conformance.reading import ReadConformance
from qala.store.conformance.series import SeriesConformance
from qala.store.conformance.values import ValuesConformance
from qala.store.conformance.windows import OverviewConformance

Opening = Callable[[], Store]
"""Opens the store of a place: empty the first time, then, if the engine is persistent, with what was stored."""


class StoreConformance(
    SeriesConformance,
    AppendConformance,
    ReadConformance,
    OverviewConformance,
    ValuesConformance,
    LifetimeConformance,
):
    """All of it. Give it `place`; `histories` and `steps` may be less for an engine that answers slowly."""

    histories = 25
    steps = 15

    @abstractmethod
    def place(self) -> AbstractContextManager[Opening]:
        """Make an empty place for one store, and clear it away afterwards."""

    @pytest.fixture
    def opening(self) -> Iterator[Opening]:
        with self.place() as opening:
            yield opening

    @pytest.fixture
    def store(self, opening: Opening) -> Iterator[Store]:
        store = opening()
        yield store
        store.close()

    def test_random_histories_read_as_they_do_in_memory(self) -> None:
        check_histories(self.place, examples=self.histories, steps=self.steps)
