"""What tests of sessions and accounts stand on: an authority with a clock of ours, and stores that misbehave.

The stores are real ones behind a thin wrapper. What goes wrong goes wrong where it does in life: between two awaits, in
the middle of a transaction, or after the commit and before the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.errors import Conflict, Unavailable
from dutchdoor.mail import Mail
from dutchdoor.mail.letters import Letters
from dutchdoor.model.accounts import Account
from dutchdoor.model.http_client import Client, Device
from dutchdoor.model.master_key import MasterKey, MasterKeys
from dutchdoor.model.policy import STANDARD, Policy
from dutchdoor.model.principal import Verified
from dutchdoor.model.rate_limits import Limit, Limits
from dutchdoor.services.accounts import Directory
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Change, Revoked, Store
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.stores.sqlite import SqliteStore

T0 = 1_750_000_000.0
ISSUER = "https://login.example.com"
PASSWORD = "correct horse battery staple 7"
OTHER_PASSWORD = "an altogether different phrase 9"
MASTER = MasterKeys(MasterKey(bytes(range(100, 132))))

LINUX_FIREFOX = Device(name="Firefox on Linux", browser_family="Firefox", platform="Linux")
WINDOWS_CHROME = Device(name="Chrome on Windows", browser_family="Chrome", platform="Windows")
HOME = Client(address="192.0.2.7", country="NL", devices=LINUX_FIREFOX)
AWAY = replace(HOME, address="198.51.100.9", country="BR")
OTHER_BROWSER = replace(HOME, devices=WINDOWS_CHROME)
THIEF = replace(OTHER_BROWSER, address="203.0.113.66", country="BR")


class Clock:
    """Time that moves when a test moves it."""

    def __init__(self, now: float = T0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


class Mailbox:
    """Keeps what was sent."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []

    async def send(self, message: Mail) -> None:
        self.mails.append(message)

    def token(self) -> str:
        """The one-time token in the latest mail."""
        found = re.search(r"ddo1_[\w-]+", self.mails[-1].text)
        assert found is not None
        return found.group()


class Wrapped:
    """A store that does what another does. Subclasses spoil single calls."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def commit(self, *changes: Change) -> Revoked:
        return await self.inner.commit(*changes)


class Watched(Wrapped):
    """Keeps the names of the calls made, in order; of a commit, the kinds of its changes."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def watched(*args: Any, **named: Any) -> Any:
            self.calls.append(name)
            return await found(*args, **named)

        return watched

    async def commit(self, *changes: Change) -> Revoked:
        self.calls.append(" ".join(["commit", *(type(change).__name__ for change in changes)]))
        return await self.inner.commit(*changes)


class Interleaved(Wrapped):
    """Gives way to others before and after every call, at random: each await becomes a place to be overtaken."""

    def __init__(self, inner: Store, seed: int = 0, most: int = 4) -> None:
        super().__init__(inner)
        self.random, self.most = random.Random(seed), most

    async def _give_way(self) -> None:
        for _ in range(self.random.randint(0, self.most)):
            await asyncio.sleep(0)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def overtaken(*args: Any, **named: Any) -> Any:
            await self._give_way()
            result = await found(*args, **named)
            await self._give_way()
            return result

        return overtaken

    async def commit(self, *changes: Change) -> Revoked:
        await self._give_way()
        done = await self.inner.commit(*changes)
        await self._give_way()
        return done


class Gate(Wrapped):
    """Holds one call of one method, before it is made or after, until it is let go."""

    def __init__(
        self, inner: Store, method: str, *, after: bool = False, only: Callable[..., bool] | None = None
    ) -> None:
        super().__init__(inner)
        self.method, self.after, self.only = method, after, only
        self.reached, self.open = asyncio.Event(), asyncio.Event()

    async def _pass(self, call: Callable[..., Awaitable[Any]], args: Any, named: Any) -> Any:
        if self.reached.is_set() or (self.only is not None and not self.only(*args)):
            return await call(*args, **named)
        if self.after:
            result = await call(*args, **named)
            self.reached.set()
            await self.open.wait()
            return result
        self.reached.set()
        await self.open.wait()
        return await call(*args, **named)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name != self.method:
            return found

        async def held(*args: Any, **named: Any) -> Any:
            return await self._pass(found, args, named)

        return held

    async def commit(self, *changes: Change) -> Revoked:
        if self.method != "commit":
            return await self.inner.commit(*changes)
        done: Revoked = await self._pass(self.inner.commit, changes, {})
        return done


class Broken(Wrapped):
    """Fails one commit, once: in its n-th change, or with an error of your choice before or after it was applied."""

    def __init__(self, inner: Store, *, at: int, how: str, only: Callable[..., bool] | None = None) -> None:
        super().__init__(inner)
        self.at, self.how, self.only = at, how, only
        self.failed = False

    async def commit(self, *changes: Change) -> Revoked:
        if self.failed or (self.only is not None and not self.only(*changes)):
            return await self.inner.commit(*changes)
        self.failed = True
        match self.how:
            case "change":  # the store fails in the middle of its own work
                bad: Any = object()
                await self.inner.commit(*changes[: self.at], bad, *changes[self.at :])
                raise AssertionError("a store accepted what is no change")
            case "conflict":
                raise Conflict("injected")
            case "lost":
                raise Unavailable("injected: never arrived")
            case "unknown":  # it happened, and no caller got the answer
                await self.inner.commit(*changes)
                raise Unavailable("injected: the answer was lost")
        raise AssertionError(self.how)


def endless(limits: Limits) -> Limits:
    """The same limits by name, none of which is ever reached."""
    many = {
        name: Limit(name=name, count=10**9, per_seconds=1.0, burst=10**9) for name in type(limits).__struct_fields__
    }
    return replace(limits, **many)


def authority(store: Store, clock: Clock, policy: Policy = STANDARD, **more: Any) -> Authority:
    return Authority(store, master=MASTER, issuer=ISSUER, policy=policy, clock=clock, **more)


def directory(over: Authority, mailbox: Mailbox | None = None, *, limits: Limits | None = None) -> Directory:
    return Directory(
        over,
        hasher=PasswordHasher(CHEAPEST),
        mail=mailbox if mailbox is not None else Mailbox(),
        letters=Letters(product="Example", public_url=ISSUER),
        limits=limits if limits is not None else endless(Limits()),
    )


def make(kind: str, folder: Path) -> Store:
    return MemoryStore() if kind == "memory" else SqliteStore(folder / "test.db")


@contextlib.asynccontextmanager
async def opened(kind: str, folder: Path, clock: Clock, policy: Policy = STANDARD) -> AsyncIterator[Authority]:
    """An open authority over a new store, with one account whose subject is `alice`."""
    over = authority(make(kind, folder), clock, policy)
    await over.open()
    try:
        await over.provide("alice")
        yield over
    finally:
        await over.close()


def proof(account: Account, clock: Clock) -> Verified:
    return Verified(subject=account.subject, epoch=account.epoch, amr=("pwd",), at=clock())


async def proof_of(over: Authority, subject: str = "alice") -> Verified:
    account = await over.store.account(subject)
    assert account is not None
    return Verified(subject=subject, epoch=account.epoch, amr=("pwd",), at=over.clock())


class Absent(Wrapped):
    """A store that is out of reach when it is opened for the first time."""

    absent = True

    async def open(self) -> None:
        if self.absent:
            raise Unavailable("nothing listens there")
        await self.inner.open()
