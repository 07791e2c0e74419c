"""Limits in Redis: exact over nodes, and never a way to get in or to lock the owner out."""

from __future__ import annotations

import asyncio
import random

import pytest
import redis.asyncio
from tests.stores.valkey import CEILING, KEY, PATIENCE, SLOW, Far, a_signed_in, opened, until

from dutchdoor.errors import Unavailable
from dutchdoor.model.rate_limits import Bucket, Limit
from dutchdoor.stores import redis as redis_store
from dutchdoor.stores.base import Forgive, Log
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.stores.redis import around
from dutchdoor.testing.conformance import NOW, an_event

pytestmark = pytest.mark.usefixtures("patient_links")  # a busy machine is no outage


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
