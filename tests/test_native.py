"""The native format, version 1: every shape, and whatever else comes on its topics."""

from __future__ import annotations

import math
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.errors import Reason
from ingest.formats import Decoder, find_formats
from ingest.formats.base import Decoded, Report
from ingest.formats.native import READINGS_MAX, Native
from ingest.message import Message
from ingest.settings import IngestSettings
from tests.builders import NOW_MS, NOW_US, message, telemetry

STEP_US = 60_000_000
FORMAT = Native()


def readings(decoded: Decoded) -> list[tuple[str, int | None, str, Any]]:
    """Flatten reports to (device, time, key, value)."""
    return [(r.device, r.time_us, k, v) for r in decoded.reports for k, v in zip(r.keys, r.values, strict=True)]


def rejected(decoded: Decoded) -> list[tuple[Reason, str]]:
    return [(rejection.reason, rejection.key) for rejection in decoded.rejections]


@pytest.mark.parametrize("dumps", [msgspec.json.encode, cbor2.dumps], ids=["json", "cbor"])
@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param(
            {"t": NOW_MS, "v": {"pm2_5": 12.4, "relative_humidity": 71}},
            [("air/a1", NOW_US, "pm2_5", 12.4), ("air/a1", NOW_US, "relative_humidity", 71.0)],
            id="single",
        ),
        pytest.param({"v": {"pm2_5": 12.4}}, [("air/a1", None, "pm2_5", 12.4)], id="without a time"),
        pytest.param(
            {"t": "2026-01-01T05:00:00+05:00", "v": {"pm2_5": 1}}, [("air/a1", NOW_US, "pm2_5", 1.0)], id="iso time"
        ),
        pytest.param({"t": "2026-01-01T00:00:00Z", "v": {"pm2_5": 1}}, [("air/a1", NOW_US, "pm2_5", 1.0)], id="zulu"),
        pytest.param(
            {"t": NOW_MS, "v": {"pm2_5": None, "door": True, "mode": "auto"}},
            [("air/a1", NOW_US, "pm2_5", None), ("air/a1", NOW_US, "door", True), ("air/a1", NOW_US, "mode", "auto")],
            id="missing, bool and state",
        ),
        pytest.param(
            {"t": NOW_MS, "i": 60_000, "v": {"active_power.L1": [1206.3, 1188.1], "energy_import": [31.2, None]}},
            [
                ("air/a1", NOW_US, "active_power.L1", 1206.3),
                ("air/a1", NOW_US, "energy_import", 31.2),
                ("air/a1", NOW_US + STEP_US, "active_power.L1", 1188.1),
                ("air/a1", NOW_US + STEP_US, "energy_import", None),
            ],
            id="columnar batch",
        ),
        pytest.param(
            {"t": [NOW_MS, NOW_MS + 61_300], "v": {"temperature": [-4.1, -4.0]}},
            [("air/a1", NOW_US, "temperature", -4.1), ("air/a1", NOW_US + 61_300_000, "temperature", -4.0)],
            id="irregular",
        ),
        pytest.param(
            {"t": NOW_MS, "w": 60_000, "v": {"vehicle_count.lane1.car": 41}},
            [("air/a1", NOW_US - STEP_US, "vehicle_count.lane1.car", 41.0)],
            id="window: the time is its end",
        ),
        pytest.param(
            {"t": NOW_MS, "w": 60_000, "i": 60_000, "v": {"vehicle_count": [4, 5]}},
            [("air/a1", NOW_US - STEP_US, "vehicle_count", 4.0), ("air/a1", NOW_US, "vehicle_count", 5.0)],
            id="batch of windows: each time is an end",
        ),
        pytest.param({"t": NOW_MS, "v": {}}, [], id="no values"),
        pytest.param({"t": NOW_MS, "x": {"y": [1]}, "v": {"pm1": 2}}, [("air/a1", NOW_US, "pm1", 2.0)], id="extra"),
    ],
)
def test_a_shape_is_decoded(dumps: Any, document: dict[str, Any], expected: list[Any]) -> None:
    decoded = FORMAT.decode(message(dumps(document)))

    assert readings(decoded) == expected
    assert not decoded.rejections


