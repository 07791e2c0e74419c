"""Which log of revocations a PostgreSQL holds, and who is woken by it."""

from __future__ import annotations

import asyncio
import os
import random
import time
from functools import partial
from urllib.parse import urlsplit

import pytest
from msgspec.structs import replace
from tests.backing import PASSWORD
from tests.faults.proxy import Proxy
from tests.stores.postgres import KILL, asks, opened, patiently, there, timed, until

from dutchdoor.errors import Conflict, Unavailable
from dutchdoor.jose.signing_keys import StoredKey
from dutchdoor.model.ids import is_id
from dutchdoor.stores.base import Add, Expect, Remove, Revoke, Swap
from dutchdoor.stores.kinds import KINDS
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.stores.postgres import rows, watch
from dutchdoor.stores.postgres.changes import COMMIT, write_job
from dutchdoor.testing.conformance import NOW, a_revocation, a_row, a_session, an_account

# Which server it is


#
# With a standby that is promoted: tests/faults/test_promotion.py.

pytestmark = pytest.mark.usefixtures("patience")  # a busy machine is no outage

ELSEWHERE = {
    "timeline": "UPDATE dutchdoor.lineage SET timeline = '00000000'",
    "cluster": "UPDATE dutchdoor.lineage SET cluster = '1'",
}


@pytest.mark.parametrize("by_transaction", [False, True])
@pytest.mark.parametrize("what", ELSEWHERE)
async def test_where_the_log_was_not_begun_another_begins(what, by_transaction, postgres_url, beside):
    """I-15: a server that was promoted or restored begins a new log before it answers anything, once, in any race."""
    ada, row = an_account(), replace(a_row(), lease_for=7.5)
    async with (
        opened(postgres_url, by_transaction=by_transaction) as one,
        opened(postgres_url, by_transaction=by_transaction) as two,
    ):
        await one.commit(Add(ada), Revoke(a_revocation()))
        await one.node_register(row)
        before = await one.read_log(1, 0)
        await beside.execute(ELSEWHERE[what])
        if what == "cluster" or not by_transaction:
            await beside.execute(KILL)  # a server takes its connections with it
            await asyncio.gather(*[timed(store.account("x")) for store in (one, two) for _ in range(20)])
        answers = await asyncio.gather(
            *[patiently(partial(store.read_log, 1, 0)) for store in (one, two) for _ in range(9)],
            *[patiently(partial(store.node_renew, replace(row, stamp="x"), 0)) for store in (one, two)],
        )
        (begun,) = {answer.log_epoch for answer in answers}
        assert abs(begun / 1000 - time.time()) < 60
        assert [answer.there for answer in answers[-2:]] == [False, False]
        (gone,) = (await one.node_rows()).rows
        assert (gone.log_epoch, gone.acked_seq, gone.lease_for) == (begun, 0, 7.5)
        assert (answers[0].salt, answers[0].entries) == (before.salt, before.entries)
        assert (await patiently(partial(two.account, ada.subject))).epoch == begun
        await patiently(lambda: one.commit(Revoke(a_revocation())))
        (entry,) = await one.events(name="log_begun")
        assert (entry.actor, entry.detail, is_id(entry.id)) == ("system", f"epoch {begun}", True)
        assert abs(entry.at - time.time()) < 60
    async with opened(postgres_url, by_transaction=by_transaction) as later:
        assert (await later.commit()).log_epoch == begun


@pytest.mark.parametrize("by_transaction", [False, True])
async def test_no_answer_comes_before_the_log_it_was_read_on_is_known(by_transaction, postgres_url, beside):
    """I-15: a caller that gets a session knows, by then, which log the server is on that says so."""
    session = a_session(an_account())
    async with (
        opened(postgres_url, by_transaction=by_transaction) as one,
        opened(postgres_url, by_transaction=by_transaction) as two,
    ):
        first = (await patiently(lambda: one.read_log(0, 0))).log_epoch
        for store in (one, two):
            assert await patiently(partial(store.session, session.id)) is None
            assert store.newest_log == first
        await beside.execute(ELSEWHERE["timeline"])
        if not by_transaction:
            await beside.execute(KILL)
        for store in (one, two):  # one of them begins the log, the other finds it
            assert await patiently(partial(store.session, session.id)) is None
            assert store.newest_log > first
        assert one.newest_log == two.newest_log == (await patiently(lambda: one.read_log(0, 0))).log_epoch


