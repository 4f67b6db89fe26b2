"""Alert episodes, their acknowledgement, and the notices that people were sent about them.

Episodes follow from values and may change when those do; notices are append-only: what people were told is not rewritten.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    String,
    Table,
    and_,
    func,
    insert,
    or_,
    select,
    update,
)

from devices.errors import ConflictError, NotFoundError
from qala.state.database import METADATA

__all__ = [
    "EpisodeRow",
    "NoticeRow",
    "acknowledge",
    "add_notice",
    "counts",
    "episode",
    "episodes",
    "notices",
    "overlapping",
    "put_episode",
    "was_told",
]

_Id = BigInteger().with_variant(Integer, "sqlite")

EPISODE = Table(
    "episode",
    METADATA,
    Column("id", String, primary_key=True),
    Column("rule", String, nullable=False),
    Column("zone", String, nullable=False),
    Column("kind", String, nullable=False),  # "value", "no_data"
    Column("severity", String, nullable=False),
    Column("state", String, nullable=False),  # "firing", "ended", "withdrawn"
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger),
    Column("fired_us", BigInteger),
    Column("indicator", String, nullable=False),
    Column("window", String, nullable=False),
    Column("value", Float),
    Column("last", Float),
    Column("threshold", Float),
    Column("ack_actor", String),
    Column("ack_comment", String),
    Column("ack_us", BigInteger),
    Column("updated_us", BigInteger, nullable=False),
    Index("episode_by_state", "state", "start_us"),
    Index("episode_by_rule", "rule", "zone", "start_us"),
)

NOTICE = Table(
    "notice",
    METADATA,
    Column("id", _Id, primary_key=True),
    Column("episode", String, nullable=False, index=True),
    Column("kind", String, nullable=False),  # "raised", "amended", "withdrawn", "resolved"
    Column("time_us", BigInteger, nullable=False),
    Column("key", String, nullable=False, unique=True),
    Column("body", JSON, nullable=False),
    Column("recorded_us", BigInteger, nullable=False),
    Column("sent_us", BigInteger),
    Column("attempts", Integer, nullable=False, default=0),
    Column("suppressed", Boolean, nullable=False, default=False),
    Index("notice_unsent", "sent_us", "suppressed"),
)


class EpisodeRow(msgspec.Struct, frozen=True):
    """One firing of a rule in a zone, `[start_us, end_us)` in event time; `end_us` is None while it lasts.

    `value` is the worst that the indicator reached, `threshold` what it was compared with (both None for no data).
    """

    id: str
    rule: str
    zone: str
    kind: str
    severity: str
    state: str
    start_us: int
    end_us: int | None
    indicator: str
    window: str
    value: float | None
    threshold: float | None
    ack_actor: str | None
    ack_comment: str | None
    ack_us: int | None
    updated_us: int
    fired_us: int | None = None  # end of the window in which the breach had lasted long enough
    last: float | None = None  # the indicator's last number in it


class NoticeRow(msgspec.Struct, frozen=True):
    """What people were told about an episode. `sent_us` is None while it waits; a suppressed one is never sent."""

    id: int
    episode: str
    kind: str
    time_us: int
    key: str
    body: dict[str, Any]
    recorded_us: int
    sent_us: int | None
    attempts: int
    suppressed: bool


def episodes(
    engine: Engine,
    *,
    states: Collection[str] | None = None,
    rule: str | None = None,
    zone: str | None = None,
    acknowledged: bool | None = None,
    after: tuple[int, str] | None = None,
    limit: int = 1_000,
) -> list[EpisodeRow]:
    """List episodes, the newest start first; `after` is the (start_us, id) of the last one of the page before."""
    query = select(EPISODE).order_by(EPISODE.c.start_us.desc(), EPISODE.c.id.desc()).limit(limit)
    if states is not None:
        query = query.where(EPISODE.c.state.in_(sorted(states)))
    if rule is not None:
        query = query.where(EPISODE.c.rule == rule)
    if zone is not None:
        query = query.where(EPISODE.c.zone == zone)
    if acknowledged is not None:
        query = query.where(EPISODE.c.ack_us.is_not(None) if acknowledged else EPISODE.c.ack_us.is_(None))
    if after is not None:
        start_us, last = after
        same = and_(EPISODE.c.start_us == start_us, EPISODE.c.id < last)
        query = query.where(or_(EPISODE.c.start_us < start_us, same))
    with engine.connect() as connection:
        return [EpisodeRow(**row) for row in connection.execute(query).mappings()]


def episode(engine: Engine, id: str) -> EpisodeRow:  # noqa: A002
    """Return one episode. Raises NotFoundError."""
    with engine.connect() as connection:
        row = connection.execute(select(EPISODE).where(EPISODE.c.id == id)).mappings().one_or_none()
    if row is None:
        raise NotFoundError(f"no alert has the id {id!r}", hint="list the alerts; a withdrawn one needs state=all")
    return EpisodeRow(**row)


def acknowledge(engine: Engine, id: str, actor: str, comment: str, at_us: int) -> EpisodeRow:  # noqa: A002
    """Note who took care of an episode and return it. Repeating the same acknowledgement changes nothing.

    Raises NotFoundError, and ConflictError where it was acknowledged by somebody else or with another comment.
    """
    open_one = update(EPISODE).where(EPISODE.c.id == id, EPISODE.c.ack_us.is_(None))
    with engine.begin() as connection:
        connection.execute(open_one.values(ack_actor=actor, ack_comment=comment, ack_us=at_us, updated_us=at_us))
    found = episode(engine, id)
    if (found.ack_actor, found.ack_comment) != (actor, comment):
        raise ConflictError(
            f"the alert was acknowledged by {found.ack_actor!r} already",
            hint="read the alert to see who takes care of it and what was said",
        )
    return found


def counts(engine: Engine) -> tuple[int, int]:
    """Count the episodes that are firing, and those among them that nobody acknowledged."""
    unacknowledged = func.count().filter(EPISODE.c.ack_us.is_(None))
    query = select(func.count(), unacknowledged).select_from(EPISODE).where(EPISODE.c.state == "firing")
    with engine.connect() as connection:
        firing, open_ones = connection.execute(query).one()
    return int(firing), int(open_ones)


def notices(engine: Engine, episode: str) -> list[NoticeRow]:
    """List the notices of an episode, oldest first."""
    query = select(NOTICE).where(NOTICE.c.episode == episode).order_by(NOTICE.c.id)
    with engine.connect() as connection:
        return [NoticeRow(**row) for row in connection.execute(query).mappings()]


def overlapping(connection: Connection, rule: str, zone: str, kind: str, start_us: int) -> list[EpisodeRow]:
    """List the episodes of a rule in a zone that reach beyond a time, the oldest first; withdrawn ones are left out."""
    query = (
        select(EPISODE)
        .where(EPISODE.c.rule == rule, EPISODE.c.zone == zone, EPISODE.c.kind == kind, EPISODE.c.state != "withdrawn")
        .where(or_(EPISODE.c.end_us.is_(None), EPISODE.c.end_us > start_us))
        .order_by(EPISODE.c.start_us)
    )
    return [EpisodeRow(**row) for row in connection.execute(query).mappings()]


def put_episode(connection: Connection, row: EpisodeRow) -> EpisodeRow:
    """Write an episode under its id, keeping an acknowledgement that is there, and return it as it then stands."""
    fields = msgspec.structs.asdict(row)
    kept = {name: fields.pop(name) for name in ("ack_actor", "ack_comment", "ack_us")}
    changed = connection.execute(update(EPISODE).where(EPISODE.c.id == row.id).values(**fields))
    if changed.rowcount == 0:
        connection.execute(insert(EPISODE).values(**fields, **kept))
    return EpisodeRow(**connection.execute(select(EPISODE).where(EPISODE.c.id == row.id)).mappings().one())


def was_told(connection: Connection, episode: str) -> bool:
    """Tell whether any notice about an episode was sent or is going to be."""
    told = select(NOTICE.c.id).where(NOTICE.c.episode == episode, NOTICE.c.suppressed.is_(False)).limit(1)
    return connection.execute(told).first() is not None


def add_notice(
    connection: Connection,
    *,
    episode: str,
    kind: str,
    time_us: int,
    body: dict[str, Any],
    recorded_us: int,
    suppressed: bool,
) -> str:
    """Append a notice and return its idempotency key: the episode's id and the count of its notices."""
    said = connection.execute(select(func.count()).select_from(NOTICE).where(NOTICE.c.episode == episode)).scalar_one()
    key = f"{episode}-{said + 1}"
    row = {"episode": episode, "kind": kind, "time_us": time_us, "key": key, "body": {**body, "key": key}}
    connection.execute(insert(NOTICE).values(**row, recorded_us=recorded_us, suppressed=suppressed, attempts=0))
    return key
