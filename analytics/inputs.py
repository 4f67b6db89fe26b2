"""From the store's readings to the inputs of indicators: placed, in canonical order, with the context checks' flags."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec
import numpy as np
import pyarrow as pa

from analytics.due import context_us, interval_us, register_reach_us
from analytics.indicator import Indicator, Inputs, Placed, Readings
from devices.device import Device, Registry, Zone
from devices.kind import Kind
from devices.quality import derive_flags, limits_of
from devices.quantity import QUANTITIES
from devices.reading import USABLE, BoolArray, Float64Array, Int32Array, Int64Array, SeriesInfo, UInt8Array
from qala.state.dirty import Due
from qala.store.base import READINGS, Selector, Span
from qala.store.rows import numbers

__all__ = ["Loaded", "Source", "load", "reach_us"]

_SECOND_US = 1_000_000
_FOREVER = np.iinfo(np.int64).max


class Source(Protocol):
    """Where readings are read from: a store, or the lake."""

    def read(self, select: Selector, span: Span) -> Iterator[pa.RecordBatch]:
        """Yield readings (READINGS) ordered by (series, time)."""


class Loaded(msgspec.Struct):
    """Readings around some windows, and who stood where: all that the inputs of their indicators are cut from."""

    zones: Sequence[Zone]
    devices: Sequence[Device]
    placed: Placed
    channels: Sequence[str]
    readings: Mapping[str, Readings]
    promised: Mapping[str, BoolArray]
    rows: int

    def inputs(self, indicator: Indicator, start_us: Int64Array, stop_us: Int64Array) -> Inputs:
        """Make an indicator's inputs over some windows."""
        return Inputs(
            zones=self.zones,
            devices=self.devices,
            placed=self.placed,
            channels=self.channels,
            start_us=start_us,
            stop_us=stop_us,
            readings={name: self.readings[name] for name in indicator.quantities},
            promised={name: self.promised[name] for name in indicator.quantities},
        )


class _Columns(msgspec.Struct):
    """Rows of a read that indicators look at, sorted by (series, time)."""

    series: Int32Array
    time_us: Int64Array
    value: Float64Array
    flag: UInt8Array
    received_us: Int64Array


def reach_us(indicator: Indicator, quantity: str, register_interval_us: int) -> tuple[int, int]:
    """Return how far (before, after) a window an indicator needs readings of a quantity [us], context checks included."""
    back, ahead = context_us(quantity)
    register = register_reach_us(quantity, register_interval_us) if indicator.bracket else 0
    return indicator.back_s * _SECOND_US + back + register, indicator.ahead_s * _SECOND_US + ahead + register


def load(
    store: Source,
    catalog: Mapping[int, SeriesInfo],
    registry: Registry,
    kinds: Mapping[str, Kind],
    indicators: Mapping[str, Indicator],
    due: Sequence[Due],
) -> Loaded:
    """Read what due windows of zones of one kind depend on."""
    zones = [registry.zones[zone] for zone in sorted({window.zone for window in due})]
    devices, placed = _placed(registry, kinds, zones)
    slowest = int(placed.interval_us.max(initial=0))
    spans = _spans(indicators, due, slowest)
    quantities = sorted(spans)
    series = _canonical(catalog, devices, quantities)
    channels = sorted({info.channel for _, info in series})
    readings: dict[str, Readings] = {}
    rows = 0
    for span in sorted(set(spans.values()), key=lambda span: (span.start_us, span.stop_us)):
        names = frozenset(name for name in quantities if spans[name] == span)
        select = Selector(devices=frozenset(device.id for device in devices), quantities=names)
        table = pa.Table.from_batches(store.read(select, span), schema=READINGS)
        rows += len(table)
        columns = _columns(table)
        for name in sorted(names):
            of_it = [(rank, id_, info) for rank, (id_, info) in enumerate(series) if info.quantity == name]
            readings[name] = _readings(columns, name, of_it, devices, placed, channels)
    promised = {name: _promised(kinds, devices, placed, name) for name in quantities}
    return Loaded(zones, devices, placed, channels, readings, promised, rows)


def _spans(indicators: Mapping[str, Indicator], due: Iterable[Due], register_interval_us: int) -> dict[str, Span]:
    """Return the time of which each quantity is needed."""
    edges: dict[str, tuple[int, int]] = {}
    for window in due:
        low, high = edges.get(window.indicator, (window.start_us, window.stop_us))
        edges[window.indicator] = min(low, window.start_us), max(high, window.stop_us)
    spans: dict[str, Span] = {}
    for name, (start, stop) in edges.items():
        for quantity in indicators[name].quantities:
            back, ahead = reach_us(indicators[name], quantity, register_interval_us)
            known = spans.get(quantity, Span(start - back, stop + ahead))
            spans[quantity] = Span(min(known.start_us, start - back), max(known.stop_us, stop + ahead))
    return spans


