"""Second steps under attack: many tries at once over two nodes, steps out of order, and what a stranger can measure."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.http.test_factors import ADA, begin, code, enrolled, step, with_app
from tests.http.test_passkeys import made, sign_in
from tests.http.world import PASSWORD, Answer, Browser, Program, World, a_world
from tests.softkey import SoftKey
from tests.standins import Clock, Watched

from dutchdoor import Client, SignInStep, issuers
from dutchdoor.credentials.passkey import PASSKEY
from dutchdoor.issuers.identity import Identity
from dutchdoor.model.accounts import Credential
from dutchdoor.model.ids import new_id
from dutchdoor.model.policy import HOUR, STANDARD
from dutchdoor.model.rate_limits import DEFAULT_LIMITS
from dutchdoor.revocation.log import COALESCE_ABOVE, Revocation
from dutchdoor.stores.base import Add, Revoke, Store, Swap
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.stores.postgres import PostgresStore
from dutchdoor.stores.sqlite import SqliteStore

TRIES = 64
BOB = "bob@example.com"


class Nodes:
    """Two nodes over one database, where Ada has an app."""

    def __init__(self, one: World, two: World) -> None:
        self.one, self.two = one, two
        self.secret = ""
        self.codes: list[str] = []

    async def populate(self) -> None:
        _, self.secret, self.codes = await with_app(self.one)

    async def begin(self, count: int) -> list[str]:
        """Begin sign-ins, each in a network of its own, so that all of them wait."""
        places = [self.one.program(peer=f"198.51.100.{n + 1}") for n in range(count)]
        return [(await begin(place, mode="session")).json["token"] for place in places]

    async def at_once(self, tries: Sequence[Callable[[Program], Awaitable[Answer]]]) -> list[int]:
        """Make as many tries as there are, at both nodes in one moment, and return the statuses."""
        worlds = itertools.cycle((self.one, self.two))
        return sorted(each.status for each in await asyncio.gather(*(one(next(worlds).program()) for one in tries)))

    async def sessions(self) -> int:
        account = await self.one.store.account_by_email(ADA)
        assert account is not None
        return len(await self.one.store.sessions_of(account.subject))


def store_of(kind: str, where: str) -> Store:
    return SqliteStore(Path(where)) if kind == "sqlite" else PostgresStore(where)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
async def nodes(request: pytest.FixtureRequest, tmp_path: Path, patience: None) -> AsyncIterator[Nodes]:
    where = str(tmp_path / "nodes.db")
    if request.param == "postgres":
        where = request.getfixturevalue("postgres_url")
    more: dict[str, Any] = {"clock": Clock(), "steps": [TERMS]}
    async with (
        a_world(store=store_of(request.param, where), **more) as one,
        a_world(store=store_of(request.param, where), **more) as two,
    ):
        made = Nodes(one, two)
        await made.populate()
        yield made


asking: list[bool] = []
TERMS = SignInStep("terms", page="/terms", asks=lambda _: bool(asking), takes=lambda *_: "")


def trying(token: str, response: str, method: str) -> Callable[[Program], Awaitable[Answer]]:
    return lambda program: step(program, token, response, method)


async def by_one_code_of_the_app(ours: Nodes) -> list[int]:
    tokens = itertools.cycle(await ours.begin(24))
    right = code(ours.one, ours.secret)
    return await ours.at_once([trying(next(tokens), right, "totp") for _ in range(TRIES)])


async def by_one_recovery_code(ours: Nodes) -> list[int]:
    tokens = itertools.cycle(await ours.begin(24))
    return await ours.at_once([trying(next(tokens), ours.codes[0], "recovery_code") for _ in range(TRIES)])


async def by_one_sign_in_and_ten_recovery_codes(ours: Nodes) -> list[int]:
    (token,) = await ours.begin(1)
    spent = itertools.cycle(ours.codes)
    return await ours.at_once([trying(token, next(spent), "recovery_code") for _ in range(TRIES)])


async def by_one_step_of_the_application(ours: Nodes) -> list[int]:
    asking.append(True)
    try:
        (token,) = await ours.begin(1)
        onward = await step(ours.one.program(), token, ours.codes[0], "recovery_code")
        assert onward.json["step_required"] == "terms"
        return await ours.at_once([trying(onward.json["token"], "yes", "terms") for _ in range(TRIES)])
    finally:
        asking.clear()


@pytest.mark.parametrize(
    "tries",
    [
        by_one_code_of_the_app,
        by_one_recovery_code,
        by_one_sign_in_and_ten_recovery_codes,
        by_one_step_of_the_application,
    ],
    ids=lambda each: each.__name__,
)
async def test_of_64_tries_over_two_nodes_one_succeeds(
    nodes: Nodes, tries: Callable[[Nodes], Awaitable[list[int]]]
) -> None:
    """A code, a recovery code, a sign-in that waits and a step of the application each start one session, however many
    requests bring them to two nodes in one moment.
    """
    before = await nodes.sessions()
    assert await tries(nodes) == [200, *[401] * (TRIES - 1)]
    assert await nodes.sessions() == before + 1


async def test_a_step_up_by_one_code_is_one(nodes: Nodes) -> None:
    """One code proves one session again, of many that try it at two nodes."""
    asked = (await nodes.begin(24))[:2]
    people = []
    for token, spent in zip(asked, nodes.codes, strict=False):
        program = nodes.one.program()
        done = await step(program, token, spent, "recovery_code", transport="body")
        assert done.status == 200
        people.append(done)
    cookies = [answer.cookie("__Host-dd_session") for answer in people]
    right = {"method": "totp", "response": code(nodes.one, nodes.secret)}

    async def prove(n: int) -> int:
        browser = (nodes.one, nodes.two)[n % 2].browser()
        browser.jar["__Host-dd_session"] = cookies[n % 2] or ""
        browser.csrf = people[n % 2].json["csrf_token"]
        return (await browser.call("POST", "/auth/reauthenticate", json=right)).status

    statuses = await asyncio.gather(*(prove(n) for n in range(TRIES)))
    assert statuses.count(200) == 1


async def test_guesses_are_counted_over_two_nodes(tmp_path: Path) -> None:
    """Of 64 wrong codes in one moment at two nodes, five are looked at."""
    more: dict[str, Any] = {"clock": Clock(), "limits": DEFAULT_LIMITS}
    path = tmp_path / "nodes.db"
    async with a_world(store=SqliteStore(path), **more) as one, a_world(store=SqliteStore(path), **more) as two:
        ours = Nodes(one, two)
        await ours.populate()
        (token,) = await ours.begin(1)
        assert await ours.at_once([trying(token, "000000", "totp")] * TRIES) == [*[401] * 5, *[429] * (TRIES - 5)]


# --- steps out of order ----------------------------------------------------------------------------------------------


class Waiting:
    """A sign-in of Ada that waits for her code."""

    def __init__(self, world: World, owner: Browser, secret: str, token: str) -> None:
        self.world, self.owner, self.secret, self.token = world, owner, secret, token

    async def finish(self) -> Answer:
        return await step(self.world.program(), self.token, code(self.world, self.secret))


async def skipped(waiting: Waiting) -> Answer:
    return await waiting.world.program().call("GET", "/auth/me", bearer=waiting.token)


async def skipped_by_cookie(waiting: Waiting) -> Answer:
    browser = waiting.world.browser()
    browser.jar["__Host-dd_session"] = browser.jar["__Host-dd_step"] = waiting.token
    return await browser.call("GET", "/auth/me")


async def by_the_password_again(waiting: Waiting) -> Answer:
    return await step(waiting.world.program(), waiting.token, PASSWORD, "password")


async def by_enrolling_another_app(waiting: Waiting) -> Answer:
    refused = await waiting.world.program().call("POST", "/auth/login/enrol", json={"token": waiting.token})
    assert refused.code == "refused"
    given = (await waiting.owner.call("POST", "/auth/factors/totp/enrol")).json
    right = code(waiting.world, given["secret"])
    return await step(waiting.world.program(), waiting.token, right, enrolment=given["token"])


async def repeated(waiting: Waiting) -> Answer:
    assert (await waiting.finish()).status == 200
    waiting.world.clock.now += 60
    return await waiting.finish()


async def by_another_accounts_app(waiting: Waiting) -> Answer:
    await waiting.world.register(BOB)
    bob = waiting.world.browser()
    await bob.login(BOB)
    secret, _ = await enrolled(waiting.world, bob)
    return await step(waiting.world.program(), waiting.token, code(waiting.world, secret))


async def after_a_new_password(waiting: Waiting) -> Answer:
    body = {"current_password": PASSWORD, "new_password": PASSWORD + " anew"}
    assert (await waiting.owner.call("POST", "/auth/password", json=body)).status == 200
    return await waiting.finish()


async def after_a_log_out_everywhere(waiting: Waiting) -> Answer:
    assert (await waiting.owner.call("POST", "/auth/logout/all")).status == 200
    return await waiting.finish()


async def after_disabling(waiting: Waiting) -> Answer:
    subject = (await waiting.owner.me()).json["user"]["id"]
    await waiting.world.directory.admin.disable(subject, client=waiting.world.api_client(), actor="cli")
    return await waiting.finish()


async def after_deletion(waiting: Waiting) -> Answer:
    assert (await waiting.owner.call("POST", "/auth/account/delete")).status == 200
    return await waiting.finish()


async def too_late(waiting: Waiting) -> Answer:
    waiting.world.clock.now += 600
    return await waiting.finish()


@pytest.mark.parametrize(
    "wrong",
    [
        skipped,
        skipped_by_cookie,
        by_the_password_again,
        by_enrolling_another_app,
        repeated,
        by_another_accounts_app,
        after_a_new_password,
        after_a_log_out_everywhere,
        after_disabling,
        after_deletion,
        too_late,
    ],
    ids=lambda each: each.__name__,
)
async def test_a_step_out_of_order_starts_nothing(wrong: Callable[[Waiting], Awaitable[Answer]]) -> None:
    """A step that is skipped, repeated, taken for another account, or after what ends a sign-in is 401."""
    async with a_world() as world:
        owner, secret, _ = await with_app(world)
        waiting = Waiting(world, owner, secret, (await begin(world.program(), mode="session")).json["token"])
        answer = await wrong(waiting)
        assert answer.status == 401, answer
        assert answer.code in {"invalid_token", "wrong_credentials", "not_authenticated"}
        assert not answer.cookie("__Host-dd_session")


async def test_at_the_limit_of_sessions_a_step_starts_nothing() -> None:
    """Where the policy refuses one more session, the code is right and the answer 409; the code stays unused."""
    async with a_world(policy=replace(STANDARD, max_sessions=1, at_limit="refuse")) as world:
        owner, secret, _ = await with_app(world)
        token = (await begin(world.program(), mode="session")).json["token"]
        refused = await step(world.program(), token, code(world, secret))
        assert (refused.status, refused.code) == (409, "session_limit_reached")
        assert (await owner.call("POST", "/auth/logout")).status == 200
        token = (await begin(world.program(), mode="session")).json["token"]
        assert (await step(world.program(), token, code(world, secret))).status == 200


async def test_before_the_first_proof_the_store_is_asked_the_same() -> None:
    """For an account with an app, with a passkey, with a linked log-in, with a demanded step, with nothing, and for an
    unknown address: a wrong password makes the same calls in the same order, and gets the same answer.
    """
    watched = Watched(MemoryStore())
    async with a_world(store=watched, steps=[TERMS]) as world:  # type: ignore[arg-type]
        people = ["app", "passkey", "linked", "plain"]
        for name in people:
            await world.register(f"{name}@example.com")
        owner = world.browser()
        await owner.login("app@example.com")
        await enrolled(world, owner)
        accounts = {name: await world.store.account_by_email(f"{name}@example.com") for name in people}
        key, linked = accounts["passkey"], accounts["linked"]
        assert key is not None
        assert linked is not None
        await world.store.commit(
            Add(Credential(subject=key.subject, method=PASSKEY, handle="AAAA", proof="{}", created_at=world.clock()))
        )
        corp = issuers.openid(name="corp", title="Corp", url="https://corp.example", client_id="us")
        named = Identity(issuer=corp.url, subject="1")
        await world.directory.identities.link(linked, "", named, corp, client=Client())
        await world.posted()
        seen = []
        for name in (*people, "unknown"):
            watched.calls.clear()
            body = {"email": f"{name}@example.com", "password": "a wrong one, and long"}
            answer = await world.program().call("POST", "/auth/login", json=body)
            seen.append((answer.status, answer.body, list(watched.calls)))
        assert seen == seen[:1] * 5
        assert seen[0][0] == 401


@pytest.mark.parametrize("way", ["app", "new app", "passkey", "step", "code by mail"])
async def test_a_proof_is_taken_however_many_sessions_have_ended_lately(way: str) -> None:
    """Who knows the password signs in and out again and again, so that one entry of the log covers all that ended. Each
    proof is taken then, in a browser whose session it replaces.
    """
    async with a_world(policy=replace(STANDARD, sign_in_by_mail=True)) as world:
        owner, secret, _ = await with_app(world)
        key, done = await made(owner)
        assert done.status == 200, done
        account = await world.store.account_by_email(ADA)
        assert account is not None
        until = world.clock() + HOUR
        await world.store.commit(
            Swap(replace(account, email_verified_at=world.clock())),
            *[
                Revoke(Revocation(kind="session", id=new_id(), expires_at=until, subject=account.subject))
                for _ in range(COALESCE_ABOVE)
            ],
        )
        for _ in range(2):
            answer = await prove(world, owner, way, secret, key)
            assert answer.status == 200, answer
            assert (await owner.me()).status == 200


async def prove(world: World, owner: Browser, way: str, secret: str, key: SoftKey) -> Answer:
    world.clock.forward(60)
    if way == "passkey":
        return await sign_in(owner, key)
    if way == "step":
        return await step(owner, (await begin(owner)).json["token"], code(world, secret))
    if way == "app":
        return await owner.call(
            "POST", "/auth/reauthenticate", json={"method": "totp", "response": code(world, secret)}
        )
    if way == "new app":
        given = (await owner.call("POST", "/auth/factors/totp/enrol")).json
        answer = {"token": given["token"], "code": code(world, given["secret"])}
        return await owner.call("POST", "/auth/factors/totp/confirm", json=answer)
    await world.posted()
    token = (await owner.call("POST", "/auth/code", json={"email": ADA})).json["token"]
    await world.posted()
    (found,) = set(re.findall(r"\b[0-9]{6}\b", world.mailbox.mails[-1].text))
    waiting = await owner.call("POST", "/auth/login/code", json={"token": token, "code": found})
    return await step(owner, waiting.json["token"], code(world, secret))
