"""An address is one account, of the person who proves its mailbox."""

from __future__ import annotations

import asyncio
import contextlib
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.services.house import ANN, JAR, THIRD_PASSWORD, House
from tests.standins import (
    HOME,
    OTHER_PASSWORD,
    PASSWORD,
    Clock,
    Gate,
    Interleaved,
    Mailbox,
    authority,
    directory,
    opened,
)

from dutchdoor.errors import AnotherBrowser, InvalidToken, RegistrationClosed, Taken, WeakPassword
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.policy import STANDARD, Policy
from dutchdoor.services.browser import Browser

# One account for one address

SPELLINGS = [
    "Jorg@Bücher.example", "jorg@bücher.example", "JORG@BÜCHER.EXAMPLE", " jorg@bücher.example ".strip(),
    "jorg@xn--bcher-kva.example", "JORG@XN--BCHER-KVA.example",
    *(unicodedata.normalize(form, "Jorg@Bücher.example") for form in ("NFC", "NFD", "NFKC", "NFKD")),
]  # fmt: skip


@pytest.mark.parametrize("verified", [False, True], ids=["open", "by mail"])
async def test_registrations_at_once_make_one_account(kind: str, tmp_path: Path, verified: bool) -> None:
    """I-18: fifty registrations of one address in all its spellings, at once, make one account with one password."""
    async with opened(kind, tmp_path, Clock(), replace(STANDARD, require_verified_email=verified)) as over:
        mailbox = Mailbox()
        racing = directory(authority(Interleaved(over.store, seed=9), over.clock, over.policy), mailbox)  # type: ignore[arg-type]
        results = await asyncio.gather(
            *(
                racing.registration.register(SPELLINGS[n % len(SPELLINGS)], f"{PASSWORD} {n}", "", client=HOME)
                for n in range(50)
            ),
            return_exceptions=True,
        )
        await racing.close()
        if verified:
            assert results == [None] * 50
        else:
            assert sum(isinstance(result, Account) for result in results) == 1
            assert all(result is None or isinstance(result, Account) for result in results), results
        accounts = [account for account in await over.store.accounts() if account.email]
        assert len(accounts) == 1
        counts = await over.store.counts()
        assert counts["credentials"] == (2 if verified else 1)
        created = await over.store.events(name="account_created", limit=100)
        assert [event.outcome for event in created].count("ok") == 1
        if verified:
            assert len(mailbox.mails) == 50, "the owner hears of each, and no one else learns anything"


# Whose it is

BY_MAIL = replace(STANDARD, require_verified_email=True)


@contextlib.asynccontextmanager
async def by_mail(kind: str, folder: Path, policy: Policy = BY_MAIL) -> AsyncIterator[House]:
    """A directory where a verified address is required, in which Mallory registered Ann's address."""
    async with opened(kind, folder, Clock(), policy) as over:
        mailbox = Mailbox()
        house = House(directory(over, mailbox), mailbox)
        await register(house, PASSWORD, "the jar of Mallory")
        try:
            yield house
        finally:
            for made in [*house.spoiled, house.clean]:
                await made.close()


async def register(house: House, password: str, browser: str = "", email: str = ANN) -> str:
    """Register an address, and give the token in the letter."""
    assert await house.clean.registration.register(email, password, "", client=HOME, browser=browser) is None
    await asyncio.gather(*house.clean.post._posting)
    return house.mailbox.token()


async def test_a03_a_link_opened_elsewhere_asks_for_a_password(kind: str, tmp_path: Path) -> None:
    """A stranger's password is worth nothing after the owner opened the link: the owner's own is."""
    async with by_mail(kind, tmp_path) as house:
        token = house.mailbox.token()
        for browser in ("", "the jar of Ann", JAR):
            with pytest.raises(AnotherBrowser):
                await house.clean.recovery.verify_email(token, client=HOME, browser=browser)
        with pytest.raises(WeakPassword) as weak:
            await house.clean.recovery.reset_password(token, "password", client=HOME, purpose="verify_email")
        assert weak.value.field == "password"
        await house.clean.recovery.reset_password(token, OTHER_PASSWORD, client=HOME, purpose="verify_email")
        assert await house.opens(OTHER_PASSWORD)
        assert not await house.opens(PASSWORD)
        for again in (
            house.clean.recovery.verify_email(token, client=HOME, browser="the jar of Mallory"),
            house.clean.recovery.reset_password(token, PASSWORD, client=HOME, purpose="verify_email"),
        ):
            with pytest.raises(InvalidToken):
                await again
        assert len(house.mailbox.mails) == 1, "an address that was not verified gets its verification and nothing else"


