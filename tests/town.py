"""A town for tests: the rehearsal city's zones with a device in each, whose readings a test chooses, up to this minute."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from devices.rehearsal import plan
from qala.publisher import Publisher
from tests.processes import Qala

MINUTE_MS = 60_000
PAST_MIN, AHEAD_MIN = 200, 4
ZONES = {kind: [zone for zone in plan.city() if zone.kind == kind] for kind in ("road", "district", "feeder")}
DEVICES = {"road": "traffic_detector", "district": "air_station", "feeder": "electricity_meter"}


def minutes(past: int) -> list[int]:
    """Return whole minutes [ms] from `past` ago to a little ahead, so that windows that end meanwhile are full too."""
    now = time.time_ns() // 1_000_000 // MINUTE_MS * MINUTE_MS
    return list(range(now - past * MINUTE_MS, now + AHEAD_MIN * MINUTE_MS, MINUTE_MS))


def message(
    zone: str, times: Sequence[int], values: dict[str, Callable[[int], float]], **more: Any
) -> tuple[str, bytes]:
    """Spell values at each time, for the device that stands in a zone; each is a function of the time's number."""
    columns = {quantity: [value(n) for n in range(len(times))] for quantity, value in values.items()}
    return f"qala/1/town/{zone}/t", json.dumps({"t": times, "v": columns, **more}).encode()


def around(mean: float, step: float = 0.5) -> Callable[[int], float]:
    """Sway a little, as no sensor that works stands still."""
    return lambda n: mean + step * (n % 5 - 2)


def traffic(road: str, times: Sequence[int], level: float, revision: int = 0) -> tuple[str, bytes]:
    """Spell minutes on a road that is congested by about `level` percent."""
    [free_flow] = [zone.free_flow_kmh for zone in ZONES["road"] if zone.id == road]
    assert free_flow
    values = {"speed": around(free_flow / (1 + level / 100)), "vehicle_count": around(12, 1)}
    return message(road, times, values, w=MINUTE_MS, r=revision)


def calm() -> Iterator[tuple[str, bytes]]:
    """Yield hours of an ordinary day: every zone has a number, and none is alarming."""
    times = minutes(PAST_MIN)
    for n, zone in enumerate(ZONES["road"]):
        yield traffic(zone.id, times, (5, 20, 40)[n % 3])
    for n, zone in enumerate(ZONES["district"]):
        yield message(zone.id, times, {"pm2_5": around(5 + 5 * n), "pm10": around(20 + 5 * n)})
    for n, zone in enumerate(ZONES["feeder"]):
        kwh = 15.0 + n
        yield message(zone.id, times, {"active_power": around(60_000 * kwh, 100), "energy_import": kwh.__mul__})


def publish(qala: Qala, *messages: tuple[str, bytes]) -> None:
    with Publisher("127.0.0.1", qala.mqtt_port, client_id="town") as publisher:
        for topic, payload in messages:
            publisher.publish(topic, payload)
        assert publisher.drain(30)


def town(folder: Path) -> Qala:
    """Put a device into every zone of the rehearsal city."""
    folder.mkdir()
    lines = [f"town/{zone.id},{DEVICES[kind]},{zone.id},2500" for kind, zones in ZONES.items() for zone in zones]
    (folder / "devices.csv").write_text("\n".join(["id,kind,zones,rated_kw", *lines]) + "\n")
    drawn = Path(plan.__file__).with_name("city.geojson")
    qala = Qala(folder / "data", devices=folder / "devices.csv", zones=drawn)
    qala.environment["QALA_DASHBOARDS__LIVE_TICK_S"] = "1"
    return qala
