"""The ledger: every message and every reading is counted once, by device and hour, and the columns add up."""

from __future__ import annotations

import pkgutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devices.errors import Reason
from ingest.ledger import Duplicates
from ingest.message import PROBE_TOPIC, Message, MessageType
from ingest.published import read_published
from ingest.rejected import replay
from qala.state.ledger import By, Counts, Entry, entries
from tests.builders import EVER, NOW_MS, NOW_US, SECOND_US, City, cities, message, registry, telemetry

Cities = Callable[..., City]
HOUR_US = 3600 * SECOND_US
HOUR_MS = 3_600_000


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Cities]:
    yield from cities(tmp_path)


def ledger(city: City, **query: Any) -> list[Entry]:
    return entries(city.engine, EVER.start_us, EVER.stop_us, limit=10_000, **query)


def by_device(city: City) -> dict[str, dict[str, Any]]:
    """Return what is not zero, by device."""
    return {entry.device: nonzero(entry.counts) for entry in ledger(city, by=By.DEVICE)}


def nonzero(counts: Counts) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(counts).items() if value}


def later(sent: Message, us: int) -> Message:
    sent.received_us += us
    return sent


GOOD = {"messages": 1, "readings": 2, "accepted": 2}
OLD_MS = NOW_MS - 2 * HOUR_MS
GATEWAY = {"d": {"a1": {"v": {"pm1": 1, "pm10": 2}}, "a2": {"v": {"pm1": 3, "bad": 4}}}}
TWICE = telemetry({"pm1": 1, "pm10": 2})

TABLE: list[Any] = [
    pytest.param([TWICE], {"air/a1": GOOD}, id="accepted"),
    pytest.param([telemetry({"pm1": None, "pm10": 9e9})], {"air/a1": {**GOOD, "flagged": 2}}, id="flagged"),
    pytest.param([telemetry({"pm1": 1, "pm10": 2}, t=OLD_MS)], {"air/a1": {**GOOD, "late": 2}}, id="late"),
    pytest.param([telemetry({"pm1": 1, "pm10": 2}, t=NOW_MS - HOUR_MS)], {"air/a1": GOOD}, id="just not late"),
    pytest.param(
        [telemetry({"pm1": 1, "pm10": 2}, t=NOW_MS - HOUR_MS, w=60_000)],
        {"air/a1": GOOD},
        id="late is told from the end of what is described",
    ),
    pytest.param([TWICE] * 10, {"air/a1": {**GOOD, "messages": 10, "duplicates": 9}}, id="ten times"),
    pytest.param(
        [telemetry({"pm1": 1, "pm10": 2}, t=None)] * 2,
        {"air/a1": {"messages": 2, "readings": 4, "accepted": 4}},
        id="the same without a time is none",
    ),
    pytest.param(
        [
            telemetry({"pm1": 1, "pm10": 2}, t=None),
            message({"v": {"pm1": 1, "pm10": 2}}, duplicate=True),
        ],
        {"air/a1": {**GOOD, "messages": 2, "duplicates": 1}},
        id="the same without a time, sent again",
    ),
    pytest.param(
        [telemetry({"pm1": 1, "x": 2})],
        {"air/a1": {"messages": 1, "readings": 2, "accepted": 1, "rejected": {Reason.UNKNOWN_QUANTITY: 1}}},
        id="one of two",
    ),
    pytest.param(
        [telemetry({"pm1": 1, "x": 2}, t=NOW_MS + HOUR_MS)],
        {
            "air/a1": {
                "messages": 1,
                "readings": 2,
                "rejected": {Reason.UNKNOWN_QUANTITY: 1, Reason.FUTURE_TIME: 1},
            }
        },
        id="a reading is rejected for one reason",
    ),
    pytest.param(
        [message(b"{")], {"air/a1": {"messages": 1, "readings": 1, "rejected": {Reason.BAD_JSON: 1}}}, id="unreadable"
    ),
    pytest.param(
        [message({"t": "never", "v": {"pm1": [1, 2, 3]}})],
        {"air/a1": {"messages": 1, "readings": 3, "rejected": {Reason.BAD_TIME: 3}}},
        id="rejected as a whole it counts what it carries",
    ),
    pytest.param(
        [telemetry({"pm1": ["a", {}, 1]}, i=1000)],
        {"air/a1": {"messages": 1, "readings": 3, "accepted": 1, "rejected": {Reason.BAD_VALUE: 2}}},
        id="two of a column",
    ),
    pytest.param([message({"on": 1}, leaf="s")], {"air/a1": {"messages": 1}}, id="a status carries no readings"),
    pytest.param(
        [message(GATEWAY, device="air/gw", leaf="g")],
        {
            "air/a1": {"readings": 2, "accepted": 2},
            "air/a2": {"readings": 2, "accepted": 1, "rejected": {Reason.UNKNOWN_QUANTITY: 1}},
            "": {"messages": 1},
        },
        id="a gateway's message is its sender's, the readings are the devices'",
    ),
    pytest.param(
        [Message("no/such", b"", NOW_US)],
        {"": {"messages": 1, "readings": 1, "rejected": {Reason.BAD_TOPIC: 1}}},
        id="no device",
    ),
    pytest.param(
        [Message("", b"", NOW_US, type=MessageType.REFUSED)],
        {"": {"messages": 1, "readings": 1, "rejected": {Reason.MALFORMED_PACKET: 1}}},
        id="a refused packet",
    ),
    pytest.param(
        [Message(PROBE_TOPIC, b"1", NOW_US), Message("qala/1/air/a1/c", b"", NOW_US, type=MessageType.DELIVERED)],
        {},
        id="what is of Qala itself is in no account",
    ),
    pytest.param(
        [telemetry({"pm1": 1, "pm10": 2}, device="air/new")],
        {"air/new": {"messages": 1, "readings": 2, "rejected": {Reason.UNKNOWN_DEVICE: 2}}},
        id="unknown, and awaited",
    ),
]