async def test_a03_the_browser_that_registered_needs_no_password(kind: str, tmp_path: Path) -> None:
    """The link verifies at once where the address was registered, also when it was registered there twice."""
    async with by_mail(kind, tmp_path) as house:
        first = house.mailbox.token()
        second = await register(house, OTHER_PASSWORD, "the jar of Mallory")
        assert (
            await house.clean.recovery.verify_email(first, client=HOME, browser="the jar of Mallory")
        ).email_verified_at
        assert await house.opens(PASSWORD)
        with pytest.raises(InvalidToken):
            await house.clean.recovery.verify_email(second, client=HOME, browser="the jar of Mallory")


async def test_a03_a_stranger_cannot_hold_the_link_of_the_owner_back(kind: str, tmp_path: Path) -> None:
    """Registering an address again kills no link that is on its way, and changes no password."""
    async with by_mail(kind, tmp_path) as house:
        mine = await register(house, OTHER_PASSWORD, "the jar of Ann")
        await register(house, THIRD_PASSWORD, "the jar of Mallory")
        await house.clean.recovery.reset_password(mine, OTHER_PASSWORD, client=HOME, purpose="verify_email")
        assert await house.opens(OTHER_PASSWORD)
        with pytest.raises(InvalidToken):
            await house.clean.recovery.verify_email(house.mailbox.token(), client=HOME, browser="the jar of Mallory")


async def test_a03_of_two_links_at_once_one_counts(kind: str, tmp_path: Path) -> None:
    """Two links, opened at once here and elsewhere, verify once; the password is that of the one that won."""
    for seed in range(6):
        (tmp_path / str(seed)).mkdir()
        async with by_mail(kind, tmp_path / str(seed)) as house:
            first = house.mailbox.token()
            second = await register(house, THIRD_PASSWORD)
            racing = house.over(Interleaved(house.store, seed=seed))
            results = await asyncio.gather(
                racing.recovery.verify_email(first, client=HOME, browser="the jar of Mallory"),
                racing.recovery.reset_password(second, OTHER_PASSWORD, client=HOME, purpose="verify_email"),
                return_exceptions=True,
            )
            assert sum(isinstance(result, InvalidToken) for result in results) == 1, results
            assert await house.events("email_verified") == 1
            assert await house.opens(PASSWORD if isinstance(results[1], InvalidToken) else OTHER_PASSWORD)
            assert (await house.ann()).email_verified_at is not None


async def test_a03_an_account_in_use_is_given_to_the_owner_of_its_mailbox(house: House) -> None:
    """Where no verified address is required, the mailed link revokes what a stranger began with the address."""
    sign_ins = [await house.sign_in(mode=mode) for mode in ("session", "hybrid", "jwt")]
    token = await register(house, OTHER_PASSWORD)
    assert [mail.to for mail in house.mailbox.mails] == [ANN]
    assert all([await house.alive(one) for one in sign_ins]), "nothing changes before the mailbox is proved"
    with pytest.raises(AnotherBrowser):
        await house.clean.recovery.verify_email(token, client=HOME, browser="any")
    await house.clean.recovery.reset_password(token, OTHER_PASSWORD, client=HOME, purpose="verify_email")
    assert not any([await house.alive(one) for one in sign_ins])
    assert not await house.opens(PASSWORD)
    assert await house.opens(OTHER_PASSWORD)
    with pytest.raises(Taken):
        await house.clean.registration.register(ANN, THIRD_PASSWORD, "", client=HOME)


