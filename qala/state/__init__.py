"""What the server knows besides readings and values: one module a subject, over one database.

Every module with tables is imported here, so that `open_state` makes them all.
"""

from qala.state import (
    commands,
    credentials,
    dirty,
    episodes,
    judged,
    ledger,
    outbox,
    registry,
    rejected,
    reopened,
    tokens,
)
from qala.state.database import METADATA, SCHEMA_VERSION, open_state

__all__ = [
    "METADATA",
    "SCHEMA_VERSION",
    "commands",
    "credentials",
    "dirty",
    "episodes",
    "judged",
    "ledger",
    "open_state",
    "outbox",
    "registry",
    "rejected",
    "reopened",
    "tokens",
]
