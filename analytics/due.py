"""Which windows depend on readings that changed. Pure.

A changed reading reaches the windows that its indicators look at it from, those of readings whose context checks look at
it, and for registers those whose edges are interpolated with it. Windows that have not begun are left out: they become due
by their own readings, and a window without any has no value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from analytics.indicator import Indicator
from analytics.registers import MAX_GAP_INTERVALS
from analytics.window import windows_between
from devices.device import Device, Placement, Registry
from devices.kind import Kind
from devices.quality import context_s, limits_of
from devices.quantity import QUANTITIES, Aggregation
from devices.reading import BoolArray, Int32Array, Int64Array, SeriesInfo
from qala.state.dirty import BUCKET_US, Due, Taken

__all__ = ["INTERVAL_S", "Stays", "context_us", "due_windows", "interval_us", "register_reach_us"]

INTERVAL_S = 60
"""Declared interval of devices whose kind is not known [s]."""

_SECOND_US = 1_000_000
_BUCKET_BITS = 32
_FOREVER = np.iinfo(np.int64).max
_SERIES_MAX = 200_000  # whose stays are remembered


class _Marked(msgspec.Struct):
    """Buckets in which readings of a quantity changed, by zone: columns of one length. `register_us` is how far edges reach."""

    quantity: Int64Array  # index into the names
    zone: Int64Array  # index into the zones
    bucket: Int64Array
    register_us: Int64Array

    def take(self, where: BoolArray) -> _Marked:
        return _Marked(*(column[where] for column in msgspec.structs.astuple(self)))


class Stays:
    """Remembers where series stood, while the registry is the same object: int64[n, 5], or None for nowhere. For one thread."""

    def __init__(self) -> None:
        self._registry: Registry | None = None
        self._known: dict[str, dict[int, Int64Array | None]] = {}

    def of(self, registry: Registry, zone_kind: str) -> dict[int, Int64Array | None]:
        """Return what is known of series (by id) and zones of a kind, to be added to."""
        if registry is not self._registry:
            self._registry, self._known = registry, {}
        known = self._known.setdefault(zone_kind, {})
        if len(known) > _SERIES_MAX:
            known.clear()
        return known


def interval_us(device: Device, kinds: Mapping[str, Kind]) -> int:
    """Return the declared interval of a device [us]: its own, or its kind's."""
    kind = kinds.get(device.kind)
    return (device.interval_s or (kind.interval_s if kind else INTERVAL_S)) * _SECOND_US


def register_reach_us(quantity: str, device_interval_us: int) -> int:
    """Return how far the edges of windows reach for readings of a register [us]; 0 for what is no register."""
    counter = QUANTITIES[quantity].aggregation is Aggregation.COUNTER
    return MAX_GAP_INTERVALS * device_interval_us if counter else 0


def context_us(quantity: str) -> tuple[int, int]:
    """Return how far (back, ahead) [us] the context checks of a reading look."""
    back_s, ahead_s = context_s(limits_of(QUANTITIES[quantity]))
    return back_s * _SECOND_US, ahead_s * _SECOND_US


def due_windows(
    taken: Taken,
    catalog: Mapping[int, SeriesInfo],
    registry: Registry,
    kinds: Mapping[str, Kind],
    indicators: Mapping[str, Indicator],
    tz: ZoneInfo,
    now_us: int,
    stays: Stays,
) -> list[Due]:
    """Return every window that depends on the marks, each once. `stays` is of these kinds and indicators alone."""
    found: list[Due] = []
    for zone_kind in sorted({indicator.zone_kind for indicator in indicators.values()}):
        speaking = [indicator for indicator in indicators.values() if indicator.zone_kind == zone_kind]
        names = sorted({quantity for indicator in speaking for quantity in indicator.quantities})
        zones = [zone.id for zone in registry.zones_of_kind(zone_kind)]
        marked = _by_zone(taken, catalog, registry, kinds, names, zones, stays.of(registry, zone_kind))
        for indicator in speaking:
            of_it = marked.take(np.isin(marked.quantity, [names.index(name) for name in indicator.quantities]))
            found += _of_indicator(indicator, of_it, names, zones, tz, now_us)
    return found


def _by_zone(
    taken: Taken,
    catalog: Mapping[int, SeriesInfo],
    registry: Registry,
    kinds: Mapping[str, Kind],
    names: Sequence[str],
    zones: Sequence[str],
    known: dict[int, Int64Array | None],
) -> _Marked:
    """Find the zones that marked series stood in, and leave each (quantity, zone, bucket) once."""
    order = np.argsort(taken.series, kind="stable")
    series, starts, lengths = np.unique(taken.series[order], return_index=True, return_counts=True)
    stays = _stays(series, catalog, registry, kinds, names, {zone: n for n, zone in enumerate(zones)}, known)
    length = lengths[stays[:, 0]]
    row = np.repeat(starts[stays[:, 0]] - np.cumsum(length) + length, length) + np.arange(length.sum())
    bucket = taken.bucket[order[row]]
    since_us, until_us = np.repeat(stays[:, 4:], length, axis=0).T
    inside = ((bucket + 1) * BUCKET_US > since_us) & (bucket * BUCKET_US < until_us)
    places, place = np.unique(stays[:, 1:4], axis=0, return_inverse=True)
    code = np.unique((np.repeat(place, length)[inside] << _BUCKET_BITS) | bucket[inside])
    quantity, zone, reach = places[code >> _BUCKET_BITS].T
    return _Marked(quantity, zone, code & ((1 << _BUCKET_BITS) - 1), reach)