async def test_a03_a_reset_proves_the_mailbox(kind: str, tmp_path: Path) -> None:
    """A reset of an account that was never verified verifies it, and every link and password from before is dead."""
    async with by_mail(kind, tmp_path) as house:
        verify = house.mailbox.token()
        await house.clean.recovery.reset_password(await house.reset_token(), OTHER_PASSWORD, client=HOME)
        account = await house.ann()
        assert account.email_verified_at is not None
        assert not await house.registered()
        assert await house.opens(OTHER_PASSWORD)
        assert not await house.opens(PASSWORD)
        with pytest.raises(InvalidToken):
            await house.clean.recovery.verify_email(verify, client=HOME, browser="the jar of Mallory")
        assert isinstance(house.clock, Clock)
        house.clock.forward(BY_MAIL.unverified_for + 1)
        assert await house.clean.registration.tidy() == 0


async def test_a03_an_address_that_is_not_verified_in_time_is_forgotten(kind: str, tmp_path: Path) -> None:
    """A registration expires and its address is free; verified, disabled, privileged and imported accounts stay."""
    async with by_mail(kind, tmp_path) as house:
        clean, clock = house.clean, house.clock
        assert isinstance(clock, Clock)
        for name in ("verified", "disabled", "privileged", "imported"):
            email = f"{name}@example.com"
            if name == "imported":
                await clean.admin.adopt(email, None, client=HOME)
                continue
            token = await register(house, PASSWORD, JAR, email)
            account = await house.store.account_by_email(email)
            assert account is not None
            if name == "verified":
                await clean.recovery.verify_email(token, client=HOME, browser=JAR)
            elif name == "disabled":
                await clean.admin.disable(account.subject, client=HOME, actor="cli")
            else:
                await clean.admin.set_roles(account.subject, ["editor"], client=HOME, actor="cli")
        clock.forward(BY_MAIL.unverified_for - 1)
        assert await clean.registration.tidy() == 0
        late = await register(house, OTHER_PASSWORD, email="late@example.com")
        clock.forward(2)
        subject = (await house.ann()).subject
        assert await clean.registration.tidy() == 1
        assert await house.store.account_by_email(ANN) is None
        assert await house.store.get(Credential, subject, "password", "") is None
        assert await clean.registration.tidy() == 0
        left = {account.email for account in await house.store.accounts() if account.email}
        assert left == {f"{name}@example.com" for name in ("verified", "disabled", "privileged", "imported", "late")}
        assert await house.events("account_expired") == 1
        with pytest.raises(AnotherBrowser):
            await clean.recovery.verify_email(late, client=HOME, browser="")
        await register(house, THIRD_PASSWORD, JAR)
        assert (await house.ann()).subject != subject


async def test_a03_an_account_that_is_verified_meanwhile_does_not_expire(kind: str, tmp_path: Path) -> None:
    """Whichever comes first, the link or the end of the week: an address that was proved keeps its account."""
    async with by_mail(kind, tmp_path) as house:
        assert isinstance(house.clock, Clock)
        house.clock.forward(BY_MAIL.unverified_for - 60)
        token = await register(house, OTHER_PASSWORD)
        house.clock.forward(120)
        gate = Gate(house.store, "commit")
        tidying = asyncio.create_task(house.over(gate).registration.tidy())
        await gate.reached.wait()
        await house.clean.recovery.reset_password(token, OTHER_PASSWORD, client=HOME, purpose="verify_email")
        gate.open.set()
        assert await tidying == 0
        assert await house.opens(OTHER_PASSWORD)


async def test_a03_administrators_and_imports_take_an_address_that_was_never_verified(house: House) -> None:
    """What an administrator, a command or an import makes displaces a registration, and no account that is used."""
    for taking in ("create", "invite", "adopt"):
        email = f"{taking}@example.com"
        registration = await house.clean.registration.add(email, "", None, client=HOME, registration="")
        assert not await house.clean.admin.is_taken(email)
        match taking:
            case "create":
                made = await house.clean.admin.create(email, password=OTHER_PASSWORD, client=HOME, actor="cli")
            case "invite":
                made = await house.clean.admin.create(email, client=HOME, actor="root")
            case _:
                made = await house.clean.admin.adopt(email, None, client=HOME)
        found = await house.store.account_by_email(email)
        assert found is not None
        assert found.subject == made.subject != registration.subject
        assert await house.clean.admin.is_taken(email) is True
        with pytest.raises(Taken):
            await house.clean.admin.create(email, password=OTHER_PASSWORD, client=HOME, actor="cli")
    with pytest.raises(Taken):
        await house.clean.admin.create(ANN, password=OTHER_PASSWORD, client=HOME, actor="cli")


