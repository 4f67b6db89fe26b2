"""The plan of the rehearsal city: a planned city of our own drawing, north-east of Almaty, with a lake to its north-east.

A square in the middle, four inner districts around it and five outer ones around those; three ring roads, nine avenues
and three highways; every district is fed by two or three feeders. `city()` gives the zones, `basemap()` what a map shows
beneath them: water, parks, minor streets, the railway.

`devices/rehearsal/*.geojson` are these drawings as files. To write them anew after a change:

    python -c "from pathlib import Path; from devices.rehearsal import plan; here = Path(plan.__file__).parent; \
    [(here / name).write_text(plan.as_text(drawn())) for name, drawn in plan.DRAWINGS.items()]"
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import numpy as np

from devices.device import Zone
from devices.rehearsal.geometry import (
    Line,
    arc,
    clipped,
    length_m,
    line,
    polar,
    polygon,
    position,
    radial,
    ribbon,
    sector,
    smooth,
)
from devices.rehearsal.names import ARCS, AVENUES, DISTRICTS, HIGHWAYS, RINGS, SECTIONS, SITES, Names, joined

__all__ = ["DRAWINGS", "Block", "as_text", "basemap", "blocks", "city"]

CORE_KM, INNER_KM, OUTER_KM = 1.1, 2.5, 4.0
_INNER = (35, 125, 215, 305)
_OUTER = (10, 82, 154, 226, 298)


class Block(NamedTuple):
    """A part of the plan between two radii [km] and two angles [deg]: a district or a feeder."""

    inner: float
    outer: float
    start: int
    stop: int

    def outline(self) -> Line:
        """Draw the closed outline."""
        return sector(*self)

    def split(self, parts: int) -> list[Block]:
        """Cut it into parts of about the same angle."""
        edges = [round(self.start + (self.stop - self.start) * i / parts) for i in range(parts + 1)]
        return [self._replace(start=a, stop=b) for a, b in pairwise(edges)]


def _ring(names: tuple[str, ...], inner: float, outer: float, angles: tuple[int, ...]) -> dict[str, Block]:
    edges = (*angles, angles[0] + 360)
    return {name: Block(inner, outer, a, b) for name, (a, b) in zip(names, pairwise(edges), strict=True)}


DISTRICT_BLOCKS: Mapping[str, Block] = MappingProxyType(
    {
        "alan": Block(0.0, CORE_KM, 35, 395),
        **_ring(("bilim", "zhibek", "samruq", "almabaq"), CORE_KM, INNER_KM, _INNER),
        **_ring(("suzhaga", "kokzhiek", "zhanadala", "onerkasip", "tauqaqpa"), INNER_KM, OUTER_KM, _OUTER),
    },
)

# How many feeders a district has.
_FEEDERS = {"alan": 2, "bilim": 3, "zhibek": 3, "samruq": 3, "almabaq": 3}
_FEEDERS_OUTSIDE = 2
RATED_KW = 2500.0
"""What a feeder can carry [kW]."""

# Avenues: (angle [deg], sections as pairs of radii [km]); free flow [km/h] by section. The core is crossed slowly.
_AVENUES = {
    "tulpar": (35, (0.2, CORE_KM, INNER_KM, OUTER_KM)),
    "baiterek": (125, (0.2, CORE_KM, INNER_KM, OUTER_KM)),
    "qyran": (215, (0.2, CORE_KM, INNER_KM)),
    "zhuldyz": (305, (0.2, CORE_KM, INNER_KM)),
    "aqqu": (82, (CORE_KM, INNER_KM, OUTER_KM)),
    "shagala": (154, (INNER_KM, OUTER_KM)),
    "qyzgaldaq": (226, (INNER_KM, OUTER_KM)),
    "arsha": (298, (INNER_KM, OUTER_KM)),
    "karagash": (10, (CORE_KM, INNER_KM, OUTER_KM)),
}
_SECTION_KMH = {0.2: 40.0, CORE_KM: 50.0, INNER_KM: 60.0}
_RINGS = {
    "garden": (CORE_KM, _INNER, 50.0),
    "middle": (INNER_KM, (10, 35, 82, 125, 154, 226, 298), 70.0),
    "orbital": (OUTER_KM, (10, 35, 82, 125, 154, 226, 298), 90.0),
}
"""A ring's radius [km], the angles [deg] where its sections meet, its free flow [km/h]."""

_HIGHWAYS = {"lake": (118, -3.0), "steppe": (172, 4.0), "mountain": (250, 5.0)}
"""A highway's angle at the orbital and how far it turns a kilometre [deg]."""
_HIGHWAY_KMH = 90.0
_HIGHWAY_KM = 7.2

_SITES = {
    "city-hall": ("alan", 0.35, 300),
    "central-station": ("zhanadala", 3.8, 158),
    "university": ("bilim", 1.75, 68),
    "hospital": ("zhibek", 1.9, 150),
    "heat-plant": ("onerkasip", 3.5, 285),
    "waterworks": ("suzhaga", 3.6, 50),
    "stadium": ("samruq", 1.5, 240),
    "tech-park": ("kokzhiek", 3.2, 135),
}
"""A site's district, radius [km] and angle [deg]."""

