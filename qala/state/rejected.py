"""What could not become readings: messages, and single readings of them, each with its reason.

A row is known by its place, (journal, position, item), so that a batch that is projected again after a crash writes the same
rows again. The rows kept are bounded: the oldest go first, and are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    true,
    tuple_,
    update,
)

from devices.errors import ConfigError
from devices.reading import Position
from qala.state.database import METADATA

__all__ = [
    "RejectedLog",
    "RejectedRow",
    "RejectedSummary",
    "await_devices",
    "awaited_devices",
    "dropped",
    "forget_awaited",
    "list_rejected",
    "positions",
    "summarize",
]

_AWAITED_MAX = 10_000
_VARIABLES_MAX = 500  # of one statement

_rejected = Table(
    "rejected",
    METADATA,
    Column("journal", Text, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("item", Integer, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),  # its beginning
    Index("rejected_received", "received_us", "journal", "position", "item"),
    Index("rejected_reason", "reason", "device"),
    Index("rejected_device", "device"),
)
_dropped = Table(
    "rejected_dropped",
    METADATA,
    Column("reason", Text, primary_key=True),
    Column("rows", BigInteger, nullable=False),
)
_awaited = Table(
    "awaited_device",
    METADATA,
    Column("device", Text, primary_key=True),
    Column("journal", Text, nullable=False),
    Column("first", BigInteger, nullable=False),
)
_NEWEST_FIRST = (_rejected.c.received_us, _rejected.c.journal, _rejected.c.position, _rejected.c.item)


class RejectedRow(msgspec.Struct, frozen=True):
    """One thing that was rejected: number `item` of the message at `position`. `payload` is the message's beginning."""

    journal: str
    position: int
    item: int
    reason: str
    detail: str
    key: str
    device: str
    topic: str
    received_us: int
    payload: bytes


class RejectedSummary(msgspec.Struct, frozen=True):
    """How much was rejected for one reason of one device, and when the last of it was received."""

    reason: str
    device: str
    count: int
    last_us: int


