"""The page of one's own sign-ins, and the buttons on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import pytest
from anyio.from_thread import BlockingPortal
from starlette.testclient import TestClient
from tests.standins import Clock
from tests.web.test_form_pages import ADA, FORM, PAGE
from tests.web.test_pages import Elements

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.model.http_client import Client
from dutchdoor.model.principal import Verified

SCRIPT = {"sec-fetch-mode": "cors"}


class Browsers:
    """Browsers of one server."""

    portal: BlockingPortal

    def __init__(self) -> None:
        self.clock = Clock()
        self.auth = Auth("memory:", hasher=PasswordHasher(CHEAPEST), clock=self.clock)
        self.app = self.auth.asgi()

    def one(self, agent: str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0") -> TestClient:
        headers = {**PAGE, "user-agent": agent}
        client = TestClient(self.app, headers=headers, follow_redirects=False)
        assert client.post("/auth/login", data=ADA, headers=FORM).status_code == 303
        return client

    def start(self, subject: str) -> None:
        """Start a session without hashing a password."""
        verified = Verified(subject=subject, epoch=0, amr=("pwd",), at=self.auth.authority.clock())
        self.portal.call(partial(self.auth.authority.start, verified, mode="session", client=Client()))


@pytest.fixture
def browsers() -> Iterator[Browsers]:
    found = Browsers()
    with TestClient(found.app, headers=PAGE, follow_redirects=False) as client:
        assert client.post("/auth/register", data=ADA, headers=FORM).status_code == 303
        client.post("/auth/logout", data=buttons(client)[0], headers=FORM)
        assert client.portal is not None
        found.portal = client.portal
        yield found


def buttons(client: TestClient) -> list[dict[str, str]]:
    """The fields of each form of the page."""
    page = client.get("/auth/devices")
    assert page.status_code == 200, page.text
    return [
        dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))
        for form in re.findall(r"(?s)<form.*?</form>", page.text)
    ]


def is_in(client: TestClient) -> bool:
    return client.get("/auth/me", headers={"sec-fetch-mode": "cors"}).status_code == 200


def test_a_button_ends_another_session_and_no_other(browsers: Browsers) -> None:
    """The page lists each sign-in with this one marked, and its buttons end the one beside them, or all others."""
    here, phone, tablet = browsers.one(), browsers.one(), browsers.one()
    page = here.get("/auth/devices").text
    assert page.count('name="csrf_token"') == 6 and page.count(">this one<") == 1 and "Firefox" in page
    theirs = phone.get("/auth/sessions", headers={"sec-fetch-mode": "cors"}).json()["sessions"]
    (of_phone,) = [each["id"] for each in theirs if each["current"]]
    (button,) = [fields for fields in buttons(here) if fields.get("session") == of_phone]
    done = here.post("/auth/devices", data=button, headers=FORM)
    assert done.headers["location"] == "/auth/devices?done=session_ended"
    assert "Ended. This holds everywhere." in here.get(done.headers["location"]).text
    assert [is_in(each) for each in (here, phone, tablet)] == [True, False, True]
    here.post("/auth/devices", data=buttons(here)[-2], headers=FORM)
    assert [is_in(each) for each in (here, phone, tablet)] == [True, False, False]


def test_the_button_beside_this_one_signs_out(browsers: Browsers) -> None:
    """Signing out leads to the sign-in page without a cookie; a second press of the button does the same."""
    here = browsers.one()
    button = buttons(here)[0]
    assert "session" not in button
    for _ in range(2):
        assert here.post("/auth/logout", data=button, headers=FORM).headers["location"] == "/auth/login"
        assert not is_in(here) and "dd_session" not in here.cookies
    assert here.get("/auth/devices").headers["location"] == "/auth/login?next=%2Fauth%2Fdevices"


def test_a_button_on_a_page_of_the_application_leads_where_it_says(browsers: Browsers) -> None:
    """Signing out goes on to `next`, also where no one is signed in any more, and to no other host (open redirect)."""
    for to, led in (("/goodbye?page=2", "/goodbye?page=2"), ("//evil.example", "/"), ("https://evil.example/", "/")):
        here = browsers.one()
        button = {**buttons(here)[0], "next": to}
        for _ in range(2):
            assert here.post("/auth/logout", data=button, headers=FORM).headers["location"] == led
            assert not is_in(here)


def test_a_button_asks_for_a_proof_first(browsers: Browsers) -> None:
    """Long after the sign-in, the buttons lead to the page to prove again who one is, and back; signing out oneself
    asks for nothing.
    """
    here, phone = browsers.one(), browsers.one()
    browsers.clock.forward(7200)
    for button in (each for each in buttons(here) if "session" in each):
        led = here.post("/auth/devices", data=button, headers={**FORM, "referer": "http://testserver/auth/devices"})
        assert (led.status_code, led.headers["location"]) == (303, "/auth/confirm?next=%2Fauth%2Fdevices")
    assert is_in(phone)
    proof = {"csrf_token": buttons(here)[0]["csrf_token"], "password": ADA["password"], "next": "/auth/devices"}
    back = here.post("/auth/reauthenticate", data=proof, headers=FORM)
    assert (back.status_code, back.headers["location"]) == (303, "/auth/devices")
    (one, *_) = (each for each in buttons(here) if "session" in each)
    assert here.post("/auth/devices", data=one, headers=FORM).headers["location"] == "/auth/devices?done=session_ended"
    assert not is_in(phone)
    browsers.clock.forward(7200)
    mine = here.get("/auth/me", headers=SCRIPT).json()["session"]["id"]
    token = buttons(here)[0]["csrf_token"]
    assert here.delete(f"/auth/sessions/{mine}", headers={**SCRIPT, "x-csrf-token": token}).status_code == 200
    assert not is_in(here)


def test_a_button_without_its_token_does_nothing(browsers: Browsers) -> None:
    """Cross-site request forgery: each button carries the token of its session. Another's, or none, is refused."""
    here, other = browsers.one(), browsers.one()
    for wrong in ({}, {"csrf_token": buttons(other)[0]["csrf_token"]}):
        for path, fields in (("/auth/devices", {"session": "others"}), ("/auth/logout", {"now": "1"})):
            refused = here.post(path, data={**fields, **wrong}, headers=FORM)
            assert refused.status_code == 403 and "This form has expired." in refused.text
    assert is_in(here) and is_in(other)


