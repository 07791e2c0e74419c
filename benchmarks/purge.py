"""What a purge costs the requests beside it: the same load, without a purge and while 400,000 of a million rows go.

    python -m benchmarks.purge [--quick] [--only SQLite PostgreSQL]

One process and one event loop, as a server has them. Eight callers look up a session and then store one, each with a
pause of ten milliseconds: some hundred requests of both kinds a second. Of the million sessions the oldest 400,000 have
expired. `--quick` takes a tenth of the rows. The ratio in the last column compares with the same load
without the purge in the same run. Times are those of a call to the store, in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import uvloop

from benchmarks.databases import end_in_order, postgres
from benchmarks.filling import fill, fresh_session, multiply_postgres, multiply_sqlite
from dutchdoor.model.ids import encode
from dutchdoor.stores.base import Add, Store
from dutchdoor.stores.urls import make_store

ROWS, EXPIRED, FILLED = 1_000_000, 0.4, 10_000
CALLERS, PAUSE, ALONE_FOR, AT_MOST = 8, 0.01, 20.0, 600.0
GOAL = 20.0


def expire_sqlite(path: Path, count: int) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "UPDATE sessions SET expires_at = 1 WHERE id < (SELECT id FROM sessions ORDER BY id LIMIT 1 OFFSET ?)",
            (count,),
        )
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


async def expire_postgres(url: str, count: int) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(
        "UPDATE dutchdoor.sessions SET expires_at = 1 "
        "WHERE id < (SELECT id FROM dutchdoor.sessions ORDER BY id LIMIT 1 OFFSET $1)",
        count,
        timeout=3600,
    )
    await connection.execute("VACUUM ANALYZE dutchdoor.sessions", timeout=3600)
    await connection.close()


class Load:
    """Callers that look up and store sessions until the block ends, and how long each call took."""

    def __init__(self, store: Store, ids: list[bytes]) -> None:
        self.store, self.ids = store, ids
        self.took: dict[str, list[float]] = {"look-up": [], "store": []}

    async def _call(self) -> None:
        while True:
            began = time.perf_counter()
            await self.store.session(encode(random.choice(self.ids)))
            looked = time.perf_counter()
            await self.store.commit(Add(fresh_session("user0", time.time())))
            self.took["look-up"].append(looked - began)
            self.took["store"].append(time.perf_counter() - looked)
            await asyncio.sleep(PAUSE)

    async def beside(self, work: asyncio.Future[object]) -> None:
        callers = [asyncio.create_task(self._call()) for _ in range(CALLERS)]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(work, AT_MOST)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)


def at(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] * 1000


async def measure(name: str, url: str, ids: list[bytes]) -> None:
    store = make_store(url)
    await store.open()
    alone, beside = Load(store, ids), Load(store, ids)
    await alone.beside(asyncio.ensure_future(asyncio.sleep(ALONE_FOR)))
    began = time.monotonic()
    purge = asyncio.ensure_future(store.purge(before=2.0, events_before=0.0))
    await beside.beside(purge)
    deleted = purge.result() if purge.done() and not purge.cancelled() else "not all"
    print(f"\n{name}: {deleted} rows deleted in {time.monotonic() - began:.0f} s")
    print(f"{'':9} {'calls':>7} {'median':>8} {'p99':>8} {'longest':>8}   p99 beside the purge, times that without it")
    for kind in ("look-up", "store"):
        for what, load in (("alone", alone), ("purge", beside)):
            took = load.took[kind]
            line = f"{kind:9} {len(took):7} {at(took, 0.5):8.2f} {at(took, 0.99):8.2f} {at(took, 1):8.1f}  {what}"
            if what == "purge":
                p99, without = at(took, 0.99), at(alone.took[kind], 0.99)
                line += f": {p99 / without:.1f} times, under {GOAL:g} ms: {'yes' if p99 < GOAL else 'NO'}"
            print(line)
    await store.close()


async def over_sqlite(rows: int) -> None:
    with folder() as place:
        path = place / "door.db"
        store = make_store(f"sqlite:///{path}")
        await store.open()
        await fill(store, min(FILLED, rows))
        await store.close()
        ids = multiply_sqlite(path, rows)
        expire_sqlite(path, int(rows * EXPIRED))
        await measure("SQLite", f"sqlite:///{path}", ids)


async def over_postgres(rows: int) -> None:
    with postgres() as database:
        url = database.url()
        store = make_store(url)
        await store.open()
        await fill(store, min(FILLED, rows))
        await store.close()
        ids = await multiply_postgres(url, rows)
        await expire_postgres(url, int(rows * EXPIRED))
        await measure("PostgreSQL", url, ids)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dutchdoor-purge-") as name:
        yield Path(name)


def main() -> None:
    end_in_order()
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--quick", action="store_true", help="a tenth of the rows")
    reader.add_argument("--only", nargs="*", default=["SQLite", "PostgreSQL"])
    asked = reader.parse_args()
    rows = ROWS // 10 if asked.quick else ROWS
    for name, run in (("SQLite", over_sqlite), ("PostgreSQL", over_postgres)):
        if name in asked.only:
            uvloop.run(run(rows))


if __name__ == "__main__":
    main()
