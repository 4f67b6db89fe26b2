"""The ledger: how many messages and readings of each device were received in each hour, and what became of them.

What was counted is posted together with the number of the last message that is in it, in one transaction. Whatever was
counted and not posted when a process died is counted anew from there, so that every message counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Index,
    Select,
    Subquery,
    Table,
    Text,
    delete,
    func,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite

from devices.reading import Position
from qala.state.database import METADATA

__all__ = [
    "COLUMNS",
    "HOUR_US",
    "By",
    "Counts",
    "Entry",
    "add",
    "counted",
    "entries",
    "forget",
    "post",
]

HOUR_US = 3_600_000_000

COLUMNS = ("messages", "duplicates", "readings", "accepted", "flagged", "late", "recovered")

_ledger = Table(
    "ledger",
    METADATA,
    Column("device", Text, primary_key=True),
    Column("hour_us", BigInteger, primary_key=True),
    *(Column(name, BigInteger, nullable=False) for name in COLUMNS),
    Index("ledger_hour", "hour_us", "device"),
)
_rejected = Table(
    "ledger_rejected",
    METADATA,
    Column("device", Text, primary_key=True),
    Column("hour_us", BigInteger, primary_key=True),
    Column("reason", Text, primary_key=True),
    Column("readings", BigInteger, nullable=False),
    Index("ledger_rejected_hour", "hour_us", "device"),
)
_position = Table(
    "ledger_position",
    METADATA,
    Column("journal", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
)


class Counts(msgspec.Struct, array_like=True):
    """What is counted. `messages` is all of them, `duplicates` those that had come before; the rest is of the others.

    Of the `readings` that they carried, some were `accepted` and the others `rejected`, by reason. Of those accepted,
    `flagged` are suspect, failed or missing, `late` came long after what they describe, and `recovered` were taken by a
    later replay or admission.
    """

    messages: int = 0
    duplicates: int = 0
    readings: int = 0
    accepted: int = 0
    flagged: int = 0
    late: int = 0
    recovered: int = 0
    rejected: dict[str, int] = {}

    def add(self, other: Counts) -> None:
        """Add what another one counts."""
        for name in COLUMNS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for reason, readings in other.rejected.items():
            self.rejected[reason] = self.rejected.get(reason, 0) + readings


class Entry(msgspec.Struct, array_like=True):
    """What is counted under a device in the UTC hour of receipt that begins at `hour_us`; the device is "" where none is known."""

    device: str
    hour_us: int
    counts: Counts


class By(StrEnum):
    """What entries are summed up by."""

    ALL = "all"  # not at all: by device and hour
    HOUR = "hour"
    DAY = "day"
    DEVICE = "device"


def counted(engine: Engine, journal: str) -> int | None:
    """Return up to which message of a journal all are counted; None where none ever was."""
    with engine.connect() as connection:
        query = select(_position.c.number).where(_position.c.journal == journal)
        return connection.execute(query).scalar_one_or_none()


def post(connection: Connection, entries: Iterable[Entry], upto: Position) -> None:
    """Add what all messages up to one come to that were not counted before."""
    add(connection, entries)
    statement = _insert(connection, _position).values(journal=upto.journal, number=upto.number)
    again = statement.on_conflict_do_update(index_elements=["journal"], set_={"number": statement.excluded.number})
    connection.execute(again)


def add(connection: Connection, entries: Iterable[Entry]) -> None:
    """Add to the hours."""
    sums: dict[tuple[str, int], Counts] = {}
    for entry in entries:
        sums.setdefault((entry.device, entry.hour_us), Counts()).add(entry.counts)
    rows = [
        {"device": device, "hour_us": hour_us, **{name: getattr(counts, name) for name in COLUMNS}}
        for (device, hour_us), counts in sums.items()
    ]
    reasons = [
        {"device": device, "hour_us": hour_us, "reason": reason, "readings": readings}
        for (device, hour_us), counts in sums.items()
        for reason, readings in counts.rejected.items()
        if readings
    ]
    _add(connection, _ledger, rows, COLUMNS)
    _add(connection, _rejected, reasons, ("readings",))


def _add(connection: Connection, table: Table, rows: list[dict[str, Any]], columns: Sequence[str]) -> None:
    if not rows:
        return
    statement = _insert(connection, table)
    sums = {name: table.c[name] + statement.excluded[name] for name in columns}
    again = statement.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=sums)
    connection.execute(again, sorted(rows, key=lambda row: (row["hour_us"], row["device"])))


def _insert(connection: Connection, table: Table) -> Any:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)


def forget(engine: Engine, before_us: int) -> int:
    """Delete the hours that begin before a time, and return how many rows that were."""
    with engine.begin() as connection:
        connection.execute(delete(_rejected).where(_rejected.c.hour_us < before_us))
        return connection.execute(delete(_ledger).where(_ledger.c.hour_us < before_us)).rowcount


# ---- questions


def entries(
    engine: Engine,
    start_us: int,
    stop_us: int,
    *,
    by: By = By.ALL,
    devices: Set[str] | None = None,
    after: tuple[int, str] | None = None,
    limit: int,
) -> list[Entry]:
    """Return entries of the hours that begin in `[start_us, stop_us)`, by time and device, those after a key.

    Summed by hour or by day all devices are one, "", summed by device all hours are one, 0. `devices` None means all.
    """
    some = _part(_ledger, start_us, stop_us, by, devices)
    query = select(some.c.device, some.c.hour_us, *(func.sum(some.c[name]) for name in COLUMNS))
    if after is not None:
        query = query.where(tuple_(some.c.hour_us, some.c.device) > tuple_(*after))
    query = query.group_by(some.c.hour_us, some.c.device).order_by(some.c.hour_us, some.c.device).limit(limit)
    with engine.connect() as connection:
        rows = connection.execute(query).all()
        page = {(row[1], row[0]): Entry(row[0], row[1], _summed(row[2:])) for row in rows}
        some = _part(_rejected, start_us, stop_us, by, devices)
        for hour_us, device, reason, readings in connection.execute(_reasons(some, list(page))) if page else ():
            if (hour_us, device) in page and readings:
                page[hour_us, device].counts.rejected[reason] = int(readings)
    return list(page.values())


def _summed(columns: Sequence[Any]) -> Counts:
    """Make counts of sums; PostgreSQL sums whole numbers to decimals."""
    values: list[Any] = [int(column) for column in columns]
    return Counts(*values)


def _part(table: Table, start_us: int, stop_us: int, by: By, devices: Set[str] | None) -> Subquery:
    """Return a table's rows of a range and some devices, with the key that they are summed by."""
    day_us = table.c.hour_us - table.c.hour_us % literal_column("86400000000")
    hours = {By.DAY: day_us, By.DEVICE: literal_column("0")}
    hour_us: ColumnElement[Any] = hours.get(by, table.c.hour_us)
    device: ColumnElement[Any] = table.c.device if by in {By.ALL, By.DEVICE} else literal_column("''")
    rest = [column for column in table.c if column.name not in {"hour_us", "device"}]
    query = select(hour_us.label("hour_us"), device.label("device"), *rest)
    query = query.where(table.c.hour_us >= start_us, table.c.hour_us < stop_us)
    if devices is not None:
        query = query.where(table.c.device.in_(sorted(devices)))
    return query.subquery()


def _reasons(some: Subquery, keys: list[tuple[int, str]]) -> Select[Any]:
    """Ask for (hour, device, reason, readings) from the first of a page's keys to its last."""
    key = tuple_(some.c.hour_us, some.c.device)
    query = select(some.c.hour_us, some.c.device, some.c.reason, func.sum(some.c.readings))
    query = query.where(key >= tuple_(*keys[0]), key <= tuple_(*keys[-1]))
    return query.group_by(some.c.hour_us, some.c.device, some.c.reason)