@pytest.mark.parametrize("by_transaction", [False, True])
async def test_a_server_that_was_replaced_and_still_answers_is_not_asked(by_transaction, postgres_url, beside):
    """Behind an address that was moved, old connections lead to the old server. Once any of them knows of a newer log,
    nothing more is read there, and nothing committed that no other server would know; until there is a newer one.
    """
    ada, session = an_account(), a_session(an_account())
    async with opened(postgres_url, by_transaction=by_transaction) as store:
        await patiently(lambda: store.commit(Add(ada)))
        await asks(store, session, ada)
        newer = int(NOW * 1000) + 9
        store._make.note_log(newer)
        revision = await beside.fetchval("SELECT revision FROM dutchdoor.accounts_now WHERE subject = $1", ada.subject)
        for _ in range(2):
            answers = await asyncio.gather(
                timed(store.session(session.id)),
                timed(store.commit(Swap(ada))),
                timed(store.read_log(1, 0)),
                timed(store.node_renew(a_row(), 0)),
            )
            assert [type(outcome) for _, outcome in answers] == [Unavailable] * 4
        await beside.fetchval("SELECT dutchdoor.begin_log_epoch_1($1)", newer + 1)
        assert (await patiently(lambda: store.read_log(1, 0))).log_epoch == store.newest_log == newer + 1
        account = await patiently(lambda: store.account(ada.subject))
        assert account.revision == revision + 1, "for the new log, and for no swap"


async def test_a_replaced_host_among_several_is_passed_over(postgres_url, one_server):
    """The old primary is in reach again, takes itself for one and answers at once, while the new one is slow for a
    moment: no client moves to it, and connections to the new one are not given up for it.
    """
    parts = urlsplit(postgres_url)
    one_server.sql(f"CREATE DATABASE {parts.path[1:]}")
    for url in (postgres_url, one_server.url(parts.path[1:])):
        async with opened(url) as store:
            if url == postgres_url:
                begun = await store.begin_log_epoch(NOW)
    async with Proxy("127.0.0.1", parts.port) as new, Proxy("127.0.0.1", one_server.port) as old:
        login = f"postgresql://{parts.username}:{parts.password}@"
        hosts = f"127.0.0.1:{new.port},127.0.0.1:{old.port}"
        async with opened(f"{login}{hosts}{parts.path}?sslmode=disable") as store:
            assert await patiently(partial(store.select, StoredKey)) == []
            new.down.delay = 0.3
            new.reset()
            while not old.accepted:
                await timed(store.select(StoredKey))
            new.heal()
            for _ in range(3):
                assert (await patiently(lambda: store.read_log(1, 0))).log_epoch == begun
    one_server.sql(f"DROP DATABASE {parts.path[1:]} WITH (FORCE)")


async def test_a_server_that_does_not_say_which_it_is(postgres_url, beside):
    """Where a service forbids to ask for the timeline, nothing is noticed, and nothing else is lost."""
    name = f"door_{os.getpid()}_{random.randrange(10**9)}"
    await beside.execute(
        f"CREATE ROLE {name} LOGIN PASSWORD 'x'; CREATE SCHEMA dutchdoor AUTHORIZATION {name};"
        "REVOKE EXECUTE ON FUNCTION pg_current_wal_lsn(), pg_control_system() FROM PUBLIC"
    )
    try:
        async with opened(postgres_url.replace(f"postgres:{PASSWORD}@", f"{name}:x@")) as store:
            assert await beside.fetchval("SELECT timeline FROM dutchdoor.lineage") is None
            await beside.execute("UPDATE dutchdoor.lineage SET timeline = '00000000', cluster = '1'")
            for lane in store._lanes:
                lane.drop()
            assert (await store.commit(Revoke(a_revocation()))).log_epoch == 1
            assert await store.begin_log_epoch(NOW) == NOW * 1000 // 1
    finally:
        await beside.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


async def test_a_new_log_writes_no_account(store, beside):
    """However many accounts there are, a new log costs the same: it raises them all without touching one."""
    await store.commit(*[Add(an_account(str(n))) for n in range(50)])
    rows = "SELECT subject, xmin::text, xmax::text FROM dutchdoor.accounts ORDER BY subject"
    before = await beside.fetch(rows)
    begun = await store.begin_log_epoch(NOW)
    assert await beside.fetch(rows) == before
    assert {account.epoch for account in await store.accounts(limit=100)} == {begun}


