"""Guessing passwords: what is refused to an attacker, and never to the owner."""

from __future__ import annotations

import asyncio

import bcrypt
import pytest
from msgspec.structs import replace
from tests.http.ada import ADA, by_account, login, stored
from tests.http.world import AWAY, HOME, MARK, OTHER_PASSWORD, PASSWORD, Answer, World, a_world
from tests.standins import endless

from dutchdoor.credentials.password import OWASP_2024
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import DAY
from dutchdoor.model.rate_limits import DEFAULT_LIMITS, Limits
from dutchdoor.stores.sqlite import SqliteStore


async def forgot(world: World, email: str = ADA, **more: object) -> Answer:
    return await world.call("POST", "/auth/password/forgot", json={"email": email}, **more)


async def test_c11_after_100_wrong_guesses_the_right_one_is_refused() -> None:
    """Guessed at from a hundred addresses over a month, an account takes at most 100 guesses; then the right password
    is refused like a wrong one. Its owner still signs in from the browser that did before, and by a reset.
    """
    async with a_world(limits=DEFAULT_LIMITS) as world:
        await world.register()
        owner = world.browser(peer=HOME)
        await owner.login(mode="session")
        assert any(name.endswith(MARK) for name in owner.jar)
        world.clock.forward(31 * DAY)  # the owner's network is forgotten by now: guessers anywhere are strangers

        evaluated = 0
        for guess in range(400):
            answer = await login(world, f"guess {guess}", peer=f"203.0.{guess % 100}.7")
            evaluated += answer.status == 401
            assert answer.status in {401, 429}
            world.clock.forward(3600.0)
        assert evaluated <= 100
        refused = await login(world, PASSWORD, peer="203.0.113.200")
        assert (refused.status, refused.set_cookies()) == (429, [])

        assert (await owner.login(mode="session")).status == 200, "the owner's own browser is not locked out"


async def test_c11_a_reset_lets_the_owner_in_during_an_attack() -> None:
    """On a new machine, in the middle of an attack that never ends, the owner gets in by a reset mail."""
    async with a_world(limits=DEFAULT_LIMITS) as world:
        await world.register()
        for guess in range(12):
            await login(world, f"guess {guess}", peer=AWAY)
        owner = world.browser(peer="192.0.2.99")
        assert (await login(world, PASSWORD, peer="192.0.2.99")).status == 429
        await owner.call("POST", "/auth/password/forgot", json={"email": ADA})
        await world.posted()
        done = await owner.call(
            "POST", "/auth/password/reset", json={"token": world.mailbox.token(), "new_password": OTHER_PASSWORD}
        )
        assert done.status == 200
        for guess in range(12):
            await login(world, f"guess {guess}", peer=AWAY)
        assert (await owner.login(password=OTHER_PASSWORD, mode="session")).status == 200


@pytest.mark.parametrize(("place", "times"), [("2001:db8:1:2::{:x}", 1), ("2001:db8:1:{:x}::1", 2)])
async def test_c11_one_address_cannot_try_every_account(place: str, times: int) -> None:
    """One customer who tries one password on account after account is throttled by address. All of an IPv6 /64 is one
    address; a /56 gets twice as much, and a /48 four times.
    """
    async with a_world(limits=DEFAULT_LIMITS) as world:
        statuses = [
            (await login(world, "password", f"user{n}@example.com", peer=place.format(n))).status for n in range(1, 200)
        ]
        assert statuses.count(401) == DEFAULT_LIMITS.sign_in_by_address.burst * times
        elsewhere = await login(world, "password", "x@example.com", peer="2001:db8:1:200::1")
        assert elsewhere.status == 401, "another /56 of the same /48"


async def junk(world: World, **more: object) -> None:
    """Log-ins that spend everything an address has."""
    while (await login(world, "password", f"{world.clock()}{len(str(more))}@example.com", **more)).status != 429:
        world.clock.forward(0.001)


