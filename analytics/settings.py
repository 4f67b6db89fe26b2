"""What can be set of indicators, rules and notices."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["AnalyticsSettings"]


class AnalyticsSettings(BaseModel):
    """Settings of analytics; `[analytics]` in qala.toml, `QALA_ANALYTICS__...` in the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: Path | None = Field(default=None, description="Folder with alert rules (*.toml) beside those shipped.")
    webhook: str = Field(
        default="",
        pattern=r"^(https?://\S+)?$",
        description="Address (http or https) that notices are posted to as JSON; empty: only the log.",
    )
    webhook_timeout_s: float = Field(default=10.0, gt=0, le=120, description="How long one post may take [s].")
    notice_retry_max_s: float = Field(
        default=300.0, gt=0, description="Longest wait between two posts of a notice [s]; it is given up after a day."
    )
    tick_s: float = Field(default=1.0, gt=0, le=60, description="Pause between two rounds of the scheduler [s].")
    amend_every_s: float = Field(
        default=10.0, ge=0, le=3600, description="A window that late readings keep changing is computed this often [s]."
    )
    windows_max: int = Field(default=20_000, ge=1, description="Windows that one round computes at most.")
    readings_max: int = Field(
        default=2_000_000, ge=1_000, description="Readings that one read asks of the store, about."
    )
