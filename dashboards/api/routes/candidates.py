"""Candidates: devices that send and are not in the registry."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from dashboards.api import contract
from dashboards.api.context import Context
from dashboards.api.render import json_page
from dashboards.times import iso
from qala.state.registry import candidates

router = APIRouter(tags=["devices"])


@router.get("/candidates", response_model=contract.Page[contract.Candidate])
def list_candidates(context: Context, request: Request) -> Response:
    """List the devices that wait to be admitted, by id."""
    items = [
        {"device": one.device, "first": iso(one.first_us), "last": iso(one.last_us), "messages": one.messages}
        for one in candidates(context.state)
    ]
    return json_page(request, items)
