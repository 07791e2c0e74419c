"""What a store lost and processes still know: found out, refused meanwhile, and revoked again. Stores in memory stand
for a primary and its standbys; tests/faults/test_promotion.py has real ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from msgspec.structs import replace
from tests.standins import HOME, T0, Clock, Wrapped, authority, proof_of

from dutchdoor.errors import InvalidInput, InvalidToken, NotAuthenticated, Unavailable
from dutchdoor.jose.signing_keys import StoredKey
from dutchdoor.model.accounts import Account
from dutchdoor.model.ids import new_id
from dutchdoor.model.policy import LONGEST_ACCESS, Mode
from dutchdoor.model.service_credentials import RegisteredClient, VerifierKey
from dutchdoor.model.sessions import Session
from dutchdoor.revocation.log import FOR_EVER, Revocation
from dutchdoor.revocation.messages import Answer, Poll
from dutchdoor.revocation.node_messages import NodeRow, Renewed
from dutchdoor.services import reapplying
from dutchdoor.services.fencing import elapsed
from dutchdoor.services.presenting import SignedIn
from dutchdoor.services.reapplying import ENDED_AGAIN, Reapplying
from dutchdoor.services.service_credentials import add_client, removal_of, remove_client
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Add, Change, Remove, Revoke, Revoked
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.testing.conformance import LAWS, NOW


class Replicated(Wrapped):
    """A store a network away with two standbys, which may lag and take its place, one after the other."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(clock=lambda: T0))
        self.primary = self.inner
        self.standby, self.second = MemoryStore(clock=lambda: T0), MemoryStore(clock=lambda: T0)
        self.standby._salt = self.second._salt = self.primary._salt  # type: ignore[attr-defined]
        self.lags, self.failures, self.unread = False, list[Exception](), list[Exception]()
        self.refused = set[str]()
        self.page = 4096
        self.newest_log = 0
        self.slow: asyncio.Event | None = None
        """Until when the promoted one keeps the answer of the next look-up back."""
        self.pages = asyncio.Event()
        """Until when it keeps all pages of its log back but the first."""
        self.pages.set()
        self.is_half_read = False

    def __getattr__(self, name: str) -> Any:
        if not callable(getattr(self.inner, name)):
            return getattr(self.inner, name)

        def asked(*args: Any, **named: Any) -> Any:
            # What was looked up before the promotion asks the promoted one after it, as a connection does.
            return getattr(self.inner, name)(*args, **named)

        return asked

    def head(self) -> None:
        return None

    async def commit(self, *changes: Change) -> Revoked:
        revoked = {change.entry.id for change in changes if isinstance(change, Revoke)}
        if revoked & self.refused:
            raise InvalidInput("injected")
        if self.failures and revoked:
            raise self.failures.pop(0)
        done = await self.inner.commit(*changes)
        if self.inner is self.primary and not self.lags:
            await self.standby.commit(*changes)
            await self.second.commit(*changes)
        return done

    def _paged(self, read: Renewed) -> Renewed:
        if len(read.entries) <= self.page:
            return read
        return replace(read, entries=read.entries[: self.page], upto=read.entries[self.page - 1].seq)

    async def read_log(self, log_epoch: int, after: int) -> Renewed:
        await asyncio.sleep(0.01)  # others have their turn
        if self.unread:
            raise self.unread.pop(0)
        if log_epoch == self.standby._log_epoch:  # type: ignore[attr-defined]
            self.is_half_read = not self.pages.is_set()
            await self.pages.wait()
        return self._paged(await self.inner.read_log(log_epoch, after))

    async def node_renew(self, row: NodeRow, after: int) -> Renewed:
        if not self.pages.is_set():
            raise Unavailable("injected")
        return self._paged(await self.inner.node_renew(row, after))

    async def session(self, session_id: str) -> tuple[Session, Account] | None:
        if self.inner is self.standby:  # the connection says which log it is on, before the look-up
            self.newest_log = self.standby._log_epoch  # type: ignore[attr-defined]
        found = await self.inner.session(session_id)
        slow, self.slow = self.slow, None
        if slow is not None:
            await slow.wait()
        return found

    async def promote(self) -> None:
        self.inner = self.standby
        await self.standby.begin_log_epoch(T0 + 1)

    async def promote_the_second(self) -> None:
        self.inner = self.second
        await self.second.begin_log_epoch(T0 + 2)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes longer than a request may wait."""
    monkeypatch.setattr(reapplying, "WAITS_FOR", 30.0)


@pytest.fixture
def store() -> Replicated:
    return Replicated()


class Copies:
    """Sessions that nodes show to each other, under the log that they were read in."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, int], tuple[Session, Account, float]] = {}

    async def recent_session(self, session_id: str, log_epoch: int) -> tuple[Session, Account, float] | None:
        return self.kept.get((session_id, log_epoch))

    def keep_recent(self, session: Session, account: Account, read_at: float, log_epoch: int) -> None:
        self.kept[session.id, log_epoch] = session, account, read_at


