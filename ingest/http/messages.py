"""What an HTTP request says: one message, or a batch of them, and what is wrong with it. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from devices.errors import QalaError, Reason
from ingest.gate import Principal

__all__ = [
    "BATCH",
    "BATCH_BYTES_MAX",
    "BATCH_LINES_MAX",
    "BATCH_TYPES",
    "MESSAGE_TYPES",
    "READY",
    "Line",
    "LineError",
    "ProblemError",
    "digest",
    "lines_of",
    "media_type",
    "message_of",
    "problem",
    "topic_of",
]

BATCH, READY = "/ingest/1/batch", "/ingest/1/ready"
BATCH_LINES_MAX = 5_000
BATCH_BYTES_MAX = 2 * 1024 * 1024
MESSAGE_TYPES = frozenset({"application/json", "application/cbor"})
BATCH_TYPES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
_LEAVES = frozenset("tsmg")
_PATH_LEVELS = 4  # ingest, 1, fleet, device


class ProblemError(QalaError):
    """A request that is not taken: its HTTP status, a code for machines, a hint for people, and when to come again [s]."""

    def __init__(self, status: int, code: str, message: str, *, hint: str, retry_after_s: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s


def problem(error: ProblemError, **more: Any) -> bytes:
    """Write a problem document (RFC 9457); `more` are further members of it."""
    return msgspec.json.encode(
        {
            "type": f"urn:qala:problem:{error.code}",
            "title": HTTPStatus(error.status).phrase,
            "status": error.status,
            "detail": error.message,
            "hint": error.hint,
            "code": error.code,
            **more,
        }
    )


class LineError(Exception):
    """Something wrong with one line of a batch, or with what a request says of its message."""

    def __init__(self, reason: Reason, detail: str, hint: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.hint = hint


class Line(msgspec.Struct, frozen=True):
    """One good message: its bytes, where they go, and what is said of how to read them."""

    topic: str
    payload: bytes
    content_type: str = ""


class _Envelope(msgspec.Struct):
    """A line of a batch, as clients write it; members that are not named here are passed over."""

    topic: str = ""
    fleet: str = ""
    device: str = ""
    leaf: str = "t"
    payload: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    payload_base64: str | None = None
    content_type: str = ""


_envelope = msgspec.json.Decoder(_Envelope).decode
_text = msgspec.json.Decoder(str).decode


def media_type(headers: Mapping[str, str], allowed: frozenset[str]) -> str:
    """Return the content type of a request, without its parameters. Raises ProblemError where it is not allowed."""
    encoding = headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise ProblemError(415, "encoding", f"the body is encoded: {encoding[:40]!r}", hint="send it as it is")
    found = headers.get("content-type", "").partition(";")[0].strip().lower()
    if found not in allowed:
        raise ProblemError(
            415,
            "media_type",
            f"content type {found[:60]!r} is not taken here",
            hint=f"send the header Content-Type: {' or '.join(sorted(allowed))}",
        )
    return found


def message_of(target: str, body: bytes, content_type: str, *, root: str, topic_max: int) -> Line:
    """Read a request for one message: `/ingest/1/<fleet>/<device>[?leaf=t|s|m]`.

    Raises:
        ProblemError: no such address, or no message in it.
    """
    path, _, query = target.partition("?")
    levels = path.removeprefix("/").split("/")
    if len(levels) != _PATH_LEVELS or levels[:2] != ["ingest", "1"]:
        raise ProblemError(
            404, "not_found", f"nothing is at {path[:100]!r}", hint=f"post to /ingest/1/FLEET/DEVICE or to {BATCH}"
        )
    asked = parse_qsl(query, keep_blank_values=True)
    if [name for name, _ in asked] not in ([], ["leaf"]):
        raise ProblemError(400, "bad_query", "a parameter that is not known", hint="the only one is leaf: t, s or m")
    try:
        fleet, device = (unquote(level, errors="strict") for level in levels[2:])
        topic = topic_of(root, fleet, device, asked[0][1] if asked else "t", topic_max)
    except UnicodeDecodeError:
        raise ProblemError(400, Reason.BAD_UTF8, "the address is not UTF-8", hint="percent-encode UTF-8") from None
    except LineError as error:
        raise ProblemError(400, error.reason, error.detail, hint=error.hint) from None
    if not body:
        raise ProblemError(400, "empty", "the request has no body", hint="the body is the payload of the message")
    return Line(topic, body, content_type)


def topic_of(root: str, fleet: str, device: str, leaf: str, topic_max: int) -> str:
    """Make a device's topic. Raises LineError."""
    for level in (fleet, device):
        if not level or "/" in level:
            raise LineError(
                Reason.BAD_TOPIC, f"no name of a fleet or device: {level[:60]!r}", "it is one level of a topic"
            )
    if leaf not in _LEAVES:
        raise LineError(
            Reason.BAD_TOPIC, f"no leaf: {leaf[:20]!r}", "t is telemetry, s status, m metadata, g a gateway's telemetry"
        )
    return _checked(f"{root}/1/{fleet}/{device}/{leaf}", topic_max)


