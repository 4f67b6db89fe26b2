"""The journal: append-only segment files that hold every message before anybody is told that it was taken.

A folder holds segments named after their first message's number. A segment's numbers end where the next one's begin:
frames beyond that were written, but their sync failed, and their messages are in the next segment. `synced` holds the
number up to which everything is durable; readers in other processes go no further.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from devices.errors import ConflictError, UnavailableError
from ingest.files import File, Files, LocalFiles
from ingest.message import Message
from ingest.published import Published, read_published
from ingest.reader import Frame, JournalReader, Segment, list_segments
from ingest.segments import (
    HEADER_SIZE,
    Raw,
    Row,
    encode_frame,
    encode_header,
    frames,
    parse_header,
    read_header,
    segment_path,
    segments,
)

__all__ = ["Frame", "Journal", "JournalReader", "Keep", "Published", "Segment", "list_segments", "read_published"]

_log = logging.getLogger(__name__)

_SEGMENT_MAX = 64 * 1024 * 1024
_LEAP_MAX = 100_000_000  # messages that damage may have taken from the end; a greater number was never given
_NUMBER_MAX = 1 << 48  # a number beyond this is damage
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Keep(NamedTuple):
    """What of a journal is kept: so much room beside it [bytes], at most so much of it [bytes], nothing older [UTC us].

    A file's age is that of its newest message. Nothing is asked for by 0.
    """

    free_bytes: int = 0
    bytes_max: int = 0
    since_us: int = 0


class Journal:
    """The writer; one at a time for a folder. `last` is the number of the newest durable message (0: none yet).

    `full` tells whether the last append failed for want of room.
    """

    def __init__(self, folder: Path, segment_max: int, files: Files) -> None:
        self._folder = folder
        self._segment_max = segment_max
        self._files = files
        self._lock = _lock(folder)
        self._file: File | None = None
        self._size = 0
        self._sequence = 0
        self._published = Published(folder / "synced")
        self.last = 0
        self.id = ""
        self.bytes = 0
        self.full = False

    @classmethod
    def open(cls, folder: Path, *, segment_max: int = _SEGMENT_MAX, files: Files | None = None) -> Journal:
        """Open a folder's journal or begin one: drop a torn tail, make the rest durable, go on with the numbers.

        Raises:
            ConflictError: another process writes it.
            UnavailableError: the file system refuses.
            VersionError: a newer Qala wrote it.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            journal = cls(folder, segment_max, files or LocalFiles())
            try:
                journal._recover()
            except BaseException:
                journal.close()
                raise
        except OSError as error:
            raise _unavailable(error) from error
        return journal

    def append(self, messages: Sequence[Message | Row]) -> int:
        """Write messages as one frame, sync it, and return the first one's number. Durable on return.

        Raises:
            UnavailableError: the disk is full or failing. Nothing was taken; the same messages may be tried again.
        """
        if not messages:
            return self.last + 1
        first = self.last + 1
        try:
            file = self._file or self._begin()
            frame = encode_frame(messages, sequence=self._sequence + 1, first=first)
            self._commit(file, frame)
        except OSError as error:
            self.full = error.errno in _FULL
            raise _unavailable(error) from error
        self.full = False
        self._sequence += 1
        self._size += len(frame)
        self.bytes += len(frame)
        self.last += len(messages)
        self._published.set(self.last)
        if self._size >= self._segment_max:
            self._seal()
        return first

    def prune(self, keep: Keep, upto: int) -> int:
        """Delete the oldest segments until what is left is what is kept; return how much that was [bytes].

        Only segments whose every message is numbered <= `upto` are deleted, and never the newest segment.
        """
        freed = 0
        for path, stat in self._spent(upto):
            is_old = stat.st_mtime_ns // 1000 < keep.since_us
            is_much = keep.bytes_max and self.bytes - freed > keep.bytes_max
            if not (is_old or is_much or self._files.free(self._folder) < keep.free_bytes):
                break
            self._files.remove(path)
            freed += stat.st_size
        if freed:
            self._files.sync_folder(self._folder)
            self.bytes -= freed
        return freed

    def is_low(self, free_bytes: int, upto: int) -> bool:
        """Tell whether there is less room than this, even if all were deleted that may be."""
        room = self._files.free(self._folder)
        for _, stat in self._spent(upto):
            if room >= free_bytes:
                break
            room += stat.st_size
        return room < free_bytes

    def _spent(self, upto: int) -> Iterator[tuple[Path, os.stat_result]]:
        """Walk over the segments that may be deleted, oldest first."""
        for first, following in itertools.pairwise(segments(self._folder)):
            if following - 1 > upto:
                break
            path = segment_path(self._folder, first)
            yield path, path.stat()

    def close(self) -> None:
        """Close the files. Whatever was appended is durable already."""
        self._seal()
        self._published.close()
        os.close(self._lock)

    def _recover(self) -> None:
        starts = self._whole_segments()
        self.id = self._identify(starts)
        synced = self._plausible(self._published.get(), starts)
        self.last = max(synced, starts[-1] - 1) if starts else synced
        unsure = self._beyond(starts[-1], self.last) if starts else []
        if unsure:
            self.last = min(self.last, unsure[0].first - 1)
            self._rewrite(unsure)
        self.bytes = sum(segment_path(self._folder, first).stat().st_size for first in segments(self._folder))
        self._published.set(self.last)

    def _plausible(self, synced: int, starts: Sequence[int]) -> int:
        """Return the published number, or what the rest of the folder knows where that cannot be one."""
        known = max(read_published(self._folder / "applied") or 0, 0)
        if starts:
            raws = list(frames(segment_path(self._folder, starts[-1]).read_bytes()))
            held = max([starts[-1] - 1, *(raw.first + raw.messages - 1 for raw in raws)])
            known = known if held <= known <= held + _LEAP_MAX else held
        elif not known:
            known = max(synced, 0) if synced <= _NUMBER_MAX else 0
        if 0 <= synced <= known + _LEAP_MAX:
            return synced
        _log.error(
            "the published number %d of the journal in %s cannot be right: going on at %d", synced, self._folder, known
        )
        return known

    def _whole_segments(self) -> list[int]:
        """List the segments, without one whose making was interrupted before it had a header."""
        starts = segments(self._folder)
        if starts and segment_path(self._folder, starts[-1]).stat().st_size < HEADER_SIZE:
            self._files.remove(segment_path(self._folder, starts.pop()))
            self._files.sync_folder(self._folder)
        return starts

    def _beyond(self, first: int, synced: int) -> list[Raw]:
        """Find the newest segment's frames beyond `synced`. They are whole, but perhaps nowhere but in memory."""
        path = segment_path(self._folder, first)
        data = path.read_bytes()
        parse_header(data, path)
        return [raw for raw in frames(data) if raw.first + raw.messages - 1 > synced]

    def _rewrite(self, unsure: list[Raw]) -> None:
        """Put frames into a new segment, which begins where what is known to be durable ends.

        A file whose sync may have failed is never synced again: the kernel would call that a success without
        having written what it dropped the first time.
        """
        path = segment_path(self._folder, self.last + 1)
        draft = path.with_suffix(".new")
        self._file = self._create(draft, self.last + 1)
        for raw in unsure:
            _write_all(self._file, raw.packed)
            self._size += len(raw.packed)
        self._file.sync()
        self._files.rename(draft, path)
        self._files.sync_folder(self._folder)
        self._sequence = unsure[-1].sequence
        self.last = unsure[-1].first + unsure[-1].messages - 1

    def _identify(self, starts: list[int]) -> str:
        """Find the journal's id in its file, or else in a segment's header; make one for a new journal."""
        path = self._folder / "id"
        with contextlib.suppress(FileNotFoundError):
            return path.read_text()
        headers = (read_header(segment_path(self._folder, first)) for first in starts)
        found = next((header.journal for header in headers if header), None) or secrets.token_hex(16)
        draft = path.with_suffix(".new")
        with draft.open("w") as file:
            file.write(found)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        self._files.sync_folder(self._folder)
        return found

    def _begin(self) -> File:
        """Make the next segment. One of the same name holds nothing that was acknowledged, and is replaced."""
        path = segment_path(self._folder, self.last + 1)
        file = self._create(path, self.last + 1)
        try:
            self._files.sync_folder(self._folder)
        except OSError:
            file.close()
            raise
        self._file, self._sequence = file, 0
        self.bytes += HEADER_SIZE
        return file

    def _create(self, path: Path, first: int) -> File:
        with contextlib.suppress(FileNotFoundError):
            self._files.remove(path)
        file = self._files.create(path)
        try:
            _write_all(file, encode_header(self.id, first))
        except OSError:
            file.close()
            with contextlib.suppress(OSError):
                self._files.remove(path)
            raise
        self._size = HEADER_SIZE
        return file

    def _commit(self, file: File, frame: bytes) -> None:
        try:
            _write_all(file, frame)
        except OSError:
            self._cut(file)
            raise
        try:
            file.sync()
        except OSError:
            # The kernel may have dropped the pages and call the next sync of this file a success.
            self._cut(file)
            self._seal()
            raise

    def _cut(self, file: File) -> None:
        """Take back what was written of a frame; where even that fails, write no more to this file."""
        try:
            file.truncate(self._size)
        except OSError:
            self._seal()

    def _seal(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


def _lock(folder: Path) -> int:
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise ConflictError(
            f"another process writes the journal in {folder}", hint="stop the other door, or use another data folder"
        ) from error
    return fd


def _unavailable(error: OSError) -> UnavailableError:
    return UnavailableError(
        f"the journal cannot be written: {error.strerror or error}",
        hint="free space or repair the disk; messages are taken again as soon as it can be written",
    )


def _write_all(file: File, data: bytes) -> None:
    written = file.write(data)
    while written < len(data):
        more = file.write(data[written:])
        if more <= 0:
            raise OSError("the file takes no more bytes")
        written += more
