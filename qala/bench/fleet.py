"""The devices of the load and what they send: half air stations, half meters, in the rehearsal city's districts and feeders."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from devices.device import Zone
from devices.zone_file import parse_zones

__all__ = ["INTERVAL_S", "READINGS", "ZONES_FILE", "devices_csv", "messages"]

ZONES_FILE = Path(__file__).parents[2] / "devices" / "rehearsal" / "city.geojson"
INTERVAL_S = 60
READINGS = 5
"""Readings of each message."""

_DAY_MS = 86_400_000
_RATED_KW = 25.0


def devices_csv(count: int) -> str:
    """Return a devices file of so many devices. Even ones are air stations, odd ones meters."""
    zones = parse_zones(ZONES_FILE.read_text())
    districts = [zone for zone in zones if zone.kind == "district"]
    feeders = [zone for zone in zones if zone.kind == "feeder"]
    rows = (_meter(n, feeders) if n % 2 else _station(n, districts) for n in range(count))
    return "\n".join(["id,kind,zones,interval_s,rated_kw", *rows, ""])


def _station(number: int, districts: list[Zone]) -> str:
    return f"bench/d{number},air_station,{districts[number // 2 % len(districts)].id},{INTERVAL_S},"


def _meter(number: int, feeders: list[Zone]) -> str:
    return f"bench/d{number},electricity_meter,{feeders[number // 2 % len(feeders)].id},{INTERVAL_S},{_RATED_KW}"


def messages(count: int, devices: int, *, stop_us: int) -> Iterator[tuple[str, bytes]]:
    """Yield (topic, payload): all devices' readings of one minute, then those of the next, the last of them before `stop_us`.

    Every message has a (device, time) of its own. Payloads have about 110 bytes.
    """
    stop_ms = stop_us // 1000 - stop_us // 1000 % 1000
    start_ms = stop_ms - -(-count // devices) * INTERVAL_S * 1000
    topics = [f"qala/1/bench/d{number}/t" for number in range(devices)]
    for index in range(count):
        turn, device = divmod(index, devices)
        ms = start_ms + turn * INTERVAL_S * 1000
        yield topics[device], (_power(ms, turn, device) if device % 2 else _air(ms, turn, device)).encode()


def _air(ms: int, turn: int, device: int) -> str:
    day, wobble = _of_day(ms), (turn * 7 + device * 13) % 50 / 10
    return (
        f'{{"t":{ms},"v":{{"pm2_5":{30 - 12 * day + wobble:.1f},"pm10":{52 - 15 * day + 2 * wobble:.1f},'
        f'"no2":{41 - 9 * day + wobble:.1f},"temperature":{2 + 8 * day - wobble / 10:.2f},'
        f'"relative_humidity":{60 - 20 * day + wobble:.1f}}}}}'
    )


def _power(ms: int, turn: int, device: int) -> str:
    wobble = (turn * 11 + device * 17) % 40
    watts = 3200 + 1400 * _of_day(ms) + 10 * wobble
    kwh = 10_000 + device * 31 + turn * (3200 + 200) * INTERVAL_S / 3.6e6
    return (
        f'{{"t":{ms},"v":{{"active_power":{watts:.0f},"energy_import":{kwh:.3f},"voltage":{228 + wobble / 10:.1f},'
        f'"current":{watts / 230:.2f},"power_factor":{0.90 + wobble / 500:.3f}}}}}'
    )


def _of_day(ms: int) -> float:
    """Return a wave over the day, -1 to 1."""
    return math.sin(2 * math.pi * (ms % _DAY_MS) / _DAY_MS)