@asynccontextmanager
async def a_node(store: Replicated, copies: Copies | None = None) -> AsyncIterator[Authority]:
    made = authority(store, Clock(), copies=copies)  # type: ignore[arg-type]
    await made.open()
    yield made
    await made.close()


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
    """Read the log, lease or no lease. After a promotion that is when nothing is missing any more."""
    await over.fencing._read()


async def patiently(over: Authority) -> None:
    """The same, however often the store cannot be read."""
    async with asyncio.timeout(60):
        while True:
            with suppress(Unavailable, ValueError):
                return await hear(over)
            await asyncio.sleep(0.01)


@asynccontextmanager
async def hearing(over: Authority) -> AsyncIterator[asyncio.Task[None]]:
    """Go on while the log is read, and something is missing."""
    reading = asyncio.create_task(hear(over))
    async with asyncio.timeout(60):
        while over.store.newest_log == over.fencing.node.log_epoch:
            await asyncio.sleep(0.01)
    yield reading
    reading.cancel()


async def test_what_was_lost_is_ended_again(store: Replicated, over: Authority) -> None:
    """A session, all sessions of an account, and a key: what the standby lacks is in it once the process has read the
    new log, with an event each; and a process that starts then refuses it all.
    """
    one, everywhere, living = [await begin(over, name) for name in ("ann", "bob", "cid")]
    kid = (await store.select(StoredKey))[0].kid
    store.lags = True
    await over.end(one.session.id, client=HOME, actor="ann")
    await over.end_all("bob", client=HOME, actor="bob")
    await over.kill_key(kid, client=HOME, actor="cli")
    await hear(over)
    await store.promote()
    assert (await store.session(one.session.id))[0].ended_at is None
    await hear(over)
    for each in (one, everywhere):
        session, _ = await store.session(each.session.id)
        assert (session.ended_at, session.end_reason) == (T0, ENDED_AGAIN)
    assert (await store.session(living.session.id))[0].ended_at is None
    assert next(key for key in await store.select(StoredKey) if key.kid == kid).revoked_at == T0
    events = await store.events()
    assert {(each.name, each.actor) for each in events if each.detail in {ENDED_AGAIN, kid}} - {
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
    """The store says that a session lives, and no new log has begun: a process that has read its end refuses it."""
    cookie, hybrid = await begin(over, "ann", "session"), await begin(over, "bob")
    store.lags = True
    for one in (cookie, hybrid):
        await over.end(one.session.id, client=HOME, actor="cli")
    await hear(over)
    store.inner = store.standby  # and nothing says so
    with pytest.raises(NotAuthenticated):
        await over.resume(cookie.session_token)
    with pytest.raises(NotAuthenticated):
        await over.bearer_of(cookie.session_token)
    with pytest.raises(InvalidToken):
        await over.refresh(hybrid.refresh_token, HOME)
    with pytest.raises(NotAuthenticated):
        await over.holder(hybrid.refresh_token)


async def leased(over: Authority, held: SignedIn) -> None:
    async with asyncio.timeout(60):
        while not over.fencing.is_current():
            await over.verify(held.access_token)
            await asyncio.sleep(0.01)


async def test_a_look_up_that_tells_of_another_log_is_made_again(store: Replicated, over: Authority) -> None:
    """A node with a lease looks up a session, and the look-up brings another log along: what ended by its account,
    which that log has lost, is refused, for every use that is made of a session. No other session is.
    """
    cookie, hybrid = await begin(over, "ann", "session"), await begin(over, "bob")
    living = await begin(over, "cid", "session")
    await leased(over, hybrid)
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


@pytest.mark.parametrize("first", ["this one", "another"])
async def test_an_answer_from_before_it_was_revoked_again_is_not_believed(
    first: str, store: Replicated, over: Authority, other: Authority
) -> None:
    """A look-up finds a session live on the promoted server, and its answer is late: meanwhile a process has read the
    new log and revoked it again. The session is looked up again.
    """
    cookie = await begin(over, "ann", "session")
    await leased(over, await begin(over, "bob"))
    store.lags = True
    await over.end_all("ann", client=HOME, actor="cli")
    for each in (over, other):
        await hear(each)
    await store.promote()
    slow = store.slow = asyncio.Event()
    late = asyncio.create_task(over.resume(cookie.session_token))
    async with asyncio.timeout(60):
        while store.slow is not None:
            await asyncio.sleep(0)
    if first == "another":
        await hear(other)
    await hear(over)
    slow.set()
    with pytest.raises(NotAuthenticated):
        await late


async def test_half_a_log_is_not_judged_by(store: Replicated, over: Authority) -> None:
    """The new log has many pages. Before the last one is read no process knows what is missing, nor judges."""
    cookie, hybrid = await begin(over, "ann", "session"), await begin(over, "bob")
    for n in range(8):
        await over.end((await begin(over, f"p{n}")).session.id, client=HOME, actor="cli")
    await leased(over, hybrid)
    store.lags = True
    await over.end_all("ann", client=HOME, actor="cli")
    await hear(over)
    store.page = 4
    store.pages.clear()
    await store.promote()
    slow = store.slow = asyncio.Event()
    waiting = [asyncio.create_task(over.resume(cookie.session_token))]
    reading = asyncio.create_task(over.verify(hybrid.access_token))
    async with asyncio.timeout(60):
        while not store.is_half_read:
            store.newest_log = store.standby._log_epoch  # type: ignore[attr-defined]
            if reading.done():
                reading = asyncio.create_task(over.verify(hybrid.access_token))
            await asyncio.sleep(0.01)
    assert not over.fencing.is_current()
    slow.set()
    waiting += [asyncio.create_task(over.bearer_of(cookie.session_token)), reading]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in waiting)
    store.pages.set()
    assert (await waiting.pop()).subject == "bob"
    for outcome in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(outcome, NotAuthenticated)


