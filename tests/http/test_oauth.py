"""Refreshing, introspection and revocation over HTTP, at the own endpoints and at those of the standards."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime

import pytest
from msgspec.structs import replace
from tests.http.world import AWAY, OTHER_PASSWORD, PASSWORD, REFRESH, Answer, Program, World, a_world, basic

from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import DAY, HOUR, LONGEST_ACCESS, MINUTE, STANDARD
from dutchdoor.testing.conformance import the_log

ADA = "ada@example.com"
INACTIVE = b'{"active":false}'
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
)


async def signed_in(world: World, service: tuple[str, str] | None = None) -> Program:
    """Sign in, in the name of a registered client that authenticates, or of none."""
    program = world.program()
    body = {"email": "ada@example.com", "password": PASSWORD, "mode": "hybrid"}
    if service is None:
        await program.login(mode="hybrid")
    else:
        body["client_id"] = service[0]
        assert (await program.call("POST", "/auth/login", json=body, headers=[basic(service)])).status == 200
    return program


async def refresh(world: World, token: str, **more: object) -> Answer:
    extra = {"client_id": more.pop("client_id")} if "client_id" in more else {}
    return await world.call("POST", "/auth/refresh", json={"refresh_token": token, **extra}, **more)


async def exchange(world: World, token: str, service: tuple[str, str] | None = None, **more: str) -> Answer:
    form = {"grant_type": "refresh_token", "refresh_token": token, **more}
    return await world.call("POST", "/oauth2/token", form=form, headers=[basic(service)] if service else [])


async def introspect(world: World, token: str, service: tuple[str, str]) -> bytes:
    answer = await world.call("POST", "/oauth2/introspect", form={"token": token}, headers=[basic(service)])
    assert answer.status == 200
    return answer.body


async def test_o01_rotation_and_reuse_ends_the_family(world: World) -> None:
    """Each refresh gives a new token; a thief and its victim who both use one end with every descendant dead, and one
    event of theft, and the access tokens are dead with them.
    """
    await world.directory.admin.create(ADA, client=Client(), actor="cli", password=PASSWORD)
    victim = await signed_in(world)
    tokens, current = [victim.refresh], victim.refresh
    for _ in range(4):
        world.clock.forward(STANDARD.access_for)
        current = (await refresh(world, current)).json["refresh_token"]
        tokens.append(current)
    assert len(set(tokens)) == 5
    world.clock.forward(STANDARD.access_for)
    thief = await refresh(world, tokens[1], peer=AWAY, headers=[("user-agent", CHROME)])
    assert thief.status == 401
    for token in tokens:
        assert (await refresh(world, token)).status == 401
    assert (await victim.me()).status == 401
    assert [event.name for event in await world.events()].count("refresh_theft") == 1
    await world.posted()
    assert world.mailbox.mails[-1].to == ADA, "and its owner is notified"


async def test_o02_a_lost_answer_logs_no_one_out(world: World) -> None:
    """A client that never received the answer repeats the request with the old token and goes on; at once, and after
    the window as well; at both endpoints.
    """
    await world.register()
    for later in (0.0, STANDARD.refresh_window + 1, HOUR):
        for again in (refresh, exchange):
            program = await signed_in(world)
            world.clock.forward(STANDARD.access_for)
            lost = await refresh(world, program.refresh)
            world.clock.forward(later)
            retried = await again(world, program.refresh)
            assert retried.status == 200, (later, again)
            if later == 0:
                assert retried.json["refresh_token"] == lost.json["refresh_token"]
            assert (await refresh(world, retried.json["refresh_token"])).status == 200


async def test_o02_four_tabs_get_one_token(world: World) -> None:
    """Four tabs that refresh at once by one cookie all go on, with the same next token in every answer that sets one,
    and the family has advanced by one.
    """
    await world.register()
    browser = world.browser()
    await browser.login(mode="hybrid")
    world.clock.forward(STANDARD.access_for)
    before = browser.cookie()
    headers = [("origin", world.origin), ("sec-fetch-site", "same-origin"), ("x-csrf-token", browser.csrf)]
    answers = await asyncio.gather(
        *(world.call("POST", "/auth/refresh", cookie=before, headers=headers) for _ in range(4))
    )
    assert {answer.status for answer in answers} == {200}
    given = {answer.cookie(f"__Host-{REFRESH}") for answer in answers} - {None}
    assert len(given) == 1
    found = await world.store.session(browser.session_id)
    assert found is not None
    assert found[0].generation == 1


async def test_o03_refreshing_never_extends_the_end(world: World) -> None:
    """Refreshed every hour, a sign-in still ends at its absolute time, and no access token outlives it."""
    await world.register()
    program = await signed_in(world)
    started = world.clock()
    while world.clock() - started < STANDARD.absolute_for - HOUR:
        world.clock.forward(HOUR)
        answer = await refresh(world, program.refresh)
        assert answer.status == 200
        program.refresh, program.access = answer.json["refresh_token"], answer.json["access_token"]
    world.clock.forward(HOUR - 5 * MINUTE)
    last = (await refresh(world, program.refresh)).json
    assert last["expires_in"] <= 5 * MINUTE
    assert last["refresh_expires_in"] <= 5 * MINUTE
    world.clock.forward(5 * MINUTE)
    assert (await refresh(world, last["refresh_token"])).status == 401
    assert (await world.call("GET", "/auth/me", bearer=last["access_token"])).status == 401


async def test_o03_one_answer_names_one_moment(world: World) -> None:
    """`refresh_expires_in` and `session.expires_at` of an answer name the same moment, and the refresh token is valid
    until then: after a sign-in, and when the absolute age is nearer than the idle one.
    """
    await world.register()
    program = await signed_in(world)
    for wait in (0.0, STANDARD.idle_for - HOUR, STANDARD.idle_for - HOUR, HOUR):
        world.clock.forward(wait)
        said = (await refresh(world, program.refresh)).json
        program.refresh = said["refresh_token"]
        ends = datetime.fromisoformat(said["session"]["expires_at"]).timestamp()
        assert abs(world.clock() + said["refresh_expires_in"] - ends) < 2
    assert said["refresh_expires_in"] < STANDARD.idle_for, "the absolute age has come into sight"
    service = await world.add_client()
    world.clock.forward(said["refresh_expires_in"] - 2)
    assert b'"active":true' in await introspect(world, program.refresh, service)
    world.clock.forward(3)
    assert (await refresh(world, program.refresh)).status == 401


async def test_o04_a_refresh_token_is_its_clients(world: World) -> None:
    """Presented by another client, authenticated or not, it is invalid_grant, leaves an event, and signs no one out; a
    confidential client must prove itself.
    """
    await world.register()
    mine, other, public = await world.add_client(), await world.add_client(), await world.add_client(public=True)
    program = await signed_in(world, mine)
    for answer in (
        await exchange(world, program.refresh, other),
        await exchange(world, program.refresh, client_id=public[0]),
        await exchange(world, program.refresh),
    ):
        assert (answer.status, answer.json["error"]) == (400, "invalid_grant")
    assert (await refresh(world, program.refresh)).status == 401
    named = [event for event in await world.events() if event.name == "refresh_wrong_client"]
    assert {event.detail for event in named} >= {other[0], public[0]}
    for wrong in ((mine[0], other[1]), (mine[0], "ddc1_x"), ("nobody", mine[1]), (mine[0], "")):
        answer = await exchange(world, program.refresh, wrong)
        assert (answer.status, answer.json["error"]) == (401, "invalid_client")
    unproven = await exchange(world, program.refresh, client_id=mine[0])
    assert (unproven.status, unproven.json["error"]) == (401, "invalid_client")
    assert (await exchange(world, program.refresh, mine)).status == 200
    first_party = await signed_in(world)
    assert (await exchange(world, first_party.refresh, mine)).json["error"] == "invalid_grant"
    assert (await exchange(world, first_party.refresh)).status == 200


async def test_o04_a_refresh_gives_no_more_than_the_sign_in(world: World) -> None:
    """A scope that the sign-in did not have is invalid_scope; who holds another client's token learns not even that."""
    await world.register()
    program = await signed_in(world)
    for scope in ("admin", "openid offline_access", "x" * 60_000):
        answer = await exchange(world, program.refresh, scope=scope)
        assert (answer.status, answer.json["error"]) == (400, "invalid_scope")
        other = await exchange(world, program.refresh, await world.add_client(), scope=scope)
        assert (other.status, other.json["error"]) == (400, "invalid_grant")
    assert (await exchange(world, program.refresh)).json["scope"] == ""


