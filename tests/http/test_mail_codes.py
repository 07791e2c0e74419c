"""Codes by mail over HTTP: signing in without a password, and what an attacker gains who asks for codes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.http.test_factor_races import store_of
from tests.http.test_factors import code as app_code
from tests.http.test_factors import enrolled
from tests.http.world import OTHER_PASSWORD, PASSWORD, Answer, Browser, World, a_world
from tests.standins import Clock, Watched

from dutchdoor.model.accounts import Credential
from dutchdoor.model.policy import DAY, STANDARD
from dutchdoor.model.rate_limits import DEFAULT_LIMITS
from dutchdoor.stores.base import Add, Expect, Remove, Swap
from dutchdoor.stores.memory import MemoryStore

ADA, EVE = "ada@example.com", "eve@example.com"
POLICY = replace(STANDARD, sign_in_by_mail=True)


BOTH = pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
"""The databases that two nodes may share."""


def nodes(request: pytest.FixtureRequest, folder: Path, kind: str, **options: Any) -> tuple[Any, Any]:
    """Two servers over one database, to be entered."""
    request.getfixturevalue("patience")
    where = request.getfixturevalue("postgres_url") if kind == "postgres" else str(folder / "nodes.db")
    options["clock"] = Clock()
    return a_world(store=store_of(kind, where), **options), a_world(store=store_of(kind, where), **options)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world(policy=POLICY) as made:
        yield made


async def ask(person: Any, email: str = ADA) -> str:
    """Ask for a code, once every earlier mail is there, and return the browser's token."""
    await person.world.posted()
    answer: Answer = await person.call("POST", "/auth/code", json={"email": email})
    assert (answer.status, set(answer.json)) == (202, {"token", "expires_in"}), answer
    return str(answer.json["token"])


async def mailed(world: World, to: str = ADA) -> str:
    """The code in the latest mail."""
    await world.posted()
    mail = world.mailbox.mails[-1]
    assert mail.to == to
    codes = re.findall(r"\b[0-9]{6}\b", mail.text)
    assert codes and set(codes) == {codes[0]}
    return str(codes[0])


async def give(person: Any, token: str, code: str, **more: Any) -> Answer:
    answer: Answer = await person.call("POST", "/auth/login/code", json={"token": token, "code": code, **more})
    return answer


async def verified(world: World, email: str = ADA) -> None:
    account = await world.store.account_by_email(email)
    assert account is not None
    await world.store.commit(Swap(replace(account, email_verified_at=world.clock())))


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06}"


@pytest.mark.parametrize("mode", ["session", "hybrid", "jwt"])
async def test_a_code_signs_in(world: World, mode: str) -> None:
    """The code of the mail, in the browser that asked, starts a sign-in of each pattern, whose `amr` says so."""
    await world.register()
    await verified(world)
    browser = world.browser()
    token = await ask(browser)
    done = await give(browser, token, await mailed(world), mode=mode)
    assert done.status == 200, done
    me = await browser.call("GET", "/auth/me", by_token=mode != "session")
    assert me.json["user"]["email"] == ADA
    if mode != "session":
        principal = await world.auth.authority.verify(done.json["access_token"])
        assert (principal.amr, principal.acr, principal.auth_time) == (("mca",), "aal1", world.clock())
    again = await give(world.browser(), token, await mailed(world), mode=mode)
    assert (again.status, again.code) == (401, "invalid_token")


async def test_a_code_is_worth_nothing_elsewhere(world: World) -> None:
    """Neither the code without the token that its browser got, nor with the token of another browser, nor the token
    with another code signs anyone in; and no answer or cookie but that of the browser that asked holds the token.
    """
    await world.register()
    await verified(world)
    owner, thief = world.browser(), world.browser()
    theirs = await ask(thief)
    token = await ask(owner)
    code = await mailed(world)
    assert (await give(thief, theirs, code)).code == "wrong_credentials"
    refused = await thief.call("POST", "/auth/login/code", json={"code": code})
    assert (refused.status, refused.code) == (401, "not_authenticated")
    assert token not in world.mailbox.mails[-1].text
    assert (await give(owner, token, f" {code[:3]} {code[3:]} ")).status == 200


