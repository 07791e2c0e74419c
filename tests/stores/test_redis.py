"""Redis beside a store obeys the laws of every store, and wakes the nodes."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest
from tests.backing import a_valkey
from tests.stores.valkey import BACK_WITHIN, KEY, PATIENCE, Far, opened, until

from dutchdoor.stores import redis as redis_store
from dutchdoor.stores.base import Log, Revoke
from dutchdoor.stores.redis import around
from dutchdoor.stores.sqlite import SqliteStore
from dutchdoor.stores.urls import make_store
from dutchdoor.testing.conformance import LAWS, SHARED_LAWS, a_revocation, an_event

OF_REDIS = ("limit", "attempt", "purge", "counted", "watch", "closing")
"""Words in the names of the laws that Redis has a part in. The others are passed on as they are, which two stores are
enough to show.
"""
LAWS_OF_REDIS = [law for law in LAWS if any(word in law.__name__ for word in OF_REDIS)]


@pytest.mark.parametrize(
    ("law", "kind"),
    [
        *(pytest.param(law, "memory", id=f"{law.__name__}-memory") for law in LAWS),
        *(
            pytest.param(
                law, "sqlite", id=f"{law.__name__}-sqlite", marks=[] if law in LAWS_OF_REDIS else pytest.mark.long
            )
            for law in LAWS
        ),
    ],
)
async def test_law(kind, law, tmp_path, valkey_url, patient_links):
    """A store with Redis beside it obeys the law, whatever the store."""
    record = Far() if kind == "memory" else SqliteStore(tmp_path / "test.db")
    async with opened(record, valkey_url) as store:
        await law(store)


@pytest.mark.parametrize("law", LAWS_OF_REDIS, ids=lambda law: law.__name__)
async def test_law_with_postgres(law, prepared_url, valkey_url, patience, patient_links):
    """The same over PostgreSQL."""
    async with opened(make_store(prepared_url), valkey_url) as store:
        await law(store)


def with_sqlite(path, url):
    redis_store.COUNT_FOR = PATIENCE
    return around(SqliteStore(path), url, key=KEY)


@pytest.mark.parametrize(
    "law",
    [
        pytest.param(law, marks=[] if law.__name__ == "contests_have_one_winner_over_processes" else pytest.mark.long)
        for law in SHARED_LAWS
    ],
    ids=lambda law: law.__name__,
)
def test_shared_law(law, tmp_path, valkey_url, monkeypatch):
    """A store with Redis beside it obeys the law over processes."""
    monkeypatch.setattr(redis_store, "COUNT_FOR", redis_store.COUNT_FOR)
    law(partial(with_sqlite, tmp_path / "test.db", valkey_url))


class Deaf(Far):
    """A record that wakes no follower."""

    def watch(self, woken):
        return lambda: None


async def test_a_commit_that_revokes_wakes_every_node(valkey_url, emptied):
    """Who watches is woken by another node's revocation within milliseconds, and by nothing but revocations."""
    async with opened(Deaf(), valkey_url, count=2) as (one, other):
        woken = asyncio.Event()
        unwatch = other.watch(woken.set)
        async with asyncio.timeout(BACK_WITHIN):
            await woken.wait()  # once when it begins to listen
        await asyncio.sleep(2 * redis_store.WAKE_EVERY)
        for _ in range(3):
            woken.clear()
            await one.commit(Log(an_event()))
            await emptied.ping()
            assert not woken.is_set()
            await one.commit(Revoke(a_revocation()))
            async with asyncio.timeout(BACK_WITHIN):
                await woken.wait()
            await asyncio.sleep(2 * redis_store.WAKE_EVERY)
        unwatch()
        woken.clear()
        await one.commit(Revoke(a_revocation()))
        await one.commit(Revoke(a_revocation()))
        await asyncio.sleep(0.05)
        assert not woken.is_set()


async def test_a_flood_of_messages_wakes_a_hundred_times_a_second_at_most(valkey_url, emptied):
    """An attacker who can publish costs a look every ten milliseconds, and the last message is never lost."""
    async with opened(Deaf(), valkey_url) as store:
        woken = []
        store.watch(lambda: woken.append(time.monotonic()))
        await until(lambda: woken)
        started = time.monotonic()
        for _ in range(500):
            last = time.monotonic()
            await emptied.publish(store._channel, b"x" * 1000)
        await until(lambda: woken[-1] >= last)
        took = time.monotonic() - started
        assert len(woken) <= took / redis_store.WAKE_EVERY + 10


async def test_the_channel_is_heard_again_after_the_server_was_away():
    """A subscription that broke is made anew, and what was said meanwhile is looked for."""
    with a_valkey() as server:
        async with opened(Deaf(), server.url, count=2) as (one, other):
            woken = []
            other.watch(lambda: woken.append(1))
            await until(lambda: woken)
            server.kill()
            server.start()
            await until(lambda: len(woken) >= 2)
            woken.clear()

            async def revoked():
                await one.commit(Revoke(a_revocation()))
                await asyncio.sleep(0.02)
                return woken

            await until(revoked)
