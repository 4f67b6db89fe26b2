"""What folding again means for the episodes that people have seen, and what they have to be told. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from analytics.alerts import Episode

__all__ = ["Change", "Known", "NoticeKind", "episode_id", "reconcile"]


class NoticeKind(StrEnum):
    """What a notice tells."""

    RAISED = "raised"
    AMENDED = "amended"
    WITHDRAWN = "withdrawn"
    RESOLVED = "resolved"


class Known(msgspec.Struct, frozen=True):
    """An episode as it stands in the state, under its id."""

    id: str
    episode: Episode


class Change(msgspec.Struct, frozen=True):
    """An episode that has to be written, and what to tell about it (None: nothing, only its numbers moved on).

    `episode` is None where it is withdrawn. `event_us` is when, in event time, what is told happened.
    """

    id: str
    episode: Episode | None
    notice: NoticeKind | None
    event_us: int


def episode_id(rule: str, zone: str, kind: str, start_us: int) -> str:
    """Return the id of a new episode: the same for the same beginning."""
    return hashlib.sha256(f"{rule}\0{zone}\0{kind}\0{start_us}".encode()).hexdigest()[:20]


def reconcile(known: Sequence[Known], folded: Sequence[Episode], *, rule: str, zone: str) -> list[Change]:
    """Return what must change so that the known episodes of a zone become the folded ones.

    An episode keeps its id (and with it its acknowledgement) when it still overlaps after folding; of several that
    overlap, the oldest. Both sequences are by rising start.
    """
    left = list(known)
    changes: list[Change] = []
    for episode in folded:
        match = next((k for k in left if episode.overlaps(k.episode.start_us, k.episode.end_us)), None)
        if match is None:
            changes.extend(_appear(episode, rule, zone))
            continue
        left.remove(match)
        if match.episode != episode:
            changes.extend(_amend(match, episode))
    changes.extend(Change(k.id, None, NoticeKind.WITHDRAWN, k.episode.end_us or k.episode.fired_us) for k in left)
    return changes


def _appear(episode: Episode, rule: str, zone: str) -> list[Change]:
    new = episode_id(rule, zone, "value", episode.start_us)
    raised = Change(new, episode, NoticeKind.RAISED, episode.fired_us)
    if episode.end_us is None:
        return [raised]
    return [raised, Change(new, episode, NoticeKind.RESOLVED, episode.end_us)]


def _amend(known: Known, episode: Episode) -> list[Change]:
    before = known.episode
    if before.end_us is None and episode.end_us is not None:
        return [Change(known.id, episode, NoticeKind.RESOLVED, episode.end_us)]
    moved = (before.start_us, before.end_us) != (episode.start_us, episode.end_us)
    return [Change(known.id, episode, NoticeKind.AMENDED if moved else None, episode.end_us or episode.fired_us)]
