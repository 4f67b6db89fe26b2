"""One number that a process publishes and others read: how far the journal is synced, how far it was applied."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

__all__ = ["Published", "read_published"]

_WORD = 8


class Published:
    """A number that one process publishes in a file and others read at any time: 8 bytes, little-endian, signed.

    Who only reads opens it with `read_only`; the file must be there then. Raises OSError where it cannot be opened.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        fd = os.open(path, os.O_CLOEXEC | (os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT), 0o640)
        try:
            if not read_only and os.fstat(fd).st_size != _WORD:
                os.ftruncate(fd, 0)
                os.pwrite(fd, bytes(_WORD), 0)  # a hole would need room on the disk later, when nobody can be told
            self._map = mmap.mmap(fd, _WORD, access=mmap.ACCESS_READ if read_only else mmap.ACCESS_WRITE)
        finally:
            os.close(fd)

    def get(self) -> int:
        """Return the number; 0 before the first `set`."""
        return int.from_bytes(self._map[:_WORD], "little", signed=True)

    def set(self, number: int) -> None:
        """Publish a number. Readers see the old one or this one: eight aligned bytes are copied at once."""
        self._map[:_WORD] = number.to_bytes(_WORD, "little", signed=True)

    def close(self) -> None:
        self._map.close()


def read_published(path: Path) -> int | None:
    """Read a published number once; None where there is none."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return int.from_bytes(data, "little", signed=True) if len(data) == _WORD else None