async def test_no_copy_is_kept_under_a_log_that_is_over(store: Replicated) -> None:
    """A node looks a session up on the promoted server, and does not know that it had ended. What it shows the others
    is not taken for what was so in the log before: one of them may know.
    """
    copies = Copies()
    async with a_node(store, copies) as over:
        cookie = await begin(over, "ann", "session")
        await leased(over, await begin(over, "bob"))
        before = over.fencing.node.log_epoch
        await store.promote()
        await over.resume(cookie.session_token)
        assert before not in {log_epoch for _, log_epoch in copies.kept}
        assert over.fencing.node.log_epoch == before, "the look-up alone has brought the other log along"
        await over.resume(cookie.session_token)
        assert over.fencing.node.log_epoch > before
        assert before not in {log_epoch for _, log_epoch in copies.kept}


@pytest.mark.parametrize("half_read", [False, True])
async def test_another_log_begins_while_something_is_missing(
    half_read: bool, store: Replicated, over: Authority
) -> None:
    """A second promotion, or `dutchdoor restored` in the middle of it: what was missing is not forgotten, neither for
    an older end of the same subject nor because the next log is not read yet.
    """
    cookie = await lost_after_an_older_end(store, over)
    store.failures = [Unavailable("injected")] * 10**6
    await store.promote()
    async with hearing(over) as reading:
        await asyncio.sleep(0.05)
        assert store.failures[0:1]
        store.page = 2 if half_read else 4096
        if half_read:
            store.pages.clear()
        await store.standby.begin_log_epoch(T0 + 9)
        async with asyncio.timeout(60):
            while store.is_half_read != half_read:
                await asyncio.sleep(0.01)
        if half_read:
            await store.standby.begin_log_epoch(T0 + 19)
            store.pages.set()
        store.failures.clear()
        await reading
    with pytest.raises(NotAuthenticated):
        await over.resume(cookie.session_token)
    assert await all_ended(store, cookie)


