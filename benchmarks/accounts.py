"""What a search among a million accounts costs, beside the read of one account by its key in the same run.

    python -m benchmarks.accounts [--quick] [--only SQLite PostgreSQL]

Accounts have names and addresses of a few thousand first and last names, so that a first name belongs to hundreds of
accounts. A page has 50 of them. Each figure is the median of a hundred calls to the store, in milliseconds; in
brackets, how many reads by key take as long. Beside it stand the bytes that the index takes for an account, and the
accounts that are stored in a second. `--quick` takes a tenth of the accounts.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from benchmarks.databases import end_in_order, postgres
from dutchdoor.model.accounts import Account, new_account
from dutchdoor.stores.base import Store
from dutchdoor.stores.sql import ACCOUNT_COLUMNS, account_values
from dutchdoor.stores.urls import make_store

ACCOUNTS, PAGE, CALLS = 1_000_000, 50, 100
GOAL = 100.0
"""How many reads by key a search may cost at most. A page of 50 reads 50 accounts."""
SYLLABLES = (
    "an",
    "be",
    "cor",
    "da",
    "el",
    "fi",
    "gor",
    "ha",
    "is",
    "ju",
    "ka",
    "lo",
    "mi",
    "no",
    "or",
    "pe",
    "ra",
    "su",
)
DRAW = random.Random(11)
NAMES = [f"{a}{b}{c}".capitalize() for a in SYLLABLES for b in SYLLABLES for c in ("", *SYLLABLES[::3])]


def people(count: int) -> Iterator[Account]:
    for number in range(count):
        first, last = DRAW.choice(NAMES), DRAW.choice(NAMES)
        address = f"{first}.{last}{number}@example.{DRAW.choice(('com', 'org', 'net'))}"
        yield new_account(address=address, name=f"{first} {last}", now=1.8e9 + number, verified=number % 3 > 0)


def fill_sqlite(path: Path, count: int) -> list[str]:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA cache_size = -400000")  # kilobytes: the index is filled in a random order
    subjects: list[str] = []
    with connection:
        connection.executemany(
            f"INSERT INTO accounts (subject, {', '.join(ACCOUNT_COLUMNS)}, revision) "
            f"VALUES ({', '.join('?' * (len(ACCOUNT_COLUMNS) + 1))}, 0)",
            _noted(count, subjects),
        )
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return subjects


async def fill_postgres(url: str, count: int) -> list[str]:
    connection = await asyncpg.connect(url)
    subjects: list[str] = []
    await connection.copy_records_to_table(
        "accounts",
        schema_name="dutchdoor",
        columns=["subject", *ACCOUNT_COLUMNS, "revision", "begun"],
        records=((*row, 0, 0) for row in _noted(count, subjects)),
        timeout=3600,
    )
    await connection.execute("VACUUM ANALYZE", timeout=3600)
    await connection.close()
    return subjects


def _noted(count: int, subjects: list[str]) -> Iterator[tuple[Any, ...]]:
    for account in people(count):
        subjects.append(account.subject)
        yield account.subject, *account_values(account)


async def median_ms(calls: Callable[[], Awaitable[object]]) -> float:
    took = []
    for _ in range(CALLS):
        began = time.perf_counter()
        await calls()
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


async def measure(store: Store, subjects: list[str]) -> bool:
    """Print the rows; whether each is within the goal."""
    first = NAMES[len(NAMES) // 2]
    by_key = await median_ms(lambda: store.account(DRAW.choice(subjects)))
    print(f"  {'one account by its key':44}{by_key:9.3f} ms")
    reached = True
    for words, text in (
        ("one hit: a whole address", (await store.account(subjects[len(subjects) // 2])).address),
        ("many hits: a first name", first),
        ("many hits: a domain, each third account", "example.com"),
        ("no hit: a name", "zzyzx"),
        ("no hit: a name that begins as others", first[:-1] + "qq"),
        ("one letter", "a"),
        ("one letter, the 20th page", "a"),
    ):
        after = ""
        if "20th" in words:
            for _ in range(19):
                after = (await store.search_accounts(text, after=after, limit=PAGE))[-1][0]
        took = await median_ms(lambda text=text, after=after: store.search_accounts(text, after=after, limit=PAGE))
        found = len(await store.search_accounts(text, after=after, limit=PAGE))
        reached &= took <= GOAL * by_key
        print(f"  {words:44}{took:9.3f} ms  ({took / by_key:.1f} ×)  {found} found")
    for status in ("any", "disabled", "unverified"):
        took = await median_ms(lambda status=status: store.newest_accounts(status=status, limit=PAGE))
        reached &= took <= GOAL * by_key
        print(f"  {'the newest accounts: ' + status:44}{took:9.3f} ms  ({took / by_key:.1f} ×)")
    return reached


async def over_sqlite(count: int) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.db"
        store = make_store(f"sqlite:///{path}")
        await store.open()
        began = time.perf_counter()
        subjects = await asyncio.to_thread(fill_sqlite, path, count)
        print(f"SQLite, {count:,} accounts, {count / (time.perf_counter() - began):,.0f} stored a second")
        reached = await measure(store, subjects)
        connection = sqlite3.connect(path)
        ((size,),) = connection.execute("SELECT sum(pgsize) FROM dbstat WHERE name LIKE '%account_words%'")
        connection.close()
        print(f"  {'bytes of the index for an account':44}{size / count:9.0f}")
        await store.close()
        return reached


async def over_postgres(count: int) -> bool:
    with postgres() as database:
        url = database.url()
        store = make_store(url)
        await store.open()
        began = time.perf_counter()
        subjects = await fill_postgres(url, count)
        print(f"PostgreSQL, {count:,} accounts, {count / (time.perf_counter() - began):,.0f} stored a second")
        reached = await measure(store, subjects)
        connection = await asyncpg.connect(url)
        size = await connection.fetchval("SELECT pg_total_relation_size('dutchdoor.account_words')")
        await connection.close()
        print(f"  {'bytes of the index for an account':44}{size / count:9.0f}")
        await store.close()
        return reached


async def main(*, quick: bool, only: list[str]) -> bool:
    count = ACCOUNTS // 10 if quick else ACCOUNTS
    reached = [await over(count) for name, over in _STORES.items() if not only or name in only]
    print(f"at most {GOAL:g} reads by key: {'reached' if all(reached) else 'missed'}")
    return all(reached)


_STORES = {"SQLite": over_sqlite, "PostgreSQL": over_postgres}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the accounts")
    parser.add_argument("--only", nargs="*", default=[], choices=[*_STORES], help="one of the stores")
    given = parser.parse_args()
    end_in_order()
    raise SystemExit(0 if uvloop.run(main(quick=given.quick, only=given.only)) else 1)
