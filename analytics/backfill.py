"""Computing the past anywhere: indicators over the lake, cut into tasks of bounded size. Pure, but for the reads of `compute`.

A task is data: a kind of zones on a local day, with the registry as far as they need it. Whoever computes it, in whatever
order and however often, comes to the same values as the scheduler beside the store does, by the same code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from zoneinfo import ZoneInfo

import msgspec

from analytics.due import interval_us
from analytics.indicator import Indicator
from analytics.indicators import indicators
from analytics.inputs import load, reach_us
from analytics.schedule import values_of
from analytics.window import DAY, HOUR_US, WIDTHS_US, windows_between
from devices.device import Device, Placement, Registry, Zone
from devices.errors import ConfigError
from devices.kinds import kinds
from devices.value import Value
from qala.state.dirty import Due
from qala.store.base import Span
from qala.store.lake import DAY_US, Lake

__all__ = ["Computed", "Task", "compute", "decode", "plan", "windows_of"]

WINDOWS_MAX = 200_000
"""Windows of a task, of all its indicators and zones together."""

_SECOND_US = 1_000_000


class Task(msgspec.Struct, frozen=True):
    """Windows that start in `[start_us, stop_us)`, of some indicators in zones of one kind, and all that they depend on.

    `known` are the ranges of time `[start, stop)` whose days are in the lake: windows that look beyond them are left out.
    """

    lake: str
    time_zone: str
    indicators: tuple[str, ...]
    start_us: int
    stop_us: int
    known: tuple[tuple[int, int], ...]
    zones: tuple[Zone, ...]
    devices: tuple[Device, ...]
    placements: tuple[Placement, ...]
    version: str

    @property
    def registry(self) -> Registry:
        return Registry(self.devices, self.zones, self.placements)


class Computed(msgspec.Struct, frozen=True):
    """What a task came to. `left_out` windows look beyond the days that the lake has."""

    values: list[Value]
    windows: int
    left_out: int
    readings: int


def plan(
    registry: Registry,
    chosen: Mapping[str, Indicator],
    time_zone: str,
    span: Span,
    lake: Lake,
    *,
    readings_max: int,
) -> list[Task]:
    """Cut the windows of indicators that start in a span into tasks that read about `readings_max` readings at most.

    Tasks share what they carry of the registry, so that years of them are small here.
    """
    known = tuple((first * DAY_US, last * DAY_US) for first, last in lake.complete())
    start, stop = windows_between(DAY, span.start_us, span.stop_us, ZoneInfo(time_zone))
    days = [(max(a, span.start_us), min(b, span.stop_us)) for a, b in zip(start.tolist(), stop.tolist(), strict=True)]
    shares = [
        (names, _part_of(registry, share))
        for kind, names in sorted(_by_zone_kind(chosen).items())
        for share in _shares(registry, kind, [chosen[name] for name in names], readings_max)
    ]
    return [
        Task(lake.url, time_zone, names, a, b, known, *part, version("qala")) for a, b in days for names, part in shares
    ]


def _by_zone_kind(chosen: Mapping[str, Indicator]) -> dict[str, tuple[str, ...]]:
    kinds_of = {indicator.zone_kind for indicator in chosen.values()}
    return {kind: tuple(sorted(n for n, one in chosen.items() if one.zone_kind == kind)) for kind in kinds_of}


def _shares(
    registry: Registry, kind: str, speaking: Sequence[Indicator], readings_max: int
) -> Iterator[Sequence[Zone]]:
    """Cut the zones of a kind into groups whose readings of a day, and of what is looked at around it, can be held at once."""
    rates = _rates(registry, [zone.id for zone in registry.zones_of_kind(kind)])
    quantities = {name for indicator in speaking for name in indicator.quantities}
    seconds = 86_400 + _reach_s(speaking)
    zones_max = max(
        1, WINDOWS_MAX // sum(25 * HOUR_US // WIDTHS_US[name] + 1 for one in speaking for name in one.windows)
    )
    share: list[Zone] = []
    readings = 0.0
    for zone in registry.zones_of_kind(kind):
        promised = rates.get(zone.id, 0.0) * seconds * len(quantities)
        if share and (readings + promised > readings_max or len(share) == zones_max):
            yield share
            share, readings = [], 0.0
        share.append(zone)
        readings += promised
    if share:
        yield share


def _rates(registry: Registry, zones: Iterable[str]) -> dict[str, float]:
    """Return how many readings of a quantity a second the devices that ever stood in zones promise, by zone."""
    wanted, known = set(zones), kinds()
    rates: dict[str, float] = {}
    for placement in registry.placements:
        rate = _SECOND_US / interval_us(registry.devices[placement.device], known)
        for zone in wanted.intersection(placement.zones):
            rates[zone] = rates.get(zone, 0.0) + rate
    return rates


def _reach_s(speaking: Sequence[Indicator]) -> float:
    return max(sum(reach_us(one, name, 0)) for one in speaking for name in one.quantities) / _SECOND_US


def _part_of(
    registry: Registry, zones: Sequence[Zone]
) -> tuple[tuple[Zone, ...], tuple[Device, ...], tuple[Placement, ...]]:
    """Return what of the registry is about some zones."""
    wanted = {zone.id for zone in zones}
    placements = tuple(
        msgspec.structs.replace(placement, zones=tuple(zone for zone in placement.zones if zone in wanted))
        for placement in registry.placements
        if wanted.intersection(placement.zones)
    )
    devices = tuple(registry.devices[id_] for id_ in dict.fromkeys(placement.device for placement in placements))
    return tuple(zones), devices, placements


# ---- what a worker does


def compute(encoded: bytes) -> bytes:
    """Compute a task (JSON) and return what it came to (JSON). Raises ConfigError where the planner is another version."""
    task = msgspec.json.decode(encoded, type=Task)
    if task.version != version("qala"):
        raise ConfigError(
            f"this worker has Qala {version('qala')}, and the task comes from {task.version}",
            hint="install the same version on all hosts of the cluster",
        )
    due, left_out = windows_of(task)
    values, readings = _values(task, due) if due and task.devices else ([], 0)
    return msgspec.json.encode(Computed(values, len(due), left_out, readings))


def decode(encoded: bytes) -> Computed:
    """Read what `compute` returned."""
    return msgspec.json.decode(encoded, type=Computed)


def _values(task: Task, due: Sequence[Due]) -> tuple[list[Value], int]:
    lake, known = Lake(task.lake), indicators()
    loaded = load(lake, lake.catalog(), task.registry, kinds(), known, due)
    return values_of(loaded, known, due), loaded.rows


def windows_of(task: Task) -> tuple[list[Due], int]:
    """List a task's windows whose readings the lake has, and count those that it has not all readings of."""
    known, tz = indicators(), ZoneInfo(task.time_zone)
    slowest = max((interval_us(device, kinds()) for device in task.devices), default=0)
    due: list[Due] = []
    left_out = 0
    for name in task.indicators:
        reach = [reach_us(known[name], quantity, slowest) for quantity in known[name].quantities]
        back, ahead = (max(edge) for edge in zip(*reach, strict=True))
        for window in known[name].windows:
            edges = windows_between(window, task.start_us, task.stop_us, tz)
            for start, stop in zip(*(edge.tolist() for edge in edges), strict=True):
                if start < task.start_us:
                    continue
                if any(since <= start - back and stop + ahead <= until for since, until in task.known):
                    due += [Due(name, zone.id, window, start, stop) for zone in task.zones]
                else:
                    left_out += len(task.zones)
    return due, left_out
