"""Sign-ins that a real Chromium binds to its device, and everything that could lock its owner out.

Skipped where the browser binds nothing: Debian's Chromium does, the headless shell that tests bring along does not.
What holds without one is in `tests/http/test_bound_browsers.py`, with the soft browser.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Playwright, expect, sync_playwright
from tests.nodejs import chromium
from tests.pages.bound_site import (
    ADA,
    BOUND,
    HOST,
    LONG,
    REFRESH,
    REGISTER,
    RENEWS,
    SIBLING,
    STRANGER,
    WAITS,
    BoundSite,
    Person,
    bound_site,
    flags,
    needs_bound_sessions,
)
from tests.ports import free_port
from tests.server.certificates import write_certificate
from tests.server.running import running

from dutchdoor import issuers
from dutchdoor.model.device_binding import ON_THE_WAY

pytestmark = [pytest.mark.browser, pytest.mark.long]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bound")
    write_certificate(folder, HOST)
    return folder


def copy_certificate(folder: Path, to: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (to / name).write_bytes((folder / name).read_bytes())
        (to / name).chmod(0o600)


@pytest.fixture(scope="module")
def driver() -> Iterator[Playwright]:
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="module")
def browser(driver: Playwright, folder: Path) -> Iterator[Browser]:
    with driver.chromium.launch(executable_path=chromium(), args=flags(folder / "cert.pem")) as browser:
        needs_bound_sessions(browser, folder)
        yield browser


@pytest.fixture(scope="module")
def the_site(folder: Path) -> Iterator[BoundSite]:
    with bound_site(folder) as site:
        site.register()
        yield site


@pytest.fixture
def site(the_site: BoundSite) -> Iterator[BoundSite]:
    the_site.seen = []
    yield the_site
    the_site.loses.clear()
    the_site.store.down = False


@pytest.fixture
def person(site: BoundSite, browser: Browser) -> Iterator[Person]:
    context = browser.new_context()
    person = Person(site, context)
    person.opens()
    yield person
    context.close()


@pytest.fixture
def another(site: BoundSite, browser: Browser) -> Iterator[Callable[[], Person]]:
    """A further browser, for as often as it is called."""
    contexts = []

    def made() -> Person:
        contexts.append(browser.new_context())
        person = Person(site, contexts[-1])
        person.opens()
        return person

    yield made
    for context in contexts:
        context.close()


def test_l10_a_sign_in_is_bound_and_stays_so(site: BoundSite, person: Person) -> None:
    """The browser registers a key, proves it beside its next request, and from then on each expired cookie is one
    refresh, for which all requests wait. The browser has reported no mistake.
    """
    person.signs_in()
    person.confirms()
    assert person.is_bound()
    person.outlive_the_cookie()
    before = len(site.seen)
    assert person.at_once("/orders", 10) == [200] * 10
    assert site.count(REFRESH, 403, since=before) == 1
    assert site.count(REFRESH, 200, since=before) == 1
    assert site.count("/orders", 200, since=before) == 10
    assert site.count("/orders", 401, since=before) == 0
    wrong = [each for each in person.said if not each["succeeded"]]
    assert person.said and wrong == []
    assert site.events()["session_bound"] >= 1


def test_l10_the_cookie_of_a_confirmed_key_lives_for_minutes(site: BoundSite, person: Person) -> None:
    """After the key is confirmed, requests cost no refresh."""
    person.signs_in()
    person.confirms()
    before = len(site.seen)
    for _ in range(5):
        person.fetch("/orders")
    assert site.count(REFRESH, 403, since=before) == 0


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_l11_a_sign_in_by_a_form(site: BoundSite, browser: Browser, scripts: bool) -> None:
    """The page of the server, with its 303, binds as a script does, and needs none."""
    context = browser.new_context(java_script_enabled=scripts)
    try:
        person = Person(site, context)
        person.opens("/auth/login?next=/whole")
        person.page.fill("#email", ADA["email"])
        person.page.fill("#password", ADA["password"])
        person.page.get_by_role("button", name="Sign in", exact=True).click()
        person.page.wait_for_url(f"{site.url}/whole")
        person.wait_until_bound()
        person.opens("/whole")
        site.wait_for(REFRESH, 200)
        person.outlive_the_cookie()
        person.opens("/whole")
        assert person.page.title() == "whole"
        assert site.seen[-1].status == 200
    finally:
        context.close()


def test_l11_a_sign_in_by_a_passkey(site: BoundSite, person: Person) -> None:
    """The pages of the server bind a sign-in by a passkey, too."""
    person.page.add_init_script("PublicKeyCredential.isConditionalMediationAvailable = async () => false")
    options = {
        "protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True,
        "isUserVerified": True, "automaticPresenceSimulation": True,
    }  # fmt: skip
    person.devtools.send("WebAuthn.enable")
    person.devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    site.register("pat@example.com")
    person.signs_in(email="pat@example.com")
    person.confirms()
    person.opens("/auth/account")
    person.page.click("text=Add a passkey")
    person.page.wait_for_url("**/auth/account/passkey")  # the account has a name, too
    person.page.fill("[name=name]", "this computer")
    person.page.click("text=Create the passkey")
    person.page.click("text=I have saved them")
    person.page.wait_for_url("**/auth/account*")
    person.page.click("text=Sign out")
    person.page.wait_for_url("**/auth/login")
    person.settles()
    asked = person.asked()
    person.page.goto(f"{site.url}/auth/login?next=/whole")
    person.page.get_by_role("button", name="Sign in with a passkey").click()
    person.page.wait_for_url(f"{site.url}/whole")
    assert person.asked() == asked + 1
    person.wait_until_bound()
    person.confirms()
    person.outlive_the_cookie()
    assert person.at_once("/orders", 2) == [200] * 2
    assert person.is_bound()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the package uses what its library deprecates
def test_l11_a_sign_in_by_an_issuer(browser: Browser, folder: Path, tmp_path: Path) -> None:
    """A person who comes back from another site is bound, although that answer begins there."""
    mock = import_module("oidc_provider_mock")  # here: it warns as it is imported
    claims = {"email": "grace@example.com", "email_verified": True, "name": "Grace Hopper"}
    copy_certificate(folder, tmp_path)
    with mock.run_server_in_thread(user_claims=(mock.User(sub="grace", claims=claims),)) as server:
        corp = issuers.openid(
            name="corp", title="Corp", url=f"http://localhost:{server.server_port}", client_id="c", client_secret="s",
            trusted_for=["example.com"],
        )  # fmt: skip
        with bound_site(tmp_path, issuers=[corp]) as site:
            context = browser.new_context()
            person = Person(site, context)
            person.opens("/auth/login?next=/whole")
            person.page.get_by_role("button", name="Continue with Corp").click()
            person.page.wait_for_url("**/oauth2/authorize?**")
            person.page.get_by_role("button", name="grace", exact=True).click()
            person.page.wait_for_url(f"{site.url}/whole")
            person.wait_until_bound()
            person.confirms()
            person.outlive_the_cookie()
            assert person.at_once("/orders", 2) == [200] * 2
            assert person.is_bound()
            context.close()


def test_l11_the_server_itself(browser: Browser, folder: Path, tmp_path: Path) -> None:
    """`dutchdoor serve` with TLS of its own binds with no setting at all."""
    copy_certificate(folder, tmp_path)
    port = free_port()
    url = f"https://{HOST}:{port}"
    tls = ("--tls-cert", "cert.pem", "--tls-key", "key.pem", "--public-url", url)
    with running(tmp_path, *tls, "--port", str(port)):
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{url}/auth/login")
        send = "body => fetch('/auth/register', {method: 'POST', headers: {'content-type': 'application/json'}, body})"
        assert page.evaluate(send + ".then(answer => answer.status)", json.dumps(ADA)) == 201
        page.goto(f"{url}/auth/login?next=/auth/account")
        page.fill("#email", ADA["email"])
        page.fill("#password", ADA["password"])
        page.get_by_role("button", name="Sign in", exact=True).click()
        page.wait_for_url("**/auth/account")
        is_bound = "fetch('/auth/me').then(answer => answer.json()).then(said => said.session.bound)"
        until = time.monotonic() + WAITS
        while not page.evaluate(is_bound):
            assert time.monotonic() < until, "the browser has not bound it"
            page.goto(f"{url}/auth/account")
        context.clear_cookies(name=BOUND)
        assert page.evaluate("fetch('/auth/me').then(answer => answer.status)") == 200
        context.close()


def test_l12_two_sign_ins_without_a_log_out(site: BoundSite, person: Person) -> None:
    """One cookie name and two sessions in the browser: it may ask for the older one first, and is then in order within
    the same hold.
    """
    person.signs_in()
    person.confirms()
    person.signs_in()
    person.confirms()
    for _ in range(3):
        person.outlive_the_cookie()
        assert person.at_once("/orders", 3) == [200] * 3, (site.shown(), person.said)
    assert person.is_bound()


def test_l12_out_and_in_again(site: BoundSite, person: Person) -> None:
    """After a log-out the browser's next sign-in is bound anew, and nothing of the first is in its way."""
    said = person.signs_in()
    person.confirms()
    status, _ = person.fetch("/auth/logout", "POST", **{"x-csrf-token": said["csrf_token"]})
    assert status in {200, 202, 204}
    assert not {LONG, BOUND} & person.cookies().keys()
    assert person.fetch("/orders")[0] == 401
    person.signs_in()
    person.confirms()
    person.outlive_the_cookie()
    assert person.at_once("/orders", 2) == [200] * 2


