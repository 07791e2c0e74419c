"""Accounts and passwords: a change is one transaction, a one-time token works once, an address is one account."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import unicodedata
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.standins import (
    HOME,
    OTHER_PASSWORD,
    PASSWORD,
    THIEF,
    Broken,
    Clock,
    Gate,
    Interleaved,
    Mailbox,
    Watched,
    authority,
    directory,
    endless,
    opened,
)

from dutchdoor.errors import (
    AnotherBrowser,
    DutchdoorError,
    InvalidInput,
    InvalidToken,
    LastAdministrator,
    NotAuthenticated,
    NotFound,
    RateLimited,
    RegistrationClosed,
    Taken,
    Unavailable,
    WeakPassword,
    WrongCredentials,
)
from dutchdoor.mail import Mail
from dutchdoor.mail.letters import Letters
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.http_client import Device
from dutchdoor.model.one_time_tokens import OneTimeSecret, OneTimeToken
from dutchdoor.model.policy import STANDARD, Policy
from dutchdoor.model.rate_limits import DEFAULT_LIMITS, Limits
from dutchdoor.services.accounts import Directory
from dutchdoor.services.browser import Browser
from dutchdoor.services.ongoing import Ongoing
from dutchdoor.services.presenting import SignedIn
from dutchdoor.services.registration import proof_of
from dutchdoor.stores.base import Add, Discard, EndAll, Log, Remove, Revoke, Swap, Take
from dutchdoor.testing.conformance import the_log

ANN = "ann@example.com"
JAR = "the-cookie-of-the-browser-that-registered"
THIRD_PASSWORD = "and yet another sentence 11"


class House:
    """A directory with an account, its mail, and the store under it, which a test may exchange for a broken one."""

    def __init__(self, clean: Directory, mailbox: Mailbox) -> None:
        self.clean, self.mailbox = clean, mailbox
        self.store, self.clock = clean.store, clean.clock
        self.spoiled: list[Directory] = []

    def over(self, store: Any, **more: Any) -> Directory:
        made = directory(authority(store, self.clock, self.clean.policy), self.mailbox, **more)  # type: ignore[arg-type]
        self.spoiled.append(made)
        return made

    async def ann(self) -> Account:
        account = await self.store.account_by_email(ANN)
        assert account is not None
        return account

    async def verify(self) -> None:
        """Have Ann's address verified."""
        await self.store.commit(Swap(replace(await self.ann(), email_verified_at=self.clock())))

    async def posted(self) -> None:
        """Wait for the mail that is on its way."""
        while on_its_way := [task for each in (self.clean, *self.spoiled) for task in each.post._posting]:
            await asyncio.wait(on_its_way)

    async def sign_in(
        self, password: str = PASSWORD, mode: Any = "session", through: Directory | None = None
    ) -> SignedIn:
        return (await (through or self.clean).sign_in.by_password(ANN, password, Browser(HOME), mode=mode))[0]

    async def opens(self, password: str) -> bool:
        """Whether a password is Ann's."""
        try:
            await self.clean.sign_in.by_password(ANN, password, Browser(HOME), mode="jwt")
        except WrongCredentials:
            return False
        return True

    async def alive(self, signed_in: SignedIn) -> bool:
        over = self.clean.authority
        try:
            if signed_in.session_token:
                await over.resume(signed_in.session_token)
            if signed_in.refresh_token:
                await over.refresh(signed_in.refresh_token, HOME)
            if signed_in.access_token:
                await over.verify(signed_in.access_token)
        except NotAuthenticated:
            return False
        return True

    async def reset_token(self) -> str:
        await self.clean.recovery.send_reset(await self.ann(), client=HOME)
        return self.mailbox.token()

    async def verification(self) -> str:
        """Mail a link that verifies Ann's address, whose account the browser `JAR` registered."""
        ann = await self.ann()
        if not await self.registered():
            proof = proof_of(JAR)
            made = Credential(
                subject=ann.subject, method="registration", handle="", proof=proof, created_at=self.clock()
            )
            await self.store.commit(Add(made))
        await self.clean.registration.send_verification(ann, HOME)
        return self.mailbox.token()

    async def registered(self) -> bool:
        """Whether Ann's account still waits for its address to be verified."""
        return await self.store.get(Credential, (await self.ann()).subject, "registration", "") is not None

    async def events(self, name: str) -> int:
        return len(await self.store.events(name=name, limit=1000))

    async def entries(self) -> int:
        return len(await the_log(self.store))

    async def holds(self, one_time: str) -> bool:
        """Whether a one-time token is still there."""
        return await self.store.get(OneTimeToken, _id_of(one_time)) is not None


def _id_of(one_time: str) -> str:
    return OneTimeSecret.parse(one_time).id


