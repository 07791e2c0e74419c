"""One store, or the bare driver, under callers: `python -m benchmarks.store_worker KIND REDIS URL IDS CALLERS SECONDS`.

Prints JSON. What it does for `stores.py`, whose head says what the operations are:

memory, sqlite, postgres, valkey   our store that the URL names, beside a Valkey if REDIS is not "-"
look                               look-ups alone
driver                             asyncpg, a statement a call, in a pool of 16 connections
batches                            asyncpg, the statements of 64 callers as one, on two connections: the limit
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import uvloop
from msgspec.structs import replace

from benchmarks.callers import Operation, asked, measured, tell
from benchmarks.filling import fill, fresh_session
from dutchdoor.model.ids import encode
from dutchdoor.model.master_key import MasterKey
from dutchdoor.stores.base import Add, Store, Swap
from dutchdoor.stores.redis import RedisStore, around
from dutchdoor.stores.urls import make_store

JOINED = """
SELECT s.*, a.number, a.subject, a.email, a.name, a.roles, a.active, a.email_verified_at, a.epoch AS account_epoch,
    a.address AS account_address, a.created_at AS account_created_at, a.revision AS account_revision
FROM dutchdoor.sessions s JOIN dutchdoor.accounts a ON a.number = s.account WHERE s.id = $1
"""
JOINED_MANY = JOINED.replace("s.id = $1", "s.id = ANY($1::bytea[])")
ROTATE = """
UPDATE dutchdoor.sessions SET generation = generation + 1, rotated_at = $2, revision = revision + 1
WHERE id = $1 AND revision = $3 AND ended_at IS NULL
"""
ROTATE_MANY = """
UPDATE dutchdoor.sessions s SET generation = s.generation + 1, rotated_at = $2, revision = s.revision + 1
FROM unnest($1::bytea[], $3::bigint[]) AS wanted(id, revision)
WHERE s.id = wanted.id AND s.revision = wanted.revision AND s.ended_at IS NULL
"""


def ours(store: Store, ids: Sequence[bytes], callers: int, log_epoch: int) -> dict[str, Operation]:
    known = [encode(raw) for raw in ids]
    turn = itertools.cycle(known)
    # Every caller has sessions of its own, so that no rotation loses a race.
    own = [itertools.cycle(known[number::callers]) for number in range(callers)]
    subjects = itertools.cycle(range(len(known) // 4))

    async def look_up(_number: int) -> object:
        found = await store.session(next(turn))
        assert found is not None
        return found

    async def look_up_copy(_number: int) -> object:
        assert isinstance(store, RedisStore)
        wanted = next(turn)
        copy = await store.recent_session(wanted, log_epoch)
        if copy is not None:
            return copy
        read_at = time.time()
        found = await store.session(wanted)
        assert found is not None
        store.keep_recent(*found, read_at, log_epoch)
        return found

    async def create(_number: int) -> object:
        return await store.commit(Add(fresh_session(f"user{next(subjects)}", time.time())))

    async def rotate(number: int) -> object:
        found = await store.session(next(own[number]))
        assert found is not None
        session = found[0]
        return await store.commit(Swap(replace(session, generation=session.generation + 1, rotated_at=time.time())))

    return {
        "look-up": look_up_copy if isinstance(store, RedisStore) else look_up, "create": create, "rotate": rotate,
    }  # fmt: skip


class Together:
    """Calls of the same moment become one: what the limit is measured with."""

    def __init__(self, work: Callable[[list[Any]], Awaitable[object]], lanes: int) -> None:
        self._work, self._waiting = work, asyncio.Queue[tuple[Any, asyncio.Future[object]]]()
        self._lanes = [asyncio.ensure_future(self._run()) for _ in range(lanes)]

    async def __call__(self, wanted: Any) -> object:
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((wanted, done))
        return await done

    async def _run(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while not self._waiting.empty() and len(batch) < 64:
                batch.append(self._waiting.get_nowait())
            try:
                answer = await self._work([wanted for wanted, _ in batch])
            except Exception as exc:  # noqa: BLE001 - it is the callers'
                for _, done in batch:
                    done.set_exception(exc)
                continue
            for _, done in batch:
                done.set_result(answer)


async def driver(url: str, ids: Sequence[bytes], callers: int, *, batches: bool) -> dict[str, Operation]:
    pool = await asyncpg.create_pool(url, min_size=16, max_size=16, reset=_nothing)
    template = await pool.fetchrow("SELECT * FROM dutchdoor.sessions LIMIT 1")
    names = list(template.keys())
    marks = ", ".join(f"${number}" for number in range(1, len(names) + 1))
    insert = f"INSERT INTO dutchdoor.sessions ({', '.join(names)}) VALUES ({marks})"
    turn = itertools.cycle(ids)
    own = [itertools.cycle(ids[number::callers]) for number in range(callers)]

    def new_row() -> list[Any]:
        return [int(time.time() * 1000).to_bytes(6, "big") + secrets.token_bytes(10), *list(template.values())[1:]]

    async def look_up(_number: int) -> object:
        return await pool.fetchrow(JOINED, next(turn))

    async def create(_number: int) -> object:
        return await pool.execute(insert, *new_row())

    async def rotate(number: int) -> object:
        row = await pool.fetchrow(JOINED, next(own[number]))
        done = await pool.execute(ROTATE, row["id"], time.time(), row["revision"])
        assert done == "UPDATE 1"
        return done

    if not batches:
        return {"look-up": look_up, "create": create, "rotate": rotate}
    read = Together(lambda wanted: _by_id(pool, wanted), 2)
    write = Together(lambda rows: pool.copy_records_to_table(
        "sessions", schema_name="dutchdoor", columns=names, records=rows), 2)  # fmt: skip
    change = Together(
        lambda rows: pool.execute(ROTATE_MANY, [row["id"] for row in rows], time.time(), [r["revision"] for r in rows]),
        2,
    )

    async def look_up_together(_number: int) -> object:
        wanted = next(turn)
        return (await read(wanted))[wanted]

    async def create_together(_number: int) -> object:
        return await write(new_row())

    async def rotate_together(number: int) -> object:
        wanted = next(own[number])
        return await change((await read(wanted))[wanted])

    return {"look-up": look_up_together, "create": create_together, "rotate": rotate_together}


async def _by_id(pool: asyncpg.Pool, wanted: list[bytes]) -> dict[bytes, asyncpg.Record]:
    return {row["id"]: row for row in await pool.fetch(JOINED_MANY, wanted)}


async def _nothing(_connection: object) -> None:
    """A pool that resets a connection asks the server once more for each call."""


async def main() -> None:
    kind, redis = sys.argv[1:3]
    url, ids, callers, seconds = asked()
    if kind in {"driver", "batches"}:
        operations = await driver(url, ids, max(callers), batches=kind == "batches")
        tell(await measured(operations, callers, seconds))
        return
    store: Store = make_store(url)
    if redis != "-":
        store = around(store, redis, key=MasterKey.generate().derive("bench"))
    await store.open()
    if kind == "memory":
        ids = await fill(store, len(ids))
    epoch = (await store.read_log(0, 0)).log_epoch
    operations = ours(store, ids, max(callers), epoch)
    if kind == "look":
        operations = {"look-up": operations["look-up"]}
    tell(await measured(operations, callers, seconds))
    await store.close()


if __name__ == "__main__":
    uvloop.run(main())
