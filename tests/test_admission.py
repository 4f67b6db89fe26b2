"""Admission: who may report what, in which unit, at which time, and how good it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.device import Clock, Device
from devices.errors import Reason, UnavailableError
from devices.quantity import QUANTITIES, Aggregation, Bounds, Quantity
from devices.reading import SeriesInfo
from ingest.admission import Admission, Admitted
from ingest.formats.base import Decoded, Report
from ingest.message import Message
from ingest.settings import IngestSettings
from qala.state.dirty import BUCKET_US
from qala.store.memory import MemoryStore
from tests.builders import NOW_US, SECOND_US, registry

KNOWN = {
    **QUANTITIES,
    "valve": Quantity("valve", "1", Aggregation.STATE, codes={"closed": 0, "open": 1}),
    "dust": Quantity("dust", "ug/m3", bounds=Bounds(fail=(0, 1000), suspect=(0, 500))),
}


class Gate:
    """An admission with a store to register series in."""

    def __init__(self, *devices: str | Device, **rest: Any) -> None:
        self.store = MemoryStore()
        known = registry(*(devices or ("air/a1",)))
        self.admission = Admission(known, self.store.register, IngestSettings(), quantities=KNOWN, **rest)

    def admit(self, *reports: Report, received_us: int = NOW_US) -> Admitted:
        """Admit reports, each of its own message."""
        messages = [Message("t", b"", received_us) for _ in reports]
        return self.together(*[Decoded((report,)) for report in reports], messages=messages)

    def together(self, *decoded: Decoded, messages: list[Message] | None = None) -> Admitted:
        messages = messages or [Message("t", b"", NOW_US) for _ in decoded]
        return self.admission.admit(np.arange(1, len(messages) + 1), messages, decoded)

    def rows(self, admitted: Admitted) -> list[tuple[str, float | None, int]]:
        """Return (key, value, flag) of each reading."""
        batch, catalog = admitted.batch, self.store.catalog()
        infos = [catalog[series] for series in batch.series.tolist()]
        keys = [f"{info.quantity}.{info.channel}" if info.channel else info.quantity for info in infos]
        values = [None if np.isnan(value) else value for value in batch.value.tolist()]
        return list(zip(keys, values, batch.flag.tolist(), strict=True))


def report(time_us: int | None = NOW_US, *, device: str = "air/a1", span_s: int = 0, **values: Any) -> Report:
    return Report(device, time_us, tuple(values), tuple(values.values()), span_s)


def reasons(admitted: Admitted) -> list[tuple[int, Reason, str]]:
    return [(index, rejection.reason, rejection.key) for index, rejection in admitted.rejections]


def test_reports_become_columns() -> None:
    gate = Gate()

    batch = gate.admit(report(pm2_5=1, pm10=2), report(NOW_US + 5, pm2_5=3), received_us=NOW_US + 7).batch

    assert batch.value.tolist() == [1, 2, 3]
    assert batch.time_us.tolist() == [NOW_US, NOW_US, NOW_US + 5]
    assert batch.origin.tolist() == [1, 1, 2]
    assert batch.received_us.tolist() == [NOW_US + 7] * 3
    assert batch.revision.tolist() == [0, 0, 0]
    assert batch.flag.tolist() == [1, 1, 1]
    assert batch.series[0] == batch.series[2] != batch.series[1]


def test_a_series_is_a_quantity_a_channel_and_a_span() -> None:
    gate = Gate()
    lane = Report("air/a1", NOW_US, ("vehicle_count.lane1.car",), (4,), 300)

    gate.admit(lane, report(vehicle_count=4))

    assert set(gate.store.catalog().values()) == {
        SeriesInfo("air/a1", "vehicle_count", "lane1.car", 300, "veh"),
        SeriesInfo("air/a1", "vehicle_count", "", 0, "veh"),
    }


@pytest.mark.parametrize(
    ("time_us", "span_s", "expected"),
    [
        pytest.param(NOW_US, 0, NOW_US, id="its own"),
        pytest.param(None, 0, NOW_US, id="none: the receipt"),
        pytest.param(None, 300, NOW_US - 300 * SECOND_US, id="none, a window: it ends at the receipt"),
        pytest.param(NOW_US + 300 * SECOND_US, 0, NOW_US + 300 * SECOND_US, id="as far ahead as allowed"),
        pytest.param(NOW_US + 300 * SECOND_US + 1, 0, Reason.FUTURE_TIME, id="too far ahead"),
        pytest.param(NOW_US + 1, 300, Reason.FUTURE_TIME, id="a window whose end is too far ahead"),
        pytest.param(946_684_800_000_000, 0, 946_684_800_000_000, id="very old"),
        pytest.param(946_684_799_999_999, 0, Reason.PAST_TIME, id="too early"),
        pytest.param(8_640_000_000_000_000_000, 0, Reason.FUTURE_TIME, id="beyond the calendar"),
        pytest.param(-8_640_000_000_000_000_000, 0, Reason.PAST_TIME, id="before the calendar"),
    ],
)
def test_time_policy(time_us: int | None, span_s: int, expected: int | Reason) -> None:
    admitted = Gate().admit(report(time_us, span_s=span_s, pm1=1))

    if isinstance(expected, Reason):
        assert reasons(admitted) == [(0, expected, "")]
        assert len(admitted.batch) == 0
    else:
        assert admitted.batch.time_us.tolist() == [expected]


def test_a_device_whose_clock_is_not_trusted_gets_the_time_of_receipt() -> None:
    gate = Gate(Device("air/a1", "air_station", clock=Clock.RECEIVED), "air/a2")
    two = Decoded((report(5, pm1=1), report(5 + SECOND_US, pm1=2)))

    batch = gate.together(two, Decoded((report(9, pm10=3),)), Decoded((report(device="air/a2", pm1=4),))).batch

    assert batch.time_us.tolist() == [NOW_US - SECOND_US, NOW_US, NOW_US, NOW_US]


@pytest.mark.parametrize(
    ("raw", "quality", "expected"),
    [
        pytest.param(20, 0, (20, 1), id="good"),
        pytest.param(20, 1, (20, 3), id="uncertain, says the device"),
        pytest.param(20, 2, (20, 4), id="bad, says the device"),
        pytest.param(600, 0, (600, 3), id="suspect by its range"),
        pytest.param(600, 2, (600, 4), id="the worse verdict counts"),
        pytest.param(-1, 0, (-1, 4), id="impossible"),
        pytest.param(None, 0, (None, 9), id="missing"),
        pytest.param(None, 2, (None, 9), id="missing and bad"),
        pytest.param(True, 0, (1, 1), id="bool"),
    ],
)
def test_flags(raw: Any, quality: int, expected: tuple[float | None, int]) -> None:
    gate = Gate()
    given_report = report(dust=raw)
    given_report.quality = quality

    assert gate.rows(gate.admit(given_report)) == [("dust", *expected)]


def test_quality_by_key_beside_reports_with_one_for_all() -> None:
    gate = Gate()
    by_key, for_all = report(pm1=1, pm10=2), report(pm1=3, pm10=4)
    by_key.quality, for_all.quality = (0, 2), 1

    assert [flag for _, _, flag in gate.rows(gate.admit(by_key, for_all, report(pm1=5)))] == [1, 4, 3, 3, 1]


def test_states_have_their_declared_codes() -> None:
    gate = Gate()

    admitted = gate.admit(report(valve="open", pm1=2), report(valve="ajar", pm1=None))

    assert gate.rows(admitted) == [("valve", 1, 1), ("pm1", 2, 1), ("pm1", None, 9)]
    assert reasons(admitted) == [(1, Reason.BAD_VALUE, "valve")]


def test_units_of_the_message_go_before_those_of_the_metadata() -> None:
    gate = Gate(declared={"air/a1": {"temperature": "degF", "x_flow": "L/h"}})
    inline = report(temperature=1, x_flow=2)
    inline.units = {"temperature": "K", "x_flow": "m3/h"}

    admitted = gate.admit(report(temperature=41, x_flow=3), inline)

    assert gate.rows(admitted) == [
        ("temperature", 5, 1),
        ("x_flow", 3, 1),
        ("temperature", -272.15, 4),
        ("x_flow", 2, 1),
    ]
    units = {info.unit for info in gate.store.catalog().values() if info.quantity == "x_flow"}
    assert units == {"L/h", "m3/h"}


def test_the_largest_number_stays_beside_one_that_is_converted() -> None:
    gate = Gate(declared={"air/a1": {"temperature": "degF"}})
    admitted = gate.admit(report(temperature=41, pm1=1.5e308))
    assert gate.rows(admitted) == [("temperature", 5, 1), ("pm1", 1.5e308, 4)]


def test_what_is_not_accepted_costs_only_itself() -> None:
    gate = Gate()
    unit = report(no2=1)
    unit.units = {"no2": "kg"}

    admitted = gate.admit(report(pm3=1, pm10=2), report(device="air/zz", pm1=1), unit, report(1, pm1=2))

    assert gate.rows(admitted) == [("pm10", 2, 1)]
    assert sorted(reasons(admitted)) == [
        (0, Reason.UNKNOWN_QUANTITY, "pm3"),
        (1, Reason.UNKNOWN_DEVICE, ""),
        (2, Reason.BAD_UNIT, "no2"),
        (3, Reason.PAST_TIME, ""),
    ]
    assert admitted.unknown == {"air/zz": [1]}


def test_a_device_has_a_bounded_number_of_series() -> None:
    gate = Gate()
    keys = tuple(f"pm1.x{k}" for k in range(1001))

    admitted = gate.admit(Report("air/a1", NOW_US, keys, (1.0,) * 1001), Report("air/a1", NOW_US, keys[:2], (1.0, 2.0)))

    assert len(gate.store.catalog()) == 1000
    assert len(admitted.batch) == 1002
    assert reasons(admitted) == [(0, Reason.UNKNOWN_QUANTITY, "pm1.x1000")]


def test_a_store_that_cannot_register_is_asked_again() -> None:
    gate = Gate()
    register = gate.admission._plans._register
    gate.admission._plans._register = _unavailable
    with pytest.raises(UnavailableError):
        gate.admit(report(pm1=1))

    gate.admission._plans._register = register

    assert gate.rows(gate.admit(report(pm1=1))) == [("pm1", 1, 1)]


def _unavailable(_series: Any) -> Any:
    raise UnavailableError("gone", hint="wait")


def test_marks_name_each_series_and_bucket_once() -> None:
    gate = Gate()

    admitted = gate.admit(*[report(NOW_US + k * 60 * SECOND_US, pm1=k, pm3=1) for k in range(-7, 3)])

    series, bucket = admitted.marked
    (pm1,) = gate.store.catalog()
    assert set(zip(series.tolist(), bucket.tolist(), strict=True)) == {
        (pm1, NOW_US // BUCKET_US + k) for k in (-2, -1, 0)
    }
    assert len(series) == 3


def test_a_batch_of_no_messages_is_empty() -> None:
    admitted = Gate().together()

    assert len(admitted.batch) == len(admitted.marked[0]) == len(admitted.rejections) == 0


KEY = st.sampled_from(["pm1", "pm10", "pm3", "valve"])
REPORTS = st.builds(
    lambda device, time_us, values, span_s, quality: Report(
        device, time_us, tuple(values), tuple(values.values()), span_s, 0, quality
    ),
    st.sampled_from(["air/a1", "air/a2", "air/zz"]),
    st.none() | st.sampled_from([NOW_US, NOW_US - 1, 0, NOW_US * 2, -(2**62)]),
    st.dictionaries(KEY, st.none() | st.booleans() | st.floats(-1e9, 1e9) | st.sampled_from(["open", "x"]), min_size=1),
    st.sampled_from([0, 60]),
    st.sampled_from([0, 1, 2]),
)


@given(st.lists(st.lists(REPORTS, max_size=3), max_size=4))
def test_every_value_is_accepted_or_covered_by_a_rejection(sent: list[list[Report]]) -> None:
    gate = Gate("air/a1", "air/a2")

    admitted = gate.together(*[Decoded(reports) for reports in sent])

    catalog = gate.store.catalog()
    infos = [catalog[series] for series in admitted.batch.series.tolist()]
    accepted = [(o - 1, i.device, i.quantity) for o, i in zip(admitted.batch.origin.tolist(), infos, strict=True)]
    single = {(index, r.device, r.key) for index, r in admitted.rejections}
    for index, reports in enumerate(sent):
        for one in reports:
            whole = (index, one.device, "") in single
            for key in one.keys:
                assert (index, one.device, key) in accepted or (index, one.device, key) in single or whole
    assert len(accepted) <= sum(len(one.keys) for reports in sent for one in reports)
    assert np.isnan(admitted.batch.value).tolist() == (admitted.batch.flag == 9).tolist()
