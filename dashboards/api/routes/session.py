"""The session of a browser: a token is shown once, and a cookie stands for it from then on."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from dashboards.api.access import COOKIE
from dashboards.api.contract_tokens import Session, SignIn
from dashboards.api.guard import client_of
from dashboards.api.render import json_response
from dashboards.api.visitors import Visitor, Visitors, VisitorsOf

router = APIRouter(tags=["session"])

_FLAGS = "Path=/; Secure; HttpOnly; SameSite=Strict"


@router.get("/session", response_model=Session)
async def get_session(request: Request, visitors: VisitorsOf) -> Response:
    """Tell who asks, and what they may do."""
    return json_response(_session(request.state.visitor, visitors))


@router.post("/session", response_model=Session)
async def sign_in(request: Request, visitors: VisitorsOf, body: SignIn) -> Response:
    """Begin a session: the answer sets a cookie that no script reads and no other site sends."""
    visitor = await visitors.of_token(body.token.strip())
    if visitor is None:
        raise visitors.refusal(client_of(request.scope))
    await visitors.sign_out(request.state.visitor)
    signed_in, secret, lasts_s = await visitors.sign_in(visitor)
    cookie = f"{COOKIE}={secret}; {_FLAGS}; Max-Age={lasts_s}"
    return json_response(_session(signed_in, visitors), headers={"set-cookie": cookie})


@router.delete("/session", status_code=204, response_class=Response)
async def sign_out(request: Request, visitors: VisitorsOf) -> Response:
    """End the session whose cookie is shown."""
    await visitors.sign_out(request.state.visitor)
    return Response(status_code=204, headers={"set-cookie": f"{COOKIE}=; {_FLAGS}; Max-Age=0"})


def _session(visitor: Visitor, visitors: Visitors) -> dict[str, object]:
    return {
        "name": visitor.actor,
        "scope": visitor.scope,
        "asked": visitors.asked,
        "cookie": bool(visitor.session),
    }
