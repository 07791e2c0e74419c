"""Laws of the nodes that follow the log, and of a new log."""

# ruff: noqa: PLR2004 - laws count

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from msgspec.structs import replace

from dutchdoor.model.ids import new_id
from dutchdoor.revocation.log import Revocation
from dutchdoor.revocation.node_messages import NodeRow, Renewed
from dutchdoor.stores.base import (
    Add,
    Expect,
    Log,
    Revoke,
    Revoked,
    Store,
    Swap,
)
from dutchdoor.testing.conformance.samples import (
    AT_ONCE,
    NOW,
    Law,
    World,
    a_revocation,
    a_row,
    an_account,
    an_event,
    is_refused,
    the_log,
)

__all__ = ["LAWS"]


def of(read: Renewed, id: str) -> list[NodeRow]:
    return [row for row in read.rows if row.id == id]


async def a_row_is_replaced_only_where_it_is(store: Store) -> None:
    """11. A renewal replaces a row if it exists; `node_forget` needs the row's stamp."""
    row, other = a_row(), a_row(lease_for=0.1 + 0.2, acked_seq=2**53)
    absent = await store.node_renew(row, 0)
    assert not absent.there
    assert (await store.node_rows()).rows == [], "a renewal brings no row"
    await store.node_register(row)
    await store.node_register(other)
    rows = await store.node_rows()
    assert sorted(rows.rows, key=lambda row: row.lease_for) == [other, row]
    assert rows.log_epoch == absent.log_epoch
    renewed = replace(row, stamp=new_id(), acked_seq=7, log_epoch=3, lease_for=60.0)
    read = await store.node_renew(renewed, 0)
    assert read.there
    assert sorted(read.rows, key=lambda row: row.lease_for) == [other, renewed]
    await store.node_forget(row.id, row.stamp)
    await store.node_forget(other.id, renewed.stamp)
    assert len((await store.node_rows()).rows) == 2, "a stamp that is no longer there, and another's"
    await store.node_register(row)
    assert of(await store.node_renew(other, 0), row.id) == [row], "asked again for a row that is there, it is written"
    await store.node_forget(row.id, row.stamp)
    assert (await store.node_rows()).rows == [other]
    assert not (await store.node_renew(replace(row, stamp=new_id()), 0)).there
    assert (await store.node_rows()).rows == [other]


async def of_a_renewal_and_a_forgetting_one_wins(store: Store) -> None:
    """11. When a renewal and a `node_forget` run at once, one wins, and no row comes back after it was forgotten."""
    for n in range(AT_ONCE):
        row = a_row()
        await store.node_register(row)
        stamps = [new_id() for _ in range(4)]
        attempts: list[Coroutine[Any, Any, Any]] = [
            store.node_renew(replace(row, stamp=stamp, acked_seq=n), 0) for stamp in stamps
        ]
        attempts.insert(n % 5, store.node_forget(row.id, row.stamp))
        outcomes = [done for done in await asyncio.gather(*attempts) if isinstance(done, Renewed)]
        there = {read.there for read in outcomes}
        assert len(there) == 1, "of four renewals some found the row, and some did not: it came back"
        left = [found.stamp for found in (await store.node_rows()).rows if found.id == row.id]
        assert len(left) == (1 if there == {True} else 0)
        assert set(left) <= set(stamps)
        for stamp in left:
            await store.node_forget(row.id, stamp)


async def a_renewal_sees_every_commit_before_it(store: Store) -> None:
    """11. and 8. A renewal sees every commit and every row from before it began, and reads as `read_log` does."""
    log_epoch = (await store.commit()).log_epoch
    rows = [a_row(log_epoch=log_epoch) for _ in range(5)]

    async def follow(row: NodeRow) -> None:
        await store.node_register(row)
        seen: list[Revocation] = []
        for _ in range(12):
            done = await store.commit(*[Revoke(a_revocation()) for _ in range(3)])
            row = replace(row, stamp=new_id(), acked_seq=len(seen))
            read = await store.node_renew(row, len(seen))
            assert (read.there, of(read, row.id), read.after) == (True, [row], len(seen))
            assert read.head >= read.upto >= done.seq
            seen += read.entries
            assert [entry.seq for entry in seen] == list(range(1, read.upto + 1))
            newcomer = a_row()
            await store.node_register(newcomer)
            found = await store.node_renew(replace(row, stamp=new_id(), log_epoch=log_epoch + 1), len(seen))
            assert of(found, newcomer.id)
            assert (found.after, found.log_epoch) == (0, log_epoch), "a seq of another log counts for nothing"
            await store.node_forget(newcomer.id, newcomer.stamp)

    await asyncio.gather(*map(follow, rows))


