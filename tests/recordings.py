"""Recordings for the tests of the whole route: what is published, what is known of the devices, and the readings as a frame.

The frames are made from the files with pandas alone, so that what the oracle sees has not been through Qala.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest

from qala.replay import rows_of
from qala.replay.mapping import load_mapping, plan

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("QALA_SHARED", HERE.parent.parent / "shared"))
POINTS = [[77.0, 43.6], [77.1, 43.6], [77.1, 43.7], [77.0, 43.6]]


class Recording(msgspec.Struct):
    """Messages in the order of publishing, the registry as files, the readings that they carry, and roads' free-flow speeds.

    `frame` has zone, device, quantity, time [s], span [s], interval [s], value; `midnights` are those of Asia/Almaty [s].
    """

    messages: list[tuple[str, bytes]]
    devices_file: Path
    zones_file: Path
    frame: pd.DataFrame
    midnights: list[int]
    free_flow: dict[str, float] = {}


def midnights(first: str, days: int) -> list[int]:
    """Return local midnights in Asia/Almaty from a date on [s]."""
    start = pd.Timestamp(first, tz="Asia/Almaty")
    return [int((start + pd.DateOffset(days=n)).timestamp()) for n in range(days + 1)]


def rehearsal() -> Recording:
    """A road, a district and a feeder of the rehearsal city: a local day and the eight hours after it."""
    folder = HERE / "data" / "rehearsal"
    with gzip.open(folder / "messages.jsonl.gz") as file:
        lines = [json.loads(line) for line in file]
    zones = pd.read_csv(folder / "devices.csv", index_col="id").zones
    rows = [row for line in lines for row in _native(line["topic"], json.loads(line["payload"]))]
    frame = pd.DataFrame(rows, columns=["device", "quantity", "time", "span", "value"]).assign(interval=60)
    return Recording(
        messages=[(line["topic"], line["payload"].encode()) for line in lines],
        devices_file=folder / "devices.csv",
        zones_file=folder / "zones.geojson",
        frame=frame.assign(zone=frame.device.map(zones)),
        midnights=midnights("2026-03-10", 2),
        free_flow={
            feature["id"]: feature["properties"]["free_flow_kmh"]
            for feature in json.loads((folder / "zones.geojson").read_text())["features"]
            if "free_flow_kmh" in feature["properties"]
        },
    )


def _native(topic: str, body: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Take a native telemetry message apart, by the words of its specification."""
    device, width = "/".join(topic.split("/")[2:4]), body.get("w", 0)
    for quantity, values in body["v"].items():
        column = values if isinstance(values, list) else [values]
        times = (
            body["t"] if isinstance(body["t"], list) else [body["t"] + k * body.get("i", 0) for k in range(len(column))]
        )
        for time_ms, value in zip(times, column, strict=True):
            yield device, quantity, (time_ms - width) // 1000, width // 1000, float("nan") if value is None else value


def metr_la(folder: Path) -> Recording:
    """Five loop detectors of Los Angeles over a Monday, each on a road of its own."""
    path = shared("traffic/metr_la_week_2012-03.csv")
    loops = list(pd.read_csv(path, nrows=0).columns[1:6])
    table = pd.read_csv(path, usecols=["timestamp", *loops], dtype={"timestamp": str})
    table = table[table.timestamp.str.startswith("2012-03-05")]
    times = _seconds(table.timestamp, "America/Los_Angeles")
    frame = pd.concat(_column(f"metr-la/{loop}", "speed", times, table[loop] * 1.609344, 300) for loop in loops)
    roads = {f"metr-la/{loop}": 104.60736 for loop in loops}
    return _replayed(
        folder, "metr_la", path, frame, "road", "traffic_detector", midnights("2012-03-05", 3), free_flow=roads
    )


