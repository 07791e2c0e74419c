"""The life of an account on its page: another address, one's data, the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from starlette.testclient import TestClient
from tests.standins import Clock, Mailbox
from tests.web.test_account_page import token
from tests.web.test_form_pages import ADA, FORM, browser

NEW = "ada@new.example"


class Site(NamedTuple):
    client: TestClient
    mailbox: Mailbox
    clock: Clock

    def send(self, path: str, **fields: str) -> tuple[str, str]:
        """Send a form; return where it leads, and the page there."""
        sent = self.client.post(path, data=fields, headers=FORM)
        assert sent.status_code == 303, sent.text
        to = str(sent.headers["location"])
        return to, self.client.get(to).text


@pytest.fixture
def site() -> Iterator[Site]:
    mailbox, clock = Mailbox(), Clock(time.time())
    with browser(mail=mailbox, clock=clock) as client:
        client.post("/auth/register", data=ADA, headers=FORM)
        yield Site(client, mailbox, clock)


def test_the_account_page_asks_for_another_address(site: Site) -> None:
    """W60: one's own address is refused at its field; another one is asked for, and the page says what comes next."""
    fields = {"csrf_token": token(site.client), "email": ADA["email"]}
    wrong = site.client.post("/auth/email/change", data=fields, headers=FORM)
    assert wrong.status_code == 422 and "is the address of your account already" in wrong.text
    to, page = site.send("/auth/email/change", csrf_token=token(site.client), email=NEW)
    assert to == "/auth/account?done=email_change_requested" and "We sent a mail to the new address" in page


def test_the_button_deletes_the_account(site: Site) -> None:
    """W60: it signs out, and says what happens."""
    assert "14 days" in site.client.get("/auth/account").text
    to, page = site.send("/auth/account/delete", csrf_token=token(site.client))
    assert to == "/auth/account/deleted" and "Your account is deleted." in page and "14 days" in page
    assert site.client.get("/auth/account").status_code == 303
    assert site.client.post("/auth/login", data=ADA, headers=FORM).status_code == 401


def test_sensitive_acts_ask_for_a_proof_first(site: Site) -> None:
    """W60: after a while, each of them leads to the page that asks who one is, and back."""
    csrf = token(site.client)
    assert 'href="/auth/account/export" download' in site.client.get("/auth/account").text
    assert site.client.get("/auth/account/export").headers["content-disposition"].startswith("attachment")
    site.clock.forward(3600)
    page = site.client.get("/auth/account").text
    assert 'href="/auth/account/export"' not in page and "/auth/confirm?next=/auth/account" in page
    for path, fields in (("/auth/email/change", {"email": NEW}), ("/auth/account/delete", {})):
        sent = site.client.post(
            path, data={"csrf_token": csrf, **fields}, headers={**FORM, "referer": "http://testserver/auth/account"}
        )
        assert sent.headers["location"].startswith("/auth/confirm?next=%2Fauth%2Faccount"), sent.text
    assert site.mailbox.mails == []


def test_a_form_without_its_token_changes_nothing(site: Site) -> None:
    """W60: no page of another site changes an address, or deletes an account."""
    for path in ("/auth/email/change", "/auth/account/delete"):
        assert site.client.post(path, data={"email": NEW}, headers=FORM).status_code == 403
    assert site.client.get("/auth/account").status_code == 200
