"""Replay: publishes a recorded CSV as devices over MQTT, so that real data takes the way that sensors' data takes."""

from __future__ import annotations

import csv
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import msgspec

from devices.errors import ConfigError
from qala.publisher import Publisher
from qala.replay.mapping import CsvMapping, Planned, plan

__all__ = ["Progress", "count_messages", "replay", "rows_of"]

SAVE_EVERY = 1000
DRAIN_S = 30.0


class Progress(msgspec.Struct):
    """How far a replay is: messages acknowledged so far, and in all."""

    done: int
    total: int


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file. Raises ConfigError where it cannot be read."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from csv.DictReader(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: {error}", hint="give a CSV file in UTF-8 with a header line") from None


def count_messages(path: Path, mapping: CsvMapping) -> int:
    """Count the messages that a file gives."""
    rows = sum(1 for _ in rows_of(path))
    per_row = len(next(rows_of(path), {})) - 1 if mapping.wide else 1
    return rows * per_row


def replay(
    path: Path,
    mapping: CsvMapping,
    publisher: Publisher,
    *,
    root: str,
    speed: float,
    memory: Path,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> int:
    """Publish a file's messages from where the last replay of it stopped, and return how many were sent now.

    `speed` is how many seconds of the recording pass in one; 0 sends as fast as it is taken. Event times stay as recorded.
    `memory` is a folder; how far the file was acknowledged is kept there.
    """
    note = memory / f"replay-{_digest(path, mapping)}.json"
    start, total = _resume(note), count_messages(path, mapping)
    pace = _Pace(speed)
    for sent, planned in enumerate(islice(plan(mapping, rows_of(path)), start, None)):
        pace.wait(planned)
        publisher.publish(f"{root}/1/{planned.topic}/t", planned.payload)
        if sent % SAVE_EVERY == 0:
            _save(note, start + publisher.acknowledged)
        on_progress(Progress(start + publisher.acknowledged, total))
    publisher.drain(DRAIN_S)
    _save(note, start + publisher.acknowledged)
    on_progress(Progress(start + publisher.acknowledged, total))
    return publisher.acknowledged


class _Pace:
    """Holds each message back until its time in the recording has come, at a speed."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._began: tuple[float, int] | None = None

    def wait(self, planned: Planned) -> None:
        if self._speed <= 0:
            return
        if self._began is None:
            self._began = (time.monotonic(), planned.time_us)
        began_s, first_us = self._began
        due_s = began_s + (planned.time_us - first_us) / 1e6 / self._speed
        time.sleep(max(0.0, due_s - time.monotonic()))


def _digest(path: Path, mapping: CsvMapping) -> str:
    digest = hashlib.sha256(msgspec.json.encode(mapping))
    with path.open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _resume(note: Path) -> int:
    return int(json.loads(note.read_text())["acknowledged"]) if note.is_file() else 0


def _save(note: Path, acknowledged: int) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    fresh = note.with_suffix(".new")
    fresh.write_text(json.dumps({"acknowledged": acknowledged}))
    fresh.replace(note)
