"""The page: the built files of the operations centre, or how to build them."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

__all__ = ["Page"]

_FOREVER = "public, max-age=31536000, immutable"
_NOT_BUILT = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Qala: the page is not built</title>
<h1>The page is not built yet</h1>
<p>The API works: see <a href="/api/docs">its reference</a> and <a href="/api/v1/health">how it is doing</a>.</p>
<p>It is built while Qala is installed, where the npm registry can be reached. To build it now, in the checkout:</p>
<pre>.venv/bin/python hatch_build.py</pre>
<p>Then load this address again.</p>
"""


class Page:
    """ASGI application over a folder that may appear while it runs. Files in `assets/` carry a hash in their name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = StaticFiles(directory=folder, html=True, check_dir=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = self._files.get_path(scope).strip("./")
        if path in {"", "index.html"} and not (self._folder / "index.html").is_file():
            response: Response = HTMLResponse(_NOT_BUILT, 503)
        else:
            response = await self._files.get_response(self._files.get_path(scope), scope)
            hashed = path.startswith("assets/") and response.status_code in {200, 304}
            response.headers["cache-control"] = _FOREVER if hashed else "no-cache"
        await response(scope, receive, send)
