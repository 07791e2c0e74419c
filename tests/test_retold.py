"""What a store lost and processes still know: found out, refused meanwhile, and ended again. Stores in memory stand for
a primary and its standby; tests/faults/test_promotion.py has real ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace
from tests.standins import HOME, T0, Clock, Wrapped, authority, proof_of

from dutchdoor import fencing
from dutchdoor.accounts import Account
from dutchdoor.authority import Authority, SignedIn
from dutchdoor.errors import InvalidInput, InvalidToken, NotAuthenticated, Unavailable
from dutchdoor.policy import LONGEST_ACCESS, Mode
from dutchdoor.retold import ENDED_AGAIN
from dutchdoor.revocation import node
from dutchdoor.revocation.log import FOR_EVER, Revocation
from dutchdoor.revocation.rows import NodeRow, Renewed
from dutchdoor.sessions import Session
from dutchdoor.store import Change, Committed, Revoke
from dutchdoor.stores.memory import MemoryStore


class Replicated(Wrapped):
    """A store a network away with a standby, which may stop to follow and take its place."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(clock=lambda: T0))
        self.primary, self.standby = self.inner, MemoryStore(clock=lambda: T0)
        self.standby._salt = self.primary._salt  # type: ignore[attr-defined]
        self.lags, self.failures, self.unread = False, list[Exception](), list[Exception]()
        self.page = 4096
        self.newest_log = 0

    def head(self) -> None:
        return None

    async def commit(self, *changes: Change) -> Committed:
        if self.failures and any(isinstance(change, Revoke) for change in changes):
            raise self.failures.pop(0)
        done = await self.inner.commit(*changes)
        if self.inner is self.primary and not self.lags:
            await self.standby.commit(*changes)
        return done

    def _paged(self, read: Renewed) -> Renewed:
        if len(read.entries) <= self.page:
            return read
        return replace(read, entries=read.entries[: self.page], upto=read.entries[self.page - 1].seq)

    async def read_log(self, log_epoch: int, after: int) -> Renewed:
        await asyncio.sleep(0.01)  # others have their turn
        if self.unread:
            raise self.unread.pop(0)
        return self._paged(await self.inner.read_log(log_epoch, after))

    async def node_renew(self, row: NodeRow, after: int) -> Renewed:
        return self._paged(await self.inner.node_renew(row, after))

    async def session(self, session_id: str) -> tuple[Session, Account] | None:
        if self.inner is self.standby:  # whoever connects to it is told which log it is on, and then looks up
            self.newest_log = self.standby._log_epoch  # type: ignore[attr-defined]
        return await self.inner.session(session_id)

    async def promote(self) -> None:
        self.inner = self.standby
        await self.standby.begin_log_epoch(T0 + 1)


@pytest.fixture
def store() -> Replicated:
    return Replicated()


@asynccontextmanager
async def a_node(store: Replicated) -> AsyncIterator[Authority]:
    made = authority(store, Clock())  # type: ignore[arg-type]
    await made.open()
    yield made
    await made.fencing.close()


@pytest.fixture
async def over(store: Replicated) -> AsyncIterator[Authority]:
    """A node that stays up."""
    async with a_node(store) as made:
        yield made


@pytest.fixture
async def other(store: Replicated) -> AsyncIterator[Authority]:
    """Another one."""
    async with a_node(store) as made:
        yield made


async def begin(over: Authority, subject: str, mode: Mode = "hybrid") -> SignedIn:
    await over.provide(subject)
    return await over.start(await proof_of(over, subject), mode=mode, client=HOME)


async def hear(over: Authority) -> None:
    """Read the log, lease or no lease."""
    await over.fencing._read()


async def mended(over: Authority) -> None:
    await hear(over)
    async with asyncio.timeout(10):
        while over.fencing._mending is not None:
            await asyncio.sleep(0.01)


