"""Fencing over real stores: who has to have a row, who waits for whom, and what happens when the store is away."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.standins import HOME, T0, Clock, Wrapped, authority, make, proof_of

from dutchdoor.errors import InvalidToken, NotAuthenticated, StaleClaims, Unavailable
from dutchdoor.model.policy import STANDARD
from dutchdoor.revocation.fence import Fence
from dutchdoor.revocation.follower import Follower
from dutchdoor.revocation.lease import GUARD, Terms
from dutchdoor.revocation.log import COALESCE_ABOVE, Revocation
from dutchdoor.revocation.messages import Poll
from dutchdoor.revocation.node_messages import LogHead, NodeRow, Renewed, Rows
from dutchdoor.services.fencing import Fencing, as_one
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Revoke, Revoked, Store, Swap
from dutchdoor.stores.sqlite import SqliteStore

LEASE = 10.0
LATE = LEASE * GUARD
SOON = 2.0
"""Seconds in which anything happens that does not wait for a lease."""


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


class Verifying:
    """A verifier's process, as far as the fence sees it: the real follower, polling one node."""

    def __init__(self, fencing: Fencing, *, name: str = "service") -> None:
        self.fencing, self.name = fencing, name
        self.follower = Follower()
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            now = self.fencing.now()
            await asyncio.sleep(max(0.0, self.follower.poll_at - now))
            poll = self.follower.poll(self.fencing.now())
            answer = await self.fencing.poll(poll, credential=self.name)
            self.follower.take(poll, answer, self.fencing.now(), T0)

    @property
    def leased(self) -> bool:
        return self.follower.leased_for(self.fencing.now()) > 0

    async def silence(self) -> None:
        """Hang up, and never come back."""
        self.task.cancel()
        await asyncio.wait([self.task])


class Headless(Wrapped):
    """A store that is a network away, and sometimes out of reach."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.down, self.asked = False, 0

    def head(self) -> None:
        return None

    def _reached(self) -> None:
        self.asked += 1
        if self.down:
            raise Unavailable("injected")

    async def read_log(self, log_epoch: int, after: int) -> Renewed:
        self._reached()
        return await self.inner.read_log(log_epoch, after)

    async def node_register(self, row: NodeRow) -> None:
        self._reached()
        await self.inner.node_register(row)

    async def node_renew(self, row: NodeRow, after: int) -> Renewed:
        self._reached()
        return await self.inner.node_renew(row, after)

    async def node_rows(self) -> Rows:
        self._reached()
        return await self.inner.node_rows()


def entry(id: str) -> Revoke:
    return Revoke(Revocation(kind="session", id=id, expires_at=T0 + 3600, subject="ann"))


async def revoke(fencing: Fencing, id: str, *, wait: float = 20.0) -> Fence:
    return await fencing.fence(await ended(fencing, id), wait=wait)


async def ended(fencing: Fencing, id: str) -> Revoked:
    return await fencing.store.commit(entry(id))


@contextlib.asynccontextmanager
async def a_node(store: Store, elapsed: Callable[[], float] | None = None, **terms: float) -> AsyncIterator[Fencing]:
    """One server process's fencing over a store that is open."""
    named = {} if elapsed is None else {"elapsed": elapsed}
    fencing = Fencing(store, clock=lambda: T0, terms=Terms(**terms), **named)  # type: ignore[arg-type]
    await fencing.open()
    try:
        yield fencing
    finally:
        await fencing.close()
        # Closing leaves nothing behind that runs.
        assert fencing._tasks == set()
        assert (fencing._timer, fencing._sweeper, fencing._unwatch) == (None, None, None)
        assert fencing._woken not in [woken for _, woken in getattr(store, "_watchers", {}).values()]


