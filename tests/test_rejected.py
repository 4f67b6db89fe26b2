"""Rejected messages and readings: seen, counted, bounded, and replayed once their cause is fixed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devices.errors import ConfigError, Reason
from ingest.rejected import Replayed, replay
from ingest.settings import IngestSettings
from qala.state.registry import candidates
from qala.state.rejected import dropped, list_rejected, overflow, summarize
from tests.builders import NOW_MS, NOW_US, SECOND_US, City, cities, message, registry, telemetry

Cities = Callable[..., City]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Cities]:
    yield from cities(tmp_path)


def reasons(city: City) -> list[tuple[str, str]]:
    return sorted((row.reason, row.device) for row in list_rejected(city.engine, limit=1000)[0])


def test_the_list_is_paged_newest_first_and_filtered(make: Cities) -> None:
    city = make()
    bad = [telemetry({"pm3": k}, device=f"air/a{1 + k % 2}", received_us=NOW_US + k) for k in range(25)]
    city.send(*bad, message(b"{", received_us=NOW_US + 99))

    seen, cursor = [], None
    while True:
        rows, cursor = list_rejected(city.engine, device="air/a1", limit=5, cursor=cursor)
        seen += [row.received_us - NOW_US for row in rows]
        if cursor is None:
            break

    assert seen == [99, *range(24, -1, -2)]
    assert {row.reason for row in list_rejected(city.engine, reason=Reason.BAD_JSON)[0]} == {Reason.BAD_JSON}


def test_a_cursor_that_is_none_says_so(make: Cities) -> None:
    with pytest.raises(ConfigError, match="not a cursor"):
        list_rejected(make().engine, cursor="1")


def test_the_summary_counts_by_reason_and_device(make: Cities) -> None:
    city = make()
    city.send(telemetry({"pm3": 1}), telemetry({"pm3": 1}, received_us=NOW_US + 5), message(b"{", device="air/a2"))

    found = [(item.reason, item.device, item.count, item.last_us) for item in summarize(city.engine)]

    assert found == [(Reason.UNKNOWN_QUANTITY, "air/a1", 2, NOW_US + 5), (Reason.BAD_JSON, "air/a2", 1, NOW_US)]


def test_the_oldest_rows_are_dropped_and_counted(make: Cities) -> None:
    city = make(rejected_max=20)

    for k in range(12):
        city.send(*[telemetry({"pm3": 1}, received_us=NOW_US + 10 * k + i) for i in range(5)])

    rows = list_rejected(city.engine, limit=1000)[0]
    assert 15 <= len(rows) <= 20
    assert len(rows) + dropped(city.engine)[Reason.UNKNOWN_QUANTITY] == 60
    assert min(row.received_us for row in rows) > NOW_US + 70


def test_a_batch_with_more_than_all_rows_keeps_its_newest(make: Cities) -> None:
    city = make(rejected_max=10)

    city.send(*[message(b"{", received_us=NOW_US + k) for k in range(30)])

    assert [row.received_us - NOW_US for row in list_rejected(city.engine)[0]] == list(range(29, 19, -1))
    assert dropped(city.engine) == {Reason.BAD_JSON: 20}


@pytest.mark.parametrize("rows_max", [0, 2])
def test_a_lower_limit_holds_after_a_restart(make: Cities, rows_max: int) -> None:
    city = make()
    city.send(*[message(b"{", received_us=NOW_US + k) for k in range(5)])

    city.settings = IngestSettings(rejected_max=rows_max)
    city.projector = city.new_projector()
    city.send(message(b"{", received_us=NOW_US + 9))

    assert [row.received_us - NOW_US for row in list_rejected(city.engine)[0]] == [9, 4][:rows_max]
    assert dropped(city.engine) == {Reason.BAD_JSON: 6 - rows_max}


def test_a_device_that_sends_nonsense_does_not_push_others_out(make: Cities) -> None:
    city = make(rejected_per_device_max=10)
    city.send(message(b"{", device="air/a2"))

    for k in range(7):
        city.send(*[telemetry({"pm3": 1}, received_us=NOW_US + 10 * k + i) for i in range(5)])

    rows = [row for row in list_rejected(city.engine, limit=1000)[0] if row.device == "air/a1"]
    assert 8 <= len(rows) <= 10
    assert min(row.received_us for row in rows) > NOW_US + 40
    assert overflow(city.engine) == {("air/a1", Reason.UNKNOWN_QUANTITY): 35 - len(rows)}
    assert ("air/a2", Reason.BAD_JSON, 1, 0) in [
        (item.device, item.reason, item.count, item.dropped) for item in summarize(city.engine)
    ]


def test_a_batch_of_more_than_a_device_may_have_keeps_its_newest(make: Cities) -> None:
    city = make(rejected_per_device_max=10)

    city.send(*[message(b"{", received_us=NOW_US + k) for k in range(30)])

    assert [row.received_us - NOW_US for row in list_rejected(city.engine)[0]] == list(range(29, 19, -1))
    assert overflow(city.engine) == {("air/a1", Reason.BAD_JSON): 20}


def test_what_was_dropped_altogether_is_still_in_the_summary(make: Cities) -> None:
    city = make(rejected_max=0)

    city.send(message(b"{"))

    assert [(i.reason, i.device, i.count, i.last_us, i.dropped) for i in summarize(city.engine)] == [
        (Reason.BAD_JSON, "air/a1", 0, None, 1)
    ]


def test_a_message_has_all_of_its_rows_or_none(make: Cities) -> None:
    city = make(rejected_max=10)
    both = {"d": {name: {"v": {f"x{k}": 1 for k in range(3)}} for name in ("a1", "a2")}}

    for k in range(5):
        city.send(message(both, device="air/gw", leaf="g", received_us=NOW_US + k))

    rows = list_rejected(city.engine)[0]
    assert len(rows) in {6, 0}
    assert sum(overflow(city.engine).values()) == 30 - len(rows)


@pytest.mark.parametrize(
    ("payload", "offset"),
    [
        pytest.param(b'{"v":{"pm1":1,}}', 14, id="json"),
        pytest.param('{"қала":1,,}'.encode(), 14, id="json behind longer letters"),
        pytest.param(b"{", 1, id="cut short"),
        pytest.param(b'{"v":"\xff"}', 6, id="not utf-8"),
        pytest.param(b"\xa1\x61v\xff", 4, id="cbor"),
        pytest.param(b"\xa0\x00", 1, id="bytes after cbor"),
        pytest.param(b'{"v":{"pm1":[]}}', None, id="well-formed, but wrong"),
    ],
)
def test_the_first_bad_byte_is_kept(make: Cities, payload: bytes, offset: int | None) -> None:
    city = make()

    city.send(message(payload))

    assert [row.offset for row in list_rejected(city.engine)[0]] == [offset]


def test_one_message_cannot_fill_the_table(make: Cities) -> None:
    city = make()

    city.send(telemetry({f"x{k}": k for k in range(5000)}))

    rows = list_rejected(city.engine, limit=1000)[0]
    assert len(rows) == 100
    assert "4900 more" in rows[0].detail
    assert city.projector.counters.rejected[Reason.UNKNOWN_QUANTITY] == 5000


def test_a_replay_accepts_what_is_known_now(make: Cities) -> None:
    city = make(enrol="reject")
    city.send(
        telemetry({"pm1": 1}, device="air/new"), telemetry({"pm3": 1}), telemetry({"pm1": 2, "x": 1}, device="air/new")
    )
    city.registry = registry("air/a1", "air/new")

    done = replay(city.projector, device="air/new")

    assert done == Replayed(replayed=2, accepted=1, still_rejected=1)
    assert city.readings() == {("air/new", "pm1", NOW_US): 2}
    assert reasons(city) == [(Reason.UNKNOWN_QUANTITY, "air/a1"), (Reason.UNKNOWN_QUANTITY, "air/new")]
    assert {device for device, _ in city.marked()} == {"air/new"}


def test_a_replay_takes_only_what_matches(make: Cities) -> None:
    city = make()
    city.send(telemetry({"pm3": 1}), message(b"{"), telemetry({"pm3": 1}))

    assert replay(city.projector, reason=Reason.BAD_JSON).replayed == 1
    assert replay(city.projector, reason=Reason.BAD_CBOR) == Replayed()
    assert replay(city.projector) == Replayed(replayed=3, still_rejected=3)


def test_a_replayed_old_message_does_not_undo_a_correction(make: Cities) -> None:
    city = make(enrol="reject", devices=("air/a1",))
    city.send(telemetry({"pm1": 1}, device="air/new"))
    city.registry = registry("air/new")
    city.send(telemetry({"pm1": 2}, device="air/new"))

    assert replay(city.projector).accepted == 1
    assert city.readings() == {("air/new", "pm1", NOW_US): 2}


def test_a_replay_says_what_the_journal_no_longer_has(make: Cities) -> None:
    city = make()
    city.send(telemetry({"pm3": 1}))
    for segment in (city.folder / "journal").glob("*.qj"):
        segment.unlink()

    assert replay(city.projector) == Replayed(pruned=1)
    assert reasons(city) == [(Reason.UNKNOWN_QUANTITY, "air/a1")]


def test_an_unknown_device_is_a_candidate_and_its_messages_come_once_it_is_admitted(make: Cities) -> None:
    city = make()
    old = [telemetry({"pm1": k}, t=(NOW_US + k * SECOND_US) // 1000, device="air/new") for k in range(3)]
    city.send(old[0], telemetry({"pm1": 9}), old[1])
    city.send(old[2], message({"on": 1}, device="air/new", leaf="s"), telemetry({"pm1": 1}, device="air/other"))

    (new, other) = candidates(city.engine)
    assert (new.device, new.messages) == ("air/new", 4)
    assert (other.device, other.messages) == ("air/other", 1)

    city.registry = registry("air/a1", "air/new")
    city.project()

    assert [value for (device, _, _), value in city.readings().items() if device == "air/new"] == [0, 1, 2]
    assert reasons(city) == [(Reason.UNKNOWN_DEVICE, "air/other")]
    assert ("air/new", NOW_US // (300 * SECOND_US)) in city.marked()


def test_an_admission_that_was_cut_short_is_taken_up_at_the_next_start(make: Cities) -> None:
    city = make()
    city.send(telemetry({"pm1": 1}, device="air/new"))
    city.registry = registry("air/a1", "air/new")

    city.projector = city.new_projector()
    city.project()

    assert city.readings() == {("air/new", "pm1", NOW_US): 1}


def test_where_unknown_devices_are_rejected_none_is_a_candidate(make: Cities) -> None:
    city = make(enrol="reject")

    city.send(telemetry({"pm1": 1}, device="air/new"))

    assert candidates(city.engine) == []
    assert reasons(city) == [(Reason.UNKNOWN_DEVICE, "air/new")]


@pytest.mark.parametrize("order", ["metadata first", "metadata last", "one batch"])
def test_units_in_metadata_hold_whatever_comes_first(make: Cities, order: str) -> None:
    city = make()
    said = message({"q": {"x_flow": {"u": "m3/h"}, "temperature": {"u": "degC"}}}, leaf="m")
    sent = telemetry({"x_flow": 5})
    batches = {"metadata first": [[said], [sent]], "metadata last": [[sent], [said]], "one batch": [[sent, said]]}

    for batch in batches[order]:
        city.send(*batch)

    assert city.readings() == {("air/a1", "x_flow", NOW_US): 5}
    assert reasons(city) == []


def test_metadata_does_not_change_what_a_known_quantity_means(make: Cities) -> None:
    city = make()
    city.send(telemetry({"temperature": 50}))
    city.send(message({"q": {"temperature": {"u": "degF"}}}, leaf="m"))
    city.send(telemetry({"temperature": 50}, t=NOW_MS + 1000))

    assert set(city.readings().values()) == {50}
    assert reasons(city) == [(Reason.BAD_UNIT, "air/a1")]


@pytest.mark.parametrize("together", [True, False])
def test_the_first_declaration_of_a_unit_stays(make: Cities, together: bool) -> None:
    city = make()
    told = [
        message({"q": {"x_flow": {"u": unit}}}, leaf="m", received_us=NOW_US + n)
        for n, unit in enumerate(["m3/h", "m3/s"])
    ]
    for batch in [told] if together else [[one] for one in told]:
        city.send(*batch)
    city.send(telemetry({"x_flow": 5}))

    assert {info.unit for info in city.store.catalog().values()} == {"m3/h"}
    assert reasons(city) == [(Reason.BAD_UNIT, "air/a1")]
