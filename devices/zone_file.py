"""Read zones from the text of a GeoJSON file (RFC 7946): a FeatureCollection in WGS 84.

A feature's `id` (or its property `id`) is the zone's id. Its properties: `kind` (district, road, feeder, site), `names`
({"en": ..., "ru": ..., "kk": ...}, at least one) or `name`, and where they apply `parent` (the id of a zone in the same file),
`free_flow_kmh` (every road has it), `length_m` (roads), `rated_kw` (feeders). Other properties are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import msgspec

from devices.device import Zone
from devices.errors import ConfigError

__all__ = ["GEOMETRIES", "ZONES_MAX", "parse_zones"]

ZONES_MAX = 100_000

GEOMETRIES: Mapping[str, frozenset[str]] = {
    "district": frozenset({"Polygon", "MultiPolygon"}),
    "road": frozenset({"LineString", "MultiLineString"}),
    "feeder": frozenset({"Polygon", "MultiPolygon"}),
    "site": frozenset({"Point", "Polygon", "MultiPolygon"}),
}
"""Zone kinds, and the GeoJSON geometries that each may have."""

# How deep positions lie in the coordinates of a geometry.
_DEPTH = {"Point": 0, "LineString": 1, "MultiLineString": 2, "Polygon": 2, "MultiPolygon": 3}


class _Feature(NamedTuple):
    """A feature as written, and its place in the file (1, 2, 3, ...)."""

    number: int
    id: str
    properties: Mapping[str, Any]
    geometry: Mapping[str, Any]

    def fail(self, field: str, problem: str, hint: str) -> NoReturn:
        where = f"zones file, feature {self.number}" + (f" ({self.id})" if self.id else "")
        raise ConfigError(f"{where}, field {field!r}: {problem}", hint=hint)


def parse_zones(geojson_text: str) -> list[Zone]:
    """Read a zones file and return its zones in order.

    Raises ConfigError, naming the feature and the field, where something in it is wrong.

    >>> text = '{"type": "FeatureCollection", "features": [{"type": "Feature", "id": "s1", "properties": '
    >>> text += '{"kind": "site", "name": "Depot"}, "geometry": {"type": "Point", "coordinates": [77.1, 43.7]}}]}'
    >>> [(zone.id, zone.kind, dict(zone.names)) for zone in parse_zones(text)]
    [('s1', 'site', {'en': 'Depot'})]
    """
    zones: dict[str, Zone] = {}
    features = [_feature(number, raw) for number, raw in enumerate(_features(geojson_text), start=1)]
    for feature in features:
        if feature.id in zones:
            feature.fail("id", "is taken by a feature above", "give every zone its own id")
        zones[feature.id] = _zone(feature)
    for feature in features:
        parent = feature.properties.get("parent")
        if parent is not None and (not isinstance(parent, str) or parent not in zones):
            feature.fail("parent", f"there is no zone {parent!r}", "add it to the file, or correct the parent")
    return list(zones.values())


def _features(text: str) -> list[Any]:
    try:
        root = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise ConfigError(f"the zones file is not JSON: {error}", hint="export it as GeoJSON (RFC 7946)") from error
    features = root.get("features") if isinstance(root, dict) else None
    if not isinstance(features, list):
        raise ConfigError("the zones file is no FeatureCollection", hint="export it as GeoJSON (RFC 7946)")
    if len(features) > ZONES_MAX:
        raise ConfigError(f"the zones file has more than {ZONES_MAX} features", hint="keep only zones in it")
    return features


def _feature(number: int, raw: Any) -> _Feature:
    feature = _Feature(number, "", {}, {})
    if not isinstance(raw, dict):
        feature.fail("type", "this is no feature", "each member of `features` is an object of the type Feature")
    properties, geometry = raw.get("properties") or {}, raw.get("geometry")
    if not isinstance(properties, dict) or not isinstance(geometry, dict):
        feature.fail("geometry", "properties and geometry are objects", "export it as GeoJSON (RFC 7946)")
    zone = raw.get("id", properties.get("id"))
    if not isinstance(zone, str) or not zone or len(zone.split()) != 1 or len(zone) > 128:
        feature.fail("id", f"{zone!r} is no id", "a short text without spaces")
    return _Feature(number, zone, properties, geometry)


def _zone(feature: _Feature) -> Zone:
    kind = feature.properties.get("kind")
    if not isinstance(kind, str) or kind not in GEOMETRIES:
        feature.fail("kind", f"{kind!r} is no kind of zone", "the kinds are " + ", ".join(GEOMETRIES))
    _check_geometry(feature, kind)
    zone = Zone(
        id=feature.id,
        kind=kind,
        names=_names(feature),
        geometry=feature.geometry,
        parent=feature.properties.get("parent"),
        free_flow_kmh=_positive(feature, "free_flow_kmh"),
        length_m=_positive(feature, "length_m"),
        rated_kw=_positive(feature, "rated_kw"),
    )
    if kind == "road" and zone.free_flow_kmh is None:
        feature.fail("free_flow_kmh", "is missing", "every road declares its free-flow speed [km/h]")
    return zone


def _names(feature: _Feature) -> Mapping[str, str]:
    names = feature.properties.get("names", {"en": feature.properties.get("name")})
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) and name for name in names.values()):
        feature.fail("names", f"{names!r} are no names", 'write {"en": "Old Town", "ru": "Старый город"}')
    return names


def _positive(feature: _Feature, field: str) -> float | None:
    value = feature.properties.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        feature.fail(field, f"{value!r} is no number above 0", "correct it, or leave it out")
    return float(value)


def _check_geometry(feature: _Feature, kind: str) -> None:
    shape = feature.geometry.get("type")
    if not isinstance(shape, str) or shape not in GEOMETRIES[kind]:
        feature.fail("geometry", f"a {kind} is no {shape}", "use " + " or ".join(sorted(GEOMETRIES[kind])))
    coordinates: Any = feature.geometry.get("coordinates")
    if not _nested(coordinates, _DEPTH[shape]):
        feature.fail("geometry", f"these are no coordinates of a {shape}", "positions are [lon, lat] in WGS 84 [deg]")
    if shape in {"Polygon", "MultiPolygon"}:
        polygons = [coordinates] if shape == "Polygon" else coordinates
        if not all(len(ring) >= 4 and ring[0] == ring[-1] for polygon in polygons for ring in polygon):
            feature.fail(
                "geometry", "a ring is not closed", "its last position repeats its first; at least four in all"
            )
    if shape == "LineString" and len(coordinates) < 2:
        feature.fail("geometry", "a line has at least two positions", "add the other end")


def _nested(coordinates: Any, depth: int) -> bool:
    """Tell whether these are positions at this depth, with no empty list on the way."""
    if not isinstance(coordinates, list) or not coordinates:
        return False
    if depth:
        return all(_nested(part, depth - 1) for part in coordinates)
    return len(coordinates) >= 2 and _is_number(coordinates[0], 180) and _is_number(coordinates[1], 90)


def _is_number(value: Any, limit: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -limit <= value <= limit
