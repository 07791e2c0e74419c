"""Invitations: a mailed link and no account, valid while the administrator who sent it is one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.services.house import ANN, House
from tests.standins import (
    HOME,
    OTHER_PASSWORD,
    PASSWORD,
    THIEF,
    Clock,
    Interleaved,
    Mailbox,
    authority,
    directory,
    opened,
)

from dutchdoor.errors import InvalidInput, InvalidToken, NotFound, RegistrationClosed, Taken, WeakPassword
from dutchdoor.model.accounts import Account
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.policy import STANDARD, Policy
from dutchdoor.services.browser import Browser

BOB = "Bob@example.com"


@pytest.fixture(params=[pytest.param("memory", marks=pytest.mark.long), "sqlite"])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    """Ann is the administrator of a server where people are invited."""
    async with opened(str(request.param), tmp_path, Clock()) as over:
        mailbox = Mailbox()
        house = House(directory(over, mailbox), mailbox)
        await house.clean.registration.register(ANN, PASSWORD, "Ann O'Neill", client=HOME)
        await house.clean.admin.set_roles((await house.ann()).subject, ["admin"], client=HOME, actor="cli")
        yield house
        for made in [*house.spoiled, house.clean]:
            await made.close()


async def invited(house: House, email: str = BOB, **more: object) -> str:
    """Invite a person; return the token of the link."""
    await house.clean.invitations.invite(email, client=HOME, actor=(await house.ann()).subject, **more)  # type: ignore[arg-type]
    assert house.mailbox.mails[-1].to == email
    return house.mailbox.token()


async def test_an_invited_person_creates_the_account(house: House) -> None:
    """A23: the letter says who invites; the owner chooses name and password; the address is verified, the roles are the
    administrator's choice, and the link works once.
    """
    token = await invited(house, name="Robert", roles=("editor",))
    assert "Ann O'Neill invites you to Example." in house.mailbox.mails[-1].text
    assert await house.store.account_by_email("bob@example.com") is None
    seen = await house.clean.invitations.look(token, client=HOME)
    assert (seen.address, seen.name, seen.inviter) == (BOB, "Robert", "Ann O'Neill")
    with pytest.raises(WeakPassword):
        await house.clean.invitations.accept(token, "short", "", client=HOME)
    account = await house.clean.invitations.accept(token, OTHER_PASSWORD, "", client=HOME)
    assert (account.address, account.name, account.roles) == (BOB, "Robert", ("editor",))
    assert account.email_verified_at is not None
    await house.clean.sign_in.by_password(BOB, OTHER_PASSWORD, Browser(HOME), mode="jwt")
    for verb in (house.clean.invitations.look(token, client=HOME),
                 house.clean.invitations.accept(token, OTHER_PASSWORD, "", client=HOME)):  # fmt: skip
        with pytest.raises(InvalidToken):
            await verb
    (created,) = await house.store.events(subject=account.subject, name="account_created")
    assert created.actor == (await house.ann()).subject
    assert await house.store.select(OneTimeToken, subject="", purpose="invitation") == []


async def test_an_invitation_is_withdrawn_sent_again_and_expires(house: House) -> None:
    """A23: each of these makes the earlier link void; the list shows what is under way."""
    first = await invited(house)
    (listed,) = await house.clean.invitations.listed()
    assert (listed.address, listed.invited_by) == (BOB, (await house.ann()).subject)
    again = await house.clean.invitations.send_again(listed.id, client=HOME, actor=(await house.ann()).subject)
    second = house.mailbox.token()
    assert (again.id != listed.id, second != first) == (True, True)
    third = await invited(house)
    assert len(await house.clean.invitations.listed()) == 1
    for void in (first, second):
        with pytest.raises(InvalidToken):
            await house.clean.invitations.accept(void, OTHER_PASSWORD, "", client=HOME)
    (listed,) = await house.clean.invitations.listed()
    await house.clean.invitations.withdraw(listed.id, client=HOME, actor="cli")
    with pytest.raises(InvalidToken):
        await house.clean.invitations.look(third, client=HOME)
    for gone in (listed.id, "nothing", (await house.ann()).subject):
        with pytest.raises(NotFound):
            await house.clean.invitations.withdraw(gone, client=HOME, actor="cli")
    fourth = await invited(house)
    assert isinstance(house.clock, Clock)
    house.clock.forward(STANDARD.invitation_for)
    with pytest.raises(InvalidToken):
        await house.clean.invitations.accept(fourth, OTHER_PASSWORD, "", client=HOME)
    (listed,) = await house.clean.invitations.listed()
    await house.clean.invitations.send_again(listed.id, client=HOME, actor="cli")
    assert "An administrator invites you" in house.mailbox.mails[-1].text
    await house.clean.invitations.accept(house.mailbox.token(), OTHER_PASSWORD, "Bob", client=HOME)


async def test_the_invitations_of_who_is_no_administrator_are_void(house: House) -> None:
    """A23: an administrator for an hour does not come back by an invitation of their own."""
    root = await house.clean.registration.register("root@example.com", PASSWORD, "", client=HOME)
    assert root is not None
    await house.clean.admin.set_roles(root.subject, ["admin"], client=HOME, actor="cli")
    token = await invited(house, roles=("admin",))
    await house.clean.admin.set_roles((await house.ann()).subject, [], client=HOME, actor="cli")
    for verb in (house.clean.invitations.look(token, client=HOME),
                 house.clean.invitations.accept(token, OTHER_PASSWORD, "", client=THIEF)):  # fmt: skip
        with pytest.raises(InvalidToken):
            await verb


async def test_the_page_is_told_what_cannot_be_invited(house: House) -> None:
    """An address with an account, what is no address, and no role are refused by name, and no mail is sent."""
    ann = (await house.ann()).subject
    with pytest.raises(Taken):
        await house.clean.invitations.invite("ANN@example.com", client=HOME, actor=ann)
    for wrong, field in (({"email": "bob"}, "email"), ({"email": BOB, "roles": ("a b",)}, "roles")):
        with pytest.raises(InvalidInput) as caught:
            await house.clean.invitations.invite(**wrong, client=HOME, actor=ann)  # type: ignore[arg-type]
        assert caught.value.field == field
    assert house.mailbox.mails == []
    closed = directory(authority(house.store, house.clock, Policy(registration="closed")), house.mailbox)  # type: ignore[arg-type]
    house.spoiled.append(closed)
    with pytest.raises(RegistrationClosed):
        await closed.invitations.invite(BOB, client=HOME, actor=ann)
    await closed.invitations.invite(BOB, client=HOME, actor="cli")


async def test_a_name_that_reads_as_our_own_words_is_not_in_the_letter(house: House) -> None:
    """An administrator whose name is a link or a telephone number does not write our mail."""
    for name in ("call +1 555 0100", "evil.example", "https://evil", "<b>x</b>"):
        await house.clean.profile.change_name((await house.ann()).subject, name, client=HOME)
        await invited(house)
        assert name not in house.mailbox.mails[-1].text
        assert "An administrator invites you" in house.mailbox.mails[-1].text


async def test_of_fifty_acceptances_one_succeeds(house: House) -> None:
    """A23: one link and fifty clicks at once, while others register the address: one account, with one password."""
    token = await invited(house)
    racing = house.over(Interleaved(house.store, seed=2))
    results = await asyncio.gather(
        *(racing.invitations.accept(token, OTHER_PASSWORD, "", client=HOME) for _ in range(50)), return_exceptions=True
    )
    assert sum(isinstance(result, Account) for result in results) == 1
    assert all(isinstance(result, Account | InvalidToken | Taken) for result in results), results
