"""Quality checks as pure functions over columns: arrays in, QARTOD flags (uint8) out.

Point checks look at one reading and are stored with it. Context checks look at a series and are derived whenever readings
are read, so that they do not depend on the order of arrival: they take columns sorted by (series, time), one row a
(series, time), of as many series as there are. No verdict depends on a clock: a reading without a later neighbour is
not a spike until that neighbour is stored.

Definitions: U.S. IOOS QARTOD manuals (gross range, spike, rate of change, flat line), with windows measured in time
instead of in samples, since city sensors skip and burst.
"""

from __future__ import annotations

import msgspec
import numpy as np

from devices.quantity import Quantity
from devices.reading import BoolArray, Flag, Float64Array, Int32Array, Int64Array, UInt8Array

__all__ = [
    "VERSION",
    "Limits",
    "aggregate_flags",
    "context_s",
    "derive_flags",
    "flat_flags",
    "limits_of",
    "point_flags",
    "spike_flags",
    "step_flags",
]

VERSION = 1
"""Of the context checks: raised when they give other flags, so that what was counted by them is counted anew."""

SECOND_US = 1_000_000
SPIKE_NEIGHBOUR_S = 600
"""Neighbours farther away than this say nothing about a spike [s]: two intervals of the slowest station."""
STEP_NEIGHBOUR_S = 3600
"""Neighbours farther away than this say nothing about a step [s]: `step_max_per_h` is what one hour may bring."""
STUCK_GAP_SHARE = 1 / 3
"""A gap of more than this share of the stuck time ends a stuck run: at least four readings must agree."""

_GOOD, _UNKNOWN = np.uint8(Flag.GOOD), np.uint8(Flag.NOT_EVALUATED)
_SUSPECT, _FAIL, _MISSING = np.uint8(Flag.SUSPECT), np.uint8(Flag.FAIL), np.uint8(Flag.MISSING)

# Precedence of QARTOD flags, lowest first: 9 < 2 < 1 < 3 < 4.
_BY_RANK = np.array([Flag.MISSING, Flag.NOT_EVALUATED, Flag.GOOD, Flag.SUSPECT, Flag.FAIL], np.uint8)
_RANK = np.zeros(256, np.uint8)
_RANK[_BY_RANK] = np.arange(len(_BY_RANK))


class Limits(msgspec.Struct, frozen=True):
    """What the context checks of one quantity compare with; None leaves a check out."""

    spike_max: float | None = None
    step_max_per_h: float | None = None
    stuck_after_s: int | None = None
    resolution: float = 0.0
    rests_at: tuple[float, ...] = ()


def limits_of(quantity: Quantity) -> Limits:
    """Take the context limits out of a quantity."""
    return Limits(
        spike_max=quantity.spike_max,
        step_max_per_h=quantity.step_max_per_h,
        stuck_after_s=quantity.stuck_after_s,
        resolution=quantity.resolution,
        rests_at=quantity.rests_at,
    )


def context_s(limits: Limits) -> tuple[int, int]:
    """Return how far (back, ahead) [s] around a window readings are needed for the flags inside it to be final.

    >>> context_s(Limits(spike_max=5.0, step_max_per_h=15.0))
    (4200, 600)
    >>> context_s(Limits())
    (0, 0)
    """
    spike = SPIKE_NEIGHBOUR_S if limits.spike_max is not None else 0
    step = STEP_NEIGHBOUR_S if limits.step_max_per_h is not None else 0
    stuck = int((1 + STUCK_GAP_SHARE) * (limits.stuck_after_s or 0))
    return max(step, stuck) + spike, spike


def aggregate_flags(*flags: UInt8Array) -> UInt8Array:
    """Return the flag of the highest precedence of each row: 9 < 2 < 1 < 3 < 4.

    >>> aggregate_flags(np.array([1, 1, 9, 9], np.uint8), np.array([3, 9, 2, 9], np.uint8))
    array([3, 1, 2, 9], dtype=uint8)
    """
    rank = _RANK[flags[0]]
    for more in flags[1:]:
        rank = np.maximum(rank, _RANK[more])
    return _BY_RANK[rank]


