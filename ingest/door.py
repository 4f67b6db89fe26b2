"""The door: the process that takes messages and makes them durable, and does nothing else. It can be killed at any time.

Beside the journal it leaves two things in the data folder: a datagram to `projector.sock` after each commit, and
`door.json`, what it is doing, at most once a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import uvloop

from ingest.brokers.subscriber import Subscriber
from ingest.commit import CommitLimits, GroupCommit
from ingest.desk import Desk
from ingest.gate import Gate, OpenGate
from ingest.housekeeping import Housekeeping
from ingest.http.door import HttpDoor, open_http
from ingest.journal import Journal
from ingest.keyring import Keyring
from ingest.mqtt.entrance import handshakes_waiting_max
from ingest.mqtt.listener import Listener
from ingest.mqtt.packets import Limits
from ingest.nudge import Nudger
from ingest.report import DoorReport, ReportFile, read_report
from ingest.segments import segments
from ingest.settings import IngestSettings
from ingest.tls import Tls
from qala.state.database import state_reader

__all__ = ["DoorReport", "read_report", "serve_door"]

_log = logging.getLogger(__name__)

_HOUSEKEEPING_EVERY_S = 5.0
_OTHER_FILES = 256  # what the door opens beside its connections
_COLLECT_AFTER = (20_000, 20, 50)  # thresholds of the garbage collector's generations
_DRAIN_S = 2.0  # for what was taken to become durable when the door stops; all of stopping takes less than 5


def serve_door(settings: IngestSettings, data: Path, state: str = "") -> None:
    """Run the door until SIGTERM or SIGINT. `state` is the URL of the state database, where it finds commands and credentials.

    Raises:
        QalaError: the journal or a certificate cannot be opened, or an address is taken.
    """
    ways = bool(settings.mqtt or settings.mqtts) + bool(settings.http or settings.https)
    shaking = (bool(settings.mqtts) + bool(settings.https)) * handshakes_waiting_max(settings)
    _allow_files(settings.connections_max * ways + shaking + _OTHER_FILES)
    uvloop.run(_serve(settings, data, state or f"sqlite:///{data}/state.sqlite"))


def _set_start_aside() -> None:
    """Keep the garbage collector from going through all that was made at start again and again: 80 ms each time, for everybody."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


