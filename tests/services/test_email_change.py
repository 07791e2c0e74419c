"""Another address for an account: only its mailbox makes it the account's, and the former one can take it back."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from tests.services.house import ANN, House, Spoiled
from tests.standins import HOME, OTHER_PASSWORD, PASSWORD, THIEF, Broken, Clock, Interleaved, Mailbox, directory, opened

from dutchdoor.errors import (
    InvalidInput,
    InvalidToken,
    NotAuthenticated,
    NotFound,
    RateLimited,
    Taken,
    Unavailable,
    WeakPassword,
    WrongCredentials,
)
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.policy import DAY, STANDARD
from dutchdoor.model.rate_limits import DEFAULT_LIMITS
from dutchdoor.services.browser import Browser
from dutchdoor.services.ongoing import Ongoing
from dutchdoor.stores.base import Add, Take

NEW, THIRD = "ann@new.example", "ann@third.example"


@pytest.fixture
async def house(house: House) -> House:
    await house.verify()
    return house


async def asked(house: House, email: str = NEW, account: Account | None = None) -> str:
    """Ask for another address; return the token that was mailed to it."""
    await house.posted()  # a notice of what was before
    await house.clean.email_change.ask(account or await house.ann(), email, client=HOME)
    await house.posted()
    assert house.mailbox.mails[-1].to == email
    return house.mailbox.token()


async def changed(house: House, email: str = NEW, account: Account | None = None) -> str:
    """Change the address; return the token that undoes it."""
    token = await asked(house, email, account)
    await house.clean.email_change.confirm(token, client=HOME)
    await house.posted()
    house.clock.forward(1)  # type: ignore[attr-defined]
    return house.mailbox.token()


async def may_sign_in(house: House, email: str, password: str = PASSWORD) -> bool:
    try:
        await house.clean.sign_in.by_password(email, password, Browser(HOME), mode="jwt")
    except WrongCredentials:
        return False
    return True


async def test_nothing_changes_until_the_new_mailbox_confirms(house: House) -> None:
    """A20: asking changes nothing; the link, used once, changes the address, and the former one signs no one in."""
    token = await asked(house)
    assert await may_sign_in(house, ANN)
    assert not await may_sign_in(house, NEW)
    signed_in = await house.sign_in()
    hybrid = await house.sign_in(mode="hybrid")
    account, _ = await house.clean.email_change.confirm(token, client=HOME)
    assert (account.email, account.address) == (NEW, NEW)
    assert account.email_verified_at == house.clock()
    assert await may_sign_in(house, NEW)
    assert not await may_sign_in(house, ANN)
    assert await house.alive(signed_in), "a session stays"
    with pytest.raises(NotAuthenticated):
        await house.clean.authority.verify(hybrid.access_token)  # and what was said of its owner is stale
    with pytest.raises(InvalidToken):
        await house.clean.email_change.confirm(token, client=HOME)
    assert [event.actor for event in await house.store.events(name="email_changed")] == [account.subject]


async def test_the_former_mailbox_gets_a_notice_that_does_not_name_the_new_one(house: House) -> None:
    """The notice says when and from where, has the link that undoes the change, and shows no address to a stranger."""
    await changed(house)
    letter = house.mailbox.mails[-1]
    assert (letter.to, letter.subject) == (ANN, "Your e-mail address was changed - Example")
    assert NEW not in letter.text + letter.html
    assert "192.0.2.7" in letter.text
    assert "/auth/email/restore#ddo1_" in letter.text


async def test_an_address_that_was_never_proved_gets_no_way_back(tmp_path: Path) -> None:
    """An owner who mistyped the address corrects it: the stranger who reads that mailbox gets nothing."""
    async with opened("memory", tmp_path, Clock()) as over:
        mailbox = Mailbox()
        house = House(directory(over, mailbox), mailbox)
        await house.clean.registration.register(ANN, PASSWORD, "Ann", client=HOME)
        await house.clean.email_change.confirm(await asked(house), client=HOME)
        await house.posted()
        assert [mail.to for mail in mailbox.mails] == [NEW]
        account = await house.store.account_by_email(NEW)
        assert account is not None
        assert await house.store.select(OneTimeToken, subject=account.subject) == []
        await house.clean.close()


async def test_the_former_mailbox_undoes_the_change(house: House) -> None:
    """A20: within seven days the link brings the address back with a new password, revokes every session and voids
    what the thief asked for and enrolled.
    """
    undo = await changed(house)
    thief = await house.clean.sign_in.by_password(NEW, PASSWORD, Browser(THIEF), mode="session")
    account = await house.store.account_by_email(NEW)
    assert account is not None
    await house.clean.recovery.send_reset(account, client=THIEF)
    reset = house.mailbox.token()
    pending = await asked(house, THIRD, account)
    passkey = Credential(subject=account.subject, method="totp", handle="", proof="x", created_at=house.clock())
    await house.store.commit(Add(passkey))
    with pytest.raises(WeakPassword):
        await house.clean.email_change.restore(undo, "short", client=HOME)
    house.clock.forward(STANDARD.restore_email_for - 60)  # type: ignore[attr-defined]
    restored, mark, done = await house.clean.email_change.restore(undo, OTHER_PASSWORD, client=HOME)
    assert (restored.email, restored.subject) == (ANN, account.subject)
    assert mark
    assert done.count >= 0
    assert await may_sign_in(house, ANN, OTHER_PASSWORD)
    assert not await may_sign_in(house, ANN, PASSWORD)
    assert not await may_sign_in(house, NEW, OTHER_PASSWORD)
    assert not await house.alive(thief[0])
    assert await house.store.get(Credential, account.subject, "totp", "") is None
    assert await house.store.select(OneTimeToken, subject=account.subject) == []
    for void in (reset, pending, undo):
        with pytest.raises(InvalidToken):
            await house.clean.email_change.restore(void, PASSWORD, client=THIEF)
    await house.posted()
    assert house.mailbox.mails[-1].to == ANN


async def test_what_a_thief_prepared_goes_with_the_change(house: House) -> None:
    """A passkey that was added in the week before the change of the address does not outlive its undo; what the owner
    had for longer stays.
    """
    ann = await house.ann()
    theirs, own = (
        Credential(subject=ann.subject, method="passkey", handle=name, proof="{}", created_at=house.clock() - age)
        for name, age in (("thief", 6 * DAY), ("owner", 8 * DAY))
    )
    await house.store.commit(Add(theirs), Add(own))
    undo = await changed(house)
    await house.clean.email_change.restore(undo, OTHER_PASSWORD, client=HOME)
    assert await house.store.get(Credential, ann.subject, "passkey", "thief") is None
    assert await house.store.get(Credential, ann.subject, "passkey", "owner") is not None


async def test_the_link_is_void_after_seven_days(house: House) -> None:
    """The policy says for how long the former mailbox decides."""
    undo = await changed(house)
    house.clock.forward(STANDARD.restore_email_for)  # type: ignore[attr-defined]
    with pytest.raises(InvalidToken):
        await house.clean.email_change.restore(undo, OTHER_PASSWORD, client=HOME)


async def test_the_oldest_mailbox_wins(house: House) -> None:
    """A20: a thief who changes the address twice holds a link too; the owner's, which is older, voids it, and theirs
    does not void the owner's.
    """
    owners = await changed(house)
    account = await house.store.account_by_email(NEW)
    assert account is not None
    thiefs = await changed(house, THIRD, account)
    await house.clean.email_change.restore(thiefs, "the thief chooses this one 3", client=THIEF)
    await house.clean.email_change.restore(owners, OTHER_PASSWORD, client=HOME)
    assert await may_sign_in(house, ANN, OTHER_PASSWORD)
    again = await changed(house, NEW)
    assert again != owners
    with pytest.raises(InvalidToken):
        await house.clean.email_change.restore(thiefs, PASSWORD, client=THIEF)


async def test_nobody_keeps_the_owner_out_by_registering_the_former_address(house: House) -> None:
    """A20: an account that a thief creates for the former address, without its mailbox, does not stand in the way."""
    undo = await changed(house)
    squatter = await house.clean.registration.register(ANN, OTHER_PASSWORD, "Thief", client=THIEF)
    assert squatter is not None
    restored, _, _ = await house.clean.email_change.restore(undo, OTHER_PASSWORD, client=HOME)
    assert restored.email == ANN
    assert await house.store.account(squatter.subject) is None


async def test_an_account_that_proved_the_former_address_keeps_it(house: House) -> None:
    """The person who reads the mailbox registered there anew: the link says what to do, and is not used up."""
    undo = await changed(house)
    other = await house.clean.registration.register(ANN, OTHER_PASSWORD, "Ann", client=HOME)
    assert other is not None
    await house.verify()
    for _ in range(2):
        with pytest.raises(Taken, match="another account by now"):
            await house.clean.email_change.restore(undo, OTHER_PASSWORD, client=HOME)


async def test_a_taken_address_tells_its_mailbox_and_nobody_else(house: House) -> None:
    """C10: the answer is the same, the mailbox learns of it, and no link makes the address another account's."""
    await house.clean.registration.register(THIRD, OTHER_PASSWORD, "Bob", client=HOME)
    await house.clean.email_change.ask(await house.ann(), THIRD, client=HOME)
    await house.posted()
    letter = house.mailbox.mails[-1]
    assert (letter.to, letter.subject) == (THIRD, "You already have an account - Example")
    assert "ddo1_" not in letter.text
    ann = await house.ann()
    taken = await house.clean.export.collect(ann.subject, client=HOME)
    await asked(house)  # of no account
    free = await house.clean.export.collect(ann.subject, client=HOME)
    assert [link.purpose for link in taken.links] == [link.purpose for link in free.links] == ["change_email"]
    seen = [(event.outcome, event.detail) for event in await house.store.events(name="email_change_requested")]
    assert seen == [("ok", "")] * 2


