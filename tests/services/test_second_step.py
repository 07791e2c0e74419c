"""Signing in by two steps, with a second factor that is made up: one file (`factor.py`) and one line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from factor import Colour, enrolled
from msgspec.structs import replace
from standins import HOME, OTHER_PASSWORD, PASSWORD, Clock, Interleaved, Mailbox, Watched, authority, endless, opened

from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.errors import InvalidToken, NotAuthenticated, RateLimited, SignInUnfinished, WrongCredentials
from dutchdoor.mail.letters import Letters
from dutchdoor.model.accounts import Account
from dutchdoor.model.policy import STANDARD, Policy
from dutchdoor.model.rate_limits import DEFAULT_LIMITS, Limits
from dutchdoor.model.sign_in import PENDING_FOR
from dutchdoor.services.accounts import Directory
from dutchdoor.services.browser import Browser
from dutchdoor.services.ongoing import Ongoing
from dutchdoor.services.presenting import SignedIn
from dutchdoor.stores.base import Add, Store

ANN, BOB = "ann@example.com", "bob@example.com"


class House:
    """A directory that knows the second factor, with two accounts that have it."""

    def __init__(self, store: Store, clock: Clock, limits: Limits, policy: Policy = STANDARD) -> None:
        self.store, self.clock = store, clock
        self.over = authority(store, clock, policy)
        self.people = Directory(
            self.over,
            hasher=PasswordHasher(CHEAPEST),
            mail=Mailbox(),
            letters=Letters(product="Example", public_url="https://login.example.com"),
            limits=limits,
            methods=[Colour()],
        )

    async def account(self, email: str = ANN) -> Account:
        found = await self.store.account_by_email(email)
        assert found is not None
        return found

    async def populate(self) -> None:
        for email, colour in ((ANN, "red"), (BOB, "blue")):
            await self.people.registration.register(email, PASSWORD, "", client=HOME)
            await self.store.commit(Add(enrolled((await self.account(email)).subject, colour, self.clock())))

    async def first(self, email: str = ANN, mode: Any = "session") -> str:
        """Prove the password, and give the token of the pending sign-in."""
        with pytest.raises(SignInUnfinished) as unfinished:
            await self.people.sign_in.by_password(email, PASSWORD, Browser(HOME), mode=mode)
        assert unfinished.value.methods == ("colour",)
        return unfinished.value.token

    async def second(self, token: str, response: str, method: str = "colour") -> SignedIn:
        return (await self.people.sign_in.proceed(token, method, response, Browser(HOME)))[0]

    async def sessions(self, email: str = ANN) -> int:
        return len(await self.store.sessions_of((await self.account(email)).subject))


@pytest.fixture(params=[pytest.param("memory", marks=pytest.mark.long), "sqlite"])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    clock = Clock()
    async with opened(request.param, tmp_path, clock) as over:
        made = House(over.store, clock, endless(Limits()))
        await made.over.fencing.open()
        await made.populate()
        yield made
        await made.people.close()
        await made.over.fencing.close()


@pytest.mark.parametrize("mode", ["session", "hybrid", "jwt"])
async def test_c22_two_steps_make_a_session_that_says_so(house: House, mode: Any) -> None:
    """The password alone starts nothing, and the second factor does, in each mode: the session or the token names both
    proofs.
    """
    token = await house.first(mode=mode)
    assert await house.sessions() == 0
    signed_in = await house.second(token, "red 1")
    assert signed_in.mode == mode
    if mode == "session":
        principal = (await house.over.resume(signed_in.session_token)).principal
    else:
        principal = await house.over.verify(signed_in.access_token)
    assert (principal.amr, principal.auth_time) == (("pwd", "otp"), house.clock())
    assert await house.sessions() == (mode != "jwt")


async def test_c22_a_pending_sign_in_is_no_session(house: House) -> None:
    """The token of a pending sign-in resumes, refreshes, resets and verifies nothing."""
    token = await house.first()
    for use in (
        lambda: house.over.resume(token),
        lambda: house.over.refresh(token, HOME),
        lambda: house.over.verify(token),
        lambda: house.people.recovery.reset_password(token, OTHER_PASSWORD, client=HOME),
        lambda: house.people.recovery.verify_email(token, client=HOME, browser=""),
        lambda: house.people.admin.set_up(token, "x@example.com", PASSWORD, "", client=HOME),
    ):
        with pytest.raises(NotAuthenticated):
            await use()
    assert token not in repr(await house.store.counts())
    assert (await house.second(token, "red 1")).session is not None


async def test_c22_a_pending_sign_in_is_finished_once(house: House) -> None:
    """Its token and the response are worth nothing after they were used; the response not with another token either."""
    token, later = await house.first(), await house.first()
    await house.second(token, "red 1")
    for again in ("red 1", "red 2"):
        with pytest.raises(InvalidToken):
            await house.second(token, again)
    with pytest.raises(WrongCredentials):
        await house.second(later, "red 1")
    await house.second(later, "red 2")
    assert await house.sessions() == 2


async def test_c22_of_fifty_completions_at_once_one_succeeds(house: House) -> None:
    """One token and one response make one session, however many requests bring them at once; so does one response with
    many tokens.
    """
    racing = House(Interleaved(house.store, seed=7), house.clock, endless(Limits()))  # type: ignore[arg-type]
    await racing.over.fencing.open()
    token = await house.first()
    done = await asyncio.gather(*(racing.second(token, "red 1") for _ in range(50)), return_exceptions=True)
    assert sum(isinstance(each, SignedIn) for each in done) == await house.sessions() == 1
    assert {type(each) for each in done} <= {SignedIn, InvalidToken, WrongCredentials}
    tokens = [await house.first() for _ in range(8)]
    done = await asyncio.gather(*(racing.second(each, "red 2") for each in tokens), return_exceptions=True)
    assert sum(isinstance(each, SignedIn) for each in done) == 1
    assert await house.sessions() == 2
    await racing.over.fencing.close()


async def test_c22_a_pending_sign_in_is_of_one_account(house: House) -> None:
    """Another person's second factor does not finish a sign-in, and a token signs in the account of its password."""
    token = await house.first(ANN)
    with pytest.raises(WrongCredentials):
        await house.second(token, "blue 1")
    for method in ("password", "unknown", ""):
        with pytest.raises(WrongCredentials):
            await house.second(token, PASSWORD, method)
    assert await house.sessions(ANN) == await house.sessions(BOB) == 0
    assert (await house.second(token, "red 1")).account.email == ANN