def _stays(
    series: Int32Array,
    catalog: Mapping[int, SeriesInfo],
    registry: Registry,
    kinds: Mapping[str, Kind],
    names: Sequence[str],
    zones: Mapping[str, int],
    known: dict[int, Int64Array | None],
) -> Int64Array:
    """List when series of some quantities stood in some zones: int64[n, 6].

    The columns: index of the series, of the quantity and of the zone, how far its edges reach [us], since, until [UTC us].
    """
    quantities = {name: n for n, name in enumerate(names)}
    ids = series.tolist()
    for id_ in ids:
        if id_ not in known and (info := catalog.get(id_)) is not None:
            known[id_] = _stays_of(info, registry, kinds, quantities, zones)
    placed = [(index, stays) for index, id_ in enumerate(ids) if (stays := known.get(id_)) is not None]
    if not placed:
        return np.empty((0, 6), np.int64)
    index = np.repeat(np.array([index for index, _ in placed], np.int64), [len(stays) for _, stays in placed])
    return np.column_stack((index, np.concatenate([stays for _, stays in placed])))


def _stays_of(
    info: SeriesInfo,
    registry: Registry,
    kinds: Mapping[str, Kind],
    quantities: Mapping[str, int],
    zones: Mapping[str, int],
) -> Int64Array | None:
    """Return the rows of one series without its index; None where it never stood in any of the zones."""
    if info.quantity not in quantities or info.device not in registry.devices:
        return None
    reach = register_reach_us(info.quantity, interval_us(registry.devices[info.device], kinds))
    found = [
        (quantities[info.quantity], zones[zone], reach, placement.since_us, _end_us(placement))
        for placement in registry.placements_of(info.device)
        for zone in placement.zones
        if zone in zones
    ]
    return np.array(found, np.int64) if found else None


def _end_us(placement: Placement) -> int:
    return _FOREVER if placement.until_us is None else placement.until_us


def _of_indicator(
    indicator: Indicator, marked: _Marked, names: Sequence[str], zones: Sequence[str], tz: ZoneInfo, now_us: int
) -> list[Due]:
    if not len(marked.bucket):
        return []
    context = np.array([context_us(name) for name in names], np.int64)[marked.quantity]
    register = marked.register_us if indicator.bracket else np.zeros(len(marked.bucket), np.int64)
    before = indicator.ahead_s * _SECOND_US + context[:, 1]
    after = indicator.back_s * _SECOND_US + context[:, 0] + register
    found: list[Due] = []
    for name in indicator.windows:
        zone, start, stop, ready = _windows(name, marked, before, after, register, tz, now_us)
        found += [
            Due(indicator.name, zones[z], name, a, b, c)
            for z, a, b, c in zip(zone.tolist(), start.tolist(), stop.tolist(), ready.tolist(), strict=True)
        ]
    return found


def _windows(
    name: str,
    marked: _Marked,
    before: Int64Array,
    after: Int64Array,
    register: Int64Array,
    tz: ZoneInfo,
    now_us: int,
) -> tuple[Int64Array, Int64Array, Int64Array, Int64Array]:
    """List windows of one width once each: zone, start, stop, and when they may be computed.

    A window that has ended before the bucket began waits, so that it is computed once and not with every reading: where
    only context checks or the hours after it look at the bucket, for the bucket's end; where registers interpolate with
    it, until their reach is over. Registers that are read seldom are not waited for.
    """
    begin = marked.bucket * BUCKET_US
    end = begin + BUCKET_US
    low = begin - np.maximum(before, register)
    high = np.maximum(np.minimum(end + after, now_us + 1), end)
    start, stop = windows_between(name, int(low.min()), int(high.max()), tz)
    first, last = np.searchsorted(stop, low, side="right"), np.searchsorted(start, high, side="left")
    times = last - first
    row = np.repeat(np.arange(len(times)), times)
    window = np.arange(len(row)) - np.repeat(np.cumsum(times) - times, times) + first[row]
    ready = _ready(stop[window], begin[row], register[row], now_us)
    code = marked.zone[row] * len(start) + window
    order = np.lexsort((ready, code))
    code, ready = code[order], ready[order]
    once = np.concatenate(([True], code[1:] != code[:-1]))
    zone, at = np.divmod(code[once], len(start))
    return zone, start[at], stop[at], ready[once]


def _ready(stop: Int64Array, begin: Int64Array, register: Int64Array, now_us: int) -> Int64Array:
    """Return from when on windows may be computed (int64[n])."""
    reached = stop + register
    for_edge = np.where(reached > now_us, reached, begin + BUCKET_US)
    waits_for_edge = (stop <= begin) & (register <= BUCKET_US)
    return np.where(reached <= begin, begin + BUCKET_US, np.where(waits_for_edge, for_edge, stop))