def point_flags(
    value: Float64Array,
    reported: UInt8Array,
    fail_low: Float64Array | float,
    fail_high: Float64Array | float,
    suspect_low: Float64Array | float,
    suspect_high: Float64Array | float,
) -> UInt8Array:
    """Judge readings by themselves: missing, device-reported and gross range; return uint8[n].

    NaN, or a reading that the device calls missing, is 9. Bounds are inclusive, in the unit of the value, and one for all
    or one for each row; infinite ones let everything pass. Else the worse of both verdicts counts.

    >>> value = np.array([1.0, 2.0, np.nan, 4.0, 8.0, 4.5, 2.0])
    >>> reported = np.array([1, 2, 1, 1, 1, 1, 3], np.uint8)
    >>> point_flags(value, reported, 0.0, 5.0, 1.0, 4.0)
    array([1, 1, 9, 1, 4, 3, 3], dtype=uint8)
    """
    suspect = (value < suspect_low) | (value > suspect_high)
    fail = (value < fail_low) | (value > fail_high)
    rank = np.maximum(_RANK[_GOOD] + suspect, np.where(fail, _RANK[_FAIL], np.uint8(0)))
    flag: UInt8Array = _BY_RANK[np.maximum(rank, _RANK[reported])]
    flag[np.isnan(value) | (reported == _MISSING)] = _MISSING
    return flag


def derive_flags(
    series: Int32Array | Int64Array,
    time_us: Int64Array,
    value: Float64Array,
    flag: UInt8Array,
    limits: Limits,
) -> UInt8Array:
    """Add the context checks to stored flags and return uint8[n]; rows are sorted by (series, time).

    Readings that are suspect, failed or missing by themselves take no part, and spikes take no part in the later checks,
    so that one bad reading does not spoil its neighbours. What a context check objects to is suspect.

    >>> time_us = np.arange(7, dtype=np.int64) * 60_000_000
    >>> value = np.array([10.0, 11.0, 90.0, 10.0, 12.0, np.nan, 60.0])
    >>> flag = np.array([1, 1, 1, 1, 2, 9, 1], np.uint8)
    >>> derive_flags(np.zeros(7, np.int64), time_us, value, flag, Limits(spike_max=20.0, step_max_per_h=40.0))
    array([1, 1, 3, 1, 2, 9, 3], dtype=uint8)
    """
    derived = flag.copy()
    rows = np.flatnonzero(((flag == _GOOD) | (flag == _UNKNOWN)) & ~np.isnan(value))
    if limits.spike_max is not None:
        spike = spike_flags(series[rows], time_us[rows], value[rows], limits.spike_max) == _SUSPECT
        derived[rows[spike]] = _SUSPECT
        rows = rows[~spike]
    kept = series[rows], time_us[rows], value[rows]
    if limits.step_max_per_h is not None:
        # An hour's worth of change may come at once, as fronts and plumes do: the rate is never taken over less.
        step = step_flags(*kept, limits.step_max_per_h / STEP_NEIGHBOUR_S, over_s=STEP_NEIGHBOUR_S)
        derived[rows[step == _SUSPECT]] = _SUSPECT
    if limits.stuck_after_s is not None:
        stuck = flat_flags(*kept, limits.resolution, suspect_s=limits.stuck_after_s) == _SUSPECT
        derived[rows[stuck & ~np.isin(kept[2], limits.rests_at)]] = _SUSPECT
    return derived


def spike_flags(
    series: Int32Array | Int64Array,
    time_us: Int64Array,
    value: Float64Array,
    suspect: float,
    fail: float = np.inf,
) -> UInt8Array:
    """Flag readings that stand out from both neighbours, on the same side, by more than a limit [unit of the value].

    The smaller of the two differences counts, so the neighbours of a spike stay good (QARTOD's differential method). A
    reading without two near neighbours is not evaluated.

    >>> time_us = np.arange(5, dtype=np.int64) * 60_000_000
    >>> spike_flags(np.zeros(5, np.int64), time_us, np.array([10.0, 12.0, 99.0, 13.0, 15.0]), 25.0, 50.0)
    array([2, 1, 4, 1, 2], dtype=uint8)
    """
    deviation = np.full(len(value), np.nan)
    if len(value) > 2:
        before, after = value[1:-1] - value[:-2], value[1:-1] - value[2:]
        follows = _follows(series, time_us, SPIKE_NEIGHBOUR_S)
        peak = np.where(before * after > 0, np.minimum(np.abs(before), np.abs(after)), before * after * 0)
        deviation[1:-1] = np.where(follows[:-1] & follows[1:], peak, np.nan)
    return _graded(value, deviation > suspect, deviation > fail, np.where(np.isnan(deviation), _UNKNOWN, _GOOD))


