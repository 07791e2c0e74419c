"""Sign-ins that are bound to a key of their client (DPoP, RFC 9449), at the server's own doors."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from tests.http.world import OTHER_PASSWORD, PASSWORD, PROXY, Answer, Program, World, a_world, basic

from dutchdoor.client.dpop import ProofKey
from dutchdoor.errors import Unavailable
from dutchdoor.jose.dpop import ALGORITHMS
from dutchdoor.model.audit_events import AuditEvent
from dutchdoor.model.policy import STANDARD, Policy
from dutchdoor.stores.memory import MemoryStore

JWT_OF_PROGRAM = {"mode": "jwt"}
HYBRID = {"mode": "hybrid", "transport": "body"}
BOTH = pytest.mark.parametrize("mode", [HYBRID, JWT_OF_PROGRAM], ids=["hybrid", "jwt"])


class Countries:
    def country(self, address: str) -> str:
        return "AU" if address.startswith("1.") else "NL"


class Bound(Program):
    """A program that proves its key with each request, and takes up the nonce of the answer."""

    def __init__(self, world: World, key: ProofKey | None = None) -> None:
        super().__init__(world)
        self.key = key or ProofKey.generate()
        self.nonce = ""

    def proof(self, method: str, path: str, token: str = "", *, url: str = "") -> str:
        url = url or self.world.origin + path
        return self.key.proof(method, url, at=self.world.clock(), nonce=self.nonce, token=token)

    async def call(self, method: str, path: str, *, token: str | None = None, **more: Any) -> Answer:
        token = self.access if token is None else token
        for _ in range(2):
            headers = [
                ("dpop", self.proof(method, path, token)),
                *([("authorization", f"DPoP {token}")] if token else []),
            ]
            answer = await self.world.call(
                method, path, headers=[*headers, *more.get("headers", ())], json=more.get("json"), peer=self.peer
            )
            self.nonce = answer.header("dpop-nonce") or self.nonce
            if answer.status != 401 or answer.code != "use_dpop_nonce":
                break
        self.learn(answer)
        return answer

    async def renew(self) -> Answer:
        return await self.call("POST", "/auth/refresh", json={"refresh_token": self.refresh}, token="")


async def a_bound(world: World, mode: dict[str, str] = HYBRID) -> Bound:
    program = Bound(world)
    await program.login(**mode)
    return program


async def recorded(world: World, name: str) -> list[AuditEvent]:
    return [event for event in await world.events() if event.name == name]


@BOTH
async def test_d28_a_sign_in_with_a_proof_is_bound(world: World, mode: dict[str, str]) -> None:
    """A client that proves a key gets tokens of the type DPoP. They work with proofs of that key, and the answer says
    the next nonce.
    """
    await world.register()
    program = await a_bound(world, mode)
    asked = await program.login(**mode)
    assert asked.json["token_type"] == "DPoP"
    me = await program.me()
    assert me.status == 200
    assert me.header("dpop-nonce")
    if mode is HYBRID:
        assert me.json["session"]["bound"] is True
        renewed = await program.renew()
        assert (renewed.status, renewed.json["token_type"]) == (200, "DPoP")
        assert (await program.me()).status == 200


async def test_d28_a_sign_in_without_a_proof_is_what_it_was(world: World) -> None:
    """A client that sends no proof gets bearer tokens, and its session says that it is not bound."""
    await world.register()
    program = world.program()
    answer = await program.login(**HYBRID)
    assert answer.json["token_type"] == "Bearer"
    assert answer.json["session"]["bound"] is False
    assert answer.header("dpop-nonce") is None


async def test_d23_the_first_request_is_answered_with_a_nonce(world: World) -> None:
    """A proof without a nonce is refused as RFC 9449, section 8, says, before the password is looked at."""
    await world.register()
    program = Bound(world)
    body = {"email": "ada@example.com", "password": "wrong", **HYBRID}
    answer = await world.call(
        "POST", "/auth/login", json=body, headers=[("dpop", program.proof("POST", "/auth/login"))]
    )
    assert (answer.status, answer.code) == (401, "use_dpop_nonce")
    assert str(answer.header("www-authenticate")).startswith(
        'DPoP realm="dutchdoor", error="use_dpop_nonce", algs="ES256 '
    )
    assert answer.header("dpop-nonce")
    assert not await recorded(world, "login")


async def test_d28_a_page_that_proves_a_key_is_bound_with_its_refresh_cookie(world: World) -> None:
    """In the mode hybrid, a page that sends a proof is bound, too: its refresh cookie alone gets no new token."""
    await world.register()
    browser, client = world.browser(), Bound(world)
    client.nonce = world.auth.authority.proofs.nonce(world.clock())
    body = {"email": "ada@example.com", "password": PASSWORD, "mode": "hybrid"}
    proof = ("dpop", client.proof("POST", "/auth/login"))
    said = await browser.call("POST", "/auth/login", json=body, headers=[proof])
    assert said.json["token_type"] == "DPoP"
    assert "refresh_token" not in said.json
    assert (await browser.call("POST", "/auth/refresh")).code == "dpop_required"
    renewed = await browser.call("POST", "/auth/refresh", headers=[("dpop", client.proof("POST", "/auth/refresh"))])
    assert (renewed.status, renewed.json["token_type"]) == (200, "DPoP")


async def test_d28_a_session_cookie_is_not_bound_by_a_proof(world: World) -> None:
    """The mode session gives no token that a proof could bind, and the answer does not say otherwise."""
    await world.register()
    browser, client = world.browser(), Bound(world)
    client.nonce = world.auth.authority.proofs.nonce(world.clock())
    body = {"email": "ada@example.com", "password": PASSWORD, "mode": "session"}
    proof = ("dpop", client.proof("POST", "/auth/login"))
    said = await browser.call("POST", "/auth/login", json=body, headers=[proof])
    assert "token_type" not in said.json
    assert said.json["session"]["bound"] is False
    assert (await browser.me()).status == 200


@BOTH
async def test_d29_a_copied_access_token_is_worth_nothing(world: World, mode: dict[str, str]) -> None:
    """A thief with the access token alone is refused: as a bearer, with a key of their own, without a proof, and by the
    scheme Bearer with the owner's proof beside it.
    """
    await world.register()
    program = await a_bound(world, mode)
    assert (await program.me()).status == 200
    token = program.access
    thief = Bound(world)
    thief.nonce = program.nonce
    by_scheme = [
        await world.call("GET", "/auth/me", bearer=token),
        await world.call("GET", "/auth/me", headers=[("authorization", f"DPoP {token}")]),
        await world.call("GET", "/auth/me", bearer=token, headers=[("dpop", program.proof("GET", "/auth/me", token))]),
    ]
    assert [answer.code for answer in by_scheme] == ["dpop_required"] * 3
    with_own_key = await thief.call("GET", "/auth/me", token=token)
    assert (with_own_key.status, with_own_key.code) == (401, "invalid_dpop_proof")
    assert "its key is not the one" in with_own_key.json["detail"]
    assert (await program.me()).status == 200


async def test_d29_a_bearer_token_needs_no_scheme_of_another(world: World) -> None:
    """An unbound token by the scheme DPoP is refused, however right its proof is: a client must know what it has."""
    await world.register()
    program = world.program()
    await program.login(**HYBRID)
    bound = Bound(world)
    answer = await bound.call("GET", "/auth/me", token=program.access)
    assert answer.code == "invalid_dpop_proof"
    assert "send it by the scheme Bearer" in answer.json["detail"]


async def test_d30_a_refresh_without_the_key_ends_nothing(world: World) -> None:
    """A bound session is not refreshed without a proof, and does not end by it: something on the way may have dropped
    the header.
    """
    await world.register()
    program = await a_bound(world)
    answer = await world.call("POST", "/auth/refresh", json={"refresh_token": program.refresh})
    assert (answer.status, answer.code) == (401, "dpop_required")
    form = {"grant_type": "refresh_token", "refresh_token": program.refresh}
    by_oauth = await world.call("POST", "/oauth2/token", form=form)
    assert (by_oauth.status, by_oauth.code) == (400, "invalid_dpop_proof")
    assert (await program.renew()).status == 200


async def test_d30_a_copied_refresh_token_with_another_key_is_theft(world: World) -> None:
    """A genuine refresh token with the proof of another key means two holders: the session ends, fenced and recorded,
    for the thief and for the owner.
    """
    await world.register()
    program = await a_bound(world)
    thief = Bound(world)
    thief.refresh = program.refresh
    assert (await thief.renew()).code == "invalid_token"
    (event,) = await recorded(world, "refresh_theft")
    assert event.detail == "another key"
    assert (await program.me()).status == 401
    assert (await program.renew()).status == 401


async def test_d30_a_made_up_refresh_token_ends_nothing(world: World) -> None:
    """A thief who knows the id of a session, and forges a refresh token of it, cannot end it by a key of their own."""
    await world.register()
    program = await a_bound(world)
    thief = Bound(world)
    thief.refresh = program.refresh[:-6] + "AAAAAA"
    assert (await thief.renew()).status == 401
    assert (await program.renew()).status == 200


async def test_d26_a_proof_is_replayed_at_no_node() -> None:
    """Two nodes over one store: a proof that refreshed at one is refused at both. A proof of a request is refused the
    second time by the same node.
    """
    store = MemoryStore()
    async with a_world(store=store) as here, a_world(store=store) as there:
        there.clock.now = here.clock.now = max(here.clock(), there.clock())
        await here.register()
        program = await a_bound(here)
        body, proof = {"refresh_token": program.refresh}, ("dpop", program.proof("POST", "/auth/refresh"))
        first = await here.call("POST", "/auth/refresh", json=body, headers=[proof])
        assert first.status == 200
        for node in (here, there):
            again = await node.call("POST", "/auth/refresh", json=body, headers=[proof])
            assert (again.status, again.code) == (401, "invalid_dpop_proof")
            assert "used before" in again.json["detail"]
        assert not await recorded(here, "refresh_theft")
        program.learn(first)
        token = program.access
        headers = [("authorization", f"DPoP {token}"), ("dpop", program.proof("GET", "/auth/me", token))]
        assert (await here.call("GET", "/auth/me", headers=headers)).status == 200
        assert (await here.call("GET", "/auth/me", headers=headers)).code == "invalid_dpop_proof"
        # The nonce of one node is good at the other.
        assert (await there.call("GET", "/auth/me", headers=headers)).status == 200


async def test_d26_the_store_away_is_503(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresh whose proof cannot be counted is 503, never 401: an outage signs no user out."""
    await world.register()
    program = await a_bound(world)

    async def away(*_: object) -> None:
        raise Unavailable("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(world.auth.authority.store, "hit", away)
        assert (await program.renew()).status == 503
    assert (await program.renew()).status == 200


WRONG = (
    ("method", "POST", "", "`htm`"),
    ("path", "GET", "https://login.example.com/auth/sessions", "`htu`"),
    ("host", "GET", "https://evil.example.com/auth/me", "`htu`"),
)


@pytest.mark.parametrize(("what", "method", "url", "said"), WRONG, ids=[row[0] for row in WRONG])
async def test_d22_a_proof_of_another_request_is_refused(
    world: World, what: str, method: str, url: str, said: str
) -> None:
    """A proof of another method, path or host is refused, with the reason."""
    await world.register()
    program = await a_bound(world)
    await program.me()
    token = program.access
    headers = [("authorization", f"DPoP {token}"), ("dpop", program.proof(method, "/auth/me", token, url=url))]
    answer = await world.call("GET", "/auth/me", headers=headers)
    assert (answer.status, answer.code) == (401, "invalid_dpop_proof"), what
    assert said in answer.json["detail"]


async def test_d22_two_proofs_in_one_request_are_refused(world: World) -> None:
    """Two DPoP headers are refused: a proxy may read one, and the server the other."""
    await world.register()
    program = await a_bound(world)
    await program.me()
    token = program.access
    twice = [("dpop", program.proof("GET", "/auth/me", token)) for _ in range(2)]
    answer = await world.call("GET", "/auth/me", headers=[("authorization", f"DPoP {token}"), *twice])
    assert (answer.status, answer.code) == (400, "repeated_header")


async def test_d31_off_binds_no_new_sign_in() -> None:
    """With `off`, a client that proves a key gets bearer tokens."""
    async with a_world(policy=Policy(device_binding="off")) as world:
        await world.register()
        program = Bound(world)
        answer = await program.login(**HYBRID)
        assert answer.json["token_type"] == "Bearer"
        assert (await world.call("GET", "/auth/me", bearer=program.access)).status == 200


async def test_d31_what_is_bound_stays_bound_whatever_the_policy() -> None:
    """A session that was bound needs its key after the policy was turned off, too."""
    store = MemoryStore()
    async with a_world(store=store) as before:
        await before.register()
        program = await a_bound(before)
        async with a_world(store=store, policy=Policy(device_binding="off")) as world:
            world.clock.now = before.clock.now
            program.world = world
            answer = await world.call("POST", "/auth/refresh", json={"refresh_token": program.refresh})
            assert answer.code == "dpop_required"
            renewed = await program.renew()
            assert (renewed.status, renewed.json["token_type"]) == (200, "DPoP")


@BOTH
async def test_d32_required_refuses_tokens_in_a_body_without_a_key(mode: dict[str, str]) -> None:
    """With `required`, a sign-in whose tokens come in the body needs a key; a browser's cookies need none."""
    async with a_world(policy=Policy(device_binding="required")) as world:
        await world.register()
        body = {"email": "ada@example.com", "password": PASSWORD}
        answer = await world.call("POST", "/auth/login", json={**body, **mode})
        assert (answer.status, answer.code) == (401, "dpop_required")
        assert (await a_bound(world, mode)).access
        for by_cookie in ({"mode": "session"}, {"mode": "hybrid", "transport": "cookie"}):
            assert (await world.browser().login(**by_cookie)).status == 200


async def test_d32_required_ends_what_is_not_bound_at_its_refresh() -> None:
    """After `required` is set, a session from before is not refreshed in the body: its client signs in anew."""
    store = MemoryStore()
    async with a_world(store=store) as before:
        await before.register()
        program = before.program()
        await program.login(**HYBRID)
        async with a_world(store=store, policy=Policy(device_binding="required")) as world:
            world.clock.now = before.clock.now
            answer = await world.call("POST", "/auth/refresh", json={"refresh_token": program.refresh})
            assert answer.code == "dpop_required"
            form = {"grant_type": "refresh_token", "refresh_token": program.refresh}
            assert (await world.call("POST", "/oauth2/token", form=form)).status == 400


@BOTH
async def test_d33_new_tokens_of_a_bound_sign_in_are_bound(world: World, mode: dict[str, str]) -> None:
    """A new password and a new proof of the old one give tokens that are bound to the same key."""
    await world.register()
    program = await a_bound(world, mode)
    again = await program.call("POST", "/auth/reauthenticate", json={"password": PASSWORD})
    assert (again.status, again.json["token_type"]) == (200, "DPoP")
    change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    changed = await program.call("POST", "/auth/password", json=change)
    assert (changed.status, changed.json["token_type"]) == (200, "DPoP")
    assert (await program.me()).status == 200
    assert (await world.call("GET", "/auth/me", bearer=program.access)).code == "dpop_required"


async def test_d33_a_client_that_lost_its_key_signs_out(world: World) -> None:
    """A bound access token and a bound refresh token still end their session without a proof."""
    await world.register()
    program = await a_bound(world)
    assert (
        await world.call("POST", "/auth/logout", headers=[("authorization", f"DPoP {program.access}")])
    ).status < 300
    assert (await program.me()).status == 401
    other = await a_bound(world)
    assert (await world.call("POST", "/auth/logout", json={"refresh_token": other.refresh})).status < 300
    assert (await other.renew()).status == 401


async def test_d34_introspection_names_the_key(world: World) -> None:
    """A resource server that introspects learns that the token is bound, and to which key (RFC 9449, section 6.2)."""
    await world.register()
    program = await a_bound(world)
    service = await world.add_client()
    answer = await world.call("POST", "/oauth2/introspect", form={"token": program.access}, headers=[basic(service)])
    assert answer.json["active"] is True
    assert (answer.json["token_type"], answer.json["cnf"]) == ("DPoP", {"jkt": program.key.thumbprint})


async def test_d34_the_token_endpoint_takes_proofs(world: World) -> None:
    """`/oauth2/token` exchanges a bound refresh token with a proof, and answers errors as the RFC names them."""
    await world.register()
    program = await a_bound(world)
    form = {"grant_type": "refresh_token", "refresh_token": program.refresh}
    program.nonce = ""
    for expected in (400, 200):
        headers = [("dpop", program.proof("POST", "/oauth2/token"))]
        answer = await world.call("POST", "/oauth2/token", form=form, headers=headers)
        assert answer.status == expected
        program.nonce = answer.header("dpop-nonce") or ""
        if expected == 400:
            assert answer.code == "use_dpop_nonce"
    assert answer.json["token_type"] == "DPoP"


async def test_d35_a_proxy_asks_about_the_request_that_the_client_sent() -> None:
    """`/auth/check` compares a proof with the method and the path of the request that the proxy asks about. Two paths,
    or none, are refused: a client could have written one of them.
    """
    async with a_world(proxies=[PROXY]) as world:
        await world.register()
        program = await a_bound(world)
        await program.me()

        async def check(method: str, path: str, *named: tuple[str, str]) -> Answer:
            token = program.access
            proof = ("dpop", program.proof(method, path, token))
            return await world.check("PUT", ("authorization", f"DPoP {token}"), proof, *named)

        uri = ("x-forwarded-uri", "/orders/7?page=2")
        right = await check("PUT", "/orders/7", uri)
        assert right.status == 204
        assert right.header("x-auth-token")
        assert (await check("PUT", "/orders/7", ("x-original-uri", "/orders/7"))).status == 204
        for wrong in (
            await check("GET", "/orders/7", uri),
            await check("PUT", "/orders/8", uri),
            await check("PUT", "/orders/7"),
            await check("PUT", "/orders/7", uri, ("x-original-uri", "/orders/8")),
            await world.check("PUT", uri, bearer=program.access),
        ):
            assert wrong.status == 401, wrong
        assert (await check("PUT", "/orders/7", uri)).status == 204


async def test_d36_the_devices_page_says_what_is_bound(world: World) -> None:
    """The list of sessions and the page of devices say which sign-ins are bound to their device."""
    await world.register()
    bound = await a_bound(world)
    browser = world.browser()
    await browser.login(mode="session")
    listed = (await browser.call("GET", "/auth/sessions")).json["sessions"]
    assert {each["id"]: each["bound"] for each in listed} == {bound.session_id: True, browser.session_id: False}
    page = (await browser.call("GET", "/auth/devices", headers=[("accept", "text/html")])).body.decode()
    assert page.count("bound to this device") == 1


async def test_d34_the_metadata_lists_the_algorithms_of_proofs(world: World) -> None:
    """A client learns from the metadata (RFC 8414) that it may prove a key, and with what."""
    found = (await world.call("GET", "/.well-known/oauth-authorization-server")).json
    assert found["dpop_signing_alg_values_supported"] == list(ALGORITHMS)


@BOTH
async def test_q05_a_client_that_proves_its_key_is_asked_nothing(mode: dict[str, str]) -> None:
    """Another continent a minute later, under the strictest preset: a bound client is answered, because a copy could
    not have made the proof. One that is not bound is asked.
    """
    policy = replace(STANDARD, suspicion="strict")
    async with a_world(policy=policy, countries=Countries(), limits=None) as world:
        await world.register()
        bound, unbound = Bound(world), world.program()
        for program, status in ((bound, 200), (unbound, 401)):
            program.peer = "145.97.39.155"
            assert (await program.login(**mode)).status == 200
            program.peer = "1.128.0.1"
            world.clock.now += 60
            assert (await program.me()).status == status
        if mode is HYBRID:
            assert (await bound.renew()).status == 200
        assert [event.detail for event in await recorded(world, "session_suspected")] == ["step_up: too_fast"]
