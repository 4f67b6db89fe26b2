"""The devices of the rehearsal city: which there are, and where they stand in its zones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from devices.device import Device, Placement, Zone
from devices.reading import Int64Array
from devices.rehearsal.geometry import inside, polar, position
from devices.rehearsal.model import Meters, Places, Roads
from devices.rehearsal.noise import uniform
from devices.rehearsal.plan import OUTER_KM, Block, blocks, city

__all__ = ["Fleet", "make_fleet"]

_GOLDEN = 0.618033988749895
_SILVER = 0.754877666246693
_SHARES = {"traffic_detector": 0.40, "air_station": 0.20, "electricity_meter": 1 / 3}  # the rest are weather stations
_FLEETS = {
    "traffic_detector": ("traffic", "d", "Detector"),
    "air_station": ("air", "a", "Air station"),
    "electricity_meter": ("energy", "m", "Meter"),
    "weather_station": ("weather", "w", "Weather station"),
}
_OFFICES = {"district-alan", "district-bilim", "district-kokzhiek"}
_INDUSTRY = {"district-onerkasip"}


class Fleet(msgspec.Struct, frozen=True):
    """All devices, kind by kind in the order of the model's rows, and what the model has to know of them."""

    devices: dict[str, list[Device]]  # by kind
    placements: list[Placement]
    roads: Roads
    road: Int64Array  # of each detector, an index into the roads
    places: Places
    meters: Meters


def make_fleet(seed: int, count: int) -> Fleet:
    """Place a number of devices in the city."""
    counts = {kind: round(count * share) for kind, share in _SHARES.items()}
    counts["weather_station"] = count - sum(counts.values())
    roads = [zone for zone in city() if zone.kind == "road"]
    feeders = [zone for zone in city() if zone.kind == "feeder"]
    spread = {
        "traffic_detector": list(_on_roads(roads, counts["traffic_detector"])),
        "air_station": list(_in_blocks("district", counts["air_station"])),
        "electricity_meter": list(_in_blocks("feeder", counts["electricity_meter"])),
        "weather_station": list(_in_blocks("district", counts["weather_station"])),
    }
    meters = _meters(seed, feeders, [zones for zones, _ in spread["electricity_meter"]])
    devices = {kind: [_device(kind, number) for number in range(len(where))] for kind, where in spread.items()}
    devices["electricity_meter"] = [
        msgspec.structs.replace(device, rated_kw=round(2.2 * float(peak_w) / 1000, 1))
        for device, peak_w in zip(devices["electricity_meter"], meters.peak_w, strict=True)
    ]
    ids = {zone.id: index for index, zone in enumerate(roads)}
    return Fleet(
        devices=devices,
        placements=[
            _placement(device, zones, point)
            for kind, where in spread.items()
            for device, (zones, point) in zip(devices[kind], where, strict=True)
        ],
        roads=_roads(seed, roads),
        road=np.array([ids[zones[0]] for zones, _ in spread["traffic_detector"]], np.int64),
        places=_places(seed, [zones[0] for zones, _ in spread["air_station"]]),
        meters=meters,
    )


_Where = tuple[tuple[str, ...], tuple[float, float]]
"""Zones, and a position: longitude, latitude [deg]."""


def _device(kind: str, number: int) -> Device:
    fleet, letter, title = _FLEETS[kind]
    return Device(id=f"{fleet}/{letter}{number + 1:03d}", kind=kind, name=f"{title} {number + 1}")


def _placement(device: Device, zones: tuple[str, ...], point: tuple[float, float]) -> Placement:
    return Placement(device=device.id, zones=zones, lon=point[0], lat=point[1])


