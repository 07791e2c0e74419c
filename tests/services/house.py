"""A directory with an account and its mail, and stores under it that spoil or leave out a change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from msgspec.structs import replace
from tests.standins import HOME, PASSWORD, Broken, Mailbox, authority, directory

from dutchdoor.errors import DutchdoorError, NotAuthenticated, WrongCredentials
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.one_time_tokens import OneTimeSecret, OneTimeToken
from dutchdoor.services.accounts import Directory
from dutchdoor.services.browser import Browser
from dutchdoor.services.presenting import SignedIn
from dutchdoor.services.registration import proof_of
from dutchdoor.stores.base import Add, Log, Swap
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
        return await self.store.get(OneTimeToken, id_of(one_time)) is not None


def id_of(one_time: str) -> str:
    return OneTimeSecret.parse(one_time).id


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
