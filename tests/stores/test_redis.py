"""Redis beside a store: what it may do, and what happens when it is gone, empty, slow, old or hostile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import ssl
import time
import traceback
from functools import partial

import pytest
import redis.asyncio
from msgspec.structs import replace
from tests.backing import a_valkey, shared_valkey
from tests.server.certificates import write_certificate
from tests.standins import HOME, ISSUER, MASTER, T0, Clock, proof_of

from dutchdoor.errors import InvalidToken, Misconfigured, NotAuthenticated, Unavailable
from dutchdoor.model.accounts import with_roles
from dutchdoor.model.device_binding import REGISTERED_WITHIN
from dutchdoor.model.policy import STANDARD
from dutchdoor.model.rate_limits import Bucket, Limit
from dutchdoor.model.sessions import SessionToken
from dutchdoor.revocation.node_messages import FIRST_EPOCH
from dutchdoor.services.sessions import Authority
from dutchdoor.stores import redis as redis_store
from dutchdoor.stores.base import REMEMBERED_FOR, Add, End, Forgive, Log, Revoke, Swap
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.stores.redis import RedisStore, around
from dutchdoor.stores.redis_connection import Address, Link
from dutchdoor.stores.sqlite import SqliteStore
from dutchdoor.stores.urls import make_store, with_redis
from dutchdoor.testing.conformance import LAWS, NOW, SHARED_LAWS, a_revocation, a_session, an_account, an_event

KEY = bytes(range(32))
BACK_WITHIN = 20.0
PATIENCE = 20.0
SLOW = Limit(name="slow", count=5, per_seconds=3600.0, burst=5)
CEILING = Limit(name="ceiling", count=7, per_seconds=float("inf"), burst=7)


class Far(MemoryStore):
    """A record that is a network away: it cannot tell the head of its log at once. Counts the sessions it is asked
    for.
    """

    asked = 0

    def __init__(self):
        super().__init__()
        self.first_epoch = self._log_epoch = FIRST_EPOCH  # as a database that loses nothing

    def head(self):
        return None

    async def session(self, session_id):
        self.asked += 1
        return await super().session(session_id)


@pytest.fixture
async def emptied(valkey_url):
    """The server's URL, and a client without a store."""
    client = redis.asyncio.Redis.from_url(valkey_url)
    yield client
    await client.aclose()


@contextlib.asynccontextmanager
async def opened(record, url, *, count=1, key=KEY, patient=True):
    """Stores over one record, as of several nodes. A busy machine is no outage, but where outages are tried."""
    stores = [around(record, url, key=key) for _ in range(count)]
    for store in stores:
        await store.open()
        for link in store._links() if patient else ():
            link._wait = PATIENCE
    try:
        yield stores if count > 1 else stores[0]
    finally:
        for store in stores:
            await store.close()


async def until(condition, within=BACK_WITHIN):
    deadline = time.monotonic() + within
    while True:
        answer = condition()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def a_signed_in(record):
    ada = an_account()
    session = a_session(ada)
    await record.commit(Add(ada), Add(session))
    return ada, session


async def copied(store, ada, session, read_at=NOW, log_epoch=1):
    """Keep a copy, and wait until it is there."""
    store.keep_recent(session, ada, read_at, log_epoch)
    await until(lambda: has_copy(store, session, read_at, log_epoch))


async def has_copy(store, session, read_at, log_epoch):
    found = await store.recent_session(session.id, log_epoch)
    return found is not None and found[2] == read_at


# --- the laws ---------------------------------------------------------------------------------------------------------

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
async def test_law(kind, law, tmp_path, valkey_url):
    """A store with Redis beside it obeys the law, whatever the store."""
    record = Far() if kind == "memory" else SqliteStore(tmp_path / "test.db")
    async with opened(record, valkey_url) as store:
        await law(store)


@pytest.mark.parametrize("law", LAWS_OF_REDIS, ids=lambda law: law.__name__)
async def test_law_with_postgres(law, prepared_url, valkey_url):
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


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(n, marks=pytest.mark.long) for n in range(2, 12))])
async def test_the_script_decides_as_python_does(seed, valkey_url, emptied):
    """Whatever is tried, given back and forgotten, script and `limits.decide_all` agree to the last bit."""
    dice = random.Random(seed)
    limits = [
        Limit(
            name=name,
            count=dice.randrange(1, 50),
            per_seconds=dice.choice([1.0, 60.0, 3600.0, dice.uniform(0.001, 1e5)]),
            burst=dice.randrange(1, 9),
        )
        for name in "abcd"
    ]
    python = MemoryStore()
    async with opened(Far(), valkey_url) as lua:
        now = latest = dice.uniform(0, 2e9)
        for _ in range(150):
            now += dice.choice([0.0, dice.uniform(0, 1e-5), dice.expovariate(0.1), dice.uniform(-500, 1000)])
            # Clocks may be set back, by less than for how long what is full is kept.
            now = max(now, latest - redis_store.TRIM_AFTER)
            latest = max(now, latest)
            buckets = [Bucket(f"{limit.name}:{dice.randrange(3)}", limit) for limit in dice.sample(limits, 3)]
            if dice.random() < 0.2:
                forgiven = Forgive(give_back=tuple(buckets[:1]), forget=tuple(buckets[1:2]))
                await asyncio.gather(python.commit(forgiven), lua.commit(forgiven))
            else:
                assert await python.hit(buckets, now) == await lua.hit(buckets, now)
        kept = dict(await emptied.zrange(lua._limits_key, 0, -1, withscores=True))
        # What is full may have been trimmed.
        assert {lua._bucket(Bucket(key, SLOW)): tat for key, tat in python._tats.items() if tat > now} == {
            name: tat for name, tat in kept.items() if tat > now
        }


