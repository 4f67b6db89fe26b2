"""Which readings of a batch are certainly new to a store, told from the earliest and latest time kept of each series."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from devices.reading import Batch, BoolArray, Int32Array, Int64Array
from qala.store.base import Span
from qala.store.rows import winners

DAY_US = 86_400_000_000

_NEVER_FIRST = np.iinfo(np.int64).max
_NEVER_LAST = np.iinfo(np.int64).min


class Extent:
    """Bounds on the times stored, by series id: nothing is stored before `first_us` or after `last_us`.

    Deletions leave them as they are: bounds may be wider than what is stored, never narrower.
    """

    def __init__(self, series: int) -> None:
        self.first_us: Int64Array = np.full(series + 1, _NEVER_FIRST, np.int64)
        self.last_us: Int64Array = np.full(series + 1, _NEVER_LAST, np.int64)

    def grow(self, series: int) -> None:
        """Make room for the series ids 1 to `series`."""
        more = series + 1 - len(self.last_us)
        if more > 0:
            self.first_us = np.concatenate([self.first_us, np.full(more, _NEVER_FIRST, np.int64)])
            self.last_us = np.concatenate([self.last_us, np.full(more, _NEVER_LAST, np.int64)])

    def widen(self, series: Int32Array, time_us: Int64Array) -> None:
        """Take readings into account that were stored."""
        np.minimum.at(self.first_us, series, time_us)
        np.maximum.at(self.last_us, series, time_us)

    def split(self, batch: Batch) -> tuple[Batch, Batch]:
        """Return the readings that are certainly new, and those that may meet a stored one.

        Each (series, time) is left once. The rest is ordered by series and time, the new ones as they came.
        """
        stays = survivors(batch)
        fresh = batch.time_us > self.last_us[batch.series]
        if stays is None and fresh.all():
            return batch, Batch.empty()
        if stays is None:
            stays = np.ones(len(batch), np.bool_)
        return batch.take(stays & fresh), batch.take(stays & ~fresh)


def survivors(batch: Batch) -> BoolArray | None:
    """Mark the one reading of each (series, time) that stays: bool[n], or None where all do."""
    order = by_series(batch.series)
    series, time_us = batch.series[order], batch.time_us[order]
    unruly = (series[1:] == series[:-1]) & (time_us[1:] <= time_us[:-1])
    if not unruly.any():
        return None
    suspects = np.zeros(int(series[-1]) + 1, np.bool_)
    suspects[series[1:][unruly]] = True
    rows = np.flatnonzero(suspects[batch.series])
    stays = np.ones(len(batch), np.bool_)
    stays[rows] = False
    stays[rows[winners(batch.take(rows))]] = True
    return stays


def by_series(series: Int32Array) -> Int64Array:
    """Return the stable order by series id.

    Two passes over 16 bits each, because numpy sorts integers of 16 bits by radix: several times faster than one of 32.
    """
    order = np.argsort(series.astype(np.uint16), kind="stable")
    high = (series >> 16).astype(np.uint16)
    return order[np.argsort(high[order], kind="stable")] if high.any() else order


def runs_of_days(time_us: Int64Array) -> Iterator[tuple[Int64Array, Span]]:
    """Yield the indices of times, a part for each run of adjacent UTC days, and the span of each part.

    So that one reading of last year beside today's does not make an engine look through the year between.
    """
    order = np.argsort(time_us, kind="stable")
    ordered = time_us[order]
    gaps = np.flatnonzero(np.diff(ordered // DAY_US) > 1) + 1
    for rows in np.split(order, gaps):
        if len(rows):
            yield rows, Span(int(time_us[rows[0]]), int(time_us[rows[-1]]) + 1)