@BOTH
async def test_a_code_is_accepted_once_over_two_nodes(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    """Of 64 parallel tries with the right code at two nodes over one database, one signs in."""
    first, second = nodes(request, tmp_path, kind, policy=POLICY)
    async with first as one, second as two:
        await one.register()
        await verified(one)
        token = await ask(one.program())
        code = await mailed(one)
        people = [(one, two)[n % 2].program() for n in range(64)]
        answers = await asyncio.gather(*(give(each, token, code, mode="session") for each in people))
        assert sorted(each.status for each in answers) == [200, *[401] * 63]
        assert (await one.store.counts())["sessions"] == 1


@BOTH
async def test_guesses_are_few(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    """A code is void after five wrong ones, the right one included, also in parallel and over two nodes."""
    first, second = nodes(request, tmp_path, kind, policy=POLICY, limits=DEFAULT_LIMITS)
    async with first as one, second as two:
        await one.register()
        await verified(one)
        person = one.program()
        token = await ask(person)
        code = await mailed(one)
        people = [(one, two)[n % 2].program() for n in range(20)]
        answers = await asyncio.gather(*(give(each, token, wrong(code)) for each in people))
        assert sum(each.code == "wrong_credentials" for each in answers) == 5
        void = await give(person, token, code)
        assert (void.status, void.code) == (401, "invalid_token")
        token = await ask(person)
        assert (await give(person, token, await mailed(one))).status == 200


async def test_an_attacker_locks_no_owner_out(world: World) -> None:
    """An attacker who uses up the codes and the tries of an account keeps its owner neither from the password nor, in a
    browser that is known, from a code; and wrong passwords keep no owner from a code.
    """
    async with a_world(policy=POLICY, limits=DEFAULT_LIMITS) as tight:
        await tight.register()
        await verified(tight)
        owner = tight.browser()
        token = await ask(owner)
        assert (await give(owner, token, await mailed(tight))).status == 200
        for n in range(40):  # each from a network of its own
            thief = tight.browser(peer=f"198.51.{n}.7")
            tight.clock.now += 1200
            answer = await thief.call("POST", "/auth/code", json={"email": ADA})
            for guess in ("000000", "000001"):
                await give(thief, answer.json.get("token", "none"), guess)
        for _ in range(4):
            answer = await tight.browser(peer="198.51.100.9").call("POST", "/auth/code", json={"email": ADA})
        assert answer.code == "rate_limited"
        token = await ask(owner)
        refused = await give(tight.browser(peer="198.51.100.10"), token, "000000")
        assert refused.code == "rate_limited"  # strangers have none left for the account
        assert (await give(owner, token, await mailed(tight))).status == 200
        await tight.browser(peer="203.0.113.77").login()
        for n in range(30):
            await tight.call("POST", "/auth/login", json={"email": ADA, "password": "x"}, peer=f"198.51.{n}.8")
        tight.clock.now += 3600
        token = await ask(tight.browser(peer="203.0.113.78"))
        assert (await give(tight.browser(), token, await mailed(tight))).status == 200


async def test_mails_to_one_mailbox_are_few() -> None:
    """A stranger causes three mails at once, and one in ten minutes after them; all tags of an unverified mailbox count
    as one.
    """
    async with a_world(policy=POLICY, limits=DEFAULT_LIMITS) as world:
        for tag in ("", "+a", "+b", "+c", "+d"):
            await world.register(f"ada{tag}@example.com")
        await world.posted()
        world.mailbox.mails.clear()
        world.clock.now += DAY
        for tag in ("+a", "+b", "+c", "+d"):
            for _ in range(4):
                await world.call("POST", "/auth/code", json={"email": f"ada{tag}@example.com"})
        await world.posted()
        assert len(world.mailbox.mails) == 3


async def test_no_answer_reveals_who_has_an_account() -> None:
    """An unknown address, a disabled and a deleted account and every other get one answer after the same calls to the
    store, at asking and at guessing, and only an account that can sign in gets a mail.
    """
    store = Watched(MemoryStore())
    async with a_world(store=store, policy=POLICY) as world:
        user = await world.register("off@example.com")
        await world.directory.admin.disable(user["id"], client=world.api_client(), actor="cli")
        user = await world.register("gone@example.com")
        await world.directory.deletion.ask(user["id"], client=world.api_client())
        await world.register()
        await verified(world)
        await world.posted()
        world.mailbox.mails.clear()
        seen = []
        for email in (ADA, "unknown@example.com", "off@example.com", "gone@example.com"):
            person = world.browser()
            store.calls.clear()
            answer = await person.call("POST", "/auth/code", json={"email": email})
            asked = [*store.calls]
            store.calls.clear()
            token = answer.json["token"]
            guessed = await give(person, token, "12345x")
            seen.append((asked, store.calls[:], answer.sees()[0], guessed.status, guessed.body))
        assert seen == [seen[0]] * 4
        await world.posted()
        assert [mail.to for mail in world.mailbox.mails] == [ADA]


async def test_the_right_code_of_an_account_that_is_disabled_since(world: World) -> None:
    """A code that was mailed is void when its account is disabled, gets another password or signs out everywhere."""
    user = await world.register()
    await verified(world)
    person = world.browser()
    await person.login()
    for act in (
        lambda: person.call("POST", "/auth/logout/all"),
        lambda: world.directory.admin.disable(user["id"], client=world.api_client(), actor="cli"),
    ):
        token = await ask(world.browser())
        code = await mailed(world)
        await act()
        assert (await give(world.browser(), token, code)).code == "wrong_credentials"


async def test_a_code_lives_ten_minutes(world: World) -> None:
    """It is void after ten minutes, and an older one is valid beside a newer one until then."""
    await world.register()
    await verified(world)
    first = await ask(world.browser())
    code = await mailed(world)
    await ask(world.browser())
    world.clock.now += 599
    assert (await give(world.browser(), first, code)).status == 200
    token = await ask(world.browser())
    code = await mailed(world)
    world.clock.now += 600
    assert (await give(world.browser(), token, code)).code == "invalid_token"


async def test_the_second_factor_is_asked_for(world: World) -> None:
    """After the code, an account with an app is asked for it; the two are two kinds of proof, and with the password the
    code is one.
    """
    await world.register()
    await verified(world)
    owner = world.browser()
    await owner.login()
    secret, _ = await enrolled(world, owner)
    person = world.program()
    token = await ask(person)
    asked = await give(person, token, await mailed(world), mode="hybrid")
    assert (asked.code, asked.json["methods"]) == ("sign_in_unfinished", ["recovery_code", "totp"])
    assert (await give(person, token, await mailed(world))).code == "invalid_token"  # used
    step = {"token": asked.json["token"], "method": "totp", "response": app_code(world, secret)}
    done = await person.call("POST", "/auth/login/step", json=step)
    assert done.status == 200, done
    principal = await world.auth.authority.verify(done.json["access_token"])
    assert (principal.amr, principal.acr) == (("mca", "otp"), "aal2")


@pytest.mark.parametrize("same", [True, False], ids=["browser that registered", "another browser"])
async def test_a_code_proves_the_mailbox(same: bool) -> None:
    """Where a sign-in needs a verified address, the code verifies it and signs in. The password stays only if this
    browser registered: a stranger may have registered the address.
    """
    async with a_world(policy=replace(POLICY, require_verified_email=True)) as world:
        first = world.browser()
        answer = await first.call("POST", "/auth/register", json={"email": ADA, "password": PASSWORD})
        assert answer.status == 202
        owner = first if same else world.browser()
        token = await ask(owner)
        done = await give(owner, token, await mailed(world))
        assert done.status == 200 and done.json["user"]["email_verified"], done
        login = await world.call("POST", "/auth/login", json={"email": ADA, "password": PASSWORD})
        assert (login.status == 200) is same, login


async def test_a_stranger_keeps_nothing_of_an_address(world: World) -> None:
    """The first code to an address that no one ever verified ends the sessions of the one who registered it, and
    removes their password and their app.
    """
    stranger, owner = world.browser(), world.browser()
    await world.register()
    await stranger.login()
    await enrolled(world, stranger)
    token = await ask(owner)
    done = await give(owner, token, await mailed(world))
    assert done.status == 200 and done.json["user"]["email_verified"], done
    assert (await stranger.me()).status == 401 and (await owner.me()).status == 200
    login = await world.call("POST", "/auth/login", json={"email": ADA, "password": PASSWORD})
    assert login.code == "wrong_credentials"


@pytest.mark.parametrize("by", ["code", "reset"])
async def test_a_stranger_who_adds_a_passkey_at_that_moment_keeps_nothing(
    world: World, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A passkey that a stranger adds while the owner of the mailbox takes the account over is removed as well."""
    user, owner = await world.register(), world.browser()
    keeping = world.directory.post.keeping_language

    async def late(*given: Any) -> Any:
        key = Credential(subject=user["id"], method="passkey", handle="strange", proof="{}", created_at=1.0)
        await world.store.commit(Expect(user["id"], 0), Add(key))
        return await keeping(*given)

    monkeypatch.setattr(world.directory.post, "keeping_language", late)
    if by == "code":
        token = await ask(owner)
        assert (await give(owner, token, await mailed(world))).status == 200
    else:
        await world.call("POST", "/auth/password/forgot", json={"email": ADA})
        await world.posted()
        body = {"token": world.mailbox.token(), "new_password": OTHER_PASSWORD}
        assert (await owner.call("POST", "/auth/password/reset", json=body)).status in {200, 204}
    assert await world.store.select(Credential, subject=user["id"], method="passkey") == []


async def test_switched_off_it_mails_and_signs_in_nothing() -> None:
    """Without `sign_in_by_mail`, no code is mailed and none is taken."""
    async with a_world() as world:
        await world.register()
        answer = await world.call("POST", "/auth/code", json={"email": ADA})
        assert (answer.status, answer.code) == (403, "refused")
        answer = await give(world.program(), "ddo1_" + "A" * 48, "123456")
        assert (answer.status, answer.code) == (403, "refused")


async def aged(world: World, email: str = ADA) -> Browser:
    """A browser whose proof is no longer fresh."""
    await world.register(email)
    await verified(world, email)
    person = world.browser()
    await person.login(email)
    world.clock.now += 3600
    return person


async def drop_password(world: World, email: str = ADA) -> None:
    account = await world.store.account_by_email(email)
    assert account is not None
    held = await world.store.get(Credential, account.subject, "password", "")
    assert held is not None
    await world.store.commit(Remove(held))


async def test_an_owner_without_a_password_proves_again_by_a_code() -> None:
    """A code by mail is a fresh proof for an account without a password, whatever the policy; with a password only
    where the policy lets people sign in by mail. It works in that sign-in alone, once.
    """
    async with a_world() as world:
        person, other = await aged(world), await aged(world, EVE)
        assert (await person.call("POST", "/auth/reauthenticate/code")).code == "refused"
        await drop_password(world)
        assert (await person.call("POST", "/auth/factors/totp/enrol")).code == "step_up_required"
        sent = await person.call("POST", "/auth/reauthenticate/code")
        assert sent.status == 202, sent
        proof = {"method": "mail_code", "response": await mailed(world), "token": sent.json["token"]}
        assert (await give(world.browser(), proof["token"], proof["response"])).code == "refused"
        assert (await other.call("POST", "/auth/reauthenticate", json=proof)).code == "invalid_token"
        bad = await person.call("POST", "/auth/reauthenticate", json=proof | {"response": wrong(proof["response"])})
        assert bad.code == "wrong_credentials"
        done = await person.call("POST", "/auth/reauthenticate", json=proof)
        assert done.status == 200, done
        assert (await person.call("POST", "/auth/factors/totp/enrol")).status == 201
        assert (await person.call("POST", "/auth/reauthenticate", json=proof)).code == "invalid_token"


async def test_the_application_delivers_the_code(world: World) -> None:
    """A hook gets the account and the code in place of the mail, and such a code verifies no address."""
    got: list[tuple[str, str]] = []

    async def deliver(account: Any, code: str) -> None:
        got.append((account.email, code))

    async with a_world(policy=POLICY, deliver_code=deliver) as other:
        await other.register()
        await other.posted()
        before = len(other.mailbox.mails)
        token = await ask(other.browser())
        await other.posted()
        assert len(other.mailbox.mails) == before
        ((email, code),) = got
        done = await give(other.browser(), token, code)
        assert (email, done.status, done.json["user"]["email_verified"]) == (ADA, 200, False)


async def test_each_step_is_in_the_audit_log(world: World) -> None:
    """The log names a code that was asked for, with no code in it, and a wrong one."""
    await world.register()
    await verified(world)
    token = await ask(world.browser())
    code = await mailed(world)
    await give(world.browser(), token, wrong(code))
    await ask(world.browser(), "unknown@example.com")
    events = await world.events()
    assert sorted(each.outcome for each in events if each.name == "mail_code_sent") == ["ok", "refused"]
    assert [each.detail for each in events if each.name == "login"] == ["wrong code by mail"]
    assert code not in repr(events) and token not in repr(events)
