"""Idempotency keys: the same request of the same principal is journalled once, however often it comes.

What the memory holds is journalled with the messages, so that a door that starts again reads it back from the journal.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import msgspec

from devices.errors import Reason
from ingest.http.messages import ProblemError
from ingest.message import Message, Source
from ingest.published import read_published
from ingest.segments import block_of, decode_block, frames, segment_path, segments

__all__ = ["KEYS_MAX", "KEY_BYTES_MAX", "Keys", "Once", "key_of", "properties_of", "remembered"]

KEYS_MAX = 100_000
KEY_BYTES_MAX = 128
_KEPT_US = 24 * 3600 * 1_000_000
_READ_MAX = 256 * 1024 * 1024  # of the journal's end, when the door starts [bytes]
_KEY, _DIGEST, _COUNT = "idempotency_key", "idempotency_digest", "idempotency_count"


class Once(msgspec.Struct, eq=False):
    """A request that was taken: what it was, and which messages it became. `done` is set as soon as they are durable."""

    digest: str
    count: int
    at_us: int
    first: int = 0  # number of the first message, once it is durable
    done: asyncio.Future[None] | None = None


class Keys:
    """The newest requests with a key, by (principal, key), for a day and at most `keys_max` of them."""

    def __init__(self, *, keys_max: int = KEYS_MAX) -> None:
        self._keys_max = keys_max
        self._known: OrderedDict[tuple[str, str], Once] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, principal: str, key: str, told: str, now_us: int) -> Once | None:
        """Return the request that had this key before. Raises ProblemError where it was another request."""
        self._forget(now_us)
        found = self._known.get((principal, key))
        if found is not None and found.digest != told:
            raise ProblemError(
                422,
                "idempotency_key",
                "this Idempotency-Key belongs to another request",
                hint="give each request a key of its own, and send it again only with the same address and body",
            )
        return found

    def put(self, principal: str, key: str, once: Once) -> None:
        """Remember a request, the newest so far."""
        self._known[principal, key] = once
        self._known.move_to_end((principal, key))
        self._forget(once.at_us)

    def _forget(self, now_us: int) -> None:
        known = self._known
        while known:
            oldest = next(iter(known.values()))
            if len(known) <= self._keys_max and oldest.at_us > now_us - _KEPT_US:
                return
            known.popitem(last=False)


def key_of(given: str | None) -> str:
    """Check an Idempotency-Key; empty where none was given. Raises ProblemError."""
    if given is None:
        return ""
    if not given or len(given) > KEY_BYTES_MAX or not given.isascii() or not given.isprintable():
        raise ProblemError(
            400,
            Reason.BAD_SHAPE,
            "an Idempotency-Key that is no key",
            hint=f"1 to {KEY_BYTES_MAX} printable ASCII characters, such as a UUID",
        )
    return given


def properties_of(key: str, told: str, count: int) -> dict[str, str]:
    """Return what is journalled with the first of `count` messages that came with a key."""
    return {_KEY: key, _DIGEST: told, _COUNT: str(count)} if key else {}


def remembered(folder: Path, now_us: int, *, keys_max: int = KEYS_MAX) -> Keys:
    """Read the keys of the last day back from the end of a journal. Takes about a second for each 256 MiB; blocks."""
    keys = Keys(keys_max=keys_max)
    synced = read_published(folder / "synced") or 0
    for number, message in _with_keys(folder, synced, now_us):
        given = message.properties or {}
        once = Once(given[_DIGEST], int(given[_COUNT]), message.received_us, number)
        keys.put(message.principal, given[_KEY], once)
    return keys


def _with_keys(folder: Path, synced: int, now_us: int) -> Iterator[tuple[int, Message]]:
    needle = _KEY.encode()
    for first, following in _recent(folder, synced, now_us):
        for raw in frames(_content(segment_path(folder, first))):
            if raw.first < following and needle in block_of(raw):
                yield from (
                    (number, message)
                    for number, message in enumerate(decode_block(raw), start=raw.first)
                    if message.source == Source.HTTP and message.properties and _COUNT in message.properties
                )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # pruned since it was listed
        return b""


def _recent(folder: Path, synced: int, now_us: int) -> list[tuple[int, int]]:
    """List the newest segments, oldest of them first, each with the first number that is no longer in it."""
    starts = segments(folder)
    found: list[tuple[int, int]] = []
    room = _READ_MAX
    for first, following in reversed(list(zip(starts, [*starts, synced + 1][1:], strict=True))):
        stat = segment_path(folder, first).stat()
        room -= stat.st_size
        if room < 0 or stat.st_mtime_ns // 1000 < now_us - _KEPT_US:
            break
        found.append((first, following))
    return found[::-1]
