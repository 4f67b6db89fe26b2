"""What must be computed again: marks of changed readings, and the windows that became due from them.

A *mark* is a (series, 5-minute bucket) whose readings changed. The projector writes the marks of a batch, with the batch's
position, before it appends the batch. The scheduler takes those that the store has applied, turns them into *due windows* and
drops the marks in the same transaction. A due window is cleared when it was computed and nobody marked it again meanwhile.
A crash between any two of these steps leaves a mark or a due window too many, never one too few.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import Lock

import msgspec
import numpy as np
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from devices.reading import BoolArray, Int32Array, Int64Array, Position
from qala.state.database import METADATA

__all__ = ["BUCKET_US", "Backlog", "DirtyMarks", "Due", "Taken"]

BUCKET_US = 300_000_000
"""Width of a bucket [us]: the narrowest window."""

_ROW_MAX = 65_536  # marks a row: half a megabyte
_TAKE_MAX = 64  # rows a take

_marks = Table(
    "dirty",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("journal", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("pairs", LargeBinary, nullable=False),  # int64, little-endian: series << 32 | bucket
    Index("dirty_position", "journal", "number"),
)

_due = Table(
    "due_window",
    METADATA,
    Column("indicator", Text, primary_key=True),
    Column("zone", Text, primary_key=True),
    Column("window", Text, primary_key=True),
    Column("start_us", BigInteger, primary_key=True),
    Column("stop_us", BigInteger, nullable=False),
    Column("ready_us", BigInteger, nullable=False),  # since when it waits, or from when on it may be computed
    Column("generation", BigInteger, nullable=False),
    Index("due_window_ready", "ready_us"),
)


class Taken(msgspec.Struct):
    """Marks that the store has applied: columns of one length, each pair once. `rows` are dropped by `add_due`."""

    series: Int32Array
    bucket: Int64Array
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.series)


class Due(msgspec.Struct, frozen=True, gc=False):
    """A window to compute, not before `ready_us` (0: when it has ended). `generation` rises whenever it is marked again."""

    indicator: str
    zone: str
    window: str
    start_us: int
    stop_us: int
    ready_us: int = 0
    generation: int = 0


class Backlog(msgspec.Struct, frozen=True):
    """How much waits: ended windows that are due, for how long the oldest of them [s], and rows of marks."""

    due: int
    lag_s: float
    marks: int


class _Pending:
    """Marks of one journal that stand in the table, sorted, each with the newest position that needs it."""

    def __init__(self) -> None:
        self.pairs = np.empty(0, np.int64)
        self.number = np.empty(0, np.int64)

    def add(self, pairs: Int64Array, number: int) -> Int64Array:
        """Note sorted unique pairs and return those that were not there."""
        known = self.contains(pairs)
        at = np.searchsorted(self.pairs, pairs)
        old, new = at[known], pairs[~known]
        self.number[old] = np.maximum(self.number[old], number)
        if len(new):
            self.pairs = np.insert(self.pairs, at[~known], new)
            self.number = np.insert(self.number, at[~known], number)
        return new

    def contains(self, pairs: Int64Array) -> BoolArray:
        at = np.searchsorted(self.pairs, pairs)
        found = at < len(self.pairs)
        found[found] = self.pairs[at[found]] == pairs[found]
        return found

    def later_than(self, number: int, pairs: Int64Array) -> tuple[Int64Array, int]:
        """Return those of the pairs that a position after `number` needs too, and the newest such position."""
        among = pairs[self.contains(pairs)]
        positions = self.number[np.searchsorted(self.pairs, among)]
        later = positions > number
        return among[later], int(positions[later].max(initial=0))

    def remove(self, pairs: Int64Array) -> None:
        gone = np.searchsorted(self.pairs, pairs[self.contains(pairs)])
        self.pairs = np.delete(self.pairs, gone)
        self.number = np.delete(self.number, gone)


class DirtyMarks:
    """Marks and due windows over the state database. One object for the projector's and the scheduler's thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._pending: dict[str, _Pending] = {}
        with engine.connect() as connection:
            for journal, number, pairs in connection.execute(select(_marks.c.journal, _marks.c.number, _marks.c.pairs)):
                self._of(journal).add(np.unique(_unpacked(pairs)), number)
            newest = connection.execute(select(func.max(_due.c.generation))).scalar()
        self._generation = newest or 0

    def mark(self, series: Int32Array, bucket: Int64Array, position: Position) -> int:
        """Write the pairs (series, bucket) that are not pending yet, durably; return how many.

        Call it before the batch that ends at `position` is appended; where readings are appended without a new position (a
        replay), call it after the append, with the position that the store has applied. `bucket` is time_us // BUCKET_US.
        """
        pairs = np.unique((series.astype(np.int64) << 32) | bucket)
        with self._lock:
            pending = self._of(position.journal)
            new = pairs[~pending.contains(pairs)]
            if len(new):
                with self._engine.begin() as connection:
                    _write(connection, position, new)
            pending.add(pairs, position.number)
        return len(new)

    def journals(self) -> list[str]:
        """Return the journals that have marks."""
        with self._engine.connect() as connection:
            return list(connection.execute(select(_marks.c.journal).distinct()).scalars())

    def pending(self, journal: str) -> tuple[Int32Array, Int64Array]:
        """Return the pairs (series, bucket) that are marked: columns of one length."""
        with self._lock:
            pairs = self._of(journal).pairs
        return (pairs >> 32).astype(np.int32), pairs & 0xFFFF_FFFF

    def take(self, applied: Position) -> Taken:
        """Return marks of positions up to `applied`, oldest first, a bounded number; `add_due` drops them.

        A mark that a later position needs too is written again for that one before it is taken. Marks made after this call
        are written anew, so that none is dropped with those taken.
        """
        with self._lock, self._engine.begin() as connection:
            rows = connection.execute(
                select(_marks.c.id, _marks.c.pairs)
                .where(_marks.c.journal == applied.journal, _marks.c.number <= applied.number)
                .order_by(_marks.c.number, _marks.c.id)
                .limit(_TAKE_MAX),
            ).all()
            pairs = np.unique(np.concatenate([_unpacked(row.pairs) for row in rows] or [np.empty(0, np.int64)]))
            pending = self._of(applied.journal)
            later, newest = pending.later_than(applied.number, pairs)
            if len(later):
                _write(connection, Position(applied.journal, newest), later)
            pending.remove(np.setdiff1d(pairs, later, assume_unique=True))
        return Taken(
            series=(pairs >> 32).astype(np.int32),
            bucket=pairs & 0xFFFF_FFFF,
            rows=[row.id for row in rows],
        )

    def add_due(self, windows: Iterable[Due], *, now_us: int, taken: Taken | None = None) -> int:
        """Note due windows under a new generation and drop the marks they came from, in one transaction; return how many."""
        self._generation += 1
        rows = [
            {
                "indicator": window.indicator,
                "zone": window.zone,
                "window": window.window,
                "start_us": window.start_us,
                "stop_us": window.stop_us,
                "ready_us": max(window.ready_us or window.stop_us, now_us),
                "generation": self._generation,
            }
            for window in windows
        ]
        with self._lock, self._engine.begin() as connection:
            if rows:
                self._upsert(connection, rows)
            if taken is not None and taken.rows:
                connection.execute(delete(_marks).where(_marks.c.id.in_(taken.rows)))
        return len(rows)

    def due(self, now_us: int, limit: int = 20_000) -> list[Due]:
        """Return due windows that are ready, newest first: what people look at must not wait for a backfill."""
        query = (
            select(*(_due.c[name] for name in Due.__struct_fields__))
            .where(_due.c.ready_us <= now_us)
            .order_by(_due.c.stop_us.desc())
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return [Due(*row) for row in connection.execute(query)]

    def clear(self, windows: Sequence[Due]) -> None:
        """Forget windows that were computed, except those marked again since `due` returned them."""
        if not windows:
            return
        names = ("indicator", "zone", "window", "start_us", "generation")
        statement = delete(_due).where(*(_due.c[name] == bindparam(f"b_{name}") for name in names))
        with self._lock, self._engine.begin() as connection:
            connection.execute(
                statement, [{f"b_{name}": getattr(window, name) for name in names} for window in windows]
            )

    def backlog(self, now_us: int) -> Backlog:
        """Count what waits."""
        ended = select(func.count(), func.min(_due.c.ready_us)).where(_due.c.ready_us <= now_us)
        with self._engine.connect() as connection:
            due, ready_us = connection.execute(ended).one()
            marks = connection.execute(select(func.count()).select_from(_marks)).scalar_one()
        return Backlog(due=due, lag_s=0.0 if ready_us is None else (now_us - ready_us) / 1e6, marks=marks)

    def _of(self, journal: str) -> _Pending:
        return self._pending.setdefault(journal, _Pending())

    def _upsert(self, connection: Connection, rows: list[dict[str, object]]) -> None:
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(_due)
        again = statement.on_conflict_do_update(
            index_elements=["indicator", "zone", "window", "start_us"],
            set_={
                "generation": statement.excluded.generation,
                "ready_us": case(
                    (_due.c.ready_us < statement.excluded.ready_us, _due.c.ready_us), else_=statement.excluded.ready_us
                ),
            },
        )
        connection.execute(again, rows)


def _write(connection: Connection, position: Position, pairs: Int64Array) -> None:
    parts = np.array_split(pairs, -(-len(pairs) // _ROW_MAX))
    rows = [
        {"journal": position.journal, "number": position.number, "pairs": part.astype("<i8").tobytes()}
        for part in parts
    ]
    connection.execute(insert(_marks), rows)


def _unpacked(pairs: bytes) -> Int64Array:
    return np.frombuffer(pairs, "<i8").astype(np.int64)