@pytest.fixture(params=[pytest.param("memory", marks=pytest.mark.long), "sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def house(kind: str, tmp_path: Path) -> AsyncIterator[House]:
    async with opened(kind, tmp_path, Clock()) as over:
        mailbox = Mailbox()
        house = House(directory(over, mailbox), mailbox)
        await house.clean.registration.register(ANN, PASSWORD, "Ann", client=HOME)
        yield house
        for made in [*house.spoiled, house.clean]:
            await made.close()


# All or none

Facts = Callable[[], Awaitable[list[bool]]]
Act = Callable[[Directory], Awaitable[Any]]
Operation = Callable[[House], Awaitable[tuple[Act, Facts]]]


async def registering(house: House) -> tuple[Act, Facts]:
    async def act(through: Directory) -> None:
        await through.registration.register("bob@example.com", PASSWORD, "Bob", client=HOME)

    async def facts() -> list[bool]:
        bob = await house.store.account_by_email("bob@example.com")
        credential = await house.store.get(Credential, bob.subject, "password", "") if bob else None
        return [bob is not None, credential is not None, await house.events("account_created") == 2]

    return act, facts


async def changing_the_password(house: House) -> tuple[Act, Facts]:
    mine, other, hybrid = await house.sign_in(), await house.sign_in(), await house.sign_in(mode="hybrid")
    reset = await house.reset_token()
    account, before = await house.ann(), await house.entries()
    assert mine.session is not None
    found = await house.store.session(mine.session.id)
    assert found is not None

    async def act(through: Directory) -> None:
        await through.recovery.change_password(
            account, found[0], PASSWORD, OTHER_PASSWORD, client=HOME, client_id="app"
        )

    async def facts() -> list[bool]:
        return [
            await house.opens(OTHER_PASSWORD),
            not await house.opens(PASSWORD),
            not await house.alive(mine),
            not await house.alive(other),
            not await house.alive(hybrid),
            (await house.ann()).epoch == account.epoch + 1,
            await house.entries() == before + 1,
            await house.events("password_changed") == 1,
            not await house.holds(reset),
        ]

    return act, facts


async def resetting_the_password(house: House) -> tuple[Act, Facts]:
    one, hybrid = await house.sign_in(), await house.sign_in(mode="hybrid")
    token = await house.reset_token()
    account, before = await house.ann(), await house.entries()

    async def act(through: Directory) -> None:
        await through.recovery.reset_password(token, OTHER_PASSWORD, client=HOME)

    async def facts() -> list[bool]:
        return [
            await house.opens(OTHER_PASSWORD),
            not await house.opens(PASSWORD),
            not await house.alive(one),
            not await house.alive(hybrid),
            not await house.holds(token),
            (await house.ann()).epoch == account.epoch + 1,
            await house.entries() == before + 1,
            await house.events("password_reset") == 1,
        ]

    return act, facts


async def verifying_the_address(house: House) -> tuple[Act, Facts]:
    other, token = await house.verification(), await house.verification()

    async def act(through: Directory) -> None:
        await through.recovery.verify_email(token, client=HOME, browser=JAR)

    async def facts() -> list[bool]:
        return [
            (await house.ann()).email_verified_at is not None,
            not await house.holds(token),
            not await house.holds(other),
            not await house.registered(),
            await house.events("email_verified") == 1,
        ]

    return act, facts


async def proving_the_mailbox_elsewhere(house: House) -> tuple[Act, Facts]:
    one, hybrid, stateless = await house.sign_in(), await house.sign_in(mode="hybrid"), await house.sign_in(mode="jwt")
    other, token = await house.verification(), await house.verification()
    account, before = await house.ann(), await house.entries()

    async def act(through: Directory) -> None:
        await through.recovery.reset_password(token, OTHER_PASSWORD, client=HOME, purpose="verify_email")

    async def facts() -> list[bool]:
        return [
            (await house.ann()).email_verified_at is not None,
            await house.opens(OTHER_PASSWORD),
            not await house.opens(PASSWORD),
            not await house.alive(one),
            not await house.alive(hybrid),
            not await house.alive(stateless),
            not await house.holds(token),
            not await house.holds(other),
            not await house.registered(),
            (await house.ann()).epoch == account.epoch + 1,
            await house.entries() == before + 1,
            await house.events("email_verified") == 1,
        ]

    return act, facts


async def disabling(house: House) -> tuple[Act, Facts]:
    one, stateless = await house.sign_in(), await house.sign_in(mode="jwt")
    account, before = await house.ann(), await house.entries()

    async def act(through: Directory) -> None:
        await through.admin.disable(account.subject, client=HOME, actor="cli")

    async def facts() -> list[bool]:
        return [
            not (await house.ann()).active,
            not await house.alive(one),
            not await house.alive(stateless),
            not await house.opens(PASSWORD),
            await house.entries() == before + 1,
            await house.events("account_disabled") == 1,
        ]

    return act, facts


async def enabling(house: House) -> tuple[Act, Facts]:
    account = await house.ann()
    await house.clean.admin.disable(account.subject, client=HOME, actor="cli")

    async def act(through: Directory) -> None:
        await through.admin.enable(account.subject, client=HOME, actor="cli")

    async def facts() -> list[bool]:
        return [(await house.ann()).active, await house.opens(PASSWORD), await house.events("account_enabled") == 1]

    return act, facts


async def giving_roles(house: House) -> tuple[Act, Facts]:
    stateless = await house.sign_in(mode="jwt")
    account, before = await house.ann(), await house.entries()

    async def act(through: Directory) -> None:
        await through.admin.set_roles(account.subject, ["admin"], client=HOME, actor="cli")

    async def facts() -> list[bool]:
        return [
            (await house.ann()).roles == ("admin",),
            not await house.alive(stateless),
            await house.entries() == before + 1,
            await house.events("roles_changed") == 1,
        ]

    return act, facts


async def asking_for_a_reset(house: House) -> tuple[Act, Facts]:
    before = await house.reset_token()
    account = await house.ann()
    mails = len(house.mailbox.mails)

    async def act(through: Directory) -> None:
        await through.recovery.send_reset(account, client=HOME)

    async def facts() -> list[bool]:
        counts = await house.store.counts()
        assert counts["one_time_tokens"] == 1
        assert len(house.mailbox.mails) <= mails + 1
        return [not await house.holds(before), await house.events("password_reset_requested") == 2]

    return act, facts


OPERATIONS: list[Operation] = [
    registering, changing_the_password, resetting_the_password, verifying_the_address, proving_the_mailbox_elsewhere,
    disabling, enabling,
    giving_roles, asking_for_a_reset,
]  # fmt: skip


class Spoiled(Broken):
    """Puts a change that no store can apply among the others, and counts them."""

    changes = 0

    async def commit(self, *changes: Any) -> Any:
        if self.failed:
            return await self.inner.commit(*changes)
        self.changes, self.failed = len(changes), True
        bad: Any = Log(None)  # type: ignore[arg-type]
        await self.inner.commit(*changes[: self.at], bad, *changes[self.at :])
        raise AssertionError("a store wrote an event that is none")


async def all_or_none(facts: Facts) -> bool:
    """Whether everything happened; that some of it did fails the test."""
    found = await facts()
    assert len(set(found)) == 1, found
    return found[0]


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_failure_in_the_middle_undoes_all(house: House, operation: Operation) -> None:
    """I-10: whichever step of a change fails, nothing of it happened; and then it can be done."""
    act, facts = await operation(house)
    assert not await all_or_none(facts)
    at = steps = 0
    while at <= steps:
        spoiled = Spoiled(house.store, at=at, how="change")
        with pytest.raises(Exception) as caught:  # noqa: PT011 - of whatever kind, it is not a success
            await act(house.over(spoiled))
        assert not isinstance(caught.value, AssertionError), caught.value
        assert spoiled.failed
        assert not await all_or_none(facts), f"step {at} of {spoiled.changes}"
        steps = spoiled.changes
        at += 1
    assert steps >= 2
    await act(house.clean)
    assert await all_or_none(facts)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("how", "happens"), [("lost", False), ("unknown", True)])
async def test_an_outage_is_all_or_none(house: House, operation: Operation, how: str, happens: bool) -> None:
    """I-10: an outage before or after the commit is reported as one, and everything happened or nothing did."""
    act, facts = await operation(house)
    with pytest.raises(Unavailable):
        await act(house.over(Broken(house.store, at=0, how=how)))
    assert await all_or_none(facts) is happens


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o not in {registering, asking_for_a_reset}])
async def test_a_lost_race_is_decided_again(house: House, operation: Operation) -> None:
    """I-10: a change that lost a race is made again from what is there now, and happens once."""
    act, facts = await operation(house)
    await act(house.over(Broken(house.store, at=0, how="conflict")))
    assert await all_or_none(facts)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_cancelled_request_is_all_or_none(house: House, operation: Operation) -> None:
    """I-25, I-10: a caller that hangs up while its change is committed leaves all of it or nothing."""
    act, facts = await operation(house)
    for after in (False, True):
        gate = Gate(house.store, "commit", after=after)
        acting = asyncio.create_task(act(house.over(gate)))
        await gate.reached.wait()
        acting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await acting
        assert await all_or_none(facts) is after


