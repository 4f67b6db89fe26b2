"""Candidates: devices that send and are not in the registry."""

from __future__ import annotations

from operator import attrgetter

from fastapi import APIRouter, Request, Response

from dashboards.api import contract
from dashboards.api.context import Context
from dashboards.api.paging import CursorQuery, LimitQuery, page_of
from dashboards.api.render import json_page
from dashboards.times import iso
from qala.state.registry import candidates

router = APIRouter(tags=["devices"])


@router.get("/candidates", response_model=contract.Page[contract.Candidate])
def list_candidates(
    context: Context, request: Request, limit: LimitQuery = None, cursor: CursorQuery = None
) -> Response:
    """List the devices that wait to be admitted, by id."""
    page, more = page_of(candidates(context.state), attrgetter("device"), context.settings, limit, cursor)
    items = [
        {"device": one.device, "first": iso(one.first_us), "last": iso(one.last_us), "messages": one.messages}
        for one in page
    ]
    return json_page(request, items, more)
