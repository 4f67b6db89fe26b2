"""What the suite is written with: batches, series and values in a line each, and readings as plain tuples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from devices.reading import Batch, SeriesInfo
from devices.value import Value
from qala.store.base import Aggregate, Selector, Span, Store

MINUTE = 60_000_000
DAY = 1440 * MINUTE
T0 = 20_000 * DAY
ALWAYS = Span(0, 40_000 * DAY)
EVERY = Selector()
NAMES = [
    pytest.param("Ауа-райы/Әл-Фараби 7 — 空気 🌍", id="beyond ASCII"),
    pytest.param("air/" + "x" * 500 + "ы" * 500, id="very long"),
    pytest.param("a b,c=d", id="spaces, commas, equals"),
    pytest.param("a\"b'c`d", id="quotes"),
    pytest.param("C:\\air\\", id="backslashes, at the end too"),
    pytest.param("two\nlines\r\n\tand a tab", id="line breaks"),
    pytest.param("%s {x} $1 ${y} #--;*", id="signs of other languages"),
    pytest.param(" a ", id="spaces around"),
]
"""Names that an engine's own language may stumble over."""


def batch(*rows: tuple[Any, ...]) -> Batch:
    """Build a batch of (series, time, value[, flag[, revision[, origin]]]); received a second after its time."""
    full = [(*row, *(1, 0, 1)[len(row) - 3 :]) for row in rows]
    series, time_us, value, flag, revision, origin = zip(*full, strict=True) if full else [()] * 6
    times = np.array(time_us, np.int64)
    return Batch(
        np.array(series, np.int32),
        times,
        np.array(value, np.float64),
        np.array(flag, np.uint8),
        np.array(revision, np.int32),
        np.array(origin, np.int64),
        times + 1_000_000,
    )


def air(device: str = "air/1", quantity: str = "pm2_5", channel: str = "") -> SeriesInfo:
    return SeriesInfo(device=device, quantity=quantity, channel=channel, unit="ug/m3")


def a_value(number: float | None = 12.5, **changes: Any) -> Value:
    value = Value(
        indicator="pm2_5_mean",
        zone="almaly",
        window="1h",
        start_us=T0,
        stop_us=T0 + 60 * MINUTE,
        value=number,
        unit="ug/m3",
        n_good=58,
        n_expected=60,
        method="mean",
        method_version="1",
        final_us=T0 + 120 * MINUTE,
        known_us=T0 + 61 * MINUTE,
    )
    return msgspec.structs.replace(value, **changes)


def rows(batches: Iterable[pa.RecordBatch]) -> list[dict[str, Any]]:
    return [row for part in batches for row in part.to_pylist()]


def brief(batches: Iterable[pa.RecordBatch]) -> list[tuple[int, int, float]]:
    """Return (series, time, value) of readings."""
    return [(row["series"], row["time_us"], row["value"]) for row in rows(batches)]


def everything(store: Store) -> list[tuple[int, int, float]]:
    return brief(store.read(EVERY, ALWAYS))


def with_series(store: Store, count: int = 2) -> None:
    """Register series 1, 2, ... up to `count`."""
    ids = store.register([air(f"air/{n}") for n in range(1, count + 1)])
    assert ids.tolist() == list(range(1, count + 1))


def offered(store: Store) -> frozenset[Aggregate]:
    """Return the aggregates that an engine has: all, or all but the quantiles."""
    quantiles = frozenset({Aggregate.P50, Aggregate.P95})
    return frozenset(Aggregate) if store.capabilities.exact_quantiles else frozenset(Aggregate) - quantiles
