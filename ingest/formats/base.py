"""What every payload format gives: reports of devices, and what had to be rejected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from devices.errors import Reason
from ingest.message import Message

__all__ = ["Decoded", "Format", "Metadata", "Rejection", "Report", "Status"]


class Report(msgspec.Struct, gc=False):
    """Values that one device gave for one time. `keys` and `values` have one length.

    `keys` are native keys ("quantity.channel"). `time_us` is None where the message has no time of its own; it is the
    start of what is described, and `span_s` its length (0: an instant). A value is a number, a bool, a state's name, or
    None for "tried, no reading". `quality` is the device's own verdict (0 good, 1 uncertain, 2 bad), one for all or one
    for each key. `units` declares the units of keys that are not in the quantity catalogue, or in another unit.
    """

    device: str  # "<fleet>/<device>"
    time_us: int | None
    keys: tuple[str, ...]
    values: Sequence[float | bool | str | None]
    span_s: int = 0
    revision: int = 0
    quality: int | tuple[int, ...] = 0
    units: dict[str, str] | None = None


class Status(msgspec.Struct):
    """What a device says of itself: on or off, firmware, interval."""

    device: str
    online: bool
    firmware: str | None = None
    interval_s: int | None = None


class Metadata(msgspec.Struct):
    """What a device says of its quantities and place."""

    device: str
    model: str | None = None
    lat: float | None = None
    lon: float | None = None
    time_zone: str | None = None
    units: dict[str, str] = {}  # quantity -> unit
    counters: frozenset[str] = frozenset()  # those among them that are running totals


class Rejection(msgspec.Struct):
    """Something of a message that could not become a reading. `key` is empty where it was the whole message.

    `readings` is how many readings it stands for: 1 where nobody can tell. `offset` is the first bad byte of the payload.
    """

    reason: Reason
    detail: str = ""
    key: str = ""
    device: str = ""
    readings: int = 1
    offset: int | None = None


class Decoded(msgspec.Struct, gc=False):
    """All that a message says. Every reading it carries is in a report or covered by a rejection."""

    reports: Sequence[Report] = ()
    rejections: Sequence[Rejection] = ()
    status: Status | None = None
    metadata: Metadata | None = None


class Format(Protocol):
    """One payload format: a module in `ingest/formats/` that has these two functions."""

    def reads(self, topic: str) -> bool:
        """Tell whether messages on this topic are of this format."""

    def decode(self, message: Message) -> Decoded:
        """Decode one message. Never raises on bad input: that is a rejection."""
