"""The public contract of tokens and of the sessions that browsers get for one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dashboards.api.contract import Model

__all__ = ["NewToken", "Session", "SignIn"]


class SignIn(Model):
    """A token to begin a session with."""

    token: str = Field(max_length=200)


class Session(Model):
    """Who asks, and what for. `asked` tells whether a token is needed at all, `cookie` whether there is a session to end."""

    name: str
    scope: Literal["read", "operate"]
    asked: bool
    cookie: bool


class NewToken(Model):
    """A token to issue; without `expires_days` it holds until it is revoked."""

    name: str = Field(min_length=1, max_length=100)
    scope: Literal["read", "operate"]
    expires_days: int | None = Field(default=None, ge=1, le=36_500)
