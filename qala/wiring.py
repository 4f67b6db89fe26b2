"""The only place that knows everything: makes the parts of the serving process and gives each what it needs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from typing import TypeVar
from zoneinfo import ZoneInfo

from fastapi import FastAPI
from sqlalchemy import Engine

from analytics.alerts import Rule
from analytics.indicator import Indicator
from analytics.indicators import indicators
from analytics.judge import Judge
from analytics.notices import Outbox
from analytics.notify import Channel
from analytics.notify.log import LogChannel
from analytics.notify.webhook import WebhookChannel
from analytics.rebuild import PatientJudge
from analytics.rulebook import load_rules
from analytics.schedule import Put, Scheduler
from dashboards.api.app import create_app
from dashboards.api.context import ApiContext
from dashboards.health import Parts
from dashboards.live import Hub
from dashboards.prometheus import Metric
from devices.device import Device, Placement, Registry
from devices.errors import Reason, UnavailableError
from devices.kinds import kinds
from devices.reading import Batch
from devices.value import Value
from ingest.door import read_report
from ingest.keyring import key_file, make_key
from ingest.nudge import nudge
from ingest.projector import Projector
from ingest.reader import JournalReader
from ingest.rejected import Replayed, replay
from ingest.rewind import take_again
from qala import measures, standing
from qala.city import rehearsal_city
from qala.config import Config
from qala.declared import import_declared
from qala.exporting import Exporting
from qala.probe import Probe
from qala.state import open_state, registry
from qala.state.dirty import DirtyMarks
from qala.store import Store, open_store
from qala.store.lake_export import Exported
from qala.store.retention import Retention
from qala.threads import Worker
from qala.upkeep import StoreUpkeep, retention_of

__all__ = ["App", "build"]

T = TypeVar("T")

_ASK_S = 50.0  # less than the command line waits for an answer
_JOIN_S = 3.0
_PATIENCE_S = 120.0  # after a start, what devices kept back meanwhile comes first
_FLOOD = 5_000  # messages between two looks: more than large cities send
_FLOOD_ROUNDS = 5  # so many rounds are left out for a flood
_log = logging.getLogger(__name__)


def build(config: Config, *, rehearse: bool = False) -> App:
    """Open the store and the state and put the parts together; nothing runs before `App.start`.

    With `rehearse`, the rehearsal city's zones and devices are brought into the registry first. Raises QalaError where a
    file cannot be opened or something that people wrote is wrong.
    """
    retention = retention_of(config.store)
    with ExitStack() as unless_built:
        engine = open_state(config.state_url)
        unless_built.callback(engine.dispose)
        import_declared(engine, config.devices_file, config.zones_file)
        if rehearse:
            _import_city(engine, config)
        store = open_store(config.store_url, config.store)
        unless_built.callback(store.close)
        app = App(config, engine, store, retention)
        unless_built.pop_all()
    return app


def _import_city(engine: Engine, config: Config) -> None:
    devices, zones, placements = rehearsal_city(config.rehearsal).registry()
    registry.import_registry(engine, devices, zones, placements, _now_us())


def _now_us() -> int:
    return time.time_ns() // 1000


class App:
    """The serving process's parts. `api` answers whether the threads run or not."""

    def __init__(self, config: Config, engine: Engine, store: Store, retention: Retention) -> None:
        self._config = config
        self._engine = engine
        self._store = store
        self._stop = threading.Event()
        self._complete = False  # once everything that a restore asks for is taken
        self._threads: list[Worker] = []
        self._loading = threading.Lock()
        self._computing = threading.Lock()
        self._load_registry()
        self._reader = JournalReader(config.folder / "journal")
        self._foreign = standing.foreign_messages(store, self._reader.id)
        known = indicators()
        rules = {name: book.rule for name, book in load_rules(known, config.analytics.rules).items()}
        channels = _channels(config)
        self.hub = Hub(
            store=store,
            indicators=known,
            rules=rules,
            settings=config.dashboards,
            parts=self.parts,
            now_us=_now_us,
            version=version("qala"),
        )
        self._marks = DirtyMarks(engine)
        self._projector = Projector(
            self._reader,
            store,
            engine,
            self.registry,
            config.ingest,
            data=config.folder,
            dirty=self._marks,
            on_applied=self._on_applied,
        )
        self._probe = Probe(
            config.folder / "mqtt.sock",
            config.ingest.probe_every_s,
            stored=lambda: sum(self._projector.counters.probe.counts),
            now_us=_now_us,
        )
        self._judge = Judge(store, engine, rules, channels=list(channels), on_episodes=self.hub.on_episodes)
        self._patient = PatientJudge(self._judge, engine, lambda: self.registry().zones)
        self._outbox = Outbox(engine, channels, retry_max_s=config.analytics.notice_retry_max_s)
        self._exporting = Exporting(store, config.store, may_export=self._is_at_rest, now_us=_now_us)
        self._upkeep = self._make_upkeep(store, retention)
        self._scheduler = Scheduler(
            store,
            self._marks,
            self.registry,
            known,
            config.analytics,
            ZoneInfo(config.time_zone),
            judge=lambda values: self._patient.judge(values, _now_us()),
            on_values=self.hub.on_values,
            kept_since=self._upkeep.kept_since,
        )
        self.api = self._make_api(known, rules)
        self.hub.load()

    def _make_upkeep(self, store: Store, retention: Retention) -> StoreUpkeep:
        return StoreUpkeep(
            store,
            retention,
            messages=lambda: self._projector.counters.messages,
            may_forget=self._is_at_rest,
            writing=self._ask,
            now_us=_now_us,
            others=self._exporting.upkeep,
        )

    def _make_api(self, known: Mapping[str, Indicator], rules: Mapping[str, Rule]) -> FastAPI:
        return create_app(
            ApiContext(
                store=self._store,
                state=self._engine,
                registry=self.registry,
                kinds=kinds(),
                indicators=known,
                rules=rules,
                settings=self._config.dashboards,
                hub=self.hub,
                operator=self,
                parts=self.parts,
                now_us=_now_us,
                version=version("qala"),
                time_zone=self._config.time_zone,
                credential_key=lambda: make_key(key_file(self._config.folder)),
                asks_tokens=self._config.dashboards.asks_tokens(insecure=self._config.insecure),
                takes_certificates=self._config.ingest.client_ca is not None,
                metrics=(self.metrics,),
                on_command=lambda: nudge(self._config.folder / "door.sock"),
            ),
        )

    def _is_at_rest(self) -> bool:
        """Tell whether the store has all of its days: no rebuild is under way."""
        return self._patient.is_at_rest(self._reader.id)

    # ---- what the parts ask

    def registry(self) -> Registry:
        """The registry as it is; a change is a new object."""
        return self._registry

    def reload(self) -> None:
        """Read the registry again, and let the projector take up what waited for it."""
        self._load_registry()
        self._projector.wake()

    def _load_registry(self) -> None:
        with self._loading:  # of two that load at once, the later one must not put an older registry in place
            self._registry = registry.load_registry(self._engine)

    def replay(self, *, reason: Reason | None, device: str | None) -> Replayed:
        """Decode rejected messages again with today's registry."""
        return self._ask(lambda: replay(self._projector, reason=reason, device=device))

    def admit(self, device: Device, placement: Placement | None) -> Replayed:
        """Take a new device into the registry and replay what it sent before. Raises ConflictError where it exists."""

        def on_the_writing_thread() -> Replayed:  # so that no batch comes between the admission and its replay
            registry.admit(self._engine, device, placement, _now_us())
            self._load_registry()
            return replay(self._projector, device=device.id)

        return self._ask(on_the_writing_thread)

    def put_values(self, values: Sequence[Value]) -> Put:
        """Put values that were computed elsewhere into the store, between two rounds of the scheduler."""
        with self._computing:
            return self._scheduler.put(values)

    def export(self, url: str | None, first: int, last: int) -> Exported | None:
        """Export the first of the closed days `[first, last)` that has readings. Raises ConfigError where no lake is named."""
        return self._exporting.export(url, first, last)

    def _on_applied(self, batch: Batch) -> None:
        self.hub.on_applied(batch)
        self._exporting.on_applied(batch)

    def _ask(self, request: Callable[[], T]) -> T:
        """Call something on the thread that writes; where none runs, this is the only one.

        Raises UnavailableError where it takes too long to wait for.
        """
        if not self._threads:
            return request()
        try:
            return self._projector.ask(request).result(_ASK_S)
        except TimeoutError:
            raise UnavailableError(
                f"not done within {_ASK_S:g} s", hint="the server does it nevertheless; look again in a while"
            ) from None

    # ---- how the parts are

    def parts(self) -> Parts:
        """Say how each part is doing."""
        now_us = _now_us()
        running = {thread.name: thread.is_well() for thread in self._threads}
        return {
            "door": standing.of_door(read_report(self._config.folder), now_us),
            **standing.of_brokers(read_report(self._config.folder)),
            **standing.of_threads(running, self._projector, self._scheduler, now_us),
            **standing.of_probe(self._probe, self._projector.counters.probe, running),
            "store": {**standing.of_store(self._store, self._reader.id, foreign=self._foreign), **self._upkeep.part()},
        }

    def metrics(self) -> list[Metric]:
        """Count what every part has done."""
        now_us = _now_us()
        return [
            *measures.of_door(read_report(self._config.folder)),
            *measures.of_brokers(read_report(self._config.folder)),
            *measures.of_projector(self._projector, now_us),
            *measures.of_probe(self._probe, self._projector.counters.probe),
            *measures.of_commands(self._engine, now_us),
            *measures.of_access(self._engine),
            *measures.of_ledger(self._engine, now_us),
            *measures.of_scheduler(self._scheduler, now_us),
            *measures.of_notices(self._outbox),
            *measures.of_upkeep(self._upkeep, now_us),
        ]

    # ---- the threads

    def start(self) -> None:
        """Start projecting, computing and notifying."""
        self._judge.start(_now_us())
        self._threads = [
            Worker("projector", self._project, self._stop),
            Worker("scheduler", self._compute, self._stop),
            Worker("outbox", self._outbox.run, self._stop),
            Worker("upkeep", self._upkeep.run, self._stop),
            *([Worker("probe", self._probe.run, self._stop)] if self._config.ingest.probe_every_s else []),
            *([Worker("lake", self._exporting.run, self._stop)] if self._exporting.is_on else []),
        ]
        for thread in self._threads:
            thread.start()

    def _project(self, stop: threading.Event) -> None:
        """Take once more what a restore asks for, then follow the journal."""
        self._complete = take_again(self._projector, stop)
        self._projector.run(stop)

    def _compute(self, stop: threading.Event) -> None:
        """Compute what is due and judge it, until told to stop; silence is judged only by who has heard everything."""
        patient_until = time.monotonic() + _PATIENCE_S
        while not stop.is_set():
            with self._computing:
                done = self._round(heard=time.monotonic() > patient_until)
            if done < self._config.analytics.windows_max:
                self._pause(stop)

    def _round(self, *, heard: bool) -> int:
        """Compute and judge what is due, and return how many windows that were."""
        applied = self._store.applied(self._reader.id)
        self._patient.begin(self._reader.id, applied, self._projector.health(_now_us()).lag_messages)
        done = self._scheduler.step(_now_us(), at_once=not self._is_at_rest())
        if self._complete and not done and not self._scheduler.backlog(_now_us()).marks:
            self._patient.rest(applied, _now_us())
        if heard and not done and not self._projector.health(_now_us()).lag_messages:
            self._patient.watch_silence(_now_us())
        return done

    def _pause(self, stop: threading.Event) -> None:
        """Wait for the next round, longer while messages pour in: what is computed of half of them is computed again."""
        for _ in range(_FLOOD_ROUNDS):
            before = self._projector.counters.messages
            if stop.wait(self._config.analytics.tick_s) or self._projector.counters.messages - before <= _FLOOD:
                return

    def close(self) -> None:
        """Stop the threads and let go of every file."""
        self._stop.set()
        self._projector.wake()
        deadline = time.monotonic() + _JOIN_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._store.close()
        self._engine.dispose()


def _channels(config: Config) -> dict[str, Channel]:
    channels: list[Channel] = [LogChannel()]
    if config.analytics.webhook:
        channels.append(WebhookChannel(config.analytics.webhook, timeout_s=config.analytics.webhook_timeout_s))
    return {channel.name: channel for channel in channels}
