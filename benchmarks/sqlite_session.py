"""What a session costs in SQLite: time beside the bare look-up, growth with the table, bytes on disk.

    python benchmarks/sqlite_session.py [--quick]

One run, one process, rounds interleaved, the least disturbed of 15. "Bare" is `SELECT * FROM sessions WHERE id = ?`
through the same module on a connection to the same file. "Full" is `await store.session(id)`, which joins the account
and builds both records, of sessions drawn from all. A tenth of the sessions has ended, half are hybrid, a tenth is
written again after it was added.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from msgspec.structs import replace

from dutchdoor.model.accounts import Account, new_account
from dutchdoor.model.ids import new_ordered_id
from dutchdoor.model.rate_limits import DEFAULT_LIMITS, Bucket
from dutchdoor.model.sessions import Session
from dutchdoor.revocation.log import Revocation
from dutchdoor.stores.base import Add, End, Revoke, Swap
from dutchdoor.stores.sqlite import SqliteStore

BROWSERS = ("Firefox", "Chrome", "Safari", "Edge", "Chrome Mobile", "Mobile Safari", "Samsung Internet")
SYSTEMS = ("Linux", "Windows", "Mac OS X", "Android", "iOS")
BEGAN = 1_790_000_000.0
ROUNDS, READS = 15, 4000
DICE = random.Random(7)


def a_session(account: Account, now: float) -> Session:
    browser, system = DICE.choice(BROWSERS), DICE.choice(SYSTEMS)
    hybrid = DICE.random() < 0.5
    seen = now + DICE.random() * 86400
    if DICE.random() < 0.6:
        address = ".".join(str(DICE.randrange(256)) for _ in range(4))
    else:
        address = "2a02:" + ":".join(f"{DICE.randrange(65536):x}" for _ in range(7))
    return Session(
        id=new_ordered_id(now),
        subject=account.subject,
        mode="hybrid" if hybrid else "session",
        client_id="",
        scope="",
        secret_hash=b"" if hybrid else os.urandom(32),
        salt=os.urandom(16) if hybrid else b"",
        master_key_id=b"mkid" if hybrid else b"",
        epoch=DICE.randrange(3),
        amr=("pwd",),
        auth_time=now - DICE.random(),
        created_at=now,
        last_seen_at=seen,
        idle_expires_at=seen + 14 * 86400,
        expires_at=now + 30 * 86400,
        generation=DICE.randrange(300) if hybrid else 0,
        rotated_at=seen if hybrid else now,
        sibling_at=seen if hybrid else now,
        fingerprint=f"{browser}|{system}",
        device=f"{browser} on {system}",
        address=address,
        country=DICE.choice(("NL", "DE", "US", "IN")),
    )


def pages(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        return connection.execute("PRAGMA page_count").fetchone()[0] * 4096


async def fill(path: Path, count: int) -> tuple[SqliteStore, list[str], float]:
    """Give a store with that many sessions, a thousand of their ids, and the bytes each takes, indexes included."""
    store = SqliteStore(path)
    await store.open()
    people = [new_account(address=f"u{n}@example.com", name=f"User {n}", now=BEGAN) for n in range(max(1, count // 4))]
    for n in range(0, len(people), 1000):
        await store.commit(*map(Add, people[n : n + 1000]))
    before = pages(path)
    ids: list[str] = []
    for n in range(0, count, 1000):
        now = BEGAN + n * 2.0
        added = [a_session(DICE.choice(people), now + m * 2 + DICE.random()) for m in range(min(1000, count - n))]
        await store.commit(*map(Add, added))
        await store.commit(*[End(session.id, "logout", now) for session in added[::10]])
        await store.commit(
            *[Swap(replace(session, generation=session.generation + 70_000)) for session in added[1::10]]
        )
        ids += [session.id for session in added]
    return store, DICE.sample(ids, min(count, 100_000)), (pages(path) - before) / count


def measure_bare(connection: sqlite3.Connection, ids: list[str]) -> float:
    keys = [base64.urlsafe_b64decode(session_id + "==") for session_id in DICE.choices(ids, k=READS)]
    begun = time.perf_counter()
    for key in keys:
        connection.execute("SELECT * FROM sessions WHERE id = ?", (key,)).fetchone()
    return (time.perf_counter() - begun) / READS * 1e6


async def measure_full(store: SqliteStore, ids: list[str]) -> float:
    chosen = DICE.choices(ids, k=READS)
    begun = time.perf_counter()
    for session_id in chosen:
        await store.session(session_id)
    return (time.perf_counter() - begun) / READS * 1e6


async def measure_others(store: SqliteStore) -> list[tuple[str, float]]:
    head = (await store.commit()).seq
    bucket = [Bucket("bench", DEFAULT_LIMITS.refresh_by_session)]

    async def timed(name: str, count: int, at_once: int, do) -> tuple[str, float]:
        begun = time.perf_counter()
        for _ in range(count // at_once):
            if at_once == 1:
                await do()
            else:
                await asyncio.gather(*[do() for _ in range(at_once)])
        return name, (time.perf_counter() - begun) / count * 1e6

    entry = Revocation(kind="session", id="x", expires_at=0.0)
    return [
        await timed("read_log(), nothing new", 20_000, 1, lambda: store.read_log(1, head)),
        await timed("commit, one after the other", 200, 1, lambda: store.commit(Revoke(entry))),
        await timed("commit, 64 at once", 6400, 64, lambda: store.commit(Revoke(entry))),
        await timed("hit, one after the other", 500, 1, lambda: store.hit(bucket, time.time())),
        await timed("hit, 64 at once", 6400, 64, lambda: store.hit(bucket, time.time())),
    ]


async def measure(folder: Path, sizes: tuple[int, ...]) -> None:
    stores = {}
    for size in sizes:
        path = folder / f"{size}.db"
        store, ids, size_of_one = await fill(path, size)
        stores[size] = store, sqlite3.connect(path, isolation_level=None), ids, size_of_one
    bare: dict[int, list[float]] = {size: [] for size in sizes}
    full: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(ROUNDS):
        for size, (store, connection, ids, _) in stores.items():
            bare[size].append(measure_bare(connection, ids))
            full[size].append(await measure_full(store, ids))
    print("| sessions | bare SELECT, us | full, us | ratio | bytes a session |")
    print("|---|---|---|---|---|")
    for size, (*_, size_of_one) in stores.items():
        b, f = (min(kind[size]) for kind in (bare, full))
        print(f"| {size:,} | {b:.1f} | {f:.1f} | {f / b:.2f} | {size_of_one:.0f} |")
    small, large = sizes[0], sizes[-1]
    growth = min(full[large]) / min(full[small])
    print(f"\nFull session at {large:,} against {small:,}: {growth:.2f}\n")
    print("| | us |\n|---|---|")
    for name, took in await measure_others(stores[small][0]):
        print(f"| {name} | {took:.1f} |")
    for store, connection, *_ in stores.values():
        connection.close()
        await store.close()


def main(arguments: list[str]) -> None:
    sizes = (10_000, 100_000) if "--quick" in arguments else (10_000, 100_000, 1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), sizes))


if __name__ == "__main__":
    main(sys.argv[1:])