async def test_a_limit_is_exact_over_nodes(valkey_url):
    """I-16: of 200 attempts at once, over three nodes, exactly as many pass as the bucket holds."""
    async with opened(Far(), valkey_url, count=3) as nodes:
        hits = await asyncio.gather(*[nodes[n % 3].hit([Bucket("slow:x", SLOW)], NOW) for n in range(200)])
        assert hits.count((0.0, "")) == SLOW.burst


async def test_an_attempt_that_a_ceiling_refuses_takes_nothing(valkey_url):
    """Of 60 attempts at once against a ceiling as many pass as it has, and the others take nothing from the address:
    it has all but those.
    """
    address, ceiling = Limit(name="address", count=1, per_seconds=3600.0, burst=300), Bucket("ceiling:x", CEILING)
    async with opened(Far(), valkey_url, count=3) as nodes:
        buckets = [Bucket("address:1", address), ceiling]
        hits = await asyncio.gather(*[nodes[n % 3].hit(buckets, NOW) for n in range(60)])
        assert hits.count((0.0, "")) == CEILING.burst
        assert {by for _, by in hits} == {"", "ceiling"}
        left = [await nodes[0].hit(buckets[:1], NOW) for _ in range(300)]
        assert left.count((0.0, "")) == 300 - CEILING.burst


async def test_what_the_record_cannot_count_is_not_charged(valkey_url):
    """When the record is out of reach, the attempt that it could not count is given back."""

    class Gone(Far):
        async def hit(self, buckets, now):
            raise Unavailable("gone")

    async with opened(Gone(), valkey_url) as store:
        for _ in range(2 * SLOW.burst):
            with pytest.raises(Unavailable):
                await store.hit([Bucket("slow:x", SLOW), Bucket("ceiling:x", CEILING)], NOW)
        assert await store.hit([Bucket("slow:x", SLOW)], NOW) == (0.0, "")


async def test_flushing_redis_lifts_no_ceiling(valkey_url, emptied):
    """I-14: FLUSHALL gives a guesser one burst more of what grows back, and not one attempt above the ceiling. The
    record's ceilings are the record's: Redis never saw them.
    """
    buckets = [Bucket("slow:x", SLOW), Bucket("ceiling:x", CEILING)]
    async with opened(Far(), valkey_url) as store:
        passed = 0
        for _ in range(10):
            passed += [await store.hit(buckets, NOW) for _ in range(20)].count((0.0, ""))
            await emptied.flushall()
        assert passed == CEILING.burst
        assert await store.hit(buckets, NOW) == (86400.0, "ceiling")


async def test_a_success_forgets_ceilings_with_its_own_commit(valkey_url):
    """What a success forgives is forgiven where it is counted: ceilings in the transaction of the success."""
    buckets = [Bucket("slow:x", SLOW), Bucket("ceiling:x", CEILING)]
    record = Far()
    async with opened(record, valkey_url) as store:
        for _ in range(4):
            await store.hit(buckets, NOW)
        await store.commit(Forgive(give_back=(buckets[0],), forget=(buckets[1],)), Log(an_event()))
        assert record._tats == {}
        assert [(await store.hit(buckets[:1], NOW))[0] > 0 for _ in range(3)] == [False, False, True]


@pytest.mark.long
async def test_buckets_do_not_pile_up(valkey_url, emptied):
    """What is full again leaves Redis by itself, and the last of it with its key's life."""
    quick = Limit(name="quick", count=1, per_seconds=1.0, burst=1)
    async with opened(Far(), valkey_url) as store:
        for n in range(2000):
            await store.hit([Bucket(f"quick:{n}", quick)], NOW + n)
        assert await emptied.zcard(store._limits_key) < 620
        assert 0 < await emptied.ttl(store._limits_key) <= 602


async def test_a_flood_of_hits_is_a_few_batches(valkey_url, monkeypatch):
    """Attempts of one turn of the loop go together, and what is asked meanwhile makes the next batches."""
    batches = []
    async with opened(Far(), valkey_url) as store:
        decide = store._count._ask

        def counted(attempts):
            batches.append(len(attempts))
            return decide(attempts)

        monkeypatch.setattr(store._count, "_ask", counted)
        await asyncio.gather(*[store.hit([Bucket(f"slow:{n}", SLOW)], NOW) for n in range(1000)])
        assert sum(batches) == 1000
        assert len(batches) <= 8


async def test_a_server_that_lost_the_script_gets_it_again(valkey_url, emptied):
    """SCRIPT FLUSH, or a server that was started anew, costs a round trip and counts nothing twice."""
    async with opened(Far(), valkey_url) as store:
        for n in range(SLOW.burst + 1):
            await emptied.script_flush()
            assert ((await store.hit([Bucket("slow:x", SLOW)], NOW))[0] > 0) == (n == SLOW.burst)


