"""What is special to PostgreSQL: durability, batches, locks, the network, migrations, and proxies that pool."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from functools import partial
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.backing import PASSWORD, a_postgres, as_user, free_port, new_database
from tests.faults.proxy import Proxy
from tests.server.certificates import write_certificate

from dutchdoor.errors import Conflict, InvalidInput, Misconfigured, Unavailable
from dutchdoor.jose.signing_keys import StoredKey
from dutchdoor.model.ids import is_id
from dutchdoor.model.rate_limits import Bucket, Limit, decide_all, give_back
from dutchdoor.stores.base import Add, End, EndAll, Expect, Forgive, Log, Remove, Revoke, Swap
from dutchdoor.stores.kinds import ACCOUNTS, KINDS
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.stores.postgres import COMMIT_LANES, PostgresStore, batches, failures, from_url, rows, watch
from dutchdoor.stores.postgres.changes import COMMIT, write_job
from dutchdoor.stores.urls import make_store
from dutchdoor.testing.conformance import (
    LAWS,
    NOW,
    World,
    a_credential,
    a_revocation,
    a_row,
    a_session,
    an_account,
    an_event,
    the_log,
)
from dutchdoor.testing.conformance.commits import LAWS as LAWS_OF_COMMITS

BUCKET = Bucket("b", Limit(name="b", count=1, per_seconds=60.0, burst=100))


KILL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture
async def store(postgres_url):
    store = PostgresStore(postgres_url)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def beside(postgres_url):
    """A connection of another client."""
    connection = await asyncpg.connect(postgres_url)
    yield connection
    connection.terminate()


@pytest.fixture(scope="module")
def one_server():
    with a_postgres() as server:
        yield server


@pytest.fixture
def server(one_server):
    """A server that may be stopped and killed, with a database that the test has to itself: `server.own`."""
    name = f"own_{random.randrange(10**12)}"
    one_server.sql(f"CREATE DATABASE {name}")
    one_server.own = one_server.url(name)
    yield one_server
    if not one_server.is_running():
        one_server.start()
    one_server.sql(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.asynccontextmanager
async def opened(url, **options):
    store = PostgresStore(url, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def until(condition, within=60.0):
    """Wait until an asynchronous condition holds."""
    deadline = time.monotonic() + within
    while not await condition():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.02)


async def patiently(ask):
    """What an answer is once there is one: on a busy machine a second may not be enough."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(Unavailable):
                return await ask()


async def timed(awaitable):
    """How long something took, and what it gave or raised."""
    begun = time.monotonic()
    try:
        outcome = await awaitable
    except Exception as exc:  # noqa: BLE001 - the test looks at it
        outcome = exc
    return time.monotonic() - begun, outcome


async def somebody_waits(connection):
    """Whether any connection to this database waits for a lock, now and not when this transaction first looked."""
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    return await connection.fetchval(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )


def there(url):
    """The same database through another address. Without TLS: the driver complains to the loop where a connection is
    given up while it asks for it.
    """
    parts = urlsplit(url)
    return lambda port: urlunsplit(
        parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}", query="sslmode=disable")
    )


# --- URLs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgresql://u:s3cr3t@h",
        "postgresql://u:s3cr3t@h/",
        "postgresql://u:s3cr3t@h/db?pooling=statement",
        "postgresql://u:s3cr3t@h/db?synchronous_commit=off",
        "postgresql://u:s3cr3t@h/db?nonsense",
        "postgresql://u:s3cr3t@h:port/db",
        "postgresql://u:s3cr3t@[::1/db",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_repeating_it(url):
    """A URL may hold a password: no refusal repeats it."""
    with pytest.raises(Misconfigured) as refused:
        make_store(url)
    assert "s3cr3t" not in f"{refused.value!r} {refused.value} {refused.value.reason}"


def test_what_a_url_says(postgres_url):
    """`pooling` is ours, the rest is the driver's; several hosts may be named."""
    assert not make_store(postgres_url)._make.by_transaction
    assert make_store(f"{postgres_url}?pooling=transaction&sslmode=disable")._make.by_transaction
    make_store("postgresql://u:p@one:5432,two:5433/db?sslmode=verify-full")
    assert PASSWORD not in repr(make_store(postgres_url))


async def test_no_password_is_in_an_error(postgres_url, caplog):
    """Whatever goes wrong in connecting, the password is in no text of the error."""
    for wrong in (
        postgres_url.replace(PASSWORD, "wr0ng-pa55"),
        postgres_url.replace(PASSWORD, "wr0ng-pa55").replace("127.0.0.1", "127.0.0.1:1,127.0.0.1"),
        there(postgres_url.replace(PASSWORD, "wr0ng-pa55"))(free_port()),
        postgres_url.replace(PASSWORD, "wr0ng-pa55") + "?sslmode=verify-full",
    ):
        with pytest.raises((Misconfigured, Unavailable)) as refused:
            await from_url(wrong).open()
        error = refused.value
        while error is not None:
            assert "wr0ng-pa55" not in f"{error!r} {error} {getattr(error, 'reason', '')}"
            error = error.__cause__
    assert "wr0ng-pa55" not in caplog.text


