"""The pages of one's own account, for an application with tokens: its refresh cookie opens them, and a page neither
signs the application out nor helps a thief more than an access token would.
"""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace
from tests.http.test_bound_sign_ins import Bound as Keyed
from tests.http.test_defended_sessions import HERE, SYDNEY, at_home, watched
from tests.http.test_device_binding import Bound
from tests.http.world import OTHER_PASSWORD, OWN, PASSWORD, PROXY, REFRESH, SESSION, Answer, Browser, World, a_world
from tests.standins import endless

from dutchdoor.model.device_binding import ON_THE_WAY
from dutchdoor.model.policy import MINUTE, STANDARD, Policy
from dutchdoor.model.rate_limits import Limit, Limits

COOKIE = "__Host-" + REFRESH
PAGES = ["/auth/account", "/auth/devices", "/auth/activity", "/auth/confirm", "/auth/account/passkey"]
STALE = STANDARD.access_for + MINUTE
ENDED = (303, "/auth/login?next=%2Fauth%2Faccount")


class Tab(Browser):
    """A browser whose application is signed in with tokens, and which opens pages of the server."""

    async def opens(self, path: str = "/auth/account", **more: str) -> Answer:
        site = more.get("site", "same-origin")
        headers = [("sec-fetch-mode", more.get("mode", "navigate")), ("sec-fetch-site", site)]
        cookie = more.get("cookie", self.cookie())
        sent = [("user-agent", self.agent), *headers]
        answer = await self.world.call("GET", path, headers=sent, cookie=cookie, peer=self.peer)
        if "cookie" not in more:
            self.keeps(answer)
        return answer

    async def sends(self, path: str, csrf: str = "", **fields: str) -> Answer:
        """Send the form of a page, as a browser without a script does."""
        token = csrf or csrf_in(await self.opens())
        headers = [("user-agent", self.agent), ("sec-fetch-site", "same-origin"), ("origin", OWN)]
        headers.append(("referer", f"{OWN}/auth/account"))
        form = {"csrf_token": token, **fields}
        answer = await self.world.call("POST", path, form=form, headers=headers, cookie=self.cookie(), peer=self.peer)
        self.keeps(answer)
        return answer

    def keeps(self, answer: Answer) -> None:
        for line in answer.set_cookies():
            name, _, value = line.partition(";")[0].partition("=")
            self.jar[name] = value
            if not value:
                del self.jar[name]

    async def refreshes(self) -> Answer:
        return await self.call("POST", "/auth/refresh")

    def copy(self) -> str:
        return f"{COOKIE}={self.jar[COOKIE]}"


def csrf_in(answer: Answer) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', answer.body.decode())
    assert found, answer
    return found[1]


def led(answer: Answer) -> tuple[int, str | None]:
    return answer.status, answer.header("location")


async def names(world: World) -> list[str]:
    return [event.name for event in await world.events()]


@pytest.fixture
async def tab(world: World) -> Tab:
    await world.register()
    tab = Tab(world)
    await tab.login(mode="hybrid")
    assert COOKIE in tab.jar and "__Host-" + SESSION not in tab.jar
    return tab


# --- being in ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
async def test_w50_the_refresh_cookie_opens_the_pages(tab: Tab, path: str) -> None:
    """Each page of the account is open at once, and nothing is exchanged: the cookie stays what it was."""
    page = await tab.opens(path)
    assert page.status == 200 and csrf_in(page)
    assert page.cookie(COOKIE) is None
    assert (await tab.refreshes()).status == 200


async def test_w50_it_proves_nothing_elsewhere() -> None:
    """It opens pages and what they send. A call, a proxy and the console take it as little as before, and so does the
    sign-in page: it would lead back to a page of the application, and that to the sign-in page, without an end.
    """
    async with a_world(proxies=[PROXY], console=True) as world:
        await world.make_admin()
        tab = Tab(world)
        await tab.login("root@example.com", mode="hybrid")
        headers = [("sec-fetch-site", "same-origin")]
        for path in ("/auth/me", "/auth/sessions", "/admin/api/accounts"):
            assert (await world.call("GET", path, headers=headers, cookie=tab.copy())).status == 401, path
        assert (await world.check(cookie=tab.copy())).status == 401
        assert led(await tab.opens("/admin")) == (303, "/auth/login?next=%2Fadmin")
        assert (await tab.opens("/auth/login")).status == 200


