"""Random calls on an engine and on the plain one in memory: every answer is the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from devices.reading import Batch, Position
from devices.value import Value
from qala.store import open_store
from qala.store.base import Aggregate, Selector, Span, Store, ValueSelector
from qala.store.conformance.builders import ALWAYS, DAY, EVERY, T0, a_value, air, batch, offered, rows

Place = Callable[[], AbstractContextManager[Callable[[], Store]]]

ROUNDED = {Aggregate.SUM, Aggregate.MEAN, Aggregate.P50, Aggregate.P95}
"""Aggregates that engines may round otherwise in the last bits."""
TENDED_MAX = 50  # pieces of upkeep in a row

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
    st.just(EVERY),
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
SPANS = st.builds(lambda a, b: Span(min(a, b), max(a, b)), TIMES, TIMES)


def check_histories(place: Place, *, examples: int = 25, steps: int = 15) -> None:
    """Run so many random histories of so many calls, each on an empty store. Raises AssertionError with the shortest.

    `place` makes room for one store and gives the function that opens it.
    """

    class Theirs(Histories):
        def place(self) -> AbstractContextManager[Callable[[], Store]]:
            return place()

    run_state_machine_as_test(
        Theirs,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


class Histories(RuleBasedStateMachine):
    """The same random calls on the engine in memory and on another."""

    def place(self) -> AbstractContextManager[Callable[[], Store]]:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.room = self.place()
        self.opening = self.room.__enter__()
        self.memory, self.engine = open_store("memory:"), self.opening()
        self.same(lambda store: store.register([air(f"air/{n}") for n in range(1, 5)]).tolist())

    def teardown(self) -> None:
        self.memory.close()
        self.engine.close()
        self.room.__exit__(None, None, None)

    def same(self, ask: Callable[[Store], Any]) -> None:
        assert ask(self.engine) == ask(self.memory)

    @rule(readings=READINGS, number=st.none() | st.integers(1, 20))
    def append(self, readings: list[Any], number: int | None) -> None:
        upto = None if number is None else Position("j", number)
        given = missing_as_nan(readings)
        self.same(lambda store: store.append(given, upto))

    @rule(readings=READINGS)
    def retract(self, readings: list[Any]) -> None:
        gone = batch(*readings)
        self.same(lambda store: store.retract(gone.series, gone.time_us, gone.origin))

    @rule(time_us=TIMES, select=SELECTORS)
    def delete(self, time_us: int, select: Selector) -> None:
        self.same(lambda store: store.delete_before(time_us, select))

    @rule(values=VALUES)
    def put_values(self, values: list[Value]) -> None:
        self.same(lambda store: store.put_values(values))

    @precondition(lambda self: self.engine.capabilities.persistent)
    @rule()
    def reopen(self) -> None:
        self.engine.close()
        self.engine = self.opening()

    @rule(now_us=TIMES)
    def tend(self, now_us: int) -> None:
        for _ in range(TENDED_MAX):
            if not self.engine.tend(now_us + DAY):
                return
        raise AssertionError(f"upkeep of a few readings went on after {TENDED_MAX} pieces")

    @rule(select=SELECTORS, span=SPANS, bracket=st.booleans(), limit=st.none() | st.integers(0, 9))
    def read(self, select: Selector, span: Span, bracket: bool, limit: int | None) -> None:
        self.same(lambda store: repr(rows(store.read(select, span, bracket=bracket, limit=limit))))

    @rule(select=SELECTORS, edges=st.sets(TIMES, max_size=6))
    def overview(self, select: Selector, edges: set[int]) -> None:
        given = np.array(sorted(edges), np.int64)
        wanted = offered(self.engine)
        found = [store.overview(select, given, wanted).to_pylist() for store in (self.engine, self.memory)]
        assert len(found[0]) == len(found[1])
        for one, other in zip(*found, strict=True):
            assert one.keys() == other.keys()
            assert [name for name in one if not agree(name, one[name], other[name])] == [], (one, other)

    @rule(select=SELECTORS, at_us=TIMES, lookback_s=st.sampled_from([0, 1, 86_400]))
    def latest(self, select: Selector, at_us: int, lookback_s: int) -> None:
        self.same(lambda store: repr(store.latest(select, at_us=at_us, lookback_s=lookback_s).to_pylist()))

    @rule(as_of=st.none() | st.integers(0, 5))
    def values(self, as_of: int | None) -> None:
        at = None if as_of is None else T0 + as_of
        self.same(lambda store: store.values(ValueSelector(), ALWAYS, as_of_us=at).to_pylist())

    @invariant()
    def all_is_the_same(self) -> None:
        self.same(lambda store: repr(rows(store.read(EVERY, ALWAYS))))
        self.same(lambda store: store.revisions(ValueSelector(), ALWAYS).to_pylist())
        self.same(lambda store: (store.applied("j"), list(store.positions()), store.extent(), store.values_extent()))


def missing_as_nan(readings: list[Any]) -> Batch:
    made = batch(*readings)
    made.value[made.flag == 9] = np.nan
    return made


def agree(name: str, one: float | None, other: float | None) -> bool:
    """Tell whether two answers for an aggregate are the same number, up to rounding where there is some."""
    if one is None or other is None or name not in ROUNDED:
        return one == other
    return math.isclose(one, other, rel_tol=1e-12, abs_tol=1e-12)
