"""The rehearsal city: a seeded, deterministic fleet in a planned city, publishing in the native format.

Everything that happens at a device at a time follows from the seed alone, so a range of time gives the same readings however
it is cut, and a city that was stopped goes on as if it had not been. A UTC day is made at once, then sent in order.

What is sent, on `<root>/1/<fleet>/<device>/t`:

- air stations, meters and weather stations: `{"t": ms, "v": {...}}`, values of an instant;
- traffic detectors: `{"t": ms, "w": 60000, "v": {...}}`, where t is the END of the minute that was counted;
- many readings at once (`batch_s`, and late batches): `{"t": ms, "i": step, "v": {quantity: [...]}}`, and where some in between
  are missing `{"t": [ms, ...], "v": {...}}`; for detectors with `"w": 60000`, and then each time is the END of its window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from devices.device import Device, Placement, Zone
from devices.reading import BoolArray, Float64Array, Int64Array
from devices.rehearsal import model, plan
from devices.rehearsal.day import Day, Sent, spoil, spoilt
from devices.rehearsal.faults import FAULTS, Fault, FaultKind, day_faults
from devices.rehearsal.fleet import make_fleet
from devices.rehearsal.model import DAY_S, MINUTES
from devices.rehearsal.noise import uniform

__all__ = ["FIRST_DAY", "City", "Planned"]

MINUTE_US = 60_000_000
SECOND_US = 1_000_000
FIRST_DAY = 18_262
"""The city was founded on 2020-01-01 (days since 1970); there is nothing before."""

_KINDS = ("traffic_detector", "air_station", "electricity_meter", "weather_station")
_EVERY = {"weather_station": 5}  # minutes between readings, where it is not one
_INTEGERS = frozenset({"vehicle_count", "active_power", "wind_direction"})
_LATENCY_MAX_US = 10 * SECOND_US
_CHUNK_S = 600


class Planned(msgspec.Struct, frozen=True):
    """A message to publish, and when [us, UTC]."""

    time_us: int
    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False


class City:
    """A city of `devices` devices that lives by a `seed`, with faults at the given rates (`FAULTS`; `{}` for none)."""

    def __init__(
        self,
        seed: int = 1,
        devices: int = 300,
        faults: Mapping[str, float] = FAULTS,
        *,
        topic_root: str = "qala",
    ) -> None:
        self.seed = seed
        self._rates = dict(faults)
        self._root = topic_root
        self._fleet = make_fleet(seed, devices)
        self._rows = {each.id: (kind, row) for kind in _KINDS for row, each in enumerate(self._fleet.devices[kind])}
        self._day = lru_cache(maxsize=3 * len(_KINDS))(self._make_day)
        self._swapped = lru_cache(maxsize=20_000)(self._find_swapped)

    def registry(self) -> tuple[list[Device], list[Zone], list[Placement]]:
        """Return the devices, the zones and where the devices stand."""
        devices = [each for kind in _KINDS for each in self._fleet.devices[kind]]
        return devices, list(plan.city()), list(self._fleet.placements)

    def truth(self, start_us: int, stop_us: int) -> list[Fault]:
        """Return the faults that spoil readings at times in `[start_us, stop_us)`, by start."""
        days = range(start_us // (DAY_S * SECOND_US), -(-stop_us // (DAY_S * SECOND_US)))
        found = [fault for day in days for fault in self._faults(day)]
        return sorted(
            (fault for fault in found if fault.start_us < stop_us and fault.end_us > start_us),
            key=attrgetter("start_us", "device", "kind"),
        )

    def messages(self, start_us: int, stop_us: int, *, batch_s: int | None = None) -> Iterator[Planned]:
        """Yield the messages that are due in `[start_us, stop_us)`, in the order of publishing.

        With `batch_s`, the readings of each device that are due within each `batch_s` (counted from 1970) are sent
        together with the last of them; what is sent twice, malformed or late is sent as it is without. Either way the
        same readings are sent, so history in batches up to a moment and single messages from there fit together.
        """
        if start_us < FIRST_DAY * DAY_S * SECOND_US:
            raise ValueError("the city has no past before 2020")
        chunk_us = (batch_s or _CHUNK_S) * SECOND_US
        for edge_us in range(start_us // chunk_us * chunk_us, stop_us, chunk_us):
            begin_us, end_us = max(start_us, edge_us), min(stop_us, edge_us + chunk_us)
            yield from sorted(
                self._due(begin_us, end_us, together=batch_s is not None), key=attrgetter("time_us", "topic")
            )

    def _due(self, start_us: int, stop_us: int, *, together: bool) -> Iterator[Planned]:
        first, last = (start_us - _LATENCY_MAX_US) // (DAY_S * SECOND_US), (stop_us - 1) // (DAY_S * SECOND_US)
        for kind in _KINDS:
            for day in range(max(first, FIRST_DAY), last + 1):
                made = self._day(kind, day)
                due = (made.due_us >= start_us) & (made.due_us < stop_us) & (made.sent != Sent.NEVER)
                yield from self._sent_alone(kind, made, due if not together else due & (made.sent != Sent.NORMAL))
                yield from self._sent_together(kind, made, due & (made.sent == Sent.LATE))
                if together:
                    yield from self._sent_together(kind, made, due & (made.sent == Sent.NORMAL))

    def _sent_alone(self, kind: str, made: Day, due: BoolArray) -> Iterator[Planned]:
        rows, places = np.nonzero(due & (made.sent != Sent.LATE))
        columns = {name: column[rows, places].tolist() for name, column in made.columns.items()}
        names, window = tuple(columns), _window(kind)
        picked = (made.time_us[rows, places] // 1000, made.due_us[rows, places], made.sent[rows, places])
        for row, time_ms, due_us, sent, *values in zip(
            rows.tolist(), *(each.tolist() for each in picked), *columns.values(), strict=True
        ):
            payload = msgspec.json.encode({"t": time_ms, **window, "v": dict(zip(names, values, strict=True))})
            if sent == Sent.MALFORMED:
                payload = spoilt(payload, time_ms // 60_000)
            message = Planned(due_us, self._topic(kind, row), payload)
            yield message
            if sent == Sent.TWICE:
                yield message

    def _sent_together(self, kind: str, made: Day, due: BoolArray) -> Iterator[Planned]:
        for row in np.flatnonzero(due.any(axis=1)).tolist():
            places = np.flatnonzero(due[row])
            times_ms = made.time_us[row, places] // 1000
            values = {name: column[row, places].tolist() for name, column in made.columns.items()}
            payload = msgspec.json.encode({**_times(times_ms), **_window(kind), "v": values})
            yield Planned(int(made.due_us[row, places].max()), self._topic(kind, row), payload)

    def _topic(self, kind: str, row: int) -> str:
        return f"{self._root}/1/{self._fleet.devices[kind][row].id}/t"

    def _faults(self, day: int) -> list[Fault]:
        return list(day_faults(self.seed, day, self._rates, self._fleet.devices))

    def _make_day(self, kind: str, day: int) -> Day:
        """Make a day of a kind: what is true, then what its faults make of it."""
        every = _EVERY.get(kind, 1)
        made = self._make_true(kind, day, every)
        for fault in self._faults(day):
            fault_kind, row = self._rows[fault.device]
            if fault_kind == kind:
                first, last = ((edge - day * DAY_S * SECOND_US) // MINUTE_US for edge in (fault.start_us, fault.end_us))
                spoil(made, fault, row, slice(first // every, -(-last // every)))
        made.columns = {
            name: column.astype(np.int64) if name in _INTEGERS else column for name, column in made.columns.items()
        }
        return made

    def _make_true(self, kind: str, day: int, every: int) -> Day:
        columns = {name: column[:, ::every] for name, column in self._model(kind, day).items()}
        count = len(self._fleet.devices[kind])
        rows = np.arange(count)[:, None]
        minute_us = (day * DAY_S * SECOND_US + MINUTE_US * np.arange(0, MINUTES, every, dtype=np.int64))[None, :]
        # Detectors count whole minutes and report together; the others look at their own second of the minute.
        counts = kind == "traffic_detector"
        phase_s = np.where(counts, 60, np.floor(60 * uniform(self.seed, 71, rows))).astype(np.int64)
        time_us = minute_us + phase_s * SECOND_US
        latency_ms = 50 + uniform(self.seed, 72, rows, minute_us // MINUTE_US) * (2500 if counts else 400)
        sent = np.full((count, minute_us.shape[1]), Sent.NORMAL, np.uint8)
        return Day(time_us, time_us + latency_ms.astype(np.int64) * 1000, sent, columns)

    def _model(self, kind: str, day: int) -> dict[str, Float64Array]:
        fleet = self._fleet
        if kind == "traffic_detector":
            return model.streets(self.seed, day, fleet.roads, fleet.road)
        if kind == "air_station":
            return model.air(self.seed, day, fleet.places)
        if kind == "weather_station":
            return model.weather(self.seed, day, len(fleet.devices[kind]))
        columns = model.grid(self.seed, day, fleet.meters)
        columns["energy_import"] = (columns["energy_import"] + self._counters(day)[:, None]).round(3)
        return columns

    def _counters(self, day: int) -> Float64Array:
        """Return what each meter shows as a day begins [kWh]: all it counted since it was put in, or was swapped."""
        days = np.arange(FIRST_DAY, day)
        counted = np.cumsum(model.day_energy(self.seed, days, self._fleet.meters), axis=1)
        before = np.column_stack((np.zeros(len(counted)), counted))
        shows = before[:, -1] + np.floor(1000 * uniform(self.seed, 73, np.arange(len(counted))))
        for each in range(FIRST_DAY, day + 1):
            for row in self._swapped(each):
                shows[row] = before[row, -1] - before[row, each - FIRST_DAY]
        return shows

    def _find_swapped(self, day: int) -> Sequence[int]:
        """Return the rows of the meters that begin anew with this day."""
        rates: dict[str, float] = {FaultKind.METER_RESET: self._rates.get(FaultKind.METER_RESET, 0.0)}
        return [self._rows[fault.device][1] for fault in day_faults(self.seed, day, rates, self._fleet.devices)]


def _window(kind: str) -> Mapping[str, int]:
    return {"w": 60_000} if kind == "traffic_detector" else {}


def _times(times_ms: Int64Array) -> Mapping[str, Any]:
    """Say when readings were taken: start and step where they are even, else each."""
    steps = np.diff(times_ms)
    if len(steps) and steps[0] > 0 and (steps == steps[0]).all():
        return {"t": int(times_ms[0]), "i": int(steps[0])}
    return {"t": times_ms.tolist()}
