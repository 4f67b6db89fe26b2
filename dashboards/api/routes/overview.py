"""Overviews: series as charts need them, a few hundred columns however long the range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from fastapi import APIRouter, Query, Response

from dashboards.api import contract
from dashboards.api.context import Context
from dashboards.api.render import json_response
from dashboards.api.select import SeriesQuery, aggregation, chosen_series
from dashboards.problem import ProblemError
from dashboards.times import iso_array, parse_span
from devices.quantity import Aggregation
from devices.reading import Int64Array, SeriesInfo
from qala.store.base import Aggregate, Selector, Span

router = APIRouter(tags=["readings"])

_STEPS_S = (1, 5, 10, 15, 30, 60, 300, 600, 900, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400, 7 * 86_400, 28 * 86_400)
_COUNTS = (Aggregate.COUNT, Aggregate.GOOD, Aggregate.SOUND)
_NUMBERS = (Aggregate.MEAN, Aggregate.MIN, Aggregate.MAX, Aggregate.LAST)
# An arithmetic mean of these would be a number that means something else; pages show the last one instead.
_NO_MEAN = frozenset({Aggregation.COUNTER, Aggregation.STATE, Aggregation.CIRCULAR, Aggregation.ENERGETIC})

Points = Annotated[int, Query(ge=1, description="about how many columns at most")]


@router.get("/overview", response_model=contract.Overview)
def get_overview(
    context: Context,
    series: SeriesQuery = None,
    device: str | None = None,
    quantity: str | None = None,
    start: str = "-24h",
    stop: str = "now",
    points: Points = 300,
) -> Response:
    """Aggregate series between even edges; no column is narrower than the devices' shortest interval."""
    settings = context.settings
    if points > settings.overview_points_max:
        raise _too_many("points", settings.overview_points_max)
    infos = chosen_series(context.store, series, device, quantity)
    if len(infos) > settings.overview_series_max:
        raise _too_many("series", settings.overview_series_max)
    span = parse_span(start, stop, context.now_us(), days_max=settings.range_max_days)
    intervals = {item.id: item.interval_s for item in context.devices()}
    shortest = min((max(info.span_s, intervals.get(info.device, 0)) for info in infos.values()), default=0)
    edges = edges_us(span, points, shortest)
    table = context.store.overview(Selector(series=frozenset(infos)), edges, frozenset({*_COUNTS, *_NUMBERS}))
    return json_response({"edges": iso_array(edges), "series": _columns(table, infos, edges)})


def edges_us(span: Span, points: int, shortest_s: int) -> Int64Array:
    """Divide a span at round times, so that the same columns come again a second later; its ends stay exact.

    >>> edges_us(Span(30_000_000, 200_000_000), 10, 60).tolist()
    [30000000, 60000000, 120000000, 180000000, 200000000]
    """
    wanted_s = max((span.stop_us - span.start_us) / 1e6 / points, shortest_s)
    step_us = next((step for step in _STEPS_S if step >= wanted_s), _STEPS_S[-1]) * 1_000_000
    inner = np.arange(span.start_us // step_us + 1, -(-span.stop_us // step_us), dtype=np.int64) * step_us
    return np.concatenate([[span.start_us], inner, [span.stop_us]])


def _columns(table: pa.Table, infos: Mapping[int, SeriesInfo], edges: Int64Array) -> list[dict[str, Any]]:
    ids = table["series"].to_numpy()
    places = np.searchsorted(edges, table["start_us"].to_numpy())
    columns = {name: table[name].to_numpy() for name in (*_COUNTS, *_NUMBERS)}
    return [_column(id_, info, ids == id_, places, columns, len(edges) - 1) for id_, info in sorted(infos.items())]


def _column(
    id_: int,
    info: SeriesInfo,
    mine: np.ndarray[Any, np.dtype[np.bool_]],
    places: Int64Array,
    columns: Mapping[Aggregate, np.ndarray[Any, Any]],
    length: int,
) -> dict[str, Any]:
    item: dict[str, Any] = {
        "id": id_,
        "device": info.device,
        "quantity": info.quantity,
        "channel": info.channel,
        "unit": info.unit,
        "aggregation": aggregation(info),
    }
    for name, column in columns.items():
        full = np.zeros(length, np.int64) if name in _COUNTS else np.full(length, np.nan)
        if name != Aggregate.MEAN or item["aggregation"] not in _NO_MEAN:
            full[places[mine]] = column[mine]
        item[name.value] = full.tolist()
    return item


def _too_many(what: str, most: int) -> ProblemError:
    return ProblemError(
        422, "too_many", f"more than {most} {what} are asked for", hint="ask for fewer, in several requests"
    )
