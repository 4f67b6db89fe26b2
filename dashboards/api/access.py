"""What a request needs to be answered over TCP, told by its method and path alone. Whatever is not named here is closed."""

from __future__ import annotations

from collections.abc import Mapping

from qala.state.tokens import Scope

__all__ = ["COOKIE", "READING", "bearer", "cookie", "is_foreign", "is_of_page", "needed"]

COOKIE = "__Host-qala"
"""Name of the session's cookie; browsers take it only when it is Secure, of this host alone, and for all paths."""
READING = frozenset({"GET", "HEAD"})

_PAGE = frozenset({"/", "/index.html", "/early.js", "/favicon.svg"})
_ASSETS = "/assets/"
_EXCEPTIONS: Mapping[tuple[str, str], Scope | None] = {
    ("GET", "/api/v1/health"): None,  # the status alone
    ("POST", "/api/v1/session"): None,  # shows a token
    ("DELETE", "/api/v1/session"): Scope.READ,  # ends one's own session
}
_PORTS = {"http": ":80", "https": ":443"}


def is_of_page(method: str, path: str) -> bool:
    """Tell whether a request is for a file of the page, which says nothing of the city.

    >>> is_of_page("GET", "/"), is_of_page("GET", "/assets/a.js"), is_of_page("GET", "/api/docs"), is_of_page("POST", "/")
    (True, True, False, False)
    """
    return method in READING and (path in _PAGE or path.startswith(_ASSETS))


def needed(method: str, path: str) -> Scope | None:
    """Return the scope that a request needs, None where everybody is answered.

    >>> str(needed("GET", "/api/v1/zones")), str(needed("PUT", "/api/v1/zones")), needed("GET", "/api/v1/health")
    ('read', 'operate', None)
    """
    return _EXCEPTIONS.get((method, path), Scope.READ if method in READING else Scope.OPERATE)


def bearer(authorization: str) -> str | None:
    """Return the token of an Authorization header, None where it has another scheme.

    >>> bearer("Bearer a.b"), bearer("bearer  a.b "), bearer("Basic a:b"), bearer("")
    ('a.b', 'a.b', None, None)
    """
    scheme, _, text = authorization.partition(" ")
    return text.strip() if scheme.lower() == "bearer" else None


def cookie(header: str) -> str | None:
    """Return the session of a Cookie header, None where it has none.

    >>> cookie("theme=dark; __Host-qala=abc"), cookie("theme=dark")
    ('abc', None)
    """
    pairs = (pair.strip().partition("=") for pair in header.split(";"))
    return next((value for name, _, value in pairs if name == COOKIE), None)


def is_foreign(headers: Mapping[str, str], *, strictly: bool) -> bool:
    """Tell whether a request was made by another site's page, as the browser says by Sec-Fetch-Site or Origin.

    Programs say neither; `strictly` takes that for foreign, since a cookie only comes from browsers.

    >>> is_foreign({"host": "a:1", "origin": "http://a:1"}, strictly=True), is_foreign({"host": "a"}, strictly=True)
    (False, True)
    >>> is_foreign({"host": "a", "origin": "https://b"}, strictly=False), is_foreign({"host": "a"}, strictly=False)
    (True, False)
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site != "same-origin"
    if origin is None:
        return strictly
    scheme, _, netloc = origin.partition("://")
    standard = _PORTS.get(scheme, "")
    host = headers.get("host", "")
    return netloc.lower().removesuffix(standard) != host.lower().removesuffix(standard)
