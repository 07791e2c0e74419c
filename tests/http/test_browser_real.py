"""A real browser against a real server: what cookies, Fetch Metadata and CORS do outside of our imitations."""

from __future__ import annotations

import email
import email.policy
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page
from tests.http.world import PASSWORD, REFRESH, SESSION
from tests.running import running_server

pytestmark = pytest.mark.browser

ADA = {"email": "ada@example.com", "password": PASSWORD}
CALL = """async ([method, path, body, csrf, token]) => {
  const headers = {};
  if (body !== null) headers["Content-Type"] = "application/json";
  if (csrf) headers["X-CSRF-Token"] = csrf;
  if (token) headers["Authorization"] = "Bearer " + token;
  const answer = await fetch(path, {method, headers, body: body === null ? undefined : JSON.stringify(body)});
  const text = await answer.text();
  return {status: answer.status, body: text ? JSON.parse(text) : null};
}"""


class Site:
    def __init__(self, folder: Path, port: int) -> None:
        self.mails = folder / "outgoing"
        self.url = f"http://localhost:{port}"
        link = re.search(r"/auth/setup#\S+", (folder / "dutchdoor.setup").read_text())
        assert link is not None
        self.setup = self.url + link[0]

    def link(self, to: str, path: str) -> str:
        """The link to a page in the latest mail to an address, once that mail is there."""
        for _ in range(1200):
            for file in sorted(self.mails.glob("*.eml"), key=lambda file: -file.stat().st_mtime_ns):
                mail = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
                body = mail.get_body(("plain",))
                found = body and re.search(rf"http\S+{path}#\S+", body.get_content())
                if found and mail["To"] == to:
                    return found[0]
            time.sleep(0.05)
        raise AssertionError(f"no mail to {to}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("browser")
    with running_server(folder, "--mail", "file:outgoing") as port:
        yield Site(folder, port)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    context.set_default_timeout(60_000)
    yield context
    context.close()


def call(
    page: Page, method: str, path: str, body: Any = None, csrf: str | None = None, token: str | None = None
) -> tuple[int, Any]:
    said = page.evaluate(CALL, [method, path, body, csrf, token])
    return said["status"], said["body"]


def opened(context: BrowserContext, site: Site) -> Page:
    page = context.new_page()
    page.goto(site.url + "/")
    return page


def test_the_set_up_page_makes_the_first_administrator(context: BrowserContext, site: Site) -> None:
    """The printed link opens a page that takes its token out of the address bar, makes the administrator once, and
    leads into the console, signed in.
    """
    page = context.new_page()
    page.goto(site.setup)
    assert "#" not in page.url
    assert not page.is_visible("#token") and page.input_value("#token").startswith("ddo1_")
    assert page.evaluate("document.activeElement.name") == "name"
    page.fill("input[name=email]", "root@example.com")
    page.fill("input[name=password]", PASSWORD)
    page.click("button[type=submit]")
    assert page.url == site.url + "/admin"
    status, accounts = call(page, "GET", "/admin/api/accounts")
    assert (status, [account["roles"] for account in accounts["accounts"]]) == (200, [["admin"]])
    assert call(page, "POST", "/auth/register", ADA)[0] == 201


def test_s13_a_token_reaches_the_server_in_one_body_and_nowhere_else(context: BrowserContext, site: Site) -> None:
    """No request line, header or Referer has the token, and the address bar and the history lose it at once. A second
    click sends nothing. The address to sign in with is filled in.
    """
    page, bea = context.new_page(), {**ADA, "email": "bea@example.com"}
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(site.url + "/auth/login")
    assert call(page, "POST", "/auth/register", bea)[0] == 201
    page.click("text=Forgot your password?")
    page.fill("#email", bea["email"])
    page.click("button[type=submit]")
    assert page.url == site.url + "/auth/forgot/sent"
    link = site.link(bea["email"], "/auth/reset")
    token = link.partition("#")[2]
    heads: list[str] = []
    bodies: list[str] = []
    page.on("request", lambda request: heads.append(f"{request.url} {request.all_headers()}"))
    page.on("request", lambda request: bodies.append(request.post_data or ""))
    page.goto(link.replace(token, "ddo1_half"))
    page.goto(link)  # the browser loads nothing: only the fragment has changed
    page.wait_for_url(site.url + "/auth/reset")
    assert page.input_value("#token") == token and not page.is_visible("#token")
    assert page.evaluate("document.activeElement.name") == "new_password"
    page.fill("#new_password", "four other words there")
    page.evaluate("() => { const button = document.querySelector('[type=submit]'); button.click(); button.click(); }")
    page.wait_for_url("**/auth/reset/done?ended=now")
    assert page.input_value("#email") == bea["email"]
    assert page.evaluate("document.activeElement.name") == "password"
    page.fill("#password", "four other words there")
    page.click("button[type=submit]")
    assert page.url == site.url + "/auth/account"
    assert [token in body for body in bodies].count(True) == 1
    assert token not in "".join(heads) and "#" not in "".join(heads)
    page.go_back()
    page.go_back()
    assert page.url == site.url + "/auth/reset" and page.input_value("#token") == ""
    page.fill("#token", link)
    page.fill("#new_password", PASSWORD)
    page.click("button[type=submit]")
    assert "This link does not work any more" in page.inner_text("[role=alert]")
    assert page.evaluate("document.activeElement.id") == "wrong"
    page.click("text=Ask for a new link")
    assert page.url == site.url + "/auth/forgot"
    assert [text for text in complaints if "401" not in text] == []


def test_a_link_is_used_without_scripts(browser: Browser, site: Site) -> None:
    """With scripts off, the page of a link has a field to paste the link into: the address of the page will do."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    email = "plain@example.com"
    page.goto(site.url + "/auth/register")
    page.fill("input[name=email]", email)
    page.fill("input[name=password]", PASSWORD)
    page.click("button[type=submit]")
    page.goto(site.url + "/auth/forgot")
    page.fill("#email", email)
    page.click("button[type=submit]")
    page.goto(site.link(email, "/auth/reset"))
    page.fill("#token", page.url)
    page.fill("#new_password", "password1")
    page.click("button[type=submit]")
    assert page.text_content("[role=alert]") and not page.is_visible("#token")
    page.fill("#new_password", "four other words there")
    page.click("button[type=submit]")
    assert page.url.startswith(site.url + "/auth/reset/done")
    page.fill("#email", email)
    page.fill("#password", "four other words there")
    page.click("button[type=submit]")
    assert page.url == site.url + "/auth/account"
    context.close()


def test_a_browser_without_scripts_registers_and_signs_in(browser: Browser, site: Site) -> None:
    """With scripts off, the pages create an account, refuse a wrong password with the reason, and sign in."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site.url + "/auth/login")
    page.click("text=Create one")
    page.fill("input[name=email]", "noscript@example.com")
    page.fill("input[name=password]", PASSWORD)
    page.click("button[type=submit]")
    assert page.url == site.url + "/auth/account"
    assert SESSION.removeprefix("__Host-") in {cookie.get("name") for cookie in context.cookies()}
    context.clear_cookies()
    page.goto(site.url + "/auth/login?next=/docs")
    page.fill("input[name=email]", "noscript@example.com")
    page.fill("input[name=password]", "another one")
    page.click("button[type=submit]")
    assert page.text_content("[role=alert]")
    assert page.input_value("input[name=email]") == "noscript@example.com"
    page.fill("input[name=password]", PASSWORD)
    page.click("button[type=submit]")
    assert page.url == site.url + "/docs"
    context.close()


def test_the_meter_judges_a_password_while_one_types(context: BrowserContext, site: Site) -> None:
    """It says why a password would be refused, follows what is typed, and is gone when it knows nothing."""
    page = context.new_page()
    page.goto(site.url + "/auth/register")
    page.fill("#password", "karlsson street 9")
    page.wait_for_selector(".strength:visible")
    page.fill("#email", "karlsson.street@example.com")
    page.locator(".strength", has_text="made of your e-mail address").wait_for()
    assert page.locator("meter").evaluate("meter => meter.value") == 0
    page.fill("#password", "four other words there")
    page.locator(".strength", has_text="Hard to guess.").wait_for()
    assert page.locator("meter").evaluate("meter => meter.value") == 3
    page.fill("#password", "four")
    assert not page.is_visible(".strength")
    context.set_offline(True)
    page.fill("#password", "four more words there")
    page.wait_for_event("requestfailed")
    assert not page.is_visible(".strength")


def test_s06_a_session_lives_in_a_cookie_that_scripts_cannot_read(context: BrowserContext, site: Site) -> None:
    """Signed in by fetch, the page's script sees no cookie; another tab is signed in; without the CSRF token it cannot
    log out, with it both tabs are out and the cookie is gone.
    """
    page = opened(context, site)
    status, said = call(page, "POST", "/auth/login", {**ADA, "mode": "session"})
    assert status == 200
    assert page.evaluate("document.cookie") == ""
    (cookie,) = [cookie for cookie in context.cookies() if cookie["name"] == SESSION]
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Lax", "/")
    tab = opened(context, site)
    assert call(tab, "GET", "/auth/me")[1]["user"]["email"] == ADA["email"]
    assert call(tab, "POST", "/auth/logout")[0] == 403
    csrf = call(tab, "GET", "/auth/csrf")[1]["csrf_token"]
    assert csrf == said["csrf_token"]
    assert call(tab, "POST", "/auth/logout", csrf=csrf) == (200, {"fenced": True, "fenced_in_ms": 0, "ended": 1})
    assert call(page, "GET", "/auth/me")[0] == 401
    assert not [cookie for cookie in context.cookies() if cookie["name"] == SESSION]


def test_o02_four_tabs_refresh_at_once_and_stay_signed_in(context: BrowserContext, site: Site) -> None:
    """In the hybrid mode four tabs refresh at the same moment, seven times over: everyone stays signed in, the refresh
    token is nowhere a script sees, and a log-out clears it.
    """
    pages = [opened(context, site) for _ in range(4)]
    status, said = call(pages[0], "POST", "/auth/login", {**ADA, "mode": "hybrid"})
    assert status == 200
    assert "refresh_token" not in said
    csrf = said["csrf_token"]
    assert call(pages[0], "POST", "/auth/login", {**ADA, "mode": "hybrid", "transport": "body"})[0] == 403
    start = "csrf => { window.answers = []; window.go = async () => { for (let n = 0; n < 7; n++) { const answer = "
    start += "await fetch('/auth/refresh', {method: 'POST', headers: {'X-CSRF-Token': csrf}}); const said = await "
    start += "answer.json(); window.token = said.access_token; window.answers.push(answer.status); } }; }"
    for page in pages:
        page.evaluate(start, csrf)
    for page in pages:
        page.evaluate("() => { window.done = window.go(); }")
    for page in pages:
        page.evaluate("() => window.done")
        statuses = page.evaluate("window.answers")
        assert statuses == [200] * 7  # 28 at once are within a session's limit of 30
        token = page.evaluate("window.token")
        assert call(page, "GET", "/auth/me", token=token)[0] == 200
        assert page.evaluate("document.cookie") == ""
    page = pages[3]
    token = said["access_token"]
    assert call(page, "POST", "/auth/logout", csrf=csrf)[0] == 200
    assert call(pages[0], "GET", "/auth/me", token=token)[0] == 401
    assert not [cookie for cookie in context.cookies() if cookie["name"] == REFRESH]


class Evil(BaseHTTPRequestHandler):
    """Another origin's page: a form that posts to us when it is opened, and nothing else."""

    target = ""

    def do_GET(self) -> None:
        page = (
            f'<form method="post" enctype="text/plain" action="{self.target}">'
            '<input name=\'{"email":"ada@example.com","x":"\' value=\'"}\'></form>'
        )
        body = page.encode() if self.path == "/form" else b"<p>nothing here</p>"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def evil() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Evil)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


