"""A browser answers for its session before its owner is asked: what its key lifts, and for whom it does not."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Iterable
from itertools import permutations
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.devicekey import DeviceKey
from tests.http.test_defended_sessions import (
    CHROME,
    CLOUD,
    HERE,
    SYDNEY,
    SYDNEY_TOO,
    TOR,
    Countries,
    Networks,
    asks_again,
    at_home,
    copied,
    suspected,
    watched,
)  # fmt: skip
from tests.http.test_factor_races import store_of
from tests.http.test_mail_codes import ask, give, mailed, verified
from tests.http.test_passkeys import options
from tests.http.test_passkeys import sign_in as by_passkey_alone
from tests.http.test_passkeys import with_key as with_passkey
from tests.http.world import OTHER_PASSWORD, PASSWORD, Answer, Browser, World, a_world
from tests.pages.house import Outage
from tests.standins import Clock

from dutchdoor.model.policy import DAY, HOUR, LONGEST_ACCESS, STANDARD
from dutchdoor.revocation.log import Revocation, RevocationLog, is_doubt, next_doubt
from dutchdoor.services import accounts
from dutchdoor.services.lifting import ANSWERS_WITHIN
from dutchdoor.stores.base import Store
from dutchdoor.stores.memory import MemoryStore

KEY = "__Host-dd_key"
ANSWER = "/auth/reauthenticate/browser"
PAGE = (("sec-fetch-mode", "navigate"), ("accept", "text/html"))


def public(key: DeviceKey) -> str:
    """The public key as the script writes it into its cookie."""
    return f"{key.jwk['x']}.{key.jwk['y']}"


async def with_key(world: World, mode: str = "session") -> tuple[Browser, DeviceKey]:
    """Return the owner's browser, signed in at home on a page with our script, and its key."""
    await at_home(world)
    browser, key = world.browser(peer=HERE), DeviceKey()
    browser.jar[KEY] = public(key)
    await browser.login(mode=mode)
    assert KEY not in browser.jar, "the next sign-in gets another key"
    return browser, key


async def challenge(browser: Browser, next: str = "/account") -> str:
    """Return the challenge of the page that asks; "" if it asks the person."""
    page = await browser.call("GET", f"/auth/confirm?next={next}", headers=PAGE)
    assert page.status == 200, page
    found = re.search(r'data-challenge="([^"]*)"', page.body.decode())
    return found[1] if found else ""


def signed(key: DeviceKey, text: str) -> dict[str, str]:
    signature = base64.b64encode(key.key.sign(text.encode())).decode()
    return {"challenge": text, "signature": signature}


async def answered(browser: Browser, key: DeviceKey, text: str) -> Answer:
    return await browser.call("POST", ANSWER, json=signed(key, text))


async def asked(world: World) -> tuple[Browser, DeviceKey, str]:
    """A browser whose session is in doubt, its key, and the challenge that it is given."""
    owner, key = await with_key(world)
    owner.peer = SYDNEY
    assert asks_again(await owner.me())
    return owner, key, await challenge(owner)


async def names(world: World, wanted: Iterable[str]) -> list[tuple[str, str, str]]:
    found = [(each.name, each.outcome, each.detail) for each in await world.events() if each.name in set(wanted)]
    return found[::-1]


async def test_q30_a_browser_answers_for_its_session() -> None:
    """A traveller's browser signs the challenge of the page: the same session goes on, with its old life, and the place
    is familiar. No mail is sent.
    """
    async with watched() as world:
        owner, key = await with_key(world)
        before = await world.row(owner)
        assert before.browser_key == public(key)
        owner.peer = SYDNEY
        assert asks_again(await owner.me())
        assert (await world.row(owner)).expires_at < before.expires_at
        text = await challenge(owner)
        assert (await answered(owner, key, text)).status == 204
        assert (await owner.me()).status == 200
        after = await world.row(owner)
        assert (after.id, after.secret_hash, after.expires_at) == (before.id, before.secret_hash, before.expires_at)
        assert await names(world, {"session_confirmed"}) == [("session_confirmed", "ok", "too_fast")]
        world.directory.post._closing.set()  # the minute is over
        await world.posted()
        assert [mail.subject for mail in world.mailbox.mails if "stopped" in mail.subject] == []
        # The place is familiar to the account: to its other sessions, too.
        other = await at_home(world)
        other.peer = SYDNEY_TOO
        assert (await other.me()).status == 200
        # And the life of the session is not that of the doubt.
        world.clock.now += 2 * LONGEST_ACCESS
        assert (await owner.me()).status == 200


