"""Read devices from the text of their file, and zones from theirs. Pure: text in, objects out.

Devices are CSV with a header, or YAML: a list, alone or under `devices`. The columns of the one are the fields of the other:

| field | meaning |
|---|---|
| `id` | "<fleet>/<device>", as in the topic; required |
| `kind` | a name of `devices/kinds/`; required |
| `name` | for people |
| `zones` | ids of the zones it stands in, at most one of each zone kind; in CSV with spaces between |
| `lat`, `lon` | where it stands, WGS 84 [deg]; both or none |
| `since`, `until` | when it stood there: ISO 8601 with an offset or Z; empty: always |
| `interval_s` | how often it reports [s], if not as its kind |
| `clock` | `message` (default), or `received`: its own clock is never believed |
| `rated_kw` | its largest power [kW] |
| `modulus` | where its counters roll over, in their unit |
| `retired` | when it was taken away for good |

A further row with the same id is a further placement of the device: it repeats `id` and `kind`, and its `since` is not
before the `until` of the placement above. What such a row says of the device itself is not read again.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, NoReturn

import yaml

from devices.device import Clock, Device, Placement
from devices.errors import ConfigError
from devices.kinds import kinds
from devices.zone_file import parse_zones

__all__ = ["FIELDS", "TEXT_MAX", "parse_devices", "parse_zones"]

TEXT_MAX = 64 * 1024 * 1024
"""Longest devices file [characters]."""

FIELDS = (
    "id",
    "kind",
    "name",
    "zones",
    "lat",
    "lon",
    "since",
    "until",
    "interval_s",
    "clock",
    "rated_kw",
    "modulus",
    "retired",
)
_SEGMENT = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:-")
_SEGMENT_MAX = 64
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_devices(text: str, format: Literal["csv", "yaml"]) -> tuple[list[Device], list[Placement]]:  # noqa: A002
    r"""Read a devices file: each device once, in order, and its placements.

    Raises ConfigError, naming the line and the field, where something in it is wrong.

    >>> devices, placements = parse_devices("id,kind,zones\ncity/a1,air_station,d1 s1\n", "csv")
    >>> devices[0].id, placements[0].zones
    ('city/a1', ('d1', 's1'))
    """
    if len(text) > TEXT_MAX:
        raise ConfigError(f"the devices file is longer than {TEXT_MAX} characters", hint="split it")
    devices: dict[str, Device] = {}
    placements: dict[str, list[Placement]] = {}
    for row in _csv_rows(text) if format == "csv" else _yaml_rows(text):
        device, placement = _device(row), _placement(row)
        _check_repeat(row, devices.setdefault(device.id, device), device)
        stood = placements.setdefault(device.id, [])
        _check_order(row, stood, placement)
        stood.append(placement)
    return list(devices.values()), [placement for stood in placements.values() for placement in stood]


class _Row(NamedTuple):
    """One device as written: its fields that say something, and the line that it starts in."""

    line: int
    fields: Mapping[str, Any]

    def fail(self, field: str, problem: str, hint: str) -> NoReturn:
        raise ConfigError(f"devices file, line {self.line}, field {field!r}: {problem}", hint=hint)


def _csv_rows(text: str) -> Iterator[_Row]:
    lines = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), skipinitialspace=True, strict=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        _check_fields(_Row(1, dict.fromkeys(header)))
        for cells in lines:
            said = {name: cell.strip() for name, cell in zip(header, cells, strict=False) if cell.strip()}
            row = _Row(lines.line_num, said)
            if len(cells) > len(header):
                row.fail(header[-1] if header else "id", "more cells than the header has", "quote cells with commas")
            if said:
                yield row
    except csv.Error as error:
        raise ConfigError(f"devices file, line {lines.line_num}: {error}", hint="check the quotes") from error


def _yaml_rows(text: str) -> Iterator[_Row]:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if isinstance(root, yaml.MappingNode):
            root = next((value for key, value in root.value if key.value == "devices"), None)
        if not isinstance(root, yaml.SequenceNode):
            raise ConfigError("the devices file is no list of devices", hint="begin it with `devices:` and `- id: ...`")
        for node in root.value:
            fields = loader.construct_document(node)
            row = _Row(node.start_mark.line + 1, fields if isinstance(fields, dict) else {"id": fields})
            _check_fields(row)
            yield _Row(row.line, {name: value for name, value in row.fields.items() if value is not None})
    except yaml.YAMLError as error:
        raise ConfigError(f"the devices file is not YAML: {error}", hint="check the indentation") from error
    finally:
        loader.dispose()


def _check_fields(row: _Row) -> None:
    for name in row.fields:
        if name not in FIELDS:
            row.fail(str(name), "no such field", "the fields are " + ", ".join(FIELDS))


def _check_repeat(row: _Row, known: Device, device: Device) -> None:
    if known.kind != device.kind:
        row.fail("kind", f"{device.id!r} was a {known.kind!r} above", "one id is one device: give the other its own")


def _check_order(row: _Row, stood: list[Placement], placement: Placement) -> None:
    if stood and (stood[-1].until_us is None or placement.since_us < stood[-1].until_us):
        row.fail("since", f"{placement.device!r} still stands where a row above put it", "end that one with `until`")


def _device(row: _Row) -> Device:
    kind = _text(row, "kind")
    if kind not in kinds():
        row.fail("kind", f"{kind!r} is no kind of device", "the kinds are " + ", ".join(kinds()))
    clock = _text(row, "clock") or Clock.MESSAGE
    if clock not in tuple(Clock):
        row.fail("clock", f"{clock!r} is no clock", "write message or received")
    interval_s = _number(row, "interval_s", low=1, high=86_400)
    return Device(
        id=_device_id(row),
        kind=kind,
        name=_text(row, "name"),
        interval_s=None if interval_s is None else round(interval_s),
        clock=Clock(clock),
        rated_kw=_number(row, "rated_kw", low=1e-6, high=1e9),
        modulus=_number(row, "modulus", low=1e-6, high=1e18),
        until_us=_time_us(row, "retired"),
    )


def _device_id(row: _Row) -> str:
    device = _text(row, "id")
    parts = device.split("/")
    if len(parts) != 2 or not all(0 < len(part) <= _SEGMENT_MAX and set(part) <= _SEGMENT for part in parts):
        row.fail("id", f"{device!r} is no device id", "write <fleet>/<device>, each of letters, digits and _ . : -")
    return device


def _placement(row: _Row) -> Placement:
    lat, lon = _number(row, "lat", low=-90, high=90), _number(row, "lon", low=-180, high=180)
    if (lat is None) != (lon is None):
        row.fail("lat" if lat is None else "lon", "is missing", "give both lat and lon, or neither")
    since_us, until_us = _time_us(row, "since"), _time_us(row, "until")
    if until_us is not None and until_us <= (since_us or 0):
        row.fail("until", "ends before it begins", "give a time after `since`")
    return Placement(
        device=_text(row, "id"),
        zones=_zones(row),
        lat=lat,
        lon=lon,
        since_us=since_us or 0,
        until_us=until_us,
    )


def _zones(row: _Row) -> tuple[str, ...]:
    zones = row.fields.get("zones", [])
    if isinstance(zones, str):
        zones = zones.split()
    if not isinstance(zones, list) or not all(isinstance(zone, str) and zone for zone in zones):
        row.fail("zones", f"{zones!r} is no list of zone ids", "write [district-1, road-7], in CSV with spaces between")
    if len(set(zones)) < len(zones):
        row.fail("zones", "names a zone twice", "name each zone once")
    return tuple(zones)


def _text(row: _Row, field: str) -> str:
    value = row.fields.get(field, "")
    if not isinstance(value, str):
        row.fail(field, f"{value!r} is no text", "put it in quotes")
    return value


def _number(row: _Row, field: str, *, low: float, high: float) -> float | None:
    value = row.fields.get(field)
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not low <= number <= high:
        row.fail(field, f"{value!r} is no number between {low:g} and {high:g}", "correct it, or leave it empty")
    return number


def _time_us(row: _Row, field: str) -> int | None:
    value = row.fields.get(field)
    if value is None:
        return None
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        if time.tzinfo is None:
            row.fail(field, f"{value} has no offset", "write 2026-01-31T08:00:00+05:00, or end it with Z")
        return (time - _EPOCH) // timedelta(microseconds=1)
    except (TypeError, ValueError):
        row.fail(field, f"{value!r} is no time", "write 2026-01-31T08:00:00+05:00")
