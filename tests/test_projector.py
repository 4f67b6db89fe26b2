"""The projector: killed or failing anywhere it repeats without loss or duplicate, and nothing stops it."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from devices.errors import UnavailableError
from devices.reading import Batch, Position
from ingest.journal import Journal
from ingest.nudge import nudge
from ingest.published import read_published
from qala.state.registry import statuses
from qala.state.rejected import list_rejected
from qala.store.base import Appended
from qala.store.memory import MemoryStore
from tests.builders import NOW_US, SECOND_US, City, cities, message, registry, telemetry
from tests.wait import until

Cities = Callable[..., City]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Cities]:
    yield from cities(tmp_path)


class Killed(BaseException):
    """The process dies here."""


class FragileStore(MemoryStore):
    """A store that raises what it is told to, before or after the write that it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.before: list[BaseException | None] = []
        self.after: list[BaseException | None] = []

    def append(self, batch: Batch, upto: Position | None) -> Appended:
        _raise_next(self.before)
        appended = super().append(batch, upto)
        _raise_next(self.after)
        return appended


def _raise_next(errors: list[BaseException | None]) -> None:
    error = errors.pop(0) if errors else None
    if error is not None:
        raise error


@contextmanager
def running(city: City) -> Iterator[threading.Thread]:
    """Run the projector in its thread, as the server does."""
    stop = threading.Event()
    thread = threading.Thread(target=city.projector.run, args=(stop,))
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        city.projector.wake()
        thread.join(10)
        assert not thread.is_alive()


