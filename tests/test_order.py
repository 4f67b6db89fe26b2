"""Event time, any order: however the messages of a recording come, the same values and episodes follow, to the bit.

The recording goes through a real journal, projector, scheduler and judge, over each engine. Left out of the comparison is what
tells when something became known: revisions, receipts and ids.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from analytics.indicators import indicators
from analytics.judge import Judge
from analytics.rulebook import load_rules
from analytics.schedule import Scheduler
from analytics.settings import AnalyticsSettings
from devices.device import Registry
from devices.files import parse_devices
from devices.zone_file import parse_zones
from ingest.journal import Journal
from ingest.message import Message
from ingest.projector import Projector
from ingest.reader import JournalReader
from ingest.settings import IngestSettings
from qala.state import open_state
from qala.state.dirty import DirtyMarks
from qala.state.episodes import episodes
from qala.state.ledger import By, Counts, entries
from qala.store import open_store
from qala.store.base import Span, ValueSelector
from tests.recordings import Recording, rehearsal

EVER = Span(-(2**62), 2**62)
NOW_US = 1_783_000_000_000_000  # 2026-07: long after everything recorded
HOUR = 3600
MESSAGES_A_STEP = 40


class Route:
    """The serving process's way from the journal to episodes, driven by hand."""

    def __init__(self, folder: Path, engine: str, recording: Recording) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        devices, placements = parse_devices(recording.devices_file.read_text(), "csv")
        registry = Registry(devices, parse_zones(recording.zones_file.read_text()), placements)
        known = indicators()
        rules = {name: book.rule for name, book in load_rules(known).items()}
        self.journal = Journal.open(folder / "journal")
        self.state = open_state(f"sqlite:///{folder / 'state.sqlite'}")
        self.store = open_store("memory:" if engine == "memory" else f"duckdb://{folder / 'readings.duckdb'}")
        dirty = DirtyMarks(self.state)
        self.judge = Judge(self.store, self.state, rules, channels=[])
        self.projector = Projector(
            JournalReader(folder / "journal"),
            self.store,
            self.state,
            lambda: registry,
            IngestSettings(),
            data=folder,
            dirty=dirty,
        )
        self.scheduler = Scheduler(
            self.store,
            dirty,
            lambda: registry,
            known,
            AnalyticsSettings(amend_every_s=0),
            ZoneInfo("Asia/Almaty"),
            judge=lambda values: self.judge.judge(values, NOW_US),
        )

    def take(self, messages: Sequence[tuple[str, bytes]], *, a_step: int = MESSAGES_A_STEP) -> None:
        """Journal messages in parts, and go all the way to episodes after each."""
        for at in range(0, len(messages), a_step):
            self.journal.append([Message(topic, payload, NOW_US) for topic, payload in messages[at : at + a_step]])
            while self.projector.step(NOW_US):
                pass
            while self.scheduler.step(NOW_US):
                pass

    def values(self) -> dict[tuple[str, str, str, int], str]:
        """Return every value as text, by (indicator, zone, window, start)."""
        rows = self.store.values(ValueSelector(), EVER).drop_columns(["known_us", "revision"]).to_pylist()
        return {(r["indicator"], r["zone"], r["window"], r["start_us"]): json.dumps(r, sort_keys=True) for r in rows}

    def episodes(self) -> list[tuple[Any, ...]]:
        rows = [r for r in episodes(self.state, limit=10_000) if r.state != "withdrawn"]
        return sorted((r.rule, r.zone, r.kind, r.start_us, r.fired_us, str(r.end_us), r.value, r.last) for r in rows)

    def ledger(self) -> dict[str, Counts]:
        """Return what was counted of each device."""
        rows = entries(self.state, EVER.start_us, EVER.stop_us, by=By.DEVICE, limit=100_000)
        return {row.device: row.counts for row in rows}

    def close(self) -> None:
        self.journal.close()
        self.store.close()
        self.state.dispose()


