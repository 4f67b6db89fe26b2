"""The few things that the journal asks of a file system, so that tests can make each of them fail."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Protocol

__all__ = ["File", "Files", "LocalFiles"]


class File(Protocol):
    """An open file that is only written at its end. Every method raises OSError when it fails."""

    def write(self, data: bytes) -> int:
        """Append what fits of `data` and return how many bytes that was; not durable yet."""

    def sync(self) -> None:
        """Make everything written so far survive a power cut. After a failure the file must not be trusted again.

        One that was deleted meanwhile survives nothing: that is a failure.
        """

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes."""

    def close(self) -> None: ...


class Files(Protocol):
    """The file system. Every method raises OSError when it fails."""

    def create(self, path: Path) -> File:
        """Make a new file; it must not exist. Its name is durable after `sync_folder`."""

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name, whatever had it before. Durable after `sync_folder`."""

    def remove(self, path: Path) -> None: ...

    def sync_folder(self, folder: Path) -> None:
        """Make the folder's names survive a power cut."""

    def free(self, folder: Path) -> int:
        """Tell how much the folder's file system can still take [bytes]."""


class _LocalFile:
    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def write(self, data: bytes) -> int:
        return os.write(self._fd, data)

    def sync(self) -> None:
        os.fdatasync(self._fd)
        if not os.fstat(self._fd).st_nlink:
            raise OSError(errno.ENOENT, "its file was deleted")

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def close(self) -> None:
        os.close(self._fd)


class LocalFiles:
    """The file system of this machine."""

    def create(self, path: Path) -> File:
        return _LocalFile(path)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def remove(self, path: Path) -> None:
        path.unlink()

    def sync_folder(self, folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def free(self, folder: Path) -> int:
        stat = os.statvfs(folder)
        return stat.f_bavail * stat.f_frsize