@pytest.mark.parametrize(("sent", "expected"), TABLE)
def test_what_is_sent_is_counted(make: Cities, sent: list[Message], expected: dict[str, Any]) -> None:
    city = make()

    city.send(*sent)

    assert by_device(city) == expected
    assert_adds_up(city)


def assert_adds_up(city: City) -> None:
    """Every message is a duplicate or was taken, every reading is accepted or rejected."""
    for entry in ledger(city):
        counts = entry.counts
        assert counts.readings == counts.accepted + sum(counts.rejected.values()), entry
        assert all(value >= 0 for value in (*msgspec.structs.astuple(counts)[:-1], *counts.rejected.values())), entry


def test_hours_are_of_receipt_and_days_and_devices_sum_them_up(make: Cities) -> None:
    city = make()
    sent = [later(telemetry({"pm1": k}, device=f"air/a{1 + k % 2}"), k * HOUR_US // 2) for k in range(100)]

    city.send(*sent)

    assert len(ledger(city)) == 100
    assert {(e.device, e.hour_us) for e in ledger(city, by=By.HOUR)} == {("", NOW_US + h * HOUR_US) for h in range(50)}
    assert [(e.hour_us - NOW_US, e.counts.messages) for e in ledger(city, by=By.DAY)] == [
        (0, 48),
        (24 * HOUR_US, 48),
        (48 * HOUR_US, 4),
    ]
    assert {e.device: e.counts.messages for e in ledger(city, by=By.DEVICE, devices={"air/a2"})} == {"air/a2": 50}


@pytest.mark.parametrize("by", list(By))
def test_pages_follow_one_another(make: Cities, by: By) -> None:
    city = make()
    city.send(*[later(telemetry({"pm1": k, "x": 1}, device=f"air/a{1 + k % 2}"), k * 5 * HOUR_US) for k in range(10)])
    everything = ledger(city, by=by)

    found: list[Entry] = []
    while page := entries(
        city.engine,
        EVER.start_us,
        EVER.stop_us,
        by=by,
        after=(found[-1].hour_us, found[-1].device) if found else None,
        limit=1,
    ):
        found += page

    assert found == everything
    assert sum(entry.counts.rejected[Reason.UNKNOWN_QUANTITY] for entry in found) == 10


# ---- once more


def test_what_an_admitted_device_had_sent_moves_to_accepted(make: Cities) -> None:
    city = make()
    mixed = {"d": {"a1": {"v": {"pm1": 1}}, "new": {"t": NOW_MS, "v": {"pm1": 2, "pm10": None}}}}
    city.send(
        telemetry({"pm1": 1, "x": 2}, device="air/new"),
        telemetry({"pm1": 1, "x": 2}, device="air/new"),
        message(b"{", device="air/new"),
        message({"on": 1}, device="air/new", leaf="s"),
        message(mixed, device="air/gw", leaf="g"),
    )
    city.registry = registry("air/a1", "air/a2", "air/new")
    city.project()

    assert by_device(city)["air/new"] == {
        "messages": 4,
        "duplicates": 1,
        "readings": 5,
        "accepted": 3,
        "flagged": 1,
        "recovered": 3,
        "rejected": {Reason.UNKNOWN_QUANTITY: 1, Reason.BAD_JSON: 1},
    }
    assert_adds_up(city)


@pytest.mark.parametrize("rows_max", [0, 1, 100])
def test_an_admission_needs_no_rejected_rows(make: Cities, rows_max: int) -> None:
    city = make(rejected_max=rows_max)
    city.send(*[telemetry({"pm1": k}, device="air/new", t=NOW_MS + k) for k in range(5)])

    city.registry = registry("air/new")
    city.project()

    assert by_device(city) == {"air/new": {"messages": 5, "readings": 5, "accepted": 5, "recovered": 5}}


def test_a_replay_moves_what_it_recovers_and_counts_no_duplicate(make: Cities) -> None:
    city = make(enrol="reject")
    one = telemetry({"pm1": 1, "x": 2}, device="air/new")
    city.send(one, one, telemetry({"pm1": 1}))
    assert by_device(city)[""] == {
        "messages": 2,
        "duplicates": 1,
        "readings": 2,
        "rejected": {Reason.UNKNOWN_DEVICE: 2},
    }
    city.registry = registry("air/a1", "air/new")

    for _ in range(2):
        replay(city.projector)

    assert by_device(city) == {
        "": {"messages": 2, "duplicates": 1},
        "air/a1": {"messages": 1, "readings": 1, "accepted": 1},
        "air/new": {"readings": 2, "accepted": 1, "recovered": 1, "rejected": {Reason.UNKNOWN_QUANTITY: 1}},
    }
    assert_adds_up(city)


@pytest.mark.parametrize("together", [True, False])
def test_a_unit_that_comes_late_moves_what_waited_for_it(make: Cities, together: bool) -> None:
    city = make(batch_max=100 if together else 1)

    city.send(telemetry({"pm1": 1, "x_flow": 5}), message({"q": {"x_flow": {"u": "m3/h"}}}, leaf="m"))

    counts = by_device(city)["air/a1"]
    assert {**counts, "recovered": 0} == {"messages": 2, "readings": 2, "accepted": 2, "recovered": 0}


def test_the_ledger_of_a_store_that_was_put_back_counts_nothing_twice(make: Cities) -> None:
    city = make()
    city.send(*[telemetry({"pm1": k, "x": 1}, t=NOW_MS + k) for k in range(10)])
    before = by_device(city)

    from qala.store.memory import MemoryStore

    city.store = MemoryStore()
    city.projector = city.new_projector()
    city.project()

    assert len(city.readings()) == 10
    assert by_device(city) == before


def test_the_journal_is_needed_until_the_ledger_has_counted_it(make: Cities) -> None:
    city = make()
    published = city.folder / "journal"
    city.journal.append([telemetry({"pm1": 1}), telemetry({"pm1": 2})])

    assert city.projector.step(NOW_US) == 2
    assert (read_published(published / "applied"), read_published(published / "counted")) == (2, 0)
    city.projector = city.new_projector()
    assert city.projector.step(NOW_US) == 2, "taken once more, as nobody had counted them"
    assert city.projector.step(NOW_US) == 0
    assert read_published(published / "counted") == 2


def test_what_a_store_got_elsewhere_is_counted_all_the_same(make: Cities) -> None:
    """A rebuild takes messages that came while nothing served them; the store comes back with their position."""
    city, twin = make(), make()
    city.send(telemetry({"pm1": 1}))
    city.journal.append([telemetry({"pm1": 2}, t=NOW_MS + 1), message(b"{")])
    for sent in ([telemetry({"pm1": 1})], [telemetry({"pm1": 2}, t=NOW_MS + 1), message(b"{")]):
        twin.send(*sent)
    rebuilt = make()
    rebuilt.folder = city.folder
    rebuilt.projector = rebuilt.new_projector()
    rebuilt.project()

    city.store = rebuilt.store
    city.projector = city.new_projector()
    city.project()

    assert by_device(city) == by_device(twin)
    assert by_device(city)["air/a1"]["messages"] == 3


# ---- whatever happens between


class Killed(BaseException):
    """The process dies here."""


STEPS = {
    "decoded": "ingest.projector.take",
    "admitted": "ingest.projector.admit",
    "awaited": "qala.state.rejected.await_devices",
    "candidates": "qala.state.registry.record_candidates",
    "written": "ingest.bookkeeping.Bookkeeping.write",
    "counted": "ingest.bookkeeping.Bookkeeping.add",
    "posted": "qala.state.ledger.post",
    "marked": "qala.state.dirty.DirtyMarks.mark",
    "appended": "qala.store.memory.MemoryStore.append",
    "at rest": "ingest.bookkeeping.Bookkeeping.rest",
    "settled": "ingest.bookkeeping.Bookkeeping.settle",
    "taken out": "qala.state.rejected.RejectedLog.take_out",
    "added": "qala.state.ledger.add",
    "put": "qala.state.rejected.RejectedLog.put",
    "advanced": "qala.state.rejected.advance_awaited",
    "admission settled": "ingest.bookkeeping.Bookkeeping.settle_admitted",
    "admission forgotten": "ingest.bookkeeping.Bookkeeping.forget_awaited",
    "metadata put": "qala.state.registry.put_metadata",
}


def deadly(patch: pytest.MonkeyPatch, step: str, moment: str, times: int) -> None:
    """Let the process die before or after the `times`-th call of a step."""
    real, calls = pkgutil.resolve_name(STEPS[step]), Counter[str]()

    def dying(*args: Any, **kwargs: Any) -> Any:
        calls["all"] += 1
        if calls["all"] != times:
            return real(*args, **kwargs)
        if moment == "after":
            real(*args, **kwargs)
        raise Killed

    patch.setattr(STEPS[step], dying)


ALL = [
    telemetry({"pm1": 1, "pm10": None}),
    telemetry({"pm1": 1, "pm10": None}),
    telemetry({"pm1": 1, "x_flow": 2}, device="air/a2", t=NOW_MS + 1),
    telemetry({"pm1": 1, "x": 2}, device="air/new", t=NOW_MS + 2),
    message(b"{"),
    message(b"{", device="air/new"),
    message({"on": 1}, device="air/new", leaf="s"),
    message(
        {"d": {"a1": {"t": NOW_MS + 9, "v": {"pm1": 1}}, "new": {"t": NOW_MS, "v": {"pm1": 2}}}},
        device="air/gw",
        leaf="g",
    ),
    message({"q": {"x_flow": {"u": "m3/h"}}}, device="air/a2", leaf="m"),
    telemetry({"pm1": 5}, t=OLD_MS),
    telemetry({"pm1": 1, "x": 2}, device="air/new", t=NOW_MS + 2),
    Message("no/such", b"", NOW_US),
]


def without_recovered(city: City) -> dict[tuple[str, int], Counts]:
    return {(e.device, e.hour_us): msgspec.structs.replace(e.counts, recovered=0) for e in ledger(city)}


def live_through(city: City, *, sizes: list[int]) -> None:
    """Take all messages in batches of these sizes, and admit a device after half of them; begin again after each death."""
    places = iter(sizes)
    left = list(ALL)
    while left:
        size = next(places, len(left))
        city.journal.append(left[:size])
        left = left[size:]
        if len(left) <= len(ALL) // 2:
            city.registry = registry("air/a1", "air/a2", "air/new")
        insist(city)
    insist(city)


def insist(city: City) -> None:
    while True:
        try:
            city.project()
        except Killed:
            city.projector = city.new_projector()
        else:
            return


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_the_ledger_is_the_same(
    make: Cities, monkeypatch: pytest.MonkeyPatch, step: str, moment: str, times: int
) -> None:
    untouched, city = make(), make()
    live_through(untouched, sizes=[3, 2, 2])

    deadly(monkeypatch, step, moment, times)
    live_through(city, sizes=[3, 2, 2])

    assert without_recovered(city) == without_recovered(untouched)
    assert repr(sorted(city.judged().items())) == repr(sorted(untouched.judged().items()))
    assert_adds_up(city)
    assert sum(entry.counts.messages for entry in ledger(city)) == len(ALL)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sent=st.lists(st.sampled_from(range(len(ALL))), max_size=30),
    sizes=st.lists(st.integers(1, 6), max_size=12),
    batch_max=st.integers(1, 7),
    deaths=st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.sampled_from(["before", "after"]), st.integers(1, 4))),
)
def test_however_batches_fall_and_wherever_it_dies_the_ledger_is_the_same(
    make: Cities,
    monkeypatch: pytest.MonkeyPatch,
    sent: list[int],
    sizes: list[int],
    batch_max: int,
    deaths: list[tuple[str, str, int]],
) -> None:
    plain, city = make(), make(batch_max=batch_max)
    messages = [ALL[index] for index in sent]
    plain.send(*messages)

    cut = iter(sizes)
    while messages:
        size = next(cut, len(messages))
        city.journal.append(messages[:size])
        messages = messages[size:]
        with monkeypatch.context() as patch:
            for step, moment, times in deaths[:1]:
                deadly(patch, step, moment, times)
            deaths = deaths[1:]
            insist(city)

    assert without_recovered(city) == without_recovered(plain)
    assert repr(sorted(city.judged().items())) == repr(sorted(plain.judged().items()))
    assert sum(entry.counts.messages for entry in ledger(city)) == len(sent)


