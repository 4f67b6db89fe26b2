"""Zones, and the map's layers as GeoJSON."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from dashboards.api import contract
from dashboards.api.context import Context
from dashboards.api.paging import CursorQuery, LimitQuery, page_of
from dashboards.api.render import etagged, json_page
from devices.device import Zone
from devices.errors import NotFoundError

router = APIRouter(tags=["zones"])

_GEOJSON = "application/geo+json"
_BASEMAP_MAX = 64 * 1024 * 1024


@router.get("/zones", response_model=contract.Page[contract.Zone])
async def list_zones(
    context: Context,
    request: Request,
    kind: str | None = None,
    limit: LimitQuery = None,
    cursor: CursorQuery = None,
) -> Response:
    """List the zones by id, without their geometry."""
    zones = context.registry().zones
    wanted = (zones[id_] for id_ in sorted(zones) if kind in {None, zones[id_].kind})
    page, more = page_of(wanted, attrgetter("id"), context.settings, limit, cursor)
    return json_page(request, [_properties(zone) for zone in page], more)


@router.get("/geo/zones.geojson", response_model=contract.FeatureCollection)
async def zones_geojson(context: Context, request: Request, kind: str | None = None) -> Response:
    """Give the zones as GeoJSON features."""
    zones = context.registry().zones
    features = [
        {"type": "Feature", "id": id_, "geometry": zones[id_].geometry, "properties": _properties(zones[id_])}
        for id_ in sorted(zones)
        if kind in {None, zones[id_].kind}
    ]
    return _collection(request, features)


@router.get("/geo/devices.geojson", response_model=contract.FeatureCollection)
async def devices_geojson(context: Context, request: Request) -> Response:
    """Give the devices that have a place as GeoJSON points with their state."""
    features = [
        {
            "type": "Feature",
            "id": device.id,
            "geometry": {"type": "Point", "coordinates": (device.lon, device.lat)},
            "properties": {
                "id": device.id,
                "name": device.name,
                "kind": device.kind,
                "domain": device.domain,
                "state": device.state,
            },
        }
        for device in context.devices()
        if device.lat is not None and device.lon is not None
    ]
    return _collection(request, features)


@router.get("/geo/basemap.geojson", response_model=contract.FeatureCollection)
def basemap(context: Context, request: Request) -> Response:
    """Give the base map: what is drawn under the zones."""
    path = context.settings.basemap
    try:
        with path.open("rb") as file:
            return etagged(request, file.read(_BASEMAP_MAX), _GEOJSON)
    except OSError:
        hint = "set dashboards.basemap to a GeoJSON file"
        raise NotFoundError("there is no base map", hint=hint) from None


def _properties(zone: Zone) -> dict[str, Any]:
    return {
        "id": zone.id,
        "kind": zone.kind,
        "names": zone.names,
        "parent": zone.parent,
        "free_flow_kmh": zone.free_flow_kmh,
        "length_m": zone.length_m,
        "rated_kw": zone.rated_kw,
    }


def _collection(request: Request, features: list[dict[str, Any]]) -> Response:
    body = msgspec.json.encode({"type": "FeatureCollection", "features": features})
    return etagged(request, body, _GEOJSON)
