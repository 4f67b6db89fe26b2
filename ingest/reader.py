"""Reading a journal: following it beside its writer, and describing its segments."""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_right
from pathlib import Path

import msgspec

from ingest.message import Message
from ingest.published import Published, read_published
from ingest.segments import (
    HEADER_SIZE,
    Raw,
    decode_block,
    frame_at,
    frame_need,
    frames,
    next_frame,
    parse_header,
    segment_path,
    segments,
)

__all__ = ["Frame", "JournalReader", "Segment", "list_segments"]

_CHUNK = 256 * 1024


class Frame(msgspec.Struct):
    """Messages that lie side by side: the first has number `first`, the next one more, and so on."""

    first: int
    messages: list[Message]


class JournalReader:
    """Follow a journal from any process, beside its writer. `read` belongs to one thread; the rest may be asked by others.

    `damaged` counts the messages that were skipped so far because their frame was damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._id = ""
        self._synced: Published | None = None
        self._cursor: _Cursor | None = None
        self.damaged = 0

    @property
    def id(self) -> str:
        """The journal's id; empty while no writer has ever opened the folder."""
        if not self._id:
            with contextlib.suppress(FileNotFoundError):
                self._id = (self._folder / "id").read_text()
        return self._id

    def first(self) -> int:
        """Return the oldest number still kept; the next to come where none is."""
        starts = segments(self._folder)
        return starts[0] if starts else self.synced() + 1

    def synced(self) -> int:
        """Return the number of the newest durable message; 0 where there is none."""
        if self._synced is None:
            try:
                self._synced = Published(self._folder / "synced", read_only=True)
            except (FileNotFoundError, ValueError):  # not made yet, or not whole
                return 0
        return self._synced.get()

    def read(self, after: int, *, limit: int) -> list[Frame]:
        """Read up to `limit` messages numbered above `after`, none beyond `synced()`; skip and count damaged frames.

        Raises:
            VersionError: a newer Qala wrote them.
        """
        end = self.synced()
        if after >= end or limit <= 0:
            return []
        starts = segments(self._folder)  # after `end`: so it names every segment that holds a number up to it
        found: list[Frame] = []
        expected = max(after + 1, starts[0]) if starts else end + 1
        while limit > 0 and expected <= end:
            index = max(bisect_right(starts, expected) - 1, 0)
            following = starts[index + 1] if index + 1 < len(starts) else end + 1
            try:
                raw = self._at(starts[index], expected).seek(expected)
            except FileNotFoundError:  # pruned since it was listed
                break
            if raw is None or raw.first >= following:
                if following > end:
                    break
                self.damaged += following - expected
                expected = following
                continue
            self.damaged += max(raw.first - expected, 0)
            expected = max(raw.first, expected)
            messages = decode_block(raw)[expected - raw.first :][: min(limit, end + 1 - expected)]
            found.append(Frame(expected, messages))
            expected += len(messages)
            limit -= len(messages)
        return found

    def close(self) -> None:
        """Close what is open; reading again opens it again."""
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None
        if self._synced is not None:
            self._synced.close()
            self._synced = None

    def _at(self, segment: int, number: int) -> _Cursor:
        """Return a cursor in the segment that has not passed `number` yet."""
        cursor = self._cursor
        if cursor is None or cursor.segment != segment or number < cursor.number:
            if cursor is not None:
                cursor.close()
                self._cursor = None
            cursor = self._cursor = _Cursor(self._folder, segment)
        return cursor


class _Cursor:
    """A place between two frames of one segment, moving forward. `number`: no frame passed so far reaches it."""

    def __init__(self, folder: Path, segment: int) -> None:
        path = segment_path(folder, segment)
        self.segment = self.number = segment
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._base = HEADER_SIZE  # where in the file `_data` begins
        self._data = b""
        self._raw: Raw | None = None  # the frame after the place, once it was found
        try:
            parse_header(os.pread(self._fd, HEADER_SIZE, 0), path)
        except BaseException:
            os.close(self._fd)
            raise

    def seek(self, number: int) -> Raw | None:
        """Move to the first frame that reaches `number`; None where there is none (yet)."""
        raw = self._peek(0)
        while raw is not None and raw.first + raw.messages <= number:
            self.number = raw.first + raw.messages
            self._raw = None
            raw = self._peek(raw.stop)
        return raw

    def _peek(self, at: int) -> Raw | None:
        if self._raw is None:
            self._raw = frame_at(self._data, at) or self._load(at) or self._search()
        return self._raw

    def _load(self, at: int) -> Raw | None:
        self._base += at
        self._data = os.pread(self._fd, _CHUNK, self._base)
        need = frame_need(self._data, 0)
        if need > len(self._data):
            self._data = os.pread(self._fd, need, self._base)
        return frame_at(self._data, 0)

    def _search(self) -> Raw | None:
        """Look for an undamaged frame in the rest of the file; stay before the damage while there is none."""
        size = os.fstat(self._fd).st_size
        self._data = os.pread(self._fd, max(size - self._base, 0), self._base)
        return next_frame(self._data, 0)

    def close(self) -> None:
        os.close(self._fd)


class Segment(msgspec.Struct):
    """What one segment file holds. Times are of receipt; `damaged` counts messages that can no longer be read."""

    first: int
    last: int
    messages: int
    damaged: int
    bytes: int
    begin_us: int | None
    end_us: int | None


def list_segments(folder: Path) -> list[Segment]:
    """Describe the segments of a journal, oldest first, up to what is durable."""
    synced = read_published(folder / "synced") or 0
    starts = segments(folder)
    stops = [*starts[1:], max(synced + 1, starts[-1])] if starts else []
    return [_describe(folder, first, stop) for first, stop in zip(starts, stops, strict=True)]


def _describe(folder: Path, first: int, stop: int) -> Segment:
    path = segment_path(folder, first)
    data = path.read_bytes()
    parse_header(data, path)
    found = [raw for raw in frames(data) if raw.first < stop]
    messages = sum(raw.messages for raw in found)
    return Segment(
        first=first,
        last=stop - 1,
        messages=messages,
        damaged=stop - first - messages,
        bytes=len(data),
        begin_us=decode_block(found[0])[0].received_us if found else None,
        end_us=decode_block(found[-1])[-1].received_us if found else None,
    )
