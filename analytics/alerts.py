"""Alert rules and the episodes that follow from values. Pure and in event time: no store, no clock.

`fold` gives the same episodes whenever it is given the same values, in whatever order they became known; `reconcile`
says what has to change in the episodes that people have already seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec

__all__ = ["Condition", "Episode", "NoData", "Point", "Rule", "Severity", "fold", "no_data_since"]


class Severity(StrEnum):
    """How urgent an episode is."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Condition(msgspec.Struct, frozen=True):
    """When a value breaches and when it is normal again; between `threshold` and `clear` nothing changes (hysteresis)."""

    threshold: float
    clear: float
    above: bool = True

    def breached(self, value: float) -> bool:
        return value > self.threshold if self.above else value < self.threshold

    def cleared(self, value: float) -> bool:
        return value <= self.clear if self.above else value >= self.clear

    def worse(self, a: float, b: float) -> float:
        """Return the one further from normal."""
        return max(a, b) if self.above else min(a, b)


class NoData(msgspec.Struct, frozen=True):
    """How long a zone may go without a value before that is an episode of its own, and how urgent it is."""

    after_us: int
    severity: Severity


class Rule(msgspec.Struct, frozen=True):
    """A condition over the values of one indicator and window width, for every zone that has them.

    A breach becomes an episode when it has lasted `for_us`. Windows without a number neither raise nor clear; when a zone
    is silent for `no_data.after_us` an episode ends with its last value. A notice about something older than `max_age_us`
    is recorded and not sent.
    """

    id: str
    title: str
    indicator: str
    window: str
    condition: Condition
    for_us: int
    no_data: NoData
    severity: Severity
    owner: str
    runbook: str
    max_age_us: int
    unit: str = ""
    runbook_text: str = ""  # where the runbook is a file that Qala serves itself


class Point(msgspec.Struct, frozen=True):
    """One ended window of a zone; `value` is None where there is no number."""

    start_us: int
    stop_us: int
    value: float | None


class Episode(msgspec.Struct, frozen=True):
    """One firing of a rule in a zone, from the start of the first breaching window to the start of the first clear one.

    `fired_us` is the end of the window in which the breach had lasted long enough. `end_us` is None while it goes on.
    """

    start_us: int
    fired_us: int
    end_us: int | None
    worst: float
    last: float

    def overlaps(self, start_us: int, end_us: int | None) -> bool:
        """Tell whether the episode shares any time with `[start_us, end_us)`."""
        return (end_us is None or self.start_us < end_us) and (self.end_us is None or start_us < self.end_us)


class _Run(msgspec.Struct):
    """A breach under way: pending until it has lasted long enough, then firing."""

    start_us: int
    stop_us: int
    worst: float
    last: float
    fired_us: int | None = None

    def episode(self, end_us: int | None) -> Iterable[Episode]:
        if self.fired_us is not None:
            yield Episode(self.start_us, self.fired_us, end_us, self.worst, self.last)


def fold(rule: Rule, points: Sequence[Point]) -> list[Episode]:
    """Return the episodes of one zone, oldest first. `points` are ended windows by rising start, before them all was normal.

    >>> rule = Rule("r", "R", "i", "1h", Condition(10, 8), 2, NoData(50, Severity.INFO), Severity.WARNING, "o", "", 100)
    >>> points = [Point(t, t + 1, v) for t, v in enumerate([5, 11, 12, 9, 7])]
    >>> fold(rule, points)
    [Episode(start_us=1, fired_us=3, end_us=4, worst=12, last=9)]
    """
    episodes: list[Episode] = []
    run: _Run | None = None
    for point in points:
        if point.value is None:
            continue
        if run is not None and point.start_us - run.stop_us >= rule.no_data.after_us:
            episodes.extend(run.episode(run.stop_us))
            run = None
        run = _step(rule, run, point, point.value, episodes)
    if run is not None:
        episodes.extend(run.episode(None))
    return episodes


def _step(rule: Rule, run: _Run | None, point: Point, value: float, ended: list[Episode]) -> _Run | None:
    condition = rule.condition
    if run is None:
        if not condition.breached(value):
            return None
        run = _Run(point.start_us, point.stop_us, value, value)
    elif condition.cleared(value) or (run.fired_us is None and not condition.breached(value)):
        ended.extend(run.episode(point.start_us))
        return None
    run.stop_us, run.last, run.worst = point.stop_us, value, condition.worse(run.worst, value)
    if run.fired_us is None and point.stop_us - run.start_us >= rule.for_us:
        run.fired_us = point.stop_us
    return run


def no_data_since(rule: Rule, last_stop_us: int, now_us: int) -> int | None:
    """Return since when a zone counts as silent, or None while its last value is recent enough. Only a clock can tell."""
    return last_stop_us if now_us - last_stop_us >= rule.no_data.after_us else None


def look_back_us(rule: Rule) -> int:
    """Return how far before a changed value a fold has to begin when no known episode covers that time.

    A breach that reaches back further than this has fired, so it is a known episode.
    """
    return rule.for_us + rule.no_data.after_us
