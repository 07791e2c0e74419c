"""The head of the log beside a SQLite file: what tells every process of a commit."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

from tests.stores.sqlite.files import in_writer

from dutchdoor.stores import sqlite
from dutchdoor.stores.base import Log, Revoke
from dutchdoor.stores.sqlite import SqliteStore, head, log
from dutchdoor.testing.conformance import a_revocation, an_event, the_log


async def test_the_head_heals_at_opening(path):
    """A restored copy, a crash or a lost file leaves the shared word wrong: the process that opens it sets it right."""
    store = SqliteStore(path)
    await store.open()
    await store.commit(Revoke(a_revocation()), Revoke(a_revocation()))
    await store.close()
    head = Path(f"{path}-head")
    for wrong in (b"", b"\0" * 8, b"\xff" * 8, b"x" * 100, None):
        if wrong is None:
            head.unlink()
        else:
            head.write_bytes(wrong)
        store = SqliteStore(path)
        await store.open()
        assert len(await the_log(store)) == 2
        assert (await the_log(store, 1))[0].seq == 2
        assert tuple(store._head.words) == (1, 2)
        await store.close()


async def test_the_head_is_raised_before_the_commit(path, store):
    """At no moment can an entry be read that the word denies: killed in between, it says too much, not too little."""
    seen = []
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def look(sql):
        if sql == "COMMIT":
            seen.append((store._head.words[1], other.execute("SELECT count(*) FROM revocations").fetchone()[0]))

    await in_writer(store, lambda c: c.set_trace_callback(look))
    await store.commit(Revoke(a_revocation()))
    other.close()
    assert seen[-1] == (1, 0)


async def test_a_commit_that_fails_hides_nothing(store):
    """A word that was raised for a commit that failed costs a look-up; the next entry still gets the next number."""
    store._head.words[1] = 7
    assert await the_log(store) == []
    await store.commit(Revoke(a_revocation()))
    assert tuple(store._head.words) == (1, 1)
    assert [entry.seq for entry in await the_log(store)] == [1]


async def test_a_commit_of_this_process_wakes_at_once(store, monkeypatch):
    """A watcher waits for a timer only where another process writes."""
    monkeypatch.setattr(head, "LOOK_EVERY", 3600.0)
    woken = asyncio.Event()
    unwatch = store.watch(woken.set)
    await asyncio.wait_for(woken.wait(), 60)  # the first look
    for _ in range(3):
        woken.clear()
        await store.commit(Log(an_event()))
        await store.commit(Revoke(a_revocation()))
        await asyncio.wait_for(woken.wait(), 60)
    unwatch()


async def test_a_follower_that_is_woken_finds_the_entry(path, store):
    """Another process raises the head long before its commit is on the disk: no follower is woken for nothing, and then
    left asleep when the entry is there.
    """
    found = []

    async def look():
        found.append(len(await the_log(store)))

    unwatch = store.watch(lambda: tasks.append(asyncio.ensure_future(look())))
    tasks = []
    other = SqliteStore(path)
    await other.open()
    slow = threading.Event()

    def before_commit(sql):
        if sql == "COMMIT":
            slow.wait(60)

    slow.set()
    await in_writer(other, lambda c: c.set_trace_callback(before_commit))
    slow.clear()
    commit = asyncio.ensure_future(other.commit(Revoke(a_revocation())))
    while store.head().seq == 0:
        await asyncio.sleep(0.001)
    for _ in range(10):
        await asyncio.sleep(head.LOOK_EVERY)
    slow.set()
    await commit
    while 1 not in found:
        await asyncio.wait_for(asyncio.sleep(head.LOOK_EVERY), 60)
    await asyncio.gather(*tasks)
    assert set(found) <= {0, 1}
    unwatch()
    await other.close()


async def test_one_timer_serves_all_who_watch(store):
    """A loop looks every few milliseconds once for all, and not at all without a watcher."""
    stops = [store.watch(lambda: None) for _ in range(5)]
    assert len(store._watches) == 1
    (watch,) = store._watches.values()
    for stop in stops:
        assert not watch._timer.cancelled()
        stop()
    assert store._watches == {}
    assert watch._timer.cancelled()


async def test_a_long_log_is_read_beside_the_loop(store, monkeypatch):
    """A few entries are read where they are asked for; a page of them on a thread of its own."""
    threads = set()
    read = sqlite.read_renewed

    def noted(*args, **named):
        threads.add(threading.current_thread().name)
        return read(*args, **named)

    monkeypatch.setattr(sqlite, "read_renewed", noted)
    await store.commit(*[Revoke(a_revocation()) for _ in range(log.PAGE + 10)])
    first = await store.read_log(1, 0)
    assert (len(first.entries), first.upto, first.head) == (log.PAGE, log.PAGE, log.PAGE + 10)
    assert all("scanner" in name for name in threads)
    threads.clear()
    assert len((await store.read_log(1, first.upto)).entries) == 10
    assert threads == {threading.current_thread().name}
