"""Cells: one device, where it stands, in one window. What indicators count and put together before they speak of zones.

Grids are indexed [placed, window] or [zone, window]. Order of addition is that of the rows, then of the placed devices,
so that a cell's and a zone's number depends on its own readings alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from analytics.indicator import Inputs, Placed, Readings, Results
from analytics.window import locate, mean, sum_by
from devices.reading import BoolArray, Float64Array, Int64Array

__all__ = [
    "Cells",
    "Counts",
    "ZoneMeans",
    "by_zone",
    "cells",
    "count",
    "covered",
    "outermost",
    "owed",
    "results",
    "zone_counts",
    "zone_means",
]

_ZONE_LEAST = 0.5


class Cells(msgspec.Struct):
    """Readings inside windows: rows of the readings and the cell each lies in (int64[n] each), and how many cells there are."""

    readings: Readings
    cell: Int64Array
    placed: int
    windows: int

    @property
    def n(self) -> int:
        return self.placed * self.windows

    def grid(self, column: Float64Array) -> Float64Array:
        return column.reshape(self.placed, self.windows)


class Counts(msgspec.Struct):
    """What cells hold, int64[placed, windows] each: readings at all, good ones, those owed, and the newest receipt [us]."""

    seen: Int64Array
    good: Int64Array
    owed: Int64Array
    known_us: Int64Array


def cells(inputs: Inputs, quantity: str, start_us: Int64Array, stop_us: Int64Array) -> Cells:
    """Sort the readings of a quantity into the cells of some windows.

    Left out are readings too coarse for their window (its span or its device's interval is longer than the window), and
    channels inside others: where a device gives a total in a window, its lanes or phases are parts of it.
    """
    readings = inputs.readings[quantity]
    window = locate(readings.time_us, start_us, stop_us)
    width = (stop_us - start_us)[np.maximum(window, 0)] if len(start_us) else np.zeros(len(window), np.int64)
    coarse = np.maximum(readings.span_us, inputs.placed.interval_us[readings.placed]) > width
    rows = np.flatnonzero((window >= 0) & ~coarse)
    cell = readings.placed[rows].astype(np.int64) * len(start_us) + window[rows]
    outer = outermost(inputs.channels, readings.channel[rows], cell, len(inputs.placed) * len(start_us))
    return Cells(readings.take(rows[outer]), cell[outer], len(inputs.placed), len(start_us))


def outermost(channels: Sequence[str], channel: Any, cell: Int64Array, n: int) -> BoolArray:
    """Tell which readings are of the outermost channels of their cell: "" before "lane1" before "lane1.car"."""
    depths = np.array([len(name.split(".")) if name else 0 for name in channels], np.int64)
    depth = depths[channel]
    least = np.full(n, np.iinfo(np.int64).max)
    np.minimum.at(least, cell, depth)
    outer: BoolArray = depth == least[cell]
    return outer


def owed(placed: Placed, promised: BoolArray, start_us: Int64Array, stop_us: Int64Array) -> Int64Array:
    """Return how many readings the declared intervals promise of each cell (int64[placed, windows]).

    A device owes one reading an interval for the time that it stands there, and none to windows narrower than its interval.
    """
    since = np.maximum(placed.since_us[:, None], start_us[None, :])
    until = np.minimum(placed.until_us[:, None], stop_us[None, :])
    interval = placed.interval_us[:, None]
    fine = promised[:, None] & (interval <= (stop_us - start_us)[None, :])
    return np.where(fine, np.maximum(until - since, 0) // interval, 0)


def count(inputs: Inputs, quantity: str, inside: Cells, start_us: Int64Array, stop_us: Int64Array) -> Counts:
    """Count what cells hold of a quantity.

    A device with several channels owes one reading of each, and its good ones are the average over the channels it gave,
    at most what it owes. Devices owe a quantity that their kind lists, or that they have given in the window.
    """
    readings, shape = inside.readings, (inside.placed, inside.windows)
    seen = np.bincount(inside.cell, minlength=inside.n)
    good = np.bincount(inside.cell[readings.usable], minlength=inside.n)
    series = np.bincount(inside.cell[_run_starts(readings, inside.cell)], minlength=inside.n)
    known = np.zeros(inside.n, np.int64)
    np.maximum.at(known, inside.cell, readings.received_us)
    everyone = owed(inputs.placed, np.ones(inside.placed, np.bool_), start_us, stop_us)
    owes = np.where(inputs.promised[quantity][:, None] | (seen.reshape(shape) > 0), everyone, 0)
    return Counts(
        seen=seen.reshape(shape),
        good=np.minimum((good // np.maximum(series, 1)).reshape(shape), owes),
        owed=owes,
        known_us=known.reshape(shape),
    )


def _run_starts(readings: Readings, cell: Int64Array) -> BoolArray:
    """Tell which rows are the first of their series in their cell."""
    first = np.ones(len(cell), np.bool_)
    first[1:] = (readings.series[1:] != readings.series[:-1]) | (cell[1:] != cell[:-1])
    return first


def by_zone(inputs: Inputs, grid: Float64Array | Int64Array | BoolArray) -> Float64Array:
    """Add a grid [placed, windows] up to float64[zones, windows]; NaN adds nothing."""
    windows = grid.shape[1]
    group = (inputs.placed.zone[:, None].astype(np.int64) * windows + np.arange(windows)).ravel()
    flat = np.nan_to_num(grid.astype(np.float64).ravel())
    return sum_by(group, flat, len(inputs.zones) * windows).reshape(len(inputs.zones), windows)


def _newest_by_zone(inputs: Inputs, known_us: Int64Array) -> Int64Array:
    """Return the newest receipt of each zone and window (int64[zones, windows])."""
    newest = np.zeros((len(inputs.zones), known_us.shape[1]), np.int64)
    np.maximum.at(newest, inputs.placed.zone, known_us)
    return newest


class ZoneMeans(msgspec.Struct):
    """A quantity by zone and window, [zones, windows] each; `value` is NaN where no device has enough readings."""

    value: Float64Array
    counts: Counts


def zone_counts(inputs: Inputs, counts: Counts) -> Counts:
    """Add counts up from devices to zones."""
    return Counts(
        seen=by_zone(inputs, counts.seen).astype(np.int64),
        good=by_zone(inputs, counts.good).astype(np.int64),
        owed=by_zone(inputs, counts.owed).astype(np.int64),
        known_us=_newest_by_zone(inputs, counts.known_us),
    )


def zone_means(
    inputs: Inputs, quantity: str, start_us: Int64Array, stop_us: Int64Array, *, least: float = 0.75
) -> ZoneMeans:
    """Average a quantity over each device's window, then over the devices of a zone.

    A device's window counts when at least the share `least` of the readings that it owes is good, so that a chatty station
    weighs no more than the others, and a half-silent one does not speak for the hour. A zone's counts when its devices gave
    at least half of what they all owe.
    """
    inside = cells(inputs, quantity, start_us, stop_us)
    counts = count(inputs, quantity, inside, start_us, stop_us)
    good = inside.readings.usable
    of_device = inside.grid(mean(inside.cell[good], inside.readings.value[good], inside.n))
    of_device[(counts.good < least * counts.owed) | (counts.owed == 0)] = np.nan
    devices = by_zone(inputs, ~np.isnan(of_device))
    of_zone = zone_counts(inputs, counts)
    speaks = (devices > 0) & covered(of_zone, _ZONE_LEAST)
    value = np.divide(by_zone(inputs, of_device), devices, out=np.full(devices.shape, np.nan), where=speaks)
    return ZoneMeans(value, of_zone)


def results(
    value: Float64Array,
    counts: Counts,
    *,
    complete: BoolArray,
    detail: Callable[[int, int], Mapping[str, Any]],
) -> Results:
    """List the zones and windows [zones, windows] that have any reading.

    Where `complete` is false the number is withheld ("incomplete"); where it is NaN all the same, the method has no answer
    ("undefined").
    """
    zone, window = np.nonzero(counts.seen > 0)
    number = np.where(complete, value, np.nan)[zone, window]
    whole = complete[zone, window]
    status = np.where(whole, np.where(np.isnan(number), "undefined", "ok"), "incomplete")
    return Results(
        zone=zone,
        window=window,
        value=number,
        n_good=counts.good[zone, window],
        n_expected=counts.owed[zone, window],
        status=status.tolist(),
        detail=[detail(z, w) for z, w in zip(zone.tolist(), window.tolist(), strict=True)],
        known_us=counts.known_us[zone, window],
    )


def covered(counts: Counts, least: float) -> BoolArray:
    """Tell which cells or zones have at least the share `least` of the readings owed."""
    enough: BoolArray = (counts.owed > 0) & (counts.good >= least * counts.owed)
    return enough
