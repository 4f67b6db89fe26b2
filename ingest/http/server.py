"""HTTP ingest: messages as requests, for those who do not speak MQTT. Answered after the sync of the journal, never before."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from devices.errors import Reason
from ingest.bucket import Buckets
from ingest.commit import ROW_BYTES, Group, GroupCommit
from ingest.gate import Gate, Principal, RefusedError
from ingest.http.connection import Answer, Head, HttpConnection, answer_to
from ingest.http.door import HttpCounters
from ingest.http.keys import Keys, Once, key_of, properties_of
from ingest.http.messages import (
    BATCH,
    BATCH_BYTES_MAX,
    BATCH_LINES_MAX,
    BATCH_TYPES,
    MESSAGE_TYPES,
    READY,
    Line,
    LineError,
    ProblemError,
    digest,
    lines_of,
    media_type,
    message_of,
    not_yours,
)
from ingest.message import MessageType, Source
from ingest.mqtt.entrance import Entrances
from ingest.mqtt.refusals import Refusals
from ingest.segments import Row
from ingest.settings import IngestSettings, parse_address

__all__ = ["HttpIngest"]

_log = logging.getLogger(__name__)

_ANSWER_S = 15.0  # a request whose messages are not durable by then is told so
_AGAIN_S = 5  # when to come again while the journal takes nothing
_TURN_LINES = 250  # lines of a batch that are read before others have their turn
_LINES_TOLD = 100  # refused lines that an answer lists; more are only counted


class _Waiting:
    """Messages of one request in a group; told when they are durable."""

    def __init__(self, group: Group, at: int, once: Once) -> None:
        self._group = group
        self._at = at
        self._once = once

    def acknowledge(self, ids: list[bytes]) -> None:  # noqa: ARG002 - there is one of us in a group
        once = self._once
        once.first = self._group.first + self._at
        done, once.done = once.done, None
        if done is not None and not done.done():
            done.set_result(None)


class HttpIngest:
    """Accepts connections, and puts what they post into the group commit. Lives in one event loop."""

    def __init__(
        self, settings: IngestSettings, commit: GroupCommit, gate: Gate, *, keys: Keys, buckets: Buckets
    ) -> None:
        self.settings = settings
        self.counters = HttpCounters()
        self.stopping = False
        self._commit = commit
        self._gate = gate
        self._keys = keys
        self._buckets = buckets
        self._refusals = Refusals(settings.refused_per_minute)
        self._entrances = Entrances(self._refusals.counters, settings)
        self._connections: set[HttpConnection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._buffered = 0  # bytes of bodies

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    async def start(self, address: str, context: ssl.SSLContext | None = None) -> tuple[str, int]:
        """Listen at HOST:PORT, and return the address; port 0 becomes a free one.

        Raises:
            UnavailableError: the address is taken.
        """
        host, port = parse_address(address)
        if context is None:
            return await self._entrances.open_plain(host, port, self._make, setting="http")
        return await self._entrances.open_tls(host, port, self._make, context, setting="https")

    def _make(self) -> HttpConnection:
        return HttpConnection(self, asyncio.get_running_loop())

    async def stop(self, *, within_s: float = 3.5) -> None:
        """Accept no more, and answer what was taken as soon as it is durable."""
        self.stopping = True
        await self._entrances.close()
        for connection in tuple(self._connections):
            connection.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._empty.wait()
        for connection in tuple(self._connections):
            connection.abort()
        await asyncio.sleep(0)

    def admit(self, connection: HttpConnection) -> bool:
        """Take a new connection in, unless there are too many or the door is closing."""
        if self.stopping or len(self._connections) >= self.settings.connections_max:
            self.counters.turned_away += 1
            return False
        self._connections.add(connection)
        self._empty.clear()
        return True

    def forget(self, connection: HttpConnection) -> None:
        """Take note that a connection is gone."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    # ---- before the body

    def look_at(self, head: Head, certificate: Mapping[str, Any] | None) -> None:
        """Decide whether a request's body may come, and how large it may be. Raises ProblemError."""
        self.counters.requests += 1
        path = head.target.partition("?")[0]
        if path == READY:
            _check_method(head, "GET")
            return
        _check_method(head, "POST")
        _check_length(head)
        self._check_open()
        head.principal = self._principal(head, certificate)
        is_batch = path == BATCH
        head.content_type = media_type(head.headers, BATCH_TYPES if is_batch else MESSAGE_TYPES)
        head.body_max = BATCH_BYTES_MAX if is_batch else self.settings.payload_max
        if int(head.headers.get("content-length", "0")) > head.body_max:
            raise self.too_large(head)

    def _check_open(self) -> None:
        """Make sure that the journal takes messages. Raises ProblemError."""
        trouble = "the door is closing" if self.stopping else self._commit.trouble
        if trouble or self._commit.full:
            raise _unavailable(trouble or "too many messages wait for the journal")

    def _principal(self, head: Head, certificate: Mapping[str, Any] | None) -> Principal:
        scheme, _, token = head.headers.get("authorization", "").partition(" ")
        given = token.strip().encode("latin-1") if scheme.lower() == "bearer" else None
        try:
            return self._gate.authenticate(None, given, certificate)
        except RefusedError as error:
            if self._refusals.may_record(head.address, time.time_ns() // 1000):
                _log.info("turned away a request from %s: %s", head.address, error.message)
            raise ProblemError(
                401, "credential", "no valid credential", hint="send the header Authorization: Bearer TOKEN"
            ) from None

    def too_large(self, head: Head) -> ProblemError:
        """Say that a body is over its limit."""
        return ProblemError(
            413, Reason.TOO_LARGE, f"the limit is {head.body_max} bytes", hint="send less at once, in several requests"
        )

    def buffer(self, size: int) -> None:
        """Take note of bytes of bodies that are kept. Raises ProblemError where all of them are too many."""
        self._buffered += size
        if size > 0 and self._buffered > self.settings.queue_max:
            raise _unavailable("too many requests come at once")

    def count_refusal(self, error: ProblemError) -> None:
        """Count a request that was not taken."""
        if error.status == 429:
            self.counters.limited += 1
        elif error.status >= 500:
            self.counters.unavailable += 1
        else:
            self.counters.refused += 1

    # ---- with the body

    async def answer(self, head: Head, body: bytes) -> Answer:
        """Take what a request says, and answer it when it is durable."""
        refused: list[tuple[int, LineError]] = []
        try:
            if head.target.partition("?")[0] == READY:
                self._check_open()
                return Answer(200, b'{"status":"ok"}')
            lines, refused = await self._read(head, body)
            once, repeated = self._take(head, body, lines, refused)
            await _durable(once)
        except ProblemError as error:
            self.count_refusal(error)
            return answer_to(error, **(_told(refused) if refused else {}))
        told = {"taken": once.count, "first": once.first, "last": once.first + once.count - 1, **_told(refused)}
        headers = (("idempotency-replayed", "true"),) if repeated else ()
        return Answer(202, msgspec.json.encode(told), headers=headers)

    async def _read(self, head: Head, body: bytes) -> tuple[list[Line], list[tuple[int, LineError]]]:
        """Read the messages of a request, and the lines that are none, in turn with others. Raises ProblemError."""
        settings = self.settings
        if head.target.partition("?")[0] != BATCH:
            line = message_of(
                head.target, body, head.content_type, root=settings.topic_root, topic_max=settings.topic_max
            )
            self._check_owner(head, line)
            return [line], []
        if body.count(b"\n") > BATCH_LINES_MAX:
            raise ProblemError(
                413, Reason.TOO_LARGE, f"the limit is {BATCH_LINES_MAX} lines", hint="send them in several requests"
            )
        good: list[Line] = []
        refused: list[tuple[int, LineError]] = []
        found = lines_of(
            body,
            head.principal,
            root=settings.topic_root,
            topic_max=settings.topic_max,
            payload_max=settings.payload_max,
        )
        for index, (number, said) in enumerate(found, start=1):
            if isinstance(said, LineError):
                refused.append((number, said))
            else:
                good.append(said)
            if index % _TURN_LINES == 0:
                await asyncio.sleep(0)
        return good, refused

    def _check_owner(self, head: Head, line: Line) -> None:
        if not head.principal.may_publish(line.topic):
            error = not_yours(line.topic)
            self._record(head, [(0, error)])
            raise ProblemError(403, error.reason, error.detail, hint=error.hint)

    def _take(
        self, head: Head, body: bytes, lines: Sequence[Line], refused: Sequence[tuple[int, LineError]]
    ) -> tuple[Once, bool]:
        """Put messages into the open group, unless they were taken before; tell whether they were. Raises ProblemError."""
        key, now_us = key_of(head.headers.get("idempotency-key")), time.time_ns() // 1000
        told = digest(head.target, head.content_type, body) if key else ""
        if key and (known := self._keys.get(head.principal.name, key, told, now_us)) is not None:
            self.counters.repeated += 1
            return known, True
        self._check_open()
        self._check_rate(head.principal, len(lines))
        self.counters.refused_lines += len(refused)
        if not lines:
            self._record(head, refused)
            raise ProblemError(400, "no_message", "no line holds a message", hint="see the lines and their hints")
        once = Once(told, len(lines), now_us, done=asyncio.get_running_loop().create_future())
        self._add(_rows(lines, head.principal, now_us, properties_of(key, told, len(lines))), once)
        self._record(head, refused)
        if key:
            self._keys.put(head.principal.name, key, once)
        return once, False

    def _check_rate(self, principal: Principal, messages: int) -> None:
        now_s = asyncio.get_running_loop().time()
        bucket = self._buckets.of(principal, now_s)
        if bucket is None:
            return
        wait_s = bucket.wait_s(now_s)
        if wait_s <= 0:
            bucket.take(messages)
        else:
            raise ProblemError(
                429,
                "too_fast",
                "more messages than this credential may send",
                hint="send them later; ingest.rate and ingest.burst are the limits",
                retry_after_s=int(wait_s) + 1,
            )

    def _add(self, rows: Sequence[Row], once: Once) -> None:
        group = self._commit.open
        group.members.append((_Waiting(group, len(group.rows), once), [b""]))
        self.counters.taken += len(rows)
        self._put(rows)

    def _put(self, rows: Sequence[Row]) -> None:
        group = self._commit.open
        group.rows += rows
        group.bytes += sum(len(row[1]) + ROW_BYTES for row in rows)
        self._commit.touch()

    def _record(self, head: Head, refused: Sequence[tuple[int, LineError]]) -> None:
        """Record messages that were not taken, while their address has not had too many records."""
        now_us = time.time_ns() // 1000
        rows = [
            _refused_row(head, number, error, now_us)
            for number, error in refused
            if self._refusals.may_record(head.address, now_us)
        ]
        if rows:
            self._put(rows)


def _check_method(head: Head, allowed: str) -> None:
    if head.method != allowed:
        raise ProblemError(405, "method", f"{head.method[:20]} is not for this address", hint=f"use {allowed}")


def _check_length(head: Head) -> None:
    """Refuse what a proxy before us may read otherwise than we do (RFC 9112, section 6.1)."""
    if "transfer-encoding" in head.headers and "content-length" in head.headers:
        raise ProblemError(400, "bad_request", "two lengths of one body", hint="send Content-Length or chunks")


def _unavailable(detail: str) -> ProblemError:
    hint = "nothing was taken; send it again later"
    return ProblemError(503, "unavailable", detail, hint=hint, retry_after_s=_AGAIN_S)


async def _durable(once: Once) -> None:
    """Wait until a request's messages are durable. Raises ProblemError where that takes too long."""
    done = once.done
    if done is None:
        return
    await asyncio.wait([done], timeout=_ANSWER_S)
    if not done.done():
        raise ProblemError(
            503,
            "unavailable",
            "the messages are not in the journal yet",
            hint="they may still be taken: send the same request again, with an Idempotency-Key to have it taken once",
            retry_after_s=_AGAIN_S,
        )


def _told(refused: Sequence[tuple[int, LineError]]) -> dict[str, Any]:
    lines = [
        {"line": number, "code": error.reason, "detail": error.detail, "hint": error.hint}
        for number, error in refused[:_LINES_TOLD]
    ]
    return {"refused": len(refused), "lines": lines}


def _rows(lines: Sequence[Line], principal: Principal, now_us: int, once: Mapping[str, str]) -> list[Row]:
    """Make the journal's rows; the first one carries what makes a repetition known."""
    rows: list[Row] = []
    for index, line in enumerate(lines):
        said = {"content_type": line.content_type} if line.content_type else {}
        properties = {**said, **once} if index == 0 else said
        rows.append(
            (
                line.topic,
                line.payload,
                now_us,
                "",
                principal.name,
                Source.HTTP,
                MessageType.PUBLISH,
                1,
                False,
                False,
                properties or None,
            )
        )
    return rows


def _refused_row(head: Head, number: int, error: LineError, now_us: int) -> Row:
    where = f"line {number}: " if number else ""
    told = {"reason": error.reason.value, "detail": (where + error.detail)[:200]}
    return ("", b"", now_us, "", head.principal.name, Source.HTTP, MessageType.REFUSED, 0, False, False, told)