async def test_no_value_of_a_row_is_in_a_log(store, monkeypatch):
    """The server's DETAIL of a refusal repeats the row, and some texts the value: neither is in an error, nor in what a
    traceback of it shows.
    """
    secret = "s3cr3t@example.com"
    monkeypatch.setattr(failures, "_CONFLICTS", frozenset())  # so that its text is kept
    await store.commit(Add(replace(an_account(), email=secret)))
    for refused in (
        store.commit(Add(replace(an_account(), email=secret))),
        store._all(f"SELECT '{secret}'::bigint"),
        store._all("SELECT $1::bigint", secret),
        store._scan("SELECT ($1::jsonb) -> 'x'", f'"{secret}'),
    ):
        with pytest.raises((InvalidInput, Unavailable)) as raised:
            await refused
        told = "".join(traceback.format_exception(raised.value))
        assert secret not in f"{raised.value!r} {raised.value.reason} {told}"
        assert "postgres:" in raised.value.reason


async def test_what_no_waiting_changes_is_misconfigured(postgres_url):
    """A wrong password, a database that is not there, a role that may not: said while opening, and not 'try again'."""
    for wrong in (postgres_url.replace(PASSWORD, "wrong"), postgres_url + "x"):
        with pytest.raises(Misconfigured):
            await from_url(wrong).open()
    with (
        new_database("ENCODING 'SQL_ASCII' TEMPLATE template0") as url,
        pytest.raises(Misconfigured, match="SQL_ASCII"),
    ):
        await from_url(url).open()


async def test_a_password_that_changed_meanwhile_is_an_outage(store, beside):
    """Once open, a server that refuses us may be repaired: callers are asked to try again."""
    await store.account("ada")
    store._make._urls = [url.replace(PASSWORD, "wrong") for url in store._make._urls]
    for lane in store._lanes:
        lane.drop()
    with pytest.raises(Unavailable):
        await store.session("x")


# --- what is written --------------------------------------------------------------------------------------------------


HOSTILE = [
    "\0",
    "\1",
    "a\0b",
    "\1\1",
    "\1\2",
    "\0\1\0",
    "\2",
    "\x7f",
    "\N{BYTE ORDER MARK}",
    "é",
    "e\N{COMBINING ACUTE ACCENT}",
]


async def test_every_text_is_kept_apart_and_in_order(store):
    """7. U+0000, which PostgreSQL cannot store, is kept; no two texts are one; accounts come in their order."""
    people = [replace(an_account(f"a{n}"), subject=f"s{text}", name=text) for n, text in enumerate(HOSTILE)]
    sessions = [a_session(person, device=text, scope=text) for person, text in zip(people, HOSTILE, strict=True)]
    happened = [replace(an_event(f"s{text}"), detail=text) for text in HOSTILE]
    await store.commit(*map(Add, people), *map(Add, sessions), *map(Log, happened))
    assert await store.accounts() == sorted(people, key=lambda person: person.subject)
    for person, session, event in zip(people, sessions, happened, strict=True):
        assert await store.session(session.id) == (session, person)
        assert await store.events(subject=person.subject) == [event]


@given(
    st.lists(st.text(st.characters(max_codepoint=3) | st.sampled_from("aZé\uffff\U00010000")), min_size=2, max_size=2)
)
def test_texts_are_written_one_to_one_and_in_order(texts):
    """7. The spelling of U+0000 keeps texts apart, and in the order that Python has them in."""
    one, two = texts
    written = [rows.write_text(one), rows.write_text(two)]
    assert [rows.read_text(text) for text in written] == texts
    assert not any("\0" in text for text in written)
    assert (written[0] < written[1]) == (one < two)


@given(st.text(max_size=30) | st.binary(min_size=16, max_size=16).map(rows.text_of_id))
def test_ids_are_written_one_to_one(id):
    """7. Whatever an id is, it is found by its own text only."""
    assert rows.text_of_id(rows.stored_id(id)) == id


async def test_a_value_that_cannot_be_kept_harms_its_caller_alone(store):
    """1. Half a character, a number that is too great, a key that no index takes: refused, and others go on."""
    ada = an_account()
    endless = "".join(random.Random(1).choices("0123456789abcdef", k=20_000))
    await store.commit(Add(ada))
    bad = [
        Log(replace(an_event(), detail="\ud800")),
        Add(a_session(ada, generation=2**70)),
        Add(replace(ada, subject=endless, email=None)),
    ]
    outcomes = await asyncio.gather(
        *[store.commit(change) for change in bad],
        *[store.commit(Log(an_event())) for _ in range(20)],
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes[:3]] == [InvalidInput] * 3
    assert not any(isinstance(outcome, Exception) for outcome in outcomes[3:])
    assert (await store.counts())["events"] == 20


async def test_texts_compare_by_their_bytes(beside, store):
    """No column and no index depends on a library of collations, whose next version may order otherwise."""
    wrong = await beside.fetch(
        "SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
        "JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_collation o ON o.oid = a.attcollation "
        "WHERE n.nspname = 'dutchdoor' AND a.attnum > 0 AND o.collname <> 'C'"
    )
    assert [tuple(row) for row in wrong] == []


# --- durability -------------------------------------------------------------------------------------------------------


