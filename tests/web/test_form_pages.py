"""Pages with a form: they work without a script, and are as strict as the API behind them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from httpx2 import Response
from starlette.testclient import TestClient
from tests.web.test_pages import Elements

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.model.policy import Policy

PAGE = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-site": "same-origin"}
FORM = {**PAGE, "origin": "http://testserver"}
PASSWORD = "a door in two halves"
ADA = {"email": "ada@example.com", "password": PASSWORD}


def browser(policy: Policy | None = None, **settings: object) -> TestClient:
    auth = Auth("memory:", policy=policy or Policy(), hasher=PasswordHasher(CHEAPEST), **settings)  # type: ignore[arg-type]
    return TestClient(auth.asgi(), headers=PAGE, follow_redirects=False)


def led_to(client: TestClient, sent: Response) -> str:
    """Where a sign-in leads, by way of the page that looks whether the browser has kept the cookie."""
    to = str(sent.headers["location"])
    return str(client.get(to).headers["location"]) if "signed_in=1" in to else to


@pytest.fixture
def client() -> Iterator[TestClient]:
    with browser(origins=["https://app.example.com"]) as client:
        assert client.post("/auth/register", data=ADA, headers=FORM).status_code == 303
        client.cookies.clear()
        yield client


def test_a_form_signs_in_and_goes_on(client: TestClient) -> None:
    """The form of the sign-in page sets the session cookie, and the browser goes where it came from."""
    page = client.get("/auth/login?next=/orders%3Fpage%3D2")
    assert 'name="next" value="/orders?page=2"' in page.text
    assert (
        page.headers["cache-control"] == "no-store" and "default-src 'none'" in page.headers["content-security-policy"]
    )
    sent = client.post("/auth/login", data={**ADA, "next": "/orders?page=2"}, headers=FORM)
    assert (sent.status_code, led_to(client, sent)) == (303, "/orders?page=2")
    assert client.get("/auth/me", headers={"sec-fetch-mode": "cors"}).json()["user"]["email"] == ADA["email"]
    # Who is signed in already has nothing to do here.
    assert client.get("/auth/login?next=/orders").headers["location"] == "/orders"


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "", "//[", "https://[::1",
        "https://app.example.com.evil.example/", "https://app.example.com@evil.example/",
    ],
)  # fmt: skip
def test_nobody_is_sent_to_another_host(client: TestClient, to: str) -> None:
    """Open redirect: anyone can write a link to the page. Only paths of this host and listed origins are gone to."""
    assert led_to(client, client.post("/auth/login", data={**ADA, "next": to}, headers=FORM)) == "/"
    assert client.get("/auth/login", params={"next": to}).headers["location"] == "/"
    listed = "https://app.example.com/orders"
    assert client.get("/auth/login", params={"next": listed}).headers["location"] == listed


def test_a_browser_that_keeps_no_cookies_reads_so(client: TestClient) -> None:
    """Who signs in and keeps no cookie reads so, and is not asked for a password again and again without a word. A
    browser that was here before takes no detour.
    """
    sent = client.post("/auth/login", data={**ADA, "next": "/orders"}, headers=FORM)
    client.cookies.clear()
    page = client.get(sent.headers["location"])
    assert page.status_code == 200 and "did not keep the cookie" in page.text and 'value="/orders"' in page.text
    for _ in range(2):
        sent = client.post("/auth/login", data={**ADA, "next": "/orders"}, headers=FORM)
    assert sent.headers["location"] == "/orders"


def test_two_tabs_sign_in(client: TestClient) -> None:
    """A second tab with the sign-in page signs in as well, and leaves one session; with another account, the first
    account's form does nothing to the second.
    """
    eve = {**ADA, "email": "eve@example.com"}
    assert client.post("/auth/register", data=eve, headers=FORM).status_code == 303
    script, found = {"sec-fetch-mode": "cors"}, []
    for _ in range(2):
        assert client.post("/auth/login", data=ADA, headers=FORM).status_code == 303
        found.append(len(client.get("/auth/sessions", headers=script).json()["sessions"]))
    assert found[0] == found[1]
    page = client.get("/auth/account").text
    of_ada = {"csrf_token": re.findall(r'name="csrf_token" value="([^"]+)"', page)[0]}
    assert client.post("/auth/login", data=eve, headers=FORM).status_code == 303
    form = {**FORM, "referer": "http://testserver/auth/account"}
    for path, fields in (
        ("/auth/account/name", {"name": "Ada"}), ("/auth/devices", {"session": "others"}), ("/auth/logout", {}),
        ("/auth/reauthenticate", {"password": PASSWORD}),
    ):  # fmt: skip
        refused = client.post(path, data={**of_ada, **fields}, headers=form)
        assert refused.status_code == 403 and "Nothing was changed." in refused.text, path
        assert 'href="/auth/account"' in refused.text
    user = client.get("/auth/me", headers=script).json()["user"]
    assert (user["email"], user["name"]) == (eve["email"], "")


def test_a_refused_form_is_shown_again(client: TestClient) -> None:
    """A wrong password shows the page with the reason and the status of the API. The address and the way back stay, the
    password does not.
    """
    wrong = client.post("/auth/login", data={**ADA, "password": "wrong one", "next": "/orders"}, headers=FORM)
    assert wrong.status_code == 401
    assert 'role="alert"' in wrong.text and 'value="ada@example.com"' in wrong.text and 'value="/orders"' in wrong.text
    assert "wrong one" not in wrong.text
    short = client.post("/auth/register", data={"email": "bob@example.com", "password": "short"}, headers=FORM)
    assert short.status_code == 422
    assert re.search(r'name="password"[^>]*aria-invalid="true"', short.text)


def test_a_limit_says_when(client: TestClient) -> None:
    """After too many wrong guesses the page says when to try again, with the header that programs read."""
    for _ in range(40):
        refused = client.post("/auth/login", data={**ADA, "password": "wrong one"}, headers=FORM)
        if refused.status_code == 429:
            break
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert re.search(r'role="alert"[^>]*>[^<]* Try again in [0-9]+ (seconds?|minutes?)\.<', refused.text)


def test_another_sites_form_signs_nobody_in(client: TestClient) -> None:
    """Log-in CSRF: a page of another site cannot sign people in to an account of the attacker's."""
    for headers in (
        {"accept": "text/html", "origin": "https://evil.example"},
        {"accept": "text/html", "origin": "null"},
        {"accept": "text/html"},
        {**FORM, "sec-fetch-site": "cross-site"},
    ):
        client.headers.clear()
        refused = client.post("/auth/login", data=ADA, headers=headers)
        assert refused.status_code == 403
        assert "set-cookie" not in refused.headers
        assert refused.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("extra", [{"role": "admin"}, {"mode": "jwt"}, {"name": "<script>alert(1)</script>" * 20}])
