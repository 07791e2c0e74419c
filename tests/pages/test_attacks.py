"""What attackers and accidents do to a person's browser, tried in a real one.

The server is `https://auth.example.test`. Others at the same port are siblings of it, which a browser counts as the
same site and which may set cookies for all of `example.test`, and strangers at `evil.test`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from tests.nodejs import chromium
from tests.pages.house import ADA, MALLORY, PASSWORD, ROOT, SCRIPT, House, Watch, open_house
from tests.server.certificates import write_certificate

pytestmark = [pytest.mark.browser, pytest.mark.long]

AUTH, SIBLING, STRANGER = "auth.example.test", "blog.example.test", "evil.test"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium that finds all of `.test` on this machine, and keeps pages for the back button as people's do."""
    flags = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP *.test 127.0.0.1"]
    with (
        sync_playwright() as driver,
        driver.chromium.launch(
            executable_path=chromium(), args=flags, ignore_default_args=["--disable-back-forward-cache"]
        ) as browser,
    ):
        yield browser


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    write_certificate(folder, AUTH)
    with open_house(folder, host=AUTH) as house:
        yield house


class Evil(BaseHTTPRequestHandler):
    """Answers each path with the page, and the cookies, that a test has put there."""

    page = ""
    cookies: tuple[str, ...] = ()

    def do_GET(self) -> None:
        body = self.page.encode()
        self.send_response(200)
        for cookie in self.cookies:
            self.send_header("set-cookie", cookie)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def evil() -> Iterator[int]:
    """A server of plain HTTP for every other name, and its port."""
    Evil.page, Evil.cookies = "", ()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Evil)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()


@pytest.fixture
def context(browser: Browser, house: House) -> Iterator[BrowserContext]:
    context = house.context(browser, ignore_https_errors=True)
    yield context
    context.close()


def signed_in(context: BrowserContext, who: str, to: str = "/auth/account") -> Page:
    page = context.new_page()
    page.goto(f"/auth/login?next={quote(to)}")
    page.fill("[name=email]", who)
    page.fill("[name=password]", PASSWORD)
    page.click("main form button[type=submit]")
    page.wait_for_url(lambda url: "/auth/login" not in url)
    return page


def is_of(page: Page, who: str) -> bool:
    """Whether an own page shows that this account is signed in, and no other."""
    page.goto("/auth/account")
    return page.locator("nav bdi").all_inner_texts() == [who]


@pytest.mark.parametrize(
    "way",
    ["//evil.test", "/\\evil.test", "https://evil.test", "/%09/evil.test", "javascript:document.title='owned'",
     "https:evil.test", "///evil.test/", "/\t/evil.test", "https://auth.example.test@evil.test/"],
)  # fmt: skip
def test_w81_no_link_sends_a_person_elsewhere(context: BrowserContext, house: House, way: str) -> None:
    """After the sign-in, and with a session already, a `next` of another host or of a script leads to our own page."""
    for page in (signed_in(context, ADA, way), context.new_page()):
        if page.url == "about:blank":
            page.goto(f"/auth/login?next={quote(way)}")
        assert page.url.startswith(house.url + "/")
        assert page.title() != "owned"


def test_w81_no_page_is_framed(context: BrowserContext, house: House, evil: int) -> None:
    """Clickjacking: a sibling, whose frames get our cookies, shows none of our pages in a frame."""
    signed_in(context, ADA)
    paths = ["/", "/auth/login", "/auth/account", "/auth/devices", "/auth/confirm", "/admin", "/reset-password", "/x"]
    Evil.page = "".join(f'<iframe src="{house.url}{path}"></iframe>' for path in paths)
    page = context.new_page()
    page.goto(f"http://{SIBLING}:{evil}/")
    page.wait_for_load_state("load")
    frames = [frame for frame in page.frames if frame != page.main_frame]
    assert len(frames) == len(paths)
    assert all(frame.locator("main").count() == 0 for frame in frames)


@pytest.mark.parametrize("host", [SIBLING, STRANGER])
def test_w81_no_other_site_signs_a_person_in(context: BrowserContext, house: House, evil: int, host: str) -> None:
    """Log-in CSRF: the form of another site signs no one in to Mallory's account, whichever was signed in before."""
    Evil.page = (
        f'<form method="post" action="{house.url}/auth/login"><input name="email" value="{MALLORY}">'
        f'<input name="password" value="{PASSWORD}"></form>'
    )
    page = context.new_page()
    for before in (None, ADA):
        if before is not None:
            signed_in(context, before)
        page.goto(f"http://{host}:{evil}/")
        with page.expect_navigation() as sent:
            page.evaluate("document.forms[0].submit()")
        assert sent.value.status == 403  # type: ignore[union-attr]
        page.goto("/auth/account")
        assert page.locator("nav bdi").all_inner_texts() == ([before] if before else [])


