"""Tokens of the API, for the server's owner: only over the socket of the data folder."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from dashboards.api.context import Context
from dashboards.api.contract_tokens import NewToken
from dashboards.api.render import json_page, json_response
from dashboards.api.visitors import VisitorsOf
from dashboards.times import iso
from qala.state import tokens
from qala.state.tokens import Scope, TokenRow

router = APIRouter(tags=["tokens"], include_in_schema=False)

_DAY_US = 86_400_000_000


@router.get("/tokens")
def list_tokens(context: Context, request: Request) -> Response:
    """List all tokens, the oldest first."""
    now_us = context.now_us()
    return json_page(request, [_item(row, now_us) for row in tokens.tokens(context.state)])


@router.post("/tokens")
def issue_token(context: Context, visitors: VisitorsOf, new: NewToken) -> Response:
    """Issue a token. Its text is in this answer and nowhere else."""
    now_us = context.now_us()
    expires_us = None if new.expires_days is None else now_us + new.expires_days * _DAY_US
    row, text = tokens.issue(context.state, new.name, Scope(new.scope), now_us, expires_us=expires_us)
    visitors.load()
    return json_response({**_item(row, now_us), "token": text}, status=201)


@router.post("/tokens/{id}/revoke")
def revoke_token(context: Context, visitors: VisitorsOf, id: str) -> Response:  # noqa: A002
    """End a token, and every session that was begun with it."""
    now_us = context.now_us()
    row = tokens.revoke(context.state, id, now_us)
    visitors.load()
    return json_response(_item(row, now_us))


def _item(row: TokenRow, now_us: int) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "scope": row.scope,
        "state": _state(row, now_us),
        "created": iso(row.created_us),
        "expires": _when(row.expires_us),
        "last_used": _when(row.last_used_us),
        "revoked": _when(row.revoked_us),
    }


def _state(row: TokenRow, now_us: int) -> str:
    if row.revoked_us is not None:
        return "revoked"
    return "valid" if row.holds(now_us) else "expired"


def _when(time_us: int | None) -> str | None:
    return None if time_us is None else iso(time_us)
