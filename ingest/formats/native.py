"""The native scheme, version 1: `<root>/1/<fleet>/<device>/<leaf>`, JSON or its CBOR twin.

Leaves: `t` telemetry, `s` status, `m` metadata; on a gateway's topic `g` telemetry of several devices of the fleet.
Identity is the topic; a payload cannot override it. One bad value loses only itself.
Of two members of one name the later counts, as JSON parsers do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import astuple

from devices.errors import Reason
from ingest.formats.base import Decoded, Metadata, Rejection, Report, Status
from ingest.layouts import Layout, Layouts
from ingest.message import Message
from ingest.payload import REVISION_MAX, WINDOW_MS_MAX, UnreadableError, number, read_document, text, time_us
from ingest.settings import IngestSettings

__all__ = ["PAYLOAD_MAX", "READINGS_MAX", "Native", "make"]

PAYLOAD_MAX = 64 * 1024
READINGS_MAX = 5_000

_TOPICS_MAX = 65_536
_LEVEL = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_LEAVES = frozenset("tsmge")

Scalar = float | bool | str | None


class _Address(msgspec.Struct):
    """What a topic says, and what its messages have looked like so far."""

    fleet: str
    device: str  # "<fleet>/<device>"
    leaf: str
    layout: Layout | None = None


class _Head(NamedTuple):
    """What a telemetry document says of all its values. `times_us` are starts; None where it has no time of its own."""

    time: Any
    step_us: int | None
    span_s: int
    revision: int
    quality: int | dict[str, Any]
    units: dict[str, str] | None
    values: dict[str, Any]


class Native:
    """The format under one topic root. Keeps nothing but a bounded cache of topics."""

    def __init__(self, root: str = "qala", payload_max: int = PAYLOAD_MAX, readings_max: int = READINGS_MAX) -> None:
        self._prefix: Final = f"{root}/1/"
        self._payload_max = min(payload_max, PAYLOAD_MAX)
        self._readings_max = min(readings_max, READINGS_MAX)
        self._layouts = Layouts()
        self._address = lru_cache(_TOPICS_MAX)(self._parse)

    def reads(self, topic: str) -> bool:
        """Tell whether a topic is one of the scheme's."""
        return self._address(topic) is not None

    def decode(self, message: Message) -> Decoded:
        """Decode one message. Never raises on bad input: that is a rejection."""
        address = self._address(message.topic)
        if address is None:
            return _rejected(Reason.BAD_TOPIC, "not a topic of the native scheme")
        payload = message.payload
        if len(payload) > self._payload_max:
            return _rejected(Reason.TOO_LARGE, f"{len(payload)} bytes", address.device)
        layout = address.layout
        if layout is None:
            return self._document(address, payload)
        try:
            known = layout.read(payload)
        except (msgspec.MsgspecError, RecursionError):
            return self._document(address, payload)
        time_ms = known.t
        if known.w or known.r or time_ms is None:
            return _unusual(address.device, layout.keys, known)
        return Decoded((Report(address.device, time_ms * 1000, layout.keys, astuple(known.v)),))

    def _document(self, address: _Address, payload: bytes) -> Decoded:
        """Decode any message of the scheme by its document."""
        try:
            document = read_document(payload)
            _check_members(document)
            return self._by_leaf(address, document)
        except UnreadableError as error:
            return _rejected(error.reason, error.detail, address.device)

    def _by_leaf(self, address: _Address, document: dict[str, Any]) -> Decoded:
        if address.leaf == "t":
            self._check_count(_count(document))
            decoded = _telemetry(address.device, document)
            if len(decoded.reports) == 1:
                address.layout = self._layouts.of(decoded.reports[0].keys) or address.layout
            return decoded
        if address.leaf == "g":
            return self._gateway(address.fleet, document)
        if address.leaf == "s":
            return _status(address.device, document)
        if address.leaf == "m":
            return _metadata(address.device, document)
        raise UnreadableError(Reason.UNSUPPORTED, "events have no shape in this version")

    def _gateway(self, fleet: str, document: dict[str, Any]) -> Decoded:
        """Decode the telemetry of each device; a bad one loses only itself."""
        devices = document.get("d")
        if not isinstance(devices, dict):
            raise UnreadableError(Reason.BAD_SHAPE, 'a gateway\'s message needs an object "d"')
        self._check_count(sum(_count(part) for part in devices.values()))
        parts = [_gateway_part(fleet, name, part) for name, part in devices.items()]
        return Decoded(
            [report for part in parts for report in part.reports],
            [rejection for part in parts for rejection in part.rejections],
        )

    def _check_count(self, count: int) -> None:
        if count > self._readings_max:
            raise UnreadableError(Reason.TOO_MANY_READINGS, f"{count} readings, {self._readings_max} are allowed")

    def _parse(self, topic: str) -> _Address | None:
        levels = topic.removeprefix(self._prefix).split("/") if topic.startswith(self._prefix) else []
        if len(levels) != 3 or levels[2] not in _LEAVES or not all(map(_LEVEL.fullmatch, levels)):
            return None
        fleet, device, leaf = levels
        return _Address(fleet, f"{fleet}/{device}", leaf)


