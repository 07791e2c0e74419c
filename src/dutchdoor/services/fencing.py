"""Fencing: drives this process's node over its store, and says whether a request may be judged now.

`revocation.node` decides and does no I/O. This module puts its questions to the store, sets its timers, holds polls
open, and lets callers wait for their fences. All of it happens in one event loop.

A request may be judged when this process knows the log as it was at some moment since the request arrived. SQLite and
memory give the head of the log at once: they are asked at every request, and the log is read when it has moved. A store
over the network cannot do that: there the node has a lease, and a request without a lease reads the log.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any, Final, NamedTuple

from dutchdoor.errors import Unavailable
from dutchdoor.revocation.fence import Fence
from dutchdoor.revocation.lease import Terms
from dutchdoor.revocation.log import RevocationLog
from dutchdoor.revocation.messages import Answer, Poll
from dutchdoor.revocation.node import Answered, Ask, Node, Settled
from dutchdoor.revocation.node_messages import (
    Forget,
    LogHead,
    Question,
    ReadLog,
    ReadRows,
    Register,
    Renew,
    Renewed,
    Rows,
)
from dutchdoor.stores.base import Revoked, Store

__all__ = ["Fencing", "Followed", "as_one", "elapsed"]

SWEEP: Final = 16_384
"""Entries that one step checks for expiry: some milliseconds at most."""
SWEEP_EVERY: Final = (1.0, 15.0)
"""Seconds between two such steps: when more entries are left than one step checks, and when fewer are. With no entries
there is no step.
"""
STOPS_WITHIN: Final = 1.0
"""Seconds that `close` waits for the store to take the last writes."""

_log = logging.getLogger("dutchdoor")

_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


def elapsed() -> float:
    """Seconds that have passed since some moment, including those in which this machine slept. No clock adjustment
    moves it.
    """
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)


def as_one(done: Sequence[Revoked]) -> Revoked:
    """Combine the results of several commits of one operation. It counts in the log of the first: if another log began
    in between, earlier revocations may be lost, and the fence has to report that.
    """
    first = done[0]
    return Revoked(
        seq=max(each.seq for each in done if each.log_epoch == first.log_epoch),
        count=sum(each.count for each in done),
        log_epoch=first.log_epoch,
        longest_lease=max(each.longest_lease for each in done),
    )


class Followed(NamedTuple):
    """A process that follows the log at this node."""

    holder: str
    credential: str
    acked_seq: int
    """-1: nothing yet."""
    leased_for: float
    """Seconds left of its lease, as this node counts it; 0 for none."""


class Fencing:
    """One process's part in the fence. Open it in the event loop that uses it. It may be opened again after `close`.

    Args:
        store: the store that keeps the log.
        clock: the time of day. None: the store's, where it has one for all nodes, else this machine's.
        terms: the terms of leases.
        elapsed: the clock that leases are counted by.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], float] | None = None,
        terms: Terms | None = None,
        elapsed: Callable[[], float] = elapsed,
    ) -> None:
        """Take a store that is opened later."""
        self.store, self.terms, self.now = store, terms or Terms(), elapsed
        self.clock = clock or self._time_of_day
        self.node = self._new_node()
        self._ahead: float | None = None
        self._leases = True
        self._closed = False
        self._reading: asyncio.Task[None] | None = None
        self._next_read: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._polls: dict[Hashable, asyncio.Future[Answer]] = {}
        self._waiting: dict[Fence, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf
        self._sweeper: asyncio.TimerHandle | None = None
        self._unwatch: Callable[[], None] | None = None
        self._out_of_reach = self._has_lost = False

    @property
    def log(self) -> RevocationLog:
        """What has been revoked, as far as this process knows. Call `follow` first."""
        return self.node.log

    async def open(self, *, leases: bool = True) -> None:
        """Start by reading the log. Without `leases`, it reads the log for each request and has no row in the store:
        for a process that judges a request or two. Raises `Unavailable`.
        """
        self._leases = leases
        if self._closed or self.node.log_epoch:
            self.node = self._new_node()
        self._closed = False
        await self._read()

    def _new_node(self) -> Node:
        # A store that keeps nothing has a new first epoch in each life, and has lost nothing since that epoch began.
        return Node(self.terms, first_epoch=self.store.first_epoch)

    def dismiss(self) -> None:
        """Answer all polls without a lease, and grant no more leases: this process was asked to stop. Requests that are
        under way are still judged.
        """
        self.node.stop(self.now())
        self._carry_out()

    async def close(self) -> None:
        """Answer all polls, grant no more leases, and forget the row if no lease is left. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self.node.stop(self.now())
        self._carry_out()
        loop = asyncio.get_running_loop()
        until = loop.time() + STOPS_WITHIN
        while self._tasks and loop.time() < until:
            await asyncio.wait(self._tasks, timeout=until - loop.time(), return_when=asyncio.FIRST_COMPLETED)
        for task in [*self._tasks, self._reading, self._next_read]:
            if task is not None:
                task.cancel()
        for timer in (self._timer, self._sweeper):
            if timer is not None:
                timer.cancel()
        self._timer, self._rings_at, self._sweeper = None, math.inf, None
        self._reading = self._next_read = None
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(None)

    # Judging

    def is_current(self) -> bool:
        """Return whether this process knows enough to judge a request that starts now."""
        if self.is_behind():
            return False
        head = self.store.head()
        node = self.node
        if head is None:
            return node.leased(self.now())
        # A head that is ahead of the log is a commit under way. It counts as read only after its entry was read: the
        # number does not change when the entry arrives.
        return head[1] <= node.applied_seq and head[0] == node.log_epoch and not self._closed

    def is_behind(self) -> bool:
        """Return whether the store has begun another log that was not read here to its head. Ask again after a look-up:
        the answer to the look-up may report the new log.
        """
        node = self.node
        return not node.is_whole or self.store.newest_log > node.log_epoch

    async def follow(self) -> None:
        """Make sure that `log` is recent enough to judge a request that starts now. Raises `Unavailable`."""
        if self.is_current():
            return
        if self._closed:
            raise Unavailable("this process is stopping")
        if self._leases and self.store.head() is None:
            self.node.want_lease(self.now())
            self._carry_out()
        await self._read()

    async def catch_up(self) -> None:
        """Read the log to its end: what any node has committed before this call. Raises `Unavailable`."""
        await self._read()

    async def _read(self) -> None:
        """Read the log to its end, beginning after this call. Calls that arrive during a reading share the next one."""
        reading = self._next_read
        if reading is None:
            reading = self._next_read = asyncio.create_task(self._read_after(self._reading))
            reading.add_done_callback(_seen)
        # A caller that disconnects does not cancel the reading for the others.
        await asyncio.shield(reading)

    async def _read_after(self, before: asyncio.Task[None] | None) -> None:
        try:
            if before is not None and not before.done():
                # If the store failed the previous reading, it failed after this call began: no call waits for that
                # twice.
                await before
        finally:
            self._reading, self._next_read = self._next_read, None
        node = self.node
        while True:
            sent_at = self.now()
            answer = await self.store.read_log(node.log_epoch, node.applied_seq)
            now = self.now()
            self._see_time(answer, sent_at, now)
            self._see_loss(node, answer)
            self._refuse_older(answer.log_epoch)
            node.read(answer, now)
            node.see_time_of_day(self.clock())
            self._carry_out()
            if answer.upto >= answer.head:
                return

    def _refuse_older(self, log_epoch: int) -> None:
        """Take no lease from a server that was replaced, and judge by nothing it answers. Raises `Unavailable`."""
        if log_epoch < max(self.node.log_epoch, self.store.newest_log):
            raise Unavailable(
                "the store answered with an older log than before: the server was replaced, or restored from a backup"
            )

    # Fences

    async def nothing_left(self) -> Revoked:
        """Return what to fence on when nothing was left to revoke: the head of the log. The client that revoked it may
        have lost the answer, and its fence may still be pending. Raises `Unavailable`.
        """
        head = self.store.head()
        if head is None:
            await self._read()
            head = LogHead(self.node.log_epoch, self.node.applied_seq)
        rows = await self.store.node_rows()
        longest = max((row.lease_for for row in rows.rows), default=0.0)
        return Revoked(seq=head.seq, log_epoch=head.log_epoch, longest_lease=longest)

    async def fence(self, done: Revoked, *, wait: float | None) -> Fence:
        """Begin the fence of what a commit revoked, and wait for it. Returns it pending if the time was not enough:
        then ask `fenced`, and `due_in` for the seconds that are left at most. An unreachable store raises nothing: the
        fence is then confirmed when its maximum wait is over.

        Args:
            done: the result of the verb that revoked something.
            wait: seconds to wait at most. None waits as long as it can take: the maximum wait, which is a lease plus
                the clock margin.
        """
        if wait is None:
            terms = self.node.terms
            wait = terms.guarded(max(terms.lease_for, done.longest_lease)) + 1.0
        fence = self.node.fence(
            done.seq,
            done.log_epoch,
            self.now(),
            longest_lease=done.longest_lease,
            # Read in the commit, or after it: no row, no lease.
            alone=done.longest_lease == 0,
        )
        self._carry_out()
        try:
            if fence.state == "pending" and wait > 0 and not self._closed:
                settled = self._waiting[fence] = asyncio.get_running_loop().create_future()
                try:
                    await asyncio.wait([settled], timeout=wait)
                finally:
                    del self._waiting[fence]
        finally:
            # Also if the client disconnected: a fence that stays would read the other nodes' rows for the maximum wait.
            self.node.abandon(fence)
        if done.log_epoch < self.store.newest_log:  # it may lack the entry, though the node has not read that log yet
            fence.state = "lost"
        return fence

    # Followers

    async def poll(self, poll: Poll, *, credential: str) -> Answer:
        """Let a verifier follow: hold its `poll` open until there is an answer, for `wait_ms` at most. Cancellation
        means that the verifier disconnected. An answer without a lease says that this process cannot grant one now.

        Args:
            poll: what the verifier sent; it acknowledges the answer before it.
            credential: the name of the verifier key that it proved, for metrics and people.

        Raises:
            Nothing but `CancelledError`: while the store is out of reach, the answer has no lease.
        """
        key = object()
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._polls[key] = answered
        self.node.polled(key, poll, self.now(), credential=credential)
        self._carry_out()
        try:
            return await answered
        finally:
            if self._polls.pop(key, None) is not None:
                self.node.gone(key)

    def followers(self) -> list[Followed]:
        """Return the verifiers that follow at this process, for metrics and for people."""
        return [
            Followed(who.id, who.credential, acked_seq, left)
            for who, acked_seq, left in self.node.followers(self.now())
        ]

    # Carrying out what the node asks for

    def _carry_out(self) -> None:
        for action in self.node.take_actions():
            match action:
                case Ask():
                    self._do(self._put(self.node, action))
                case Answered(key, answer):
                    answered = self._polls.pop(key, None)
                    if answered is not None and not answered.done():
                        answered.set_result(answer)
                case Settled(fence):
                    waiting = self._waiting.get(fence)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(None)
        if self._closed:
            return
        if self.node.has_row != (self._unwatch is not None):
            self._attend()
        at = self.node.next_at
        if at < self._rings_at:  # a timer that rings too early does no harm
            self._ring_at(at)
        if self._sweeper is None and len(self.node.log):
            self._sweep_later()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _put(self, node: Node, ask: Ask) -> None:
        """Put a question to the store."""
        sent_at = self.now()
        try:
            answer = await self._answer_to(ask.question)
            if isinstance(answer, Renewed):
                self._see_loss(node, answer)
            if answer is not None:
                self._refuse_older(answer.log_epoch)
        except Unavailable as exc:
            self._note(out_of_reach=True, why=exc.reason)
            node.failed(ask.number, self.now())
        except Exception:  # noqa: BLE001 - it is logged, and the node goes on
            # A fault in this code or in the store. Either way the question has no answer, and nothing is granted
            # without one.
            if not self._out_of_reach:
                _log.exception("a question to the store failed")
            self._out_of_reach = True
            node.failed(ask.number, self.now())
        else:
            self._note(out_of_reach=False)
            now = self.now()
            if isinstance(answer, Renewed):
                self._see_time(answer, sent_at, now)
            node.answered(ask.number, answer, now)
            if isinstance(answer, Renewed):
                node.see_time_of_day(self.clock())
        if node is self.node:
            self._carry_out()

    async def _answer_to(self, question: Question) -> Renewed | Rows | None:
        match question:
            case ReadLog(log_epoch, after):
                return await self.store.read_log(log_epoch, after)
            case Renew(row, after):
                return await self.store.node_renew(row, after)
            case ReadRows():
                return await self.store.node_rows()
            case Register(row):
                await self.store.node_register(row)
            case Forget(id, stamp):
                await self.store.node_forget(id, stamp)
        return None

    def _note(self, *, out_of_reach: bool, why: str = "") -> None:
        if out_of_reach and not self._out_of_reach:
            _log.warning("the revocation log is out of reach: %s", why)
        elif self._out_of_reach and not out_of_reach:
            _log.warning("the revocation log is in reach again")
        self._out_of_reach = out_of_reach

    def _see_loss(self, node: Node, answer: Renewed) -> None:
        """Report when the store knows less than it answered before: a replica that lagged was promoted, or a backup was
        restored, and no operator declared it. Numbers are then given out again, and fences may be confirmed too soon.
        """
        lost = (answer.log_epoch, answer.head) < (node.log_epoch, node.applied_seq)
        if lost and not self._has_lost:
            _log.error("the store has lost revocations that it had acknowledged; run `dutchdoor restored` now")
        self._has_lost = lost
        if node.log_epoch and answer.log_epoch > node.log_epoch:
            _log.warning("revocation log %d begins: the store was restored, promoted or moved", answer.log_epoch)

    def _attend(self) -> None:
        """Get notified when the log grows, while a poll or a fence waits for it."""
        if self._unwatch is None:
            self._unwatch = self.store.watch(self._woken)
        else:
            self._unwatch()
            self._unwatch = None

    def _woken(self) -> None:
        head = self.store.head()
        if head is None or head != (self.node.log_epoch, self.node.applied_seq):
            self.node.woken(self.now())
            self._carry_out()

    def _ring_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # The loop's clock may stop while the machine sleeps. The node reads its own clock when it is called.
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - self.now()), self._ring)
        self._rings_at = at

    def _ring(self) -> None:
        self._timer, self._rings_at = None, math.inf
        self.node.tick(self.now())
        self._carry_out()

    def _sweep_later(self) -> None:
        often, seldom = SWEEP_EVERY
        every = often if len(self.node.log) > SWEEP else seldom
        self._sweeper = asyncio.get_running_loop().call_later(every, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        self.node.drop_expired(self.clock(), look_at=SWEEP)
        if len(self.node.log):
            self._sweep_later()

    # Time

    def _time_of_day(self) -> float:
        return time.time() if self._ahead is None else self._ahead + self.now()

    def _see_time(self, answer: Renewed, sent_at: float, now: float) -> None:
        """Follow the store's clock, if it has one. It was read between request and answer. The offset is changed only
        if it does not fit in that interval, so neither a slow answer nor a change of this machine's clock moves the
        time.
        """
        if answer.at is None:
            return
        least, most = answer.at - now, answer.at - sent_at
        if self._ahead is None:
            self._ahead = (least + most) / 2
        self._ahead = min(max(self._ahead, least), most)


def _seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # every caller that waited may have disconnected
