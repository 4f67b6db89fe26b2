"""Faults of the rehearsal city: what goes wrong, at which device, from when to when. The ground truth of its data.

Every fault begins and ends within one UTC day (05:00 to 05:00 on the city's clocks), so that a day can be made alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import msgspec

from devices.device import Device
from devices.rehearsal.model import DAY_S
from devices.rehearsal.noise import uniform

__all__ = ["FAULTS", "Fault", "FaultKind", "day_faults"]

SECOND_US = 1_000_000
DEVICES_PER_RATE = 300


class FaultKind(StrEnum):
    """What can go wrong."""

    STUCK = "stuck"  # one quantity keeps its value
    SPIKE = "spike"  # one reading of one quantity stands far out
    DRIFT = "drift"  # one quantity climbs away from the truth, until it is put right
    GAP = "gap"  # nothing is sent
    DUPLICATE = "duplicate"  # every message is sent twice
    LATE_BATCH = "late_batch"  # nothing is sent, then all of it at once
    CLOCK_SKEW = "clock_skew"  # the device's clock is wrong
    METER_RESET = "meter_reset"  # a counter begins again at zero
    MALFORMED = "malformed"  # the payload is not what the format describes


FAULTS: Mapping[str, float] = MappingProxyType(
    {
        FaultKind.STUCK: 1.0,
        FaultKind.SPIKE: 6.0,
        FaultKind.DRIFT: 1.0,
        FaultKind.GAP: 2.0,
        FaultKind.DUPLICATE: 1.0,
        FaultKind.LATE_BATCH: 1.0,
        FaultKind.CLOCK_SKEW: 0.5,
        FaultKind.METER_RESET: 0.3,
        FaultKind.MALFORMED: 2.0,
    },
)
"""How many faults of each kind begin on a day among 300 devices, on average: rare, as in a fleet that is cared for."""

_MINUTES: Mapping[str, tuple[int, int]] = {
    FaultKind.STUCK: (420, 720),
    FaultKind.SPIKE: (1, 1),
    FaultKind.DRIFT: (360, 720),
    FaultKind.GAP: (20, 150),
    FaultKind.DUPLICATE: (30, 90),
    FaultKind.LATE_BATCH: (30, 90),
    FaultKind.CLOCK_SKEW: (30, 120),
    FaultKind.METER_RESET: (1, 1),
    FaultKind.MALFORMED: (3, 15),
}
"""How long a fault lasts, shortest and longest; those of a spike and a reset are one reading."""

_ONLY = {FaultKind.METER_RESET: "electricity_meter", FaultKind.DRIFT: "air_station"}
_SKEWS_S = (900, -1807, -86_413)


class Fault(msgspec.Struct, frozen=True):
    """One fault: the readings of `device` at times in `[start_us, end_us)` are those that it spoils."""

    device: str
    kind: FaultKind
    start_us: int
    end_us: int
    detail: Mapping[str, Any] = {}


def day_faults(
    seed: int, day: int, rates: Mapping[str, float], fleet: Mapping[str, Sequence[Device]]
) -> Iterator[Fault]:
    """Yield the faults that begin on a UTC day (days since 1970). `fleet` holds the devices by kind."""
    everyone = sum(map(len, fleet.values()))
    for stream, kind in enumerate(FaultKind, start=100):
        expected = rates.get(kind, 0.0) * everyone / DEVICES_PER_RATE
        if not expected:
            continue
        for number in range(int(expected + uniform(seed, stream, day)[0])):
            candidates = (
                fleet[_ONLY[kind]] if kind in _ONLY else [each for devices in fleet.values() for each in devices]
            )
            if candidates:
                rolls = [float(roll) for roll in uniform(seed, stream, day, number + 1, range(4))]
                yield _fault(day, kind, candidates[int(rolls[0] * len(candidates))], rolls)


def _fault(day: int, kind: FaultKind, device: Device, rolls: Sequence[float]) -> Fault:
    shortest, longest = _MINUTES[kind]
    every = 5 if device.kind == "weather_station" else 1  # minutes between its readings
    minutes = max(every, round(shortest + rolls[1] * (longest - shortest)) // every * every)
    # A meter is swapped in the night's last minute, at the day's start; the rest happens at any time.
    first = 0 if kind is FaultKind.METER_RESET else int(rolls[2] * (1440 - minutes)) // every * every
    start_us = (day * DAY_S + first * 60) * SECOND_US
    return Fault(device.id, kind, start_us, start_us + minutes * 60 * SECOND_US, _detail(kind, device, rolls[3]))


_MAIN = {
    "traffic_detector": ("speed", 150.0),
    "air_station": ("pm2_5", 450.0),
    "electricity_meter": ("voltage", 70.0),
    "weather_station": ("temperature", 30.0),
}
"""The quantity of each kind that a fault spoils, and how far a spike of it stands out."""


def _detail(kind: FaultKind, device: Device, roll: float) -> Mapping[str, Any]:
    quantity, spike = _MAIN[device.kind]
    if kind is FaultKind.SPIKE:
        return {"quantity": quantity, "added": round(spike * (0.8 + 0.4 * roll), 1)}
    if kind is FaultKind.STUCK:
        return {"quantity": quantity}
    if kind is FaultKind.DRIFT:
        return {"quantity": quantity, "factor": round(1.4 + 0.5 * roll, 2)}
    if kind is FaultKind.CLOCK_SKEW:
        return {"offset_s": _SKEWS_S[int(roll * len(_SKEWS_S))]}
    return {}
