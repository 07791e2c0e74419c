"""Laws of the revocation log."""

# ruff: noqa: PLR2004 - laws count

from __future__ import annotations

import asyncio
import math

from msgspec.structs import replace

from dutchdoor.model.ids import new_id
from dutchdoor.revocation.log import Revocation
from dutchdoor.stores.base import (
    ExpectFew,
    Revoke,
    Store,
    Take,
)
from dutchdoor.testing.conformance.samples import (
    AT_ONCE,
    NOW,
    PATIENCE,
    Law,
    a_revocation,
    a_token,
    is_refused,
    the_log,
)

__all__ = ["LAWS"]


async def the_log_is_dense_and_in_commit_order(store: Store) -> None:
    """6. An entry that is read was committed, and none with a lower `seq` appears later; a failure leaves no gap."""
    read: list[Revocation] = []

    async def write(name: int) -> None:
        for n in range(20):
            entries = [Revoke(a_revocation(f"{name} {n} {m}")) for m in range(n % 3 + 1)]
            if n % 4 == 3:
                assert await is_refused(store, *entries, Take(a_token("")))
            else:
                done = await store.commit(*entries)
                log = await the_log(store)
                assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
                assert done.seq <= len(log)
                assert {change.entry.id for change in entries} <= {entry.id for entry in log[: done.seq]}

    async def follow(until: asyncio.Event) -> None:
        while not until.is_set():
            read.extend(await the_log(store, len(read)))
            await asyncio.sleep(0)

    done = asyncio.Event()
    following = asyncio.create_task(follow(done))
    await asyncio.gather(*[write(name) for name in range(10)])
    done.set()
    await following
    read.extend(await the_log(store, len(read)))
    assert read == await the_log(store)
    assert [entry.seq for entry in read] == list(range(1, len(read) + 1))
    assert (await store.commit()).seq == len(read)
    assert await the_log(store, len(read)) == await the_log(store, len(read) + 5) == []
    for name in range(10):
        mine = [entry.id for entry in read if entry.id.startswith(f"{name} ")]
        assert mine == sorted(mine, key=lambda id: [int(part) for part in id.split()]), (
            "one writer's entries in its order"
        )


async def the_log_goes_on_after_a_purge(store: Store) -> None:
    """6. A number is never reused, even after its entry was purged."""
    await store.commit(*[Revoke(a_revocation(expires_at=NOW)) for _ in range(3)])
    assert await store.purge(before=NOW + 1, events_before=0.0) == 3
    assert await the_log(store) == []
    assert (await store.commit()).seq == 3
    entry = a_revocation()
    assert (await store.commit(Revoke(entry))).seq == 4
    assert await the_log(store) == await the_log(store, 3) == [replace(entry, seq=4)]


async def the_log_is_read_in_pages(store: Store) -> None:
    """6. However long the log is, reads follow each other without gap or overlap; another log begins at 0."""
    many = 2500
    done = await store.commit()
    for n in range(4):
        done = await store.commit(*[Revoke(a_revocation(f"{n} {m}")) for m in range(many)])
    first = await store.read_log(done.log_epoch, 0)
    assert (first.there, first.log_epoch, first.after, first.rows) == (True, done.log_epoch, 0, ())
    assert len(first.salt) == 16
    entries, read = list(first.entries), first
    while read.upto < read.head:
        assert read.entries
        assert read.entries[-1].seq == read.upto
        read = await store.read_log(done.log_epoch, read.upto)
        assert (read.after, read.salt) == (entries[-1].seq, first.salt)
        entries += read.entries
    assert read.upto == read.head == done.seq == 4 * many
    assert [entry.id for entry in entries] == [f"{n} {m}" for n in range(4) for m in range(many)]
    assert [entry.seq for entry in entries] == list(range(1, 4 * many + 1))
    for log_epoch in (0, done.log_epoch - 1, done.log_epoch + 1):
        assert replace(await store.read_log(log_epoch, 7000), at=first.at) == first
    last = await store.read_log(done.log_epoch, done.seq)
    assert (list(last.entries), last.after, last.upto, last.head) == ([], done.seq, done.seq, done.seq)
    # A reader does not fall behind because entries were purged.
    await store.purge(before=math.inf, events_before=0.0)
    emptied = await store.read_log(0, 0)
    assert (list(emptied.entries), emptied.upto, emptied.head) == ([], done.seq, done.seq)


