"""Dates are written the way of the person's country, where the browser knows it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser
from tests.pages.every import ADA
from tests.pages.house import House

pytestmark = pytest.mark.browser


@pytest.mark.long
@pytest.mark.parametrize(
    ("locale", "written"),
    [("en-GB", r"\d{1,2} [A-Z][a-z]+ \d{4}"), ("en-US", r"[A-Z][a-z]+ \d{1,2}, \d{4}"), ("de-AT", r"\d{1,2}\. [A-Z]")],
)
def test_dates_are_those_of_the_country(
    browser: Browser, houses: Callable[..., House], locale: str, written: str
) -> None:
    """English of Britain puts the day first, English of America the month: the page is the same, the browser knows."""
    house = houses("open")
    context = house.context(browser, ADA, locale=locale)
    page = context.new_page()
    page.goto("/auth/devices")
    assert re.match(written, page.locator("time").first.inner_text())
    context.close()