async def test_setting_up_is_all_or_none(kind: str, tmp_path: Path) -> None:
    """I-10, C12: the first administrator and the end of every link that makes one are one change."""
    clock = Clock()
    async with opened(kind, tmp_path, clock) as over:
        store = over.store
        alice = await store.account("alice")
        assert alice is not None
        await store.commit(Remove(alice))
        clean = directory(over)
        first = await clean.admin.offer_setup()
        secret = await clean.admin.offer_setup()
        assert first is not None
        assert secret is not None
        at = steps = 0
        while at <= steps:
            spoiled = Spoiled(store, at=at, how="change")
            with pytest.raises(Exception) as caught:  # noqa: PT011
                await directory(authority(spoiled, clock)).admin.set_up(
                    secret.text(), ANN, PASSWORD, "Ann", client=HOME
                )  # type: ignore[arg-type]
            assert not isinstance(caught.value, AssertionError)
            assert await store.get(OneTimeToken, secret.id) is not None
            assert await store.accounts() == []
            steps = spoiled.changes
            at += 1
        # Fifty people with the links of two nodes make one administrator.
        racing = directory(authority(Interleaved(store, seed=5), clock))  # type: ignore[arg-type]
        results = await asyncio.gather(
            *(
                racing.admin.set_up((first, secret)[n % 2].text(), f"p{n}@example.com", PASSWORD, "", client=HOME)
                for n in range(50)
            ),
            return_exceptions=True,
        )
        assert sum(isinstance(result, Account) for result in results) == 1
        assert all(isinstance(result, Account | InvalidToken | Taken) for result in results), results
        (admin,) = await store.accounts()
        assert admin.roles == ("admin",)
        assert await store.get(OneTimeToken, first.id) is await store.get(OneTimeToken, secret.id) is None
        assert await clean.admin.offer_setup() is None


