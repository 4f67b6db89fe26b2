"""Indicators and their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from fastapi import APIRouter, Request, Response

from analytics.indicator import Indicator
from analytics.window import WIDTHS_US
from dashboards.api import contract
from dashboards.api.context import ApiContext, Context
from dashboards.api.paging import CursorQuery, LimitQuery, decode_cursor, encode_cursor
from dashboards.api.render import FormatQuery, json_page, negotiate, render, table_limit, times, times_or_null
from dashboards.items import value_item
from dashboards.problem import ProblemError
from dashboards.times import parse_span, parse_time
from devices.errors import NotFoundError
from qala.store.base import VALUES, Span, Store, ValueSelector

router = APIRouter(tags=["indicators"])

_ORDER = [("start_us", "ascending"), ("zone", "ascending"), ("window", "ascending")]


class _After(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The range that the first page resolved, and the last row given."""

    start_us: int
    stop_us: int
    last_us: int
    zone: str
    window: str


@router.get("/indicators", response_model=contract.Page[contract.Indicator])
async def list_indicators(context: Context, request: Request) -> Response:
    """List the indicators by name."""
    return json_page(request, [_item(context.indicators[name]) for name in sorted(context.indicators)])


@router.get("/indicators/{name}/values", response_model=contract.Page[contract.Value])
def list_values(
    context: Context,
    request: Request,
    name: str,
    zone: str | None = None,
    window: str | None = None,
    start: str = "-24h",
    stop: str = "now",
    as_of: str | None = None,
    limit: LimitQuery = None,
    cursor: CursorQuery = None,
    format: FormatQuery = None,  # noqa: A002
) -> Response:
    """List the values of windows that start in the range, by start, zone and window; `as_of`: as they were known then."""
    form = negotiate(request, format)
    indicator = _find(context, name)
    windows = _windows(indicator, window)
    rows = table_limit(context.settings, limit, form)
    now_us = context.now_us()
    as_of_us = parse_time(as_of, now_us, field="as_of") if as_of else None
    after = decode_cursor(cursor, _After) if cursor else None
    if after:
        span = Span(after.start_us, after.stop_us)
    else:
        span = parse_span(start, stop, now_us, days_max=context.settings.range_max_days)
    select = ValueSelector(frozenset({name}), None if zone is None else frozenset({zone}), frozenset(windows))
    found = _page(context.store, select, span, after, rows + 1, as_of_us)
    page = found.slice(0, rows)
    more = encode_cursor(_last(page, span)) if found.num_rows > rows else None
    return render(request, _public(page, now_us), form, more, raw={"detail"})


@router.get("/indicators/{name}/revisions", response_model=contract.Page[contract.Value])
def value_revisions(
    context: Context,
    request: Request,
    name: str,
    zone: str,
    window: str,
    start: str,
    format: FormatQuery = None,  # noqa: A002
) -> Response:
    """List how the number of one window became what it is: every revision, the oldest first."""
    form = negotiate(request, format)
    _windows(_find(context, name), window)
    now_us = context.now_us()
    start_us = parse_time(start, now_us, field="start")
    select = ValueSelector(frozenset({name}), frozenset({zone}), frozenset({window}))
    found = context.store.revisions(select, Span(start_us, start_us + 1)).slice(0, context.settings.page_max)
    return render(request, _public(found, now_us), form, None, raw={"detail"})


@router.get("/indicators/{name}/latest", response_model=contract.Page[contract.Value])
async def latest_values(context: Context, request: Request, name: str, window: str | None = None) -> Response:
    """Give the newest value of each zone, of the smallest window where none is named."""
    windows = _windows(_find(context, name), window)
    now_us = context.now_us()
    return json_page(request, [value_item(value, now_us) for value in context.hub.board.newest(name, windows[0])])


def _find(context: ApiContext, name: str) -> Indicator:
    if name not in context.indicators:
        raise NotFoundError(f"there is no indicator {name!r}", hint="list the indicators at /api/v1/indicators")
    return context.indicators[name]


def _windows(indicator: Indicator, window: str | None) -> Sequence[str]:
    if window is None:
        return indicator.windows
    if window not in indicator.windows:
        hint = f"its windows are {', '.join(indicator.windows)}"
        raise ProblemError(422, "unknown_window", f"{indicator.name} has no window {window!r}", hint=hint)
    return (window,)


def _item(indicator: Indicator) -> dict[str, Any]:
    names = contract.Indicator.model_fields
    return {name: getattr(indicator, name) for name in names}


def _page(
    store: Store, select: ValueSelector, span: Span, after: _After | None, limit: int, as_of_us: int | None
) -> pa.Table:
    """Read forward in slices of time, each larger than the one before, until the page is full."""
    start_us = after.last_us if after else span.start_us
    width_us = _slice_us(select, limit)
    parts, rows = [VALUES.empty_table()], 0
    while start_us < span.stop_us and rows < limit:
        stop_us = min(span.stop_us, start_us + width_us)
        part = store.values(select, Span(start_us, stop_us), as_of_us=as_of_us).sort_by(_ORDER)
        part = _following(part, after) if after and start_us == after.last_us else part
        parts.append(part)
        rows += part.num_rows
        start_us, width_us = stop_us, width_us * 4
    return pa.concat_tables(parts).slice(0, limit)


def _slice_us(select: ValueSelector, limit: int) -> int:
    """Guess a slice of time that holds about a page, if ten zones have values."""
    zones = len(select.zones) if select.zones else 10
    narrowest = min(WIDTHS_US[window] for window in select.windows or WIDTHS_US)
    return max(1, limit // zones) * narrowest


def _following(part: pa.Table, after: _After) -> pa.Table:
    """Keep the rows after the last one given; rows are ordered by (start, zone, window)."""
    later = pc.greater(part["start_us"], after.last_us)
    same_zone = pc.and_(pc.equal(part["zone"], after.zone), pc.greater(part["window"], after.window))
    return part.filter(pc.or_(later, pc.or_(pc.greater(part["zone"], after.zone), same_zone)))


def _last(page: pa.Table, span: Span) -> _After:
    row = page.slice(page.num_rows - 1).to_pylist()[0]
    return _After(span.start_us, span.stop_us, row["start_us"], row["zone"], row["window"])


def _public(table: pa.Table, now_us: int) -> pa.Table:
    """Add what is derived: coverage, and whether the value may still change."""
    expected = table["n_expected"].cast(pa.float64())
    share = pc.divide(table["n_good"].cast(pa.float64()), pc.if_else(pc.equal(expected, 0), 1.0, expected))
    coverage = pc.if_else(pc.equal(expected, 0), 0.0, pc.min_element_wise(share, 1.0))
    return pa.table(
        {
            "indicator": table["indicator"],
            "zone": table["zone"],
            "window": table["window"],
            "start": times(table["start_us"]),
            "stop": times(table["stop_us"]),
            "value": table["value"],
            "unit": table["unit"],
            "coverage": coverage,
            "n_good": table["n_good"],
            "n_expected": table["n_expected"],
            "status": table["status"],
            "provisional": pc.greater(table["final_us"], now_us),
            "method": table["method"],
            "method_version": table["method_version"],
            "revision": table["revision"],
            "known": times_or_null(table["known_us"]),
            "detail": table["detail"],
        },
    )
