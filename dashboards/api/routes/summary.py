"""The summary: all that a page needs to show something, in one small answer."""

from __future__ import annotations

from threading import Lock

import msgspec
from fastapi import APIRouter, Request, Response

from dashboards.api import contract
from dashboards.api.context import ApiContext, Context
from dashboards.summary import summarize
from qala.state.episodes import counts

router = APIRouter(tags=["summary"])


class SummaryCache:
    """The encoded summary, made again when something changed, at least once a second."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._key: tuple[int, ...] = ()
        self._body = b""

    def body(self, context: ApiContext) -> bytes:
        """Return the summary as JSON."""
        hub, now_us = context.hub, context.now_us()
        key = (hub.board.revision, hub.episodes_revision, now_us // 1_000_000)
        with self._lock:
            if key != self._key:
                summary = summarize(
                    context.indicators, hub.board.windows, context.devices(), counts(context.state), now_us
                )
                city = {"names": context.settings.city, "time_zone": context.time_zone}
                self._key, self._body = key, msgspec.json.encode({**summary, "city": city})
            return self._body


@router.get("/summary", response_model=contract.Summary)
def get_summary(context: Context, request: Request) -> Response:
    """Summarize the city: a tile an indicator, device states, alerts."""
    cache: SummaryCache = request.app.state.summary
    return Response(cache.body(context), 200, {"cache-control": "no-store"}, "application/json")
