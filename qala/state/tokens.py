"""Tokens of the API, and the sessions that browsers got for one. Only hashes are kept: a token is printed once.

A token is `<id>.<secret>`. Both secrets are 256 random bits, which nobody finds by trying, so a plain SHA-256 keeps them.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    LargeBinary,
    String,
    Table,
    delete,
    insert,
    select,
    update,
)

from devices.errors import ConfigError, ConflictError, NotFoundError
from qala.state.database import METADATA

__all__ = [
    "NAME_MAX",
    "RESERVED",
    "SESSIONS_MAX",
    "TOKENS_MAX",
    "Scope",
    "SessionRow",
    "TokenRow",
    "digest",
    "end_session",
    "issue",
    "note_used",
    "open_session",
    "revoke",
    "sessions",
    "split",
    "tokens",
]

NAME_MAX = 100
TOKENS_MAX = 10_000
SESSIONS_MAX = 100
"""Sessions of one token; the oldest ends for another."""
RESERVED = frozenset({"owner", "nobody"})
"""Names that stand for whoever needs no token."""
_ID_BYTES, _SECRET_BYTES = 5, 32
_ID_LETTERS, _SECRET_LETTERS = 8, 43

TOKEN = Table(
    "api_token",
    METADATA,
    Column("id", String(_ID_LETTERS), primary_key=True),
    Column("name", String(NAME_MAX), nullable=False),
    Column("scope", String(16), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger),
    Column("last_used_us", BigInteger),
    Column("revoked_us", BigInteger),
)

SESSION = Table(
    "api_session",
    METADATA,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("token", String(_ID_LETTERS), nullable=False, index=True),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
)


class Scope(StrEnum):
    """What a token allows: reading everything, or everything."""

    READ = "read"
    OPERATE = "operate"


class TokenRow(msgspec.Struct, frozen=True):
    """A token as it is kept. `last_used_us` is coarse; the times that are None are not set."""

    id: str
    name: str
    scope: Scope
    digest: bytes
    created_us: int
    expires_us: int | None
    last_used_us: int | None
    revoked_us: int | None

    def holds(self, now_us: int) -> bool:
        """Tell whether it is neither revoked nor expired."""
        return self.revoked_us is None and (self.expires_us is None or now_us < self.expires_us)


class SessionRow(msgspec.Struct, frozen=True):
    """A browser that showed a token once."""

    digest: bytes
    token: str
    created_us: int
    expires_us: int


def digest(secret: str) -> bytes:
    """Return what is kept of a secret: uint8[32]."""
    return hashlib.sha256(secret.encode()).digest()


def split(text: str) -> tuple[str, str] | None:
    """Return the id and the secret of a token, or None where a text cannot be one.

    >>> split("abcd2345." + "x" * 43) == ("abcd2345", "x" * 43), split("abcd2345"), split("." + "x" * 43)
    (True, None, None)
    """
    id_, _, secret = text.partition(".")
    return (id_, secret) if (len(id_), len(secret)) == (_ID_LETTERS, _SECRET_LETTERS) and text.isascii() else None


def issue(
    engine: Engine, name: str, scope: Scope, now_us: int, *, expires_us: int | None = None
) -> tuple[TokenRow, str]:
    """Make a token; return it as it is kept, and its text, which is not kept.

    Raises ConfigError for a name that cannot be, ConflictError where there are TOKENS_MAX tokens.
    """
    _check_name(name)
    id_ = base64.b32encode(os.urandom(_ID_BYTES)).decode().lower()
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    row = TokenRow(id_, name, scope, digest(secret), now_us, expires_us, None, None)
    with engine.begin() as connection:
        connection.execute(insert(TOKEN).values(msgspec.structs.asdict(row)))
        if len(_read(connection)) > TOKENS_MAX:
            raise ConflictError(f"there are {TOKENS_MAX} tokens", hint="nobody needs so many: revoke those in disuse")
    return row, f"{id_}.{secret}"


def revoke(engine: Engine, id: str, now_us: int) -> TokenRow:  # noqa: A002
    """End a token and its sessions for good, and return it; again, this changes nothing. Raises NotFoundError."""
    with engine.begin() as connection:
        still = TOKEN.c.revoked_us.is_(None)
        connection.execute(update(TOKEN).where(TOKEN.c.id == id, still).values(revoked_us=now_us))
        connection.execute(delete(SESSION).where(SESSION.c.token == id))
        found = _read(connection, id)
    if not found:
        raise NotFoundError(f"there is no token {id!r}", hint="list them with: qala token list")
    return found[0]


def tokens(engine: Engine) -> list[TokenRow]:
    """Return every token there ever was, the oldest first."""
    with engine.connect() as connection:
        return _read(connection)


def sessions(engine: Engine) -> list[SessionRow]:
    """Return the sessions that were not ended; some may have expired."""
    with engine.connect() as connection:
        return [SessionRow(*row) for row in connection.execute(select(SESSION))]


def note_used(engine: Engine, id: str, now_us: int) -> None:  # noqa: A002
    """Note that a token was shown."""
    with engine.begin() as connection:
        connection.execute(update(TOKEN).where(TOKEN.c.id == id).values(last_used_us=now_us))


def open_session(engine: Engine, token: str, now_us: int, expires_us: int) -> tuple[SessionRow, str]:
    """Begin a session of a token; return it as it is kept, and the secret that the browser shows."""
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    row = SessionRow(digest(secret), token, now_us, expires_us)
    with engine.begin() as connection:
        connection.execute(delete(SESSION).where(SESSION.c.expires_us <= now_us))
        mine = select(SESSION.c.digest).where(SESSION.c.token == token).order_by(SESSION.c.created_us.desc())
        too_many = [one.digest for one in connection.execute(mine.offset(SESSIONS_MAX - 1))]
        connection.execute(delete(SESSION).where(SESSION.c.digest.in_(too_many)))
        connection.execute(insert(SESSION).values(msgspec.structs.asdict(row)))
    return row, secret


def end_session(engine: Engine, digest: bytes) -> None:
    """End a session, if there is such a one."""
    with engine.begin() as connection:
        connection.execute(delete(SESSION).where(SESSION.c.digest == digest))


def _read(connection: Connection, id: str | None = None) -> list[TokenRow]:  # noqa: A002
    chosen = select(TOKEN).order_by(TOKEN.c.created_us, TOKEN.c.id)
    if id is not None:
        chosen = chosen.where(TOKEN.c.id == id)
    return [_row(row._asdict()) for row in connection.execute(chosen)]


def _row(columns: dict[str, Any]) -> TokenRow:
    return TokenRow(**{**columns, "scope": Scope(columns["scope"])})


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= NAME_MAX or not name.isprintable() or name != name.strip() or name.lower() in RESERVED:
        raise ConfigError(
            f"a token cannot be called {name!r}",
            hint=f"name who or what uses it in up to {NAME_MAX} letters, but not {' or '.join(sorted(RESERVED))}",
        )