async def test_q31_a_copy_of_the_cookies_is_asked() -> None:
    """A thief who has all cookies gets the challenge, and has no key to sign it. The owner's browser does not answer
    for the thief: it is elsewhere, and its owner is asked, whose proof makes the copy worthless.
    """
    async with watched() as world:
        owner, key = await with_key(world)
        thief = copied(owner, SYDNEY)
        assert asks_again(await thief.me())
        text = await challenge(thief)
        wrong = await answered(thief, DeviceKey(), text)
        assert (wrong.status, wrong.code) == (403, "device_key_refused")
        assert await challenge(owner) == "", "at home, the person is asked"
        taken = await answered(owner, key, text)  # with the page of the thief, which it never sees
        assert (taken.status, taken.code) == (403, "device_key_refused")
        assert asks_again(await owner.me()) and asks_again(await thief.me())
        proved = await owner.call("POST", "/auth/reauthenticate", json={"password": PASSWORD})
        assert proved.status == 200
        assert (await owner.me()).status == 200 and (await thief.me()).status == 401
        assert (await world.row(owner)).browser_key == public(key), "the session that replaces it keeps the key"
        refusals = await names(world, {"device_key_refused"})
        assert [outcome for _, outcome, _ in refusals] == ["refused"] * 2


async def test_q31_the_owner_gets_a_mail_where_no_browser_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mail about a use that was stopped waits a minute for an answer of the browser, and is sent without one."""
    monkeypatch.setattr(accounts, "ANSWERED_WITHIN", 0.0)
    async with watched() as world:
        owner, _ = await with_key(world)
        assert asks_again(await copied(owner, SYDNEY).me())
        await world.posted()
        assert world.mailbox.mails[-1].subject.startswith("We have stopped a sign-in to your account")


async def test_q31_a_server_that_stops_does_not_lose_the_mail() -> None:
    """A mail that waits for an answer of the browser is sent when the server stops."""
    async with watched() as world:
        owner, _ = await with_key(world)
        assert asks_again(await copied(owner, SYDNEY).me())
        assert not any("stopped" in mail.subject for mail in world.mailbox.mails)
    assert world.mailbox.mails[-1].subject.startswith("We have stopped a sign-in to your account")


@pytest.mark.parametrize(
    ("peer", "agent"), [(CLOUD, None), (TOR, None), (HERE, CHROME)], ids=["hosting", "tor", "other browser"]
)
async def test_q32_only_a_place_is_answered_for(peer: str, agent: str | None) -> None:
    """A data centre, Tor and another browser are no journey: a copied profile is put to use there. The person is asked,
    and a right signature lifts nothing.
    """
    async with watched() as world:
        owner, key = await with_key(world)
        owner.peer, owner.agent = peer, agent or owner.agent
        assert asks_again(await owner.me())
        assert await challenge(owner) == ""
        number = world.auth.authority.log.doubt_of(owner.session_id)
        made = world.auth.authority._doubt_stamps.made("doubt", f"{owner.session_id}.{number}", world.clock())
        assert (await answered(owner, key, made)).status == 403
        assert asks_again(await owner.me())


async def test_q33_an_answer_is_for_one_doubt_and_for_a_moment() -> None:
    """A right answer that is sent again lifts nothing: not the next doubt of the session, and not another session's.
    One that comes too late is refused.
    """
    async with watched() as world:
        owner, key, first = await asked(world)
        world.clock.now += ANSWERS_WITHIN
        assert (await answered(owner, key, first)).status == 403, "too late"
        first = await challenge(owner)
        assert (await answered(owner, key, first)).status == 204
        assert (await answered(owner, key, first)).status == 204, "another tab: nothing is in doubt"
        owner.peer = HERE
        world.clock.now += 60 * DAY / 60
        assert (await owner.me()).status == 200
        owner.peer = "185.65.134.9"  # of no table, in another country
        stranger = await with_key(world)
        other, its_key = stranger
        other.peer = SYDNEY
        assert (await other.me()).status == 200, "familiar"
        assert (await answered(other, its_key, first)).status == 204, "not in doubt, so there is nothing to lift"
        assert len(await names(world, {"session_confirmed"})) == 1


async def test_q33_the_next_doubt_needs_a_new_answer() -> None:
    """The challenge of one doubt is not that of the next one, in the same second, too."""
    async with watched("strict") as world:
        owner, key, old = await asked(world)
        assert (await answered(owner, key, old)).status == 204
        owner.peer = CLOUD
        assert asks_again(await owner.me())
        owner.peer = SYDNEY
        assert (await answered(owner, key, old)).status == 403
        assert asks_again(await owner.me())


async def test_q34_a_key_is_taken_at_a_sign_in_alone() -> None:
    """A thief with the cookie of a session brings a key: by a page, a refresh of the claims, or the answer itself. None
    is taken. A planted or malformed one is none.
    """
    async with watched() as world:
        owner = await at_home(world)
        thief, key = copied(owner, SYDNEY), DeviceKey()
        thief.jar[KEY] = public(key)
        assert asks_again(await thief.me())
        assert await challenge(thief) == ""
        assert (await world.row(owner)).browser_key is None
        for planted in ("x", "A" * 43 + "." + "A" * 43, public(key)[:-1], public(key) + ".", f"{public(key)}; {KEY}=x"):
            browser = world.browser(peer=HERE)
            browser.jar[KEY] = planted
            await browser.login()
            assert (await world.row(browser)).browser_key is None, planted


async def test_q34_each_way_to_sign_in_takes_the_key() -> None:
    """A refresh session keeps it, too; and a proof inside of a session brings a new one."""
    async with watched() as world:
        refreshed, key = await with_key(world, "hybrid")
        assert (await world.row(refreshed)).browser_key == public(key)
        assert (await refreshed.call("POST", "/auth/refresh")).status == 200
        assert (await world.row(refreshed)).browser_key == public(key)
        owner, _ = await with_key(world)
        newer = DeviceKey()
        owner.jar[KEY] = public(newer)
        answer = await owner.call("POST", "/auth/reauthenticate", json={"password": PASSWORD})
        assert answer.status == 200 and KEY not in owner.jar
        assert (await world.row(owner)).browser_key == public(newer)
        owner.jar[KEY] = public(key)
        change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
        assert (await owner.call("POST", "/auth/password", json=change)).status in {200, 202}
        assert (await world.row(owner)).browser_key in {public(newer), public(key)}


async def test_q34_a_passkey_and_a_mailed_code_take_the_key() -> None:
    """Sign-ins without a password begin with the key of their page, too."""
    policy = replace(STANDARD, suspicion="standard", sign_in_by_mail=True)
    async with a_world(policy=policy, countries=Countries(), networks=Networks()) as world:
        _, passkey, _ = await with_passkey(world)
        await verified(world)
        by_passkey, by_code, key = world.browser(peer=HERE), world.browser(peer=HERE), DeviceKey()
        by_passkey.jar[KEY] = by_code.jar[KEY] = public(key)
        assert (await by_passkey_alone(by_passkey, passkey)).status == 200
        token = await ask(by_code)
        answer = await give(by_code, token, await mailed(world))
        assert answer.code == "sign_in_unfinished", answer
        assert KEY in by_code.jar, "no session has begun"
        signed_by = passkey.get(await options(by_code, "/auth/passkeys/step", token=answer.json["token"]))
        step = {"token": answer.json["token"], "method": "passkey", "response": signed_by}
        assert (await by_code.call("POST", "/auth/login/step", json=step)).status == 200
        for browser in (by_passkey, by_code):
            assert (await world.row(browser)).browser_key == public(key) and KEY not in browser.jar


@pytest.mark.parametrize("kind", ["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.long)])
async def test_q35_two_nodes_and_two_tabs_lift_a_doubt_once(
    request: pytest.FixtureRequest, tmp_path: Path, patience: None, kind: str
) -> None:
    """Answers at one moment, at two nodes: all pass, and one event is written. A verifier's table has one entry."""
    where = request.getfixturevalue("postgres_url") if kind == "postgres" else str(tmp_path / "nodes.db")
    first: Store = MemoryStore() if kind == "memory" else store_of(kind, where)
    second = first if kind == "memory" else store_of(kind, where)
    clock = Clock()
    async with watched(store=first, clock=clock) as world:
        owner, key = await with_key(world)
        owner.peer = SYDNEY
        assert asks_again(await owner.me())
        async with watched(store=second, clock=clock) as other:
            there = other.browser(peer=SYDNEY)
            there.jar, there.csrf = dict(owner.jar), owner.csrf
            assert asks_again(await there.me()), "at the other node, too"
            text = await challenge(there)
            answers = await asyncio.gather(*(answered(each, key, text) for each in (owner, there) * 2))
            assert [answer.status for answer in answers] == [204] * 4
            assert (await owner.me()).status == 200
            assert (await there.me()).status == 200
            assert len(await names(world, {"session_confirmed"})) == 1
            assert len(world.auth.authority.log) == len(other.auth.authority.log) == 1