async def test_epochs_and_revisions_are_those_of_a_store_that_writes_them(store):
    """Whatever follows each other, each account reads as in a store that raises its accounts one by one."""
    lots, other, at, found = random.Random(15), MemoryStore(clock=lambda: 0.001), 1.0, None
    await other.open()
    for n in range(200):
        subject = f"p{lots.randrange(4)}"
        account = await other.account(subject)
        at += lots.choice([0.0, 0.0, 0.001, 0.001, 5.0])
        if lots.random() < 0.3:
            assert await store.begin_log_epoch(at) == await other.begin_log_epoch(at)
            everybody = await other.accounts()
            assert await store.accounts() == everybody
            await store.commit(*[Expect(each.subject, each.epoch) for each in everybody])
            continue
        if account is None:
            epoch = lots.choice([0, 3, int(at * 1000) + 9])
            change = Add(replace(an_account(), subject=subject, email=None, epoch=epoch))
        elif lots.random() < 0.2:
            change = Remove(account)
        else:
            raised = lots.choice([account.epoch, account.epoch + 1, int(at * 1000) + 9])
            change = Swap(replace(account, epoch=max(account.epoch, raised), name=str(n)))
        await asyncio.gather(store.commit(change), other.commit(change))
        found = await store.account(subject)
        assert found == await other.account(subject)
        if found is not None:
            await store.commit(Expect(subject, found.epoch))
            assert isinstance((await timed(store.commit(Expect(subject, found.epoch - 1))))[1], Conflict)
            assert isinstance(
                (await timed(store.commit(Swap(replace(found, revision=found.revision - 1)))))[1], Conflict
            )


async def test_a_commit_and_a_new_log_take_turns(store, beside):
    """A new log waits for a commit that is under way: what that raises is not raised from a number read before."""
    ada = an_account()
    await beside.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(2); RETURN NULL; END $$;"
        "CREATE TRIGGER slow AFTER INSERT ON dutchdoor.accounts FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    is_under_way = (
        "SELECT count(*) > 0 FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE l.locktype = 'advisory' "
        "AND d.datname = current_database() AND l.classid = 0 AND l.objid = 1684303727 AND l.mode = 'ShareLock' "
        "AND l.granted"
    )
    commits = asyncio.create_task(store.commit(Add(ada)))
    await until(lambda: beside.fetchval(is_under_way))
    begins = asyncio.create_task(store.begin_log_epoch(NOW))
    has_begun = False
    while await beside.fetchval(is_under_way):
        assert not has_begun
        has_begun = begins.done()
    await commits
    assert (await store.account(ada.subject)).epoch == await begins


# The log


async def test_who_revokes_sees_every_lease_or_is_seen(store, beside):
    """11. A node that registers or renews while an entry is being committed waits for it: he who revokes has read all
    leases by then, and would not see this one.
    """
    entry = a_revocation()
    job, _ = write_job([Revoke(entry)], rows.Tables(KINDS, rows.Table))
    row = replace(a_row(), log_epoch=1)
    for joining in (lambda: store.node_register(row), lambda: store.node_renew(row, 0)):
        async with beside.transaction():
            await beside.execute("SET LOCAL synchronous_commit = on")
            await beside.fetch(COMMIT, f"[{job.decode()}]")
            task = asyncio.create_task(joining())
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%node_re%'"

            async def waiting(task=task, waits=waits):
                assert not task.done(), "it did not wait"
                return (await store._all(waits))[0][0]

            await until(waiting)
        done = await task
    assert done.head == 2, "a renewal reads the entry it waited for"
    assert done.there


async def test_a_notice_wakes_who_watches(postgres_url, monkeypatch):
    """An entry that another process commits wakes us by itself, before any look."""
    monkeypatch.setattr(watch, "_LISTEN_EVERY", 60.0)
    async with opened(postgres_url) as one, opened(postgres_url) as two:
        woken = asyncio.Event()
        unwatch = one.watch(woken.set)
        await asyncio.wait_for(woken.wait(), 60)  # it listens
        for _ in range(5):
            woken.clear()
            done = await two.commit(Revoke(a_revocation()))
            while (await one.read_log(1, 0)).head < done.seq or not woken.is_set():
                await asyncio.wait_for(woken.wait(), 60)
        unwatch()


async def test_who_watches_is_woken_without_notices_too(server):
    """The connection that listens is cut: polling finds the entry, and it listens again."""
    async with (
        Proxy("127.0.0.1", server.port) as link,
        opened(there(server.own)(link.port)) as one,
        opened(server.own) as two,
    ):
        woken = asyncio.Event()
        one.watch(woken.set)
        await asyncio.wait_for(woken.wait(), 60)
        link.reset()
        woken.clear()
        await two.commit(Revoke(a_revocation()))
        await asyncio.wait_for(woken.wait(), 60)


async def test_the_stores_clock_is_read(store):
    """I-21: a reading of the log tells the server's time of day, which is one for all nodes."""
    read = await store.read_log(1, 0)
    renewed = await store.node_renew(a_row(), 0)
    assert abs(read.at - time.time()) < 60
    assert read.at <= renewed.at
