"""Rules: what raises an alert."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from analytics.alerts import Rule
from analytics.rulebook import describe
from dashboards.api import contract
from dashboards.api.context import ApiContext, Context
from dashboards.api.render import json_page

router = APIRouter(tags=["alerts"])


@router.get("/rules", response_model=contract.Page[contract.Rule])
async def list_rules(context: Context, request: Request) -> Response:
    """List the rules by id."""
    return json_page(request, [_item(context, context.rules[id_]) for id_ in sorted(context.rules)])


def _item(context: ApiContext, rule: Rule) -> dict[str, Any]:
    indicator = context.indicators.get(rule.indicator)
    return describe(rule) | {"unit": rule.unit, "zone_kind": indicator.zone_kind if indicator else ""}
