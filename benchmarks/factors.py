"""What a second factor costs at sign-in, and what it takes to keep: `python -m benchmarks.factors [--quick]`.

Whole sign-ins over SQLite, without HTTP, by processor time: each way in turn, with one SHA-256 in place of the
password's hash and with Argon2id as it ships. The ratio is to the password alone in the same run. Then the rows and
bytes of accounts that have an app, two passkeys and recovery codes, on SQLite and PostgreSQL, beside accounts with a
password alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pyotp.totp
from msgspec.structs import replace

from benchmarks.databases import on_cores, postgres
from dutchdoor.auth import Auth
from dutchdoor.credentials.passkey import PASSKEY
from dutchdoor.credentials.password import CHEAPEST, OWASP_2024, PasswordHasher
from dutchdoor.credentials.recovery_code import RECOVERY_CODE
from dutchdoor.errors import SignInUnfinished
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import new_id
from dutchdoor.model.policy import STANDARD
from dutchdoor.model.rate_limits import Limit, Limits
from dutchdoor.services.browser import Browser
from dutchdoor.services.passkeys import Ceremony
from dutchdoor.stores.base import Add, Store
from dutchdoor.stores.postgres import PostgresStore
from dutchdoor.stores.sqlite import SqliteStore

PASSWORD = "a door in two halves"
ORIGIN = "http://localhost:8000"
PEOPLE, AT_ONCE = 32, 8
ROUNDS, QUICK = 9, 3
"""Rounds; ten recovery codes are enough for them."""
STEP = 60.0
"""Seconds from round to round: each code of an app is accepted once."""
KEPT, BATCH = 2000, 100
"""Accounts whose bytes are measured."""
UNLIMITED = Limits(
    **{name: Limit(name=name, count=10**9, per_seconds=1.0, burst=10**9) for name in Limits.__struct_fields__}
)
HERE = Client(address="192.0.2.7", country="NL")


SoftKey: Any = import_module("tests.softkey").SoftKey
"""A passkey in software."""


class NoHash(PasswordHasher):
    """One SHA-256, so that a sign-in costs what all the rest costs."""

    async def hash(self, password: str) -> str:
        return hashlib.sha256(password.encode()).hexdigest()

    async def verify(self, password: str, encoded: str) -> bool:
        return await self.hash(password) == encoded

    def needs_rehash(self, encoded: str) -> bool:
        return False


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Person:
    """An account with an app, a passkey and recovery codes; and one with the same password alone."""

    def __init__(self, account: Account, plain: str, secret: str, key: Any, codes: tuple[str, ...]) -> None:
        self.account, self.plain, self.secret, self.key, self.codes = account, plain, secret, key, list(codes)

    @property
    def email(self) -> str:
        return self.account.email or ""


class House:
    """An engine over SQLite, and the people in it."""

    def __init__(self, folder: Path, hasher: PasswordHasher) -> None:
        self.clock = Clock()
        self.mailed: dict[str, str] = {}
        self.auth = Auth(
            SqliteStore(folder / "factors.db"),
            master_key=str(folder / "keys"),
            policy=replace(STANDARD, sign_in_by_mail=True),
            limits=UNLIMITED,
            hasher=hasher,
            deliver_code=self.keep,
            clock=self.clock,
        )
        self.people: list[Person] = []

    async def keep(self, account: Account, code: str) -> None:
        self.mailed[account.email or ""] = code

    async def populate(self) -> None:
        for n in range(PEOPLE):
            self.people.append(await with_factors(self.auth, f"person{n}@example.com", self.clock()))

    # Each way to sign in

    async def by_password(self, person: Person) -> None:
        await self.auth.directory.sign_in.by_password(person.plain, PASSWORD, Browser(HERE), mode="session")

    async def _second(self, person: Person, method: str, answer: Callable[[str], Awaitable[str]], **more: Any) -> None:
        try:
            await self.auth.directory.sign_in.by_password(person.email, PASSWORD, Browser(HERE), mode="session")
        except SignInUnfinished as waiting:
            response = await answer(waiting.token)
            await self.auth.directory.sign_in.proceed(waiting.token, method, response, Browser(HERE), **more)

    async def by_app(self, person: Person) -> None:
        async def shown(_: str) -> str:
            return pyotp.totp.TOTP(person.secret).at(int(self.clock()))

        await self._second(person, "totp", shown)

    async def by_recovery_code(self, person: Person) -> None:
        async def written(_: str) -> str:
            return person.codes.pop()

        await self._second(person, RECOVERY_CODE, written)

    async def by_passkey_after_password(self, person: Person) -> None:
        where = Ceremony("a browser", ORIGIN, ORIGIN)

        async def touched(token: str) -> str:
            options = await self.auth.directory.sign_in.passkey_options(token, where, client=HERE)
            return msgspec.json.encode(person.key.get(options)).decode()

        await self._second(person, "passkey", touched, ceremony=where)

    async def by_passkey(self, person: Person) -> None:
        where = Ceremony("a browser", ORIGIN, ORIGIN)
        options = self.auth.directory.factors.passkeys.sign_in_options(where)
        answer = msgspec.json.encode(person.key.get(options)).decode()
        await self.auth.directory.sign_in.by_passkey(answer, where, Browser(HERE), mode="session")

    async def by_mailed_code(self, person: Person) -> None:
        codes = self.auth.directory.mailed_codes
        asked = await codes.ask(person.plain, client=HERE)
        while person.plain not in self.mailed:
            await asyncio.sleep(0)
        await codes.sign_in(asked.token, self.mailed.pop(person.plain), Browser(HERE), mode="session")


async def with_factors(auth: Auth, email: str, now: float) -> Person:
    """Register a person with each factor, and one without any."""
    found = []
    for address in (email, f"plain-{email}"):
        await auth.directory.registration.register(address, PASSWORD, "", client=HERE)
        account = await auth.store.account_by_email(address)
        assert account is not None
        found.append(account)
    account, plain = found
    given = await auth.directory.factors.begin_totp(account, amr=("pwd", "otp"))
    before = pyotp.totp.TOTP(given.secret).at(int(now) - 30)
    made = await auth.directory.factors.confirm_totp(account, given.token, before, client=HERE)
    await auth.store.commit(*made.changes)
    where, key = Ceremony("a browser", ORIGIN, ORIGIN), SoftKey(ORIGIN)
    options = await auth.directory.factors.passkeys.creation_options(account, where)
    answer = msgspec.json.encode(key.create(options)).decode()
    added = await auth.directory.factors.confirm_passkey(account, answer, "Laptop", where, client=HERE)
    await auth.store.commit(*added.changes)
    return Person(account, plain.email or "", given.secret, key, made.codes)


async def rates(hasher: PasswordHasher, rounds: int) -> dict[str, float]:
    """Sign-ins a second, by way: the median of the rounds, in which the ways take turns."""
    with tempfile.TemporaryDirectory() as folder:
        house = House(Path(folder), hasher)
        async with house.auth:
            await house.populate()
            ways: dict[str, Callable[[Person], Awaitable[None]]] = {
                "password": house.by_password,
                "password and app": house.by_app,
                "password and recovery code": house.by_recovery_code,
                "password and passkey": house.by_passkey_after_password,
                "passkey alone": house.by_passkey,
                "code by mail, asked for and typed": house.by_mailed_code,
            }
            took: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(rounds):
                house.clock.now += STEP
                for name, way in ways.items():
                    took[name].append(await _timed(way, house.people))
            return {name: PEOPLE / statistics.median(times) for name, times in took.items()}


async def _timed(way: Callable[[Person], Awaitable[None]], people: list[Person]) -> float:
    waiting = iter(people)

    async def work() -> None:
        for person in waiting:
            await way(person)

    began = time.process_time()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return time.process_time() - began


# --- what is kept ----------------------------------------------------------------------------------------------------

Size = Callable[[], Awaitable[int]]


async def kept(store: Store, size: Size) -> tuple[int, float, float]:
    """Return the rows that the factors of an account take, and the bytes of its credentials without and with them."""
    async with Auth(store, limits=UNLIMITED, hasher=PasswordHasher(CHEAPEST)) as auth:
        model = await with_factors(auth, "model@example.com", auth.authority.clock())
        held = await store.select(Credential, subject=model.account.subject)
        # Random handles, as those of real passkeys: one after the other, they would fill the index too well.
        full = [*held, *(each for each in held if each.method == PASSKEY)]
        sizes = [await size()]
        for records in ([each for each in held if each.method == "password"], full):
            for first in range(0, KEPT, BATCH):
                await store.commit(*_copies(model.account, records, min(BATCH, KEPT - first)))
            sizes.append(await size())
    return len(full) - 1, (sizes[1] - sizes[0]) / KEPT, (sizes[2] - sizes[1]) / KEPT


def _copies(model: Account, records: list[Credential], count: int) -> list[Add]:
    changes = []
    for _ in range(count):
        subject = new_id()
        changes.append(Add(replace(model, subject=subject, email=f"{subject}@example.com", revision=0)))
        for each in records:
            handle = each.handle and new_id() + new_id()[:10]
            changes.append(Add(replace(each, subject=subject, handle=handle, revision=0)))
    return changes


async def kept_in_sqlite() -> tuple[int, float, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kept.db"

        async def size() -> int:
            with contextlib.closing(sqlite3.connect(path)) as connection:
                ((found,),) = connection.execute(
                    "SELECT sum(pgsize) FROM dbstat WHERE name IN (SELECT name FROM sqlite_master WHERE tbl_name = ?)",
                    ["credentials"],
                )
            return int(found)

        os.chdir(folder)  # where the key of the engine is kept
        return await kept(SqliteStore(path), size)


async def kept_in_postgres() -> tuple[int, float, float]:
    with tempfile.TemporaryDirectory() as folder, postgres() as database:
        url = database.url()

        async def size() -> int:
            connection = await asyncpg.connect(url)
            await connection.execute("VACUUM dutchdoor.credentials")
            found = await connection.fetchval("SELECT pg_total_relation_size('dutchdoor.credentials')")
            await connection.close()
            return int(found)

        os.chdir(folder)
        return await kept(PostgresStore(url), size)


def main() -> None:
    rounds = QUICK if "--quick" in sys.argv else ROUNDS
    on_cores({0})
    without = asyncio.run(rates(NoHash(CHEAPEST), rounds))
    with_hash = asyncio.run(rates(PasswordHasher(OWASP_2024, workers=1), rounds))
    print("| a sign-in by | a second, no hash | of the password alone | a second, Argon2id | of the password alone |")
    print("|---|---:|---:|---:|---:|")
    for name, rate in without.items():
        base, hashed = without["password"], with_hash["password"]
        print(f"| {name} | {rate:.0f} | {rate / base:.2f} | {with_hash[name]:.1f} | {with_hash[name] / hashed:.2f} |")
    print()
    print("| an app, two passkeys and recovery codes | rows | bytes, password alone | bytes, with factors |")
    print("|---|---:|---:|---:|")
    for kind, measured in (("SQLite", kept_in_sqlite), ("PostgreSQL", kept_in_postgres)):
        rows, alone, full = asyncio.run(measured())
        print(f"| {kind} | {rows} | {alone:.0f} | {full:.0f} |")


if __name__ == "__main__":
    main()
