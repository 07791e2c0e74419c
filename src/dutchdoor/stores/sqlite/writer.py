"""The one thread of a process that writes. It commits everything in its queue as one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeAlias, TypeVar

from dutchdoor.errors import Conflict, Unavailable
from dutchdoor.stores.sqlite.file import connect, patiently, unavailable
from dutchdoor.stores.sqlite.head import Head
from dutchdoor.stores.sqlite.records import Tables

__all__ = ["Apply", "Job", "Transaction", "Writer"]

_LOCK_FOR = 5.0
"""Seconds that a commit waits for another process that writes. A slow disk's flush is not an outage."""
_QUEUE_AT_MOST = 4096
_BATCH_AT_MOST = 512

T = TypeVar("T")
Apply: TypeAlias = "Callable[[Transaction], T]"


class Job(Generic[T]):
    """One commit that waits for the writer, and the caller that waits for it."""

    __slots__ = ("apply", "atomic", "durable", "future", "loop")

    def __init__(self, apply: Apply[T], *, atomic: bool, durable: bool) -> None:
        self.apply = apply
        self.atomic = atomic
        """Whether `apply` leaves nothing behind when it raises, so that it needs no savepoint."""
        self.durable = durable
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()


class Transaction:
    """What a job is applied in: the writer's connection under the write lock, and where the logs end."""

    __slots__ = ("audited", "connection", "execute", "log_epoch", "seq", "tables")

    def __init__(self, connection: sqlite3.Connection, tables: Tables) -> None:
        self.connection, self.tables = connection, tables
        self.execute = connection.execute
        self.log_epoch: int
        self.seq: int
        self.audited: int
        sql = "SELECT epoch, seq, audited FROM revocation_log"
        self.log_epoch, self.seq, self.audited = connection.execute(sql).fetchone()


class Writer:
    """The one thread of this process that writes."""

    def __init__(self, path: Path, tables: Tables, head: Head, grown: Callable[[], None]) -> None:
        self._path, self._tables = path, tables
        self._head, self._grown = head, grown
        self._queue: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._synchronous = ""
        self.answers = True
        """False from when a caller waited in vain until the next commit."""
        self._thread = threading.Thread(target=self._run, name="dutchdoor-sqlite-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return self._queue.qsize()

    def put(self, job: Job[Any]) -> None:
        """Queue a job. Raises `Unavailable` when more jobs wait than the disk can keep up with."""
        if self._queue.qsize() >= _QUEUE_AT_MOST:
            raise Unavailable("sqlite: too many commits wait for the disk")
        self._queue.put(job)

    def give_up(self, future: asyncio.Future[Any]) -> None:
        """Report to a caller that it need not wait any longer."""
        if not future.done():
            self.answers = False
            future.set_exception(Unavailable("sqlite: the disk does not answer, or another process holds the lock"))

    def close(self) -> None:
        """Write what is queued, and exit."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            batch, closing = self._next()
            if batch:
                try:
                    outcomes = self._commit(batch)
                except Exception as exc:  # noqa: BLE001 - if the thread died here, every later caller would wait
                    self.answers = False
                    self._disconnect()
                    outcomes = [unavailable(exc)] * len(batch)
                _answer(batch, outcomes)
        self._disconnect()

    def _next(self) -> tuple[list[Job[Any]], bool]:
        """Wait for a job, and return it with all that are queued behind it; and whether the end was reached."""
        batch: list[Job[Any]] = []
        job = self._queue.get()
        with contextlib.suppress(Empty):
            while job is not None:
                # A caller that gave up needs no service; after an outage there are many of them.
                if not job.future.done():
                    batch.append(job)
                if len(batch) == _BATCH_AT_MOST:
                    break
                job = self._queue.get_nowait()
        return batch, job is None

    def _commit(self, batch: list[Job[Any]]) -> list[object]:
        """Apply jobs in one transaction; return what each returned or raised. If this raises, none of them happened."""
        if self._connection is None:
            self._connection, self._synchronous = connect(self._path, wait=0), "FULL"
        connection = self._connection
        # FULL flushes the log at every commit, NORMAL only before a checkpoint; a later FULL flushes what NORMAL left.
        synchronous = "FULL" if any(job.durable for job in batch) else "NORMAL"
        if synchronous != self._synchronous:
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            self._synchronous = synchronous
        _begin(connection)
        transaction = Transaction(connection, self._tables)
        before, audited = (transaction.log_epoch, transaction.seq), transaction.audited
        outcomes = [_attempt(job, transaction) for job in batch]
        after = transaction.log_epoch, transaction.seq
        if after != before or transaction.audited != audited:
            connection.execute(
                "UPDATE revocation_log SET epoch = ?, seq = ?, audited = ?", (*after, transaction.audited)
            )
        if after != before:
            self._head.words[0], self._head.words[1] = after
        connection.execute("COMMIT")
        self.answers = True
        if after != before:
            self._grown()
        return outcomes

    def _disconnect(self) -> None:
        """Close the connection, which rolls back what it had begun: whatever its state, a new one has none."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _begin(connection: sqlite3.Connection) -> None:
    """Take the write lock. SQLite's own waiting backs off to 100 ms, and starves one of several busy processes."""
    patiently(connection, "BEGIN IMMEDIATE", _LOCK_FOR)


def _attempt(job: Job[Any], transaction: Transaction) -> object:
    """Apply a job, or leave no trace of it. Raises only what undoes the whole transaction: a disk that fails."""
    if job.future.done():  # its caller gave up while it waited for the lock
        return None
    log_epoch, seq = transaction.log_epoch, transaction.seq
    if not job.atomic:
        transaction.execute("SAVEPOINT job")
    outcome: object
    try:
        outcome = job.apply(transaction)
    except sqlite3.IntegrityError as exc:
        outcome = Conflict(str(exc))
    except sqlite3.OperationalError:
        raise
    except Exception as exc:  # noqa: BLE001 - one caller's bad value must not undo the commits of others
        outcome = exc
    else:
        if not job.atomic:
            transaction.execute("RELEASE job")
        return outcome
    transaction.log_epoch, transaction.seq = log_epoch, seq
    if not job.atomic:
        transaction.execute("ROLLBACK TO job")
        transaction.execute("RELEASE job")
    return outcome


def _answer(batch: Sequence[Job[Any]], outcomes: Sequence[object]) -> None:
    """Report to every loop the results of its jobs, with one wake-up per loop and not one per job."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], object]]] = {}
    for job, outcome in zip(batch, outcomes, strict=True):
        by_loop.setdefault(job.loop, []).append((job.future, outcome))
    for loop, answers in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed: no caller is left
            loop.call_soon_threadsafe(_resolve, answers)


def _resolve(answers: list[tuple[asyncio.Future[Any], object]]) -> None:
    for future, outcome in answers:
        if future.done():  # cancelled, or the caller gave up
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
