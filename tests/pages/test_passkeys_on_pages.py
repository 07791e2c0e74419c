"""Passkeys on the pages, in a real browser with the virtual authenticator of Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, expect
from tests.pages.house import PASSWORD, House, Watch

from dutchdoor.model.http_client import Client

pytestmark = [pytest.mark.browser, pytest.mark.long]


class Person:
    """A browser with a device that has passkeys, and the account of its owner."""

    # The virtual device answers at once, and people choose from what the browser suggests.
    NO_SUGGESTIONS = "PublicKeyCredential.isConditionalMediationAvailable = async () => false"

    def __init__(self, house: House, browser: Browser, name: str, *, suggests: bool = False) -> None:
        self.house, self.email = house, f"{name}@example.com"
        self.context: BrowserContext = house.context(browser)
        self.page: Page = self.context.new_page()
        self.watch = Watch(self.page)
        if not suggests:
            self.page.add_init_script(self.NO_SUGGESTIONS)
        self.devtools: CDPSession = self.context.new_cdp_session(self.page)
        self.devtools.send("WebAuthn.enable")
        self.device = self.authenticator()

    def authenticator(self, **other: Any) -> str:
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
            **other,
        }
        made = self.devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})
        return str(made["authenticatorId"])

    def set(self, what: str, **values: Any) -> None:
        self.devtools.send(f"WebAuthn.{what}", {"authenticatorId": self.device, **values})

    def credentials(self) -> list[dict[str, Any]]:
        found = self.devtools.send("WebAuthn.getCredentials", {"authenticatorId": self.device})
        return list(found["credentials"])

    def register(self) -> None:
        self.page.goto("/auth/register")
        self.page.fill("#email", self.email)
        self.page.fill("#password", PASSWORD)
        self.page.click("main button[type=submit]")
        self.page.wait_for_url("**/")

    def add(self, name: str, *, first: bool = False) -> None:
        self.page.goto("/auth/account")
        self.page.click("text=Add a passkey")
        self.page.wait_for_url("**/auth/account/passkey")  # the account has a name, too
        self.page.fill("[name=name]", name)
        self.page.click("text=Create the passkey")
        if first:
            expect(self.page.locator("#codes li")).to_have_count(10)
            self.page.click("text=I have saved them")
        self.page.wait_for_url("**/auth/account*")
        expect(self.page.locator("#passkeys")).to_contain_text(name)

    def sign_out(self) -> None:
        self.page.goto("/auth/account")
        self.page.click("text=Sign out")
        self.page.wait_for_url("**/auth/login")

    def with_password(self) -> None:
        self.page.fill("#email", self.email)
        self.page.fill("#password", PASSWORD)
        self.page.get_by_role("button", name="Sign in", exact=True).click()

    def is_signed_in(self) -> None:
        self.page.wait_for_url("**/")
        self.page.goto("/auth/account")
        expect(self.page.locator(".tabs")).to_contain_text(self.email)


@pytest.fixture
def person(houses: Callable[[str], House], browser: Browser, request: pytest.FixtureRequest) -> Iterator[Person]:
    name = request.node.name.removeprefix("test_").replace("_", "-")
    house = houses("demanding" if "demands" in name else "open")
    made = Person(house, browser, name, suggests="suggests" in name)
    made.register()
    yield made
    assert made.watch.said == []
    made.context.close()


def test_a_person_lives_with_passkeys(person: Person) -> None:
    """A passkey is made on the account page, with a name and recovery codes; it signs in by the button, after the
    password, and proves again who its owner is. A second one is made, and the first removed.
    """
    page = person.page
    person.add("Laptop", first=True)
    assert [each["isResidentCredential"] for each in person.credentials()] == [True]
    # by the button, without a name
    person.sign_out()
    page.get_by_role("button", name="Sign in with a passkey").click()
    person.is_signed_in()
    # as the second step
    person.sign_out()
    person.with_password()
    page.wait_for_url("**/auth/login/step*")
    page.click("text=Use a passkey")
    person.is_signed_in()
    # as a fresh proof
    person.house.clock.forward(3600)
    page.goto("/auth/account/passkey")
    page.wait_for_url("**/auth/confirm?*")
    page.click("text=Use a passkey")
    page.wait_for_url("**/auth/account/passkey")
    # the same device has one already
    page.click("text=Create the passkey")
    expect(page.locator("form [role=alert]")).to_have_text("This device has a passkey for your account already.")
    # another device
    person.set("setUserVerified", isUserVerified=True)
    person.devtools.send("WebAuthn.removeVirtualAuthenticator", {"authenticatorId": person.device})
    person.device = person.authenticator()
    person.add("Phone")
    expect(page.locator("#passkeys li")).to_have_count(2)
    # rename one, and remove the other
    phone = page.locator("#passkeys li", has_text="Phone")
    phone.locator("summary").click()
    phone.locator("[name=name]").fill("New phone")
    phone.get_by_role("button", name="Rename").click()
    expect(page.locator("[role=status]")).to_have_text("The passkey has a new name.")
    laptop = page.locator("#passkeys li", has_text="Laptop")
    laptop.locator("summary").click()
    laptop.get_by_role("button", name="Remove this passkey").click()
    expect(page.locator("#passkeys li")).to_have_count(1)
    person.sign_out()
    page.get_by_role("button", name="Sign in with a passkey").click()
    person.is_signed_in()


def test_a_script_takes_the_second_step_by_a_passkey(person: Person) -> None:
    """The browser client signs in by the password, reads the token from the refusal, and continues with a passkey."""
    page = person.page
    person.add("Laptop", first=True)
    person.sign_out()
    said = page.evaluate(
        """async ([email, password]) => {
          const auth = (await import("/auth/client.js")).createClient();
          await auth.ready;
          try { await auth.signIn({ email, password }); } catch ({ code, methods, token }) {
            return [code, methods, (await auth.passkey({ token })).email];
          }
        }""",
        [person.email, PASSWORD],
    )
    assert said == ["sign_in_unfinished", ["passkey", "recovery_code"], person.email]
    page.goto("/auth/account")
    expect(page.locator(".tabs")).to_contain_text(person.email)


def test_the_browser_suggests_a_passkey(person: Person) -> None:
    """The browser suggests a passkey in the field of the address: the page asks for it without a click."""
    person.add("Laptop", first=True)
    person.page.goto("/auth/account")
    person.page.click("text=Sign out")
    person.is_signed_in()  # the device answers by itself
    person.set("setAutomaticPresenceSimulation", enabled=False)
    person.sign_out()
    assert person.page.get_attribute("#email", "autocomplete") == "username webauthn"
    person.with_password()  # while the suggestions wait
    person.page.wait_for_url("**/auth/login/step*")


def test_a_sign_in_that_demands_a_second_factor_makes_a_passkey(person: Person) -> None:
    """Where the policy demands a second factor, the sign-in offers a passkey beside the app, and then the codes."""
    person.sign_out()
    person.house.clock.forward(7200)
    person.with_password()
    person.page.wait_for_url("**/auth/login/step*")
    expect(person.page.get_by_role("button", name="Set up the app")).to_be_visible()
    person.page.get_by_role("button", name="Create a passkey").click()
    expect(person.page.locator("#codes li")).to_have_count(10)
    person.page.click("text=I have saved them")
    person.is_signed_in()
    person.sign_out()
    person.page.get_by_role("button", name="Sign in with a passkey").click()
    person.is_signed_in()


def test_a_passkey_that_fails(person: Person) -> None:
    """A device that checks no one, and a passkey that was removed, say so, and the password still works."""
    page = person.page
    person.add("Laptop", first=True)
    person.sign_out()
    person.set("setUserVerified", isUserVerified=False)
    page.get_by_role("button", name="Sign in with a passkey").click()
    expect(page.locator("form [role=alert]:not(:empty)")).to_have_text(
        "That did not work, or took too long. Try again."
    )
    person.set("setUserVerified", isUserVerified=True)

    async def remove() -> None:
        directory = person.house.auth.directory
        account = await directory.store.account_by_email(person.email)
        assert account is not None
        for each in (await directory.factors.of(account.subject))[0]:
            await directory.factors.remove(account, each.method, each.handle, amr=None, client=Client(), actor="cli")

    person.house.do(remove())
    page.reload()
    page.get_by_role("button", name="Sign in with a passkey").click()
    expect(page.locator("#wrong")).to_contain_text("This passkey is not known here")
    person.with_password()
    person.is_signed_in()


CLIENT = """async (options) => {
  const { createClient } = await import("/auth/client.js");
  return createClient().passkey(options).then((user) => user.email, (error) => error.name);
}"""


def test_the_browser_client_signs_in_by_a_passkey(person: Person) -> None:
    """A page of one's own signs in by `auth.passkey()`, in each pattern, and learns that its person has cancelled."""
    person.add("Laptop", first=True)
    person.sign_out()
    person.set("setUserVerified", isUserVerified=False)
    assert person.page.evaluate(CLIENT, {}) == "NotAllowedError"
    person.set("setUserVerified", isUserVerified=True)
    for mode in ("hybrid", "session"):
        assert person.page.evaluate(CLIENT, {"mode": mode}) == person.email
    person.page.goto("/auth/account")
    expect(person.page.locator(".tabs")).to_contain_text(person.email)


def test_without_a_script_the_pages_still_work(houses: Callable[[str], House], browser: Browser) -> None:
    """Without a script no button does nothing: the sign-in page has the password, and the page to add one says why."""
    house = houses("open")
    context = house.context(browser, "ada@example.com", java_script_enabled=False)
    page = context.new_page()
    page.goto("/auth/account/passkey")
    expect(page.locator("main")).to_contain_text("This browser cannot use passkeys here")
    assert not page.get_by_role("button", name="Create the passkey").is_visible()
    context.clear_cookies()
    page.goto("/auth/login")
    assert not page.get_by_role("button", name="Sign in with a passkey").is_visible()
    context.close()
