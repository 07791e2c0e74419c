"""Fencing over real stores: who has to have a row, who waits for whom, and what happens when the store is away."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.services.fences import LEASE, Headless, Verifying, a_node, ended, entry, revoke, until
from tests.standins import T0, Clock, Wrapped

from dutchdoor.errors import Unavailable
from dutchdoor.revocation.lease import GUARD
from dutchdoor.revocation.node_messages import LogHead, NodeRow, Renewed
from dutchdoor.services.fencing import Fencing
from dutchdoor.stores.base import Store
from dutchdoor.stores.sqlite import SqliteStore

LATE = LEASE * GUARD
SOON = 2.0
"""Seconds in which anything happens that does not wait for a lease."""


async def rows(store: Store) -> list[NodeRow]:
    return list((await store.node_rows()).rows)


async def test_without_verifiers_nothing_is_written_and_all_is_fenced(store: Store) -> None:
    """A fence without a verifier to wait for is true at the commit, without a row, a timer or a question."""
    async with a_node(store) as one, a_node(store) as other:
        for number in range(3):
            fence = await one.fence(await ended(one, f"s{number}"), wait=0)
            assert fence.fenced
            assert fence.due_in(one.now()) == 0
        assert await rows(store) == []
        assert (one._tasks, one._timer, one._unwatch) == (set(), None, None)
        await other.follow()
        assert len(other.log) == 3


async def test_an_idle_process_has_one_slow_timer_at_most(store: Store) -> None:
    """With an empty log none is set; with entries in it one, that looks for what has expired."""
    async with a_node(store) as node:
        assert (node._timer, node._sweeper) == (None, None)
        await revoke(node, "s")
        await node.follow()
        assert node._timer is None
        assert node._sweeper is not None
        node.clock = lambda: T0 + 10 * 3600
        node._sweep()
        assert (len(node.log), node._sweeper) == (0, None)


async def test_a_request_knows_every_commit_before_it(store: Store) -> None:
    """After `follow` the log holds all that was committed before, by whichever process, without a lease."""
    async with a_node(store) as one, a_node(store) as other:
        for number in range(20):
            await store.commit(entry(f"s{number}"))
            assert not other.is_current()
            await other.follow()
            assert other.is_current()
            assert len(other.log) == number + 1
        await one.follow()
        assert len(one.log) == 20


async def test_a_head_that_is_ahead_is_not_taken_for_read(store: Store) -> None:
    """While a commit is under way, its number may be known already. A request then reads; so does the next, until the
    entry is there.
    """
    head = store.head()
    assert head is not None
    early = Wrapped(store)
    early.head = lambda: LogHead(head.log_epoch, head.seq + 1)  # type: ignore[attr-defined]
    async with a_node(early) as node:  # type: ignore[arg-type]
        await node.follow()
        assert not node.is_current()
        await store.commit(entry("s"))
        await node.follow()
        assert len(node.log) == 1
        assert node.is_current()


async def test_many_requests_share_a_reading(store: Store) -> None:
    """A hundred requests at once read the log twice at most: once for those that came while the first was under way."""
    slow = Headless(store)
    async with a_node(slow) as node:  # type: ignore[arg-type]
        node.node.want_lease = lambda now: None  # type: ignore[method-assign]
        slow.asked = 0
        await asyncio.gather(*(node.follow() for _ in range(100)))
        assert slow.asked <= 2


async def test_one_who_hangs_up_takes_the_reading_from_no_one(store: Store) -> None:
    """A request that is cancelled while the log is read leaves the reading to the others."""
    slow = Headless(store)
    async with a_node(slow) as node:  # type: ignore[arg-type]
        first, second = (asyncio.create_task(node.follow()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await second


async def test_a_fence_takes_one_exchange_when_all_answer(store: Store) -> None:
    """With two nodes and two verifiers each a revocation is fenced as soon as the last has acknowledged, and known by
    all of them then.
    """
    async with a_node(store) as one, a_node(store) as other:
        verifying = [Verifying(node) for node in (one, one, other, other)]
        await until(lambda: all(each.leased for each in verifying))
        assert len(await rows(store)) == 2
        for number in range(5):
            fence = await revoke(one if number % 2 else other, f"s{number}")
            assert fence.state == "acknowledged"
            assert {len(each.follower) for each in verifying} == {number + 1}
        assert {(f.credential, f.acked_seq) for f in one.followers()} == {("service", 5)}
        for each in verifying:
            await each.silence()


async def test_a_process_without_a_row_waits_for_those_with_one(store: Store) -> None:
    """A command that revokes has no row and no follower, and its fence still waits for the verifiers of the servers."""
    async with a_node(store) as server:
        verifying = Verifying(server)
        await until(lambda: verifying.leased)
        async with a_node(store) as command:
            fence = await revoke(command, "s")
            assert fence.state == "acknowledged"
            assert len(verifying.follower) == 1
            assert len(await rows(store)) == 1
            await verifying.silence()
            late = await revoke(command, "t", wait=0.1)
            assert not late.fenced
            assert LATE - 1 < late.due_in(command.now()) <= LATE


async def test_a_silent_verifier_is_waited_for_and_no_longer(store: Store) -> None:
    """One that hung up with a lease delays a fence by the maximum wait."""
    elapsed = Clock(1000.0)
    async with a_node(store, elapsed) as node:
        verifying = Verifying(node)
        await until(lambda: verifying.leased)
        await verifying.silence()
        waiting = asyncio.create_task(revoke(node, "s"))
        await until(lambda: node._waiting)
        elapsed.forward(LATE - 0.1)
        node._ring()
        assert not waiting.done()
        elapsed.forward(0.2)
        node._ring()
        assert (await waiting).state in {"elapsed", "acknowledged"}


async def test_a_follower_sees_the_commits_of_other_processes(tmp_path: Path) -> None:
    """A verifier that hangs at one process learns of what another process of the machine committed, at once."""
    store = SqliteStore(tmp_path / "test.db")
    await store.open()
    async with a_node(store) as node:
        verifying = Verifying(node)
        await until(lambda: verifying.leased)
        code = f"""
