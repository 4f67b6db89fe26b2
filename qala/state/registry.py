"""Devices, zones and placements with their history, and what is known of devices that nobody has declared.

A row of history is never changed but for `replaced_us`, the time at which a newer row took its place: what was known at any
time can be read again. Validity in the city (`since_us`, `until_us`) is another matter, and part of the row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)

from devices.device import Clock, Device, Placement, Registry, Zone
from devices.errors import ConflictError, NotFoundError
from devices.reading import Position
from qala.state.database import METADATA, alone
from qala.state.reopened import affected, reopen

__all__ = [
    "Candidate",
    "DeviceMetadata",
    "DeviceStatus",
    "admit",
    "candidates",
    "import_registry",
    "last_row",
    "load_registry",
    "metadata",
    "put_metadata",
    "put_status",
    "record_candidates",
    "retirements",
    "statuses",
]


def _history(name: str, *columns: Column[Any]) -> Table:
    """Declare a table of history: one row of each `id` is current, the others were replaced."""
    table = Table(
        name,
        METADATA,
        Column("row", Integer, primary_key=True),
        Column("id", String, nullable=False),
        *columns,
        Column("recorded_us", BigInteger, nullable=False),
        Column("replaced_us", BigInteger),
    )
    Index(f"{name}_id", table.c.id, table.c.replaced_us)
    return table


_device = _history(
    "device",
    Column("kind", String, nullable=False),
    Column("name", String, nullable=False),
    Column("interval_s", Integer),
    Column("clock", String, nullable=False),
    Column("rated_kw", Float),
    Column("modulus", Float),
    Column("since_us", BigInteger, nullable=False),
    Column("until_us", BigInteger),
)
_zone = _history(
    "zone",
    Column("kind", String, nullable=False),
    Column("names", JSON, nullable=False),
    Column("geometry", JSON, nullable=False),
    Column("parent", String),
    Column("free_flow_kmh", Float),
    Column("length_m", Float),
    Column("rated_kw", Float),
)
_placement = _history(
    "placement",  # `id` is the device's
    Column("zones", JSON, nullable=False),
    Column("lat", Float),
    Column("lon", Float),
    Column("since_us", BigInteger, nullable=False),
    Column("until_us", BigInteger),
)
_candidate = Table(
    "candidate",
    METADATA,
    Column("device", String, primary_key=True),
    Column("first_us", BigInteger, nullable=False),
    Column("last_us", BigInteger, nullable=False),
    Column("messages", BigInteger, nullable=False),
    Column("journal", String, nullable=False),
    Column("upto", BigInteger, nullable=False),
)
_status = Table(
    "device_status",
    METADATA,
    Column("device", String, primary_key=True),
    Column("online", Boolean, nullable=False),
    Column("firmware", String),
    Column("interval_s", Integer),
    Column("at_us", BigInteger, nullable=False),
)
_metadata = Table(
    "device_metadata",
    METADATA,
    Column("device", String, primary_key=True),
    Column("model", String),
    Column("lat", Float),
    Column("lon", Float),
    Column("time_zone", String),
    Column("units", JSON, nullable=False),
    Column("counters", JSON, nullable=False),
    Column("at_us", BigInteger, nullable=False),
)


class Candidate(msgspec.Struct, frozen=True):
    """A device that sent messages and is not in the registry."""

    device: str
    first_us: int
    last_us: int
    messages: int


class DeviceStatus(msgspec.Struct, frozen=True):
    """The last that a device said of itself, at `at_us`."""

    device: str
    online: bool
    firmware: str | None = None
    interval_s: int | None = None
    at_us: int = 0


class DeviceMetadata(msgspec.Struct, frozen=True):
    """The last that a device said of its place and quantities, at `at_us`."""

    device: str
    model: str | None = None
    lat: float | None = None
    lon: float | None = None
    time_zone: str | None = None
    units: dict[str, str] = {}
    counters: tuple[str, ...] = ()
    at_us: int = 0


# ---- the registry


def load_registry(engine: Engine) -> Registry:
    """Return every device, zone and placement as they are now known."""
    with engine.connect() as connection:
        return _load(connection)


def last_row(connection: Connection) -> int:
    """Return a number that grows with every change of a device."""
    return int(connection.execute(select(func.coalesce(func.max(_device.c.row), 0))).scalar_one())


def retirements(connection: Connection) -> dict[str, int]:
    """Return until when [us] the devices belong to the city that leave it, or have left it."""
    query = select(_device.c.id, _device.c.until_us).where(_device.c.replaced_us.is_(None))
    return {row.id: row.until_us for row in connection.execute(query.where(_device.c.until_us.is_not(None)))}


def import_registry(
    engine: Engine,
    devices: Iterable[Device],
    zones: Iterable[Zone],
    placements: Iterable[Placement],
    at_us: int,
) -> int:
    """Bring the registry to what a file declares, at a time, and return the number of rows that changed.

    Idempotent. Devices and zones that the file does not name stay. A placement without dates that differs from where the
    device stands means that it moved at `at_us`: the old placement is closed. Raises ConfigError where a placement names a
    device or a zone that does not exist; nothing is changed then.
    """
    with engine.begin() as connection:
        alone(connection)
        before = _load(connection)
        changes = _put(connection, _zone, zones, at_us) + _put(connection, _device, devices, at_us)
        changes += _place(connection, _by_device(placements), at_us)
        if changes:
            reopen(connection, affected(before, _load(connection)))
    return changes


def admit(engine: Engine, device: Device, placement: Placement | None, at_us: int) -> None:
    """Take a new device into the registry; it is no candidate any more.

    Raises ConflictError where the device exists, NotFoundError where the placement names an unknown zone.
    """
    with engine.begin() as connection:
        alone(connection)
        registry = _load(connection)
        if device.id in registry.devices:
            raise ConflictError(
                f"the device {device.id!r} is in the registry already", hint="import a devices file to change it"
            )
        for zone in placement.zones if placement else ():
            if zone not in registry.zones:
                raise NotFoundError(f"there is no zone {zone!r}", hint="list the zones at /api/v1/zones")
        _put(connection, _device, [device], at_us)
        if placement:
            _place(connection, {device.id: [placement]}, at_us)
        reopen(connection, affected(registry, _load(connection)))
        connection.execute(delete(_candidate).where(_candidate.c.device == device.id))


def _load(connection: Connection) -> Registry:
    return Registry(
        [Device(**{**row, "clock": Clock(row["clock"])}) for row in _current(connection, _device)],
        [Zone(**row) for row in _current(connection, _zone)],
        _placements(_current(connection, _placement)),
    )


def _current(connection: Connection, table: Table) -> list[dict[str, Any]]:
    columns = [column for column in table.c if column.name not in {"row", "recorded_us", "replaced_us"}]
    query = select(*columns).where(table.c.replaced_us.is_(None)).order_by(table.c.row)
    return [dict(row) for row in connection.execute(query).mappings()]


def _placements(rows: Iterable[dict[str, Any]]) -> list[Placement]:
    return [Placement(device=row.pop("id"), zones=tuple(row.pop("zones")), **row) for row in rows]


def _row(item: Device | Zone) -> dict[str, Any]:
    """Return a struct's columns as the plain values that come back from JSON and SQL."""
    columns: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(item))
    return columns


