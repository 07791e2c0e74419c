"""Sessions that defend themselves, over HTTP: what a thief gets who uses a copy elsewhere, and what its owner gets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.http.test_factors import code, enrolled
from tests.http.world import FIREFOX, PASSWORD, PROXY, SESSION, Answer, Browser, Clock, World, a_world

from dutchdoor import issuers
from dutchdoor.errors import SessionInDoubt, StepUpRequired
from dutchdoor.issuers.identity import Identity
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import DAY, HOUR, LONGEST_ACCESS, MINUTE, STANDARD
from dutchdoor.model.sightings import KEPT_FOR, Network, Sightings
from dutchdoor.model.suspicion import Suspected, Suspicion
from dutchdoor.revocation.log import COALESCE_ABOVE
from dutchdoor.services.ongoing import Ongoing
from dutchdoor.services.seen_lately import CARRIED_AT_MOST
from dutchdoor.services.watching import Use
from dutchdoor.stores.base import Store, Swap
from dutchdoor.stores.postgres import PostgresStore
from dutchdoor.stores.sqlite import SqliteStore
from dutchdoor.web import revocations

ADA = "ada@example.com"
HERE, WORK, SYDNEY, SYDNEY_TOO, CLOUD, EXIT, OTHER_EXIT, FRONT = (
    "145.97.39.155", "145.97.40.1", "1.128.0.1", "1.129.0.1", "3.64.0.1", "185.65.134.1", "185.65.135.1", "104.16.0.1",
)  # fmt: skip
TOR = "185.220.101.0"
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"


class Countries:
    def country(self, address: str) -> str:
        return "AU" if address.startswith("1.12") else {EXIT: "SE", OTHER_EXIT: "US"}.get(address, "NL")


class Networks:
    def network(self, address: str) -> Network:
        if address == TOR:
            return Network("tor", "Tor")
        known = {
            CLOUD: Network("hosting", "a cloud"),
            EXIT: Network("vpn", "a VPN"),
            OTHER_EXIT: Network("vpn", "a VPN"),
        }
        return known.get(address, Network("front", "a CDN") if address == FRONT else Network())


def watched(suspicion: Suspicion = "standard", **more: Any) -> Any:
    policy = replace(STANDARD, suspicion=suspicion)
    return a_world(policy=policy, countries=Countries(), networks=Networks(), **more)


async def at_home(world: World, mode: str = "session") -> Browser:
    """Return the owner's browser, signed in at home, with a verified address."""
    if await world.store.account_by_email(ADA) is None:
        await world.register()
        account = await world.store.account_by_email(ADA)
        assert account is not None
        await world.store.commit(Swap(replace(account, email_verified_at=world.clock())))
    browser = world.browser(peer=HERE)
    await browser.login(mode=mode)
    return browser


def copied(browser: Browser, peer: str, agent: str = FIREFOX) -> Browser:
    """Return a thief's browser with a copy of all that proves another's."""
    thief = browser.world.browser(peer=peer, agent=agent)
    thief.jar, thief.csrf, thief.access = dict(browser.jar), browser.csrf, browser.access
    return thief


def asks_again(answer: Answer) -> bool:
    challenge = answer.header("www-authenticate") or ""
    return (
        answer.status == 401 and answer.code == "step_up_required" and "insufficient_user_authentication" in challenge
    )


async def suspected(world: World) -> list[tuple[str, str]]:
    found = await world.store.events(name="session_suspected")
    return [(event.outcome, event.detail) for event in reversed(found)]


