"""Devices: the list, one in detail, and admitting a new one."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from dashboards.api import contract
from dashboards.api.context import ApiContext, Context
from dashboards.api.paging import CursorQuery, LimitQuery, page_of
from dashboards.api.render import json_page, json_response
from dashboards.items import DeviceItem
from dashboards.latest import DeviceState, Newest
from dashboards.problem import ProblemError
from dashboards.times import iso
from devices.device import Device, Placement
from devices.errors import NotFoundError
from qala.state.registry import statuses

router = APIRouter(tags=["devices"])


@router.get("/devices", response_model=contract.Page[contract.Device])
async def list_devices(
    context: Context,
    request: Request,
    kind: str | None = None,
    domain: str | None = None,
    zone: str | None = None,
    state: DeviceState | None = None,
    limit: LimitQuery = None,
    cursor: CursorQuery = None,
) -> Response:
    """List the devices that are in service, by id."""
    wanted = (
        device
        for device in context.devices()
        if kind in {None, device.kind}
        and domain in {None, device.domain}
        and (zone is None or zone in device.zones)
        and state in {None, device.state}
    )
    page, more = page_of(wanted, attrgetter("id"), context.settings, limit, cursor)
    return json_page(request, page, more)


@router.get("/devices/{fleet}/{device}", response_model=contract.DeviceDetail)
def get_device(context: Context, fleet: str, device: str) -> Response:
    """Give one device with its placements, its own status and its newest readings."""
    item = _item(context, f"{fleet}/{device}")
    status = statuses(context.state).get(item.id)
    placements = context.registry().placements_of(item.id)
    detail = msgspec.to_builtins(item) | {
        "placements": [_placement(placement) for placement in placements],
        "status": status
        and {
            "online": status.online,
            "firmware": status.firmware,
            "interval_s": status.interval_s,
            "time": iso(status.at_us),
        },
        "latest": [_latest(newest) for newest in context.hub.latest.of_device(item.id)],
    }
    return json_response(detail)


@router.post("/devices", response_model=contract.Admitted, status_code=201)
def admit_device(context: Context, new: contract.NewDevice) -> Response:
    """Admit a device to the registry and replay what it sent before."""
    if new.kind not in context.kinds:
        hint = f"the kinds are {', '.join(sorted(context.kinds))}"
        raise ProblemError(422, "unknown_kind", f"there is no kind {new.kind!r}", hint=hint)
    _check_place(context, new)
    placement = Placement(new.id, tuple(new.zones), new.lat, new.lon)
    device = Device(new.id, new.kind, name=new.name, interval_s=new.interval_s)
    done = context.operator.admit(device, placement if new.zones or new.lat is not None else None)
    body = {"device": _item(context, new.id), **msgspec.structs.asdict(done)}
    return json_response(body, status=201, headers={"location": f"/api/v1/devices/{new.id}"})


def _check_place(context: ApiContext, new: contract.NewDevice) -> None:
    zones = context.registry().zones
    unknown = [zone for zone in new.zones if zone not in zones]
    if unknown:
        hint = "list the zones at /api/v1/zones"
        raise ProblemError(422, "unknown_zone", f"there is no zone {unknown[0]!r}", hint=hint)
    kinds = [zones[zone].kind for zone in new.zones]
    if len(set(kinds)) < len(kinds):
        hint = "name at most one zone of each kind"
        raise ProblemError(422, "bad_placement", f"two of {new.zones} are of one kind", hint=hint)
    if (new.lat is None) != (new.lon is None):
        raise ProblemError(422, "bad_placement", "only one of lat and lon is given", hint="give both, or none")


def _item(context: ApiContext, device: str) -> DeviceItem:
    found = next((item for item in context.devices() if item.id == device), None)
    if found is None:
        hint = "list the devices at /api/v1/devices; one that is not admitted is at /api/v1/candidates"
        raise NotFoundError(f"there is no device {device!r}", hint=hint)
    return found


def _placement(placement: Placement) -> dict[str, Any]:
    return {
        "zones": placement.zones,
        "lat": placement.lat,
        "lon": placement.lon,
        "since": iso(placement.since_us) if placement.since_us else None,
        "until": None if placement.until_us is None else iso(placement.until_us),
    }


def _latest(newest: Newest) -> dict[str, Any]:
    info = newest.info
    return {
        "series": newest.series,
        "quantity": info.quantity,
        "channel": info.channel,
        "span_s": info.span_s,
        "time": iso(newest.time_us),
        "value": newest.value,
        "unit": info.unit,
        "flag": newest.flag,
    }