def test_l12_a_proof_anew_stays_bound(site: BoundSite, person: Person) -> None:
    """A person who proves again who they are has another session, which needs the key of the first one at once. The
    browser goes on with that, whatever it asks for, and registers no other.
    """
    csrf = person.signs_in()["csrf_token"]
    person.confirms()
    site.clock.forward(ON_THE_WAY)
    before = len(site.seen)
    for _ in range(2):
        copied = person.cookies()
        status, renewed = person.fetch(
            "/auth/reauthenticate", "POST", {"password": ADA["password"]}, **{"x-csrf-token": csrf}
        )
        assert (status, renewed["session"]["bound"]) == (200, True), renewed
        csrf = renewed["csrf_token"]
        assert person.cookies()[BOUND] == copied[BOUND]
        assert site.thief("/orders", {LONG: person.cookies()[LONG]}) == "device_proof_required"
        for _ in range(2):
            person.outlive_the_cookie()
            assert person.at_once("/orders", 3) == [200] * 3
            assert person.is_bound()
    person.outlive_the_cookie()
    person.page.goto(f"https://{STRANGER}:{site.port}/plain", wait_until="commit")
    person.page.evaluate("to => { location.href = to }", f"{site.url}/whole")
    expect(person.page).to_have_title("whole")
    assert not any(each.offers for each in site.seen[before:])


