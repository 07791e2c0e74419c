"""A second factor that is lost, on the pages and without a script."""

from __future__ import annotations

import re

from msgspec.structs import replace
from starlette.testclient import TestClient
from tests.web.test_factor_pages import csrf
from tests.web.test_form_pages import ADA, FORM
from tests.web.test_mail_code_pages import House

from dutchdoor.model.policy import STANDARD
from dutchdoor.stores.base import Swap


def locked_out(house: House, client: TestClient) -> TestClient:
    """An owner who is signed in and has an app, and a browser of theirs that waits for its code."""
    assert client.post("/auth/register", data=ADA, headers=FORM).status_code == 303
    assert client.post("/auth/login", data=ADA, headers=FORM).status_code == 303
    assert client.portal is not None

    async def verified() -> None:
        account = await house.auth.store.account_by_email(ADA["email"])
        assert account is not None
        await house.auth.store.commit(Swap(replace(account, email_verified_at=house.clock())))
        house.auth.authority.forget_remembered()

    client.portal.call(verified)
    page = client.post("/auth/factors/totp/enrol", data=csrf(client), headers=FORM)
    house.set_up(client, page.text, "/auth/factors/totp/confirm", **csrf(client))
    browser = house.browser()
    browser.portal = client.portal  # one event loop: that of a request alone would end with mail still under way
    assert browser.post("/auth/login", data=ADA, headers=FORM).headers["location"] == "/auth/login/step"
    return browser


def token(text: str, path: str) -> str:
    return re.findall(rf"{path}#(ddo1_[\w-]+)", text)[0]


def mails(house: House, client: TestClient) -> str:
    house.posted(client)
    return "\n".join(mail.text for mail in house.mailbox.mails)


def test_everything_is_lost_and_found() -> None:
    """From the second step to the mails and the waiting time, to a sign-in by the password alone: each page says what
    comes next.
    """
    house = House(by_mail=False)
    with house.browser() as client:
        browser = locked_out(house, client)
        assert "Lost all of these?" in browser.get("/auth/login/step").text
        page = browser.get("/auth/login/lost").text
        assert "waiting time of 3 days" in page
        sent = browser.post("/auth/login/lost", headers=FORM, data={"next": "/orders"})
        assert sent.headers["location"] == "/auth/login/lost/sent"
        assert "We sent a link" in browser.get("/auth/login/lost/sent").text
        begun = browser.post(
            "/auth/factors/lost", data={"token": token(mails(house, client), "/auth/factors/lost")}, headers=FORM
        )
        assert begun.headers["location"] == "/auth/factors/lost/done"
        assert "We sent two more mails." in browser.get("/auth/factors/lost/done").text
        link = {"token": token(mails(house, client), "/auth/factors/lost/remove")}
        for own in ("/auth/account", "/auth/devices", "/auth/activity"):
            assert "Someone says that you have lost your second factor." in client.get(own).text
        early = browser.post("/auth/factors/lost/remove", data=link, headers=FORM)
        assert early.status_code == 403 and "not over yet" in early.text and link["token"] in early.text
        house.clock.forward(STANDARD.factor_recovery_after)
        done = browser.post("/auth/factors/lost/remove", data=link, headers=FORM)
        assert done.headers["location"].startswith("/auth/factors/lost/remove/done")
        assert "The second factor is removed." in browser.get("/auth/factors/lost/remove/done").text
        assert client.get("/auth/account").status_code == 303
        assert browser.post("/auth/login", data=ADA, headers=FORM).headers["location"] != "/auth/login/step"
        assert browser.get("/auth/account").status_code == 200


def test_the_owner_objects_on_a_device() -> None:
    """Every page of one's own has a button that keeps the factor, and the link of each mailbox does the same."""
    house = House(by_mail=False)
    with house.browser() as client:
        browser = locked_out(house, client)
        assert browser.post("/auth/login/lost", headers=FORM, data={"next": ""}).status_code == 303
        link = {"token": token(mails(house, client), "/auth/factors/lost")}
        assert browser.post("/auth/factors/lost", data=link, headers=FORM).status_code == 303
        keep = {"token": token(mails(house, client), "/auth/factors/lost/keep")}
        kept = client.post("/auth/factors/keep", data=csrf(client, "/auth/devices"), headers=FORM)
        assert kept.headers["location"] == "/auth/account?done=factor_removal_cancelled"
        page = client.get(kept.headers["location"]).text
        assert "The second factor stays." in page and "lost your second factor" not in page
        again = browser.post("/auth/factors/lost/keep", data=keep, headers=FORM)
        assert again.status_code == 401 and "It may be cancelled already." in again.text
