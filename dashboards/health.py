"""How the whole is doing, judged from what its parts say of themselves. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

__all__ = ["HINTS", "Health", "Parts", "PartsProvider", "Reason", "judge"]

Parts = Mapping[str, Mapping[str, Any]]
"""What each part says: "door", "projector", "scheduler", "outbox", "store". `up` is False where a part does not run."""

PartsProvider = Callable[[], Parts]

_NEEDED = frozenset({"projector", "scheduler", "store"})  # without one of these, nothing new can be seen at all


HINTS = {  # by code
    "door_down": "look at the door's log and the disk; devices keep their messages meanwhile",
    "brokers_down": "look at the address and the credentials of the broker; it keeps the messages meanwhile",
    "projector_down": "look at the server's log; it tries again by itself, and the journal waits",
    "scheduler_down": "look at the server's log; it tries again by itself",
    "outbox_down": "look at the server's log; notices wait in the state",
    "store_down": "run qala doctor; what comes in waits in the journal",
    "probe_down": "look at the server's log; only the measuring has stopped",
    "projector_behind": "after an outage this is normal: watch lag_messages fall; else look at the store",
    "scheduler_behind": "after a replay or an outage this is normal: the newest windows come first",
    "store_upkeep": "look at the disk; it tries again by itself, and readings go on being stored",
    "probe_late": "a message of our own does not arrive: compare qala_probe_puback_seconds and qala_probe_stored_seconds",
    "journal_damaged": "look at the disk; qala journal verify names the files",
    "journal_lost": "look for the journal of before, or restore a backup: its messages may still be in the store",
    "disk_full": "make room: nothing is taken until then, and everything goes on by itself",
    "disk_low": "make room before the disk is full, or let less of the journal be kept",
    "credentials_stale": "look at the state and credential.key: who was revoked since then still gets in",
    "certificate_stale": "look at the files that the settings name; the certificate of before is still used",
}
_HINT = "look at the server's log"


class Reason(msgspec.Struct, frozen=True):
    """Why not all is well: a code that pages translate, its parameters, and what a person can do."""

    code: str
    params: Mapping[str, Any] = {}
    hint: str = ""

    def __post_init__(self) -> None:
        if not self.hint:
            msgspec.structs.force_setattr(self, "hint", HINTS.get(self.code, _HINT))


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
        if (part.get("late_s") or 0.0) > behind_s:
            reasons.append(Reason(f"{name}_late", {"part": name, "late_s": part["late_s"]}))
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