async def test_every_commit_waits_for_the_disk(beside, postgres_url):
    """I-11: whatever a role's or a database's default is, a commit is flushed before it is acknowledged."""
    async with opened(postgres_url):
        name = urlsplit(postgres_url).path[1:]
    await beside.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    await beside.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    await beside.execute(
        "CREATE TABLE seen (setting text); CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO public.seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;"
        "CREATE TRIGGER look AFTER INSERT ON dutchdoor.accounts EXECUTE FUNCTION look();"
        "CREATE TRIGGER look AFTER UPDATE OR INSERT ON dutchdoor.nodes EXECUTE FUNCTION look();"
        "CREATE TRIGGER look AFTER UPDATE ON dutchdoor.revocation_log EXECUTE FUNCTION look();"
        "CREATE TRIGGER look AFTER INSERT ON dutchdoor.limits EXECUTE FUNCTION look();"
    )
    async with opened(postgres_url) as store:
        row = a_row()
        await asyncio.gather(*[store.commit(Add(an_account(str(n)))) for n in range(3)])
        await store.commit(Revoke(a_revocation()))
        await store.node_register(row)
        await store.node_renew(row, 0)
        await store.begin_log_epoch(NOW)
        assert {row[0] for row in await beside.fetch("TABLE seen")} == {"on"}
        await beside.execute("DELETE FROM seen")
        await store.hit([BUCKET], NOW)
        assert {row[0] for row in await beside.fetch("TABLE seen")} == {"off"}, "an attempt waits for no disk"


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
async def test_a_flush_comes_before_every_acknowledgement(tmp_path):
    """I-11: between a commit and its acknowledgement lies an fdatasync of the server's log."""
    with a_postgres(fsync=True, wal_sync_method="fdatasync") as server:
        async with opened(server.url()) as store:
            await store.commit(Add(an_account("first")))
            (lane,) = [lane for lane in store._commits._idle if lane._connection is not None]
            trace = tmp_path / "trace"
            strace = subprocess.Popen(
                ["strace", "-qq", "-e", "trace=fdatasync,sendto,recvfrom", "-p", str(lane._connection.get_server_pid()),
                 "-o", trace],
                stderr=subprocess.PIPE,
            )  # fmt: skip
            try:
                await until(lambda: _traced(lane._connection.get_server_pid()))
                for n in range(20):
                    await store.commit(Add(an_account(str(n))), Log(an_event()))
            finally:
                strace.terminate()
                strace.communicate()
    calls = re.findall(r"^(fdatasync|sendto|recvfrom)\(.*= (-?\d+)", trace.read_text(), re.MULTILINE)
    flushed, answers = False, 0
    for call, result in calls:
        if call == "recvfrom" and int(result) > 0:
            flushed = False
        elif call == "fdatasync":
            flushed = True
        elif call == "sendto":
            assert flushed, "an answer before the flush"
            answers += 1
    assert answers >= 20


async def _traced(pid):
    with open(f"/proc/{pid}/status") as status:  # noqa: PTH123
        return "TracerPid:\t0" not in status.read()


async def test_a_standby_is_refused(server):
    """A server in recovery is asked nothing: leases and entries are read where they were committed."""
    server.stop()
    standby = server.folder / "data" / "standby.signal"
    standby.touch()
    try:
        server.start()  # it answers psql
        for pooling in ("session", "transaction"):
            with pytest.raises(Unavailable):
                await from_url(f"{server.own}?pooling={pooling}").open()
    finally:
        server.stop()
        standby.unlink()
        server.start()


# --- the audit log ---------------------------------------------------------------------------------------------------


async def test_p50_a_commit_that_was_overtaken_is_not_skipped(store, beside):
    """Two transactions race: the one that began first, and wrote its event first, is committed last. A follower of the
    audit log gets neither before both are over, and then both; the same after a log begins that lost the second.
    """
    slow, fast = an_event("slow", NOW), an_event("fast", NOW + 1)
    job, _ = write_job([Log(slow)], rows.Tables(KINDS, rows.Table))
    racing = beside.transaction()
    await racing.start()
    await beside.fetch(COMMIT, f"[{job.decode()}]")
    await store.commit(Log(fast))
    assert await store.events() == [fast], "people see it at once"
    end = await store.audit_end()
    assert await store.events_after(None) == []
    await racing.commit()
    first, second = await followed(store, None, 2)
    assert [first[1], second[1]] == [slow, fast]
    assert [event for _, event in await store.events_after(end)] == [slow, fast], "the end was before both"
    lost = second[0]
    await beside.execute("DELETE FROM dutchdoor.events WHERE subject = 'fast'")
    await store.begin_log_epoch(NOW)
    await store.commit(Log(after := an_event("after", NOW - 9)))
    # As in a cluster that counts its transactions from a lower number.
    await beside.execute("UPDATE dutchdoor.events SET number = 3 WHERE subject = 'after'")
    assert [event for _, event in await followed(store, lost, 1)] == [after]


async def followed(store, cursor, count):
    """What there is behind a cursor once there is so much: a transaction of the server's own may hold it back."""
    async with asyncio.timeout(20):
        while len(found := await patiently(lambda: store.events_after(cursor))) < count:
            await asyncio.sleep(0.01)
    return found


async def test_p53_its_connections_and_those_that_wait_are_counted(store, beside):
    """While the database holds reads up, each lane is busy and the other calls wait; afterwards none does."""
    await patiently(lambda: store.account("x"))
    holding = beside.transaction()
    await holding.start()
    await beside.execute("LOCK TABLE dutchdoor.accounts")
    reads = [asyncio.create_task(store.account(f"user {n}")) for n in range(5)]
    async with asyncio.timeout(20):
        while (store.load.busy, store.load.waiting) != (2, 3):
            await asyncio.sleep(0)
            assert not all(read.done() for read in reads)
        assert store.load.connections >= 1
        await holding.rollback()
        await asyncio.gather(*reads, return_exceptions=True)  # a busy machine may have taken too long
        while (store.load.busy, store.load.waiting) != (0, 0):
            await asyncio.sleep(0)


# --- which server it is -----------------------------------------------------------------------------------------------
#
# With a standby that is promoted: tests/faults/test_promotion.py.

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
        (told,) = await one.events(name="log_begun")
        assert (told.actor, told.detail, is_id(told.id)) == ("system", f"epoch {begun}", True)
        assert abs(told.at - time.time()) < 60
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


