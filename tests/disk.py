"""A disk that fails on request and forgets in a power cut whatever was not synced. It keeps its files in a real folder."""

from __future__ import annotations

import errno
import os
import random
import struct
import threading
from pathlib import Path

from ingest.files import LocalFiles

FULL, BROKEN = errno.ENOSPC, errno.EIO


class Disk(LocalFiles):
    """Counts down to faults: `room` bytes until ENOSPC; the next `bad_syncs`, `bad_truncates` fail with EIO.

    `short` lets each write take at most so many bytes. `gate`, where set, holds every sync until it is opened.
    """

    def __init__(self) -> None:
        self.room: int | None = None
        self.short: int | None = None
        self.bad_syncs = 0
        self.bad_truncates = 0
        self.bad_creates = 0
        self.gate: threading.Event | None = None
        self.syncs = 0
        self.free_bytes = 1 << 40
        self.files: dict[Path, _File] = {}
        self.names: dict[Path, _File] = {}  # what the folder durably says

    def create(self, path: Path) -> _File:
        if self.bad_creates:
            self.bad_creates -= 1
            raise OSError(FULL, "No space left on device")
        path.touch(exist_ok=False)
        file = self.files[path] = _File(self, path)
        return file

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)
        file = self.files[new] = self.files.pop(old)
        file.path = new

    def remove(self, path: Path) -> None:
        path.unlink()
        self.files.pop(path, None)

    def sync_folder(self, folder: Path) -> None:
        self.names = dict(self.files)

    def free(self, folder: Path) -> int:
        return self.free_bytes

    def heal(self) -> None:
        """Let nothing fail any more."""
        self.room = self.short = None
        self.bad_syncs = self.bad_truncates = self.bad_creates = 0

    def cut_power(self, folder: Path, chance: random.Random) -> None:
        """Turn the folder into what may be left of it after a power cut."""
        left: dict[Path, _File] = {}
        for path in {*self.names, *self.files}:
            file = chance.choice([self.names.get(path), self.files.get(path)])
            if file is not None:
                left[path] = file
        for path in [*folder.glob("*.qj"), *folder.glob("*.new")]:
            path.unlink()
        for path, file in left.items():
            path.write_bytes(file.after_cut(chance))
        published = folder / "synced"
        now = struct.unpack("<q", published.read_bytes())[0]
        published.write_bytes(struct.pack("<q", chance.choice([0, now // 2, now])))
        self.files = {path: _File(self, path, path.read_bytes()) for path in left}
        self.names = dict(self.files)


class _File:
    def __init__(self, disk: Disk, path: Path, durable: bytes = b"") -> None:
        self.disk = disk
        self.path = path
        self.durable = durable
        self.now = durable
        self.lost_from: int | None = None  # after a failed sync: bytes from here on look written and never will be

    def write(self, data: bytes) -> int:
        disk = self.disk
        if disk.short is not None:
            data = data[: disk.short]
        if disk.room is not None:
            data = data[: disk.room]
            disk.room -= len(data)
            if not data:
                raise OSError(FULL, os.strerror(FULL))
        with self.path.open("ab") as file:
            file.write(data)
        self.now += data
        return len(data)

    def sync(self) -> None:
        disk = self.disk
        disk.syncs += 1
        if disk.gate is not None:
            disk.gate.wait()
        if disk.bad_syncs:
            disk.bad_syncs -= 1
            self.lost_from = min(len(self.durable), len(self.now)) if self.lost_from is None else self.lost_from
            raise OSError(BROKEN, os.strerror(BROKEN))
        self.durable = self.now
        if self.lost_from is not None:
            kept = self.now[: self.lost_from]
            self.durable = kept + bytes(len(self.now) - len(kept))

    def truncate(self, size: int) -> None:
        if self.disk.bad_truncates:
            self.disk.bad_truncates -= 1
            raise OSError(BROKEN, os.strerror(BROKEN))
        with self.path.open("ab") as file:
            file.truncate(size)
        self.now = self.now[:size]
        if self.lost_from is not None and self.lost_from >= size:
            self.lost_from = None

    def close(self) -> None:
        pass

    def after_cut(self, chance: random.Random) -> bytes:
        """Choose what is left: what was synced, and beyond it some, all, none or a mess of what was not."""
        if not self.now.startswith(self.durable):  # a truncation that was not synced
            return chance.choice([self.durable, self.now])
        extra = self.now[len(self.durable) :]
        kept = extra[: chance.randint(0, len(extra))]
        if self.lost_from is not None or chance.random() < 0.3:
            kept = bytes(len(kept))
        return self.durable + kept
