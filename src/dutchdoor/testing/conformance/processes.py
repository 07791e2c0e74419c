"""Laws over several processes, including processes that are killed."""

# ruff: noqa: PLR2004 - laws count

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import random
import signal
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, Self, TypeVar

from msgspec.structs import replace

from dutchdoor.errors import Conflict, Unavailable
from dutchdoor.model.ids import new_id
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.rate_limits import Bucket
from dutchdoor.model.sessions import Session
from dutchdoor.stores.base import (
    Add,
    Change,
    End,
    Log,
    Revoke,
    Store,
    Swap,
    Take,
)
from dutchdoor.testing.conformance.samples import (
    NOW,
    PATIENCE,
    SLOW,
    MakeStore,
    SharedLaw,
    a_revocation,
    a_row,
    a_session,
    a_token,
    an_account,
    an_event,
    is_refused,
    the_log,
)

__all__ = ["SHARED_LAWS", "an_acknowledged_commit_survives_kill"]


PROCESSES = 4
_processes: ForkServerContext | SpawnContext = (
    multiprocessing.get_context("forkserver")
    if "forkserver" in multiprocessing.get_all_start_methods()
    else multiprocessing.get_context("spawn")
)
Work = Callable[[Store, Connection, int], Coroutine[Any, Any, None]]
T = TypeVar("T")


class Workers:
    """Processes that each open the store and do the same work at once. Their results come through their pipes."""

    def __init__(self, make: MakeStore, work: Work, count: int) -> None:
        self.pipes: list[Connection] = []
        self.processes = []
        ends: list[tuple[Any, Any]] = [_processes.Pipe() for _ in range(count)]  # typed otherwise on Windows
        for n, (ours, theirs) in enumerate(ends):
            process = _processes.Process(target=_work, args=(make, work, theirs, n), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)
        # All have opened the store before the first one starts: every process is at the line when the race begins.
        for n in range(count):
            assert self.receive(n) == "ready"
        for pipe in self.pipes:
            pipe.send("go")

    def receive(self, n: int = 0) -> Any:
        assert self.pipes[n].poll(PATIENCE), f"process {n} does not answer"
        return self.pipes[n].recv()

    def results(self) -> list[Any]:
        """The last message of each process. Fails when one failed."""
        found = [self.receive(n) for n in range(len(self.pipes))]
        for process in self.processes:
            process.join(PATIENCE)
            assert process.exitcode == 0
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self.processes:
            if process.is_alive():
                process.kill()
            process.join()
        for pipe in self.pipes:
            pipe.close()