import asyncio
from dutchdoor.services.fencing import Fencing
from dutchdoor.revocation.log import Revocation
from dutchdoor.stores.base import Revoke
from dutchdoor.stores.sqlite import SqliteStore
async def main():
    store = SqliteStore({str(tmp_path / "test.db")!r})
    await store.open()
    fencing = Fencing(store)
    await fencing.open()
    done = await store.commit(Revoke(Revocation(kind="session", id="s", expires_at={T0 + 3600})))
    fence = await fencing.fence(done, wait=5)
    print(fence.state)
    await fencing.close()
    await store.close()
asyncio.run(main())
"""
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
        out, _ = await process.communicate()
        assert out == b"acknowledged\n"
        assert len(verifying.follower) == 1
        await verifying.silence()
    await store.close()


async def test_a_poll_that_is_given_up_is_gone(store: Store) -> None:
    """A verifier that hangs up leaves nothing that hangs, and its lease is waited for all the same."""
    async with a_node(store) as node:
        verifying = Verifying(node)
        await until(lambda: verifying.leased)
        await until(lambda: node._polls)
        await verifying.silence()
        assert node._polls == {}
        assert node.node._hanging == {}
        assert not (await revoke(node, "s", wait=0.05)).fenced


async def test_a_row_is_given_up_when_no_one_has_followed_for_a_while(store: Store) -> None:
    """The maximum wait after the last verifier the node is as it was before the first: no row, no timer, no watch."""
    elapsed = Clock(1000.0)
    async with a_node(store, elapsed) as node:
        verifying = Verifying(node)
        await until(lambda: verifying.leased)
        assert node._unwatch is not None
        await verifying.silence()
        for _ in range(12):
            elapsed.forward(LEASE / 6)
            node._ring()
            await until(lambda: not node._tasks)
        assert await rows(store) == []
        assert (node._timer, node._unwatch) == (None, None)
        assert (await revoke(node, "s", wait=0)).fenced
        again = Verifying(node)
        await until(lambda: again.leased)
        assert len(await rows(store)) == 1
        await again.silence()


async def test_a_clean_stop_without_leases_costs_no_one_a_wait(store: Store) -> None:
    """A node that stops without leases out deletes its row; the next fence is true at once."""
    elapsed = Clock(1000.0)
    async with a_node(store, elapsed) as node:
        verifying = Verifying(node)
        await until(lambda: verifying.leased)
        await verifying.silence()
        elapsed.forward(LATE + 1)
    assert await rows(store) == []
    async with a_node(store) as node:
        assert (await revoke(node, "s", wait=0)).fenced


async def test_a_stop_with_leases_out_leaves_the_row(store: Store) -> None:
    """Those who hang are answered without a lease; who has one is waited for by others, until the row is dead."""
    async with a_node(store) as first:
        verifying = Verifying(first)
        await until(lambda: verifying.leased)
        before = verifying.follower.leased_for(first.now())
    await until(lambda: not first._polls)
    assert verifying.follower.leased_for(first.now()) <= before
    await verifying.silence()
    assert len(await rows(store)) == 1
    with pytest.raises(Unavailable):
        await first.follow()
    elapsed = Clock(1000.0)
    async with a_node(store, elapsed) as second:
        assert not (await revoke(second, "s", wait=0.05)).fenced
        elapsed.forward(LATE + 0.1)
        waiting = asyncio.create_task(revoke(second, "t"))
        while not waiting.done():
            elapsed.forward(0.01)
            second._ring()
            await asyncio.sleep(0.001)
        assert (await waiting).state == "acknowledged"
        assert await rows(store) == []


async def test_a_killed_node_is_waited_for(store: Store) -> None:
    """A row without renewal stands for the leases behind it; a fence of the next life is late, and not too early."""
    elapsed = Clock(1000.0)
    killed = Fencing(store, clock=lambda: T0)
    await killed.open()
    verifying = Verifying(killed)
    await until(lambda: verifying.leased)
    await verifying.silence()
    killed._closed = True  # it does nothing more
    async with a_node(store, elapsed) as second:
        waiting = asyncio.create_task(revoke(second, "s"))
        await until(lambda: second._waiting)
        elapsed.forward(LATE - 0.1)
        second._ring()
        assert not waiting.done()
        elapsed.forward(0.2)
        second._ring()
        assert (await waiting).state == "elapsed"
    killed._closed = False
    await killed.close()


async def test_it_may_be_opened_again(store: Store) -> None:
    """Closed and opened, it is another node: nothing of the old one counts."""
    fencing = Fencing(store, clock=lambda: T0)
    for _ in range(2):
        await fencing.open()
        assert (await revoke(fencing, "s", wait=0)).fenced
        await fencing.close()
        await fencing.close()
        with pytest.raises(Unavailable):
            await fencing.follow()


async def test_under_a_lease_no_request_asks_the_store(store: Store) -> None:
    """With a store that does not tell its head the process has a row from its first request on, and a lease."""
    far = Headless(store)
    async with a_node(far) as node:  # type: ignore[arg-type]
        assert await rows(store) == []
        await node.follow()
        await until(node.is_current)
        assert len(await rows(store)) == 1
        far.asked = 0
        for _ in range(100):
            await node.follow()
        assert far.asked == 0
        await store.commit(entry("s"))
        await until(lambda: len(node.log) == 1)
    assert await rows(store) == []


async def test_while_the_store_is_away_nothing_is_judged_beyond_the_lease(store: Store) -> None:
    """Checks go on for the length of the lease; then there is no answer but 503, until the store is back, and at once
    when it is.
    """
    elapsed = Clock(1000.0)
    far = Headless(store)
    async with a_node(far, elapsed) as node:  # type: ignore[arg-type]
        await node.follow()
        await until(node.is_current)
        far.down = True
        elapsed.forward(LEASE - 0.5)
        await node.follow()
        elapsed.forward(1)
        with pytest.raises(Unavailable):
            await node.follow()
        far.down = False
        await node.follow()
        elapsed.forward(1)
        node._ring()
        await until(node.is_current)


async def test_a_node_that_cannot_hear_the_log_grants_nothing(store: Store) -> None:
    """With the store away a verifier's lease runs out, and a fence that cannot look waits for the deadline."""
    elapsed = Clock(1000.0)
    far = Headless(store)
    async with a_node(far, elapsed) as node:  # type: ignore[arg-type]
        verifying = Verifying(node)
        await until(lambda: verifying.leased)
        done = await ended(node, "s")
        far.down = True
        waiting = asyncio.create_task(node.fence(done, wait=SOON))
        await until(lambda: node._waiting)
        for _ in range(8):
            elapsed.forward(LATE / 8 + 0.01)
            node._ring()
            await asyncio.sleep(0.01)
        assert (await waiting).state == "elapsed"
        assert not verifying.leased
        far.down = False
        for _ in range(3):
            elapsed.forward(1)
            node._ring()
            await asyncio.sleep(0.05)
        await until(lambda: verifying.leased)
        assert len(verifying.follower) == 1
        await verifying.silence()


