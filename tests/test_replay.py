"""Recorded files become messages of devices, with their event times."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from devices.device import Registry
from devices.errors import ConfigError
from ingest.admission import Admission
from ingest.formats.native import Native
from ingest.message import Message
from ingest.settings import IngestSettings
from qala.replay import rows_of
from qala.replay.mapping import CsvMapping, load_mapping, plan, registry_of, shipped
from qala.store.memory import MemoryStore
from tests.recordings import shared


def first(mapping: str, **row: str) -> tuple[str, dict[str, object]]:
    [planned] = plan(load_mapping(mapping), [row])
    return planned.topic, json.loads(planned.payload)


def millis(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def test_every_shipped_mapping_can_be_read() -> None:
    assert len(shipped()) >= 12
    for name in shipped():
        assert isinstance(load_mapping(name), CsvMapping)


RECORDINGS = {
    "almaty_airkaz": "air/almaty_airkaz_2020-03_04.csv",
    "almaty_clarity": "air/almaty_clarity_2025-07-01_00-02h.csv",
    "almaty_kazhydromet": "air/almaty_kazhydromet_2025-01-01_00-03h.csv",
    "beijing": "air/beijing_2013-12_2014-03.csv",
    "ett": "energy/etth1_2016-07_2016-10.csv",
    "i94": "traffic/i94_2014-01_03.csv",
    "metr_la": "traffic/metr_la_week_2012-03.csv",
    "mndot_occupancy": "traffic/mndot_occupancy_6005.csv",
    "mndot_speed": "traffic/mndot_speed_6005.csv",
    "mndot_travel_time": "traffic/mndot_TravelTime_387.csv",
    "tetouan": "energy/tetouan_2017-01_2017-03.csv",
    "uk_meters": "energy/uk_home_elec_gas_2020-12_2021-02.csv",
}


def test_every_shipped_mapping_has_a_recording() -> None:
    assert set(RECORDINGS) == set(shipped())


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_shipped_mapping_makes_readings_of_the_recording_that_it_is_for(name: str) -> None:
    mapping = load_mapping(name)
    rows = list(islice(rows_of(shared(RECORDINGS[name])), 50))
    now_us = 1_800_000_000_000_000
    messages = [Message(f"qala/1/{p.topic}/t", p.payload, now_us) for p in plan(mapping, rows)]
    native = Native()
    decoded = [native.decode(message) for message in messages]
    admission = Admission(Registry(*registry_of(mapping, rows)), MemoryStore().register, IngestSettings())
    admitted = admission.admit(np.arange(len(messages)), messages, decoded)
    assert admitted.rejections == []
    assert admitted.unknown == {}
    assert np.isfinite(admitted.batch.value).sum() >= len(rows) // 2


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


def test_a_mapping_that_is_not_utf_8_is_a_mistake_with_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "old.toml"
    path.write_bytes('title = "Мектеп"'.encode("cp1251"))
    with pytest.raises(ConfigError, match=r"old\.toml is not UTF-8") as caught:
        load_mapping(str(path))
    assert "UTF-8" in caught.value.hint


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
