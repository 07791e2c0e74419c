"""Every call that revokes says whether it is fenced, and says it truly: with a verifier that is silent,
after a restore, and for as long as the caller would wait.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace
from tests.http.test_lost_factors import REMOVE, WAIT, begun, link, protected
from tests.http.test_passkeys import made
from tests.http.test_revocations import Follower, until
from tests.http.world import OTHER_PASSWORD, PASSWORD, Answer, Browser, Program, World, basic

from dutchdoor import issuers
from dutchdoor.issuers.identity import Identity
from dutchdoor.model.issuer_sessions import Issued, began_by
from dutchdoor.services.identities import record_of
from dutchdoor.stores.base import Add, Swap
from dutchdoor.web.api import Api

ADA, ROOT = "ada@example.com", "root@example.com"


async def silent(world: World) -> Follower:
    """A verifier that has just got a lease, and will not come back."""
    follower = Follower(world, await world.add_verifier())
    await follower.begin()
    return follower


class People:
    """Who revokes, and what."""

    def __init__(self, world: World, ada: str, root: Program) -> None:
        self.world, self.ada, self.root = world, ada, root

    async def browser(self, mode: str = "session") -> Browser:
        browser = self.world.browser()
        await browser.login(mode=mode)
        return browser

    async def session(self) -> str:
        return (await self.browser()).session_id

    async def token(self) -> str:
        program = self.world.program()
        await program.login(mode="jwt")
        return program.access


@pytest.fixture
async def people(world: World) -> People:
    ada = await world.register()
    await world.make_admin()
    root = world.program()
    await root.login(ROOT, mode="hybrid")
    return People(world, ada["id"], root)


Revoking = Callable[[People, list[tuple[str, str]]], Awaitable[Answer]]


async def logout(people: People, prefer: list[tuple[str, str]]) -> Answer:
    return await (await people.browser()).call("POST", "/auth/logout", headers=prefer)


async def logout_of_a_token(people: People, prefer: list[tuple[str, str]]) -> Answer:
    return await people.world.call("POST", "/auth/logout", bearer=await people.token(), headers=prefer)


async def logout_all(people: People, prefer: list[tuple[str, str]]) -> Answer:
    return await (await people.browser()).call("POST", "/auth/logout/all", headers=prefer)


async def one_session(people: People, prefer: list[tuple[str, str]]) -> Answer:
    other = await people.session()
    return await (await people.browser()).call("DELETE", f"/auth/sessions/{other}", headers=prefer)


async def other_sessions(people: People, prefer: list[tuple[str, str]]) -> Answer:
    await people.session()
    return await (await people.browser()).call("DELETE", "/auth/sessions?except=current", headers=prefer)


async def password(people: People, prefer: list[tuple[str, str]]) -> Answer:
    body = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    browser = await people.browser("hybrid")
    answer = await browser.call("POST", "/auth/password", json=body, headers=prefer, by_token=True)
    assert {"access_token", "csrf_token", "user"} <= set(answer.json)
    assert answer.set_cookies(), "the tokens are there, fenced or not"
    return answer


async def reset(people: People, prefer: list[tuple[str, str]]) -> Answer:
    await people.world.call("POST", "/auth/password/forgot", json={"email": ADA})
    await people.world.posted()
    body = {"token": people.world.mailbox.token(), "new_password": OTHER_PASSWORD}
    return await people.world.call("POST", "/auth/password/reset", json=body, headers=prefer)


async def verified_elsewhere(people: People, prefer: list[tuple[str, str]]) -> Answer:
    other = {"email": "bob@example.com", "password": PASSWORD}
    for _ in range(2):  # the second time there is an account, and its owner gets a link
        await people.world.browser().call("POST", "/auth/register", json=other)
    await people.world.posted()
    body = {"token": people.world.mailbox.token(), "password": OTHER_PASSWORD}
    return await people.world.call("POST", "/auth/email/verify", json=body, headers=prefer)


async def disable(people: People, prefer: list[tuple[str, str]]) -> Answer:
    return await people.root.call("POST", f"/admin/api/accounts/{people.ada}/disable", headers=prefer)


async def roles(people: People, prefer: list[tuple[str, str]]) -> Answer:
    path, body = f"/admin/api/accounts/{people.ada}/roles", {"roles": ["editor"]}
    answer = await people.root.call("POST", path, json=body, headers=prefer)
    assert answer.json["user"]["roles"] == ["editor"]
    return answer


async def sessions_by_admin(people: People, prefer: list[tuple[str, str]]) -> Answer:
    return await people.root.call("DELETE", f"/admin/api/accounts/{people.ada}/sessions", headers=prefer)


async def session_by_admin(people: People, prefer: list[tuple[str, str]]) -> Answer:
    return await people.root.call("DELETE", f"/admin/api/sessions/{await people.session()}", headers=prefer)


async def key(people: People, prefer: list[tuple[str, str]]) -> Answer:
    kid = (await people.root.call("GET", "/admin/api/keys")).json["keys"][0]["kid"]
    return await people.root.call("DELETE", f"/admin/api/keys/{kid}", headers=prefer)


async def everything_by_admin(people: People, prefer: list[tuple[str, str]]) -> Answer:
    return await people.root.call("DELETE", "/admin/api/sessions", headers=prefer)


async def revoke(people: People, prefer: list[tuple[str, str]]) -> Answer:
    return await people.world.call("POST", "/oauth2/revoke", form={"token": await people.token()}, headers=prefer)


async def erased_by_admin(people: People, prefer: list[tuple[str, str]]) -> Answer:
    return await people.root.call("DELETE", f"/admin/api/accounts/{people.ada}", headers=prefer)


async def unlinked(people: People, prefer: list[tuple[str, str]]) -> Answer:
    """Unlink a log-in by which another session of the account began."""
    world, store = people.world, people.world.store
    corp = issuers.openid(name="corp", title="Corp", url="https://corp.example", client_id="us")
    named = Identity(issuer=corp.url, subject="ada-1")
    found = await store.session(await people.session())
    assert found is not None
    began = began_by(Issued(issuer=named.issuer, subject=named.subject, sid=""), found[0])
    await store.commit(Add(record_of(people.ada, named, corp, world.clock())), Add(began))
    linked = await world.directory.identities.of(people.ada)
    body = {"id": linked[0].id}
    answer = await (await people.browser()).call("POST", "/auth/identities/unlink", json=body, headers=prefer)
    assert answer.json["ended"] == 1
    return answer


async def lost_factor(people: People, prefer: list[tuple[str, str]]) -> Answer:
    world = people.world
    await protected(world)
    await begun(world)
    world.clock.now += WAIT
    return await world.call("POST", REMOVE, json={"token": link(world, REMOVE)}, headers=prefer)


async def deleted(people: People, prefer: list[tuple[str, str]]) -> Answer:
    return await (await people.browser()).call("POST", "/auth/account/delete", headers=prefer)


async def change_of_address(people: People) -> None:
    """Prove the address, ask for another one, and have the letter to it."""
    world = people.world
    account = await world.store.account(people.ada)
    assert account is not None
    await world.store.commit(Swap(replace(account, email_verified_at=world.clock())))
    browser = await people.browser()
    assert (await browser.call("POST", "/auth/email/change", json={"email": "new@example.com"})).status == 202
    await world.posted()


async def confirmed_address(people: People, prefer: list[tuple[str, str]]) -> Answer:
    await change_of_address(people)
    body = {"token": people.world.mailbox.token()}
    return await people.world.call("POST", "/auth/email/confirm", json=body, headers=prefer)


async def restored_address(people: People, prefer: list[tuple[str, str]]) -> Answer:
    await confirmed_address(people, [("prefer", "wait=0")])
    await people.world.posted()
    body = {"token": people.world.mailbox.token(), "new_password": OTHER_PASSWORD}
    return await people.world.call("POST", "/auth/email/restore", json=body, headers=prefer)


async def password_given_up(people: People, prefer: list[tuple[str, str]]) -> Answer:
    person = people.world.browser()
    await person.login()
    for _ in range(2):
        assert (await made(person))[1].status == 200
    return await person.call("POST", "/auth/password/remove", headers=prefer)


async def client_removed(people: People, prefer: list[tuple[str, str]]) -> Answer:
    made = await people.root.call("POST", "/admin/api/clients", json={"name": "shop"})
    return await people.root.call("DELETE", f"/admin/api/clients/{made.json['client_id']}", headers=prefer)


async def verifier_removed(people: People, prefer: list[tuple[str, str]]) -> Answer:
    assert (await people.root.call("POST", "/admin/api/verifiers", json={"name": "another"})).status == 201
    return await people.root.call("DELETE", "/admin/api/verifiers/another", headers=prefer)


async def verifier_key_changed(people: People, prefer: list[tuple[str, str]]) -> Answer:
    assert (await people.root.call("POST", "/admin/api/verifiers", json={"name": "another"})).status == 201
    return await people.root.call("POST", "/admin/api/verifiers/another/key", headers=prefer)


REVOKING: dict[Revoking, str] = {
    logout: "/auth/logout",
    logout_of_a_token: "/auth/logout",
    logout_all: "/auth/logout/all",
    one_session: "/auth/sessions/{id}",
    other_sessions: "/auth/sessions",
    password: "/auth/password",
    password_given_up: "/auth/password/remove",
    reset: "/auth/password/reset",
    lost_factor: "/auth/factors/lost/remove",
    verified_elsewhere: "/auth/email/verify",
    disable: "/admin/api/accounts/{subject}/disable",
    roles: "/admin/api/accounts/{subject}/roles",
    sessions_by_admin: "/admin/api/accounts/{subject}/sessions",
    everything_by_admin: "/admin/api/sessions",
    session_by_admin: "/admin/api/sessions/{id}",
    erased_by_admin: "/admin/api/accounts/{subject}",
    deleted: "/auth/account/delete",
    confirmed_address: "/auth/email/confirm",
    restored_address: "/auth/email/restore",
    client_removed: "/admin/api/clients/{id}",
    verifier_removed: "/admin/api/verifiers/{name}",
    verifier_key_changed: "/admin/api/verifiers/{name}/key",
    key: "/admin/api/keys/{kid}",
    revoke: "/oauth2/revoke",
    unlinked: "/auth/identities/unlink",
}


async def test_every_revoking_call_is_here(world: World) -> None:
    """The table below has every route that says it fences."""
    api: Api = world.auth.api
    assert {route.path for route in api.routes if route.fences} == set(REVOKING.values())


@pytest.mark.parametrize("call", REVOKING, ids=lambda call: call.__name__)
async def test_no_one_follows_and_it_is_fenced(people: People, call: Revoking) -> None:
    """With no verifier anywhere, what a call revoked is fenced when it returns: 200."""
    answer = await call(people, [])
    assert (answer.status, answer.json["fenced"], answer.json["fenced_in_ms"]) == (200, True, 0)


@pytest.mark.parametrize("call", REVOKING, ids=lambda call: call.__name__)
async def test_a_silent_verifier_is_waited_for(people: People, call: Revoking) -> None:
    """While a verifier holds a lease and says nothing, every revoking call answers 202 with when it holds at the
    latest; after that time it is 200. Under RFC 7009 the status is 200 always, and the body says it.
    """
    await silent(people.world)
    answer = await call(people, [("prefer", "wait=0")])
    assert answer.status == (200 if call is revoke else 202)
    assert answer.json["fenced"] is False
    assert 1000 < answer.json["fenced_in_ms"] <= 12_223
    assert answer.header("preference-applied") == "wait=0"


async def test_a_repeat_gives_the_state_of_the_fence(world: World) -> None:
    """Asked again after a lost answer, a log-out that is not fenced says so, though it ends nothing any more; once the
    silent verifier's lease has run out, it is fenced.
    """
    await world.register()
    program = world.program()
    await program.login(mode="hybrid")
    await silent(world)
    first = await program.call("POST", "/auth/logout")
    again = await program.call("POST", "/auth/logout")
    assert (first.status, first.json["ended"]) == (202, 1)
    assert (again.status, again.json["ended"], again.json["fenced"]) == (202, 0, False)
    world.elapsed.ahead += 12.3
    last = await program.call("POST", "/auth/logout")
    assert (last.status, last.json) == (200, {"fenced": True, "fenced_in_ms": 0, "ended": 0})


async def test_a_call_waits_for_as_long_as_it_is_asked_to(world: World) -> None:
    """A quarter of a second by itself; with `Prefer: wait=N` until it is fenced, and no longer; nonsense is passed
    over.
    """
    await world.register()
    follower = await silent(world)

    async def logged_out(prefer: str | None) -> tuple[Answer, float]:
        program = world.program()
        await program.login(mode="jwt")
        started = time.perf_counter()
        answer = await program.call("POST", "/auth/logout", headers=[("prefer", prefer)] if prefer else [])
        return answer, time.perf_counter() - started

    for prefer in (None, "wait=soon", "return=minimal"):
        answer, took = await logged_out(prefer)
        assert (answer.status, answer.header("preference-applied")) == (202, None)
        assert took > 0.2
    waiting = asyncio.create_task(logged_out("wait=20"))
    await until(lambda: world.auth.api.waiting_for_fences == 1)
    await follower.poll(wait_ms=1000)
    await follower.poll()
    answer, took = await waiting
    assert (answer.status, answer.header("preference-applied")) == (200, "wait=20")
    assert took < 20
    assert world.auth.api.waiting_for_fences == 0


async def test_the_page_of_devices_says_when_an_end_holds(world: World) -> None:
    """After a button has ended a sign-in, the page says within which time every service refuses it, and that all do
    when they do: by asking, and not by what stands in the address.
    """
    await world.register()
    here, there = world.browser(), world.browser()
    await here.login(mode="session")
    await there.login(mode="session")
    await silent(world)
    page = [("accept", "text/html"), ("sec-fetch-mode", "navigate")]
    nothing = await here.call("GET", "/auth/devices?done=session_ended", headers=page)
    assert b'role="status"' not in nothing.body
    form = {"csrf_token": here.csrf, "session": there.session_id}
    sent = await here.call("POST", "/auth/devices", form=form, headers=page)
    assert (sent.status, sent.header("location")) == (303, "/auth/devices?done=session_ended")
    shown = await here.call("GET", "/auth/devices?done=session_ended", headers=page)
    assert b"Ended." in shown.body and re.search(rb"Other services may take up to 1[0-9] seconds more", shown.body)
    world.elapsed.ahead += 12.3
    shown = await here.call("GET", "/auth/devices?done=session_ended", headers=page)
    assert b"This holds everywhere." in shown.body and b"data-reload" not in shown.body
    world.clock.forward(301)
    later = await here.call("GET", "/auth/devices?done=session_ended", headers=page)
    assert b'role="status"' not in later.body


async def test_a_fence_that_is_lost_has_no_bound(world: World) -> None:
    """When a restore begins another log while a call waits, no node knows what it revoked: not fenced, without a time;
    ended again, it is fenced in the new log.
    """
    await world.register()
    await silent(world)
    program = world.program()
    await program.login(mode="hybrid")
    leaving = asyncio.create_task(program.call("POST", "/auth/logout", headers=[("prefer", "wait=20")]))
    await until(lambda: world.auth.api.waiting_for_fences == 1)
    await world.store.begin_log_epoch(world.clock())
    await world.call("GET", "/auth/me", bearer=program.access)
    answer = await asyncio.wait_for(leaving, 60)
    assert (answer.status, answer.json) == (202, {"fenced": False, "fenced_in_ms": None, "ended": 1})
    world.elapsed.ahead += 13
    assert (await program.call("POST", "/auth/logout")).json["fenced"] is True


async def test_o06_what_is_revoked_and_what_never_was_look_alike(world: World) -> None:
    """Under RFC 7009 an unknown token, another client's and one that was just revoked give one answer, while a fence
    is pending and when it is not.
    """
    await world.register()
    mine, other = await world.add_client(), await world.add_client()
    await silent(world)
    for ahead, wait in ((0, "wait=0"), (13, "wait=5")):
        world.elapsed.ahead += ahead
        shapes = set()
        for service, token in ((mine, "x"), (other, None), (mine, None)):
            body = {"email": ADA, "password": PASSWORD, "mode": "jwt", "client_id": mine[0]}
            signed_in = await world.call("POST", "/auth/login", json=body, headers=[basic(mine)])
            form = {"token": token or signed_in.json["access_token"]}
            sent = [basic(service), ("prefer", wait)]
            answer = await world.call("POST", "/oauth2/revoke", form=form, headers=sent)
            shapes.add((answer.status, tuple(answer.json), answer.json["fenced"]))
        assert shapes == {(200, ("fenced", "fenced_in_ms"), ahead > 0)}


async def test_token_stale_after_a_change_of_roles(people: People) -> None:
    """A token with roles that have changed is 401 `token_stale`; a refresh brings one that is right, the session lives
    on.
    """
    program = people.world.program()
    await program.login(mode="hybrid")
    await roles(people, [])
    answer = await program.me()
    assert (answer.status, answer.code) == (401, "token_stale")
    assert answer.header("www-authenticate") == 'Bearer realm="dutchdoor", error="invalid_token"'
    body = {"refresh_token": program.refresh}
    assert (await program.call("POST", "/auth/refresh", json=body, bearer="")).status == 200
    assert (await program.me()).json["user"]["roles"] == ["editor"]