@pytest.mark.usefixtures("browser")  # which skips
def test_l13_a_restart_of_the_browser(site: BoundSite, driver: Playwright, folder: Path, tmp_path: Path) -> None:
    """The key and the cookie of the sign-in survive it, and the first page after it is held for a refresh."""

    def started() -> Person:
        context = driver.chromium.launch_persistent_context(
            tmp_path, executable_path=chromium(), args=flags(folder / "cert.pem")
        )
        return Person(site, context)

    person = started()
    person.opens()
    person.signs_in()
    person.confirms()
    person.outlive_the_cookie()
    person.context.close()
    person = started()
    try:
        before = len(site.seen)
        person.opens("/whole")
        assert person.page.title() == "whole"
        assert site.count(REFRESH, 200, since=before) == 1
    finally:
        person.context.close()


@pytest.mark.parametrize("elsewhere", [STRANGER, SIBLING])
def test_l14_a_link_on_another_site(site: BoundSite, person: Person, elsewhere: str) -> None:
    """The browser does not hold it. The page that it gets loads itself once more, and that one is held: the person sees
    where the link leads to.
    """
    person.signs_in()
    person.confirms()
    person.outlive_the_cookie()
    person.page.goto(f"https://{elsewhere}:{site.port}/plain", wait_until="commit")
    before = len(site.seen)
    person.page.evaluate("to => { location.href = to }", f"{site.url}/whole")
    expect(person.page).to_have_title("whole")
    assert [each.status for each in site.seen[before:] if each.path == "/whole"] == [303, 200]
    person.outlive_the_cookie()
    person.opens("/whole")  # an address that is typed
    assert site.seen[-1].status == 200


