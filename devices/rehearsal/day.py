"""One day of one kind of device as its devices tell it: true columns, then what faults make of them."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec
import numpy as np

from devices.reading import Int64Array, UInt8Array
from devices.rehearsal.faults import Fault, FaultKind

__all__ = ["Day", "Sent", "spoil", "spoilt"]

SECOND_US = 1_000_000
LATE_US = 5 * SECOND_US


class Sent(IntEnum):
    """How a reading is sent."""

    NORMAL = 0
    TWICE = 1
    MALFORMED = 2
    LATE = 3
    NEVER = 4


class Day(msgspec.Struct):
    """A day of one kind: arrays of [devices, readings]."""

    time_us: Int64Array  # as the message says: the end of a window, and off where the device's clock is
    due_us: Int64Array  # when it is published
    sent: UInt8Array
    columns: dict[str, Any]  # by quantity: int64 or float64


_SENT = {
    FaultKind.GAP: Sent.NEVER,
    FaultKind.DUPLICATE: Sent.TWICE,
    FaultKind.MALFORMED: Sent.MALFORMED,
    FaultKind.LATE_BATCH: Sent.LATE,
}


def spoil(day: Day, fault: Fault, row: int, places: slice) -> None:
    """Do to a device's readings what a fault does. A meter's reset is in its counter already."""
    if fault.kind in _SENT:
        day.sent[row, places] = _SENT[fault.kind]
        if fault.kind is FaultKind.LATE_BATCH:
            day.due_us[row, places] = max(fault.end_us, int(day.due_us[row, places].max())) + LATE_US
    elif fault.kind is FaultKind.CLOCK_SKEW:
        day.time_us[row, places] += fault.detail["offset_s"] * SECOND_US
    elif fault.kind is not FaultKind.METER_RESET:
        _spoil_values(day.columns[fault.detail["quantity"]][row, places], fault)


def _spoil_values(values: Any, fault: Fault) -> None:
    """Change a stretch of a column in place."""
    if fault.kind is FaultKind.STUCK:
        values[:] = values[~np.isnan(values)][0] if not np.isnan(values).all() else np.nan
    elif fault.kind is FaultKind.SPIKE:
        values[0] += fault.detail["added"]
    elif fault.kind is FaultKind.DRIFT:
        values[:] = (values * np.linspace(1, fault.detail["factor"], len(values))).round(1)


_BROKEN = (
    b'{"t":',
    b'{"t":"yesterday","v":{"pm2_5":1}}',
    b'{"v":{"pm2_5":NaN,"speed":"fast"}}',
    b"\xff\xfe\x00reboot\x00",
    b"[1,2,3]",
)


def spoilt(payload: bytes, variant: int) -> bytes:
    """Return what a broken device sends instead of a payload: half of it, or one of a few kinds of rubbish."""
    return payload[: len(payload) // 2] if variant % 6 == 5 else _BROKEN[variant % 6]