async def test_somebody_registers_the_address_meanwhile(house: House) -> None:
    """The address goes to the account that was there first; the late link changes nothing."""
    token = await asked(house)
    await house.clean.registration.register(NEW, OTHER_PASSWORD, "Bob", client=HOME)
    with pytest.raises(Taken):
        await house.clean.email_change.confirm(token, client=HOME)
    assert (await house.ann()).email == ANN


async def test_a_registration_that_waits_gives_way(house: House) -> None:
    """An address that is proved by mail wins over one that never was."""
    bob = await house.clean.registration.add(NEW, "Bob", "x", client=THIEF, registration="a browser")
    account, _ = await house.clean.email_change.confirm(await asked(house), client=HOME)
    assert account.email == NEW
    assert await house.store.account(bob.subject) is None


async def test_what_revokes_the_owners_sessions_voids_the_link(house: House) -> None:
    """A thief asked for the change; the owner chose a new password before it was confirmed."""
    token = await asked(house)
    await house.clean.recovery.change_password(Ongoing(await house.ann(), None, HOME, "app"), PASSWORD, OTHER_PASSWORD)
    with pytest.raises(InvalidToken):
        await house.clean.email_change.confirm(token, client=HOME)


async def test_the_later_of_two_requests_counts(house: House) -> None:
    """A second request voids the first one's link."""
    first = await asked(house)
    second = await asked(house, THIRD)
    with pytest.raises(InvalidToken):
        await house.clean.email_change.confirm(first, client=HOME)
    assert (await house.clean.email_change.confirm(second, client=HOME))[0].email == THIRD


