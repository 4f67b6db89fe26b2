"""The devices of the load and what they send: half air stations, half meters, in the rehearsal city's districts and feeders."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
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
_DICE = random.Random(7)  # noqa: S311 - not for secrets
_NOISE = [_DICE.gauss(0.0, 1.0) for _ in range(65_537)]  # so that nothing packs better than a real city's readings


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
        noise = [_NOISE[(index * READINGS + k) % len(_NOISE)] for k in range(READINGS)]
        yield topics[device], (_power(ms, turn, device, noise) if device % 2 else _air(ms, noise)).encode()


def _air(ms: int, noise: Sequence[float]) -> str:
    day = _of_day(ms)
    return (
        f'{{"t":{ms},"v":{{"pm2_5":{30 - 12 * day + 2 * noise[0]:.1f},"pm10":{52 - 15 * day + 4 * noise[1]:.1f},'
        f'"no2":{41 - 9 * day + 2 * noise[2]:.1f},"temperature":{2 + 8 * day + noise[3] / 5:.2f},'
        f'"relative_humidity":{60 - 20 * day + noise[4]:.1f}}}}}'
    )


def _power(ms: int, turn: int, device: int, noise: Sequence[float]) -> str:
    watts = 3200 + 1400 * _of_day(ms) + 60 * noise[0]
    kwh = 10_000 + device * 31 + turn * 3400 * INTERVAL_S / 3.6e6
    return (
        f'{{"t":{ms},"v":{{"active_power":{watts:.0f},"energy_import":{kwh:.3f},"voltage":{230 + 1.5 * noise[2]:.1f},'
        f'"current":{watts / 230 + noise[3] / 20:.2f},"power_factor":{0.94 + noise[4] / 100:.3f}}}}}'
    )


def _of_day(ms: int) -> float:
    """Return a wave over the day, -1 to 1."""
    return math.sin(2 * math.pi * (ms % _DAY_MS) / _DAY_MS)
