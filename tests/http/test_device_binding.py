"""Device Bound Session Credentials over HTTP: what a browser does by itself, and what a thief can not."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.devicekey import DeviceKey, challenge_in
from tests.http.world import OTHER_PASSWORD, PASSWORD, Answer, Browser, World, a_world
from tests.standins import Clock, Wrapped

from dutchdoor.auth import Auth
from dutchdoor.client.dpop import ProofKey
from dutchdoor.errors import Unavailable
from dutchdoor.model.accounts import Account
from dutchdoor.model.audit_events import AuditEvent
from dutchdoor.model.device_binding import ON_THE_WAY
from dutchdoor.model.master_key import MasterKey, MasterKeys
from dutchdoor.model.policy import MINUTE, STANDARD, Policy
from dutchdoor.model.sessions import Session
from dutchdoor.services.device_binding import DEVICE_PROOFS, DeviceBindings
from dutchdoor.stores.memory import MemoryStore

REGISTER, REFRESH = "/auth/device-binding", "/auth/device-binding/refresh"
OFFER, CHALLENGE = "secure-session-registration", "secure-session-challenge"
BOTH = pytest.mark.parametrize("mode", ["session", "hybrid"])


class Bound(Browser):
    """A browser that registers a key for its session, and fetches bound cookies, when a test says so."""

    def __init__(self, world: World, key: DeviceKey | None = None) -> None:
        super().__init__(world)
        self.key = key or DeviceKey()
        self.offer = ""

    async def signed_in(self, mode: str = "session") -> str:
        answer = await self.login(mode=mode)
        self.offer = challenge_in(answer.header(OFFER))
        return self.offer

    async def sends(self, path: str, proof: str = "") -> Answer:
        headers = [("sec-secure-session-id", self.session_id)] if path == REFRESH else []
        headers += [("secure-session-response", proof)] if proof else []
        return await self.call("POST", path, csrf=False, headers=headers)

    async def register(self, challenge: str = "", key: DeviceKey | None = None) -> Answer:
        return await self.sends(REGISTER, (key or self.key).registration(challenge or self.offer))

    async def challenge(self) -> str:
        answer = await self.sends(REFRESH)
        assert answer.status == 403, answer
        return challenge_in(answer.header(CHALLENGE))

    async def prove(self, key: DeviceKey | None = None) -> Answer:
        return await self.sends(REFRESH, (key or self.key).proof(await self.challenge()))

    async def bind(self, mode: str = "session") -> None:
        await self.signed_in(mode)
        assert (await self.register()).status == 200
        assert (await self.prove()).status == 200
        self.world.clock.forward(ON_THE_WAY)

    async def uses(self, mode: str = "session") -> Answer:
        return await (self.me() if mode == "session" else self.call("POST", "/auth/refresh"))

    def bound(self) -> str:
        return self.world.prefix + "dd_bound"


async def recorded(world: World, name: str) -> list[AuditEvent]:
    return [event for event in await world.events() if event.name == name]


@BOTH
async def test_k01_a_browser_binds_its_session(world: World, mode: str) -> None:
    """A browser registers a key, confirms it by its first refresh, and is served with its bound cookie alone from then
    on. The copied long-lived cookie is worth nothing.
    """
    await world.register()
    browser = Bound(world)
    await browser.signed_in(mode)
    answer = await browser.register()
    assert answer.status == 200
    assert answer.json["session_identifier"] == browser.session_id
    assert (await browser.uses(mode)).status == 200
    del browser.jar[browser.bound()]
    assert (await browser.uses(mode)).status == 200, "not confirmed yet"
    assert (await browser.prove()).status == 200
    del browser.jar[browser.bound()]
    assert (await browser.uses(mode)).status == 200, "left the browser before it had the cookie"
    world.clock.forward(ON_THE_WAY)
    refused = await browser.uses(mode)
    assert (refused.status, refused.code) == (401, "device_proof_required")
    assert (await browser.prove()).status == 200
    assert (await browser.uses(mode)).status == 200
    (event,) = await recorded(world, "session_bound")
    assert (event.session_id, event.detail) == (browser.session_id, "ES256")


async def test_k01_the_instructions_name_the_cookie_as_it_is_set(world: World) -> None:
    """A browser compares the attributes in the instructions with those of the cookie, and refuses a session in silence
    where they differ.
    """
    await world.register()
    for mode, rules in (("session", []), ("hybrid", ["/", "/auth"])):
        browser = Bound(world)
        await browser.signed_in(mode)
        answer = await browser.register()
        (cookie,) = answer.json["credentials"]
        (line,) = answer.set_cookies()
        assert line.startswith(f"{cookie['name']}=")
        assert line.partition("; ")[2] == f"{cookie['attributes']}; Max-Age=110"
        assert [rule["path"] for rule in answer.json["scope"]["scope_specification"]] == rules
        assert answer.json["refresh_url"] == REFRESH


# --- registering ------------------------------------------------------------------------------------------------------


async def test_k02_the_same_registration_again_gets_the_same_answer(world: World) -> None:
    """An HTTP stack repeats a request whose answer was lost: the key is known, in each state, and nothing else is
    written. What a repeat brings ends when the first answer does.
    """
    await world.register()
    browser = Bound(world)
    await browser.signed_in()
    first = await browser.register()
    world.clock.forward(100)
    again = await browser.register()
    assert (again.status, again.json) == (200, first.json)
    assert again.cookie(browser.bound()) == first.cookie(browser.bound()), "from the time of the challenge"
    assert (await browser.prove()).status == 200
    assert (await browser.register()).status == 200
    assert (await browser.uses()).status == 200
    assert len(await recorded(world, "session_bound")) == 1


async def test_k02_a_lost_answer_is_offered_again(world: World) -> None:
    """Where the answer to a registration is lost, the server has a key and the browser has none: it is asked again, and
    its next key takes the place of the first. A browser that has its cookie is not asked.
    """
    await world.register()
    browser = Bound(world)
    await browser.signed_in()
    assert (await browser.register()).status == 200
    world.clock.forward(40)
    assert (await browser.me()).header(OFFER) is None, "it has the cookie"
    del browser.jar[browser.bound()]
    offer = challenge_in((await browser.me()).header(OFFER))
    assert offer
    assert (await browser.me()).header(OFFER) is None, "not twice within a minute"
    second = DeviceKey()
    assert (await browser.register(offer, second)).status == 200
    gone = await browser.prove()
    assert gone.json == {"session_identifier": browser.session_id, "continue": False}, "the first key is forgotten"
    assert (await browser.prove(second)).status == 200
    assert (await browser.uses()).status == 200


async def test_k02_offers_of_one_moment_end_nothing(world: World) -> None:
    """Requests that were answered side by side have each brought an offer, and the browser registers a key for each.
    One is confirmed before the next arrives: that one is refused, and the session goes on.
    """
    await world.register()
    browser = Bound(world)
    offer = await browser.signed_in()
    session = await world.row(browser)
    world.clock.forward(5)
    late = world.auth.api.bindings.challenge_for(session, anew=True)
    assert (await browser.register(offer)).status == 200
    assert (await browser.prove()).status == 200
    refused = await browser.register(late, DeviceKey())
    assert (refused.status, refused.code) == (403, "device_key_refused")
    assert (await browser.uses()).status == 200
    assert not await recorded(world, "device_key_conflict")


@BOTH
async def test_k03_another_key_for_a_bound_session_ends_it(world: World, mode: str) -> None:
    """A thief with the cookies and an offer from before brings a key of their own when the browser has confirmed its
    key: the session has two holders and ends at once, the owner gets a mail, and the log says why.
    """
    await world.register()
    browser, thief = Bound(world), Bound(world)
    await browser.signed_in(mode)
    thief.jar, thief.session_id, thief.csrf = dict(browser.jar), browser.session_id, browser.csrf
    session = await world.row(browser)
    assert (await browser.register()).status == 200
    world.clock.forward(45)
    kept = world.auth.api.bindings.challenge_for(session, anew=True)
    assert (await browser.prove()).status == 200
    refused = await thief.register(kept)
    assert (refused.status, refused.code) == (403, "device_key_refused")
    assert "has ended" in refused.json["detail"]
    assert (await browser.uses(mode)).status == 401
    gone = await browser.sends(REFRESH)
    assert (gone.status, gone.json["continue"]) == (200, False)
    (event,) = await recorded(world, "device_key_conflict")
    assert (event.outcome, event.session_id) == ("refused", browser.session_id)
    (ended,) = await recorded(world, "session_ended")
    assert ended.detail == "theft"


async def test_k03_no_key_is_taken_late(world: World) -> None:
    """A quarter of an hour after the sign-in no key is taken, with whatever challenge, and nothing ends by the try: the
    log has it.
    """
    await world.register()
    browser = Bound(world)
    await browser.signed_in()
    session = await world.row(browser)
    world.clock.forward(901)
    assert (await browser.me()).header(OFFER) is None
    refused = await browser.register(world.auth.api.bindings.challenge_for(session, anew=True))
    assert (refused.status, refused.code) == (403, "device_key_refused")
    assert "too long ago" in refused.json["detail"]
    assert (await browser.uses()).status == 200
    (event,) = await recorded(world, "device_key_refused")
    assert event.outcome == "refused"


async def test_k04_a_challenge_is_for_one_session_purpose_server_and_time(world: World) -> None:
    """A challenge is taken for its session, its purpose and five minutes, at a server of its name. A bound cookie is no
    challenge, and a challenge no bound cookie.
    """
    await world.register()
    browser, other = Bound(world), Bound(world)
    await browser.signed_in()
    await other.signed_in()
    session = await world.row(browser)
    assert (await browser.register(other.offer)).status == 403, "of another session"
    assert (await browser.register()).status == 200
    for_refresh = await browser.challenge()
    assert (await browser.register(for_refresh)).status == 403, "of another purpose"
    assert (await browser.register(browser.jar[browser.bound()])).status == 403, "a bound cookie"
    assert (await browser.sends(REFRESH, browser.key.proof(browser.offer))).status == 403, "for a registration"
    assert (await browser.sends(REFRESH, browser.key.proof(browser.jar[browser.bound()]))).status == 403
    async with a_world(public_url="https://other.example.com", clock=world.clock) as elsewhere:
        foreign = elsewhere.auth.api.bindings
        assert foreign.stamps.time_of(browser.jar[browser.bound()], "cookie", browser.session_id) is None
        assert (await browser.register(foreign.challenge_for(session, anew=True))).status == 403, "of another server"
    assert (await browser.prove()).status == 200
    world.clock.forward(ON_THE_WAY)
    for value in (browser.offer, for_refresh, "A" * 28, "x", other.offer):
        refused = await world.call(
            "GET", "/auth/me", cookie=f"__Host-dd_session={browser.jar['__Host-dd_session']}; {browser.bound()}={value}"
        )
        assert (refused.status, refused.code) == (401, "device_proof_required"), value
    old = await browser.challenge()
    world.clock.forward(300)
    again = await browser.sends(REFRESH, browser.key.proof(old))
    assert (again.status, again.code) == (403, "device_key_refused")
    assert challenge_in(again.header(CHALLENGE)) != old


async def test_k05_a_copied_proof_brings_nothing_new(world: World) -> None:
    """Who copies both cookies and the last proof has what the browser has, until ten minutes after the challenge of
    that proof: sent again at any time, it brings no more.
    """
    await world.register()
    browser = Bound(world)
    await browser.bind()
    challenge = await browser.challenge()
    proof = browser.key.proof(challenge)
    assert (await browser.sends(REFRESH, proof)).status == 200
    world.clock.forward(290)
    copied = await browser.sends(REFRESH, proof)
    assert copied.status == 200
    world.clock.forward(309)
    assert (await browser.me()).status == 200
    world.clock.forward(1)
    assert (await browser.me()).code == "device_proof_required"


async def test_k05_a_cookie_that_proves_nothing_is_given_up(world: World) -> None:
    """A bound cookie that is old, of another session, or sent twice is cleared with the refusal: while a browser has
    it, the browser does not fetch another.
    """
    await world.register()
    browser, other = Bound(world), Bound(world)
    await browser.bind()
    await other.bind()
    long, bound, theirs = browser.jar["__Host-dd_session"], browser.jar[browser.bound()], other.jar[other.bound()]
    for line in (
        f"{browser.bound()}={theirs}",
        f"{browser.bound()}={bound}; {browser.bound()}={theirs}",
        f"{browser.bound()}={theirs}; {browser.bound()}={bound}",
    ):
        refused = await world.call("GET", "/auth/me", cookie=f"__Host-dd_session={long}; {line}")
        assert (refused.status, refused.cookie(browser.bound())) == (401, "")
    refused = await world.call("GET", "/auth/me", cookie=f"__Host-dd_session={long}")
    assert (refused.status, refused.set_cookies()) == (401, [])
    planted = await world.call("GET", "/auth/me", cookie=f"__Host-dd_session={long}; dd_bound={bound}")
    assert planted.status == 401, "without the prefix, any sibling host could have set it"


async def test_k06_a_refresh_is_never_answered_429_or_by_an_outage_as_an_end(world: World) -> None:
    """A browser deletes its session after each 4xx but a challenge: too many are 503, and so is a store that is
    away.
    """
    await world.register()
    browser = Bound(world)
    await browser.bind()
    statuses = [(await browser.sends(REFRESH)).status for _ in range(DEVICE_PROOFS.burst + 2)]
    assert set(statuses) == {403, 503}
    assert statuses[-1] == 503
    stranger = [("sec-secure-session-id", browser.session_id)]
    assert (await world.call("POST", REFRESH, headers=stranger)).status == 403, "a stranger has a limit of their own"
    world.clock.forward(600)
    assert (await browser.prove()).status == 200


class Away(Wrapped):
    """A store that can be away."""

    away = False

    async def session(self, session_id: str) -> tuple[Session, Account] | None:
        if self.away:
            raise Unavailable("nothing answers there")
        return await self.inner.session(session_id)


async def test_k06_a_store_that_is_away_ends_nothing() -> None:
    """While the store is away, registrations and refreshes are 503, and the browser keeps what it has."""
    store = Away(MemoryStore())
    async with a_world(store=store) as world:
        await world.register()
        browser = Bound(world)
        await browser.signed_in()
        store.away = True
        assert (await browser.register()).status == 503
        store.away = False
        assert (await browser.register()).status == 200
        challenge = await browser.challenge()
        store.away = True
        for proof in ("", browser.key.proof(challenge)):
            assert (await browser.sends(REFRESH, proof)).status == 503
        store.away = False
        assert (await browser.prove()).status == 200


async def test_k06_a_stranger_uses_up_no_limit_of_the_owner(world: World) -> None:
    """The id of a session is no secret. Who knows it and nothing else neither uses up the limit of its browser, nor
    writes events, nor gets anything without the key.
    """
    await world.register()
    browser = Bound(world)
    await browser.bind()
    named = [("sec-secure-session-id", browser.session_id)]
    for _ in range(DEVICE_PROOFS.burst + 5):
        answer = await world.call("POST", REFRESH, headers=named)
        if answer.status == 403:
            wrong = DeviceKey().proof(challenge_in(answer.header(CHALLENGE)))
            await world.call("POST", REFRESH, headers=[*named, ("secure-session-response", wrong)])
    forged = f"__Host-dd_session=dds1_{browser.session_id}{'A' * 26}"
    gone = await world.call("POST", REFRESH, headers=named, cookie=forged)
    assert gone.json == {"session_identifier": browser.session_id, "continue": False}
    assert (await browser.prove()).status == 200
    assert not await recorded(world, "device_key_refused")


async def test_k06_a_proof_without_cookies_is_taken(world: World) -> None:
    """A request that a page of a listed origin on another site has caused waits for its cookie, too, and SameSite keeps
    the cookies from its refresh: the proof alone brings the bound cookie, which is nothing without the other.
    """
    await world.register()
    browser = Bound(world)
    await browser.bind()
    named = [("sec-secure-session-id", browser.session_id)]
    asked = await world.call("POST", REFRESH, headers=named)
    proof = ("secure-session-response", browser.key.proof(challenge_in(asked.header(CHALLENGE))))
    proved = await world.call("POST", REFRESH, headers=[*named, proof])
    assert proved.status == 200
    line = f"{browser.bound()}={proved.cookie(browser.bound())}"
    assert (await world.call("GET", "/auth/me", cookie=line)).status == 401


async def test_k06_a_proof_without_cookies_finds_the_session_that_followed(world: World) -> None:
    """So it does where a fresh proof has replaced the session in which the browser registered its key, and not after
    a log-out, or where another sign-in has replaced it: then the browser is asked to forget the key.
    """
    await world.register()
    browser = Bound(world)
    await browser.bind()
    named = [("sec-secure-session-id", browser.session_id)]
    assert (await browser.call("POST", "/auth/reauthenticate", json={"password": PASSWORD})).status == 200
    asked = await world.call("POST", REFRESH, headers=named)
    proof = ("secure-session-response", browser.key.proof(challenge_in(asked.header(CHALLENGE))))
    proved = await world.call("POST", REFRESH, headers=[*named, proof])
    browser.jar[browser.bound()] = str(proved.cookie(browser.bound()))
    assert (await browser.me()).status == 200
    await browser.call("POST", "/auth/logout")
    assert (await world.call("POST", REFRESH, headers=named)).json["continue"] is False
    await browser.bind()
    named = [("sec-secure-session-id", browser.session_id)]
    await browser.bind()
    assert (await world.call("POST", REFRESH, headers=named)).json["continue"] is False


async def test_k06_a_proof_by_another_key_is_asked_again_and_recorded(world: World) -> None:
    """A proof of a bound session by another key is refused with a challenge, which ends nothing, and the log has it."""
    await world.register()
    browser = Bound(world)
    await browser.bind()
    refused = await browser.prove(DeviceKey())
    assert refused.status == 403
    assert challenge_in(refused.header(CHALLENGE))
    (event,) = await recorded(world, "device_key_refused")
    assert event.detail == "another key"
    assert (await browser.prove()).status == 200


async def test_k07_the_older_session_of_a_browser_is_let_go(world: World) -> None:
    """A browser that signs in anew without a log-out may ask about its older session first: it is asked to forget that,
    whether its row has ended or not, and the newer one goes on.
    """
    await world.register()
    browser = Bound(world)
    await browser.bind()
    older, key = browser.session_id, browser.key
    browser.key = DeviceKey()
    await browser.bind()
    assert browser.session_id != older
    headers = [("sec-secure-session-id", older), ("secure-session-response", key.proof("A" * 28))]
    answer = await browser.call("POST", REFRESH, csrf=False, headers=headers)
    assert answer.json == {"session_identifier": older, "continue": False}
    assert answer.set_cookies() == []
    assert (await browser.me()).status == 200


async def test_k07_after_a_log_out_the_browser_forgets(world: World) -> None:
    """A log-out clears the bound cookie with the other, and the next refresh says that the session is over. A thief
    with copied cookies can end a bound session, and nothing else.
    """
    await world.register()
    browser, thief = Bound(world), Bound(world)
    await browser.bind()
    thief.jar, thief.csrf, thief.session_id = dict(browser.jar), browser.csrf, browser.session_id
    del thief.jar[browser.bound()]
    assert (await thief.call("POST", "/auth/logout/all")).code == "device_proof_required"
    answer = await browser.call("POST", "/auth/logout")
    assert answer.cookie(browser.bound()) == ""
    assert (await browser.sends(REFRESH)).json["continue"] is False
    await browser.bind()
    thief.jar, thief.csrf = {"__Host-dd_session": browser.jar["__Host-dd_session"]}, browser.csrf
    assert (await thief.call("POST", "/auth/logout")).status == 200


# --- what is offered, to whom -----------------------------------------------------------------------------------------


@BOTH
async def test_k08_a_proof_inside_a_bound_session_starts_a_bound_one(world: World, mode: str) -> None:
    """A fresh proof of the owner starts another session, or goes on with new secrets. Either needs the key of the one
    before, by the name by which the browser knows it: nothing is offered, and its bound cookie is good in both.
    """
    await world.register()
    browser = Bound(world)
    await browser.bind(mode)
    known_as, first, by_token = browser.session_id, (dict(browser.jar), browser.csrf), mode == "hybrid"
    for _ in range(2):
        again = await browser.call("POST", "/auth/reauthenticate", json={"password": PASSWORD}, by_token=by_token)
        assert (again.status, again.header(OFFER), again.json["session"]["bound"]) == (200, None, True)
        assert browser.session_id != known_as
        assert (await browser.uses(mode)).status == 200, "by the cookie that it had"
    change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    changed = await browser.call("POST", "/auth/password", json=change, by_token=by_token)
    assert (changed.status, changed.header(OFFER), changed.json["session"]["bound"]) == (200, None, True)
    del browser.jar[browser.bound()]
    assert (await browser.uses(mode)).code == "device_proof_required"
    gone = await browser.sends(REFRESH)
    assert gone.json == {"session_identifier": browser.session_id, "continue": False}, "it knows none by that id"
    browser.session_id = known_as
    assert (await browser.prove()).json["session_identifier"] == known_as
    assert (await browser.uses(mode)).status == 200
    browser.jar, browser.csrf = first
    assert (await browser.uses(mode)).status == 401, "the one before has ended"


async def test_k08_a_key_that_is_not_confirmed_is_registered_anew(world: World) -> None:
    """Where the browser has not confirmed its key, a fresh proof starts a session without it, which is offered anew."""
    await world.register()
    browser = Bound(world)
    await browser.signed_in()
    assert (await browser.register()).status == 200
    again = await browser.call("POST", "/auth/reauthenticate", json={"password": PASSWORD})
    assert (again.status, again.json["session"]["bound"]) == (200, False)
    browser.offer, browser.key = challenge_in(again.header(OFFER)), DeviceKey()
    assert (await browser.register()).status == 200
    assert (await browser.prove()).status == 200
    assert (await browser.uses()).status == 200


async def test_k08_nothing_is_offered_where_nothing_can_be_bound(world: World) -> None:
    """Tokens in a body, a server without TLS, and the policy `off` offer nothing."""
    await world.register()
    program = world.program()
    for mode in ("hybrid", "jwt"):
        assert (await program.login(mode=mode)).header(OFFER) is None
    for more in ({"public_url": None}, {"policy": Policy(device_binding="off")}):
        async with a_world(**more) as here:
            await here.register()
            browser = here.browser()
            assert (await browser.login(mode="session")).header(OFFER) is None
            here.clock.forward(40)
            assert (await browser.me()).header(OFFER) is None


async def test_k08_off_binds_none_and_keeps_what_is_bound(world: World) -> None:
    """Under `off` no key is taken. A session that was bound before still needs its key, and can prove it."""
    await world.register()
    browser, young = Bound(world), Bound(world)
    await browser.bind()
    await young.signed_in()
    world.auth.authority.policy = replace(world.auth.authority.policy, device_binding="off")
    refused = await young.register()
    assert (refused.status, refused.code) == (403, "device_key_refused")
    assert (await browser.prove()).status == 200
    assert (await browser.me()).status == 200
    del browser.jar[browser.bound()]
    assert (await browser.me()).code == "device_proof_required"


@BOTH
async def test_k08_required_gives_a_browser_a_minute(mode: str) -> None:
    """Under `required`, a browser that has bound nothing a minute after its sign-in is refused, with the reason. One
    that has goes on.
    """
    async with a_world(policy=Policy(device_binding="required")) as world:
        await world.register()
        browser, old = Bound(world), Bound(world)
        await browser.bind(mode)
        await old.signed_in(mode)
        world.clock.forward(59)
        assert (await old.uses(mode)).status == 200
        world.clock.forward(1)
        refused = await old.uses(mode)
        assert (refused.status, refused.code) == (401, "device_proof_required")
        assert "does not" in refused.json["detail"]
        assert (await browser.uses(mode)).status == 200


@pytest.mark.parametrize(
    ("url", "says"), [("http://localhost:8000", ["Set an https public_url"]), ("https://login.example.com", [])]
)
def test_k08_required_without_tls_is_said(url: str, says: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """An application that demands a binding where browsers bind nothing reads so in its log, and what to do."""
    Auth("memory:", public_url=url, policy=Policy(device_binding="required")).asgi()
    assert [line.rpartition(". ")[2] for line in caplog.messages if "device_binding" in line] == says


async def test_k09_a_refresh_token_out_of_the_cookie_is_worth_nothing(world: World) -> None:
    """In the mode hybrid, a copied refresh cookie is refused without the bound one: also in a body, and at the token
    endpoint. Nothing ends by the try. The access token goes on, and names no key.
    """
    await world.register()
    browser = Bound(world)
    await browser.bind("hybrid")
    token = browser.jar["__Host-dd_refresh"]
    stolen = await world.call("POST", "/auth/refresh", json={"refresh_token": token})
    assert (stolen.status, stolen.code) == (401, "device_proof_required")
    form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "app"}
    refused = await world.call("POST", "/oauth2/token", form=form)
    assert (refused.status, refused.code) == (400, "invalid_grant")
    assert "another device" in refused.json["error_description"]
    renewed = await browser.uses("hybrid")
    assert (renewed.status, renewed.json["token_type"]) == (200, "Bearer")
    me = await world.call("GET", "/auth/me", bearer=renewed.json["access_token"])
    assert me.status == 200
    assert me.json["session"]["bound"] is True


async def test_k09_a_program_that_proves_its_key_is_not_offered_another(world: World) -> None:
    """A session that is bound to the key of a program (DPoP) is bound: no browser registers a key for it."""
    await world.register()
    browser, key = Bound(world), ProofKey.generate()
    nonce = world.auth.authority.proofs.nonce(world.clock())
    proof = key.proof("POST", f"{world.origin}/auth/login", at=world.clock(), nonce=nonce)
    body = {"email": "ada@example.com", "password": PASSWORD, "mode": "hybrid"}
    answer = await browser.call("POST", "/auth/login", json=body, headers=[("dpop", proof)])
    assert (answer.json["token_type"], answer.header(OFFER)) == ("DPoP", None)
    session = await world.row(browser)
    bare = replace(session, binding=None)
    refused = await browser.register(world.auth.api.bindings.challenge_for(bare, anew=True))
    assert (refused.status, refused.code) == (403, "device_key_refused")
    assert (await browser.sends(REFRESH)).json["continue"] is False


async def test_k09_another_master_key_signs_no_one_out() -> None:
    """While master keys are exchanged, what was made with the older one is taken: cookies and challenges alike."""
    store, clock, older, newer = MemoryStore(), Clock(), MasterKey.generate(), MasterKey.generate()
    async with a_world(store=store, clock=clock) as world:
        await world.register()
        browser = Bound(world)
        await browser.signed_in()
        session = await world.row(browser)
        api = world.auth.api
        world.auth.authority.master = MasterKeys(older)
        api.bindings = DeviceBindings(world.auth.authority)
        assert (await browser.register(api.bindings.challenge_for(session, anew=True))).status == 200
        assert (await browser.prove()).status == 200
        clock.forward(ON_THE_WAY)
        world.auth.authority.master = MasterKeys(newer, older)
        api.bindings = DeviceBindings(world.auth.authority)
        assert (await browser.me()).status == 200
        world.auth.authority.master = MasterKeys(newer)
        api.bindings = DeviceBindings(world.auth.authority)
        assert (await browser.me()).code == "device_proof_required"
        assert (await browser.prove()).status == 200, "the key is the session's, whatever the master key"


async def test_k09_the_device_of_a_bound_session_is_the_principals(world: World) -> None:
    """A caller by a bound session cookie is bound to its key, for guards that ask; sessions and devices say so."""
    await world.register()
    browser = Bound(world)
    await browser.signed_in()
    held = await world.auth.authority.recall(browser.session_id)
    assert held is not None
    assert held.principal.bound_to == ""
    assert (await browser.register()).status == 200
    assert (await browser.prove()).status == 200
    held = await world.auth.authority.recall(browser.session_id)
    assert held is not None
    assert held.principal.bound_to == browser.key.key.kid
    assert held.session.bound_to == "", "no token of it names the key"
    (listed,) = (await browser.call("GET", "/auth/sessions")).json["sessions"]
    assert listed["bound"] is True


async def test_k09_what_is_not_a_browser_learns_why(world: World) -> None:
    """A person who calls the endpoints by hand reads what is missing."""
    await world.register()
    browser = Bound(world)
    assert (await browser.sends(REGISTER)).code == "not_authenticated"
    await browser.signed_in()
    missing = await browser.sends(REGISTER)
    assert (missing.status, missing.code) == (403, "device_key_refused")
    assert "Secure-Session-Response" in missing.json["detail"]
    wrong = await browser.sends(REGISTER, browser.key.proof(browser.offer))
    assert "no `jwk`" in wrong.json["detail"]
    forged = browser.key.registration(browser.offer)
    wrong = await browser.sends(REGISTER, forged[:-4] + ("AAAA" if not forged.endswith("AAAA") else "BBBB"))
    assert "signature is not valid" in wrong.json["detail"]
    assert (await browser.sends(REFRESH)).json["continue"] is False


class Countries:
    def country(self, address: str) -> str:
        return "AU" if address.startswith("1.") else "NL"


@BOTH
async def test_q07_a_browser_that_proved_its_key_since_is_asked_nothing(mode: str) -> None:
    """A bound browser that is on another continent is served once it has fetched another bound cookie there: a copy
    could not. Copies of both cookies are asked in the minutes for which they are good.
    """
    policy = replace(STANDARD, suspicion="strict")
    async with a_world(policy=policy, countries=Countries()) as world:
        await world.register()
        browser = Bound(world)
        browser.peer = "145.97.39.155"
        await browser.bind(mode)
        world.clock.now += 60
        assert (await browser.uses(mode)).status == 200
        world.clock.now += 12 * MINUTE
        browser.peer = "1.128.0.1"
        assert (await browser.uses(mode)).code == "device_proof_required"
        assert (await browser.prove()).status == 200
        assert (await browser.uses(mode)).status == 200
        assert await recorded(world, "session_suspected") == []
        world.clock.now += MINUTE
        browser.peer = "145.97.200.1"
        assert (await browser.uses(mode)).status == 200, "home, which it has proved"
        world.clock.now += MINUTE
        browser.peer = "1.200.0.1"
        assert (await browser.uses(mode)).code == "step_up_required"


@BOTH
async def test_q07_a_thief_elsewhere_binds_nothing(mode: str) -> None:
    """A client that is bound is asked nothing. So a copied sign-in, whose owner's browser binds none, must not be bound
    to a thief's key, neither before it is in doubt nor then, and its page offers that to no one.
    """
    policy = replace(STANDARD, suspicion="standard")
    async with a_world(policy=policy, countries=Countries()) as world:
        await world.register()
        for used in (False, True):
            owner = Bound(world)
            owner.peer = "145.97.39.155"
            await owner.signed_in(mode)
            assert (await owner.uses(mode)).status == 200
            thief = Bound(world)
            thief.jar, thief.csrf, thief.offer, thief.peer = dict(owner.jar), owner.csrf, owner.offer, "1.128.0.1"
            world.clock.now += MINUTE
            if used:
                assert (await thief.uses(mode)).code == "step_up_required"
            assert (await thief.register()).code == "step_up_required"
            found = await world.store.session(owner.session_id)
            assert found is not None and found[0].binding is None
            if mode == "session":
                shown = await thief.call("GET", "/auth/confirm", headers=[("accept", "text/html")])
                assert shown.status == 200 and shown.header("secure-session-registration") is None