async def test_d09_a_stolen_cookie_is_refused_at_its_first_use_and_proved_again() -> None:
    """A cookie that is used on another continent is refused everywhere until its owner proves again. Then the owner
    goes on in another session, and the thief's copy is dead.
    """
    async with watched() as world:
        owner = await at_home(world)
        assert (await owner.me()).status == 200
        thief = copied(owner, SYDNEY)
        assert asks_again(await thief.me())
        assert asks_again(await thief.me()), "and not only once"
        assert asks_again(await owner.me()), "a copy looks like the original"
        wrong = await thief.call("POST", "/auth/reauthenticate", json={"password": "a guess of the thief"})
        assert wrong.status == 401
        assert wrong.code == "wrong_credentials"
        proved = await owner.call("POST", "/auth/reauthenticate", json={"password": PASSWORD})
        assert proved.status == 200, proved
        assert (await owner.me()).status == 200
        assert (await thief.me()).code != "step_up_required"
        assert (await thief.me()).status == 401
        assert await suspected(world) == [("refused", "step_up: too_fast")]
        await world.posted()
        assert world.mailbox.mails[-1].subject.startswith("We have stopped a sign-in to your account")


@pytest.mark.parametrize("began", ["by a use", "by the proof"])
async def test_d09_a_thief_with_the_password_too_needs_the_second_factor(began: str) -> None:
    """Malware copies cookies and saved passwords together. A session in doubt of an account with a second factor asks
    for that, whatever it had proved before, also where the thief begins with the proof. Its page does so, too.
    """
    async with watched() as world:
        owner = await at_home(world)
        secret, _ = await enrolled(world, owner)
        world.clock.now += MINUTE
        assert (await owner.me()).json["acr"] == "aal2"
        thief = copied(owner, SYDNEY)
        if began == "by a use":
            assert asks_again(await thief.me())
        answer = await thief.call("POST", "/auth/reauthenticate", json={"password": PASSWORD})
        assert asks_again(answer)
        assert "aal2" in (answer.header("www-authenticate") or "")
        assert asks_again(await thief.call("POST", "/auth/reauthenticate/code"))
        assert asks_again(await thief.me())
        opened = [("accept", "text/html"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]
        shown = await owner.call("GET", "/auth/confirm?next=%2Fauth%2Faccount", headers=opened)
        assert b'name="method" value="totp"' in shown.body and b"looks like theft" in shown.body
        assert b"current-password" not in shown.body
        fields = {"password": PASSWORD, "next": "/auth/account", "csrf_token": owner.csrf}
        again = await owner.call("POST", "/auth/reauthenticate", form=fields, headers=opened)
        assert again.status == 200 and b'name="method" value="totp"' in again.body and b"/auth/account" in again.body
        proof = {"method": "totp", "response": code(world, secret)}
        assert (await owner.call("POST", "/auth/reauthenticate", json=proof)).status == 200
        assert (await owner.me()).json["acr"] == "aal2"
        assert (await thief.me()).code == "not_authenticated"
        assert await suspected(world) == [("refused", "step_up: too_fast")]


async def test_d09_a_sign_in_that_is_in_doubt_meanwhile_links_nothing() -> None:
    """The way to another issuer and back takes minutes. A thief's log-in there would outlive the session."""
    async with watched() as world:
        owner = await at_home(world)
        account = await world.store.account_by_email(ADA)
        assert account is not None
        assert asks_again(await copied(owner, SYDNEY).me())
        issuer = issuers.google(client_id="x", client_secret="y")
        identity = Identity(issuer=issuer.url, subject="1", email="", email_verified=False, name="")
        link = world.directory.identities.link
        with pytest.raises(SessionInDoubt):
            await link(account, owner.session_id, identity, issuer, client=Client())


async def test_d09_an_issuer_that_asked_for_two_kinds_of_proof_is_enough() -> None:
    """In doubt, a log-in at another issuer proves one kind, unless that issuer is trusted to have asked for two."""
    async with watched() as world:
        await enrolled(world, await at_home(world))
        account = await world.store.account_by_email(ADA)
        assert account is not None
        step_up = world.directory.step_up
        for amr in ((), ("fed",), ("pwd",)):
            await step_up.check_enough(Ongoing(account, None, Client(), "app", ("pwd", "otp")), amr)
            with pytest.raises(StepUpRequired):
                await step_up.check_enough(Ongoing(account, None, Client(), "app", ("pwd", "otp"), in_doubt=True), amr)
        await step_up.check_enough(Ongoing(account, None, Client(), "app", in_doubt=True), ("fed", "mfa"))


async def test_d09_a_session_that_is_not_proved_ends_with_its_doubt() -> None:
    """The log forgets a doubt after an hour. The session is over by then."""
    async with watched() as world:
        owner = await at_home(world)
        assert asks_again(await copied(owner, SYDNEY).me())
        world.clock.now += LONGEST_ACCESS + 1
        answer = await owner.me()
        assert answer.status == 401
        assert not asks_again(answer)


async def test_d09_what_a_session_in_doubt_may_still_do() -> None:
    """Its owner can fetch the CSRF token, prove again, sign out, and sign in anew. Nothing else is answered."""
    async with watched() as world:
        owner = await at_home(world)
        assert asks_again(await copied(owner, SYDNEY).me())
        assert (await owner.call("GET", "/auth/csrf")).status == 200
        for method, path in (
            ("GET", "/auth/sessions"), ("GET", "/auth/events"),
            ("POST", "/auth/logout/all"), ("POST", "/auth/password"),
        ):  # fmt: skip
            assert asks_again(await owner.call(method, path)), path
        assert (await owner.call("POST", "/auth/logout")).status in {200, 202}
        again = await at_home(world)
        assert (await again.me()).status == 200


async def test_d09_a_page_leads_to_the_proof_and_back() -> None:
    """A person in a browser gets the page to prove again, and not a problem document."""
    async with watched() as world:
        owner = await at_home(world)
        assert asks_again(await copied(owner, SYDNEY).me())
        opened = [("accept", "text/html"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]
        page = await owner.call("GET", "/auth/account", headers=opened)
        assert page.status == 303
        assert page.header("location") == "/auth/confirm?next=%2Fauth%2Faccount"
        shown = await owner.call("GET", "/auth/confirm?next=%2Fauth%2Faccount", headers=opened)
        assert shown.status == 200
        assert b"looks like theft" in shown.body
        fields = {"password": PASSWORD, "next": "/auth/account", "csrf_token": owner.csrf}
        done = await owner.call("POST", "/auth/reauthenticate", form=fields, headers=opened)
        assert (done.status, done.header("location")) == (303, "/auth/account")
        assert (await owner.call("GET", "/auth/account", headers=opened)).status == 200


async def test_d10_a_hybrid_sign_in_is_refused_at_refresh_and_by_access_token() -> None:
    """A copied access token is refused at its first use elsewhere, and a copied refresh token at its first refresh. No
    new token is issued, and the owner's own refresh is refused until they prove again.
    """
    async with watched() as world:
        owner = await at_home(world, "hybrid")
        assert (await owner.call("GET", "/auth/me", by_token=True)).status == 200
        thief = copied(owner, SYDNEY)
        assert asks_again(await thief.call("GET", "/auth/me", by_token=True))
        assert asks_again(await owner.call("POST", "/auth/refresh"))
        proved = await owner.call("POST", "/auth/reauthenticate", json={"password": PASSWORD}, by_token=True)
        assert proved.status == 200, proved
        assert (await owner.call("POST", "/auth/refresh")).status == 200

        world.clock.now += MINUTE
        thief = copied(owner, SYDNEY_TOO)
        refused = await thief.call("POST", "/auth/refresh")
        assert asks_again(refused)
        assert not refused.set_cookies()
        assert asks_again(await owner.call("GET", "/auth/me", by_token=True))


async def test_d10_a_stateless_token_is_refused_elsewhere_until_another_sign_in() -> None:
    """A token that is all there is of a sign-in is watched by its `jti`: a copy on another continent is refused."""
    async with watched() as world:
        owner = await at_home(world, "jwt")
        assert (await owner.call("GET", "/auth/me", by_token=True)).status == 200
        thief = copied(owner, SYDNEY)
        assert asks_again(await thief.call("GET", "/auth/me", by_token=True))
        assert asks_again(await owner.call("GET", "/auth/me", by_token=True))
        proved = await owner.call("POST", "/auth/reauthenticate", json={"password": PASSWORD}, by_token=True)
        assert proved.status == 200, proved
        assert (await owner.call("GET", "/auth/me", by_token=True)).status == 200
        assert asks_again(await thief.call("GET", "/auth/me", by_token=True))
        assert (await owner.call("POST", "/auth/logout", by_token=True)).status in {200, 202}
        assert (await owner.call("GET", "/auth/me", by_token=True)).code == "invalid_token"


async def test_d10_introspection_and_the_proxy_refuse_what_is_in_doubt() -> None:
    """A service that asks about the token learns that it is not active; `/auth/check` refuses the request."""
    async with watched(proxies=[PROXY]) as world:
        owner = await at_home(world, "jwt")
        thief = copied(owner, SYDNEY)
        assert asks_again(await thief.call("GET", "/auth/me", by_token=True))
        key = await world.add_verifier()
        said = await world.call("POST", "/oauth2/introspect", form={"token": owner.access}, bearer=key)
        assert said.json == {"active": False}
        assert asks_again(await world.check(bearer=owner.access))


async def test_d11_another_browser_far_away_ends_the_session() -> None:
    """No browser takes its cookies along to another browser on another continent: the session is over, with an event
    and a mail.
    """
    async with watched() as world:
        owner = await at_home(world)
        answer = await copied(owner, SYDNEY, CHROME).me()
        assert answer.status == 401
        assert not asks_again(answer)
        assert not asks_again(await owner.me())
        assert await suspected(world) == [("refused", "revoke: other_browser, too_fast")]
        ended = await world.store.events(name="session_ended")
        assert [event.detail for event in ended] == ["suspected"]


async def test_d11_quiet_tells_the_owner_and_refuses_nothing() -> None:
    """The default: the owner gets one mail and an entry in the activity, and each request is answered."""
    async with watched("quiet") as world:
        owner = await at_home(world)
        thief = copied(owner, SYDNEY)
        for _ in range(3):
            assert (await thief.me()).status == 200
        assert await suspected(world) == [("ok", "notify: too_fast")]
        await world.posted()
        assert world.mailbox.mails[-1].subject.startswith("Your sign-in is used in another place")
        listed = (await owner.call("GET", "/auth/events")).json["events"]
        assert "session_suspected" in [event["name"] for event in listed]


async def test_d12_a_vpn_is_asked_about_once() -> None:
    """After one proof, the provider's other exits, the way home, and another session of the account are let in."""
    async with watched() as world:
        owner = await at_home(world)
        owner.peer = EXIT
        assert asks_again(await owner.me())
        assert (await owner.call("POST", "/auth/reauthenticate", json={"password": PASSWORD})).status == 200
        for peer in (EXIT, OTHER_EXIT, HERE, EXIT, WORK):
            world.clock.now += 2 * MINUTE
            owner.peer = peer
            assert (await owner.me()).status == 200, peer
        second = await at_home(world)
        second.peer = OTHER_EXIT
        assert (await second.me()).status == 200
        assert len(await suspected(world)) == 1


async def test_d12_a_traveller_who_had_the_time_is_let_in() -> None:
    """Two days later on another continent: an entry in the activity, and no question. The parallel requests of one page
    count as one.
    """
    async with watched() as world:
        owner = await at_home(world)
        world.clock.now += 2 * DAY
        owner.peer = SYDNEY
        answers = await asyncio.gather(*(owner.me() for _ in range(6)))
        assert {answer.status for answer in answers} == {200}
        assert await suspected(world) == [("ok", "record: new_country")]


async def test_q02_the_mail_about_a_patient_thief_names_where_they_are() -> None:
    """A thief waits for as long as a flight takes: an entry in the activity. Minutes later the owner is at home, and
    gets one mail that names the other country, and not their own.
    """
    async with watched() as world:
        owner = await at_home(world)
        await world.posted()
        before = len(world.mailbox.mails)
        world.clock.now += DAY
        thief = copied(owner, SYDNEY)
        assert (await thief.me()).status == 200
        await world.posted()
        assert len(world.mailbox.mails) == before
        for _ in range(3):
            world.clock.now += 5 * MINUTE
            assert (await owner.me()).status == 200
            assert (await thief.me()).status == 200
        assert await suspected(world) == [("ok", "record: new_country"), ("ok", "notify: two_places")]
        await world.posted()
        (mail,) = world.mailbox.mails[before:]
        assert "Australia" in mail.text
        assert "Netherlands" not in mail.text


async def test_d12_a_request_waits_for_the_one_that_writes_the_change() -> None:
    """After a journey, two nodes get a request each at one moment, and the second sees that the session was used just
    now. It looks again before it refuses, and finds the place that the first has written.
    """
    async with watched() as world:
        owner = await at_home(world)
        await owner.me()
        authority = world.auth.authority
        (session,) = await authority.sessions((await world.store.events(name="session_started"))[0].subject)
        world.clock.now += 2 * DAY
        away = Client(address=SYDNEY, country="AU")
        late = Use(session.subject, session, "", world.clock.now)
        first = Use(session.subject, session, "", world.clock.now - 2 * DAY)
        refused = asyncio.create_task(authority.sight(late, away))
        await asyncio.sleep(0)
        await authority.sight(first, away)
        await refused
        assert await suspected(world) == [("ok", "record: new_country")]


async def test_d12_a_proof_keeps_what_the_session_was_seen_as() -> None:
    """The session that a proof starts knows the networks of the one before it."""
    async with watched() as world:
        owner = await at_home(world)
        owner.peer = WORK
        assert (await owner.me()).status == 200
        owner.peer = HERE
        assert (await owner.call("POST", "/auth/reauthenticate", json={"password": PASSWORD})).status == 200
        (kept,) = [each for each in await world.store.select(Sightings) if each.id != each.subject]
        history = kept.read()
        assert history is not None
        assert {place.sighting.network for place in history.places} == {"145.97.39.0/24", "145.97.40.0/24"}


async def test_d13_an_unchanged_use_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second request of a client is compared in memory. Another User-Agent, or another address, is looked at."""
    async with watched() as world:
        owner = await at_home(world)
        looked: list[str] = []
        sight = world.auth.authority.sight

        async def counted(use: Use, client: Client, **more: Any) -> None:
            looked.append(client.address)
            await sight(use, client, **more)

        monkeypatch.setattr(world.auth.authority, "sight", counted)
        for _ in range(5):
            world.clock.now += MINUTE
            assert (await owner.me()).status == 200
        assert looked == [HERE]
        owner.peer = WORK
        assert (await owner.me()).status == 200
        assert (await owner.me()).status == 200
        assert looked == [HERE, WORK]
        owner.peer = HERE
        assert (await owner.me()).status == 200
        assert looked == [HERE, WORK], "seen within the minute"


async def test_d13_long_headers_do_not_fill_the_memory() -> None:
    """Each account of an attacker could have kilobytes of headers remembered, several times. They are served, and
    looked at again each time.
    """
    async with watched() as world:
        owner = await at_home(world)
        assert (await owner.me()).status == 200
        lately = world.auth.authority.seen_lately
        remembered = {**lately._young}
        owner.agent = FIREFOX + " x" * CARRIED_AT_MOST
        for _ in range(2):
            assert (await owner.me()).status == 200
        assert lately._young == remembered
        assert await world.store.events(name="session_suspected") == []


async def test_d13_sightings_are_few_and_expire() -> None:
    """An unchanged client writes nothing. What is kept is a network, a country and a browser family: no address, and no
    User-Agent. It goes with the session, and after a month.
    """
    async with watched() as world:
        owner = await at_home(world)
        (places,) = await world.store.select(Sightings)
        for _ in range(5):
            world.clock.now += 5
            assert (await owner.me()).status == 200
        assert await world.store.select(Sightings) == [places]
        owner.peer = WORK
        assert (await owner.me()).status == 200
        kept = {each.id: each for each in await world.store.select(Sightings)}
        assert set(kept) == {places.subject, owner.session_id or next(iter(set(kept) - {places.subject}))}
        exported = (await owner.call("GET", "/auth/account/export")).json
        assert {place["network"] for place in exported["places"]} == {"145.97.39.0/24", "145.97.40.0/24"}
        text = b" ".join(each.history for each in kept.values())
        assert HERE.encode() not in text
        assert WORK.encode() not in text
        assert b"145.97.39.0/24" in text
        assert b"Firefox" in text
        assert b"Linux" not in text
        assert (await owner.call("POST", "/auth/logout")).status in {200, 202}
        assert await world.store.select(Sightings) == [places]
        world.clock.now += KEPT_FOR + HOUR
        await world.auth.authority.tidy()
        assert await world.store.select(Sightings) == []


async def test_d14_off_writes_and_asks_nothing() -> None:
    """With `suspicion = off` nothing is kept, and a copy is used as before."""
    async with watched("off") as world:
        owner = await at_home(world)
        for peer in (SYDNEY, CLOUD, EXIT, HERE):
            assert (await copied(owner, peer, CHROME).me()).status == 200
        assert await world.store.select(Sightings) == []
        assert await suspected(world) == []


async def test_d14_where_no_client_can_be_told_apart_nothing_is_done(caplog: pytest.LogCaptureFixture) -> None:
    """Behind a proxy that was not configured, every request comes from the proxy. Then nothing is watched, and the log
    says why, once.
    """
    async with watched("strict") as world:
        await world.register()
        behind = world.browser(peer="10.0.0.9")
        await behind.login()
        for peer in ("10.0.0.9", "10.0.7.1", FRONT):
            behind.peer = peer
            assert (await behind.me()).status == 200
        assert await world.store.select(Sightings) == []
        said = [record.getMessage() for record in caplog.records if "not watched" in record.getMessage()]
        assert len(said) == 1
        assert said[0].startswith("sessions are not watched: a client comes from no public address")


@pytest.mark.parametrize("mode", ["session", "jwt"])
async def test_d14_a_content_network_hides_no_thief(mode: str) -> None:
    """Anyone can run a program at a content network, which sends the copied cookie from an address that looks like a
    proxy that was not configured. But the owner came from a home. What a verifier reports of one shows nothing.
    """
    async with watched() as world:
        owner = await at_home(world, mode)
        assert (await owner.call("GET", "/auth/me", by_token=mode == "jwt")).status == 200
        key = await world.add_verifier()
        if mode == "jwt":
            body = {"holder": "x" * 16, "wait_ms": 0, "seen": [(owner.access, f"{FRONT}/24")]}
            assert (await world.call("POST", "/auth/revocations/poll", json=body, bearer=key)).status == 200
            while revocations._looking:
                await asyncio.wait(set(revocations._looking))
            assert await suspected(world) == []
        world.clock.now += MINUTE
        thief = copied(owner, FRONT)
        assert asks_again(await thief.call("GET", "/auth/me", by_token=mode == "jwt"))
        assert await suspected(world) == [("refused", "step_up: hosting")]


async def test_d14_quiet_records_a_content_network_and_mails_no_one() -> None:
    """A thief there is on the activity page, once. A mail would go to each user of a server that got a front which is
    not configured yet; another browser is nothing that a front makes, and is mailed about.
    """
    async with watched("quiet") as world:
        owner = await at_home(world)
        await world.posted()
        before = len(world.mailbox.mails)
        world.clock.now += MINUTE
        thief = copied(owner, FRONT)
        for _ in range(3):
            assert (await thief.me()).status == 200
            assert (await owner.me()).status == 200
            world.clock.now += MINUTE
        await world.posted()
        assert await suspected(world) == [("ok", "record: hosting")]
        assert len(world.mailbox.mails) == before
        assert (await copied(owner, FRONT, CHROME).me()).status == 200
        await world.posted()
        assert "used in another place" in world.mailbox.mails[-1].subject


async def test_d15_a_hook_may_overrule() -> None:
    """`on_suspicion` gets what was found, and returns another reaction. None, an error or nonsense change nothing."""
    found: list[Suspected] = []
    answers: list[Any] = [None, "calm", "nonsense", RuntimeError("broken"), "revoke"]

    async def decide(suspicion: Suspected) -> Any:
        found.append(suspicion)
        answer = answers[len(found) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with watched(on_suspicion=decide) as world:
        statuses = []
        for _ in answers:
            owner = await at_home(world)
            world.clock.now += 10
            answer = await copied(owner, SYDNEY).me()
            statuses.append("asks" if asks_again(answer) else str(answer.status))
        assert statuses == ["asks", "200", "asks", "asks", "401"]
        assert (found[0].reaction, found[0].reasons, found[0].country) == ("step_up", ("too_fast",), "AU")


async def test_d16_an_account_cannot_fill_the_log_with_doubts() -> None:
    """Above a bound, a session in doubt is revoked: every verifier holds the log, and log-outs are folded there."""
    async with watched() as world:
        for number in range(18):
            owner = await at_home(world)
            world.clock.now += 10
            owner.jar = {name: value for name, value in owner.jar.items() if name.endswith(SESSION)}
            answer = await copied(owner, SYDNEY).me()
            assert answer.status == 401
            assert asks_again(answer) == (number < 16), number
        assert len(world.auth.authority.log) <= 17


async def test_d17_two_nodes_see_one_session() -> None:
    """What one node wrote, the other compares with: a copy is refused at the node that never saw the owner, and the
    owner's change at one node is no news at the other.
    """
    async with watched() as world:
        owner = await at_home(world)
        other = World(
            world.store,
            policy=world.auth.authority.policy,
            countries=Countries(),
            networks=Networks(),
            clock=world.clock,
        )
        async with other.auth:
            other.elapsed.ahead += 60
            there = other.browser(peer=HERE)
            there.jar = dict(owner.jar)
            assert (await there.me()).status == 200
            owner.peer = there.peer = WORK
            await asyncio.gather(*(browser.me() for browser in (owner, there) * 3))
            (kept,) = [each for each in await world.store.select(Sightings) if each.id != each.subject]
            history = kept.read()
            assert history is not None
            assert [change.network for change in history.changes] == ["145.97.39.0/24", "145.97.40.0/24"]
            there.peer = SYDNEY
            assert asks_again(await there.me())
            assert asks_again(await owner.me()), "at the other node, too"


@pytest.mark.long
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_q06_nodes_that_race_write_a_change_once(
    database: str, tmp_path: Path, request: pytest.FixtureRequest, patience: None
) -> None:
    """Two nodes get six requests at one moment, over one database. The owner's change of network is written once; a
    traveller is asked nothing; a thief is refused at both, with one event and one mail.
    """
    where = request.getfixturevalue("postgres_url") if database == "postgres" else ""

    def a_store() -> Store:
        return PostgresStore(where) if where else SqliteStore(tmp_path / "test.db")

    clock = Clock()
    async with watched(store=a_store(), clock=clock) as world, watched(store=a_store(), clock=clock) as other:
        owner = await at_home(world)
        twin = copied(owner, HERE)
        twin.world = other
        assert (await twin.me()).status == 200

        async def all_at_once(peer: str, *, by_token: bool = False) -> set[int]:
            owner.peer = twin.peer = peer
            calls = [each.call("GET", "/auth/me", by_token=by_token) for each in (owner, twin) * 6]
            return {answer.status for answer in await asyncio.gather(*calls)}

        async def changes() -> list[str]:
            (kept,) = [each for each in await world.store.select(Sightings) if each.id != each.subject]
            history = kept.read()
            assert history is not None
            return [change.network for change in history.changes]

        assert await all_at_once(WORK) == {200}
        assert await changes() == ["145.97.39.0/24", "145.97.40.0/24"]
        clock.now += 2 * DAY
        assert await all_at_once(SYDNEY) == {200}
        assert await changes() == ["145.97.39.0/24", "145.97.40.0/24", "1.128.0.0/24"]
        await world.posted()
        mails = len(world.mailbox.mails) + len(other.mailbox.mails)
        clock.now += MINUTE
        assert await all_at_once(CLOUD) == {401}
        assert await changes() == ["145.97.39.0/24", "145.97.40.0/24", "1.128.0.0/24"]
        await world.posted()
        await other.posted()
        assert len(world.mailbox.mails) + len(other.mailbox.mails) == mails + 1
        assert await suspected(world) == [("ok", "record: new_country"), ("refused", "step_up: hosting")]

        owner = await at_home(world, "jwt")
        twin.access = owner.access
        clock.now += MINUTE
        assert await all_at_once(SYDNEY, by_token=True) == {401}
        assert (await suspected(world))[2:] == [("refused", "step_up: too_fast")]


async def test_d19_a_verifier_that_lies_ends_nothing() -> None:
    """A report of a verifier puts a valid token in doubt, at most: of a token that it was not given, nothing follows,
    and where the policy would revoke, its owner proves again. Without a verifier key, no report is taken.
    """
    async with watched("strict") as world:
        owner = await at_home(world, "jwt")
        hybrid = await at_home(world, "hybrid")
        key = await world.add_verifier()
        made_up = f"{owner.access[:-6]}AAAAAA"

        async def report(*seen: tuple[str, str], bearer: str = key) -> Answer:
            body = {"holder": "x" * 16, "wait_ms": 0, "seen": seen}
            answer = await world.call("POST", "/auth/revocations/poll", json=body, bearer=bearer)
            while revocations._looking:
                await asyncio.wait(set(revocations._looking))
            return answer

        assert (await report((made_up, "1.128.0.0/24"), ("nonsense", "nonsense"))).status == 200
        assert (await report((owner.access, "145.97.39.0/24"), (owner.access, "10.0.0.0/24"))).status == 200
        assert (await report((owner.access, "1.128.0.0/24"), bearer="ddv1_" + "A" * 48)).status == 401
        assert (await report(*[(owner.access, "1.128.0.0/24")] * 9)).status == 422
        assert (await owner.call("GET", "/auth/me", by_token=True)).status == 200
        assert (await report((owner.access, "1.128.0.0/24"), (hybrid.access, f"{TOR}/24"))).status == 200
        for browser in (owner, hybrid):
            assert asks_again(await browser.call("GET", "/auth/me", by_token=True))
        assert sorted(await suspected(world)) == [
            ("refused", "step_up: too_fast"), ("refused", "step_up: tor"),
        ]  # fmt: skip
        assert await world.store.events(name="session_ended") == []


async def test_d19_a_verifier_that_lies_ends_nothing_however_much_it_lies() -> None:
    """Where an account has no room for another doubt, its own client would have the session ended. What a verifier
    reports is written to the owner's activity then.
    """
    async with watched() as world:
        key = await world.add_verifier()
        owners = [await at_home(world, "jwt") for _ in range(COALESCE_ABOVE + 1)]
        world.clock.now += MINUTE
        for owner in owners:
            body = {"holder": "x" * 16, "wait_ms": 0, "seen": [(owner.access, "1.128.0.0/24")]}
            assert (await world.call("POST", "/auth/revocations/poll", json=body, bearer=key)).status == 200
            while revocations._looking:
                await asyncio.wait(set(revocations._looking))
        *doubted, last = owners
        for owner in doubted:
            assert asks_again(await owner.call("GET", "/auth/me", by_token=True))
        assert sorted(set(await suspected(world))) == [("ok", "record: too_fast"), ("refused", "step_up: too_fast")]
        assert (await last.call("GET", "/auth/me", by_token=True)).status == 200
        assert await world.store.events(name="session_ended") == []


async def test_d18_wrong_passwords_before_a_sign_in_are_reported() -> None:
    """Five wrong passwords within an hour and then the right one, from a new network: the activity says so."""
    async with watched() as world:
        await at_home(world)
        stranger = world.browser(peer=WORK)
        for _ in range(5):
            wrong = await stranger.call("POST", "/auth/login", json={"email": ADA, "password": "not this one at all"})
            assert wrong.status == 401
        await stranger.login()
        assert await suspected(world) == [("ok", "record: failures")]


def test_d19_the_error_of_a_verifier_says_what_to_do() -> None:
    """What a verifier raises for a token in doubt is the step-up of RFC 9470, and not an invalid token."""
    assert StepUpRequired().code == "step_up_required"