async def lost_after_an_older_end(store: Replicated, over: Authority) -> SignedIn:
    """All sessions of an account end twice, and the standbys lack the second time."""
    await begin(over, "ann")
    await over.end_all("ann", client=HOME, actor="cli")
    cookie = await begin(over, "ann", "session")
    for n in range(4):
        await over.end((await begin(over, f"p{n}")).session.id, client=HOME, actor="cli")
    store.lags = True
    await over.end_all("ann", client=HOME, actor="cli")
    await hear(over)
    return cookie


async def all_ended(store: Replicated, cookie: SignedIn) -> bool:
    return (await store.session(cookie.session.id))[0].end_reason == ENDED_AGAIN


async def test_another_log_begins_while_this_one_is_read_again(store: Replicated, over: Authority) -> None:
    """Nothing is missing any more, and the node reads the log page by page, an older end of the same subject first.
    Then a second standby is promoted, which lacks the newer one, too.
    """
    cookie = await lost_after_an_older_end(store, over)
    await store.promote()
    await hear(over)
    assert await all_ended(store, cookie)
    over.fencing.node = over.fencing._new_node()
    store.page = 1
    assert (await over.store.read_log(0, 0)).entries[0].id == "ann"
    await store.promote_the_second()
    await patiently(over)
    assert await all_ended(store, cookie)


async def test_a_removed_verifier_stays_removed(store: Replicated, over: Authority) -> None:
    """The row of a verifier's key comes back with a standby, and the entry that tells of its removal would expire."""
    row = VerifierKey(id=new_id(), name="orders", secret_hash=b"x" * 32, created_at=T0)
    await store.commit(Add(row))
    store.lags = True
    await store.commit(Remove(row), Revoke(removal_of(row, T0)))
    await hear(over)
    await store.promote()
    assert await store.get(VerifierKey, row.id) is not None
    await hear(over)
    assert await store.get(VerifierKey, row.id) is None
    assert [event.detail for event in await store.events(name="verifier_removed")] == ["orders"]


async def test_a_removed_client_stays_removed(store: Replicated, over: Authority) -> None:
    """So does the row of a client: otherwise its secret would work again."""
    client = (await add_client(over, "orders", client=HOME, actor="cli")).client
    store.lags = True
    await remove_client(over, client.id, client=HOME, actor="cli")
    await hear(over)
    await store.promote()
    assert await store.get(RegisteredClient, client.id) is not None
    await hear(over)
    assert await store.get(RegisteredClient, client.id) is None


async def test_a_key_that_was_killed_is_not_shown_again(store: Replicated, over: Authority) -> None:
    """A client keeps the key set for minutes: a key that the promoted server has as valid is not in it."""
    held = await begin(over, "bob")
    await leased(over, held)
    kid = (await store.select(StoredKey))[0].kid
    store.lags = True
    await over.kill_key(kid, client=HOME, actor="cli")
    await hear(over)
    store.inner = store.standby  # and nothing says so
    await over._read_ring(T0, force=True)
    assert kid not in [key["kid"] for key in await over.jwks()]
    assert over.ring.signing(T0, "ES256").kid != kid