async def the_head_is_never_behind(store: Store) -> None:
    """6. `head`, if it returns anything, and `read_log` are never behind a commit that returned before."""

    async def append(n: int) -> None:
        done = await store.commit(*[Revoke(a_revocation()) for _ in range(n % 3)])
        head = store.head()
        assert head is None or (head.log_epoch == done.log_epoch and head.seq >= done.seq)
        assert (await store.read_log(done.log_epoch, done.seq)).head >= done.seq

    for _ in range(4):
        await asyncio.gather(*[append(n) for n in range(AT_ONCE)])
        assert await is_refused(store, Revoke(a_revocation()), Take(a_token("")))
    done, head = await store.commit(), store.head()
    assert head in (None, (done.log_epoch, done.seq))


async def a_watcher_is_woken(store: Store) -> None:
    """6. A watcher is called each time the log has grown, and no more once it stopped."""
    first, second = asyncio.Event(), asyncio.Event()
    unwatch_first, unwatch_second = store.watch(first.set), store.watch(second.set)

    async def wakes(event: asyncio.Event) -> None:
        """A watcher that wakes and finds nothing sleeps on: it must be woken again when there is something."""
        before = (await store.commit()).seq
        event.clear()
        written = asyncio.create_task(store.commit(Revoke(a_revocation())))
        while (await store.read_log((await store.node_rows()).log_epoch, before)).upto == before:
            await asyncio.wait_for(event.wait(), PATIENCE)
            event.clear()
        await written

    for _ in range(20):
        await wakes(first)
        await wakes(second)
    unwatch_first()
    await wakes(second)
    await asyncio.sleep(0)
    first.clear()
    await wakes(second)
    second.clear()
    await store.begin_log_epoch(NOW)
    await asyncio.wait_for(second.wait(), PATIENCE)
    assert not first.is_set()
    unwatch_second()
    unwatch_second()


async def live_revocations_are_counted(store: Store) -> None:
    """Reads: the entries of one subject's sessions and tokens that have not expired."""
    ada, bob = "ada", "bob"
    entries = [a_revocation(subject=ada, expires_at=NOW + n) for n in range(4)]
    token = Revocation(kind="token", id=new_id(), expires_at=NOW + 9, subject=ada)
    await store.commit(*map(Revoke, [*entries, token, a_revocation(subject=bob), a_revocation()]))
    assert await is_refused(store, Revoke(a_revocation(subject=ada)), Take(a_token("")))
    assert [await store.live_revocations(ada, NOW + n) for n in range(5)] == [4, 3, 2, 1, 1]
    assert await store.live_revocations(bob, NOW) == 1
    assert await store.live_revocations("ad", NOW) == 0
    await store.purge(before=NOW + 3, events_before=0.0)
    assert await store.live_revocations(ada, 0.0) == 2


async def a_commit_may_expect_few_revocations(store: Store) -> None:
    """1. A commit that expects few live entries of a subject conflicts where there are more, and writes nothing."""
    ada = "ada"
    await store.commit(*(Revoke(a_revocation(subject=ada, expires_at=NOW + n)) for n in range(4)))
    few = [ExpectFew(ada, 3, NOW), ExpectFew(ada, 1, NOW + 2), ExpectFew("bob", 0, NOW), ExpectFew(ada, 0, NOW + 3)]
    await store.commit(*few)
    for many in (ExpectFew(ada, 2, NOW), ExpectFew(ada, 0, NOW + 2)):
        assert await is_refused(store, many, Revoke(a_revocation(subject=ada)))
    await store.commit(ExpectFew(ada, 3, NOW), Revoke(a_revocation(subject=ada, expires_at=NOW + 9)))
    assert await store.live_revocations(ada, NOW) == 4


LAWS: tuple[Law, ...] = (
    the_log_is_dense_and_in_commit_order,
    the_log_goes_on_after_a_purge,
    the_log_is_read_in_pages,
    the_head_is_never_behind,
    a_watcher_is_woken,
    live_revocations_are_counted,
    a_commit_may_expect_few_revocations,
)