def _on_roads(roads: Sequence[Zone], count: int) -> Iterator[_Where]:
    """Spread detectors evenly along each road."""
    districts = {zone: block.outline() for zone, block in blocks("district").items()}
    frame = {zone: np.array([position(point) for point in outline]) for zone, outline in districts.items()}
    for index, road in enumerate(roads):
        line = np.array(road.geometry["coordinates"])
        here = len(range(index, count, len(roads)))
        for number in range(here):
            at = (number + 0.5) / here * (len(line) - 1)
            point = line[int(at)] + (at % 1) * (line[min(int(at) + 1, len(line) - 1)] - line[int(at)])
            within = [zone for zone, outline in frame.items() if inside(point[None, :], outline)[0]]
            yield (road.id, *within[:1]), (round(float(point[0]), 6), round(float(point[1]), 6))


def _in_blocks(kind: str, count: int) -> Iterator[_Where]:
    """Spread devices over the zones of a kind, and over each zone's area."""
    parts = blocks(kind)
    for index, (zone, block) in enumerate(parts.items()):
        for number in range(len(range(index, count, len(parts)))):
            zones = (zone,) if kind == "district" else (zone, f"district-{zone.split('-')[1]}")
            yield zones, _spot(block, number, index + (0 if kind == "district" else 50))


def _spot(block: Block, number: int, start: int) -> tuple[float, float]:
    """Return the n-th point of an even sequence over a block (additive recurrence, so that no two are close)."""
    u = 0.08 + 0.84 * ((0.5 + _GOLDEN * (number + 3 * start)) % 1)
    v = 0.08 + 0.84 * ((0.5 + _SILVER * (number + 7 * start)) % 1)
    r = np.sqrt(block.inner**2 + u * (block.outer**2 - block.inner**2))
    return position(polar(np.array([r]), np.array([block.start + v * (block.stop - block.start)]))[0])


def _roads(seed: int, roads: Sequence[Zone]) -> Roads:
    """Give roads their lanes and their strain: most have room at rush hour, some are full, a few more than that."""
    free_flow = np.array([zone.free_flow_kmh or 50.0 for zone in roads])
    luck = uniform(seed, 61, np.arange(len(roads)))
    strain = 0.60 + 0.32 * luck + np.where(luck > 0.88, 0.20, 0.0)
    return Roads(free_flow_kmh=free_flow, lanes=np.where(free_flow >= 70, 3.0, 2.0), strain=strain)


def _places(seed: int, districts: Sequence[str]) -> Places:
    """Give air stations their surroundings: stoves in the outskirts, traffic in the middle, stacks by the foundry."""
    middle = {zone: 1 - block.inner / OUTER_KM for zone, block in blocks("district").items()}
    names = list(middle)
    quirk = 0.85 + 0.30 * uniform(seed, 62, np.arange(len(districts)))
    smoke = {zone: 0.45 + 0.95 * uniform(seed, 63, names.index(zone))[0] for zone in names}
    smoke["district-onerkasip"] += 0.35
    smoke["district-suzhaga"] *= 0.6
    return Places(
        district=np.array([names.index(zone) for zone in districts], np.int64),
        districts=len(names),
        smoke=np.array([smoke[zone] for zone in districts]) * quirk,
        exhaust=np.array([0.5 + 0.8 * middle[zone] for zone in districts]) * quirk,
        industry=np.array([1.6 if zone in _INDUSTRY else 0.3 for zone in districts]) * quirk,
    )


def _meters(seed: int, feeders: Sequence[Zone], zones: Sequence[tuple[str, ...]]) -> Meters:
    """Share each feeder's load among its meters: at its peak most carry 55 to 88 % of what they can, two of them more."""
    here = {zone.id: sum(zone.id in each for each in zones) for zone in feeders}
    luck = uniform(seed, 64, np.arange(len(feeders)))
    peak = 0.55 + 0.33 * luck
    peak[np.argsort(luck)[-2:]] = (1.04, 1.10)
    peak_w = {zone.id: 1000 * (zone.rated_kw or 0) * share for zone, share in zip(feeders, peak, strict=True)}
    uses = [1 if each[1] in _OFFICES else 2 if each[1] in _INDUSTRY else 0 for each in zones]
    return Meters(
        use=np.array(uses, np.int64),
        peak_w=np.array([peak_w[each[0]] / here[each[0]] for each in zones]),
    )
