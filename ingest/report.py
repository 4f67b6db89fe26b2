"""What the door says of itself, in a file that is written in place: a full disk does not silence it."""

from __future__ import annotations

import os
import time
import zlib
from pathlib import Path

import msgspec

from ingest.commit import Durable
from ingest.http.door import HttpCounters
from ingest.mqtt.listener import Counters

__all__ = ["BrokerReport", "DoorReport", "ReportFile", "read_report"]

_ROOM = 64 * 1024  # taken on the disk once, for every later report [bytes]
_HEADER = len("00000000 00000000\n")
_TRIES = 5
_PAUSE_S = 0.002  # longer than a report takes to be written


class BrokerReport(msgspec.Struct):
    """How a broker is doing. `error` is why it is not connected, or what it refuses; empty: all is well.

    `since_us` is when it was connected, or when that ended; 0: it never was [UTC us].
    """

    name: str
    address: str
    connected: bool
    since_us: int
    error: str
    received: int
    refused: int
    waiting: int
    attempts: int  # to connect


class DoorReport(msgspec.Struct, kw_only=True):
    """What `door.json` says. Times in microseconds, sizes in bytes; `last_error` is empty while the journal takes messages.

    Every field has a default, so that a report of an older door can be read too.
    """

    pid: int = 0
    address: str = ""  # of the plain MQTT listener
    tls_address: str = ""  # of the one with TLS
    troubles: dict[str, str] = {}  # of "credentials" and "certificate": why they are as they were
    journal: str = ""
    reported_us: int = 0
    connections: int = 0
    last: int = 0  # number of the newest durable message
    journal_bytes: int = 0
    last_error: str = ""
    counters: Counters = msgspec.field(default_factory=Counters)
    durable: Durable = msgspec.field(default_factory=Durable)
    http: HttpCounters = msgspec.field(default_factory=HttpCounters)
    http_addresses: tuple[str, ...] = ()  # of HTTP ingest: the plain one, then that with TLS
    paused: int = 0  # connections from which nothing is read for now
    handshakes: int = 0  # TLS handshakes that go on
    queued_messages: int = 0  # taken, and not durable yet
    queued_bytes: int = 0
    segments: int = 0  # files of the journal
    disk_free: int = 0  # what the journal's file system can still take
    disk_full: bool = False  # the journal takes nothing for want of room
    disk_low: bool = False  # and soon will not: deleting what may be deleted does not help
    journal_lost: int = 0  # messages of a journal that was here before and is gone
    brokers: tuple[BrokerReport, ...] = ()


class ReportFile:
    """The writer's end. The file's length and CRC-32, in hexadecimal, precede the JSON; what follows it is left over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def write(self, report: DoorReport) -> None:
        """Put a report in the place of the one before. Raises OSError where even that cannot be written."""
        if self._fd < 0:
            self._fd = _reserved(self._path)
        os.pwrite(self._fd, _packed(report), 0)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _packed(report: DoorReport) -> bytes:
    body = msgspec.json.encode(report)
    return f"{len(body):08x} {zlib.crc32(body):08x}\n".encode() + body


def _reserved(path: Path) -> int:
    """Open the file with its blocks written, so that writing over them needs no room on the disk."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        size = os.fstat(fd).st_size
        if size < _ROOM:
            os.pwrite(fd, bytes(_ROOM - size), size)
            os.fdatasync(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_report(data: Path) -> DoorReport | None:
    """Read what the door last said of itself; None where it never said anything that can be read."""
    for _ in range(_TRIES):
        try:
            packed = (data / "door.json").read_bytes()
        except FileNotFoundError:
            return None
        found = _unpacked(packed)
        if found is not None:
            return found
        time.sleep(_PAUSE_S)  # perhaps it is being written at this moment
    return None


def _unpacked(packed: bytes) -> DoorReport | None:
    try:
        size, crc = (int(part, 16) for part in packed[:_HEADER].split())
    except ValueError:
        return None
    body = packed[_HEADER : _HEADER + size]
    if len(body) != size or zlib.crc32(body) != crc:
        return None
    try:
        return msgspec.json.decode(body, type=DoorReport)
    except msgspec.DecodeError:
        return None