def _put(connection: Connection, table: Table, items: Iterable[Device | Zone], at_us: int) -> int:
    """Make each item the current row of its id; return how many were not current already."""
    current = {row["id"]: row for row in _current(connection, table)}
    changed = [row for row in map(_row, items) if current.get(row["id"]) != row]
    for row in changed:
        _replace(connection, table, row["id"], at_us)
        connection.execute(insert(table).values(**row, recorded_us=at_us))
    return len(changed)


def _replace(connection: Connection, table: Table, key: str, at_us: int) -> None:
    connection.execute(update(table).where(table.c.id == key, table.c.replaced_us.is_(None)).values(replaced_us=at_us))


def _by_device(placements: Iterable[Placement]) -> dict[str, list[Placement]]:
    """Group placements by device, oldest first, each one closed where the next begins."""
    grouped: dict[str, list[Placement]] = {}
    for placement in sorted(placements, key=lambda p: (p.device, p.since_us)):
        before = grouped.setdefault(placement.device, [])
        if before:
            before[-1] = _until(before[-1], placement.since_us)
        before.append(placement)
    return grouped


def _place(connection: Connection, given: Mapping[str, Sequence[Placement]], at_us: int) -> int:
    """Merge given placements into those that their devices have; return the number of rows that changed."""
    current: dict[str, list[Placement]] = {}
    for placement in _placements(_current(connection, _placement)):
        current.setdefault(placement.device, []).append(placement)
    changes = 0
    for device, placements in given.items():
        old = current.get(device, [])
        new = old
        for placement in placements:
            new = _merged(new, placement, at_us)
        if new != old:
            _replace(connection, _placement, device, at_us)
            connection.execute(insert(_placement), [_placement_row(each, at_us) for each in new])
            changes += sum(each not in old for each in new)
    return changes