# One-time tokens


async def test_a_reset_link_works_once(house: House) -> None:
    """I-17, C16: fifty uses of one reset link at once set one password; the rest is refused."""
    token = await house.reset_token()
    racing = house.over(Interleaved(house.store, seed=1))
    results = await asyncio.gather(
        *(racing.recovery.reset_password(token, f"{OTHER_PASSWORD} {n}", client=HOME) for n in range(50)),
        return_exceptions=True,
    )
    won = [n for n, result in enumerate(results) if not isinstance(result, BaseException)]
    assert len(won) == 1
    # A busy machine's disk may keep one waiting for too long.
    refused = [result for n, result in enumerate(results) if n not in won]
    assert all(isinstance(result, InvalidToken | Unavailable) for result in refused), results
    assert await house.opens(f"{OTHER_PASSWORD} {won[0]}")
    assert await house.events("password_reset") == 1


async def test_a_verification_link_works_once(house: House) -> None:
    """I-17: fifty uses of one verification link at once verify once."""
    token = await house.verification()
    racing = house.over(Interleaved(house.store, seed=2))
    results = await asyncio.gather(
        *(racing.recovery.verify_email(token, client=HOME, browser=JAR) for _ in range(50)), return_exceptions=True
    )
    assert sum(isinstance(result, Account) for result in results) == 1
    assert all(isinstance(result, Account | InvalidToken) for result in results), results
    assert await house.events("email_verified") == 1


async def test_a_link_dies(house: House) -> None:
    """C16: a link dies in time, by a newer one, by a new password or address, and when the account is barred."""
    first = await house.reset_token()
    second = await house.reset_token()
    with pytest.raises(InvalidToken):
        await house.clean.recovery.reset_password(first, OTHER_PASSWORD, client=HOME)
    await house.clean.recovery.change_password(
        await house.ann(), None, PASSWORD, OTHER_PASSWORD, client=HOME, client_id="app"
    )
    with pytest.raises(InvalidToken):
        await house.clean.recovery.reset_password(second, THIRD_PASSWORD, client=HOME)
    third = await house.reset_token()
    assert isinstance(house.clock, Clock)
    house.clock.forward(STANDARD.reset_for)
    with pytest.raises(InvalidToken):
        await house.clean.recovery.reset_password(third, THIRD_PASSWORD, client=HOME)
    fourth = await house.reset_token()
    await house.store.commit(Swap(replace(await house.ann(), email="new@example.com")))
    with pytest.raises(InvalidToken):
        await house.clean.recovery.reset_password(fourth, THIRD_PASSWORD, client=HOME)
    account = await house.store.account_by_email("new@example.com")
    assert account is not None
    await house.store.commit(Swap(replace(account, email=ANN)))
    fifth = await house.reset_token()
    await house.clean.admin.disable(account.subject, client=HOME, actor="cli")
    with pytest.raises(InvalidToken):
        await house.clean.recovery.reset_password(fifth, THIRD_PASSWORD, client=HOME)
    assert not await house.opens(THIRD_PASSWORD)


async def test_a_weak_password_does_not_use_the_link_up(house: House) -> None:
    """C16: a caller that chose too weak a password may use the same link again."""
    token = await house.reset_token()
    with pytest.raises(WeakPassword):
        await house.clean.recovery.reset_password(token, "short", client=HOME)
    await house.clean.recovery.reset_password(token, OTHER_PASSWORD, client=HOME)


