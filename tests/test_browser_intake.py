"""The page on how data come in: the ledger, what was rejected, commands and health, in Debian's Chromium over a real Qala."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from dashboards.settings import DashboardsSettings
from qala.state import tokens
from qala.state.tokens import Scope
from tests.api_city import NOW, City
from tests.browser import PAGE, Watch, browser, watched
from tests.processes import Qala
from tests.running import free_port
from tests.test_commands import Device
from tests.town import ZONES, minutes, publish, town, traffic
from tests.wait import until

NARROW = {"width": 390, "height": 844}
GOOD, BAD, SILENT = (zone.id for zone in ZONES["road"][:3])
TOPIC = f"qala/1/town/{BAD}/t"
BROKEN = '{"v": {"speed": 1.2.3}}'
ROWS_MAX, ROWS = 10, 14  # rejected rows of one device that are kept, and that it sends


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


def received(qala: Qala) -> int:
    """Return how many messages the ledger has, of all devices."""
    return sum(row["messages"] for row in qala.get("ledger", by="device")["items"])


@pytest.fixture(scope="module")
def qala(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Qala]:
    made = town(tmp_path_factory.mktemp("intake") / "town")
    made.environment |= {
        "QALA_INGEST__REJECTED_PER_DEVICE_MAX": str(ROWS_MAX),
        "QALA_INGEST__PROBE_EVERY_S": "0.2",
        "QALA_INGEST__BROKERS__OLD__URL": f"mqtt://127.0.0.1:{free_port()}",
        "QALA_INGEST__BROKERS__OLD__TOPICS": '["city/#"]',
    }
    with made as running:
        said = traffic(GOOD, minutes(10), 20)
        publish(running, said, said, *((TOPIC, BROKEN.replace("1.2.3", f"{n}.2.3").encode()) for n in range(ROWS)))
        until(lambda: received(running) == ROWS + 2, deadline_s=30)
        yield running


@contextmanager
def opened(chromium: Browser, qala: Qala, query: str) -> Iterator[tuple[Page, Watch]]:
    with watched(chromium, f"{qala.url}/?domain=traffic&{query}") as (page, watch):
        yield page, watch


def get(page: Page, testid: str, **data: Any) -> Locator:
    return page.locator(f"[data-testid={testid}]" + "".join(f"[data-{name}='{value}']" for name, value in data.items()))


def counts(row: Locator) -> dict[str, str]:
    """Return a line's numbers by column, as the page holds them."""
    found: dict[str, str] = row.locator("td").evaluate_all(
        "cells => Object.fromEntries(cells.map(cell => [cell.dataset.count, cell.dataset.value]))"
    )
    return found


def columns(of: dict[str, Any]) -> dict[str, str]:
    """Spell a row of the API's ledger as the page's columns."""
    flat = {**of, "rejected": sum(of["rejected"].values())}
    names = ("messages", "duplicates", "accepted", "flagged", "late", "rejected", "missing")
    return {name: "" if flat[name] is None else str(flat[name]) for name in names}


def test_the_ledger_shows_each_device_as_the_api_counts_it(qala: Qala, chromium: Browser) -> None:
    with opened(chromium, qala, "") as (page, _):
        get(page, "intake-open").click()
        expect(get(page, "ledger-row")).to_have_count(sum(map(len, ZONES.values())))
        told = {row["device"]: row for row in qala.get("ledger", by="device")["items"]}
        for device, row in told.items():
            assert counts(get(page, "ledger-row", id=device)) == columns(row)
        assert told[f"town/{SILENT}"]["messages"] == 0  # the devices that sent nothing are among them

        get(page, "ledger-sort-duplicates").click()
        expect(get(page, "ledger-row").first).to_have_attribute("data-id", f"town/{GOOD}")
        expect(get(page, "ledger-explain")).to_contain_text("topic and payload had come before")
        get(page, "ledger-sort-rejected").focus()
        expect(get(page, "ledger-explain")).to_contain_text("each has its reason")
        get(page, "ledger-search").fill(BAD)
        expect(get(page, "ledger-row")).to_have_count(1)
        assert counts(get(page, "ledger-total"))["rejected"] == str(ROWS)
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")  # the first one empties the search
        expect(get(page, "intake")).to_have_count(0)
        expect(get(page, "intake-open")).to_be_focused()


def test_a_devices_panel_leads_to_its_hours_and_back(qala: Qala, chromium: Browser) -> None:
    with opened(chromium, qala, f"device=town/{BAD}") as (page, _):
        get(page, "open-ledger").click()
        expect(get(page, "ledger-of")).to_have_attribute("data-device", f"town/{BAD}")
        rows = qala.get("ledger", device=f"town/{BAD}")["items"]
        expect(get(page, "ledger-row")).to_have_count(len(rows))
        for row in rows:
            assert counts(get(page, "ledger-row", id=row["start"])) == columns(row)
        bad = next(row["start"] for row in rows if row["rejected"])
        expect(get(page, "ledger-row", id=bad)).to_contain_text("not JSON")
        assert f"intake=ledger&of=town/{BAD}" in page.url
        get(page, "ledger-rejected").last.click()
        expect(get(page, "rejected")).to_have_count(ROWS_MAX)
        get(page, "rejected").first.get_by_role("button").click()
        expect(get(page, "intake")).to_have_count(0)
        expect(get(page, "details")).to_contain_text(f"town/{BAD}")


