"""Recovery codes are shown once, so a person saves them at once: on paper, in the clipboard, or as a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from tests.pages.every import Visit, recovery_codes
from tests.pages.house import House

pytestmark = pytest.mark.browser


@pytest.mark.long
def test_codes_are_saved_as_a_file(browser: Browser, houses: Callable[..., House]) -> None:
    """The file holds each code that the page shows, a line each, and the strict policy lets it be saved."""
    house = houses("open")
    context = house.context(browser, None)
    page = context.new_page()
    recovery_codes(Visit(page, house))
    codes = page.locator("#codes code").all_inner_texts()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "recovery-codes.txt"
    assert Path(download.value.path()).read_text().split() == codes
    assert len(codes) == 10
    context.close()
