"""Recorded files become messages of devices, with their event times."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from devices.errors import ConfigError
from qala.replay.mapping import CsvMapping, load_mapping, plan, registry_of, shipped


def first(mapping: str, **row: str) -> tuple[str, dict[str, object]]:
    [planned] = plan(load_mapping(mapping), [row])
    return planned.topic, json.loads(planned.payload)


def millis(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def test_every_shipped_mapping_can_be_read() -> None:
    assert len(shipped()) >= 12
    for name in shipped():
        assert isinstance(load_mapping(name), CsvMapping)


def test_an_hourly_station_becomes_windows_that_are_stamped_by_their_end() -> None:
    row = dict.fromkeys(["PM2.5", "PM10", "SO2", "NO2", "CO", "O3", "TEMP", "PRES", "WSPM", "wd"], "")
    topic, body = first(
        "beijing",
        **{**row, "timestamp": "2013-12-01T00:00:00", "station": "Dongsi", "PM2.5": "37", "CO": "1000", "wd": "NE"},
    )
    assert topic == "beijing/Dongsi"
    assert body["t"] == millis("2013-12-01T01:00:00+08:00")
    assert body["w"] == 3_600_000
    assert body["v"]["pm2_5"] == 37.0
    assert body["v"]["co"] == 1.0
    assert body["v"]["wind_direction"] == 45
    assert body["v"]["pm10"] is None


def test_a_wide_file_has_a_device_in_every_column() -> None:
    mapping = load_mapping("metr_la")
    rows = [{"timestamp": "2012-03-01T00:00:00", "773869": "60", "767542": "0"}]
    one, two = plan(mapping, rows)
    assert (one.topic, two.topic) == ("metr-la/773869", "metr-la/767542")
    assert json.loads(one.payload)["v"] == {"speed": 60 * 1.609344}
    assert json.loads(two.payload)["v"] == {"speed": None}
    devices, zones, placements = registry_of(mapping, rows)
    assert [d.id for d in devices] == ["metr-la/767542", "metr-la/773869"]
    assert {p.zones for p in placements} == {(z.id,) for z in zones}


@pytest.mark.parametrize(
    ("local", "utc"),
    [
        pytest.param(["2012-07-01T00:00"], ["2012-07-01T05:00"], id="summer"),
        pytest.param(["2012-01-01T00:00"], ["2012-01-01T06:00"], id="winter"),
        pytest.param(
            ["2012-11-04T00:00", "2012-11-04T01:00", "2012-11-04T01:00", "2012-11-04T02:00"],
            ["2012-11-04T05:00", "2012-11-04T06:00", "2012-11-04T07:00", "2012-11-04T08:00"],
            id="the hour that comes twice when clocks go back",
        ),
        pytest.param(
            ["2012-11-04T01:00", "2012-11-04T01:30", "2012-11-04T01:00", "2012-11-04T01:30"],
            ["2012-11-04T06:00", "2012-11-04T06:30", "2012-11-04T07:00", "2012-11-04T07:30"],
            id="and its half hours",
        ),
        pytest.param(["2012-07-01T00:00", "2012-07-01T00:00"], ["2012-07-01T05:00"] * 2, id="a row that is repeated"),
    ],
)
def test_naive_times_are_local(local: list[str], utc: list[str]) -> None:
    rows = [{"timestamp": time, "value": "1"} for time in local]
    times = [planned.time_us // 1_000_000 for planned in plan(load_mapping("mndot_speed"), rows)]
    assert times == [int(datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp()) for time in utc]


def test_a_name_that_no_topic_may_hold_is_spelled_in_latin() -> None:
    row = dict.fromkeys(["PM2_5", "PM10", "SO2", "CO", "NO2", "O3"], "1")
    topic, _ = first("almaty_kazhydromet", **row, datetime="2025-01-01 00:00:00", station="Скат-6")
    assert topic == "kazhydromet/skat-6"


@pytest.mark.parametrize(
    ("mapping", "rows", "says"),
    [
        pytest.param("nonsense", [], "no mapping is called", id="no such mapping"),
        pytest.param("missing.toml", [], "does not exist", id="no such file"),
        pytest.param("uk_meters", [{"timestamp": "2020-01-01"}], "no column", id="a column is missing"),
        pytest.param("uk_meters", [{"timestamp": "soon", "kWh": "1", "meter": "a"}], "not a time", id="a bad time"),
    ],
)
def test_mistakes_are_named_with_a_hint(mapping: str, rows: list[dict[str, str]], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        list(plan(load_mapping(mapping), rows))
    assert caught.value.hint
