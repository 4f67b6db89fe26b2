"""Energy from meters: differences of running totals, and readings that give the energy of their span. Pure.

The register is interpolated linearly to window edges between readings at most two declared intervals apart, which conserves
energy. A longer gap counts only for windows that hold it whole; for others that time is not covered. Where a register
jumps back it rolled over, if its modulus is known and the difference plausible; else it was reset or replaced: the interval
between the two readings gives nothing and the new baseline starts. A jump that the rated power cannot make gives nothing either.
"""

from __future__ import annotations

import msgspec
import numpy as np

from analytics.cells import outermost
from analytics.indicator import Inputs
from analytics.window import sum_by
from devices.reading import BoolArray, Float64Array, Int64Array

__all__ = ["MAX_GAP_INTERVALS", "MeterEnergy", "meter_energy", "register_deltas"]

MAX_GAP_INTERVALS = 2
_MARGIN = 1.2  # over rated power, for its tolerance
_HOUR_US = 3_600_000_000.0


class MeterEnergy(msgspec.Struct):
    """What meters used in windows, [placed, windows] each: energy [kWh], time covered [us], resets and implausible jumps."""

    kwh: Float64Array
    covered_us: Int64Array
    resets: Int64Array
    jumps: Int64Array


class _Pieces(msgspec.Struct):
    """Energy over stretches of time: of a series, `[since, until)`; NaN where it is not known; whether edges may cut it."""

    series: Int64Array
    placed: Int64Array
    channel: Int64Array
    since_us: Int64Array
    until_us: Int64Array
    kwh: Float64Array
    divisible: BoolArray
    reset: BoolArray
    jump: BoolArray


def register_deltas(
    before: Float64Array, after: Float64Array, modulus: Float64Array, plausible_max: Float64Array
) -> tuple[Float64Array, BoolArray, BoolArray]:
    """Return what was counted between two readings of a register, which were resets and which jumps (NaN for both).

    `modulus` and `plausible_max` are NaN where unknown; a rollover is then believed up to a tenth of the modulus.

    >>> nan = np.nan
    >>> delta, reset, jump = register_deltas(
    ...     np.array([100.0, 99998.0, 5000.0, 100.0]), np.array([112.5, 3.0, 3.0, 900.0]),
    ...     np.array([nan, 1e5, nan, nan]), np.array([nan, 50.0, nan, 50.0]))
    >>> delta, reset, jump
    (array([12.5,  5. ,  nan,  nan]), array([False, False,  True, False]), array([False, False, False,  True]))
    """
    delta = after - before
    back = delta < 0
    around = delta + modulus
    limit = np.where(np.isnan(plausible_max), 0.1 * modulus, plausible_max)
    rolled = back & (around >= 0) & (around <= limit)
    delta = np.where(rolled, around, delta)
    reset = back & ~rolled
    jump = ~back & (delta > plausible_max)
    return np.where(reset | jump, np.nan, delta), reset, jump


def meter_energy(inputs: Inputs, start_us: Int64Array, stop_us: Int64Array) -> MeterEnergy:
    """Return the energy of every meter in windows: by its register, or where that covers less, by its interval readings."""
    register = _in_windows(inputs, _register_pieces(inputs), start_us, stop_us)
    spans = _in_windows(inputs, _span_pieces(inputs), start_us, stop_us)
    by_span = spans.covered_us > register.covered_us
    return MeterEnergy(
        kwh=np.where(by_span, spans.kwh, register.kwh),
        covered_us=np.where(by_span, spans.covered_us, register.covered_us),
        resets=register.resets,
        jumps=register.jumps,
    )


def _register_pieces(inputs: Inputs) -> _Pieces:
    """Turn neighbouring readings of a register into pieces."""
    readings = inputs.readings["energy_import"]
    readings = readings.take(readings.usable)
    first, second = readings.take(slice(None, -1)), readings.take(slice(1, None))
    pair = np.flatnonzero((first.series == second.series) & (first.placed == second.placed))
    first, second = first.take(pair), second.take(pair)
    placed = first.placed.astype(np.int64)
    modulus, rated = _of_devices(inputs)
    length = second.time_us - first.time_us
    kwh, reset, jump = register_deltas(
        first.value, second.value, modulus[placed], _MARGIN * rated[placed] * length / _HOUR_US
    )
    return _Pieces(
        series=first.series.astype(np.int64),
        placed=placed,
        channel=first.channel.astype(np.int64),
        since_us=first.time_us,
        until_us=second.time_us,
        kwh=kwh,
        divisible=length <= MAX_GAP_INTERVALS * inputs.placed.interval_us[placed],
        reset=reset,
        jump=jump,
    )


