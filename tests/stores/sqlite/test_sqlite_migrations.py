"""Migrations of a SQLite file: killed, at once in several processes, or of a newer program."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3

import pytest
from msgspec.structs import replace
from tests.stores.sqlite.files import FORK, intact

from dutchdoor.errors import Misconfigured
from dutchdoor.stores.base import Add, Swap
from dutchdoor.stores.kinds import KINDS
from dutchdoor.stores.sqlite import SqliteStore, file
from dutchdoor.testing.conformance import a_session, an_account


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
