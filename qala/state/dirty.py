"""What must be computed again: marks of changed readings, and the windows that became due from them.

A *mark* is a (series, 5-minute bucket) whose readings changed. The projector marks those of a batch, with the batch's position,
before it appends the batch. The scheduler takes those that the store has applied, turns them into *due windows* and drops the
marks in the same transaction. A due window is cleared when it was computed and nobody marked it again meanwhile.
Marks of messages that are taken once more after a crash stay in memory until `save`; all others are on disk at once.
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

__all__ = ["BUCKET_US", "Backlog", "DirtyMarks", "Due", "Taken", "distinct"]

BUCKET_US = 300_000_000
"""Width of a bucket [us]: the narrowest window."""

_ROW_MAX = 65_536  # marks a row: half a megabyte
_TAKE_MAX = 64 * _ROW_MAX  # marks a take

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
    """Marks that the store has applied, up to a position: columns of one length, each pair once. `add_due` drops them."""

    series: Int32Array
    bucket: Int64Array
    upto: Position

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
    """How much waits: ended windows that are due, for how long the oldest of them [s], and marks."""

    due: int
    lag_s: float
    marks: int


class _Marks(msgspec.Struct):
    """Pairs, sorted, each with the first and the newest position that needs it, and whether the table has it for the newest."""

    pairs: Int64Array
    first: Int64Array
    newest: Int64Array
    saved: BoolArray

    @classmethod
    def of(cls, pairs: Int64Array, number: int, *, saved: bool) -> _Marks:
        """Make marks of sorted unique pairs that one position needs."""
        first, newest = np.full((2, len(pairs)), number, np.int64)
        return cls(pairs, first, newest, np.full(len(pairs), saved))

    def __len__(self) -> int:
        return len(self.pairs)

    def take(self, where: BoolArray) -> _Marks:
        return _Marks(*(column[where] for column in msgspec.structs.astuple(self)))

    def find(self, pairs: Int64Array) -> tuple[Int64Array, BoolArray]:
        """Return where pairs are or belong, and which of them are there."""
        at = np.searchsorted(self.pairs, pairs)
        known = at < len(self)
        known[known] = self.pairs[at[known]] == pairs[known]
        return at, known

    def merged(self, other: _Marks) -> _Marks:
        """Return the marks of both."""
        if not len(self):
            return other
        at, known = self.find(other.pairs)
        old, again = at[known], other.take(known)
        later, same = again.newest > self.newest[old], again.newest == self.newest[old]
        self.saved[old] = np.where(later, again.saved, self.saved[old] | (same & again.saved))
        self.first[old] = np.minimum(self.first[old], again.first)
        self.newest[old] = np.maximum(self.newest[old], again.newest)
        if known.all():
            return self
        columns = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other.take(~known)), strict=True)
        return _Marks(*(np.insert(column, at[~known], more) for column, more in columns))


class _Journal:
    """The marks of one journal: those that wait, those that were taken and are not due windows yet, and the table's rows."""

    def __init__(self) -> None:
        self.waiting = _Marks.of(np.empty(0, np.int64), 0, saved=False)
        self.taken = self.waiting
        self.rows: list[int] = []  # the position of each

    def mark(self, marks: _Marks) -> int:
        """Let marks wait, and return how many did not before."""
        before = len(self.waiting)
        self.waiting = self.waiting.merged(marks)
        return len(self.waiting) - before

    def lasts(self, pairs: Int64Array, number: int) -> BoolArray:
        """Tell which pairs the table has for a position, or a later one."""
        at, lasts = self.waiting.find(pairs)
        there = at[lasts]
        lasts[lasts] = self.waiting.saved[there] & (self.waiting.newest[there] >= number)
        return lasts

    def take(self, applied: int) -> Int64Array:
        """Take what positions up to `applied` need, oldest first, and what was taken before in vain; at most `_TAKE_MAX`."""
        self.mark(self.taken)
        ready = self.waiting.first <= applied
        if int(ready.sum()) > _TAKE_MAX:
            ready[np.argsort(np.where(ready, self.waiting.first, applied + 1), kind="stable")[_TAKE_MAX:]] = False
        self.taken, rest = self.waiting.take(ready), self.waiting.take(~ready)
        later = self.taken.take(self.taken.newest > applied)
        self.waiting = rest.merged(_Marks(later.pairs, later.newest.copy(), later.newest, later.saved))
        return self.taken.pairs

    def spent(self, upto: int) -> int:
        """Return up to which position no mark waits that rows of the table, as far as `upto`, stand for."""
        return min(upto, int(self.waiting.first.min(initial=upto + 1)) - 1)

    def saved(self, pairs: Int64Array, number: int) -> None:
        """Note that the table has pairs for a position."""
        for marks in (self.waiting, self.taken):
            at, there = marks.find(pairs)
            at = at[there]
            marks.saved[at] |= marks.newest[at] <= number

    def unsaved(self) -> _Marks:
        """Return what a crash would forget."""
        found = self.waiting.take(~self.waiting.saved)
        return found.merged(self.taken.take(~self.taken.saved))