def _of_devices(inputs: Inputs) -> tuple[Float64Array, Float64Array]:
    """Return modulus [kWh] and rated power [kW] of each placed device, NaN where unknown."""
    modulus = np.array([device.modulus or np.nan for device in inputs.devices], np.float64)
    rated = np.array([device.rated_kw or np.nan for device in inputs.devices], np.float64)
    return modulus[inputs.placed.device], rated[inputs.placed.device]


def _span_pieces(inputs: Inputs) -> _Pieces:
    """Turn readings that give the energy of their span into pieces, which no edge may cut."""
    readings = inputs.readings["energy"]
    readings = readings.take(readings.usable)
    placed = readings.placed.astype(np.int64)
    span = np.where(readings.span_us > 0, readings.span_us, inputs.placed.interval_us[placed])
    no = np.zeros(len(readings), np.bool_)
    return _Pieces(
        series=readings.series.astype(np.int64),
        placed=placed,
        channel=readings.channel.astype(np.int64),
        since_us=readings.time_us,
        until_us=readings.time_us + span,
        kwh=readings.value,
        divisible=no,
        reset=no,
        jump=no,
    )


def _in_windows(inputs: Inputs, pieces: _Pieces, start_us: Int64Array, stop_us: Int64Array) -> MeterEnergy:
    """Cut pieces at window edges and add them up by meter and window; the channels of a meter are added too.

    A meter's time is covered as far as every channel that it gave in the window is.
    """
    windows, n = len(start_us), len(inputs.placed) * len(start_us)
    at, window = _overlaps(pieces, start_us, stop_us)
    cell = pieces.placed[at] * windows + window
    outer = outermost(inputs.channels, pieces.channel[at], cell, n)
    at, window, cell = at[outer], window[outer], cell[outer]
    length = pieces.until_us[at] - pieces.since_us[at]
    inside = np.minimum(pieces.until_us[at], stop_us[window]) - np.maximum(pieces.since_us[at], start_us[window])
    known = ~np.isnan(pieces.kwh[at]) & (pieces.divisible[at] | (inside == length))
    kwh = sum_by(cell[known], pieces.kwh[at[known]] * (inside[known] / length[known]), n)
    return MeterEnergy(
        kwh=kwh.reshape(-1, windows),
        covered_us=_covered(pieces.series[at], cell, np.where(known, inside, 0), n).reshape(-1, windows),
        resets=np.bincount(cell[pieces.reset[at]], minlength=n).reshape(-1, windows),
        jumps=np.bincount(cell[pieces.jump[at]], minlength=n).reshape(-1, windows),
    )


def _overlaps(pieces: _Pieces, start_us: Int64Array, stop_us: Int64Array) -> tuple[Int64Array, Int64Array]:
    """List every piece with every window that it overlaps, by series and time: indices of pieces and of windows."""
    first = np.searchsorted(stop_us, pieces.since_us, side="right")
    last = np.searchsorted(start_us, pieces.until_us, side="left")
    times = np.maximum(last - first, 0)
    at = np.repeat(np.arange(len(times)), times)
    window = np.arange(len(at)) - np.repeat(np.cumsum(times) - times, times) + first[at]
    return at, window


def _covered(series: Int64Array, cell: Int64Array, inside_us: Int64Array, n: int) -> Int64Array:
    """Average the time covered over the series of each cell (int64[n]); rows are sorted by series and time."""
    total = sum_by(cell, inside_us.astype(np.float64), n)
    first = np.ones(len(cell), np.bool_)
    first[1:] = (series[1:] != series[:-1]) | (cell[1:] != cell[:-1])
    return (total // np.maximum(np.bincount(cell[first], minlength=n), 1)).astype(np.int64)