async def test_c22_a_pending_sign_in_expires(house: House) -> None:
    """Ten minutes after the first proof the token is worth nothing, and its row goes."""
    token = await house.first()
    house.clock.forward(PENDING_FOR)
    with pytest.raises(InvalidToken):
        await house.second(token, "red 1")
    house.clock.forward(3600)
    await house.over.tidy()
    assert (await house.store.counts())["one_time_tokens"] == 0


@pytest.mark.parametrize("change", ["password", "roles", "disabled", "everything"])
async def test_c22_a_change_of_the_account_ends_a_pending_sign_in(house: House, change: str) -> None:
    """What revokes an account's sessions revokes a sign-in that waits: the first proof is of the account before."""
    token, account = await house.first(), await house.account()
    match change:
        case "password":
            await house.people.recovery.change_password(Ongoing(account, None, HOME, "app"), PASSWORD, OTHER_PASSWORD)
        case "roles":
            await house.people.admin.set_roles(account.subject, ["editor"], client=HOME, actor="cli")
        case "disabled":
            await house.people.admin.disable(account.subject, client=HOME, actor="cli")
        case _:
            await house.over.end_all(account.subject, client=HOME, actor="cli")
    with pytest.raises(InvalidToken):
        await house.second(token, "red 1")


async def test_c22_an_account_without_the_factor_signs_in_by_one_step(house: House) -> None:
    """A factor that is known here is asked of the accounts that have it, and of no other."""
    await house.people.registration.register("cleo@example.com", PASSWORD, "", client=HOME)
    signed_in, _ = await house.people.sign_in.by_password("cleo@example.com", PASSWORD, Browser(HOME), mode="session")
    assert signed_in.session is not None
    assert signed_in.session.amr == ("pwd",)


async def test_c22_guesses_at_a_second_factor_are_limited(house: House) -> None:
    """A thief who knows the password gets five guesses at the second factor, whatever number of sign-ins they begin;
    right passwords give none back, and the owner's other ways stay open.
    """
    strict = House(house.store, house.clock, replace(endless(Limits()), second_factor=DEFAULT_LIMITS.second_factor))
    await strict.over.fencing.open()
    for count in range(5):
        with pytest.raises(WrongCredentials):
            await strict.second(await strict.first(), f"green {count}")
    with pytest.raises(RateLimited):
        await strict.second(await strict.first(), "red 1")
    assert (await strict.second(await strict.first(BOB), "blue 1")).session is not None
    await strict.over.fencing.close()


async def test_c22_whether_an_account_has_a_factor_shows_after_the_first_proof_only(house: House) -> None:
    """A wrong password has the same answer and asks the store the same, with a second factor, without one, and for an
    unknown address.
    """
    await house.people.registration.register("cleo@example.com", PASSWORD, "", client=HOME)
    watched = Watched(house.store)
    asking = House(watched, house.clock, endless(Limits()))  # type: ignore[arg-type]
    await asking.over.fencing.open()
    seen = []
    for email in (ANN, "cleo@example.com", "unknown@example.com"):
        watched.calls.clear()
        with pytest.raises(WrongCredentials) as refused:
            await asking.people.sign_in.by_password(email, OTHER_PASSWORD, Browser(HOME), mode="session")
        seen.append((str(refused.value), list(watched.calls)))
    assert seen == seen[:1] * 3
    await asking.over.fencing.close()
