"""The store: where readings and values live. One protocol, several engines, one conformance suite.

An engine is opened by URL (`open_store("duckdb:///data/readings.duckdb")`). Readings are appended from one thread, values and
upkeep may come from others, reads from several at once. Times are int64 UTC microseconds, spans are half-open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec
import pyarrow as pa

from devices.reading import Batch, Int32Array, Int64Array, Position, SeriesInfo
from devices.value import Value


class Span(msgspec.Struct, frozen=True):
    """Half-open time range `[start_us, stop_us)`."""

    start_us: int
    stop_us: int


class Selector(msgspec.Struct, frozen=True):
    """Which series: those that match every field given. None means any; an empty set matches nothing."""

    series: frozenset[int] | None = None
    devices: frozenset[str] | None = None
    quantities: frozenset[str] | None = None
    channels: frozenset[str] | None = None


class ValueSelector(msgspec.Struct, frozen=True):
    """Which values: those that match every field given. None means any."""

    indicators: frozenset[str] | None = None
    zones: frozenset[str] | None = None
    windows: frozenset[str] | None = None


class Aggregate(StrEnum):
    """What `overview` can compute of the readings of a series between two edges.

    `count` takes all readings, `good` and the numbers those whose stored flag is usable; numbers are null where there is none.
    `sound` counts those that are usable by the context checks too (devices.quality.derive_flags).
    Quantiles interpolate linearly between the two nearest (numpy's default, type 7 of Hyndman and Fan 1996).
    """

    COUNT = "count"  # all readings
    GOOD = "good"  # those with a usable flag
    SOUND = "sound"  # those that the context checks leave usable
    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    FIRST = "first"
    LAST = "last"
    P50 = "p50"
    P95 = "p95"


class Capabilities(msgspec.Struct, frozen=True):
    """What an engine is and can do. Only exact quantiles may be missing: `overview` then raises UnsupportedError for them."""

    engine: str
    persistent: bool
    exact_quantiles: bool = True


class Upkeep(msgspec.Struct, frozen=True):
    """How a piece of an engine's background work stands: `done` of `total`, counted in `unit`. `error` is why it stopped."""

    name: str  # "settle", "roll up", "forget"
    done: int
    total: int
    unit: str  # "days", "readings"
    error: str = ""


class Appended(msgspec.Struct, frozen=True):
    """What `append` did: readings that are new, that replaced another, that were there already or were outranked."""

    inserted: int
    updated: int
    unchanged: int


READINGS = pa.schema(
    [
        ("series", pa.int32()),
        ("time_us", pa.int64()),
        ("value", pa.float64()),  # NaN where missing
        ("flag", pa.uint8()),
        ("revision", pa.int32()),
        ("origin", pa.int64()),
        ("received_us", pa.int64()),
    ],
)
"""Columns of `read` and `latest`."""

VALUES = pa.schema(
    [
        ("indicator", pa.string()),
        ("zone", pa.string()),
        ("window", pa.string()),
        ("start_us", pa.int64()),
        ("stop_us", pa.int64()),
        ("value", pa.float64()),  # null where there is no number
        ("unit", pa.string()),
        ("n_good", pa.int64()),
        ("n_expected", pa.int64()),
        ("method", pa.string()),
        ("method_version", pa.string()),
        ("final_us", pa.int64()),
        ("status", pa.string()),
        ("detail", pa.string()),  # JSON object
        ("known_us", pa.int64()),
        ("revision", pa.int64()),
    ],
)
"""Columns of `values`, one for each field of Value."""


class Store(Protocol):
    """Readings and values, durable.

    Every method may raise UnavailableError where the engine cannot be reached; nothing was changed then.
    """

    capabilities: Capabilities

    def register(self, series: Sequence[SeriesInfo]) -> Int32Array:
        """Return the ids (int32[n]) of series, making those that are new.

        Idempotent; ids are this store's own and never change. Two infos are one series when all their fields are equal.
        """

    def catalog(self) -> Mapping[int, SeriesInfo]:
        """Return every series by id. The mapping is a snapshot."""

    def append(self, batch: Batch, upto: Position | None) -> Appended:
        """Write readings and the position in one durable transaction.

        Idempotent. Of several readings of one (series, time), in the batch or in the store, the one with the highest
        (revision, origin) stays; of two with the same, the later. The position of a
        journal never goes back; None leaves it as it is. Raises NotFoundError where a series is not registered.
        """

    def applied(self, journal: str) -> Position | None:
        """Return the position up to which the journal's messages are in the store."""

    def positions(self) -> Sequence[Position]:
        """Return what `applied` says of every journal, by journal."""

    def extent(self) -> Span | None:
        """Return the shortest span that holds every reading, None where there is none."""

    def read(
        self,
        select: Selector,
        span: Span,
        *,
        bracket: bool = False,
        limit: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield readings (READINGS) ordered by (series, time).

        With `bracket`, each series also gives its last reading before the span and its first at or after its end, as
        far as they exist (for counters).
        """

    def overview(self, select: Selector, edges_us: Int64Array, aggregates: frozenset[Aggregate]) -> pa.Table:
        """Aggregate by series between edges (int64[n+1], rising, any widths), by the flags stored.

        Columns: series, start_us, and one for each aggregate; ordered by (series, start_us); empty windows are absent.
        """

    def latest(self, select: Selector, *, at_us: int, lookback_s: int) -> pa.Table:
        """Return the newest reading (READINGS) of each series in `(at_us - lookback, at_us]`, by series."""

    def retract(self, series: Int32Array, time_us: Int64Array, origin: Int64Array) -> int:
        """Delete the readings that still stem from these origins, and return how many.

        For what a corrected decoder no longer yields.
        """

    def put_values(self, values: Sequence[Value]) -> int:
        """Store values as new revisions and return how many; the same number as the newest revision writes nothing."""

    def values(self, select: ValueSelector, span: Span, *, as_of_us: int | None = None) -> pa.Table:
        """Return the newest revision (VALUES) of each value whose window starts in the span.

        Ordered by (indicator, zone, window, start). With `as_of_us`, the newest among those known by then.
        """

    def revisions(self, select: ValueSelector, span: Span) -> pa.Table:
        """Return every revision (VALUES) of the values whose window starts in the span, oldest revision first."""

    def values_extent(self) -> Span | None:
        """Return the shortest span that holds the start of every value, None where there is none."""

    def delete_before(self, time_us: int, select: Selector | None = None) -> None:
        """Forget readings older than a time."""

    def tend(self, now_us: int) -> bool:
        """Do one bounded piece of the engine's own upkeep, beside readers and the writer; tell whether more waits.

        Called again and again by one thread of the store's owner. What is read stays the same, it only gets faster.
        """

    def upkeep(self) -> Sequence[Upkeep]:
        """Say how the engine's upkeep stands; nothing where it has none."""

    def close(self) -> None:
        """Release files and connections. Further calls raise UnavailableError."""


@runtime_checkable
class Backups(Protocol):
    """An engine that can copy itself while it is in use. The others are copied reading by reading (`qala store copy`)."""

    def backup(self, file: Path) -> None:
        """Write a copy of one moment to a file that must not exist; it opens by the engine's own URL.

        Raises ConflictError where the file exists, UnavailableError where it cannot be written; nothing stays of it then.
        """
