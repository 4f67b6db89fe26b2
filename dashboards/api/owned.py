"""What the owner of the data folder asks about credentials, over its socket: the bodies of those requests."""

from __future__ import annotations

from pydantic import Field

from dashboards.api.contract import Model

__all__ = ["NewCredential", "NewCredentials", "RevokedCredential", "RotatedCredential"]


class NewCredential(Model):
    """A token to issue to a device or a gateway, and who asks for it."""

    principal: str = Field(max_length=200)
    filters: list[str] = Field(default=[], max_length=100)
    expires_days: int | None = Field(default=None, ge=1, le=36_500)
    note: str = Field(default="", max_length=200)
    by: str = Field(default="", max_length=100)


class RotatedCredential(NewCredential):
    """A token to issue in place of another one, which goes on being valid for the overlap."""

    overlap_hours: float = Field(default=24, ge=0, le=2_160)


class NewCredentials(Model):
    """Tokens to issue to many; without `principals`, to all devices of the registry."""

    principals: list[str] | None = Field(default=None, max_length=200_000)
    expires_days: int | None = Field(default=None, ge=1, le=36_500)
    note: str = Field(default="", max_length=200)
    by: str = Field(default="", max_length=100)


class RevokedCredential(Model):
    """What to revoke: one token by its id, or all that a principal has."""

    principal: str = Field(max_length=200)
    id: str | None = Field(default=None, max_length=100)
    certificates: bool = False  # refuse those of before now, whatever is known of the device
    by: str = Field(default="", max_length=100)
