"""Sessions as people have them, by the thousand: through the store, and for millions past it."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
from msgspec.structs import replace

from dutchdoor.model.accounts import external_account
from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import decode, new_ordered_id
from dutchdoor.model.policy import STANDARD
from dutchdoor.model.principal import Verified
from dutchdoor.model.sessions import Session, start
from dutchdoor.stores.base import Add, Store

SESSIONS_AN_ACCOUNT = 4
BATCH = 200
DEVICES = (("Firefox", "Linux"), ("Chrome", "Windows"), ("Safari", "macOS"), ("Chrome Mobile", "Android"))
DRAW = random.Random(7)


def fresh_session(subject: str, now: float) -> Session:
    """A session of the hybrid mode, as a sign-in makes it."""
    browser, platform = DRAW.choice(DEVICES)
    client = Client(address=".".join(str(DRAW.randrange(1, 255)) for _ in range(4)), country="NL")
    proof = Verified(subject=subject, epoch=0, amr=("pwd",), at=now)
    session, _ = start(
        proof, mode="hybrid", client=client, client_id="app", scope="", master_key_id=b"mkid", now=now, policy=STANDARD
    )
    return replace(session, device=f"{browser} on {platform}", fingerprint=f"{browser}|{platform}")


async def fill(store: Store, rows: int) -> list[bytes]:
    """Store so many sessions of a quarter as many accounts; give their ids, in a random order."""
    now = time.time()
    for first in range(0, max(rows // SESSIONS_AN_ACCOUNT, 1), BATCH):
        last = min(first + BATCH, max(rows // SESSIONS_AN_ACCOUNT, 1))
        await store.commit(*(Add(external_account(f"user{number}", now)) for number in range(first, last)))
    ids: list[bytes] = []
    for first in range(0, rows, BATCH):
        batch = [
            fresh_session(f"user{number // SESSIONS_AN_ACCOUNT % max(rows // SESSIONS_AN_ACCOUNT, 1)}", now)
            for number in range(first, min(first + BATCH, rows))
        ]
        await store.commit(*map(Add, batch))
        ids += [decode(session.id) for session in batch]
    DRAW.shuffle(ids)
    return ids


def multiply_sqlite(path: Path, rows: int) -> list[bytes]:
    """Copy the sessions that are there under new ids until there are so many; give some of the ids."""
    connection = sqlite3.connect(path)
    names = [row[1] for row in connection.execute("PRAGMA table_info(sessions)")]
    there = connection.execute(f"SELECT {', '.join(names)} FROM sessions").fetchall()
    marks = ", ".join("?" * len(names))
    kept: list[bytes] = []
    with connection:
        connection.executemany(f"INSERT INTO sessions VALUES ({marks})", _copies(there, rows - len(there), kept))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return kept


async def multiply_postgres(url: str, rows: int) -> list[bytes]:
    """The same with COPY."""
    connection = await asyncpg.connect(url)
    there = [tuple(row) for row in await connection.fetch("SELECT * FROM dutchdoor.sessions")]
    kept: list[bytes] = []
    await connection.copy_records_to_table(
        "sessions", schema_name="dutchdoor", records=_copies(there, rows - len(there), kept), timeout=3600
    )
    await connection.execute("VACUUM ANALYZE dutchdoor.sessions", timeout=3600)
    await connection.close()
    return kept


def _copies(rows: list[Any], count: int, kept: list[bytes]) -> Iterator[tuple[Any, ...]]:
    """The id stands first in a row of either."""
    now, every = time.time(), max(count // 20_000, 1)
    for number in range(count):
        raw = decode(new_ordered_id(now + number / 1000))
        if number % every == 0:
            kept.append(raw)
        yield (raw, *rows[number % len(rows)][1:])
