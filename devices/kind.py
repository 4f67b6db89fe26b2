"""Kinds: what a type of device reports. One declaration each, in `devices/kinds/`."""

from __future__ import annotations

import msgspec

__all__ = ["Kind"]


class Kind(msgspec.Struct, frozen=True):
    """A type of device.

    `quantities` are those that a device of the kind normally reports; coverage is judged against one reading of each per
    `interval_s`, unless the device declares another interval. Other known quantities are accepted too.
    """

    name: str
    title: str
    domain: str  # "traffic", "air", "energy", "weather"
    quantities: tuple[str, ...]
    interval_s: int
