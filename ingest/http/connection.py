"""One HTTP/1.1 connection, on h11: from bytes to requests, and the answers back. A slow or endless client costs little."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import h11
import msgspec

from ingest.gate import NOBODY, Principal
from ingest.http.messages import ProblemError, problem

if TYPE_CHECKING:
    from ingest.http.server import HttpIngest

__all__ = ["Answer", "Head", "HttpConnection"]

_log = logging.getLogger(__name__)

_HEAD_MAX = 16 * 1024  # request line and headers [bytes]
_REQUEST_S = 60.0  # from the first byte of a request to its last
_IDLE_S = 75.0  # between two requests
_CLOSE_S = 2.0  # how long a client may take to read our last words
_UNREAD_MAX = 64 * 1024  # [bytes]
_TURN_MAX = 100  # pieces of a request, such as chunks of a body, that are taken before others have their turn


class Head(msgspec.Struct):
    """A request whose body may come: what it wants, who it is, and how large its body may be [bytes]."""

    method: str
    target: str
    headers: Mapping[str, str]
    address: str
    body_max: int = 0
    content_type: str = ""
    principal: Principal = NOBODY


class Answer(msgspec.Struct):
    """What a request is answered with."""

    status: int
    body: bytes
    media_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


def answer_to(error: ProblemError, **more: Any) -> Answer:
    """Make the answer of a request that is not taken."""
    headers: tuple[tuple[str, str], ...] = ()
    if error.retry_after_s is not None:
        headers = (("retry-after", str(error.retry_after_s)),)
    if error.status == 401:
        headers = (("www-authenticate", "Bearer"),)
    return Answer(error.status, problem(error, **more), "application/problem+json", headers)


class HttpConnection(asyncio.Protocol):
    """What the door knows of one HTTP client. One request at a time; the next is read after the answer."""

    def __init__(self, door: HttpIngest, loop: asyncio.AbstractEventLoop) -> None:
        self.address = ""
        self.certificate: Mapping[str, Any] | None = None
        self._door = door
        self._loop = loop
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_MAX)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._head: Head | None = None
        self._bare = False  # the answer has no body: HEAD
        self._body = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._begun = False  # a request has begun to come
        self._ending = False  # nothing that comes is looked at any more
        self._resting = False  # the others have their turn

    @property
    def busy(self) -> bool:
        """Tell whether a request waits for its answer."""
        return self._task is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._door.admit(self):
            self._ending = True
            self._transport.abort()
            return
        self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address = str(self._transport.get_extra_info("peername")[0])
        self.certificate = self._transport.get_extra_info("peercert") or None
        self._transport.set_write_buffer_limits(high=_UNREAD_MAX)
        self._allow(self._door.settings.connect_timeout_s, self._late)

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return
        if not self._begun:
            self._begun = True
            self._allow(self._door.settings.connect_timeout_s, self._late)
        self._h11.receive_data(data)
        if not self._resting:
            self._pump()

    def eof_received(self) -> bool:
        if not self._ending:
            self._h11.receive_data(b"")
            if not self._resting:
                self._pump()
        return self.busy or self._resting

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._ending = True
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._drop_body()
        self._door.forget(self)

    def end(self) -> None:
        """Close as soon as nothing is being answered."""
        if not self.busy and self._transport is not None:
            self._ending = True
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _allow(self, seconds: float, then: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, then)

    def _late(self) -> None:
        if not self._begun:
            self.end()
            return
        hint = f"the head within {self._door.settings.connect_timeout_s:g} s, all of it within {_REQUEST_S:g} s"
        self._refuse(ProblemError(408, "late", "the request did not come in time", hint=hint))

    # ---- requests

    def _pump(self) -> None:
        try:
            for _ in range(_TURN_MAX):
                if self.busy or self._ending:
                    return
                event = self._h11.next_event()
                if event is h11.NEED_DATA:
                    self._encourage()
                    return
                if event is h11.PAUSED:
                    return
                self._take(event)
            self._rest()
        except h11.RemoteProtocolError as error:
            self._refuse(ProblemError(error.error_status_hint, "bad_request", str(error), hint="send HTTP/1.1"))
        except ProblemError as error:
            self._refuse(error)

    def _rest(self) -> None:
        """Let the others have their turn."""
        if self._transport is not None and not (self.busy or self._ending):
            self._resting = True
            self._transport.pause_reading()
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._resting = False
        self._pump()
        if self._transport is not None and not (self.busy or self._resting or self._ending):
            self._transport.resume_reading()

    def _encourage(self) -> None:
        """Let a client send its body that waits to hear whether it may."""
        if self._h11.they_are_waiting_for_100_continue:
            self._write(h11.InformationalResponse(status_code=100, headers=[]))

    def _take(self, event: Any) -> None:
        if isinstance(event, h11.Request):
            self._allow(_REQUEST_S, self._late)
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
            head = Head(event.method.decode(), event.target.decode("latin-1"), headers, self.address)
            self._bare = head.method == "HEAD"
            self._door.look_at(head, self.certificate)
            self._head = head
        elif isinstance(event, h11.Data):
            self._grow(event.data)
        elif isinstance(event, h11.EndOfMessage):
            self._start()
        else:  # the client has closed
            self.end()

    def _grow(self, data: bytes) -> None:
        assert self._head is not None  # noqa: S101 - h11 gives a request before its data
        self._body += data
        self._door.buffer(len(data))
        if len(self._body) > self._head.body_max:
            raise self._door.too_large(self._head)

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.pause_reading()
        self._task = self._loop.create_task(self._serve())

    async def _serve(self) -> None:
        assert self._head is not None  # noqa: S101 - a request has ended
        head, body = self._head, bytes(self._body)
        self._drop_body()
        try:
            answer = await self._door.answer(head, body)
        except Exception:  # noqa: BLE001 - one request must not take the others with it
            _log.exception("a request failed")
            hint = "the door's log says more; please report it"
            answer = answer_to(ProblemError(500, "internal", "the door met an error that it did not expect", hint=hint))
        self._task = None
        if self._transport is not None:
            self._answer(answer)

    # ---- answers

    def _refuse(self, error: ProblemError) -> None:
        """Answer a request that was not read to its end, and close."""
        self._door.count_refusal(error)
        if self._transport is None or self._ending:
            return
        if self._h11.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            self._send(answer_to(error), last=True)
        self._linger()

    def _answer(self, answer: Answer) -> None:
        self._send(answer, last=self._door.stopping)
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            self._linger()
            return
        self._h11.start_next_cycle()
        self._begun = bool(self._h11.trailing_data[0])
        self._allow(self._door.settings.connect_timeout_s if self._begun else _IDLE_S, self._late)
        if self._transport is not None:
            self._transport.resume_reading()
        self._pump()

    def _send(self, answer: Answer, *, last: bool) -> None:
        headers = [("content-type", answer.media_type), ("content-length", str(len(answer.body))), *answer.headers]
        if last:
            headers.append(("connection", "close"))
        body = [] if self._bare else [h11.Data(data=answer.body)]
        self._write(h11.Response(status_code=answer.status, headers=headers), *body, h11.EndOfMessage())

    def _write(self, *events: Any) -> None:
        data = b"".join(self._h11.send(event) or b"" for event in events)
        if self._transport is not None:
            self._transport.write(data)

    def _linger(self) -> None:
        """Close, but read on for a moment: a reset by unread bytes would take our last words from the client."""
        transport = self._transport
        self._ending = True
        self._drop_body()
        if transport is None:
            return
        if not transport.can_write_eof():
            transport.close()
            return
        transport.write_eof()
        transport.resume_reading()
        self._allow(_CLOSE_S, transport.abort)

    def _drop_body(self) -> None:
        self._door.buffer(-len(self._body))
        self._body = bytearray()
        self._head = None
