"""Payload bytes into plain documents (dict, list, str, float, int, bool, None), and their fields into typed values.

What cannot be read raises UnreadableError with the reason of the rejection. Nothing else is raised, whatever the bytes are.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import math
from collections.abc import Iterable
from typing import Any, NoReturn

import cbor2

from devices.errors import QalaError, Reason

__all__ = [
    "REVISION_MAX",
    "TIME_MS_MAX",
    "WINDOW_MS_MAX",
    "UnreadableError",
    "number",
    "read_document",
    "text",
    "time_us",
]

TIME_MS_MAX = 8_640_000_000_000_000
"""Farthest time from 1970 that is called one [ms]: 275,760 years, as in ECMAScript; its microseconds fit an int64."""
WINDOW_MS_MAX = 366 * 86_400_000
"""Longest window, and longest step between two values of a batch [ms]."""
REVISION_MAX = 2**31 - 1

_INT_DIGITS_MAX = 400  # float64 ends at 309 digits; int() of more than 4300 digits is refused by Python
_DEPTH_MAX = 64
_TOO_DEEP = f"nested deeper than {_DEPTH_MAX}"
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_CBOR_FIRST = frozenset((*range(0xA0, 0xC0), 0xD9))  # a map, or the tag that says "this is CBOR" (RFC 8949, 3.4.6)


class UnreadableError(QalaError):
    """A payload, or a field of it, is not what the format describes."""

    code = "unreadable"

    def __init__(self, reason: Reason, detail: str, offset: int | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.offset = offset  # first bad byte of the payload, where it is known


def read_document(payload: bytes) -> Any:
    """Parse JSON, or CBOR where the first byte is that of a CBOR map.

    Raises:
        UnreadableError: bad_utf8, bad_json or bad_cbor.
    """
    if payload[:1] and payload[0] in _CBOR_FIRST:
        return _read_cbor(payload)
    return _read_json(payload)


def _read_json(payload: bytes) -> Any:
    try:
        document = json.loads(payload.decode(), parse_constant=_refuse_constant, parse_int=_int)
    except UnicodeDecodeError as error:
        raise UnreadableError(Reason.BAD_UTF8, f"byte {error.start} is not UTF-8", error.start) from None
    except RecursionError:
        raise UnreadableError(Reason.BAD_JSON, _TOO_DEEP) from None
    except json.JSONDecodeError as error:
        offset = len(error.doc[: error.pos].encode())
        raise UnreadableError(Reason.BAD_JSON, f"{error.msg} at character {error.pos}", offset) from None
    if payload.count(b"[") + payload.count(b"{") > _DEPTH_MAX and _is_deep(document):
        raise UnreadableError(Reason.BAD_JSON, _TOO_DEEP)
    return document


def _is_deep(document: Any) -> bool:
    """Tell whether more than `_DEPTH_MAX` arrays and objects lie in one another: Python's own limit is not always the same."""
    level = [document]
    for _ in range(_DEPTH_MAX):
        level = [part for whole in level for part in _parts(whole) if isinstance(part, dict | list)]
    return bool(level)


def _parts(whole: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return whole.values() if isinstance(whole, dict) else whole


def _refuse_constant(name: str) -> NoReturn:
    raise UnreadableError(Reason.BAD_JSON, f"{name} is not JSON")


def _int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _INT_DIGITS_MAX else float(digits)


def _read_cbor(payload: bytes) -> Any:
    stream = io.BytesIO(payload)
    decoder = cbor2.CBORDecoder(
        stream,
        read_size=1,  # so that what follows the document can be seen
        max_depth=_DEPTH_MAX,
        strict_hashable_types=True,
        allow_duplicate_keys=False,
    )
    try:
        document = decoder.decode()
    except Exception as error:  # noqa: BLE001 - tags run the codec's own decoders, which raise whatever they like
        raise UnreadableError(Reason.BAD_CBOR, f"{type(error).__name__}: {error}", stream.tell()) from None
    if stream.tell() != len(payload):
        raise UnreadableError(Reason.BAD_CBOR, f"bytes after the document, from {stream.tell()}", stream.tell())
    return document


def number(raw: object) -> float | bool | str | None:
    """Check a reading's value: a finite number, a bool, the name of a state, or None for a missing one.

    Raises:
        UnreadableError: bad_value or not_finite.
    """
    if raw is None or isinstance(raw, bool | str):
        return raw
    if not isinstance(raw, int | float):
        raise UnreadableError(Reason.BAD_VALUE, f"{_kind(raw)} where a number belongs")
    try:
        value = float(raw)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise UnreadableError(Reason.NOT_FINITE, "no finite float64")
    return value


def time_us(raw: object) -> int:
    """Read a time: Unix milliseconds, or ISO 8601 with an offset. Return UTC microseconds.

    Raises:
        UnreadableError: bad_time.

    >>> time_us("2026-01-01T05:00:00+05:00") == time_us(1767225600000)
    True
    """
    if isinstance(raw, str):
        return _iso_us(raw)
    if not isinstance(raw, int | float) or isinstance(raw, bool):
        raise UnreadableError(Reason.BAD_TIME, f"{_kind(raw)} where a time belongs")
    if not abs(raw) <= TIME_MS_MAX:
        raise UnreadableError(Reason.BAD_TIME, "beyond every calendar")
    return raw * 1000 if isinstance(raw, int) else round(raw * 1000)


def _iso_us(raw: str) -> int:
    try:
        moment = dt.datetime.fromisoformat(raw)
    except ValueError:
        raise UnreadableError(Reason.BAD_TIME, "not a time by ISO 8601") from None
    if moment.tzinfo is None:
        raise UnreadableError(Reason.BAD_TIME, "a time by ISO 8601 needs its offset from UTC")
    return (moment - _EPOCH) // _MICROSECOND


def text(raw: object, longest: int = 64) -> str | None:
    """Read an optional printable text; None where it is absent, or no such text.

    >>> text("1.4.2"), text(7), text("a" * 65)
    ('1.4.2', None, None)
    """
    return raw if isinstance(raw, str) and len(raw) <= longest and raw.isprintable() else None


def _kind(raw: object) -> str:
    names: dict[type, str] = {dict: "an object", list: "an array", bool: "a bool", str: "a text", type(None): "null"}
    return names.get(type(raw), type(raw).__name__)
