"""The journal is the truth: a store that was thrown away comes back equal, and the rebuild pages nobody."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx

from qala.publisher import Publisher
from tests.processes import Qala, native
from tests.wait import until

MINUTE = 60


def congested_road(qala: Qala) -> None:
    """Two hours of a road that is congested since an hour, up to now."""
    now = int(time.time()) // MINUTE * MINUTE
    with Publisher("127.0.0.1", qala.mqtt_port, client_id="road") as publisher:
        for minute in range(120):
            speed = 50.0 if minute < 60 else 15.0
            t = now - (119 - minute) * MINUTE
            publisher.publish("qala/1/r/d1/t", native({"speed": speed + minute % 7}, t=t * 1000, w=60_000))
        assert publisher.drain(30)


def values(qala: Qala) -> list[dict[str, Any]]:
    """Everything that was computed, without when it became known and what depends on the clock."""
    items = [
        item
        for indicator in ("space_mean_speed", "travel_time_index", "congestion_level")
        for window in ("5min", "15min", "1h")
        for item in qala.all(f"indicators/{indicator}/values", window=window, start="-6h")
    ]
    return [{k: v for k, v in item.items() if k not in {"known", "revision", "provisional"}} for item in items]


def alerts(qala: Qala) -> list[tuple[Any, ...]]:
    found = [qala.get(f"alerts/{item['id']}") for item in qala.all("alerts", state="all", rule="road_congested")]
    return [(a["id"], a["state"], a["start"], a["acknowledged"], [n["kind"] for n in a["notices"]]) for a in found]


def test_a_store_that_was_thrown_away_comes_back_and_nobody_is_told(tmp_path: Path) -> None:
    (tmp_path / "devices.csv").write_text("id,kind,zones,interval_s\nr/d1,traffic_detector,road,60\n")
    road = {"kind": "road", "name": "Road", "free_flow_kmh": 50}
    line = {"type": "LineString", "coordinates": [[77.0, 43.6], [77.1, 43.6]]}
    feature = {"type": "Feature", "id": "road", "properties": road, "geometry": line}
    (tmp_path / "zones.json").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    with Qala(tmp_path / "data", devices=tmp_path / "devices.csv", zones=tmp_path / "zones.json") as qala:
        congested_road(qala)
        qala.wait_until_caught_up()
        [alert] = qala.all("alerts", rule="road_congested")
        answer = httpx.post(
            f"{qala.url}/api/v1/alerts/{alert['id']}/acknowledge", json={"actor": "aigul", "comment": "on it"}
        )
        assert answer.is_success
        until(lambda: judged(qala.folder) == qala.journalled(), deadline_s=30)
        computed, told = values(qala), alerts(qala)
        assert [state for _, state, *_ in told] == ["firing"]
        qala.stop()
        for path in qala.folder.glob("readings.duckdb*"):
            path.unlink()
        qala.start_door()
        qala.start_serve()
        until(qala.is_up, deadline_s=60)
        qala.wait_until_caught_up()
        until(lambda: "alerts are judged again" in (qala.folder / "log").read_text(), deadline_s=30)
        assert [v for v in values(qala) if v in computed] == computed
        assert alerts(qala) == told


def judged(folder: Path) -> int:
    """Read up to where alerts were judged, past all of our code."""
    from pysqlite3 import dbapi2

    connection = dbapi2.connect(f"file:{folder / 'state.sqlite'}?mode=ro", uri=True)
    try:
        row = connection.execute("SELECT number FROM judged").fetchone()
    finally:
        connection.close()
    return int(row[0]) if row else 0
