"""Who is at the door, and what it may do there. Pure: what is known of credentials is given, and asked without waiting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from devices.errors import QalaError
from ingest.mqtt.wire import Code

__all__ = ["NOBODY", "OWNER", "Gate", "OpenGate", "Principal", "RefusedError"]


class RefusedError(QalaError):
    """Somebody who does not get in. `answer` is what an MQTT 5 client is told; the message is for the log alone."""

    code = "refused"

    def __init__(self, message: str, *, answer: Code = Code.NOT_AUTHORIZED) -> None:
        super().__init__(message, hint="look at its credentials with: qala devices credential list")
        self.answer = answer


class Principal(msgspec.Struct, frozen=True):
    """Who was authenticated: a device ("<fleet>/<device>"), a gateway (a name without "/"), or nobody in particular.

    `filters` are the MQTT topic filters on which it may publish, None: any. `credential` is the id of what it showed,
    `certified_us` from when to when the certificate holds that it showed, None: it showed none.
    """

    name: str = ""
    credential: str = ""
    filters: tuple[str, ...] | None = None
    certified_us: tuple[int, int] | None = None

    @property
    def is_device(self) -> bool:
        return "/" in self.name

    @property
    def is_gateway(self) -> bool:
        return bool(self.name) and not self.is_device and self != OWNER

    def may_publish(self, topic: str) -> bool:
        """Tell whether a topic is one of its own."""
        return self.filters is None or any(matches(topic_filter, topic) for topic_filter in self.filters)


NOBODY = Principal()
OWNER = Principal("@owner")
"""Whoever reaches the socket in the data folder, which is its owner alone."""


class Gate(Protocol):
    """Decides who gets in. Never blocks."""

    def authenticate(
        self, username: str | None, password: bytes | None, certificate: Mapping[str, Any] | None
    ) -> Principal:
        """Return who shows a user name and a secret, or a verified client certificate (as `ssl` gives it).

        Raises RefusedError.
        """

    def still_holds(self, principal: Principal) -> bool:
        """Tell whether what a principal showed is still valid."""


class OpenGate:
    """Lets everybody in, as nobody in particular: for addresses that only this machine reaches."""

    def authenticate(
        self,
        username: str | None,  # noqa: ARG002 - nobody is asked
        password: bytes | None,  # noqa: ARG002
        certificate: Mapping[str, Any] | None,  # noqa: ARG002
    ) -> Principal:
        return NOBODY

    def still_holds(self, principal: Principal) -> bool:  # noqa: ARG002
        return True


def matches(topic_filter: str, topic: str) -> bool:
    """Tell whether a topic matches a filter (MQTT 5, section 4.7).

    >>> matches("a/+/c", "a/b/c"), matches("a/#", "a"), matches("a/#", "ab"), matches("#", "$SYS/x")
    (True, True, False, False)
    """
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in {"#", "+"}:
        return False
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(levels) or level not in {"+", levels[index]}:
            return False
    return len(wanted) == len(levels)
