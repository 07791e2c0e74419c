"""An owner gives up the password: what it takes, what it ends, and the way back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.http.test_factors import ADA, begin, step
from tests.http.test_passkeys import made, sign_in, with_key
from tests.http.test_set_aside import account_of, methods, reset, verified
from tests.http.world import OTHER_PASSWORD, OWN, PASSWORD, Browser, World, a_world
from tests.softkey import SoftKey, b64

from dutchdoor import issuers
from dutchdoor.issuers.identity import Identity
from dutchdoor.model.accounts import Credential
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import DAY, STANDARD
from dutchdoor.stores.base import Remove

CORP = issuers.openid(name="corp", title="Corp", url="https://corp.example", client_id="us")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as made:
        yield made


async def give_up(person: Browser) -> int:
    answer = await person.call("POST", "/auth/password/remove")
    return int(answer.status)


async def test_g38_a_passkey_and_recovery_codes_are_enough(world: World) -> None:
    """The password signs in no more, other sessions end, this one goes on, and the mail says so. The passkey is the
    last way in then, and stays.
    """
    owner, key, _ = await with_key(world)
    await verified(world)
    other = world.browser()
    assert (await sign_in(other, key)).status == 200
    page = (await owner.call("GET", "/auth/account", headers=[("accept", "text/html")])).body
    assert b"Give up the password" in page
    assert await give_up(owner) == 200
    assert ((await owner.me()).status, (await other.me()).status) == (200, 401)
    refused = await world.browser().call("POST", "/auth/login", json={"email": ADA, "password": PASSWORD})
    assert (refused.status, refused.code) == (401, "wrong_credentials")
    await world.posted()
    assert "was given up" in world.mailbox.mails[-1].subject
    assert (await sign_in(world.browser(), key)).status == 200
    gone = await owner.call("POST", "/auth/factors/remove", json={"method": "passkey", "id": b64(key.id)})
    assert (gone.status, gone.code) == (403, "refused")
    page = (await owner.call("GET", "/auth/account", headers=[("accept", "text/html")])).body
    assert b"Remove this passkey" not in page and b"the only way into your account" in page
    assert await give_up(owner) == 404


async def test_g38_one_other_way_is_too_few(world: World) -> None:
    """One passkey without recovery codes, or one linked log-in, is refused, and the page does not offer it; two of them
    are enough.
    """
    owner, _, _ = await with_key(world)
    account = await account_of(world)
    (codes,) = await world.store.select(Credential, subject=account.subject, method="recovery_code")
    await world.store.commit(Remove(codes))
    refused = await owner.call("POST", "/auth/password/remove")
    assert (refused.status, refused.code) == (403, "refused") and "two other ways" in refused.json["detail"]
    assert b"Give up the password" not in (await owner.call("GET", "/auth/account")).body
    world.directory.identities.issuers = {"corp": CORP}
    named = Identity(issuer=CORP.url, subject="ada-1")
    await world.directory.identities.link(account, "", named, CORP, client=Client())
    assert await give_up(owner) == 200


async def test_g38_it_takes_a_fresh_proof(world: World) -> None:
    """A browser that is left open, and one that did not prove the second factor, is asked to prove first."""
    owner, key, _ = await with_key(world)
    world.clock.forward(STANDARD.step_up_for + 1)
    assert (await owner.call("POST", "/auth/password/remove")).code == "step_up_required"
    assert "password" in await methods(world)
    assert (await sign_in(owner, key)).status == 200
    assert await give_up(owner) == 200


async def test_g38_a_mailed_link_leads_back_to_a_password(world: World) -> None:
    """The mailbox is the way back: it chooses a password, and the second step is asked for beside it. A mailed code is
    no fresh proof of an account that has a passkey.
    """
    owner, _, codes = await with_key(world)
    await verified(world)
    assert await give_up(owner) == 200
    assert (await owner.call("POST", "/auth/reauthenticate/code")).code == "refused"
    world.clock.forward(8 * DAY)
    await reset(world)
    person = world.browser()
    token = (await begin(person, password=OTHER_PASSWORD)).json["token"]
    assert (await step(person, token, codes[0], "recovery_code")).status == 200


async def test_g38_a_browser_that_was_remembered_for_an_older_password_is_not(world: World) -> None:
    """What remembered a browser before does not come back when the password goes."""
    owner, _, _ = await with_key(world)
    before = await world.store.select(Credential, subject=(await account_of(world)).subject)
    since = world.directory.sign_in._holds_since(before)
    world.clock.forward(60)
    assert await give_up(owner) == 200
    after = await world.store.select(Credential, subject=(await account_of(world)).subject)
    assert world.directory.sign_in._holds_since(after) > since


async def test_g38_two_things_at_once_leave_a_way_in(world: World) -> None:
    """Giving up the password and removing the passkeys at the same moment: never both."""
    owner, key, _ = await with_key(world)
    second = (await made(owner, SoftKey(OWN), "Phone"))[0]
    other = world.browser()
    assert (await sign_in(other, second)).status == 200
    account = await account_of(world)
    client, factors = Client(), world.directory.factors
    amr = ("hwk", "user", "mfa")
    await asyncio.gather(
        give_up(owner),
        factors.remove(account, "passkey", b64(key.id), amr=amr, client=client),
        factors.remove(account, "passkey", b64(second.id), amr=amr, client=client),
        return_exceptions=True,
    )
    assert await methods(world) & {"password", "passkey"}