@pytest.mark.parametrize("how", ["logout", "logout/all", "password", "reset", "disable", "ended"])
async def test_o05_a_refresh_token_dies_with_its_sign_in(world: World, how: str) -> None:
    """After a log-out, a log-out everywhere, a change or reset of the password, a disabled account or an ended session
    the refresh token is refused at every endpoint, as invalid_grant where the standard has the word.
    """
    user = await world.register()
    program, other = await signed_in(world), world.browser()
    await other.login(mode="session")
    service = await world.add_client()
    assert b'"active":true' in await introspect(world, program.refresh, service)
    match how:
        case "logout":
            await program.call("POST", "/auth/logout")
        case "logout/all":
            await other.call("POST", "/auth/logout/all")
        case "password":
            body = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
            assert (await other.call("POST", "/auth/password", json=body)).status == 200
        case "reset":
            await world.call("POST", "/auth/password/forgot", json={"email": ADA})
            await world.posted()
            body = {"token": world.mailbox.token(), "new_password": OTHER_PASSWORD}
            assert (await world.call("POST", "/auth/password/reset", json=body)).status == 200
        case "disable":
            await world.directory.admin.disable(user["id"], client=world.api_client(), actor="cli")
        case "ended":
            assert (await other.call("DELETE", f"/auth/sessions/{program.session_id}")).status == 200
    assert (await refresh(world, program.refresh)).status == 401
    answer = await exchange(world, program.refresh)
    assert (answer.status, answer.json["error"]) == (400, "invalid_grant")
    assert await introspect(world, program.refresh, service) == INACTIVE
    assert await introspect(world, program.access, service) == INACTIVE
    assert (await world.call("GET", "/auth/me", bearer=program.access)).status == 401