async def test_q35_an_outage_refuses_no_answer() -> None:
    """While the database is away, an answer gets 503, and nothing is lost: the same one lifts the doubt afterwards."""
    store = Outage(MemoryStore())
    async with watched(store=store) as world:
        owner, key = await with_key(world)
        owner.peer = SYDNEY
        assert asks_again(await owner.me())
        text = await challenge(owner)
        store.down = True
        away = await answered(owner, key, text)
        store.down = False
        assert (away.status, away.code) == (503, "unavailable")
        assert (await answered(owner, key, text)).status == 204
        assert (await owner.me()).status == 200
        assert len(await names(world, {"session_confirmed", "device_key_refused"})) == 1


async def test_q36_tries_are_limited() -> None:
    """A thief with the cookie cannot fill the audit log with wrong answers."""
    async with watched() as world:
        owner, key, text = await asked(world)
        statuses = [(await answered(owner, DeviceKey(), text)).status for _ in range(7)]
        assert statuses == [403] * 5 + [429] * 2
        world.clock.now += HOUR / 30
        assert (await answered(owner, key, await challenge(owner))).status == 204


async def test_q36_an_answer_needs_the_cookie_and_its_csrf_token() -> None:
    """A page of another site posts an answer, or a client that has no cookie: both are refused."""
    async with watched() as world:
        owner, key, text = await asked(world)
        without = await owner.call("POST", ANSWER, json=signed(key, text), csrf=False)
        assert (without.status, without.code) == (403, "csrf_token")
        bare = await world.browser(peer=SYDNEY).call("POST", ANSWER, json=signed(key, text))
        assert bare.status == 401
        for wrong in ({"challenge": text}, {"challenge": text, "signature": "AAAA"}, {"challenge": "", "signature": 7}):
            assert (await owner.call("POST", ANSWER, json=wrong)).status == 422
        assert asks_again(await owner.me())