async def test_the_time_is_the_stores(store: Store) -> None:
    """Where the store tells the time it is the time here, whatever this machine's clock says or does; a slow answer
    does not move it.
    """

    class Telling(Headless):
        at, slow = 5_000_000.0, 0.0

        async def read_log(self, log_epoch: int, after: int) -> Renewed:
            answer = await super().read_log(log_epoch, after)
            at = self.at + elapsed.now
            elapsed.forward(self.slow)  # all of it on the way back
            return replace(answer, at=at)

    elapsed = Clock(1000.0)
    telling = Telling(store)
    fencing = Fencing(telling, elapsed=elapsed)  # type: ignore[arg-type]
    await fencing.open()
    assert fencing.clock() == 5_001_000.0
    elapsed.forward(7)
    assert fencing.clock() == 5_001_007.0
    telling.slow = 4.0
    await fencing.follow()
    assert fencing.clock() == 5_000_000.0 + elapsed.now
    telling.at -= 3600
    telling.slow = 0.0
    await fencing._read()
    assert fencing.clock() == 5_000_000.0 - 3600 + elapsed.now
    await fencing.close()


async def test_another_log_loses_pending_fences_and_waits_once(store: Store) -> None:
    """After a restore a pending fence says false; new ones are late for the maximum wait, and early after."""
    elapsed = Clock(1000.0)
    async with a_node(store, elapsed) as node:
        verifying = Verifying(node)
        await until(lambda: verifying.leased)
        await verifying.silence()
        waiting = asyncio.create_task(revoke(node, "s"))
        await until(lambda: node._waiting)
        await store.begin_log_epoch(T0)
        node.node.woken(elapsed.now)
        node._carry_out()
        fence = await waiting
        assert (fence.state, fence.fenced, fence.due_in(elapsed.now)) == ("lost", False, float("inf"))
        again = await revoke(node, "t", wait=0.05)
        assert not again.fenced
        assert again.due_in(elapsed.now) <= LATE
        elapsed.forward(LATE + 1)
        node._ring()
        await until(lambda: not node._tasks)
        assert (await revoke(node, "u")).fenced
