"""Copies of sessions in the hands of several nodes: what was revoked is refused, whatever a copy says."""

from __future__ import annotations

import contextlib

import pytest
import redis.asyncio
from msgspec.structs import replace
from tests.backing import a_valkey
from tests.standins import HOME, ISSUER, MASTER, T0, Clock, proof_of
from tests.stores.valkey import BACK_WITHIN, CEILING, SLOW, Far, has_copy, is_counting, opened, until

from dutchdoor.errors import InvalidToken, NotAuthenticated
from dutchdoor.model.accounts import with_roles
from dutchdoor.model.device_binding import REGISTERED_WITHIN
from dutchdoor.model.policy import STANDARD
from dutchdoor.model.rate_limits import Bucket
from dutchdoor.model.sessions import SessionToken
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import REMEMBERED_FOR, Swap
from dutchdoor.stores.redis import RedisStore

pytestmark = pytest.mark.usefixtures("patient_links")  # a busy machine is no outage


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