async def test_every_artefact_has_one_purpose(house: House) -> None:
    """C20, I-17: what we hand out works where it is meant to and nowhere else; tried elsewhere, it is not spent."""
    over = house.clean.authority
    verify = await house.verification()
    artefacts = {
        "verify_email": verify,
        "resume": (await house.sign_in()).session_token,
        "refresh": (hybrid := await house.sign_in(mode="hybrid")).refresh_token,
        "verify": hybrid.access_token,
        "reset_password": await house.reset_token(),
    }
    uses: dict[str, Callable[[str], Awaitable[Any]]] = {
        "set_up": lambda text: house.clean.admin.set_up(text, "x@example.com", PASSWORD, "", client=HOME),
        "resume": over.resume,
        "refresh": lambda text: over.refresh(text, HOME),
        "verify": over.verify,
        "holder": over.holder,
        "bearer": over.bearer_of,
        "verify_email": lambda text: house.clean.recovery.verify_email(text, client=HOME, browser=JAR),
        "verify elsewhere": lambda text: house.clean.recovery.reset_password(
            text, OTHER_PASSWORD, client=HOME, purpose="verify_email"
        ),
        "reset_password": lambda text: house.clean.recovery.reset_password(text, OTHER_PASSWORD, client=HOME),
    }
    elsewhere = {("verify_email", "verify elsewhere")}
    meant = {("refresh", "holder"), ("resume", "bearer")} | {(name, name) for name in artefacts}
    for name, text in artefacts.items():
        for use, call in uses.items():
            if (name, use) not in meant | elsewhere:
                with pytest.raises(InvalidToken):
                    await call(text)
    for name, use in sorted(meant, key=lambda pair: pair[1] == "reset_password"):
        await uses[use](artefacts[name])


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
            assert len(mailbox.mails) == 50, "the owner is told of each, and nobody else learns anything"


# Races of sign-ins with changes of the password


@pytest.mark.parametrize("mode", ["session", "hybrid", "jwt"])
@pytest.mark.parametrize("change", ["change", "reset", "disable"])
@pytest.mark.parametrize("held", ["known", "commit"])
async def test_a_sign_in_that_overlaps_a_change_of_password(house: House, mode: str, change: str, held: str) -> None:
    """`proof_epoch`, O05: a sign-in with the old password that a change overtakes, anywhere, does not survive it."""
    token = await house.reset_token()
    gate = Gate(house.store, held, after=held != "commit")
    signing_in = asyncio.create_task(house.sign_in(mode=mode, through=house.over(gate)))
    await gate.reached.wait()
    account = await house.ann()
    if change == "change":
        await house.clean.recovery.change_password(
            account, None, PASSWORD, OTHER_PASSWORD, client=HOME, client_id="app"
        )
    elif change == "reset":
        await house.clean.recovery.reset_password(token, OTHER_PASSWORD, client=HOME)
    else:
        await house.clean.admin.disable(account.subject, client=HOME, actor="cli")
    gate.open.set()
    with pytest.raises(WrongCredentials):
        await signing_in
    assert await house.clean.authority.sessions(account.subject) == []


async def test_two_changes_of_the_password_at_once(house: House) -> None:
    """I-10: of two changes at once one happens; the other finds that the current password is not right any more."""
    account = await house.ann()
    one, other = await house.sign_in(), await house.sign_in()
    rows = []
    for signed_in in (one, other):
        assert signed_in.session is not None
        found = await house.store.session(signed_in.session.id)
        assert found is not None
        rows.append(found[0])
    racing = house.over(Interleaved(house.store, seed=4))
    results = await asyncio.gather(
        racing.recovery.change_password(account, rows[0], PASSWORD, OTHER_PASSWORD, client=HOME, client_id="app"),
        racing.recovery.change_password(account, rows[1], PASSWORD, THIRD_PASSWORD, client=HOME, client_id="app"),
        return_exceptions=True,
    )
    won = [result for result in results if not isinstance(result, BaseException)]
    assert len(won) == 1
    assert all(isinstance(result, tuple | NotAuthenticated) for result in results), results
    assert await house.opens(OTHER_PASSWORD) != await house.opens(THIRD_PASSWORD)
    assert await house.alive(won[0][0])
    assert len(await house.clean.authority.sessions(account.subject)) == 1


async def test_a_change_of_password_in_a_session_that_ends(house: House) -> None:
    """I-02: a change that a log-out of its own session overtakes does not happen and revives nothing."""
    mine = await house.sign_in()
    assert mine.session is not None
    found = await house.store.session(mine.session.id)
    assert found is not None
    gate = Gate(house.store, "commit")
    changing = asyncio.create_task(
        house.over(gate).recovery.change_password(
            await house.ann(), found[0], PASSWORD, OTHER_PASSWORD, client=HOME, client_id="app"
        )
    )
    await gate.reached.wait()
    await house.clean.authority.end(mine.session.id, client=HOME, actor="ann")
    gate.open.set()
    with pytest.raises(NotAuthenticated):
        await changing
    assert not await house.alive(mine)
    assert await house.opens(PASSWORD)


