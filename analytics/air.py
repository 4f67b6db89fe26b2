"""Hours of air: district means by the hour, and what days and running hours are made of. Pure.

A district's hour is the mean over its stations' hourly means (`analytics.cells.zone_means`). Hours of a day are counted from
its local midnight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from analytics.cells import Counts, ZoneMeans, zone_means
from analytics.indicator import Inputs
from devices.reading import BoolArray, Float64Array, Int64Array

__all__ = ["HOUR_US", "Hours", "hourly", "leaders", "running_mean", "sum_counts"]

HOUR_US = 3_600_000_000


class Hours(msgspec.Struct):
    """Hourly district means, gathered by window: `value` is float64[zones, windows, hours], NaN where there is none.

    `inside` tells which of the hours lie in the window itself (bool[windows, hours]).
    """

    value: Float64Array
    inside: BoolArray
    counts: Counts  # int64[zones, windows, hours] each


def hourly(inputs: Inputs, quantity: str, first: int, last: int) -> Hours:
    """Average a quantity by district and hour, for the hours `first` to `last` (exclusive) counted from each window's start."""
    starts = inputs.start_us[:, None] + np.arange(first, last) * HOUR_US
    hours, index = np.unique(starts, return_inverse=True)
    means: ZoneMeans = zone_means(inputs, quantity, hours, hours + HOUR_US)
    at = index.reshape(starts.shape)
    return Hours(
        value=means.value[:, at],
        inside=(starts >= inputs.start_us[:, None]) & (starts < inputs.stop_us[:, None]),
        counts=Counts(
            seen=means.counts.seen[:, at],
            good=means.counts.good[:, at],
            owed=means.counts.owed[:, at],
            known_us=means.counts.known_us[:, at],
        ),
    )


def running_mean(hours: Float64Array, length: int, least: int) -> Float64Array:
    """Average every `length` hours in a row (float64[..., hours - length + 1]); NaN with fewer than `least` of them.

    >>> running_mean(np.array([1.0, 3.0, np.nan, 5.0]), 2, 1)
    array([2., 3., 5.])
    """
    n = hours.shape[-1] - length + 1
    there = ~np.isnan(hours)
    total, valid = np.zeros((*hours.shape[:-1], n)), np.zeros((*hours.shape[:-1], n))
    for k in range(length):  # one hour after the other, so that the order of addition is fixed
        present = there[..., k : k + n]
        total = total + np.where(present, hours[..., k : k + n], 0.0)
        valid = valid + present
    result: Float64Array = np.divide(total, valid, out=np.full(total.shape, np.nan), where=valid >= least)
    return result


def sum_counts(
    parts: Sequence[Counts],
    used: Sequence[BoolArray],
    own: BoolArray,
    counted: BoolArray,
    reached: BoolArray | np.bool_ = np.True_,
) -> Counts:
    """Add the counts of several quantities up, from [zones, windows, hours] to [zones, windows].

    Coverage speaks of the quantities that were `used` (bool[zones, windows] each), or of all of them where none was, over the
    hours `counted`; a window is seen when its `own` hours (bool[windows, hours]) hold a reading. What was known is that of the
    hours `reached`: those that a window looks at, whatever else was read.
    """
    nothing = ~np.any(used, axis=0)

    def added(name: str) -> Int64Array:
        grids = (
            np.where(use | nothing, np.where(counted, getattr(part, name), 0).sum(axis=-1), 0)
            for part, use in zip(parts, used, strict=True)
        )
        total: Int64Array = np.sum(list(grids), axis=0)
        return total

    return Counts(
        seen=np.sum([np.where(own, part.seen, 0).sum(axis=-1) for part in parts], axis=0),
        good=added("good"),
        owed=added("owed"),
        known_us=np.max([np.where(reached, part.known_us, 0).max(axis=-1, initial=0) for part in parts], axis=0),
    )


def leaders(index: Mapping[str, float]) -> dict[str, Any]:
    """Say which pollutants made an index, the worst (all of those that tie), and what each came to.

    >>> leaders({"pm2_5": 87.0, "pm10": float("nan")})
    {'main': ['pm2_5'], 'pollutants_used': ['pm2_5'], 'parts': {'pm2_5': 87}}
    """
    parts = {name: int(value) for name, value in index.items() if not np.isnan(value)}
    worst = max(parts.values(), default=0)
    return {
        "main": [name for name, value in parts.items() if value == worst],
        "pollutants_used": list(parts),
        "parts": parts,
    }
