"""A one-time token works once, for one purpose, and dies with what it was for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace
from tests.services.house import ANN, JAR, THIRD_PASSWORD, House, Without, broken
from tests.standins import HOME, OTHER_PASSWORD, PASSWORD, Clock, Interleaved

from dutchdoor.errors import InvalidToken, Unavailable, WeakPassword
from dutchdoor.model.accounts import Account
from dutchdoor.model.policy import STANDARD
from dutchdoor.services.ongoing import Ongoing
from dutchdoor.stores.base import Discard, Swap, Take


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
    """C16: a link dies in time, by a newer one, by a new password or address, and when the account is disabled."""
    first = await house.reset_token()
    second = await house.reset_token()
    with pytest.raises(InvalidToken):
        await house.clean.recovery.reset_password(first, OTHER_PASSWORD, client=HOME)
    await house.clean.recovery.change_password(Ongoing(await house.ann(), None, HOME, "app"), PASSWORD, OTHER_PASSWORD)
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


async def test_a_link_that_is_not_taken_is_noticed(house: House) -> None:
    """I-17 can fail: over a store that takes nothing, a link works more than once."""
    house.store = Without(Without(house.store, Take), Discard)
    await broken(test_a_reset_link_works_once(house))
