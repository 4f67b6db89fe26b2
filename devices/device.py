"""Devices, zones and placements, and the registry that answers who is where, when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from devices.errors import ConfigError

__all__ = ["Clock", "Device", "Placement", "Registry", "Zone"]


class Clock(StrEnum):
    """Whose clock a device's readings are timed by."""

    MESSAGE = "message"
    RECEIVED = "received"


class Zone(msgspec.Struct, frozen=True):
    """What indicators speak of: a district, a road, a feeder or a site.

    `names` are by language ("en", "ru", "kk"); `geometry` is a GeoJSON geometry in WGS 84.
    """

    id: str
    kind: str
    names: Mapping[str, str]
    geometry: Mapping[str, Any]
    parent: str | None = None
    free_flow_kmh: float | None = None  # roads
    length_m: float | None = None  # roads
    rated_kw: float | None = None  # feeders


class Placement(msgspec.Struct, frozen=True):
    """Where a device stands during `[since_us, until_us)`. `zones` are ids, at most one of each zone kind."""

    device: str
    zones: tuple[str, ...]
    lat: float | None = None
    lon: float | None = None
    since_us: int = 0
    until_us: int | None = None


class Device(msgspec.Struct, frozen=True):
    """One installed unit of a kind. `id` is "<fleet>/<device>", as in the topic.

    `interval_s` overrides the kind's interval; `modulus` is where its counters roll over, `rated_kw` its largest power.
    """

    id: str
    kind: str
    name: str = ""
    interval_s: int | None = None
    clock: Clock = Clock.MESSAGE
    rated_kw: float | None = None
    modulus: float | None = None
    since_us: int = 0
    until_us: int | None = None  # retired

    @property
    def fleet(self) -> str:
        return self.id.partition("/")[0]


class Registry:
    """Every device, zone and placement, in memory and immutable: a change makes a new registry.

    Raises ConfigError where a placement names a device or a zone that does not exist.
    """

    def __init__(
        self,
        devices: Iterable[Device] = (),
        zones: Iterable[Zone] = (),
        placements: Iterable[Placement] = (),
    ) -> None:
        self.devices: Mapping[str, Device] = {device.id: device for device in devices}
        self.zones: Mapping[str, Zone] = {zone.id: zone for zone in zones}
        self.placements: tuple[Placement, ...] = tuple(
            sorted(placements, key=lambda p: (p.device, p.since_us)),
        )
        self._of: dict[str, list[Placement]] = {}
        for placement in self.placements:
            self._check(placement)
            self._of.setdefault(placement.device, []).append(placement)

    def _check(self, placement: Placement) -> None:
        if placement.device not in self.devices:
            raise ConfigError(
                f"a placement names the device {placement.device!r}, which does not exist",
                hint="add the device, or remove the placement",
            )
        for zone in placement.zones:
            if zone not in self.zones:
                raise ConfigError(
                    f"device {placement.device!r} is placed in the zone {zone!r}, which does not exist",
                    hint="add the zone to the zones file, or correct the placement",
                )

    def placements_of(self, device: str) -> tuple[Placement, ...]:
        """Return a device's placements, oldest first."""
        return tuple(self._of.get(device, ()))

    def placement(self, device: str, at_us: int) -> Placement | None:
        """Return where a device stood at a time, if anywhere."""
        for placement in self._of.get(device, ()):
            if placement.since_us <= at_us and (placement.until_us is None or at_us < placement.until_us):
                return placement
        return None

    def zones_of_kind(self, kind: str) -> tuple[Zone, ...]:
        """Return the zones of a kind, by id."""
        return tuple(zone for _, zone in sorted(self.zones.items()) if zone.kind == kind)
