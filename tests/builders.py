"""Builders: the smallest thing of a kind, with what a test cares about said by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Engine

from devices.device import Device, Registry
from devices.reading import Batch, Position, SeriesInfo
from ingest.journal import Journal, JournalReader
from ingest.message import Message
from ingest.projector import Projector
from ingest.settings import IngestSettings
from qala.state import open_state
from qala.state.dirty import DirtyMarks
from qala.store.base import Selector, Span, Store
from qala.store.memory import MemoryStore

NOW_US = 1_767_225_600_000_000
"""2026-01-01 00:00 UTC: when the messages of these builders are received."""
NOW_MS = NOW_US // 1000
SECOND_US = 1_000_000
EVER = Span(-(2**62), 2**62)


def message(
    payload: bytes | dict[str, Any] | list[Any],
    *,
    device: str = "air/a1",
    leaf: str = "t",
    topic: str | None = None,
    received_us: int = NOW_US,
    **rest: Any,
) -> Message:
    """Make a message as the door journals it; a payload that is no bytes becomes JSON."""
    data = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
    return Message(topic or f"qala/1/{device}/{leaf}", data, received_us, **rest)


def telemetry(values: Mapping[str, Any], *, t: Any = NOW_MS, device: str = "air/a1", **members: Any) -> Message:
    """Make a native telemetry message; `t` None leaves the time out."""
    received_us = members.pop("received_us", NOW_US)
    document = {} if t is None else {"t": t}
    return message({**document, **members, "v": dict(values)}, device=device, received_us=received_us)


def registry(*devices: str | Device) -> Registry:
    """Make a registry of devices; one given by its id is an air station."""
    return Registry([device if isinstance(device, Device) else Device(device, "air_station") for device in devices])


class City:
    """A journal, a store, a state and a projector between them, driven by hand."""

    def __init__(
        self, folder: Path, *, devices: Iterable[str | Device] = ("air/a1", "air/a2"), **settings: Any
    ) -> None:
        self.folder = folder
        self.journal = Journal.open(folder / "journal")
        self.store: Store = MemoryStore()
        self.engine: Engine = open_state(f"sqlite:///{folder / 'state.sqlite'}")
        self.registry = registry(*devices)
        self.settings = IngestSettings(**settings)
        self.told: list[Batch] = []
        self.projector = self.new_projector()

    def new_projector(self, store: Store | None = None) -> Projector:
        """Make a projector as a restart of the process would."""
        self.dirty = DirtyMarks(self.engine)
        return Projector(
            JournalReader(self.folder / "journal"),
            store or self.store,
            self.engine,
            lambda: self.registry,
            self.settings,
            data=self.folder,
            dirty=self.dirty,
            on_applied=self.told.append,
        )

    def send(self, *messages: Message) -> int:
        """Put messages in the journal and project all that waits; return the number of the first."""
        first = self.journal.append(messages)
        self.project()
        return first

    def project(self, now_us: int = NOW_US) -> int:
        """Step until nothing waits; return how many messages were taken."""
        total = 0
        while done := self.projector.step(now_us):
            total += done
        return total

    def readings(self, store: Store | None = None) -> dict[tuple[str, str, int], float]:
        """Return every reading: (device, key, time) to value."""
        return {key: value for key, (value, _flag) in self.judged(store).items()}

    def judged(self, store: Store | None = None) -> dict[tuple[str, str, int], tuple[float, int]]:
        """Return every reading with its flag: (device, key, time) to (value, flag)."""
        store = store or self.store
        catalog = store.catalog()
        rows = (row for batch in store.read(Selector(), EVER) for row in batch.to_pylist())
        return {(*_key(catalog[row["series"]]), row["time_us"]): (row["value"], row["flag"]) for row in rows}

    def readings_of(self, number: int) -> dict[tuple[str, str, int], float | None]:
        """Return the readings that stem from one message: (device, key, time) to value, None where missing."""
        catalog = self.store.catalog()
        rows = (row for batch in self.store.read(Selector(), EVER) for row in batch.to_pylist())
        return {
            (*_key(catalog[row["series"]]), row["time_us"]): None if math.isnan(row["value"]) else row["value"]
            for row in rows
            if row["origin"] == number
        }

    def applied(self) -> int:
        """Return up to where the store has the journal."""
        position = self.store.applied(self.journal.id)
        return position.number if position else 0

    def marked(self) -> set[tuple[str, int]]:
        """Take the marks: (device, 5-minute bucket)."""
        taken = self.dirty.take(Position(self.journal.id, self.applied()))
        catalog = self.store.catalog()
        return {(catalog[s].device, b) for s, b in zip(taken.series.tolist(), taken.bucket.tolist(), strict=True)}

    def close(self) -> None:
        self.journal.close()
        self.engine.dispose()


def _key(info: SeriesInfo) -> tuple[str, str]:
    return info.device, f"{info.quantity}.{info.channel}" if info.channel else info.quantity


def cities(folder: Path) -> Iterator[Callable[..., City]]:
    """Give a function that makes cities, and close them in the end (for a fixture)."""
    made: list[City] = []

    def make(**rest: Any) -> City:
        made.append(City(folder / f"city{len(made)}", **rest))
        return made[-1]

    yield make
    for city in made:
        city.close()
