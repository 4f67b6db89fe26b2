"""What could not become readings, as rows for people to see, and its replay once they have fixed the cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from ingest.formats.base import Rejection
from ingest.settling import Outcomes
from qala.state.rejected import RejectedRow

if TYPE_CHECKING:
    from ingest.projector import Projector

__all__ = ["PAYLOAD_KEPT", "AccountOf", "Replayed", "rejected_rows", "replay"]

PAYLOAD_KEPT = 2048
"""Bytes of a rejected message's payload that are kept beside its reason."""

AccountOf = Callable[[int, str], str | None]

_ITEMS_MAX = 100  # rows of one message
_REPLAY_MAX = 10_000  # messages read and appended at once


class Replayed(msgspec.Struct, frozen=True):
    """What a replay came to, in messages: `replayed` is those read again, of which `accepted` have nothing rejected any more.

    `pruned` could not be read because the journal no longer has them; they stay as they are.
    """

    replayed: int = 0
    accepted: int = 0
    still_rejected: int = 0
    pruned: int = 0

    def __add__(self, other: Replayed) -> Replayed:
        return Replayed(*(a + b for a, b in zip(_counts(self), _counts(other), strict=True)))


def _counts(replayed: Replayed) -> tuple[int, ...]:
    counts: tuple[int, ...] = msgspec.structs.astuple(replayed)
    return counts


def replay(projector: Projector, *, reason: str | None = None, device: str | None = None) -> Replayed:
    """Decode again what was rejected, with today's registry; what is good now becomes readings and is rejected no more.

    Readings keep their messages' origin, so that a replayed old message does not undo a correction. For the projector's
    thread: `projector.ask(lambda: replay(projector, ...))`. Raises UnavailableError where the store cannot be reached.
    """
    numbers = projector.rejected(reason=reason, device=device)
    total = Replayed()
    for start in range(0, len(numbers), _REPLAY_MAX):
        total += projector.project_again(numbers[start : start + _REPLAY_MAX])
    return total


def rejected_rows(journal: str, outcomes: Outcomes, account: AccountOf) -> list[RejectedRow]:
    """Make the rows of a batch, by position and item; of very many of one kind the last one stands for the others too.

    `account` gives, by a message's index and a device, what the ledger counts that under; None: it does not.
    """
    return [
        _row(journal, outcomes, index, item, rejection, account(index, rejection.device))
        for index, found in sorted(outcomes.rejections.items())
        for item, rejection in enumerate(_bounded(found))
    ]


def _bounded(found: list[Rejection]) -> list[Rejection]:
    """Put rejections of one device and reason together, as far as a message has too many."""
    if len(found) <= _ITEMS_MAX:
        return found
    groups: dict[tuple[str, str], list[Rejection]] = {}
    for rejection in found:
        groups.setdefault((rejection.device, rejection.reason), []).append(rejection)
    each = max(_ITEMS_MAX // len(groups), 1)
    return [rejection for group in groups.values() for rejection in _together(group, each)]


def _together(group: list[Rejection], most: int) -> list[Rejection]:
    if len(group) <= most:
        return group
    last, rest = group[most - 1], group[most:]
    detail = f"{last.detail}; and {len(rest)} more"
    readings = last.readings + sum(rejection.readings for rejection in rest)
    return [*group[: most - 1], Rejection(last.reason, detail, last.key, last.device, readings, last.offset)]


def _row(
    journal: str, outcomes: Outcomes, index: int, item: int, rejection: Rejection, account: str | None
) -> RejectedRow:
    message, counts = outcomes.intake.messages[index], outcomes.of(index, rejection.device)
    return RejectedRow(
        journal=journal,
        position=int(outcomes.intake.numbers[index]),
        item=item,
        reason=str(rejection.reason),
        detail=_plain(rejection.detail, 500),
        key=_plain(rejection.key, 128),
        device=_plain(rejection.device, 200),
        topic=_plain(message.topic, 512),
        received_us=message.received_us,
        payload=message.payload[:PAYLOAD_KEPT],
        offset=rejection.offset,
        readings=rejection.readings,
        account=account,
        accepted=counts.accepted,
        flagged=counts.flagged,
        late=counts.late,
    )


def _plain(text: str, longest: int) -> str:
    r"""Escape what databases and terminals do not take: lone surrogates and control characters.

    >>> _plain("a\tb", 20) == r"a\tb"
    True
    """
    if text.isprintable():
        return text[:longest]
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:longest])[:longest]
