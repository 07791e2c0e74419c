"""What is special to PostgreSQL: texts, durability, batches, limits, plans and races."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import subprocess
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.backing import a_postgres
from tests.stores.postgres import BUCKET, followed, opened, patiently, timed, until

from dutchdoor.errors import Conflict, InvalidInput, Unavailable
from dutchdoor.model.rate_limits import Bucket, Limit, decide_all, give_back
from dutchdoor.stores.base import Add, End, EndAll, Expect, Forgive, Log, Remove, Revoke, Swap
from dutchdoor.stores.kinds import ACCOUNTS, KINDS
from dutchdoor.stores.postgres import batches, from_url, rows
from dutchdoor.stores.postgres.changes import COMMIT, write_job
from dutchdoor.testing.conformance import NOW, a_credential, a_revocation, a_row, a_session, an_account, an_event

# What is written


pytestmark = pytest.mark.usefixtures("patience")  # a busy machine is no outage

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


# Durability


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
                for n in range(21):  # strace may be ended before it wrote down the last answer
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


# The audit log


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


async def test_p53_its_connections_and_those_that_wait_are_counted(store, beside):
    """While the database holds reads up, each lane is busy and the other calls wait; afterwards none does."""
    await patiently(lambda: store.account("x"))
    holding = beside.transaction()
    await holding.start()
    await beside.execute("LOCK TABLE dutchdoor.accounts")
    reads = [asyncio.create_task(store.account(f"user {n}")) for n in range(5)]
    async with asyncio.timeout(60):
        while (store.load.busy, store.load.waiting) != (2, 3):
            await asyncio.sleep(0)
            assert not all(read.done() for read in reads)
        assert store.load.connections >= 1
        await holding.rollback()
        await asyncio.gather(*reads, return_exceptions=True)  # a busy machine may have taken too long
        while (store.load.busy, store.load.waiting) != (0, 0):
            await asyncio.sleep(0)


# Batches


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
    """While two versions run, a program that knows of no bindings changes a bound session and does not unbind it. The
    same holds for the key of a browser.
    """
    ada = an_account("ada")
    session = a_session(ada, binding="confirmed ES256 x ", browser_key="k")
    await store.commit(Add(ada), Add(session))
    await beside.execute(
        "SELECT dutchdoor.apply_1(jsonb_build_object('do', 'swap session', 'subject', $1::text, 'row', "
        "to_jsonb(s) - 'binding' - 'browser_key' || '{\"generation\": 7}')) FROM dutchdoor.sessions s",
        ada.subject,
    )
    kept, _ = await store.session(session.id)
    assert (kept.generation, kept.binding, kept.browser_key, kept.revision) == (7, session.binding, "k", 1)
    await store.commit(Swap(replace(kept, binding=None, browser_key=None)))
    kept, _ = await store.session(session.id)
    assert (kept.binding, kept.browser_key) == (None, None)


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


# Limits


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


# Plans


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


# Races


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