async def revoke(world: World, token: str, service: tuple[str, str] | None = None, **more: str) -> Answer:
    return await world.call(
        "POST", "/oauth2/revoke", form={"token": token, **more}, headers=[basic(service)] if service else []
    )


async def test_o06_revoking_ends_what_is_the_clients_own(world: World) -> None:
    """Revoking a refresh token kills its access tokens at the next request; another client's call ends nothing; a
    token that the server does not know, of any kind and shape, is 200.
    """
    await world.register()
    mine, other = await world.add_client(), await world.add_client()
    program = await signed_in(world, mine)
    for token in (program.refresh, program.access):
        for caller in (other, None):
            assert (await revoke(world, token, caller)).status == 200
        unproven = await revoke(world, token, client_id=mine[0])
        assert (unproven.status, unproven.json["error"]) == (401, "invalid_client")
    assert (await program.me()).status == 200
    for token in ("x", "ddr1_" + "A" * 60, program.refresh[:-1], program.access[:-4], "dds1_" + "A" * 48, "🚪"):
        assert (await revoke(world, token, mine)).status == 200
    done = await revoke(world, program.refresh, mine, token_type_hint="nonsense")
    assert (done.status, done.json) == (200, {"fenced": True, "fenced_in_ms": 0})
    assert (await program.me()).status == 401
    assert (await exchange(world, program.refresh, mine)).json["error"] == "invalid_grant"

    own = await signed_in(world)
    assert (await revoke(world, own.access)).status == 200
    assert (await own.me()).status == 401
    stateless = world.program()
    await stateless.login(mode="jwt")
    before = len(await the_log(world.store))
    for _ in range(3):
        assert (await revoke(world, stateless.access)).status == 200
        assert (await stateless.me()).status == 401
    assert len(await the_log(world.store)) == before + 1, "a repeat writes nothing"


async def test_o06_revoking_what_is_long_gone_is_success() -> None:
    """A token whose session was forgotten long ago is as revoked as can be: 200, and a log-out with it as well."""
    async with a_world(policy=replace(STANDARD, idle_for=HOUR, absolute_for=HOUR)) as world:
        await world.register()
        program = await signed_in(world)
        world.clock.forward(DAY)
        await world.auth.authority.tidy()
        assert (await world.store.session(program.session_id)) is None
        assert (await revoke(world, program.access)).status == 200
        assert (await revoke(world, program.refresh)).status == 200
        answer = await world.call("POST", "/auth/logout", bearer=program.access)
        assert (answer.status, answer.json.get("ended")) == (200, 0)


