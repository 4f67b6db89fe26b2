"""Marks of changed readings and the windows that are due from them: nothing is ever forgotten, whatever crashes when."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from devices.reading import Position
from qala.state import open_state
from qala.state.dirty import DirtyMarks, Due, Taken

NOW = 1_700_000_000_000_000


@pytest.fixture
def state(tmp_path: Path) -> Engine:
    return open_state(f"sqlite:///{tmp_path / 'state.sqlite'}")


def at(number: int, journal: str = "j") -> Position:
    return Position(journal, number)


def mark(dirty: DirtyMarks, pairs: list[tuple[int, int]], position: Position, *, lasting: bool = True) -> int:
    series, bucket = zip(*pairs, strict=True)
    return dirty.mark(np.array(series, np.int32), np.array(bucket, np.int64), position, lasting=lasting)


def pairs_of(taken: Taken) -> set[tuple[int, int]]:
    return set(zip(taken.series.tolist(), taken.bucket.tolist(), strict=True))


def window(start: int, indicator: str = "aqi") -> Due:
    return Due(indicator, "zone", "1h", start, start + 10)


def test_marks_are_taken_once_the_store_has_applied_their_position(state: Engine) -> None:
    dirty = DirtyMarks(state)
    mark(dirty, [(1, 10), (2, 11), (1, 10)], at(5))
    assert pairs_of(dirty.take(at(4))) == set()
    assert pairs_of(dirty.take(at(5))) == {(1, 10), (2, 11)}


def test_a_pair_that_is_pending_is_not_written_again(state: Engine) -> None:
    dirty = DirtyMarks(state)
    assert mark(dirty, [(1, 10), (2, 10)], at(1)) == 2
    assert mark(dirty, [(2, 10), (3, 10)], at(2)) == 1
    assert mark(DirtyMarks(state), [(1, 10), (3, 10)], at(3)) == 0, "a restart knows what is pending"


def test_a_mark_that_a_later_batch_needs_too_is_taken_for_both(state: Engine) -> None:
    dirty = DirtyMarks(state)
    mark(dirty, [(1, 10)], at(1))
    mark(dirty, [(1, 10)], at(2))
    first = dirty.take(at(1))
    dirty.add_due([], now_us=NOW, taken=first)
    assert pairs_of(first) == {(1, 10)}
    assert pairs_of(dirty.take(at(2))) == {(1, 10)}


def test_a_mark_made_between_take_and_add_due_survives(state: Engine) -> None:
    dirty = DirtyMarks(state)
    mark(dirty, [(1, 10)], at(1))
    taken = dirty.take(at(1))
    mark(dirty, [(1, 10)], at(2))
    dirty.add_due([window(0)], now_us=NOW, taken=taken)
    assert pairs_of(dirty.take(at(2))) == {(1, 10)}


def test_marks_taken_but_never_turned_into_due_windows_are_taken_again(state: Engine) -> None:
    dirty = DirtyMarks(state)
    mark(dirty, [(1, 10)], at(1))
    dirty.take(at(1))
    assert pairs_of(dirty.take(at(1))) == {(1, 10)}
    assert pairs_of(DirtyMarks(state).take(at(1))) == {(1, 10)}


def test_marks_that_need_not_last_are_on_disk_once_they_are_saved(state: Engine) -> None:
    dirty = DirtyMarks(state)
    mark(dirty, [(1, 10)], at(1), lasting=False)
    assert pairs_of(DirtyMarks(state).take(at(1))) == set()
    assert pairs_of(dirty.take(at(1))) == {(1, 10)}
    dirty.save()
    assert pairs_of(DirtyMarks(state).take(at(1))) == {(1, 10)}, "what was taken is no due window yet"


def test_what_became_due_windows_leaves_no_rows_behind(state: Engine) -> None:
    dirty = DirtyMarks(state)
    mark(dirty, [(1, 10)], at(1), lasting=False)
    taken = dirty.take(at(1))
    dirty.save()
    mark(dirty, [(1, 10), (2, 10)], at(2))
    dirty.add_due([window(0)], now_us=NOW, taken=taken)
    assert pairs_of(DirtyMarks(state).take(at(2))) == {(1, 10), (2, 10)}
    dirty.add_due([window(0)], now_us=NOW, taken=dirty.take(at(2)))
    assert pairs_of(DirtyMarks(state).take(at(2))) == set()


def test_of_very_many_marks_the_oldest_are_taken_first(state: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qala.state.dirty._TAKE_MAX", 2)
    dirty = DirtyMarks(state)
    mark(dirty, [(3, 10), (4, 10)], at(1))
    mark(dirty, [(1, 10), (2, 10)], at(2))
    first = dirty.take(at(2))
    dirty.add_due([], now_us=NOW, taken=first)
    assert pairs_of(first) == {(3, 10), (4, 10)}
    assert pairs_of(DirtyMarks(state).take(at(2))) == {(1, 10), (2, 10)}


def test_marks_of_another_journal_wait_for_their_own_position(state: Engine) -> None:
    dirty = DirtyMarks(state)
    mark(dirty, [(1, 10)], at(1, "a"))
    mark(dirty, [(2, 20)], at(1, "b"))
    assert pairs_of(dirty.take(at(9, "a"))) == {(1, 10)}
    assert pairs_of(dirty.take(at(9, "b"))) == {(2, 20)}


def test_windows_are_due_when_they_have_ended_newest_first(state: Engine) -> None:
    dirty = DirtyMarks(state)
    dirty.add_due([window(0), window(10), window(20)], now_us=20)
    assert [due.start_us for due in dirty.due(20)] == [10, 0]
    assert [due.start_us for due in dirty.due(30, limit=1)] == [20]


def test_a_window_may_be_due_later_than_its_end_until_someone_needs_it_sooner(state: Engine) -> None:
    dirty = DirtyMarks(state)
    dirty.add_due([Due("aqi", "zone", "1h", 0, 10, ready_us=50)], now_us=20)
    assert dirty.due(49) == []
    dirty.add_due([window(0)], now_us=30)
    assert [due.start_us for due in dirty.due(30)] == [0]


def test_a_window_marked_again_while_it_was_computed_stays_due(state: Engine) -> None:
    dirty = DirtyMarks(state)
    dirty.add_due([window(0), window(10)], now_us=NOW)
    computed = dirty.due(NOW)
    dirty.add_due([window(10)], now_us=NOW)
    dirty.clear(computed)
    assert [due.start_us for due in dirty.due(NOW)] == [10]


def test_generations_go_on_rising_after_a_restart(state: Engine) -> None:
    DirtyMarks(state).add_due([window(0)], now_us=NOW)
    before = DirtyMarks(state).due(NOW)
    again = DirtyMarks(state)
    again.add_due([window(0)], now_us=NOW)
    again.clear(before)
    assert len(again.due(NOW)) == 1


def test_the_backlog_says_for_how_long_the_oldest_window_waits(state: Engine) -> None:
    dirty = DirtyMarks(state)
    assert dirty.backlog(NOW).lag_s == 0.0
    dirty.add_due([window(0)], now_us=100)
    dirty.add_due([window(0), window(200)], now_us=150)
    backlog = dirty.backlog(300)
    assert (backlog.due, backlog.lag_s, backlog.marks) == (2, 200e-6, 0)
    mark(dirty, [(1, 10)], at(1))
    assert dirty.backlog(300).marks == 1


def test_a_million_marks_fit_in_a_few_rows(state: Engine) -> None:
    dirty = DirtyMarks(state)
    series, bucket = np.divmod(np.arange(1_000_000), 600)
    assert dirty.mark(series.astype(np.int32), bucket, at(1)) == 1_000_000
    assert dirty.backlog(NOW).marks == 1_000_000
    with state.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM dirty")).scalar_one() == 16
    assert len(dirty.take(at(1))) == 1_000_000


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("batch"), st.sets(st.tuples(st.integers(1, 3), st.integers(0, 2)), min_size=1)),
        st.tuples(st.just("append"), st.none()),
        st.tuples(st.just("save"), st.none()),
        st.tuples(st.just("take"), st.none()),
        st.tuples(st.just("due"), st.none()),
        st.tuples(st.just("crash"), st.none()),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, lasting=st.lists(st.booleans(), min_size=1, max_size=5))
def test_whatever_crashes_when_every_appended_pair_is_looked_at_after_its_append(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, set[tuple[int, int]] | None]], lasting: list[bool]
) -> None:
    state = open_state(f"sqlite:///{tmp_path_factory.mktemp('state') / 'state.sqlite'}")
    dirty, taken = DirtyMarks(state), None
    applied, marked = 0, None
    unseen: set[tuple[int, int]] = set()
    again: list[tuple[set[tuple[int, int]], int]] = []  # what is marked anew after a crash
    for step, pairs in [*steps, ("append", None), ("take", None), ("due", None)]:
        if step == "batch" and pairs and marked is None:
            lasts = lasting[applied % len(lasting)]
            mark(dirty, list(pairs), at(applied + 1), lasting=lasts)
            again += [] if lasts else [(pairs, applied + 1)]
            marked = pairs
        elif step == "save":
            dirty.save()
            again = []
        elif step == "append" and marked:
            applied, unseen, marked = applied + 1, unseen | marked, None
        elif step == "take":
            taken, seen = dirty.take(at(applied)), set(unseen)
        elif step == "due" and taken is not None:
            dirty.add_due([], now_us=NOW, taken=taken)
            unseen -= pairs_of(taken) & seen
            taken = None
        elif step == "crash":
            dirty, taken, marked = DirtyMarks(state), None, None
            again = [(pairs, number) for pairs, number in again if number <= applied]
            for old, number in again:
                mark(dirty, list(old), at(number), lasting=False)
    assert unseen == set()
    state.dispose()