def test_l15_all_that_a_page_can_send(site: BoundSite, person: Person) -> None:
    """A WebSocket, a stream of events, an image and a service worker's fetch are held as others are."""
    person.signs_in()
    person.confirms()
    who = person.fetch("/auth/me")[1]["user"]["id"]
    person.outlive_the_cookie()
    talk = """path => new Promise((done, failed) => {
        const socket = new WebSocket(path.replace("https", "wss"));
        socket.onmessage = event => done(event.data); socket.onerror = () => failed("error") })"""
    assert person.page.evaluate(talk, site.url + "/talk") == who
    person.outlive_the_cookie()
    stream = """path => new Promise((done, failed) => {
        const source = new EventSource(path);
        source.onmessage = event => { source.close(); done(event.data) }; source.onerror = () => failed("error") })"""
    assert person.page.evaluate(stream, "/stream") == who
    person.outlive_the_cookie()
    image = """path => new Promise(done => {
        const image = new Image(); image.onload = image.onerror = done; image.src = path })"""
    before = len(site.seen)
    person.page.evaluate(image, "/orders")
    site.wait_for("/orders", 200, since=before)
    worker = """() => navigator.serviceWorker.register("/worker.js").then(() => navigator.serviceWorker.ready).then(
        () => new Promise(done => { const look = () =>
            navigator.serviceWorker.controller ? done() : setTimeout(look, 20); look() }))"""
    person.page.evaluate(worker)
    person.outlive_the_cookie()
    assert person.at_once("/orders", 3) == [200] * 3


@pytest.mark.parametrize("lost", ["all", "body"])
def test_l16_the_answer_to_the_registration_is_lost(
    site: BoundSite, person: Person, lost: Literal["all", "body"]
) -> None:
    """The server has a key and the browser no session, with its cookie or without. No one is locked out: one of the
    later answers, here five at once, offers again. The key that comes then takes the place of the other.
    """
    site.loses[REGISTER] = lost
    person.signs_in(registers=False)
    assert person.fetch("/orders")[0] == 200
    person.has_registered()
    site.loses.clear()
    assert (BOUND in person.cookies()) is (lost == "body")
    person.outlive_the_cookie(120)
    before, asked = len(site.seen), person.asked()
    assert person.at_once("/auth/me", 5) == [200] * 5
    assert person.asked() == asked + 1
    person.wait_until_bound()
    person.confirms()
    for _ in range(2):
        person.outlive_the_cookie()
        assert person.at_once("/orders", 3) == [200] * 3
    assert person.is_bound()
    assert site.count(REGISTER, 403, since=before) == 0


def test_l17_an_outage_signs_nobody_out(site: BoundSite, person: Person) -> None:
    """While the store is away, everything is 503, and the browser keeps its key; afterwards all is well."""
    person.signs_in()
    person.confirms()
    person.outlive_the_cookie()
    before = len(site.seen)
    site.store.down = True
    assert set(person.at_once("/orders", 3)) == {503}
    assert {each.status for each in site.seen[before:]} == {503}
    site.store.down = False
    assert person.at_once("/orders", 3) == [200] * 3
    assert person.is_bound()


def test_l18_a_session_that_was_ended_elsewhere(site: BoundSite, person: Person, another: Callable[[], Person]) -> None:
    """The browser forgets its key, is refused without waiting, and its next sign-in is bound again."""
    person.signs_in()
    person.confirms()
    mine = person.fetch("/auth/me")[1]["session"]["id"]
    person.settles()
    other = another()
    said = other.signs_in()
    status, _ = other.fetch(f"/auth/sessions/{mine}", "DELETE", **{"x-csrf-token": said["csrf_token"]})
    assert status in {200, 202, 204}
    other.settles()
    person.begins_anew()
    person.outlive_the_cookie()
    assert person.fetch("/orders")[0] == 401
    person.signs_in()
    person.confirms()
    assert person.is_bound()