async def test_w50_a_form_changes_something_and_the_application_goes_on(tab: Tab) -> None:
    """A form without a script changes the name. The tokens of the application are as good as before, and its next
    refresh finds its cookie.
    """
    assert led(await tab.sends("/auth/account/name", name="Ada L.")) == (303, "/auth/account?done=name_changed")
    page = await tab.opens("/auth/account?done=name_changed")
    assert b"Your name is changed." in page.body and b'value="Ada L."' in page.body
    assert (await tab.call("GET", "/auth/me", by_token=True)).json["user"]["name"] == "Ada L."
    assert (await tab.refreshes()).status == 200
    assert b'"sessions"' in (await tab.opens("/auth/account/export")).body


@pytest.mark.parametrize("waits", [0.0, STALE], ids=["at once", "when the cookie is exchanged"])
async def test_w50_another_password_keeps_the_application_signed_in(world: World, tab: Tab, waits: float) -> None:
    """The page sets the cookie that follows from the change. The application's access token is over, and its refresh,
    with the CSRF token that it had, brings the next one. A copy of the old cookie opens nothing.
    """
    before, token = tab.copy(), csrf_in(await tab.opens())
    world.clock.forward(waits)
    fields = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    sent = await tab.sends("/auth/password", csrf=token, **fields)
    assert led(sent) == (303, "/auth/account?done=password_changed") and sent.cookie(COOKIE)
    assert (await tab.opens()).status == 200
    assert (await tab.call("GET", "/auth/me", by_token=True)).status == 401
    assert (await tab.refreshes()).status == 200
    assert (await tab.call("GET", "/auth/me", by_token=True)).status == 200
    assert led(await tab.opens(cookie=before)) == ENDED


async def test_w50_a_fresh_proof_keeps_the_application_signed_in(world: World, tab: Tab) -> None:
    """After a while, what is sensitive leads to the proof again, which starts another session by its own cookie. The
    application finds it: it asks for the CSRF token of its cookie once more, as its module does by itself.
    """
    world.clock.forward(STANDARD.step_up_for + MINUTE)
    asked = await tab.opens("/auth/account/passkey")
    assert led(asked) == (303, "/auth/confirm?next=%2Fauth%2Faccount%2Fpasskey")
    sent = await tab.sends("/auth/reauthenticate", password=PASSWORD, next="/auth/account/passkey")
    assert led(sent) == (303, "/auth/account/passkey")
    assert (await tab.opens("/auth/account/passkey")).status == 200
    assert (await tab.refreshes()).status == 403, "the CSRF token of the session before"
    answer = await tab.call("GET", "/auth/csrf")
    assert answer.json["mode"] == "hybrid"
    assert (await tab.refreshes()).status == 200
    assert await names(world) and "refresh_theft" not in await names(world)


async def test_w50_the_scripts_of_the_pages_are_let_in(tab: Tab) -> None:
    """A passkey begins with a call of the page's script, with the CSRF token of the page."""
    tab.csrf = csrf_in(await tab.opens())
    assert (await tab.call("POST", "/auth/passkeys/register/options")).status == 200
    assert (await tab.call("POST", "/auth/passkeys/register/options", csrf=False)).status == 403


@pytest.mark.parametrize("waits", [0.0, STALE], ids=["at once", "when the cookie is exchanged"])
async def test_w50_the_button_signs_the_application_out(world: World, tab: Tab, waits: float) -> None:
    """Signing out on a page, here or everywhere, ends the session, clears the cookie, and sets none."""
    for path in ("/auth/logout", "/auth/logout/all"):
        tab = Tab(world)
        await tab.login(mode="hybrid")
        token = csrf_in(await tab.opens())
        world.clock.forward(waits)
        copied = tab.copy()
        sent = await tab.sends(path, csrf=token)
        assert led(sent) == (303, "/auth/login") and sent.cookie(COOKIE) == ""
        assert led(await tab.opens(cookie=copied)) == ENDED
        assert (await tab.call("GET", "/auth/me", by_token=True)).status == 401


# --- what another site, or a wrong cookie, gets -----------------------------------------------------------------------


async def test_w51_no_other_site_sends_a_form(world: World, tab: Tab) -> None:
    """A form of another site, of a sibling host, without the CSRF token or with that of another session is refused, and
    changes nothing.
    """
    token = csrf_in(await tab.opens())
    other = Tab(world)
    await world.register("eve@example.com")
    await other.login("eve@example.com", mode="hybrid")
    wrong = csrf_in(await other.opens())
    for site, origin, csrf in (
        ("cross-site", "https://evil.example.net", token),
        ("same-site", "https://other.example.com", token),
        ("same-origin", OWN, ""),
        ("same-origin", OWN, wrong),
    ):
        headers = [("sec-fetch-site", site), ("origin", origin)]
        for path, fields in (
            ("/auth/account/name", {"name": "Eve"}),
            ("/auth/account/delete", {}),
            ("/auth/devices", {"session": "others"}),
        ):
            form = {"csrf_token": csrf, **fields}
            sent = await world.call("POST", path, form=form, headers=headers, cookie=tab.copy())
            assert sent.status == 403, (path, site)
    assert b'value="Eve"' not in (await tab.opens()).body