def test_w81_a_sibling_tosses_no_cookie_into_a_session(context: BrowserContext, house: House, evil: int) -> None:
    """Cookie tossing: with Mallory's session in cookies of every spelling for all of the domain, a sibling neither
    signs a person in to that account, nor out of her own, nor keeps her from signing in.
    """
    with closing(house.sign_in(MALLORY)) as client:
        (stolen,) = [cookie.value for cookie in client.cookies.jar if cookie.name == "__Host-dd_session"]
    names = ("__Host-dd_session", "dd_session", "__Secure-dd_session", "__host-dd_session", "", " __Host-dd_session")
    scopes = ("", "; Path=/auth", "; Domain=example.test", "; Domain=example.test; Path=/auth")
    Evil.cookies = tuple(f"{name}={stolen}{scope}" for name in names for scope in scopes)
    Evil.cookies += tuple(f"=__Host-dd_session={stolen}{scope}" for scope in scopes)
    page = context.new_page()
    page.goto(f"http://{SIBLING}:{evil}/")
    assert len(context.cookies(f"http://{SIBLING}:{evil}/")) >= 2, "the browser took some of them"
    page.goto("/auth/account")
    assert page.url.startswith(f"{house.url}/auth/login")
    page = signed_in(context, ADA)
    assert is_of(page, ADA)
    page.goto(f"http://{SIBLING}:{evil}/")
    assert is_of(page, ADA)


def test_w81_a_script_in_a_name_is_text_on_every_page(context: BrowserContext) -> None:
    """A name made of a script is shown as it was typed, to its owner and to an administrator, and runs nowhere."""
    page = signed_in(context, MALLORY)
    watch = Watch(page)
    page.fill("[name=name]", SCRIPT)
    page.click("#name form button[type=submit]")
    page.wait_for_url("**/auth/account?done=*")
    assert page.input_value("[name=name]") == SCRIPT
    page.goto("/auth/devices")
    page.goto("/auth/activity")
    context.clear_cookies()
    page = signed_in(context, ROOT, "/admin")
    watch_of_admin = Watch(page)
    for address in page.locator("nav.tabs ul a").evaluate_all("all => all.map(each => each.href)"):
        page.goto(address)
        assert page.title() != "owned"
        assert page.locator("[onerror]").count() == 0
    assert watch.said + watch_of_admin.said == []


def test_w82_the_back_button_shows_no_account_after_the_log_out(context: BrowserContext) -> None:
    """After the log-out no page of the account comes back from the browser's memory."""
    page = signed_in(context, ADA)
    for path in ("/auth/devices", "/auth/activity", "/auth/account"):
        page.goto(path)
        assert ADA in page.inner_text("body")
    page.click("nav form button")
    page.wait_for_url("**/auth/login*")
    for _ in range(3):
        page.go_back()
        assert ADA not in page.inner_text("body")
        assert "/auth/login" in page.url


def test_w82_two_accounts_in_two_tabs_do_not_mix(context: BrowserContext) -> None:
    """After another account signed in in a second tab, the first tab's form changes nothing and says that it is old."""
    ada = signed_in(context, ADA)
    context.new_page().goto("/auth/login")
    fields = [{**cookie} for cookie in context.cookies() if "session" not in cookie["name"]]
    context.clear_cookies()
    context.add_cookies(fields)  # type: ignore[arg-type]
    mallory = signed_in(context, MALLORY)
    ada.fill("[name=name]", "Ada the Second")
    ada.click("#name form button[type=submit]")
    expect(ada.locator("h1")).to_have_text("This form has expired.")
    assert is_of(ada, MALLORY)
    mallory.reload()
    assert mallory.input_value("[name=name]") != "Ada the Second"


def test_w82_a_device_that_was_ended_is_out_at_its_next_click(browser: Browser, house: House) -> None:
    """A browser that another one ended on the page of devices is asked to sign in at its next click, and is back where
    it wanted to go after that; a second press of the button that ended it does no harm.
    """
    laptop, phone = (house.context(browser, ignore_https_errors=True) for _ in range(2))
    out = signed_in(phone, ADA)
    page = signed_in(laptop, ADA, "/auth/devices")
    again = laptop.new_page()
    again.goto("/auth/devices")
    for each in (page, again):
        each.locator("main button", has_text="End all others").click()
        each.locator("[role=status]").wait_for()
    out.click("nav a[href$='/auth/devices']")
    out.wait_for_url("**/auth/login?**")
    out.fill("[name=email]", ADA)
    out.fill("[name=password]", PASSWORD)
    out.click("main form button[type=submit]")
    out.wait_for_url("**/auth/devices*")
    laptop.close()
    phone.close()


def test_w82_a_form_of_a_session_that_ended_leads_to_a_new_sign_in(context: BrowserContext, house: House) -> None:
    """Who sends a form after the session ended signs in, is back at the page of the form, and nothing was changed."""
    page = signed_in(context, ADA)
    house.do(house.auth.end_all(house.subjects[ADA]))
    page.fill("[name=name]", "Never saved")
    page.click("#name form button[type=submit]")
    page.wait_for_url("**/auth/login*")
    page.fill("[name=email]", ADA)
    page.fill("[name=password]", PASSWORD)
    page.click("main form button[type=submit]")
    page.wait_for_url("**/auth/account*")
    assert page.input_value("[name=name]") == "Ada"


def test_w82_a_form_that_was_sent_twice_does_its_work_once(context: BrowserContext) -> None:
    """A double click on a button leads to the page that follows, and not to an error."""
    page = signed_in(context, ADA)
    for _ in range(3):
        page.goto("/auth/account")
        page.fill("[name=name]", "Ada")
        page.dblclick("#name form button[type=submit]")
        page.wait_for_url("**/auth/account?done=*")
        page.wait_for_load_state("networkidle")  # the second click may have begun a navigation of its own
        assert page.locator("h1").inner_text() == "Your account"