@pytest.fixture(params=["memory", "duckdb"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def recording() -> Recording:
    return rehearsal()


@pytest.fixture
def in_order(tmp_path: Path, engine: str, recording: Recording) -> Iterable[Route]:
    route = Route(tmp_path / "in-order", engine, recording)
    route.take(recording.messages, a_step=1000)
    yield route
    route.close()


def test_shuffled_and_doubled_messages_give_the_same_values_and_episodes_to_the_bit(
    tmp_path: Path, engine: str, recording: Recording, in_order: Route
) -> None:
    dice = random.Random(3)
    messages = [*recording.messages, *dice.sample(recording.messages, len(recording.messages) // 2)]
    dice.shuffle(messages)
    route = Route(tmp_path / "shuffled", engine, recording)
    route.take(messages)
    assert in_order.episodes()
    assert route.episodes() == in_order.episodes()
    assert route.values() == in_order.values()
    assert_same_but_for_duplicates(route.ledger(), in_order.ledger(), len(messages) - len(recording.messages))
    route.close()


@pytest.mark.parametrize("times", [1, 10])
def test_reversed_and_sent_ten_times_the_same_values_episodes_and_counts_follow(
    tmp_path: Path, engine: str, recording: Recording, in_order: Route, times: int
) -> None:
    route = Route(tmp_path / "reversed", engine, recording)
    route.take(list(reversed(recording.messages * times)), a_step=5_000)
    assert route.episodes() == in_order.episodes()
    assert route.values() == in_order.values()
    assert_same_but_for_duplicates(route.ledger(), in_order.ledger(), (times - 1) * len(recording.messages))
    route.close()


def assert_same_but_for_duplicates(one: dict[str, Counts], other: dict[str, Counts], duplicates: int) -> None:
    """Make sure that more copies of messages are counted as just that."""
    assert sum(counts.duplicates for counts in one.values()) == duplicates
    for counts in one.values():
        counts.messages, counts.duplicates = counts.messages - counts.duplicates, 0
    assert sum(counts.accepted for counts in other.values()) > 0
    assert one == other


def test_a_late_reading_changes_exactly_the_windows_that_depend_on_it(
    tmp_path: Path, engine: str, recording: Recording, in_order: Route
) -> None:
    """The speed of one minute comes last of all. What differs from a life without it has that minute in its window."""
    [(topic, payload)] = [m for m in recording.messages if "/traffic/d061/" in m[0]][10:11]
    body = json.loads(payload)
    late_s = body["t"] // 1000 - 60 + 30 * 60  # the 31st minute of the hour
    speed = body["v"]["speed"][30]
    body["v"]["speed"][30] = None
    route = Route(tmp_path / "late", engine, recording)
    route.take([(t, json.dumps(body).encode() if p == payload else p) for t, p in recording.messages], a_step=1000)
    without = route.values()
    correction = {"t": (late_s + 60) * 1000, "w": 60_000, "r": 1, "v": {"speed": speed}}
    route.take([(topic, json.dumps(correction).encode())])
    changed = {key for key, value in route.values().items() if without[key] != value}
    widths = {"5min": 300, "15min": 900, "1h": HOUR}
    assert changed == {
        (indicator, "road-garden-west", window, late_s // width * width * 1_000_000)
        for indicator in ("space_mean_speed", "travel_time_index", "congestion_level")
        for window, width in widths.items()
    }
    assert route.values() == in_order.values()
    assert route.episodes() == in_order.episodes()
    route.close()


def test_a_replayed_old_message_does_not_undo_a_correction(
    tmp_path: Path, engine: str, recording: Recording, in_order: Route
) -> None:
    before = in_order.values()
    [(topic, payload)] = [m for m in recording.messages if "/air/a001/" in m[0]][5:6]
    body = json.loads(payload)
    body["r"] = 1
    body["v"]["pm2_5"] = [value + 10 if value is not None else None for value in body["v"]["pm2_5"]]
    in_order.take([(topic, json.dumps(body).encode())])
    corrected = in_order.values()
    assert corrected != before
    in_order.take([(topic, payload)])
    assert in_order.values() == corrected
