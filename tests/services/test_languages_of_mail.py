"""The language of a mail: that of who asks for it, and for a notice that of the mailbox's owner."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient
from tests.standins import Mailbox

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.model.policy import Policy

ANN = {"email": "ann@example.com", "password": "a door in two halves"}
HERE = "https://login.example.com"
GERMAN, ENGLISH = "de-AT,de;q=0.9,en;q=0.8", "en"


class Site:
    """A server whose mail is read, the browser of the owner of an account, and browsers of others."""

    def __init__(self) -> None:
        self.mailbox = Mailbox()
        policy = Policy(require_verified_email=True)
        self.auth = Auth("memory:", public_url=HERE, policy=policy, mail=self.mailbox, hasher=PasswordHasher(CHEAPEST))
        self.app = self.auth.asgi()
        self.owner = TestClient(self.app, HERE, headers={"origin": HERE, "user-agent": "Firefox/128.0"})

    def stranger(self, address: str = "203.0.113.9") -> TestClient:
        headers = {"origin": HERE, "user-agent": "Chrome/128.0"}
        client = TestClient(self.app, HERE, headers=headers, client=(address, 50000))
        client.portal = self.owner.portal  # the event loop in which mail is sent
        return client

    def sent(self, by: TestClient, path: str, body: dict[str, str], languages: str) -> str:
        """Post to the API and return the language of the latest mail after it."""
        before = len(self.mailbox.mails)
        assert by.post(path, json=body, headers={"accept-language": languages}).status_code < 300
        assert self.owner.portal is not None
        self.owner.portal.call(self.auth.directory.post.close)
        if len(self.mailbox.mails) == before:
            return ""
        return self.mailbox.mails[-1].html.partition('<html lang="')[2][:2]


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    with made.owner:
        yield made


def test_a_mail_that_is_asked_for_is_in_the_language_of_who_asks(site: Site) -> None:
    """A registration, a second one, and a reset: each in the language of the browser that asked."""
    assert site.sent(site.owner, "/auth/register", ANN, GERMAN) == "de"
    verify = {"token": site.mailbox.token()}
    assert site.sent(site.owner, "/auth/email/verify", verify, GERMAN) == ""
    assert site.sent(site.stranger(), "/auth/register", ANN, ENGLISH) == "en"
    assert site.sent(site.owner, "/auth/password/forgot", {"email": ANN["email"]}, GERMAN) == "de"
    assert site.sent(site.stranger(), "/auth/password/forgot", {"email": "bea@example.com"}, ENGLISH) == ""


def test_a_notice_is_never_in_the_language_of_a_thief(site: Site) -> None:
    """A thief with the password signs in, asks for a reset, and registers the address again, all in English. The owner,
    who reads German, is warned in German; only a link out of the mailbox changes that.
    """
    site.sent(site.owner, "/auth/register", ANN, GERMAN)
    site.sent(site.owner, "/auth/email/verify", {"token": site.mailbox.token()}, GERMAN)
    site.sent(site.owner, "/auth/login", {**ANN, "mode": "session"}, GERMAN)
    assert site.sent(site.stranger(), "/auth/login", {**ANN, "mode": "session"}, ENGLISH) == "de"
    assert "Neue Anmeldung" in site.mailbox.mails[-1].subject
    assert site.sent(site.stranger(), "/auth/password/forgot", {"email": ANN["email"]}, ENGLISH) == "en"
    assert site.sent(site.stranger("198.51.100.7"), "/auth/login", {**ANN, "mode": "session"}, ENGLISH) == "de"
    link = next(mail.text for mail in reversed(site.mailbox.mails) if "#" in mail.text)
    chosen = {"token": link.partition("#")[2].split()[0], "new_password": "another door in halves"}
    assert site.sent(site.owner, "/auth/password/reset", chosen, ENGLISH) == "en"
