"""The past as rules see it: values of a rule's indicator as points, and what a rule would have raised on them."""

from __future__ import annotations

from analytics.alerts import Episode, Point, Rule, fold
from qala.store.base import Span, Store, ValueSelector

__all__ = ["points_of", "try_rule"]


def points_of(store: Store, rule: Rule, zones: frozenset[str] | None, span: Span) -> dict[str, list[Point]]:
    """Read the windows that a rule judges (zones None: of every zone), each zone's by rising start."""
    select = ValueSelector(frozenset([rule.indicator]), zones, frozenset([rule.window]))
    table = store.values(select, span).select(["zone", "start_us", "stop_us", "value"])
    points: dict[str, list[Point]] = {}
    for zone, start_us, stop_us, value in zip(*(column.to_pylist() for column in table.columns), strict=True):
        points.setdefault(zone, []).append(Point(start_us, stop_us, value))
    return points


def try_rule(store: Store, rule: Rule, span: Span) -> list[tuple[str, Episode]]:
    """Return the episodes that a rule gives on the values of a span, by zone; nothing is written and nobody is told."""
    points = points_of(store, rule, None, span)
    return [(zone, episode) for zone in sorted(points) for episode in fold(rule, points[zone])]