def step_flags(
    series: Int32Array | Int64Array,
    time_us: Int64Array,
    value: Float64Array,
    suspect_per_s: float,
    fail_per_s: float = np.inf,
    *,
    over_s: float = 0.0,
) -> UInt8Array:
    """Flag readings that differ from the one before by more than a rate [unit of the value per second] allows.

    The rate is taken over at least `over_s`. A first reading, or one after a gap, has nothing to be judged by and is good.

    >>> time_us = np.arange(5, dtype=np.int64) * 900_000_000
    >>> step_flags(np.zeros(5, np.int64), time_us, np.array([2.0, 10.0, 9.0, np.nan, 3.0]), 5 / 900)
    array([1, 3, 1, 9, 1], dtype=uint8)
    """
    rate = np.zeros(len(value))
    if len(value) > 1:
        seconds = np.maximum(np.diff(time_us) / SECOND_US, over_s)
        near = _follows(series, time_us, STEP_NEIGHBOUR_S)
        rate[1:] = np.divide(np.abs(np.diff(value)), seconds, out=np.zeros(len(seconds)), where=near)
    return _graded(value, rate > suspect_per_s, rate > fail_per_s, _GOOD)


def flat_flags(
    series: Int32Array | Int64Array,
    time_us: Int64Array,
    value: Float64Array,
    tolerance: float,
    *,
    suspect_s: float,
    fail_s: float = np.inf,
) -> UInt8Array:
    """Flag readings up to which, for a time [s], values have stayed within less than a tolerance [unit of the value].

    The window ends at the reading and reaches back to the last one at least that old; no gap in it may be longer than a
    third of it.

    >>> time_us = np.arange(6, dtype=np.int64) * 1_000_000
    >>> flat_flags(np.zeros(6, np.int64), time_us, np.full(6, 5.0), 0.1, suspect_s=3, fail_s=5)
    array([1, 1, 1, 3, 3, 4], dtype=uint8)
    """
    return _graded(
        value,
        _stuck(series, time_us, value, tolerance, suspect_s),
        _stuck(series, time_us, value, tolerance, fail_s) if np.isfinite(fail_s) else np.bool_(False),
        _GOOD,
    )


def _graded(
    value: Float64Array, suspect: BoolArray, fail: BoolArray | np.bool_, otherwise: UInt8Array | np.uint8
) -> UInt8Array:
    """Put verdicts together, the worst first; what is missing stays missing."""
    return np.where(np.isnan(value), _MISSING, np.where(fail, _FAIL, np.where(suspect, _SUSPECT, otherwise)))


def _follows(series: Int32Array | Int64Array, time_us: Int64Array, within_s: float) -> BoolArray:
    """Tell for each row after the first whether it follows the row before: same series, near enough in time (bool[n-1])."""
    near: BoolArray = (series[1:] == series[:-1]) & (time_us[1:] - time_us[:-1] <= within_s * SECOND_US)
    return near


def _stuck(
    series: Int32Array | Int64Array, time_us: Int64Array, value: Float64Array, tolerance: float, after_s: float
) -> BoolArray:
    """Find the rows before which, for `after_s`, values have stayed within less than a tolerance."""
    stuck = np.zeros(len(value), np.bool_)
    if len(value) < 2:
        return stuck
    run = np.concatenate(([0], np.cumsum(~_follows(series, time_us, after_s * STUCK_GAP_SHARE))))
    first, whole = _lookback(run, time_us, round(after_s * SECOND_US))
    rows = np.flatnonzero(whole)
    # A spread of exactly the tolerance is movement: the margin keeps that so in binary floating point.
    stuck[rows] = _spread(value, first[rows], rows) < tolerance * (1 - 1e-9) - 1e-12
    return stuck


def _lookback(run: Int64Array, time_us: Int64Array, back_us: int) -> tuple[Int64Array, BoolArray]:
    """Return for each row the last row at least `back_us` before it, and whether its run reaches that far back."""
    # One rising key for all runs: time since the run's first row, laid end to end with room for the look-back between.
    starts = np.concatenate(([0], np.flatnonzero(np.diff(run)) + 1))
    since = time_us - np.repeat(time_us[starts], np.diff(np.append(starts, len(run))))
    ends = since[np.append(starts[1:], len(run)) - 1]
    base = np.concatenate(([0], np.cumsum(ends[:-1] + back_us + 1)))[run]
    first = np.searchsorted(base + since, base + since - back_us, side="right") - 1
    return first, since >= back_us


def _spread(value: Float64Array, first: Int64Array, last: Int64Array) -> Float64Array:
    """Return max - min of `value[first..last]` (inclusive) for many ranges at once, by doubling windows."""
    spread = np.zeros(len(first))
    level = np.frexp(last - first + 1)[1] - 1  # floor(log2(length))
    high = low = value
    for k in range(int(level.max(initial=0)) + 1):
        here = np.flatnonzero(level == k)
        left, right = first[here], last[here] - (1 << k) + 1
        spread[here] = np.maximum(high[left], high[right]) - np.minimum(low[left], low[right])
        if len(high) > 1 << k:
            high = np.maximum(high[: -(1 << k)], high[1 << k :])
            low = np.minimum(low[: -(1 << k)], low[1 << k :])
    return spread
