"""The page of one's own account: its sections, and what their forms do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient
from tests.web.test_form_pages import ADA, FORM, PASSWORD, browser
from tests.web.test_pages import Elements

NEW = "another door in three parts"


@pytest.fixture
def client() -> Iterator[TestClient]:
    with browser() as client:
        assert client.post("/auth/register", data={**ADA, "name": "Ada"}, headers=FORM).status_code == 303
        yield client


def token(client: TestClient, path: str = "/auth/account") -> str:
    """The CSRF token of a page."""
    found = re.search(r'name="csrf_token" value="([^"]+)"', client.get(path).text)
    assert found
    return found[1]


def test_the_name_is_changed(client: TestClient) -> None:
    """The form changes the name, and the page says so and shows it; in JSON, the same endpoint returns the account."""
    sent = client.post("/auth/account/name", data={"csrf_token": token(client), "name": " Ada L. "}, headers=FORM)
    assert (sent.status_code, sent.headers["location"]) == (303, "/auth/account?done=name_changed")
    page = client.get(sent.headers["location"]).text
    assert "Your name is changed." in page and 'value="Ada L."' in page
    csrf = {"x-csrf-token": token(client), "origin": "http://testserver", "sec-fetch-mode": "cors"}
    answer = client.post("/auth/account/name", json={"name": ""}, headers=csrf)
    assert answer.status_code == 200 and answer.json()["user"]["name"] == ""


def test_a_refused_name_is_shown_in_its_section(client: TestClient) -> None:
    """What is wrong stands in the section, at its field, with what was typed. The name stays as it was."""
    wrong = client.post("/auth/account/name", data={"csrf_token": token(client), "name": "a\u202eb"}, headers=FORM)
    assert wrong.status_code == 422 and wrong.text.count('role="alert"') == 1
    assert re.search(r'id="name-field"[^>]*value="a\u202eb"[^>]*aria-invalid="true"', wrong.text)
    assert 'value="Ada"' in client.get("/auth/account").text


def test_the_name_is_not_changed_without_end(client: TestClient) -> None:
    """Each change writes an event that is kept for a year, so their number is limited; the page says when to go on."""
    csrf = token(client)
    for number in range(12):
        sent = client.post("/auth/account/name", data={"csrf_token": csrf, "name": f"Ada {number}"}, headers=FORM)
        if sent.status_code == 429:
            break
    assert number == 10 and "Try again in 3 minutes." in sent.text and 'value="Ada 10"' in sent.text
    assert 'value="Ada 9"' in client.get("/auth/account").text


def test_the_pages_work_below_a_base_path() -> None:
    """Below a base path every link, form and way back of these pages is below it."""
    with browser(base_path="/id") as client:
        assert client.post("/id/auth/register", data=ADA, headers=FORM).status_code == 303
        for path in ("/id/auth/account", "/id/auth/devices", "/id/auth/activity", "/id/auth/confirm"):
            linked = re.findall(r'(?:href|src|action)="(/[^"]*)"', client.get(path).text)
            assert linked and all(each.startswith("/id/") for each in linked), path
        form = {**FORM, "referer": "http://testserver/id/auth/account"}
        refused = client.post("/id/auth/account/name", data={"csrf_token": "x", "name": "Ada"}, headers=form)
        assert 'href="/id/auth/account"' in refused.text
        fields = {"csrf_token": token(client, "/id/auth/account"), "name": "Ada"}
        sent = client.post("/id/auth/account/name", data=fields, headers=form)
        assert sent.headers["location"] == "/id/auth/account?done=name_changed"
        assert client.post("/id/auth/logout", data=fields, headers=form).headers["location"] == "/id/auth/login"
        sent = client.post("/id/auth/account/name", data=fields, headers=form)
        assert sent.headers["location"] == "/id/auth/login?next=%2Fid%2Fauth%2Faccount"


def test_the_password_is_changed(client: TestClient) -> None:
    """The form changes the password, ends the other sign-ins, and leads back to a page that says so."""
    fields = {"csrf_token": token(client), "current_password": PASSWORD, "new_password": NEW}
    wrong = client.post("/auth/password", data={**fields, "current_password": "wrong one"}, headers=FORM)
    assert wrong.status_code == 401 and "wrong one" not in wrong.text and NEW not in wrong.text
    short = client.post("/auth/password", data={**fields, "new_password": "short"}, headers=FORM)
    assert short.status_code == 422 and re.search(r'name="new_password"[^>]*aria-invalid="true"', short.text)
    sent = client.post("/auth/password", data=fields, headers=FORM)
    assert (sent.status_code, sent.headers["location"]) == (303, "/auth/account?done=password_changed")
    said = "Your password is changed. All other devices are signed out. This holds everywhere."
    assert said in re.sub(r"\s+", " ", client.get(sent.headers["location"]).text)
    client.cookies.clear()
    assert client.post("/auth/login", data=ADA, headers=FORM).status_code == 401
    assert client.post("/auth/login", data={**ADA, "password": NEW}, headers=FORM).status_code == 303


def test_a_sign_in_page_of_the_application_is_the_one_that_is_used() -> None:
    """Where `sign_in_page` names a page of the application, a browser without a session is sent there, and so is one
    that signs out.
    """
    with browser(sign_in_page="/login") as client:
        assert client.post("/auth/register", data=ADA, headers=FORM).status_code == 303
        fields = {"csrf_token": token(client)}
        assert client.post("/auth/logout", data=fields, headers=FORM).headers["location"] == "/login"
        for path in ("/auth/account", "/auth/devices", "/auth/activity", "/auth/confirm"):
            assert client.get(path).headers["location"] == f"/login?next={quote(path, safe='')}"
        form = {**FORM, "referer": "http://testserver/auth/account"}
        sent = client.post("/auth/account/name", data={**fields, "name": "Ada"}, headers=form)
        assert sent.headers["location"] == "/login?next=%2Fauth%2Faccount"


@pytest.mark.parametrize("path", ["/auth/account", "/auth/devices", "/auth/activity", "/auth/confirm"])
def test_a_page_of_an_account_is_kept_by_no_cache(client: TestClient, path: str) -> None:
    """A page of a person is shown to that person alone, at that moment: `no-store`, and not for a token."""
    page = client.get(path)
    assert (page.status_code, page.headers["cache-control"]) == (200, "no-store")
    client.cookies.clear()
    assert client.get(path).status_code == 303
    assert client.get(path, headers={"authorization": "Bearer x"}).status_code == 401


@pytest.mark.parametrize("done", ["name_changed", "password_changed", "<b>", "login"])
def test_a_page_says_only_what_was_done(client: TestClient, done: str) -> None:
    """Anyone can write a link. The page says that something was done only if the audit log says so too."""
    page = client.get("/auth/account", params={"done": done})
    assert page.status_code == 200 and 'role="status"' not in page.text and "<b>" not in page.text


def test_a_form_without_a_session_leads_to_sign_in_and_back(client: TestClient) -> None:
    """A session that ended while the form was open: the form leads to the sign-in page, and from there back to it."""
    fields = {"csrf_token": token(client), "name": "Eve"}
    client.cookies.clear()
    for path in ("/auth/account/name", "/auth/password"):
        sent = client.post(path, data=fields, headers={**FORM, "referer": "http://testserver/auth/account?done=x"})
        assert sent.headers["location"] == "/auth/login?next=%2Fauth%2Faccount%3Fdone%3Dx"
        assert client.post(path, json={}, headers={"accept": "*/*", "sec-fetch-mode": "cors"}).status_code == 401


def test_the_account_page_is_accessible_and_has_nothing_inline(client: TestClient) -> None:
    """One first heading, a label for every visible field, ids that are unique; no inline script or style."""
    elements = Elements(client.get("/auth/account").text)
    assert len(elements.all("title")) == len(elements.all("h1")) == 1
    labelled = {label["for"] for label in elements.all("label")}
    shown = [field for field in elements.all("input") if field.get("type") != "hidden" and "hidden" not in field]
    assert {field["id"] for field in shown} == labelled
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in elements.found:
        assert not {key for key in attributes if key == "style" or key.startswith("on")}
