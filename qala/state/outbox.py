"""What still has to be delivered: one row a notice and channel, written with the notice in one transaction."""

from __future__ import annotations

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    String,
    Table,
    Text,
    and_,
    insert,
    select,
    update,
)

from qala.state.database import METADATA
from qala.state.episodes import NOTICE

__all__ = ["Delivery", "add_deliveries", "due_deliveries", "mark_delivered", "mark_failed"]

deliveries = Table(
    "delivery",
    METADATA,
    Column("key", String(80), primary_key=True),  # the notice's idempotency key
    Column("channel", String(40), primary_key=True),
    Column("body", Text, nullable=False),  # JSON, as it is sent
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_us", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),  # given up after that
    Column("sent_us", BigInteger),
    Column("last_error", Text),
    Index("delivery_open", "sent_us", "next_us"),
)


class Delivery(msgspec.Struct, frozen=True):
    """One notice that a channel still has to send."""

    key: str
    channel: str
    body: str
    attempts: int


def add_deliveries(
    connection: Connection, key: str, body: str, channels: list[str], *, now_us: int, until_us: int
) -> None:
    """Queue a notice for every channel, inside the caller's transaction."""
    if channels:
        rows = [
            {"key": key, "channel": channel, "body": body, "attempts": 0, "next_us": now_us, "until_us": until_us}
            for channel in channels
        ]
        connection.execute(insert(deliveries), rows)


def due_deliveries(engine: Engine, now_us: int, limit: int) -> list[Delivery]:
    """Return what is to be sent now, oldest first, at most `limit`."""
    query = (
        select(deliveries.c.key, deliveries.c.channel, deliveries.c.body, deliveries.c.attempts)
        .where(deliveries.c.sent_us.is_(None), deliveries.c.next_us <= now_us, deliveries.c.until_us > now_us)
        .order_by(deliveries.c.next_us, deliveries.c.key)
        .limit(limit)
    )
    with engine.connect() as connection:
        return [Delivery(*row) for row in connection.execute(query)]


def mark_delivered(engine: Engine, delivery: Delivery, now_us: int) -> None:
    """Note that a channel took a notice; the notice counts as sent when every channel did."""
    with engine.begin() as connection:
        _update(connection, delivery, sent_us=now_us, attempts=delivery.attempts + 1, last_error=None)
        waiting = select(deliveries.c.key).where(deliveries.c.key == delivery.key, deliveries.c.sent_us.is_(None))
        if connection.execute(waiting).first() is None:
            connection.execute(update(NOTICE).where(NOTICE.c.key == delivery.key).values(sent_us=now_us))


def mark_failed(engine: Engine, delivery: Delivery, error: str, next_us: int) -> None:
    """Note a failed attempt and when to try again."""
    with engine.begin() as connection:
        _update(connection, delivery, next_us=next_us, attempts=delivery.attempts + 1, last_error=error[:500])


def _update(connection: Connection, delivery: Delivery, **changed: object) -> None:
    where = and_(deliveries.c.key == delivery.key, deliveries.c.channel == delivery.channel)
    connection.execute(update(deliveries).where(where).values(**changed))
    tried = update(NOTICE).where(NOTICE.c.key == delivery.key).values(attempts=NOTICE.c.attempts + 1)
    connection.execute(tried)