def test_what_was_rejected_shows_its_first_bad_byte_and_what_was_only_counted(qala: Qala, chromium: Browser) -> None:
    with opened(chromium, qala, "intake=rejected") as (page, _):
        item = get(page, "rejected", reason="bad_json").first
        expect(item).to_contain_text("not JSON")
        told = qala.get("rejected", reason="bad_json", limit=1)["items"][0]
        expect(get(page, "rejected-byte").first).to_have_attribute("data-offset", str(told["offset"]))
        expect(get(page, "rejected-byte").first).to_have_text(told["payload"][told["offset"]])
        expect(get(page, "rejected-payload").first).to_have_text(told["payload"])
        kept = get(page, "rejected-kept", kept=ROWS_MAX, dropped=ROWS - ROWS_MAX)
        expect(kept).to_contain_text(f"and {ROWS - ROWS_MAX} more, only counted")
        get(page, "rejected-reason").select_option("bad_json")
        get(page, "rejected-device").select_option(f"town/{BAD}")
        expect(get(page, "rejected")).to_have_count(ROWS_MAX)


def test_a_replay_is_asked_about_and_says_what_it_came_to(qala: Qala, chromium: Browser) -> None:
    with opened(chromium, qala, f"intake=rejected&of=town/{BAD}") as (page, _):
        get(page, "replay").click()
        get(page, "replay-cancel").click()
        expect(get(page, "replay")).to_be_focused()
        get(page, "replay").click()
        expect(get(page, "replay-confirm")).to_be_focused()
        page.keyboard.press("Enter")
        expect(get(page, "replay-told")).to_contain_text(f"decoded again: {ROWS_MAX}")
        expect(get(page, "replay-told")).to_contain_text(f"still rejected: {ROWS_MAX}")


def test_a_command_is_checked_sent_delivered_and_told(qala: Qala, chromium: Browser) -> None:
    with opened(chromium, qala, f"device=town/{GOOD}") as (page, _), Device(qala, f"town/{GOOD}") as device:
        get(page, "command-new").locator("summary").click()
        for wrong, words in (("{reboot}", "not JSON"), ("[1]", "JSON object")):
            get(page, "command-payload").fill(wrong)
            get(page, "command-send").click()
            expect(get(page, "command-error")).to_contain_text(words)
        get(page, "command-payload").fill('{"n": 12345678901234567890}')
        get(page, "command-actor").fill("Aigerim")
        get(page, "command-send").click()
        until(lambda: device.payloads() == [b'{"n": 12345678901234567890}'])
        sent = get(page, "command", state="delivered")
        expect(sent).to_contain_text("delivered")
        expect(sent).to_contain_text("asked by Aigerim")
        expect(get(page, "command-payload")).to_have_value("")
        assert [item["requested_by"] for item in qala.get("commands")["items"]] == ["Aigerim"]


def test_a_command_that_waits_is_taken_back(qala: Qala, chromium: Browser) -> None:
    with opened(chromium, qala, f"device=town/{SILENT}") as (page, _):
        get(page, "command-new").locator("summary").click()
        get(page, "command-payload").fill('{"reboot": true}')
        get(page, "command-send").click()
        get(page, "command", state="pending").get_by_test_id("command-cancel").click()
        expect(get(page, "command", state="cancelled")).to_contain_text("taken back")
        assert [item["state"] for item in qala.get("commands", device=f"town/{SILENT}")["items"]] == ["cancelled"]


def test_health_names_the_broker_that_is_away_and_the_time_of_the_probe(qala: Qala, chromium: Browser) -> None:
    until(lambda: qala.get("health")["parts"]["probe"]["puback_s"])
    until(lambda: qala.get("health")["parts"].get("brokers", {}).get("error"), deadline_s=30)
    with opened(chromium, qala, "") as (page, _):
        get(page, "banner-details").click()
        expect(get(page, "health")).to_have_attribute("data-status", "degraded")
        expect(get(page, "health-reason", code="brokers_down")).to_contain_text("an MQTT broker cannot be reached")
        expect(get(page, "broker", name="old", connected="false")).to_contain_text("never connected")
        expect(get(page, "part", part="probe", up="true")).to_contain_text("ms")
        expect(get(page, "part", part="door")).to_contain_text(f"127.0.0.1:{qala.mqtt_port}")
        expect(get(page, "part", part="store")).to_contain_text("duckdb")


@pytest.mark.parametrize("view", ["ledger", f"ledger&of=town/{BAD}", "rejected", "health"])
@pytest.mark.parametrize("language", ["en", "ru", "kk"])
def test_nothing_is_cut_off_on_a_phone(qala: Qala, chromium: Browser, view: str, language: str) -> None:
    with opened(chromium, qala, f"lang={language}&intake={view}") as (page, _):
        page.set_viewport_size(NARROW)  # type: ignore[arg-type]
        expect(page.locator(".sheet-scroll")).to_be_visible()
        wide = "parts => parts.filter(part => part.scrollWidth > part.clientWidth + 1).map(part => part.className)"
        scrolling = {".ledger"} if "of=" in view else set()
        found = page.locator(
            ".sheet, .sheet-head, .sheet-tools, .explain, .rejection, .part, .sheet-scroll"
        ).evaluate_all(wide)
        assert [name for name in found if not (scrolling and name == "sheet-scroll")] == []


def test_a_reader_is_told_why_there_is_nothing_to_send_and_nothing_to_replay(chromium: Browser, tmp_path: Path) -> None:
    city = City(tmp_path, settings=DashboardsSettings(page=PAGE, authenticate=True))
    token = tokens.issue(city.state, "wall", Scope.READ, NOW)[1]
    city.app.state.visitors.load()
    with city.served() as address:
        context = chromium.new_context()
        page = context.new_page()
        page.goto(f"{address}/?domain=air&device=city/air-1")
        get(page, "signin-token").fill(token)
        get(page, "signin-submit").click()
        expect(get(page, "visitor", scope="read")).to_be_visible()
        expect(get(page, "commands-readonly")).to_contain_text("scope operate")
        expect(get(page, "command-new")).to_have_count(0)
        context.close()
    city.close()
