"""Steps from each version of the state database to the next. What was written once is never edited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, inspect, text

__all__ = ["migrate"]

_TO_VERSION: Mapping[int, Sequence[tuple[str, str]]] = {
    2: (
        ("rejected", 'ALTER TABLE rejected ADD COLUMN "offset" BIGINT'),
        ("rejected", "ALTER TABLE rejected ADD COLUMN readings INTEGER NOT NULL DEFAULT 1"),
        ("rejected", "ALTER TABLE rejected ADD COLUMN account TEXT"),
        ("rejected", "ALTER TABLE rejected ADD COLUMN accepted INTEGER NOT NULL DEFAULT 0"),
        ("rejected", "ALTER TABLE rejected ADD COLUMN flagged INTEGER NOT NULL DEFAULT 0"),
        ("rejected", "ALTER TABLE rejected ADD COLUMN late INTEGER NOT NULL DEFAULT 0"),
        (
            "rejected_dropped",
            "CREATE TABLE rejected_overflow "
            '(device TEXT NOT NULL, reason TEXT NOT NULL, "rows" BIGINT NOT NULL, PRIMARY KEY (device, reason))',
        ),
        (
            "rejected_dropped",
            'INSERT INTO rejected_overflow (device, reason, "rows") SELECT \'\', reason, "rows" FROM rejected_dropped',
        ),
        ("rejected_dropped", "DROP TABLE rejected_dropped"),
    ),
    3: (("command", "ALTER TABLE command ADD COLUMN answered_by TEXT"),),
}
"""By version: the table that a step needs, and what it does, in SQL that SQLite and PostgreSQL read alike."""


def migrate(connection: Connection, version: int) -> None:
    """Change the tables of the version before into those of this one. A table that is not there yet is made new later."""
    for table, statement in _TO_VERSION[version]:
        if inspect(connection).has_table(table):
            connection.execute(text(statement))
