"""A browser for tests: Debian's Chromium without a network, and a watch over all that a page asks for and complains of."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Locator,
    Page,
    Request,
    WebSocket,
    expect,
    sync_playwright,
)

from dashboards.settings import DashboardsSettings

CHROMIUM = os.environ.get("QALA_CHROMIUM", "/usr/bin/chromium")
PAGE = Path(os.environ.get("QALA_DASHBOARDS__PAGE", DashboardsSettings().page))
ARGUMENTS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
INSIDE = frozenset({"data", "blob", "about"})  # what is no request to anybody

# What lies over the canvas has the same colours: the legend, labels, and sensors' marks are not zones.
_COVERS = ".map-frame > :not(.map), .map *:not(canvas):not(:has(canvas))"
_COLOURS = """async (picture) => {
    const bytes = Uint8Array.from(atob(picture), (character) => character.charCodeAt(0));
    const image = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    const drawing = new OffscreenCanvas(image.width, image.height).getContext("2d");
    drawing.drawImage(image, 0, 0);
    const { data } = drawing.getImageData(0, 0, image.width, image.height);
    const counts = {};
    for (let i = 0; i < data.length; i += 4) {
        const colour = `rgb(${data[i]}, ${data[i + 1]}, ${data[i + 2]})`;
        counts[colour] = (counts[colour] ?? 0) + 1;
    }
    return counts;
}"""


def require(there: bool, missing: str) -> None:
    """Skip, saying what is missing; fail instead where everything must be there."""
    if there:
        return
    if os.environ.get("QALA_REQUIRE_SERVERS") == "1":
        pytest.fail(missing)
    pytest.skip(missing)


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium with WebGL in software; it resolves no name, so that nothing can leave the host."""
    require(Path(CHROMIUM).exists(), f"no Chromium at {CHROMIUM}: install Debian's `chromium`, or set QALA_CHROMIUM")
    require((PAGE / "index.html").is_file(), "the page is not built: run `.venv/bin/python hatch_build.py`")
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield chromium
        chromium.close()


class Watch:
    """Notes what a page must not do: ask another origin, log an error, throw, or break the content policy."""

    def __init__(self, context: BrowserContext, origin: str) -> None:
        self._origin = origin
        self.server_is_down = False
        self.requests = 0
        self.problems: list[str] = []
        context.on("request", self._requested)
        context.on("console", self._logged)
        context.on("weberror", lambda thrown: self.problems.append(f"thrown: {thrown.error}"))
        context.on("page", lambda page: page.on("websocket", self._connected))

    def _requested(self, request: Request) -> None:
        self.requests += 1
        self._check(request.url)

    def _connected(self, socket: WebSocket) -> None:
        self._check(socket.url)

    def _check(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in INSIDE and f"{parts.scheme}://{parts.netloc}" != self._origin:
            self.problems.append(f"asked: {url}")

    def _logged(self, message: ConsoleMessage) -> None:
        ours = message.type == "warning" and message.text.startswith("qala:")
        of_the_loss = self.server_is_down and "net::ERR_" in message.text
        if (message.type == "error" or ours) and not of_the_loss:
            self.problems.append(f"console {message.type}: {message.text} ({message.location['url']})")


@contextmanager
def watched(
    chromium: Browser, url: str, *, script: str = "", colour_scheme: str = "dark"
) -> Iterator[tuple[Page, Watch]]:
    """Open an address in a context of its own; at the end nothing of what the watch forbids may have happened."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, color_scheme=colour_scheme)  # type: ignore[arg-type]
    parts = urlsplit(url)
    watch = Watch(context, f"{parts.scheme}://{parts.netloc}")
    if script:
        context.add_init_script(script)
    page = context.new_page()
    try:
        page.goto(url)
        yield page, watch
        page.evaluate("0")  # whatever the browser has reported so far has arrived when it answers
    except (AssertionError, Error):
        print(*watch.problems, sep="\n")  # noqa: T201 - often the reason of the failure
        raise
    finally:
        context.close()
    assert watch.problems == []
    assert watch.requests > 0


def painted(chromium: Browser, canvas: Locator) -> dict[str, int]:
    """Count the pixels of each colour, such as "rgb(1, 2, 3)", in what the browser shows of a map's canvas."""
    canvas.page.evaluate(
        f"document.querySelectorAll('{_COVERS}').forEach((node) => (node.style.visibility = 'hidden'))"
    )
    picture = base64.b64encode(canvas.screenshot()).decode()
    canvas.page.evaluate(f"document.querySelectorAll('{_COVERS}').forEach((node) => (node.style.visibility = ''))")
    elsewhere = chromium.new_page()
    counts: dict[str, int] = elsewhere.evaluate(_COLOURS, picture)
    elsewhere.close()
    return counts
