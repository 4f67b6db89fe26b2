"""What the parts count, as metrics for Prometheus. The counts of the stages add up: what the door took, the projector applied."""

from __future__ import annotations

from sqlalchemy import Engine

from analytics.notices import Outbox
from analytics.schedule import Scheduler
from dashboards.prometheus import Metric, counter, gauge, histogram
from ingest.door import DoorReport
from ingest.histogram import Histogram
from ingest.projector import Projector
from qala.probe import Probe
from qala.state import ledger
from qala.state.commands import command_counts
from qala.state.credentials import count_credentials
from qala.state.rejected import dropped
from qala.state.tokens import tokens as all_tokens
from qala.upkeep import StoreUpkeep

__all__ = [
    "of_access",
    "of_brokers",
    "of_commands",
    "of_door",
    "of_ledger",
    "of_notices",
    "of_probe",
    "of_projector",
    "of_scheduler",
    "of_upkeep",
]


def of_door(report: DoorReport | None) -> list[Metric]:
    """Count what came in; nothing where no door ever reported."""
    if report is None:
        return []
    return [*_taken(report), *_turned_down(report), *_waiting(report), *_journal(report)]


def _taken(report: DoorReport) -> list[Metric]:
    durable = report.durable
    sources = {name: float(count) for name, count in durable.sources.items()}
    return [
        counter("qala_door_messages_total", "Messages made durable since the door started.", durable.messages),
        counter("qala_door_source_messages_total", "Those, by the way they came in.", sources, label="source"),
        counter("qala_door_bytes_total", "Bytes of the packets that carried them.", durable.bytes),
        counter("qala_door_commits_total", "Synced group commits.", durable.commits),
        histogram("qala_door_commit_seconds", "How long a group commit takes until it is synced.", durable.seconds),
        histogram("qala_door_group_messages", "How many messages share a group commit.", durable.sizes),
    ]


def _turned_down(report: DoorReport) -> list[Metric]:
    counts, http = report.counters, report.http
    refused = {
        "repeated": float(http.repeated),
        "refused": float(http.refused),
        "limited": float(http.limited),
        "unavailable": float(http.unavailable),
        "turned_away": float(http.turned_away),
    }
    return [
        counter("qala_door_refused_total", "Packets that could not be taken.", counts.refused),
        counter("qala_door_unrecorded_total", "Refused ones over the limit of records.", counts.refused_unrecorded),
        counter("qala_door_denied_total", "Connections whose credential was not taken.", counts.denied),
        counter("qala_door_turned_away_total", "Connections over the limit.", counts.turned_away),
        counter("qala_door_handshakes_failed_total", "TLS connections that came to nothing.", counts.handshakes_failed),
        counter("qala_door_http_requests_total", "Requests to HTTP ingest.", http.requests),
        counter("qala_door_http_messages_total", "Messages that they brought.", http.taken),
        counter("qala_door_http_untaken_total", "Requests that brought nothing, by why.", refused, label="outcome"),
        counter("qala_door_http_lines_refused_total", "Lines of batches that could not be taken.", http.refused_lines),
    ]


def _waiting(report: DoorReport) -> list[Metric]:
    return [
        gauge("qala_door_connections", "MQTT connections that are open.", report.connections),
        gauge("qala_door_paused_connections", "Those from which nothing is read for now.", report.paused),
        gauge("qala_door_handshakes", "TLS handshakes that go on.", report.handshakes),
        gauge("qala_door_queue_messages", "Messages taken and not durable yet.", report.queued_messages),
        gauge("qala_door_queue_bytes", "Bytes of memory that they hold.", report.queued_bytes),
    ]


def _journal(report: DoorReport) -> list[Metric]:
    return [
        gauge("qala_journal_last", "Number of the newest durable message.", report.last),
        gauge("qala_journal_bytes", "Bytes of the journal on disk.", report.journal_bytes),
        gauge("qala_journal_segments", "Files of the journal.", report.segments),
        gauge("qala_journal_free_bytes", "What its file system can still take.", report.disk_free),
        gauge("qala_journal_full", "1 where it takes nothing for want of room.", report.disk_full),
    ]


def of_brokers(report: DoorReport | None) -> list[Metric]:
    """Count what came from existing brokers, and say which of them are connected; nothing where there are none."""
    brokers = report.brokers if report is not None else ()
    if not brokers:
        return []
    received = {broker.name: float(broker.received) for broker in brokers}
    refused = {broker.name: float(broker.refused) for broker in brokers}
    attempts = {broker.name: float(broker.attempts) for broker in brokers}
    waiting = {broker.name: float(broker.waiting) for broker in brokers}
    up = {broker.name: float(broker.connected) for broker in brokers}
    help_ = "Whether everything is subscribed at a broker."
    return [
        counter("qala_broker_messages_total", "Messages taken from brokers.", received, label="broker"),
        counter("qala_broker_refused_total", "Those that could not be taken.", refused, label="broker"),
        counter("qala_broker_attempts_total", "Attempts to connect to brokers.", attempts, label="broker"),
        gauge("qala_broker_waiting", "Messages of brokers that wait for the journal.", waiting, label="broker"),
        gauge("qala_broker_connected", help_, up, label="broker"),
    ]


