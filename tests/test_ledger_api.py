"""The ledger over the API: by device and hour or summed up, in pages, as CSV; and what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dashboards.api.contract import Page
from dashboards.api.contract_ledger import LedgerRow
from dashboards.missing import missing
from dashboards.times import iso
from qala.state.ledger import Counts, Entry, add
from tests.api_city import HOUR, MINUTE, NOW, City


@pytest.fixture
def city(tmp_path: Path) -> Iterator[City]:
    made = City(tmp_path)
    made.start()
    with made.state.begin() as connection:
        add(
            connection,
            [
                Entry("city/air-1", NOW - 3 * HOUR, Counts(60, 5, 200, 190, 3, 2, 1, {"bad_value": 10})),
                Entry("city/air-1", NOW - 2 * HOUR, Counts(10, 0, 20, 20)),
                Entry("city/air-2", NOW - 2 * HOUR, Counts(7, 0, 7, 0, rejected={"future_time": 4, "bad_value": 3})),
                Entry("", NOW - 2 * HOUR, Counts(1, 0, 1, 0, rejected={"bad_topic": 1})),
                Entry("city/air-1", NOW - 30 * HOUR, Counts(1)),
            ],
        )
    yield made
    made.close()


def test_rows_are_by_device_and_hour(city: City) -> None:
    page = Page[LedgerRow].model_validate(city.get("/ledger").json())

    assert [(row.device, row.start and iso(int(row.start.timestamp() * 1e6)), row.messages) for row in page.items] == [
        ("city/air-1", iso(NOW - 3 * HOUR), 60),
        ("", iso(NOW - 2 * HOUR), 1),
        ("city/air-1", iso(NOW - 2 * HOUR), 10),
        ("city/air-2", iso(NOW - 2 * HOUR), 7),
    ]
    assert page.items[0].rejected == {"bad_value": 10}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param({"by": "hour"}, [(None, iso(NOW - 3 * HOUR), 60), (None, iso(NOW - 2 * HOUR), 18)], id="by hour"),
        pytest.param(
            {"by": "day", "start": "-2d"},
            [(None, iso(NOW - 36 * HOUR), 1), (None, iso(NOW - 12 * HOUR), 78)],
            id="by day",
        ),
        pytest.param(
            {"by": "device"},
            [
                ("", None, 1),
                ("city/air-1", None, 70),
                ("city/air-2", None, 7),
                ("city/loop-1", None, 0),
                ("grid/meter-1", None, 0),
            ],
            id="by device",
        ),
        pytest.param({"by": "device", "zone": "district-b"}, [("city/air-2", None, 7)], id="of a zone"),
        pytest.param({"by": "device", "device": "city/air-1", "zone": "district-b"}, [], id="not in that zone"),
        pytest.param({"device": "city/air-2"}, [("city/air-2", iso(NOW - 2 * HOUR), 7)], id="of a device"),
    ],
)
def test_rows_are_summed_up_and_chosen(city: City, query: dict[str, str], expected: list[object]) -> None:
    rows = city.items("/ledger", **query)

    assert [(row["device"], row["start"], row["messages"]) for row in rows] == expected
    assert list(city.walk("/ledger", **query, limit=1)) == rows
    assert [row["readings"] for row in rows] == [row["accepted"] + sum(row["rejected"].values()) for row in rows]


def test_rows_come_as_csv_too(city: City) -> None:
    lines = city.get("/ledger?by=device&format=csv").text.splitlines()

    assert lines[0].replace('"', "").startswith("device,start,messages,duplicates,readings,accepted")
    assert len(lines) == 6


def test_a_zone_that_there_is_none_of_says_so(city: City) -> None:
    assert city.get("/ledger?zone=nowhere").status_code == 404


def test_slots_without_a_reading_are_missing_in_hours_that_have_ended(city: City) -> None:
    minutes = [m for m in range(-180, -60) if m not in {-170, -100, -99}]
    city.read("city/air-1:pm1", [NOW + m * MINUTE + 2_000_000 for m in minutes], [1.0] * len(minutes))
    city.read("city/air-1:pm10", [NOW - 170 * MINUTE], [1.0])

    rows = {(row["device"], row["start"]): row["missing"] for row in city.items("/ledger", device="city/air-1")}
    assert rows == {
        ("city/air-1", iso(NOW - 3 * HOUR)): 0,
        ("city/air-1", iso(NOW - 2 * HOUR)): 2,
        ("city/air-1", iso(NOW - HOUR)): 60,
    }
    [total] = city.items("/ledger", by="device", device="city/air-1")
    assert total["missing"] == 62  # the hour before now has none at all

    city.read("city/air-1:pm1", [NOW - 100 * MINUTE], [1.0])  # late, and it mends the hour
    assert city.items("/ledger", by="device", device="city/air-1")[0]["missing"] == 61


def test_a_device_that_sends_nothing_has_rows_of_what_is_missing(city: City) -> None:
    city.read("city/air-1:pm1", [NOW - 2 * HOUR], [1.0])

    rows = [row for row in city.items("/ledger") if row["device"] == "city/loop-1"]
    assert [(row["start"], row["messages"], row["missing"]) for row in rows] == [
        (iso(NOW - 2 * HOUR), 0, 12),
        (iso(NOW - HOUR), 0, 12),
    ]
    by_device = {row["device"]: (row["messages"], row["missing"]) for row in city.items("/ledger", by="device")}
    assert by_device["city/loop-1"] == (0, 24)
    assert list(city.walk("/ledger", limit=1)) == city.items("/ledger")


@pytest.mark.parametrize(
    ("times_s", "interval_s", "expected"),
    [
        pytest.param(range(0, 3600, 60), 60, 0, id="every minute"),
        pytest.param([s + (-1) ** s * 0.2 for s in range(3600)][::60], 60, 0, id="a little early or late"),
        pytest.param([s + 59.9 for s in range(-60, 3600, 60)], 60, 0, id="at the end of each minute"),
        pytest.param([], 60, 60, id="none"),
        pytest.param(range(0, 1800, 60), 60, 30, id="half an hour"),
        pytest.param([0] * 60, 60, 59, id="all at once"),
        pytest.param(range(0, 3600, 120), 60, 30, id="every other minute"),
        pytest.param(range(0, 3600, 10), 60, 0, id="more often"),
        pytest.param([0, 900, 2700], 900, 1, id="quarters"),
        pytest.param([1800], 7200, 0, id="every two hours"),
        pytest.param(range(-70_000, 70_000, 7000), 7000, 0, id="no divisor of the hour"),
    ],
)
def test_missing_slots_are_counted(times_s: list[float], interval_s: int, expected: int) -> None:
    hour_us = 1_795_348_800_000_000
    times = np.unique(np.array([hour_us + round(s * 1e6) for s in times_s], np.int64))

    assert missing(times, interval_s * 1_000_000, hour_us) == expected
