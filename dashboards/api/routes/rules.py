"""Rules: what raises an alert."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from analytics.alerts import Episode, Rule
from analytics.past import try_rule
from analytics.rulebook import describe, failures, parse_rule
from dashboards.api import contract
from dashboards.api.context import ApiContext, Context
from dashboards.api.paging import CursorQuery, LimitQuery, page_of
from dashboards.api.render import json_page, json_response
from dashboards.problem import ProblemError
from dashboards.times import iso, parse_span
from devices.errors import ConfigError, NotFoundError

router = APIRouter(tags=["alerts"])


@router.get("/rules", response_model=contract.Page[contract.Rule])
async def list_rules(
    context: Context, request: Request, limit: LimitQuery = None, cursor: CursorQuery = None
) -> Response:
    """List the rules by id."""
    page, more = page_of(sorted(context.rules), str, context.settings, limit, cursor)
    return json_page(request, [_item(context, context.rules[id_]) for id_ in page], more)


@router.get("/rules/{rule}/runbook", response_class=PlainTextResponse)
async def read_runbook(context: Context, rule: str) -> PlainTextResponse:
    """Read what to do when a rule fires, where the rule's file came with it (Markdown)."""
    found = context.rules.get(rule)
    if found is None or not found.runbook_text:
        raise NotFoundError(f"no runbook for the rule {rule!r} is kept here", hint="/api/v1/rules lists where they are")
    return PlainTextResponse(found.runbook_text, media_type="text/plain; charset=utf-8")


@router.post("/rules/try", response_model=contract.Tried)
def try_on_the_past(context: Context, trial: contract.Trial) -> Response:
    """Fold a rule file over stored values, before it is switched on: nothing is written and nobody is told."""
    span = parse_span(trial.start, trial.stop, context.now_us(), days_max=context.settings.range_max_days)
    try:
        book = parse_rule(trial.toml, where="the rule", indicators=context.indicators)
    except ConfigError as error:
        raise ProblemError(422, "bad_rule", error.message, hint=error.hint) from None
    found = try_rule(context.store, book.rule, span)
    return json_response(
        {
            "rule": _item(context, book.rule),
            "failures": failures(book),
            "episodes": [_episode(zone, episode) for zone, episode in found],
        }
    )


def _episode(zone: str, episode: Episode) -> dict[str, Any]:
    return {
        "zone": zone,
        "start": iso(episode.start_us),
        "fired": iso(episode.fired_us),
        "end": None if episode.end_us is None else iso(episode.end_us),
        "worst": episode.worst,
    }


def _item(context: ApiContext, rule: Rule) -> dict[str, Any]:
    indicator = context.indicators.get(rule.indicator)
    return describe(rule) | {"unit": rule.unit, "zone_kind": indicator.zone_kind if indicator else ""}