def test_a_session_of_another_account_is_not_there(browsers: Browsers) -> None:
    """The id of a session of someone else ends nothing, and is answered as one that does not exist."""
    here = browsers.one()
    eve = TestClient(browsers.app, headers=PAGE, follow_redirects=False)
    assert eve.post("/auth/register", data={**ADA, "email": "eve@example.com"}, headers=FORM).status_code == 303
    (mine,) = here.get("/auth/sessions", headers={"sec-fetch-mode": "cors"}).json()["sessions"]
    token = buttons(eve)[0]["csrf_token"]
    for session in (mine["id"], "nothing", ""):
        refused = eve.post("/auth/devices", data={"csrf_token": token, "session": session}, headers=FORM)
        assert refused.status_code in {404, 422}
    assert is_in(here)


def test_what_a_client_calls_itself_is_text(browsers: Browsers) -> None:
    """A device and every other value is shown, not run; the page has nothing inline."""
    here = browsers.one(agent='<script>alert(1)</script>"><b>' * 3)
    page = here.get("/auth/devices").text
    assert "<script>alert" not in page
    elements = Elements(page)
    assert len(elements.all("h1")) == 1
    assert all(form["method"] == "post" for form in elements.all("form"))
    for _, attributes in elements.found:
        assert not {key for key in attributes if key == "style" or key.startswith("on")}


def test_many_sign_ins_are_shown_in_bounded_pages(browsers: Browsers) -> None:
    """Fifty sign-ins a page, this one first; each is on one page, and a page that is not there is refused or the last
    one.
    """
    here = browsers.one()
    mine = here.get("/auth/me", headers={"sec-fetch-mode": "cors"}).json()
    for _ in range(120):
        browsers.start(mine["user"]["id"])
    seen: list[str] = []
    for number in (1, 2, 3):
        page = here.get(f"/auth/devices?page={number}").text
        found = re.findall(r'name="session" value="([^"]+)"', page)
        seen += [each for each in found if each != "others"]
        assert (">this one<" in page) == (number == 1) and f"Page {number} of 3" in page
    assert len(seen) == len(set(seen)) == len(here.get("/auth/sessions", headers=SCRIPT).json()["sessions"]) - 1
    assert "Page 3 of 3" in here.get("/auth/devices?page=99").text
    for wrong in ("0", "x", "-1", "100", "\u0661"):
        assert here.get("/auth/devices", params={"page": wrong}).status_code == 422


def test_a_program_is_refused_and_not_sent_to_a_page(browsers: Browsers) -> None:
    """Without a proof a script gets the 401 of every endpoint."""
    anyone = TestClient(browsers.app, follow_redirects=False)
    assert anyone.get("/auth/devices").status_code == 401
    assert anyone.post("/auth/devices", json={"session": "others"}).status_code == 401


def test_german_pages_name_devices_in_german():
    """A German page says "Firefox unter Linux" wherever a device is named. What is stored, and what the API answers, is
    `Firefox on Linux` in each language.
    """
    auth = Auth("memory:", console=True, hasher=PasswordHasher(CHEAPEST))
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    headers = {**PAGE, "user-agent": agent, "accept-language": "de"}
    with TestClient(auth.asgi(), headers=headers, follow_redirects=False) as person:
        assert person.post("/auth/register", data=ADA, headers=FORM).status_code == 303
        subject = person.get("/auth/me", headers={"accept": "application/json"}).json()["user"]["id"]
        assert person.portal is not None
        roles = partial(auth.directory.admin.set_roles, subject, ["admin"], client=Client(), actor="cli")
        person.portal.call(roles)
        _look_at_german_pages(person, subject)


def _look_at_german_pages(person: TestClient, subject: str) -> None:
    for path in ("/auth/devices", "/auth/activity", f"/admin/accounts/one?id={subject}", "/admin/events"):
        page = person.get(path)
        assert page.status_code == 200, (path, page.text)
        assert "<bdi>Firefox unter Linux</bdi>" in page.text, path
        assert " on Linux" not in page.text or path == "/admin/events", path  # its details are the stored fields
    sessions = person.get("/auth/sessions", headers={"accept": "application/json"}).json()["sessions"]
    assert {each["device"] for each in sessions} == {"Firefox on Linux"}
