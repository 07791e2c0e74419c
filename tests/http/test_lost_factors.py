"""A second factor that is lost with its recovery codes: removed by mail after a waiting time, and what ends that."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.http.test_factors import ADA, begin, code, enrolled, step
from tests.http.test_mail_codes import BOTH, nodes
from tests.http.world import OTHER_PASSWORD, PASSWORD, Answer, Browser, World, a_world

from dutchdoor.model.accounts import Credential
from dutchdoor.model.policy import DAY, HIGH, STANDARD
from dutchdoor.model.rate_limits import DEFAULT_LIMITS
from dutchdoor.stores.base import Swap

WAIT = STANDARD.factor_recovery_after


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as made:
        yield made


async def account_of(world: World, email: str = ADA) -> Any:
    found = await world.store.account_by_email(email)
    assert found is not None
    return found


async def protected(world: World, email: str = ADA) -> tuple[Browser, str]:
    """An owner who is signed in, whose address is verified, and the secret of their app."""
    if await world.store.account_by_email(email) is None:
        await world.register(email)
    await world.store.commit(Swap(replace(await account_of(world, email), email_verified_at=world.clock())))
    owner = world.browser()
    await owner.login(email)
    secret, _ = await enrolled(world, owner)
    await world.posted()
    world.mailbox.mails.clear()
    return owner, secret


async def ask(world: World, email: str = ADA) -> Answer:
    """Prove the password, and say that the factor is lost."""
    person = world.browser()
    pending = await begin(person, email=email)
    answer: Answer = await person.call("POST", "/auth/login/lost", json={"token": pending.json["token"]})
    await world.posted()
    return answer


def link(world: World, path: str) -> str:
    """The token of the newest mail with a link to this path."""
    found = [re.search(rf"{path}#(ddo1_[\w-]+)", mail.text) for mail in world.mailbox.mails]
    return [each.group(1) for each in found if each][-1]


async def use(world: World, path: str, token: str | None = None) -> Answer:
    body = {"token": token or link(world, path)}
    answer: Answer = await world.browser().call("POST", path, json=body)
    await world.posted()
    return answer


LOST, KEEP, REMOVE = "/auth/factors/lost", "/auth/factors/lost/keep", "/auth/factors/lost/remove"


async def begun(world: World, email: str = ADA) -> None:
    assert (await ask(world, email)).status == 202
    assert (await use(world, LOST)).status == 200


async def removed(world: World) -> bool:
    held = await world.store.select(Credential, subject=(await account_of(world)).subject)
    return not {each.method for each in held} & {"totp", "recovery_code"}


async def test_after_the_wait_the_link_removes_the_factors(world: World) -> None:
    """The password, a mailed link and three days remove the app and the codes, and end every session; the password
    alone signs in then.
    """
    owner, _ = await protected(world)
    begins = await ask(world)
    assert (begins.status, [mail.subject for mail in world.mailbox.mails]) == (
        202,
        ["You have lost your second factor - dutchdoor"],
    )
    due = await use(world, LOST)
    assert due.status == 200 and due.json["user"]["email"] == ADA
    assert sorted(mail.subject.partition(" - ")[0] for mail in world.mailbox.mails[1:]) == [
        "Keep this mail: its link removes your second factor",
        "The second factor of your account will be removed",
    ]
    assert (await owner.call("GET", "/auth/factors")).json["removable_at"] == due.json["removable_at"]
    world.clock.now += WAIT - 1
    early = await use(world, REMOVE)
    assert (early.status, early.code) == (403, "refused") and "not over" in early.json["detail"]
    world.clock.now += 1
    done = await use(world, REMOVE)
    assert done.status in {200, 202} and await removed(world), done
    assert (await owner.me()).status == 401
    await world.browser().login()
    assert (await use(world, REMOVE)).code == "invalid_token"
    names = [each.name for each in await world.events()]
    assert {"factor_removal_requested", "factor_removal_begun", "factors_removed"} <= set(names)


async def test_the_mail_alone_and_the_password_alone_do_nothing(world: World) -> None:
    """Without the first proof there is no link, and without the link no waiting time: a thief with the password gets no
    further, nor does one who reads the mail and has no password.
    """
    await protected(world)
    stranger = await world.browser().call("POST", "/auth/login/lost", json={"token": "ddo1_" + "A" * 48})
    assert stranger.code == "invalid_token" and not world.mailbox.mails
    assert (await ask(world)).status == 202
    world.clock.now += WAIT + DAY
    assert (await use(world, LOST)).code == "invalid_token"  # an hour has passed
    for path in (KEEP, REMOVE):
        assert (await use(world, path, link(world, LOST))).code == "invalid_token"
    assert not await removed(world)


@pytest.mark.parametrize("way", ["sign-in", "remembered", "cancel", "page", "password", "everywhere", "again"])
async def test_what_ends_the_wait(world: World, way: str) -> None:
    """Any sign-in, the link that each mailbox got, the button on the pages, a new password, signing out everywhere, and
    proving the factor once more: each of them voids the link that removes.
    """
    owner, secret = await protected(world)
    remembered = world.browser()
    pending = await begin(remembered)
    body = {"token": pending.json["token"], "method": "totp", "response": code(world, secret), "remember": True}
    assert (await remembered.call("POST", "/auth/login/step", json=body)).status == 200
    world.clock.now += 60
    await begun(world)
    match way:
        case "sign-in":
            person = world.browser()
            pending = await begin(person)
            assert (await step(person, pending.json["token"], code(world, secret))).status == 200
        case "remembered":
            await remembered.login()
        case "cancel":
            assert (await use(world, KEEP)).status == 200
        case "page":
            assert (await owner.call("POST", "/auth/factors/keep")).status == 204
            assert (await owner.call("POST", "/auth/factors/keep")).status == 404
        case "password":
            change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
            world.clock.now += 30
            assert (await owner.call("POST", "/auth/password", json=change)).status in {200, 202}
        case "everywhere":
            assert (await owner.call("POST", "/auth/logout/all")).status in {200, 202}
        case _:
            proof = {"method": "totp", "response": code(world, secret)}
            assert (await owner.call("POST", "/auth/reauthenticate", json=proof)).status == 200
    await world.posted()
    assert await world.directory.lost_factors.waiting(await account_of(world)) is None
    world.clock.now += WAIT
    refused = await use(world, REMOVE)
    assert refused.code == "invalid_token" and not await removed(world), refused
    if way in {"sign-in", "remembered", "cancel", "page"}:
        assert world.mailbox.mails[-1].subject.startswith("The second factor of your account stays")


async def test_every_mailbox_can_object(world: World) -> None:
    """The address from before a change, which can still be undone, gets the link that keeps the factors, and not the
    one that removes them.
    """
    owner, _ = await protected(world)
    changed = await owner.call("POST", "/auth/email/change", json={"email": "thief@example.com"})
    assert changed.status == 202, changed
    await world.posted()
    assert (await use(world, "/auth/email/confirm")).status in {200, 202}
    person = world.browser()
    login = {"email": "thief@example.com", "password": PASSWORD}
    pending = await person.call("POST", "/auth/login", json=login)
    assert (await person.call("POST", "/auth/login/lost", json={"token": pending.json["token"]})).status == 202
    await world.posted()
    assert (await use(world, LOST)).status == 200
    got = {mail.to: mail.text for mail in world.mailbox.mails if KEEP in mail.text}
    assert set(got) == {ADA, "thief@example.com"}
    assert [mail.to for mail in world.mailbox.mails if REMOVE in mail.text] == ["thief@example.com"]
    token = re.findall(r"#(ddo1_[\w-]+)", got[ADA])[0]
    assert (await use(world, KEEP, token)).status == 200
    world.clock.now += WAIT
    assert (await use(world, REMOVE)).code == "invalid_token"


async def test_an_administrator_is_never_recovered_by_mail(world: World) -> None:
    """Neither an administrator, nor an account that became one meanwhile; nor anyone where the policy says so."""
    await protected(world)
    subject = (await account_of(world)).subject
    await begun(world)
    await world.directory.admin.set_roles(subject, ["admin"], client=world.api_client(), actor="cli")
    world.clock.now += WAIT
    assert (await use(world, REMOVE)).status in {401, 403} and not await removed(world)
    refused = await ask(world)
    assert (refused.status, refused.code) == (403, "refused")
    async with a_world(policy=replace(STANDARD, factor_recovery_after=HIGH.factor_recovery_after)) as off:
        await protected(off)
        assert (await ask(off)).code == "refused" and not off.mailbox.mails


async def test_a_second_request_lengthens_nothing(world: World) -> None:
    """Who asks again gets new links, and the time that runs goes on."""
    await protected(world)
    await begun(world)
    world.clock.now += WAIT / 2
    old = link(world, REMOVE)
    await begun(world)
    world.clock.now += WAIT / 2
    assert (await use(world, REMOVE, old)).code == "invalid_token"
    assert (await use(world, REMOVE)).status in {200, 202}


async def test_links_are_few() -> None:
    """A thief with the password causes three mails a day."""
    async with a_world(limits=DEFAULT_LIMITS) as world:
        await protected(world)
        answers = [await ask(world) for _ in range(4)]
        assert [each.status for each in answers] == [202, 202, 202, 429]
        assert len(world.mailbox.mails) == 3


@BOTH
async def test_cancelling_and_removing_race_over_two_nodes(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    """Of sign-ins, cancellations and removals at one moment, at two nodes over one database, one wins: the factors are
    gone and no session is left, or they are there and the link is void.
    """
    first, second = nodes(request, tmp_path, kind)
    async with first as one, second as two:
        _, secret = await protected(one)
        wins = set()
        for n in range(6):
            if await removed(one):
                owner = one.browser()
                await owner.login()
                secret, _ = await enrolled(one, owner)
            await begun(one)
            one.clock.now += WAIT
            finish, keep = link(one, REMOVE), link(one, KEEP)
            person = two.browser()
            pending = await begin(person)
            calls = [
                *(use((one, two)[k % 2], REMOVE, finish) for k in range(4)),
                *(use((one, two)[k % 2], KEEP, keep) for k in range(n % 2)),
                step(person, pending.json["token"], code(one, secret)),
            ]
            done, *others = await asyncio.gather(*(calls if n % 3 else reversed(calls)))
            answers = [done, *others] if n % 3 else [*reversed(others), done]
            finished = sum(each.status in {200, 202} for each in answers[:4])
            gone = await removed(one)
            assert finished == gone, answers
            if gone:
                assert answers[-1].status == 401 and (await person.me()).status == 401
            wins.add(gone)
        assert wins
