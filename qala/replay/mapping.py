"""Mappings: how a recorded CSV becomes messages of devices. Pure: rows in, messages in the native format out."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from devices.device import Device, Placement, Zone
from devices.errors import ConfigError

__all__ = ["CsvMapping", "Planned", "load_mapping", "plan", "registry_of", "shipped"]

LATIN = "a b v g d e e zh z i i k l m n o p r s t u f kh ts ch sh sch _ y _ e yu ya a g q n o u u h i"
CYRILLIC = dict(zip("абвгдеёжзийклмнопрстуфхцчшщъыьэюяәғқңөұүһі", LATIN.split(), strict=True))


class _Time(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The column that holds the time, and the zone of times that name none. `stamps` says which end of the span it is."""

    column: str
    zone: str = "UTC"
    stamps: Literal["start", "end"] = "start"


class _Reading(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One column of readings: the native key it becomes, and the number (`scale` times, plus `offset`) in its unit."""

    column: str
    key: str
    scale: float = 1.0
    offset: float = 0.0
    missing: tuple[float, ...] = ()
    codes: Mapping[str, float] | None = None
    unit: str | None = None  # declared inline, for a key that is no known quantity


class _Zone(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The zone that the devices stand in: one for each device, or one for all."""

    kind: str
    per: Literal["device", "file"] = "device"
    free_flow_kmh: float | None = None
    rated_kw: float | None = None


class CsvMapping(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A mapping file, field by field.

    A device is the text of `device` with `{column}` filled in; in a wide file (`wide` set) every column but the time's is
    a device of its own, called `{column}`, and gives the one reading described.
    """

    title: str
    fleet: str
    kind: str
    device: str
    time: _Time
    zone: _Zone
    readings: tuple[_Reading, ...]
    interval_s: int
    span_s: int = 0
    wide: bool = False


class Planned(msgspec.Struct, frozen=True):
    """One message to publish. `time_us` is when its device would have sent it."""

    time_us: int
    topic: str
    payload: bytes


def shipped() -> list[str]:
    """Return the names of the mappings that come with Qala."""
    return sorted(f.name.removesuffix(".toml") for f in _folder().iterdir() if f.name.endswith(".toml"))


def _folder() -> Any:
    return files("qala.replay").joinpath("mappings")


def load_mapping(name: str) -> CsvMapping:
    """Read a shipped mapping by name, or any by path. Raises ConfigError that names the field."""
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            raise ConfigError(f"the mapping {name} does not exist", hint="give the path of a .toml file")
        text = _text(path)
    elif name in shipped():
        text = _folder().joinpath(f"{name}.toml").read_text("utf-8")
    else:
        raise ConfigError(
            f"no mapping is called {name!r}", hint=f"there are {', '.join(shipped())}, or give a .toml file"
        )
    try:
        return msgspec.convert(tomllib.loads(text), CsvMapping)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"mapping {name}: {error}", hint="docs/extending.md shows a whole mapping") from None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"mapping {path} is not UTF-8: {error.reason}", hint="save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"cannot read mapping {path}: {error.strerror}", hint="see to its permissions") from None


def plan(mapping: CsvMapping, rows: Iterable[Mapping[str, str]]) -> Iterator[Planned]:
    """Turn rows into messages, in the order of the rows. Raises ConfigError where a column is missing."""
    clock = _LocalClock(mapping.time.zone)
    for row in rows:
        for device, readings in _reports(mapping, row):
            stamp_us = clock.utc_us(device, _cell(row, mapping.time.column))
            yield _message(mapping, device, stamp_us, readings, row)


def _reports(mapping: CsvMapping, row: Mapping[str, str]) -> Iterator[tuple[str, Sequence[tuple[str, _Reading]]]]:
    if not mapping.wide:
        yield device_name(mapping.device, row), [(r.column, r) for r in mapping.readings]
        return
    [reading] = mapping.readings
    for column in row:
        if column != mapping.time.column:
            yield device_name(mapping.device, {"column": column}), [(column, reading)]


def _message(
    mapping: CsvMapping,
    device: str,
    stamp_us: int,
    readings: Sequence[tuple[str, _Reading]],
    row: Mapping[str, str],
) -> Planned:
    values = {reading.key: _value(reading, _cell(row, column)) for column, reading in readings}
    units = {reading.key.partition(".")[0]: reading.unit for _, reading in readings if reading.unit}
    end_us = stamp_us + mapping.span_s * 1_000_000 if mapping.time.stamps == "start" else stamp_us
    body: dict[str, Any] = {"t": end_us // 1000, "v": values}
    if mapping.span_s:
        body["w"] = mapping.span_s * 1000
    if units:
        body["u"] = units
    topic = f"{mapping.fleet}/{device}"
    return Planned(end_us, topic, json.dumps(body, separators=(",", ":")).encode())


def _cell(row: Mapping[str, str], column: str) -> str:
    try:
        return row[column]
    except KeyError:
        raise ConfigError(f"the file has no column {column!r}", hint=f"it has {', '.join(row)}") from None


def _value(reading: _Reading, text: str) -> float | None:
    """Read one cell; what cannot be a number here is a missing reading.

    >>> _value(_Reading("c", "co", scale=0.001), "1300")
    1.3
    >>> _value(_Reading("c", "pm10", missing=(-1,)), "-1") is None
    True
    """
    if reading.codes is not None:
        return reading.codes.get(text.strip())
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number) or number in reading.missing:
        return None
    return number * reading.scale + reading.offset


def device_name(template: str, row: Mapping[str, str]) -> str:
    """Fill a template from a row and spell the result with what a topic level may hold.

    >>> device_name("skat {station}", {"station": "Скат-6"})
    'skat_skat-6'
    """
    try:
        text = template.format_map(row)
    except KeyError as missing:
        raise ConfigError(f"the file has no column {missing}", hint=f"it has {', '.join(row)}") from None
    spelled = "".join(CYRILLIC.get(letter.lower(), letter) for letter in text)
    return "".join(c if c.isascii() and (c.isalnum() or c in "_.:-") else "_" for c in spelled)[:64]


class _LocalClock:
    """Reads times, and tells the two hours of a clock set back apart: an hour that a device has had is the second."""

    def __init__(self, zone: str) -> None:
        self._zone = ZoneInfo(zone)
        self._last_us: dict[str, int] = {}

    def utc_us(self, device: str, text: str) -> int:
        try:
            moment = datetime.fromisoformat(text.strip())
        except ValueError:
            raise ConfigError(f"{text!r} is not a time", hint="times are ISO 8601, with or without an offset") from None
        if moment.tzinfo is not None:
            return _us(moment)
        first_us, second_us = (_us(moment.replace(tzinfo=self._zone, fold=fold)) for fold in (0, 1))
        last_us = self._last_us.get(device)
        chosen = second_us if last_us is not None and first_us <= last_us < second_us else first_us
        self._last_us[device] = chosen
        return chosen


def _us(moment: datetime) -> int:
    return (moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def registry_of(
    mapping: CsvMapping, rows: Iterable[Mapping[str, str]]
) -> tuple[list[Device], list[Zone], list[Placement]]:
    """Return the devices that a file speaks of, standing in the zones that the mapping declares."""
    names = sorted({device for row in rows for device, _ in _reports(mapping, row)})
    devices = [Device(f"{mapping.fleet}/{name}", mapping.kind, name, interval_s=mapping.interval_s) for name in names]
    zone_of = {
        device.id: f"{mapping.fleet}-{device.name}" if mapping.zone.per == "device" else mapping.fleet
        for device in devices
    }
    zones = [_make_zone(mapping, zone) for zone in sorted(set(zone_of.values()))]
    return devices, zones, [Placement(device.id, (zone_of[device.id],)) for device in devices]


def _make_zone(mapping: CsvMapping, zone: str) -> Zone:
    return Zone(
        id=zone,
        kind=mapping.zone.kind,
        names={"en": zone},
        geometry={"type": "GeometryCollection", "geometries": []},  # a recording does not say where it was made
        free_flow_kmh=mapping.zone.free_flow_kmh,
        rated_kw=mapping.zone.rated_kw,
    )