async def test_what_was_lost_is_ended_again(store: Replicated, over: Authority) -> None:
    """A session, all of somebody, and a key: what the standby lacks is in it once the process has followed the new log,
    with an event each; and a process that starts then refuses it all.
    """
    one, everywhere, living = [await begin(over, name) for name in ("ann", "bob", "cid")]
    kid = (await store.keys())[0].kid
    store.lags = True
    await over.end(one.session.id, client=HOME, actor="ann")
    await over.end_all("bob", client=HOME, actor="bob")
    await over.kill_key(kid, client=HOME, actor="cli")
    await hear(over)
    await store.promote()
    assert (await store.session(one.session.id))[0].ended_at is None
    await mended(over)
    for each in (one, everywhere):
        session, _ = await store.session(each.session.id)
        assert (session.ended_at, session.end_reason) == (T0, ENDED_AGAIN)
    assert (await store.session(living.session.id))[0].ended_at is None
    assert next(key for key in await store.keys() if key.kid == kid).revoked_at == T0
    told = await store.events()
    assert {(each.name, each.actor) for each in told if each.detail in {ENDED_AGAIN, kid}} - {
        ("key_created", "system")
    } == {
        ("session_ended", "system"),
        ("key_revoked", "system"),
    }
    log = (await store.read_log(0, 0)).entries
    assert [entry.kind for entry in log] == ["session", "subject", "key"]
    assert all(entry.expires_at in {T0 + LONGEST_ACCESS, FOR_EVER} for entry in log)
    fresh = authority(store, Clock())  # type: ignore[arg-type]
    await fresh.open()
    for each in (one, everywhere, living):  # the key is dead
        with pytest.raises(InvalidToken):
            await fresh.verify(each.access_token)
    for each in (one, everywhere):
        with pytest.raises(InvalidToken):
            await fresh.refresh(each.refresh_token, HOME)
    assert (await fresh.refresh(living.refresh_token, HOME)).access_token
    await fresh.fencing.close()


async def test_what_was_seen_to_end_is_refused_meanwhile(store: Replicated, over: Authority) -> None:
    """From the promotion until a process hears of the new log, the store says that a session lives: whoever has seen it
    end says that it does not.
    """
    cookie, hybrid = await begin(over, "ann", "session"), await begin(over, "bob")
    store.lags = True
    for one in (cookie, hybrid):
        await over.end(one.session.id, client=HOME, actor="cli")
    await hear(over)
    store.inner = store.standby  # and nobody has been told
    with pytest.raises(NotAuthenticated):
        await over.resume(cookie.session_token)
    with pytest.raises(NotAuthenticated):
        await over.bearer_of(cookie.session_token)
    with pytest.raises(InvalidToken):
        await over.refresh(hybrid.refresh_token, HOME)
    with pytest.raises(NotAuthenticated):
        await over.holder(hybrid.refresh_token)


async def test_a_look_up_that_tells_of_another_log_is_made_again(store: Replicated, over: Authority) -> None:
    """A node with a lease looks up a session and is told so of another log: what ended by its account, which that log
    has lost, is refused, for every use that is made of a session. Nobody else notices.
    """
    cookie, hybrid = await begin(over, "ann", "session"), await begin(over, "bob")
    living = await begin(over, "cid", "session")
    async with asyncio.timeout(10):
        while not over.fencing.is_current():
            await over.verify(hybrid.access_token)
            await asyncio.sleep(0.01)
    uses = [
        lambda: over.resume(cookie.session_token),
        lambda: over.bearer_of(cookie.session_token),
        lambda: over.refresh(hybrid.refresh_token, HOME),
        lambda: over.holder(hybrid.refresh_token),
    ]
    store.lags = True
    for one in (cookie, hybrid):
        await over.end_all(one.account.subject, client=HOME, actor="cli")
    await hear(over)
    store.failures = [Unavailable("injected")]
    await store.promote()
    assert over.fencing.is_current()
    for use in uses:
        with pytest.raises((NotAuthenticated, InvalidToken)):
            await use()
    assert (await over.resume(living.session_token)).account.subject == "cid"


