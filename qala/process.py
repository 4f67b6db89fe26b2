"""What the processes of one Qala need of the system: one owner a folder, children that end with their parent."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from devices.errors import ConflictError, UnavailableError

__all__ = ["DAMAGED", "Hold", "Holder", "answers", "end_with_parent", "holder", "is_free", "name_thread"]

DAMAGED = 3
"""Exit code of a process whose files are damaged, or a newer Qala's: starting again does not help."""

_PR_SET_PDEATHSIG = 1
_RETRY_S = 0.05


class Hold:
    """A file that one process at a time holds; the system lets go of it when the process ends, however it ends."""

    def __init__(self, path: Path, *, note: str = "", wait_s: float = 0.0) -> None:
        """Take hold of the file, waiting for a former owner to end; `note` is for others to read, such as an address.

        Raises ConflictError where another process holds it, UnavailableError where it cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UnavailableError(
                f"cannot write {path}: {error.strerror}", hint="choose a folder that you own with --data"
            ) from error
        deadline = time.monotonic() + wait_s
        while not self._locked():
            if time.monotonic() >= deadline:
                raise self._conflict(path)
            time.sleep(_RETRY_S)
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()} {note}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._file)

    def _locked(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _conflict(self, path: Path) -> ConflictError:
        owner = _read(self._file).pid
        os.close(self._file)
        return ConflictError(
            f"the data folder {path.parent} is in use by process {owner}",
            hint="stop that one, or choose another folder with --data",
        )


class Holder(NamedTuple):
    """Who holds a file."""

    pid: int
    note: str


def holder(path: Path) -> Holder | None:
    """Return who holds a file, or None."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(file)
    finally:
        os.close(file)
    return None


def _read(file: int) -> Holder:
    pid, _, note = os.pread(file, 256, 0).decode(errors="replace").strip().partition(" ")
    return Holder(int(pid) if pid.isdecimal() else 0, note)


def end_with_parent(parent: int) -> None:
    """Get SIGTERM when the parent ends, even by SIGKILL; end at once where it is gone already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")
    if os.getppid() != parent:
        sys.exit(1)


def name_thread(name: str) -> None:
    """Let the system know the calling thread by a name of up to 15 letters, as `top -H` shows it."""
    with contextlib.suppress(OSError):
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name)


def is_free(address: tuple[str, int]) -> bool:
    """Tell whether an address can be listened on."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError:
            return False
        return True


def answers(address: tuple[str, int] | Path) -> bool:
    """Tell whether something accepts connections at an address or a unix socket."""
    if isinstance(address, Path):
        family, where = socket.AF_UNIX, str(address)
        with socket.socket(family) as probe:
            return probe.connect_ex(where) == 0
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(address) == 0