_SQUARE = Block(0.0, 0.2, 0, 360)
_PARKS = (
    Block(0.4, 0.75, 150, 185),
    Block(1.4, 2.0, 72, 92),
    Block(1.5, 2.1, 164, 190),
    Block(1.5, 2.0, 255, 276),
    Block(1.7, 2.3, 322, 338),
    Block(2.8, 3.5, 186, 204),
    Block(2.9, 3.6, 240, 256),
    Block(3.1, 3.7, 98, 114),
    Block(2.8, 3.2, 18, 30),
    Block(3.0, 3.5, 334, 346),
)
_PROMENADE = Block(4.1, 4.3, 14, 80)
_RIVER = (
    (3.6, -11.0), (3.1, -9.2), (2.9, -7.9), (2.5, -6.7), (2.25, -5.4), (2.5, -4.3), (2.0, -3.3), (1.55, -2.4),
    (1.65, -1.5), (1.35, -0.6), (1.5, 0.3), (1.35, 1.1), (1.7, 1.9), (1.9, 2.7), (2.4, 3.4), (2.8, 4.3),
)  # fmt: skip
_SHORE = (4.3, (14, 80))
"""Where the lake meets the city: radius [km], angles [deg]. The far shore is drawn by hand."""
_FAR_SHORE = (
    (0.75, 4.75), (0.35, 5.3), (0.7, 6.2), (1.3, 6.6), (1.75, 7.6), (3.0, 8.1), (4.4, 7.5), (5.6, 7.6), (6.6, 6.6),
    (7.9, 5.9), (8.1, 4.4), (7.5, 3.2), (7.7, 2.0), (6.8, 0.9), (5.6, 0.75), (4.9, 0.85),
)  # fmt: skip
_RAILWAY = (
    (-1.2, -11.0), (-1.9, -8.8), (-2.9, -6.6), (-3.9, -4.6), (-4.5, -2.6), (-4.7, -0.8), (-4.45, 1.2), (-3.9, 3.1), (-3.5, 5.0),
    (-3.7, 7.2), (-4.4, 9.5),
)  # fmt: skip
_VILLAGES = (
    (-5.6, -2.2, 0.75, 24),
    (-2.9, -5.4, 0.6, 60),
    (4.7, -3.6, 0.8, 40),
    (-3.1, 5.0, 0.55, 12),
    (5.4, -0.9, 0.5, 75),
)
"""Settlements around the city: x, y, radius [km], and how their streets are turned [deg]."""
_RIVER_KM, _BANKS_KM = 0.04, 0.14


def blocks(kind: str) -> Mapping[str, Block]:
    """Return the parts of the plan that zones of a kind cover: "district" or "feeder", by zone id."""
    if kind == "district":
        return {f"district-{name}": block for name, block in DISTRICT_BLOCKS.items()}
    return {
        f"feeder-{name}-{number}": part
        for name, block in DISTRICT_BLOCKS.items()
        for number, part in enumerate(block.split(_FEEDERS.get(name, _FEEDERS_OUTSIDE)), start=1)
    }


@cache
def city() -> tuple[Zone, ...]:
    """Return the zones: 10 districts, 38 roads, 24 feeders, 8 sites."""
    return (*_districts(), *_roads(), *_feeders(), *_sites())


def _districts() -> Iterator[Zone]:
    for name, block in DISTRICT_BLOCKS.items():
        yield Zone(f"district-{name}", "district", DISTRICTS[name]._asdict(), polygon(block.outline()))


def _feeders() -> Iterator[Zone]:
    for zone, block in blocks("feeder").items():
        _, district, number = zone.split("-")
        names = Names(*(f"{name} {number}" for name in DISTRICTS[district]))
        yield Zone(
            zone,
            "feeder",
            names._asdict(),
            polygon(block.outline()),
            parent=f"district-{district}",
            rated_kw=RATED_KW,
        )


def _sites() -> Iterator[Zone]:
    for name, (district, r, degrees) in _SITES.items():
        at = position(polar(np.array([r]), np.array([float(degrees)]))[0])
        point = {"type": "Point", "coordinates": list(at)}
        yield Zone(f"site-{name}", "site", SITES[name]._asdict(), point, parent=f"district-{district}")


def _roads() -> Iterator[Zone]:
    for name, (degrees, radii) in _AVENUES.items():
        for inner, outer in pairwise(radii):
            number = (0.2, CORE_KM, INNER_KM).index(inner)
            names = joined(AVENUES[name], SECTIONS[number])
            yield _road(f"{name}-{number + 1}", names, radial(degrees, inner, outer), _SECTION_KMH[inner])
    for name, (r, angles, kmh) in _RINGS.items():
        for start, stop in pairwise((*angles, angles[0] + 360)):
            side = ARCS[round((start + stop) / 90) % 8]
            yield _road(f"{name}-{side.en}", joined(RINGS[name], side), arc(r, start, stop), kmh)
    for name, (degrees, turn) in _HIGHWAYS.items():
        along = np.linspace(OUTER_KM, _HIGHWAY_KM, 25)
        yield _road(name, HIGHWAYS[name], polar(along, degrees + turn * (along - OUTER_KM)), _HIGHWAY_KMH)