async def test_nothing_is_judged_before_it_is_ended_again(store: Replicated, over: Authority) -> None:
    """All of somebody was ended, which the store has lost: no request is judged until it has that again, however often
    it cannot be reached.
    """
    cookie = await begin(over, "ann", "session")
    store.lags = True
    await over.end_all("ann", client=HOME, actor="cli")
    await hear(over)
    store.failures = [Unavailable("injected")] * 30
    await store.promote()
    await hear(over)
    for _ in range(3):
        with pytest.raises((Unavailable, NotAuthenticated)):
            await over.resume(cookie.session_token)
    assert not over.fencing.is_current()
    store.failures.clear()
    await mended(over)
    with pytest.raises(NotAuthenticated):
        await over.resume(cookie.session_token)


async def test_several_processes_end_it_once(store: Replicated, over: Authority, other: Authority) -> None:
    """Two processes know the same. Who has signed in since the first was done is not signed out by the second."""
    await begin(over, "ann")
    store.lags = True
    await over.end_all("ann", client=HOME, actor="cli")
    for each in (over, other):
        await hear(each)
    await store.promote()
    await mended(over)
    again = await begin(over, "ann")
    await mended(other)
    for each in (over, other):
        assert (await each.verify(again.access_token)).subject == "ann"
    log = (await store.read_log(0, 0)).entries
    assert [entry.kind for entry in log] == ["subject"]
    assert log[0].min_epoch == again.account.epoch


async def test_both_at_once(store: Replicated, over: Authority, other: Authority) -> None:
    """Two processes end it again in one moment: what one of them finds changed is in the log."""
    held = [await begin(over, f"p{n}") for n in range(20)]
    store.lags = True
    for n, one in enumerate(held):
        if n % 2:
            await over.end(one.session.id, client=HOME, actor="cli")
        else:
            await over.end_all(one.account.subject, client=HOME, actor="cli")
    for each in (over, other):
        await hear(each)
    await store.promote()
    await asyncio.gather(mended(over), mended(other))
    for one in held:
        assert (await store.session(one.session.id))[0].end_reason == ENDED_AGAIN


async def test_a_log_of_many_pages_is_read_before_anything_is_missing(store: Replicated, over: Authority) -> None:
    """What stands on a later page of the new log is not lost; and what is lost is not forgotten on the first."""
    held = [await begin(over, f"p{n}") for n in range(6)]
    for n, one in enumerate(held):
        store.lags = n == 5
        await over.end(one.session.id, client=HOME, actor="cli")
    await hear(over)
    store.page = 2
    await store.promote()
    await mended(over)
    reasons = [(await store.session(one.session.id))[0].end_reason for one in held]
    assert reasons == ["logout"] * 5 + [ENDED_AGAIN]
    assert (await store.inner.read_log(0, 0)).head == 6


async def test_the_last_of_several_ends_is_lost(store: Replicated, over: Authority) -> None:
    """Somebody was ended twice, of which the store knows the first: the second is told again."""
    await begin(over, "ann")
    await over.end_all("ann", client=HOME, actor="cli")
    again = await begin(over, "ann")
    store.lags = True
    await over.end_all("ann", client=HOME, actor="cli")
    await hear(over)
    store.lags = False
    store.standby._sessions[again.session.id] = again.session  # type: ignore[attr-defined]
    await store.promote()
    await mended(over)
    assert (await store.session(again.session.id))[0].end_reason == ENDED_AGAIN


async def test_what_was_signed_meanwhile_is_ended_too(store: Replicated, over: Authority) -> None:
    """A process that knows nothing serves what the store brought back to life, long after: the tokens that it gives out
    are refused everywhere once it is ended again, for as long as they live.
    """
    one, everywhere = await begin(over, "ann"), await begin(over, "bob")
    store.lags = True
    await over.end(one.session.id, client=HOME, actor="cli")
    await over.end_all("bob", client=HOME, actor="cli")
    await hear(over)
    await store.promote()
    later = Clock(T0 + 1800)
    over.clock = over.fencing.clock = later
    fresh = authority(store, later)  # type: ignore[arg-type]
    await fresh.open()
    given = [await fresh.refresh(each.refresh_token, HOME) for each in (one, everywhere)]
    for each in given:
        assert await fresh.verify(each.access_token)
    await mended(over)
    await hear(fresh)
    for each in given:
        with pytest.raises(InvalidToken):
            await fresh.verify(each.access_token)
    assert {entry.expires_at for entry in (await store.read_log(0, 0)).entries} == {later.now + LONGEST_ACCESS}
    await fresh.fencing.close()


