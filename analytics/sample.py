"""Small inputs by hand, for the examples and tests of indicators. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from analytics.indicator import Inputs, Placed, Readings
from analytics.window import windows_between
from devices.device import Device, Zone
from devices.quantity import QUANTITIES, Aggregation
from devices.reading import Int64Array

__all__ = ["START_US", "sample"]

START_US = 1_767_207_600_000_000
"""2026-01-01 00:00 in Asia/Almaty."""


def sample(
    zone_kind: str,
    /,
    *,
    window: str = "1h",
    windows: int = 1,
    zone: Mapping[str, Any] | None = None,
    device: Mapping[str, Any] | None = None,
    **series: Sequence[Sequence[float | None]],
) -> Inputs:
    """Make inputs of one zone from one list of values a device and quantity, spread evenly over the windows.

    The spacing is the devices' declared interval; a sum spans it, and a counter's last value stands at the very end. None
    is a missing reading. `zone` and `device` are further fields of Zone and Device.
    """
    starts, stops = windows_between(window, START_US, START_US + 1, _TZ)
    width = int(stops[0] - starts[0])
    edges = starts[0] + width * np.arange(windows + 1)
    length = int(edges[-1] - edges[0])
    spacing = {name: length // _steps(name, lists[0]) for name, lists in series.items()}
    devices = max(len(lists) for lists in series.values())
    return Inputs(
        zones=(Zone("z", zone_kind, {}, {}, **(zone or {})),),
        devices=[Device(f"fleet/{n}", "kind", **(device or {})) for n in range(devices)],
        placed=_placed(devices, min(spacing.values())),
        channels=("",),
        start_us=edges[:-1],
        stop_us=edges[1:],
        readings={name: _readings(name, series.get(name, ()), spacing.get(name, 1), edges[0]) for name in QUANTITIES},
        promised={name: np.full(devices, name in series) for name in QUANTITIES},
    )


_TZ = ZoneInfo("Asia/Almaty")


def _steps(name: str, values: Sequence[float | None]) -> int:
    return len(values) - (QUANTITIES[name].aggregation is Aggregation.COUNTER)


def _placed(devices: int, interval_us: int) -> Placed:
    return Placed(
        zone=np.zeros(devices, np.int32),
        device=np.arange(devices, dtype=np.int32),
        since_us=np.zeros(devices, np.int64),
        until_us=np.full(devices, np.iinfo(np.int64).max),
        interval_us=np.full(devices, interval_us, np.int64),
    )


def _readings(name: str, lists: Sequence[Sequence[float | None]], spacing: int, start_us: int) -> Readings:
    value = np.array([np.nan if value is None else value for values in lists for value in values], np.float64)
    device = np.repeat(np.arange(len(lists), dtype=np.int32), [len(values) for values in lists])
    steps: Int64Array = np.concatenate([np.arange(len(values)) for values in lists] or [np.empty(0, np.int64)])
    span = spacing if QUANTITIES[name].aggregation is Aggregation.SUM else 0
    return Readings(
        placed=device,
        series=device,
        channel=np.zeros(len(value), np.int32),
        time_us=start_us + spacing * steps,
        span_us=np.full(len(value), span, np.int64),
        value=value,
        usable=~np.isnan(value),
        received_us=start_us + spacing * steps,
    )