def test_a_form_says_no_more_than_its_page(client: TestClient, extra: dict[str, str]) -> None:
    """A field that the page does not have changes nothing, and a value is never read as markup."""
    sent = client.post("/auth/register", data={"email": "eve@example.com", "password": PASSWORD, **extra}, headers=FORM)
    assert "<script>alert" not in sent.text
    if sent.status_code == 303:
        me = client.get("/auth/me", headers={"sec-fetch-mode": "cors"}).json()["user"]
        assert me["roles"] == []
        assert "dd_session" in client.cookies


def test_an_address_that_must_be_confirmed_says_what_happens_next() -> None:
    """Where an address must be verified, registration leads to a page that says so: the same for a known address."""
    with browser(Policy(require_verified_email=True)) as client:
        for _ in range(2):
            sent = client.post("/auth/register", data=ADA, headers=FORM)
            assert (sent.status_code, sent.headers["location"]) == (303, "/auth/register/sent")
        assert "Check your mail" in client.get("/auth/register/sent").text


def test_a_browser_gets_a_page_for_an_error_and_a_program_the_document(client: TestClient) -> None:
    """A browser that opens an address is shown a page, and a script gets the problem document, with one status."""
    page = client.get("/auth/nothing")
    assert page.status_code == 404 and page.headers["content-type"].startswith("text/html")
    document = client.get("/auth/nothing", headers={"sec-fetch-mode": "cors"})
    assert document.status_code == 404 and document.json()["code"] == "not_found"


def test_the_page_offers_what_there_is() -> None:
    """Where registration is not open, no page leads to it; below a base path every link and form is below it."""
    with browser(Policy(registration="invite")) as client:
        assert "/auth/register" not in client.get("/auth/login").text
    with browser(base_path="/id") as client:
        page = client.get("/id/auth/login").text
        linked = re.findall(r'(?:href|src|action)="(/[^"]*)"', page)
        assert linked and all(each.startswith("/id/") for each in linked)


@pytest.mark.parametrize(
    "path", ["/auth/login", "/auth/login?next=/a", "/auth/register", "/auth/register/sent", "/auth/nothing"]
)
def test_a_form_page_is_accessible_and_has_nothing_inline(client: TestClient, path: str) -> None:
    """A language, a title, one first heading, a label for every visible field, ids that are unique; no inline script or
    style, and no address of another site.
    """
    elements = Elements(client.get(path).text)
    assert elements.all("html") == [{"lang": "en", "dir": "ltr"}]
    assert len(elements.all("title")) == len(elements.all("h1")) == 1
    labelled = {label["for"] for label in elements.all("label")}
    assert {field["id"] for field in elements.all("input") if field.get("type") != "hidden"} == labelled
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in elements.found:
        assert not {key for key in attributes if key == "style" or key.startswith("on")}
        assert all(re.match(r"/(?!/)", attributes.get(key, "/")) for key in ("src", "href", "action"))
    assert all(form["method"] == "post" for form in elements.all("form"))