# --- batches ----------------------------------------------------------------------------------------------------------


def count_statements(store, group, named):
    """From now on note what the lanes of a group are asked."""
    asked = []
    for lane in group._idle:
        original = lane.fetch

        async def fetch(sql, *values, within, original=original):
            if named in sql:
                asked.append(values[0])
            return await original(sql, *values, within=within)

        lane.fetch = fetch
    return asked


async def test_look_ups_of_one_moment_are_one_query(store):
    """A hundred look-ups that arrive together are one question, and each has its own answer."""
    ada = an_account()
    sessions = [a_session(ada) for _ in range(50)]
    await store.commit(Add(ada), *map(Add, sessions))
    asked = count_statements(store, store._lookups, "sessions")
    wanted = [*sessions, *[a_session(ada) for _ in range(49)], sessions[0]]
    found = await asyncio.gather(*[store.session(session.id) for session in wanted])
    assert found == [(session, ada) if session in sessions else None for session in wanted]
    assert len(asked) == 1


async def test_commits_of_one_moment_are_one_transaction(store):
    """Those that wait together are flushed together, in few transactions."""
    ada = an_account()
    sessions = [a_session(ada) for _ in range(40)]
    await store.commit(Add(ada), *map(Add, sessions))
    sent = count_statements(store, store._commits, "commit_1")
    done = await asyncio.gather(*[store.commit(Swap(session)) for session in sessions])
    assert len(done) == 40
    assert len(sent) == 1


async def test_one_that_fails_late_fails_alone(store):
    """1. One of a batch that turns out impossible after it has written undoes none of the others."""
    ada = an_account()
    sessions = [a_session(ada) for _ in range(10)]
    seen = an_event()
    await store.commit(Add(ada), *map(Add, sessions), Log(seen))
    outcomes = await asyncio.gather(
        *[store.commit(Swap(session), Log(an_event())) for session in sessions],
        store.commit(Expect(ada.subject, 0), Add(sessions[0])),
        store.commit(Swap(replace(sessions[0], revision=1)), Log(seen)),
        return_exceptions=True,
    )
    assert [isinstance(outcome, Conflict) for outcome in outcomes] == [False] * 10 + [True] * 2
    assert (await store.counts())["events"] == 11


async def test_d20_a_swap_by_the_version_before_leaves_the_binding(store, beside):
    """While two versions run, a program that knows of no bindings changes a bound session and does not unbind it."""
    ada = an_account("ada")
    session = a_session(ada, binding="confirmed ES256 x ")
    await store.commit(Add(ada), Add(session))
    await beside.execute(
        "SELECT dutchdoor.apply_1(jsonb_build_object('do', 'swap session', 'subject', $1::text, 'row', "
        "to_jsonb(s) - 'binding' || '{\"generation\": 7}')) FROM dutchdoor.sessions s",
        ada.subject,
    )
    kept, _ = await store.session(session.id)
    assert (kept.generation, kept.binding, kept.revision) == (7, session.binding, 1)
    await store.commit(Swap(replace(kept, binding=None)))
    kept, _ = await store.session(session.id)
    assert kept.binding is None


async def test_commits_that_meet_from_two_sides_do_not_wait_for_each_other(postgres_url, beside):
    """Commits that change the same rows in opposite orders, each slow enough to meet the other: one goes after the
    other, and none is given up.
    """
    ada, bob = an_account("ada"), an_account("bob")
    one, two = a_session(ada), a_session(bob)
    async with opened(postgres_url) as store, opened(postgres_url) as other:
        await store.commit(Add(ada), Add(bob), Add(one), Add(two))
        await beside.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; "
            "END $$; CREATE TRIGGER slow AFTER UPDATE ON dutchdoor.sessions FOR EACH ROW EXECUTE FUNCTION slow();"
            "CREATE TRIGGER slow AFTER UPDATE ON dutchdoor.accounts FOR EACH ROW EXECUTE FUNCTION slow();"
        )
        ends = [EndAll(bob.subject, "logout", NOW, keep=two.id), EndAll(ada.subject, "logout", NOW, keep=one.id)]
        for meeting in (
            lambda one, two, ada, bob: [Swap(one), Swap(two)],
            lambda one, two, ada, bob: [Swap(ada), Swap(bob)],
            lambda one, two, ada, bob: [Swap(ada), Swap(one)],
            lambda one, two, ada, bob: [Swap(one), Swap(two), *ends],
            lambda one, two, ada, bob: [Swap(ada), Swap(two), Expect(bob.subject, 0)],
        ):
            (one, ada), (two, bob) = await store.session(one.id), await store.session(two.id)
            changes = meeting(one, two, ada, bob)
            outcomes = await asyncio.gather(
                store.commit(*changes), other.commit(*changes[::-1]), return_exceptions=True
            )
            assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "Revoked"]


async def test_a_cancelled_caller_leaves_no_transaction_open(store, beside):
    """I-25: whichever caller is cancelled at any moment, no lock is held and no transaction is open afterwards."""
    ada = an_account()
    session = a_session(ada)
    await store.commit(Add(ada), Add(session))
    for turns in range(12):
        tasks = [
            asyncio.create_task(store.commit(Swap(replace(session, generation=n)), Log(an_event()))) for n in range(9)
        ]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await store.close()
    states = await beside.fetch(
        "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND backend_type = 'client backend' AND state LIKE 'idle in transaction%'"
    )
    assert states == []
    locks = (
        "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation "
        "WHERE c.relnamespace = 'dutchdoor'::regnamespace"
    )
    assert await beside.fetchval(locks) == 0


