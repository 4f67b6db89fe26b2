"""A month of a small city's readings of all three domains, with what goes wrong in a month, straight into a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from analytics.indicators import indicators
from analytics.schedule import Scheduler
from analytics.settings import AnalyticsSettings
from devices.device import Device, Placement, Registry, Zone
from devices.quantity import QUANTITIES, Aggregation
from devices.reading import Batch, Flag, Float64Array, Position, SeriesInfo
from devices.value import Value
from qala.state import open_state
from qala.state.dirty import BUCKET_US, DirtyMarks
from qala.store.base import Span, Store, ValueSelector
from qala.store.lake import DAY_US, day_number

TZ = ZoneInfo("Asia/Almaty")
FIRST_DAY = day_number("2026-01-01")
START_US = FIRST_DAY * DAY_US
SECOND_US = 1_000_000
LATENCY_US = 2 * SECOND_US


def registry(air: int = 12, road: int = 12, grid: int = 16, days: int = 31) -> Registry:
    """Place devices in two zones of each kind; the first of each moves in the middle of the month."""
    plans = [
        ("air_station", "district", air, 600),
        ("traffic_detector", "road", road, 300),
        ("electricity_meter", "feeder", grid, 900),
    ]
    devices, zones, placements = [], [], []
    for kind, zone_kind, count, interval_s in plans:
        here, there = (Zone(f"{zone_kind}{n}", zone_kind, {}, {}, free_flow_kmh=60.0, rated_kw=300.0) for n in (1, 2))
        zones += [here, there]
        for n in range(count):
            device = Device(f"{zone_kind}/{n:02d}", kind, interval_s=interval_s, modulus=10_000.0, rated_kw=25.0)
            devices.append(device)
            stands = (here, there)[n % 2].id
            if n:
                placements.append(Placement(device.id, (stands,)))
            else:
                moved_us = START_US + days * DAY_US // 2 + 3_601 * SECOND_US
                placements.append(Placement(device.id, (stands,), until_us=moved_us))
                placements.append(Placement(device.id, (there.id,), since_us=moved_us))
    return Registry(devices, zones, placements)


_SHAPES: dict[str, dict[str, Callable[[Float64Array, Float64Array], Float64Array]]] = {
    "air_station": {
        "pm2_5": lambda t, e: (25 + 12 * np.sin(t / 4) + 2 * e).round(1),
        "pm10": lambda t, e: (50 + 20 * np.sin(t / 5) + 3 * e).round(1),
        "no2": lambda t, e: (40 + 15 * np.sin(t / 3) + 2 * e).round(1),
    },
    "traffic_detector": {
        "vehicle_count": lambda t, e: np.floor(22 + 14 * np.sin(t / 3.8) + 3 * e),
        "speed": lambda t, e: (48 + 9 * np.cos(t / 3.8) + 2 * e).round(1),
    },
    "electricity_meter": {
        "energy_import": lambda t, e: (np.cumsum(2 + np.sin(t / 3.8) + e / 5) + 9_500).round(3) % 10_000,
        "active_power": lambda t, e: np.floor(9_000 + 4_000 * np.sin(t / 3.8) + 300 * e),
    },
}


def fill(store: Store, city: Registry, days: int = 31, seed: int = 7) -> None:
    """Store the readings of some days: gaps, spikes, stuck values, missing readings and messages that came late."""
    chance = np.random.default_rng(seed)
    for number, device in enumerate(city.devices.values(), start=1):
        batch = _joined(_series(store, device, days, chance, number))
        for some in np.array_split(np.argsort(batch.time_us, kind="stable"), 2):
            store.append(batch.take(some), Position("month", number))


def _series(store: Store, device: Device, days: int, chance: np.random.Generator, number: int) -> Iterator[Batch]:
    assert device.interval_s
    time_us = START_US + np.arange(days * 86_400 // device.interval_s) * device.interval_s * SECOND_US
    hours = (time_us - START_US) / 3.6e9
    gone = chance.random(len(time_us)) < 0.02
    late = chance.random(len(time_us)) < 0.01
    for quantity, shape in _SHAPES[device.kind].items():
        declared = QUANTITIES[quantity]
        span_s = device.interval_s if declared.aggregation is Aggregation.SUM else 0
        [series] = store.register([SeriesInfo(device.id, quantity, "", span_s, declared.unit)])
        value = shape(hours + number, chance.standard_normal(len(hours)))
        if declared.aggregation is not Aggregation.COUNTER:
            value[chance.integers(0, len(value), days // 3)] *= 4  # spikes
            stuck = int(chance.integers(0, len(value) - 120))
            value[stuck : stuck + 120] = value[stuck]
        value[chance.random(len(value)) < 0.005] = np.nan
        flag = np.where(np.isnan(value), Flag.MISSING, Flag.GOOD).astype(np.uint8)
        received_us = time_us + LATENCY_US + late * 7_200 * SECOND_US
        many = len(value)
        yield Batch(
            series=np.full(many, series, np.int32),
            time_us=time_us,
            value=value,
            flag=flag,
            revision=np.zeros(many, np.int32),
            origin=np.full(many, number, np.int64),
            received_us=received_us,
        ).take(~gone)


def _joined(batches: Iterator[Batch]) -> Batch:
    columns = zip(*(msgspec.structs.astuple(batch) for batch in batches), strict=True)
    return Batch(*(np.concatenate(column) for column in columns))


def compute_live(store: Store, city: Registry, folder: Path, now_us: int) -> None:
    """Mark every reading and let the scheduler compute what is due of it, as a server does."""
    dirty = DirtyMarks(open_state(f"sqlite:///{folder / 'live.sqlite'}"))
    extent = store.extent()
    assert extent
    buckets = np.arange(extent.start_us // BUCKET_US, extent.stop_us // BUCKET_US + 1)
    positions = store.positions()
    for series in store.catalog():
        dirty.mark(np.full(len(buckets), series, np.int32), buckets, positions[-1])
    scheduler = Scheduler(store, dirty, lambda: city, indicators(), AnalyticsSettings(amend_every_s=0), TZ)
    while scheduler.step(now_us) or scheduler.backlog(now_us).marks:
        pass


def values(store: Store, span: Span) -> list[Value]:
    """Return the values of windows that start in a span, by key, without their revision."""
    rows = store.values(ValueSelector(), span).to_pylist()
    return [
        msgspec.convert({**row, "detail": msgspec.json.decode(row["detail"]), "revision": 0}, Value) for row in rows
    ]