def test_l19_the_mode_hybrid(site: BoundSite, person: Person) -> None:
    """The refresh cookie is bound: requests with an access token are never held, and a refresh and a page of the
    account are when they have to be.
    """
    status, said = person.fetch("/auth/login", "POST", {**ADA, "mode": "hybrid"})
    assert status == 200, said
    csrf = {"x-csrf-token": said["csrf_token"]}
    person.wait_until_bound()
    assert {RENEWS, BOUND} <= person.cookies().keys()
    assert person.fetch("/auth/refresh", "POST", **csrf)[0] == 200
    site.wait_for(REFRESH, 200)
    person.outlive_the_cookie(900)
    before = len(site.seen)
    status, said = person.fetch("/auth/refresh", "POST", **csrf)
    assert status == 200, said
    assert site.count(REFRESH, 200, since=before) == 1
    person.outlive_the_cookie(300)
    before = len(site.seen)
    assert person.fetch("/orders", authorization=f"Bearer {said['access_token']}")[0] == 200
    assert site.count(REFRESH, 403, since=before) == 0
    assert site.thief("/auth/refresh", {RENEWS: person.cookies()[RENEWS]}, "POST", **csrf) == "device_proof_required"
    assert person.fetch("/auth/refresh", "POST", **csrf)[0] == 200
    person.outlive_the_cookie(300)
    assert site.thief("/auth/account", {RENEWS: person.cookies()[RENEWS]}) == "device_proof_required"
    person.opens("/auth/account")
    assert person.page.url == f"{site.url}/auth/account", "a page waits for the bound cookie, too"


def test_l19_the_client_for_pages(site: BoundSite, person: Person) -> None:
    """The module of the server needs no change: it signs in, calls and refreshes, bound."""
    person.page.evaluate(
        """async ([email, password]) => {
            const { createClient } = await import("/auth/client.js");
            window.auth = createClient();
            await auth.signIn({ email, password });
        }""",
        [ADA["email"], ADA["password"]],
    )
    person.wait_until_bound()
    for _ in range(3):
        assert person.page.evaluate("auth.fetch('/orders').then(answer => answer.status)") == 200
        person.outlive_the_cookie(900)
    assert person.page.evaluate("auth.fetch('/orders').then(answer => answer.status)") == 200


def test_l20_below_a_base_path(browser: Browser, folder: Path, tmp_path: Path) -> None:
    """With all paths below one, the browser registers and refreshes below it, too."""
    copy_certificate(folder, tmp_path)
    with bound_site(tmp_path, base="/id") as site:
        site.register()
        context = browser.new_context()
        person = Person(site, context)
        person.opens()
        person.signs_in()
        person.confirms()
        person.outlive_the_cookie()
        assert person.at_once("/orders", 3) == [200] * 3
        assert person.is_bound()
        context.close()


@pytest.mark.usefixtures("browser")  # which skips
def test_l21_the_browsers_own_limit(site: BoundSite, driver: Playwright, folder: Path) -> None:
    """Chromium signs six times in nine minutes. A registration and what follows from it stay below that."""
    with driver.chromium.launch(executable_path=chromium(), args=flags(folder / "cert.pem", quota=True)) as browser:
        person = Person(site, browser.new_context())
        person.opens()
        for _ in range(2):  # two sign-ins, each with a registration and a confirmation, and a refresh
            person.signs_in()
            person.confirms()
        person.outlive_the_cookie()
        assert person.at_once("/orders", 3) == [200] * 3


def test_l30_a_thief_with_copied_cookies(site: BoundSite, person: Person) -> None:
    """The long-lived cookie alone is worth nothing, both for minutes, and neither gets another. The owner stays in."""
    person.signs_in()
    person.confirms()
    copied = person.cookies()
    site.clock.forward(ON_THE_WAY)
    assert site.thief("/orders", {LONG: copied[LONG]}) == "device_proof_required"
    assert site.thief("/orders", copied) == 200
    person.outlive_the_cookie()
    assert site.thief("/orders", copied) == "device_proof_required"
    session = person.said[0]["sessionId"]
    assert site.thief(REFRESH, copied, "POST", **{"sec-secure-session-id": session}) == "device_key_refused"
    assert site.thief("/orders", copied) == "device_proof_required"
    assert person.at_once("/orders", 2) == [200] * 2