def test_a_window_makes_the_span_of_its_series() -> None:
    (report,) = FORMAT.decode(telemetry({"vehicle_count": 3}, w=300_000)).reports

    assert report.span_s == 300


def test_a_gateway_reports_for_devices_of_its_fleet() -> None:
    part = {"t": NOW_MS, "v": {"active_power": 5}}
    document = {"d": {"m17": part, "m18": {"v": 3}, "../x": part, "m19": {**part, "!z": 1}}}

    decoded = FORMAT.decode(message(document, device="meter/gw", leaf="g"))

    assert readings(decoded) == [("meter/m17", NOW_US, "active_power", 5.0)]
    assert [(r.reason, r.device) for r in decoded.rejections] == [
        (Reason.BAD_SHAPE, "meter/m18"),
        (Reason.BAD_SHAPE, ""),
        (Reason.UNSUPPORTED, "meter/m19"),
    ]


def test_a_status_says_whether_a_device_is_there() -> None:
    status = FORMAT.decode(message({"on": 1, "fw": "1.4.2", "iv": 60}, leaf="s")).status
    will = FORMAT.decode(message(b'{"on":0}', leaf="s")).status

    assert status is not None
    assert will is not None
    assert (status.device, status.online, status.firmware, status.interval_s) == ("air/a1", True, "1.4.2", 60)
    assert (will.online, will.firmware, will.interval_s) == (False, None, None)


def test_metadata_declares_units_and_place() -> None:
    document = {
        "model": "X-1",
        "lat": 43.67,
        "lon": 77.05,
        "tz": "Asia/Almaty",
        "q": {"x_flow": {"u": "m3/h", "kind": "gauge"}, "x_total": {"u": "m3", "kind": "counter"}, "y": 3},
    }

    decoded = FORMAT.decode(message(document, leaf="m"))

    said = decoded.metadata
    assert said is not None
    assert (said.model, said.lat, said.lon, said.time_zone) == ("X-1", 43.67, 77.05, "Asia/Almaty")
    assert said.units == {"x_flow": "m3/h", "x_total": "m3"}
    assert said.counters == {"x_total"}
    assert rejected(decoded) == [(Reason.BAD_SHAPE, "y")]


def test_the_device_says_how_good_its_readings_are() -> None:
    (for_all,) = FORMAT.decode(telemetry({"pm1": 1, "pm10": 2}, q=2)).reports
    (by_key,) = FORMAT.decode(telemetry({"pm1": 1, "pm10": 2}, q={"pm10": 1})).reports

    assert for_all.quality == 2
    assert by_key.quality == (0, 1)


def test_a_correction_carries_its_revision() -> None:
    (report,) = FORMAT.decode(telemetry({"pm1": 1}, r=3)).reports

    assert report.revision == 3


@pytest.mark.parametrize(
    ("topic", "reads"),
    [
        ("qala/1/air/a1/t", True),
        ("qala/1/air/gw/g", True),
        ("qala/1/air/a1/x", False),
        ("qala/2/air/a1/t", False),
        ("/qala/1/air/a1/t", False),
        ("qala/1/air/a1/b/t", False),
        ("qala/1/air/t", False),
        ("qala/1/air/a+1/t", False),
        ("qala/1/air//t", False),
        (f"qala/1/air/{'a' * 65}/t", False),
        ("qala/1/воздух/a1/t", False),
        ("city/1/air/a1/t", False),
    ],
)
def test_only_its_own_topics_are_read(topic: str, reads: bool) -> None:
    assert FORMAT.reads(topic) is reads


