"""Live events."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from dashboards.api.context import Context

router = APIRouter(tags=["live"])


@router.get("/live", response_class=Response, responses={200: {"content": {"text/event-stream": {}}}})
async def get_live(context: Context) -> Response:
    """Stream server-sent events.

    `hello` {now, version} first; `tick` {now, lag_s, lag_messages, status, reasons} every 5 s; `readings`, `values` and
    `alerts`, each {items}, at most once a second; `resync` {} where something was missed: read the page's data again.
    """
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(context.hub.subscribe(), headers=headers, media_type="text/event-stream")
