"""From where a journal has to be projected again, after the store was put back to what it was before."""

from __future__ import annotations

import msgspec
from sqlalchemy import BigInteger, Column, Engine, Table, Text, delete, insert, select

from qala.state.database import METADATA

__all__ = ["Rewound", "rewound", "set_rewound"]

_REWOUND = Table(
    "rewound",
    METADATA,
    Column("journal", Text, primary_key=True),
    Column("after", BigInteger, nullable=False),
    Column("upto", BigInteger, nullable=False),
)


class Rewound(msgspec.Struct, frozen=True):
    """The messages numbered above `after`, up to `upto`, have to be taken once more."""

    after: int = 0
    upto: int = 0


def rewound(engine: Engine, journal: str) -> Rewound:
    """Return what of a journal has to be taken once more; an empty range where nothing has."""
    query = select(_REWOUND.c.after, _REWOUND.c.upto).where(_REWOUND.c.journal == journal)
    with engine.connect() as connection:
        row = connection.execute(query).first()
    return Rewound(*row) if row else Rewound()


def set_rewound(engine: Engine, journal: str, now: Rewound) -> None:
    """Note what of a journal has to be taken once more; an empty range forgets it."""
    with engine.begin() as connection:
        connection.execute(delete(_REWOUND).where(_REWOUND.c.journal == journal))
        if now.after < now.upto:
            connection.execute(insert(_REWOUND).values(journal=journal, after=now.after, upto=now.upto))