def _work(make: MakeStore, work: Work, pipe: Connection, n: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def main() -> None:
        store = make()
        await store.open()
        pipe.send("ready")
        assert pipe.recv() == "go"
        try:
            await work(store, pipe, n)
        finally:
            await store.close()

    asyncio.run(main())


def contests_have_one_winner_over_processes(make: MakeStore) -> None:
    """3., 4., 5. and limits: over all processes, one wins each swap, token, end and address; a limit is exact."""

    async def prepare() -> Prizes:
        store = make()
        await store.open()
        ada = an_account()
        prizes = (
            [a_session(ada, NOW + n) for n in range(20)],
            [a_session(ada, NOW + 20 + n) for n in range(20)],
            [a_token("", "setup") for _ in range(20)],
        )
        await store.commit(Add(ada), *(Add(record) for kind in prizes for record in kind))
        await store.close()
        return prizes

    prizes = asyncio.run(prepare())
    with Workers(make, _contest, PROCESSES) as workers:
        for pipe in workers.pipes:
            pipe.send(prizes)
        won = workers.results()
    for contest in ("swap", "end", "take", "register"):
        winners = sorted(n for result in won for n in result[contest])
        assert winners == list(range(20)), f"{contest}: each prize has one winner"
    assert sum(len(result["hit"]) for result in won) == 20 * SLOW.burst


Prizes = tuple[list[Session], list[Session], list[OneTimeToken]]


async def _contest(store: Store, pipe: Connection, me: int) -> None:
    to_swap, to_end, to_take = pipe.recv()
    won: dict[str, list[int]] = {"swap": [], "end": [], "take": [], "register": [], "hit": []}

    async def attempt(contest: str, n: int, *changes: Change) -> None:
        if not await _in_turn(lambda: is_refused(store, *changes)):
            won[contest].append(n)

    async def hit(n: int) -> None:
        if await _in_turn(lambda: store.hit([Bucket(f"race:{n}", SLOW)], NOW)) == (0.0, ""):
            won["hit"].append(n)

    for n in range(20):
        await asyncio.gather(
            attempt("swap", n, Swap(replace(to_swap[n], generation=me))),
            attempt("end", n, End(to_end[n].id, "logout", NOW), Log(an_event())),
            attempt("take", n, Take(to_take[n])),
            attempt("register", n, Add(replace(an_account(), email=f"{n}@example.com"))),
            *[hit(n) for _ in range(4)],
        )
    pipe.send(won)


async def _in_turn(ask: Callable[[], Awaitable[T]]) -> T:
    try:
        return await ask()
    except Unavailable:  # on a busy machine, a process may wait for the others in vain, and write nothing
        return await ask()


def the_log_is_dense_over_processes(make: MakeStore) -> None:
    """6. While several processes append, a reader sees every entry once, in order, and without a gap."""
    with Workers(make, _append_or_follow, PROCESSES) as workers:
        *_, followed = workers.results()
    assert [seq for seq, _ in followed] == list(range(1, len(followed) + 1))
    assert len(followed) == (PROCESSES - 1) * 60 * 2


async def _append_or_follow(store: Store, pipe: Connection, me: int) -> None:
    if me < PROCESSES - 1:
        for n in range(60):
            done = await store.commit(Revoke(a_revocation(f"{me} {n}")), Log(an_event()), Revoke(a_revocation()))
            mine = [entry.id for entry in await the_log(store, done.seq - 2)]
            assert mine[0] == f"{me} {n}", "a commit's entries follow each other, and it says where they end"
        pipe.send("done")
        return
    read: list[tuple[int, str]] = []
    while len(read) < (PROCESSES - 1) * 60 * 2:
        for entry in await the_log(store, len(read)):
            read.append((entry.seq, entry.id))
            assert entry.seq == len(read)
        await asyncio.sleep(0)
    pipe.send(read)


def a_commit_is_seen_by_every_process(make: MakeStore, rounds: int = 300) -> None:
    """8. When a commit has returned in one process, a read that begins later in any other sees it."""

    async def main(workers: Workers) -> None:
        store = make()
        await store.open()
        ada, applied = an_account(), 0
        sessions = [a_session(ada, NOW + n) for n in range(rounds)]
        await store.commit(Add(ada), *map(Add, sessions))
        for session in sessions:
            done = await store.commit(End(session.id, "logout", NOW), Revoke(a_revocation(session.id)))
            workers.pipes[0].send((session.id, applied, done.seq))
            # The other process has looked, and has committed an entry of its own.
            applied = workers.receive()
            entries = await the_log(store, done.seq)
            assert [entry.seq for entry in entries] == list(range(done.seq + 1, entries[-1].seq + 1))
            assert entries[-1].seq >= applied
        for pipe in workers.pipes:
            pipe.send(None)
        await store.close()

    with Workers(make, _look_and_answer, 2) as workers:
        asyncio.run(main(workers))


async def _look_and_answer(store: Store, pipe: Connection, me: int) -> None:
    if me == 1:  # writes without pause, so that a quiet database cannot pass by luck
        while not pipe.poll():
            with contextlib.suppress(Unavailable):  # a slow disk refuses the process that waits longest for its writer
                await store.hit([Bucket(f"noise:{random.random()}", SLOW)], NOW)
                await store.commit(Log(an_event()))
        return
    row, woken = a_row(), asyncio.Event()
    await _in_turn(lambda: store.node_register(row))
    unwatch = store.watch(woken.set)
    while (message := await asyncio.to_thread(pipe.recv)) is not None:
        session_id, before, seq = message
        await asyncio.wait_for(woken.wait(), PATIENCE)
        woken.clear()
        head = store.head()
        assert head is None or head.seq >= seq, "the head is behind a commit of another process"
        row = replace(row, stamp=new_id(), log_epoch=(await store.node_rows()).log_epoch)
        renewed = await _in_turn(partial(store.node_renew, row, seq - 1))
        assert [entry.id for entry in renewed.entries][:1] == [session_id], "a renewal sees every commit before it"
        found = await store.session(session_id)
        assert found is not None
        assert found[0].ended_at == NOW, "the session's end was acknowledged elsewhere, and is not seen here"
        entries = await the_log(store, before)
        assert seq in [entry.seq for entry in entries], (
            "the revocation was acknowledged elsewhere, and is not seen here"
        )
        assert entries[-1].id == session_id
        pipe.send((await _in_turn(lambda: store.commit(Revoke(a_revocation())))).seq)
    unwatch()


def a_row_stays_forgotten_over_processes(make: MakeStore) -> None:
    """11. While some processes renew and others forget, no row comes back; all of them see one salt and log epoch."""
    with Workers(make, _renew_or_forget, PROCESSES) as workers:
        results = workers.results()
    assert len({(log_epoch, salt) for log_epoch, salt, _ in results}) == 1
    assert sum(lost for *_, lost in results) == 2 * 15, "each row was deleted by one process"


async def _renew_or_forget(store: Store, pipe: Connection, me: int) -> None:
    """Half of the processes have rows and renew them; the others forget all rows they see, as often as they can."""
    lost = 0
    if me % 2:
        for _ in range(15):
            row = a_row()
            await store.node_register(row)
            while (await store.node_renew(row := replace(row, stamp=new_id()), 0)).there:
                pass
            assert not (await store.node_renew(replace(row, stamp=new_id()), 0)).there
            assert row.id not in [found.id for found in (await store.node_rows()).rows]
            lost += 1
    else:
        gone: set[str] = set()
        quiet = 0
        while quiet < 300:
            rows = (await store.node_rows()).rows
            assert gone.isdisjoint(row.id for row in rows), "a row that was gone is back"
            quiet = 0 if rows else quiet + 1
            for row in rows:
                await store.node_forget(row.id, row.stamp)
                left = [found.stamp for found in (await store.node_rows()).rows if found.id == row.id]
                if not left:
                    gone.add(row.id)
                assert row.stamp not in left
            await asyncio.sleep(0.001)
    read = await store.read_log(0, 0)
    pipe.send((read.log_epoch, read.salt, lost))


def an_acknowledged_commit_survives_kill(make: MakeStore, kills: int = 5, seed: int = 1) -> None:
    """1. and 2. A process killed at any instant leaves every commit it acknowledged, and no part of any other commit.

    Each time, another process opens the database and continues where the last one was killed.
    """
    dice = random.Random(seed)
    ada, acknowledged = an_account(), set[str]()

    async def begin() -> None:
        store = make()
        await store.open()
        await store.commit(Add(ada))
        await store.close()

    async def check() -> None:
        store = make()
        await store.open()
        log = await the_log(store)
        assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
        revoked = {entry.id for entry in log}
        logged = {happened.session_id for happened in await store.events(limit=1_000_000)}
        counts = await store.counts()
        found = await store.account(ada.subject)
        assert found is not None
        assert acknowledged <= revoked, "an acknowledged commit is lost"
        assert revoked == logged, "half a commit: the log of revocations and the audit log differ"
        assert counts["sessions"] == found.epoch == len(revoked), "half a commit: sessions, epoch and log differ"
        for session_id in acknowledged:
            pair = await store.session(session_id)
            assert pair is not None
            assert pair[0].ended_at == NOW
        await store.close()

    asyncio.run(begin())
    for _ in range(kills):
        enough = dice.randrange(1, 40)
        with Workers(make, _commit_until_killed, 1) as workers:
            workers.pipes[0].send(ada.subject)
            for _ in range(enough):
                acknowledged.add(workers.receive())
            workers.processes[0].kill()
            workers.processes[0].join()
            # What it sent before it died counts too.
            while True:
                try:
                    acknowledged.add(workers.receive())
                except (EOFError, ConnectionResetError):
                    break
        asyncio.run(check())


async def _commit_until_killed(store: Store, pipe: Connection, _: int) -> None:
    subject: str = pipe.recv()

    async def one() -> None:
        while True:
            account = await store.account(subject)
            assert account is not None
            session = a_session(account)
            happened = replace(an_event(subject), session_id=session.id)
            try:
                await store.commit(
                    Swap(replace(account, epoch=account.epoch + 1)), Add(session), End(session.id, "logout", NOW),
                    Revoke(a_revocation(session.id)), Log(happened),
                )  # fmt: skip
            except Conflict:
                continue
            pipe.send(session.id)

    await asyncio.gather(*[one() for _ in range(4)])


SHARED_LAWS: tuple[SharedLaw, ...] = (
    contests_have_one_winner_over_processes,
    the_log_is_dense_over_processes,
    a_commit_is_seen_by_every_process,
    a_row_stays_forgotten_over_processes,
    an_acknowledged_commit_survives_kill,
)