def make(settings: IngestSettings) -> Native:
    """Make the format for the settings' topic root and limits."""
    return Native(settings.topic_root, settings.payload_max, settings.readings_max)


def _unusual(device: str, keys: tuple[str, ...], known: Any) -> Decoded:
    """Decode a message that a layout has read, with a window, a revision or no time."""
    start_us = None if known.t is None else (known.t - known.w) * 1000
    return Decoded((Report(device, start_us, keys, astuple(known.v), known.w // 1000, known.r),))


def _rejected(reason: Reason, detail: str, device: str = "") -> Decoded:
    return Decoded(rejections=(Rejection(reason, detail, device=device),))


def _check_members(document: object) -> None:
    """Make sure that a document is an object without a member that must be understood and is not."""
    if not isinstance(document, dict):
        raise UnreadableError(Reason.BAD_SHAPE, "not an object")
    for name in document:
        if isinstance(name, str) and name.startswith("!"):
            raise UnreadableError(Reason.UNSUPPORTED, f"the member {name[:64]!r} must be understood, and is not")


def _count(document: object) -> int:
    values = document.get("v") if isinstance(document, dict) else None
    if not isinstance(values, dict):
        return 0
    return sum(len(value) if isinstance(value, list) else 1 for value in values.values())


def _gateway_part(fleet: str, name: object, document: object) -> Decoded:
    if not isinstance(name, str) or not _LEVEL.fullmatch(name):
        return _rejected(Reason.BAD_SHAPE, f"{str(name)[:64]!r} is no device's name")
    device = f"{fleet}/{name}"
    try:
        _check_members(document)
        return _telemetry(device, document)  # type: ignore[arg-type]
    except UnreadableError as error:
        return _rejected(error.reason, error.detail, device)


def _telemetry(device: str, document: dict[str, Any]) -> Decoded:
    head = _head(document)
    if head.step_us is not None or isinstance(head.time, list):
        return _columns(device, head)
    return _values(device, head)


def _head(document: dict[str, Any]) -> _Head:
    values = document.get("v")
    if not isinstance(values, dict):
        raise UnreadableError(Reason.BAD_SHAPE, 'telemetry needs an object "v"')
    step_ms = _whole(document, "i", 1, WINDOW_MS_MAX)
    span_ms = _whole(document, "w", 1000, WINDOW_MS_MAX) or 0
    if span_ms % 1000:
        raise UnreadableError(Reason.BAD_SHAPE, '"w" must be whole seconds [ms]')
    return _Head(
        time=document.get("t"),
        step_us=None if step_ms is None else step_ms * 1000,
        span_s=span_ms // 1000,
        revision=_whole(document, "r", 0, REVISION_MAX) or 0,
        quality=_quality(document.get("q")),
        units=_units(document.get("u")),
        values=values,
    )


def _whole(document: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    """Read an optional whole number within limits; a window of 0 is none."""
    raw = document.get(name)
    if raw is None or (name == "w" and raw == 0 and raw is not False):
        return None
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not least <= raw <= most or raw != int(raw):
        raise UnreadableError(Reason.BAD_SHAPE, f'"{name}" must be a whole number from {least} to {most}')
    return int(raw)


def _quality(raw: object) -> int | dict[str, Any]:
    if raw is None:
        return 0
    if isinstance(raw, dict):
        return raw
    if not _is_quality(raw):
        raise UnreadableError(Reason.BAD_SHAPE, '"q" must be 0, 1 or 2, for all or for each key')
    return raw  # type: ignore[return-value]


def _is_quality(raw: object) -> bool:
    return isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw <= 2


def _units(raw: object) -> dict[str, str] | None:
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise UnreadableError(Reason.BAD_SHAPE, '"u" must be an object of units')
    return {str(key): _unit(unit) for key, unit in raw.items()} or None


def _unit(raw: object) -> str:
    """Return a unit as text; what is none is a unit that nothing converts, so that its keys are rejected by name."""
    return text(raw, 32) or "?"


def _quality_of(head: _Head, key: str) -> int:
    if isinstance(head.quality, int):
        return head.quality
    found = head.quality.get(key, 0)
    if not _is_quality(found):
        raise UnreadableError(Reason.BAD_VALUE, '"q" of this key is neither 0, 1 nor 2')
    return int(found)


def _key(raw: object) -> str:
    if not isinstance(raw, str) or not raw:
        raise UnreadableError(Reason.BAD_SHAPE, "a key must be a text, and not an empty one")
    return raw


def _values(device: str, head: _Head) -> Decoded:
    """Decode one time's values."""
    start_us = None if head.time is None else time_us(head.time) - head.span_s * 1_000_000
    keys: list[str] = []
    values: list[Scalar] = []
    qualities: list[int] = []
    rejections = []
    for raw_key, raw in head.values.items():
        try:
            key, value, quality = _key(raw_key), number(raw), _quality_of(head, raw_key)
        except UnreadableError as error:
            rejections.append(Rejection(error.reason, error.detail, str(raw_key) or '""', device))
            continue
        keys.append(key)
        values.append(value)
        qualities.append(quality)
    report = Report(device, start_us, tuple(keys), tuple(values), head.span_s, head.revision, 0, head.units)
    report.quality = head.quality if isinstance(head.quality, int) else tuple(qualities)
    return Decoded((report,) if keys else (), rejections)


class _Column(NamedTuple):
    """The values of one key over all times, with an error in place of each that could not be read."""

    key: str
    quality: int
    values: list[Scalar | UnreadableError]


def _columns(device: str, head: _Head) -> Decoded:
    """Decode the columns of a batch (a start and a step) or of an irregular message (a time for each row)."""
    rejections: list[Rejection] = []
    times = _row_times(head, device, rejections)
    columns = []
    for raw_key, raw in head.values.items():
        try:
            columns.append(_column(head, raw_key, raw, len(times)))
        except UnreadableError as error:
            rejections.append(Rejection(error.reason, error.detail, str(raw_key) or '""', device))
    rejections.extend(rejection for column in columns for rejection in _refusals(column, device))
    reports = [_row(device, head, columns, row, start_us) for row, start_us in enumerate(times) if start_us is not None]
    return Decoded([report for report in reports if report.keys], rejections)


def _row_times(head: _Head, device: str, rejections: list[Rejection]) -> list[int | None]:
    """Return the start of each row [UTC us]; None, and one rejection, for those that cannot be read."""
    span_us = head.span_s * 1_000_000
    if head.step_us is not None:
        if head.time is None or isinstance(head.time, list):
            raise UnreadableError(Reason.BAD_TIME, 'with "i", "t" must be the time of the first value')
        start_us = time_us(head.time) - span_us
        rows = max((len(column) for column in head.values.values() if isinstance(column, list)), default=0)
        return [start_us + row * head.step_us for row in range(rows)]
    return _irregular(head.time, span_us, device, rejections)


def _irregular(raw: list[Any], span_us: int, device: str, rejections: list[Rejection]) -> list[int | None]:
    times: list[int | None] = []
    bad: list[str] = []
    for row, item in enumerate(raw[:READINGS_MAX]):
        try:
            times.append(time_us(item) - span_us)
        except UnreadableError as error:
            times.append(None)
            bad.append(f"t[{row}]: {error.detail}")
    if len(raw) > READINGS_MAX:
        raise UnreadableError(Reason.TOO_MANY_READINGS, f"{len(raw)} times")
    if bad:
        rejections.append(Rejection(Reason.BAD_TIME, _first_of(bad), device=device))
    return times


def _column(head: _Head, raw_key: object, raw: object, rows: int) -> _Column:
    """Read one key's values."""
    key = _key(raw_key)
    if not isinstance(raw, list):
        raise UnreadableError(Reason.BAD_SHAPE, "an array of values is needed beside several times")
    if len(raw) != rows:
        raise UnreadableError(Reason.BAD_SHAPE, f"{len(raw)} values for {rows} times")
    values: list[Scalar | UnreadableError] = []
    for item in raw:
        try:
            values.append(number(item))
        except UnreadableError as error:
            values.append(error)
    return _Column(key, _quality_of(head, key), values)


def _refusals(column: _Column, device: str) -> list[Rejection]:
    """Return one rejection for each kind of value that could not be read."""
    bad: dict[Reason, list[str]] = {}
    for row, value in enumerate(column.values):
        if isinstance(value, UnreadableError):
            bad.setdefault(value.reason, []).append(f"[{row}]: {value.detail}")
    return [Rejection(reason, _first_of(items), column.key, device) for reason, items in bad.items()]


def _first_of(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{items[0]}, and {len(items) - 1} more"


def _row(device: str, head: _Head, columns: list[_Column], row: int, start_us: int) -> Report:
    present = [
        (column.key, value, column.quality)
        for column in columns
        if not isinstance(value := column.values[row], UnreadableError)
    ]
    keys, values, qualities = zip(*present, strict=True) if present else ((), (), ())
    quality = head.quality if isinstance(head.quality, int) else qualities
    return Report(device, start_us, keys, values, head.span_s, head.revision, quality, head.units)


def _status(device: str, document: dict[str, Any]) -> Decoded:
    online = document.get("on")
    if not isinstance(online, int) or online not in {0, 1}:
        raise UnreadableError(Reason.BAD_SHAPE, 'a status needs "on": 0 or 1')
    interval_s = _whole(document, "iv", 1, 366 * 86_400)
    return Decoded(status=Status(device, bool(online), text(document.get("fw")), interval_s))


def _metadata(device: str, document: dict[str, Any]) -> Decoded:
    quantities = document.get("q") or {}
    if not isinstance(quantities, dict):
        raise UnreadableError(Reason.BAD_SHAPE, '"q" must be an object of quantities')
    declared = {key: item for key, item in quantities.items() if isinstance(key, str) and isinstance(item, dict)}
    units = {key: _unit(item["u"]) for key, item in declared.items() if "u" in item}
    counters = frozenset(key for key, item in declared.items() if item.get("kind") == "counter")
    lat, lon = _degrees(document, "lat", 90.0), _degrees(document, "lon", 180.0)
    found = Metadata(
        device, text(document.get("model")), lat, lon, text(document.get("tz")), units, counters & units.keys()
    )
    refused = [key for key in quantities if key not in declared]
    return Decoded(
        metadata=found,
        rejections=[
            Rejection(Reason.BAD_SHAPE, "not a declaration of a quantity", str(key), device) for key in refused
        ],
    )


def _degrees(document: Mapping[str, Any], name: str, most: float) -> float | None:
    raw = document.get(name)
    if raw is None:
        return None
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not abs(raw) <= most:
        raise UnreadableError(Reason.BAD_SHAPE, f'"{name}" must be a number of degrees up to {most:g}')
    return float(raw)
