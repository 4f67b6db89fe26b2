"""What every request has to pass and every response has to carry: this machine's name, limits, security headers."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboards.api.access import READING, bearer, cookie, is_foreign, is_of_page, needed
from dashboards.api.visitors import NOBODY, OWNER, Visitor, Visitors
from dashboards.problem import ProblemError, problem_response
from ingest.settings import is_loopback
from qala.state.tokens import Scope as TokenScope

__all__ = ["CSP", "HSTS", "Guard", "client_of"]

CSP = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
HSTS = "max-age=31536000"
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

    A Host that is neither this machine, nor the address that was connected to, nor one of `hosts` is refused, so that a
    foreign name that resolves to an address of ours (DNS rebinding) reaches nothing; requests over a unix socket have no such
    name to check. Writing takes JSON only, which no HTML form can send, and not from another site's page. Paths that begin
    with one of `owner_only` are answered over the unix socket alone, which only the data folder's owner reaches, and take
    bodies of up to `owner_body_max`. Whatever else comes over TCP needs a token where `visitors.asked`.

    The request's state gets `visitor`, None where nobody had to be known, and `actor`, its name for what it does.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        visitors: Visitors,
        hosts: Collection[str],
        body_max: int,
        owner_only: tuple[str, ...],
        owner_body_max: int,
    ) -> None:
        self._app = app
        self._visitors = visitors
        self._hosts = frozenset(hosts)
        self._body_max = body_max
        self._owner_body_max = owner_body_max
        self._owner_only = owner_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        carried = _headers(scope, headers)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = MutableHeaders(scope=message)
                for name, value in carried.items():
                    answered.setdefault(name, value)
            await send(message)

        try:
            self._check_host(scope, headers)
            self._check_owner(scope)
            visitor = await self._admit(scope, headers)
            scope.setdefault("state", {}).update(visitor=visitor, actor=visitor.actor if visitor else "")
            if scope["method"] in _WRITING:
                bare = scope["method"] == "DELETE"  # no form sends one, and it needs no body
                receive = await self._body(headers, receive, self._limit(scope), bare=bare)
        except ProblemError as problem:
            response = problem_response(problem.status, problem.code, problem.message, problem.hint, problem.headers)
            await response(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)

    def _check_host(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        name = _host(host)
        if _over_unix_socket(scope) or is_loopback(name) or name.lower() in self._hosts:
            return
        if not _is_address(name) or name != _local(scope):
            hint = "open it as http://127.0.0.1 or http://localhost with its port, or add the name to dashboards.hosts"
            raise ProblemError(421, "foreign_host", f"this server does not answer for the host {host!r}", hint=hint)

    def _check_owner(self, scope: Scope) -> None:
        if scope["path"].startswith(self._owner_only) and not _over_unix_socket(scope):
            hint = "use the command line on the server's machine, as the owner of its data folder"
            raise ProblemError(
                403, "owner_only", "this is answered over the socket of the data folder alone", hint=hint
            )

    async def _admit(self, scope: Scope, headers: Headers) -> Visitor | None:
        """Return who asks, None where everybody is answered. Raises ProblemError: 401, 403, 429 or 503."""
        method, path = scope["method"], scope["path"]
        if _over_unix_socket(scope):
            return OWNER
        if is_of_page(method, path):
            return None
        token = bearer(headers.get("authorization", ""))
        if method not in READING and token is None:
            _check_site(headers, strictly=cookie(headers.get("cookie", "")) is not None)
        if not self._visitors.asked:
            return NOBODY
        visitor = await self._recognise(scope, headers, token)
        scope_needed = needed(method, path)
        if scope_needed is not None:
            _check_scope(visitor, scope_needed)
        return visitor

    async def _recognise(self, scope: Scope, headers: Headers, token: str | None) -> Visitor | None:
        """Return who shows a token or a session; a session that has ended is none."""
        if token is not None:
            visitor = await self._visitors.of_token(token)
            if visitor is None:
                raise self._visitors.refusal(client_of(scope))
            return visitor
        session = cookie(headers.get("cookie", ""))
        return await self._visitors.of_session(session) if session else None

    def _limit(self, scope: Scope) -> int:
        owned = scope["path"].startswith(self._owner_only)
        return max(self._body_max, self._owner_body_max) if owned else self._body_max

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


def _headers(scope: Scope, headers: Headers) -> Mapping[str, str]:
    """Return what an answer carries. The name "localhost" is of every program here, so it promises no TLS for others."""
    if scope["scheme"] == "https" and not is_loopback(_host(headers.get("host", ""))):
        return {**_HEADERS, "strict-transport-security": HSTS}
    return _HEADERS


def _check_site(headers: Headers, *, strictly: bool) -> None:
    if is_foreign(headers, strictly=strictly):
        hint = "a page of another site cannot write here; a program shows its token in the Authorization header"
        raise ProblemError(403, "foreign_site", "the request was made by another site's page", hint=hint)


def _check_scope(visitor: Visitor | None, scope: TokenScope) -> None:
    if visitor is None:
        hint = "send Authorization: Bearer TOKEN, or sign in on the page; qala token issue makes a token"
        headers = {"www-authenticate": "Bearer"}
        raise ProblemError(401, "no_token", "a token is needed", hint=hint, headers=headers)
    if scope is TokenScope.OPERATE and visitor.scope is not TokenScope.OPERATE:
        hint = "use a token that was issued with --scope operate"
        headers = {"www-authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'}
        detail = f"the token {visitor.actor!r} is for reading alone"
        raise ProblemError(403, "scope_too_narrow", detail, hint=hint, headers=headers)


def client_of(scope: Scope) -> str:
    """Return the address that a request came from, "" where it is not known."""
    client = scope.get("client")
    return client[0] if client else ""


def _local(scope: Scope) -> str:
    """Return the address of ours that was connected to."""
    server = scope.get("server")
    return server[0] if server else ""


def _is_address(name: str) -> bool:
    """Tell whether a host is an address, which no foreign name server can give out.

    >>> _is_address("10.0.0.7"), _is_address("fd00::7"), _is_address("evil.example")
    (True, True, False)
    """
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


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
