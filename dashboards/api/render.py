"""Answers: JSON that is encoded once, and tables as JSON, CSV or an Arrow stream, by `format` or the Accept header."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from fastapi import Query, Request, Response

from dashboards.api.paging import export_limit, link_next, page_limit
from dashboards.problem import ProblemError
from dashboards.settings import DashboardsSettings
from dashboards.times import iso_array

__all__ = [
    "Format",
    "FormatQuery",
    "etagged",
    "json_page",
    "json_response",
    "negotiate",
    "render",
    "times",
    "times_or_null",
]

JSON = "application/json"


class Format(StrEnum):
    """What a table can be given as."""

    JSON = "json"
    CSV = "csv"
    ARROW = "arrow"


_MEDIA = {
    Format.JSON: JSON,
    Format.CSV: "text/csv; charset=utf-8",
    Format.ARROW: "application/vnd.apache.arrow.stream",
}
_ACCEPTED = {media.partition(";")[0]: form for form, media in _MEDIA.items()} | {
    "application/*": Format.JSON,
    "text/*": Format.CSV,
    "*/*": Format.JSON,
}

FormatQuery = Annotated[Format | None, Query(description="instead of an Accept header")]


def negotiate(request: Request, asked: Format | None) -> Format:
    """Choose what to answer with. Raises ProblemError (406) where nothing that is accepted can be made."""
    accept = request.headers.get("accept", "*/*")
    if asked is not None or not accept.strip():
        return asked or Format.JSON
    for media in _by_preference(accept):
        if media in _ACCEPTED:
            return _ACCEPTED[media]
    hint = f"ask for one of {', '.join(media.partition(';')[0] for media in _MEDIA.values())}"
    raise ProblemError(406, "not_acceptable", f"nothing of {accept!r} can be made", hint=hint)


def _by_preference(accept: str) -> list[str]:
    """Return the media types of an Accept header, the best first, without those at q=0.

    >>> _by_preference("text/csv;q=0.5, application/json")
    ['application/json', 'text/csv']
    """
    weighed = []
    for item in accept.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        weighed.append((_quality(parameters), media))
    return [media for quality, media in sorted(weighed, key=lambda pair: -pair[0]) if quality > 0]


def _quality(parameters: Collection[str]) -> float:
    text = next((p[2:] for p in parameters if p.startswith("q=")), "1")
    try:
        return float(text)
    except ValueError:
        return 0.0


def table_limit(settings: DashboardsSettings, asked: int | None, form: Format) -> int:
    """Return how many rows a table may have in a format. Raises ProblemError (422) where more are asked for."""
    return page_limit(settings, asked) if form is Format.JSON else export_limit(settings, asked)


def json_response(data: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Encode data once; NaN becomes null."""
    return Response(msgspec.json.encode(data), status, {"cache-control": "no-store", **(headers or {})}, JSON)


def json_page(request: Request, items: Any, cursor: str | None = None) -> Response:
    """Answer with a page of items and the cursor of the next one."""
    return json_response({"items": items, "next": cursor}, headers=link_next(request, cursor))


def etagged(request: Request, body: bytes, media_type: str = JSON) -> Response:
    """Answer with a body under a strong ETag, or with 304 where the client has it."""
    tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"etag": tag, "cache-control": "no-cache"}
    held = {part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")}
    if tag in held:
        return Response(status_code=304, headers=headers)
    return Response(body, 200, headers, media_type)


def times(us: pa.ChunkedArray) -> pa.ChunkedArray:
    """Turn microseconds into timestamps in UTC."""
    return us.cast(pa.timestamp("us", "UTC"))


def times_or_null(us: pa.ChunkedArray) -> pa.ChunkedArray:
    """Turn microseconds into timestamps in UTC, 0 (not known) into null."""
    return times(pc.if_else(pc.not_equal(us, 0), us, pa.scalar(None, us.type)))


def render(
    request: Request, table: pa.Table, form: Format, cursor: str | None, *, raw: Collection[str] = ()
) -> Response:
    """Answer with a page of a table. Columns named in `raw` hold JSON texts."""
    headers = {"vary": "Accept", "cache-control": "no-store", **link_next(request, cursor)}
    return Response(_WRITERS[form](table, cursor, raw), 200, headers, _MEDIA[form])


def _json(table: pa.Table, cursor: str | None, raw: Collection[str]) -> bytes:
    plain = _with_texts(table)
    columns = [_raw(plain[name]) if name in raw else plain[name].to_pylist() for name in plain.column_names]
    rows = [dict(zip(plain.column_names, row, strict=True)) for row in zip(*columns, strict=True)]
    return msgspec.json.encode({"items": rows, "next": cursor})


def _csv(table: pa.Table, _cursor: str | None, _raw: Collection[str]) -> bytes:
    sink = io.BytesIO()
    pa.csv.write_csv(_with_texts(table), sink)
    return sink.getvalue()


def _arrow(table: pa.Table, _cursor: str | None, _raw: Collection[str]) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


_WRITERS: Mapping[Format, Callable[[pa.Table, str | None, Collection[str]], bytes]] = {
    Format.JSON: _json,
    Format.CSV: _csv,
    Format.ARROW: _arrow,
}


def _with_texts(table: pa.Table) -> pa.Table:
    """Write timestamps as ISO 8601 and dictionaries as what they stand for."""
    for index, field in enumerate(table.schema):
        column = table.column(index)
        if pa.types.is_timestamp(field.type):
            table = table.set_column(index, field.name, _iso_column(column))
        elif pa.types.is_dictionary(field.type):
            table = table.set_column(index, field.name, column.cast(pa.string()))
    return table


def _iso_column(column: pa.ChunkedArray) -> pa.Array:
    us = column.cast(pa.int64())
    texts = iso_array(pc.fill_null(us, 0).to_numpy())
    return pa.array(texts, pa.string(), mask=np.asarray(column.is_null()))


def _raw(column: pa.ChunkedArray) -> list[msgspec.Raw]:
    return [msgspec.Raw(text.encode()) for text in column.to_pylist()]
