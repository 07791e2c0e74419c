"""What an authority fences: sessions and tokens that were revoked or folded, or are judged while the store is away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace
from tests.services.fences import LEASE, Headless, Verifying, a_node, ended, revoke, until
from tests.standins import HOME, T0, Clock, authority, proof_of

from dutchdoor.errors import InvalidToken, NotAuthenticated, StaleClaims, Unavailable
from dutchdoor.model.policy import STANDARD
from dutchdoor.revocation.log import COALESCE_ABOVE
from dutchdoor.revocation.messages import Poll
from dutchdoor.revocation.node_messages import NodeRow, Renewed
from dutchdoor.services.fencing import Fencing, as_one
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Revoked, Store, Swap


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
    # In the same moment, and by a process that does not know.
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