class RejectedLog:
    """Writes rejected rows and keeps their number within `rows_max`. For the projector's thread."""

    def __init__(self, engine: Engine, rows_max: int) -> None:
        self._engine = engine
        self._rows_max = rows_max
        with engine.connect() as connection:
            self._count = _count(connection)  # at least as many as there are

    def record(self, after: Position, upto: Position, rows: Sequence[RejectedRow]) -> None:
        """Make `rows` all that is rejected of the messages numbered above `after` up to `upto`."""
        here = (_rejected.c.journal == upto.journal, _rejected.c.position.between(after.number + 1, upto.number))
        with self._engine.begin() as connection:
            connection.execute(delete(_rejected).where(*here))
            self._insert(connection, rows)

    def settle(self, journal: str, numbers: Sequence[int], rows: Sequence[RejectedRow]) -> None:
        """Make `rows` all that is rejected of the messages with these numbers."""
        with self._engine.begin() as connection:
            for start in range(0, len(numbers), _VARIABLES_MAX):
                part = numbers[start : start + _VARIABLES_MAX]
                here = (_rejected.c.journal == journal, _rejected.c.position.in_(part))
                connection.execute(delete(_rejected).where(*here))
            self._insert(connection, rows)

    def _insert(self, connection: Connection, rows: Sequence[RejectedRow]) -> None:
        spare = max(len(rows) - self._rows_max, 0)
        _count_dropped(connection, Counter(row.reason for row in rows[:spare]))
        if rows[spare:]:
            connection.execute(insert(_rejected), [msgspec.structs.asdict(row) for row in rows[spare:]])
        self._count += len(rows) - spare
        if self._count > self._rows_max:
            self._trim(connection)

    def _trim(self, connection: Connection) -> None:
        """Drop the oldest rows that are too many, and a tenth more, so that not every batch has to count."""
        self._count = _count(connection)
        spare = self._count - self._rows_max
        if spare <= 0:
            return
        kept_from = select(*_NEWEST_FIRST).order_by(*_NEWEST_FIRST).offset(spare + self._rows_max // 10).limit(1)
        cut = connection.execute(kept_from).one_or_none()
        oldest = true() if cut is None else tuple_(*_NEWEST_FIRST) < tuple_(*cut)
        by_reason = select(_rejected.c.reason, func.count().label("rows")).where(oldest).group_by(_rejected.c.reason)
        _count_dropped(connection, {row.reason: row.rows for row in connection.execute(by_reason)})
        self._count -= connection.execute(delete(_rejected).where(oldest)).rowcount


def _count(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(_rejected)).scalar_one()


def _count_dropped(connection: Connection, counts: Mapping[str, int]) -> None:
    for reason, rows in counts.items():
        again = update(_dropped).where(_dropped.c.reason == reason).values(rows=_dropped.c.rows + rows)
        if not connection.execute(again).rowcount:
            connection.execute(insert(_dropped).values(reason=reason, rows=rows))


def dropped(engine: Engine) -> Mapping[str, int]:
    """Return how many rows were dropped to keep their number bounded, by reason."""
    with engine.connect() as connection:
        return {row.reason: row.rows for row in connection.execute(select(_dropped))}


def list_rejected(
    engine: Engine,
    *,
    reason: str | None = None,
    device: str | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> tuple[list[RejectedRow], str | None]:
    """Return rejected rows, newest first, and the cursor of the next page.

    Raises ConfigError where the cursor is not one of ours.
    """
    query = select(_rejected).where(*_matches(reason, device))
    if cursor is not None:
        query = query.where(tuple_(*_NEWEST_FIRST) < tuple_(*_parse_cursor(cursor)))
    query = query.order_by(*(column.desc() for column in _NEWEST_FIRST)).limit(limit + 1)
    with engine.connect() as connection:
        rows = [RejectedRow(**row) for row in connection.execute(query).mappings()]
    more = len(rows) > limit
    return rows[:limit], _cursor(rows[limit - 1]) if more else None


def _matches(reason: str | None, device: str | None) -> list[ColumnElement[bool]]:
    return [
        *([_rejected.c.reason == reason] if reason is not None else []),
        *([_rejected.c.device == device] if device is not None else []),
    ]


def _cursor(row: RejectedRow) -> str:
    return f"{row.received_us}.{row.journal}.{row.position}.{row.item}"


def _parse_cursor(cursor: str) -> tuple[int, str, int, int]:
    try:
        received_us, journal, position, item = cursor.split(".")
        return int(received_us), journal, int(position), int(item)
    except ValueError:
        raise ConfigError(f"not a cursor: {cursor!r}", hint="take it from the previous page, or leave it out") from None


def summarize(engine: Engine) -> list[RejectedSummary]:
    """Count the rejected rows by reason and device, most first."""
    count, last_us = func.count(), func.max(_rejected.c.received_us)
    query = select(_rejected.c.reason, _rejected.c.device, count, last_us).group_by(
        _rejected.c.reason, _rejected.c.device
    )
    with engine.connect() as connection:
        rows = connection.execute(query.order_by(count.desc(), _rejected.c.reason, _rejected.c.device)).all()
    return [RejectedSummary(*row) for row in rows]


def positions(engine: Engine, journal: str, *, reason: str | None = None, device: str | None = None) -> list[int]:
    """Return the numbers of the messages of which something was rejected, rising."""
    query = select(_rejected.c.position).where(_rejected.c.journal == journal, *_matches(reason, device))
    with engine.connect() as connection:
        return list(connection.execute(query.distinct().order_by(_rejected.c.position)).scalars())


def await_devices(engine: Engine, journal: str, first: Mapping[str, int]) -> None:
    """Remember at which message undeclared devices were first seen, so that admitting one can replay from there.

    The earliest stays. Beyond ten thousand devices no further ones are remembered.
    """
    with engine.begin() as connection:
        known = set(connection.execute(select(_awaited.c.device)).scalars())
        new = sorted(first.keys() - known, key=first.__getitem__)[: max(_AWAITED_MAX - len(known), 0)]
        if new:
            rows = [{"device": device, "journal": journal, "first": first[device]} for device in new]
            connection.execute(insert(_awaited), rows)


def awaited_devices(engine: Engine) -> Mapping[str, Position]:
    """Return the devices that wait to be admitted, and the first message of each."""
    with engine.connect() as connection:
        return {row.device: Position(row.journal, row.first) for row in connection.execute(select(_awaited))}


def forget_awaited(engine: Engine, devices: Iterable[str]) -> None:
    """Forget devices that were admitted and replayed."""
    with engine.begin() as connection:
        for device in devices:
            connection.execute(delete(_awaited).where(_awaited.c.device == device))