async def test_ones_own_address_and_what_is_none_are_refused(house: House) -> None:
    """The refusal names the field, and costs no mail."""
    for wrong in ("ANN@example.com", "ann", "ann@example.com\r\nBcc: x@example.com"):
        with pytest.raises(InvalidInput) as caught:
            await house.clean.email_change.ask(await house.ann(), wrong, client=HOME)
        assert caught.value.field == "email"
    assert house.mailbox.mails == []


async def test_an_account_cannot_make_us_a_source_of_spam(house: House) -> None:
    """Five addresses a day for one account, and three letters at once for one mailbox."""
    bounded = house.over(house.store, limits=DEFAULT_LIMITS)
    ann = await house.ann()
    for number in range(5):
        await bounded.email_change.ask(ann, f"stranger{number}@example.org", client=THIEF)
    with pytest.raises(RateLimited):
        await bounded.email_change.ask(ann, "stranger5@example.org", client=THIEF)


async def test_of_fifty_confirmations_one_succeeds(house: House) -> None:
    """A20: one link and fifty clicks at once: one change, one event, one notice."""
    token = await asked(house)
    racing = house.over(Interleaved(house.store, seed=5))
    results = await asyncio.gather(
        *(racing.email_change.confirm(token, client=HOME) for _ in range(50)), return_exceptions=True
    )
    assert sum(isinstance(result, tuple) for result in results) == 1
    assert all(isinstance(result, tuple | InvalidToken) for result in results), results
    await house.posted()
    assert await house.events("email_changed") == 1
    assert sum(mail.to == ANN for mail in house.mailbox.mails) == 1