FOREIGN = """async ([url, method, type, mode]) => {
  try {
    const answer = await fetch(url, {method, mode, credentials: "include",
      headers: type ? {"Content-Type": type} : {}, body: method === "GET" ? undefined : '{"email": "x"}'});
    return answer.type + " " + answer.status + " " + (await answer.text());
  } catch (error) { return "refused"; }
}"""


def test_s18_another_origins_page_reads_and_changes_nothing(context: BrowserContext, site: Site, evil: str) -> None:
    """A page of another origin can read no answer of ours, its fetches and forms are refused with 403 or 415 and set no
    cookie, and a person who is signed in here stays so.
    """
    page = opened(context, site)
    assert call(page, "POST", "/auth/login", {**ADA, "mode": "session"})[0] == 200
    before = {cookie["name"]: cookie["value"] for cookie in context.cookies(site.url)}
    foreign = context.new_page()
    foreign.goto(evil + "/")
    statuses: list[tuple[str, int]] = []
    foreign.on("response", lambda answer: statuses.append((answer.url, answer.status)))
    for path in ("/auth/me", "/auth/csrf", "/auth/sessions"):
        assert foreign.evaluate(FOREIGN, [site.url + path, "GET", "", "cors"]) == "refused"
    for path in ("/auth/logout", "/auth/logout/all", "/auth/login", "/auth/register", "/auth/refresh"):
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json", ""):
            assert foreign.evaluate(FOREIGN, [site.url + path, "POST", kind, "cors"]) == "refused"
        assert foreign.evaluate(FOREIGN, [site.url + path, "POST", "", "no-cors"]) in {"opaque 0 ", "refused"}
    Evil.target = f"{site.url}/auth/logout"
    foreign.goto(evil + "/form")
    with foreign.expect_navigation():
        foreign.evaluate("document.forms[0].submit()")
    reached = [status for url, status in statuses if url.startswith(site.url) and "/auth/" in url]
    posted = [status for url, status in statuses if url == f"{site.url}/auth/logout"]
    assert reached
    assert posted
    assert set(posted) <= {403, 405, 415}
    assert {cookie["name"]: cookie["value"] for cookie in context.cookies(site.url)} == before
    assert call(page, "GET", "/auth/me")[0] == 200


def test_s21_no_page_of_ours_can_be_framed(context: BrowserContext, site: Site, evil: str) -> None:
    """Another origin's frame of our pages stays empty."""
    page = context.new_page()
    page.goto(evil + "/")
    page.evaluate(
        "url => new Promise(done => { const frame = document.createElement('iframe'); frame.src = url; "
        "frame.onload = done; document.body.append(frame); })",
        site.url + "/auth/reset",
    )
    shown = [frame for frame in page.frames if frame.url.startswith(site.url)]
    assert all(frame.locator("form").count() == 0 for frame in shown)
