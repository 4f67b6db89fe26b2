"""What a value, an episode and a device look like from outside: the same item in lists, single answers and live events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from analytics.alerts import Rule
from analytics.indicator import Indicator
from dashboards.latest import DeviceState, Newest, judge_state
from dashboards.settings import DashboardsSettings
from dashboards.times import iso
from devices.device import Device, Placement, Registry
from devices.kind import Kind
from devices.reading import SeriesInfo
from devices.value import Value
from qala.state.episodes import EpisodeRow

__all__ = [
    "AlertItem",
    "DeviceItem",
    "ValueItem",
    "alert_item",
    "device_items",
    "live_readings",
    "series_key",
    "value_item",
]


class ValueItem(msgspec.Struct, frozen=True):
    """A value with everything that it must not be shown without."""

    indicator: str
    zone: str
    window: str
    start: str
    stop: str
    value: float | None
    unit: str
    coverage: float
    n_good: int
    n_expected: int
    status: str
    provisional: bool
    method: str
    method_version: str
    revision: int
    known: str | None
    detail: Mapping[str, Any]


class Acknowledged(msgspec.Struct, frozen=True):
    """Who took care of an alert, and what they said."""

    actor: str
    comment: str
    time: str


class AlertItem(msgspec.Struct, frozen=True):
    """An episode with what its rule says about it."""

    id: str
    rule: str
    title: str
    zone: str
    severity: str
    owner: str
    runbook: str
    kind: str
    state: str
    start: str
    end: str | None
    indicator: str
    window: str
    unit: str
    value: float | None
    threshold: float | None
    acknowledged: Acknowledged | None


class DeviceItem(msgspec.Struct, frozen=True):
    """A device, where it stands and how it is doing."""

    id: str
    fleet: str
    kind: str
    domain: str
    name: str
    lat: float | None
    lon: float | None
    zones: tuple[str, ...]
    interval_s: int
    state: DeviceState
    last_time: str | None
    last_received: str | None


def value_item(value: Value, now_us: int) -> ValueItem:
    return ValueItem(
        indicator=value.indicator,
        zone=value.zone,
        window=value.window,
        start=iso(value.start_us),
        stop=iso(value.stop_us),
        value=value.value,
        unit=value.unit,
        coverage=value.coverage,
        n_good=value.n_good,
        n_expected=value.n_expected,
        status=value.status,
        provisional=value.provisional(now_us),
        method=value.method,
        method_version=value.method_version,
        revision=value.revision,
        known=iso(value.known_us) if value.known_us else None,
        detail=value.detail,
    )


def alert_item(row: EpisodeRow, rules: Mapping[str, Rule], indicators: Mapping[str, Indicator]) -> AlertItem:
    """Describe an episode; one whose rule is gone still has its own columns."""
    rule, indicator = rules.get(row.rule), indicators.get(row.indicator)
    seen = None
    if row.ack_us is not None:
        seen = Acknowledged(row.ack_actor or "", row.ack_comment or "", iso(row.ack_us))
    return AlertItem(
        id=row.id,
        rule=row.rule,
        title=rule.title if rule else row.rule,
        zone=row.zone,
        severity=row.severity,
        owner=rule.owner if rule else "",
        runbook=rule.runbook if rule else "",
        kind=row.kind,
        state=row.state,
        start=iso(row.start_us),
        end=None if row.end_us is None else iso(row.end_us),
        indicator=row.indicator,
        window=row.window,
        unit=indicator.unit if indicator else "",
        value=row.value,
        threshold=row.threshold,
        acknowledged=seen,
    )


def device_items(
    registry: Registry,
    kinds: Mapping[str, Kind],
    last: Mapping[str, tuple[int, int]],
    now_us: int,
    settings: DashboardsSettings,
) -> list[DeviceItem]:
    """Describe every device that is not retired, by id. `last`: time and receipt of each one's last reading."""
    current = (d for d in registry.devices.values() if d.until_us is None or now_us < d.until_us)
    ordered = sorted(current, key=lambda device: device.id)
    return [
        _device_item(
            d, registry.placement(d.id, now_us), kinds.get(d.kind), last.get(d.id), now_us=now_us, settings=settings
        )
        for d in ordered
    ]


def _device_item(
    device: Device,
    placement: Placement | None,
    kind: Kind | None,
    last: tuple[int, int] | None,
    *,
    now_us: int,
    settings: DashboardsSettings,
) -> DeviceItem:
    interval_s = device.interval_s or (kind.interval_s if kind else 60)
    state = judge_state(
        None if last is None else (now_us - last[0]) / 1e6,
        interval_s,
        late_after=settings.late_after,
        silent_after=settings.silent_after,
    )
    return DeviceItem(
        id=device.id,
        fleet=device.fleet,
        kind=device.kind,
        domain=kind.domain if kind else "",
        name=device.name or device.id,
        lat=placement.lat if placement else None,
        lon=placement.lon if placement else None,
        zones=placement.zones if placement else (),
        interval_s=interval_s,
        state=state,
        last_time=iso(last[0]) if last else None,
        last_received=iso(last[1]) if last else None,
    )


def series_key(info: SeriesInfo) -> str:
    """Return a series' native key.

    >>> series_key(SeriesInfo("a/b", "vehicle_count", "lane1"))
    'vehicle_count.lane1'
    """
    return f"{info.quantity}.{info.channel}" if info.channel else info.quantity


def live_readings(newest: Iterable[Newest]) -> list[dict[str, Any]]:
    """Group newest readings by device and time, each as [value, flag] under its key; NaN becomes null in JSON."""
    grouped: dict[tuple[str, int], dict[str, tuple[float, int]]] = {}
    for one in newest:
        grouped.setdefault((one.info.device, one.time_us), {})[series_key(one.info)] = (one.value, one.flag)
    return [{"device": device, "time": iso(time_us), "values": values} for (device, time_us), values in grouped.items()]
