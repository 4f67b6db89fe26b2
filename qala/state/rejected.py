"""What could not become readings: messages, and single readings of them, each with its reason.

A row is known by its place, (journal, position, item), so that a batch that is projected again after a crash writes the same
rows again. The rows kept are bounded: the oldest go first, and are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import groupby
from typing import Any

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
    "Account",
    "RejectedLog",
    "RejectedRow",
    "RejectedSummary",
    "advance_awaited",
    "await_devices",
    "awaited_devices",
    "dropped",
    "forget_awaited",
    "list_rejected",
    "overflow",
    "positions",
    "summarize",
]

_AWAITED_MAX = 10_000
_OVERFLOW_MAX = 10_000
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
    Column("offset", BigInteger),  # first bad byte of the payload
    Column("readings", Integer, nullable=False, server_default="1"),  # that the row stands for
    # How the ledger stands for what the message said of the device:
    Column("account", Text),  # the device that it was counted under; null: it was not counted
    Column("accepted", Integer, nullable=False, server_default="0"),
    Column("flagged", Integer, nullable=False, server_default="0"),
    Column("late", Integer, nullable=False, server_default="0"),
    Index("rejected_received", "received_us", "journal", "position", "item"),
    Index("rejected_reason", "reason", "device"),
    Index("rejected_device", "device"),
)
_overflow = Table(
    "rejected_overflow",
    METADATA,
    Column("device", Text, primary_key=True),
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
_MESSAGE = (_rejected.c.received_us, _rejected.c.journal, _rejected.c.position)
_NEWEST_FIRST = (_rejected.c.received_us, _rejected.c.journal, _rejected.c.position, _rejected.c.item)


class RejectedRow(msgspec.Struct, frozen=True):
    """One thing that was rejected: number `item` of the message at `position`. `payload` is the message's beginning.

    The row stands for `readings` readings; `account`, `accepted`, `flagged` and `late` are as in `Account`.
    """

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
    offset: int | None = None
    readings: int = 1
    account: str | None = None
    accepted: int = 0
    flagged: int = 0
    late: int = 0


class RejectedSummary(msgspec.Struct, frozen=True):
    """How much was rejected for one reason of one device, and when the last of it was received.

    `count` rows are kept; `dropped` more were too many. `last_us` is None where none is kept.
    """

    reason: str
    device: str
    count: int
    last_us: int | None
    dropped: int = 0


class Account(msgspec.Struct, frozen=True):
    """How the ledger stands for what one message said of one device, as far as its rejected rows know.

    `account` is the device that it was counted under, None where it was not counted (a duplicate). `rejected` is by reason.
    """

    position: int
    device: str
    received_us: int
    account: str | None
    accepted: int
    flagged: int
    late: int
    rejected: Counter[str]


class RejectedLog:
    """Writes rejected rows and keeps their number within `rows_max`, and within `device_max` for each device.

    Rows of a message go together, the oldest messages first, so that a message that has rows has all of them. Those that
    went are counted by device and reason. For the projector's thread.
    """

    def __init__(self, engine: Engine, rows_max: int, device_max: int) -> None:
        self._rows_max = rows_max
        self._device_max = device_max
        self._counts: Counter[str] = Counter()  # at least as many as there are
        self._overflowed: set[tuple[str, str]] = set()
        with engine.connect() as connection:
            self.count(connection)

    def count(self, connection: Connection) -> None:
        """Count what there is: at first, and after a transaction that failed."""
        self._counts = _counts(connection)
        self._overflowed = {(row.device, row.reason) for row in connection.execute(select(_overflow))}

    def record(self, connection: Connection, after: Position, upto: Position, rows: Sequence[RejectedRow]) -> None:
        """Make `rows` all that is rejected of the messages numbered above `after` up to `upto`."""
        here = (_rejected.c.journal == upto.journal, _rejected.c.position.between(after.number + 1, upto.number))
        connection.execute(delete(_rejected).where(*here))
        self.put(connection, rows)

    def take_out(
        self, connection: Connection, journal: str, numbers: Sequence[int], *, of: Set[str] | None = None
    ) -> list[Account]:
        """Delete the rows of the messages with these numbers, and return how the ledger stands for them.

        With `of`, only of what they said of these devices.
        """
        found: list[Account] = []
        for start in range(0, len(numbers), _VARIABLES_MAX):
            part = numbers[start : start + _VARIABLES_MAX]
            here = [_rejected.c.journal == journal, _rejected.c.position.in_(part)]
            here += [_rejected.c.device.in_(sorted(of))] if of is not None else []
            found += _accounts(connection, here)
            connection.execute(delete(_rejected).where(*here))
        return found

    def put(self, connection: Connection, rows: Sequence[RejectedRow]) -> None:
        """Add rows of messages that have none, by position."""
        kept, spilled = self._fitting(rows)
        self._count_overflow(connection, Counter((row.device, row.reason) for row in spilled))
        if kept:
            connection.execute(insert(_rejected), [msgspec.structs.asdict(row) for row in kept])
        self._counts.update(row.device for row in kept)
        for device in sorted({row.device for row in kept}):
            if self._counts[device] > self._device_max:
                self._trim(connection, self._device_max, _rejected.c.device == device)
        if self._counts.total() > self._rows_max:
            self._trim(connection, self._rows_max, true())

    def _fitting(self, rows: Sequence[RejectedRow]) -> tuple[list[RejectedRow], list[RejectedRow]]:
        """Tell the rows that there may be at all from the others: whole messages, the newest first."""
        kept: list[RejectedRow] = []
        spilled: list[RejectedRow] = []
        taken: Counter[str] = Counter()
        for _, group in groupby(reversed(rows), key=lambda row: row.position):
            message = list(group)
            more = Counter(row.device for row in message)
            few = all(taken[device] + count <= self._device_max for device, count in more.items())
            fits = few and len(kept) + len(message) <= self._rows_max
            (kept if fits else spilled).extend(message)
            if fits:
                taken.update(more)
        return kept[::-1], spilled

    def _trim(self, connection: Connection, most: int, which: ColumnElement[bool]) -> None:
        """Drop the oldest messages that have too many rows, and a tenth more, so that not every batch has to count."""
        spare = connection.execute(select(func.count()).select_from(_rejected).where(which)).scalar_one() - most
        if spare > 0:
            newest_gone = (
                select(*_MESSAGE).where(which).order_by(*_NEWEST_FIRST).offset(spare + most // 10 - 1).limit(1)
            )
            cut = connection.execute(newest_gone).one_or_none()
            oldest = true() if cut is None else tuple_(*_MESSAGE) <= tuple_(*cut)
            places = select(_rejected.c.journal, _rejected.c.position).where(which, oldest)
            gone = tuple_(_rejected.c.journal, _rejected.c.position).in_(places)
            by_pair = select(_rejected.c.device, _rejected.c.reason, func.count()).where(gone)
            found = connection.execute(by_pair.group_by(_rejected.c.device, _rejected.c.reason)).all()
            self._count_overflow(connection, {(device, reason): rows for device, reason, rows in found})
            connection.execute(delete(_rejected).where(gone))
        self._counts = _counts(connection)

    def _count_overflow(self, connection: Connection, counts: Mapping[tuple[str, str], int]) -> None:
        """Count rows that were dropped; those of ever more devices are counted without naming the device."""
        for (device, reason), rows in counts.items():
            known = (device, reason) in self._overflowed or len(self._overflowed) < _OVERFLOW_MAX
            pair = (device if known else "", reason)
            where = (_overflow.c.device == pair[0], _overflow.c.reason == reason)
            again = update(_overflow).where(*where).values(rows=_overflow.c.rows + rows)
            if not connection.execute(again).rowcount:
                connection.execute(insert(_overflow).values(device=pair[0], reason=reason, rows=rows))
            self._overflowed.add(pair)


def _counts(connection: Connection) -> Counter[str]:
    found = connection.execute(select(_rejected.c.device, func.count()).group_by(_rejected.c.device))
    return Counter({row[0]: row[1] for row in found})


def _accounts(connection: Connection, where: Sequence[ColumnElement[bool]]) -> list[Account]:
    """Sum rows up to what each of their messages said of each device."""
    names = ("position", "device", "received_us", "account", "accepted", "flagged", "late", "reason", "readings")
    found: dict[tuple[int, str], Account] = {}
    for *known, reason, readings in connection.execute(select(*(_rejected.c[name] for name in names)).where(*where)):
        fields: list[Any] = [*known, Counter()]
        account = found.setdefault((known[0], known[1]), Account(*fields))
        account.rejected[reason] += readings
    return list(found.values())


def dropped(engine: Engine) -> Mapping[str, int]:
    """Return how many rows were dropped to keep their number bounded, by reason."""
    total: Counter[str] = Counter()
    for (_, reason), rows in overflow(engine).items():
        total[reason] += rows
    return total


def overflow(engine: Engine) -> Mapping[tuple[str, str], int]:
    """Return how many rows were dropped to keep their number bounded, by (device, reason)."""
    with engine.connect() as connection:
        return {(row.device, row.reason): row.rows for row in connection.execute(select(_overflow))}


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
    """Count the rejected rows by reason and device, most first; those that were dropped count too."""
    count, last_us = func.count(), func.max(_rejected.c.received_us)
    query = select(_rejected.c.reason, _rejected.c.device, count, last_us).group_by(
        _rejected.c.reason, _rejected.c.device
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    gone = dict(overflow(engine))
    found = [RejectedSummary(r[0], r[1], r[2], r[3], gone.pop((r.device, r.reason), 0)) for r in rows]
    found += [RejectedSummary(reason, device, 0, None, rows) for (device, reason), rows in gone.items()]
    return sorted(found, key=lambda item: (-item.count, -item.dropped, item.reason, item.device))


def positions(
    engine: Engine, journal: str, *, reason: str | None = None, device: str | None = None, upto: int | None = None
) -> list[int]:
    """Return the numbers of the messages of which something was rejected, rising, none above `upto`."""
    query = select(_rejected.c.position).where(_rejected.c.journal == journal, *_matches(reason, device))
    if upto is not None:
        query = query.where(_rejected.c.position <= upto)
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


def advance_awaited(connection: Connection, devices: Iterable[str], number: int) -> None:
    """Note that what these devices sent is replayed up to a message."""
    for device in devices:
        later = (_awaited.c.device == device, _awaited.c.first <= number)
        connection.execute(update(_awaited).where(*later).values(first=number + 1))


def forget_awaited(engine: Engine, devices: Iterable[str]) -> None:
    """Forget devices that were admitted and replayed."""
    with engine.begin() as connection:
        for device in devices:
            connection.execute(delete(_awaited).where(_awaited.c.device == device))
