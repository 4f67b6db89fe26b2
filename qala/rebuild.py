"""Rebuilding the store: the journal is replayed into an empty one beside it, everything is computed, then they change places.

Nothing is judged and nobody is told of anything meanwhile; the state that the replay needs - rejected messages, marks, due
windows - is one of its own, in the folder `rebuild`. Killed anywhere, the next call goes on where it was; if the registry or
the journal is another by then, it begins again.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import Engine, insert, select

from analytics.indicators import indicators
from analytics.schedule import Scheduler
from devices.errors import ConflictError, NotFoundError, UnavailableError
from ingest.projector import Projector
from ingest.reader import JournalReader
from qala.config import Config
from qala.process import Hold
from qala.safekeeping import embedded, finish_replacement, replace
from qala.state import open_state
from qala.state.database import METADATA
from qala.state.dirty import DirtyMarks
from qala.state.registry import load_registry
from qala.store import Store, open_store
from qala.store.durable import put_file

__all__ = ["Rebuilt", "rebuild"]

_TABLES = ("device", "zone", "placement", "device_metadata")  # what decides what a message means
_GATHER = 200_000  # messages between two looks at their marks
_DUE_MAX = 10_000_000
_EVER_US = 2**62
_SAY_S = 5.0
_ROWS = 5_000

Say = Callable[[str], None]


class Rebuilt(msgspec.Struct, frozen=True):
    """What a rebuild came to. `former` is where the store that was replaced lies now."""

    messages: int
    readings: int
    values: int
    former: Path | None


def rebuild(config: Config, *, into: str | None, force: bool, say: Say) -> Rebuilt:
    """Replay the journal into an empty store, and put that in the place of the present one, or leave it where `into` says.

    Raises ConflictError while a server runs, where `into` is not empty, and without `force` where the journal does not reach
    back to its first message.
    """
    hold = Hold(config.folder / "serve.lock")
    try:
        reader = JournalReader(config.folder / "journal")
        _check_journal(reader, force=force, say=say)
        place = None if into else embedded(config.store_url, hint="fill an empty one with --into URL")
        folder = config.folder / "rebuild"
        return _Rebuild(config, reader, folder, into or f"duckdb://{folder}/readings.duckdb", say).run(place)
    finally:
        hold.release()


def _check_journal(reader: JournalReader, *, force: bool, say: Say) -> None:
    if not reader.id or not reader.synced():
        raise NotFoundError("there is no journal to rebuild from", hint="name the data folder with --data")
    first = reader.first()
    if first > 1:
        told = (
            f"the journal begins at message {first}: the readings of messages 1 to {first - 1} would be missing, "
            "and the values made of them"
        )
        if not force:
            raise ConflictError(told, hint="rebuild what is left with --force, or restore a backup: qala store restore")
        say(told)


class _Rebuild:
    """One rebuild: its store, its state and the parts of a server that it needs."""

    def __init__(self, config: Config, reader: JournalReader, folder: Path, url: str, say: Say) -> None:
        self._config = config
        self._reader = reader
        self._folder = folder
        self._url = url
        self._say = say
        self._said = time.monotonic()

    def run(self, place: Path | None) -> Rebuilt:
        live = open_state(self._config.state_url)
        try:
            resumed = self._begin(live)
            state = open_state(f"sqlite:///{self._folder}/state.sqlite")
            store = open_store(self._url, self._config.store)
            try:
                if not resumed:
                    self._take_inputs(live, state, store)
                done = self._fill(store, state)
                self._hand_over(live, state, store)
            finally:
                store.close()
                state.dispose()
            former = self._swap(place) if place else None
            shutil.rmtree(self._folder)
            return msgspec.structs.replace(done, former=former)
        finally:
            live.dispose()

    # ---- where it stands

    def _begin(self, live: Engine) -> bool:
        """Make the folder, unless one of the same rebuild is there; tell whether it is."""
        if self._mark().exists() and self._mark().read_bytes() == self._inputs(live):
            self._say("going on with the rebuild that was cut short")
            return True
        if self._folder.exists():
            shutil.rmtree(self._folder)
        self._folder.mkdir(parents=True)
        return False

    def _take_inputs(self, live: Engine, state: Engine, store: Store) -> None:
        """Copy what decides what messages mean, and note what is being rebuilt from what."""
        if store.catalog() or store.positions() or store.extent():
            raise ConflictError(f"the store {self._url} is not empty", hint="name an empty one, or no --into")
        for name in _TABLES:
            _copy_table(live, state, name)
        put_file(self._mark(), self._inputs(live))

    def _mark(self) -> Path:
        return self._folder / "begun.json"

    def _inputs(self, live: Engine) -> bytes:
        """Say what a rebuild depends on, beside the messages."""
        digest = hashlib.sha256()
        with live.connect() as connection:
            for name in _TABLES:
                table = METADATA.tables[name]
                rows = connection.execute(select(table).order_by(*table.primary_key.columns))
                digest.update(repr([tuple(row) for row in rows]).encode())
        told = {"url": self._url, "journal": self._reader.id, "qala": version("qala"), "registry": digest.hexdigest()}
        return msgspec.json.encode(told)

    # ---- what it does

    def _fill(self, store: Store, state: Engine) -> Rebuilt:
        """Project all messages and compute everything that is due."""
        config, registry, marks = self._config, load_registry(state), DirtyMarks(state)
        projector = Projector(
            self._reader, store, state, lambda: registry, config.ingest, data=self._folder, dirty=marks
        )
        scheduler = Scheduler(
            store, marks, lambda: registry, indicators(), config.analytics, ZoneInfo(config.time_zone)
        )
        self._project(projector, scheduler)
        self._compute(scheduler)
        counts = projector.counters
        return Rebuilt(counts.messages, counts.readings, scheduler.counters.values, None)

    def _project(self, projector: Projector, scheduler: Scheduler) -> None:
        began, gathered = time.monotonic(), 0
        while projector.step(_now_us()):
            done = projector.counters.messages
            if done - gathered >= _GATHER:  # marks of many messages are fewer windows
                scheduler.gather(_now_us(), at_once=True)
                gathered = done
            left = projector.health(_now_us()).lag_messages
            rate = done / max(time.monotonic() - began, 0.001)
            self._now_and_then(f"{done:,} messages, {rate:,.0f} a second, about {left / rate:,.0f} s left")

    def _compute(self, scheduler: Scheduler) -> None:
        while True:
            scheduler.gather(_now_us(), at_once=True)
            done, backlog = scheduler.step(_now_us(), at_once=True), scheduler.backlog(_now_us())
            self._now_and_then(f"{scheduler.counters.windows:,} windows computed, {backlog.due:,} left")
            if not done and not backlog.marks:
                return

    def _now_and_then(self, text: str) -> None:
        if time.monotonic() - self._said >= _SAY_S:
            self._said = time.monotonic()
            self._say(f"  {text}")

    # ---- and the end of it

    def _hand_over(self, live: Engine, state: Engine, store: Store) -> None:
        """Give the live state the windows that have not ended yet, and let alerts be judged once over everything."""
        DirtyMarks(live).add_due(DirtyMarks(state).due(_EVER_US, _DUE_MAX), now_us=0)
        applied = store.applied(self._reader.id)
        finish_replacement(live, self._reader.id, applied.number if applied else 0)

    def _swap(self, place: Path) -> Path | None:
        built = embedded(self._url)
        if built.with_name(built.name + ".wal").exists():
            raise UnavailableError(f"{built} was not closed in order", hint="run qala store rebuild again: it goes on")
        return replace(place, built, move=True)


def _copy_table(live: Engine, state: Engine, name: str) -> None:
    table = METADATA.tables[name]
    with live.connect() as source, state.begin() as target:
        for rows in source.execute(select(table)).mappings().partitions(_ROWS):
            target.execute(insert(table), [dict(row) for row in rows])


def _now_us() -> int:
    return time.time_ns() // 1000
