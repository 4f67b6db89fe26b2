"""A histogram of fixed buckets: how often something took how long."""

from __future__ import annotations

from bisect import bisect_left

import msgspec

__all__ = ["BUCKETS_S", "Histogram"]

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Histogram(msgspec.Struct):
    """How many observations are at most each of `buckets_s` [s] and above the one before; one more count for the longer ones."""

    buckets_s: tuple[float, ...] = BUCKETS_S
    counts: list[int] = []
    sum_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.counts:
            self.counts = [0] * (len(self.buckets_s) + 1)

    def observe(self, seconds: float) -> None:
        """Count one observation.

        >>> histogram = Histogram((0.1, 1.0))
        >>> histogram.observe(0.1), histogram.observe(7.0), histogram.counts
        (None, None, [1, 0, 1])
        """
        self.counts[bisect_left(self.buckets_s, seconds)] += 1
        self.sum_s += seconds
