"""Moving everything to another database: people stay signed in, a kill harms nothing, and half a copy does not open."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.backing import new_database
from tests.running import Run
from tests.server.conftest import served
from tests.server.running import running
from tests.standins import HOME, PASSWORD, Clock, Mailbox, Wrapped, authority, directory, proof_of

from dutchdoor.errors import Conflict, Misconfigured, NotAuthenticated
from dutchdoor.model.bindings import Binding
from dutchdoor.model.rate_limits import Bucket, Limit
from dutchdoor.revocation.lease import GUARD
from dutchdoor.revocation.node_messages import FIRST_EPOCH
from dutchdoor.server.commands.migrate import Moved, move
from dutchdoor.services.browser import Browser
from dutchdoor.services.fencing import elapsed
from dutchdoor.stores.base import Add, End, Log, Remove, Revoke, Store, Swap
from dutchdoor.stores.kinds import KINDS
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.stores.transfer import LogState, Movable
from dutchdoor.stores.urls import make_store
from dutchdoor.testing.conformance import (
    NOW,
    a_credential,
    a_revocation,
    a_row,
    a_session,
    a_token,
    a_verifier,
    an_account,
    an_event,
    the_log,
)

FORK = multiprocessing.get_context("forkserver")


pytestmark = pytest.mark.usefixtures("patience")  # a busy machine is no outage


@pytest.fixture(params=["sqlite-sqlite", "sqlite-postgres", "postgres-sqlite"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two addresses, to move from and to."""
    source, target = f"sqlite:///{tmp_path / 'old.db'}", f"sqlite:///{tmp_path / 'new.db'}"
    if request.param == "sqlite-sqlite":
        yield source, target
        return
    with new_database() as url:
        yield (source, url) if request.param == "sqlite-postgres" else (url, target)


def movable(url: str) -> Movable:
    store = make_store(url)
    assert isinstance(store, Movable)
    return store


@asynccontextmanager
async def opened(*urls: str) -> AsyncIterator[list[Movable]]:
    stores = [movable(url) for url in urls]
    for store in stores:
        await store.open(to_move=True)
    try:
        yield stores
    finally:
        for store in stores:
            await store.close()


def quiet(_: str) -> None:
    pass


async def fill(store: Store, *, people: int = 40) -> None:
    """Something of every kind, more of some than one page of the test holds."""
    accounts = [an_account(f"person{n}") for n in range(people)]
    await store.commit(*map(Add, accounts))
    for n, account in enumerate(accounts):
        session, ended = a_session(account, NOW + n), a_session(account, NOW - n - 1)
        await store.commit(
            Add(session), Add(ended), Add(a_credential(account)), End(ended.id, "logout", NOW), Log(an_event()),
            Revoke(a_revocation(ended.id, subject=account.subject)), Swap(replace(account, roles=("admin",))),
        )  # fmt: skip
    await store.commit(Add(a_token(accounts[0].subject)), Add(a_verifier()), Remove(accounts[-1]))
    await store.hit([Bucket("b", Limit(name="b", count=1, per_seconds=60.0, burst=3))], NOW)


async def is_dead(check: Callable[..., Awaitable[object]], *presented: object) -> bool:
    try:
        await check(*presented)
    except NotAuthenticated:
        return True
    return False


