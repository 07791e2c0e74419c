"""What people see of sessions that are bound to their browser: pages, mail, and what an operator counts."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

import pytest
from msgspec.structs import replace
from tests.devicekey import DeviceKey, challenge_in
from tests.http.test_device_binding import OFFER, Bound, recorded
from tests.http.world import Answer, Browser, World, a_world

from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import STANDARD, DeviceBinding
from dutchdoor.model.principal import Verified
from dutchdoor.server.metrics import Counters
from dutchdoor.stores.base import Swap

PAGE = (("accept", "text/html"), ("sec-fetch-mode", "navigate"))
LINK = (*PAGE, ("sec-fetch-site", "cross-site"))
HERE = (*PAGE, ("sec-fetch-site", "same-origin"))
AMSTERDAM, SYDNEY = "145.97.39.155", "1.128.0.1"
BOUND, NOT_YET, CANNOT = "bound to this device", "device yet", "this browser cannot"


def under(policy: DeviceBinding) -> Any:
    return a_world(policy=replace(STANDARD, device_binding=policy))


async def opened(browser: Browser, path: str, headers: tuple[tuple[str, str], ...] = HERE) -> Answer:
    """What a browser gets that opens a page."""
    return await browser.world.call("GET", path, headers=headers, cookie=browser.cookie())


async def devices(browser: Browser) -> str:
    page = await opened(browser, "/auth/devices")
    assert page.status == 200
    return page.body.decode()


async def test_m06_the_page_of_devices_says_what_is_bound_and_why_not(world: World) -> None:
    """A sign-in is not bound yet, then it is; of one that was not within ten minutes, the page says that its browser
    cannot. Where nothing is bound, the page says nothing of it.
    """
    await world.register()
    browser, other = Bound(world), Browser(world)
    await browser.signed_in()
    await other.login()
    assert (await devices(browser)).count(NOT_YET) == 2
    assert (await browser.register()).status == 200
    assert (await devices(browser)).count(NOT_YET) == 2
    assert (await browser.prove()).status == 200
    page = await devices(browser)
    assert (page.count(BOUND), page.count(NOT_YET)) == (1, 1)
    world.clock.forward(601)
    assert (await browser.prove()).status == 200
    page = await devices(browser)
    assert (page.count(BOUND), page.count(CANNOT)) == (1, 1)
    async with under("off") as none:
        await none.register()
        await (alone := Browser(none)).login()
        assert "bound" not in await devices(alone)


@pytest.mark.parametrize("path", ["/auth/account", "/auth/devices?page=1", "/auth/login?next=/auth/account"])
async def test_m07_a_page_of_ours_is_loaded_again_once(world: World, path: str) -> None:
    """A page that a link of another site opens, of a person whose session is bound, is loaded again; with the proof it
    is there. Without one, the person signs in. A script gets the error.
    """
    await world.register()
    browser = Bound(world)
    await browser.bind()
    kept = browser.jar.pop(browser.bound())
    for site in ("cross-site", "same-site", "none"):
        came = await opened(browser, path, (*PAGE, ("sec-fetch-site", site)))
        assert came.status == 303
        way = came.header("location") or ""
        assert unquote(way) == f"/auth/device-binding?next={path}"
        page = await opened(browser, way, LINK)
        assert (page.status, page.header("refresh")) == (200, f"0;url={path}")
    for headers in (HERE, (("accept", "text/html"),)):
        again = await opened(browser, path, headers)
        assert "device-binding" not in (again.header("location") or "")
    script = await world.call("GET", "/auth/me", headers=[("sec-fetch-site", "same-origin")], cookie=browser.cookie())
    assert (script.status, script.code) == (401, "device_proof_required")
    browser.jar[browser.bound()] = kept
    assert (await opened(browser, path, LINK)).status in {200, 303}


async def test_m07_no_one_is_led_elsewhere(world: World) -> None:
    """The page that loads another one again leads to paths of this host alone."""
    for there in ("//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", ""):
        page = await world.call("GET", f"/auth/device-binding?next={quote(there)}", headers=LINK)
        assert (page.status, page.header("refresh")) == (200, "0;url=/")


async def test_m07_a_cookie_that_proves_nothing_is_cleared(world: World) -> None:
    """A bound cookie that is not accepted any more would keep the browser from fetching another: it is cleared on the
    way, for people and for scripts.
    """
    await world.register()
    browser = Bound(world)
    await browser.bind()
    world.clock.forward(601)
    for headers in (LINK, HERE, (("sec-fetch-site", "same-origin"),)):
        answer = await opened(browser, "/auth/account", headers)
        assert answer.status in {303, 401}
        assert any(line.startswith(f"{browser.bound()}=;") for line in answer.set_cookies()), headers


async def test_m08_where_each_sign_in_has_to_be_bound(world: World) -> None:
    """With `required`, a browser that binds nothing is served for a minute, and then refused, with words that say what
    to do; the sign-in page says it before. One that binds its session stays.
    """
    async with under("required") as strict:
        await strict.register()
        browser, cannot = Bound(strict), Browser(strict)
        assert "Chrome on Windows" in (await opened(cannot, "/auth/login")).body.decode()
        await browser.bind()
        await cannot.login()
        assert (await cannot.me()).status == 200
        strict.clock.forward(61)
        refused = await cannot.me()
        assert (refused.status, refused.code) == (401, "device_proof_required")
        assert "this browser does not bind it" in refused.json["detail"]
        sent = await opened(cannot, "/auth/account")
        assert (sent.status, sent.header("location")) == (303, "/auth/login?next=%2Fauth%2Faccount")
        assert "this browser does not bind it" in (await opened(cannot, sent.header("location") or "")).body.decode()
        assert (await browser.me()).status == 200
    await world.register()
    await (unbound := Browser(world)).login()
    world.clock.forward(3600)
    assert (await unbound.me()).status == 200
    assert "Chrome" not in (await opened(Browser(world), "/auth/login")).body.decode()


async def test_m09_two_keys_for_one_session_are_told_to_the_owner(world: World) -> None:
    """A second key means that two browsers hold the session. It ends, its owner gets a mail, and the activity page says
    it in words.
    """
    account = await world.store.account((await world.register())["id"])
    assert account is not None
    await world.store.commit(Swap(replace(account, email_verified_at=1.0)))
    browser = Bound(world)
    await browser.signed_in()
    world.clock.forward(40)
    kept = challenge_in((await browser.me()).header(OFFER))  # by a thief, who copied the cookie before it was bound
    assert (await browser.register()).status == 200
    assert (await browser.prove()).status == 200
    await world.posted()
    world.mailbox.mails.clear()
    assert (await browser.register(kept, DeviceKey())).status == 403
    await world.posted()
    (event,) = await recorded(world, "device_key_conflict")
    assert event.session_id == browser.session_id
    assert [mail.subject for mail in world.mailbox.mails] == ["Someone else may have used your sign-in - dutchdoor"]
    assert (await browser.me()).status == 401
    await (again := Browser(world)).login()
    assert "used on two devices" in (await opened(again, "/auth/activity")).body.decode()


async def test_m10_refusals_are_counted_by_what_browsers_say(world: World) -> None:
    """Each refused request counts once, by the browser's reason; what is no known reason is `other`, so that no one
    makes labels. A metric is no permission: the request stays refused.
    """
    counters = Counters()
    counters.watch(world.auth)
    await world.register()
    browser = Bound(world)
    await browser.bind()
    del browser.jar[browser.bound()]
    said = ("unreachable", 'quota_exceeded;session_identifier="x"', "server_error, unreachable", "x" * 500, "unbound")
    for reason in said:
        refused = await browser.call("GET", "/auth/me", headers=[("secure-session-skipped", reason)])
        assert refused.status in {401, 503}
    assert (await browser.me()).status == 401
    text = counters.text().decode()
    for why, count in {"none": 1, "unreachable": 1, "quota_exceeded": 1, "server_error": 1, "other": 2}.items():
        assert f'dutchdoor_unproved_total{{why="{why}"}} {count}.0' in text
    assert text.count("dutchdoor_unproved_total{") == 6


async def test_m15_a_proof_that_got_no_answer_is_no_log_out(world: World) -> None:
    """A script that asks while its browser cannot prove the key for an outage gets 503, which no program takes for a
    log-out. A person who opens a page may sign in: a proxy that never lets the proof through locks no one out.
    """
    await world.register()
    browser = Bound(world)
    await browser.bind()
    del browser.jar[browser.bound()]
    for reason in ("unreachable", 'server_error;session_identifier="x"'):
        headers = [("secure-session-skipped", reason)]
        refused = await browser.call("GET", "/auth/me", headers=headers)
        assert (refused.status, refused.code) == (503, "unavailable")
        assert refused.header("retry-after") is not None
        opened = await browser.call(
            "GET",
            "/auth/account",
            headers=[
                *headers,
                ("accept", "text/html"),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", "document"),
                ("sec-fetch-site", "same-origin"),
            ],
        )
        assert opened.status == 303
    quota = await browser.call("GET", "/auth/me", headers=[("secure-session-skipped", "quota_exceeded")])
    assert (quota.status, quota.code) == (401, "device_proof_required")


async def test_m11_a_sign_in_of_the_applications_own_asks_the_browser(world: World) -> None:
    """An application that sets the cookies of a sign-in itself can ask the browser, too; nothing is asked of a token
    without a session, and nothing without TLS.
    """
    account = await world.register()
    await (browser := Browser(world)).login()
    session = await world.row(browser)
    signed_in = await started(world, session.subject)
    offer = world.auth.device_offer(signed_in)
    assert challenge_in(offer["secure-session-registration"])
    assert world.auth.device_offer(replace(signed_in, session=None)) == {}
    async with a_world(public_url=None) as plain:
        await plain.register()
        await (other := Browser(plain)).login()
        assert plain.auth.device_offer(await started(plain, (await plain.row(other)).subject)) == {}
    assert account
    assert OFFER in offer


@pytest.mark.parametrize(("url", "says"), [(None, True), ("https://login.example.com", False)])
async def test_m13_required_without_tls_is_named_in_the_log(
    url: str | None, *, says: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Browsers bind nothing without TLS, and cookies are served unbound: the log says how to change that."""
    async with a_world(policy=replace(STANDARD, device_binding="required"), public_url=url) as world:
        await world.register()
        await (browser := Browser(world)).login()
        world.clock.forward(61)
        assert (await browser.me()).status == (200 if says else 401)
    assert ("Set an https public_url" in caplog.text) is says


class Places:
    """A home in Amsterdam, and everything else in Sydney."""

    def country(self, address: str) -> str:
        return "NL" if address == AMSTERDAM else "AU"


@pytest.mark.parametrize(("minutes", "status"), [(5, 401), (12, 200)])
async def test_m12_a_jump_that_no_copy_can_make_is_no_theft(minutes: int, status: int) -> None:
    """Where a bound session is used on another continent, its owner is asked only if both cookies could be copies: the
    bound one lives ten minutes, and the browser that gets the next one has the key.
    """
    async with a_world(policy=replace(STANDARD, suspicion="standard"), countries=Places(), limits=None) as world:
        await world.register()
        browser = Bound(world)
        browser.peer = AMSTERDAM
        await browser.bind()
        assert (await browser.me()).status == 200
        world.clock.forward(60 * minutes)
        browser.peer = SYDNEY
        if minutes > 10:
            assert (await browser.prove()).status == 200
        assert (await browser.me()).status == status


async def started(world: World, subject: str) -> Any:
    account = await world.store.account(subject)
    assert account is not None
    proof = Verified(subject=subject, epoch=account.epoch, amr=("pwd",), at=world.clock())
    return await world.auth.authority.start(proof, mode="session", client=Client(), account=account)
