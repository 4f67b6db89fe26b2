"""What the store's bench asks, what a right answer is, and how long answers take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import lru_cache

import msgspec
import numpy as np

from devices.errors import ConflictError
from devices.reading import Float64Array, Int64Array
from qala.bench.store_data import HOUR_US, STEP_US, Shape, readings
from qala.bench.store_peer import Peer
from qala.store.base import Span

__all__ = ["QUESTIONS", "Question", "Reach", "Timing", "Where", "measure", "summary", "wheres"]

_DAY_US = 24 * HOUR_US
_AHEAD_US = 5 * HOUR_US
_RUNS_MIN = 3


class Where(msgspec.Struct, frozen=True):
    """What one run asks about."""

    series: int
    end_us: int  # a tick: everything before it may be asked for
    now_us: int  # nothing is later


class Reach(msgspec.Struct, frozen=True):
    """How far the readings go: the turns before `whole` can be seen everywhere, and there is none from `now` on."""

    whole: int
    now: int


class Right(msgspec.Struct, frozen=True):
    """A right answer: how many numbers there are, and what they come to."""

    count: int
    total: float


class Timing(msgspec.Struct, frozen=True):
    """How long answers took [ms]."""

    p50_ms: float
    p95_ms: float
    runs: int


class Question(msgspec.Struct, frozen=True):
    """One of the questions. `right` works the answer out from the shape alone; totals may differ by a share `slack`."""

    name: str
    title: str
    ask: Callable[[Peer, Shape, Where], Float64Array]
    right: Callable[[Shape, Where], Right]
    count: Callable[[Shape, Where], int] | None = None  # of `right`, where it is cheaper alone
    slack: float = 1e-6


def _back(shape: Shape, end_us: int, length_us: int) -> Span:
    """Return the span that ends there, or all there is."""
    return Span(max(end_us - length_us, shape.start_us), end_us)


def _hours(shape: Shape, where: Where) -> Span:
    """Return the whole hours of the last 30 days."""
    end_us = where.end_us // HOUR_US * HOUR_US
    return Span(max(end_us - 30 * _DAY_US, shape.start_us // HOUR_US * HOUR_US), end_us)


def _local_day(shape: Shape, where: Where) -> Span:
    """Return a whole local day (five hours ahead of UTC), of the last week there is; the last 24 h where there is none."""
    whole = (where.end_us + _AHEAD_US) // _DAY_US - -(-(shape.start_us + _AHEAD_US) // _DAY_US)
    if whole < 1:
        return _back(shape, where.end_us, _DAY_US)
    stop_us = ((where.end_us + _AHEAD_US) // _DAY_US - where.series % min(whole, 7)) * _DAY_US - _AHEAD_US
    return Span(stop_us - _DAY_US, stop_us)


def _readings(shape: Shape, span: Span, series: int | None) -> tuple[Int64Array, Int64Array, Float64Array, Int64Array]:
    """Return (series, time, value, good) of a span, of one series or of all."""
    turns = np.arange(max(shape.turn_of(span.start_us), 0), shape.turn_of(span.stop_us), dtype=np.int64)
    every = np.arange(1, shape.series + 1, dtype=np.int64) if series is None else np.array([series], np.int64)
    who, when = np.repeat(every, len(turns)), np.tile(turns, len(every))
    made = readings(shape, who, when)
    return who, made.time_us, made.value, (made.flag == 1).astype(np.int64)


def _right_latest(shape: Shape, where: Where) -> Right:
    _, _, value, _ = _readings(shape, Span(where.now_us - STEP_US, where.now_us), None)
    return Right(shape.series, float(value.sum()))


def _right_raw(shape: Shape, where: Where) -> Right:
    _, _, value, _ = _readings(shape, _back(shape, where.end_us, _DAY_US), where.series)
    return Right(len(value), float(value.sum()))


def _right_means(shape: Shape, span: Span, width_us: int, series: int | None) -> Right:
    who, time_us, value, good = _readings(shape, span, series)
    rows = good == 1
    _, of = np.unique(np.stack([who[rows], time_us[rows] // width_us]), axis=1, return_inverse=True)
    means = np.bincount(of, value[rows]) / np.bincount(of)
    return Right(len(means), float(means.sum()))


@lru_cache(maxsize=8)
def _right_completeness(shape: Shape, span: Span) -> Right:
    """Count turn by turn, so that the memory of an engine in this process is not drowned in that of the check."""
    good = np.zeros(shape.series, np.int64)
    for start_us in range(span.start_us, span.stop_us, STEP_US):
        good += _readings(shape, Span(start_us, start_us + STEP_US), None)[3]
    return Right(int((good > 0).sum()), float(good.sum()))


QUESTIONS = (
    Question(
        "latest",
        "latest of all series",
        lambda peer, _, where: peer.latest(where.now_us),
        _right_latest,
        count=lambda shape, _: shape.series,
        slack=0.02,  # some give the newest good reading
    ),
    Question(
        "raw_24h",
        "one series, 24 h raw",
        lambda peer, shape, where: peer.raw(where.series, _back(shape, where.end_us, _DAY_US)),
        _right_raw,
    ),
    Question(
        "hourly_30d",
        "one series, 30 d by hour, mean",
        lambda peer, shape, where: peer.hourly(where.series, _hours(shape, where), p95=False),
        lambda shape, where: _right_means(shape, _hours(shape, where), HOUR_US, where.series),
    ),
    Question(
        "hourly_30d_p95",
        "one series, 30 d by hour, mean and p95",
        lambda peer, shape, where: peer.hourly(where.series, _hours(shape, where), p95=True),
        lambda shape, where: _right_means(shape, _hours(shape, where), HOUR_US, where.series),
    ),
    Question(
        "windows_5min",
        "all series, 5-minute windows of 1 h",
        lambda peer, shape, where: peer.windows(_back(shape, where.end_us, HOUR_US)),
        lambda shape, where: _right_means(shape, _back(shape, where.end_us, HOUR_US), STEP_US, None),
    ),
    Question(
        "completeness",
        "completeness of a local day, all series",
        lambda peer, shape, where: peer.completeness(_local_day(shape, where)),
        lambda shape, where: _right_completeness(shape, _local_day(shape, where)),
        count=lambda shape, _: shape.series,
    ),
)


def wheres(shape: Shape, reach: Callable[[], Reach]) -> Iterator[Where]:
    """Yield what run after run asks about: another series each time, the end at one of the last three whole ticks."""
    dice = np.random.default_rng(shape.seed)
    while True:
        told = reach()
        turn = told.whole - int(dice.integers(0, min(3, shape.turns)))
        yield Where(int(dice.integers(1, shape.series + 1)), shape.tick_us(turn), shape.tick_us(told.now))


def measure(
    peer: Peer,
    question: Question,
    shape: Shape,
    about: Iterator[Where],
    *,
    runs: int,
    budget_s: float,
    part: float = 1.0,
    pause_s: float = 0.0,
) -> Timing:
    """Ask again and again and check each answer, until there are so many runs or the time is up.

    At least a `part` of each answer must be there: while data is written, some of it is still on its way. Runs are up to
    `pause_s` apart, so that they meet a writer that pauses at any point of its round.
    Raises ConflictError where an answer is wrong.
    """
    took: list[float] = []
    dice = np.random.default_rng(shape.seed)
    deadline = time.perf_counter() + budget_s
    for number, where in zip(range(runs + 1), about, strict=False):
        began = time.perf_counter()
        answer = question.ask(peer, shape, where)
        if number:  # the first is to warm up
            took.append(time.perf_counter() - began)
        _check(question, shape, where, answer, part)
        time.sleep(dice.uniform(0, pause_s))
        if time.perf_counter() > deadline and len(took) >= _RUNS_MIN:
            break
    return summary(took)


def summary(took_s: list[float]) -> Timing:
    """Return the percentiles of times [s]."""
    p50, p95 = np.percentile(np.array(took_s) * 1000, [50, 95])
    return Timing(round(float(p50), 3), round(float(p95), 3), len(took_s))


def _check(question: Question, shape: Shape, where: Where, answer: Float64Array, part: float) -> None:
    numbers = answer[~np.isnan(answer)]
    if part < 1.0:
        right = Right((question.count or (lambda *at: question.right(*at).count))(shape, where), float(numbers.sum()))
    else:
        right = question.right(shape, where)
    near = abs(numbers.sum() - right.total) <= question.slack * abs(right.total)
    if not (near and part * right.count <= len(numbers) <= right.count):
        raise ConflictError(
            f"{question.name}: {len(numbers)} numbers, {numbers.sum():.6g} in all, where {right.count} and "
            f"{right.total:.6g} are right",
            hint="it is fast by answering something else: please report it",
        )
