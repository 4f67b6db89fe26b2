"""Geometry of a drawn city: a polar plan bent into a natural shape, in kilometres, and from there to WGS 84."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CENTRE",
    "Line",
    "arc",
    "clipped",
    "inside",
    "length_m",
    "line",
    "polar",
    "polygon",
    "position",
    "radial",
    "ribbon",
    "sector",
    "smooth",
]

Line = NDArray[np.float64]
"""Points in the plan [km], x to the east, y to the north: float64[n, 2]."""

CENTRE = (77.098, 43.672)
"""Where the plan's origin lies: longitude, latitude [deg]."""

_KM_PER_DEG_LAT = 111.13
_KM_PER_DEG_LON = 111.32 * math.cos(math.radians(CENTRE[1]))


def polar(r: NDArray[np.float64], degrees: NDArray[np.float64]) -> Line:
    """Place polar points in the plan: circles become the city's rounded outline, radials bend a little on their way out."""
    angle = np.radians(degrees) + 0.05 * np.sin(0.9 * r)
    outline = 1 + 0.07 * np.cos(2 * angle - 1.0) + 0.035 * np.cos(3 * angle + 1.0)
    x, y = r * outline * np.cos(angle), r * outline * np.sin(angle)
    return np.column_stack((x + 0.12 * np.sin(0.8 * y + 0.6), y + 0.10 * np.sin(0.7 * x)))


def arc(r: float, start: int, stop: int) -> Line:
    """Draw along a ring at r [km] from one angle to another [deg, counter-clockwise from east], a point a degree.

    All lines of the plan have their points on one polar grid of whole degrees and tenths of a kilometre, so that
    neighbours meet in the very same points.
    """
    degrees = np.linspace(start, stop, abs(stop - start) + 1)
    return polar(np.full(len(degrees), r), degrees)


def radial(degrees: float, start: float, stop: float) -> Line:
    """Draw along an angle [deg] from one radius to another [km], a point every 100 m."""
    r = np.linspace(start, stop, round(abs(stop - start) * 10) + 1)
    return polar(r, np.full(len(r), degrees))


def sector(inner: float, outer: float, start: int, stop: int) -> Line:
    """Draw the closed outline between two radii [km] and two angles [deg], counter-clockwise.

    A full circle has no radial sides.
    """
    if stop - start == 360:
        return arc(outer, start, stop)
    parts = [arc(outer, start, stop), radial(stop, outer, inner), radial(start, inner, outer)]
    if inner:
        parts.insert(2, arc(inner, stop, start))
    return np.vstack([parts[0], *(part[1:] for part in parts[1:])])


def smooth(points: Sequence[tuple[float, float]], *, closed: bool = False) -> Line:
    """Draw a smooth curve through points (Catmull-Rom)."""
    knots = np.array(points, np.float64)
    around = np.vstack((knots[-1:], knots, knots[:2])) if closed else np.vstack((knots[:1], knots, knots[-1:]))
    t = np.linspace(0, 1, 12, endpoint=False)[:, None]
    spans = [_catmull_rom(around[i : i + 4], t) for i in range(len(around) - 3)]
    return np.vstack((*spans, around[-2:-1]))


def _catmull_rom(p: Line, t: NDArray[np.float64]) -> Line:
    bent: Line = 0.5 * (
        2 * p[1]
        + (p[2] - p[0]) * t
        + (2 * p[0] - 5 * p[1] + 4 * p[2] - p[3]) * t**2
        + (3 * p[1] - p[0] - 3 * p[2] + p[3]) * t**3
    )
    return bent


def ribbon(points: Line, half_width: float) -> Line:
    """Draw the outline of a strip of a width [km] along a curve."""
    along = np.gradient(points, axis=0)
    along /= np.linalg.norm(along, axis=1)[:, None]
    across = np.column_stack((-along[:, 1], along[:, 0])) * half_width
    outline = np.vstack((points + across, (points - across)[::-1]))
    return np.vstack((outline, outline[:1]))


def inside(points: Line, outline: Line) -> NDArray[np.bool_]:
    """Tell which points lie inside a closed outline (even-odd rule)."""
    x, y = points[:, :1], points[:, 1:]
    (x0, y0), (x1, y1) = outline[:-1].T, outline[1:].T
    rise = np.where(y1 == y0, 1.0, y1 - y0)
    crosses = ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / rise + x0)
    odd: NDArray[np.bool_] = crosses.sum(axis=1) % 2 == 1
    return odd


def clipped(points: Line, within: Line, without: Sequence[Line] = ()) -> Iterator[Line]:
    """Yield the stretches of a line inside an outline and outside others."""
    keep = inside(points, within)
    for outline in without:
        keep &= ~inside(points, outline)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], keep.astype(np.int8), [0]))))
    for start, stop in edges.reshape(-1, 2):
        if stop - start > 2:
            yield points[start:stop]


def length_m(points: Line) -> float:
    """Return a line's length [m]."""
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum() * 1000)


def position(point: NDArray[np.float64]) -> tuple[float, float]:
    """Return longitude and latitude [deg] of a point of the plan."""
    return (
        round(CENTRE[0] + float(point[0]) / _KM_PER_DEG_LON, 6),
        round(CENTRE[1] + float(point[1]) / _KM_PER_DEG_LAT, 6),
    )


def line(points: Line) -> dict[str, Any]:
    """Make a GeoJSON LineString."""
    return {"type": "LineString", "coordinates": [list(position(point)) for point in points]}


def polygon(outline: Line) -> dict[str, Any]:
    """Make a GeoJSON Polygon of a closed outline."""
    ring = [list(position(point)) for point in outline]
    return {"type": "Polygon", "coordinates": [[*ring[:-1], ring[0]]]}
