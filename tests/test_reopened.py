"""A change of the registry corrects the past: what stands elsewhere, or counts otherwise, is computed again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from analytics.indicators import indicators
from analytics.schedule import Scheduler
from analytics.settings import AnalyticsSettings
from devices.device import Device, Placement, Registry, Zone
from ingest.journal import Journal
from ingest.projector import Projector
from ingest.reader import JournalReader
from ingest.settings import IngestSettings
from qala.state import open_state
from qala.state.dirty import DirtyMarks
from qala.state.registry import import_registry, load_registry
from qala.state.reopened import affected
from qala.store.base import Span, ValueSelector
from qala.store.memory import MemoryStore
from tests.builders import NOW_MS, NOW_US, telemetry

HOUR_MS = 3_600_000
A, B = Device("air/a1", "air_station"), Device("air/a2", "air_station")
NORTH, SOUTH = Zone("north", "district", {}, {}), Zone("south", "district", {}, {})
ROAD = Zone("ring", "road", {"en": "Ring"}, {}, free_flow_kmh=60.0)
CAR = Device("road/d1", "traffic_detector")
BEFORE = Registry(
    [A, B, CAR],
    [NORTH, SOUTH, ROAD],
    [Placement("air/a1", ("north",)), Placement("air/a2", ("south",)), Placement("road/d1", ("ring",))],
)


def changed(device: Device | None = None, zone: Zone | None = None, placement: Placement | None = None) -> Registry:
    """Return the registry of these tests with one thing changed or added."""
    devices = {**BEFORE.devices, **({device.id: device} if device else {})}
    zones = {**BEFORE.zones, **({zone.id: zone} if zone else {})}
    kept = [p for p in BEFORE.placements if placement is None or p.device != placement.device]
    return Registry(devices.values(), zones.values(), [*kept, *([placement] if placement else [])])


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        pytest.param(BEFORE, set(), id="nothing"),
        pytest.param(changed(msgspec.structs.replace(A, name="Roof")), set(), id="a name does not count"),
        pytest.param(changed(zone=msgspec.structs.replace(ROAD, names={"en": "X"})), set(), id="nor does a zone's"),
        pytest.param(changed(msgspec.structs.replace(A, interval_s=600)), {"air/a1"}, id="an interval"),
        pytest.param(
            changed(zone=msgspec.structs.replace(ROAD, free_flow_kmh=50.0)), {"road/d1"}, id="a free-flow speed"
        ),
        pytest.param(
            changed(placement=Placement("air/a1", ("south",))), {"air/a1", "air/a2"}, id="a move, and whom it joins"
        ),
        pytest.param(changed(Device("air/a3", "air_station")), {"air/a3"}, id="a new device"),
    ],
)
def test_a_change_affects_those_whose_numbers_it_changes(after: Registry, expected: set[str]) -> None:
    assert affected(BEFORE, after) == expected


class Town:
    """A journal, a state with a registry in it, a projector and a scheduler, driven by hand."""

    def __init__(self, folder: Path) -> None:
        self.state = open_state(f"sqlite:///{folder / 'state.sqlite'}")
        self.journal = Journal.open(folder / "journal")
        self.store = MemoryStore()
        dirty = DirtyMarks(self.state)
        self.registry = Registry()
        self.projector = Projector(
            JournalReader(folder / "journal"),
            self.store,
            self.state,
            lambda: self.registry,
            IngestSettings(),
            data=folder,
            dirty=dirty,
        )
        self.scheduler = Scheduler(
            self.store, dirty, lambda: self.registry, indicators(), AnalyticsSettings(amend_every_s=0), ZoneInfo("UTC")
        )

    def declare(self, *items: Device | Zone | Placement) -> None:
        """Import a change, and let it be taken up."""
        devices = [item for item in items if isinstance(item, Device)]
        zones = [item for item in items if isinstance(item, Zone)]
        import_registry(self.state, devices, zones, [i for i in items if isinstance(i, Placement)], NOW_US)
        self.registry = load_registry(self.state)
        self.go()

    def go(self) -> None:
        while self.projector.step(NOW_US):
            pass
        while self.scheduler.step(NOW_US):
            pass

    def means(self) -> dict[tuple[str, str], tuple[float | None, int]]:
        """Return hourly PM2.5 of the last hour by zone: the number and what was expected."""
        span = Span(NOW_US - HOUR_MS * 1000, NOW_US)
        select = ValueSelector(frozenset(["pm2_5_mean"]), windows=frozenset(["1h"]))
        rows = self.store.values(select, span).to_pylist()
        return {(r["zone"], r["window"]): (r["value"], r["n_expected"]) for r in rows}


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    town = Town(tmp_path)
    yield town
    town.journal.close()
    town.state.dispose()


def test_readings_count_where_their_device_turns_out_to_have_stood(town: Town) -> None:
    town.declare(A, NORTH, SOUTH)
    town.journal.append([telemetry({"pm2_5": 10 + n % 3}, t=NOW_MS - HOUR_MS + n * 60_000) for n in range(60)])
    town.go()
    assert town.means() == {}
    town.declare(Placement("air/a1", ("north",)))
    assert town.means() == {("north", "1h"): (11.0, 60)}
    town.declare(msgspec.structs.replace(A, interval_s=120))
    assert town.means() == {("north", "1h"): (11.0, 30)}