async def test_w51_a_cookie_that_is_wrong_leads_to_the_sign_in_page(world: World, tab: Tab) -> None:
    """Forged, of another server, twice in one request, or of a session that has ended: no page, and no error page."""
    token = tab.jar[COOKIE]
    for line in (f"{COOKIE}=x", f"{COOKIE}={token[:-2]}AA", f"{COOKIE}={token}; {COOKIE}=ddr1_{'A' * 60}"):
        assert led(await tab.opens(cookie=line)) == ENDED, line
    copied = tab.copy()
    assert (await tab.call("POST", "/auth/logout")).status == 200
    assert led(await tab.opens(cookie=copied)) == ENDED


async def test_w51_a_program_cannot_lend_its_token(world: World) -> None:
    """The refresh token of a registered client, or of a program with a key, opens no page: a page asks for neither the
    client's secret nor a proof. Nothing ends.
    """
    await world.register()
    client_id, _ = await world.add_client(public=True)
    program = world.program()
    await program.login(mode="hybrid", transport="body", client_id=client_id)
    assert led(await Tab(world).opens(cookie=f"{COOKIE}={program.refresh}")) == ENDED
    assert "refresh_theft" not in await names(world)
    bound = Keyed(world)
    await bound.login(mode="hybrid", transport="body")
    assert bound.refresh and led(await Tab(world).opens(cookie=f"{COOKIE}={bound.refresh}")) == ENDED


# --- two holders ------------------------------------------------------------------------------------------------------


async def test_w52_a_cookie_is_exchanged_where_an_access_token_would_have_expired(world: World, tab: Tab) -> None:
    """People who stay on the pages keep their session: from then on a page exchanges the cookie, with whatever it
    answers. Two pages that are loaded at once get the same one, and the application refreshes by it.
    """
    world.clock.forward(STANDARD.access_for - 1)
    assert (await tab.opens()).cookie(COOKIE) is None
    world.clock.forward(2)
    old = tab.copy()
    page = await tab.opens()
    assert page.status == 200 and page.cookie(COOKIE)
    assert (await tab.opens(cookie=old)).cookie(COOKIE) in {None, tab.jar[COOKIE]}
    assert (await tab.opens()).cookie(COOKIE) is None
    assert (await tab.refreshes()).status == 200
    world.clock.forward(STALE)
    led_on = await tab.opens("/auth/account/passkey")
    assert led_on.status == 303 and led_on.cookie(COOKIE), "with a way to another page, too"
    world.clock.forward(STALE)
    refused = await tab.sends("/auth/account/name", csrf="wrong", name="Eve")
    assert refused.status == 403 and refused.cookie(COOKIE), "and with an error"
    assert (await tab.refreshes()).status == 200
    assert not {"refresh_theft", "refresh_replayed"} & set(await names(world))


async def test_w52_a_cookie_that_was_replaced_twice_shows_a_thief(world: World, tab: Tab) -> None:
    """The copy of an earlier cookie opens no page. It is proof of two holders there as at a refresh: the session ends,
    and the owner has a mail.
    """
    copied = tab.copy()
    for _ in range(2):
        world.clock.forward(MINUTE)
        assert (await tab.refreshes()).status == 200
    world.clock.forward(MINUTE)
    assert led(await tab.opens(cookie=copied)) == ENDED
    assert "refresh_theft" in await names(world)
    assert (await tab.refreshes()).status == 401
    assert led(await tab.opens()) == ENDED


async def test_w52_a_copy_that_is_used_is_found_out(world: World, tab: Tab) -> None:
    """A copy of the newest cookie opens pages for as long as an access token lives. Then the thief has to exchange it,
    and the owner's next use shows two holders.
    """
    copied = tab.copy()
    assert (await tab.opens(cookie=copied)).status == 200
    world.clock.forward(STALE)
    thief = Tab(world)
    thief.jar[COOKIE] = copied.partition("=")[2]
    assert (await thief.opens()).status == 200 and thief.copy() != copied
    world.clock.forward(MINUTE)
    assert (await tab.refreshes()).status == 200, "the parent, late: a lost answer, perhaps"
    world.clock.forward(STALE)
    assert (await tab.refreshes()).status == 200
    world.clock.forward(STALE)
    assert led(await thief.opens()) == ENDED
    assert "refresh_theft" in await names(world)


