"""Sign-in by a real issuer, a package of its own, in a real Chromium: with scripts and without."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import httpx2
import pytest
from playwright.sync_api import Browser, Page
from tests.pages.house import ADA, House, Watch, open_house

from dutchdoor import issuers

# The package uses what its library deprecates.
pytestmark = [pytest.mark.browser, pytest.mark.long, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    mock = import_module("oidc_provider_mock")  # here: it warns as it is imported
    claims = {"email": "grace@example.com", "email_verified": True, "name": "Grace Hopper"}
    person = mock.User(sub="grace", claims=claims)
    other = mock.User(sub="ada-there", claims={"email": "ada@elsewhere.example"})
    with mock.run_server_in_thread(user_claims=(person, other)) as server:
        corp = issuers.openid(
            name="corp", title="Corp", url=f"http://localhost:{server.server_port}", client_id="c", client_secret="s",
            trusted_for=["example.com"],
        )  # fmt: skip
        with open_house(tmp_path_factory.mktemp("chromium"), issuers=[corp]) as found:
            yield found


def through_the_issuer(page: Page, house: House, button: str, sub: str) -> None:
    """Press a button, log in at the issuer, and come back."""
    page.get_by_role("button", name=button).click()
    page.wait_for_url("**/oauth2/authorize?**")
    page.get_by_role("button", name=sub, exact=True).click()
    page.wait_for_url(f"{house.url}/**")
    page.wait_for_url(lambda url: "/callback" not in url and "/finish" not in url)


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
def test_a_person_comes_by_a_real_issuer(browser: Browser, house: House, scripts: bool) -> None:
    """From a page that asks for a sign-in to the issuer and back to that page: no policy is broken on the way, and
    strict cookies come along, so that the known-device mark is read and kept.
    """
    context = house.context(browser, java_script_enabled=scripts)
    page = context.new_page()
    watch = Watch(page)
    page.goto("/auth/account")
    through_the_issuer(page, house, "Continue with Corp", "grace")
    assert page.url == f"{house.url}/auth/account"
    assert "grace@example.com" in page.content() and "Grace Hopper" in page.content()
    names = {str(cookie.get("name")): cookie for cookie in context.cookies()}
    assert {"dd_session", "dd_mark", "dd_issuer"} <= names.keys()
    assert names["dd_issuer"].get("sameSite") == "Strict"
    said = [each for each in watch.said if "ERR_NAME_NOT_RESOLVED" not in each]  # a style sheet of the issuer's page
    assert said == []
    context.close()


def test_a_script_signs_in_with_a_real_issuer(browser: Browser, house: House) -> None:
    """`auth.signInWith` of the browser client goes to the issuer, and back to the page that called it, where the client
    knows who is signed in. A name that is not configured is refused, and leads nowhere.
    """
    context = house.context(browser)
    page = context.new_page()
    page.goto("/auth/login")
    page.evaluate("async () => { window.auth = (await import('/auth/client.js')).createClient(); }")
    wrong = page.evaluate("() => auth.signInWith('nowhere').catch((error) => error.code)")
    assert (wrong, page.url) == ("not_found", f"{house.url}/auth/login")
    page.evaluate("() => { auth.signInWith('corp', { next: '/auth/devices' }); }")
    page.wait_for_url("**/oauth2/authorize?**")
    page.get_by_role("button", name="grace", exact=True).click()
    page.wait_for_url(f"{house.url}/auth/devices")
    page.evaluate("async () => { window.auth = (await import('/auth/client.js')).createClient(); }")
    assert page.evaluate("async () => (await auth.ready).email") == "grace@example.com"
    page.evaluate("() => { auth.signInWith('corp'); }")
    page.wait_for_url("**/oauth2/authorize?**")
    page.get_by_role("button", name="grace", exact=True).click()
    page.wait_for_url(f"{house.url}/auth/devices")
    context.close()


def test_a_person_who_stops_at_the_issuer_reads_so(browser: Browser, house: House) -> None:
    """They come back to a page with the way to sign in."""
    context = house.context(browser)
    page = context.new_page()
    page.goto("/auth/login")
    page.get_by_role("button", name="Continue with Corp").click()
    page.wait_for_url("**/oauth2/authorize?**")
    page.get_by_role("button", name="Deny").click()
    page.wait_for_url("**/finish?**")
    assert "You have stopped the sign-in at Corp" in page.content()
    page.get_by_role("link", name="Back to the sign-in page").click()
    assert page.url == f"{house.url}/auth/login"
    context.close()


def test_an_owner_links_in_a_browser(browser: Browser, house: House) -> None:
    """From the account page to the issuer and back, then out and in by it."""
    context = house.context(browser, ADA)
    page = context.new_page()
    page.goto("/auth/account")
    through_the_issuer(page, house, "Link Corp", "ada-there")
    assert "The log-in is linked" in page.content()
    context.clear_cookies()
    page.goto("/auth/login?next=/auth/account")
    through_the_issuer(page, house, "Continue with Corp", "ada-there")
    assert ADA in page.content()
    context.close()


def test_a_link_of_an_attacker_signs_no_one_in(browser: Browser, house: House) -> None:
    """Log-in CSRF: the address with the attacker's own answer, opened in the victim's browser."""
    attacker = house.context(browser)
    page = attacker.new_page()
    page.goto("/auth/login")
    page.get_by_role("button", name="Continue with Corp").click()
    page.wait_for_url("**/oauth2/authorize?**")
    answer = httpx2.post(page.url, data={"sub": "grace"})  # the attacker logs in, and keeps the answer
    assert answer.status_code == 302
    victim = house.context(browser)
    opened = victim.new_page()
    opened.goto(answer.headers["location"])
    opened.wait_for_url("**/finish?**")
    assert "another browser" in opened.content()
    assert "dd_session" not in {cookie.get("name") for cookie in victim.cookies()}
    attacker.close()
    victim.close()
