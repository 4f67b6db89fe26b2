"""The page where the server asks for a token, in Debian's Chromium: signing in, what a reader is offered, the end of a session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from dashboards.api.access import COOKIE
from dashboards.settings import DashboardsSettings
from qala.state import tokens
from qala.state.tokens import Scope
from tests.api_city import NOW, City, make_episode
from tests.browser import PAGE, Watch, browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture
def city(tmp_path: Path) -> Iterator[City]:
    made = City(tmp_path, settings=DashboardsSettings(page=PAGE, authenticate=True))
    made.raise_alert(make_episode("ep-1"))
    yield made
    made.close()


def issue(city: City, scope: Scope) -> str:
    text = tokens.issue(city.state, f"{scope}-room", scope, NOW)[1]
    city.app.state.visitors.load()
    return text


@contextmanager
def opened(chromium: Browser, address: str) -> Iterator[tuple[Page, Watch]]:
    """Open the page in a context of its own. That a token is asked for is no mistake of the page; all else is."""
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    parts = urlsplit(address)
    watch = Watch(context, f"{parts.scheme}://{parts.netloc}")
    page = context.new_page()
    page.goto(address)
    yield page, watch
    assert [problem for problem in watch.problems if "401 (Unauthorized)" not in problem] == []
    context.close()


def sign_in(page: Page, token: str) -> None:
    page.get_by_test_id("signin-token").fill(token)
    page.get_by_test_id("signin-submit").click()


def test_a_token_opens_the_page_and_stays_nowhere_that_scripts_see(city: City, chromium: Browser) -> None:
    with city.served() as address, opened(chromium, address) as (page, _):
        expect(page.get_by_test_id("signin-token")).to_be_focused()
        expect(page.get_by_test_id("tiles")).to_have_count(0)
        sign_in(page, "wrong")
        expect(page.get_by_test_id("signin-error")).to_contain_text("does not hold")
        sign_in(page, token := issue(city, Scope.OPERATE))
        expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live")
        expect(page.get_by_test_id("visitor")).to_contain_text("operate-room")
        expect(page.get_by_test_id("acknowledge")).to_be_visible()

        kept = page.evaluate(
            "[document.cookie, ...Object.values(localStorage), ...Object.values(sessionStorage)].join()"
        )
        assert token.partition(".")[2] not in kept
        assert COOKIE not in kept
        [cookie] = page.context.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (
            COOKIE,
            True,
            True,
            "Strict",
        )
        page.reload()
        expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live")


def test_an_acknowledgement_over_the_page_names_the_token(city: City, chromium: Browser) -> None:
    with city.served() as address, opened(chromium, address) as (page, _):
        sign_in(page, issue(city, Scope.OPERATE))
        page.get_by_test_id("acknowledge").click()
        page.get_by_test_id("ack-actor").fill("Aigerim")
        page.get_by_test_id("ack-submit").click()
        expect(page.get_by_test_id("alert")).to_contain_text("Aigerim (operate-room)")


def test_a_reader_is_offered_what_readers_may_do_and_told_why(city: City, chromium: Browser) -> None:
    with city.served() as address, opened(chromium, address) as (page, _):
        sign_in(page, issue(city, Scope.READ))
        expect(page.get_by_test_id("readonly")).to_be_visible()
        expect(page.get_by_test_id("alert")).to_have_count(1)
        expect(page.get_by_test_id("acknowledge")).to_have_count(0)


def test_signing_out_and_the_end_of_a_token_ask_for_another(city: City, chromium: Browser) -> None:
    with city.served() as address, opened(chromium, address) as (page, _):
        sign_in(page, token := issue(city, Scope.READ))
        page.get_by_test_id("signout").click()
        expect(page.get_by_test_id("signin")).to_be_visible()
        assert page.context.cookies() == []
        page.reload()
        sign_in(page, token)
        expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live")
        tokens.revoke(city.state, token.partition(".")[0], NOW)
        expect(page.get_by_test_id("signin")).to_be_visible(timeout=8_000)
