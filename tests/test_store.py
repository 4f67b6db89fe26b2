"""The stores that need no server: conformance, and random histories on both at once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from devices.errors import ConfigError
from devices.reading import Batch, Position, SeriesInfo
from qala.store import open_store
from qala.store.base import Aggregate, Selector, Span, Store, ValueSelector
from tests.store_conformance import ALWAYS, DAY, T0, StoreConformance, a_value, air, batch, rows


class TestMemory(StoreConformance):
    @pytest.fixture
    def store(self) -> Iterator[Store]:
        store = open_store("memory:")
        yield store
        store.close()


class TestDuckDB(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = open_store(f"duckdb://{tmp_path}/readings.duckdb")
        yield store
        store.close()


def test_an_unknown_engine_is_told() -> None:
    with pytest.raises(ConfigError, match="oracle"):
        open_store("oracle:whatever")


TIMES = st.sampled_from([T0 + n for n in range(12)] + [T0 - 3 * DAY, T0 - DAY, T0 + DAY, T0 + 40 * DAY])
SERIES = st.integers(1, 4)
READING = st.tuples(
    SERIES,
    TIMES,
    st.sampled_from([0.0, 1.5, -2.25, 7.0]),
    st.sampled_from([1, 2, 3, 4, 9]),
    st.integers(0, 2),
    st.integers(1, 6),
)
READINGS = st.lists(READING, max_size=12)
SELECTORS = st.one_of(
    st.just(Selector()),
    st.builds(lambda s: Selector(series=frozenset(s)), st.lists(SERIES, max_size=3)),
    st.builds(lambda d: Selector(devices=frozenset(d)), st.lists(st.sampled_from(["air/1", "air/3"]), max_size=2)),
)
VALUES = st.lists(
    st.builds(
        lambda zone, start, number, known: a_value(number, zone=zone, start_us=T0 + start, known_us=T0 + known),
        st.sampled_from("ab"),
        st.integers(0, 2),
        st.sampled_from([None, 1.0, 2.0]),
        st.integers(0, 5),
    ),
    max_size=6,
)


def spans() -> st.SearchStrategy[Span]:
    return st.builds(lambda a, b: Span(min(a, b), max(a, b)), TIMES, TIMES)


def missing_as_nan(readings: list[Any]) -> Batch:
    made = batch(*readings)
    made.value[made.flag == 9] = np.nan
    return made


class Histories(RuleBasedStateMachine):
    """The same random calls on both engines: every answer is the same."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.url = f"duckdb://{self.folder.name}/readings.duckdb"
        self.memory = open_store("memory:")
        self.duckdb = open_store(self.url)
        series: list[SeriesInfo] = [air(f"air/{n}") for n in range(1, 5)]
        assert self.memory.register(series).tolist() == self.duckdb.register(series).tolist()

    def teardown(self) -> None:
        self.memory.close()
        self.duckdb.close()
        self.folder.cleanup()

    @rule(readings=READINGS, number=st.none() | st.integers(1, 20))
    def append(self, readings: list[Any], number: int | None) -> None:
        upto = None if number is None else Position("j", number)
        given = missing_as_nan(readings)
        assert self.memory.append(given, upto) == self.duckdb.append(given, upto)

    @rule(readings=READINGS)
    def retract(self, readings: list[Any]) -> None:
        gone = batch(*readings)
        keys = gone.series, gone.time_us, gone.origin
        assert self.memory.retract(*keys) == self.duckdb.retract(*keys)

    @rule(time_us=TIMES, select=SELECTORS)
    def delete(self, time_us: int, select: Selector) -> None:
        self.memory.delete_before(time_us, select)
        self.duckdb.delete_before(time_us, select)

    @rule(values=VALUES)
    def put_values(self, values: list[Any]) -> None:
        assert self.memory.put_values(values) == self.duckdb.put_values(values)

    @rule()
    def reopen(self) -> None:
        self.duckdb.close()
        self.duckdb = open_store(self.url)

    @rule(select=SELECTORS, span=spans(), bracket=st.booleans(), limit=st.none() | st.integers(0, 9))
    def read(self, select: Selector, span: Span, bracket: bool, limit: int | None) -> None:
        found = [repr(rows(s.read(select, span, bracket=bracket, limit=limit))) for s in (self.memory, self.duckdb)]
        assert found[0] == found[1]

    @rule(select=SELECTORS, edges=st.sets(TIMES, max_size=6))
    def overview(self, select: Selector, edges: set[int]) -> None:
        given = np.array(sorted(edges), np.int64)
        found = [s.overview(select, given, frozenset(Aggregate)).to_pylist() for s in (self.memory, self.duckdb)]
        assert found[0] == found[1]

    @rule(select=SELECTORS, at_us=TIMES, lookback_s=st.sampled_from([0, 1, 86_400]))
    def latest(self, select: Selector, at_us: int, lookback_s: int) -> None:
        found = [
            repr(s.latest(select, at_us=at_us, lookback_s=lookback_s).to_pylist()) for s in (self.memory, self.duckdb)
        ]
        assert found[0] == found[1]

    @rule(as_of=st.none() | st.integers(0, 5))
    def values(self, as_of: int | None) -> None:
        at = None if as_of is None else T0 + as_of
        found = [s.values(ValueSelector(), ALWAYS, as_of_us=at) for s in (self.memory, self.duckdb)]
        assert found[0].equals(found[1])

    @invariant()
    def all_is_the_same(self) -> None:
        stores = (self.memory, self.duckdb)
        kept = [repr(rows(s.read(Selector(), ALWAYS))) for s in stores]
        assert kept[0] == kept[1]
        assert self.memory.revisions(ValueSelector(), ALWAYS).equals(self.duckdb.revisions(ValueSelector(), ALWAYS))
        assert self.memory.applied("j") == self.duckdb.applied("j")


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
