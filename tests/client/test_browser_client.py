"""The browser client in a real Chromium, over a real server: tabs, sleep, outages, other origins."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, BrowserContext, Page
from tests.client.browser_site import ADA, PASSWORD, Elsewhere, Site, serving

CLIENT = Path(__file__).parents[2] / "src" / "dutchdoor" / "client" / "browser"
browser_only = pytest.mark.browser
JSON = {"content-type": "application/json"}

START = """async ([at, url, options]) => {
  const { createClient } = await import(at);
  window.seen = [];
  window.auth = createClient(url ?? undefined, options ?? undefined);
  auth.onChange((user) => seen.push(user && user.email));
}"""
CALL = """async ([url, init]) => {
  try {
    const answer = await auth.fetch(url, init ?? undefined);
    return [answer.status, await answer.json().catch(() => null)];
  } catch (error) { return [0, error.name]; }
}"""
TRY = """async ([name, given]) => {
  try { return await auth[name](given); }
  catch (error) { return Object.assign({ name: error.name, message: error.message }, error); }
}"""


def test_the_client_is_small_and_keeps_nothing() -> None:
    """Compressed, what is served has less than 2 kB. It names no storage, no log, and nothing that runs text."""
    served = (CLIENT / "client.min.js").read_text()
    assert len(gzip.compress(served.encode(), 9)) < 2048
    for name in ("localStorage", "sessionStorage", "indexedDB", ".cookie", "console", "innerHTML", "eval", "Function"):
        assert name not in served
        assert name not in (CLIENT / "client.js").read_text()


class World:
    def __init__(self, site: Site, listed: str, unlisted: str, elsewhere: Elsewhere) -> None:
        self.site, self.listed, self.unlisted, self.elsewhere = site, listed, unlisted, elsewhere


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    elsewhere = Elsewhere()
    with contextlib.ExitStack() as stack:
        listed = f"http://localhost:{stack.enter_context(serving(elsewhere.application))}"
        unlisted = f"http://localhost:{stack.enter_context(serving(Elsewhere().application))}"
        site = Site(origins=[listed])
        site.url = f"http://localhost:{stack.enter_context(serving(site.application))}"
        site.register()
        yield World(site, listed, unlisted, elsewhere)


@pytest.fixture
def site(world: World) -> Iterator[Site]:
    world.site.counted.clear()
    yield world.site
    world.site.broken = False


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    context.set_default_timeout(60_000)
    yield context
    context.close()


def opened(context: BrowserContext, url: str, *, server: str = "", options: Any = None) -> Page:
    """Open a page, and create a client there."""
    page = context.new_page()
    page.goto(url)
    started(page, server, options)
    return page


def started(page: Page, server: str = "", options: Any = None) -> None:
    at = f"{server}/auth/client.js"
    page.evaluate(START, [at, server or None, options])


def call(page: Page, url: str, **init: Any) -> tuple[int, Any]:
    status, body = page.evaluate(CALL, [url, init or None])
    return status, body


def sign_in(page: Page, **more: str) -> Any:
    return page.evaluate(TRY, ["signIn", {**ADA, **more}])


def sign_out(page: Page) -> Any:
    return page.evaluate(TRY, ["signOut", None])


def until_user(page: Page, email: str | None = ADA["email"]) -> None:
    page.wait_for_function("email => auth.user !== undefined && (auth.user && auth.user.email) === email", arg=email)


@browser_only
def test_a_page_signs_in_by_a_mailed_code(context: BrowserContext, site: Site) -> None:
    """`code` with an address has a code mailed and says nothing of the account; with the code and the token it signs in
    every tab.
    """
    page, other = opened(context, site.url + "/page"), opened(context, site.url + "/page")
    sent = page.evaluate(TRY, ["code", ADA["email"]])
    assert set(sent) == {"token", "expires_in"} and page.evaluate("auth.user") is None
    given = {**sent, "code": "12345x", "mode": "hybrid"}
    assert page.evaluate(TRY, ["code", given])["code"] == "wrong_credentials"
    while not site.codes:  # it is delivered after the answer
        page.wait_for_timeout(10)
    assert page.evaluate(TRY, ["code", {**given, "code": site.codes[-1]}])["email"] == ADA["email"]
    until_user(other)
    assert call(other, "/api")[1]["by"] == "bearer"
    assert set(page.evaluate(TRY, ["code", "unknown@example.com"])) == {"token", "expires_in"}


@browser_only
@pytest.mark.parametrize(
    ("mode", "by"),
    [
        ("hybrid", "bearer"),
        pytest.param("session", "cookie", marks=pytest.mark.long),
        pytest.param("jwt", "bearer", marks=pytest.mark.long),
    ],
)
def test_each_pattern_signs_in_calls_and_signs_out(context: BrowserContext, site: Site, mode: str, by: str) -> None:
    """In each pattern a page signs in, reads, writes and signs out by the same calls. After a reload it is still signed
    in, but for the stateless pattern. No script finds anything that is kept.
    """
    page = opened(context, site.url + "/page")
    assert page.evaluate("auth.ready") is None
    assert sign_in(page, mode=mode)["email"] == ADA["email"]
    assert call(page, "/api")[1]["by"] == by
    assert call(page, "/api", method="POST", body="an order")[1]["body"] == "an order"
    kept = "[document.cookie, localStorage.length, sessionStorage.length, location.href]"
    assert page.evaluate(kept) == ["", 0, 0, site.url + "/page"]
    assert page.evaluate("indexedDB.databases()") == []
    page.reload()
    started(page)
    found = page.evaluate("auth.ready")
    if mode == "jwt":
        assert found is None
        sign_in(page, mode=mode)
    else:
        assert found["email"] == ADA["email"]
        assert call(page, "/api", method="POST")[1]["by"] == by
    done = sign_out(page)
    assert (done["fenced"], done["fenced_in_ms"]) == (True, 0)
    assert page.evaluate("auth.user") is None
    assert call(page, "/api")[0] == 401
    assert sign_out(page) == {"fenced": True, "fenced_in_ms": 0, "ended": 0}


@browser_only
def test_five_tabs_refresh_once(context: BrowserContext, site: Site) -> None:
    """When the access token of five tabs runs out, one of them refreshes for all: by the clock, and after a refusal
    that all of them get at once. A sixth tab asks the others, and does not refresh.
    """
    context.clock.install()
    pages = [opened(context, site.url + "/page") for _ in range(5)]
    sign_in(pages[0], mode="hybrid")
    for page in pages:
        until_user(page)
    site.clock.forward(601)
    context.clock.fast_forward(601_000)
    for page in pages:
        page.evaluate("() => { window.done = auth.fetch('/api') }")
    assert [page.evaluate("done.then(answer => answer.status)") for page in pages] == [200] * 5
    assert site.counted["POST /auth/refresh"] == 1
    site.clock.forward(660)  # the tabs know nothing of this
    for page in pages:
        page.evaluate("() => { window.done = auth.fetch('/api') }")
    assert [page.evaluate("done.then(answer => answer.status)") for page in pages] == [200] * 5
    assert site.counted["POST /auth/refresh"] == 2
    sixth = opened(context, site.url + "/page")
    assert sixth.evaluate("auth.ready")["email"] == ADA["email"]
    assert call(sixth, "/api")[0] == 200
    assert site.counted["POST /auth/refresh"] == 2


@browser_only
@pytest.mark.long
def test_five_tabs_that_open_at_once_refresh_once(context: BrowserContext, site: Site) -> None:
    """A browser that restores five tabs of a signed-in person refreshes once."""
    first = opened(context, site.url + "/page")
    sign_in(first, mode="hybrid")
    first.close()
    pages = [context.new_page() for _ in range(5)]
    for page in pages:
        page.goto(site.url + "/page")
        page.evaluate("() => { window.client = import('/auth/client.js') }")
        page.evaluate("client.then(() => 1)")
    for page in pages:
        page.evaluate("() => { client.then(({ createClient }) => { window.auth = createClient() }) }")
    for page in pages:
        until_user(page)
    assert site.counted["POST /auth/refresh"] == 1


@browser_only
@pytest.mark.long
def test_a_laptop_that_slept_wakes_signed_in(context: BrowserContext, site: Site) -> None:
    """After an hour in which nothing ran, the page has a new token before anyone clicks, and the next call holds."""
    context.clock.install()
    page = opened(context, site.url + "/page")
    sign_in(page, mode="hybrid")
    site.clock.forward(3600)
    with page.expect_response("**/auth/refresh"):
        context.clock.fast_forward(3_600_000)
    assert call(page, "/api")[0] == 200
    assert site.counted["GET /api"] == 1  # it was not refused and tried again
    assert page.evaluate("seen") == [None, ADA["email"]]


@browser_only
@pytest.mark.long
def test_a_hidden_page_keeps_no_session_alive(context: BrowserContext, site: Site) -> None:
    """A page that no one sees does not refresh, so a session that no one uses ends. Seen again, it does."""
    context.clock.install()
    page = opened(context, site.url + "/page")
    sign_in(page, mode="hybrid")
    hide = "value => { Object.defineProperty(document, 'hidden', { value, configurable: true });"
    hide += "document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(hide, True)
    site.clock.forward(3600)
    context.clock.fast_forward(3_600_000)
    context.clock.run_for(60_000)
    assert site.counted["POST /auth/refresh"] == 0
    with page.expect_response("**/auth/refresh"):
        page.evaluate(hide, False)


@browser_only
@pytest.mark.long
@pytest.mark.parametrize("mode", ["session", "hybrid"])
def test_offline_is_not_signed_out(context: BrowserContext, site: Site, mode: str) -> None:
    """Without a network, and in an outage of the server, the person stays signed in. Calls fail as those of `fetch`, a
    sign-out says that it did not happen, and with the network everything goes on.
    """
    context.clock.install()
    page = opened(context, site.url + "/page")
    sign_in(page, mode=mode)
    context.set_offline(True)
    site.clock.forward(700)
    context.clock.fast_forward(700_000)
    assert call(page, "/api") == (0, "TypeError")
    assert sign_out(page)["name"] == "TypeError"
    assert page.evaluate("auth.user.email") == ADA["email"]
    site.broken = True
    context.set_offline(False)
    context.clock.fast_forward(30_000)
    refused = sign_out(page)
    assert (refused["name"], refused["status"], refused["code"]) == ("AuthError", 503, "unavailable")
    assert page.evaluate("auth.user.email") == ADA["email"]
    with page.expect_response("**/auth/refresh" if mode == "hybrid" else "**/auth/me"):
        site.broken = False
        context.clock.fast_forward(30_000)
    assert call(page, "/api")[0] == 200
    assert page.evaluate("seen") == [None, ADA["email"]]


@browser_only
@pytest.mark.long
def test_a_page_that_opens_in_an_outage_knows_no_one_until_it_is_over(context: BrowserContext, site: Site) -> None:
    """Until a server has answered, it is unknown who is signed in, and no page learns that no one is."""
    context.clock.install()
    sign_in(opened(context, site.url + "/page"), mode="session")
    context.pages[0].close()
    site.broken = True
    page = context.new_page()
    page.goto(site.url + "/page")
    with page.expect_response("**/auth/csrf"):
        started(page)
    assert page.evaluate("[auth.user, seen]") == [None, []]
    assert page.evaluate("auth.user === undefined")
    site.broken = False
    context.clock.fast_forward(10_000)
    until_user(page)


@browser_only
@pytest.mark.long
def test_every_tab_follows_a_sign_in_and_a_sign_out(context: BrowserContext, site: Site) -> None:
    """What one tab does, the others learn, and can use at once."""
    page, other = (opened(context, site.url + "/page") for _ in range(2))
    until_user(other, None)
    sign_in(page, mode="hybrid")
    until_user(other)
    assert call(other, "/api")[0] == 200
    assert sign_out(other)["fenced"] is True
    until_user(page, None)
    assert call(page, "/api")[0] == 401
    assert page.evaluate("seen") == other.evaluate("seen") == [None, ADA["email"], None]


@browser_only
@pytest.mark.long
@pytest.mark.parametrize("mode", ["session", "hybrid"])
def test_a_session_that_was_ended_elsewhere_ends_at_the_next_click(
    context: BrowserContext, site: Site, mode: str
) -> None:
    """A session that another device ended is over at its next call, and every tab learns it."""
    page, other = (opened(context, site.url + "/page") for _ in range(2))
    sign_in(page, mode=mode)
    until_user(other)
    with httpx2.Client(base_url=site.url) as device:
        token = device.post("/auth/login", json={**ADA, "mode": "jwt"}).json()["access_token"]
        assert device.post("/auth/logout/all", headers={"authorization": f"Bearer {token}"}).status_code == 200
    site.clock.forward(1)
    assert call(page, "/api")[0] == 401
    until_user(page, None)
    until_user(other, None)


@browser_only
@pytest.mark.long
def test_a_refusal_is_tried_once_more(context: BrowserContext, site: Site) -> None:
    """A 401 is tried once more, with a new token and the same body, and no third time. A 401 that asks for a fresh
    proof is given to the page at once.
    """
    page = opened(context, site.url + "/page")
    sign_in(page, mode="hybrid")
    site.clock.forward(660)
    assert call(page, "/api", method="POST", body="an order")[1]["body"] == "an order"
    assert site.counted["POST /api"] == 2
    always = "**/always"
    page.route(always, lambda route: route.fulfill(status=401, json={}))
    with page.expect_request(always), page.expect_request(always):
        assert call(page, "/always")[0] == 401
    assert site.counted["POST /auth/refresh"] == 2
    fresh = 'Bearer realm="x", error="insufficient_user_authentication", max_age="300"'
    page.route("**/fresh", lambda route: route.fulfill(status=401, json={}, headers={"www-authenticate": fresh}))
    assert call(page, "/fresh")[0] == 401
    assert site.counted["POST /auth/refresh"] == 2


@browser_only
@pytest.mark.long
def test_a_change_of_roles_is_followed(context: BrowserContext, site: Site) -> None:
    """With a token that a change of roles has made stale the call holds, and the page gets the new roles."""
    page = opened(context, site.url + "/page")
    user = sign_in(page, mode="hybrid")
    roles = [*user["roles"], "baker"]
    assert httpx2.post(f"{site.url}/roles", json={"subject": user["id"], "roles": roles}).status_code == 200
    status, said = call(page, "/api")
    assert (status, said["roles"]) == (200, roles)
    assert page.evaluate("auth.user.roles") == roles
    assert page.evaluate("seen.length") == 3
    assert httpx2.post(f"{site.url}/roles", json={"subject": user["id"], "roles": user["roles"]}).status_code == 200


@browser_only
@pytest.mark.long
def test_a_listed_origin_has_everything_and_an_unlisted_one_nothing(context: BrowserContext, world: World) -> None:
    """A page of a listed origin signs in, calls and signs out, with the refresh token in the cookie. One of another
    origin gets no answer, and cannot load the client.
    """
    server = world.site.url
    page = opened(context, world.listed + "/", server=server)
    assert sign_in(page, mode="hybrid")["email"] == ADA["email"]
    assert call(page, f"{server}/auth/me")[0] == 200
    page.reload()
    started(page, server)
    assert page.evaluate("auth.ready")["email"] == ADA["email"]
    assert call(page, f"{server}/auth/sessions?except=current", method="DELETE")[0] == 200
    assert page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 0]
    assert sign_out(page)["fenced"] is True
    stranger = context.new_page()
    stranger.goto(world.unlisted + "/")
    assert stranger.evaluate("at => import(at).catch(error => error.name)", f"{server}/auth/client.js") == "TypeError"
    stranger.add_script_tag(content=(CLIENT / "client.js").read_text() + ";window.make = createClient", type="module")
    stranger.wait_for_function("window.make")
    stranger.evaluate("server => { window.auth = make(server) }", server)
    assert sign_in(stranger)["name"] == "TypeError"
    assert stranger.evaluate("auth.user === undefined")


@browser_only
def test_a_token_goes_to_named_origins_alone(context: BrowserContext, world: World) -> None:
    """A URL of another origin gets neither token nor CSRF token, whatever it looks like. One that is named in `origins`
    gets the token.
    """
    server = world.site.url
    page = opened(context, server + "/page")
    sign_in(page, mode="hybrid")
    world.elsewhere.sent.clear()
    for url in (f"{world.listed}/api", f"{world.listed}/api?{server}", f"//{world.listed.removeprefix('http://')}/api"):
        assert call(page, url)[0] == call(page, url, method="POST")[0] == 200
    assert len(world.elsewhere.sent) == 6
    for headers in world.elsewhere.sent:
        assert not {"authorization", "x-csrf-token"} & headers.keys()
    named = opened(context, server + "/page", options={"origins": [world.listed + "/"]})
    until_user(named)
    world.elsewhere.sent.clear()
    assert call(named, f"{world.listed}/api", method="POST")[0] == 200
    assert world.elsewhere.sent[0]["authorization"].startswith("Bearer ")
    assert "x-csrf-token" not in world.elsewhere.sent[0]


@browser_only
@pytest.mark.long
def test_a_frozen_tab_holds_no_one_up_for_long(context: BrowserContext, site: Site) -> None:
    """A tab that never gives the lock back delays the others by five seconds, and then they go on without it."""
    context.clock.install(time=0)
    context.clock.pause_at(1000)  # else it goes on, too, and a busy machine takes seconds for what follows
    frozen = context.new_page()
    frozen.goto(site.url + "/page")
    frozen.evaluate(
        "name => new Promise(has => navigator.locks.request(name, () => { has(); return new Promise(() => {}); }))",
        f"dutchdoor {site.url}",
    )
    page = opened(context, site.url + "/page")
    page.evaluate("given => { window.done = auth.signIn(given) }", {**ADA, "mode": "hybrid"})
    context.clock.fast_forward(4_000)
    assert page.evaluate("auth.user === undefined")
    context.clock.fast_forward(2_000)
    assert page.evaluate("done")["email"] == ADA["email"]


@browser_only
@pytest.mark.long
def test_a_sign_in_on_a_page_of_the_server_is_found(context: BrowserContext, site: Site) -> None:
    """A tab finds out that someone signed in on a page of the server, or as another session: when it is seen again, at
    its next write, when its token runs out, and when it signs out.
    """
    context.clock.install()
    page, form = opened(context, site.url + "/page"), context.new_page()
    until_user(page, None)
    sign_in_by_form(form, site)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    until_user(page)
    sign_in_by_form(form, site)
    assert call(page, "/api", method="POST")[0] == 200
    sign_in_by_form(form, site)
    assert sign_out(page)["ended"] == 1
    sign_in(page, mode="hybrid")
    sign_in_by_form(form, site)
    site.clock.forward(601)
    with page.expect_response("**/auth/me"):
        context.clock.fast_forward(601_000)
    assert call(page, "/api", method="POST")[1]["by"] == "cookie"


@browser_only
@pytest.mark.long
def test_the_account_pages_are_open_to_an_application_with_tokens(context: BrowserContext, site: Site) -> None:
    """A person who is signed in by `client.js` with tokens opens the account page and is in. They change their name and
    their password there, and go back. Each tab of the application is still signed in, and refreshes its token.
    """
    grace = {"email": "grace@example.com", "password": PASSWORD}
    page, other = opened(context, site.url + "/page"), opened(context, site.url + "/page")
    assert call(page, "/auth/register", method="POST", body=json.dumps(grace), headers=JSON)[0] == 201
    sign_in(page, **grace, mode="hybrid")
    until_user(other, grace["email"])
    page.goto(site.url + "/auth/account")
    assert page.url == site.url + "/auth/account" and page.input_value("#name-field") == ""
    page.fill("#name-field", "Grace")
    page.click("text=Save the name")
    page.wait_for_url("**/auth/account?done=name_changed")
    page.fill("#current_password", PASSWORD)
    page.fill("#new_password", "four other words there")
    page.click("text=Change the password")
    page.wait_for_url("**/auth/account?done=password_changed")
    assert call(other, "/api", method="POST")[1]["by"] == "bearer", "after one refusal, by a token that was refreshed"
    page.goto(site.url + "/page")
    started(page)
    until_user(page, grace["email"])
    assert page.evaluate("auth.user.name") == "Grace" and call(page, "/api")[1]["by"] == "bearer"
    site.clock.forward(601)  # its token is over, and the cookie is exchanged by a page
    page.goto(site.url + "/auth/devices")
    assert page.url == site.url + "/auth/devices"
    assert call(other, "/api")[1]["by"] == "bearer"
    page.click("text=Sign out >> nth=0")
    page.wait_for_url(site.url + "/auth/login")
    assert call(other, "/api")[0] == 401 and other.evaluate("auth.user") is None


def sign_in_by_form(page: Page, site: Site) -> None:
    page.context.clear_cookies(name="dd_session")
    page.goto(site.url + "/auth/login")
    page.fill("input[name=email]", ADA["email"])
    page.fill("input[name=password]", ADA["password"])
    page.click("button[type=submit]")
    page.wait_for_url(site.url + "/")


@browser_only
def test_a_page_takes_the_second_step(context: BrowserContext, site: Site) -> None:
    """Where a second factor is asked for, the error of `signIn` has the token and the methods, and `signIn` with them
    and a code continues; a wrong code can be tried again.
    """
    given = {"email": "factors@example.com", "password": PASSWORD}
    codes = site.protect(given)
    page, other = opened(context, site.url + "/page"), opened(context, site.url + "/page")
    asked = page.evaluate(TRY, ["signIn", given])
    assert (asked["code"], asked["methods"]) == ("sign_in_unfinished", ["recovery_code", "totp"])
    step = {"token": asked["token"], "method": "recovery_code", "response": "not-this-one"}
    assert page.evaluate(TRY, ["signIn", step])["code"] == "wrong_credentials" and page.evaluate("auth.user") is None
    assert page.evaluate(TRY, ["signIn", {**step, "response": codes[0]}])["email"] == given["email"]
    until_user(other, given["email"])


@browser_only
@pytest.mark.long
def test_a_refusal_says_what_to_do(context: BrowserContext, site: Site) -> None:
    """A wrong password and a wrong field are errors with a code and words to show; so is an answer that is not ours."""
    page = opened(context, site.url + "/page")
    wrong = sign_in(page, password="not this one")
    assert (wrong["name"], wrong["status"], wrong["code"]) == ("AuthError", 401, "wrong_credentials")
    assert wrong["message"]
    odd = sign_in(page, mode="cookie")
    assert (odd["status"], odd["field"]) == (422, "mode")
    for forgotten in ("auth.signIn()", "auth.code()"):
        name, status = page.evaluate(f"async () => {forgotten}.catch(error => [error.name, error.status])")
        assert (name, status) == ("AuthError", 422)
    page.route("**/auth/login", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    assert sign_in(page)["message"] == "The server answered 502, without a reason."


@browser_only
@pytest.mark.long
def test_the_strictest_page_reports_nothing(context: BrowserContext, site: Site) -> None:
    """Under the policy of the server's own pages, Trusted Types included, the client violates nothing."""
    page = context.new_page()
    page.goto(site.url + "/auth/login")
    page.evaluate("() => { window.reported = []; document.addEventListener('securitypolicyviolation', event => "
                  "reported.push(event.violatedDirective)); }")  # fmt: skip
    started(page)
    sign_in(page, mode="hybrid")
    assert call(page, "/api", method="POST")[0] == 200
    sign_out(page)
    assert page.evaluate("reported") == []
    page.evaluate("fetch('data:,x').catch(() => 1)")
    page.wait_for_function("reported.length")  # it does report