async def test_o07_introspection_gives_no_reason(world: World) -> None:
    """Unknown, malformed, expired, revoked, foreign and another client's refresh token: the same 16 bytes. The client
    authenticates, and gets the content of a valid token.
    """
    user = await world.register()
    service, other = await world.add_client(), await world.add_client()
    expired = await signed_in(world)
    world.clock.forward(STANDARD.access_for + 61)
    revoked, good, foreign = await signed_in(world), await signed_in(world), await signed_in(world, other)
    await revoked.call("POST", "/auth/logout")
    async with a_world(public_url="https://login.example.org", clock=world.clock) as elsewhere:
        elsewhere.host = "login.example.org"
        await elsewhere.register()
        stranger = elsewhere.program()
        answer = await elsewhere.call("POST", "/auth/login", json={"email": ADA, "password": PASSWORD, "mode": "jwt"})
        stranger.access = answer.json["access_token"]
    seen = {
        (await world.call("POST", "/oauth2/introspect", form={"token": token}, headers=[basic(service)])).sees()[1]
        for token in (
            *("x", "ddr1_" + "A" * 60, "a.b.c", good.access[:-4], good.refresh[:-1], expired.access, revoked.access),
            *(revoked.refresh, foreign.refresh, stranger.access, "dds1_" + "A" * 48, service[1]),
        )
    }
    assert seen == {INACTIVE}
    for token in (good.access, good.refresh):
        said = await introspect(world, token, service)
        assert b'"active":true' in said
        assert user["id"].encode() in said
    for headers in (
        [],
        [basic((service[0], other[1]))],
        [basic(("nobody", service[1]))],
        [("authorization", "Basic !")],
    ):
        for token in (good.access, "x"):
            refused = await world.call("POST", "/oauth2/introspect", form={"token": token}, headers=headers)
            assert (refused.status, refused.json["error"]) == (401, "invalid_client")
            assert (refused.header("www-authenticate") or "").startswith("Basic")
    bearer = await world.call("POST", "/oauth2/introspect", form={"token": good.access}, bearer=good.access)
    assert bearer.status == 401


async def test_o07_asking_changes_nothing(world: World) -> None:
    """Introspecting a refresh token neither rotates it nor looks like a second holder."""
    await world.register()
    service, program = await world.add_client(), await signed_in(world)
    world.clock.forward(STANDARD.access_for)
    new = (await refresh(world, program.refresh)).json["refresh_token"]
    world.clock.forward(HOUR)
    for _ in range(3):
        await introspect(world, program.refresh, service)
        assert b'"active":true' in await introspect(world, new, service)
    newer = (await refresh(world, new)).json["refresh_token"]
    assert await introspect(world, program.refresh, service) == INACTIVE, "two generations old"
    assert b'"active":true' in await introspect(world, newer, service)


ENDPOINTS = {
    "/oauth2/token": "grant_type=refresh_token&refresh_token=x",
    "/oauth2/introspect": "token=x&token_type_hint=y",
    "/oauth2/revoke": "token=x&token_type_hint=y",
}


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_o16_a_parameter_counts_once(world: World, path: str) -> None:
    """Each parameter sent twice, in the body, in the URL, or over both, is invalid_request; so is another body."""
    service = await world.add_client()
    form = ENDPOINTS[path]
    for name in [piece.partition("=")[0] for piece in form.split("&")]:
        for twice in (f"{form}&{name}=z", f"{form}&%{ord(name[0]):02x}{name[1:]}=z", f"{name}=&{form}"):
            answer = await world.call("POST", path, form=twice, headers=[basic(service)])
            assert (answer.status, answer.json["error"]) == (400, "invalid_request"), twice
        answer = await world.call("POST", f"{path}?{name}=z", form=form, headers=[basic(service)])
        assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    for kind in ("application/json", "text/plain", "multipart/form-data"):
        answer = await world.call("POST", path, body=form.encode(), headers=[basic(service), ("content-type", kind)])
        assert (answer.status, answer.json["error"]) == (415, "invalid_request")
    assert (await world.call("GET", f"{path}?{form}", headers=[basic(service)])).status == 405
    twice_over = [basic(service), basic(service)]
    assert (await world.call("POST", path, form=form, headers=twice_over)).status == 400


@pytest.mark.parametrize("grant", ["password", "client_credentials", "authorization_code", "implicit", "x" * 1000])
async def test_o11_there_is_no_other_grant(world: World, grant: str) -> None:
    """Password, implicit and whatever else is not offered is unsupported_grant_type, good credentials or not."""
    await world.register()
    form = {"grant_type": grant, "username": ADA, "password": PASSWORD}
    answer = await world.call("POST", "/oauth2/token", form=form)
    assert (answer.status, answer.json["error"]) == (400, "unsupported_grant_type")


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_o18_long_inputs_cost_nothing(world: World, path: str) -> None:
    """A megabyte of scope, token or parameters is refused in 50 ms of a processor."""
    service = await world.add_client()
    name = "refresh_token" if path.endswith("token") else "token"
    for form in (
        f"{ENDPOINTS[path]}&scope=" + "a+" * (1 << 19),
        f"{name}=" + "x" * (1 << 20),
        "&".join(f"p{n}=1" for n in range(90_000)),
        f"grant_type=refresh_token&{name}=" + "x" * 60_000,
    ):
        start = time.process_time()
        answer = await world.call("POST", path, form=form, headers=[basic(service)])
        taken = time.process_time() - start
        assert answer.status in {200, 400, 413}, answer
        assert taken < 0.05
        assert len(answer.body) < 1000


