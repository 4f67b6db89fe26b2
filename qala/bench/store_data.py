"""The readings of the store's bench: a seeded city that can be asked for any reading, and the stream that delivers it.

Every reading is a function of (series, turn), so that what an answer must hold can be worked out without keeping the data.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from devices.reading import Flag, Float64Array, Int32Array, Int64Array, SeriesInfo, UInt8Array

__all__ = [
    "BATCH",
    "HOUR_US",
    "LATE_TURNS",
    "STEP_US",
    "Readings",
    "Rows",
    "Shape",
    "deliveries",
    "readings",
    "series_infos",
]

STEP_US = 300_000_000
"""Time between two readings of a series [us]."""
HOUR_US = 3_600_000_000
BATCH = 10_000
"""Readings of one append."""
LATE_TURNS = 12
"""How much later late readings come: an hour."""

_REPEATED = 20  # every so-manieth batch is delivered twice
_DAY_US = 86_400_000_000
_QUANTITIES = (
    ("pm2_5", "ug/m3"),
    ("pm10", "ug/m3"),
    ("no2", "ug/m3"),
    ("temperature", "degC"),
    ("relative_humidity", "%"),
)

# The finalizer of splitmix64 (Steele, Lea and Flood 2014): every bit of the result depends on every bit of the key.
_KEYS = np.array([0x9E3779B97F4A7C15, 0xD1B54A32D192ED03, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)
_SHIFTS = np.array([30, 27, 31], np.uint64)


class Shape(msgspec.Struct, frozen=True):
    """So many series with a reading each in so many turns, five minutes apart, the last of them before `stop_us`."""

    series: int
    turns: int
    stop_us: int
    seed: int = 4

    @property
    def rows(self) -> int:
        return self.series * self.turns

    @property
    def start_us(self) -> int:
        return self.tick_us(0)

    def tick_us(self, turn: int) -> int:
        """Return when a turn starts; its readings follow one to three seconds later."""
        return self.stop_us - (self.turns - turn) * STEP_US

    def turn_of(self, time_us: int) -> int:
        """Return the first turn that starts at or after a time."""
        return self.turns - (self.stop_us - time_us) // STEP_US


class Readings(msgspec.Struct):
    """Readings as columns."""

    time_us: Int64Array
    value: Float64Array
    flag: UInt8Array  # good, and every two-hundredth fail
    late: UInt8Array  # 1 where it comes an hour late: every fiftieth


class Rows(msgspec.Struct):
    """What is appended at once."""

    number: int  # of the batch; a repeated one keeps it
    turn: int  # the newest in it
    series: Int32Array
    time_us: Int64Array
    value: Float64Array
    flag: UInt8Array
    received_us: Int64Array

    def __len__(self) -> int:
        return len(self.series)


def series_infos(series: int) -> list[SeriesInfo]:
    """Return what each series is: five quantities a device."""
    return [
        SeriesInfo(device=f"bench-d{n // 5:05d}", quantity=quantity, unit=unit)
        for n in range(series)
        for quantity, unit in [_QUANTITIES[n % 5]]
    ]


def readings(shape: Shape, series: Int64Array, turn: Int64Array) -> Readings:
    """Return the readings of series (1, 2, ...) in turns; both int64[n].

    Values have one or two decimals and triangular noise, so that nothing packs better than a city's readings would.
    """
    dice = _dice(series, turn, shape.seed)
    time_us = shape.tick_us(0) + turn * STEP_US + 1_000 * (1000 + _bits(dice, 32, 12) * 2000 // 4096)
    phase = 2 * np.pi * ((time_us % _DAY_US) / _DAY_US + (series % 24) / 24)
    noise = (_bits(dice, 0, 16) + _bits(dice, 16, 16) - 65_535) / 16_384
    scale = np.where(series % 2, 100.0, 10.0)
    value = np.round((20 + series * 7919 % 1000 / 20 + 8 * np.sin(phase) + noise) * scale) / scale
    flag = np.where(_bits(dice, 54, 10) < 5, np.uint8(Flag.FAIL), np.uint8(Flag.GOOD))
    return Readings(time_us, value, flag, (_bits(dice, 44, 10) < 20).astype(np.uint8))


def _dice(series: Int64Array, turn: Int64Array, seed: int) -> NDArray[np.uint64]:
    key: NDArray[np.uint64] = series.astype(np.uint64) * _KEYS[0] + turn.astype(np.uint64) * _KEYS[1] + np.uint64(seed)
    key = (key ^ (key >> _SHIFTS[0])) * _KEYS[2]
    key = (key ^ (key >> _SHIFTS[1])) * _KEYS[3]
    key ^= key >> _SHIFTS[2]
    return key


def _bits(dice: NDArray[np.uint64], start: int, count: int) -> Int64Array:
    return ((dice >> np.uint64(start)) & np.uint64(2**count - 1)).astype(np.int64)


def deliveries(shape: Shape, first: int, last: int, *, number: int = 0, batch: int = BATCH) -> Iterator[Rows]:
    """Yield the readings of turns `[first, last)` as they arrive, in batches of so many, numbered from `number` on.

    By time within a turn, the late ones an hour later; every twentieth batch comes twice.
    """
    rest: Rows | None = None
    for arrived in _arrivals(shape, first, last):
        rest = arrived if rest is None else _joined(rest, arrived)
        while len(rest) >= batch:
            yield from _delivered(_part(rest, slice(0, batch)), number)
            rest, number = _part(rest, slice(batch, None)), number + 1
    if rest is not None and len(rest):
        yield from _delivered(rest, number)


def _delivered(rows: Rows, number: int) -> Iterator[Rows]:
    rows.number = number
    yield rows
    if number % _REPEATED == _REPEATED - 1:
        yield rows


def _arrivals(shape: Shape, first: int, last: int) -> Iterator[Rows]:
    every = np.arange(1, shape.series + 1, dtype=np.int64)
    for turn in range(first, last + LATE_TURNS):
        parts = []
        if turn < last:
            parts.append(_arriving(shape, every, turn, late=0, now_us=shape.tick_us(turn)))
        if first <= turn - LATE_TURNS < last:
            parts.append(_arriving(shape, every, turn - LATE_TURNS, late=1, now_us=shape.tick_us(turn)))
        for part in parts:
            part.turn = min(turn, last - 1)
            yield part


def _arriving(shape: Shape, series: Int64Array, turn: int, *, late: int, now_us: int) -> Rows:
    made = readings(shape, series, np.full(len(series), turn, np.int64))
    rows = np.flatnonzero(made.late == late)
    rows = rows[np.argsort(made.time_us[rows], kind="stable")]
    received_us = np.full(len(rows), now_us + 4_000_000, np.int64)
    return Rows(
        0, turn, series[rows].astype(np.int32), made.time_us[rows], made.value[rows], made.flag[rows], received_us
    )


def _joined(one: Rows, other: Rows) -> Rows:
    pairs = zip(msgspec.structs.astuple(one)[2:], msgspec.structs.astuple(other)[2:], strict=True)
    return Rows(0, other.turn, *(np.concatenate(pair) for pair in pairs))


def _part(rows: Rows, part: slice) -> Rows:
    return Rows(0, rows.turn, *(column[part] for column in msgspec.structs.astuple(rows)[2:]))
