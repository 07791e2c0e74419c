"""A SQLite file that cannot be written, for a while or for good."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import threading
import time

import pytest
from msgspec.structs import replace
from tests.stores.sqlite.files import FORK, in_writer, intact

from dutchdoor.errors import Unavailable
from dutchdoor.stores import sqlite
from dutchdoor.stores.base import Add, Log, Revoke, Swap
from dutchdoor.stores.sqlite import SqliteStore, writer
from dutchdoor.testing.conformance import a_revocation, a_session, an_account, an_event, the_log


async def stuck_in_writer(store, work):
    """Work that the writer has begun, and what comes next is no part of its batch."""
    begun = threading.Event()

    def begins(connection):
        begun.set()
        work(connection)

    task = asyncio.create_task(in_writer(store, begins))
    assert await asyncio.to_thread(begun.wait, 60)
    return task


async def test_another_writer_is_waited_for(path, store):
    """A commit waits for another process's write, and then happens."""
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    commit = asyncio.create_task(store.commit(Log(an_event())))
    await asyncio.sleep(0.05)
    assert not commit.done()
    assert await store.events() == [], "reads go on meanwhile"
    other.execute("COMMIT")
    await commit
    other.close()


async def test_a_lock_that_is_never_given_back_is_unavailable(path, store, monkeypatch):
    """A commit that waits too long for another process is Unavailable, nothing of it happened, and the next works."""
    monkeypatch.setattr(writer, "_LOCK_FOR", 0.1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    outcomes = await asyncio.gather(*[store.commit(Log(an_event())) for _ in range(9)], return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    assert not store._writer.answers, "whoever comes now does not wait as long"
    other.execute("ROLLBACK")
    other.close()
    await store.commit(Log(an_event()))
    assert len(await store.events()) == 1
    assert store._writer.answers


async def test_a_request_in_an_outage_gets_its_answer_soon(path, store, monkeypatch):
    """Once a caller waited for the lock or the disk in vain, no other waits as long, until a commit succeeds."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(sqlite, "_ANSWER_FOR", 0.05)
    with pytest.raises(Unavailable):
        await store.commit(Log(an_event()))
    monkeypatch.setattr(sqlite, "_ANSWER_FOR", 3600.0)
    monkeypatch.setattr(writer, "_LOCK_FOR", 3600.0)
    monkeypatch.setattr(sqlite, "_ANSWER_FOR_AFTER", 0.05)
    outcomes = await asyncio.gather(*[store.commit(Log(an_event())) for _ in range(9)], return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    monkeypatch.setattr(sqlite, "_ANSWER_FOR_AFTER", 60.0)
    waiting = asyncio.create_task(store.commit(Log(an_event())))
    await asyncio.sleep(0)
    other.execute("ROLLBACK")
    other.close()
    await waiting
    assert len(await store.events()) == 1, "what its caller gave up is not written later, when it can be helped"
    monkeypatch.setattr(sqlite, "_ANSWER_FOR_AFTER", 0.0)
    await store.commit(Log(an_event()))


async def test_a_disk_that_hangs_is_unavailable(store, monkeypatch):
    """A caller gives up on a disk that does not answer; the commits behind it that no caller waits for are dropped."""
    monkeypatch.setattr(sqlite, "_ANSWER_FOR", 0.05)
    hangs = threading.Event()
    stuck = await stuck_in_writer(store, lambda c: hangs.wait(60))
    begun = time.monotonic()
    outcomes = await asyncio.gather(stuck, *[store.commit(Log(an_event())) for _ in range(9)], return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    assert time.monotonic() - begun < 30
    hangs.set()
    monkeypatch.setattr(sqlite, "_ANSWER_FOR", 5.0)
    await store.commit(Log(an_event()))
    assert len(await store.events()) == 1


async def test_a_queue_that_is_full_is_unavailable(store, monkeypatch):
    """What the disk cannot keep up with is refused at once, and not kept in memory without end."""
    monkeypatch.setattr(writer, "_QUEUE_AT_MOST", 10)
    hangs = threading.Event()
    stuck = await stuck_in_writer(store, lambda c: hangs.wait(60))
    commits = [asyncio.create_task(store.commit(Log(an_event()))) for _ in range(30)]
    await asyncio.sleep(0)
    refused = [commit for commit in commits if commit.done()]
    assert len(refused) == 20
    hangs.set()
    outcomes = await asyncio.gather(stuck, *commits, return_exceptions=True)
    assert sum(isinstance(outcome, Unavailable) for outcome in outcomes) == 20
    assert len(await store.events()) == 10


@pytest.mark.parametrize("pragma", ["max_page_count = 1", "query_only = ON"], ids=["full", "read-only"])
async def test_a_write_that_fails_is_unavailable_and_leaves_nothing(path, store, pragma):
    """Full or read-only: the batch is Unavailable, nothing is half done, reads go on, and later writes succeed."""
    ada = an_account()
    session = a_session(ada)
    await store.commit(Add(ada), Add(session))
    before = await store.counts()
    queued = threading.Event()

    def spoil(connection):
        connection.execute("COMMIT")
        connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute("BEGIN")
        assert queued.wait(60)

    spoiling = await stuck_in_writer(store, spoil)
    large = replace(an_event(), detail="x" * 100_000)
    change = Swap(replace(ada, epoch=1)), Revoke(a_revocation()), Log(large)
    commits = [asyncio.create_task(store.commit(*change)) for _ in range(9)]
    await asyncio.sleep(0)
    queued.set()  # they are one batch now
    await spoiling
    outcomes = await asyncio.gather(*commits, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    assert await store.counts() == before
    assert await store.session(session.id) == (session, ada)
    assert await the_log(store) == []
    await store.commit(Swap(replace(ada, epoch=1)), Revoke(a_revocation()), Log(large))
    assert [entry.seq for entry in await the_log(store)] == [1]
    assert intact(path)


def fill_the_disk(path, pipe):
    """In a process whose files may not grow past a limit: commit until it fails, tell what was acknowledged."""

    async def main():
        store = SqliteStore(path)
        await store.open()
        await store.commit(Log(an_event()))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
        kept, failures = [], []
        for _ in range(150):
            large = replace(an_event(), detail="x" * 10_000)
            try:
                await store.commit(Revoke(a_revocation(large.id)), Log(large))
                kept.append(large.id)
            except Exception as exc:  # noqa: BLE001
                failures.append(type(exc).__name__)
        readable = (await store.counts())["events"]
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        last = replace(an_event(), detail="x" * 10_000)
        await store.commit(Revoke(a_revocation(last.id)), Log(last))
        await store.close()
        pipe.send(([*kept, last.id], failures, readable))

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    asyncio.run(main())


async def test_a_full_disk_is_unavailable_until_there_is_room(path):
    """With a file that really cannot grow: Unavailable, half of nothing, and no restart needed once there is room."""
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=fill_the_disk, args=(path, theirs))
    process.start()
    assert await asyncio.to_thread(ours.poll, 60)
    acknowledged, failures, readable = ours.recv()
    process.join()
    assert set(failures) == {"Unavailable"}
    assert readable == len(acknowledged), "the first event, and all but the last"
    store = SqliteStore(path)
    await store.open()
    assert {event.id for event in await store.events(limit=1000)} >= set(acknowledged)
    log = await the_log(store)
    assert [entry.id for entry in log] == acknowledged
    assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
    await store.close()
    assert intact(path)