def _placed(registry: Registry, kinds: Mapping[str, Kind], zones: Sequence[Zone]) -> tuple[list[Device], Placed]:
    """List who stands, or stood, in the zones."""
    index = {zone.id: n for n, zone in enumerate(zones)}
    rows = [
        (registry.devices[placement.device], index[zone], placement.since_us, placement.until_us)
        for placement in registry.placements
        for zone in placement.zones
        if zone in index
    ]
    devices = list({device.id: device for device, *_ in rows}.values())
    number = {device.id: n for n, device in enumerate(devices)}
    until = [min(_us(stop), _us(device.until_us)) for device, _, _, stop in rows]
    return devices, Placed(
        zone=np.array([zone for _, zone, _, _ in rows], np.int32),
        device=np.array([number[device.id] for device, *_ in rows], np.int32),
        since_us=np.array([since for _, _, since, _ in rows], np.int64),
        until_us=np.array(until, np.int64),
        interval_us=np.array([interval_us(device, kinds) for device, *_ in rows], np.int64),
    )


def _us(until: int | None) -> int:
    return _FOREVER if until is None else until


def _promised(kinds: Mapping[str, Kind], devices: Sequence[Device], placed: Placed, quantity: str) -> BoolArray:
    lists = [device.kind in kinds and quantity in kinds[device.kind].quantities for device in devices]
    return np.array(lists, np.bool_)[placed.device]


def _canonical(
    catalog: Mapping[int, SeriesInfo], devices: Sequence[Device], quantities: Sequence[str]
) -> list[tuple[int, SeriesInfo]]:
    """List the series of devices in an order that does not depend on when each was first seen."""
    wanted = {device.id for device in devices}
    found = [(id_, info) for id_, info in catalog.items() if info.device in wanted and info.quantity in quantities]
    return sorted(found, key=lambda item: (item[1].device, item[1].quantity, item[1].channel, item[1].span_s))


def _columns(table: pa.Table) -> _Columns:
    return _Columns(
        series=numbers(table, "series", np.int32),
        time_us=numbers(table, "time_us", np.int64),
        value=numbers(table, "value", np.float64),
        flag=numbers(table, "flag", np.uint8),
        received_us=numbers(table, "received_us", np.int64),
    )


def _readings(
    stored: _Columns,
    quantity: str,
    series: Sequence[tuple[int, int, SeriesInfo]],
    devices: Sequence[Device],
    placed: Placed,
    channels: Sequence[str],
) -> Readings:
    """Take the readings of one quantity out of rows sorted by (series, time), and put them where their devices stood."""
    ids = np.array([id_ for _, id_, _ in series], np.int32)
    low = np.searchsorted(stored.series, ids, side="left")
    high = np.searchsorted(stored.series, ids, side="right")
    rows = _ranges(low, high)
    time_us, value = stored.time_us[rows], stored.value[rows]
    flag = derive_flags(stored.series[rows], time_us, value, stored.flag[rows], limits_of(QUANTITIES[quantity]))
    usable = np.isin(flag, [int(flag) for flag in USABLE]) & np.isfinite(value)
    lengths = high - low
    offsets = np.cumsum(lengths) - lengths
    pieces = _pieces(series, offsets, lengths, time_us, devices, placed, channels)
    picked = _ranges(pieces[:, 0], pieces[:, 1])
    rank, where, channel, span = np.repeat(pieces[:, 2:], pieces[:, 1] - pieces[:, 0], axis=0).T
    return Readings(
        placed=where.astype(np.int32),
        series=rank.astype(np.int32),
        channel=channel.astype(np.int32),
        time_us=time_us[picked],
        span_us=span,
        value=value[picked],
        usable=usable[picked],
        received_us=stored.received_us[rows][picked],
    )


def _pieces(
    series: Sequence[tuple[int, int, SeriesInfo]],
    offsets: Int64Array,
    lengths: Int64Array,
    time_us: Int64Array,
    devices: Sequence[Device],
    placed: Placed,
    channels: Sequence[str],
) -> Int64Array:
    """Cut series where their devices moved: rows from, to, rank, placed, channel, span [us] (int64[n, 6])."""
    at: dict[str, list[int]] = {}
    for row, device in enumerate(placed.device.tolist()):
        at.setdefault(devices[device].id, []).append(row)
    pieces = []
    for (rank, _, info), offset, length in zip(series, offsets.tolist(), lengths.tolist(), strict=True):
        times = time_us[offset : offset + length]
        for row in at[info.device]:
            low, high = np.searchsorted(times, [placed.since_us[row], placed.until_us[row]])
            if low < high:
                channel = channels.index(info.channel)
                pieces.append((offset + low, offset + high, rank, row, channel, info.span_s * _SECOND_US))
    return np.array(pieces, np.int64).reshape(-1, 6)


def _ranges(low: Int64Array, high: Int64Array) -> Int64Array:
    """Return the numbers of every range `[low, high)`, one range after the other."""
    lengths = high - low
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    ranges: Int64Array = np.arange(total) + np.repeat(low - (ends - lengths), lengths)
    return ranges
