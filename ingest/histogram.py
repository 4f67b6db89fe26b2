"""A histogram of fixed buckets: how often something was how large."""

from __future__ import annotations

from bisect import bisect_left

import msgspec

__all__ = ["MESSAGES", "SECONDS", "Histogram"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
MESSAGES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 20_000.0)


class Histogram(msgspec.Struct):
    """How many observations are at most each of `edges` and above the one before; one more count for the larger ones."""

    edges: tuple[float, ...] = SECONDS
    counts: list[int] = []
    sum: float = 0.0
    last: float | None = None  # the newest observation

    def __post_init__(self) -> None:
        if not self.counts:
            self.counts = [0] * (len(self.edges) + 1)

    def observe(self, value: float) -> None:
        """Count one observation.

        >>> histogram = Histogram((0.1, 1.0))
        >>> histogram.observe(0.1), histogram.observe(7.0), histogram.counts
        (None, None, [1, 0, 1])
        """
        self.counts[bisect_left(self.edges, value)] += 1
        self.sum += value
        self.last = value
