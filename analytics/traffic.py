"""Traffic formulas: flow, space-mean speed and what travel times are compared with. Pure.

Flow q = N * 3600 / T. Space-mean speed is harmonic: sum(q) / sum(q / v) (Wardrop 1952; HCM 2010, chapter 4).
"""

from __future__ import annotations

import msgspec
import numpy as np

from analytics.cells import Cells, Counts, by_zone, cells, count, zone_counts
from analytics.indicator import Inputs, Readings
from analytics.window import harmonic_mean, sum_by
from devices.reading import BoolArray, Float64Array, Int64Array

__all__ = [
    "COUNTS",
    "Flow",
    "RoadSpeed",
    "congestion_level",
    "free_flow",
    "road_flow",
    "road_index",
    "road_speed",
    "travel_time_index",
]

COUNTS = ("vehicle_count", "vehicle_flow")
"""What gives flow, the first that a device has."""

_HOUR_US = 3_600_000_000.0


class Flow(msgspec.Struct):
    """Flow [veh/h] by road and window, float64[zones, windows], NaN where no device counted."""

    value: Float64Array
    counts: Counts
    devices: Float64Array


class RoadSpeed(msgspec.Struct):
    """Space-mean speed [km/h] by road and window, NaN where nothing moved; `weighted` tells where flows were the weights."""

    value: Float64Array
    weighted: BoolArray
    counts: Counts


def travel_time_index(mean_time: Float64Array | float, free_flow_time: Float64Array | float) -> Float64Array | float:
    """Divide the mean travel time by that of free flow (FHWA; U4SSC EC: I: T: 5A). Not clamped: below 1 is faster.

    >>> travel_time_index(5.0, 4.0)
    1.25
    """
    return mean_time / free_flow_time


def congestion_level(index: Float64Array) -> Float64Array:
    """Return how much longer than at free flow a trip takes [%]: 100 (TTI - 1); negative is faster.

    >>> congestion_level(np.array([1.25]))
    array([25.])
    """
    return 100.0 * (index - 1.0)


def road_flow(inputs: Inputs) -> Flow:
    """Return the flow of each road: the mean over its devices, each the sum over its lanes of vehicles by time counted.

    A device's count and its flow are two ways to say the same; where it gives both in a window, the count is taken.
    """
    by_count, counted = _count_flow(inputs)
    by_flow, told = _told_flow(inputs)
    value = np.where(np.isnan(by_count), by_flow, by_count)
    first = ~np.isnan(by_count) | (np.isnan(by_flow) & (counted.owed > 0))
    counts = zone_counts(
        inputs,
        Counts(
            seen=counted.seen + told.seen,
            good=np.where(first, counted.good, told.good),
            owed=np.where(first, counted.owed, told.owed),
            known_us=np.maximum(counted.known_us, told.known_us),
        ),
    )
    devices = by_zone(inputs, ~np.isnan(value))
    mean = np.divide(by_zone(inputs, value), devices, out=np.full(devices.shape, np.nan), where=devices > 0)
    return Flow(mean, counts, devices)


def _count_flow(inputs: Inputs) -> tuple[Float64Array, Counts]:
    """Return the flow of each device by its counts: every lane's vehicles over the time it counted, lanes added."""
    inside = cells(inputs, "vehicle_count", inputs.start_us, inputs.stop_us)
    counts = count(inputs, "vehicle_count", inside, inputs.start_us, inputs.stop_us)
    hours = _span_us(inputs, inside.readings) / _HOUR_US
    return _lanes_added(inside, inside.readings.value, hours), counts


def _told_flow(inputs: Inputs) -> tuple[Float64Array, Counts]:
    """Return the flow of each device as it says it: every lane's mean, lanes added."""
    inside = cells(inputs, "vehicle_flow", inputs.start_us, inputs.stop_us)
    counts = count(inputs, "vehicle_flow", inside, inputs.start_us, inputs.stop_us)
    return _lanes_added(inside, inside.readings.value, np.ones(len(inside.readings))), counts


def _lanes_added(inside: Cells, above: Float64Array, below: Float64Array) -> Float64Array:
    """Divide sums by series and cell, then add the series of a cell up (float64[placed, windows])."""
    readings, good = inside.readings, inside.readings.usable
    run, cell = runs(readings, inside.cell)
    n = len(cell)
    above, below = sum_by(run[good], above[good], n), sum_by(run[good], below[good], n)
    lane = np.divide(above, below, out=np.full(n, np.nan), where=below > 0)
    there = ~np.isnan(lane)
    added = sum_by(cell[there], lane[there], inside.n)
    added[np.bincount(cell[there], minlength=inside.n) == 0] = np.nan
    return inside.grid(added)