@pytest.mark.parametrize("score", ["-inf", "+inf", "1e308", "0"])
async def test_a_score_that_a_person_wrote_locks_no_one_out(score, valkey_url, emptied):
    """A process that can write to Redis can make a client wait for as long as an empty bucket does, and no longer."""
    bucket = Bucket("slow:x", SLOW)
    async with opened(Far(), valkey_url) as store:
        await emptied.zadd(store._limits_key, {store._bucket(bucket): score})
        wait, _ = await store.hit([bucket], NOW)
        assert 0 <= wait <= SLOW.interval
        assert await store.hit([bucket], NOW + wait) == (0.0, "")


async def test_a_foreign_value_in_the_place_of_the_limits_is_replaced(valkey_url, emptied):
    """A key of another type where the limits are does not stop the counting."""
    async with opened(Far(), valkey_url) as store:
        await emptied.set(store._limits_key, b"not a sorted set")
        assert await store.hit([Bucket("slow:x", SLOW)], NOW) == (0.0, "")
        assert await emptied.type(store._limits_key) == b"zset"


async def test_an_answer_to_another_question_lets_no_one_in(valkey_url, monkeypatch):
    """A verdict that does not name the attempt it is about counts for nothing."""
    async with opened(Far(), valkey_url) as store:
        ask = redis.asyncio.Redis.execute_command

        async def another(client, *command, **options):
            said, *waits = await ask(client, *command, **options)
            return [b"%d" % (int(said) - 1), *waits]

        monkeypatch.setattr(redis.asyncio.Redis, "execute_command", another)
        with pytest.raises(Unavailable):
            await store.hit([Bucket("slow:x", SLOW)], NOW)


@pytest.mark.parametrize("answer", [7, None, b"x", [], [b"0"], [b"0", []], [b"0", None], [b"0", b"x"]])
async def test_an_answer_of_another_form_lets_no_one_in(answer, valkey_url, monkeypatch):
    """Whatever stands in Redis's place says: an attempt that was not decided is 503, and is logged soon."""
    async with opened(Far(), valkey_url) as store:

        async def another(client, *command, **options):
            return [command[4], *answer[1:]] if isinstance(answer, list) and answer else answer

        monkeypatch.setattr(redis.asyncio.Redis, "execute_command", another)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(store.hit([Bucket("slow:x", SLOW)], NOW), PATIENCE)


async def test_p02_without_redis_the_record_is_written():
    """A node whose Redis is away is ready: only attempts are refused, and all nodes would be taken out at once."""
    store = around(MemoryStore(), "redis://127.0.0.1:1", key=KEY)
    await store.open()
    try:
        await store.try_writing(NOW)
        with pytest.raises(Unavailable):
            await store.hit([Bucket("x", SLOW)], NOW)
    finally:
        await store.close()


@pytest.mark.parametrize("failure", [RuntimeError("the handler is closed"), EOFError(), AttributeError("write")])
async def test_a_client_that_breaks_is_an_outage(failure, valkey_url, monkeypatch):
    """A driver has many ways to fail: each is 503 and no error of ours, and the link comes back by itself."""
    record = Far()
    _, session = await a_signed_in(record)
    async with opened(record, valkey_url) as store:

        async def broken(client, *command, **options):
            raise failure

        with monkeypatch.context() as patch:
            patch.setattr(redis.asyncio.Redis, "execute_command", broken)
            with pytest.raises(Unavailable):
                await store.hit([Bucket("slow:x", SLOW)], NOW)
            assert await store.recent_session(session.id, 1) is None
            assert not store._limits.is_up
            await asyncio.sleep(0)
        await until(lambda: store._limits.is_up and store._copies.is_up)
        assert await store.hit([Bucket("slow:x", SLOW)], NOW) == (0.0, "")


# --- copies of sessions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [7, None, b"x", b"xy", [], [None], [None] * 3, [7, 7], [None, [b"x"]], ["x", "y"]])
async def test_an_answer_of_another_form_is_no_copy(answer, valkey_url, monkeypatch):
    """Whatever stands in Redis's place says: no request waits for ever, and none gets an error."""
    record = Far()
    ada, one = await a_signed_in(record)
    two = a_session(ada, NOW + 1)
    async with opened(record, valkey_url) as store:

        async def another(client, *command, **options):
            return answer

        monkeypatch.setattr(redis.asyncio.Redis, "execute_command", another)
        found = await asyncio.wait_for(
            asyncio.gather(store.recent_session(one.id, 1), store.recent_session(two.id, 1)), PATIENCE
        )
        assert found == [None, None]


async def test_a_copy_is_what_was_read_and_when(valkey_url, emptied):
    """Another node finds the copy as it was written, to the bit; for a minute."""
    record = Far()
    ada, session = await a_signed_in(record)
    async with opened(record, valkey_url, count=2) as (one, other):
        assert await other.recent_session(session.id, 1) is None
        await copied(one, ada, session, NOW + 1 / 3)
        assert await other.recent_session(session.id, 1) == (session, ada, NOW + 1 / 3)
        (key,) = [key async for key in emptied.scan_iter() if not key.endswith((b":probe", b":limits"))]
        assert 0 < await emptied.pttl(key) <= REMEMBERED_FOR * 1000
        assert record.asked == 0


async def test_over_a_record_that_is_near_no_copies_are_kept(valkey_url, tmp_path):
    """A file on this machine answers sooner than any server: over SQLite there are no copies."""
    async with opened(SqliteStore(tmp_path / "test.db"), valkey_url) as store:
        ada, session = await a_signed_in(store)
        store.keep_recent(session, ada, NOW, 1)
        await asyncio.sleep(0)
        assert store._tasks == set()
        assert await store.recent_session(session.id, 1) is None