async def test_people_stay_signed_in(urls: tuple[str, str]) -> None:
    """Sessions, refresh and access tokens, passwords, limits and keys are good after a move, and what was ended stays
    ended.
    """
    clock, mailbox = Clock(), Mailbox()
    source, target = map(movable, urls)
    old = authority(source, clock)
    await old.open()
    people = directory(old, mailbox)
    await people.registration.register("ann@example.com", PASSWORD, name="Ann", client=HOME)
    subject = (await old.store.account_by_email("ann@example.com")).subject  # type: ignore[union-attr]
    session = await old.start(await proof_of(old, subject), mode="session", client=HOME)
    hybrid = await old.start(await proof_of(old, subject), mode="hybrid", client=HOME)
    gone = await old.start(await proof_of(old, subject), mode="hybrid", client=HOME)
    stateless = await old.start(await proof_of(old, subject), mode="jwt", client=HOME)
    bound = await old.start(await proof_of(old, subject), mode="session", client=HOME)
    assert gone.session is not None
    assert bound.session is not None
    device = Binding("confirmed", "ES256", "A" * 43, '{"crv":"P-256","kty":"EC","x":"AQ","y":"AQ"}', int(NOW), int(NOW))
    await old.store.commit(Swap(replace(bound.session, binding=device.text())))
    await old.end(gone.session.id, client=HOME, actor="ann")
    jwks = await old.jwks()
    await old.close()

    async with opened(*urls) as (one, other):
        moved = await move(one, other, clock=clock, report=quiet)
    assert moved.rows["sessions"] == 4

    new = authority(target, clock)
    await new.open()
    assert await new.jwks() == jwks
    assert (await new.resume(session.session_token)).principal.subject == subject
    kept = (await new.resume(bound.session_token)).session
    assert (kept.binding, kept.bound_key) == (device.text(), device.thumbprint), "its browser proves the same key"
    assert (await new.verify(hybrid.access_token)).subject == subject
    assert (await new.verify(stateless.access_token)).subject == subject
    refreshed = await new.refresh(hybrid.refresh_token, HOME)
    assert (await new.verify(refreshed.access_token)).subject == subject
    assert await is_dead(new.verify, gone.access_token)
    assert await is_dead(new.refresh, gone.refresh_token, HOME)
    again, _ = await directory(new, mailbox).sign_in.by_password(
        "ann@example.com", PASSWORD, Browser(HOME), mode="session"
    )
    assert (await new.resume(again.session_token)).principal.subject == subject
    # Revoking everything revokes what was given out before the move.
    ended = await new.end_all(subject, client=HOME, actor=subject)
    fence = await new.fencing.fence(ended, wait=0.0)
    assert fence.log_epoch == moved.log_epoch
    deadline = time.monotonic() + 60
    while not all([await is_dead(new.verify, token) for token in (stateless.access_token, refreshed.access_token)]):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    await new.close()


async def test_the_log_goes_on_under_another_epoch(urls: tuple[str, str]) -> None:
    """Entries, their numbers and their salt are the same; the epoch is another, so that no acknowledgement of the old
    servers counts.
    """
    async with opened(*urls) as (source, target):
        await fill(source)
        await source.node_register(a_row(lease_for=0.1))
        before, log = await source.read_log(0, 0), await the_log(source)
        moved = await move(source, target, report=quiet)
        after = await target.read_log(before.log_epoch, before.head)
        assert (after.salt, after.head, after.after) == (before.salt, before.head, 0)
        assert moved.log_epoch == after.log_epoch > max(before.log_epoch, FIRST_EPOCH)
        assert await the_log(target) == log
        assert (await target.node_rows()).rows == []
        for account in await source.accounts():
            there = await target.account(account.subject)
            assert there == replace(account, epoch=moved.log_epoch, revision=account.revision + 1)


async def test_p44_a_server_fences_at_once_after_a_move() -> None:
    """A move ends when no verifier has a lease of an old server. A server that starts on the target right after it
    answers a log-out as fenced at once; after a restore, when leases may be left, it waits for them.
    """
    source, target, restored = (MemoryStore(clock=lambda: 0.001) for _ in range(3))
    for store in (source, restored):
        await store.commit(Add(an_account()))
    await source.node_register(a_row(lease_for=1.0))
    began = elapsed()
    reports: list[str] = []
    await move(source, target, report=reports.append)
    assert elapsed() - began >= GUARD * 1.0
    assert (await source.node_rows()).rows
    await restored.begin_log_epoch(time.time())
    states = []
    for store in (target, restored):
        server = authority(store, time.time)
        await server.open()
        done = await server.end_all((await store.accounts())[0].subject, client=HOME, actor="cli")
        states.append((await server.fencing.fence(replace(done, longest_lease=10.0), wait=0.1)).fenced)
        await server.close()
    assert states == [True, False]


class _Killed(BaseException):
    pass


