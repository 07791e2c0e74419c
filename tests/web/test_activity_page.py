"""The page of what happened to one's own account, and the same as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from starlette.testclient import TestClient
from tests.web.test_console import ROOT, Console
from tests.web.test_form_pages import ADA, FORM, PASSWORD
from tests.web.test_pages import Elements

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.model.audit_events import EventName, event
from dutchdoor.model.http_client import Client, Device
from dutchdoor.stores.base import Log
from dutchdoor.testing.clock import Clock
from dutchdoor.web.own_events import REASONS
from dutchdoor.web.pages.activity import SENTENCES, sentence_of

JSON = {"accept": "application/json", "sec-fetch-mode": "cors"}
OF_THE_SERVER = frozenset({
    "accounts_exported", "client_added", "client_removed", "client_secret_changed", "invitation_sent",
    "invitation_withdrawn", "key_created", "key_exported", "key_revoked", "log_begun", "verifier_added",
    "verifier_key_changed", "verifier_removed", "webhook_added", "webhook_disabled", "webhook_enabled",
    "webhook_given_up", "webhook_removed", "webhook_replayed", "webhook_secret_changed",
})  # fmt: skip
"""Events that no account's own log has."""
ELSEWHERE = Client(address="203.0.113.9", country="PT", devices=Device(name="Firefox on Linux"))


@pytest.fixture
def site() -> Iterator[Console]:
    clock = Clock()
    found = Console(Auth("memory:", hasher=PasswordHasher(CHEAPEST), clock=clock), clock)
    with found.open:
        for who in (ADA, ROOT):
            made = found.auth.directory.admin.create
            found.call(made, who["email"], password=who["password"], client=Client(), actor="cli")
        yield found


def subject_of(client: TestClient) -> str:
    return str(client.get("/auth/me", headers=JSON).json()["user"]["id"])


def write(site: Console, name: EventName, **named: Any) -> None:
    """Write an event to the log."""
    site.clock.advance(1)
    site.call(site.auth.store.commit, Log(event(name, now=site.clock(), **{"client": ELSEWHERE, **named})))


def lines(client: TestClient, path: str = "/auth/activity") -> list[str]:
    page = client.get(path)
    assert page.status_code == 200, page.text
    return [
        re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", line)).strip()
        for line in re.findall(r"(?s)<li[^>]*>\s*<p><b>.*?</li>", page.text)
    ]


def test_every_event_has_a_sentence() -> None:
    """Each event is one of the server, or has a sentence for the owner of the account; so has each reason."""
    assert set(SENTENCES) | OF_THE_SERVER == set(get_args(EventName))
    assert not set(SENTENCES) & OF_THE_SERVER
    for name in SENTENCES:
        for detail in ("", *REASONS):
            for outcome in ("ok", "refused"):
                written = event(name, now=0.0, client=Client(), subject="ada", outcome=outcome, detail=detail)  # type: ignore[arg-type]
                sentence = sentence_of(written)
                assert sentence is not None and sentence.text


def test_the_page_says_what_happened(site: Console) -> None:
    """Sign-ins with device and country, refused attempts too; what is worth a look is marked; the newest is first."""
    ada = site.one(ADA)
    mine = subject_of(ada)
    write(site, "session_started", subject=mine, actor=mine)
    write(site, "login", subject=mine, outcome="refused", detail="wrong password")
    write(site, "name_changed", subject=mine, actor=mine)
    newest, refused, signed_in, *_ = lines(ada)
    assert newest.startswith("The name was changed Firefox on Linux , Portugal · 203.0.113.9 · ")
    assert refused.startswith("A wrong password was tried from Firefox on Linux , Portugal worth a look 203.0.113.9 ·")
    assert signed_in.startswith("Signed in from Firefox on Linux , Portugal 203.0.113.9 ·")
    assert ada.get("/auth/activity").text.count('class="look"') == 1