async def test_nothing_is_judged_before_it_is_ended_again(
    store: Replicated, over: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All sessions of an account ended, which the store has lost: no request is judged until it has that again, however
    often it cannot be reached.
    """
    cookie = await begin(over, "ann", "session")
    store.lags = True
    await over.end_all("ann", client=HOME, actor="cli")
    await hear(over)
    store.failures = [Unavailable("injected")] * 10**6
    monkeypatch.setattr(reapplying, "WAITS_FOR", 0.05)
    await store.promote()
    for _ in range(3):
        for use in (over.resume(cookie.session_token), over.store.account("ann"), hear(over)):
            with pytest.raises(Unavailable):
                await use
    assert not over.fencing.is_current()
    store.failures.clear()
    await patiently(over)
    with pytest.raises(NotAuthenticated):
        await over.resume(cookie.session_token)


async def test_several_processes_end_it_once(store: Replicated, over: Authority, other: Authority) -> None:
    """Two processes know the same. A user who has signed in after the first is not signed out by the second."""
    await begin(over, "ann")
    store.lags = True
    await over.end_all("ann", client=HOME, actor="cli")
    for each in (over, other):
        await hear(each)
    await store.promote()
    await hear(over)
    again = await begin(over, "ann")
    await hear(other)
    for each in (over, other):
        assert (await each.verify(again.access_token)).subject == "ann"
    log = (await store.read_log(0, 0)).entries
    assert [entry.kind for entry in log] == ["subject"]
    assert log[0].min_epoch == again.account.epoch


async def test_both_at_once(store: Replicated, over: Authority, other: Authority) -> None:
    """Two processes revoke it again in one moment: what one of them finds changed is in the log."""
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
    await asyncio.gather(hear(over), hear(other))
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
    await hear(over)
    reasons = [(await store.session(one.session.id))[0].end_reason for one in held]
    assert reasons == ["logout"] * 5 + [ENDED_AGAIN]
    assert (await store.inner.read_log(0, 0)).head == 6


async def test_the_last_of_several_ends_is_lost(store: Replicated, over: Authority) -> None:
    """All sessions of an account ended twice, of which the store knows the first: the second is made again."""
    await begin(over, "ann")
    await over.end_all("ann", client=HOME, actor="cli")
    again = await begin(over, "ann")
    store.lags = True
    await over.end_all("ann", client=HOME, actor="cli")
    await hear(over)
    store.lags = False
    store.standby._sessions.rows[again.session.id,] = again.session  # type: ignore[attr-defined]
    await store.promote()
    await hear(over)
    assert (await store.session(again.session.id))[0].end_reason == ENDED_AGAIN


async def test_what_was_signed_meanwhile_is_ended_too(store: Replicated, over: Authority) -> None:
    """A process that knows nothing serves what the store brought back to life, long after: the tokens that it issues
    are refused everywhere once that is revoked again, for as long as they live.
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
    await hear(over)
    await hear(fresh)
    for each in given:
        with pytest.raises(InvalidToken):
            await fresh.verify(each.access_token)
    assert {entry.expires_at for entry in (await store.read_log(0, 0)).entries} == {later.now + LONGEST_ACCESS}
    await fresh.fencing.close()


async def test_what_was_purged_is_not_lost(
    store: Replicated, over: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """An entry that has expired may be missing for a good reason: no session ends for it."""
    held = await begin(over, "ann")
    store.lags = True
    await store.commit(Revoke(Revocation(kind="subject", id="ann", min_epoch=0, expires_at=T0)))
    await hear(over)
    await store.promote()
    await hear(over)
    assert (await store.session(held.session.id))[0].ended_at is None
    assert "has lost" not in caplog.text


async def test_what_cannot_be_made_again_is_given_up(
    store: Replicated, over: Authority, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that the store does not take stops no process for ever: it is an error in the server's log, the process
    goes on, and refuses what the entry names. The next log is given it.
    """
    held, ended = await begin(over, "ann"), await begin(over, "bob", "session")
    store.lags = True
    await over.end(ended.session.id, client=HOME, actor="cli")
    await hear(over)
    store.failures = [InvalidInput("injected")] * 1000
    monkeypatch.setattr(reapplying, "ATTEMPTS", 3)
    monkeypatch.setattr(reapplying, "AGAIN_IN", 0.01)
    await store.promote()
    await hear(over)
    assert "cannot be made again" in caplog.text
    assert (await over.verify(held.access_token)).subject == "ann"
    with pytest.raises(NotAuthenticated):
        await over.resume(ended.session_token)
    store.failures.clear()
    await store.promote_the_second()
    await hear(over)
    assert (await store.session(ended.session.id))[0].end_reason == ENDED_AGAIN


async def test_what_the_store_refuses_keeps_nothing_else_back(
    store: Replicated, over: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries that the store does not take are tried again after all others."""
    held = [await begin(over, name) for name in ("ann", "bob", "cid", "dan")]
    store.lags = True
    for one in held:
        await over.end(one.session.id, client=HOME, actor="cli")
    await hear(over)
    store.refused = {one.session.id for one in held[:2]}
    monkeypatch.setattr(reapplying, "ATTEMPTS", 5)
    monkeypatch.setattr(reapplying, "AGAIN_IN", 0.01)
    monkeypatch.setattr(reapplying, "AT_ONCE", 2)
    await store.promote()
    await hear(over)
    ended = [(await store.session(one.session.id))[0].ended_at is not None for one in held]
    assert ended == [False, False, True, True]


async def test_an_older_server_is_not_waited_for(store: Replicated, over: Authority) -> None:
    """Another connection has brought a newer log along than the server that answers has: that is out of reach."""
    held = await begin(over, "ann", "session")
    store.newest_log = over.fencing.node.log_epoch + 1
    async with asyncio.timeout(60):
        for use in (over.resume(held.session_token), over.store.session(held.session.id), hear(over)):
            with pytest.raises(Unavailable):
                await use


async def test_a_store_that_does_not_answer_is_tried_for_as_long(
    store: Replicated, over: Authority, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits that hang, for however long, refuse nothing: what was lost is revoked again when they go on."""
    held = await begin(over, "ann")
    store.lags = True
    await over.end(held.session.id, client=HOME, actor="cli")
    await hear(over)
    store.failures = [Unavailable("injected")] * 60
    monkeypatch.setattr(reapplying, "ATTEMPTS", 10)
    monkeypatch.setattr(reapplying, "AGAIN_IN", 0.01)
    await store.promote()
    await hear(over)
    assert store.failures == []
    assert "cannot be made again" not in caplog.text
    assert (await store.session(held.session.id))[0].ended_at is not None


async def test_a_log_that_cannot_be_read_meanwhile_is_not_taken_for_whole(store: Replicated, over: Authority) -> None:
    """Whatever goes wrong in reading the log while what was lost is revoked again, it is read again."""
    held = [await begin(over, name) for name in ("ann", "bob")]
    store.lags = True
    for one in held:
        await over.end(one.session.id, client=HOME, actor="cli")
    await hear(over)
    store.failures = [Unavailable("injected")] * 4
    await store.promote()
    async with hearing(over) as first:
        store.unread = [Unavailable("injected"), ValueError("injected")]
        with pytest.raises(Unavailable):
            await first
        with pytest.raises(ValueError, match="injected"):
            await hear(over)
    assert store.unread == []
    await hear(over)
    for one in held:
        assert (await store.session(one.session.id))[0].ended_at is not None


async def test_a_machine_that_slept_in_the_middle_of_it(
    store: Replicated, over: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt counts, and not how long it took: a machine that slept has given up nothing."""
    held = await begin(over, "ann")
    store.lags = True
    await over.end(held.session.id, client=HOME, actor="cli")
    await hear(over)
    store.failures = [InvalidInput("injected")] * 3
    clock, read = over.clock, store.read_log

    async def sleeping(log_epoch: int, after: int) -> Renewed:
        clock.forward(60.0)  # type: ignore[attr-defined]
        return await read(log_epoch, after)

    monkeypatch.setattr(store, "read_log", sleeping)
    await store.promote()
    await hear(over)
    assert (await store.session(held.session.id))[0].ended_at is not None


async def test_opened_anew_in_the_middle_of_it(store: Replicated, over: Authority) -> None:
    """An application that opens again while something is missing begins as a new process does: no request waits."""
    await begin(over, "ann")
    living = await begin(over, "bob", "session")
    store.lags = True
    await over.end_all("ann", client=HOME, actor="cli")
    await hear(over)
    store.failures = [Unavailable("injected")] * 10**6
    await store.promote()
    async with hearing(over) as waiting:
        await over.open()
        await waiting
    async with asyncio.timeout(60):
        assert (await over.resume(living.session_token)).account.subject == "bob"


async def test_another_deployments_log_is_given_nothing(store: Replicated, over: Authority) -> None:
    """A store with another salt is another one: what was ended in the first is no business of its."""
    held = await begin(over, "ann")
    store.lags = True
    await over.end(held.session.id, client=HOME, actor="cli")
    await hear(over)
    store.standby._salt = b"another"  # type: ignore[attr-defined]
    await store.promote()
    await hear(over)
    assert (await store.session(held.session.id))[0].ended_at is None


async def test_memory_for_what_may_be_lost_is_bounded(
    store: Replicated, over: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process remembers the newest entries, so many at least and twice as many at most."""
    monkeypatch.setattr(reapplying, "KEPT", 50)
    monkeypatch.setattr(reapplying, "AT_ONCE", 7)
    entries = [Revocation(kind="token", id=f"t{n}", expires_at=T0 + 60) for n in range(220)]
    store.lags = True
    for entry in entries:
        await store.commit(Revoke(entry))
        await hear(over)
    await store.promote()
    await hear(over)
    made = {entry.id for entry in (await store.read_log(0, 0)).entries}
    assert made >= {entry.id for entry in entries[-50:]}
    assert len(made) <= 100
    await store.promote_the_second()
    await hear(over)
    assert {entry.id for entry in (await store.read_log(0, 0)).entries} == made


async def test_who_begins_to_follow_gets_the_whole_log(store: Replicated, over: Authority) -> None:
    """A verifier that begins to poll while something is missing would accept what it names: it gets the log before, in
    which the entry is, and the new one when the entry is in that, too.
    """
    held = await begin(over, "ann")
    await leased(over, held)
    store.lags = True
    await over.end(held.session.id, client=HOME, actor="cli")
    await hear(over)
    before = over.fencing.node.log_epoch

    async def poll(name: str) -> Answer:
        return await over.fencing.poll(Poll(holder=name * 22, wait_ms=100), credential="c")

    store.failures = [Unavailable("injected")] * 10**6
    await store.promote()
    async with hearing(over) as reading:
        meanwhile = await poll("a")
        store.failures.clear()
        await reading
    after = await poll("b")
    assert (meanwhile.log_epoch, len(meanwhile.entries)) == (before, 1)
    assert (after.log_epoch, len(after.entries)) == ((T0 + 1) * 1000, 1)


async def test_no_fence_elapses_while_something_is_missing(
    store: Replicated, over: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fence that waits for a silent node says `lost` once another log has begun, whatever time passes until that is
    read: a node that has not read the revocation would accept what it names.
    """
    held = await begin(over, "ann")
    await leased(over, held)
    await store.primary.node_register(
        NodeRow(id="silent", stamp="s", log_epoch=over.fencing.node.log_epoch, acked_seq=0, lease_for=10.0)
    )
    store.lags = True
    fence = asyncio.create_task(
        over.fencing.fence(await over.end(held.session.id, client=HOME, actor="cli"), wait=None)
    )
    await hear(over)
    store.failures = [Unavailable("injected")] * 10**6
    await store.promote()
    async with hearing(over):
        monkeypatch.setattr(over.fencing, "now", lambda: elapsed() + 60.0)
        over.fencing._ring()
        async with asyncio.timeout(60):
            assert (await fence).state == "lost"


async def test_a_restored_store_that_tells_its_head_is_read_first(over_memory: Authority) -> None:
    """Over SQLite or in memory, where no look-up brings the new log along, the first read of it does."""
    store = over_memory.store
    cookie = await begin(over_memory, "ann", "session")
    before = over_memory.fencing.node.log_epoch
    await store.begin_log_epoch(T0 + 1)
    assert not over_memory.fencing.is_current()
    await over_memory.resume(cookie.session_token)
    assert store.newest_log == over_memory.fencing.node.log_epoch > before


@pytest.fixture
async def over_memory() -> AsyncIterator[Authority]:
    made = authority(MemoryStore(clock=lambda: T0), Clock())
    await made.open()
    yield made
    await made.close()


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
async def test_it_is_a_store(law) -> None:
    """A store around a store obeys every law that the inner one does."""
    inner = MemoryStore(clock=lambda: NOW - 1e6)
    await law(Reapplying(inner, lambda: NOW))  # type: ignore[abstract]
