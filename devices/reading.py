"""Readings: a value of a series at a time, with a flag and an origin. Batches are readings as columns."""

from __future__ import annotations

from enum import IntEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

Int64Array = NDArray[np.int64]
Int32Array = NDArray[np.int32]
UInt8Array = NDArray[np.uint8]
Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


class Flag(IntEnum):
    """QARTOD primary flags (IOOS QARTOD, Manual for the Use of Real-Time Oceanographic Data Quality Control Flags)."""

    GOOD = 1
    NOT_EVALUATED = 2
    SUSPECT = 3
    FAIL = 4
    MISSING = 9


USABLE: frozenset[Flag] = frozenset({Flag.GOOD, Flag.NOT_EVALUATED})
"""Flags of the readings that indicators are made of."""


class Position(msgspec.Struct, frozen=True, order=True):
    """Where a message stands: the journal's id and the message's number in it (1, 2, 3, ... over the journal's life)."""

    journal: str
    number: int


class SeriesInfo(msgspec.Struct, frozen=True):
    """One quantity, channel and span [s] at one device; `span_s` is 0 for an instant."""

    device: str
    quantity: str
    channel: str = ""
    span_s: int = 0
    unit: str = ""


class Batch(msgspec.Struct):
    """Readings as columns of one length, in any order.

    A reading's precedence among those of one (series, time) is (revision, origin): the higher wins.
    `origin` is the number of the message in its journal. A missing reading has flag 9 and the value NaN.
    """

    series: Int32Array  # ids given by Store.register
    time_us: Int64Array  # start of what the reading describes, UTC
    value: Float64Array
    flag: UInt8Array
    revision: Int32Array
    origin: Int64Array
    received_us: Int64Array

    def __len__(self) -> int:
        return len(self.series)

    @classmethod
    def empty(cls) -> Batch:
        """Make a batch of no readings."""
        return cls(
            series=np.empty(0, np.int32),
            time_us=np.empty(0, np.int64),
            value=np.empty(0, np.float64),
            flag=np.empty(0, np.uint8),
            revision=np.empty(0, np.int32),
            origin=np.empty(0, np.int64),
            received_us=np.empty(0, np.int64),
        )

    def take(self, where: BoolArray | Int64Array) -> Batch:
        """Return the rows picked by a mask or by indices."""
        return Batch(*(column[where] for column in msgspec.structs.astuple(self)))
