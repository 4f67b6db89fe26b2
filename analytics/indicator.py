"""Indicators: what they need, how far they look, and a pure compute over all their zones and windows at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from devices.device import Zone
from devices.reading import BoolArray, Float64Array, Int32Array, Int64Array, UInt8Array

__all__ = ["Indicator", "Inputs", "Readings", "Results"]


class Readings(msgspec.Struct):
    """Readings of one quantity as columns, sorted by (series, time), flags derived by the context checks.

    `zone` and `device` are indices into the inputs' zones and devices; a reading of a device that moved belongs to the
    zone it stood in at its time. `interval_us` is the declared interval of the reading's series.
    """

    zone: Int32Array
    device: Int32Array
    series: Int32Array
    time_us: Int64Array
    span_us: Int64Array
    value: Float64Array
    flag: UInt8Array
    usable: BoolArray
    interval_us: Int64Array
    received_us: Int64Array


class Inputs(msgspec.Struct):
    """All that a set of windows depends on.

    `expected` says for each quantity how many readings the declared intervals promise: int64[zones, windows].
    """

    zones: Sequence[Zone]
    devices: Sequence[str]
    start_us: Int64Array  # int64[windows], rising
    stop_us: Int64Array
    readings: Mapping[str, Readings]
    expected: Mapping[str, Int64Array]


class Results(msgspec.Struct):
    """What a compute gives: one row a (zone, window) that has any reading at all, columns of one length."""

    zone: Int32Array  # index into Inputs.zones
    window: Int32Array  # index into Inputs.start_us
    value: Float64Array  # NaN: no number, `status` says why
    n_good: Int64Array
    n_expected: Int64Array
    status: Sequence[str]  # "ok", "incomplete", "undefined"
    detail: Sequence[Mapping[str, Any]]
    known_us: Int64Array


class Indicator(msgspec.Struct, frozen=True):
    """A number computed over a zone and a window. One file each in `analytics/indicators/`, as its `INDICATOR`.

    A window `[start, stop)` depends on the readings of `quantities` in `[start - back_s, stop + ahead_s)`, and with
    `bracket` also on the nearest reading on either side of that.
    """

    name: str
    title: str
    domain: str  # "traffic", "air", "energy"
    unit: str
    method: str
    method_version: str
    zone_kind: str
    quantities: tuple[str, ...]
    windows: tuple[str, ...]  # of analytics.window: "5min", "15min", "1h", "1d"
    compute: Callable[[Inputs], Results]
    back_s: int = 0
    ahead_s: int = 0
    grace_s: int = 3600
    min_coverage: float = 0.75
    bracket: bool = False
