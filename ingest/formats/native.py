"""The native scheme, version 1: `<root>/1/<fleet>/<device>/<leaf>`, JSON or its CBOR twin.

Leaves: `t` telemetry, `s` status, `m` metadata; on a gateway's topic `g` telemetry of several devices of the fleet.
Identity is the topic; a payload cannot override it. One bad value loses only itself.
Of two members of one name the later counts, as JSON parsers do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec.structs import astuple

from devices.errors import Reason
from ingest.formats.base import Decoded, Metadata, Rejection, Report, Status
from ingest.layouts import Layout, Layouts
from ingest.message import Message
from ingest.payload import UnreadableError, read_document, text
from ingest.settings import IngestSettings
from ingest.telemetry import READINGS_MAX, count_values, read_telemetry, unit_text, whole

__all__ = ["PAYLOAD_MAX", "READINGS_MAX", "Native", "make"]

PAYLOAD_MAX = 64 * 1024

_TOPICS_MAX = 65_536
_LEVEL = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_LEAVES = frozenset("tsmge")


class _Address(msgspec.Struct):
    """What a topic says, and what its messages have looked like so far."""

    fleet: str
    device: str  # "<fleet>/<device>"
    leaf: str
    layout: Layout | None = None


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
        document: Any = None
        try:
            document = read_document(payload)
            _check_members(document)
            return self._by_leaf(address, document)
        except UnreadableError as error:
            return _unreadable(error, address.device, _count(address.leaf, document))

    def _by_leaf(self, address: _Address, document: dict[str, Any]) -> Decoded:
        if address.leaf == "t":
            self._check_count(count_values(document))
            decoded = read_telemetry(address.device, document)
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
        self._check_count(sum(count_values(part) for part in devices.values()))
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


def _unreadable(error: UnreadableError, device: str, readings: int) -> Decoded:
    """Reject all that a document says; it counts as one reading where it carries none that could be counted."""
    whole_of_it = Rejection(error.reason, error.detail, "", device, max(readings, 1), error.offset)
    return Decoded(rejections=(whole_of_it,))


def _count(leaf: str, document: Any) -> int:
    """Count the values of any document, as far as it has the shape of one."""
    parts = document.get("d") if leaf == "g" and isinstance(document, dict) else None
    return sum(map(count_values, parts.values())) if isinstance(parts, dict) else count_values(document)


def _check_members(document: object) -> None:
    """Make sure that a document is an object without a member that must be understood and is not."""
    if not isinstance(document, dict):
        raise UnreadableError(Reason.BAD_SHAPE, "not an object")
    for name in document:
        if isinstance(name, str) and name.startswith("!"):
            raise UnreadableError(Reason.UNSUPPORTED, f"the member {name[:64]!r} must be understood, and is not")


def _gateway_part(fleet: str, name: object, document: object) -> Decoded:
    if not isinstance(name, str) or not _LEVEL.fullmatch(name):
        return _rejected(Reason.BAD_SHAPE, f"{str(name)[:64]!r} is no device's name")
    device = f"{fleet}/{name}"
    try:
        _check_members(document)
        return read_telemetry(device, document)  # type: ignore[arg-type]
    except UnreadableError as error:
        return _unreadable(error, device, count_values(document))


def _status(device: str, document: dict[str, Any]) -> Decoded:
    online = document.get("on")
    if not isinstance(online, int) or online not in {0, 1}:
        raise UnreadableError(Reason.BAD_SHAPE, 'a status needs "on": 0 or 1')
    interval_s = whole(document, "iv", 1, 366 * 86_400)
    return Decoded(status=Status(device, bool(online), text(document.get("fw")), interval_s))


def _metadata(device: str, document: dict[str, Any]) -> Decoded:
    quantities = document.get("q") or {}
    if not isinstance(quantities, dict):
        raise UnreadableError(Reason.BAD_SHAPE, '"q" must be an object of quantities')
    declared = {key: item for key, item in quantities.items() if isinstance(key, str) and isinstance(item, dict)}
    units = {key: unit_text(item["u"]) for key, item in declared.items() if "u" in item}
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