async def test_a_session_is_read_from_the_record(valkey_url):
    """`session` is the record's, whatever copies say: law 8."""
    record = Far()
    ada, session = await a_signed_in(record)
    async with opened(record, valkey_url) as store:
        await copied(store, ada, session)
        await record.commit(End(session.id, "logout", NOW))
        found = await store.session(session.id)
        assert found is not None
        assert found[0].ended_at == NOW


async def test_a_copy_from_before_a_restore_is_unknown_after_it(valkey_url):
    """Copies are named by the log they were read under: who follows another log finds none."""
    record = Far()
    ada, session = await a_signed_in(record)
    async with opened(record, valkey_url) as store:
        await copied(store, ada, session, log_epoch=1)
        assert await store.recent_session(session.id, 2) is None


async def test_look_ups_of_one_turn_are_one_question(valkey_url, monkeypatch):
    """Look-ups that arrive together cost one round trip."""
    record = Far()
    ada = an_account()
    sessions = [a_session(ada, NOW + n) for n in range(100)]
    async with opened(record, valkey_url) as store:
        for session in sessions:
            store.keep_recent(session, ada, NOW, 1)
        await until(lambda: has_copy(store, sessions[-1], NOW, 1))
        batches = []
        get = store._look._ask

        def counted(names):
            batches.append(len(names))
            return get(names)

        monkeypatch.setattr(store._look, "_ask", counted)
        found = await asyncio.gather(*[store.recent_session(session.id, 1) for session in sessions])
        assert [copy[0] for copy in found] == sessions
        assert batches == [100]


async def test_hostile_values_are_no_copies(valkey_url, emptied):
    """Who can write to Redis cannot sign in as anyone: nothing opens but what a node sealed for this very session."""
    record = Far()
    ada, session = await a_signed_in(record)
    eve = an_account("eve")
    own = a_session(eve, NOW + 1)
    async with opened(record, valkey_url) as store, opened(record, valkey_url, key=bytes(32)) as stranger:
        key = store._copy_key(store._sealer.name(session.id, 1))
        await copied(store, eve, own)
        eves = await emptied.get(store._copy_key(store._sealer.name(own.id, 1)))
        await copied(stranger, ada, session)
        strangers = await emptied.get(stranger._copy_key(stranger._sealer.name(session.id, 1)))
        await copied(store, ada, session)
        good = await emptied.get(key)
        flipped = [bytes([*good[:n], good[n] ^ 1, *good[n + 1 :]]) for n in range(len(good))]
        plain = store._sealer._encode((NOW, session, ada))
        other_fields = store._sealer.seal((NOW, {"id": session.id}, ada), store._sealer.name(session.id, 1))
        bad = [
            eves,
            strangers,
            plain,
            good[:-1],
            good + b"\0",
            b"",
            b"x" * 43,
            b"x" * 5_000_000,
            other_fields,
            *flipped,
        ]
        for value in bad:
            await emptied.set(key, value)
            assert await store.recent_session(session.id, 1) is None, value[:40]
        await emptied.delete(key)
        await emptied.rpush(key, "a list")
        assert await store.recent_session(session.id, 1) is None
        await emptied.delete(key)
        await emptied.set(key, good)
        assert await store.recent_session(session.id, 1) == (session, ada, NOW)
        assert store._look._ask is not None
        assert store._copies.is_up


async def test_what_is_too_large_is_not_kept(valkey_url, emptied):
    """An account with an absurd name has no copies; no other account is affected."""
    record = Far()
    ada, session = await a_signed_in(record)
    async with opened(record, valkey_url) as store:
        store.keep_recent(session, replace(ada, name="x" * 10_000), NOW, 1)
        other = a_session(ada, NOW + 1)
        await copied(store, ada, other)
        assert await emptied.exists(store._copy_key(store._sealer.name(session.id, 1))) == 0


async def test_a_dump_of_redis_tells_nothing(valkey_url, emptied):
    """I-23: no id, subject, address, hash or network is in Redis's keys or values."""
    record = Far()
    ada, session = await a_signed_in(record)
    async with opened(record, valkey_url) as store:
        await copied(store, ada, session)
        await store.hit([Bucket("sign_in_by_address:192.0.2.77", SLOW), Bucket(f"by_session:{session.id}", SLOW)], NOW)
        dump = b""
        async for key in emptied.scan_iter():
            dump += key + (await emptied.dump(key) or b"")
        secrets = [session.id, ada.subject, ada.email, ada.address, "Firefox", "192.0.2.77", "by_session", "2001:db8"]
        for secret in [*map(str.encode, secrets), session.secret_hash, store._salt]:
            assert secret not in dump


async def test_no_two_copies_are_sealed_alike(valkey_url):
    """One session sealed twice makes two texts: a nonce is never used again, by this process or another."""
    record = Far()
    ada, session = await a_signed_in(record)
    async with opened(record, valkey_url, count=2) as (one, other):
        name = one._sealer.name(session.id, 1)
        assert name == other._sealer.name(session.id, 1)
        boxes = [sealer.seal((NOW, session, ada), name) for sealer in (one._sealer, other._sealer) for _ in range(50)]
        assert len({box[:28] for box in boxes}) == 100
        assert all(one._sealer.open(box, name) == (NOW, session, ada) for box in boxes)


