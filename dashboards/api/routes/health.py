"""How the whole is doing, for people and for monitors."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from dashboards.api import contract
from dashboards.api.context import Context
from dashboards.api.render import json_response
from dashboards.health import judge
from dashboards.prometheus import CONTENT_TYPE, encode
from dashboards.times import iso

router = APIRouter(tags=["health"])
metrics_router = APIRouter(tags=["health"])


@router.get("/health", response_model=contract.Health)
def get_health(context: Context, request: Request) -> Response:
    """Tell how every part is doing. The status is in the body: the answer is 200 as long as there is one.

    Where a token is asked for, the body has nothing but `status` without one.
    """
    health = judge(context.parts(), behind_s=context.settings.behind_s)
    if request.state.visitor is None:
        return json_response({"status": health.status})
    body = {
        "status": health.status,
        "reasons": health.reasons,
        "now": iso(context.now_us()),
        "version": context.version,
        "parts": health.parts,
    }
    return json_response(body)


@metrics_router.get("/metrics", response_class=Response)
def get_metrics(context: Context) -> Response:
    """Give every count in Prometheus' text format."""
    found = [metric for provider in (context.hub.metrics, *context.metrics) for metric in provider()]
    return Response(encode(found), media_type=CONTENT_TYPE)
