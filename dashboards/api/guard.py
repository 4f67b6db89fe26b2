"""What every request has to pass and every response has to carry: this machine's name, limits, security headers."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboards.problem import ProblemError, problem_response
from ingest.settings import is_loopback

__all__ = ["CSP", "Guard"]

CSP = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_WRITING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Guard:
    """ASGI middleware.

    A Host that is not this machine is refused, so that a foreign name that resolves to loopback (DNS rebinding) reaches
    nothing; requests over a unix socket have no such name to check. Writing takes JSON only, which no HTML form can send.
    Paths that begin with `owner_only` are answered over the unix socket alone, which only the data folder's owner reaches,
    and take bodies of up to `owner_body_max`.
    """

    def __init__(self, app: ASGIApp, *, body_max: int, owner_only: str, owner_body_max: int) -> None:
        self._app = app
        self._body_max = body_max
        self._owner_body_max = owner_body_max
        self._owner_only = owner_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check_host(scope)
            self._check_owner(scope)
            if scope["method"] in _WRITING:
                owned = scope["path"].startswith(self._owner_only)
                body_max = max(self._body_max, self._owner_body_max) if owned else self._body_max
                bare = scope["method"] == "DELETE"  # which no HTML form can send either
                receive = await self._body(Headers(scope=scope), receive, body_max, bare=bare)
        except ProblemError as problem:
            response = problem_response(problem.status, problem.code, problem.message, problem.hint)
            await response(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)

    def _check_host(self, scope: Scope) -> None:
        host = Headers(scope=scope).get("host", "")
        if not _over_unix_socket(scope) and not is_loopback(_host(host)):
            hint = "open it as http://127.0.0.1 or http://localhost with its port"
            raise ProblemError(421, "foreign_host", f"this server does not answer for the host {host!r}", hint=hint)

    def _check_owner(self, scope: Scope) -> None:
        if scope["path"].startswith(self._owner_only) and not _over_unix_socket(scope):
            hint = "use the command line on the server's machine, as the owner of its data folder"
            raise ProblemError(
                403, "owner_only", "this is answered over the socket of the data folder alone", hint=hint
            )

    async def _body(self, headers: Headers, receive: Receive, body_max: int, *, bare: bool) -> Receive:
        """Read the body, which is small, and return a receive that gives it again."""
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not (bare and not kind):
            hint = "send JSON with the header Content-Type: application/json"
            raise ProblemError(415, "not_json", f"a body of type {kind!r} is not taken", hint=hint)
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > body_max:
                hint = "send less, or raise the setting dashboards.body_max"
                raise ProblemError(413, "too_large", f"the body is larger than {body_max} bytes", hint=hint)
        return _again(body, receive)


def _again(body: bytes, receive: Receive) -> Receive:
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


def _over_unix_socket(scope: Scope) -> bool:
    server = scope.get("server")
    return server is not None and server[1] is None


def _host(header: str) -> str:
    """Return the name in a Host header without its port.

    >>> _host("localhost:8080"), _host("[::1]:8080"), _host("127.0.0.1")
    ('localhost', '::1', '127.0.0.1')
    """
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]