def of_projector(projector: Projector, now_us: int) -> list[Metric]:
    """Count what became readings, and what did not."""
    counts, health = projector.counters, projector.health(now_us)
    return [
        counter("qala_projector_messages_total", "Messages projected.", counts.messages),
        counter("qala_projector_readings_total", "Readings written to the store.", counts.readings),
        counter("qala_projector_batches_total", "Batches written to the store.", counts.batches),
        counter("qala_projector_failures_total", "Batches that failed and were tried again.", counts.failures),
        counter("qala_rejected_total", "Rejected messages and readings.", dict(counts.rejected), label="reason"),
        counter(
            "qala_rejected_dropped_total",
            "Rejected rows that were dropped because there were too many.",
            dropped(projector.engine),
            label="reason",
        ),
        counter("qala_projector_cpu_seconds_total", "CPU time by stage.", dict(counts.cpu_s), label="stage"),
        gauge("qala_journal_damaged_messages", "Messages that were skipped: their frames are damaged.", health.damaged),
        gauge("qala_projector_lag_messages", "Durable messages that are not in the store yet.", health.lag_messages),
        gauge("qala_projector_lag_seconds", "How long the oldest of them has waited.", health.lag_s),
    ]


def of_scheduler(scheduler: Scheduler, now_us: int) -> list[Metric]:
    """Count what was computed, and what waits for it."""
    counts, backlog = scheduler.counters, scheduler.backlog(now_us)
    return [
        counter("qala_scheduler_rounds_total", "Rounds of the scheduler.", counts.rounds),
        counter("qala_scheduler_windows_total", "Windows computed.", counts.windows),
        counter("qala_scheduler_values_total", "Values that were new or changed.", counts.values),
        counter(
            "qala_scheduler_let_go_total", "Windows let go: they need readings that are kept no longer.", counts.let_go
        ),
        gauge("qala_scheduler_due_windows", "Windows that wait to be computed.", backlog.due),
        gauge("qala_scheduler_lag_seconds", "How long the oldest of them has waited.", backlog.lag_s),
    ]


def of_notices(outbox: Outbox) -> list[Metric]:
    """Count what people were told."""
    return [
        counter("qala_notices_sent_total", "Notices that a channel took.", outbox.sent),
        counter("qala_notices_failed_total", "Attempts that a channel refused.", outbox.failed),
    ]


def of_commands(engine: Engine, now_us: int) -> list[Metric]:
    """Count the commands to devices that are kept, by what became of them."""
    counts = {state: float(count) for state, count in command_counts(engine, now_us).items()}
    return [gauge("qala_commands", "Commands to devices that are kept, by state.", counts, label="state")]


def of_ledger(engine: Engine, now_us: int) -> list[Metric]:
    """Give what the ledger has counted in the hour that goes on, all devices together."""
    hour_us = now_us - now_us % ledger.HOUR_US
    found = ledger.entries(engine, hour_us, hour_us + ledger.HOUR_US, by=ledger.By.HOUR, limit=1)
    counts = found[0].counts if found else ledger.Counts()
    columns = {name: float(getattr(counts, name)) for name in ledger.COLUMNS}
    help_ = "What the ledger counts in this UTC hour, by column."
    return [gauge("qala_ledger_hour", help_, columns, label="count")]


def of_access(engine: Engine) -> list[Metric]:
    """Count what opens a door: credentials of devices and gateways, tokens of the API."""
    valid = {kind: float(count) for kind, count in count_credentials(engine).items()}
    tokens = sum(1 for token in all_tokens(engine) if token.revoked_us is None)
    return [
        gauge("qala_credentials", "Credentials that were not revoked, by kind.", valid, label="kind"),
        gauge("qala_tokens", "Tokens of the API that were not revoked.", tokens),
    ]


def of_probe(probe: Probe, stored: Histogram) -> list[Metric]:
    """Measure the way of a message: until it was acknowledged, and until it was in the store."""
    return [
        counter("qala_probe_sent_total", "Probe messages sent.", probe.sent),
        counter("qala_probe_failed_total", "Probe messages that were not acknowledged.", probe.failed),
        histogram("qala_probe_puback_seconds", "From a probe's start until its PUBACK.", probe.puback),
        histogram("qala_probe_stored_seconds", "From a probe's start until it was in the store.", stored),
    ]


def of_upkeep(upkeep: StoreUpkeep, now_us: int) -> list[Metric]:
    """Count the store's upkeep, and what of it waits."""
    counts, work = upkeep.counters, upkeep.work()
    done = {item.name: float(item.done) for item in work}
    waiting = {item.name: float(max(item.total - item.done, 0)) for item in work}
    kept_s = {name: max(now_us - since_us, 0) / 1e6 for name, since_us in upkeep.kept_since(now_us).items()}
    return [
        counter("qala_store_upkeep_pieces_total", "Pieces of upkeep done.", counts.pieces),
        counter("qala_store_upkeep_failures_total", "Pieces of upkeep that failed.", counts.failures),
        counter("qala_store_forget_rounds_total", "Rounds of deleting what is kept no longer.", counts.rounds),
        gauge("qala_store_upkeep_done", "How far each kind of upkeep is.", done, label="work"),
        gauge("qala_store_upkeep_waiting", "What of it waits.", waiting, label="work"),
        gauge("qala_store_kept_seconds", "For how long readings of a quantity are kept.", kept_s, label="quantity"),
    ]
