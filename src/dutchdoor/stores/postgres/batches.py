"""The queues for connections: look-ups that become one query, commits that become one transaction, other queries."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, Generic, TypeAlias, TypeVar

from dutchdoor.errors import Conflict, DutchdoorError, InvalidInput, Unavailable
from dutchdoor.model.accounts import Account
from dutchdoor.model.sessions import Session
from dutchdoor.stores.postgres.connection import Lane, Row
from dutchdoor.stores.postgres.rows import SESSIONS_WITH_ACCOUNT, read_session

__all__ = ["Batches", "Lookups", "Order", "Reads"]

_SLOW = 0.1
"""Seconds after which an answer is slow. From then on, the server is probed regularly and must answer within
`PROBE_FOR`: both together are less than the second that callers were promised.
"""
_BATCH_AT_MOST = 64
_WAITING_AT_MOST = 4096

T = TypeVar("T")
Future: TypeAlias = "asyncio.Future[T]"
Found: TypeAlias = "tuple[Session, Account] | None"
Order: TypeAlias = tuple[int, str]
"""The order of a job in its batch: jobs that share an account first, then those that write a session, then others."""


class Group:
    """Lanes, and the tasks that run on them. A caller waits for a future and may leave: nothing else is cancelled.

    With a `probe`, callers may wait for longer than a second. Once one has waited for a while, another connection
    checks that the server answers. If it does not, all callers get the failure.
    """

    def __init__(self, lanes: Sequence[Lane], answer_for: float, probe: Reads | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._lanes, self._answer_for, self._probe = lanes, answer_for, probe
        self._idle = list(lanes)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_due = False
        self._waiting: dict[Future[Any], float] = {}
        self._doubt: asyncio.TimerHandle | asyncio.Task[None] | None = None

    @property
    def busy(self) -> int:
        """Lanes at work."""
        return len(self._lanes) - len(self._idle)

    @property
    def waiting(self) -> int:
        """Calls that no lane has taken yet."""
        raise NotImplementedError

    async def _answer(self, future: Future[T]) -> T:
        """Wait for the answer of some lane, within the promised time."""
        deadline = self._loop.call_later(self._answer_for, _give_up, future)
        if self._probe is not None:
            self._waiting[future] = self._loop.time()
            if self._doubt is None:
                self._doubt = self._loop.call_later(_SLOW, self._look)
        try:
            return await future
        finally:
            deadline.cancel()
            self._waiting.pop(future, None)

    def _look(self) -> None:
        self._doubt = None
        if self._waiting:
            waited = self._loop.time() - next(iter(self._waiting.values()))  # the oldest is first
            if waited < _SLOW:
                self._doubt = self._loop.call_later(_SLOW - waited, self._look)
            else:
                self._doubt = self._loop.create_task(self._ask_whether_it_is_there())

    async def _ask_whether_it_is_there(self) -> None:
        assert self._probe is not None  # noqa: S101 - without a probe, no caller waits here
        try:
            await self._probe.fetch("SELECT 1")
        except Unavailable as exc:
            self.give_up(exc)
        else:
            for lane in self._lanes:
                if lane.was_left_behind:
                    lane.drop()
        self._doubt = self._loop.call_later(_SLOW, self._look)

    def give_up(self, why: Unavailable) -> None:
        """Report the failure to all callers, and wait for nothing."""
        for lane in self._lanes:
            lane.drop()
        _answer(list(self._waiting), why)

    def _soon(self) -> None:
        """Begin in the next turn of the loop, with all jobs that arrive in this one."""
        if self._idle and not self._is_due:
            self._is_due = True
            task = self._loop.create_task(self._run(self._idle.pop()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, lane: Lane) -> None:
        try:
            self._is_due = False
            while self._has_work():
                await self._work(lane)
        finally:
            self._idle.append(lane)

    def _recruit(self) -> None:
        """Let another lane take what is left, if there is any."""
        if self._has_work():
            self._soon()

    def _has_work(self) -> bool:
        return self.waiting > 0

    async def _work(self, lane: Lane) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        """Wait for what is under way, which finishes within its time limit."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._doubt is not None:
            self._doubt.cancel()
            if isinstance(self._doubt, asyncio.Task):
                await asyncio.wait([self._doubt])


