"""Rejected messages and readings: what did not get in, why, and trying again."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from dashboards.api import contract
from dashboards.api.context import Context
from dashboards.api.paging import CursorQuery, LimitQuery, page_limit
from dashboards.api.render import json_page, json_response
from dashboards.problem import ProblemError
from dashboards.times import iso
from devices.errors import ConfigError, Reason
from ingest.rejected import PAYLOAD_KEPT
from qala.state.rejected import RejectedRow, RejectedSummary, list_rejected, summarize

router = APIRouter(tags=["rejected"])


@router.get("/rejected", response_model=contract.Page[contract.Rejected])
def get_rejected(
    context: Context,
    request: Request,
    reason: Reason | None = None,
    device: str | None = None,
    limit: LimitQuery = None,
    cursor: CursorQuery = None,
) -> Response:
    """List what was rejected, the newest first. A payload that is not UTF-8 is given in base64."""
    rows = page_limit(context.settings, limit)
    try:
        found, more = list_rejected(context.state, reason=reason, device=device, limit=rows, cursor=cursor)
    except ConfigError as error:
        raise ProblemError(422, "bad_cursor", error.message, hint=error.hint) from None
    return json_page(request, [_item(row) for row in found], more)


@router.get("/rejected/summary", response_model=contract.Page[contract.RejectedCount])
def get_rejected_summary(context: Context, request: Request) -> Response:
    """Count what was rejected by reason and device, most first; `dropped` rows were too many to keep."""
    return json_page(request, [_count(row) for row in summarize(context.state)])


@router.post("/rejected/replay", response_model=contract.Replayed)
def replay_rejected(context: Context, body: contract.Replay) -> Response:
    """Decode rejected messages again with today's registry; what is good now becomes readings."""
    done = context.operator.replay(reason=body.reason, device=body.device)
    return json_response(msgspec.structs.asdict(done))


def _item(row: RejectedRow) -> dict[str, Any]:
    text, encoding = _payload(row.payload)
    return {
        "journal": row.journal,
        "position": row.position,
        "item": row.item,
        "reason": row.reason,
        "detail": row.detail,
        "key": row.key,
        "device": row.device,
        "topic": row.topic,
        "received": iso(row.received_us),
        "payload": text,
        "payload_encoding": encoding,
        "payload_cut": len(row.payload) >= PAYLOAD_KEPT,
        "offset": row.offset,
        "readings": row.readings,
    }


def _payload(payload: bytes) -> tuple[str, str]:
    r"""Give bytes as text where they are text, even if a cut went through their last letter.

    >>> _payload("қала".encode()[:-1]), _payload(b"\xff\x00")
    (('қал', 'utf-8'), ('/wA=', 'base64'))
    """
    try:
        return payload.decode(), "utf-8"
    except UnicodeDecodeError as error:
        if error.end == len(payload) and error.start >= len(payload) - 3 and error.start > 0:
            return payload[: error.start].decode(), "utf-8"
        return base64.b64encode(payload).decode(), "base64"


def _count(row: RejectedSummary) -> dict[str, Any]:
    last = None if row.last_us is None else iso(row.last_us)
    return {"reason": row.reason, "device": row.device, "count": row.count, "dropped": row.dropped, "last": last}
