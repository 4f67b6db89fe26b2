"""How each part of a running Qala is doing, as health shows it: `up`, how far it is, and what is wrong with it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from analytics.schedule import Scheduler
from devices.errors import UnavailableError
from ingest.door import DoorReport
from ingest.histogram import Histogram
from ingest.projector import Projector
from qala.probe import Probe
from qala.store import Store
from qala.store.retention import RETAINED

__all__ = ["foreign_messages", "of_brokers", "of_door", "of_probe", "of_store", "of_threads"]

_log = logging.getLogger(__name__)

_DOOR_FRESH_US = 5_000_000  # the door reports every second

Part = Mapping[str, Any]


def of_door(report: DoorReport | None, now_us: int) -> Part:
    """Say what the door last said of itself."""
    if report is None:
        return {"up": False}
    return {
        "up": now_us - report.reported_us < _DOOR_FRESH_US and not report.last_error,
        "address": report.address,
        "tls_address": report.tls_address,
        "troubles": report.troubles or None,
        "connections": report.connections,
        "last": report.last,
        "error": report.last_error or None,
        "http": list(report.http_addresses),
        "disk_free": report.disk_free,
        "disk_full": report.disk_full,
        "disk_low": report.disk_low,
        "journal_lost": report.journal_lost,
    }


def of_brokers(report: DoorReport | None) -> Mapping[str, Part]:
    """Say how the existing brokers are that the door subscribes to; nothing where there are none."""
    if report is None or not report.brokers:
        return {}
    troubles = [f"{broker.name}: {broker.error}" for broker in report.brokers if broker.error]
    brokers = [msgspec.to_builtins(broker) for broker in report.brokers]
    return {"brokers": {"up": not troubles, "error": "; ".join(troubles) or None, "brokers": brokers}}


def of_probe(probe: Probe, stored: Histogram, running: Mapping[str, bool]) -> Mapping[str, Part]:
    """Say how long the last message of our own took until its PUBACK and until it was in the store.

    And for how long one has been on its way. Nothing where none is sent.
    """
    if "probe" not in running:
        return {}
    took = {"puback_s": probe.puback.last, "stored_s": stored.last}
    times = {name: None if last_s is None else round(last_s, 6) for name, last_s in took.items()}
    return {"probe": {"up": running["probe"], **times, "late_s": round(probe.late_s(), 3)}}


def of_threads(
    running: Mapping[str, bool], projector: Projector, scheduler: Scheduler, now_us: int
) -> Mapping[str, Part]:
    """Say how the threads are; `running` tells by name which of them are well."""
    health, backlog = projector.health(now_us), scheduler.backlog(now_us)
    return {
        "projector": {
            "up": running.get("projector", False) and not health.error,
            "applied": health.applied,
            "lag_messages": health.lag_messages,
            "lag_s": round(health.lag_s, 3),
            "damaged": health.damaged,
            "error": health.error or None,
        },
        "scheduler": {
            "up": running.get("scheduler", False),
            "due": backlog.due,
            "marks": backlog.marks,
            "lag_s": round(backlog.lag_s, 3),
            "let_go": scheduler.counters.let_go,
        },
        "outbox": {"up": running.get("outbox", False)},
    }


def of_store(store: Store, journal: str, *, foreign: int = 0) -> Part:
    """Say whether the store answers, and what it says where it does not.

    `foreign` is how many messages it had of other journals when it was opened, and none of this one.
    """
    engine = store.capabilities.engine
    try:
        applied = store.applied(journal)
    except UnavailableError as error:
        return {"engine": engine, "up": False, "error": error.message}
    return {"engine": engine, "up": True, "error": None, "journal_lost": 0 if applied else foreign}


def foreign_messages(store: Store, journal: str) -> int:
    """Tell how many messages a store has of another journal where it has none of this one, and say so; else 0."""
    found = [position for position in store.positions() if not position.journal.startswith(RETAINED)]
    if not found or any(position.journal == journal for position in found):
        return 0
    most = max(found, key=lambda position: position.number)
    _log.error(
        "the store has %d messages of the journal %s and none of this one (%s): "
        "if it is not shared with another door, a journal is gone",
        most.number,
        most.journal,
        journal or "which is not there yet",
    )
    return most.number
