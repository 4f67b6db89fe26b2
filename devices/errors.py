"""The error tree. Every error has a stable `code` for machines and a `hint` for the person who meets it."""

from __future__ import annotations

from enum import StrEnum


class QalaError(Exception):
    """Base of every error that Qala raises on purpose.

    `code` is stable and machine-readable; `hint` says what the person can do next.
    """

    code = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(QalaError):
    """A setting, a devices file, a rule or a mapping is wrong."""

    code = "config"


class NotFoundError(QalaError):
    """What was asked for does not exist."""

    code = "not_found"


class ConflictError(QalaError):
    """What was asked for contradicts what is there."""

    code = "conflict"


class UnavailableError(QalaError):
    """A part that is needed cannot be reached right now."""

    code = "unavailable"


class VersionError(QalaError):
    """A file was written by a newer version of Qala than this one."""

    code = "newer_version"


class UnsupportedError(QalaError):
    """Something that this engine or this build cannot do, or not for so much."""

    code = "unsupported"


class CorruptError(QalaError):
    """A file is damaged. The hint says how to go on."""

    code = "corrupt"


class Reason(StrEnum):
    """Why a message, or one of its readings, was rejected."""

    MALFORMED_PACKET = "malformed_packet"  # MQTT framing was broken: the connection was closed
    TOO_LARGE = "too_large"  # packet or payload over its limit
    BAD_TOPIC = "bad_topic"  # a topic that no format reads, or with forbidden characters
    BAD_UTF8 = "bad_utf8"
    BAD_JSON = "bad_json"
    BAD_CBOR = "bad_cbor"
    BAD_SHAPE = "bad_shape"  # well-formed, but not what the format describes
    BAD_TIME = "bad_time"  # a time that cannot be read
    FUTURE_TIME = "future_time"  # more than the allowed minutes ahead of the receipt
    PAST_TIME = "past_time"  # before the earliest time allowed
    BAD_VALUE = "bad_value"  # neither number, bool, declared state nor null
    NOT_FINITE = "not_finite"  # NaN, infinity, or a number that no float64 holds
    TOO_MANY_READINGS = "too_many_readings"
    UNSUPPORTED = "unsupported"  # a member starting with "!" that this version does not understand
    TOPIC_MISMATCH = "topic_mismatch"  # a device speaks of another one than it was authenticated as
    UNKNOWN_DEVICE = "unknown_device"
    UNKNOWN_QUANTITY = "unknown_quantity"  # neither a known quantity nor one whose unit was declared
    BAD_UNIT = "bad_unit"  # a unit that cannot be converted to the quantity's own