def _placement_row(placement: Placement, at_us: int) -> dict[str, Any]:
    row = msgspec.structs.asdict(placement)
    return {**row, "id": row.pop("device"), "zones": list(placement.zones), "recorded_us": at_us}


def _merged(history: Sequence[Placement], new: Placement, at_us: int) -> list[Placement]:
    """Return a device's placements once `new` holds in its time. An undated one begins at `at_us` if the device stood elsewhere."""
    if new in history:
        return list(history)
    if new.since_us == 0 and new.until_us is None and history:
        last = history[-1]
        if last.until_us is None and _stands(last) == _stands(new):
            return list(history)
        new = msgspec.structs.replace(new, since_us=at_us)
    around = [part for placement in history for part in _without(placement, new)]
    return sorted([*around, new], key=lambda p: p.since_us)


def _stands(placement: Placement) -> tuple[object, ...]:
    return placement.zones, placement.lat, placement.lon


def _without(placement: Placement, other: Placement) -> list[Placement]:
    """Return what is left of a placement outside the time of another: nothing, one part or two."""
    parts = []
    if placement.since_us < other.since_us:
        parts.append(_until(placement, other.since_us))
    if other.until_us is not None and (placement.until_us is None or placement.until_us > other.until_us):
        parts.append(msgspec.structs.replace(placement, since_us=max(placement.since_us, other.until_us)))
    return parts


def _until(placement: Placement, until_us: int) -> Placement:
    """Close a placement at a time, unless it ends before."""
    earlier = placement.until_us is not None and placement.until_us <= until_us
    return placement if earlier else msgspec.structs.replace(placement, until_us=until_us)


# ---- what devices say of themselves, and those that nobody declared


def record_candidates(engine: Engine, seen: Iterable[Candidate], upto: Position) -> None:
    """Count the messages of undeclared devices in a batch that ends at `upto`; the same batch again counts nothing."""
    with engine.begin() as connection:
        for candidate in seen:
            _record(connection, candidate, upto)


def _record(connection: Connection, seen: Candidate, upto: Position) -> None:
    key = _candidate.c.device == seen.device
    old = connection.execute(select(_candidate).where(key)).mappings().one_or_none()
    if old is None:
        row = msgspec.structs.asdict(seen)
        connection.execute(insert(_candidate).values(**row, journal=upto.journal, upto=upto.number))
    elif old["journal"] != upto.journal or old["upto"] < upto.number:
        connection.execute(
            update(_candidate)
            .where(key)
            .values(
                first_us=min(old["first_us"], seen.first_us),
                last_us=max(old["last_us"], seen.last_us),
                messages=old["messages"] + seen.messages,
                journal=upto.journal,
                upto=upto.number,
            ),
        )


def candidates(engine: Engine) -> list[Candidate]:
    """Return the devices that sent messages and are not in the registry, by id."""
    columns = (_candidate.c[name] for name in Candidate.__struct_fields__)
    with engine.connect() as connection:
        rows = connection.execute(select(*columns).order_by(_candidate.c.device)).mappings()
        return [Candidate(**row) for row in rows]


def put_status(engine: Engine, items: Iterable[DeviceStatus]) -> None:
    """Keep the newest status of each device."""
    with engine.begin() as connection:
        for item in items:
            _keep_newest(connection, _status, msgspec.structs.asdict(item))


def statuses(engine: Engine) -> Mapping[str, DeviceStatus]:
    """Return the last status of each device that ever gave one."""
    with engine.connect() as connection:
        return {row["device"]: DeviceStatus(**row) for row in connection.execute(select(_status)).mappings()}


def put_metadata(engine: Engine, items: Iterable[DeviceMetadata]) -> None:
    """Keep the newest metadata of each device."""
    with engine.begin() as connection:
        for item in items:
            _keep_newest(connection, _metadata, msgspec.to_builtins(item))


def metadata(engine: Engine) -> Mapping[str, DeviceMetadata]:
    """Return the last metadata of each device that ever gave some."""
    with engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(select(_metadata)).mappings()]
    return {row["device"]: DeviceMetadata(**{**row, "counters": tuple(row["counters"])}) for row in rows}


def _keep_newest(connection: Connection, table: Table, row: dict[str, Any]) -> None:
    key = table.c.device == row["device"]
    at_us = connection.execute(select(table.c.at_us).where(key)).scalar_one_or_none()
    if at_us is None:
        connection.execute(insert(table).values(**row))
    elif at_us <= row["at_us"]:
        connection.execute(update(table).where(key).values(**row))
