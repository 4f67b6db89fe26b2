"""Readings: every stored one of some series in a time range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import pyarrow as pa
from fastapi import APIRouter, Request, Response

from dashboards.api import contract
from dashboards.api.context import Context
from dashboards.api.flags import derived_flags, read_rows
from dashboards.api.paging import CursorQuery, LimitQuery, decode_cursor, encode_cursor
from dashboards.api.render import FormatQuery, negotiate, render, table_limit, times, times_or_null
from dashboards.api.select import SeriesQuery, chosen_series
from dashboards.times import parse_span
from devices.reading import SeriesInfo, UInt8Array
from qala.store.base import Span, Store

router = APIRouter(tags=["readings"])


class _After(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The range that the first page resolved, and the last row given."""

    start_us: int
    stop_us: int
    series: int
    time_us: int


@router.get("/readings", response_model=contract.Page[contract.Reading])
def list_readings(
    context: Context,
    request: Request,
    series: SeriesQuery = None,
    device: str | None = None,
    quantity: str | None = None,
    start: str = "-24h",
    stop: str = "now",
    limit: LimitQuery = None,
    cursor: CursorQuery = None,
    format: FormatQuery = None,  # noqa: A002
) -> Response:
    """List readings by series and time, with the flags that indicators see: those stored and those that neighbours show."""
    form = negotiate(request, format)
    rows = table_limit(context.settings, limit, form)
    infos = chosen_series(context.store, series, device, quantity)
    after = decode_cursor(cursor, _After) if cursor else None
    if after:
        span = Span(after.start_us, after.stop_us)
    else:
        span = parse_span(start, stop, context.now_us(), days_max=context.settings.range_max_days)
    found = _page(context.store, sorted(infos), span, after, rows + 1)
    page = found.slice(0, rows)
    more = encode_cursor(_last(page, span)) if found.num_rows > rows else None
    flags = derived_flags(context.store, page, span, infos)
    return render(request, _public(page, flags, infos), form, more)


def _page(store: Store, series: Sequence[int], span: Span, after: _After | None, limit: int) -> pa.Table:
    """Read the rows after the last one of the page before: the rest of its series, then the series that follow."""
    if after is None:
        return read_rows(store, series, span, limit)
    rest = [id_ for id_ in series if id_ == after.series]
    table = read_rows(store, rest, Span(after.time_us + 1, span.stop_us), limit)
    following = [id_ for id_ in series if id_ > after.series]
    return pa.concat_tables([table, read_rows(store, following, span, limit - table.num_rows)])


def _last(page: pa.Table, span: Span) -> _After:
    row = page.slice(page.num_rows - 1).to_pylist()[0]
    return _After(span.start_us, span.stop_us, row["series"], row["time_us"])


def _public(table: pa.Table, flags: UInt8Array, infos: Mapping[int, SeriesInfo]) -> pa.Table:
    """Name what the rows are of, and turn NaN into null."""
    ids, places = np.unique(table["series"].to_numpy(), return_inverse=True)
    of = [infos[int(id_)] for id_ in ids]

    def named(texts: list[str]) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), pa.array(texts, pa.string()))

    return pa.table(
        {
            "series": table["series"],
            "device": named([info.device for info in of]),
            "quantity": named([info.quantity for info in of]),
            "channel": named([info.channel for info in of]),
            "time": times(table["time_us"]),
            "value": pa.array(table["value"].to_numpy(), from_pandas=True),
            "unit": named([info.unit for info in of]),
            "flag": pa.array(flags),
            "revision": table["revision"],
            "received": times_or_null(table["received_us"]),
        },
    )