def test_the_topic_root_is_a_setting() -> None:
    decoder = Decoder(find_formats(IngestSettings(topic_root="city")))
    given = telemetry({"pm1": 1})

    here = decoder.decode(msgspec.structs.replace(given, topic="city/1/air/a1/t"))

    assert readings(here) == [("air/a1", NOW_US, "pm1", 1.0)]
    assert rejected(decoder.decode(given)) == [(Reason.BAD_TOPIC, "")]


@pytest.mark.parametrize(
    ("payload", "kept", "reasons"),
    [
        pytest.param(b'{"t":1767225600000,"v":{"a":1e400,"b":2}}', ["b"], [(Reason.NOT_FINITE, "a")], id="1e400"),
        pytest.param(
            b'{"t":1767225600000,"v":{"a":' + b"9" * 5000 + b',"b":2}}', ["b"], [(Reason.NOT_FINITE, "a")], id="digits"
        ),
        pytest.param(
            b'{"t":1767225600000,"v":{"a":[1],"b":2,"c":{}}}',
            ["b"],
            [(Reason.BAD_VALUE, "a"), (Reason.BAD_VALUE, "c")],
            id="array and object",
        ),
        pytest.param(
            b'{"t":1767225600000,"i":1000,"v":{"a":[1,2],"b":[3],"c":4}}',
            ["a", "a"],
            [(Reason.BAD_SHAPE, "b"), (Reason.BAD_SHAPE, "c")],
            id="unequal columns: the longest counts",
        ),
        pytest.param(
            b'{"t":1767225600000,"i":1000,"v":{"a":[1,"x",[],{}],"b":[1,2,3,4]}}',
            ["a", "b", "a", "b", "b", "b"],
            [(Reason.BAD_VALUE, "a")],
            id="bad values in a column",
        ),
        pytest.param(
            b'{"t":[1767225600000,null],"v":{"a":[1,2]}}', ["a"], [(Reason.BAD_TIME, "")], id="one of several times"
        ),
        pytest.param(b'{"v":{"a":1,"b":2},"q":{"a":7}}', ["b"], [(Reason.BAD_VALUE, "a")], id="quality of a key"),
    ],
)
def test_what_is_good_beside_the_bad_is_kept(payload: bytes, kept: list[str], reasons: list[Any]) -> None:
    decoded = FORMAT.decode(message(payload))

    assert [key for _, _, key, _ in readings(decoded)] == kept
    assert rejected(decoded) == reasons


def test_more_readings_than_allowed_are_rejected_as_one() -> None:
    most = {"t": NOW_MS, "i": 1, "v": {"a": [1] * READINGS_MAX}}
    more = {"t": NOW_MS, "i": 1, "v": {"a": [1] * READINGS_MAX, "b": 2}}

    assert len(FORMAT.decode(message(most)).reports) == READINGS_MAX
    assert rejected(FORMAT.decode(message(more))) == [(Reason.TOO_MANY_READINGS, "")]


