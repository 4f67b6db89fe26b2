"""The part of the public contract that commands to devices have."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from dashboards.api.contract import Model
from qala.state.commands import EXPIRES_MAX_S, CommandState

__all__ = ["Command", "NewCommand"]


class Command(Model):
    """A command to a device and how it went.

    `code` is the reason code of the acknowledgement, `answered_by` who gave it: the device, or its gateway. `reason` says in
    words why it ended without having been taken.
    """

    id: str
    device: str = Field(examples=["city/air-001"])
    payload: dict[str, Any] = Field(examples=[{"reboot": True}])
    state: CommandState
    requested: datetime
    requested_by: str
    expires: datetime
    sent: datetime | None
    delivered: datetime | None
    code: int | None
    answered_by: str | None
    cancelled: datetime | None
    cancelled_by: str | None
    reason: str | None


class NewCommand(Model):
    """A command: a JSON object that the device gets as it is written here, and how long it is worth delivering."""

    payload: dict[str, Any] = Field(examples=[{"reboot": True}])
    expires_in_s: int = Field(default=3_600, ge=1, le=EXPIRES_MAX_S)
    actor: str = Field(default="", max_length=100, description="who asks, where the server cannot tell by itself")
