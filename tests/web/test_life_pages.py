"""The life of an account on its pages: another address, one's data, the end, and an invitation."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from starlette.testclient import TestClient
from tests.standins import Clock, Mailbox
from tests.web.test_account_page import token
from tests.web.test_form_pages import ADA, FORM, browser

from dutchdoor.model.http_client import Client

NEW, ANOTHER = "ada@new.example", "another door in three parts"


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


def test_an_address_that_is_not_confirmed_says_how_to_confirm_it(site: Site) -> None:
    """The account page links to the way that its owner has, a link to a new password; and afterwards no more."""
    hint = '<a href="/auth/forgot">Confirm it'
    assert hint in site.client.get("/auth/account").text
    site.client.post("/auth/password/forgot", data={"email": ADA["email"]}, headers=FORM)
    _, link = link_to(site, ADA["email"])
    fields = {"token": link, "new_password": ANOTHER}
    site.client.post("/auth/password/reset", data=fields, headers=FORM)
    site.client.post("/auth/login", data={**ADA, "password": ANOTHER}, headers=FORM)
    page = site.client.get("/auth/account").text
    assert ">confirmed<" in page and hint not in page


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


# --- from the links of mails ------------------------------------------------------------------------------------------


def link_to(site: Site, address: str) -> tuple[str, str]:
    """The path and the whole of the link in the latest mail to an address."""
    for _ in range(1000):
        found = [mail for mail in site.mailbox.mails if mail.to == address]
        if found:
            link = re.search(r"http://\S+?(/auth/\S+)#\S+", found[-1].text)
            assert link
            return link[1], link[0]
        time.sleep(0.01)  # the letter is written in another thread
    raise AssertionError(f"no mail to {address}")


def test_the_address_is_changed_and_the_change_undone(site: Site) -> None:
    """W61: the links of two mails confirm and undo; opening them uses nothing up, and a used one says so."""
    site.client.post("/auth/password/forgot", data={"email": ADA["email"]}, headers=FORM)
    _, link = link_to(site, ADA["email"])
    site.client.post("/auth/password/reset", data={"token": link, "new_password": ADA["password"]}, headers=FORM)
    site.client.post("/auth/login", data=ADA, headers=FORM)
    site.mailbox.mails.clear()
    site.send("/auth/email/change", csrf_token=token(site.client), email=NEW)
    path, link = link_to(site, NEW)
    for _ in range(2):
        assert site.client.get(path).status_code == 200
    to, _ = site.send(path, token=link)
    assert to == "/auth/email/confirm/done#ada@new.example"
    assert NEW in site.client.get("/auth/account").text
    used = site.client.post(path, data={"token": link}, headers=FORM)
    assert used.status_code == 401 and "does not work any more" in used.text
    path, link = link_to(site, ADA["email"])
    weak = site.client.post(path, data={"token": link, "new_password": "short"}, headers=FORM)
    assert weak.status_code == 422 and link.partition("#")[2] in weak.text
    to, _ = site.send(path, token=link, new_password=ANOTHER)
    assert to == "/auth/email/restore/done#ada@example.com"
    assert site.client.get("/auth/account").status_code == 303
    assert site.client.post("/auth/login", data={**ADA, "password": ANOTHER}, headers=FORM).status_code == 303


def test_the_link_of_the_mail_keeps_the_account(site: Site) -> None:
    """W61: by one click, and the owner signs in again."""
    site.send("/auth/account/delete", csrf_token=token(site.client))
    path, link = link_to(site, ADA["email"])
    to, _ = site.send(path, token=link)
    assert to == "/auth/account/keep/done#ada@example.com"
    assert site.client.post("/auth/login", data=ADA, headers=FORM).status_code == 303


def test_an_invited_person_joins(site: Site) -> None:
    """W61: the page says who invites before it asks for a password; a name that is markup is shown as text."""
    portal = site.client.portal
    assert portal is not None
    directory = site.client.app._api.directory  # type: ignore[attr-defined]

    async def invite() -> None:
        account, client = await directory.store.account_by_email(ADA["email"]), Client()
        await directory.profile.change_name(account.subject, "<b>Ada", client=client)
        await directory.admin.set_roles(account.subject, ["admin"], client=client, actor="cli")
        await directory.invitations.invite("bob@example.com", client=client, actor=account.subject, name="Bob")

    portal.call(invite)
    site.client.cookies.clear()
    path, link = link_to(site, "bob@example.com")
    opened = site.client.get(path)
    assert opened.status_code == 200 and "Ada" not in opened.text
    shown = site.client.post(f"{path}/look", data={"token": link}, headers=FORM)
    assert shown.status_code == 200
    assert "&lt;b&gt;Ada" in shown.text and "<b>Ada" not in shown.text and 'value="Bob"' in shown.text
    fields = {"token": link.partition("#")[2], "email": "bob@example.com", "inviter": "Ada", "name": "Bob"}
    weak = site.client.post(path, data={**fields, "password": "short"}, headers=FORM)
    assert weak.status_code == 422 and "bob@example.com" in weak.text and 'aria-invalid="true"' in weak.text
    to, page = site.send(path, **fields, password=ANOTHER)
    assert to == "/auth/join/done#bob@example.com" and "Your account is ready." in page
    gone = site.client.post(path, data={**fields, "password": ANOTHER}, headers=FORM)
    assert gone.status_code == 401 and "does not work any more" in gone.text
    login = {"email": "bob@example.com", "password": ANOTHER}
    assert site.client.post("/auth/login", data=login, headers=FORM).status_code == 303