def test_nothing_of_other_people_is_shown(site: Console) -> None:
    """What an administrator did is said without who that was and from where; so is what another account did that signed
    in with the same browser. Events of other accounts are not there.
    """
    ada = site.one(ADA)
    mine, root = subject_of(ada), subject_of(site.one(ROOT))
    for name, detail in (
        ("roles_changed", "admin secret-role"), ("session_ended", "ended_by_admin"), ("session_ended", "replaced"),
        ("password_reset_requested", ""), ("session_ended", "a word of the application's"), ("logout_all", ""),
    ):  # fmt: skip
        write(site, name, subject=mine, actor=root, detail=detail)  # type: ignore[arg-type]
    write(site, "login", subject=root, outcome="refused", detail="wrong password")
    shown = [re.sub(r" [A-Z][a-z]+ \d.*", "", line.replace(" worth a look", "")) for line in lines(ada)]
    assert shown[:6] == [
        "An administrator signed the account out everywhere",
        "A sign-in ended",
        "An administrator had a link to choose a new password mailed",
        "A sign-in ended: a new one in the same browser took its place",
        "An administrator ended a sign-in",
        "An administrator changed the roles of the account",
    ]
    page, listed = ada.get("/auth/activity").text, ada.get("/auth/events", headers=JSON)
    for secret in (root, ROOT["email"], "203.0.113.9", "Portugal", "secret-role", "word of the application"):
        assert secret not in page and secret not in listed.text, secret
    by = [each["by"] for each in listed.json()["events"]]
    assert by[:6] == [*["administrator"] * 3, "another", *["administrator"] * 2]


def test_pages_are_bounded_and_lose_nothing(site: Console) -> None:
    """Fifty events a page, by a cursor: each event once. A made-up cursor is refused."""
    ada = site.one(ADA)
    mine = subject_of(ada)
    for number in range(120):
        write(site, "session_started", subject=mine, actor=mine, client=Client(address=f"198.51.100.{number}"))
    seen: list[str] = []
    path: str | None = "/auth/activity"
    sizes = []
    while path:
        found = lines(ada, path)
        sizes.append(len(found))
        seen += [address[0] for line in found if (address := re.findall(r"198\.51\.100\.\d+", line))]
        older = re.search(r'href="(/auth/activity\?before=[^"]+)"', ada.get(path).text)
        path = older[1] if older else None
    assert seen == [f"198.51.100.{number}" for number in reversed(range(120))] and sizes[:2] == [50, 50]
    answer = ada.get("/auth/events", headers=JSON).json()
    assert len(answer["events"]) == 50
    assert len(ada.get(f"/auth/events?before={answer['next']}", headers=JSON).json()["events"]) == 50
    for path in ("/auth/activity", "/auth/events"):
        assert ada.get(path, params={"before": "x' OR 1=1"}).status_code == 422
    assert site.anyone().get("/auth/events", headers=JSON).status_code == 401
    assert site.anyone().get("/auth/activity").headers["location"].startswith("/auth/login")


def test_what_a_client_calls_itself_is_harmless_in_the_log(site: Console) -> None:
    """Script, right-to-left overrides and ten thousand letters as a device are shown as text."""
    ada = site.one(ADA)
    mine = subject_of(ada)
    named = '<script>alert(1)</script>\u202e"' + "a" * 10_000
    write(site, "session_started", subject=mine, actor=mine, client=Client(devices=Device(name=named)))
    page = ada.get("/auth/activity").text
    assert "<script>alert" not in page and "\u202e" not in page and "<bdi>&lt;script&gt;" in page
    elements = Elements(page)
    assert len(elements.all("h1")) == 1
    assert all(form["method"] == "post" for form in elements.all("form"))


def test_a_person_who_was_not_it_finds_the_way(site: Console) -> None:
    """The page leads to the buttons that end all sign-ins, and to the new password."""
    ada = site.one(ADA)
    page = ada.get("/auth/activity").text
    assert 'href="/auth/devices#all"' in page and 'href="/auth/account#password"' in page
    devices = ada.get("/auth/devices").text
    assert 'id="all"' in devices and 'id="password"' in ada.get("/auth/account").text
    token = re.search(r'name="csrf_token" value="([^"]+)"', devices)
    assert token
    out = ada.post("/auth/logout/all", data={"csrf_token": token[1]}, headers=FORM)
    assert (out.status_code, out.headers["location"]) == (303, "/auth/login")
    assert "dd_session" not in ada.cookies and PASSWORD not in out.text
