"""Times at the edge: int64 microseconds inside, ISO 8601 in UTC outside."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import numpy as np

from dashboards.problem import ProblemError
from devices.reading import Int64Array
from qala.store.base import Span

__all__ = ["iso", "iso_array", "parse_span", "parse_time"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
_SECOND_US = 1_000_000
_UNITS_S = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_RELATIVE = re.compile(r"-(\d{1,9})(s|m|min|h|d|w)")
_EARLIEST_US = -2_208_988_800 * _SECOND_US  # 1900
_LATEST_US = 7_258_118_400 * _SECOND_US  # 2200
_HINT = "write 2026-11-22T09:00:00Z, 2026-11-22 (its midnight UTC), now, or a time before now such as -24h"


def iso(us: int) -> str:
    """Write a time in UTC, with microseconds only where it has any.

    >>> iso(1_700_000_000_000_000), iso(1_700_000_000_250_000)
    ('2023-11-14T22:13:20Z', '2023-11-14T22:13:20.250000Z')
    """
    return (_EPOCH + us * _US).isoformat().removesuffix("+00:00") + "Z"


def iso_array(us: Int64Array) -> list[str]:
    """Write many times as `iso` does."""
    times = us.astype("datetime64[us]")
    texts: list[str] = np.datetime_as_string(times, unit="s", timezone="UTC").tolist()
    for index in np.flatnonzero(us % _SECOND_US).tolist():
        texts[index] = iso(int(us[index]))
    return texts


def parse_time(text: str, now_us: int, *, field: str) -> int:
    """Read a time of a request [us]. Raises ProblemError (422)."""
    if text == "now":
        return now_us
    relative = _RELATIVE.fullmatch(text)
    time_us = now_us - int(relative[1]) * _UNITS_S[relative[2]] * _SECOND_US if relative else _absolute(text, field)
    if not _EARLIEST_US <= time_us < _LATEST_US:
        raise ProblemError(422, "bad_time", f"{field}={text!r} is not between 1900 and 2200", hint=_HINT)
    return time_us


def _absolute(text: str, field: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ProblemError(422, "bad_time", f"{field}={text!r} is not a time", hint=_HINT) from None
    if time.tzinfo is None:
        if len(text) > len("2026-11-22"):
            hint = "end it with Z for UTC, or with an offset whose + is written as %2B in a URL"
            raise ProblemError(422, "bad_time", f"{field}={text!r} has no time zone", hint=hint)
        time = time.replace(tzinfo=UTC)
    return (time - _EPOCH) // _US


def parse_span(start: str, stop: str, now_us: int, *, days_max: int) -> Span:
    """Read a half-open range. Raises ProblemError (422) where it is empty, backwards or longer than allowed."""
    span = Span(parse_time(start, now_us, field="start"), parse_time(stop, now_us, field="stop"))
    if span.start_us >= span.stop_us:
        hint = "the range is [start, stop): start must be before stop"
        raise ProblemError(422, "bad_range", f"start={start!r} is not before stop={stop!r}", hint=hint)
    if span.stop_us - span.start_us > days_max * 86_400 * _SECOND_US:
        raise ProblemError(422, "bad_range", f"the range is longer than {days_max} days", hint="ask for a shorter one")
    return span
