"""Telemetry of the native scheme, version 1, in all its shapes: single, batch, irregular, window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from devices.errors import Reason
from ingest.formats.base import Decoded, Rejection, Report
from ingest.payload import REVISION_MAX, WINDOW_MS_MAX, UnreadableError, number, text, time_us

__all__ = ["READINGS_MAX", "count_values", "read_telemetry", "unit_text", "whole"]

READINGS_MAX = 5_000
"""Readings of one message."""

Scalar = float | bool | str | None


class _Head(NamedTuple):
    """What a telemetry document says of all its values. `times_us` are starts; None where it has no time of its own."""

    time: Any
    step_us: int | None
    span_s: int
    revision: int
    quality: int | dict[str, Any]
    units: dict[str, str] | None
    values: dict[str, Any]


def count_values(document: object) -> int:
    """Count the values that a telemetry document carries."""
    values = document.get("v") if isinstance(document, dict) else None
    if not isinstance(values, dict):
        return 0
    return sum(len(value) if isinstance(value, list) else 1 for value in values.values())


def read_telemetry(device: str, document: dict[str, Any]) -> Decoded:
    """Decode one device's telemetry; one bad value loses only itself.

    Raises:
        UnreadableError: the whole of it is bad.
    """
    head = _head(document)
    if head.step_us is not None or isinstance(head.time, list):
        return _columns(device, head)
    return _values(device, head)


def _head(document: dict[str, Any]) -> _Head:
    values = document.get("v")
    if not isinstance(values, dict):
        raise UnreadableError(Reason.BAD_SHAPE, 'telemetry needs an object "v"')
    step_ms = whole(document, "i", 1, WINDOW_MS_MAX)
    span_ms = whole(document, "w", 1000, WINDOW_MS_MAX) or 0
    if span_ms % 1000:
        raise UnreadableError(Reason.BAD_SHAPE, '"w" must be whole seconds [ms]')
    return _Head(
        time=document.get("t"),
        step_us=None if step_ms is None else step_ms * 1000,
        span_s=span_ms // 1000,
        revision=whole(document, "r", 0, REVISION_MAX) or 0,
        quality=_quality(document.get("q")),
        units=_units(document.get("u")),
        values=values,
    )


def whole(document: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
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
    return {str(key): unit_text(unit) for key, unit in raw.items()} or None


def unit_text(raw: object) -> str:
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
            count = len(raw) if isinstance(raw, list) else 1
            rejections.append(Rejection(error.reason, error.detail, str(raw_key) or '""', device, max(count, 1)))
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
    return _irregular(head, span_us, device, rejections)


def _irregular(head: _Head, span_us: int, device: str, rejections: list[Rejection]) -> list[int | None]:
    raw: list[Any] = head.time
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
        lost = len(bad) * max(len(head.values), 1)
        rejections.append(Rejection(Reason.BAD_TIME, _first_of(bad), device=device, readings=lost))
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
    return [Rejection(reason, _first_of(items), column.key, device, len(items)) for reason, items in bad.items()]


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
