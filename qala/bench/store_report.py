"""The table of the store's bench: first how many times our engine is ahead, then the figures themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from qala.bench.store import Asked, Measured, Skipped
from qala.bench.store_questions import QUESTIONS, Timing

__all__ = ["failures", "figures", "measured", "notes", "ratios"]

Row = tuple[str, list[str]]

_OURS = "qala"
_WHEN: tuple[tuple[str, Callable[[Measured], Asked]], ...] = (
    ("at rest", lambda one: one.idle),
    ("while writing", lambda one: one.writing),
)


def measured(found: Mapping[str, Measured | Skipped]) -> dict[str, Measured]:
    """Leave out the peers that were skipped."""
    return {name: one for name, one in found.items() if isinstance(one, Measured)}


def ratios(found: Mapping[str, Measured | Skipped]) -> list[Row]:
    """Return how many times Qala is ahead of each other peer; nothing without Qala or others."""
    peers = measured(found)
    ours = peers.pop(_OURS, None)
    if not ours or not peers:
        return []
    return [
        ("append", [_times(ours.appending.rows_per_s, one.appending.rows_per_s) for one in peers.values()]),
        (
            "append, until visible, with upkeep",
            [_times(ours.appending.visible_rows_per_s, one.appending.visible_rows_per_s) for one in peers.values()],
        ),
        ("bytes a reading", [_times(one.bytes_per_reading, ours.bytes_per_reading) for one in peers.values()]),
        ("memory", [_times(one.memory_mib, ours.memory_mib) for one in peers.values()]),
        *(
            (f"{question.title}, {when}", [_slower(of(one), of(ours), question.name) for one in peers.values()])
            for when, of in _WHEN
            for question in QUESTIONS
        ),
    ]


def _times(more: float, less: float) -> str:
    return f"{more / less:.2g}" if less and more / less < 100 else f"{more / less:.0f}" if less else "-"


def _slower(other: Asked, ours: Asked, name: str) -> str:
    if name not in other.timings or name not in ours.timings:
        return "-"
    one, own = other.timings[name], ours.timings[name]
    return f"{_times(one.p50_ms, own.p50_ms)} / {_times(one.p95_ms, own.p95_ms)}"


def figures(found: Mapping[str, Measured | Skipped]) -> list[Row]:
    """Return the figures: a title, and a cell for each peer that was measured."""
    peers = list(measured(found).values())

    def row(title: str, cell: Callable[[Measured], str]) -> Row:
        return title, [cell(one) for one in peers]

    return [
        row("append, rows a second", lambda one: f"{one.appending.rows_per_s:,}"),
        row("  a batch of 10,000, p50 / p95 ms", lambda one: _cell(one.appending.batch)),
        row("  until visible, with upkeep", lambda one: f"{one.appending.visible_rows_per_s:,}"),
        row("  upkeep, s", lambda one: f"{one.appending.upkeep_s:.1f}"),
        row("bytes a reading on disk", lambda one: f"{one.bytes_per_reading:.1f}"),
        row("memory, MiB (most)", lambda one: f"{one.memory_mib:.0f} ({one.memory_most_mib:.0f})"),
        row("other work on the machine, cores", lambda one: f"{one.others_cores:.1f}"),
        row("start empty, start with all, s", lambda one: f"{one.start_s:.1f}, {one.open_s:.1f}"),
        *_asked("at rest", [one.idle for one in peers]),
        *_asked("while writing", [one.writing for one in peers]),
        row("  rows a second written meanwhile", lambda one: f"{one.writing.written_rows_per_s:,.0f}"),
        row("  a batch meanwhile, p50 / p95 ms", lambda one: _cell(one.writing.write)),
        *_ours_alone(peers),
    ]


def _asked(when: str, asked: list[Asked | None]) -> Iterator[Row]:
    yield f"{when}, p50 / p95 ms", ["" for _ in asked]
    for question in QUESTIONS:
        yield f"  {question.title}", [_cell(one.timings.get(question.name)) if one else "" for one in asked]


def _ours_alone(peers: list[Measured]) -> Iterator[Row]:
    """Yield what only our own engine is asked."""
    if any(one.flat_out for one in peers):
        flat = [one.flat_out for one in peers]
        yield from _asked("while writing flat out", flat)
        yield "  rows a second written meanwhile", [f"{one.written_rows_per_s:,.0f}" if one else "" for one in flat]
        yield "  a batch meanwhile, p50 / p95 ms", [_cell(one.write) if one else "" for one in flat]
    if any(one.late for one in peers):
        late = [one.late for one in peers]
        yield "a late reading, p50 / p95 ms", ["" for _ in late]
        yield "  to store it", [_cell(one.append) if one else "" for one in late]
        yield "  to read its zone's hour", [_cell(one.hour) if one else "" for one in late]
        yield "  to read its zone's day", [_cell(one.day) if one else "" for one in late]


def _cell(timing: Timing | None) -> str:
    return f"{timing.p50_ms:.1f} / {timing.p95_ms:.1f}" if timing else "-"


def notes(found: Mapping[str, Measured | Skipped]) -> list[str]:
    """Say what each peer is and promises, or why it was left out."""
    return [
        f"{name}: left out, {one.reason}"
        if isinstance(one, Skipped)
        else f"{name}: {one.about.version}; {one.about.durability}; {one.about.interface}; "
        f"repeats: {one.about.repeats}; quantiles: {one.about.quantile}"
        + "".join(f"; no {question}: {why}" for question, why in one.idle.cannot.items())
        for name, one in found.items()
    ]


def failures(found: Mapping[str, Measured | Skipped]) -> list[str]:
    """Say which peers failed, and which answers were wrong."""
    failed = [f"{name}: {one.reason}" for name, one in found.items() if isinstance(one, Skipped) and one.failed]
    asked = [
        (name, part) for name, one in measured(found).items() for part in (one.idle, one.writing, one.flat_out) if part
    ]
    return failed + [f"{name}: {why}" for name, part in asked for why in part.wrong.values()]