async def test_the_queue_is_bounded(store, monkeypatch):
    """When the database cannot keep up, callers are refused and memory does not grow without end."""
    monkeypatch.setattr(batches, "_WAITING_AT_MOST", 20)
    outcomes = await asyncio.gather(*[store.commit(Log(an_event())) for _ in range(100)], return_exceptions=True)
    refused = sum(isinstance(outcome, Unavailable) for outcome in outcomes)
    assert refused == 80
    assert (await store.counts())["events"] == 20


# --- limits -----------------------------------------------------------------------------------------------------------

LIMITS = st.builds(
    Limit,
    name=st.sampled_from(["a", "b", "c"]),
    count=st.integers(1, 20),
    per_seconds=st.sampled_from([0.7, 60.0, 3600.0, float("inf")]),
    burst=st.integers(1, 12),
    kept_for=st.sampled_from([86400.0, 1e8]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    attempts=st.lists(
        st.tuples(
            st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True), st.floats(-90, 4000), st.booleans()
        ),
        min_size=1,
        max_size=25,
    ),
    limits=st.lists(LIMITS, min_size=5, max_size=5),
)
async def test_limits_are_decided_as_the_arithmetic_says(store, attempts, limits):
    """To the bit: what the database decides of an attempt, and keeps, is what `limits.decide_all` does."""
    await store._all("DELETE FROM dutchdoor.limits")
    tats, now = {}, NOW
    for chosen, after, forgive in attempts:
        now += after
        buckets = [Bucket(f"key{n}", limits[n]) for n in chosen]
        verdict = decide_all([tats.get(bucket.key) for bucket in buckets], buckets, now)
        tats.update({b.key: tat for b, tat in zip(buckets, verdict.tats, strict=True) if tat is not None})
        assert await store.hit(buckets, now) == (verdict.retry_after, verdict.refused_by)
        if forgive:
            tats.update({b.key: give_back(tats[b.key], b.limit) for b in buckets[:1] if b.key in tats})
            for bucket in buckets[1:2]:
                tats.pop(bucket.key, None)
            await store.commit(Forgive(give_back=tuple(buckets[:1]), forget=tuple(buckets[1:2])))
        kept = {row[0]: row[1] for row in await store._all("SELECT key, tat FROM dutchdoor.limits")}
        assert kept == tats


async def test_a_limit_is_exact_over_processes(postgres_url):
    """I-16: whichever nodes count, together they let through what the bucket holds; a restart forgets nothing."""
    async with opened(postgres_url) as one, opened(postgres_url) as two:
        hits = await asyncio.gather(*[store.hit([BUCKET], NOW) for store in (one, two) for _ in range(100)])
        assert hits.count((0.0, "")) == 100
    async with opened(postgres_url) as again:
        assert (await again.hit([BUCKET], NOW))[0] > 0


# --- the log ----------------------------------------------------------------------------------------------------------


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
        await asyncio.wait_for(woken.wait(), 10)  # it listens
        for _ in range(5):
            woken.clear()
            done = await two.commit(Revoke(a_revocation()))
            while (await one.read_log(1, 0)).head < done.seq or not woken.is_set():
                await asyncio.wait_for(woken.wait(), 10)
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
        await asyncio.wait_for(woken.wait(), 10)
        link.reset()
        woken.clear()
        await two.commit(Revoke(a_revocation()))
        await asyncio.wait_for(woken.wait(), 10)


async def test_the_stores_clock_is_read(store):
    """I-21: a reading of the log tells the server's time of day, which is one for all nodes."""
    read = await store.read_log(1, 0)
    renewed = await store.node_renew(a_row(), 0)
    assert abs(read.at - time.time()) < 5
    assert read.at <= renewed.at


# --- outages ----------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def lag():
    """How many seconds the machine was too busy to let this loop run, summed up in a list."""
    late = [0.0]

    async def measure():
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0.02)
            late[0] += time.monotonic() - begun - 0.02

    task = asyncio.create_task(measure())
    yield late
    task.cancel()


async def asks(store, session, account):
    """One of each kind of question that a request has."""
    return await asyncio.gather(
        *[timed(store.session(session.id)) for _ in range(20)],
        timed(store.account(account.subject)),
        timed(store.commit(Swap(session))),
        timed(store.commit(Swap(account))),
        timed(store.hit([BUCKET], NOW)),
        timed(store.read_log(1, 0)),
        timed(store.node_renew(a_row(), 0)),
        timed(store.accounts()),
        timed(store.events()),
        timed(store.begin_log_epoch(NOW)),
    )


OUTAGES = {
    "hold": lambda link: link.hold(),
    "refuse": lambda link: link.refuse(),
    "reset": lambda link: setattr(link, "resetting", True) or link.reset(),
    "half open": lambda link: link.half_open() or link.hold(),
    "cut": lambda link: link.down.cut(after=5),
    "no answers": lambda link: link.down.hold(),
}


@pytest.mark.parametrize(
    "outage", [pytest.param(name, marks=[] if name in {"refuse", "hold"} else pytest.mark.long) for name in OUTAGES]
)
async def test_a_store_that_is_gone_is_said_within_a_second(outage, server):
    """I-12, I-13: whatever the network does, each caller has an answer within a second; and within five of its return
    all is well without a restart, with no connection or lock left behind.
    """
    ada = an_account()
    session = a_session(ada)
    async with Proxy("127.0.0.1", server.port) as link, opened(there(server.own)(link.port)) as store:
        await store.commit(Add(ada), Add(session))
        await asks(store, a_session(an_account()), an_account("eve"))  # all lanes are connected
        OUTAGES[outage](link)
        for _ in range(3):
            async with lag() as late:
                answers = await asks(store, session, ada)
            for took, outcome in answers:
                assert isinstance(outcome, Unavailable), outcome
                assert took < 1.0 + late[0]
        link.heal()
        link.resetting = False

        async def well():
            answers = await asks(store, a_session(ada), an_account("eve"))
            return all(not isinstance(outcome, Unavailable) for _, outcome in answers)

        await until(well, within=5.0)
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' OR wait_event_type = 'Lock'"
    )
    assert server.sql(waiting) == "0"


