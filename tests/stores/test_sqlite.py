"""What is special to SQLite: durability, group commit, migrations, and what happens when the file cannot be written."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import grp
import multiprocessing
import os
import pwd
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from dutchdoor.auth.key_file import read_or_make_master_key
from dutchdoor.errors import Conflict, Misconfigured, Unavailable
from dutchdoor.model.rate_limits import Bucket, Limit
from dutchdoor.stores import sqlite
from dutchdoor.stores.base import Add, Log, Revoke, Swap
from dutchdoor.stores.kinds import KINDS
from dutchdoor.stores.sqlite import SqliteStore, changes, file, head, log, records, writer
from dutchdoor.stores.urls import make_store
from dutchdoor.testing.conformance import NOW, a_revocation, a_session, an_account, an_event, the_log

FORK = multiprocessing.get_context("forkserver")
BUCKET = Bucket("b", Limit(name="b", count=1, per_seconds=60.0, burst=100))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "test.db"


@pytest.fixture
async def store(path):
    store = SqliteStore(path)
    await store.open()
    yield store
    await store.close()


async def in_writer(store, work):
    """Run something with the writer's connection, in the writer's transaction."""
    return await store._write(lambda transaction: work(transaction.connection), atomic=True)


def intact(path):
    with sqlite3.connect(path) as connection:
        return connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


# --- durability -------------------------------------------------------------------------------------------------------


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


# --- callers and threads ----------------------------------------------------------------------------------------------


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


# --- when the file cannot be written ----------------------------------------------------------------------------------


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
    stuck = asyncio.create_task(in_writer(store, lambda c: hangs.wait(60)))
    await asyncio.sleep(0.01)
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
    monkeypatch.setattr(writer, "_QUEUE_AT_MOST", 60)
    hangs = threading.Event()
    stuck = asyncio.create_task(in_writer(store, lambda c: hangs.wait(60)))
    await asyncio.sleep(0.01)
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

    spoiling = asyncio.create_task(in_writer(store, spoil))
    await asyncio.sleep(0.01)
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


# --- the head of the log ----------------------------------------------------------------------------------------------


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


# --- the file ---------------------------------------------------------------------------------------------------------


async def test_the_files_are_their_owners_alone(path, store):
    """Hashes and sealed keys are closed to other users: every file has mode 0600, whatever the umask."""
    await store.commit(Revoke(a_revocation()))
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(["test.db", "test.db-wal", "test.db-shm", "test.db-head"], 0o600)


@pytest.mark.parametrize("end", ["", "-wal", "-shm", "-head"])
@pytest.mark.parametrize("mode", [0o666, 0o644, 0o620, 0o604])
async def test_p10_a_file_that_others_can_read_or_change_is_refused(path, end, mode):
    """A database of which another user of the machine can read or change any file is not opened, by the rule for the
    file of master keys; the message names the file and what closes it.
    """
    store = SqliteStore(path)
    await store.open()
    await store.close()
    file = Path(f"{path}{end}")
    file.touch()
    file.chmod(mode)
    with pytest.raises(Misconfigured) as refused:
        await store.open()
    assert f"chmod 600 {file}" in str(refused.value)
    file.chmod(0o600)
    await store.open()
    await store.close()


def a_group_without_a_name():
    named = {group.gr_gid for group in grp.getgrall()}
    return next(number for number in range(54_321, 60_000) if number not in named)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take another group")
async def test_p10_a_volume_of_kubernetes_is_opened(path):
    """Kubernetes gives each file of a volume to the pod's fsGroup, with mode 0660. Such a database is opened, with its
    master key: the group is one of the process, and has no name. A group that has one, or is not ours, is refused, and
    so is a file that the world can read.
    """
    ours, keys = a_group_without_a_name(), path.with_name("keys")
    os.setegid(ours)
    try:
        await (store := SqliteStore(path)).open()
        read_or_make_master_key(keys)
        await store.close()
        for group, mode, opens in (
            (ours, 0o660, True),
            (ours, 0o664, False),
            (0, 0o660, False),
            (ours + 1, 0o660, False),
            (ours, 0o600, True),
        ):
            for file in path.parent.iterdir():
                os.chown(file, -1, group)
                file.chmod(mode)
            for open_it in (store.open, functools.partial(asyncio.to_thread, read_or_make_master_key, keys)):
                with contextlib.nullcontext() if opens else pytest.raises(Misconfigured):
                    await open_it()
            if opens:
                await store.commit(Revoke(a_revocation()))
                await store.close()
    finally:
        os.setegid(0)


@pytest.mark.parametrize("end", ["-wal", "-shm", "-head"])
@pytest.mark.parametrize("lost", [True, False])
async def test_p10_a_link_beside_the_database_is_not_followed(path, tmp_path, end, lost):
    """A link that another user of the machine puts where a file of the database belongs makes us neither overwrite nor
    create what it leads to.
    """
    target, link = tmp_path / "target", Path(f"{path}{end}")
    if not lost:
        target.write_text("of somebody else")
        target.chmod(0o600)
    link.symlink_to(target)
    with pytest.raises(Misconfigured) as refused:
        await SqliteStore(path).open()
    assert str(link) in str(refused.value)
    assert target.read_text() == "of somebody else" if not lost else not target.exists()


async def test_p10_a_pipe_in_place_of_the_head_is_refused(path):
    """What is no file is refused, and is not waited for."""
    os.mkfifo(f"{path}-head", 0o600)
    with pytest.raises(Misconfigured):
        await SqliteStore(path).open()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
async def test_p10_a_command_of_root_leaves_the_files_to_the_databases_owner(path):
    """Root runs a command on the database of a service: every file beside it belongs to the service's user after, who
    could not open it otherwise.
    """
    await (store := SqliteStore(path)).open()
    await store.close()
    nobody = pwd.getpwnam("nobody")
    os.chown(path, nobody.pw_uid, nobody.pw_gid)
    for beside in Path(path).parent.glob(f"{Path(path).name}-*"):
        beside.unlink()
    await store.open()
    owners = {each.name: each.stat().st_uid for each in Path(path).parent.glob(f"{Path(path).name}*")}
    await store.close()
    assert set(owners.values()) == {nobody.pw_uid}
    assert f"{Path(path).name}-head" in owners


async def test_a_session_is_found_by_its_key(path, store):
    """Look-ups use indexes: none of the reads of a request scans a table, and live sessions have a small index."""
    plans = {
        records.SESSION_WITH_ACCOUNT: 1,
        records.SESSIONS_OF: 2,
        "SELECT 1 FROM accounts WHERE email = ?": 1,
        "DELETE FROM one_time_tokens WHERE subject = ? AND purpose = ?": 2,
        changes._END_ALL: 4,
        changes._ENDING: 2,
        changes._LIVE: 2,
    }
    connection = sqlite3.connect(path)
    for sql, values in plans.items():
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", ["x"] * values)]
        assert not [step for step in plan if step.startswith("SCAN")], plan
    assert "sessions_not_ended" in str(list(connection.execute(f"EXPLAIN QUERY PLAN {records.SESSIONS_OF}", ["x", 1])))
    connection.close()


def test_urls_name_files():
    """Three slashes are relative, four absolute; anything else is refused before a file is made of it."""
    assert make_store("sqlite:////srv/door.db")._path == Path("/srv/door.db")
    assert make_store("sqlite:///door.db")._path == Path.cwd() / "door.db"
    for wrong in (
        "sqlite:",
        "sqlite://host/x",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///x?mode=ro",
        "mysql://h/x",
        "x",
    ):
        with pytest.raises(Misconfigured):
            make_store(wrong)


async def test_a_directory_that_is_not_there_is_misconfigured(tmp_path):
    """Opening makes no directories: a mistyped path is reported, not created."""
    with pytest.raises(Misconfigured):
        await SqliteStore(tmp_path / "no" / "such.db").open()


@pytest.mark.parametrize("kind", ["text", "other", "application"])
async def test_a_file_that_is_not_ours_is_not_touched(path, kind):
    """The file of another program stays as it was, and is refused by name."""
    if kind == "text":
        path.write_text("not a database " * 100)
    else:
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE migrations (id)" if kind == "application" else "CREATE TABLE users (id)")
        other.close()
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(Misconfigured):
        await SqliteStore(path).open()
    if kind == "text":
        assert path.read_bytes() == before
    else:
        with sqlite3.connect(path) as other:
            assert len(list(other.execute("SELECT * FROM sqlite_master"))) == 1
        other.close()


# --- migrations -------------------------------------------------------------------------------------------------------


async def test_a_newer_database_is_refused(path):
    """A program never works on a schema it does not know, nor on one that was changed after its release."""
    store = SqliteStore(path)
    await store.open()
    await store.close()
    with sqlite3.connect(path) as other:
        other.execute("INSERT INTO migrations VALUES ('9999_later.sql', 'x')")
    other.close()
    with pytest.raises(Misconfigured):
        await store.open()
    with sqlite3.connect(path) as other:
        other.execute("DELETE FROM migrations WHERE name LIKE '9999%'")
        other.execute("UPDATE migrations SET sha256 = 'x'")
    other.close()
    with pytest.raises(Misconfigured):
        await store.open()


LATER = {
    "9998_second.sql": "CREATE TABLE second (x); -- a comment; with a semicolon\nINSERT INTO second VALUES (';');\n",
    "9999_third.sql": "ALTER TABLE second ADD COLUMN y;\nUPDATE second SET y = 1;\nCREATE INDEX i ON second (y);\n",
}


def with_later(folder):
    """The kinds there are, with migrations of a later version."""
    (folder / "sqlite").mkdir(parents=True, exist_ok=True)
    for name, text in LATER.items():
        if not (folder / "sqlite" / name).exists():  # another process may be reading it
            (folder / "sqlite" / name).write_text(text)
    return KINDS.plus(migrations=folder)


def open_and_die_at(path, step):
    """Migrate in a process that is killed at its n-th statement."""
    connect = file.connect
    steps = 0

    def count(sql):
        nonlocal steps
        steps += 1
        if steps == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def connect_and_count(path, *, wait):
        connection = connect(path, wait=wait)
        connection.set_trace_callback(count)
        return connection

    file.connect = connect_and_count
    asyncio.run(SqliteStore(path, kinds=with_later(path.parent / "later")).open())


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.long)])
async def test_a_migration_killed_at_any_statement_resumes(path, stride):
    """Killed at each statement in turn (or at each fifth), over and over on the same file, a migration ends complete
    and exactly once.
    """

    async def schema_of(path):
        store = SqliteStore(path, kinds=with_later(path.parent / "later"))
        await store.open()
        await store.close()
        connection = sqlite3.connect(path)
        found = list(connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name"))
        found += list(connection.execute("SELECT * FROM migrations ORDER BY name"))
        found += list(connection.execute("SELECT * FROM second"))
        found += list(connection.execute("SELECT only, epoch, length(salt), seq FROM revocation_log"))
        connection.close()
        return found

    def run(step, path):
        process = FORK.Process(target=open_and_die_at, args=(path, step))
        process.start()
        process.join(60)
        return process.exitcode

    step, killed = 1, -signal.SIGKILL
    while await asyncio.to_thread(run, step, path) == killed:
        step += stride
        assert intact(path)
    assert step > len(LATER) + 10
    fresh = path.with_name("fresh.db")
    assert await schema_of(path) == await schema_of(fresh)


async def test_processes_that_open_at_once_migrate_once(path):
    """Four processes that start together end with one schema, and none fails."""
    with_later(path.parent / "later")
    processes = [FORK.Process(target=open_and_die_at, args=(path, 0)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        await asyncio.to_thread(process.join, 60)
    assert [process.exitcode for process in processes] == [0] * 4


async def test_what_was_read_before_is_read_again(path, store):
    """A session that was read before is what the database says now, after any change of it or its account."""
    ada = an_account()
    session = a_session(ada)
    await store.commit(Add(ada), Add(session))
    other = SqliteStore(path)
    await other.open()

    async def both_see(*expected):
        for _ in range(2):
            assert await store.session(session.id) == await other.session(session.id) == expected

    await both_see(session, ada)
    session = replace(session, generation=1, revision=1)
    await other.commit(Swap(replace(session, revision=0)))
    await both_see(session, ada)
    ada = replace(ada, roles=("admin",), revision=1)
    await other.commit(Swap(replace(ada, revision=0)))
    await both_see(session, ada)
    by_hand = sqlite3.connect(path)
    for sql, change in (
        ("UPDATE accounts SET active = 0", lambda: (session, replace(ada, status="disabled"))),
        ("UPDATE accounts SET active = 0, epoch = 9", lambda: (session, replace(ada, status="disabled", epoch=9))),
        (
            "UPDATE sessions SET ended_at = 5.0",
            lambda: (replace(session, ended_at=5.0), replace(ada, status="disabled", epoch=9)),
        ),
    ):
        by_hand.execute(sql)
        by_hand.commit()
        await both_see(*change())
    by_hand.execute("DELETE FROM sessions")
    by_hand.commit()
    by_hand.close()
    assert await store.session(session.id) is None
    await other.close()


def _open_and_close(path, gate, said):
    async def once():
        store = SqliteStore(path)
        await store.open()
        await store.close()

    gate.wait()
    try:
        asyncio.run(once())
    except Exception as exc:  # noqa: BLE001 - the parent tells
        said.put(repr(exc.__cause__ or exc))
    else:
        said.put("")


@pytest.mark.parametrize("files", [1, pytest.param(4, marks=pytest.mark.long)])
def test_processes_that_open_a_new_file_at_once_all_get_in(tmp_path, files):
    """Several workers that start together make one database: none is refused because another is making it."""
    gate, said = FORK.Event(), FORK.Queue()
    paths = [tmp_path / f"{n}.db" for n in range(files) for _ in range(3)]
    workers = [FORK.Process(target=_open_and_close, args=(path, gate, said)) for path in paths]
    for worker in workers:
        worker.start()
    gate.set()
    assert [said.get(timeout=60) for _ in workers] == [""] * len(workers)
    for worker in workers:
        worker.join()
