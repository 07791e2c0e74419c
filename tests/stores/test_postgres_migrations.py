"""Migrations of PostgreSQL, by several programs at once, in a schema of their own."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time

import asyncpg
import pytest
from tests.backing import PASSWORD
from tests.stores.postgres import BUCKET, KILL, opened, timed

from dutchdoor.errors import Misconfigured, Unavailable
from dutchdoor.stores.base import Add, Log, Revoke, Swap
from dutchdoor.stores.kinds import KINDS
from dutchdoor.stores.postgres import from_url, schema
from dutchdoor.testing.conformance import NOW, a_revocation, a_session, an_account, an_event

pytestmark = pytest.mark.usefixtures("patience")  # a busy machine is no outage


async def test_opening_again_changes_nothing(store, beside, postgres_url):
    """A migration is applied once, and noted with its digest."""
    before = await beside.fetch("TABLE dutchdoor.migrations")
    async with opened(postgres_url):
        pass
    assert await beside.fetch("TABLE dutchdoor.migrations") == before
    assert [row["name"] for row in before] == [one.name for one in KINDS.migrations("postgres")]


async def test_programs_of_two_versions_run_side_by_side(store, beside, postgres_url):
    """I-26: what a newer program added is no matter to us; what it changed otherwise stops us, at once or when we
    connect again; and a released migration that was edited is found out.
    """
    ada = an_account()
    await store.commit(Add(ada))
    # What an additive migration may do: a column that old programs do not write, a table, a function beside the old.
    await beside.execute("ALTER TABLE dutchdoor.sessions ADD newer text; CREATE TABLE dutchdoor.newer (id text)")
    await beside.execute("INSERT INTO dutchdoor.migrations VALUES ('0002_more.sql', 'x', true)")
    session = a_session(ada)
    async with opened(postgres_url) as late:
        for one in (store, late):
            await one.commit(*([Add(session)] if one is store else [Swap(session)]))
            assert (await one.session(session.id))[1] == ada
    await beside.execute("INSERT INTO dutchdoor.migrations VALUES ('0003_other.sql', 'x', false)")
    with pytest.raises(Misconfigured) as refused:
        await from_url(postgres_url).open()
    assert "0003_other.sql" in refused.value.reason
    await beside.execute(KILL)
    for _ in range(3):
        assert isinstance((await timed(store.session(session.id)))[1], Unavailable)
    await beside.execute("DELETE FROM dutchdoor.migrations WHERE name LIKE '0003%'")
    await beside.execute("UPDATE dutchdoor.migrations SET sha256 = 'y' WHERE name = '0001_first.sql'")
    with pytest.raises(Misconfigured):
        await from_url(postgres_url).open()


async def test_who_is_about_to_leave_is_waited_for(postgres_url, monkeypatch):
    """A move may follow the stop of a server at once: what is left of its connections is no other process."""
    monkeypatch.setattr(schema, "_LEAVES_WITHIN", 60.0)
    leaving = await asyncpg.connect(postgres_url, server_settings={"application_name": "dutchdoor"})
    store = from_url(postgres_url)
    opening = asyncio.create_task(store.open(to_move=True))
    await asyncio.sleep(0.3)
    assert not opening.done()
    await leaving.close()
    await opening
    await store.close()


async def test_another_applications_schema_is_left_alone(postgres_url, beside):
    """A schema of our name that is not ours is not written to; an empty one that an operator made is used."""
    await beside.execute("CREATE SCHEMA dutchdoor; CREATE TABLE dutchdoor.theirs (x int)")
    with pytest.raises(Misconfigured):
        await from_url(postgres_url).open()
    await beside.execute("DROP TABLE dutchdoor.theirs")
    async with opened(postgres_url) as store:
        assert (await store.commit()).seq == 0


async def test_a_role_needs_no_more_than_its_schema(postgres_url, beside):
    """A role that may not make schemas serves from one that was made for it."""
    name = f"door_{os.getpid()}_{random.randrange(10**9)}"
    await beside.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    try:
        url = postgres_url.replace(f"postgres:{PASSWORD}@", f"{name}:x@")
        with pytest.raises(Misconfigured):
            await from_url(url).open()
        await beside.execute(f"CREATE SCHEMA dutchdoor AUTHORIZATION {name}")
        async with opened(url) as store:
            ada = an_account()
            await store.commit(Add(ada), Add(a_session(ada)), Revoke(a_revocation()), Log(an_event()))
            await store.hit([BUCKET], NOW)
            await store.purge(before=NOW, events_before=NOW)
    finally:
        await beside.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


OPEN = """
import asyncio, sys
from dutchdoor.stores.postgres import from_url, schema
async def main():
    store = from_url(sys.argv[1])
    print("go", flush=True)
    await store.open()
    print((await store.commit()).seq, flush=True)
    await store.close()
asyncio.run(main())
"""


def open_in_process(url):
    return subprocess.Popen([sys.executable, "-c", OPEN, url], stdout=subprocess.PIPE, text=True)


def test_four_processes_migrate_at_once(postgres_url):
    """I-26: one of them does it, and all open."""
    processes = [open_in_process(postgres_url) for _ in range(4)]
    assert [process.communicate(timeout=60)[0].split() for process in processes] == [["go", "0"]] * 4


@pytest.mark.parametrize("moments", [[1], pytest.param(range(5), marks=pytest.mark.long)])
def test_a_migration_that_was_killed_is_done_again(server, moments):
    """I-26: killed at any moment, it happened or it did not, and the next process goes on."""
    for n in moments:
        server.sql(f"CREATE DATABASE killed{n}")
        url = server.url(f"killed{n}")
        process = open_in_process(url)
        assert process.stdout.readline() == "go\n"
        time.sleep(0.02 * n)  # the moments to be killed at
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert open_in_process(url).communicate(timeout=60)[0].split() == ["go", "0"]
        server.sql(f"DROP DATABASE killed{n}")