async def test_a_server_that_restarts_is_back_without_a_word(server):
    """Connections that a restart closed are made anew, for a session that is looked up and one that is swapped."""
    ada = an_account()
    session = a_session(ada)
    async with opened(server.own) as store:
        await store.commit(Add(ada), Add(session))
        await asks(store, session, ada)
        server.stop()
        assert all(isinstance(outcome, Unavailable) for _, outcome in await asks(store, session, ada))
        server.start()

        async def well():
            return not isinstance((await timed(store.session(session.id)))[1], Exception)

        await until(well, within=5.0)
        assert (await store.session(session.id))[0].id == session.id


async def test_a_statement_that_waits_for_a_lock_is_given_up_by_the_server(store, beside):
    """Another transaction's lock is in the way: the caller gets an error within six seconds, and nothing of ours goes
    on waiting.
    """
    ada = an_account()
    session = a_session(ada)
    await store.commit(Add(ada), Add(session))
    async with beside.transaction():
        await beside.execute("SELECT 1 FROM dutchdoor.sessions FOR UPDATE")
        took, outcome = await timed(store.commit(Swap(session)))
        assert isinstance(outcome, Unavailable)
        assert took < 6.0
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        assert await beside.fetchval(waiting) == 0
    assert (await store.commit(Swap(session))).seq == 0


async def test_a_slow_disk_is_no_outage(store, beside):
    """A commit that takes two seconds because the server is slow succeeds, as long as the server answers otherwise."""
    await beside.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(2); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON dutchdoor.accounts DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    took, outcome = await timed(store.commit(Add(an_account())))
    assert outcome.seq == 0
    assert 2 <= took < 6


async def test_a_killed_backend_is_one_outage(store, beside):
    """I-09: of a commit whose connection is killed under it, the caller hears that it may have happened."""
    ada = an_account()
    await store.commit(Add(ada))
    lost = kept = 0
    for n in range(40):
        commits = [asyncio.create_task(timed(store.commit(Log(an_event(str(n)))))) for _ in range(3)]
        await asyncio.sleep(0.001 * (n % 7))
        await beside.execute(KILL)
        for _, outcome in await asyncio.gather(*commits):
            assert not isinstance(outcome, Exception) or isinstance(outcome, Unavailable)
            lost += isinstance(outcome, Exception)
            kept += not isinstance(outcome, Exception)
    assert kept
    assert kept <= (await store.counts())["events"] <= kept + lost


def test_acknowledged_commits_survive_the_server(server):
    """I-09, I-10: the whole server is killed in the middle of commits, again and again: none that it acknowledged is
    lost, and none is half there.
    """
    asyncio.run(kill_server(server, kills=3, seed=1))


async def kill_server(server, *, kills, seed):
    dice = random.Random(seed)
    ada, acknowledged = an_account(), set()
    async with opened(server.own) as store:
        await store.commit(Add(ada))

        async def commit_on():
            while True:
                session = a_session(ada)
                try:
                    await store.commit(Add(session), Revoke(a_revocation(session.id)), Log(an_event(session.id)))
                except Unavailable:
                    if not server.is_running():
                        return
                    await asyncio.sleep(0.01)
                else:
                    acknowledged.add(session.id)

        for _ in range(kills):
            before = len(acknowledged)
            writers = [asyncio.create_task(commit_on()) for _ in range(8)]
            enough = dice.randrange(5, 60)

            async def has_enough(before=before, enough=enough):
                return len(acknowledged) >= before + enough

            await until(has_enough, within=60)
            server.crash()
            await asyncio.gather(*writers)
            server.start()

            async def is_back():
                return not isinstance((await timed(store.commit()))[1], Exception)

            await until(is_back, within=5)
            log = await the_log(store)
            assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
            revoked = {entry.id for entry in log}
            logged = {event.subject for event in await store.events(limit=1_000_000)}
            assert acknowledged <= revoked, "an acknowledged commit is lost"
            assert revoked == logged
            assert (await store.counts())["sessions"] == len(revoked)


# --- migrations -------------------------------------------------------------------------------------------------------


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
from dutchdoor.stores.postgres import from_url
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


# --- plans ------------------------------------------------------------------------------------------------------------

HOT = {
    "look-up": (rows.SESSIONS_WITH_ACCOUNT, "bytea[]"),
    "sessions of": (rows.SESSIONS_OF, "text, integer"),
    "log": ("SELECT * FROM dutchdoor.read_log_1($1, $2, $3)", "bigint, bigint, integer"),
    "account": (rows.numbered(rows.Table(ACCOUNTS).by_unique({"email": ""})[0]), "text"),
    "live entries": (
        "SELECT count(*) FROM dutchdoor.revocations WHERE subject = $1 AND expires_at > $2",
        "text, float8",
    ),
}