async def test_changing_the_password_needs_the_current_one(house: House) -> None:
    """C07: a wrong current password changes nothing, and is an event."""
    account, mine = await house.ann(), await house.sign_in()
    with pytest.raises(WrongCredentials):
        await house.clean.recovery.change_password(account, None, "wrong", OTHER_PASSWORD, client=HOME, client_id="app")
    with pytest.raises(WeakPassword):
        await house.clean.recovery.change_password(account, None, PASSWORD, "password", client=HOME, client_id="app")
    assert await house.opens(PASSWORD)
    assert await house.alive(mine)


async def test_a_step_up_is_a_new_session(house: House) -> None:
    """S02, I-19: after proving the password again there is a new id, and the old session is dead."""
    for mode in ("session", "hybrid"):
        before = await house.sign_in(mode=mode)
        assert before.session is not None
        assert await house.alive(before)
        assert isinstance(house.clock, Clock)
        house.clock.forward(5)
        found = await house.store.session(before.session.id)
        assert found is not None
        ongoing = Ongoing(await house.ann(), found[0], HOME, "app")
        with pytest.raises(WrongCredentials):
            await house.clean.step_up.reauthenticate(ongoing, "wrong")
        assert await house.alive(before)
        after = await house.clean.step_up.reauthenticate(ongoing, PASSWORD)
        assert after.session is not None
        assert after.session.id != before.session.id
        assert after.session.auth_time == house.clock()
        assert not await house.alive(before)
        assert await house.alive(after)


# Whose address it is


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


# Names


@pytest.mark.parametrize("name", ["x\0y", "x\x1b[2J", "x\u202ey", "x\ny", "x\x85", "x\u200by", "x\ud800", "x" * 201])
async def test_a05_a_name_is_one_line_of_text_by_every_way(house: House, name: str) -> None:
    """NUL, ESC, bidirectional controls and what is invisible are refused in a name, by whichever way it comes."""
    setup = await house.clean.admin.offer_setup()
    assert setup is not None
    for make in (
        house.clean.registration.register("bob@example.com", PASSWORD, name, client=HOME),
        house.clean.admin.create("bob@example.com", name=name, client=HOME, actor="root"),
        house.clean.admin.adopt("bob@example.com", None, name=name, client=HOME),
        house.clean.admin.set_up(setup.text(), "bob@example.com", PASSWORD, name, client=HOME),
    ):
        with pytest.raises(InvalidInput) as refused:
            await make
        assert refused.value.field == "name"
    assert await house.store.account_by_email("bob@example.com") is None
    assert not house.mailbox.mails


@pytest.mark.parametrize(
    "name", ["", "Ada L.", "\u0639\u0644\u06cc\u200c\u0631\u0636\u0627", "Zo\u00eb \U0001f469", " Ada "]
)
async def test_a05_names_of_people_pass(house: House, name: str) -> None:
    """Names in any script are kept as they are, joiners included, without spaces around."""
    made = await house.clean.admin.create("bob@example.com", name=name, client=HOME, actor="root")
    assert made.name == name.strip()


async def test_a05_what_a_client_says_of_itself_is_shown_in_plain_text(house: House) -> None:
    """A device reader or a client id cannot bring control characters into sessions and events."""
    odd = replace(HOME, devices=Device(name="Fire\x1b[2Jfox\u202e"), user_agent="x")
    signed_in, _ = await house.clean.sign_in.by_password(ANN, PASSWORD, Browser(odd), mode="hybrid")
    assert signed_in.session is not None
    assert signed_in.session.device == "Fire [2Jfox "
    with pytest.raises(InvalidToken):
        await house.clean.authority.refresh(signed_in.refresh_token, odd, client_id="x\x1b\u202ey")
    events = await house.store.events(limit=100)
    assert all((each.detail + each.device + each.client_id).isprintable() for each in events)
    assert "x  y" in {each.detail for each in events}


# What administrators do


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


async def test_a_proven_theft_is_reported_to_the_owner(house: House) -> None:
    """C18, I-07: when a copied refresh token is found out the owner gets one message, to the address of the account."""
    await house.verify()
    hybrid = await house.sign_in(mode="hybrid")
    assert isinstance(house.clock, Clock)
    house.clock.forward(900)
    await house.clean.authority.refresh(hybrid.refresh_token, HOME)
    house.clock.forward(900)
    for _ in range(3):
        with pytest.raises(InvalidToken):
            await house.clean.authority.refresh(hybrid.refresh_token, THIEF)
    await house.posted()
    assert [mail.to for mail in house.mailbox.mails] == [ANN]
    assert await house.events("refresh_theft") == 1


# What a mailbox gets