def _allow_files(needed: int) -> None:
    """Raise this process's limit of open files, as far as it may, to what all connections need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if most < needed:
        _log.warning("only %d files may be open: raise the limit, or lower ingest.connections_max", most)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _serve(settings: IngestSettings, data: Path, state: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    journal = Journal.open(data / "journal", segment_max=settings.segment_max)
    with contextlib.closing(journal), contextlib.closing(Nudger(data / "projector.sock")) as nudger:
        housekeeping = Housekeeping(journal, settings, data)
        commit = GroupCommit(journal, CommitLimits.of(settings), on_commit=nudger)
        guard = _Guard(settings, data, state)
        listener = Listener(settings, commit, guard.gate, tls=guard.context, socket=data / "mqtt.sock")
        guard.start(listener)
        addresses = await listener.start()
        _log.info("listening for MQTT on %s, %d messages in the journal", _spelt(addresses), journal.last)
        brokers = _brokers(settings, commit, data, journal)
        http = await open_http(settings, commit, guard.gate, listener.buckets, data / "journal", guard.tls)
        report = _Reporter(data, journal, listener, addresses, brokers, http, guard, housekeeping)
        desk = Desk(state_reader(state), listener, socket=data / "door.sock")
        chores = [
            asyncio.create_task(desk.run()),
            *([asyncio.create_task(guard.tls.watch())] if guard.tls else []),
            asyncio.create_task(_every(1.0, report.write)),
            asyncio.create_task(_every(_HOUSEKEEPING_EVERY_S, lambda: commit.run(housekeeping))),
        ]
        _set_start_aside()
        await stop.wait()
        guard.close()
        for chore in chores:
            chore.cancel()
        for broker in brokers:
            broker.stop_reading()
        await asyncio.gather(listener.stop(within_s=_DRAIN_S), http.stop(within_s=_DRAIN_S))
        for broker in brokers:
            await broker.stop()
        report.write()
        commit.close()


def _spelt(addresses: Mapping[str, tuple[str, int]]) -> str:
    return (
        ", ".join(f"{name}://{host}:{port}" for name, (host, port) in addresses.items()) or "the owner's socket alone"
    )


def _brokers(settings: IngestSettings, commit: GroupCommit, data: Path, journal: Journal) -> list[Subscriber]:
    """Subscribe to the existing brokers of the settings."""
    limits = Limits(topic_max=settings.topic_max, payload_max=settings.payload_max)
    brokers = [
        Subscriber(name, each, commit, limits=limits, journal=journal.id, memory=data / "brokers" / f"{name}.json")
        for name, each in settings.brokers.items()
    ]
    for broker in brokers:
        broker.start()
    return brokers


class _Guard:
    """Credentials and TLS of all ways in, as far as the settings ask for them."""

    def __init__(self, settings: IngestSettings, data: Path, state: str) -> None:
        self._keyring = Keyring(state, data, topic_root=settings.topic_root) if settings.authenticate else None
        self.gate: Gate = self._keyring or OpenGate()
        self.tls: Tls | None = None
        if settings.certificate is not None and settings.private_key is not None:
            self.tls = Tls(settings.certificate, settings.private_key, settings.client_ca)

    @property
    def context(self) -> ssl.SSLContext | None:
        return self.tls.context if self.tls else None

    @property
    def troubles(self) -> dict[str, str]:
        """What is wrong, by what is affected; empty while nothing is."""
        found = {
            "credentials": self._keyring.trouble if self._keyring else "",
            "certificate": self.tls.trouble if self.tls else "",
        }
        return {name: trouble for name, trouble in found.items() if trouble}

    def start(self, listener: Listener) -> None:
        """Learn all credentials, and from now on cut the connections of those that end."""
        if self._keyring is None:
            return
        loop = asyncio.get_running_loop()

        def recheck() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(listener.recheck)

        self._keyring.start(recheck)

    def close(self) -> None:
        if self._keyring is not None:
            self._keyring.close()


class _Reporter:
    def __init__(
        self,
        data: Path,
        journal: Journal,
        listener: Listener,
        addresses: Mapping[str, tuple[str, int]],
        brokers: Sequence[Subscriber],
        http: HttpDoor,
        guard: _Guard,
        housekeeping: Housekeeping,
    ) -> None:
        self._guard = guard
        self._housekeeping = housekeeping
        self._brokers = brokers
        self._file = ReportFile(data / "door.json")
        self._folder = data / "journal"
        self._journal = journal
        self._listener = listener
        self._addresses = {name: f"{host}:{port}" for name, (host, port) in addresses.items()}
        self._http = http

    def write(self) -> None:
        disk = os.statvfs(self._folder)
        queued_messages, queued_bytes = self._listener.commit.queued
        report = DoorReport(
            pid=os.getpid(),
            address=self._addresses.get("mqtt", ""),
            tls_address=self._addresses.get("mqtts", ""),
            troubles=self._guard.troubles,
            journal=self._journal.id,
            reported_us=time.time_ns() // 1000,
            connections=self._listener.connections,
            last=self._journal.last,
            journal_bytes=self._journal.bytes,
            last_error=self._listener.commit.trouble,
            counters=self._listener.counters,
            durable=self._listener.commit.durable,
            http=self._http.counters,
            http_addresses=self._http.addresses,
            paused=self._listener.paused,
            handshakes=self._listener.handshakes,
            queued_messages=queued_messages,
            queued_bytes=queued_bytes,
            segments=len(segments(self._folder)),
            disk_free=disk.f_bavail * disk.f_frsize,
            disk_full=self._journal.full,
            disk_low=self._housekeeping.low,
            journal_lost=self._housekeeping.lost,
            brokers=tuple(broker.report() for broker in self._brokers),
        )
        with contextlib.suppress(OSError):  # a failing disk: those who read see that the report is old
            self._file.write(report)


async def _every(seconds: float, chore: Callable[[], None]) -> None:
    while True:
        chore()
        await asyncio.sleep(seconds)
