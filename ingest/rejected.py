"""What could not become readings, as rows for people to see, and its replay once they have fixed the cause."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from devices.reading import Int64Array
from ingest.formats.base import Rejection
from ingest.message import Message
from qala.state import rejected as state
from qala.state.rejected import RejectedRow

if TYPE_CHECKING:
    from ingest.projector import Projector

__all__ = ["PAYLOAD_KEPT", "Replayed", "rejected_rows", "replay"]

PAYLOAD_KEPT = 2048
"""Bytes of a rejected message's payload that are kept beside its reason."""

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
    numbers = state.positions(projector.engine, projector.journal, reason=reason, device=device)
    total = Replayed()
    for start in range(0, len(numbers), _REPLAY_MAX):
        total += projector.project_again(numbers[start : start + _REPLAY_MAX])
    return total


def rejected_rows(
    journal: str, numbers: Int64Array, messages: Sequence[Message], rejections: Sequence[tuple[int, Rejection]]
) -> list[RejectedRow]:
    """Make the rows of a batch, by position and item; of a message with very many the last one says how many more.

    `rejections` name messages by their index.
    """
    by_message: dict[int, list[Rejection]] = {}
    for index, rejection in rejections:
        by_message.setdefault(index, []).append(rejection)
    return [
        _row(journal, int(numbers[index]), item, messages[index], rejection)
        for index in sorted(by_message)
        for item, rejection in enumerate(_bounded(by_message[index]))
    ]


def _bounded(found: list[Rejection]) -> list[Rejection]:
    if len(found) <= _ITEMS_MAX:
        return found
    last = found[_ITEMS_MAX - 1]
    more = Rejection(last.reason, f"{last.detail}; and {len(found) - _ITEMS_MAX} more", last.key, last.device)
    return [*found[: _ITEMS_MAX - 1], more]


def _row(journal: str, position: int, item: int, message: Message, rejection: Rejection) -> RejectedRow:
    return RejectedRow(
        journal=journal,
        position=position,
        item=item,
        reason=str(rejection.reason),
        detail=_plain(rejection.detail, 500),
        key=_plain(rejection.key, 128),
        device=_plain(rejection.device, 200),
        topic=_plain(message.topic, 512),
        received_us=message.received_us,
        payload=message.payload[:PAYLOAD_KEPT],
    )


def _plain(text: str, longest: int) -> str:
    r"""Escape what databases and terminals do not take: lone surrogates and control characters.

    >>> _plain("a\tb", 20) == r"a\tb"
    True
    """
    if text.isprintable():
        return text[:longest]
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:longest])[:longest]