async def test_made_up_writers_fill_no_memory(valkey_url):
    """An attacker who makes up names of writers costs a look each, and no memory."""
    async with opened(Far(), valkey_url) as store:
        for n in range(1000):
            assert store._sealer.open(n.to_bytes(16, "big") + bytes(40), bytes(16)) is None
        assert store._sealer._keys == {}


async def test_callers_that_leave_take_no_answer_of_others(valkey_url):
    """I-25: however many callers are cancelled in the middle, each of the others gets the session it asked for."""
    record, dice = Far(), random.Random(1)
    ada = an_account()
    sessions = [a_session(ada, NOW + n) for n in range(50)]
    async with opened(record, valkey_url) as store:
        for session in sessions:
            store.keep_recent(session, ada, NOW, 1)
        await until(lambda: has_copy(store, sessions[-1], NOW, 1))
        for _ in range(60):
            asked = [(s, asyncio.ensure_future(store.recent_session(s.id, 1))) for s in dice.choices(sessions, k=20)]
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(0)
            for _, task in dice.sample(asked, 8):
                task.cancel()
            for (session, _), found in zip(
                asked, await asyncio.gather(*[task for _, task in asked], return_exceptions=True), strict=True
            ):
                # None: it took too long, on a busy machine. Never another's.
                assert found is None or isinstance(found, asyncio.CancelledError) or found == (session, ada, NOW)
        await until(lambda: has_copy(store, sessions[0], NOW, 1))