def test_what_is_in_the_journal_gets_to_the_store(make: Cities) -> None:
    city = make()

    city.send(telemetry({"pm1": 1, "pm10": 2}), telemetry({"pm1": 3}, device="air/a2"))

    assert city.readings() == {
        ("air/a1", "pm1", NOW_US): 1,
        ("air/a1", "pm10", NOW_US): 2,
        ("air/a2", "pm1", NOW_US): 3,
    }
    assert city.marked() == {("air/a1", NOW_US // 300_000_000), ("air/a2", NOW_US // 300_000_000)}
    assert city.applied() == read_published(city.folder / "journal" / "applied") == 2
    assert sum(len(batch) for batch in city.told) == 3
    assert (city.projector.counters.messages, city.projector.counters.readings) == (2, 3)


def test_a_step_takes_at_most_one_batch(make: Cities) -> None:
    city = make(batch_max=2)
    city.journal.append([telemetry({"pm1": k}) for k in range(5)])

    assert [city.projector.step(NOW_US) for _ in range(4)] == [2, 2, 1, 0]


def test_a_folder_without_a_journal_is_waited_for(make: Cities, tmp_path: Path) -> None:
    city = make()
    city.folder = tmp_path / "empty"
    city.projector = city.new_projector()
    assert city.projector.step(NOW_US) == 0

    journal = Journal.open(city.folder / "journal")
    journal.append([telemetry({"pm1": 1})])

    assert city.projector.step(NOW_US) == 1
    journal.close()


def test_of_two_messages_for_one_time_the_higher_revision_wins_then_the_later(make: Cities) -> None:
    city = make()

    city.send(telemetry({"pm1": 2, "pm10": 1}, r=1), telemetry({"pm1": 3, "pm10": 2}), telemetry({"pm10": 4}, r=1))

    assert city.readings() == {("air/a1", "pm1", NOW_US): 2, ("air/a1", "pm10", NOW_US): 4}


def test_what_is_stored_once_more_after_a_crash_is_marked_once_it_is_stored(
    make: Cities, monkeypatch: pytest.MonkeyPatch
) -> None:
    city = make()
    city.journal.append([telemetry({"pm1": 1})])
    city.projector.step(NOW_US)
    city.projector = city.new_projector()  # it takes the message again: nobody had counted it
    append = city.store.append
    taken: list[set[tuple[str, int]]] = []

    def append_late(batch: Batch, upto: Position | None) -> Appended:
        taken.append(city.marked())
        city.dirty.add_due([], now_us=NOW_US, taken=city.dirty.take(Position(city.journal.id, city.applied())))
        return append(batch, upto)

    monkeypatch.setattr(city.store, "append", append_late)
    city.projector.step(NOW_US)

    assert len(taken) == 1
    assert city.marked() == {("air/a1", NOW_US // 300_000_000)}


def test_status_is_kept_the_newest_by_receipt(make: Cities) -> None:
    city = make()

    city.send(
        message({"on": 1, "fw": "2"}, leaf="s", received_us=NOW_US + 2),
        message({"on": 0}, leaf="s", received_us=NOW_US + 1, retained=True),
    )

    assert (statuses(city.engine)["air/a1"].online, statuses(city.engine)["air/a1"].firmware) == (True, "2")


STAGES = {
    "decoded": "ingest.projector.take",
    "admitted": "ingest.projector.admit",
    "rejected recorded": "qala.state.rejected.RejectedLog.record",
    "marked": "qala.state.dirty.DirtyMarks.mark",
    "appended": "qala.store.memory.MemoryStore.append",
    "published": "ingest.published.Published.set",
}


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("stage", STAGES)
def test_killed_anywhere_it_repeats_without_loss_or_duplicate(
    make: Cities, monkeypatch: pytest.MonkeyPatch, stage: str, moment: str
) -> None:
    sent = [telemetry({"pm1": k, "pm3": 1}, t=NOW_US // 1000 + k) for k in range(5)] + [message(b"{")]
    untouched = make()
    untouched.send(*sent)
    city = make()
    city.project()
    city.journal.append(sent)

    monkeypatch.setattr(STAGES[stage], _deadly(STAGES[stage], moment))
    with pytest.raises(Killed):
        city.projector.step(NOW_US)
    monkeypatch.undo()
    city.journal.append([telemetry({"pm1": 9}, t=NOW_US // 1000 + 9)])  # the repeated batch has other ends
    untouched.send(telemetry({"pm1": 9}, t=NOW_US // 1000 + 9))
    city.projector = city.new_projector()
    city.project()

    assert city.judged() == untouched.judged()
    assert city.marked() == untouched.marked()
    assert _places(city) == _places(untouched)


def _deadly(name: str, moment: str) -> Callable[..., Any]:
    import pkgutil

    real = pkgutil.resolve_name(name)

    def dying(*args: Any, **kwargs: Any) -> Any:
        if moment == "after":
            real(*args, **kwargs)
        raise Killed

    return dying


def _places(city: City) -> list[tuple[int, int, str, str]]:
    return [(row.position, row.item, row.reason, row.key) for row in list_rejected(city.engine, limit=1000)[0]]


def test_a_failing_store_costs_nothing_but_time(make: Cities) -> None:
    city = make(batch_max=3)
    store = FragileStore()
    city.store, city.projector = store, city.new_projector(store)
    rng = random.Random(7)
    city.journal.append([telemetry({"pm1": k}, t=NOW_US // 1000 + k) for k in range(20)])
    error = UnavailableError("gone", hint="wait")
    store.before = [rng.choice([error, RuntimeError("bug"), None]) for _ in range(20)]
    store.after = [rng.choice([error, None]) for _ in range(20)]

    failures = 0
    while city.applied() < 20 or store.before or store.after:
        try:
            if not city.projector.step(NOW_US):
                break
        except (UnavailableError, RuntimeError):
            failures += 1

    assert failures > 5
    assert sorted(city.readings().values()) == list(range(20))


def test_a_store_restored_from_a_backup_resumes_where_the_backup_ends(make: Cities) -> None:
    city = make()
    city.send(telemetry({"pm1": 1}, t=NOW_US // 1000 + 1))
    city.send(telemetry({"pm1": 2}, t=NOW_US // 1000 + 2))

    city.store = MemoryStore()  # yesterday's backup: empty
    city.projector = city.new_projector()
    city.project()

    assert sorted(city.readings().values()) == [1, 2]


def test_a_listener_that_fails_harms_nothing(make: Cities, caplog: pytest.LogCaptureFixture) -> None:
    city = make()
    city.projector._on_applied = _fail_on_batch

    city.send(telemetry({"pm1": 1}))
    city.send(telemetry({"pm10": 2}))

    assert len(city.readings()) == 2
    assert "a listener failed" in caplog.text


def _fail_on_batch(_batch: Batch) -> None:
    raise ZeroDivisionError


def test_the_lag_is_what_waits_and_since_when(make: Cities) -> None:
    city = make(batch_max=1)
    city.send(telemetry({"pm1": 1}))
    city.projector.step(NOW_US)
    assert (
        city.projector.health(NOW_US + SECOND_US).lag_messages,
        city.projector.health(NOW_US + SECOND_US).lag_s,
    ) == (0, 0)

    city.journal.append([telemetry({"pm1": k}, received_us=NOW_US + 60 * SECOND_US) for k in range(3)])
    behind = city.projector.health(NOW_US + 5 * SECOND_US)
    assert (behind.lag_messages, behind.lag_s) == (3, 5)

    city.projector.step(NOW_US + 70 * SECOND_US)
    behind = city.projector.health(NOW_US + 70 * SECOND_US)
    assert (behind.applied, behind.lag_messages, behind.lag_s) == (2, 2, 10)


def test_a_nudge_wakes_it(make: Cities) -> None:
    city = make(flush_ms=1)
    with running(city):
        until((city.folder / "projector.sock").exists)
        for k in range(3):
            city.journal.append([telemetry({"pm1": k}, t=NOW_US // 1000 + k)])
            nudge(city.folder / "projector.sock")
            until(lambda k=k: city.applied() == k + 1)  # type: ignore[misc]

    assert not (city.folder / "projector.sock").exists()


def test_a_lost_nudge_is_made_good_within_a_second(make: Cities) -> None:
    city = make(flush_ms=1)
    with running(city):
        city.journal.append([telemetry({"pm1": 1})])

        until(lambda: city.applied() == 1, deadline_s=3)


def test_others_ask_it_to_do_what_only_its_thread_may(make: Cities) -> None:
    city = make(flush_ms=1)
    with running(city) as thread:
        until((city.folder / "projector.sock").exists)

        assert city.projector.ask(threading.current_thread).result(5) is thread
        with pytest.raises(ZeroDivisionError):
            city.projector.ask(lambda: 1 / 0).result(5)
        assert city.projector.ask(os.getpid).result(5) == os.getpid()


def test_too_many_requests_are_refused(make: Cities) -> None:
    city = make()
    asked = [city.projector.ask(os.getpid) for _ in range(64)]

    with pytest.raises(UnavailableError, match="too many requests"):
        city.projector.ask(os.getpid)

    assert not any(future.done() for future in asked)


def test_a_store_that_is_away_is_shown_and_tried_again(make: Cities, caplog: pytest.LogCaptureFixture) -> None:
    city = make(flush_ms=1)
    store = FragileStore()
    city.store, city.projector = store, city.new_projector(store)
    store.before = [UnavailableError("the store is gone", hint="wait")] * 2
    city.journal.append([telemetry({"pm1": 1})])

    with running(city):
        until(lambda: "gone" in city.projector.health(NOW_US).error)
        until(lambda: city.applied() == 1)
        until(lambda: not city.projector.health(NOW_US).error)

    assert city.projector.counters.failures == 2
    assert caplog.text.count("cannot go on") == 1


def test_a_new_registry_holds_from_the_next_batch_on(make: Cities) -> None:
    city = make(devices=("air/a1",), enrol="reject")
    city.send(telemetry({"pm1": 1}, device="air/a3"))

    city.registry = registry("air/a1", "air/a3")
    city.send(telemetry({"pm1": 2}, device="air/a3"))

    assert city.readings() == {("air/a3", "pm1", NOW_US): 2}
