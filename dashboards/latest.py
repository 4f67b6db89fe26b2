"""The newest reading of every series, in memory: what is on the map and whether a device lives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from threading import Lock

import msgspec
import numpy as np
import pyarrow as pa

from devices.reading import Batch, BoolArray, SeriesInfo
from qala.store.base import READINGS, Selector, Store
from qala.store.rows import numbers

__all__ = ["DeviceState", "LatestReadings", "Newest", "judge_state"]

_NEVER = np.iinfo(np.int64).min
_DAY_S = 86_400
_AHEAD_US = 300 * 1_000_000  # readings this far ahead of the clock are accepted


class DeviceState(StrEnum):
    """How a device is doing, by the age of its last reading."""

    LIVE = "live"
    LATE = "late"
    SILENT = "silent"
    NEVER = "never"


def judge_state(age_s: float | None, interval_s: int, *, late_after: float, silent_after: float) -> DeviceState:
    """Judge a device by the age of its last reading against its interval.

    >>> [str(judge_state(age, 60, late_after=3, silent_after=10)) for age in (180, 181, 601, None)]
    ['live', 'late', 'silent', 'never']
    """
    if age_s is None:
        return DeviceState.NEVER
    if age_s <= late_after * interval_s:
        return DeviceState.LIVE
    return DeviceState.LATE if age_s <= silent_after * interval_s else DeviceState.SILENT


class Newest(msgspec.Struct, frozen=True):
    """The newest reading of a series. `value` is NaN where it is missing."""

    series: int
    info: SeriesInfo
    time_us: int
    value: float
    flag: int
    received_us: int


class LatestReadings:
    """Newest readings as arrays by series id, which are dense. Threads may write and read at once."""

    def __init__(self, catalog: Callable[[], Mapping[int, SeriesInfo]]) -> None:
        self._catalog = catalog
        self._lock = Lock()
        self._infos: Mapping[int, SeriesInfo] = {}
        self._rows = np.zeros(0, _ROW)
        self._changed = np.zeros(0, np.bool_)
        self._of_device: dict[str, list[int]] = {}

    def load(self, store: Store, now_us: int) -> None:
        """Take over the newest readings of the last week, and of the last year for devices that were silent since."""
        with self._lock:
            self._refresh()
        everything = store.latest(Selector(), at_us=now_us + _AHEAD_US, lookback_s=7 * _DAY_S)
        self.apply(_batch(everything))
        silent = frozenset(info.device for info in self._infos.values()) - self.devices().keys()
        if silent:
            older = store.latest(Selector(devices=silent), at_us=now_us, lookback_s=366 * _DAY_S)
            self.apply(_batch(older))
        with self._lock:
            self._changed[:] = False

    def apply(self, batch: Batch) -> None:
        """Take over what is newer in a batch; of one time, the higher (revision, origin)."""
        with self._lock:
            self._grow(int(batch.series.max(initial=0)))
            batch = batch.take(self._candidates(batch))
            batch = batch.take(np.lexsort((batch.origin, batch.revision, batch.time_us)))
            batch = batch.take(self._outranks(batch))
            row = self._rows
            for column in ("time_us", "value", "flag", "revision", "origin", "received_us"):
                row[column][batch.series] = getattr(
                    batch, column
                )  # of repeated ids the last, which is the newest, stays
            self._changed[batch.series] = True

    def _candidates(self, batch: Batch) -> BoolArray:
        """Mark the readings that have the newest time of their series: few of a large batch, and cheaply found."""
        newest = self._rows["time_us"].copy()
        np.maximum.at(newest, batch.series, batch.time_us)
        found: BoolArray = batch.time_us == newest[batch.series]
        return found

    def _outranks(self, batch: Batch) -> BoolArray:
        held = self._rows[batch.series]
        same = batch.time_us == held["time_us"]
        later = (batch.revision > held["revision"]) | (
            (batch.revision == held["revision"]) & (batch.origin >= held["origin"])
        )
        outranks: BoolArray = (batch.time_us > held["time_us"]) | (same & later)
        return outranks

    def _grow(self, highest: int) -> None:
        """Make room for series up to `highest`; ids are given in rising order, so a new one is higher than all before."""
        missing = highest + 1 - len(self._rows)
        if missing <= 0:
            return
        self._refresh()
        more = np.zeros(missing, _ROW)
        more["time_us"] = _NEVER
        self._rows = np.concatenate([self._rows, more])
        self._changed = np.concatenate([self._changed, np.zeros(missing, np.bool_)])

    def _refresh(self) -> None:
        infos = self._infos = self._catalog()
        self._of_device = {}
        for series, info in infos.items():
            self._of_device.setdefault(info.device, []).append(series)

    def devices(self) -> dict[str, tuple[int, int]]:
        """Return the time and the receipt of the last reading of each device that ever gave one."""
        with self._lock:
            times, received = self._rows["time_us"], self._rows["received_us"]
            known = len(times)
            found = {}
            for device, series in self._of_device.items():
                held = [one for one in series if one < known]
                last = max((int(times[one]) for one in held), default=_NEVER)
                if last != _NEVER:
                    found[device] = (last, max(int(received[one]) for one in held))
            return found

    def of_device(self, device: str) -> list[Newest]:
        """Return the newest reading of each series of a device, by quantity and channel."""
        with self._lock:
            newest = [self._newest(series) for series in self._of_device.get(device, ())]
        held = [one for one in newest if one is not None]
        return sorted(held, key=lambda one: (one.info.quantity, one.info.channel, one.info.span_s))

    def take_changed(self, limit: int) -> list[Newest]:
        """Return the newest readings that changed since the last call, at most `limit`; the others wait for the next."""
        with self._lock:
            series = np.flatnonzero(self._changed)[:limit]
            self._changed[series] = False
            newest = [self._newest(one) for one in series.tolist()]
        return [one for one in newest if one is not None]

    def forget(self) -> list[Newest]:
        """Let go of what changed since the last call of `take_changed`, and return none of it."""
        with self._lock:
            self._changed[:] = False
        return []

    def _newest(self, series: int) -> Newest | None:
        info = self._infos.get(series)
        if info is None or series >= len(self._rows):
            return None
        row = self._rows[series]
        if row["time_us"] == _NEVER:
            return None
        time_us, value, flag, received_us = (row[name].item() for name in ("time_us", "value", "flag", "received_us"))
        return Newest(series, info, time_us, value, flag, received_us)


_ROW = np.dtype(
    [
        ("time_us", np.int64),
        ("value", np.float64),
        ("flag", np.uint8),
        ("revision", np.int32),
        ("origin", np.int64),
        ("received_us", np.int64),
    ],
)


def _batch(table: pa.Table) -> Batch:
    return Batch(*(numbers(table, field.name, field.type.to_pandas_dtype()) for field in READINGS))
