"""The pages of a signed-in person in a real browser: tabs, the back button, and what happens to open forms."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from tests.http.world import PASSWORD
from tests.nodejs import chromium
from tests.running import running_server

pytestmark = [pytest.mark.browser, pytest.mark.long]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("account")) as port:
        yield f"http://localhost:{port}"


@pytest.fixture(scope="module")
def people(site: str) -> Iterator[Browser]:
    """A browser as people have it: it keeps pages for the back button, which Playwright turns off."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=chromium(),
            args=["--no-sandbox", "--disable-gpu"],
            ignore_default_args=["--disable-back-forward-cache"],
        )
        context = browser.new_context()
        for name in ("ada", "bob"):
            page = context.new_page()
            page.goto(f"{site}/auth/register")
            page.fill("#email", f"{name}@example.com")
            page.fill("#password", PASSWORD)
            page.click("main button[type=submit]")
            context.clear_cookies()
        context.close()
        yield browser
        browser.close()


@pytest.fixture
def context(people: Browser) -> Iterator[BrowserContext]:
    context = people.new_context()
    context.set_default_timeout(60_000)
    yield context
    context.close()


def sign_in(page: Page, site: str, who: str, to: str = "/auth/account") -> None:
    page.goto(f"{site}/auth/login?next={to}")
    page.fill("#email", f"{who}@example.com")
    page.fill("#password", PASSWORD)
    page.click("main button[type=submit]")
    page.wait_for_url(f"{site}{to}")


@pytest.mark.parametrize("scripts", [True, False])
def test_the_back_button_shows_no_page_of_an_account_after_signing_out(
    people: Browser, site: str, *, scripts: bool
) -> None:
    """A shared machine: after signing out, the back button shows no page of the account, neither from a cache nor from
    the pages that a browser keeps.
    """
    context = people.new_context(java_script_enabled=scripts)
    page = context.new_page()
    sign_in(page, site, "ada")
    page.click("text=Activity")
    page.wait_for_url("**/auth/activity")
    page.click("text=Sign out")
    page.wait_for_url("**/auth/login")
    assert not [each for each in context.cookies(site) if "session" in each["name"]]
    for path in ("activity", "account"):
        page.evaluate("history.back()")
        expect(page).to_have_url(f"{site}/auth/login?next=%2Fauth%2F{path}")
        assert "ada@example.com" not in page.inner_text("body")
    context.close()


def test_this_browser_does_keep_pages_for_the_back_button(context: BrowserContext, site: str) -> None:
    """The test above means something: a page that may be kept comes back as it was. A headless shell keeps none."""
    page = context.new_page()
    page.goto(f"{site}/.well-known/jwks.json")
    page.evaluate("document.body.dataset.kept = 'yes'")
    page.goto(f"{site}/auth/login")
    page.evaluate("history.back()")
    expect(page).to_have_url(f"{site}/.well-known/jwks.json")
    if page.evaluate("document.body.dataset.kept") != "yes":
        pytest.skip("this browser keeps no page for the back button")


def test_a_form_of_one_account_does_nothing_to_another(context: BrowserContext, site: str) -> None:
    """Two accounts in two tabs: the form of the first does nothing once the second has signed in, says so, and leads to
    the page as it is now.
    """
    first, second = context.new_page(), context.new_page()
    sign_in(first, site, "ada")
    second.goto(f"{site}/auth/account")
    second.click("text=Sign out")
    sign_in(second, site, "bob")
    first.fill("#name-field", "Ada")
    first.click("text=Save the name")
    expect(first.locator("h1")).to_have_text("This form has expired.")
    first.click("a.button")
    first.wait_for_url(f"{site}/auth/account")
    assert "bob@example.com" in first.inner_text("nav") and first.input_value("#name-field") == ""


def test_a_session_that_ended_while_a_form_was_open(people: Browser, context: BrowserContext, site: str) -> None:
    """The form leads to the sign-in page, and from there back to the page with the form."""
    page, elsewhere = context.new_page(), people.new_context()
    sign_in(page, site, "ada")
    other = elsewhere.new_page()
    sign_in(other, site, "ada", "/auth/devices")
    other.click("text=End all others")
    expect(other.locator("[role=status]")).to_contain_text("Ended. This holds everywhere.")
    elsewhere.close()
    page.fill("#name-field", "Ada")
    page.click("text=Save the name")
    assert page.url == f"{site}/auth/login?next=%2Fauth%2Faccount"
    page.fill("#email", "ada@example.com")
    page.fill("#password", PASSWORD)
    page.click("main button[type=submit]")
    page.wait_for_url(f"{site}/auth/account")
    page.fill("#name-field", "Ada L.")
    page.click("text=Save the name")
    expect(page.locator("[role=status]")).to_have_text("Your name is changed.")


def test_a_double_click_sends_a_form_once(context: BrowserContext, site: str) -> None:
    """The second click of two sends nothing, so that the answer to the first is the one that is shown."""
    page = context.new_page()
    sign_in(page, site, "bob")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method) if request.method == "POST" else None)
    page.fill("#name-field", "Bob")
    page.dblclick("text=Save the name", no_wait_after=True)
    expect(page.locator("[role=status]")).to_have_text("Your name is changed.")
    assert sent == ["POST"]
