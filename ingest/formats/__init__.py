"""Payload formats. A module here that has `reads` and `decode`, or a `make` that gives an object with both, is one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import cast

from devices.errors import Reason
from ingest.formats.base import Decoded, Format, Rejection
from ingest.message import Message
from ingest.settings import IngestSettings

__all__ = ["Decoder", "find_formats"]

_TOPICS_MAX = 65_536


def find_formats(settings: IngestSettings) -> tuple[Format, ...]:
    """Return every format, by its module's name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return tuple(module.make(settings) if hasattr(module, "make") else cast("Format", module) for module in modules)


class Decoder:
    """All formats together: the first that reads a topic decodes it. Knows topics by a bounded cache."""

    def __init__(self, formats: tuple[Format, ...]) -> None:
        self._formats = formats
        self._find = lru_cache(_TOPICS_MAX)(self._decode_of)

    def decode_all(self, messages: Sequence[Message]) -> list[Decoded]:
        """Decode messages, one for one. Never raises: what a format fails on is rejected, alone."""
        find = self._find
        try:
            return [find(message.topic)(message) for message in messages]
        except Exception:  # noqa: BLE001 - a format's bug must not stop the others' messages
            return [self.decode(message) for message in messages]

    def decode(self, message: Message) -> Decoded:
        """Decode one message. Never raises: what a format fails on is rejected."""
        try:
            return self._find(message.topic)(message)
        except Exception as error:  # noqa: BLE001 - as above
            return _rejected(Reason.BAD_SHAPE, f"the format failed on it: {type(error).__name__}")

    def _decode_of(self, topic: str) -> Callable[[Message], Decoded]:
        return next((format_.decode for format_ in self._formats if format_.reads(topic)), _unread)


def _unread(_message: Message) -> Decoded:
    return _rejected(Reason.BAD_TOPIC, "no format reads this topic")


def _rejected(reason: Reason, detail: str) -> Decoded:
    return Decoded(rejections=(Rejection(reason, detail),))
