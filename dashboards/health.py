"""How the whole is doing, judged from what its parts say of themselves. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

__all__ = ["Health", "Parts", "PartsProvider", "Reason", "judge"]

Parts = Mapping[str, Mapping[str, Any]]
"""What each part says: "door", "projector", "scheduler", "outbox", "store". `up` is False where a part does not run."""

PartsProvider = Callable[[], Parts]

_NEEDED = frozenset({"projector", "scheduler", "store"})  # without one of these, nothing new can be seen at all


class Reason(msgspec.Struct, frozen=True):
    """Why not all is well: a code that pages translate, and its parameters."""

    code: str
    params: Mapping[str, Any] = {}


class Health(msgspec.Struct, frozen=True):
    """A judgement: "ok", "degraded" or "down", and why."""

    status: str
    reasons: tuple[Reason, ...]
    parts: Parts


def judge(parts: Parts, *, behind_s: float) -> Health:
    """Judge the parts.

    >>> judge({"projector": {"lag_s": 90.0}}, behind_s=30).reasons[0].code
    'projector_behind'
    """
    stopped = [name for name, part in parts.items() if part.get("up") is False]
    reasons = [Reason(f"{name}_down", {"part": name}) for name in stopped]
    for name, part in parts.items():
        lag_s = part.get("lag_s") or 0.0
        if lag_s > behind_s:
            reasons.append(Reason(f"{name}_behind", {"part": name, "lag_s": round(lag_s, 1)}))
        if part.get("upkeep_error"):
            told = {"part": name, "error": part["upkeep_error"], "hint": part.get("hint")}
            reasons.append(Reason(f"{name}_upkeep", told))
        if part.get("damaged"):
            reasons.append(Reason("journal_damaged", {"messages": part["damaged"]}))
        for what, why in (part.get("troubles") or {}).items():
            reasons.append(Reason(f"{what}_stale", {"part": name, "error": why}))
        if part.get("journal_lost"):
            reasons.append(Reason("journal_lost", {"messages": part["journal_lost"]}))
        if part.get("disk_full") or part.get("disk_low"):
            code = "disk_full" if part.get("disk_full") else "disk_low"
            reasons.append(Reason(code, {"free": part.get("disk_free")}))
    status = "down" if _NEEDED & set(stopped) else "degraded" if reasons else "ok"
    return Health(status, tuple(reasons), parts)
