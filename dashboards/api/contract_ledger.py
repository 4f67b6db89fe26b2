"""The part of the public contract that is about the ledger."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from dashboards.api.contract import Model

__all__ = ["LedgerRow"]


class LedgerRow(Model):
    """What was received of a device in an hour, or of all in an hour or a day, or of a device in all of them.

    `device` is empty for messages of no known device. What is `accepted` and `rejected` makes up the `readings`; duplicates
    count as messages and as duplicates alone. `missing` counts the finished hours' slots of the expected interval in which
    no reading is stored; null where nothing is expected, or too much would have to be looked through.
    """

    device: str | None = Field(description="null where all devices are summed up")
    start: datetime | None = Field(description="the hour or day of receipt; null where all are summed up")
    messages: int
    duplicates: int
    readings: int
    accepted: int
    flagged: int = Field(description="of those accepted: suspect, failed or missing")
    late: int = Field(description="of those accepted: received long after what they describe")
    recovered: int = Field(description="of those accepted: by a later replay or admission")
    rejected: dict[str, int] = Field(description="readings by reason")
    missing: int | None
