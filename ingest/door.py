"""The door: the process that takes messages and makes them durable, and does nothing else. It can be killed at any time.

Beside the journal it leaves two things in the data folder: a datagram to `projector.sock` after each commit, and
`door.json`, what it is doing, at most once a second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from devices.errors import QalaError
from ingest.files import Files
from ingest.journal import Journal, read_published
from ingest.listener import Counters, Listener
from ingest.settings import IngestSettings

__all__ = ["DoorReport", "read_report", "run_door", "serve_door"]

_log = logging.getLogger(__name__)

_PRUNE_EVERY_S = 5.0
_PR_SET_PDEATHSIG = 1


class DoorReport(msgspec.Struct):
    """What `door.json` says. Times in microseconds; `last_error` is empty while the journal takes messages."""

    pid: int
    address: str
    journal: str
    started_us: int
    reported_us: int
    connections: int
    last: int  # number of the newest durable message
    journal_bytes: int
    last_error: str
    counters: Counters


def read_report(data: Path) -> DoorReport | None:
    """Read what the door last said of itself; None where it never said anything."""
    try:
        return msgspec.json.decode((data / "door.json").read_bytes(), type=DoorReport)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def serve_door(settings: IngestSettings, data: Path, *, with_parent: bool = False) -> None:
    """Run the door until SIGTERM or SIGINT; with `with_parent`, until the process that started it is gone.

    Raises:
        QalaError: the journal cannot be opened, or the address is taken.
    """
    if with_parent:
        _end_with_parent()
    run = run_door(settings, data)
    try:
        import uvloop
    except ImportError:
        asyncio.run(run)
    else:
        uvloop.run(run)


async def run_door(
    settings: IngestSettings,
    data: Path,
    *,
    files: Files | None = None,
    on_ready: Callable[[str, int], None] | None = None,
) -> None:
    """Serve until a signal asks for the end. `on_ready` is told the address."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    journal = Journal.open(data / "journal", segment_max=settings.segment_max, files=files)
    with contextlib.closing(journal), _Nudge(data / "projector.sock") as nudge:
        listener = Listener(settings, journal, on_commit=nudge)
        host, port = await listener.start()
        _log.info("listening for MQTT on %s:%d, %d messages in the journal", host, port, journal.last)
        if on_ready is not None:
            on_ready(host, port)
        report = _Reporter(data, journal, listener, f"{host}:{port}")
        chores = [
            asyncio.create_task(_every(1.0, report.write)),
            asyncio.create_task(
                _every(_PRUNE_EVERY_S, lambda: _prune(listener, journal, data / "journal" / "applied"))
            ),
        ]
        await stop.wait()
        for chore in chores:
            chore.cancel()
        await listener.stop()
        report.write()


def _end_with_parent() -> None:
    """Ask the kernel for a SIGTERM when the parent ends, however it ends."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


class _Nudge:
    """Tells the projector that there is something new. Whether it listens does not matter."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def __call__(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendto(b"", self._path)

    def __enter__(self) -> _Nudge:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


class _Reporter:
    def __init__(self, data: Path, journal: Journal, listener: Listener, address: str) -> None:
        self._path = data / "door.json"
        self._journal = journal
        self._listener = listener
        self._address = address
        self._started_us = time.time_ns() // 1000

    def write(self) -> None:
        report = DoorReport(
            pid=os.getpid(),
            address=self._address,
            journal=self._journal.id,
            started_us=self._started_us,
            reported_us=time.time_ns() // 1000,
            connections=self._listener.connections,
            last=self._journal.last,
            journal_bytes=self._journal.bytes,
            last_error=self._listener.commit.trouble,
            counters=self._listener.counters,
        )
        draft = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk: those who read see that the report is old
            draft.write_bytes(msgspec.json.encode(report))
            draft.replace(self._path)


def _prune(listener: Listener, journal: Journal, applied: Path) -> None:
    """Delete what the projector has applied, in the thread that commits, while the disk is too full."""
    upto = read_published(applied)
    if upto is None:
        return

    def job() -> None:
        freed = journal.prune(listener.settings.keep_free_bytes, upto)
        if freed:
            _log.warning("deleted %d bytes of the oldest journal segments: the disk has too little room", freed)

    listener.commit.run(job)


async def _every(seconds: float, chore: Callable[[], None]) -> None:
    while True:
        chore()
        await asyncio.sleep(seconds)


def main() -> int:
    """Run the door by itself: `python -m ingest.door --data D --mqtt HOST:PORT`."""
    parser = argparse.ArgumentParser(prog="python -m ingest.door", description="Take MQTT messages into a journal.")
    parser.add_argument("--data", type=Path, required=True, help="the data folder")
    parser.add_argument("--mqtt", default="127.0.0.1:1883", help="where to listen: HOST:PORT")
    parser.add_argument("--with-parent", action="store_true", help="end when the parent process ends")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        serve_door(IngestSettings(mqtt=given.mqtt), given.data, with_parent=given.with_parent)
    except QalaError as error:
        _log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
