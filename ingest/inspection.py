"""Looking into a journal without touching it: while a door writes it, on a copy, or where nothing runs."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from ingest.message import Message, MessageType, Source
from ingest.published import read_published
from ingest.reader import JournalReader
from ingest.segments import HEADER_SIZE, Raw, decode_block, frames, parse_header, segment_path, segments

__all__ = ["Checked", "line_of", "messages", "since", "tail", "told_of", "verify", "when"]

_STEP = 5_000

Numbered = tuple[int, Message]


def when(time_us: int) -> str:
    """Write a time [UTC us] as ISO 8601, to the millisecond."""
    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def messages(folder: Path, after: int, upto: int) -> Iterator[Numbered]:
    """Read the messages numbered above `after` up to `upto`, as far as they are durable and undamaged."""
    reader = JournalReader(folder)
    try:
        position, end = max(after, reader.first() - 1), min(upto, reader.synced())
        while position < end:
            found = [
                (number, message)
                for frame in reader.read(position, limit=min(_STEP, end - position))
                for number, message in enumerate(frame.messages, start=frame.first)
            ]
            if not found and reader.first() - 1 <= position:
                return
            yield from found
            position = found[-1][0] if found else reader.first() - 1  # what was next was deleted meanwhile
    finally:
        reader.close()


def tail(folder: Path, count: int, wanted: Callable[[Message], bool]) -> list[Numbered]:
    """Return the newest `count` messages that are wanted, oldest of them first. Reads backwards, a segment at a time."""
    synced = read_published(folder / "synced") or 0
    starts = segments(folder)
    found: deque[Numbered] = deque()
    for first, following in reversed(list(zip(starts, [*starts, synced + 1][1:], strict=True))):
        room = count - len(found)
        newest = deque((item for item in messages(folder, first - 1, following - 1) if wanted(item[1])), maxlen=room)
        found.extendleft(reversed(newest))
        if len(found) == count:
            break
    return list(found)


def since(folder: Path, time_us: int) -> int:
    """Return the number of the first message received at a time or later, as far as the door's clock did not jump back."""
    starts = segments(folder)
    before = [first for first in starts if _begin_us(folder, first) < time_us]
    start = before[-1] if before else (starts[0] if starts else 1)
    synced = read_published(folder / "synced") or 0
    return next((n for n, message in messages(folder, start - 1, synced) if message.received_us >= time_us), synced + 1)


def _begin_us(folder: Path, first: int) -> int:
    [(_, message)] = list(messages(folder, first - 1, first)) or [(0, Message("", b"", 0))]
    return message.received_us


def told_of(number: int, message: Message) -> dict[str, Any]:
    """Return what is known of a message beside its payload, in words."""
    return {
        "number": number,
        "received": when(message.received_us),
        "type": MessageType(message.type).name.lower(),
        "source": Source(message.source).name.lower(),
        "principal": message.principal,
        "client": message.client,
        "topic": message.topic,
    }


def line_of(number: int, message: Message) -> bytes:
    """Write a message as a line of JSON: what a batch of HTTP ingest takes, and what else is known of it."""
    properties = message.properties or {}
    told = told_of(number, message) | {
        "qos": message.qos,
        "retained": message.retained,
        "duplicate": message.duplicate,
        "properties": properties,
        "content_type": properties.get("content_type", ""),
    }
    try:
        told["payload"] = message.payload.decode()
    except UnicodeDecodeError:
        told["payload_base64"] = base64.b64encode(message.payload).decode()
    return msgspec.json.encode(told)


class Checked(msgspec.Struct):
    """What a look at every byte of a segment found. `damaged` are ranges of numbers whose messages cannot be read.

    `gaps` counts frames that follow another than the one before them; `stray` are bytes that are no frame of this
    segment, such as what a door that was killed had begun to write.
    """

    first: int
    last: int
    frames: int = 0
    messages: int = 0
    header: bool = True
    damaged: list[tuple[int, int]] = []
    gaps: int = 0
    stray: int = 0

    @property
    def is_good(self) -> bool:
        return self.header and not self.damaged and not self.gaps


def verify(folder: Path) -> Iterator[Checked]:
    """Check every frame of a journal, segment by segment, up to what is durable. Raises VersionError."""
    synced = read_published(folder / "synced") or 0
    starts = segments(folder)
    stops = [*starts[1:], max(synced + 1, starts[-1])] if starts else []
    for first, stop in zip(starts, stops, strict=True):
        try:
            data = segment_path(folder, first).read_bytes()
        except FileNotFoundError:  # deleted since it was listed: it was kept no longer
            continue
        yield _checked(data, first, stop, segment_path(folder, first))


def _checked(data: bytes, first: int, stop: int, path: Path) -> Checked:
    header = parse_header(data, path)
    checked = Checked(first, stop - 1, header=header is not None and header.first == first, stray=len(data))
    checked.stray -= min(HEADER_SIZE, len(data))
    expected, sequence = first, None
    for raw in frames(data):
        if raw.first >= stop or raw.first < expected or not _opens(raw):
            continue
        if raw.first > expected:
            checked.damaged.append((expected, raw.first - 1))
        elif sequence is not None and raw.sequence != sequence + 1:
            checked.gaps += 1
        expected, sequence = raw.first + raw.messages, raw.sequence
        checked.frames += 1
        checked.messages += raw.messages
        checked.stray -= raw.stop - raw.start
    if expected < stop:
        checked.damaged.append((expected, stop - 1))
    return checked


def _opens(raw: Raw) -> bool:
    """Tell whether a frame holds as many messages as it says."""
    try:
        return len(decode_block(raw)) == raw.messages
    except (zstandard.ZstdError, msgspec.MsgspecError):
        return False