@pytest.mark.parametrize("rows", [0, 3000])
async def test_hot_questions_go_by_an_index(postgres_url, store, rows):
    """Planned once, over however small tables, they read no table from end to end."""
    people = [an_account(f"p{n}") for n in range(rows // 10)]
    for n in range(0, len(people), 50):
        some = people[n : n + 50]
        await store.commit(*map(Add, some), *[Add(a_session(person)) for person in some for _ in range(9)])
    connection = await store._make(0.7)
    try:
        for name, (sql, types) in HOT.items():
            statement = f"plan_{name.replace(' ', '_').replace('-', '_')}"
            await connection.execute(f"PREPARE {statement} ({types}) AS {sql}")
            nulls = ", ".join(["NULL"] * len(types.split(",")))
            plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE {statement} ({nulls})"))
            assert "Index" in plan or name == "log", plan
            scanned = set(re.findall(r"Seq Scan on (\w+)", plan)) - {"revocation_log", "lineage"}
            assert not scanned, plan
    finally:
        connection.terminate()


# --- TLS, and a proxy that pools --------------------------------------------------------------------------------------


async def test_tls_is_verified_where_the_url_says_so(tmp_path):
    """With verify-full a server whose certificate is another's, or not signed by a known authority, is refused."""
    write_certificate(tmp_path, "localhost")
    with a_postgres() as server:
        for name in ("cert.pem", "key.pem"):
            target = server.folder / "data" / f"server-{name}"
            shutil.copy(tmp_path / name, target)
            target.chmod(0o600)
            if os.geteuid() == 0:
                shutil.chown(target, as_user("nobody")["user"])
        server.stop()
        server.arguments += [
            "-c", "ssl=on", "-c", "ssl_cert_file=server-cert.pem", "-c", "ssl_key_file=server-key.pem",
        ]  # fmt: skip
        server.start()
        verified = f"?sslmode=verify-full&sslrootcert={tmp_path / 'cert.pem'}"
        by_name = server.url().replace("127.0.0.1", "localhost")
        async with opened(by_name + verified) as store:
            encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            assert [tuple(row) for row in await store._all(encrypted)] == [(True,)]
        write_certificate(tmp_path, "localhost")
        for wrong in (server.url() + verified, by_name + verified):
            with pytest.raises(Unavailable):
                await from_url(wrong).open()


@pytest.fixture
def pooled(postgres_url, tmp_path):
    """The same database through PgBouncer, which hands out its few connections by the transaction."""
    program = os.environ.get("PGBOUNCER") or shutil.which("pgbouncer")
    if program is None:
        pytest.skip("needs pgbouncer on the PATH, or named by the variable PGBOUNCER")
    parts, port = urlsplit(postgres_url), free_port()
    config = tmp_path / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = host=127.0.0.1 port={parts.port} user=postgres password={PASSWORD}\n"
        f"[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={port}\nunix_socket_dir=\nauth_type=any\n"
        "pool_mode=transaction\ndefault_pool_size=6\nlogfile=\npidfile=\n"
    )
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    user = as_user("nobody" if os.geteuid() == 0 else None)
    process = subprocess.Popen([program, "-q", str(config)], stderr=subprocess.DEVNULL, **user)
    try:
        yield there(postgres_url)(port)
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize(
    "law",
    [pytest.param(law, marks=[] if law in LAWS_OF_COMMITS else pytest.mark.long) for law in LAWS],
    ids=lambda law: law.__name__,
)
async def test_law_behind_a_pool_of_transactions(law, pooled):
    """`?pooling=transaction`: every law holds though each transaction may get another connection."""
    store = from_url(f"{pooled}&pooling=transaction")
    await asyncio.wait_for(_open_patiently(store), 60)
    await law(store)
    await store.close()


async def _open_patiently(store):
    while True:
        try:
            return await store.open()
        except Unavailable:
            await asyncio.sleep(0.05)


async def test_nothing_is_kept_in_a_connection(postgres_url):
    """`?pooling=transaction` without a proxy: each statement stands by itself, in a transaction that ends."""
    store = from_url(f"{postgres_url}?pooling=transaction")
    await store.open()
    world = await World(store).fill()
    assert (await store.session(world.live.id))[0] == world.live
    woken = asyncio.Event()
    unwatch = store.watch(woken.set)
    for _ in range(3):
        await asyncio.wait_for(woken.wait(), 10)
        woken.clear()
        await store.commit(Revoke(a_revocation()))
    unwatch()
    for lane in store._lanes:
        if lane._connection is not None and not lane._connection.is_closed():
            assert not lane._connection.is_in_transaction()
            assert await lane._connection.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == 0
    await store.close()


@pytest.mark.parametrize("by_transaction", [False, True])
async def test_a_host_that_is_silent_is_passed_over(by_transaction, postgres_url):
    """Of several hosts in the URL one may be gone without a word, as a machine without power is: the next is used, for
    the connections that were open too, whether the hosts stand in the address or in `host`.
    """
    parts = urlsplit(postgres_url)
    name = f"{parts.username}:{parts.password}@"
    async with Proxy("127.0.0.1", parts.port) as gone, Proxy("127.0.0.1", parts.port) as there_still:
        ports = gone.port, there_still.port
        in_address = f"{name}127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}{parts.path}?sslmode=disable"
        in_options = f"{name}{parts.path}?host=127.0.0.1,127.0.0.1&port={ports[0]},{ports[1]}&sslmode=disable"
        async with opened(f"postgresql://{in_address}", by_transaction=by_transaction) as store:
            await store.commit(Revoke(a_revocation()))
            assert gone.accepted, "the first host was not used: nothing is tested"
            gone.hold()

            async def goes_on():
                return not isinstance((await timed(store.commit(Revoke(a_revocation()))))[1], Exception)

            await until(goes_on, 5.0)
            assert (await timed(store.select(StoredKey)))[1] == []
        async with opened(f"postgresql://{in_options}", by_transaction=by_transaction) as store:
            assert await store.select(StoredKey) == []


async def test_a_transaction_cut_off_before_its_end_lets_go(postgres_url, beside, store):
    """`?pooling=transaction`: a node that vanishes between its statement and the COMMIT holds no other node up for
    longer than some seconds, not until a lost connection is found out.
    """
    parts = urlsplit(postgres_url)
    async with (
        Proxy("127.0.0.1", parts.port) as link,
        opened(there(postgres_url)(link.port), by_transaction=True) as lost,
    ):
        await lost.commit(Revoke(a_revocation()))
        holding = beside.transaction()
        await holding.start()
        await beside.execute("SELECT 1 FROM dutchdoor.revocation_log FOR UPDATE")
        cut_off = asyncio.create_task(timed(lost.commit(Revoke(a_revocation()))))
        await until(lambda: somebody_waits(beside))
        link.up.hold()  # its statement is there; whatever comes after it is not
        await holding.rollback()
        is_left = "SELECT count(*) > 0 FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = $1"
        await until(lambda: beside.fetchval(is_left, parts.path.strip("/")))

        async def goes_on():
            return not isinstance((await timed(store.commit(Revoke(a_revocation()))))[1], Exception)

        await until(goes_on)
        assert isinstance((await cut_off)[1], Unavailable)


@pytest.mark.parametrize("by_transaction", [False, True])
async def test_no_functions_of_others_are_called(by_transaction, postgres_url, beside):
    """What another role of the database put into `public` is not taken for PostgreSQL's own, where it fits better."""
    async with opened(postgres_url, by_transaction=by_transaction) as store:
        await beside.execute(
            "CREATE FUNCTION public.cardinality(bigint[]) RETURNS integer LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'called as %', current_user; END $$"
        )
        await store.commit(Revoke(a_revocation()))


async def test_a_standby_that_is_gone_does_not_take_all_connections(server):
    """Commits that wait for a synchronous standby cannot be ended. While it is gone each of ours has an answer, those
    that wait stay as many as commits have connections, and look-ups go on; when it is back, so do commits.
    """
    async with opened(server.own) as store:
        await store.commit(Log(an_event()))
        server.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        try:
            server.sql("SELECT pg_reload_conf()")

            async def waits():
                return isinstance((await timed(store.commit(Log(an_event()))))[1], Unavailable)

            await until(waits, 30.0)  # not before the server has read it
            for _ in range(5):
                outcomes = await asyncio.gather(*(timed(store.commit(Log(an_event()))) for _ in range(3)))
                assert all(isinstance(outcome, Unavailable) for _, outcome in outcomes)
                assert await store.session("x") is None
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            assert 0 < int(server.sql(waiting)) <= COMMIT_LANES
        finally:
            server.sql("ALTER SYSTEM RESET synchronous_standby_names")
            server.sql("SELECT pg_reload_conf()")

        async def goes_on():
            return not isinstance((await timed(store.commit(Log(an_event()))))[1], Exception)

        await until(goes_on)


async def test_closing_waits_for_no_look_at_every_row(store, beside):
    """A node that is asked to stop while a table is locked stops; a caller that waits for the table gets an error."""
    async with beside.transaction():
        await beside.execute("LOCK TABLE dutchdoor.accounts IN ACCESS EXCLUSIVE MODE")
        looking = [asyncio.create_task(timed(store.accounts())) for _ in range(2)]
        await until(lambda: somebody_waits(beside))
        await asyncio.wait_for(store.close(), 30)
        for _, outcome in await asyncio.gather(*looking):
            assert isinstance(outcome, Unavailable)


# --- races ------------------------------------------------------------------------------------------------------------


async def test_removing_an_account_while_it_signs_in(store):
    """A session that is added while its account is removed belongs to no account, or to the account that was."""
    for n in range(20):
        ada = an_account(f"ada{n}")
        session = a_session(ada)
        await store.commit(Add(ada), Add(a_credential(ada)))
        await asyncio.gather(
            timed(store.commit(Expect(ada.subject, 0), Add(session), Log(an_event()))), store.commit(Remove(ada))
        )
        assert await store.session(session.id) is None
        await store.commit(Add(ada))
        assert await store.sessions_of(ada.subject) == []


async def test_an_end_of_all_spares_no_session_that_is_being_added(store):
    """I-01: of a sign-in and an end of everything at once, no session of the old epoch survives."""
    for n in range(20):
        ada = an_account(f"ada{n}")
        await store.commit(Add(ada))
        await asyncio.gather(
            timed(store.commit(Expect(ada.subject, 0), Add(a_session(ada)), Log(an_event()))),
            store.commit(Swap(replace(ada, epoch=1)), EndAll(ada.subject, "logout_all", NOW), Revoke(a_revocation())),
            timed(store.commit(Expect(ada.subject, 0), Add(a_session(ada)))),
        )
        assert await store.sessions_of(ada.subject) == []


async def test_a_session_is_ended_once_over_lanes(store):
    """5. Of many ends of one session, in batches and alone, one succeeds."""
    ada = an_account()
    for _ in range(10):
        session = a_session(ada)
        await store.commit(*([] if await store.account(ada.subject) else [Add(ada)]), Add(session))
        ends = [store.commit(End(session.id, "logout", NOW), Revoke(a_revocation(session.id))) for _ in range(5)]
        alone = [store.commit(End(session.id, "logout", NOW), Expect(ada.subject, 0)) for _ in range(5)]
        outcomes = await asyncio.gather(*ends, *alone, return_exceptions=True)
        assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 1
