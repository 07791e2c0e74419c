"""What the tests of Redis beside a store share: servers, a record that is far away, and sign-ins."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time

from dutchdoor.errors import Unavailable
from dutchdoor.model.rate_limits import Bucket, Limit
from dutchdoor.revocation.node_messages import FIRST_EPOCH
from dutchdoor.stores.base import Add
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.stores.redis import around
from dutchdoor.testing.conformance import NOW, a_session, an_account

KEY = bytes(range(32))
BACK_WITHIN = 60.0
PATIENCE = 60.0
SLOW = Limit(name="slow", count=5, per_seconds=3600.0, burst=5)
CEILING = Limit(name="ceiling", count=7, per_seconds=float("inf"), burst=7)


class Far(MemoryStore):
    """A record that is a network away: it cannot tell the head of its log at once. Counts the sessions it is asked
    for.
    """

    asked = 0

    def __init__(self):
        super().__init__()
        self.first_epoch = self._log_epoch = FIRST_EPOCH  # as a database that loses nothing

    def head(self):
        return None

    async def session(self, session_id):
        self.asked += 1
        return await super().session(session_id)


@contextlib.asynccontextmanager
async def opened(record, url, *, count=1, key=KEY, patient=True):
    """Stores over one record, as of several nodes. A busy machine is no outage, but where outages are tried."""
    stores = [around(record, url, key=key) for _ in range(count)]
    for store in stores:
        await store.open()
        for link in store._links() if patient else ():
            link._wait = PATIENCE
    try:
        yield stores if count > 1 else stores[0]
    finally:
        for store in stores:
            await store.close()


async def until(condition, within=BACK_WITHIN):
    deadline = time.monotonic() + within
    while True:
        answer = condition()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def a_signed_in(record):
    ada = an_account()
    session = a_session(ada)
    await record.commit(Add(ada), Add(session))
    return ada, session


async def copied(store, ada, session, read_at=NOW, log_epoch=1):
    """Keep a copy, and wait until it is there."""
    store.keep_recent(session, ada, read_at, log_epoch)
    await until(lambda: has_copy(store, session, read_at, log_epoch))


async def has_copy(store, session, read_at, log_epoch):
    found = await store.recent_session(session.id, log_epoch)
    return found is not None and found[2] == read_at


async def is_counting(store):
    try:
        await store.hit([Bucket(f"slow:{random.random()}", SLOW)], NOW)
    except Unavailable:
        return False
    return True


async def timed(awaitable):
    started = time.monotonic()
    try:
        return await awaitable, time.monotonic() - started
    except Unavailable as exc:
        return exc, time.monotonic() - started