def _checked(topic: str, topic_max: int) -> str:
    try:
        size = len(topic.encode())
    except UnicodeEncodeError:
        raise LineError(Reason.BAD_UTF8, "a topic with a lone surrogate", "send UTF-8") from None
    if not topic or size > topic_max or topic.startswith("$") or any(char in topic for char in "\0+#"):
        raise LineError(
            Reason.BAD_TOPIC, f"a bad topic: {topic[:64]!r}", f"at most {topic_max} bytes, without NUL, + and #"
        )
    return topic


def lines_of(
    body: bytes, principal: Principal, *, root: str, topic_max: int, payload_max: int
) -> Iterator[tuple[int, Line | LineError]]:
    """Read a batch, line by line: (number of the line from 1, what it says). Blank lines are passed over."""
    for number, line in enumerate(body.split(b"\n"), start=1):
        if line.strip():
            try:
                yield number, _line(line, principal, root, topic_max, payload_max)
            except LineError as error:
                yield number, error


def _line(line: bytes, principal: Principal, root: str, topic_max: int, payload_max: int) -> Line:
    envelope = _opened(line)
    if envelope.topic:
        topic = _checked(envelope.topic, topic_max)
    elif envelope.fleet or envelope.device:
        topic = topic_of(root, envelope.fleet, envelope.device, envelope.leaf, topic_max)
    else:
        raise LineError(Reason.BAD_SHAPE, "neither a topic nor a device", 'write "topic", or "fleet" and "device"')
    payload, content_type = _payload(envelope)
    if len(payload) > payload_max:
        raise LineError(
            Reason.TOO_LARGE, f"a payload of {len(payload)} bytes", f"the limit is {payload_max} (ingest.payload_max)"
        )
    if not principal.may_publish(topic):
        raise not_yours(topic)
    return Line(topic, payload, content_type)


def not_yours(topic: str) -> LineError:
    """Say that a topic belongs to somebody else."""
    return LineError(
        Reason.TOPIC_MISMATCH,
        f"not a topic of this credential: {topic[:100]!r}",
        "a device publishes as itself; a gateway on the topics that it was given",
    )


def _opened(line: bytes) -> _Envelope:
    try:
        return _envelope(line)
    except msgspec.ValidationError as error:
        raise LineError(
            Reason.BAD_SHAPE, str(error), 'a line is an object such as {"topic": "...", "payload": {...}}'
        ) from None
    except UnicodeDecodeError:
        raise LineError(Reason.BAD_UTF8, "not UTF-8", "send UTF-8, other bytes as payload_base64") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise LineError(Reason.BAD_JSON, str(error)[:200], "one JSON object a line, without line breaks") from None


def _payload(envelope: _Envelope) -> tuple[bytes, str]:
    """Take the payload's bytes: those of a text as they are, those of any other JSON as they were written."""
    given = bytes(envelope.payload)
    if envelope.payload_base64 is not None:
        if given:
            raise LineError(Reason.BAD_SHAPE, "two payloads", "write payload or payload_base64")
        try:
            return base64.b64decode(envelope.payload_base64, validate=True), envelope.content_type
        except binascii.Error as error:
            raise LineError(Reason.BAD_SHAPE, f"payload_base64: {error}", "base64 with its padding") from None
    if not given:
        raise LineError(Reason.BAD_SHAPE, "no payload", 'write "payload" or "payload_base64"')
    if not given.startswith(b'"'):
        return given, envelope.content_type or "application/json"
    try:
        return _text(given).encode(), envelope.content_type
    except (UnicodeError, msgspec.DecodeError):
        raise LineError(Reason.BAD_UTF8, "a text with a lone surrogate", "send UTF-8") from None


def digest(target: str, content_type: str, body: bytes) -> str:
    """Tell two requests apart by what they ask for."""
    told = hashlib.blake2b(f"{target}\n{content_type}\n".encode(), digest_size=16)
    told.update(body)
    return told.hexdigest()
