"""The command line's way to the store and the state: the API of the running server, or the same API over the files.

Both are asked in the same way. While a server runs, only it opens the store; so a command reaches it through the
owner-only socket of the data folder, and opens the files itself only where nothing runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from devices.errors import ConflictError, NotFoundError, QalaError, UnavailableError
from qala.config import Config
from qala.process import Hold, holder

__all__ = ["Client", "connect"]

_API = "/api/v1"
_TIMEOUT_S = 60.0
_ERRORS: dict[int, type[QalaError]] = {404: NotFoundError, 409: ConflictError, 503: UnavailableError}


class Client:
    """Asks the API, wherever it is answered."""

    def __init__(self, transport: Callable[[], httpx.AsyncBaseTransport]) -> None:
        self._transport = transport  # a new one each request: each has an event loop of its own

    def get(self, path: str, **params: Any) -> Any:
        """Return the JSON of an answer. Raises QalaError with the problem's own words where it is one."""
        return asyncio.run(self._request("GET", path, params=_given(params)))

    def post(
        self,
        path: str,
        body: dict[str, Any],
        *,
        timeout_s: float = _TIMEOUT_S,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send JSON and return the JSON of the answer. Raises as `get` does."""
        return asyncio.run(self._request("POST", path, timeout_s=timeout_s, json=body, headers=headers))

    def delete(self, path: str) -> Any:
        """Delete something and return the JSON of the answer. Raises as `get` does."""
        return asyncio.run(self._request("DELETE", path))

    def items(self, path: str, *, limit: int, **params: Any) -> list[dict[str, Any]]:
        """Return at most so many items of a list, following its cursors."""
        found: list[dict[str, Any]] = []
        cursor = None
        while len(found) < limit:
            page = self.get(path, limit=min(limit - len(found), 1000), cursor=cursor, **params)
            found += page["items"]
            cursor = page.get("next")
            if cursor is None:
                break
        return found

    async def _request(self, method: str, path: str, timeout_s: float = _TIMEOUT_S, **options: Any) -> Any:
        async with httpx.AsyncClient(
            transport=self._transport(), base_url="http://localhost", timeout=timeout_s
        ) as client:
            try:
                response = await client.request(method, _API + path, **options)
            except httpx.TransportError as error:
                raise UnavailableError(f"the server does not answer: {error}", hint="run qala doctor") from error
        if response.is_error:
            raise _problem(response)
        return response.json()


@contextmanager
def connect(config: Config, *, must_run: bool = False) -> Iterator[Client]:
    """Reach the running server, or open the files where none runs.

    Raises UnavailableError where a server must run and none does, or where one holds the folder and does not answer.
    """
    if config.socket.exists() and holder(config.folder / "serve.lock") is not None:
        yield Client(lambda: httpx.AsyncHTTPTransport(uds=str(config.socket)))
        return
    if must_run or not config.folder.exists():
        raise UnavailableError(
            f"no server runs on {config.folder}", hint="start one with: qala run, or name its --data"
        )
    from qala.wiring import build

    hold = Hold(config.folder / "serve.lock", note=config.dashboards.http)
    app = build(config)
    try:
        yield Client(lambda: httpx.ASGITransport(app.api))
    finally:
        app.close()
        hold.release()


def _given(params: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _problem(response: httpx.Response) -> QalaError:
    """Turn a problem document (RFC 9457) back into the error that it came from."""
    try:
        document = response.json()
    except ValueError:
        document = {}
    message = document.get("detail") or document.get("title") or f"the server answered {response.status_code}"
    return _ERRORS.get(response.status_code, QalaError)(message, hint=document.get("hint") or "")