def _road(name: str, names: Names, points: Line, kmh: float) -> Zone:
    return Zone(
        f"road-{name}",
        "road",
        names._asdict(),
        line(points),
        free_flow_kmh=kmh,
        length_m=round(length_m(points)),
    )


@cache
def basemap() -> tuple[Mapping[str, Any], ...]:
    """Return GeoJSON features to draw beneath the zones; their property `kind` is water, park, street or railway."""
    river, lake = smooth(_RIVER), _lake()
    green = [ribbon(river, _BANKS_KM), _SQUARE.outline(), _PROMENADE.outline(), *map(_rounded, _PARKS)]
    return (
        *(_feature("park", polygon(outline)) for outline in green),
        _feature("water", polygon(ribbon(river, _RIVER_KM))),
        _feature("water", polygon(lake)),
        *(_feature("street", line(street)) for street in _streets([lake, *green])),
        _feature("railway", line(smooth(_RAILWAY))),
    )


def _lake() -> Line:
    r, (start, stop) = _SHORE
    near = arc(r, start, stop)
    far = smooth([*map(tuple, near[-2:]), *_FAR_SHORE, *map(tuple, near[:2])])
    return np.vstack((near[1:-1], far[12:-12], near[1:2]))


def _rounded(block: Block) -> Line:
    """Draw a park that fills a block but for its corners."""
    turn = np.linspace(0, 2 * np.pi, 49)
    across, along = (np.sign(wave(turn)) * np.abs(wave(turn)) ** 0.6 for wave in (np.cos, np.sin))
    r = (block.inner + block.outer) / 2 + across * (block.outer - block.inner) / 2
    outline = polar(r, (block.start + block.stop) / 2 + along * (block.stop - block.start) / 2)
    return np.vstack((outline[:-1], outline[:1]))


def _feature(kind: str, geometry: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"type": "Feature", "properties": {"kind": kind}, "geometry": geometry}


def _streets(keep_out: list[Line]) -> Iterator[Line]:
    for block in DISTRICT_BLOCKS.values():
        for street in _web(block) if block.inner == CORE_KM else _district_grid(block):
            yield from clipped(street, block.outline(), keep_out)
    circle = np.linspace(0, 2 * np.pi, 37)
    for x, y, r, degrees in _VILLAGES:
        edge = np.column_stack((x + r * np.cos(circle), y + 0.7 * r * np.sin(circle)))
        for street in _grid(degrees, 0.15, (x, y), r):
            yield from clipped(street, edge, keep_out)


def _web(block: Block) -> Iterator[Line]:
    """Draw streets along and across the rings."""
    for r in (1.3, 1.5, 1.7, 1.9, 2.1, 2.3):
        yield arc(r, block.start, block.stop)
    for degrees in range(block.start + 6, block.stop, 6):
        yield radial(degrees, block.inner + 0.1 * (degrees % 4), block.outer)


def _district_grid(block: Block) -> Iterator[Line]:
    """Draw a right-angled grid that faces the middle of the city."""
    if block.inner:
        return _grid((block.start + block.stop) / 2, 0.24, (0.0, 0.0), 5.0)
    return _grid(float(block.start), 0.17, (0.0, 0.0), block.outer * 1.2)


def _grid(degrees: float, spacing: float, middle: tuple[float, float], reach: float) -> Iterator[Line]:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    along = np.arange(-reach, reach, 0.04)
    for offset in np.arange(-reach, reach, spacing):
        across = np.full(len(along), offset + spacing / 2)
        yield np.column_stack((along, across)) @ turn + middle
        yield np.column_stack((across, along)) @ turn + middle


def as_text(features: Mapping[str, Any]) -> str:
    """Write a drawing as the text of a GeoJSON file."""
    return msgspec.json.encode(features).decode() + "\n"


def _zones_drawing() -> Mapping[str, Any]:
    return {"type": "FeatureCollection", "features": [_zone_feature(zone) for zone in city()]}


def _zone_feature(zone: Zone) -> Mapping[str, Any]:
    fields = msgspec.structs.asdict(zone)
    geometry = fields.pop("geometry")
    properties = {name: value for name, value in fields.items() if value is not None and name != "id"}
    return {"type": "Feature", "id": zone.id, "properties": properties, "geometry": geometry}


def _basemap_drawing() -> Mapping[str, Any]:
    return {"type": "FeatureCollection", "features": basemap()}


DRAWINGS: Mapping[str, Callable[[], Mapping[str, Any]]] = MappingProxyType(
    {"city.geojson": _zones_drawing, "basemap.geojson": _basemap_drawing},
)
"""The files beside this module, and what draws each."""