# --- copies in the hands of nodes -------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def nodes(record, url, clocks):
    """Authorities over one record, each with a clock of its own."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for clock in clocks:
            store = await stack.enter_async_context(opened(record, url))
            node = Authority(store, master=MASTER, issuer=ISSUER, copies=store, clock=clock)
            await node.open()
            stack.push_async_callback(node.fencing.close)
            made.append(node)
        yield made


async def signed_in(node):
    await node.provide("alice")
    return await node.start(await proof_of(node, "alice"), mode="session", client=HOME)


async def left(node, begun):
    """Look a session up at a node, and wait until its copy is in Redis."""
    held = await node.resume(begun.session_token)
    await until(lambda: has_copy(node._copies, held.session, held.read_at, node.fencing.node.log_epoch))
    return held


async def is_refused(node, begun):
    try:
        await node.resume(begun.session_token)
    except NotAuthenticated:
        return True
    return False


async def test_what_one_node_looked_up_another_does_not(valkey_url):
    """A session that one node has read costs the next one no query."""
    record, clock = Far(), Clock()
    async with nodes(record, valkey_url, [clock, clock]) as (one, other):
        begun = await signed_in(one)
        held = await left(one, begun)
        asked = record.asked
        assert await other.resume(begun.session_token) == held
        assert record.asked == asked
        with pytest.raises(InvalidToken):
            await other.resume(SessionToken.mint(begun.session.id).text())


async def end_it(node, begun):
    return await node.end(begun.session.id, client=HOME, actor="alice")


async def end_all(node, begun):
    return await node.end_all("alice", client=HOME, actor="alice")


async def disable(node, begun):
    return await node.end_all("alice", client=HOME, actor="admin", change=lambda a: replace(a, status="disabled"))


@pytest.mark.parametrize("ending", [end_it, end_all, disable])
@pytest.mark.parametrize("late", [False, True], ids=["copied before", "copied after"])
async def test_what_ended_is_refused_whatever_copies_say(ending, late, valkey_url, monkeypatch):
    """I-01, I-02: a copy from before a session's end, written in time or by a slow reader afterwards, signs no one in
    once the end is fenced: not at a node that follows the log, and not at one that starts now.
    """
    record, clock = Far(), Clock()
    async with nodes(record, valkey_url, [clock, clock]) as (one, other):
        begun = await signed_in(one)
        kept = []
        if late:
            monkeypatch.setattr(one._copies, "keep_recent", lambda *copy: kept.append(copy))
            await one.resume(begun.session_token)
        else:
            await left(one, begun)
        done = await ending(other, begun)
        assert (await other.fencing.fence(done, wait=BACK_WITHIN)).fenced
        for copy in kept:
            RedisStore.keep_recent(one._copies, *copy)
        await until(lambda: has_copy(other._copies, begun.session, clock(), 1))
        assert await is_refused(one, begun)
        assert await is_refused(other, begun)
        async with nodes(record, valkey_url, [clock]) as (fresh,):
            assert await is_refused(fresh, begun)


async def test_changed_roles_show_at_once(valkey_url):
    """I-20: a copy with the old roles is covered by the entry of the change."""
    record, clock = Far(), Clock()
    async with nodes(record, valkey_url, [clock, clock]) as (one, other):
        begun = await signed_in(one)
        await left(one, begun)
        account = with_roles(await one.store.account("alice"), ("admin",))
        done = await one.store.commit(Swap(account), *one.staling(account, clock()))
        assert (await one.fencing.fence(done, wait=BACK_WITHIN)).fenced
        assert (await other.resume(begun.session_token)).principal.roles == ("admin",)


async def test_what_no_entry_tells_of_shows_within_a_minute(valkey_url):
    """Another name shows a minute after the copy was read, whichever node passed it on in between."""
    record, clock = Far(), Clock()
    async with nodes(record, valkey_url, [clock, clock, clock]) as (one, other, third):
        begun = await signed_in(one)
        clock.now += REGISTERED_WITHIN  # until then a browser may bind it, and it is remembered for seconds
        await left(one, begun)
        await record.commit(Swap(replace(await record.account("alice"), name="Alice the Second")))
        clock.now += REMEMBERED_FOR / 2
        assert (await other.resume(begun.session_token)).account.name == ""
        clock.now += REMEMBERED_FOR / 2 - 0.001
        assert (await third.resume(begun.session_token)).account.name == ""
        clock.now += 0.001
        for node in (one, other, third):
            assert (await node.resume(begun.session_token)).account.name == "Alice the Second"


async def test_who_changed_it_sees_it_at_once(valkey_url):
    """After a change that no entry tells of, the node that made it uses no copy from before."""
    record, clock = Far(), Clock()
    async with nodes(record, valkey_url, [clock, clock]) as (one, other):
        begun = await signed_in(one)
        await left(one, begun)
        await record.commit(Swap(replace(await record.account("alice"), name="Alice the Second")))
        other.forget_remembered()
        assert (await other.resume(begun.session_token)).account.name == "Alice the Second"


async def test_clocks_that_differ_make_copies_colder_and_not_older(valkey_url):
    """I-21: a node whose clock is behind finds copies from its future, one whose clock is ahead finds old ones, and
    both ask the record.
    """
    record, clock = Far(), Clock()
    async with nodes(record, valkey_url, [clock, Clock(T0 - 200), Clock(T0 + 200)]) as (one, behind, ahead):
        begun = await signed_in(one)
        await left(one, begun)
        for node in (behind, ahead):
            asked = record.asked
            assert (await node.resume(begun.session_token)).account.subject == "alice"
            assert record.asked == asked + 1


async def test_sightings_are_written_though_copies_are_warm(valkey_url):
    """A session in use does not run out because each node finds another's copy: no copy is made of a copy, so the
    record is read, and the sighting written, once a minute.
    """
    record, clock = Far(), Clock()
    async with nodes(record, valkey_url, [clock, clock]) as pair:
        begun = await signed_in(pair[0])
        for n in range(20):
            node = pair[n % 2]
            await node.resume(begun.session_token)
            await until(lambda node=node: not node._copies._keeping)
            clock.now += STANDARD.touch_every / 2
        ((session, _),) = [await record.session(begun.session.id)]
        assert session.last_seen_at >= clock.now - STANDARD.touch_every - REMEMBERED_FOR - STANDARD.touch_every / 2


@pytest.mark.parametrize("how", ["FLUSHALL", "rolled back"])
async def test_redis_that_lost_everything_or_went_back_in_time_signs_no_one_in(how):
    """I-14, I-15: after FLUSHALL, and with a Redis as it was before a revocation (a replica that lagged and was
    promoted), what was revoked stays refused, ceilings stay spent, and who is signed in stays so.
    """
    record, clock = Far(), Clock()
    buckets = [Bucket("slow:x", SLOW), Bucket("ceiling:x", CEILING)]
    with a_valkey() as server:
        async with nodes(record, server.url, [clock, clock]) as (one, other):
            ends, stays = await signed_in(one), await signed_in(one)
            for begun in (ends, stays):
                await left(one, begun)
            client = redis.asyncio.Redis.from_url(server.url)
            await client.save()
            done = await end_it(one, ends)
            assert (await one.fencing.fence(done, wait=BACK_WITHIN)).fenced
            for _ in range(3):
                for _ in range(SLOW.burst):
                    await one.store.hit(buckets, clock())
                clock.now += 3600
            clock.now = T0
            if how == "FLUSHALL":
                await client.flushall()
            else:
                server.kill()
                server.start()
            await client.aclose()
            for node in (one, other):
                await until(lambda node=node: is_counting(node.store))
                assert await is_refused(node, ends)
                assert (await node.resume(stays.session_token)).account.subject == "alice"
                assert await node.store.hit(buckets, clock()) == (86400.0, "ceiling")
            async with nodes(record, server.url, [clock]) as (fresh,):
                assert await is_refused(fresh, ends)


async def test_a_restored_database_knows_no_copies(valkey_url):
    """A copy of a session that the restored database never had is found by no node that follows its new log."""
    record, clock = Far(), Clock()
    async with nodes(record, valkey_url, [clock, clock]) as (one, other):
        begun = await signed_in(one)
        await left(one, begun)
        del record._sessions.rows[begun.session.id,]
        await other.store.begin_log_epoch(clock())

        async def refused_by_all():
            return await is_refused(one, begun) and await is_refused(other, begun)

        await until(refused_by_all)


# --- out of reach, and back -------------------------------------------------------------------------------------------


async def is_counting(store):
    try:
        await store.hit([Bucket(f"slow:{random.random()}", SLOW)], NOW)
    except Unavailable:
        return False
    return True


async def timed(awaitable):
    started = time.monotonic()
    try:
        return await awaitable, time.monotonic() - started
    except Unavailable as exc:
        return exc, time.monotonic() - started


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_out_of_reach_sessions_go_on_and_limits_say_so(how, caplog):
    """I-12, I-13, I-16: with Redis killed, or silent, look-ups of sessions go on at once from the record, attempts are
    refused with `Unavailable` within a second, and both are back within five of its return, with one line for each
    transition.
    """
    record = Far()
    ada, session = await a_signed_in(record)
    with a_valkey() as server:
        async with opened(record, server.url, patient=False) as store:
            await copied(store, ada, session)
            for _ in range(2):
                caplog.clear()
                if how == "killed":
                    server.kill()
                else:
                    server.send(signal.SIGSTOP)
                found, took = await timed(store.recent_session(session.id, 1))
                assert found is None
                assert took < 5.0
                for n in range(3):
                    refused, took = await timed(store.hit([Bucket("slow:x", SLOW)], NOW))
                    assert isinstance(refused, Unavailable)
                    assert took < (5.0 if n == 0 else redis_store.COUNT_FOR), "who comes next does not wait"
                assert (await timed(store.recent_session(session.id, 1)))[1] < redis_store.COUNT_FOR
                assert (await timed(store.commit(Forgive(forget=(Bucket("slow:x", SLOW),)))))[1] < 5.0
                assert await store.session(session.id) == (session, ada)
                assert (await store.counts())["sessions"] == 1
                await until(lambda: len(caplog.records) == 2)
                if how == "killed":
                    server.start()
                else:
                    server.send(signal.SIGCONT)
                started = time.monotonic()
                await until(lambda: is_counting(store))
                await until(lambda: store._copies.is_up)
                assert time.monotonic() - started < BACK_WITHIN
                if how == "killed":  # empty: nothing is known, and nothing is wrong
                    assert await store.recent_session(session.id, 1) is None
                await copied(store, ada, session)
                told = [entry.getMessage() for entry in caplog.records]
                assert sorted(("back" in line, "limits" in line) for line in told) == [
                    (False, False), (False, True), (True, False), (True, True),
                ]  # fmt: skip
                assert all(f":{server.port} is out of reach" in line for line in told if "back" not in line)


async def test_a_server_that_starts_later_is_found(caplog):
    """Redis need not be there when the store is opened."""
    record = Far()
    with a_valkey() as server:
        server.stop()
        async with opened(record, server.url) as store:
            assert not await is_counting(store)
            server.start()
            await until(lambda: is_counting(store))


async def test_a_stale_connection_is_no_outage(caplog, valkey_url, emptied):
    """Connections that the server closed meanwhile cost one attempt, milliseconds, and no line in the log."""
    async with opened(Far(), valkey_url) as store:
        assert await is_counting(store)
        await emptied.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await until(lambda: is_counting(store), 1.0)
    assert caplog.records == []


async def test_a_server_that_takes_no_writes_is_out_of_reach(caplog):
    """A full Redis, or a replica in the place of its primary, counts nothing: it is out of reach, and says why once."""
    with a_valkey() as server:
        client = redis.asyncio.Redis.from_url(server.url)
        async with opened(Far(), server.url) as store:
            await client.replicaof("127.0.0.1", 1)
            assert not await is_counting(store)
            await until(lambda: len(caplog.records) >= 1)
            assert "READONLY" in caplog.records[0].getMessage() or "ReadOnly" in caplog.records[0].getMessage()
            await client.replicaof("NO", "ONE")
            await until(lambda: is_counting(store))
        await client.aclose()


async def test_one_that_keeps_failing_is_tried_less_often(valkey_url):
    """A server that answers the probe and nothing else is not asked again at once each time."""
    link = Link(Address.read(valkey_url), 0.1, lambda client: client.ping(), "nothing: nobody cares")

    async def fail(client):
        raise redis.exceptions.ResponseError("no")

    failures = 0
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        await until(lambda: link.is_up)
        with pytest.raises(Unavailable):
            await link.ask(fail)
        failures += 1
    assert failures <= 5
    await link.close()


# --- wake-ups ---------------------------------------------------------------------------------------------------------


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
            await emptied.publish(store._channel, b"x" * 1000)
        took = time.monotonic() - started
        last = time.monotonic()
        await until(lambda: woken[-1] >= last - 0.05)
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


# --- URLs and secrets -------------------------------------------------------------------------------------------------

SECRET = "hunter2%40hunter2"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", Address(kind="single", hosts=(("h", 6379),))),
        ("redis://h:7/3", Address(kind="single", hosts=(("h", 7),), db=3)),
        ("redis://h?db=3", Address(kind="single", hosts=(("h", 6379),), db=3)),
        ("redis://:p%40w@[::1]:7", Address(kind="single", hosts=(("::1", 7),), password="p@w")),
        ("rediss://u:p@h", Address(kind="single", hosts=(("h", 6379),), tls=True, username="u", password="p")),
        ("unix:///run/v.sock?db=2", Address(kind="socket", path="/run/v.sock", db=2)),
        ("unix://u:p@/run/v.sock", Address(kind="socket", path="/run/v.sock", username="u", password="p")),
        (
            "redis+sentinel://u:p@a,b:7/door/4?sentinel_password=s",
            Address(
                kind="sentinel", hosts=(("a", 26379), ("b", 7)), service="door", db=4, username="u", password="p",
                sentinel_password="s",
            ),
        ),
        ("rediss+cluster://:p@a,b:7", Address(kind="cluster", hosts=(("a", 6379), ("b", 7)), tls=True, password="p")),
        ("redis+cluster://[::1]:1,[::2]", Address(kind="cluster", hosts=(("::1", 1), ("::2", 6379)))),
    ],
)  # fmt: skip
def test_urls_are_read(url, expected):
    """Each kind of URL says where Redis is."""
    assert Address.read(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "redis://", "redis://h/x", "redis://h/0/1", "redis://a,b", "redis://h?timeout=3", "redis://h#x", "redis://h:x",
        "redis+sentinel://a,b", "redis+sentinel://a,b/s/x", "redis+cluster://", "redis+cluster://a/s/0",
        "redis+cluster://a/1", "unix://", "unix://host/path", "unix:///", "http://h", "redis", "", "redis://h?db=1&db=2",
        "redis://h:99999", "unix:///run/v.sock/?db=x", "redis://a..b", "redis://.h", "redis+cluster://a,b..c",
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_read_is_refused_and_not_repeated(url):
    """What may hold a password is in no message."""
    for text in (url, url.replace("://", f"://u:{SECRET}@")):
        with pytest.raises(Misconfigured) as refused:
            with_redis(MemoryStore(), text)
        assert "hunter2" not in str(refused.value) + refused.value.reason + "".join(
            traceback.format_exception(refused.value)
        )


async def test_a_password_opens_redis_and_is_shown_to_no_one(caplog):
    """A user with the commands it needs is enough; a wrong password is logged without repeating it."""
    caplog.set_level(logging.DEBUG)
    with a_valkey() as server:
        admin = redis.asyncio.Redis.from_url(server.url)
        allowed = "+@read +@write +@scripting +ping +publish +subscribe +unsubscribe +client|setinfo +select +type +del"
        await admin.execute_command(
            "ACL", "SETUSER", "door", "on", ">hunter2@hunter2", "resetkeys", "~{dd:*", "resetchannels", "&dd:*",
            "-@all", *allowed.split(),
        )  # fmt: skip
        await admin.execute_command("ACL", "SETUSER", "default", "off")
        record = Far()
        ada, session = await a_signed_in(record)
        url = f"redis://door:{SECRET}@127.0.0.1:{server.port}/0"
        async with opened(record, url) as store:
            await copied(store, ada, session)
            assert await is_counting(store)
            await store.purge(before=0, events_before=0)
            woken = []
            store.watch(lambda: woken.append(1))
            await until(lambda: woken)
            shown = [repr(store), repr(store._address), repr(store._limits._client), str(vars(store))]
        async with opened(record, url.replace("hunter2@", "hunter3@")) as store:
            refused, _ = await timed(store.hit([Bucket("slow:x", SLOW)], NOW))
            assert isinstance(refused, Unavailable)
            await until(lambda: caplog.records)
            shown += [str(refused), refused.reason, caplog.text]
        assert "hunter" not in "".join(shown)
        await admin.aclose()


async def test_a_server_that_repeats_what_it_is_sent_reveals_nothing(caplog):
    """What is no Redis, or one too old for AUTH, repeats the password in its error: none of it is passed on."""
    caplog.set_level(logging.DEBUG)

    async def echo(reader, writer):
        with contextlib.suppress(OSError):
            while await reader.read(65536):
                writer.write(
                    b"-ERR unknown command `AUTH`, with args beginning with: `door`, `hunter2@hunter2`\r\n" * 4
                )
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with opened(Far(), f"redis://door:{SECRET}@127.0.0.1:{port}") as store:
        refused, _ = await timed(store.hit([Bucket("slow:x", SLOW)], NOW))
        assert isinstance(refused, Unavailable)
        await until(lambda: caplog.records)
        shown = "".join(traceback.format_exception(refused)) + refused.reason + caplog.text
        assert "hunter" not in shown
    server.close()


async def test_a_socket_of_this_machine_is_enough(tmp_path):
    """unix:///path reaches a server that listens on no port."""
    path = tmp_path / "v.sock"
    with a_valkey("--unixsocket", str(path)):
        record = Far()
        ada, session = await a_signed_in(record)
        async with opened(record, f"unix://{path}?db=1") as store:
            await copied(store, ada, session)
            assert await is_counting(store)