def beijing(folder: Path) -> Recording:
    """An air station of Beijing over six winter days with gaps."""
    path = shared("air/beijing_2013-12_2014-03.csv")
    table = pd.read_csv(path)
    table = table[(table.station == "Dongsi") & table.timestamp.between("2014-01-14", "2014-01-20")]
    times = _seconds(table.timestamp, "Asia/Shanghai")
    names = {"PM2.5": "pm2_5", "PM10": "pm10", "SO2": "so2", "NO2": "no2", "CO": "co", "O3": "o3"}
    scale = {"co": 0.001}
    frame = pd.concat(
        _column("beijing/Dongsi", quantity, times, table[column] * scale.get(quantity, 1.0), 3600)
        for column, quantity in names.items()
    )
    return _replayed(folder, "beijing", path, frame, "district", "air_station", midnights("2014-01-13", 8))


def uk_meter(folder: Path) -> Recording:
    """The electricity meter of a household in Britain over four winter days."""
    path = shared("energy/uk_home_elec_gas_2020-12_2021-02.csv")
    table = pd.read_csv(path)
    table = table[(table.meter == "uk-e0") & table.timestamp.between("2020-12-20", "2020-12-24")]
    times = _seconds(table.timestamp, "UTC")
    frame = _column("uk/uk-e0", "energy", times, table.kWh, 3600)
    return _replayed(folder, "uk_meters", path, frame, "feeder", "electricity_meter", midnights("2020-12-20", 6))


def shared(name: str) -> Path:
    """Return the path of a real recording, or skip."""
    path = SHARED / "data" / name
    if not path.is_file():
        pytest.skip(f"the recording {name} is not here (set QALA_SHARED to the folder that has data/)")
    return path


def _seconds(times: pd.Series, zone: str) -> pd.Series:
    moments = pd.to_datetime(times, format="ISO8601")
    local = moments if moments.dt.tz is not None else moments.dt.tz_localize(zone)
    return (local.dt.tz_convert("UTC") - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(seconds=1)


def _column(device: str, quantity: str, times: pd.Series, values: pd.Series, span: int) -> pd.DataFrame:
    columns = {"zone": device, "device": device, "quantity": quantity, "time": times, "span": span, "interval": span}
    return pd.DataFrame({**columns, "value": values})


def _replayed(
    folder: Path, mapping: str, path: Path, frame: pd.DataFrame, zone_kind: str, kind: str, days: list[int], **more: Any
) -> Recording:
    """Publish what a mapping makes of a file, as far as it is in the frame; each device stands in a zone of its own name."""
    devices = sorted(set(frame.device))
    inside = {(d, t) for d, t in zip(frame.device, frame.time, strict=True)}
    loaded = load_mapping(mapping)
    planned = [
        (f"qala/1/{each.topic}/t", each.payload)
        for each in plan(loaded, rows_of(path))
        if (each.topic, each.time_us // 1_000_000 - loaded.span_s) in inside
    ]
    folder.mkdir(parents=True, exist_ok=True)
    interval = int(frame.interval.iloc[0])
    lines = [f"{device},{kind},{device},{interval}" for device in devices]
    (folder / "devices.csv").write_text("\n".join(["id,kind,zones,interval_s", *lines]) + "\n")
    line = {"type": "LineString", "coordinates": POINTS}
    shape = line if zone_kind == "road" else {"type": "Polygon", "coordinates": [POINTS]}
    features = [_feature(device, zone_kind, shape, more.get("free_flow", {}).get(device)) for device in devices]
    (folder / "zones.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return Recording(planned, folder / "devices.csv", folder / "zones.geojson", frame, days, **more)


def _feature(zone: str, kind: str, shape: dict[str, Any], free_flow: float | None) -> dict[str, Any]:
    properties: dict[str, Any] = {"kind": kind, "name": zone, "rated_kw": 10.0}
    if free_flow is not None:
        properties["free_flow_kmh"] = free_flow
    return {"type": "Feature", "id": zone, "properties": properties, "geometry": shape}
