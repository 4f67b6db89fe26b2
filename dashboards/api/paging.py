"""Keyset paging: a cursor is the key of the last row of a page, so that no row is left out or given twice."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import Annotated, TypeVar
from urllib.parse import urlencode

import msgspec
from fastapi import Query, Request

from dashboards.problem import ProblemError
from dashboards.settings import DashboardsSettings

__all__ = [
    "CursorQuery",
    "LimitQuery",
    "decode_cursor",
    "encode_cursor",
    "export_limit",
    "link_next",
    "page_limit",
    "page_of",
]

T = TypeVar("T")
_CURSOR_MAX = 1_000

LimitQuery = Annotated[int | None, Query(ge=1, description="most rows of a page")]
CursorQuery = Annotated[str | None, Query(description="`next` of the page before", max_length=_CURSOR_MAX)]


class _AfterId(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    id: str


def page_of(
    rows: Iterable[T], id_of: Callable[[T], str], settings: DashboardsSettings, limit: int | None, cursor: str | None
) -> tuple[list[T], str | None]:
    """Cut the page after a cursor out of rows that are held whole, in the order of their ids; give the next cursor too.

    Raises ProblemError (422) as `page_limit` and `decode_cursor` do.
    """
    after = decode_cursor(cursor, _AfterId).id if cursor else ""
    most = page_limit(settings, limit)
    rest = [row for row in rows if id_of(row) > after]
    more = encode_cursor(_AfterId(id_of(rest[most - 1]))) if len(rest) > most else None
    return rest[:most], more


def page_limit(settings: DashboardsSettings, asked: int | None) -> int:
    """Return how many rows a JSON page holds. Raises ProblemError (422) where more are asked for than allowed."""
    return _limit(asked, default=settings.page_default, most=settings.page_max)


def export_limit(settings: DashboardsSettings, asked: int | None) -> int:
    """Return how many rows a CSV or Arrow answer holds. Raises ProblemError (422) as `page_limit` does."""
    return _limit(asked, default=settings.export_max, most=settings.export_max)


def _limit(asked: int | None, *, default: int, most: int) -> int:
    rows = min(default, most) if asked is None else asked
    if rows > most:
        hint = "ask for fewer and follow `next`; CSV and Arrow take more at once"
        raise ProblemError(422, "limit_too_large", f"limit={asked} is more than {most}", hint=hint)
    return rows


def encode_cursor(key: msgspec.Struct) -> str:
    """Write a cursor; `key` is an array-like struct."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).rstrip(b"=").decode()


def decode_cursor(text: str, kind: type[T]) -> T:
    """Read a cursor back. Raises ProblemError (422) where it is not one of this list's."""
    try:
        whole = text[:_CURSOR_MAX].encode("ascii")
        return msgspec.json.decode(base64.b64decode(whole + b"=" * (-len(whole) % 4), b"-_", validate=True), type=kind)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        hint = "take the cursor from `next` of the page before, with the same filters"
        raise ProblemError(422, "bad_cursor", "the cursor is not one of this list", hint=hint) from None


def link_next(request: Request, cursor: str | None) -> dict[str, str]:
    """Return the Link header to the next page, if there is one."""
    if cursor is None:
        return {}
    query = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    return {"link": f'<{request.url.path}?{urlencode([*query, ("cursor", cursor)])}>; rel="next"'}