@contextlib.asynccontextmanager
async def behind_tls(url, directory):
    """A server's port with TLS before it, for the name localhost."""
    write_certificate(directory, "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    ((_, target),) = Address.read(url).hosts

    async def pump(reader, writer):
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def serve(reader, writer):
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"localhost:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_tls_is_spoken_with_whom_the_machine_trusts_and_with_no_one_else(valkey_url, tmp_path, monkeypatch):
    """rediss:// reaches a server whose certificate this machine trusts, under its own name; any other is
    out of reach, and nothing is said in the clear.
    """
    async with behind_tls(valkey_url, tmp_path) as place:
        async with opened(Far(), f"rediss://{place}") as store:
            assert not await is_counting(store)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        async with opened(Far(), f"rediss://{place}") as store:
            await until(lambda: is_counting(store))
        async with opened(Far(), f"rediss://{place.replace('localhost', '127.0.0.1')}") as store:
            assert not await is_counting(store)


async def test_two_deployments_share_a_server(valkey_url):
    """What another deployment counts and copies is never met, though its keys were given the same secret."""
    first, second = Far(), Far()
    ada, session = await a_signed_in(first)
    async with opened(first, valkey_url) as one, opened(second, valkey_url) as other:
        await copied(one, ada, session)
        assert await other.recent_session(session.id, 1) is None
        for _ in range(SLOW.burst):
            await one.hit([Bucket("slow:x", SLOW)], NOW)
        assert await other.hit([Bucket("slow:x", SLOW)], NOW) == (0.0, "")


async def test_the_environments_server_will_do():
    """`make_store` puts Redis beside what it makes; nothing is connected before it is opened."""
    store = make_store("memory:", shared_valkey())
    assert isinstance(store, RedisStore)
    await store.open()
    assert await is_counting(store)
    await store.close()
