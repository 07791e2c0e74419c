"""What can be measured inside one process, as a program of its own that prints JSON: `python -m benchmarks.inside`.

validation ROWS     a session's full validation on SQLite, a bare SELECT of its row, and its bytes on disk
verifier            milliseconds that importing the verifier takes over starting Python
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dutchdoor.model import ids, sessions
from dutchdoor.model.accounts import external_account
from dutchdoor.model.http_client import Client, Device
from dutchdoor.model.master_key import MasterKey, MasterKeys
from dutchdoor.model.policy import STANDARD
from dutchdoor.model.principal import Verified
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Add
from dutchdoor.stores.sqlite import SqliteStore

SAMPLE = 5000
"""Sessions that are validated, drawn from all of them."""
SIGNED_IN_WITHIN = 30.0
"""Seconds: none of them is due to be marked as seen, because this measures reading."""
BATCH = 500
SESSIONS_AN_ACCOUNT = 4
VERIFIER = "from dutchdoor import Verifier"
DEVICES = (("Firefox", "Linux"), ("Chrome", "Windows"), ("Safari", "macOS"), ("Chrome Mobile", "Android"))


async def fill(store: SqliteStore, rows: int, now: float, *, keep: int) -> tuple[list[str], float]:
    """Store so many sessions. Gives so many of their tokens, and the bytes that one session takes on disk."""
    draw = random.Random(1)
    subjects = [ids.new_id() for _ in range(max(rows // SESSIONS_AN_ACCOUNT, 1))]
    for first in range(0, len(subjects), BATCH):
        await store.commit(*(Add(external_account(subject, now)) for subject in subjects[first : first + BATCH]))
    before = await _size(store)
    kept, every = [], max(rows // keep, 1)
    for first in range(0, rows, BATCH):
        batch = []
        for number in range(first, min(first + BATCH, rows)):
            browser, platform = draw.choice(DEVICES)
            client = Client(
                address=f"{draw.randrange(1, 224)}.{draw.randrange(256)}.{draw.randrange(256)}.{draw.randrange(256)}",
                country="NL",
                devices=Device(name=f"{browser} on {platform}", browser_family=browser, platform=platform),
            )
            session, token = sessions.start(
                Verified(subject=subjects[number % len(subjects)], epoch=0, amr=("pwd",), at=now),
                mode="session",
                client=client,
                client_id="app",
                scope="",
                master_key_id=b"",
                # Sign-ins arrive over time, which is what ids begin with.
                now=now + number / rows * SIGNED_IN_WITHIN,
                policy=STANDARD,
            )
            batch.append(Add(session))
            if token and number % every == 0:
                kept.append(token.text())
        await store.commit(*batch)
    draw.shuffle(kept)
    return kept, (await _size(store) - before) / rows


async def _size(store: SqliteStore) -> int:
    # Closing the last connection folds the log into the file.
    path = Path(store._path)  # noqa: SLF001 - to look at the file it writes
    await store.close()
    size = path.stat().st_size
    await store.open()
    return size


async def validation(rows: int) -> dict[str, float]:
    """Time `Authority.resume` and a bare SELECT of the same rows in turn; medians of microseconds."""
    now = time.time()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bench.db")
        store = SqliteStore(path)
        authority = Authority(
            store,
            master=MasterKeys(MasterKey.generate()),
            issuer="http://localhost",
            clock=lambda: now + SIGNED_IN_WITHIN,
        )
        await authority.open()
        tokens, size = await fill(store, rows, now, keep=SAMPLE)
        keys = [ids.decode(sessions.SessionToken.parse(token).id) for token in tokens]
        bare = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        full_times, bare_times = [], []
        await authority.resume(tokens[0])
        for turn in range(5):
            chunk = slice(turn * SAMPLE // 5, (turn + 1) * SAMPLE // 5)
            start = time.perf_counter()
            for key in keys[chunk]:
                bare.execute("SELECT * FROM sessions WHERE id = ?", (key,)).fetchone()
            bare_times.append((time.perf_counter() - start) / len(keys[chunk]) * 1e6)
            start = time.perf_counter()
            for token in tokens[chunk]:
                await authority.resume(token)
            full_times.append((time.perf_counter() - start) / len(keys[chunk]) * 1e6)
        bare.close()
        await authority.close()
    return {
        "validation": statistics.median(full_times),
        "select": statistics.median(bare_times),
        "bytes": size,
    }


async def signed_in(path: str, rows: int) -> dict[str, list[str]]:
    """Make a database in which so many sessions were started within the last seconds."""
    store = SqliteStore(path)
    await store.open()
    tokens, _ = await fill(store, rows, time.time() - SIGNED_IN_WITHIN, keep=rows)
    await store.close()
    return {"tokens": tokens}


def verifier() -> dict[str, float]:
    """Start Python with and without the import, in turn; the difference of the medians in milliseconds."""
    # With bytecode written, as on any machine after the first import.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    times: dict[str, list[float]] = {"pass": [], VERIFIER: []}
    for _ in range(11):
        for code, spent in times.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env=environ)
            spent.append((time.perf_counter() - start) * 1000)
    bare, importing = (statistics.median(spent[1:]) for spent in times.values())
    return {"import": importing - bare}


def main() -> None:
    match sys.argv[1:]:
        case ["validation", rows]:
            measured: object = asyncio.run(validation(int(rows)))
        case ["sessions", path, rows]:
            measured = asyncio.run(signed_in(path, int(rows)))
        case _:
            measured = verifier()
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
