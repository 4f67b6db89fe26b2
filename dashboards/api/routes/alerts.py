"""Alerts: episodes of the rules, and their acknowledgement."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from dashboards.api import contract
from dashboards.api.context import ApiContext, Context
from dashboards.api.paging import CursorQuery, LimitQuery, decode_cursor, encode_cursor, page_limit
from dashboards.api.render import json_page, json_response
from dashboards.api.visitors import Actor, acting
from dashboards.items import AlertItem, alert_item
from dashboards.times import iso
from qala.state.episodes import EpisodeRow, NoticeRow, acknowledge, episode, episodes, notices

router = APIRouter(tags=["alerts"])


class AlertState(StrEnum):
    """Which alerts to list."""

    FIRING = "firing"
    ENDED = "ended"
    WITHDRAWN = "withdrawn"
    ALL = "all"


class _After(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    start_us: int
    id: str


@router.get("/alerts", response_model=contract.Page[contract.Alert])
def list_alerts(
    context: Context,
    request: Request,
    state: AlertState = AlertState.FIRING,
    rule: str | None = None,
    zone: str | None = None,
    acknowledged: bool | None = None,
    limit: LimitQuery = None,
    cursor: CursorQuery = None,
) -> Response:
    """List alerts, those that started last first."""
    after = decode_cursor(cursor, _After) if cursor else None
    size = page_limit(context.settings, limit)
    rows = episodes(
        context.state,
        states=None if state is AlertState.ALL else {state.value},
        rule=rule,
        zone=zone,
        acknowledged=acknowledged,
        after=(after.start_us, after.id) if after else None,
        limit=size + 1,
    )
    more = encode_cursor(_After(rows[size - 1].start_us, rows[size - 1].id)) if len(rows) > size else None
    return json_page(request, [_item(context, row) for row in rows[:size]], more)


@router.get("/alerts/{id}", response_model=contract.AlertDetail)
def get_alert(context: Context, id: str) -> Response:  # noqa: A002
    """Give one alert with the notices about it."""
    item = msgspec.to_builtins(_item(context, episode(context.state, id)))
    return json_response(item | {"notices": [_notice(notice) for notice in notices(context.state, id)]})


@router.post("/alerts/{id}/acknowledge", response_model=contract.Alert)
def acknowledge_alert(context: Context, id: str, body: contract.Acknowledge, actor: Actor) -> Response:  # noqa: A002
    """Say that somebody takes care of an alert. Beside the name that they give stands the name of the token that they show."""
    who = acting(actor, body.actor.strip())
    row = acknowledge(context.state, id, who, body.comment.strip(), context.now_us())
    context.hub.on_episodes([row])
    return json_response(_item(context, row))


def _item(context: ApiContext, row: EpisodeRow) -> AlertItem:
    return alert_item(row, context.rules, context.indicators)


def _notice(notice: NoticeRow) -> dict[str, Any]:
    return {
        "kind": notice.kind,
        "time": iso(notice.time_us),
        "recorded": iso(notice.recorded_us),
        "sent": None if notice.sent_us is None else iso(notice.sent_us),
        "attempts": notice.attempts,
        "suppressed": notice.suppressed,
        "body": notice.body,
    }
