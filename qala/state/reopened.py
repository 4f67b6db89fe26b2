"""Devices whose readings have to count again because the registry changed: a device, where it stands, or its zone's properties."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Column, Connection, Engine, String, Table, delete, insert, select

from devices.device import Device, Placement, Registry, Zone
from qala.state.database import METADATA

__all__ = ["affected", "forget_reopened", "reopen", "reopened"]

_reopened = Table("reopened_device", METADATA, Column("device", String, primary_key=True))
_CHUNK = 500


def affected(before: Registry, after: Registry) -> set[str]:
    """Return the devices whose readings give other numbers than before.

    Those that changed or moved, and all that stand, or stood, in a zone that such a device left or came to, or that changed
    itself. Names and drawings do not count.
    """
    changed = {id_ for id_ in after.devices if _device(before, id_) != _device(after, id_)}
    zones = {id_ for id_ in after.zones if _zone(before.zones.get(id_)) != _zone(after.zones[id_])}
    zones |= {zone for registry in (before, after) for p in _of(registry, changed) for zone in p.zones}
    return changed | {p.device for p in after.placements if zones.intersection(p.zones)}


def _of(registry: Registry, devices: Collection[str]) -> list[Placement]:
    return [placement for device in devices for placement in registry.placements_of(device)]


def _device(registry: Registry, id_: str) -> tuple[object, ...] | None:
    device: Device | None = registry.devices.get(id_)
    if device is None:
        return None
    stood = tuple((p.zones, p.since_us, p.until_us) for p in registry.placements_of(id_))
    return device.kind, device.interval_s, device.rated_kw, device.modulus, device.until_us, stood


def _zone(zone: Zone | None) -> tuple[object, ...] | None:
    return None if zone is None else (zone.kind, zone.free_flow_kmh, zone.rated_kw)


def reopen(connection: Connection, devices: Collection[str]) -> None:
    """Note devices, inside the transaction that changes the registry."""
    names = sorted(devices)
    for at in range(0, len(names), _CHUNK):
        part = names[at : at + _CHUNK]
        connection.execute(delete(_reopened).where(_reopened.c.device.in_(part)))
        connection.execute(insert(_reopened), [{"device": name} for name in part])


def reopened(engine: Engine) -> set[str]:
    """Return the devices that wait."""
    with engine.connect() as connection:
        return set(connection.execute(select(_reopened.c.device)).scalars())


def forget_reopened(engine: Engine, devices: Collection[str]) -> None:
    """Forget devices whose readings are marked."""
    names = sorted(devices)
    with engine.begin() as connection:
        for at in range(0, len(names), _CHUNK):
            connection.execute(delete(_reopened).where(_reopened.c.device.in_(names[at : at + _CHUNK])))
