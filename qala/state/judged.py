"""Up to which position of a journal alerts were judged: a store that is behind that is being rebuilt."""

from __future__ import annotations

import msgspec
from sqlalchemy import BigInteger, Boolean, Column, Engine, Table, Text, delete, insert, select

from qala.state.database import METADATA

__all__ = ["Judged", "judged", "set_judged"]

JUDGED = Table(
    "judged",
    METADATA,
    Column("journal", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("rebuilding", Boolean, nullable=False),
)


class Judged(msgspec.Struct, frozen=True):
    """The message up to which all was judged, and whether a rebuild up to there is under way."""

    number: int = 0
    rebuilding: bool = False


def judged(engine: Engine, journal: str) -> Judged:
    """Return how far a journal was judged."""
    query = select(JUDGED.c.number, JUDGED.c.rebuilding).where(JUDGED.c.journal == journal)
    with engine.connect() as connection:
        row = connection.execute(query).first()
    return Judged(*row) if row else Judged()


def set_judged(engine: Engine, journal: str, now: Judged) -> None:
    """Note how far a journal was judged."""
    with engine.begin() as connection:
        connection.execute(delete(JUDGED).where(JUDGED.c.journal == journal))
        connection.execute(insert(JUDGED).values(journal=journal, number=now.number, rebuilding=now.rebuilding))
