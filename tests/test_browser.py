"""The operations centre in a browser, end to end: MQTT in, numbers and alerts on the page, and nothing but this host asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser import Watch, browser, painted, watched
from tests.processes import Qala
from tests.town import ZONES, calm, minutes, publish, town, traffic
from tests.wait import until

ZONE_KINDS = {"traffic": "road", "air": "district", "energy": "feeder"}
JAMMED, MISSED = "road-garden-west", "road-garden-east"

# Puts words into the server's mouth: `window.told` overrides members of its ticks.
RETELL = """
window.told = {};
const listen = EventSource.prototype.addEventListener;
EventSource.prototype.addEventListener = function (name, handle) {
    listen.call(this, name, (event) => {
        const told = { ...JSON.parse(event.data), ...(name === "tick" ? window.told : {}) };
        handle(new MessageEvent(name, { data: JSON.stringify(told) }));
    });
};
"""


def latest(qala: Qala, indicator: str, window: str) -> dict[str, tuple[str, float | None]]:
    """Return each zone's newest window and value by the API."""
    items = qala.all(f"indicators/{indicator}/latest", window=window)
    return {item["zone"]: (item["start"], item["value"]) for item in items}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def qala(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Qala]:
    with town(tmp_path_factory.mktemp("page") / "town") as running:
        publish(running, *calm())
        until(lambda: len(latest(running, "feeder_load", "15min")) == len(ZONES["feeder"]), deadline_s=60)
        until(lambda: len(latest(running, "congestion_level", "5min")) == len(ZONES["road"]), deadline_s=60)
        yield running


@contextmanager
def roads(qala: Qala, chromium: Browser, **options: Any) -> Iterator[tuple[Page, Watch]]:
    """Open the page with the congestion of the last five minutes on its map."""
    where = f"{qala.url}/?domain=traffic&indicator=congestion_level&window=5min"
    with watched(chromium, where, **options) as (page, watch):
        expect_drawn(page, "traffic")
        yield page, watch


def choose(page: Page, testid: str) -> None:
    """Choose a position of a switch, whose radio buttons are drawn as its labels."""
    page.locator(f"label:has([data-testid={testid}])").click()


def zone(page: Page, id_: str) -> Locator:
    return page.locator(f"[data-testid=zone][data-zone={id_}]")


def banner(page: Page, kind: str) -> Locator:
    return page.locator(f"[data-testid=banner][data-kind={kind}]")


def shown(page: Page) -> dict[str, tuple[str, float | None]]:
    """Return each zone's window and value on the page."""
    rows = page.get_by_test_id("zone").evaluate_all("rows => rows.map(row => ({ ...row.dataset }))")
    return {row["zone"]: (row["start"], float(row["value"]) if row["value"] else None) for row in rows}


def headline_agrees(page: Page, qala: Qala, domain: str) -> bool:
    """Tell whether the number that stands for a domain is that of the API's summary."""
    tile = page.get_by_test_id(f"tile-{domain}").get_by_test_id("tile-value")
    value = float(tile.get_attribute("data-value") or "nan")
    [tiles] = [each["tiles"] for each in qala.get("summary")["domains"] if each["domain"] == domain]
    return (tile.get_attribute("data-indicator"), value) in {(each["indicator"], each["value"]) for each in tiles}


def expect_agreement(page: Page, qala: Qala) -> None:
    """Wait until the page shows of every zone what the API says of it."""
    table = page.get_by_test_id("zones")
    indicator, window = table.get_attribute("data-indicator"), table.get_attribute("data-window")
    assert indicator
    assert window
    until(lambda: shown(page) == latest(qala, indicator, window) != {}, deadline_s=20, every_s=0.2)


def expect_drawn(page: Page, domain: str) -> None:
    """Wait until the map has drawn every zone of a domain."""
    expect(page.get_by_test_id("map")).to_have_attribute("data-ready", "true")
    expect(page.locator("[data-testid=zone][data-rendered=true]")).to_have_count(len(ZONES[ZONE_KINDS[domain]]))


def test_every_zone_is_drawn_and_every_number_is_that_of_the_api(qala: Qala, chromium: Browser) -> None:
    with roads(qala, chromium) as (page, _):
        for domain in ("traffic", "energy", "air"):
            choose(page, f"domain-{domain}")
            expect_drawn(page, domain)
            expect_agreement(page, qala)
            assert None not in {value for _, value in shown(page).values()}
            until(partial(headline_agrees, page, qala, domain), deadline_s=20, every_s=0.2)
            expect(page.get_by_test_id("chart")).to_have_attribute("data-status", "ready")


def test_the_canvas_of_the_map_holds_the_colours_of_the_roads(qala: Qala, chromium: Browser) -> None:
    with roads(qala, chromium) as (page, _):
        swatches = "rows => rows.map(row => getComputedStyle(row.querySelector('.swatch')).backgroundColor)"
        colours = set(page.get_by_test_id("zone").evaluate_all(swatches))
        assert len(colours) >= 3
        pixels = painted(chromium, page.get_by_test_id("map"))
        assert {colour for colour in colours if pixels.get(colour, 0) < 200} == set()


