"""What people live through with their second factors, walked on the pages in a browser, as the guides tell it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from uuid import uuid4

import pyotp
import pytest
from playwright.sync_api import Browser, BrowserContext, Page
from tests.pages.every import Visit
from tests.pages.house import ADA, PASSWORD, House, Watch

from dutchdoor.model.policy import STANDARD

pytestmark = [pytest.mark.browser, pytest.mark.long]

Houses = Callable[..., House]
LOST = "/auth/factors/lost"


class Person:
    """A person with an address, a password, perhaps an app, and one browser at a time."""

    def __init__(self, browser: Browser, house: House) -> None:
        self.browser, self.house = browser, house
        self.email, self.secret = f"{uuid4().hex}@example.com", ""
        self.codes: list[str] = []
        self.contexts: list[BrowserContext] = []
        self.page = self.open_browser()

    def open_browser(self) -> Page:
        """Sit down at another browser."""
        self.contexts.append(self.house.context(self.browser))
        self.page = self.contexts[-1].new_page()
        self.watch = Watch(self.page)
        return self.page

    def close(self) -> None:
        for context in self.contexts:
            context.close()

    @property
    def visit(self) -> Visit:
        return Visit(self.page, self.house)

    def press(self, selector: str) -> None:
        self.visit.press(self.page.locator(selector).first)

    def at(self) -> str:
        return "/" + self.page.url.partition("://")[2].partition("/")[2].partition("?")[0].partition("#")[0]

    def code(self) -> str:
        """The next code of the app: each is accepted once."""
        self.house.clock.forward(60)
        return pyotp.TOTP(self.secret).at(int(self.house.clock()))

    def register(self) -> None:
        self.page.goto("/auth/register")
        self.visit.send(name="Walker", email=self.email, password=PASSWORD)
        self.house.verify()

    def set_up_app(self) -> None:
        """Scan the picture that the page shows, and type the first code."""
        self.secret = (self.page.text_content("details code") or "").replace(" ", "")
        self.visit.send(response=self.code())
        self.codes = self.page.locator("#codes code").all_inner_texts() or self.codes

    def with_app(self) -> None:
        self.register()
        self.page.goto("/auth/account")
        self.press("form[action$='/totp/enrol'] button")
        self.set_up_app()
        assert len(self.codes) == 10

    def first_step(self) -> None:
        self.page.goto("/auth/login?next=/auth/account")
        self.visit.send(email=self.email, password=PASSWORD)

    def sign_out(self) -> None:
        self.page.goto("/auth/account")
        self.press("nav form button")

    def mailed(self, path: str, to: str = "") -> str:
        """The path of the newest link of a kind in the mailbox."""

        async def posted() -> None:
            while self.house.auth.directory.post._posting:
                await asyncio.wait(set(self.house.auth.directory.post._posting))

        self.house.do(posted())
        texts = [mail.text for mail in self.house.mailbox.mails if mail.to == (to or self.email)]
        found = [link for text in texts for link in re.findall(rf"https?://[^/\s]+({re.escape(path)}#\S+)", text)]
        return str(found[-1])

    def follow(self, link: str) -> None:
        """Open a link of a mail, and press the button of its page."""
        self.page.goto(link)
        self.press("main form button[type=submit]")


@pytest.fixture
def person(browser: Browser, houses: Houses) -> Iterator[Person]:
    with closing(Person(browser, houses("open"))) as found:
        yield found
        assert found.watch.said == []


def test_a_new_phone(person: Person) -> None:
    """The page of the account sets up another phone; the next sign-in takes its codes, and not those of the old one."""
    person.with_app()
    old = person.secret
    person.page.goto("/auth/account")
    person.press("form[action$='/totp/enrol'] button")
    person.set_up_app()
    person.open_browser()
    person.first_step()
    new, person.secret = person.secret, old
    person.visit.send(response=person.code())
    assert person.page.locator("[role=alert]").is_visible()
    person.secret = new
    person.visit.send(response=person.code())
    assert person.at() == "/auth/account"


def test_a_lost_phone(person: Person) -> None:
    """A recovery code takes the place of the phone once, and a new phone is set up after it."""
    person.with_app()
    person.open_browser()
    person.first_step()
    person.press("a[href*='by=recovery_code']")
    person.visit.send(response=person.codes[0])
    assert person.at() == "/auth/account" and "9 recovery codes are left." in person.page.inner_text("main")
    person.press("form[action$='/totp/enrol'] button")
    person.set_up_app()
    person.open_browser()
    person.first_step()
    person.visit.send(response=person.code())
    assert person.at() == "/auth/account"


def test_a_lost_mailbox(person: Person) -> None:
    """With the password and the app, the owner gives another address, whose mailbox confirms it."""
    person.with_app()
    person.page.goto("/auth/account")
    new = f"{uuid4().hex}@example.com"
    form = person.page.locator("form[action$='/email/change']")
    form.locator("[name=email]").fill(new)
    person.visit.press(form.locator("button[type=submit]"))
    person.follow(person.mailed("/auth/email/confirm", new))
    assert person.at() == "/auth/email/confirm/done"
    assert person.mailed("/auth/email/restore")  # to the mailbox from before
    person.email = new
    person.open_browser()
    person.first_step()
    person.visit.send(response=person.code())
    assert new in person.page.inner_text("main")


def test_a_shared_computer(person: Person) -> None:
    """A computer that was not asked to remember asks again. One that was does not, until the owner signs out everywhere
    or chooses another password; after a log-out its pages show nothing.
    """
    person.with_app()
    shared = person.open_browser()
    person.first_step()
    assert not person.page.locator("[name=remember]").is_checked()
    person.visit.send(response=person.code())
    person.sign_out()
    shared.go_back()
    assert person.email not in shared.inner_text("body")
    person.first_step()
    assert person.at() == "/auth/login/step"
    person.page.locator("[name=remember]").check()
    person.visit.send(response=person.code())
    person.sign_out()
    person.first_step()
    assert person.at() == "/auth/account"
    shared.goto("/auth/devices")
    person.press("form[action$='/auth/logout/all'] button")
    person.first_step()
    assert person.at() == "/auth/login/step"
    person.page.locator("[name=remember]").check()
    person.visit.send(response=person.code())
    person.open_browser()  # at home, they notice
    person.first_step()
    person.visit.send(response=person.code())
    person.visit.send(current_password=PASSWORD, new_password=f"{PASSWORD} and more")
    shared.goto("/auth/account")
    assert "/auth/login" in shared.url
    person.page = shared
    person.page.goto("/auth/login")
    person.visit.send(email=person.email, password=f"{PASSWORD} and more")
    assert person.at() == "/auth/login/step"


def test_everything_is_lost(person: Person) -> None:
    """A link by mail, three days and a second link take the place of the phone and the codes."""
    person.with_app()
    at_home = person.page
    person.open_browser()
    person.first_step()
    person.press("a[href*='/auth/login/lost']")
    person.press("main form button[type=submit]")
    assert person.at() == "/auth/login/lost/sent"
    person.follow(person.mailed(LOST))
    assert person.at() == f"{LOST}/done"
    at_home.goto("/auth/devices")
    assert "Someone says that you have lost your second factor." in at_home.inner_text("main")
    remove = person.mailed(f"{LOST}/remove")
    person.follow(remove)
    assert "The waiting time is not over yet." in person.page.inner_text("[role=alert]")
    person.house.clock.forward(STANDARD.factor_recovery_after)
    person.follow(remove)
    assert person.at() == f"{LOST}/remove/done"
    person.visit.send(password=PASSWORD)  # the page knows the address
    assert "/auth/login/step" not in person.page.url
    at_home.goto("/auth/devices")
    assert "/auth/login" in at_home.url


def test_a_thief_says_that_everything_is_lost(person: Person) -> None:
    """The owner who sees it on a page keeps the factor with one click, and the link of the thief is void."""
    person.with_app()
    at_home = person.page
    person.open_browser()
    person.first_step()
    person.press("a[href*='/auth/login/lost']")
    person.press("main form button[type=submit]")
    person.follow(person.mailed(LOST))
    remove = person.mailed(f"{LOST}/remove")
    at_home.goto("/auth/activity")
    Visit(at_home, person.house).press(at_home.locator("form[action$='/auth/factors/keep'] button"))
    assert "The second factor stays." in at_home.inner_text("main")
    person.house.clock.forward(STANDARD.factor_recovery_after)
    person.follow(remove)
    assert person.page.locator("[role=alert]").is_visible()


def test_a_code_by_mail(browser: Browser, houses: Houses) -> None:
    """The link of the mail fills in the code where it was asked for, and signs no other browser in."""
    with closing(Person(browser, houses("mailing"))) as person:
        person.email = ADA
        asking = person.page
        asking.goto("/auth/login?next=/auth/account")
        person.press("a[href*='/auth/code']")
        person.visit.send(email=ADA)
        link = person.mailed("/auth/login/code")
        elsewhere = person.open_browser()
        person.follow(link)
        assert "This browser did not ask for a code." in elsewhere.inner_text("[role=alert]")
        person.page = asking
        person.follow(link)
        assert person.at() in {"/auth/account", "/"} and "#" not in asking.url
        asking.goto("/auth/account")
        assert ADA in asking.inner_text("main")
