"""The store's owner at work: days to the lake, and values that were computed over it. Only over the socket of the data folder."""

from __future__ import annotations

from datetime import date

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from dashboards.api import contract
from dashboards.api.context import Context
from dashboards.api.render import json_response
from dashboards.problem import ProblemError
from devices.value import Value
from qala.store.lake import day_number

router = APIRouter(tags=["store"], include_in_schema=False)


class LakeExport(contract.Model):
    """Which lake, the configured one by default, and from which day up to which (exclusive), in UTC."""

    to: str | None = Field(default=None, max_length=2048)
    since: date
    until: date


class _Values(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    values: list[Value]


@router.post("/store/lake")
def export_to_lake(context: Context, body: LakeExport) -> Response:
    """Export the first of some closed days that has readings, and say what became of it: one day a request."""
    first, last = (day_number(day.isoformat()) for day in (body.since, body.until))
    found = context.operator.export(body.to, first, last)
    return json_response({"exported": msgspec.structs.asdict(found) if found else None})


@router.post("/store/values")
async def put_values(context: Context, request: Request) -> Response:
    """Take values that were computed over the lake; those that are another number become revisions."""
    try:
        values = msgspec.json.decode(await request.body(), type=_Values).values
    except msgspec.DecodeError as error:
        raise ProblemError(422, "bad_values", str(error), hint="they come from qala analytics backfill") from None
    return json_response(msgspec.structs.asdict(await run_in_threadpool(context.operator.put_values, values)))
