"""Whole lives of sign-ins that a browser binds to its device, with the soft browser: nothing locks the owner out, and a
copy is worth nothing.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any, Literal

import pyotp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.http.world import PASSWORD, Answer, World, a_world
from tests.pages.house import Outage
from tests.softbrowser import SoftBrowser

from dutchdoor.model.device_binding import ON_THE_WAY
from dutchdoor.model.policy import Policy
from dutchdoor.stores.memory import MemoryStore

REGISTER, REFRESH = "/auth/device-binding", "/auth/device-binding/refresh"
SESSION, RENEWS, BOUND = "__Host-dd_session", "__Host-dd_refresh", "__Host-dd_bound"
Mode = Literal["session", "hybrid"]
BOTH = pytest.mark.parametrize("mode", ["session", "hybrid"])
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


class Owner(SoftBrowser[Answer]):
    """The browser of a person. `loses` says what is lost of the next answers of a path, all or the body: of one try,
    and of a registration of all three that a browser makes.
    """

    def __init__(self, world: World, mode: Mode = "session", **more: Any) -> None:
        super().__init__(self.over, world.origin, clock=world.clock, **more)
        self.world, self.mode, self.access = world, mode, ""
        self.loses: dict[str, Literal["all", "body"]] = {}
        self.tries = 0

    async def over(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        answer = await self.world.call(method, path, headers=headers, body=body)
        lost = self.loses.get(path)
        if lost:
            self.tries += 1
            if path == REFRESH or self.tries % 3 == 0:
                del self.loses[path]
        if lost == "body":
            self.keep(answer)
        if lost:
            raise ConnectionResetError("the answer is lost")
        return answer

    async def signs_in(self, mode: Mode | None = None) -> Answer:
        self.mode, self.csrf = mode or self.mode, ""
        body = {"email": "ada@example.com", "password": PASSWORD, "mode": self.mode}
        answer = await self.fetch("POST", "/auth/login", json=body)
        assert answer.status == 200, answer
        self.csrf = answer.json["csrf_token"]
        return answer

    async def uses(self) -> Answer:
        """Use the long-lived cookie, as the pages of this mode do."""
        if self.mode == "session":
            return await self.fetch("GET", "/auth/me")
        answer = await self.fetch("POST", "/auth/refresh")
        if answer.status == 200:
            self.access = answer.json["access_token"]
        return answer

    async def proves(self) -> None:
        """Prove again who one is, inside of the sign-in."""
        bearer = [("authorization", f"Bearer {self.access}")] if self.mode == "hybrid" else []
        answer = await self.fetch("POST", "/auth/reauthenticate", json={"password": PASSWORD}, headers=bearer)
        assert (answer.status, answer.json["session"]["bound"]) == (200, True), answer
        self.csrf, self.access = answer.json["csrf_token"], answer.json.get("access_token", "")

    def headers(self) -> list[tuple[str, str]]:
        """What a copy of this page sends along."""
        return [("x-csrf-token", self.csrf)]

    async def bound(self) -> Owner:
        """Sign in, and go on until the key is confirmed."""
        await self.signs_in()
        assert (await self.uses()).status == 200
        assert (await self.uses()).status == 200
        assert any(each.startswith("refreshed") for each in self.events), self.events
        self.world.clock.forward(ON_THE_WAY)
        return self


class Thief:
    """A person with copies, and without the device."""

    def __init__(self, world: World, copied: dict[str, str]) -> None:
        self.world, self.copied = world, copied

    async def tries(self, method: str, path: str, *, headers: Any = (), only: str = "", **more: Any) -> str | int:
        """Send a request with what was copied, or `only` one of it. Gives the code of a refusal, else the status."""
        line = "; ".join(f"{name}={value}" for name, value in self.copied.items() if not only or name == only)
        sent = [("sec-fetch-site", "same-origin"), ("origin", self.world.origin), *headers]
        answer = await self.world.call(method, path, headers=sent, cookie=line, **more)
        return answer.status if answer.status < 400 else answer.code


async def names_of(world: World) -> list[str]:
    return [event.name for event in await world.events()]


@BOTH
async def test_l40_a_week_of_use(world: World, mode: Mode) -> None:
    """The owner comes back after minutes, hours and days, and is never refused: each time costs one refresh."""
    await world.register()
    owner = await Owner(world, mode).bound()
    for pause in (MINUTE, 11 * MINUTE, HOUR, 8 * HOUR, DAY, 2 * DAY, 5 * MINUTE):
        world.clock.forward(pause)
        before = len(owner.sent)
        assert (await owner.uses()).status == 200
        assert len(owner.sent) - before == (3 if pause > 10 * MINUTE else 1)
    assert (await names_of(world)).count("session_bound") == 1


async def test_l40_a_device_without_elliptic_curves(world: World) -> None:
    """A browser whose device has RSA alone is bound, too."""
    await world.register()
    owner = await Owner(world, algs=("RS256",)).bound()
    world.clock.forward(HOUR)
    assert (await owner.uses()).status == 200
    assert await Thief(world, owner.cookies()).tries("GET", "/auth/me", only=SESSION) == "device_proof_required"


@BOTH
async def test_l40_a_browser_that_binds_nothing(world: World, mode: Mode) -> None:
    """It ignores the offers and is what it was, under the policy `optional`."""
    await world.register()
    owner = Owner(world, mode, binds=False)
    await owner.signs_in()
    for _ in range(3):
        world.clock.forward(HOUR)
        assert (await owner.uses()).status == 200


@BOTH
async def test_l41_two_sign_ins_without_a_log_out(world: World, mode: Mode) -> None:
    """The browser has keys for both sessions and one cookie: it forgets the first one, and is held no longer for it."""
    await world.register()
    owner = await Owner(world, mode).bound()
    await owner.bound()
    world.clock.forward(HOUR)
    assert (await owner.uses()).status == 200
    assert len(owner.registered) == 1


@BOTH
async def test_l41_from_one_mode_to_the_other(world: World, mode: Mode) -> None:
    """A sign-in in the other mode leaves nothing behind that refuses the owner."""
    await world.register()
    owner = await Owner(world, "hybrid" if mode == "session" else "session").bound()
    await owner.signs_in(mode)
    for _ in range(3):
        assert (await owner.uses()).status == 200
        world.clock.forward(HOUR)


@BOTH
async def test_l41_out_and_in_again(world: World, mode: Mode) -> None:
    """After a log-out nothing of the first sign-in is in the way of the next one, which is bound again."""
    await world.register()
    owner = await Owner(world, mode).bound()
    assert (await owner.fetch("POST", "/auth/logout")).status in {200, 202, 204}
    assert BOUND not in owner.cookies()
    await owner.bound()
    world.clock.forward(HOUR)
    assert (await owner.uses()).status == 200


@BOTH
async def test_l41_a_proof_anew_stays_bound(world: World, mode: Mode) -> None:
    """The sign-in of a person who proves again who they are goes on under another cookie, which needs the same key from
    its first moment. The browser registers no other one, and goes on for days.
    """
    await world.register()
    owner = await Owner(world, mode).bound()
    copied, registered = owner.cookies(), list(owner.registered)
    csrf = owner.headers()
    for _ in range(3):
        await owner.uses()
        await owner.proves()
        alone = owner.cookies()
        del alone[BOUND]
        assert await Thief(world, alone).tries(*use_of(mode), headers=owner.headers()) == "device_proof_required"
        for pause in (MINUTE, HOUR, DAY):
            assert (await owner.uses()).status == 200
            world.clock.forward(pause)
    assert list(owner.registered) == registered
    await owner.uses()
    copied[BOUND] = owner.cookies()[BOUND]
    assert await Thief(world, copied).tries(*use_of(mode), headers=csrf) in {"invalid_token", "not_authenticated"}


@BOTH
async def test_l41_a_restart_of_the_browser(world: World, mode: Mode) -> None:
    """The cookies have ends, so that they and the key survive it."""
    await world.register()
    owner = await Owner(world, mode).bound()
    world.clock.forward(8 * HOUR)
    owner.restart()
    assert (await owner.uses()).status == 200


@BOTH
@pytest.mark.parametrize("lost", ["all", "body"])
@pytest.mark.parametrize("path", [REGISTER, REFRESH])
async def test_l42_an_answer_to_the_browser_is_lost(
    world: World, mode: Mode, lost: Literal["all", "body"], path: str
) -> None:
    """At whichever point: the owner is never refused, and is bound minutes later."""
    await world.register()
    owner = Owner(world, mode)
    owner.loses[path] = lost
    await owner.signs_in()
    for _ in range(6):
        assert (await owner.uses()).status == 200
        world.clock.forward(40)
    world.clock.forward(HOUR)
    assert (await owner.uses()).status == 200
    assert "session_bound" in await names_of(world)
    assert await Thief(world, owner.cookies()).tries(
        *(("GET", "/auth/me") if mode == "session" else ("POST", "/auth/refresh")),
        only=SESSION if mode == "session" else RENEWS,
        headers=[("x-csrf-token", owner.csrf)],
    ) == "device_proof_required"  # fmt: skip


async def test_l42_several_offers_at_once(world: World) -> None:
    """Five answers that offer bring five keys. The last one counts, and no one takes it for a theft."""
    await world.register()
    owner = Owner(world)
    owner.loses[REGISTER] = "all"
    await owner.signs_in()
    owner.registered.clear()
    world.clock.forward(40)
    answers = await asyncio.gather(*(owner.fetch("GET", "/auth/me") for _ in range(5)))
    assert [answer.status for answer in answers] == [200] * 5
    for _ in range(3):
        assert (await owner.uses()).status == 200
        world.clock.forward(HOUR)
    assert {"device_key_conflict", "session_ended"}.isdisjoint(await names_of(world))


async def test_l43_a_link_on_another_site(world: World) -> None:
    """It arrives without the bound cookie. The page loads itself again and the person is where the link leads to. Where
    the browser has lost its key, that is the page to sign in.
    """
    await world.register()
    owner = await Owner(world).bound()
    world.clock.forward(HOUR)
    answer = await owner.open("/auth/account", "cross-site")
    assert answer.status == 200
    assert b"ada@example.com" in answer.body
    owner.registered.clear()
    world.clock.forward(HOUR)
    answer = await owner.open("/auth/account", "cross-site")
    assert owner.sent[-1][1].startswith("/auth/login")


@BOTH
async def test_l44_an_outage_is_no_sign_out(mode: Mode) -> None:
    """While the store is away, each answer is 503, and the browser keeps its key. Afterwards all is well."""
    store = Outage(MemoryStore())
    async with a_world(store=store) as world:
        await world.register()
        owner = await Owner(world, mode).bound()
        for pause in (MINUTE, HOUR, 8 * HOUR):
            world.clock.forward(pause)
            world.auth.authority.forget_remembered()
            store.down = True
            before = len(owner.sent)
            for _ in range(3):
                assert (await owner.uses()).status == 503
            assert {status for _, _, status in owner.sent[before:]} == {503}
            store.down = False
            assert (await owner.uses()).status == 200
        assert not [event for event in owner.events if event.startswith("forgot")]


async def test_l44_too_many_proofs_are_no_sign_out(world: World) -> None:
    """A flood of refreshes of one session is answered 503, never 4xx, which the browser would take for an end."""
    await world.register()
    owner = await Owner(world).bound()
    session = next(iter(owner.registered))
    thief = Thief(world, owner.cookies())
    said = [await thief.tries("POST", REFRESH, headers=[("sec-secure-session-id", session)]) for _ in range(80)]
    assert said[0] == "device_key_refused" and said[-1] == "unavailable", set(said)
    world.clock.forward(HOUR)
    assert (await owner.uses()).status == 200


async def test_l45_the_limit_of_chromium(world: World) -> None:
    """Six signatures in nine minutes are enough for two sign-ins and a working day after them."""
    await world.register()
    owner = Owner(world, quota=True)
    await owner.bound()
    await owner.bound()
    for _ in range(50):
        world.clock.forward(11 * MINUTE)
        assert (await owner.uses()).status == 200


async def test_l46_who_must_bind() -> None:
    """Under `required`, a browser that binds is served on, and another is refused after a minute."""
    async with a_world(policy=Policy(device_binding="required")) as world:
        await world.register()
        owner = await Owner(world).bound()
        plain = Owner(world, binds=False)
        await plain.signs_in()
        assert (await plain.uses()).status == 200
        world.clock.forward(2 * MINUTE)
        assert (await plain.uses()).code == "device_proof_required"
        assert (await owner.uses()).status == 200


# --- what thieves have of it ------------------------------------------------------------------------------------------


def use_of(mode: Mode) -> tuple[str, str]:
    return ("GET", "/auth/me") if mode == "session" else ("POST", "/auth/refresh")


@BOTH
async def test_l50_copied_cookies(world: World, mode: Mode) -> None:
    """The long-lived one alone is worth nothing at once; with the bound one it is worth something until that expires,
    ten minutes after its challenge. Neither gets another bound cookie, and the owner stays signed in.
    """
    await world.register()
    owner = await Owner(world, mode).bound()
    thief = Thief(world, owner.cookies())
    csrf = [("x-csrf-token", owner.csrf)]
    long = SESSION if mode == "session" else RENEWS
    assert await thief.tries(*use_of(mode), only=long, headers=csrf) == "device_proof_required"
    if mode == "session":
        assert await thief.tries(*use_of(mode)) == 200
    world.clock.forward(9 * MINUTE)
    assert (await owner.uses()).status == 200
    world.clock.forward(MINUTE + 1)
    assert await thief.tries(*use_of(mode), headers=csrf) == "device_proof_required"
    session = next(iter(owner.registered))
    for headers in ([], [("sec-secure-session-id", session)]):
        said = await thief.tries("POST", REFRESH, headers=headers)
        assert said == ("device_key_refused" if headers else 200)
    assert (await owner.uses()).status == 200


@BOTH
async def test_l51_a_copied_proof(world: World, mode: Mode) -> None:
    """Sent again, a proof brings what it has brought: a cookie that ends when the first one does. It is no proof for
    another session, and one to register is none to refresh.
    """
    await world.register()
    owner = Owner(world, mode)
    proofs: dict[str, str] = {}

    async def watched(method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        for name, value in headers:
            if name == "secure-session-response":
                proofs[path] = value
        return await owner.over(method, path, headers, body)

    owner._send = watched
    await owner.bound()
    began = world.clock()
    copied, session = owner.cookies(), next(iter(owner.registered))
    thief = Thief(world, copied)

    async def replayed(path: str, of: str, sid: str = session) -> Answer:
        line = "; ".join(f"{name}={value}" for name, value in copied.items())
        headers = [("sec-fetch-site", "same-origin"), ("origin", world.origin), ("sec-secure-session-id", sid)]
        return await world.call("POST", path, headers=[*headers, ("secure-session-response", proofs[of])], cookie=line)

    world.clock.forward(4 * MINUTE)
    again = await replayed(REFRESH, REFRESH)
    assert again.status == 200
    thief.copied = {**copied, BOUND: str(again.cookie(BOUND))}
    assert (await replayed(REFRESH, REGISTER)).status == 403
    assert (await replayed(REGISTER, REFRESH)).status == 403
    world.clock.forward(2 * MINUTE)
    assert (await replayed(REFRESH, REFRESH)).status == 403
    world.clock.forward(began + 10 * MINUTE + 1 - world.clock())
    csrf = [("x-csrf-token", owner.csrf)]
    assert await thief.tries(*use_of(mode), headers=csrf) == "device_proof_required"
    assert (await owner.uses()).status == 200
    other = await Owner(world, mode).bound()
    assert (await replayed(REFRESH, REFRESH, next(iter(other.registered)))).json["continue"] is False


@BOTH
async def test_l52_a_key_of_the_thief(world: World, mode: Mode) -> None:
    """After the owner's key is confirmed, no offer is made to a copy of the cookies. One that was kept from before, and
    answered with another key, ends the session: it has two holders.
    """
    await world.register()
    owner = Owner(world, mode)
    first = await owner.signs_in()
    await owner.uses()
    await owner.uses()
    world.clock.forward(MINUTE)
    thief = Owner(world, mode)
    thief.jar, thief.csrf = dict(owner.jar), owner.csrf
    answer = await thief.uses()
    assert answer.header("secure-session-registration") is None
    assert not thief.registered
    offer = str(first.header("secure-session-registration"))
    await thief._register(offer, "same-origin")
    assert "device_key_conflict" not in await names_of(world), "within seconds it may be the browser itself"


@BOTH
async def test_l53_a_thief_is_first(world: World, mode: Mode) -> None:
    """Before a key of the owner is confirmed, a copy of the cookie is the session. With a key of the thief it is the
    thief's: the owner is refused and signs in anew. That is what `optional` cannot stop, and there is an event.
    """
    await world.register()
    owner = Owner(world, mode, binds=False)
    await owner.signs_in()
    world.clock.forward(MINUTE)
    thief = Owner(world, mode)
    thief.jar, thief.csrf = dict(owner.jar), owner.csrf
    for _ in range(3):
        await thief.uses()
    world.clock.forward(ON_THE_WAY)
    assert (await thief.uses()).status == 200
    assert (await owner.uses()).code == "device_proof_required"
    assert "session_bound" in await names_of(world)


@BOTH
async def test_l55_a_thief_who_adds_a_factor(world: World, mode: Mode) -> None:
    """A thief with both cookies, minutes after a sign-in without a second factor, can add an app, and gets a session
    that replaces the owner's. It needs the owner's key as that did: it is worth nothing when the bound cookie expires,
    no key of the thief is taken for it, and none is offered. The owner signs in anew, and has the notice.
    """
    await world.register()
    owner = await Owner(world, mode).bound()
    await owner.uses()
    thief = Owner(world, mode)
    thief.jar, thief.csrf, thief.access = dict(owner.jar), owner.csrf, owner.access
    bearer = [("authorization", f"Bearer {owner.access}")] if mode == "hybrid" else []
    given = await thief.fetch("POST", "/auth/factors/totp/enrol", headers=bearer)
    assert given.status == 201
    body = {"token": given.json["token"], "code": pyotp.TOTP(given.json["secret"]).at(int(world.clock()))}
    added = await thief.fetch("POST", "/auth/factors/totp/confirm", json=body, headers=bearer)
    assert (added.status, added.json["session"]["bound"]) == (200, True)
    thief.csrf = added.json["csrf_token"]
    assert (await thief.uses()).status == 200
    assert thief.registered == {}
    world.clock.forward(10 * MINUTE)
    assert (await thief.uses()).code == "device_proof_required"
    for asked in (added.json["session"]["id"], next(iter(owner.registered))):
        headers = [("sec-secure-session-id", asked)]
        answer = await thief.fetch("POST", REFRESH, headers=headers, mode="no-cors")
        assert BOUND not in thief.cookies(), answer
    assert (await owner.uses()).status == 401


async def test_l54_at_a_proxy(world: World) -> None:
    """`/auth/check` refuses the copied session cookie alone, and both once the bound one has expired."""
    await world.register()
    owner = await Owner(world).bound()
    copied = owner.cookies()

    async def asked(names: tuple[str, ...]) -> str | int:
        answer = await world.check(cookie="; ".join(f"{name}={copied[name]}" for name in names))
        return answer.status if answer.status < 400 else answer.code

    assert await asked((SESSION,)) == "device_proof_required"
    assert await asked((SESSION, BOUND)) in {200, 204}
    world.clock.forward(10 * MINUTE)
    assert await asked((SESSION, BOUND)) == "device_proof_required"


async def test_l54_what_a_service_gets(world: World) -> None:
    """The access token of a bound page is a bearer token that names no key: a service takes it until it expires, ten
    minutes at most, and a thief gets no further one.
    """
    await world.register()
    owner = await Owner(world, "hybrid").bound()
    access = owner.access
    claims = json.loads(base64.urlsafe_b64decode(access.split(".")[1] + "=="))
    assert "cnf" not in claims
    assert claims["exp"] - claims["iat"] <= 10 * MINUTE
    copied = dict(owner.cookies())
    world.clock.forward(10 * MINUTE + 1)
    assert (await world.call("GET", "/auth/me", bearer=access)).status == 401
    csrf = [("x-csrf-token", owner.csrf)]
    assert await Thief(world, copied).tries("POST", "/auth/refresh", headers=csrf) == "device_proof_required"
    out_of_the_cookie = await world.call("POST", "/auth/refresh", json={"refresh_token": copied[RENEWS]})
    assert out_of_the_cookie.code == "device_proof_required"
    assert (await owner.uses()).status == 200


# --- everything at once -----------------------------------------------------------------------------------------------

STEPS = ("use", "use", "pause", "long pause", "lose register", "lose refresh", "half register", "half refresh", "again",
         "other mode", "out", "restart", "down", "link", "together", "prove")  # fmt: skip


@given(steps=st.lists(st.sampled_from(STEPS), min_size=3, max_size=14), quota=st.booleans())
def test_l60_nothing_that_happens_locks_the_owner_out(steps: list[str], quota: bool) -> None:
    """Answers are lost, stores go away, people sign in twice, come by links and restart their browser, in any order:
    whenever all is whole again, an owner who has not signed out is served, and no one is taken for a thief.
    """
    asyncio.run(a_life(steps, quota=quota))


async def a_life(steps: list[str], *, quota: bool) -> None:
    store = Outage(MemoryStore())
    async with a_world(store=store) as world:
        await world.register()
        owner = Owner(world, quota=quota)
        await owner.signs_in()
        for step in steps:
            await take(step, owner, store)
        owner.loses.clear()
        # After the browser's own limit, if that is what it has run into.
        world.clock.forward(9 * MINUTE + 1)
        await owner.uses()
        answer = await owner.uses()
        assert answer.status == 200, (answer, owner.events, owner.sent)
        assert {"device_key_conflict", "refresh_theft"}.isdisjoint(await names_of(world))


async def take(step: str, owner: Owner, store: Outage) -> None:
    clock = owner.world.clock
    kind, _, path = step.partition(" ")
    if kind in {"lose", "half"}:
        owner.loses[REGISTER if path == "register" else REFRESH] = "all" if kind == "lose" else "body"
    elif step == "use":
        await owner.uses()
    elif step in {"pause", "long pause"}:
        clock.forward(40 if step == "pause" else HOUR)
    elif step == "again":
        await owner.signs_in()
    elif step == "other mode":
        await owner.signs_in("hybrid" if owner.mode == "session" else "session")
    elif step == "out":
        await owner.fetch("POST", "/auth/logout")
        await owner.signs_in()
    elif step == "restart":
        owner.restart()
    elif step == "down":
        store.down = True
        await owner.uses()
        store.down = False
    elif step == "link":
        await owner.open("/auth/account", "cross-site")
    elif step == "together":
        await asyncio.gather(*(owner.fetch("GET", "/auth/me") for _ in range(3)))
    elif step == "prove":
        answer = await owner.fetch("POST", "/auth/reauthenticate", json={"password": PASSWORD})
        owner.csrf = answer.json.get("csrf_token", owner.csrf)