async def test_c11_a_known_browser_is_not_refused_for_its_address() -> None:
    """An attacker behind the owner's own address spends all it has, and goes on. The browser that signed in before
    signs in, can ask for a reset, and follows its link; it takes nothing from the address either.
    """
    async with a_world(limits=DEFAULT_LIMITS) as world:
        await world.register()
        owner = world.browser(peer=HOME)
        await owner.login()
        owner.jar = {name: value for name, value in owner.jar.items() if name.endswith(MARK)}
        await junk(world, peer=HOME)
        while (await forgot(world, f"{world.clock()}@example.com", peer=HOME)).status != 429:
            world.clock.forward(0.001)
        for _ in range(30):
            await world.call("POST", "/auth/password/reset", json={"token": "x", "new_password": "x" * 20}, peer=HOME)
        assert (await login(world, PASSWORD, peer=HOME)).status == 429
        await owner.login()
        answer = await owner.call("POST", "/auth/password/forgot", json={"email": ADA})
        assert answer.status == 202
        await world.posted()
        token = {"token": world.mailbox.token(), "new_password": OTHER_PASSWORD}
        assert (await owner.call("POST", "/auth/password/reset", json=token)).status == 200
        await owner.login(password=OTHER_PASSWORD)
        world.clock.forward(60)  # one more may try now, and the owner took none of it
        for _ in range(5):
            await owner.login(password=OTHER_PASSWORD)
        assert (await login(world, "password", "y@example.com", peer=HOME)).status == 401


async def test_c11_a_browser_known_by_an_older_password_may_ask_for_a_reset() -> None:
    """A known-device cookie from before a change of the password signs no one in past the limit of its address. For a
    reset it counts: the letter goes to the owner alone, and the limit of the mailbox holds for this browser too.
    """
    async with a_world(limits=DEFAULT_LIMITS) as world:
        user = await world.register()
        old, new = world.browser(peer=HOME), world.browser(peer=HOME)
        await old.login()
        await new.login()
        changed = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
        assert (await new.call("POST", "/auth/password", json=changed)).status in {200, 202}
        old.jar = {name: value for name, value in old.jar.items() if name.endswith(MARK)}
        await junk(world, peer=HOME)
        while (await forgot(world, f"{world.clock()}@example.com", peer=HOME)).status != 429:
            world.clock.forward(0.001)
        refused = await old.call("POST", "/auth/login", json={"email": ADA, "password": OTHER_PASSWORD})
        assert refused.status == 429
        asked = [(await old.call("POST", "/auth/password/forgot", json={"email": ADA})).status for _ in range(9)]
        await world.posted()
        letters = [mail for mail in world.mailbox.mails if mail.to == user["email"] and "reset" in mail.text]
        assert asked.count(202) == len(letters) == DEFAULT_LIMITS.reset_by_mailbox.burst
        assert asked[-1] == 429


async def test_c11_what_an_accounts_bucket_refuses_takes_nothing_from_the_address() -> None:
    """An owner under attack tries again and again on a new machine. The attempts are refused by the account's bucket,
    and other people at the same address have as many attempts as before.
    """
    async with a_world(limits=DEFAULT_LIMITS) as world:
        await world.register()
        for guess in range(DEFAULT_LIMITS.sign_in_by_stranger.burst):
            assert (await login(world, f"guess {guess}", peer=AWAY)).status == 401
        for _ in range(20):
            assert (await login(world, PASSWORD, peer=HOME)).status == 429
        others = [(await login(world, "password", f"user{n}@example.com", peer=HOME)).status for n in range(40)]
        assert others.count(401) == DEFAULT_LIMITS.sign_in_by_address.burst


async def test_c11_a_log_in_after_a_reset_is_not_refused_for_its_address() -> None:
    """A browser that was never seen, behind an address that has nothing left, resets the password by its link and signs
    in at once.
    """
    async with a_world(limits=DEFAULT_LIMITS) as world:
        await world.register()
        await forgot(world, ADA, peer=AWAY)
        await world.posted()
        await junk(world, peer=HOME)
        owner = world.browser(peer=HOME)
        token = {"token": world.mailbox.token(), "new_password": OTHER_PASSWORD}
        assert (await owner.call("POST", "/auth/password/reset", json=token)).status == 200
        await owner.login(password=OTHER_PASSWORD)


