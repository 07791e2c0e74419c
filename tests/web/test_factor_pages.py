"""Second factors on the pages, without a script: setting up an app, signing in with it, losing the phone."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from urllib.parse import unquote

import pyotp
import pytest
from starlette.testclient import TestClient
from tests.standins import Clock
from tests.web.test_form_pages import ADA, FORM, PAGE, PASSWORD

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.model.policy import Policy


class House:
    """A server, its clock, and browsers that can only send forms."""

    def __init__(self, policy: Policy) -> None:
        self.clock = Clock()
        self.auth = Auth("memory:", policy=policy, hasher=PasswordHasher(CHEAPEST), clock=self.clock)
        self.app = self.auth.asgi()
        self.secret = ""
        self.codes: list[str] = []

    def browser(self) -> TestClient:
        return TestClient(self.app, headers=PAGE, follow_redirects=False)

    def code(self) -> str:
        return pyotp.TOTP(self.secret).at(int(self.clock()))

    def set_up(self, client: TestClient, page: str, to: str, **fields: str) -> None:
        """Go on from a page with a QR code to the recovery codes."""
        self.secret = re.findall(r"<code>([A-Z2-7 ]+)</code>", page)[0].replace(" ", "")
        sent = fields | {"enrolment": re.findall(r'name="enrolment" value="([^"]+)"', page)[0], "method": "totp"}
        wrong = client.post(to, data=sent | {"response": "000000"}, headers=FORM)
        assert wrong.status_code == 401 and self.secret[:4] in wrong.text and 'role="alert"' in wrong.text
        done = client.post(to, data=sent | {"response": self.code()}, headers=FORM)
        assert done.status_code == 200, done.text
        self.codes = re.findall(r"<code>([0-9A-Z-]{29})</code>", done.text)
        assert len(self.codes) == 10
        self.clock.forward(60)


@pytest.fixture
def house() -> Iterator[House]:
    found = House(Policy())
    with found.browser() as client:
        assert client.post("/auth/register", data=ADA, headers=FORM).status_code == 303
        yield found


def csrf(client: TestClient, path: str = "/auth/account") -> dict[str, str]:
    return {"csrf_token": re.findall(r'name="csrf_token" value="([^"]+)"', client.get(path).text)[0]}


def signed_in(client: TestClient) -> bool:
    return client.get("/auth/me", headers={"sec-fetch-mode": "cors"}).status_code == 200


def enrolled(house: House) -> TestClient:
    client = house.browser()
    assert client.post("/auth/login", data=ADA, headers=FORM).status_code == 303
    page = client.post("/auth/factors/totp/enrol", data=csrf(client), headers=FORM)
    assert page.status_code == 200, page.text
    house.set_up(client, page.text, "/auth/factors/totp/confirm", **csrf(client))
    return client


def at_the_step(house: House) -> TestClient:
    client = house.browser()
    sent = client.post("/auth/login", data=ADA | {"next": "/orders"}, headers=FORM)
    assert (sent.status_code, sent.headers["location"]) == (303, "/auth/login/step?next=%2Forders")
    assert not signed_in(client)
    return client


def test_an_app_is_set_up_and_asked_for(house: House) -> None:
    """The account page sets up an app by a picture or a key, shows ten codes once, and the next sign-in asks for it."""
    client = enrolled(house)
    assert "10 recovery codes are left." in client.get("/auth/account").text
    page = client.get("/auth/account?done=factor_added").text
    assert "It is set up, for your next sign-in." in page and house.codes[0] not in page
    browser = at_the_step(house)
    page = browser.get("/auth/login/step?next=/orders").text
    assert 'autocomplete="one-time-code"' in page and "by=recovery_code" in page
    wrong = browser.post(
        "/auth/login/step", data={"method": "totp", "response": "123456", "next": "/orders"}, headers=FORM
    )
    assert wrong.status_code == 401 and "This code is not right" in wrong.text and not signed_in(browser)
    right = browser.post(
        "/auth/login/step", data={"method": "totp", "response": house.code(), "next": "/orders"}, headers=FORM
    )
    assert (right.status_code, right.headers["location"]) == (303, "/orders")
    assert signed_in(browser) and "dd_step" not in browser.cookies


def test_the_picture_is_of_the_key(house: House) -> None:
    """The QR code stands in the page itself, and no address of it reaches a log."""
    client = house.browser()
    assert client.post("/auth/login", data=ADA, headers=FORM).status_code == 303
    page = client.post("/auth/factors/totp/enrol", data=csrf(client), headers=FORM).text
    picture = re.findall(r'class="qr" src="data:image/svg\+xml;([^"]+)"', page)[0]
    assert "svg" in (unquote(picture) if "base64" not in picture else base64.b64decode(picture.split(",")[1]).decode())
    assert not re.search(r'(src|href)="[^d"][^"]*otpauth', page)


def test_a_lost_phone(house: House) -> None:
    """A recovery code signs in once; then the app is set up on another phone, or removed."""
    enrolled(house)
    browser = at_the_step(house)
    page = browser.get("/auth/login/step?by=recovery_code").text
    assert "Recovery code" in page
    spent = house.codes[0]
    sent = {"method": "recovery_code", "response": spent.lower()}
    assert browser.post("/auth/login/step", data=sent, headers=FORM).status_code == 303
    assert "9 recovery codes are left." in browser.get("/auth/account").text
    other = at_the_step(house)
    assert other.post("/auth/login/step", data=sent, headers=FORM).status_code == 401
    page = browser.post("/auth/factors/remove", data=csrf(browser) | {"method": "totp"}, headers=FORM)
    assert (page.status_code, page.headers["location"]) == (303, "/auth/account?done=factor_removed")
    assert "It is removed, and is not asked for any more." in browser.get(page.headers["location"]).text
    last = house.browser()
    assert "/auth/login/step" not in last.post("/auth/login", data=ADA, headers=FORM).headers["location"]
    assert signed_in(last)


def test_a_step_that_nobody_began_leads_to_sign_in(house: House) -> None:
    """Without the cookie of this browser, and after a time, the step leads back to the sign-in page."""
    enrolled(house)
    assert house.browser().get("/auth/login/step?next=/a").headers["location"] == "/auth/login?next=%2Fa"
    sent = {"method": "totp", "response": house.code()}
    assert house.browser().post("/auth/login/step", data=sent, headers=FORM).headers["location"] == "/auth/login"
    client = at_the_step(house)
    house.clock.forward(601)
    late = client.post("/auth/login/step", data=sent, headers=FORM)
    assert late.headers["location"] == "/auth/login" and not signed_in(client)


def test_the_box_remembers_the_browser(house: House) -> None:
    """Where the owner ticks the box, the next sign-in of this browser takes no step."""
    enrolled(house)
    client = at_the_step(house)
    assert 'name="remember"' in client.get("/auth/login/step").text
    sent = {"method": "totp", "response": house.code(), "remember": "yes"}
    assert client.post("/auth/login/step", data=sent, headers=FORM).status_code == 303
    assert client.post("/auth/logout", data=csrf(client), headers=FORM).status_code == 303
    assert client.post("/auth/login", data=ADA, headers=FORM).headers["location"] == "/"
    assert signed_in(client)


def test_a_demanded_app_is_set_up_while_signing_in() -> None:
    """Where a second factor is demanded, registering and signing in lead to setting one up, and to the codes."""
    house = House(Policy(second_factor="required"))
    with house.browser() as client:
        sent = client.post("/auth/register", data=ADA | {"next": "/orders"}, headers=FORM)
        assert (sent.status_code, sent.headers["location"]) == (303, "/auth/login/step?next=%2Forders")
        assert "Your account needs a second factor" in client.get("/auth/login/step").text
        assert not signed_in(client)
        page = client.post("/auth/login/enrol", data={"next": "/orders"}, headers=FORM)
        house.set_up(client, page.text, "/auth/login/step", next="/orders")
        assert signed_in(client)
        refused = client.post("/auth/factors/remove", data=csrf(client) | {"method": "totp"}, headers=FORM)
        assert refused.status_code == 403 and "Add another one first" in refused.text


def test_a_download_asks_for_the_factor_first(house: House) -> None:
    """A download can send no browser to prove again: the page of an account offers the proof of the factor instead."""
    old = house.browser()
    assert old.post("/auth/login", data=ADA, headers=FORM).status_code == 303
    assert 'href="/auth/account/export"' in old.get("/auth/account").text
    enrolled(house)
    page = old.get("/auth/account").text
    assert 'href="/auth/confirm?next=/auth/account&amp;factors=2"' in page and "/auth/account/export" not in page


def test_an_act_asks_for_the_factor_and_leads_back(house: House) -> None:
    """A browser that signed in before the app was there is asked for its code, and comes back to the page."""
    old = house.browser()
    assert old.post("/auth/login", data=ADA, headers=FORM).status_code == 303
    enrolled(house)
    referer = {"referer": "http://testserver/auth/account"}
    sent = old.post("/auth/factors/remove", data=csrf(old) | {"method": "totp"}, headers=FORM | referer)
    way = sent.headers["location"]
    assert sent.status_code == 303 and way.startswith("/auth/confirm?") and "factors=2" in way
    page = old.get(way).text
    assert "This page asks for your second factor." in page and 'type="password"' not in page
    sent = old.post(
        "/auth/reauthenticate",
        data=csrf(old, way) | {"method": "totp", "response": "000000", "factors": "2", "next": "/auth/account"},
        headers=FORM,
    )
    assert sent.status_code == 401 and "This code is not right" in sent.text and 'name="response"' in sent.text
    sent = old.post(
        "/auth/reauthenticate",
        data=csrf(old, way) | {"method": "totp", "response": house.code(), "factors": "2", "next": "/auth/account"},
        headers=FORM,
    )
    assert (sent.status_code, sent.headers["location"]) == (303, "/auth/account")
    gone = old.post("/auth/factors/remove", data=csrf(old) | {"method": "totp"}, headers=FORM)
    assert gone.headers["location"] == "/auth/account?done=factor_removed"
    assert PASSWORD not in page


def test_a_factor_that_is_demanded_is_not_offered_for_removal() -> None:
    """The last second factor, where each account needs one: the page says why it stays, and has no button."""
    house = House(Policy(second_factor="required", second_factor_grace=3600))
    with house.browser() as client:
        assert client.post("/auth/register", data=ADA, headers=FORM).status_code == 303
        page = enrolled(house).get("/auth/account").text
        assert 'value="totp"' not in page and "so this one cannot be removed" in page


def test_a_page_that_asks_for_a_factor_gets_its_visitor_back(house: House) -> None:
    """Who has no second factor is led to set one up, and from the recovery codes back to the page that asked. A way to
    another host is not followed.
    """
    client = house.browser()
    assert client.post("/auth/login", data=ADA, headers=FORM).status_code == 303
    for wanted, leads in (("/payout", "/payout"), ("https://evil.example/", "/")):
        page = client.get("/auth/confirm", params={"factors": "2", "next": wanted}).text
        assert 'action="/auth/factors/totp/enrol"' in page
        token = csrf(client)
        page = client.post("/auth/factors/totp/enrol", data=token | {"next": wanted}, headers=FORM).text
        secret = re.findall(r"<code>([A-Z2-7 ]+)</code>", page)[0].replace(" ", "")
        sent = {"enrolment": re.findall(r'name="enrolment" value="([^"]+)"', page)[0], "method": "totp", "next": wanted}
        code = pyotp.TOTP(secret).at(int(house.clock()))
        done = client.post("/auth/factors/totp/confirm", data=token | sent | {"response": code}, headers=FORM)
        assert f'href="{leads}"' in done.text
        house.clock.forward(60)
        gone = client.post("/auth/factors/remove", data=csrf(client) | {"method": "totp"}, headers=FORM)
        assert gone.status_code == 303
