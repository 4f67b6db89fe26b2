"""Indicators: what they need, how far they look, and a pure compute over all their zones and windows at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from devices.device import Device, Zone
from devices.reading import BoolArray, Float64Array, Int32Array, Int64Array

__all__ = ["Indicator", "Inputs", "Placed", "Readings", "Results"]


class Placed(msgspec.Struct):
    """Devices where they stand, as columns sorted by (device id, time); a device that moved has several rows.

    `zone` and `device` are indices into the inputs' zones and devices; `interval_us` is what the device declares.
    """

    zone: Int32Array
    device: Int32Array
    since_us: Int64Array
    until_us: Int64Array
    interval_us: Int64Array

    def __len__(self) -> int:
        return len(self.zone)


class Readings(msgspec.Struct):
    """Readings of one quantity as columns, sorted by (series, time).

    `placed` is the row of Inputs.placed that the reading's device stood in at its time. Series are numbered by (device,
    channel, span), the same way in every store. `usable` tells those whose flag, context checks included, lets them count.
    """

    placed: Int32Array
    series: Int32Array
    channel: Int32Array  # index into Inputs.channels
    time_us: Int64Array
    span_us: Int64Array
    value: Float64Array
    usable: BoolArray
    received_us: Int64Array

    def __len__(self) -> int:
        return len(self.series)

    def take(self, where: BoolArray | Int64Array | slice) -> Readings:
        """Return the rows picked by a mask, by indices or by a slice."""
        return Readings(*(column[where] for column in msgspec.structs.astuple(self)))


class Inputs(msgspec.Struct):
    """All that a set of windows depends on.

    `promised` tells for each quantity which rows of `placed` have a kind that lists it (bool[placed]): those devices
    owe one reading an interval even when they are silent.
    """

    zones: Sequence[Zone]
    devices: Sequence[Device]
    placed: Placed
    channels: Sequence[str]
    start_us: Int64Array  # int64[windows], rising, not overlapping
    stop_us: Int64Array
    readings: Mapping[str, Readings]
    promised: Mapping[str, BoolArray]


class Results(msgspec.Struct):
    """What a compute gives: one row a (zone, window) that has any reading at all, columns of one length."""

    zone: Int64Array  # index into Inputs.zones
    window: Int64Array  # index into Inputs.start_us
    value: Float64Array  # NaN: no number, `status` says why
    n_good: Int64Array
    n_expected: Int64Array
    status: Sequence[str]  # "ok", "incomplete", "undefined"
    detail: Sequence[Mapping[str, Any]]
    known_us: Int64Array


class Indicator(msgspec.Struct, frozen=True):
    """A number computed over a zone and a window. One file each in `analytics/indicators/`, as its `INDICATOR`.

    A window `[start, stop)` depends on the readings of `quantities` in `[start - back_s, stop + ahead_s)`, and with
    `bracket` also on the readings up to two declared intervals on either side of that (registers, which are
    interpolated to the window's edges). What the context checks look at comes on top of it.
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
