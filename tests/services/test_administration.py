"""What administrators do to accounts, and that one of them is left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace
from tests.services.house import House
from tests.standins import HOME, PASSWORD, Interleaved

from dutchdoor.errors import InvalidInput, InvalidToken, LastAdministrator, NotFound, WrongCredentials
from dutchdoor.services.accounts import Directory


async def take_away(through: Directory, how: str, subject: str) -> None:
    if how == "roles":
        await through.admin.set_roles(subject, ["editor"], client=HOME, actor="cli")
    else:
        await through.admin.disable(subject, client=HOME, actor="cli")


@pytest.mark.parametrize("how", ["roles", "disable"])
async def test_a04_the_last_administrator_stays(house: House, how: str) -> None:
    """The last active administrator keeps the role and the account, and nothing of the refused change happened."""
    root = await house.clean.admin.create(
        "root@example.com", password=PASSWORD, roles=("admin",), client=HOME, actor="cli"
    )
    second = await house.clean.admin.create(
        "two@example.com", password=PASSWORD, roles=("admin",), client=HOME, actor="cli"
    )
    await house.clean.admin.disable(second.subject, client=HOME, actor="cli")
    before = await house.entries()
    with pytest.raises(LastAdministrator):
        await take_away(house.clean, how, root.subject)
    assert await house.store.account(root.subject) == root
    assert await house.entries() == before
    await house.clean.admin.set_roles((await house.ann()).subject, ["admin"], client=HOME, actor="cli")
    await take_away(house.clean, how, root.subject)


@pytest.mark.parametrize("ways", [("roles", "roles"), ("disable", "disable"), ("roles", "disable")])
async def test_a04_administrators_who_remove_each_other_leave_one(house: House, ways: tuple[str, str]) -> None:
    """Two administrators who remove each other at once leave one, in whichever order their steps come."""
    for seed in range(8):
        made = [
            await house.clean.admin.create(
                f"{seed}-{n}@example.com", password=PASSWORD, roles=("admin",), client=HOME, actor="cli"
            )
            for n in range(2)
        ]
        for old in await house.store.accounts_with_role("admin", limit=99):
            if old.subject not in {each.subject for each in made}:
                await house.clean.admin.set_roles(old.subject, [], client=HOME, actor="cli")
        racing = house.over(Interleaved(house.store, seed=seed))
        results = await asyncio.gather(
            *(take_away(racing, how, each.subject) for how, each in zip(ways, made, strict=True)),
            return_exceptions=True,
        )
        assert sorted(type(result).__name__ for result in results) == ["LastAdministrator", "NoneType"], results
        assert len(await house.store.accounts_with_role("admin", limit=9)) == 1


async def test_c12_the_set_up_link_lives_until_there_is_an_administrator(house: House) -> None:
    """C12: accounts that people register leave the first administrator's link alone; an administrator ends it."""
    first, second = await house.clean.admin.offer_setup(), await house.clean.admin.offer_setup()
    assert first is not None
    assert second is not None
    await house.clean.registration.register("bob@example.com", PASSWORD, "", client=HOME)
    root = await house.clean.admin.set_up(first.text(), "root@example.com", PASSWORD, "", client=HOME)
    assert root.roles == ("admin",)
    with pytest.raises(InvalidToken):
        await house.clean.admin.set_up(second.text(), "eve@example.com", PASSWORD, "", client=HOME)
    assert await house.clean.admin.offer_setup() is None


async def test_what_a_disabled_account_cannot(house: House) -> None:
    """S07, C10: a disabled account is refused like a wrong password; enabled again, nothing comes back to life."""
    account, one = await house.ann(), await house.sign_in()
    await house.clean.admin.disable(account.subject, client=HOME, actor="cli")
    with pytest.raises(WrongCredentials):
        await house.sign_in()
    await house.clean.admin.enable(account.subject, client=HOME, actor="cli")
    assert not await house.alive(one)
    assert await house.alive(await house.sign_in())
    for verb in (house.clean.admin.disable, house.clean.admin.enable):
        with pytest.raises(NotFound):
            await verb("nobody", client=HOME, actor="cli")


async def test_roles_rise_and_fall(house: House) -> None:
    """I-20: roles given and taken show at a session's next request and make access tokens stale; no session ends."""
    account, one, hybrid = await house.ann(), await house.sign_in(), await house.sign_in(mode="hybrid")
    over = house.clean.authority
    await house.clean.admin.create("root@example.com", password=PASSWORD, roles=("admin",), client=HOME, actor="cli")
    for roles in (["admin", "auditor"], ["auditor"], []):
        await house.clean.admin.set_roles(account.subject, roles, client=HOME, actor="cli")
        found = await over.resume(one.session_token)
        assert found.principal.roles == tuple(roles)
        fresh = await over.refresh(hybrid.refresh_token, HOME)
        assert (await over.verify(fresh.access_token)).roles == tuple(roles)
        assert not await house.alive(replace(hybrid, refresh_token=""))
    for bad in (["two words"], [""], ["x" * 65], ["rôle"], [f"r{n}" for n in range(33)]):
        with pytest.raises(InvalidInput):
            await house.clean.admin.set_roles(account.subject, bad, client=HOME, actor="cli")
    assert (await house.ann()).roles == ()


async def test_accounts_are_listed_and_searched(house: House) -> None:
    """Pages begin with the newest account, of a status or of all; a search finds words by their beginning, and an id as
    a whole. The last page says that it is the last, and a place of another list is refused.
    """
    admin, ann = house.clean.admin, await house.ann()
    first = [account.subject for account in await house.store.newest_accounts()]
    made = []
    for number in range(5):
        house.clock.forward(1)
        roles = ("admin",) if number < 2 else ()
        made.append(
            await admin.create(f"user{number}@example.org", client=HOME, actor="cli", roles=roles, password=PASSWORD)
        )
    house.clock.forward(1)
    await admin.disable(made[4].subject, client=HOME, actor="cli")
    newest = [*(each.subject for each in reversed(made)), *first]

    async def pages(**asked: Any) -> list[list[str]]:
        found, after = [], ""
        while True:
            page, following = await admin.accounts(after=after, limit=2, **asked)
            found.append([each.subject for each in page])
            if following is None:
                return found
            after = following

    assert [len(page) for page in await pages()] == [2, 2, 2, 1]
    assert [each for page in await pages() for each in page] == newest
    assert await pages(status="disabled") == [[made[4].subject]]
    assert await pages(status="unverified") == [[ann.subject]]
    assert [each for page in await pages(status="active") for each in page] == newest[1:]
    assert await pages(status="admin") == [sorted(each.subject for each in made[:2])]
    assert await pages(search="USER") == [
        [made[0].subject, made[1].subject],
        [made[2].subject, made[3].subject],
        [made[4].subject],
    ]
    assert await pages(search="ann@") == await pages(search=ann.subject) == [[ann.subject]]
    assert await pages(search="ser") == await pages(search=ann.subject[:-1]) == [[]]
    for wrong in ({"status": "gone"}, {"status": "active", "search": "a"}, {"after": "x"}, {"after": "WyJhIiwgMV0"}):
        with pytest.raises(InvalidInput):
            await admin.accounts(**wrong)  # type: ignore[arg-type]
