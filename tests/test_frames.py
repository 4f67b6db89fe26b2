"""Analysts read the API as pandas frames."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from dashboards.api.server import make_server
from dashboards.frames import Frames
from dashboards.settings import DashboardsSettings
from dashboards.times import iso
from devices.errors import UnavailableError
from tests.api_city import HOUR, MINUTE, NOW, City, make_value
from tests.wait import until


@pytest.fixture
def city(tmp_path: Path) -> Iterator[City]:
    city = City(tmp_path, settings=DashboardsSettings(export_max=2))
    yield city
    city.close()


@pytest.fixture
def frames(city: City) -> Iterator[Frames]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = make_server(city.app, city.hub)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        until(lambda: server.started)
        made = Frames(f"http://127.0.0.1:{listening.getsockname()[1]}")
        yield made
        made.close()
        server.should_exit = True
        thread.join(10)


def test_readings_come_whole_with_units_and_flags(city: City, frames: Frames) -> None:
    times = [NOW - n * MINUTE for n in (5, 4, 3, 2, 1)]
    city.read("city/air-1:pm2_5", times, [10.0, float("nan"), 12.0, 11.0, 12.5])
    frame = frames.readings(device="city/air-1", start=iso(NOW - HOUR), stop=iso(NOW))
    assert frame.value.tolist()[0] == 10.0
    assert frame.value.isna().tolist() == [False, True, False, False, False]
    assert set(frame.unit) == {"ug/m3"}
    assert frame.flag.tolist() == [1, 9, 1, 1, 1]
    assert frame.time.tolist() == [pd.Timestamp(t, unit="us", tz="UTC") for t in times]


def test_values_come_with_coverage_and_method(city: City, frames: Frames) -> None:
    city.put(*(make_value("pm2_5_mean", "district-a", "1h", NOW - n * HOUR, 20.0 + n) for n in (4, 3, 2)))
    frame = frames.values("pm2_5_mean", window="1h", start=iso(NOW - 10 * HOUR), stop=iso(NOW))
    assert frame.value.tolist() == [24.0, 23.0, 22.0]
    assert {"coverage", "unit", "method", "method_version", "revision"} <= set(frame.columns)


def test_what_the_server_objects_to_is_said_in_its_words(frames: Frames) -> None:
    with pytest.raises(UnavailableError, match="indicator") as caught:
        frames.values("nonsense")
    assert caught.value.hint
