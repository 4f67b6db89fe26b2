"""The whole route: bytes over MQTT to readings, indicators, an alert and JSON, against numbers computed without Qala.

Each recording is published through the listener of a real door to a real serving process. `tests/oracle.py` computes what
must come out, from the same files, with pandas. The sets of windows must match both ways, values to 1e-9.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest

from qala.publisher import Publisher
from tests import oracle, recordings
from tests.processes import Qala
from tests.recordings import Recording
from tests.servers import Influx

Key = tuple[str, int]
DAY = 86_400


def publish(qala: Qala, recording: Recording) -> None:
    """Send a recording as its devices would, and wait until all of it is stored and computed."""
    with Publisher("127.0.0.1", qala.mqtt_port, client_id="recording") as publisher:
        for topic, payload in recording.messages:
            publisher.publish(topic, payload)
        assert publisher.drain(30)
    qala.wait_until_caught_up()


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def around(recording: Recording) -> dict[str, str]:
    """Return a range of time that holds everything that can come of a recording."""
    first, last = pd.to_datetime([recording.frame.time.min() - 2 * DAY, recording.frame.time.max() + 2 * DAY], unit="s")
    return {"start": f"{first.isoformat()}Z", "stop": f"{last.isoformat()}Z"}


def served(qala: Qala, recording: Recording, indicator: str, window: str) -> dict[Key, float]:
    """Read every value of an indicator from the API; NaN where it has none, which it says with its status."""
    items = qala.all(f"indicators/{indicator}/values", window=window, limit=1000, **around(recording))
    for item in items:
        assert (item["value"] is None) == (item["status"] != "ok")
        assert item["unit"]
        assert item["method_version"]
    return {(i["zone"], seconds(i["start"])): math.nan if i["value"] is None else i["value"] for i in items}


def same(found: dict[Key, float], expected: pd.Series) -> None:
    """Compare numbers by (zone, window start), both ways."""
    assert set(found) == set(expected.index)
    wrong = {key: (found[key], value) for key, value in expected.items() if not _equal(found[key], value)}
    assert not wrong


def _equal(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)


def check_readings(qala: Qala, recording: Recording) -> None:
    """Every reading of the recording is served, with its value, and nothing else."""
    for device, rows in recording.frame.groupby("device"):
        items = [
            item
            for quantity in sorted(set(rows.quantity))
            for item in qala.all("readings", device=device, quantity=quantity, limit=10_000, **around(recording))
        ]
        found = {(i["quantity"], seconds(i["time"])): math.nan if i["value"] is None else i["value"] for i in items}
        expected = {(q, t): v for q, t, v in zip(rows.quantity, rows.time, rows.value, strict=True)}
        assert set(found) == set(expected)
        assert all(_equal(found[key], value) for key, value in expected.items())


def check_traffic(qala: Qala, recording: Recording) -> None:
    traffic = recording.frame[recording.frame.quantity.isin(["speed", "vehicle_count"])]
    for window, width in (("5min", 300), ("15min", 900), ("1h", 3600)):
        free_flow = recording.free_flow
        same(served(qala, recording, "space_mean_speed", window), oracle.speeds(traffic, width))
        same(served(qala, recording, "travel_time_index", window), oracle.travel_time_index(traffic, width, free_flow))
        same(served(qala, recording, "congestion_level", window), oracle.congestion_level(traffic, width, free_flow))


def check_air(qala: Qala, recording: Recording) -> None:
    same(served(qala, recording, "nowcast_aqi", "1h"), oracle.nowcast_aqi(recording.frame))
    same(served(qala, recording, "european_aqi", "1h"), oracle.european_aqi(recording.frame))
    same(served(qala, recording, "aqi", "1d"), oracle.aqi(recording.frame, recording.midnights))


def check_energy(qala: Qala, recording: Recording) -> None:
    first, last = recording.midnights[0], recording.midnights[-1]
    for window, width in (("15min", 900), ("1h", 3600)):
        if recording.frame.interval.max() <= width:
            same(
                served(qala, recording, "interval_energy", window),
                oracle.energy(recording.frame, list(range(first, last, width))),
            )
    same(served(qala, recording, "interval_energy", "1d"), oracle.energy(recording.frame, recording.midnights))
    same(served(qala, recording, "peak_demand", "1d"), oracle.peak_demand(recording.frame, recording.midnights))


def check_episodes(qala: Qala, recording: Recording) -> None:
    """Congestion above 60 % for a quarter of an hour is an episode until it falls to 35 %."""
    level = oracle.congestion_level(recording.frame, 300, recording.free_flow)
    expected = oracle.episodes(level, 300, above=60, clear=35, lasting=900, silent=1800)
    assert expected, "the recording has no congestion: it tests nothing"
    items = [i for i in qala.all("alerts", state="all", rule="road_congested") if i["kind"] == "value"]
    found = [
        (i["zone"], seconds(i["start"]), i["end"] and seconds(i["end"])) for i in items if i["state"] != "withdrawn"
    ]
    assert sorted(found, key=str) == expected


Check = Callable[[Qala, Recording], None]

RECORDINGS: Mapping[str, tuple[Callable[[Path], Recording], list[Check]]] = {
    "a day of the rehearsal city": (
        lambda _: recordings.rehearsal(),
        [check_readings, check_traffic, check_air, check_energy, check_episodes],
    ),
    "loops of Los Angeles": (recordings.metr_la, [check_readings, check_traffic, check_episodes]),
    "an air station of Beijing": (recordings.beijing, [check_readings, check_air]),
    "a household meter in Britain": (recordings.uk_meter, [check_readings, check_energy]),
}


def check_route(name: str, folder: Path, **store: str) -> None:
    """Send a recording all the way into a store, named by environment variables, and check all that comes of it."""
    record, checks = RECORDINGS[name]
    recording = record(folder / "files")
    qala = Qala(folder / "data", devices=recording.devices_file, zones=recording.zones_file)
    qala.environment |= store
    with qala:
        publish(qala, recording)
        assert qala.all("rejected") == []
        for check in checks:
            check(qala, recording)


@pytest.mark.parametrize("name", RECORDINGS)
def test_bytes_become_readings_indicators_and_alerts(tmp_path: Path, name: str) -> None:
    check_route(name, tmp_path)


@pytest.mark.parametrize("name", ["a day of the rehearsal city", "an air station of Beijing"])
def test_they_become_the_same_over_influxdb(tmp_path: Path, name: str, influx: Influx) -> None:
    store = {"QALA_STORE__URL": influx.url(influx.bucket()), "QALA_STORE__TOKEN": influx.token}
    check_route(name, tmp_path, **store)
