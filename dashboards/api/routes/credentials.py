"""Credentials of devices and gateways, for the server's owner: only over the socket of the data folder."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response

from dashboards.api import owned
from dashboards.api.context import ApiContext, Context
from dashboards.api.paging import CursorQuery, LimitQuery, decode_cursor, encode_cursor, page_limit
from dashboards.api.render import json_page, json_response
from dashboards.times import iso
from qala.state import credentials
from qala.state.credentials import Credential, CredentialKind, Issue, Issued
from qala.state.registry import candidates

router = APIRouter(tags=["credentials"], include_in_schema=False)

_DAY_US, _HOUR_US = 86_400_000_000, 3_600_000_000


class _After(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    principal: str
    created_us: int
    id: str


@router.get("/credentials")
def list_credentials(
    context: Context,
    request: Request,
    principal: Annotated[str | None, Query(max_length=200)] = None,
    limit: LimitQuery = None,
    cursor: CursorQuery = None,
) -> Response:
    """List credentials by principal, then oldest first. Their secrets are not known here."""
    most = page_limit(context.settings, limit)
    after = msgspec.structs.astuple(decode_cursor(cursor, _After)) if cursor else None
    rows = credentials.list_credentials(context.state, principal=principal, after=after, limit=most + 1)
    page, now_us = rows[:most], context.now_us()
    last = page[-1] if len(rows) > most else None
    more = encode_cursor(_After(last.principal, last.created_us, last.id)) if last else None
    return json_page(request, [_item(row, now_us) for row in page], more)


@router.post("/credentials")
def issue_credential(context: Context, new: owned.NewCredential) -> Response:
    """Make a token. It is in this answer and nowhere else."""
    now_us = context.now_us()
    issued = credentials.issue(context.state, context.credential_key(), _issue(new, now_us), now_us)
    return json_response(_told(issued, now_us), status=201)


@router.post("/credentials/missing")
def issue_missing(context: Context, new: owned.NewCredentials) -> Response:
    """Make a token for each of many devices, or for all of the registry, that has no valid one."""
    now_us = context.now_us()
    names = new.principals if new.principals is not None else _devices(context, now_us)
    expires_us = None if new.expires_days is None else now_us + new.expires_days * _DAY_US
    wanted = [Issue(name, expires_us=expires_us, created_by=new.by, note=new.note) for name in names]
    issued = credentials.issue_missing(context.state, context.credential_key(), wanted, now_us)
    return json_response({"items": [_told(one, now_us) for one in issued], "left": len(set(names)) - len(issued)})


@router.post("/credentials/rotate")
def rotate_credential(context: Context, new: owned.RotatedCredential) -> Response:
    """Make a token in place of the valid one, which goes on being valid for the overlap."""
    now_us = context.now_us()
    overlap_us = round(new.overlap_hours * _HOUR_US)
    wanted = _issue(new, now_us)
    issued = credentials.rotate(context.state, context.credential_key(), wanted, now_us, overlap_us=overlap_us)
    return json_response(_told(issued, now_us), status=201)


@router.post("/credentials/revoke")
def revoke_credential(context: Context, gone: owned.RevokedCredential) -> Response:
    """Revoke one token, or all of a principal, and of a device the certificates that were issued before now."""
    certified = gone.certificates or (context.takes_certificates and _is_known(context, gone.principal))
    now_us = context.now_us()
    revoked = credentials.revoke(context.state, gone.principal, now_us, id=gone.id, by=gone.by, certified=certified)
    return json_response({"principal": gone.principal, "revoked": revoked})


def _is_known(context: ApiContext, device: str) -> bool:
    """Tell whether a device is in the registry, or has sent something."""
    return device in context.registry().devices or device in {one.device for one in candidates(context.state)}


def _issue(new: owned.NewCredential, now_us: int) -> Issue:
    expires_us = None if new.expires_days is None else now_us + new.expires_days * _DAY_US
    return Issue(new.principal, tuple(new.filters), expires_us, new.by, new.note)


def _devices(context: ApiContext, now_us: int) -> list[str]:
    """Return the ids of all devices that are not retired."""
    devices = context.registry().devices.values()
    return sorted(one.id for one in devices if one.until_us is None or one.until_us > now_us)


def _told(issued: Issued, now_us: int) -> dict[str, Any]:
    return {**_item(issued.credential, now_us), "token": issued.token}


def _item(row: Credential, now_us: int) -> dict[str, Any]:
    is_token = row.kind is CredentialKind.TOKEN
    return {
        "id": row.id,
        "principal": row.principal,
        "kind": row.kind,
        "state": row.state(now_us) if is_token else "refused if older",
        "filters": row.filters,
        "created": iso(row.created_us),
        "created_by": row.created_by,
        "expires": _when(row.expires_us),
        "revoked": _when(row.revoked_us),
        "note": row.note,
    }


def _when(time_us: int | None) -> str | None:
    return None if time_us is None else iso(time_us)
