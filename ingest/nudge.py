"""Datagrams on a unix socket that tell a reader of the journal to look. They carry nothing, and may be lost."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from types import TracebackType

__all__ = ["Nudger", "Nudges", "nudge"]


class Nudger:
    """The sending end, for who nudges often: tell whoever listens at `path` to look; do nothing where nobody does."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def __call__(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendto(b"", self._path)

    def close(self) -> None:
        self._socket.close()


def nudge(path: Path) -> None:
    """Nudge once."""
    with contextlib.closing(Nudger(path)) as nudger:
        nudger()


class Nudges:
    """The receiving end. Raises OSError where the socket cannot be made (a path of more than 107 bytes, for one)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.bind(str(path))
            path.chmod(0o600)
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Nudges:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def fileno(self) -> int:
        """Return the socket's descriptor, for an event loop to watch."""
        return self._socket.fileno()

    def wait(self, longest_s: float) -> bool:
        """Wait for a nudge; return whether one came."""
        self._socket.settimeout(longest_s)
        try:
            self._socket.recv(16)
        except TimeoutError:
            return False
        return True

    def drain(self) -> None:
        """Forget the nudges that have come so far."""
        self._socket.settimeout(0.0)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(16)
