"""The application: the API, the live events, the metrics and the page, behind one guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from starlette.middleware.gzip import GZipMiddleware

from dashboards import problem
from dashboards.api import contract, reference
from dashboards.api.context import ApiContext
from dashboards.api.guard import Guard
from dashboards.api.page import Page
from dashboards.api.routes import (
    alerts,
    candidates,
    commands,
    credentials,
    devices,
    health,
    indicators,
    lake,
    ledger,
    live,
    overview,
    readings,
    rejected,
    rules,
    series,
    session,
    store,
    summary,
    tokens,
    zones,
)
from dashboards.api.select import known_parameters
from dashboards.api.visitors import Visitors

__all__ = ["create_app"]

PREFIX = "/api/v1"

_NOUNS = (
    summary,
    zones,
    devices,
    candidates,
    commands,
    credentials,
    series,
    readings,
    overview,
    indicators,
    alerts,
    rules,
    rejected,
    ledger,
    health,
    live,
    session,
    store,
    lake,
    tokens,
)
_OWNER_ONLY = (f"{PREFIX}/store/", f"{PREFIX}/tokens", f"{PREFIX}/credentials")
_OWNER_BODY_MAX = 4_194_304  # values that were computed elsewhere come many at a time
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "model": contract.Problem,
        "description": "The request cannot be answered",
        "content": {problem.MEDIA_TYPE: {}},
    },
    "5XX": {"model": contract.Problem, "description": "The server failed", "content": {problem.MEDIA_TYPE: {}}},
}


def create_app(context: ApiContext) -> FastAPI:
    """Make the application. Its lifespan runs the hub's loop; the hub is loaded and closed by whoever made it."""
    app = FastAPI(
        title="Qala",
        version=context.version,
        description="Telemetry of a city: devices, readings, indicators and alerts. Times are UTC, ranges half-open.",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        responses=_PROBLEMS,
    )
    app.state.context = context
    app.state.summary = summary.SummaryCache()
    problem.install(app)
    app.add_middleware(GZipMiddleware, minimum_size=1_000, compresslevel=5)
    app.state.visitors = Visitors(
        context.state,
        asked=context.asks_tokens,
        session_days=context.settings.session_days,
        now_us=context.now_us,
    )
    app.add_middleware(
        Guard,
        visitors=app.state.visitors,
        hosts=context.settings.hosts,
        body_max=context.settings.body_max,
        owner_only=_OWNER_ONLY,
        owner_body_max=_OWNER_BODY_MAX,
    )
    api = APIRouter(prefix=PREFIX, dependencies=[Depends(known_parameters)])
    for noun in _NOUNS:
        api.include_router(noun.router)
    app.include_router(api)
    app.include_router(health.metrics_router)
    app.include_router(reference.router, include_in_schema=False)
    app.mount("/", Page(context.settings.page))
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    context: ApiContext = app.state.context
    sending = asyncio.create_task(context.hub.run())
    yield
    context.hub.close()
    await sending