def runs(readings: Readings, cell: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Number the runs of rows of one series in one cell; return the run of each row, and the cell of each run."""
    if not len(cell):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    first = np.concatenate(([True], (readings.series[1:] != readings.series[:-1]) | (cell[1:] != cell[:-1])))
    return np.cumsum(first) - 1, cell[first]


def _span_us(inputs: Inputs, readings: Readings) -> Int64Array:
    """Return the time that each count covers; one that does not say covers its device's interval."""
    return np.where(readings.span_us > 0, readings.span_us, inputs.placed.interval_us[readings.placed])


def road_speed(inputs: Inputs) -> RoadSpeed:
    """Return the space-mean speed of each road over all its devices and lanes: sum(q) / sum(q / v).

    A speed's q is the count (or flow) of the same device, lane and time. Where a road has no such pair in a window, speeds
    weigh the same. Zero speeds are left out: nothing that stands has a travel time. Where pairs exist but no vehicle passed,
    there is no speed.
    """
    inside = cells(inputs, "speed", inputs.start_us, inputs.stop_us)
    counts = zone_counts(inputs, count(inputs, "speed", inside, inputs.start_us, inputs.stop_us))
    readings = inside.readings
    moving = readings.usable & (readings.value > 0)
    weight = _paired_flow(inputs, readings)
    zone = _zone_group(inputs, inside)
    n = len(inputs.zones) * inside.windows
    paired = moving & ~np.isnan(weight)
    weighted = np.bincount(zone[paired], minlength=n) > 0
    by_flow = harmonic_mean(zone[paired], readings.value[paired], weight[paired], n)
    alike = harmonic_mean(zone[moving], readings.value[moving], np.ones(int(moving.sum())), n)
    shape = len(inputs.zones), inside.windows
    return RoadSpeed(np.where(weighted, by_flow, alike).reshape(shape), weighted.reshape(shape), counts)


def road_index(inputs: Inputs) -> tuple[RoadSpeed, Float64Array]:
    """Return the speed of each road and its travel-time index, NaN where the road declares no free-flow speed.

    Over one road, travel times are to each other as the inverse of its space-mean speeds.
    """
    speed = road_speed(inputs)
    declared = np.array([[zone.free_flow_kmh or np.nan] for zone in inputs.zones])
    return speed, np.asarray(travel_time_index(1.0 / speed.value, 1.0 / declared))


def free_flow(inputs: Inputs, speed: RoadSpeed, zone: int, window: int) -> dict[str, object]:
    """Say what an index compares: the free-flow speed [km/h], and how speeds were weighted."""
    return {
        "free_flow_kmh": inputs.zones[zone].free_flow_kmh,
        "weights": "flow" if speed.weighted[zone, window] else "equal",
    }


def _zone_group(inputs: Inputs, inside: Cells) -> Int64Array:
    placed, window = np.divmod(inside.cell, max(inside.windows, 1))
    return inputs.placed.zone[placed].astype(np.int64) * inside.windows + window


def _paired_flow(inputs: Inputs, speeds: Readings) -> Float64Array:
    """Return the flow [veh/h] that belongs to each speed, NaN where none does."""
    flow = np.full(len(speeds), np.nan)
    for quantity in reversed(COUNTS):
        readings = inputs.readings[quantity]
        readings = readings.take(readings.usable)
        hours = _span_us(inputs, readings) / _HOUR_US
        per_hour = readings.value / hours if quantity == "vehicle_count" else readings.value
        at = _match(_keys(inputs, readings), _keys(inputs, speeds))
        flow = np.where(at >= 0, per_hour[at] if len(per_hour) else np.nan, flow)
    return flow


def _keys(inputs: Inputs, readings: Readings) -> Int64Array:
    """Number (placed, channel, time) so that equal ones are equal across quantities (times in ms, within 30 years)."""
    lane = readings.placed.astype(np.int64) * len(inputs.channels) + readings.channel
    base = int(inputs.start_us[0]) if len(inputs.start_us) else 0
    return (lane << 40) + (readings.time_us - base) // 1000


def _match(known: Int64Array, wanted: Int64Array) -> Int64Array:
    """Return where each wanted key is among the known ones, -1 where it is not."""
    if not len(known):
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(known, kind="stable")
    at = np.minimum(np.searchsorted(known[order], wanted), len(known) - 1)
    return np.where(known[order[at]] == wanted, order[at], -1)
