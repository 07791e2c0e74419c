"""The writer of a SQLite file: durable before it answers, whatever its callers do."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.stores.sqlite.files import in_writer

from dutchdoor.errors import Conflict, Unavailable
from dutchdoor.model.rate_limits import Bucket, Limit
from dutchdoor.stores.base import Add, Log, Revoke, Swap
from dutchdoor.stores.sqlite import SqliteStore
from dutchdoor.testing.conformance import NOW, a_revocation, an_account, an_event

BUCKET = Bucket("b", Limit(name="b", count=1, per_seconds=60.0, burst=100))


async def test_the_writer_is_durable(store):
    """I-11: write-ahead log and synchronous=FULL, also after attempts against limits that waited for no disk."""
    for _ in range(2):
        assert await in_writer(store, lambda c: c.execute("PRAGMA journal_mode").fetchone()) == ("wal",)
        assert await in_writer(store, lambda c: c.execute("PRAGMA synchronous").fetchone()) == (2,)
        await store.hit([BUCKET], NOW)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_flush_comes_before_every_acknowledgement(path):
    """I-11: between a commit's last write to the log and its acknowledgement lies an fdatasync of the log."""
    script = f"""
import asyncio, os
from dutchdoor.stores.sqlite import SqliteStore
from dutchdoor.stores.base import Add
from dutchdoor.testing.conformance import an_account
async def main():
    store = SqliteStore({str(path)!r})
    await store.open()
    for n in range(20):
        await store.commit(Add(an_account(str(n))))
        os.write(1, b"acknowledged\\n")
    await store.close()
asyncio.run(main())
"""
    trace = path.with_suffix(".strace")
    calls = "openat,write,pwrite64,fsync,fdatasync,close"
    done = subprocess.run(
        ["strace", "-f", "-qq", "-e", f"trace={calls}", "-o", trace, sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    logs, unflushed, acknowledged = set(), False, 0
    for line in trace.read_text().splitlines():
        call = line.split(maxsplit=1)[1]
        if call.startswith("openat") and f'{path}-wal"' in call:
            logs.add(call.rpartition("= ")[2].strip())
        name, _, rest = call.partition("(")
        if rest.partition(",")[0].partition(")")[0] in logs:
            if name in {"write", "pwrite64"}:
                unflushed = True
            elif name in {"fsync", "fdatasync"}:
                unflushed = False
        if 'write(1, "acknowledged' in call:
            acknowledged += 1
            assert not unflushed, "acknowledged before it was flushed"
    assert acknowledged == 20
    assert logs


async def test_what_queues_up_is_committed_together(store):
    """Group commit: while one flush runs, others queue, and the next flush serves them all."""
    commits = 0

    def count(sql):
        nonlocal commits
        commits += sql == "COMMIT"

    await in_writer(store, lambda c: c.set_trace_callback(count))
    await asyncio.gather(*[store.commit(Add(an_account(str(n))), Log(an_event())) for n in range(200)])
    assert commits < 20
    assert (await store.counts())["accounts"] == 200


async def test_a_loop_is_woken_once_for_a_batch(store, monkeypatch):
    """Group commit: two hundred answers are one wake-up for a batch and not one each."""
    loop, calls = asyncio.get_running_loop(), []
    original = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *args: (calls.append(args), original(*args))[1])
    await asyncio.gather(*[store.commit(Log(an_event())) for _ in range(200)])
    assert len(calls) < 20


async def test_in_one_batch_each_fails_alone(store):
    """Savepoints: of commits that share a transaction one that fails undoes itself, and none of its neighbours."""
    ada = an_account()
    commits = [store.commit(Add(an_account(f"n{n}")), Log(an_event())) for n in range(50)]
    commits += [store.commit(Log(an_event()), Revoke(a_revocation()), Swap(ada)) for _ in range(50)]
    # Not a conflict but a mistake of the caller: text that no encoding holds, a name that would be read back as two.
    commits += [store.commit(Log(an_event()), Add(replace(an_account(f"s{n}"), name="\ud800"))) for n in range(5)]
    commits += [store.commit(Log(an_event()), Add(replace(an_account(f"r{n}"), roles=("a b",)))) for n in range(5)]
    outcomes = await asyncio.gather(*commits, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[50:]] == [Conflict] * 50 + [UnicodeEncodeError] * 5 + [ValueError] * 5
    counts = await store.counts()
    assert (counts["accounts"], counts["events"], counts["revocations"]) == (50, 50, 0)
    assert (await store.commit()).seq == 0


async def test_no_transaction_is_left_open(path, store):
    """I-25: callers that are cancelled leave no transaction and no lock behind."""
    tasks = [asyncio.create_task(store.commit(Add(an_account(str(n))), Log(an_event()))) for n in range(100)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await store.commit()
    other = sqlite3.connect(path, timeout=0, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("ROLLBACK")
    other.close()
    counts = await store.counts()
    assert counts["accounts"] == counts["events"]


async def test_closing_writes_what_is_queued(path):
    """A store that is closed finishes what it was given, and takes nothing more."""
    before = set(threading.enumerate())
    store = SqliteStore(path)
    await store.open()
    commits = [asyncio.create_task(store.commit(Log(an_event()))) for _ in range(100)]
    await asyncio.sleep(0)
    await store.close()
    assert not [done for done in await asyncio.gather(*commits, return_exceptions=True) if isinstance(done, Exception)]
    for use in (store.commit(), store.account("x"), store.read_log(0, 0), store.accounts(), store.hit([BUCKET], NOW)):
        with pytest.raises(Unavailable):
            await use
    left = set(threading.enumerate()) - before
    assert not [thread for thread in left if thread.name.startswith("dutchdoor-sqlite")]


async def test_closing_leaves_no_descriptor(path):
    """Opened and closed fifty times, from two threads, a store leaves no file open."""

    async def once():
        store = SqliteStore(path)
        await store.open()
        await store.commit(Log(an_event()))
        await store.account("x")
        await asyncio.to_thread(asyncio.run, store.account("x"))
        await store.accounts()
        await store.close()

    await once()
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir())) if descriptors.is_dir() else None
    for _ in range(50):
        await once()
    assert before is None or before == len(list(descriptors.iterdir()))


async def test_several_loops_share_a_store(store):
    """Each caller is answered in the loop it waits in."""

    async def commit_many(name):
        await asyncio.gather(*[store.commit(Add(an_account(f"{name}-{n}"))) for n in range(20)])

    await asyncio.gather(*[asyncio.to_thread(asyncio.run, commit_many(n)) for n in range(4)], commit_many("here"))
    assert (await store.counts())["accounts"] == 100


async def test_a_thread_that_ends_takes_its_connection_with_it(store):
    """Reads from passing threads do not pile up connections."""
    for _ in range(20):
        thread = threading.Thread(target=asyncio.run, args=(store.account("x"),))
        thread.start()
        thread.join()
    assert len(store._readers) <= 1
