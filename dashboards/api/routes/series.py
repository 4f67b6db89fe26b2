"""Series: what can be read and drawn."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from dashboards.api import contract
from dashboards.api.context import Context
from dashboards.api.paging import CursorQuery, LimitQuery, decode_cursor, encode_cursor, page_limit
from dashboards.api.render import json_page
from dashboards.api.select import aggregation, select_series
from devices.reading import SeriesInfo

router = APIRouter(tags=["readings"])


class _After(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    series: int


@router.get("/series", response_model=contract.Page[contract.Series])
def list_series(
    context: Context,
    request: Request,
    device: str | None = None,
    quantity: str | None = None,
    limit: LimitQuery = None,
    cursor: CursorQuery = None,
) -> Response:
    """List the series by id."""
    after = decode_cursor(cursor, _After).series if cursor else -1
    rows = page_limit(context.settings, limit)
    chosen = select_series(context.store, device=device, quantity=quantity)
    wanted = [(id_, chosen[id_]) for id_ in sorted(chosen) if id_ > after]
    more = encode_cursor(_After(wanted[rows - 1][0])) if len(wanted) > rows else None
    return json_page(request, [_item(id_, info) for id_, info in wanted[:rows]], more)


def _item(id_: int, info: SeriesInfo) -> dict[str, Any]:
    return {
        "id": id_,
        "device": info.device,
        "quantity": info.quantity,
        "channel": info.channel,
        "span_s": info.span_s,
        "unit": info.unit,
        "aggregation": aggregation(info),
    }
