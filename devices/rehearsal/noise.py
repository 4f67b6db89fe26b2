"""Noise that can be asked for any device and any time: the same question always has the same answer.

Numbers come from a hash of (seed, stream, device, step) instead of a generator with a state, so that a range of time gives
the same values however it is cut, and a city that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from devices.reading import Float64Array, Int64Array

__all__ = ["normal", "smooth", "uniform"]

_UInt64Array = NDArray[np.uint64]

# Constants of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def _hash(seed: int, stream: int, *keys: ArrayLike) -> _UInt64Array:
    mixed: _UInt64Array = np.atleast_1d(np.asarray(seed * 1_000_003 + stream, np.int64)).astype(np.uint64)
    for key in keys:
        mixed = _scramble(mixed ^ _scramble(np.asarray(key, np.int64).astype(np.uint64)))
    return mixed


def _scramble(bits: _UInt64Array) -> _UInt64Array:
    bits = np.atleast_1d(bits) * _GAMMA + _GAMMA  # arrays wrap around silently, as the hash wants
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
    return bits ^ (bits >> np.uint64(31))


def uniform(seed: int, stream: int, *keys: ArrayLike) -> Float64Array:
    """Return numbers in [0, 1), one for each combination of keys (integers, broadcast)."""
    return (_hash(seed, stream, *keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(seed: int, stream: int, *keys: ArrayLike) -> Float64Array:
    """Return numbers with mean 0 and deviation 1, nearly normal within +-3.4: the sum of four uniform ones."""
    bits = _hash(seed, stream, *keys)
    total = np.zeros(bits.shape)
    for shift in (0, 16, 32, 48):
        total += (bits >> np.uint64(shift)) & np.uint64(0xFFFF)
    return (total / 65535 - 2) * 3**0.5


def smooth(seed: int, stream: int, device: ArrayLike, time_s: Int64Array, period_s: int) -> Float64Array:
    """Return noise that wanders with a period [s]: float64[devices, times], about normal with deviation 0.8."""
    step, within = np.divmod(time_s, period_s)
    first = int(step[0])
    knots = np.arange(first, int(step[-1]) + 2)
    heights = normal(seed, stream, np.asarray(device, np.int64)[..., None], knots)
    share = within / period_s
    weight = share * share * (3 - 2 * share)
    return heights[..., step - first] * (1 - weight) + heights[..., step - first + 1] * weight