def test_a_correction_changes_the_page_and_raises_an_alert_that_is_acknowledged(qala: Qala, chromium: Browser) -> None:
    with roads(qala, chromium) as (page, _):
        page.evaluate("window.loaded = 'once'")
        start, before = shown(page)[JAMMED]
        publish(qala, traffic(JAMMED, minutes(35), 150, revision=1))
        until(lambda: shown(page)[JAMMED][1] != before, deadline_s=20)
        expect_agreement(page, qala)
        assert shown(page)[JAMMED][1] == pytest.approx(150, abs=5)
        values = qala.all("indicators/congestion_level/values", zone=JAMMED, window="5min", start=start)
        assert [item["revision"] for item in values if item["start"] == start] == [2]

        [alert] = until(lambda: qala.get("alerts", rule="road_congested", zone=JAMMED)["items"])
        row = page.locator(f"[data-testid=alert][data-id='{alert['id']}']")
        expect(row).to_have_attribute("data-state", "firing")
        expect(page.get_by_test_id("announcement")).to_contain_text("Road is congested")
        row.get_by_test_id("acknowledge").click()
        comment = "A crew <b>is</b> on its way"
        page.get_by_test_id("ack-actor").fill("Aigerim")
        page.get_by_test_id("ack-comment").fill(comment)
        page.get_by_test_id("ack-submit").click()
        expect(row).to_have_attribute("data-acknowledged", "true")
        expect(row).to_contain_text("Aigerim")
        expect(row).to_contain_text(comment)
        acknowledged = qala.get(f"alerts/{alert['id']}")["acknowledged"]
        assert (acknowledged["actor"], acknowledged["comment"]) == ("Aigerim", comment)
        assert page.evaluate("window.loaded") == "once"


def test_the_language_changes_all_words_and_is_remembered(qala: Qala, chromium: Browser) -> None:
    with roads(qala, chromium) as (page, _):
        for language, alerts, air in (("ru", "Тревоги", "Воздух"), ("en", "Alerts", "Air"), ("kk", "Дабылдар", "Ауа")):
            choose(page, f"lang-{language}")
            expect(page.locator("html")).to_have_attribute("lang", language)
            expect(page.get_by_role("heading", name=alerts, exact=True)).to_be_visible()
            expect(page.get_by_test_id("tile-air").get_by_role("heading")).to_have_text(air)
            for road in ZONES["road"][:5]:
                expect(zone(page, road.id).get_by_role("rowheader")).to_have_text(road.names[language])
        page.reload()
        expect(page.locator("html")).to_have_attribute("lang", "kk")
        expect(page.get_by_role("heading", name="Дабылдар", exact=True)).to_be_visible()


def test_the_theme_changes_page_and_map_and_is_remembered(qala: Qala, chromium: Browser) -> None:
    def grounds(page: Page) -> tuple[str, str]:
        expect_drawn(page, "traffic")
        pixels = painted(chromium, page.get_by_test_id("map"))
        return page.evaluate("getComputedStyle(document.body).backgroundColor"), max(pixels, key=pixels.__getitem__)

    with roads(qala, chromium, colour_scheme="dark") as (page, _):
        dark = grounds(page)
        choose(page, "theme-light")
        expect(page.locator("html")).to_have_attribute("data-theme", "light")
        page.reload()
        light = grounds(page)
        assert (light[0] != dark[0], light[1] != dark[1]) == (True, True)
        choose(page, "theme-system")
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        expect(page.locator("body")).to_have_css("background-color", dark[0])


def test_the_page_says_what_is_wrong_with_its_numbers(qala: Qala, chromium: Browser) -> None:
    publish(qala, traffic(MISSED, minutes(1), 40))
    qala.wait_until_caught_up()
    with roads(qala, chromium, script=RETELL) as (page, _):
        expect(page.get_by_test_id("banner")).to_have_count(0)
        for kind, told, words in (
            ("behind", "{ lag_s: 95, lag_messages: 12000 }", "12,000 messages"),
            ("stale", "{ now: new Date(Date.now() + 600000) }", "No readings have arrived for 10 min"),
            ("degraded", "{ reasons: [{ code: 'door_down' }] }", "message intake has stopped"),
        ):
            page.evaluate(f"window.told = {told}")
            expect(banner(page, kind)).to_contain_text(words)
        page.evaluate("window.told = {}")
        expect(page.get_by_test_id("banner")).to_have_count(0)


def test_a_lost_server_is_said_and_a_regained_one_brings_what_was_missed(qala: Qala, chromium: Browser) -> None:
    with roads(qala, chromium) as (page, watch):
        expect_agreement(page, qala)
        before = shown(page)[MISSED]
        watch.server_is_down = True
        assert qala.serve is not None
        qala.serve.kill()
        qala.serve.wait()
        expect(banner(page, "lost")).to_be_visible()
        expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "lost")
        assert shown(page)[MISSED] == before
        publish(qala, traffic(MISSED, minutes(10), 10, revision=1))  # the door still takes messages

        qala.start_serve()
        until(qala.is_up, deadline_s=60)
        expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live")
        expect(banner(page, "lost")).to_have_count(0)
        watch.server_is_down = False
        until(lambda: shown(page)[MISSED][1] != before[1], deadline_s=20)
        expect_agreement(page, qala)


def test_the_watch_notes_what_no_page_may_do(qala: Qala, chromium: Browser) -> None:
    with watched(chromium, qala.url) as (page, watch):

        def noted(words: str) -> bool:
            page.title()  # lets what the browser has reported arrive
            return any(words in problem for problem in watch.problems)

        for misdeed, words in (
            ("fetch('http://map.example/tile').catch(() => 0)", "map.example"),
            ("setTimeout(() => { throw new Error('oh') })", "thrown: oh"),
            ("document.head.append(Object.assign(document.createElement('script'), { text: '1' }))", "Policy"),
            ("fetch('api/v1/nothing')", "404"),
        ):
            page.evaluate(f"void {misdeed}")
            until(partial(noted, words))
        watch.problems.clear()
