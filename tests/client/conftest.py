"""A real server, accounts on it, each with its own address, and a keyring."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyotp
import pytest
from keyring.backend import KeyringBackend
from tests.server.running import Running, running

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.model.http_client import Client
from dutchdoor.stores.base import Change

PASSWORD = "a door in two halves"


class Place(NamedTuple):
    """A server, and the folder of its database."""

    server: Running
    folder: Path
    numbers: Iterator[int]

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server.port}"

    def engine(self) -> Auth:
        """The same database, from outside."""
        return Auth(
            f"sqlite:///{self.folder}/dutchdoor.db",
            master_key=self.folder / "dutchdoor.keys",
            hasher=PasswordHasher(CHEAPEST),
        )

    def account(self) -> str:
        """The address of a new account, whose password is `PASSWORD`."""

        async def work() -> str:
            async with self.engine() as auth:
                hashed = await auth.directory.hasher.hash(PASSWORD)
                email = f"person{next(self.numbers)}@example.com"
                await auth.directory.registration.add(email, "", hashed, client=Client(), verified=True)
                return email

        return asyncio.run(work())

    def second_factor(self, email: str) -> tuple[str, tuple[str, ...]]:
        """Give an account an authenticator app. Returns its secret and the recovery codes."""

        async def work() -> tuple[str, tuple[str, ...]]:
            async with self.engine() as auth:
                account = await auth.store.account_by_email(email)
                assert account is not None
                factors = auth.directory.factors
                given = await factors.begin_totp(account, amr=None)
                code = pyotp.TOTP(given.secret).at(int(time.time()))
                confirmed = await factors.confirm_totp(account, given.token, code, client=Client())
                changes: list[Change] = list(confirmed.changes)
                await auth.store.commit(*changes)
                return given.secret, confirmed.codes

        return asyncio.run(work())

    def mailed(self, email: str) -> str:
        """The code in the mail to an address, as soon as it is there."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            for each in sorted((self.folder / "mails").glob("*.eml"), reverse=True):
                found = re.search(r"^ +([0-9]{6})$", each.read_text(), re.MULTILINE)
                if found and f"To: {email}\n" in each.read_text():
                    return found[1]
            time.sleep(0.01)
        raise AssertionError("no mail came")

    def sessions(self, email: str) -> int:
        async def work() -> int:
            async with self.engine() as auth:
                account = await auth.store.account_by_email(email)
                assert account is not None
                return len(await auth.authority.sessions(account.subject))

        return asyncio.run(work())

    def end(self, email: str) -> None:
        """End all sessions of an account, as an administrator does."""

        async def work() -> None:
            async with self.engine() as auth:
                account = await auth.store.account_by_email(email)
                assert account is not None
                await auth.authority.end_all(account.subject, client=Client(), actor="cli")

        asyncio.run(work())


class Ring(KeyringBackend):
    """A keyring as a desktop has one, in memory; a locked one refuses."""

    priority = 5.0  # type: ignore[assignment]

    def __init__(self, *, locked: bool = False) -> None:
        self.kept: dict[tuple[str, str], str] = {}
        self.locked = locked

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise RuntimeError("secret: locked")
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.locked:
            raise RuntimeError("secret: locked")
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("client")
    (folder / "mails").mkdir()
    mail = ("--sign-in-by-mail", "--mail", f"file:{folder}/mails")
    with running(folder, "--refresh-window", "0s", *mail) as server:  # so that each refresh gives another token
        yield Place(server, folder, itertools.count(1))