async def a_commit_knows_the_longest_lease(store: Store) -> None:
    """11. A commit that revoked returns the longest lease of any row that existed before it."""
    assert (await store.commit(Revoke(a_revocation()))).longest_lease == 0.0
    short, long = a_row(lease_for=5.0), a_row(lease_for=60.5)
    await store.node_register(short)
    assert (await store.commit(Revoke(a_revocation()))).longest_lease == 5.0
    await store.node_register(long)
    assert (await store.commit(Log(an_event()))).longest_lease == 0.0
    commits = [store.commit(Revoke(a_revocation()), Log(an_event())) for _ in range(AT_ONCE)]
    assert [done.longest_lease for done in await asyncio.gather(*commits)] == [60.5] * AT_ONCE
    await store.node_renew(replace(long, stamp="x", lease_for=1.5), 0)
    assert (await store.commit(Revoke(a_revocation()))).longest_lease == 5.0
    await store.node_forget(short.id, short.stamp)
    assert (await store.commit(Revoke(a_revocation()))).longest_lease == 1.5


async def a_new_log_epoch_outdates_all_that_was_handed_out(store: Store) -> None:
    """6. and 11. A new log epoch keeps entries, numbers and salt; rows are deleted, and epochs are above all before."""
    world = await World(store).fill()
    ahead = replace(an_account("ahead"), epoch=2**50)
    done = await store.commit(Add(ahead))
    row = a_row(log_epoch=done.log_epoch)
    await store.node_register(row)
    before, log = await store.node_renew(row, 0), await the_log(store)
    now = max(NOW, done.log_epoch / 1000 + 5)
    assert store.first_epoch == done.log_epoch, "a store that lost nothing is not taken for a restored one"
    begun = await store.begin_log_epoch(now)
    assert begun == int(now * 1000) > done.log_epoch == store.first_epoch
    head = store.head()
    assert head in (None, (begun, done.seq))
    assert await store.node_rows() == await store.node_rows()
    assert ((await store.node_rows()).log_epoch, list((await store.node_rows()).rows)) == (begun, [])
    read = await store.read_log(done.log_epoch, done.seq)
    assert (read.log_epoch, read.after, read.salt, read.head) == (begun, 0, before.salt, done.seq)
    assert list(read.entries) == log == await the_log(store)
    assert not (await store.node_renew(replace(row, stamp=new_id()), done.seq)).there
    for person in (world.ada, world.bob):
        assert await store.account(person.subject) == replace(person, epoch=begun, revision=1)
    raised = await store.account(ahead.subject)
    assert raised == replace(ahead, epoch=2**50 + 1, revision=1), "an epoch never falls, and always rises"
    live = await store.session(world.live.id)
    assert live == (world.live, replace(world.ada, epoch=begun, revision=1)), "sessions live on"
    assert await is_refused(store, Expect(world.ada.subject, 0)), "a proof read before it starts nothing after it"
    assert await is_refused(store, Swap(replace(world.ada, name="new")))
    after = await store.commit(Revoke(a_revocation()))
    assert (after.seq, after.log_epoch, after.longest_lease) == (done.seq + 1, begun, 0.0)
    # The clock may have gone back: the epoch must not.
    assert await store.begin_log_epoch(NOW - 1e6) == begun + 1
    assert [await store.begin_log_epoch(now + 1), await store.begin_log_epoch(now + 1)] == [
        int((now + 1) * 1000),
        int((now + 1) * 1000) + 1,
    ]


async def commits_and_a_new_log_epoch_are_in_one_order(store: Store) -> None:
    """6. A commit belongs to one log, the one its numbers count in, however many new logs begin meanwhile."""
    done = await asyncio.gather(
        *[store.commit(Revoke(a_revocation())) for _ in range(AT_ONCE)],
        *[store.begin_log_epoch(NOW) for _ in range(3)],
        *[store.commit(Revoke(a_revocation())) for _ in range(AT_ONCE)],
    )
    committed = sorted((one.seq, one.log_epoch) for one in done if isinstance(one, Revoked))
    assert [seq for seq, _ in committed] == list(range(1, 2 * AT_ONCE + 1))
    assert [log_epoch for _, log_epoch in committed] == sorted(log_epoch for _, log_epoch in committed)
    assert (await store.commit()).log_epoch == max(one for one in done if isinstance(one, int))


LAWS: tuple[Law, ...] = (
    a_row_is_replaced_only_where_it_is,
    of_a_renewal_and_a_forgetting_one_wins,
    a_renewal_sees_every_commit_before_it,
    a_commit_knows_the_longest_lease,
    a_new_log_epoch_outdates_all_that_was_handed_out,
    commits_and_a_new_log_epoch_are_in_one_order,
)
