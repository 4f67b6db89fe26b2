"""Commands to devices: asking for one, what became of it, and taking it back."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header, Request, Response

from dashboards.api import contract
from dashboards.api.context import ApiContext, Context
from dashboards.api.contract_commands import Command, NewCommand
from dashboards.api.paging import CursorQuery, LimitQuery, decode_cursor, encode_cursor, page_limit
from dashboards.api.render import json_page, json_response
from dashboards.api.visitors import Actor, acting
from dashboards.problem import ProblemError
from dashboards.times import iso
from devices.errors import ConflictError, NotFoundError
from qala.state.commands import (
    PAYLOAD_MAX,
    CommandRow,
    CommandState,
    cancel_command,
    command,
    commands,
    request_command,
)

router = APIRouter(tags=["commands"])

_KEY_MAX = 200


class _After(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    id: str


class _Given(msgspec.Struct):
    """The body of a request as it was written: numbers and order of the payload stay what they are."""

    payload: msgspec.Raw


async def _given(request: Request) -> bytes:
    return await request.body()


KeyHeader = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=_KEY_MAX)]


@router.get("/commands", response_model=contract.Page[Command])
def list_commands(
    context: Context,
    request: Request,
    device: str | None = None,
    state: CommandState | None = None,
    limit: LimitQuery = None,
    cursor: CursorQuery = None,
) -> Response:
    """List commands, the newest first: what was asked, by whom, and how it went."""
    return _page(context, request, device, state, limit, cursor)


@router.get("/devices/{fleet}/{device}/commands", response_model=contract.Page[Command])
def list_commands_of_device(
    context: Context,
    request: Request,
    fleet: str,
    device: str,
    state: CommandState | None = None,
    limit: LimitQuery = None,
    cursor: CursorQuery = None,
) -> Response:
    """List the commands of one device, the newest first."""
    _check_known(context, f"{fleet}/{device}")
    return _page(context, request, f"{fleet}/{device}", state, limit, cursor)


@router.get("/commands/{id}", response_model=Command)
def get_command(context: Context, id: str) -> Response:  # noqa: A002
    """Give one command."""
    return json_response(_item(command(context.state, id), context.now_us()))


@router.post("/devices/{fleet}/{device}/commands", response_model=Command, status_code=202)
def post_command(
    context: Context,
    fleet: str,
    device: str,
    new: NewCommand,
    body: Annotated[bytes, Depends(_given)],
    actor: Actor,
    key: KeyHeader = None,
) -> Response:
    """Ask for a command to be delivered to a device as soon as it listens. The same Idempotency-Key asks only once."""
    now_us = context.now_us()
    _check_in_service(context, f"{fleet}/{device}", now_us)
    row = request_command(
        context.state,
        f"{fleet}/{device}",
        _payload(body),
        by=acting(actor, new.actor.strip()),
        now_us=now_us,
        expires_us=now_us + new.expires_in_s * 1_000_000,
        key=key,
    )
    context.on_command()
    return json_response(_item(row, now_us), status=202, headers={"location": f"/api/v1/commands/{row.id}"})


@router.delete("/commands/{id}", response_model=Command)
def delete_command(context: Context, actor: Actor, id: str) -> Response:  # noqa: A002
    """Take back a command that was not delivered yet."""
    now_us = context.now_us()
    row = cancel_command(context.state, id, by=acting(actor, ""), now_us=now_us)
    context.on_command()
    return json_response(_item(row, now_us))


def _page(
    context: ApiContext,
    request: Request,
    device: str | None,
    state: CommandState | None,
    limit: int | None,
    cursor: str | None,
) -> Response:
    before = decode_cursor(cursor, _After).id if cursor else None
    size, now_us = page_limit(context.settings, limit), context.now_us()
    rows = commands(context.state, now_us=now_us, device=device, state=state, before=before, limit=size + 1)
    more = encode_cursor(_After(rows[size - 1].id)) if len(rows) > size else None
    return json_page(request, [_item(row, now_us) for row in rows[:size]], more)


def _check_known(context: ApiContext, device: str) -> None:
    if device not in context.registry().devices:
        hint = "list the devices at /api/v1/devices; one that is not admitted is at /api/v1/candidates"
        raise NotFoundError(f"there is no device {device!r}", hint=hint)


def _check_in_service(context: ApiContext, device: str, now_us: int) -> None:
    _check_known(context, device)
    until_us = context.registry().devices[device].until_us
    if until_us is not None and until_us <= now_us:
        raise ConflictError(f"{device} is retired", hint="bring it back with the devices file first")


def _payload(body: bytes) -> bytes:
    payload = bytes(msgspec.json.decode(body, type=_Given).payload)
    if len(payload) > PAYLOAD_MAX:
        hint = f"send at most {PAYLOAD_MAX} bytes"
        raise ProblemError(413, "too_large", f"the payload has {len(payload)} bytes", hint=hint)
    return payload


def _item(row: CommandRow, now_us: int) -> dict[str, Any]:
    state = row.state(now_us)
    delivered_us = None if state is CommandState.TOO_LARGE else row.delivered_us
    return {
        "id": row.id,
        "device": row.device,
        "payload": msgspec.Raw(row.payload),
        "state": state.value,
        "requested": iso(row.requested_us),
        "requested_by": row.requested_by,
        "expires": iso(row.expires_us),
        "sent": _time(row.sent_us),
        "delivered": _time(delivered_us),
        "code": row.code if delivered_us is not None else None,
        "answered_by": row.answered_by,
        "cancelled": _time(row.cancelled_us),
        "cancelled_by": row.cancelled_by,
        "reason": row.reason(now_us),
    }


def _time(time_us: int | None) -> str | None:
    return None if time_us is None else iso(time_us)