KEYS = st.sampled_from(["pm2_5", "temperature", "x", "!y", "", "ключ", 'a"b', "\ud800"])
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([NOW_MS, NOW_MS + 1, 60_000, -1, 0, 1, "2026-01-01T00:00:00Z", 10**400, 1e308]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
DOCUMENTS = st.fixed_dictionaries(
    {"v": st.dictionaries(KEYS, VALUES, max_size=4) | VALUES},
    optional={"t": VALUES, "i": VALUES, "w": LEAVES, "r": LEAVES, "q": VALUES, "u": VALUES, "!n": VALUES},
)
STATUSES = st.fixed_dictionaries({"on": VALUES}, optional={"fw": VALUES, "iv": VALUES})
METADATA = st.fixed_dictionaries(
    {"q": st.dictionaries(KEYS, st.fixed_dictionaries({"u": VALUES, "kind": VALUES}) | VALUES) | VALUES},
    optional={"model": VALUES, "lat": VALUES, "lon": VALUES, "tz": VALUES},
)
GATEWAYS = st.fixed_dictionaries({"d": st.dictionaries(KEYS, DOCUMENTS | VALUES, max_size=3) | VALUES})
SENT = st.one_of(
    st.tuples(st.just("t"), DOCUMENTS),
    st.tuples(st.just("s"), STATUSES),
    st.tuples(st.just("m"), METADATA),
    st.tuples(st.just("g"), GATEWAYS),
    st.tuples(st.sampled_from("tsmge"), VALUES),
)


def dump(document: Any) -> bytes:
    """Write JSON as careless devices do, NaN and lone surrogates included."""
    import json

    return json.dumps(document, ensure_ascii=True).encode()


@given(payload=st.binary(max_size=60), leaf=st.sampled_from("tsmge"))
def test_no_bytes_make_it_raise(payload: bytes, leaf: str) -> None:
    decoded = FORMAT.decode(message(payload, leaf=leaf))

    assert decoded.rejections or decoded.reports or decoded.status or decoded.metadata or payload.strip() == b"{}"


@settings(max_examples=300)
@given(sent=SENT)
def test_no_document_makes_it_raise(sent: tuple[str, Any]) -> None:
    leaf, document = sent

    decoded = FORMAT.decode(message(dump(document), leaf=leaf))

    for report in decoded.reports:
        assert len(report.keys) == len(report.values) > 0
        assert all(v is None or isinstance(v, str) or math.isfinite(v) for v in report.values)
        assert report.time_us is None or -(2**63) < report.time_us < 2**63


@settings(max_examples=300)
@given(document=DOCUMENTS)
def test_every_value_is_a_reading_or_covered_by_a_rejection(document: Any) -> None:
    decoded = FORMAT.decode(message(dump(document)))

    if not isinstance(document["v"], dict) or any(
        not r.key and r.reason != Reason.BAD_TIME for r in decoded.rejections
    ):
        assert decoded.reports == ()  # the whole message was rejected
        return
    several = isinstance(document.get("t"), list) or document.get("i") is not None
    whole = any(not r.key for r in decoded.rejections) and not several
    lost_rows = sum(not r.key for r in decoded.rejections)
    refused = {r.key for r in decoded.rejections}
    for key, value in document["v"].items():
        found = sum(key in report.keys for report in decoded.reports)
        expected = len(value) if isinstance(value, list) and several else 1
        assert whole or lost_rows or (key or '""') in refused or found == expected


@settings(max_examples=200)
@given(
    values=st.dictionaries(
        st.sampled_from(["pm1", "pm10", "no2"]),
        st.one_of(
            st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**70), 2**70), st.booleans(), st.none()
        ),
        min_size=1,
    ),
    t=st.none() | st.integers(-(2**60), 2**60),
    w=st.none() | st.integers(-2000, 400_000),
    r=st.none() | st.integers(-1, 2**32),
)
def test_a_layout_that_is_known_decodes_as_one_that_is_new(values: Any, t: Any, w: Any, r: Any) -> None:
    members = {name: item for name, item in (("t", t), ("w", w), ("r", r)) if item is not None}
    sent = message({**members, "v": values})
    known = Native()
    known.decode(message({"v": dict.fromkeys(values, 1)}))

    assert _plain(known.decode(sent)) == _plain(Native().decode(sent))


def _plain(decoded: Decoded) -> Any:
    return [_fields(report) for report in decoded.reports], [(r.reason, r.key) for r in decoded.rejections]


def _fields(report: Report) -> Any:
    return (
        report.device,
        report.time_us,
        report.span_s,
        report.revision,
        dict(zip(report.keys, report.values, strict=True)),
    )


def test_a_format_that_fails_costs_only_its_message() -> None:
    class Broken:
        def reads(self, topic: str) -> bool:
            return topic == "broken"

        def decode(self, message: Message) -> Decoded:
            raise ZeroDivisionError

    decoder = Decoder((Broken(), FORMAT))

    assert rejected(decoder.decode(message(b"{}", topic="broken"))) == [(Reason.BAD_SHAPE, "")]
    assert readings(decoder.decode(telemetry({"pm1": 1}))) == [("air/a1", NOW_US, "pm1", 1.0)]