async def test_a03_a_refused_address_that_was_never_verified_is_named(house: House) -> None:
    """Where accounts are used without a verified address, one that a stranger may have registered is not displaced. The
    administrator reads that its address was never verified and what to do, which gives it to the owner of the mailbox;
    a person who registers reads nothing of it.
    """
    for actor in ("cli", "root"):
        with pytest.raises(Taken, match=r"never verified.*dutchdoor user reset"):
            await house.clean.admin.create(ANN, client=HOME, actor=actor)
    assert await house.clean.registration.register(ANN, OTHER_PASSWORD, "", client=HOME) is None
    await house.clean.recovery.reset_password(await house.reset_token(), OTHER_PASSWORD, client=HOME)
    assert not await house.opens(PASSWORD)
    for attempt in (
        house.clean.admin.create(ANN, client=HOME, actor="cli"),
        house.clean.registration.register(ANN, PASSWORD, "", client=HOME),
    ):
        with pytest.raises(Taken) as refused:
            await attempt
        assert "verified" not in str(refused.value)


@pytest.mark.parametrize("registration", ["open", "invite", "closed"])
async def test_a06_who_may_make_an_account(kind: str, tmp_path: Path, registration: Any) -> None:
    """Registration is open, or administrators invite, or commands make accounts alone; the first link always works."""
    async with opened(kind, tmp_path, Clock(), replace(STANDARD, registration=registration)) as over:
        mailbox = Mailbox()
        clean = directory(over, mailbox)
        setup = await clean.admin.offer_setup()
        assert setup is not None
        assert await clean.admin.set_up(setup.text(), "root@example.com", PASSWORD, "", client=HOME)
        with contextlib.nullcontext() if registration == "open" else pytest.raises(RegistrationClosed):
            await clean.registration.register(ANN, PASSWORD, "", client=HOME)
        with pytest.raises(RegistrationClosed) if registration == "closed" else contextlib.nullcontext():
            await clean.admin.create("bob@example.com", client=HOME, actor="root")
            await clean.recovery.reset_password(mailbox.token(), OTHER_PASSWORD, client=HOME)
            await clean.sign_in.by_password("bob@example.com", OTHER_PASSWORD, Browser(HOME), mode="jwt")
        await clean.admin.create("cleo@example.com", password=PASSWORD, client=HOME, actor="cli")
        await clean.close()


async def test_a03_no_account_expires_where_people_use_it_unverified(kind: str, tmp_path: Path) -> None:
    """An account that waits for its address is kept once the policy asks for no verified address any more."""
    async with by_mail(kind, tmp_path) as house:
        await register(house, PASSWORD)
        house.clean.registration.policy = house.clean.sign_in.policy = STANDARD
        assert isinstance(house.clock, Clock)
        house.clock.forward(STANDARD.unverified_for + 1)
        assert await house.clean.registration.tidy() == 0
        assert await house.opens(PASSWORD)


async def test_a06_an_invitation_lives_for_days(house: House) -> None:
    """The owner of an invited account has a week to choose its password, by a link that works once."""
    await house.clean.admin.create("bob@example.com", client=HOME, actor="root")
    assert "within 7 days" in house.mailbox.mails[-1].text
    token = house.mailbox.token()
    assert isinstance(house.clock, Clock)
    house.clock.forward(STANDARD.unverified_for - 1)
    await house.clean.recovery.reset_password(token, OTHER_PASSWORD, client=HOME)
    with pytest.raises(InvalidToken):
        await house.clean.recovery.reset_password(token, PASSWORD, client=HOME)
