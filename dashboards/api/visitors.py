"""Who asks: what is known of tokens and sessions, held in memory and looked up anew every second."""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Annotated

import msgspec
from fastapi import Depends, Request
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from dashboards.api.attempts import Attempts
from dashboards.problem import ProblemError
from qala.state import tokens
from qala.state.tokens import Scope, SessionRow, TokenRow

__all__ = ["NOBODY", "OWNER", "Actor", "Visitor", "Visitors", "VisitorsOf", "acting"]

_FRESH_S, _STALE_S = 1.0, 3.0
_NOTED_EVERY_US = 60_000_000
_DAY_US = 86_400_000_000
_NO_DIGEST = bytes(32)
_log = logging.getLogger(__name__)


class Visitor(msgspec.Struct, frozen=True):
    """Who asks, and what for. `token` is the id of the token that was shown, `session` the digest of a browser's session."""

    actor: str
    scope: Scope
    token: str = ""
    session: bytes = b""


OWNER = Visitor("owner", Scope.OPERATE)
"""Whoever reaches the socket in the data folder, which is its owner alone."""
NOBODY = Visitor("nobody", Scope.OPERATE)
"""Whoever asks where no token is asked for."""


class _Known(msgspec.Struct, frozen=True):
    tokens: Mapping[str, TokenRow]
    sessions: Mapping[bytes, SessionRow]
    read_s: float


class Visitors:
    """Recognises who shows a token or a session. What was revoked is forgotten within a second or two."""

    def __init__(self, state: Engine, *, asked: bool, session_days: float, now_us: Callable[[], int]) -> None:
        self.asked = asked
        self._state = state
        self._session_us = int(session_days * _DAY_US)
        self._now_us = now_us
        self._attempts = Attempts()
        self._noted: dict[str, int] = {}
        self._reading = False
        self._known = _Known({}, {}, -math.inf)
        self.load()

    def load(self) -> None:
        """Read tokens and sessions again, from any thread."""
        self._reading = True
        try:
            began_s = time.monotonic()
            known = {row.id: row for row in tokens.tokens(self._state)}
            sessions = {row.digest: row for row in tokens.sessions(self._state)}
            if began_s > self._known.read_s:
                self._known = _Known(known, sessions, began_s)
        finally:
            self._reading = False

    async def of_token(self, text: str) -> Visitor | None:
        """Return who shows a token, None where it does not hold. Raises ProblemError (503) where nobody can tell."""
        await self._refresh()
        id_, secret = tokens.split(text) or ("", "")
        row = self._known.tokens.get(id_)
        is_right = hmac.compare_digest(row.digest if row else _NO_DIGEST, tokens.digest(secret))
        if row is None or not is_right or not row.holds(self._now_us()):
            return None
        await self._note(row)
        return Visitor(row.name, row.scope, row.id)

    async def of_session(self, secret: str) -> Visitor | None:
        """Return who shows a session, None where it has ended. Raises ProblemError (503) where nobody can tell."""
        await self._refresh()
        digest = tokens.digest(secret)
        row = self._token_of(digest)
        if row is None:
            return None
        await self._note(row)
        return Visitor(row.name, row.scope, row.id, digest)

    async def still_holds(self, visitor: Visitor) -> bool:
        """Tell whether what a visitor showed would be taken again."""
        if not visitor.token:
            return True
        try:
            await self._refresh()
        except ProblemError:
            return False
        if visitor.session:
            return self._token_of(visitor.session) is not None
        row = self._known.tokens.get(visitor.token)
        return row is not None and row.holds(self._now_us())

    async def sign_in(self, visitor: Visitor) -> tuple[Visitor, str, int]:
        """Begin a session for who showed a token; return who that is then, its secret, and how long it lasts [s]."""
        now_us = self._now_us()
        row = self._known.tokens[visitor.token]
        expires_us = min(now_us + self._session_us, row.expires_us or now_us + self._session_us)
        session, secret = await asyncio.to_thread(tokens.open_session, self._state, row.id, now_us, expires_us)
        await asyncio.to_thread(self.load)
        return msgspec.structs.replace(visitor, session=session.digest), secret, (expires_us - now_us) // 1_000_000

    async def sign_out(self, visitor: Visitor | None) -> None:
        """End a visitor's session, if it has one."""
        if visitor is not None and visitor.session:
            await asyncio.to_thread(tokens.end_session, self._state, visitor.session)
            await asyncio.to_thread(self.load)

    def refusal(self, address: str) -> ProblemError:
        """Note a failed attempt, and return the answer to it.

        What is right is taken even where much failed before: many people may share an address, and of 256 random bits it
        is not the guess that is to be feared, but its noise.
        """
        wait_s = math.ceil(self._attempts.fail(address, time.monotonic()))
        if wait_s:
            headers = {"retry-after": str(wait_s)}
            hint = f"wait {wait_s} s, and look at the token with: qala token list"
            return ProblemError(429, "too_many_attempts", "too many attempts failed", hint=hint, headers=headers)
        _log.warning("a token or session that does not hold was shown from %s", address or "an unknown address")
        hint = "it may be revoked, expired or incomplete; get another with: qala token issue"
        headers = {"www-authenticate": 'Bearer error="invalid_token"'}
        return ProblemError(401, "bad_token", "the token or session does not hold", hint=hint, headers=headers)

    def _token_of(self, digest: bytes) -> TokenRow | None:
        session, now_us = self._known.sessions.get(digest), self._now_us()
        row = self._known.tokens.get(session.token) if session and now_us < session.expires_us else None
        return row if row and row.holds(now_us) else None

    async def _refresh(self) -> None:
        age_s = time.monotonic() - self._known.read_s
        if age_s < _FRESH_S or (self._reading and age_s < _STALE_S):
            return
        try:
            await asyncio.to_thread(self.load)
        except SQLAlchemyError as error:
            _log.warning("the tokens cannot be read: %s", type(error).__name__)
            hint = "the server's log and /api/v1/health over its socket say more"
            raise ProblemError(503, "unavailable", "the tokens cannot be read now", hint=hint) from error

    async def _note(self, row: TokenRow) -> None:
        """Write down that a token was used, at most once a minute."""
        now_us = self._now_us()
        if now_us - max(self._noted.get(row.id, 0), row.last_used_us or 0) < _NOTED_EVERY_US:
            return
        self._noted[row.id] = now_us
        try:
            await asyncio.to_thread(tokens.note_used, self._state, row.id, now_us)
        except SQLAlchemyError as error:
            _log.warning("the use of token %s is not noted: %s", row.id, type(error).__name__)


async def _visitors(request: Request) -> Visitors:
    visitors: Visitors = request.app.state.visitors
    return visitors


async def _actor(request: Request) -> str:
    actor: str = request.state.actor
    return actor


VisitorsOf = Annotated[Visitors, Depends(_visitors)]
Actor = Annotated[str, Depends(_actor)]
"""Who asks: the name of the token, "owner" over the socket, "nobody" where no token is asked for."""


def acting(actor: str, claimed: str) -> str:
    """Return the name to record for who acts: what they call themselves, and of a token always its name.

    >>> acting("control-room", "Aigerim"), acting("control-room", "control-room"), acting("owner", "aigerim")
    ('Aigerim (control-room)', 'control-room', 'aigerim')
    """
    if actor in tokens.RESERVED:
        return claimed or actor
    return actor if claimed in {"", actor} else f"{claimed} ({actor})"