async def test_c21_notices_to_one_mailbox_are_few(house: House) -> None:
    """A thief who has the password provokes thefts and signs in from new places in a loop: of each kind of notice three
    go out at once, and then one in ten minutes. The notice of a changed password is not used up by the others.
    """
    through = house.over(house.store, limits=DEFAULT_LIMITS)
    await house.verify()
    assert isinstance(house.clock, Clock)
    copied = [(await through.sign_in.by_password(ANN, PASSWORD, Browser(HOME), mode="hybrid"))[0] for _ in range(12)]
    for n in range(8):
        await through.sign_in.by_password(
            ANN, PASSWORD, Browser(replace(HOME, address=f"203.0.113.{n}")), mode="session"
        )
    await house.posted()
    for renewed in range(2):
        house.clock.forward(900)
        for signed_in in copied:
            if not renewed:
                await through.authority.refresh(signed_in.refresh_token, HOME)
                continue
            with pytest.raises(InvalidToken):
                await through.authority.refresh(signed_in.refresh_token, THIEF)
    await through.recovery.change_password(
        await house.ann(), None, PASSWORD, OTHER_PASSWORD, client=HOME, client_id="app"
    )
    await house.posted()
    assert Counter(mail.subject.partition(" - ")[0] for mail in house.mailbox.mails) == {
        "New sign-in to your account": 3,
        "Someone else may have used your sign-in": 3,
        "Your password was changed": 1,
    }


async def test_c21_an_address_that_no_one_verified_gets_no_notice(house: House) -> None:
    """A stranger who registers another person's address cannot make the server write to it: no notice goes out to an
    address that was never verified, and the link of a reset verifies it.
    """
    signed_in = await house.sign_in(mode="hybrid")
    assert isinstance(house.clock, Clock)
    house.clock.forward(900)
    await house.clean.authority.refresh(signed_in.refresh_token, HOME)
    house.clock.forward(900)
    with pytest.raises(InvalidToken):
        await house.clean.authority.refresh(signed_in.refresh_token, THIEF)
    await house.clean.sign_in.by_password(ANN, PASSWORD, Browser(THIEF), mode="session")
    await house.clean.recovery.change_password(
        await house.ann(), None, PASSWORD, OTHER_PASSWORD, client=HOME, client_id="app"
    )
    await house.posted()
    assert house.mailbox.mails == []
    await house.clean.recovery.reset_password(await house.reset_token(), THIRD_PASSWORD, client=HOME)
    await house.posted()
    assert ["password was changed" in mail.subject for mail in house.mailbox.mails] == [False, True]


@pytest.mark.parametrize("verified", [False, True], ids=["open", "by mail"])
async def test_c21_tags_of_a_mailbox_share_its_letters(kind: str, tmp_path: Path, verified: bool) -> None:
    """Accounts for a hundred tags of one mailbox bring it no more letters than one: of registering and of resets three
    at once. The plain address, and a tag that its owner has verified, still get their reset.
    """
    async with opened(kind, tmp_path, Clock(), replace(STANDARD, require_verified_email=verified)) as over:
        mailbox = Mailbox()
        limits = replace(endless(Limits()), register_by_mailbox=DEFAULT_LIMITS.register_by_mailbox)
        limits = replace(limits, reset_by_mailbox=DEFAULT_LIMITS.reset_by_mailbox)
        house = House(directory(over, mailbox, limits=limits), mailbox)
        tags = [f"ann+{n}@example.com" for n in range(100)]
        for tag in tags:
            with contextlib.suppress(RateLimited):
                await house.clean.registration.register(tag, PASSWORD, "", client=HOME)
        await house.posted()
        assert len(mailbox.mails) == (3 if verified else 0)
        for tag in tags:
            await house.clean.recovery.forget_password(tag, client=HOME)
        await house.posted()
        assert len(mailbox.mails) == (6 if verified else 3)
        for address in (ANN, "ann+own@example.com"):
            await house.clean.admin.create(address, client=HOME, actor="cli", password=PASSWORD)
            await house.clean.recovery.forget_password(address, client=HOME)
            await house.posted()
            assert mailbox.mails[-1].to == address
        await house.clean.close()


# What tells whether there is an account


class Watching(Letters):
    """Writes letters, and keeps which and whether they were written in the thread of the loop."""

    def __init__(self) -> None:
        super().__init__(product="Example", public_url="https://login.example.com")
        self.written: list[tuple[str, bool]] = []

    def _write(self, letter: Any, to: str, language: str, link: str, **values: Any) -> Mail:
        self.written.append((letter.subject, threading.current_thread() is threading.main_thread()))
        return super()._write(letter, to, language, link, **values)