async def test_what_was_purged_is_not_lost(
    store: Replicated, over: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """An entry that has expired may be missing for a good reason: nobody is signed out for it."""
    held = await begin(over, "ann")
    store.lags = True
    await store.commit(Revoke(Revocation(kind="subject", id="ann", min_epoch=0, expires_at=T0)))
    await hear(over)
    await store.promote()
    await mended(over)
    assert (await store.session(held.session.id))[0].ended_at is None
    assert over.fencing.node.missing() == []
    assert "has lost" not in caplog.text


async def test_what_cannot_be_told_again_is_given_up(
    store: Replicated, over: Authority, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the store does not take stops nobody for ever: it is an error in the log, and the process goes on."""
    held = await begin(over, "ann")
    store.lags = True
    await store.commit(Revoke(Revocation(kind="token", id="t", expires_at=T0 + 60)))
    await hear(over)
    store.failures = [InvalidInput("injected")] * 1000
    monkeypatch.setattr(fencing, "MENDS_IN_VAIN_FOR", 0.3)
    await store.promote()
    await mended(over)
    assert "could not be made again" in caplog.text
    assert (await over.verify(held.access_token)).subject == "ann"


async def test_a_store_that_does_not_answer_is_tried_for_as_long(
    store: Replicated, over: Authority, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits that hang, for however long, refuse nothing: what was ended is ended again when they go on."""
    held = await begin(over, "ann")
    store.lags = True
    await over.end(held.session.id, client=HOME, actor="cli")
    await hear(over)
    store.failures = [Unavailable("injected")] * 60
    monkeypatch.setattr(fencing, "MENDS_IN_VAIN_FOR", 0.5)
    monkeypatch.setattr(fencing, "MENDS_AGAIN_IN", 0.02)
    await store.promote()
    await mended(over)
    assert store.failures == []
    assert "could not be made again" not in caplog.text
    assert (await store.session(held.session.id))[0].ended_at is not None


async def test_a_log_that_cannot_be_read_meanwhile_is_not_taken_for_whole(store: Replicated, over: Authority) -> None:
    """Whatever goes wrong in reading the log while what was lost is ended again, it is read again."""
    held = [await begin(over, name) for name in ("ann", "bob")]
    store.lags = True
    for one in held:
        await over.end(one.session.id, client=HOME, actor="cli")
    await hear(over)
    store.failures = [Unavailable("injected")] * 2
    await store.promote()
    await hear(over)
    store.unread = [Unavailable("injected"), ValueError("injected")]
    async with asyncio.timeout(10):
        while over.fencing._mending is not None:
            await asyncio.sleep(0.01)
    assert store.unread == []
    for one in held:
        assert (await store.session(one.session.id))[0].ended_at is not None


async def test_another_deployments_log_is_not_mended(store: Replicated, over: Authority) -> None:
    """A store with another salt is another one: what was ended in the first is no business of its."""
    held = await begin(over, "ann")
    store.lags = True
    await over.end(held.session.id, client=HOME, actor="cli")
    await hear(over)
    store.standby._salt = b"another"  # type: ignore[attr-defined]
    await store.promote()
    await mended(over)
    assert (await store.session(held.session.id))[0].ended_at is None


async def test_memory_for_what_may_be_lost_is_bounded(
    store: Replicated, over: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process remembers so many entries as they were read, and no more."""
    assert over.fencing.node._latest.maxlen == node.LATEST
    entries = [Revocation(kind="token", id=f"t{n}", expires_at=T0 + 60) for n in range(node.LATEST + 10)]
    store.lags = True
    await store.commit(*map(Revoke, entries))
    await hear(over)
    await store.promote()
    monkeypatch.setattr(over.fencing, "_mend", lambda: None)
    await hear(over)
    assert [entry.id for entry in over.fencing.node.missing()] == [entry.id for entry in entries[10:]]
    monkeypatch.undo()
    await mended(over)
    lost = (await store.read_log(0, 0)).entries
    assert {entry.id for entry in lost} == {replace(entry).id for entry in entries[10:]}