async def test_q36_a_thief_who_asks_again_and_again_ends_at_the_person() -> None:
    """A thief puts the session in doubt each time that the browser has answered. The log does not grow beyond its
    bound: then the owner is asked, or the session ends.
    """
    async with watched("strict") as world:
        owner, key = await with_key(world)
        away = iter(f"1.128.{number}.1" if number % 2 else f"145.9.{number}.1" for number in range(1, 60))
        statuses = []
        for peer in away:
            world.clock.now += 1
            owner.peer = peer
            answer = await owner.me()
            if asks_again(answer):
                text = await challenge(owner)
                statuses.append((await answered(owner, key, text)).status if text else 0)
                if statuses[-1] != 204:
                    break
        assert len(world.auth.authority.log) <= 2
        assert await suspected(world)


def test_q35_the_highest_number_of_a_doubt_counts() -> None:
    """A verifier may get the entries of a session in any order, and more than once. The next doubt is above all, also
    after the log has dropped them, and by a clock that is behind.
    """
    doubt = next_doubt(-1, 1000.0)
    lifted, again = doubt + 1, next_doubt(doubt + 1, 500.0)
    assert is_doubt(doubt) and not is_doubt(lifted) and is_doubt(again) and again > lifted
    assert next_doubt(-1, 1002.0) > lifted, "later, when nothing is known any more"
    assert not is_doubt(-1)
    entries = [Revocation(kind="doubt", id="x", min_epoch=each, expires_at=9.0) for each in (doubt, lifted, again)]
    for size, wanted in ((1, True), (2, False), (3, True)):
        for order in permutations(entries[:size]):
            log = RevocationLog()
            log.apply([*order, order[0]])
            assert log.doubts("x") is wanted