@pytest.mark.parametrize("what", ["forgot", "register"])
async def test_c10_the_work_after_an_answer_is_the_same(kind: str, tmp_path: Path, what: str) -> None:
    """After a reset was asked for, or an address was registered where addresses are verified, the store gets the same
    calls and one letter is written, whether there is an account or not; and never in the thread that answers others.
    """
    async with opened(kind, tmp_path, Clock(), replace(STANDARD, require_verified_email=True)) as over:
        watched = Watched(over.store)
        mailbox, letters = Mailbox(), Watching()
        house = House(directory(authority(watched, over.clock, over.policy), mailbox), mailbox)  # type: ignore[arg-type]
        house.clean.post.letters = letters
        await house.clean.admin.create("known@example.com", client=HOME, actor="cli", password=PASSWORD)
        gone = await house.clean.admin.create("disabled@example.com", client=HOME, actor="cli", password=PASSWORD)
        await house.clean.admin.disable(gone.subject, client=HOME, actor="cli")
        seen = []
        for email in ("known@example.com", "disabled@example.com", "nobody@example.com"):
            watched.calls.clear()
            letters.written.clear()
            if what == "forgot":
                await house.clean.recovery.forget_password(email, client=HOME)
            else:
                await house.clean.registration.register(email, OTHER_PASSWORD, "", client=HOME)
            await house.posted()
            seen.append(([call.partition(" ")[0] for call in watched.calls], [where for _, where in letters.written]))
        assert seen == seen[:1] * 3
        assert seen[0][1] == [False]
        assert "commit" in seen[0][0]
        await house.clean.close()
        if what == "forgot":
            assert [mail.to for mail in mailbox.mails] == ["known@example.com"]
            assert (await over.store.counts())["one_time_tokens"] == 2, "one of the account, and one of no account"


async def test_c10_every_letter_is_written_in_a_thread(house: House) -> None:
    """Notices too are written where nothing else waits for them."""
    letters = house.clean.post.letters = Watching()
    await house.verify()
    await house.sign_in()
    await house.clean.sign_in.by_password(ANN, PASSWORD, Browser(THIEF), mode="session")
    await house.clean.recovery.change_password(
        await house.ann(), None, PASSWORD, OTHER_PASSWORD, client=HOME, client_id="app"
    )
    await house.reset_token()
    await house.posted()
    subjects = ("Choose a new password", "New sign-in to your account", "Your password was changed")
    assert sorted(letters.written) == [(subject, False) for subject in subjects]


class Undeliverable:
    """A transport that cannot send."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def send(self, message: Mail) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            Unavailable("mail not sent: mail.test port 465: Connection refused"),
            "mail.test port 465: Connection refused",
        ),
        (AttributeError(f"no {ANN}"), "AttributeError at "),
    ],
)
async def test_p14_a_letter_that_was_not_sent_leaves_its_reason_in_the_log(
    house: House, caplog: pytest.LogCaptureFixture, error: Exception, said: str
) -> None:
    """A letter after an answer that cannot be sent is a line in the log with the transport's reason; a mistake of our
    own has its place there, and no text that may quote an address.
    """
    house.clean.post.transport = Undeliverable(error)
    await house.clean.recovery.forget_password(ANN, client=HOME)
    await asyncio.gather(*house.clean.post._posting)
    (line,) = caplog.messages
    assert line.startswith(f"mail was not sent: {said}")
    assert ("test_account_verbs.py:" in line) is isinstance(error, AttributeError)
    assert ANN not in line


# Broken once, to see these tests fail


class Piecemeal:
    """A store that commits change by change: no transaction at all."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def commit(self, *changes: Any) -> Any:
        done = None
        for change in changes:
            done = await self.inner.commit(change)
        return done


class Without:
    """A store that leaves out one kind of change."""

    def __init__(self, inner: Any, kind: type) -> None:
        self.inner, self.kind = inner, kind

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def commit(self, *changes: Any) -> Any:
        return await self.inner.commit(*(change for change in changes if not isinstance(change, self.kind)))


async def broken(test: Awaitable[None]) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception, DutchdoorError)):
        await test


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_half_a_change_is_noticed(house: House, operation: Operation) -> None:
    """I-10 can fail: over a store without transactions every operation is found half done."""
    house.store = Piecemeal(house.store)
    await broken(test_a_failure_in_the_middle_undoes_all(house, operation))


@pytest.mark.parametrize(
    ("operation", "kind_of_change"),
    [
        (changing_the_password, Revoke), (changing_the_password, EndAll), (changing_the_password, Discard),
        (changing_the_password, Log), (resetting_the_password, Revoke), (resetting_the_password, EndAll),
        (verifying_the_address, Discard), (verifying_the_address, Remove), (proving_the_mailbox_elsewhere, EndAll),
        (proving_the_mailbox_elsewhere, Revoke), (proving_the_mailbox_elsewhere, Remove),
        (disabling, Revoke), (giving_roles, Revoke), (giving_roles, Log),
    ],
)  # fmt: skip
async def test_a_forgotten_change_is_noticed(house: House, operation: Operation, kind_of_change: type) -> None:
    """I-10 can fail: an operation that forgets one part of itself is found out."""
    act, facts = await operation(house)

    async def forgetful() -> None:
        await act(house.over(Without(house.store, kind_of_change)))
        await all_or_none(facts)

    await broken(forgetful())


async def test_a_link_that_is_not_taken_is_noticed(house: House) -> None:
    """I-17 can fail: over a store that takes nothing, a link works more than once."""
    house.store = Without(Without(house.store, Take), Discard)
    await broken(test_a_reset_link_works_once(house))


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
