"""The tables of the door's bench: ratios first, then the figures that they are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qala.bench.acknowledging import Acknowledged, Beside
from qala.bench.broker import SHAPE, Seen
from qala.bench.crowd import Idle, Storm
from qala.bench.way import SHAPES, Way

__all__ = ["Table", "acknowledged", "crowds", "flooded", "ratios", "subscribed", "ways"]

Table = tuple[str, Sequence[str], Sequence[tuple[str, Sequence[str]]]]
"""A title, the columns' names, and lines of a name and a cell for each column."""

_USUAL = "mosquitto+telegraf+influxdb"
_INDICATORS = "serve: scheduler"


def ratios(found: Sequence[Way]) -> Table:
    """Return the usual way's CPU over ours, by shape; nothing where only one of them was measured."""
    by_shape = _by_shape(found)
    lines = [
        (shape.name, [*(_times(by_shape[shape.name], name) for name in ("qala", "qala+influxdb")), f"{shape.goal:g}"])
        for shape in SHAPES
        if _USUAL in by_shape.get(shape.name, {})
    ]
    return "CPU of mosquitto + Telegraf + InfluxDB over Qala's", ["qala", "qala+influxdb", "goal"], lines


def _by_shape(found: Sequence[Way]) -> dict[str, dict[str, Way]]:
    by_shape: dict[str, dict[str, Way]] = {}
    for way in found:
        by_shape.setdefault(way.shape, {})[way.system] = way
    return by_shape


def _times(systems: Mapping[str, Way], name: str) -> str:
    """Return the ratio, and behind it the one without the indicators, which the usual way does not compute."""
    if name not in systems:
        return "-"
    ours = systems[name]
    bare = ours.cpu_us - ours.cpu_us_by_thread.get(_INDICATORS, 0.0)
    return f"{systems[_USUAL].cpu_us / ours.cpu_us:.1f} ({systems[_USUAL].cpu_us / bare:.1f})"


def ways(found: Sequence[Way]) -> list[Table]:
    """Return the figures of each shape, a column a system."""
    return [_way(name, list(systems.values())) for name, systems in _by_shape(found).items()]


def _way(shape: str, ways: Sequence[Way]) -> Table:
    lines = [
        ("CPU, us a message", [f"{way.cpu_us:.1f}" for way in ways]),
        ("  by process", [_parts(way.cpu_us_by_process) for way in ways]),
        ("  computing indicators", [f"{way.cpu_us_by_thread.get(_INDICATORS, 0.0):.1f}" for way in ways]),
        ("messages a second, acknowledged", [f"{way.acknowledged_per_s:,.0f}" for way in ways]),
        ("messages a second, stored", [f"{way.stored_per_s:,.0f}" for way in ways]),
        ("PUBACK p50 / p99, ms", [f"{way.puback_p50_ms:.1f} / {way.puback_p99_ms:.1f}" for way in ways]),
        ("stored p50 / p99, ms", [_waits(way) for way in ways]),
        ("readings sent, stored", [f"{way.readings:,}, {way.stored:,}" for way in ways]),
        ("other work, cores", [f"{way.others_cores:.2f}" for way in ways]),
    ]
    return f"load {shape}, {ways[0].messages:,} messages", [way.system for way in ways], lines


def _parts(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {used:.1f}" for name, used in parts.items())


def _waits(way: Way) -> str:
    return "-" if way.stored_p50_ms is None else f"{way.stored_p50_ms:.0f} / {way.stored_p99_ms:.0f}"


def acknowledged(found: Sequence[Acknowledged]) -> Table:
    """Return how fast each endpoint acknowledges, and ours over the other's."""
    by_load: dict[str, dict[str, Acknowledged]] = {}
    for one in found:
        by_load.setdefault(one.load, {})[one.endpoint] = one
    lines = [
        (load, [f"{both['qala'].per_s / both['mosquitto'].per_s:.1f}", *map(_rate, both.values())])
        for load, both in by_load.items()
    ]
    return "PUBACKs: durable ones of Qala beside mosquitto's from memory", ["ratio", "qala", "mosquitto"], lines


def _rate(one: Acknowledged) -> str:
    return f"{one.per_s:,.0f}/s, p50 / p99 {one.p50_ms:.1f} / {one.p99_ms:.1f} ms, {one.cpu_us:.1f} us"


def flooded(found: Sequence[Beside]) -> Table:
    """Return calm devices' PUBACKs, alone and beside a flood."""
    lines = [
        ("alone, p50 / p99 ms", [f"{one.alone_p50_ms:.1f} / {one.alone_p99_ms:.1f}" for one in found]),
        ("beside a flood, p50 / p99 ms", [f"{one.beside_p50_ms:.1f} / {one.beside_p99_ms:.1f}" for one in found]),
        ("the flood, messages a second", [f"{one.flood_per_s:,.0f}" for one in found]),
    ]
    return "100 calm devices beside one that floods", [one.endpoint for one in found], lines


def crowds(idle: Sequence[Idle], storms: Sequence[Storm]) -> Table:
    """Return what crowds take."""
    names = [one.endpoint for one in idle or storms]
    lines: list[tuple[str, Sequence[str]]] = []
    if idle:
        title = f"memory with {idle[0].connections:,} idle connections, MiB"
        lines += [
            (title, [f"{one.after_mib:.0f} (empty {one.before_mib:.0f})" for one in idle]),
            ("  KiB a connection", [f"{one.kib_each:.1f}" for one in idle]),
        ]
    if storms:
        lines += [
            (f"{storms[0].connections:,} TLS connections at once, s", [f"{one.seconds:.1f}" for one in storms]),
            ("  CONNACK p99, ms", [f"{one.connack_p99_ms:.0f}" for one in storms]),
            ("  a calm device meanwhile, p50 / p99 ms", [f"{s.calm_p50_ms:.1f} / {s.calm_p99_ms:.1f}" for s in storms]),
        ]
    return "crowds", names, lines


def subscribed(found: Sequence[Seen]) -> Table:
    """Return what each subscriber took off a broker, over the one that only counts (its limit)."""
    limit = next((one.per_second for one in found if one.name == "only counts"), 0.0)
    lines = [
        (
            f"stored messages over counted ones (goal {SHAPE.goal:g})",
            [f"{one.stored_per_second / limit:.2f}" if one.stored_s and limit else "-" for one in found],
        ),
        ("messages a second taken", [f"{one.per_second:,.0f}" for one in found]),
        ("messages a second stored", [f"{one.stored_per_second:,.0f}" if one.stored_s else "-" for one in found]),
        ("CPU of the subscriber, us a message", [f"{one.cpu_us:.1f}" for one in found]),
        ("CPU of mosquitto, us a message", [f"{1e6 * one.broker_s / one.messages:.1f}" for one in found]),
    ]
    return f"off a mosquitto, {SHAPE.connections} publishers", [one.name for one in found], lines