@pytest.fixture(params=[pytest.param("memory", marks=pytest.mark.long), "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made = make(request.param, tmp_path)
    await made.open()
    yield made
    await made.close()


async def rows(store: Store) -> list[NodeRow]:
    return list((await store.node_rows()).rows)


# --- without a verifier
# ------------------------------------------------------------------------------------------------


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
    told = store.head()
    assert told is not None
    early = Wrapped(store)
    early.head = lambda: LogHead(told.log_epoch, told.seq + 1)  # type: ignore[attr-defined]
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


# --- with followers ---------------------------------------------------------------------------------------------------


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


# --- stopping, and starting again -------------------------------------------------------------------------------------


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


# --- a store that is a network away -----------------------------------------------------------------------------------


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


# --- another log ------------------------------------------------------------------------------------------------------


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


# --- the authority ----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def an_authority(store: Store, clock: Clock) -> AsyncIterator[Authority]:
    over = authority(store, clock)
    await over.open()
    try:
        await over.provide("alice")
        yield over
    finally:
        await over.fencing.close()


async def test_ending_one_session_too_many_makes_tokens_stale_and_ends_no_other(store: Store, clock: Clock) -> None:
    """The seventeenth log-out within an hour is one entry of the subject: other sessions live on, their access tokens
    say stale, and a refresh brings good ones. The eighteenth adds nothing to any verifier's memory.
    """
    async with an_authority(store, clock) as over:
        kept = await over.start(await proof_of(over), mode="hybrid", client=HOME)
        for number in range(COALESCE_ABOVE + 4):
            one = await over.start(await proof_of(over), mode="hybrid", client=HOME)
            assert one.session is not None
            done = await over.end(one.session.id, client=HOME, actor="alice")
            assert done.count == 1
            with pytest.raises(InvalidToken):
                await over.verify(one.access_token)
            if number < COALESCE_ABOVE:
                assert (await over.verify(kept.access_token)).subject == "alice"
        with pytest.raises(StaleClaims):
            await over.verify(kept.access_token)
        again = await over.refresh(kept.refresh_token, HOME)
        assert (await over.verify(again.access_token)).subject == "alice"
        await over.fencing.follow()
        assert len(over.log) == COALESCE_ABOVE + 1


async def test_stateless_tokens_are_folded_too(store: Store, clock: Clock) -> None:
    """The same for tokens without a session: the one that is ended is dead, whatever entry says so."""
    async with an_authority(store, clock) as over:
        for _ in range(COALESCE_ABOVE + 2):
            one = await over.start(await proof_of(over), mode="jwt", client=HOME)
            done = await over.end_named(await over.claims(one.access_token), client=HOME)
            assert done.count == 1
            with pytest.raises(InvalidToken):
                await over.verify(one.access_token)
            assert (await over.end_named(await over.claims_of_any_age(one.access_token), client=HOME)).count == 0
        assert len(over.log) == COALESCE_ABOVE + 1


async def test_a_sign_in_that_folds_what_it_replaces_is_good(store: Store, clock: Clock) -> None:
    """Where each sign-in ends the one before, the seventeenth within an hour raises the epoch itself; its own tokens
    carry the raised one.
    """
    over = authority(store, clock, replace(STANDARD, max_sessions=1))
    await over.open()
    await over.provide("alice")
    for _ in range(COALESCE_ABOVE + 3):
        held = await over.start(await proof_of(over), mode="hybrid", client=HOME)
        assert (await over.verify(held.access_token)).subject == "alice"
        again = await over.refresh(held.refresh_token, HOME)
        assert (await over.verify(again.access_token)).subject == "alice"
    assert len(await over.sessions("alice")) == 1
    await over.fencing.close()


async def test_a_browser_that_was_anothers_ends_his_session(store: Store, clock: Clock) -> None:
    """A sign-in that replaces another person's session revokes it, and folds the entries of that person and not of the
    new one.
    """
    async with an_authority(store, clock) as over:
        await over.provide("bob")
        for _ in range(COALESCE_ABOVE + 2):
            his = await over.start(await proof_of(over, "bob"), mode="session", client=HOME)
            assert his.session is not None
            hers = await over.start(
                await proof_of(over), mode="session", client=HOME, replacing=[(his.session, his.account)]
            )
            with pytest.raises(NotAuthenticated):
                await over.resume(his.session_token)
            assert (await over.resume(hers.session_token)).account.subject == "alice"
        bob, alice = await store.account("bob"), await store.account("alice")
        assert bob is not None
        assert alice is not None
        assert bob.epoch > 0
        assert alice.epoch == 0


async def test_changed_roles_make_tokens_stale_and_no_one_signs_in_again(store: Store, clock: Clock) -> None:
    """After a change of roles an access token says `token_stale`; its session lives, and a refresh brings the roles."""
    async with an_authority(store, clock) as over:
        held = await over.start(await proof_of(over), mode="hybrid", client=HOME)
        account = await store.account("alice")
        assert account is not None
        raised = replace(account, roles=("admin",), epoch=account.epoch + 1)
        await store.commit(Swap(raised), *over.staling(raised, clock()))
        with pytest.raises(StaleClaims) as stale:
            await over.verify(held.access_token)
        assert stale.value.code == "token_stale"
        again = await over.refresh(held.refresh_token, HOME)
        assert (await over.verify(again.access_token)).roles == ("admin",)


async def test_a_stateless_token_has_nothing_to_refresh(store: Store, clock: Clock) -> None:
    """After a log-out everywhere a token without a session says `invalid_token`: its client is to sign in again."""
    async with an_authority(store, clock) as over:
        held = await over.start(await proof_of(over), mode="jwt", client=HOME)
        await over.end_all("alice", client=HOME, actor="alice")
        with pytest.raises(InvalidToken) as caught:
            await over.verify(held.access_token)
        assert caught.value.code == "invalid_token"


async def test_a_repeated_log_out_is_fenced_on_the_head(store: Store, clock: Clock) -> None:
    """A second call, after a lost answer, does not get `fenced` sooner than the first."""
    async with an_authority(store, clock) as over:
        verifying = Verifying(over.fencing)
        await until(lambda: verifying.leased)
        await verifying.silence()
        held = await over.start(await proof_of(over), mode="session", client=HOME)
        assert held.session is not None
        for count in (1, 0, 0):
            done = await over.end(held.session.id, client=HOME, actor="alice")
            assert done.count == count
            assert done.longest_lease == LEASE
            fence = await over.fencing.fence(done, wait=0.02)
            assert not fence.fenced


async def test_what_was_remembered_is_forgotten_with_the_log(store: Store, clock: Clock) -> None:
    """A session remembered from before a restore is looked up again."""
    async with an_authority(store, clock) as over:
        held = await over.start(await proof_of(over), mode="session", client=HOME)
        await over.resume(held.session_token)
        assert len(over._remembered) == 1
        await store.begin_log_epoch(T0)
        seen = over._remembered._young[held.session.id]  # type: ignore[union-attr]
        assert await over.recall(held.session.id) is not seen  # type: ignore[union-attr]


async def test_a_killed_key_is_noticed_before_the_next_request(store: Store, clock: Clock) -> None:
    """Another process's kill is in the log, and the ring is read again before anything is judged or signed."""
    async with an_authority(store, clock) as over, an_authority(store, clock) as other:
        held = await other.start(await proof_of(other), mode="jwt", client=HOME)
        kid = other.ring.signing(clock(), "ES256").kid
        done = await over.kill_key(kid, client=HOME, actor="cli")
        assert (await over.fencing.fence(done, wait=0)).fenced
        with pytest.raises(InvalidToken):
            await other.verify(held.access_token)
        fresh = await other.start(await proof_of(other), mode="jwt", client=HOME)
        assert (await over.verify(fresh.access_token)).subject == "alice"


async def test_tokens_are_checked_while_the_store_is_away(store: Store, clock: Clock) -> None:
    """For the length of the lease a token is checked without the store, though the key ring is due to be read; then
    nothing is.
    """

    class Away(Headless):
        async def select(self, kind: Any, **values: Any) -> Any:
            self._reached()
            return await self.inner.select(kind, **values)

    elapsed, far = Clock(1000.0), Away(store)
    over = authority(far, clock)  # type: ignore[arg-type]
    over.fencing.now = elapsed
    await over.open()
    await over.provide("alice")
    held = await over.start(await proof_of(over), mode="jwt", client=HOME)
    await until(over.fencing.is_current)
    far.down = True
    clock.forward(120)
    for _ in range(9):
        elapsed.forward(LEASE / 10)
        clock.forward(LEASE / 10)
        assert (await over.verify(held.access_token)).subject == "alice"
    elapsed.forward(LEASE / 5)
    with pytest.raises(Unavailable):
        await over.verify(held.access_token)
    far.down = False
    assert (await over.verify(held.access_token)).subject == "alice"
    await over.fencing.close()


async def test_a_poll_is_answered_while_closing(store: Store) -> None:
    """A verifier that polls a node that has stopped is answered at once, without a lease."""
    fencing = Fencing(store, clock=lambda: T0)
    await fencing.open()
    await fencing.close()
    answer = await fencing.poll(Poll(holder="h" * 22, wait_ms=2500), credential="c")
    assert answer.lease_ms == 0


async def test_a_subject_that_a_restore_lost_does_not_get_its_tokens_back(store: Store) -> None:
    """After a restore, a subject that is provided again begins above every epoch that was given out before: a ban
    covers the tokens that it had in the time that was lost.
    """
    over = authority(store, Clock())
    await over.open()
    assert (await over.provide("before")).epoch == 0
    begun = await store.begin_log_epoch(T0)
    # In the same moment, and by a process that was not told.
    assert (await over.provide("again")).epoch == begun > T0
    assert (await over.provide("before")).epoch >= begun
    await over.close()


@pytest.mark.parametrize(("older", "upto", "head"), [(0, 1, 1), (1, 4096, 9000)])
async def test_a_store_that_has_lost_revocations_is_found_out(
    store: Store, caplog: pytest.LogCaptureFixture, older: int, upto: int, head: int
) -> None:
    """A log that is shorter than it was, or an older one, is an error in our log that says what to do, once; and an
    older one is not read for ever: a caller that waits for it gets `Unavailable`.
    """
    headless = Headless(store)
    async with a_node(headless) as fencing:
        await ended(fencing, "a")
        await ended(fencing, "b")
        await fencing.follow()
        log_epoch, salt = fencing.node.log_epoch - older, fencing.log.salt

        async def read_log(log_epoch_: int, after: int) -> Renewed:
            return Renewed(there=True, log_epoch=log_epoch, salt=salt, after=0, entries=(), upto=upto, head=head)

        async def renew(_row: NodeRow, after: int) -> Renewed:
            return await read_log(log_epoch, after)

        headless.read_log = read_log  # type: ignore[method-assign]
        headless.node_renew = renew  # type: ignore[method-assign] # the node's own may come in between
        for _ in range(2):
            async with asyncio.timeout(60):
                with pytest.raises(Unavailable) if older else contextlib.nullcontext():
                    await fencing._read()
        assert len([record for record in caplog.records if "dutchdoor restored" in record.getMessage()]) == 1


async def test_a_client_that_hangs_up_leaves_no_fence_behind(store: Store) -> None:
    """A caller that goes away while it waits takes its fence along, however long that would have taken."""
    async with a_node(store) as node:
        verifying = Verifying(node)
        await until(lambda: verifying.leased)
        await verifying.silence()
        waiting = asyncio.create_task(revoke(node, "s", wait=60))
        await until(lambda: node._waiting)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert node.node._fences == []


def test_what_several_commits_revoked_counts_in_the_log_of_the_first() -> None:
    """The fence of several commits waits for the last entry and the longest lease of any; where another log began in
    between, it counts in the log that is gone, and so it is lost.
    """
    first, second = Revoked(5, 1, 1, 60.0), Revoked(9, 2, 1, 10.0)
    assert as_one([first, second]) == as_one([second, first]) == Revoked(9, 3, 1, 60.0)
    assert as_one([first, second, Revoked(2, 1, 7, 0.0)]) == Revoked(9, 4, 1, 60.0)