class Lookups(Group):
    """Look-ups of sessions: all that wait when a lane is free become one query."""

    def __init__(self, lanes: Sequence[Lane], answer_for: float) -> None:
        super().__init__(lanes, answer_for)
        self._asked: dict[bytes, list[Future[Found]]] = {}
        self._deadline: asyncio.TimerHandle

    async def ask(self, key: bytes) -> Found:
        if not self._asked:
            self._deadline = self._loop.call_later(self._answer_for, _give_up_all, self._asked)
            self._soon()
        elif len(self._asked) >= _WAITING_AT_MOST:
            raise Unavailable("postgres: too many look-ups wait for the database")
        future: Future[Found] = self._loop.create_future()
        self._asked.setdefault(key, []).append(future)
        return await future

    @property
    def waiting(self) -> int:
        return len(self._asked)

    async def _work(self, lane: Lane) -> None:
        asked, self._asked = self._asked, {}
        deadline = self._deadline
        try:
            rows = await lane.fetch(SESSIONS_WITH_ACCOUNT, list(asked), within=self._answer_for)
        except DutchdoorError as exc:
            _answer(chain.from_iterable(asked.values()), exc)
        else:
            for row in rows:
                _answer(asked.pop(row[0]), read_session(row))
            _answer(chain.from_iterable(asked.values()), None)
        finally:
            deadline.cancel()


class Reads(Group):
    """Queries one by one."""

    def __init__(self, lanes: Sequence[Lane], answer_for: float, probe: Reads | None = None) -> None:
        super().__init__(lanes, answer_for, probe)
        self._asked: deque[tuple[Future[list[Row]], str, tuple[object, ...]]] = deque()

    async def fetch(self, sql: str, *values: object) -> list[Row]:
        if len(self._asked) >= _WAITING_AT_MOST:
            raise Unavailable("postgres: too many queries wait for the database")
        future: Future[list[Row]] = self._loop.create_future()
        self._asked.append((future, sql, values))
        self._soon()
        return await self._answer(future)

    @property
    def waiting(self) -> int:
        return len(self._asked)

    async def _work(self, lane: Lane) -> None:
        future, sql, values = self._asked.popleft()
        if future.done():
            return
        self._recruit()
        try:
            rows = await lane.fetch(sql, *values, within=self._answer_for)
        except DutchdoorError as exc:
            _answer([future], exc)
        else:
            _answer([future], rows)


class Job(Generic[T]):
    """One commit, or one attempt against limits, in the queue."""

    __slots__ = ("future", "order", "payload")

    def __init__(self, payload: bytes, order: Order | None, future: Future[T]) -> None:
        self.payload, self.order, self.future = payload, order, future


class Batches(Group, Generic[T]):
    """Jobs: all that wait when a lane is free become one transaction, except those that go alone.

    All processes put the jobs of a batch in the same order, so that two batches with the same rows do not deadlock. The
    jobs belong to different callers, which do not depend on each other: any order is right.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        answer_for: float,
        probe: Reads,
        sql: str,
        read: Callable[[Row], T | Conflict],
    ) -> None:
        super().__init__(lanes, answer_for, probe)
        self._sql, self._read = sql, read
        self._together: list[Job[T]] = []
        self._alone: deque[Job[T]] = deque()

    async def put(self, payload: bytes, order: Order | None) -> T:
        if self.waiting >= _WAITING_AT_MOST:
            raise Unavailable("postgres: too many commits wait for the database")
        future: Future[T] = self._loop.create_future()
        (self._alone if order is None else self._together).append(Job(payload, order, future))
        self._soon()
        return await self._answer(future)

    @property
    def waiting(self) -> int:
        return len(self._together) + len(self._alone)

    async def _work(self, lane: Lane) -> None:
        # A caller that gave up needs no service; after an outage there are many of them.
        if self._alone:
            batch = [self._alone.popleft()]
        else:
            batch = self._together[:_BATCH_AT_MOST]
            del self._together[:_BATCH_AT_MOST]
        batch = [job for job in batch if not job.future.done()]
        batch.sort(key=attrgetter("order"))
        if not batch:
            return
        self._recruit()
        try:
            await self._send(lane, batch)
        except (Conflict, InvalidInput) as exc:
            # Nothing of the batch was written. One job turned out to be impossible: the others must not suffer.
            if len(batch) == 1:
                _answer([batch[0].future], exc)
                return
            for job in batch:
                if not job.future.done():
                    try:
                        await self._send(lane, [job])
                    except DutchdoorError as its_own:
                        _answer([job.future], its_own)
        except DutchdoorError as exc:
            _answer([job.future for job in batch], exc)

    async def _send(self, lane: Lane, batch: Sequence[Job[T]]) -> None:
        payload = b"[" + b",".join([job.payload for job in batch]) + b"]"
        rows = await lane.fetch(self._sql, payload.decode(), within=self._answer_for)
        for job, row in zip(batch, rows, strict=True):
            _answer([job.future], self._read(row))


def _answer(futures: Iterable[Future[Any]], outcome: object) -> None:
    for future in futures:
        if future.done():  # cancelled, or the caller gave up
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _give_up(future: Future[Any]) -> None:
    _answer([future], Unavailable("postgres: no answer"))


def _give_up_all(asked: dict[bytes, list[Future[Found]]]) -> None:
    _answer(chain.from_iterable(asked.values()), Unavailable("postgres: no answer"))