class DirtyMarks:
    """Marks and due windows over the state database. One object for the projector's and the scheduler's thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()  # of what is in memory
        self._writing = Lock()  # of the table; never taken inside the other
        self._journals: dict[str, _Journal] = {}
        with engine.connect() as connection:
            for journal, number, pairs in connection.execute(select(_marks.c.journal, _marks.c.number, _marks.c.pairs)):
                self._of(journal).mark(_Marks.of(distinct(_unpacked(pairs)), number, saved=True))
                self._of(journal).rows.append(number)
            newest = connection.execute(select(func.max(_due.c.generation))).scalar()
        self._generation = newest or 0

    def mark(self, series: Int32Array, bucket: Int64Array, position: Position, *, lasting: bool = True) -> int:
        """Mark the pairs (series, bucket); return how many were not marked before. `bucket` is time_us // BUCKET_US.

        Call it before the batch that ends at `position` is appended; where readings are appended without a new position (a
        replay), call it after the append, with the position that the store has applied. What is not `lasting` is lost in a
        crash before the next `save`: whoever marks it must then mark it again.
        """
        pairs = distinct((series.astype(np.int64) << 32) | bucket)
        if not lasting:
            with self._lock:
                return self._of(position.journal).mark(_Marks.of(pairs, position.number, saved=False))
        with self._writing:
            with self._lock:
                lasts = self._of(position.journal).lasts(pairs, position.number)
            self._write(position, pairs[~lasts])
            with self._lock:
                return self._of(position.journal).mark(_Marks.of(pairs, position.number, saved=True))

    def save(self) -> None:
        """Write the marks that a crash would forget."""
        with self._writing:
            for journal in list(self._journals):
                with self._lock:
                    unsaved = self._of(journal).unsaved()
                if len(unsaved):
                    number = int(unsaved.newest.max())
                    self._write(Position(journal, number), unsaved.pairs)
                    with self._lock:
                        self._of(journal).saved(unsaved.pairs, number)

    def _write(self, position: Position, pairs: Int64Array) -> None:
        if not len(pairs):
            return
        parts = np.array_split(pairs, -(-len(pairs) // _ROW_MAX))
        rows = [
            {"journal": position.journal, "number": position.number, "pairs": part.astype("<i8").tobytes()}
            for part in parts
        ]
        with self._engine.begin() as connection:
            connection.execute(insert(_marks), rows)
        with self._lock:
            self._of(position.journal).rows += [position.number] * len(rows)

    def journals(self) -> list[str]:
        """Return the journals that have marks."""
        with self._lock:
            return [journal for journal, of in self._journals.items() if len(of.waiting) or len(of.taken)]

    def pending(self, journal: str) -> tuple[Int32Array, Int64Array]:
        """Return the pairs (series, bucket) that are marked: columns of one length."""
        with self._lock:
            pairs = self._of(journal).waiting.pairs
        return (pairs >> 32).astype(np.int32), pairs & 0xFFFF_FFFF

    def take(self, applied: Position) -> Taken:
        """Return marks of positions up to `applied`, oldest first, a bounded number; `add_due` drops them.

        A mark that a later position needs too stays for that one. What is taken and never dropped is taken again.
        """
        with self._lock:
            pairs = self._of(applied.journal).take(applied.number)
        return Taken((pairs >> 32).astype(np.int32), pairs & 0xFFFF_FFFF, applied)

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
        with self._writing:
            spent = self._spent(taken)
            if rows or spent:
                with self._engine.begin() as connection:
                    if rows:
                        self._upsert(connection, rows)
                    if spent:
                        gone = (_marks.c.journal == spent.journal, _marks.c.number <= spent.number)
                        connection.execute(delete(_marks).where(*gone))
            if taken is not None:
                self._drop(taken, spent)
        return len(rows)

    def _spent(self, taken: Taken | None) -> Position | None:
        """Return up to which position rows stand for nothing any more once what was taken is dropped; None where none do."""
        if taken is None:
            return None
        with self._lock:
            of = self._of(taken.upto.journal)
            upto = of.spent(taken.upto.number)
            return Position(taken.upto.journal, upto) if any(number <= upto for number in of.rows) else None

    def _drop(self, taken: Taken, spent: Position | None) -> None:
        with self._lock:
            of = self._of(taken.upto.journal)
            of.taken = of.taken.take(np.zeros(len(of.taken), np.bool_))
            if spent is not None:
                of.rows = [number for number in of.rows if number > spent.number]

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
        with self._writing, self._engine.begin() as connection:
            connection.execute(
                statement, [{f"b_{name}": getattr(window, name) for name in names} for window in windows]
            )

    def backlog(self, now_us: int) -> Backlog:
        """Count what waits."""
        ended = select(func.count(), func.min(_due.c.ready_us)).where(_due.c.ready_us <= now_us)
        with self._engine.connect() as connection:
            due, ready_us = connection.execute(ended).one()
        with self._lock:
            marks = sum(len(of.waiting) + len(of.taken) for of in self._journals.values())
        return Backlog(due=due, lag_s=0.0 if ready_us is None else (now_us - ready_us) / 1e6, marks=marks)

    def _of(self, journal: str) -> _Journal:
        return self._journals.setdefault(journal, _Journal())

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


def distinct(numbers: Int64Array) -> Int64Array:
    """Return numbers in order, each once: sooner than `numpy.unique`, which hashes them.

    >>> distinct(np.array([3, 1, 3])).tolist()
    [1, 3]
    """
    ordered = np.sort(numbers)
    is_first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    return ordered[is_first]


def _unpacked(pairs: bytes) -> Int64Array:
    return np.frombuffer(pairs, "<i8").astype(np.int64)
