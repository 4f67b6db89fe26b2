"""Devices whose clocks are wrong: whatever time they say, each reading is stored or rejected with the right reason, and counted.

The newest reading in the store is never further ahead than the clock tolerance: one device with a wrong clock must not move
what the city takes for now.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devices.device import Clock, Device
from devices.errors import Reason
from ingest.message import Message
from qala.state.ledger import By, Counts, entries
from qala.state.rejected import list_rejected
from tests.builders import EVER, NOW_MS, NOW_US, SECOND_US, City, cities, telemetry

Cities = Callable[..., City]
TOLERANCE_US = 300 * SECOND_US
DAY_MS = 86_400_000


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Cities]:
    yield from cities(tmp_path)


def at(text: str) -> int:
    return round(dt.datetime.fromisoformat(text).timestamp() * 1000)


def counts_of(city: City, device: str = "air/a1") -> Counts:
    rows = entries(city.engine, EVER.start_us, EVER.stop_us, by=By.DEVICE, devices={device}, limit=10)
    return rows[0].counts if rows else Counts()


def newest_us(city: City) -> int:
    return max((time_us for _, _, time_us in city.readings()), default=0)


LEAP_MS = at("2024-02-29T12:00:00+00:00")

CLOCKS: list[Any] = [
    pytest.param(NOW_MS + DAY_MS, Reason.FUTURE_TIME, 0, id="a day ahead"),
    pytest.param(NOW_MS + 301_000, Reason.FUTURE_TIME, 0, id="just too far ahead"),
    pytest.param(NOW_MS + 300_000, None, 0, id="five minutes ahead"),
    pytest.param(NOW_MS - 30 * DAY_MS, None, 1, id="thirty days back"),
    pytest.param(0, Reason.PAST_TIME, 0, id="1970"),
    pytest.param(NOW_MS // 1000, Reason.PAST_TIME, 0, id="seconds for milliseconds"),
    pytest.param(at("2106-02-07T06:28:16+00:00"), Reason.FUTURE_TIME, 0, id="2106"),
    pytest.param(LEAP_MS, None, 1, id="a leap day"),
    pytest.param("2024-02-29T12:00:00Z", None, 1, id="a leap day as text"),
    pytest.param("2026-02-29T12:00:00Z", Reason.BAD_TIME, 0, id="a leap day that there never was"),
    pytest.param(at("2016-12-31T23:59:59+00:00") + 1000, None, 1, id="after a leap second"),
    pytest.param("2016-12-31T23:59:60Z", Reason.BAD_TIME, 0, id="a leap second"),
    pytest.param(None, None, 0, id="no time"),
    pytest.param(10**17, Reason.BAD_TIME, 0, id="beyond every calendar"),
]


@pytest.mark.parametrize(("t", "reason", "late"), CLOCKS)
def test_a_reading_is_stored_or_rejected_with_the_right_reason_and_counted(
    make: Cities, t: Any, reason: Reason | None, late: int
) -> None:
    city = make()

    city.send(telemetry({"pm1": 1}, t=t))

    counts = counts_of(city)
    assert len(city.readings()) == counts.accepted == (reason is None)
    assert counts.rejected == ({reason: 1} if reason else {})
    assert [row.reason for row in list_rejected(city.engine)[0]] == ([reason] if reason else [])
    assert (counts.messages, counts.readings, counts.late) == (1, 1, late)
    assert newest_us(city) <= NOW_US + TOLERANCE_US


@pytest.mark.parametrize("jump_s", [-10, -3_600, -86_400, 200, 290])
def test_a_clock_that_jumps_in_mid_stream_loses_nothing(make: Cities, jump_s: int) -> None:
    city = make()
    sent = []
    for k in range(100):
        shown_ms = NOW_MS + k * 1000 + (jump_s * 1000 if k >= 50 else 0)
        sent.append(telemetry({"pm1": k}, t=shown_ms, received_us=NOW_US + k * SECOND_US))

    city.send(*sent)

    times = {NOW_US + (k + (jump_s if k >= 50 else 0)) * SECOND_US for k in range(100)}
    assert {time_us for _, _, time_us in city.readings()} == times
    assert (counts_of(city).messages, counts_of(city).accepted) == (100, 100)


def test_a_device_that_is_timed_by_its_receipt_may_say_what_it_likes(make: Cities) -> None:
    city = make(devices=[Device("air/a1", "air_station", clock=Clock.RECEIVED)])

    city.send(
        *[telemetry({"pm1": k}, t=t, received_us=NOW_US + k) for k, t in enumerate([0, NOW_MS + DAY_MS, LEAP_MS])]
    )

    assert [time_us - NOW_US for _, _, time_us in city.readings()] == [0, 1, 2]
    assert counts_of(city).accepted == 3


CLOCK = st.one_of(
    st.none(),
    st.integers(-(2**62), 2**62),
    st.integers(NOW_MS - 40 * DAY_MS, NOW_MS + 2 * DAY_MS),
    st.text(max_size=30),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CLOCK, min_size=1, max_size=20))
def test_whatever_clocks_say_every_reading_is_accounted_for(make: Cities, clocks: list[Any]) -> None:
    city = make()
    sent: list[Message] = [telemetry({"pm1": k}, t=t) for k, t in enumerate(clocks)]

    city.send(*sent)

    counts = counts_of(city)
    assert counts.messages == counts.readings == len(sent)
    assert counts.accepted + sum(counts.rejected.values()) == len(sent)
    assert newest_us(city) <= NOW_US + TOLERANCE_US
    assert len(list_rejected(city.engine, limit=100)[0]) == len(sent) - counts.accepted
    assert bool(city.readings()) == bool(counts.accepted)
