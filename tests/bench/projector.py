"""Measure the projector alone, by stage: `python -m tests.bench.projector [STORE_URL]`; without a URL the store does nothing.

300 devices send 200,000 messages of 5 readings; they lie in a journal before the clock starts. CPU microseconds a message.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from devices.device import Device, Registry
from devices.reading import Batch, Int32Array, Position, SeriesInfo
from ingest.journal import Journal, JournalReader
from ingest.message import Message
from ingest.projector import Projector
from ingest.settings import IngestSettings
from qala.state import open_state
from qala.state.dirty import DirtyMarks
from qala.store import Store, open_store
from qala.store.base import Appended

MESSAGES = 200_000
DEVICES = 300
GROUP = 1000  # messages of one frame
START_MS = 1_767_225_600_000


class NoStore:
    """Takes batches and forgets them, so that only the projector's own work is measured."""

    def __init__(self) -> None:
        self._ids: dict[SeriesInfo, int] = {}

    def register(self, series: Sequence[SeriesInfo]) -> Int32Array:
        return np.array([self._ids.setdefault(info, len(self._ids) + 1) for info in series], np.int32)

    def append(self, batch: Batch, _upto: Position | None) -> Appended:
        return Appended(len(batch), 0, 0)

    def applied(self, _journal: str) -> Position | None:
        return None


def message(number: int) -> Message:
    ms = START_MS + number // DEVICES * 1000
    payload = f'{{"t":{ms},"v":{{"pm2_5":12.{number % 1000},"pm10":33.1,"no2":21.5,"temperature":-4.1,"relative_humidity":71}}}}'
    device = f"d{number % DEVICES}"
    return Message(f"qala/1/air/{device}/t", payload.encode(), ms * 1000, client=device, qos=1)


def main(folder: Path, url: str) -> None:
    journal = Journal.open(folder / "journal")
    for start in range(0, MESSAGES, GROUP):
        journal.append([message(number) for number in range(start, start + GROUP)])
    registry = Registry([Device(f"air/d{number}", "air_station") for number in range(DEVICES)])
    engine = open_state(f"sqlite:///{folder / 'state.sqlite'}")
    projector = Projector(
        JournalReader(folder / "journal"),
        open_store(url) if url else cast("Store", NoStore()),
        engine,
        lambda: registry,
        IngestSettings(),
        data=folder,
        dirty=DirtyMarks(engine),
    )
    before_s = time.process_time()
    while projector.step(0):
        pass
    whole_s = time.process_time() - before_s
    lines = [f"{stage:10} {1e6 * cpu_s / MESSAGES:6.2f}" for stage, cpu_s in projector.counters.cpu_s.items()]
    sys.stdout.write("\n".join([*lines, f"{'process':10} {1e6 * whole_s / MESSAGES:6.2f}", ""]))
    journal.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name), sys.argv[1].format(folder=name) if len(sys.argv) > 1 else "")
