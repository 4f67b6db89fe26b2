"""Live events."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from dashboards.api.context import Context
from dashboards.api.visitors import VisitorsOf

router = APIRouter(tags=["live"])


@router.get("/live", response_class=Response, responses={200: {"content": {"text/event-stream": {}}}})
async def get_live(context: Context, request: Request, visitors: VisitorsOf) -> Response:
    """Stream server-sent events.

    `hello` {now, version} first; `tick` {now, lag_s, lag_messages, status, reasons} every 5 s; `readings`, `values` and
    `alerts`, each {items}, at most once a second; `resync` {} where something was missed: read the page's data again.
    It ends when the token that was shown does.
    """
    visitor = request.state.visitor
    frames = context.hub.subscribe(lambda: visitors.still_holds(visitor))
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(frames, headers=headers, media_type="text/event-stream")
