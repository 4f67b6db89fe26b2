"""What the scheduler remembers: which windows wait, and which were computed too lately to be computed again."""

from __future__ import annotations

import msgspec
import pytest

from analytics.agenda import Agenda
from qala.state.dirty import Due

SECOND = 1_000_000
EVERY = 10 * SECOND
END = 3_600 * SECOND
WINDOW = Due("aqi", "centre", "1h", 0, END)


@pytest.fixture
def agenda() -> Agenda:
    return Agenda(EVERY)


def compute(agenda: Agenda, now_us: int, window: Due = WINDOW) -> None:
    agenda.drop([window])
    agenda.computed([window], now_us)


def test_a_window_is_noted_for_its_end(agenda: Agenda) -> None:
    assert [one.ready_us for one in agenda.news([WINDOW], END - 60)] == [END]


def test_a_window_that_ended_and_was_not_computed_lately_is_due_at_once(agenda: Agenda) -> None:
    assert [one.ready_us for one in agenda.news([WINDOW], END + 5)] == [END + 5]
    compute(agenda, END + 5)
    later = END + 5 + EVERY
    assert [one.ready_us for one in agenda.news([WINDOW], later)] == [later]


def test_a_window_that_was_computed_lately_waits_its_turn(agenda: Agenda) -> None:
    compute(agenda, END)
    assert [one.ready_us for one in agenda.news([WINDOW], END + SECOND)] == [END + EVERY]


def test_a_clock_that_was_set_back_puts_a_window_off_no_longer(agenda: Agenda) -> None:
    compute(agenda, END + 3_600 * SECOND)
    assert [one.ready_us for one in agenda.news([WINDOW], END + SECOND)] == [END + SECOND + EVERY]


def test_nothing_is_put_off_where_all_is_to_be_done_at_once(agenda: Agenda) -> None:
    compute(agenda, END)
    assert [one.ready_us for one in agenda.news([WINDOW], END + SECOND, at_once=True)] == [END + SECOND]


def test_a_time_of_its_own_that_is_later_holds(agenda: Agenda) -> None:
    compute(agenda, END)
    waits = msgspec.structs.replace(WINDOW, ready_us=END + 2 * EVERY)
    assert agenda.news([waits], END + SECOND) == [waits]


def test_what_waits_is_noted_once_until_it_is_computed(agenda: Agenda) -> None:
    agenda.noted(agenda.news([WINDOW], 0))
    assert agenda.news([WINDOW], 1) == []
    compute(agenda, END)
    assert len(agenda.news([WINDOW], END + 1)) == 1


def test_what_waits_is_noted_again_for_an_earlier_time(agenda: Agenda) -> None:
    agenda.noted([msgspec.structs.replace(WINDOW, ready_us=END + EVERY)])
    assert [one.ready_us for one in agenda.news([WINDOW], END)] == [END]
    assert agenda.news([msgspec.structs.replace(WINDOW, ready_us=END + 2 * EVERY)], END) == []


def test_what_is_remembered_has_a_limit() -> None:
    agenda = Agenda(EVERY, most=2)
    windows = [msgspec.structs.replace(WINDOW, zone=f"z{n}") for n in range(4)]
    agenda.computed(windows, END)
    assert [one.ready_us for one in agenda.news(windows, END)] == [END, END, END + EVERY, END + EVERY]
    agenda.noted(windows)
    assert len(agenda.news(windows, END)) == 2, "the other two are noted a second time, which changes nothing"