@pytest.mark.parametrize("door", ["reset", "password"])
async def test_c11_known_browsers_of_an_old_password_are_strangers(door: str) -> None:
    """A former holder of the password keeps marks of twenty browsers. After the owner resets or changes it, failing
    with them does not refuse the owner's own browser, which is marked anew.
    """
    async with a_world(limits=DEFAULT_LIMITS) as world:
        await world.register()
        thieves = [world.browser(peer=f"203.0.113.{n}") for n in range(20)]
        for thief in thieves:
            await thief.login(mode="jwt")
        owner = world.browser(peer=HOME)
        await owner.login(mode="session")
        if door == "reset":
            await forgot(world, ADA)
            await world.posted()
            body = {"token": world.mailbox.token(), "new_password": OTHER_PASSWORD}
            assert (await owner.call("POST", "/auth/password/reset", json=body)).status == 200
        else:
            body = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
            assert (await owner.call("POST", "/auth/password", json=body)).status == 200
        for thief in thieves:
            for _ in range(2):
                answer = await thief.call("POST", "/auth/login", json={"email": ADA, "password": PASSWORD})
                assert answer.status in {401, 429}
        owner.jar = {name: value for name, value in owner.jar.items() if name.endswith(MARK)}
        await owner.login(password=OTHER_PASSWORD)


async def test_c11_roles_and_an_upgraded_hash_leave_the_browser_known() -> None:
    """A change of roles, or a log-in that upgrades the stored hash, leaves the browser that signs in a known one."""
    async with a_world(limits=DEFAULT_LIMITS) as world:
        imported = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        account = await world.directory.admin.adopt(ADA, imported, client=Client())
        owner = world.browser(peer=HOME)
        await owner.login(mode="jwt")
        assert not (await stored(world)).startswith("$2")
        await world.directory.admin.set_roles(account.subject, ["editor"], client=Client(), actor="cli")
        await junk(world, peer=HOME)
        await owner.login(mode="jwt")


async def test_c11_a_raised_profile_leaves_the_owners_other_browsers_known() -> None:
    """A log-in in one browser hashes the same password anew, under a raised profile. The owner's other browser is still
    a known one; after a change of the password it is not.
    """
    async with a_world(limits=DEFAULT_LIMITS) as world:
        await world.register()
        first, second = world.browser(peer=HOME), world.browser(peer=HOME)
        await second.login(mode="session")
        before = await stored(world)
        world.directory.hasher.profile = OWASP_2024
        await first.login(mode="session")
        assert await stored(world) != before
        second.jar = {name: value for name, value in second.jar.items() if name.endswith(MARK)}
        await junk(world, peer=HOME)
        await second.login(mode="session")
        body = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
        assert (await first.call("POST", "/auth/password", json=body)).status == 200
        second.jar = {name: value for name, value in second.jar.items() if name.endswith(MARK)}
        refused = await second.call("POST", "/auth/login", json={"email": ADA, "password": OTHER_PASSWORD})
        assert refused.status == 429


async def test_c11_200_guesses_at_once_count_one_by_one(tmp_path) -> None:
    """200 guesses in parallel are no more than 200 in a row: what is evaluated never exceeds the burst (I-16)."""
    limits = replace(endless(Limits()), **by_account(DEFAULT_LIMITS))
    async with a_world(store=SqliteStore(tmp_path / "test.db"), limits=limits) as world:
        await world.register()
        answers = await asyncio.gather(*(login(world, f"guess {n}", peer=AWAY) for n in range(200)))
        assert sum(answer.status == 401 for answer in answers) <= DEFAULT_LIMITS.sign_in_by_stranger.burst
