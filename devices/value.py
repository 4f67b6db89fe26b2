"""Values: what an indicator came to over a window, never a bare number."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["Value"]


class Value(msgspec.Struct, frozen=True):
    """One revision of an indicator's number for a zone and a window `[start_us, stop_us)`.

    `value` is None where the coverage is too small or the method has no answer; `status` then says which.
    It is provisional until `final_us` (the window's end plus the indicator's grace), final after that.
    `revision` counts from 1 and is given by the store; `known_us` is the newest `received_us` that contributed.
    Two values are the same number when everything but `revision` and `known_us` is equal.
    """

    indicator: str
    zone: str
    window: str  # "5min", "15min", "1h", "1d"
    start_us: int
    stop_us: int
    value: float | None
    unit: str
    n_good: int
    n_expected: int
    method: str  # "epa-aqi"
    method_version: str  # "2024-05-06"
    final_us: int
    status: str = "ok"  # "ok", "incomplete", "undefined"
    detail: dict[str, Any] = {}  # what the number is made of: main pollutant, category, components
    known_us: int = 0
    revision: int = 0

    @property
    def coverage(self) -> float:
        """Good readings over those that the declared intervals promise, 0 to 1."""
        return min(1.0, self.n_good / self.n_expected) if self.n_expected else 0.0

    def provisional(self, now_us: int) -> bool:
        """Tell whether the value may still change without that being an amendment."""
        return now_us < self.final_us