def test_the_longest_token_is_what_purging_waits_for() -> None:
    """No policy lets an access token outlive what revocations are kept for."""
    with pytest.raises(Exception, match="at most an hour"):
        replace(STANDARD, access_for=LONGEST_ACCESS + 1)


async def test_o13_no_one_signs_in_in_the_name_of_a_client_with_a_secret(world: World) -> None:
    """A sign-in for a confidential client needs its secret: none, a wrong one and another client's are 401."""
    await world.register()
    mine, other, public = await world.add_client(), await world.add_client(), await world.add_client(public=True)
    body = {"email": "ada@example.com", "password": PASSWORD, "mode": "jwt", "client_id": mine[0]}
    for headers in ([], [basic(other)], [basic((mine[0], other[1]))]):
        assert (await world.call("POST", "/auth/login", json=body, headers=headers)).status == 401
    assert (await world.call("POST", "/auth/login", json=body, headers=[basic(mine)])).status == 200
    assert (await world.call("POST", "/auth/login", json={**body, "client_id": public[0]})).status == 200


async def test_o13_every_door_for_refresh_tokens_asks_for_the_clients_secret(world: World) -> None:
    """A refresh token of a client with a secret is worth nothing without it: not at refreshing, not at log-out, in the
    body or in the cookie, and a sign-in beside it ends nothing. With the secret each of them works.
    """
    await world.register()
    mine, other = await world.add_client(), await world.add_client()
    wrong = ([], [basic(other)], [basic((mine[0], other[1]))])
    program = await signed_in(world, mine)
    token, refresh_cookie = {"refresh_token": program.refresh}, f"__Host-dd_refresh={program.refresh}"
    csrf = ("x-csrf-token", (await world.call("GET", "/auth/csrf", cookie=refresh_cookie)).json["csrf_token"])
    for proof in wrong:
        for path, body in (("/auth/logout", token), ("/auth/refresh", {**token, "client_id": mine[0]})):
            assert (await world.call("POST", path, json=body, headers=proof)).status == 401, path
        for path in ("/auth/logout", "/auth/refresh"):
            body = {"client_id": mine[0]}
            answer = await world.call("POST", path, json=body, cookie=refresh_cookie, headers=[*proof, csrf])
            assert (answer.status, answer.set_cookies()) == (401, []), path
    login = {"email": ADA, "password": PASSWORD, "mode": "session"}
    assert (await world.call("POST", "/auth/login", json=login, cookie=refresh_cookie)).status == 200
    assert (await program.me()).status == 200, "no door was open"

    named = {**token, "client_id": mine[0]}
    answer = await world.call("POST", "/auth/refresh", json=named, headers=[basic(mine)])
    assert answer.status == 200
    token = {"refresh_token": answer.json["refresh_token"]}
    done = await world.call("POST", "/auth/logout", json=token, headers=[basic(mine)])
    assert (done.status, done.json["ended"]) == (200, 1)
    assert (await program.me()).status == 401


@pytest.mark.parametrize("mode", ["hybrid", "jwt"])
async def test_o13_no_new_tokens_for_a_client_that_did_not_prove_itself(world: World, mode: str) -> None:
    """A stolen access token of a client with a secret, and even the password with it, give no new tokens of this
    client: neither proving the password again nor changing it does. The client's own new sign-in gives them.
    """
    await world.register()
    mine, public = await world.add_client(), await world.add_client(public=True)
    for service, works in ((mine, False), (public, True)):
        body = {"email": ADA, "password": PASSWORD, "mode": mode, "client_id": service[0]}
        headers = [basic(service)] if service is mine else []
        access = (await world.call("POST", "/auth/login", json=body, headers=headers)).json["access_token"]
        again = await world.call("POST", "/auth/reauthenticate", json={"password": PASSWORD}, bearer=access)
        change = {"current_password": PASSWORD, "new_password": PASSWORD + " 8"}
        access = again.json["access_token"] if works else access
        changed = await world.call("POST", "/auth/password", json=change, bearer=access)
        assert (again.status, changed.status) == ((200, 200) if works else (401, 401))
        assert works == ("access_token" in changed.json)
        if not works:
            assert (await world.call("GET", "/auth/me", bearer=access)).status == 200, "and nothing ended"
