"""Copies of sessions in Redis: what is kept, how it is sealed, and which values are no copies."""

from __future__ import annotations

import asyncio
import random

import pytest
import redis.asyncio
from msgspec.structs import replace
from tests.stores.valkey import PATIENCE, SLOW, Far, a_signed_in, copied, has_copy, opened, until

from dutchdoor.model.rate_limits import Bucket
from dutchdoor.stores.base import REMEMBERED_FOR, End
from dutchdoor.stores.sqlite import SqliteStore
from dutchdoor.testing.conformance import NOW, a_session, an_account

pytestmark = pytest.mark.usefixtures("patient_links")  # a busy machine is no outage


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
