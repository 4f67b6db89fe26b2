"""Readings that a device should have given and did not: slots of its interval in which nothing of it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from devices.device import Registry
from devices.kind import Kind
from devices.reading import Int64Array
from qala.state.ledger import HOUR_US
from qala.store.base import Selector, Span, Store

__all__ = ["DEVICE_HOURS_MAX", "Expected", "expected", "missing", "missing_of"]

DEVICE_HOURS_MAX = 10_000
"""Most hours of devices that are looked through at once."""


class Expected(msgspec.Struct, frozen=True):
    """A device from which readings are expected every `interval_us`, during `[since_us, until_us)`."""

    device: str
    interval_us: int
    since_us: int
    until_us: int


def expected(registry: Registry, kinds: Mapping[str, Kind], said_s: Mapping[str, int | None]) -> list[Expected]:
    """Return the devices of kinds that give readings; `said_s` is the interval that a device last gave itself [s].

    What the registry declares of a device counts first, then what it says, then its kind.
    """
    return [
        Expected(
            device.id,
            (device.interval_s or said_s.get(device.id) or kinds[device.kind].interval_s) * 1_000_000,
            device.since_us,
            device.until_us if device.until_us is not None else 2**62,
        )
        for device in registry.devices.values()
        if device.kind in kinds and kinds[device.kind].quantities
    ]


def missing_of(
    store: Store, devices: Sequence[Expected], start_us: int, stop_us: int, now_us: int
) -> Mapping[tuple[str, int], int] | None:
    """Count the slots without a reading, by device and finished hour in `[start_us, stop_us)`; None where that is too much.

    Hours before the oldest reading that the store has are left out.
    """
    extent = store.extent()
    first_us = max(start_us, extent.start_us // HOUR_US * HOUR_US) if extent else stop_us
    hours = range(first_us, min(stop_us, now_us // HOUR_US * HOUR_US), HOUR_US)
    if len(devices) * len(hours) > DEVICE_HOURS_MAX:
        return None
    times = _times(store, devices, hours) if devices and hours else {}
    nothing = np.empty(0, np.int64)
    return {
        (one.device, hour_us): missing(times.get(one.device, nothing), one.interval_us, hour_us)
        for one in devices
        for hour_us in hours
        if one.since_us <= hour_us and hour_us + HOUR_US <= one.until_us
    }


def _times(store: Store, devices: Sequence[Expected], hours: range) -> dict[str, Int64Array]:
    """Return when each device has any reading, rising."""
    around_us = max(one.interval_us for one in devices)
    catalog = store.catalog()
    found: dict[str, list[Int64Array]] = {}
    span = Span(hours[0] - around_us, hours[-1] + HOUR_US + around_us)
    for rows in store.read(Selector(devices=frozenset(one.device for one in devices)), span):
        series, time_us = rows["series"].to_numpy(), rows["time_us"].to_numpy()
        for id_ in np.unique(series).tolist():
            found.setdefault(catalog[id_].device, []).append(time_us[series == id_])
    return {device: np.unique(np.concatenate(parts)) for device, parts in found.items()}


def missing(time_us: Int64Array, interval_us: int, hour_us: int) -> int:
    """Count the slots of an hour in which no reading lies. `time_us` are rising, int64[n].

    A slot is an interval around a moment that the device keeps to: where its readings lie in the interval on average, so
    that one that comes a little early or late is still in its own. A slot belongs to the hour in which that moment lies.

    >>> minute, hour = 60_000_000, 3_600_000_000
    >>> times = np.arange(hour, 2 * hour, minute)
    >>> missing(times, minute, hour), missing(np.delete(times, [5, 6]), minute, hour), missing(times[:0], minute, hour)
    (0, 2, 60)
    """
    start, stop = np.searchsorted(time_us, [hour_us - interval_us, hour_us + HOUR_US + interval_us]).tolist()
    near = time_us[start:stop]
    moment_us = _moment(near, interval_us)
    first = -((moment_us - hour_us) // interval_us)
    last = -((moment_us - hour_us - HOUR_US) // interval_us)
    slot = (near - moment_us + interval_us // 2) // interval_us
    filled = np.unique(slot[(slot >= first) & (slot < last)])
    return int(last - first) - len(filled)


def _moment(time_us: Int64Array, interval_us: int) -> int:
    """Return the mean moment of times within an interval, which goes round: [0, interval)."""
    if not len(time_us):
        return 0
    turns = float(np.angle(np.exp(2j * np.pi * (time_us % interval_us) / interval_us).mean())) / (2 * np.pi)
    return round(turns * interval_us) % interval_us
