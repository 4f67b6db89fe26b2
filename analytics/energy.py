"""Energy of feeders: the meters of a feeder added up, its peaks and how evenly it is used. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from analytics.cells import Counts, by_zone, count, covered, zone_counts
from analytics.cells import cells as into_cells
from analytics.indicator import Inputs
from analytics.registers import meter_energy
from devices.reading import BoolArray, Float64Array, Int64Array

__all__ = [
    "METERED",
    "Peak",
    "ZoneEnergy",
    "day_peak",
    "load_factor",
    "meters",
    "peak_kw",
    "zone_energy",
]

METERED = ("energy_import", "energy")
"""What gives energy: a register, or readings of intervals."""

_HOUR_US = 3_600_000_000.0
_BLOCKS_US = (900_000_000, 1_800_000_000, 3_600_000_000)


class ZoneEnergy(msgspec.Struct):
    """Energy of feeders [kWh] in windows, [zones, windows] each; `counts` count declared intervals, measured or owed."""

    kwh: Float64Array
    counts: Counts
    meters: Int64Array
    resets: Int64Array
    jumps: Int64Array


class Peak(msgspec.Struct):
    """Largest block of each feeder and window: power [kW], when it began, the block's width [us], and how much was measured."""

    kw: Float64Array
    start_us: Int64Array
    block_us: Int64Array
    complete: BoolArray


def zone_energy(inputs: Inputs, start_us: Int64Array, stop_us: Int64Array) -> ZoneEnergy:
    """Add the energy of a feeder's meters up, over some windows.

    A meter owes one interval after the other for the time that it stands there; what its readings cover is good. The sum is
    of what was measured: it is never scaled up for what is missing.
    """
    energy = meter_energy(inputs, start_us, stop_us)
    interval = inputs.placed.interval_us[:, None]
    counts = _counts(inputs, start_us, stop_us)
    fine = (interval <= (stop_us - start_us)[None, :]) & (counts.owed > 0)
    counts.good = np.where(fine, np.minimum(energy.covered_us // interval, counts.owed), 0)
    return ZoneEnergy(
        kwh=by_zone(inputs, np.where(fine, energy.kwh, 0.0)),
        counts=zone_counts(inputs, counts),
        meters=by_zone(inputs, (energy.covered_us > 0) & fine).astype(np.int64),
        resets=by_zone(inputs, energy.resets).astype(np.int64),
        jumps=by_zone(inputs, energy.jumps).astype(np.int64),
    )


def _counts(inputs: Inputs, start_us: Int64Array, stop_us: Int64Array) -> Counts:
    """Count readings of either sort; a meter owes once, whichever it gives."""
    register, spans = (
        count(inputs, name, into_cells(inputs, name, start_us, stop_us), start_us, stop_us) for name in METERED
    )
    return Counts(
        seen=register.seen + spans.seen,
        good=np.maximum(register.good, spans.good),
        owed=np.maximum(register.owed, spans.owed),
        known_us=np.maximum(register.known_us, spans.known_us),
    )


def meters(energy: ZoneEnergy, zone: int, window: int) -> dict[str, int]:
    """Say what an energy is made of: meters, and where there were any, resets and implausible jumps."""
    found = {"meters": energy.meters, "resets": energy.resets, "jumps": energy.jumps}
    return {name: n for name, grid in found.items() if (n := int(grid[zone, window])) or name == "meters"}


def peak_kw(kwh: Sequence[float], block_s: float) -> float:
    """Return the largest mean power [kW] of blocks of energy [kWh] of one width [s].

    >>> peak_kw([10.0, 12.0, 15.0, 11.0], 900)
    60.0
    """
    return max(kwh) * 3600.0 / block_s


def load_factor(kwh: Float64Array | float, peak: Float64Array | float, hours: Float64Array | float) -> Float64Array:
    """Return E / (Pmax h), 1 for an even load; NaN without any.

    >>> float(load_factor(65000.0, 125.0, 720.0).round(4))
    0.7222
    """
    peak = np.asarray(peak, np.float64)
    factor: Float64Array = np.divide(kwh, peak * hours, out=np.full(peak.shape, np.nan), where=peak > 0)
    return factor


def day_peak(inputs: Inputs, least: float) -> Peak:
    """Find the largest block of each window: 15 minutes, or where meters are read too seldom for that, 30 or 60.

    The narrowest blocks are taken that every meter can give and of which at least the share `least` was measured; only blocks
    that were measured to that share count.
    """
    shape = len(inputs.zones), len(inputs.start_us)
    peak = Peak(np.full(shape, np.nan), np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.bool_))
    for width in reversed(_BLOCKS_US):
        found = _peak(inputs, width, least)
        better = found.complete
        peak = Peak(
            *(
                np.where(better, new, old)
                for new, old in zip(msgspec.structs.astuple(found), msgspec.structs.astuple(peak), strict=True)
            )
        )
    return peak


def _peak(inputs: Inputs, width: int, least: float) -> Peak:
    """Find the largest block of one width in each window."""
    blocks = (inputs.stop_us - inputs.start_us) // width
    window = np.repeat(np.arange(len(blocks)), blocks)
    start = inputs.start_us[window] + width * (np.arange(len(window)) - np.repeat(np.cumsum(blocks) - blocks, blocks))
    energy = zone_energy(inputs, start, start + width)
    whole = covered(energy.counts, least)
    coarse = by_zone(inputs, _coarse(inputs, width)) > 0
    kw = np.where(whole, energy.kwh * (_HOUR_US / width), -np.inf)
    edges = np.cumsum(blocks) - blocks
    top = np.stack([kw[:, a : a + n].argmax(axis=1) + a for a, n in zip(edges, blocks, strict=True)], axis=1)
    good, owed = (np.add.reduceat(grid, edges, axis=1) for grid in (energy.counts.good, energy.counts.owed))
    return Peak(
        kw=np.take_along_axis(kw, top, axis=1),
        start_us=start[top],
        block_us=np.full(top.shape, width),
        complete=~coarse & (owed > 0) & (good >= least * owed) & np.take_along_axis(whole, top, axis=1),
    )


def _coarse(inputs: Inputs, width: int) -> BoolArray:
    """Tell which meters owe energy in a window (bool[placed, windows]), but at intervals longer than a block."""
    owes: BoolArray = _counts(inputs, inputs.start_us, inputs.stop_us).owed > 0
    return owes & (inputs.placed.interval_us > width)[:, None]
