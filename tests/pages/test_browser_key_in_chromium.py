"""A real browser answers for its session: the page that asks its owner goes on by itself, and a copy is asked."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace
from playwright.sync_api import Browser, BrowserContext, Page, expect
from tests.http.test_defended_sessions import HERE, SYDNEY, Countries, Networks
from tests.pages.house import ADA, PASSWORD, House, Watch, open_house
from tests.server.certificates import write_certificate

from dutchdoor.model.policy import STANDARD
from dutchdoor.web.pages.files import STATIC

pytestmark = pytest.mark.browser

KEY, SESSION = "__Host-dd_key", "__Host-dd_session"
DALLAS = "8.1.1.1"


class Places(Countries):
    def country(self, address: str) -> str:
        return "US" if address == DALLAS else super().country(address)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server that refuses what looks like theft, behind a proxy on this machine."""
    policy = replace(STANDARD, suspicion="standard")
    more = {"policy": policy, "countries": Places(), "networks": Networks(), "proxies": ["127.0.0.1", "::1"]}
    folder = tmp_path_factory.mktemp("travels")
    write_certificate(folder, "localhost")
    with open_house(folder, host="localhost", **more) as house:
        yield house


def a_context(house: House, browser: Browser, **options: Any) -> BrowserContext:
    return house.context(browser, ignore_https_errors=True, **options)


def at(context: BrowserContext, address: str) -> None:
    """Let requests come from an address, as a proxy forwards them."""
    context.set_extra_http_headers({"x-forwarded-for": address, "x-forwarded-proto": "https"})


def signed_in(house: House, browser: Browser) -> tuple[BrowserContext, Page, Watch]:
    """Sign in at home, on the page, as people do."""
    context = a_context(house, browser)
    at(context, HERE)
    page = context.new_page()
    watch = Watch(page)
    page.goto("/auth/login")
    for _ in range(600):  # a minute: the policy of the page lets no test evaluate a condition there
        if KEY in {cookie["name"] for cookie in context.cookies()}:
            break
        page.wait_for_timeout(100)
    page.fill("[name=email]", ADA)
    page.fill("[name=password]", PASSWORD)
    page.click("main form[action$='/auth/login'] button[type=submit]")
    page.wait_for_url(lambda url: "/auth/login" not in url)
    page.goto("/")
    page.wait_for_load_state("networkidle")
    assert KEY not in {cookie["name"] for cookie in context.cookies()}, "the sign-in has taken it, and no other is made"
    return context, page, watch


@pytest.mark.long
def test_q37_a_traveller_sees_a_page_load_and_no_question(house: House, browser: Browser) -> None:
    """A person opens a page on another continent, and is there, in the session of before. A copy of the cookies in
    another browser is asked. Nothing breaks the content security policy.
    """
    context, page, watch = signed_in(house, browser)
    before = {cookie["name"]: cookie["value"] for cookie in context.cookies()}
    at(context, SYDNEY)
    page.goto("/auth/devices")
    page.wait_for_url("**/auth/devices")
    expect(page.locator("h1")).to_be_visible()
    assert {cookie["name"]: cookie["value"] for cookie in context.cookies()}["__Host-dd_session"] == before[
        "__Host-dd_session"
    ]
    assert watch.said == []
    copy = a_context(house, browser)
    copy.add_cookies([{"name": SESSION, "value": before[SESSION], "url": house.url, "secure": True}])
    at(copy, "185.65.134.1")  # an exit of a VPN: not the place that is familiar by now
    asked = copy.new_page()
    asked.goto("/auth/devices")
    asked.wait_for_url("**/auth/confirm?**")
    expect(asked.locator("[name=password]")).to_be_visible()
    copy.close()
    context.close()


@pytest.mark.long
def test_q37_a_copy_without_the_key_is_asked_as_if_there_were_no_script(house: House, browser: Browser) -> None:
    """The page of a thief has a challenge, whose script finds no key, and shows the question. So does the page without
    a script.
    """
    context, _, _ = signed_in(house, browser)
    kept = [
        {"name": each["name"], "value": each["value"], "url": house.url, "secure": True} for each in context.cookies()
    ]
    context.close()
    for javascript in (True, False):
        copy = a_context(house, browser, java_script_enabled=javascript)
        copy.add_cookies(
            [{"name": each["name"], "value": each["value"], "url": house.url, "secure": True} for each in kept]
        )
        at(copy, DALLAS)
        page = copy.new_page()
        page.goto("/auth/devices")
        page.wait_for_url("**/auth/confirm?**")
        expect(page.locator("[name=password]")).to_be_visible()
        assert page.locator("[data-challenge]").count() == 1, "it was asked first"
        copy.close()


def test_q37_the_script_of_the_key_is_small() -> None:
    """Below 1.5 kB as it is sent: it is loaded by each page on which people sign in."""
    assert len(gzip.compress(STATIC["/assets/key.js"].content)) < 1500
