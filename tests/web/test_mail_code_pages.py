"""Signing in by a mailed code on the pages, without a script."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest
from msgspec.structs import replace
from starlette.testclient import TestClient
from tests.standins import Mailbox
from tests.web.test_factor_pages import House as FactorHouse
from tests.web.test_form_pages import ADA, FORM

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.model.accounts import Credential
from dutchdoor.model.policy import Policy
from dutchdoor.model.rate_limits import Limits
from dutchdoor.stores.base import Remove, Swap


class House(FactorHouse):
    """A server, its mailbox and browsers that can only send forms."""

    def __init__(self, *, by_mail: bool) -> None:
        super().__init__(Policy())
        self.mailbox = Mailbox()
        self.auth = Auth(
            "memory:",
            policy=Policy(sign_in_by_mail=by_mail),
            limits=Limits(),
            hasher=PasswordHasher(CHEAPEST),
            mail=self.mailbox,
            clock=self.clock,
        )
        self.app = self.auth.asgi()

    def posted(self, client: TestClient) -> str:
        """The text of the latest mail, once all are there."""
        assert client.portal is not None

        async def posted() -> None:
            while self.auth.directory.post._posting:
                await asyncio.wait(set(self.auth.directory.post._posting))

        client.portal.call(posted)
        return self.mailbox.mails[-1].text if self.mailbox.mails else ""

    def mailed(self, client: TestClient) -> tuple[str, str]:
        """The code in the latest mail, and the path of its link."""
        text = self.posted(client)
        return re.findall(r"^ +([0-9]{6})$", text, re.MULTILINE)[0], re.findall(r"https?://[^/]+(/\S+)", text)[0]


@pytest.fixture
def house() -> House:
    return House(by_mail=True)


@pytest.fixture
def client(house: House) -> Iterator[TestClient]:
    with house.browser() as client:
        assert client.post("/auth/register", data=ADA, headers=FORM).status_code == 303
        house.posted(client)
        client.cookies.clear()
        yield client


def asked(client: TestClient) -> str:
    sent = client.post("/auth/code", data={"email": ADA["email"], "next": "/orders"}, headers=FORM)
    assert (sent.status_code, sent.headers["location"]) == (303, "/auth/login/code?next=%2Forders")
    return str(sent.headers["location"])


def test_a_person_signs_in_by_a_code(house: House, client: TestClient) -> None:
    """From the sign-in page to the code and back to where one was: a wrong code may be typed again, the digits are in
    the link of the mail, and opening that changes nothing.
    """
    assert 'href="/auth/code?next=/orders"' in client.get("/auth/login?next=/orders").text
    assert "Email me a code" in client.get("/auth/code?next=/orders").text
    page = client.get(asked(client)).text
    assert 'autocomplete="one-time-code"' in page and 'inputmode="numeric"' in page and "data-fragment" in page
    code, link = house.mailed(client)
    assert link == f"/auth/login/code#{code}"
    with house.browser() as scanner:
        assert scanner.get("/auth/login/code").status_code == 200
    sent = {"response": "123456" if code != "123456" else "654321", "next": "/orders"}
    wrong = client.post("/auth/login/code", data=sent, headers=FORM)
    assert wrong.status_code == 401 and "This code is not right" in wrong.text and 'name="response"' in wrong.text
    right = client.post("/auth/login/code", data=sent | {"response": code}, headers=FORM)
    assert (right.status_code, right.headers["location"]) == (303, "/orders")
    assert client.get("/auth/account").status_code == 200 and "dd_step" not in client.cookies


def test_the_link_in_another_browser(house: House, client: TestClient) -> None:
    """The page of the link signs no other browser in: it says so, and offers to ask for a code there."""
    asked(client)
    code, _ = house.mailed(client)
    with house.browser() as other:
        refused = other.post("/auth/login/code", data={"response": code, "next": "/orders"}, headers=FORM)
        assert refused.status_code == 401 and "This browser did not ask for a code." in refused.text
        assert 'href="/auth/code?next=/orders"' in refused.text and 'name="response"' not in refused.text
    foreign = {**FORM, "origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    assert client.post("/auth/login/code", data={"response": code}, headers=foreign).status_code == 403


def test_a_code_that_is_void(house: House, client: TestClient) -> None:
    """After five wrong codes, and after ten minutes, the page offers another code and no field."""
    asked(client)
    code, _ = house.mailed(client)
    for _ in range(5):
        client.post("/auth/login/code", data={"response": "12345x"}, headers=FORM)
    void = client.post("/auth/login/code", data={"response": code}, headers=FORM)
    assert "there were too many wrong ones" in void.text and 'name="response"' not in void.text
    asked(client)
    code, _ = house.mailed(client)
    house.clock.forward(600)
    assert "it is too old" in client.post("/auth/login/code", data={"response": code}, headers=FORM).text


def test_switched_off_the_pages_offer_nothing() -> None:
    """Without `sign_in_by_mail`, the sign-in page has no link to it, and the page to ask for a code has no form."""
    with House(by_mail=False).browser() as client:
        assert "/auth/code" not in client.get("/auth/login").text
        page = client.get("/auth/code")
        assert "switched off" in page.text and "<form" not in page.text


def test_an_owner_without_a_password_confirms_by_mail() -> None:
    """The page that asks for a fresh proof offers a code by mail to an owner without a password, and no password."""
    house = House(by_mail=False)
    with house.browser() as client:
        assert client.post("/auth/register", data=ADA, headers=FORM).status_code == 303
        assert client.post("/auth/login", data=ADA, headers=FORM).status_code == 303
        assert "/auth/reauthenticate/code" not in client.get("/auth/confirm").text
        assert client.portal is not None

        async def without_password() -> None:
            store = house.auth.store
            account = await store.account_by_email(ADA["email"])
            assert account is not None
            held = await store.get(Credential, account.subject, "password", "")
            assert held is not None
            await store.commit(Swap(replace(account, email_verified_at=1.0)), Remove(held))
            house.auth.authority.forget_remembered()

        client.portal.call(without_password)
        page = client.get("/auth/confirm?next=/auth/devices").text
        assert 'name="password"' not in page and 'action="/auth/reauthenticate/code"' in page
        fields = {"csrf_token": re.findall(r'name="csrf_token" value="([^"]+)"', page)[0], "next": "/auth/devices"}
        sent = client.post("/auth/reauthenticate/code", data=fields, headers=FORM)
        assert sent.headers["location"] == "/auth/confirm?by=mail_code&next=%2Fauth%2Fdevices"
        page = client.get(sent.headers["location"]).text
        assert 'value="mail_code"' in page and "Email me another code" in page and 'name="password"' not in page
        code, link = house.mailed(client)
        assert link == f"/auth/confirm?by=mail_code#{code}"
        proof = fields | {"method": "mail_code", "response": "12345x"}
        wrong = client.post("/auth/reauthenticate", data=proof, headers=FORM)
        assert wrong.status_code == 401 and "This code is not right" in wrong.text
        right = client.post("/auth/reauthenticate", data=proof | {"response": code}, headers=FORM)
        assert (right.status_code, right.headers["location"]) == (303, "/auth/devices")