async def test_w52_a_page_that_was_on_its_way_ends_nothing(world: World, tab: Tab) -> None:
    """The application refreshes while a page is loaded: the page comes with the cookie before. It is shown; after two
    refreshes it asks to be loaded again. Nothing is taken for theft.
    """
    before = tab.copy()
    assert (await tab.refreshes()).status == 200
    assert (await tab.opens(cookie=before)).status == 200
    world.clock.forward(MINUTE)
    before = tab.copy()
    for _ in range(2):
        assert (await tab.refreshes()).status == 200
    assert (await tab.opens(cookie=before)).status in {200, 409}
    assert (await tab.opens()).status == 200
    assert "refresh_theft" not in await names(world)


async def test_w52_an_exchange_by_a_page_counts_as_a_refresh() -> None:
    """A page that exchanges the cookie is a refresh of its session, and has the same limit: a copy is not replayed
    without end.
    """
    one = Limit(name="refresh_by_session", count=1, per_seconds=86400.0, burst=1)
    async with a_world(limits=replace(endless(Limits()), refresh_by_session=one)) as world:
        await world.register()
        tab = Tab(world)
        await tab.login(mode="hybrid")
        assert (await tab.refreshes()).status == 200
        assert (await tab.opens()).status == 200
        world.clock.forward(STALE)
        assert (await tab.opens(mode="cors")).status == 429


async def test_w53_strict_rotation_opens_no_page() -> None:
    """Where each refresh token works once, a page that is loaded beside a refresh would end the session. So pages take
    a session cookie alone there, as before, and nothing ends.
    """
    async with a_world(policy=Policy(rotation="strict")) as world:
        await world.register()
        tab = Tab(world)
        await tab.login(mode="hybrid")
        assert led(await tab.opens()) == ENDED
        assert (await tab.refreshes()).status == 200


# --- bound, and in doubt ----------------------------------------------------------------------------------------------


class BoundTab(Bound, Tab):
    async def opens(self, path: str = "/auth/account", **more: str) -> Answer:
        return await Tab.opens(self, path, **more)


async def test_w54_a_bound_session_needs_its_bound_cookie(world: World) -> None:
    """A copied refresh cookie without the bound one beside it opens no page, and ends nothing. A link from elsewhere
    leads to the page that has the browser prove its key.
    """
    await world.register()
    tab = BoundTab(world)
    await tab.bind("hybrid")
    world.clock.forward(ON_THE_WAY)
    assert (await tab.opens()).status == 200
    assert led(await tab.opens(cookie=tab.copy())) == ENDED
    elsewhere = await tab.opens(cookie=tab.copy(), site="same-site")
    assert led(elsewhere) == (303, "/auth/device-binding?next=%2Fauth%2Faccount")
    assert (await tab.opens()).status == 200


async def test_w54_a_cookie_that_has_to_be_bound() -> None:
    """Where the policy demands it, an unbound cookie opens pages no longer than it refreshes."""
    async with a_world(policy=Policy(device_binding="required")) as world:
        await world.register()
        tab = Tab(world)
        await tab.login(mode="hybrid")
        assert (await tab.opens()).status == 200
        world.clock.forward(2 * MINUTE)
        assert led(await tab.opens()) == ENDED
        assert (await tab.refreshes()).code == "device_proof_required"


async def test_w54_a_session_in_doubt_proves_again_on_the_page() -> None:
    """A page that is opened on another continent puts the session in doubt, and leads to the proof again. What follows
    from that is the application's too, and the copy of the cookie is dead.
    """
    async with watched() as world:
        await at_home(world)
        tab = Tab(world, peer=HERE)
        await tab.login(mode="hybrid")
        assert (await tab.opens()).status == 200
        copied = tab.copy()
        tab.peer = SYDNEY
        assert led(await tab.opens()) == (303, "/auth/confirm?next=%2Fauth%2Faccount")
        tab.peer = HERE
        assert led(await tab.opens()) == (303, "/auth/confirm?next=%2Fauth%2Faccount"), "wherever it is used"
        world.clock.forward(STALE)
        page = await tab.opens("/auth/confirm")
        assert page.status == 200
        sent = await tab.sends("/auth/reauthenticate", csrf=csrf_in(page), password=PASSWORD, next="/auth/account")
        assert led(sent) == (303, "/auth/account")
        assert (await tab.opens()).status == 200
        await tab.call("GET", "/auth/csrf")
        assert (await tab.refreshes()).status == 200
        assert led(await tab.opens(cookie=copied)) == ENDED