@pytest.mark.parametrize("seed", range(6))
async def test_two_accounts_race_for_one_address(house: House, seed: int) -> None:
    """One address, two accounts that confirm it and a person who registers it, all at once: it has one owner."""
    bob = await house.clean.registration.register("bob@example.com", PASSWORD, "Bob", client=HOME)
    assert bob is not None
    tokens = [await asked(house, NEW), await asked(house, NEW, bob)]
    racing = house.over(Interleaved(house.store, seed=seed, most=6))
    results = await asyncio.gather(
        *(racing.email_change.confirm(token, client=HOME) for token in tokens),
        racing.registration.register(NEW, OTHER_PASSWORD, "Eve", client=THIEF),
        return_exceptions=True,
    )
    won = [result for result in results[:2] if isinstance(result, tuple)]
    assert all(isinstance(result, tuple | Taken) for result in results[:2]), results
    # A registration that comes late mails a link in place of an account, or is refused as taken.
    assert len(won) + isinstance(results[2], Account) == 1
    owner = await house.store.account_by_email(NEW)
    assert owner is not None


ACTS = {
    "confirm": ("email_changed", NEW, lambda over, token: over.email_change.confirm(token, client=HOME)),
    "restore": (
        "email_restored",
        ANN,
        lambda over, token: over.email_change.restore(token, OTHER_PASSWORD, client=HOME),
    ),
}


async def before(house: House, verb: str) -> str:
    return await (changed(house) if verb == "restore" else asked(house))


async def is_done(house: House, verb: str, token: str) -> bool:
    """Whether all of it happened; that some of it did fails the test."""
    event, wanted, _ = ACTS[verb]
    there = await house.store.account_by_email(wanted) is not None
    assert there == (await house.events(event) == 1) == (not await house.holds(token))
    return there


@pytest.mark.parametrize("verb", ACTS)
async def test_a_failure_in_the_middle_undoes_all(house: House, verb: str) -> None:
    """I-10: whichever step fails, the token, the address and the event are as they were; and then it can be done."""
    token = await before(house, verb)
    at = steps = 0
    while at <= steps:
        spoiled = Spoiled(house.store, at=at, how="change")
        with pytest.raises(Exception) as caught:  # noqa: PT011 - of whatever kind, it is not a success
            await ACTS[verb][2](house.over(spoiled), token)
        assert not isinstance(caught.value, AssertionError), caught.value
        assert not await is_done(house, verb, token), f"step {at} of {spoiled.changes}"
        steps, at = spoiled.changes, at + 1
    await ACTS[verb][2](house.clean, token)
    assert await is_done(house, verb, token)


@pytest.mark.parametrize("how", ["conflict", "lost", "unknown"])
@pytest.mark.parametrize("verb", ACTS)
async def test_a_commit_whose_answer_is_lost_happened_or_did_not(house: House, verb: str, how: str) -> None:
    """I-10: after an outage of the store, all of it happened or nothing."""
    token = await before(house, verb)
    spoiled = Broken(house.store, at=3, how=how, only=lambda *changes: isinstance(changes[0], Take))
    with contextlib.suppress(Unavailable):
        await ACTS[verb][2](house.over(spoiled), token)
    assert await is_done(house, verb, token) == (how in {"conflict", "unknown"})


async def test_a_disabled_account_is_not_brought_back(house: House) -> None:
    """The link undoes a change of the address, and nothing that an administrator did."""
    undo = await changed(house)
    account = await house.store.account_by_email(NEW)
    assert account is not None
    await house.clean.admin.disable(account.subject, client=HOME, actor="cli")
    with pytest.raises(InvalidToken):
        await house.clean.email_change.restore(undo, OTHER_PASSWORD, client=HOME)


async def test_an_external_account_has_no_address_to_change(house: House) -> None:
    """Users of the application's own change their address there."""
    alice = await house.store.account("alice")
    assert alice is not None
    with pytest.raises(NotFound):
        await house.clean.email_change.ask(alice, NEW, client=HOME)