# ---- duplicates


def found(duplicates: Duplicates, first: int, *payloads: bytes) -> list[bool]:
    import numpy as np

    from ingest.formats.base import Decoded, Report

    messages = [Message("t", payload, NOW_US) for payload in payloads]
    said = [Decoded((Report("a/b", 1, ("x",), (1.0,)),)) for _ in payloads]
    return duplicates.find(np.arange(first, first + len(payloads)), messages, said).tolist()


def test_a_message_is_a_duplicate_of_one_within_the_window_alone() -> None:
    duplicates = Duplicates(window=4)

    assert found(duplicates, 1, b"a", b"b", b"a") == [False, False, True]
    assert found(duplicates, 4, b"c", b"d", b"b") == [False, False, True]
    assert found(duplicates, 7, b"a", b"e", b"f", b"g", b"h") == [True, False, False, False, False]
    assert found(duplicates, 12, b"a", b"d") == [False, False]


@given(st.lists(st.integers(0, 5), max_size=60), st.lists(st.integers(1, 9), max_size=20), st.integers(1, 8))
def test_duplicates_do_not_depend_on_batches(values: list[int], sizes: list[int], window: int) -> None:
    expected = [value in values[max(at - window, 0) : at] for at, value in enumerate(values)]

    duplicates, told, at = Duplicates(window=window), [], 0
    for size in [*sizes, len(values)]:
        part = values[at : at + size]
        told += found(duplicates, at + 1, *(bytes([value]) for value in part)) if part else []
        at += len(part)

    assert told == expected