class Deadly(Wrapped):
    """Reads in small pages, and calls `die` at one of its steps: before and after each call that writes."""

    def __init__(self, inner: Store, die: Callable[[], None], step: int) -> None:
        super().__init__(inner)
        self.die, self.left = die, step

    def at(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.die()

    async def export(self, kind: Any, after: str | None = None) -> Any:
        return await self.inner.export(kind, after, limit=15)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in {"begin_move", "take_in", "end_move", "leave"}:
            return found

        async def deadly(*args: Any) -> Any:
            self.at()
            done = await found(*args)
            self.at()
            return done

        return deadly


async def one_move(source: str, target: str, die: Callable[[], None], step: int) -> Moved:
    async with opened(source, target) as (one, other):
        return await move(Deadly(one, die, 0), Deadly(other, die, step), clock=lambda: NOW, report=quiet)  # type: ignore[arg-type]


async def opens_for_others(url: str) -> bool:
    store = movable(url)
    try:
        await store.open()
    except Misconfigured as exc:
        assert "not finished" in str(exc.reason) or "moved to another database" in str(exc.reason)
        return False
    await store.close()
    return True


async def contents(url: str) -> dict[str, Any]:
    """Everything that a move leaves as it is."""
    async with opened(url) as (store,):
        found: dict[str, Any] = {
            table: [str(record) for record in (await store.export(table, limit=10_000)).records]
            for table in KINDS.tables
        }
        people = await store.accounts(limit=10_000)
        events = await store.events(limit=10_000)
    found["accounts"] = [replace(person, epoch=0, revision=0) for person in people]
    found["events"] = [one for one in events if one.name != "log_begun"]
    return {kind: sorted(map(str, records)) for kind, records in found.items()}


async def test_a_move_interrupted_at_any_step_goes_on(tmp_path: Path) -> None:
    """Cut off before or after any write, the next run ends complete; until then the target does not open."""
    source = f"sqlite:///{tmp_path / 'old.db'}"
    async with opened(source) as (store,):
        await fill(store, people=6)
    expected = await contents(source)

    def die() -> None:
        raise _Killed

    step = 0
    while True:
        step += 1
        target = f"sqlite:///{tmp_path / f'{step}.db'}"
        try:
            await one_move(source, target, die, step)
        except _Killed:
            whole = await opens_for_others(target)
            moved = await one_move(source, target, die, 0)
            assert moved.already == (whole and step > 1)
        else:
            break
        assert await contents(target) == expected
        async with opened(source, target) as (left, whole_one):
            assert len(await whole_one.events(name="log_begun")) == 1, "a move is in the log, once"
            assert await left.is_left()
            await left.take_back()  # for the next try
    assert step > 2 * (2 + len(KINDS.tables))


@pytest.mark.parametrize("step", [1, 2])
async def test_from_the_source_that_was_left_no_one_serves(urls: tuple[str, str], step: int) -> None:
    """Killed while it leaves the source, one of the two opens at most; the next run ends the move."""

    def die() -> None:
        raise _Killed

    async with opened(*urls) as (source, target):
        await fill(source, people=3)
        await source.commit(Revoke(a_revocation()))
        with pytest.raises(_Killed):
            await move(Deadly(source, die, step), target, report=quiet)  # type: ignore[arg-type]
    assert not await opens_for_others(urls[1])
    assert await opens_for_others(urls[0]) == (step == 1)
    async with opened(*urls) as (source, target):
        moved = await move(source, target, report=quiet)
        assert not moved.already
        assert [one.detail for one in await target.events(name="log_begun")] == [f"moved from epoch {FIRST_EPOCH}"]
        assert (await move(source, target, report=quiet)).already
    assert await opens_for_others(urls[1])
    assert not await opens_for_others(urls[0])


async def test_there_and_back(urls: tuple[str, str], tmp_path: Path) -> None:
    """Going back is a move in the other direction, over what was left; nothing else is moved from it, or over it."""
    async with opened(*urls, f"sqlite:///{tmp_path / 'third.db'}") as (old, new, third):
        await fill(old, people=3)
        await move(old, new, report=quiet)
        await new.commit(Add(an_account("late")))
        with pytest.raises(Misconfigured, match="was moved to another database before"):
            await move(old, third, report=quiet)
        assert await third.unfinished() is None
        await third.commit(Add(an_account()))
        with pytest.raises(Misconfigured, match="not empty"):
            await move(third, old, report=quiet)
        moved = await move(new, old, report=quiet)
        assert moved.rows["accounts"] == 3
        assert (await old.account_by_email("late@example.com")) is not None
        again = await move(old, new, report=quiet)
        assert again.log_epoch > moved.log_epoch
    assert await opens_for_others(urls[1])


def move_and_die(source: str, target: str, step: int) -> None:
    asyncio.run(one_move(source, target, lambda: os.kill(os.getpid(), signal.SIGKILL), step))


@pytest.mark.parametrize("stride", [15, pytest.param(9, marks=pytest.mark.long)])
async def test_a_killed_move_goes_on(urls: tuple[str, str], stride: int) -> None:
    """SIGKILL, again and again, each time a little later, on one target: it ends complete."""
    async with opened(urls[0]) as (source,):
        await fill(source)
    expected = await contents(urls[0])
    step, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        step += stride
        process = FORK.Process(target=move_and_die, args=(*urls, step))
        process.start()
        await asyncio.to_thread(process.join, 60)
        code = process.exitcode or 0
    assert code == 0
    assert step > 2 * stride, "it was not killed twice"
    assert await opens_for_others(urls[1])
    assert await contents(urls[1]) == expected


async def test_a_target_of_its_own_is_left_alone(urls: tuple[str, str], tmp_path: Path) -> None:
    """What holds anything, or is the unfinished copy of another database, is refused and left as it is."""
    async with opened(*urls) as (source, target):
        await fill(source, people=3)
        await target.commit(Add(an_account()))
        before = await target.counts()
        with pytest.raises(Misconfigured, match="1 accounts"):
            await move(source, target, report=quiet)
        assert await target.counts() == before
        with pytest.raises(Misconfigured, match="not empty"):
            await move(target, source, report=quiet)
    async with opened(urls[0], f"sqlite:///{tmp_path / 'half.db'}", f"sqlite:///{tmp_path / 'third.db'}") as stores:
        source, half, third = stores
        await third.begin_move(replace(await log_of(source), salt=b"another database"))
        await half.begin_move(await log_of(source))
        with pytest.raises(Misconfigured, match="from another source"):
            await move(source, third, report=quiet)
        with pytest.raises(Misconfigured, match="the target of another move"):
            await move(half, third, report=quiet)


async def log_of(store: Movable) -> Any:
    from_store = await store.read_log(0, 0)
    return LogState(from_store.log_epoch, from_store.salt, from_store.head)


async def test_a_move_from_nothing_is_refused(urls: tuple[str, str]) -> None:
    """A wrong name leads to an empty database: "everything was moved" would be true of it, and no one could sign in."""
    async with opened(*urls) as (source, target):
        with pytest.raises(Misconfigured, match="source database is empty"):
            await move(source, target, report=quiet)
        assert await target.unfinished() is None


async def test_a_move_onto_itself_is_refused() -> None:
    """A database has many names, such as localhost and 127.0.0.1: under a second one it is still the same."""
    with new_database() as url:
        async with opened(url) as (source,), opened_beside(url) as target:
            await fill(source, people=2)
            with pytest.raises(Misconfigured, match="the same database"):
                await move(source, target, report=quiet)
            assert (await source.counts())["accounts"] == 1


@asynccontextmanager
async def opened_beside(url: str) -> AsyncIterator[Movable]:
    """A store that does not look whether another process has the database open."""
    store = movable(url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def test_a_source_that_is_written_is_found_out(urls: tuple[str, str]) -> None:
    """Whatever changes in the source after it was read, the target is not made whole; run again, it is."""

    async def another(store: Store) -> None:
        await store.commit(Add(an_account("late")))

    async def ended(store: Store) -> None:
        live = [session for person in await store.accounts() for session in await store.sessions_of(person.subject)]
        await store.commit(End(live[0].id, "logout", NOW))

    async def appended(store: Store) -> None:
        await store.commit(Revoke(a_revocation()))

    async def numbered(store: Store) -> None:
        """A number of the log is given, and its entry is gone again."""
        await store.commit(Revoke(a_revocation(expires_at=NOW - 1)))
        assert await store.purge(before=NOW, events_before=0.0) == 1

    async def readdressed(store: Store) -> None:
        first, *_, last = await store.accounts()
        await store.commit(Swap(replace(first, email="gone@example.com")))
        await store.commit(Swap(replace(last, email=first.email)))

    class Written(Wrapped):
        """A process writes to it while it is read."""

        def __init__(self, inner: Store, at: str, write: Any) -> None:
            super().__init__(inner)
            self.at, self.write = at, write

        async def export(self, kind: Any, after: str | None = None) -> Any:
            page = await self.inner.export(kind, after, limit=3)  # type: ignore[attr-defined]
            if self.write and kind == self.at:
                write, self.write = self.write, None
                await write(self.inner)
            return page

    async with opened(*urls) as (source, target):
        await fill(source, people=8)
        for at, write in (
            ("accounts", readdressed), ("events", another), ("events", ended), ("limits", appended),
            ("limits", numbered),
        ):  # fmt: skip
            spoilt: Any = Written(source, at, write)
            with pytest.raises(Conflict, match="changed during the move"):
                await move(spoilt, target, report=quiet)
            assert await target.unfinished() == {}, "it begins anew"
            assert set((await target.counts()).values()) == {0}
        await target.take_in("events", await source.export("events"))
        await appended(source)
        moved = await move(source, target, report=quiet)
        assert moved.rows == {**await source.counts(), "sessions": 14}
        assert not moved.already


async def test_a_server_that_runs_on_the_source_is_noticed(tmp_path: Path, run: Run) -> None:
    """A row that is renewed is a server's; a SQLite file that any process has open is in use, server or not."""
    source, target = MemoryStore(clock=lambda: 0.001), MemoryStore(clock=lambda: 0.001)
    row = a_row(lease_for=1.0)
    await source.node_register(row)
    await source.commit(Add(an_account()))

    async def renew() -> None:
        while True:
            await asyncio.sleep(0.1)
            await source.node_renew(replace(row, stamp=os.urandom(8).hex()), 0)

    server = asyncio.create_task(renew())
    with pytest.raises(Conflict, match="A server runs"):
        await move(source, target, report=quiet)
    server.cancel()
    assert await target.unfinished() is None
    assert (await move(source, target, report=quiet)).rows["accounts"] == 1, "the row of a server that is gone"

    with running(tmp_path) as server_process:
        assert server_process.url
        for pair in (("dutchdoor.db", "new.db"), ("other.db", "dutchdoor.db")):
            (tmp_path / "other.db").touch(0o600)
            urls = [f"sqlite:///{tmp_path / name}" for name in pair]
            ran = await asyncio.to_thread(run, "migrate", "--from", urls[0], "--to", urls[1])
            assert ran.code == 1
            assert "has" in ran.err
            assert "open. Stop all servers" in ran.err


def test_the_command_moves_and_says_so(tmp_path: Path, run: Run) -> None:
    """From address to address, with the addresses in variables too; a server serves from the new one at once."""
    served()
    old, new = f"sqlite:///{tmp_path / 'dutchdoor.db'}", f"sqlite:///{tmp_path / 'new.db'}"
    ran = run("migrate", "--json", environment={"DUTCHDOOR_MOVE_FROM": old, "DUTCHDOOR_MOVE_TO": new})
    assert ran.code == 0, ran.err
    assert '"moved": true' in ran.out
    assert '"keys": 1' in ran.out
    again = run("migrate", "--from", old, "--to", new)
    assert again.code == 0
    assert "Nothing was changed." in again.err
    for refused in (("serve", "--port", "0"), ("user", "list")):
        ran = run(*refused, "--database", old)
        assert ran.code == 2, refused
        assert "was moved to another database" in ran.err, refused
        assert "dutchdoor migrate --from" in ran.err
    # The variables may still be set where the server is started.
    with running(tmp_path, "--database", new, environment={"DUTCHDOOR_MOVE_FROM": old}) as server:
        assert server.url
    for arguments in (
        ("--from", f"{old}.absent", "--to", new), ("--from", old, "--to", "nonsense://u:canary@h/d"),
        ("--from", "memory:", "--to", new),
    ):  # fmt: skip
        ran = run("migrate", *arguments)
        assert ran.code == 2, arguments
        assert "canary" not in ran.err
    assert not (tmp_path / "dutchdoor.db.absent").exists()
    # The new one is lost, and there is no backup of it.
    assert run("restored", "--yes", "--database", old).code == 0
    assert run("user", "list", "--database", old).code == 0
    again = run("migrate", "--from", old, "--to", new)
    assert again.code == 2, "the new one lacks what the old one has had since"
    assert "not empty" in again.err
