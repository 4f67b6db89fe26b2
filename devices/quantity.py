"""Quantities: what can be observed, in which unit, within which bounds, and how it may be aggregated."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

__all__ = ["QUANTITIES", "Aggregation", "Bounds", "Quantity", "parse_key"]


class Aggregation(StrEnum):
    """How readings of a quantity combine over time and place."""

    MEAN = "mean"
    SUM = "sum"  # over the span: counts, interval energy
    COUNTER = "counter"  # running total: only differences mean anything, never averaged
    CIRCULAR = "circular"  # degrees: vector mean
    ENERGETIC = "energetic"  # decibels: mean of powers
    FLOW_WEIGHTED = "flow_weighted"  # speeds: weighted by the flow they belong to
    STATE = "state"  # declared codes: last value


class Bounds(msgspec.Struct, frozen=True):
    """Inclusive limits of a gross-range check, in the quantity's unit: outside `fail` is flag 4, outside `suspect` 3."""

    fail: tuple[float, float]
    suspect: tuple[float, float]


class Quantity(msgspec.Struct, frozen=True):
    """One observable property.

    `resolution` is the smallest step a sensor reports; a series whose spread stays below it is stuck.
    `modulus` is where a counter rolls over, where that is known.
    """

    name: str
    unit: str
    aggregation: Aggregation = Aggregation.MEAN
    bounds: Bounds | None = None
    resolution: float = 0.0
    step_max_per_h: float | None = None
    stuck_after_s: int | None = None
    codes: Mapping[str, int] = {}
    title: str = ""


def parse_key(key: str) -> tuple[str, str]:
    """Split a native key into quantity and channel.

    >>> parse_key("vehicle_count.lane1.car")
    ('vehicle_count', 'lane1.car')
    """
    quantity, _, channel = key.partition(".")
    return quantity, channel
