"""The threads that hash passwords: few, at a low priority, and with a bounded queue.

A password hash is expensive by design, so a client that can request one can spend our processor. Three bounds keep a
flood of log-ins from slowing all else. One thread for each core: hashing never runs on more than the cores. A lower
scheduling priority: the event loop runs first when both need the same core. A queue that refuses when full: memory and
waiting stay bounded, and an honest client learns at once when to retry.

Left out deliberately: processes instead of threads. Argon2id, scrypt, PBKDF2 and bcrypt all release the GIL.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from dutchdoor import errors

__all__ = ["HashingPool", "available_cores"]

T = TypeVar("T")

NICENESS = 5
"""How much lower the priority of hashing threads is, in steps of nice(2): beside a busy event loop they get a quarter
of the core. At 19 they would get a seventieth. The kernel may then preempt such a thread for another process while the
thread holds the GIL. The event loop would wait for the very thread it should run before."""

GIVES_BACK_AFTER = 0.5
"""Seconds without work after which memory goes back to the system. The C library keeps what hashes took, 19 MiB each,
and the next hash is a fifth faster with it: under load that counts, and without load the memory does."""

_TRIM: Callable[[int], int] | None = (
    getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
)
"""Of glibc. It gives back all that is free in the main heap, which `serve` lets all threads share."""

RETRY_AFTER = 2.0
"""The `retry_after` of a refused caller, in seconds: about the time a full queue of the default length takes to
drain.
"""


class HashingPool:
    """A bounded number of threads with a bounded queue.

    `workers` defaults to the cores this process may use. `queue` is how many pieces of work may wait besides those in
    progress; one more is refused. Threads start at the first use, so that a process may fork before it.

    Raises:
        Misconfigured: fewer than one worker, or a queue of negative length.
    """

    def __init__(self, *, workers: int | None = None, queue: int = 64) -> None:
        self.workers = available_cores() if workers is None else workers
        self.queue = queue
        if self.workers < 1 or queue < 0:
            raise errors.Misconfigured(f"A hashing pool cannot have {self.workers} workers and a queue of {queue}.")
        self._changed = threading.Condition()
        # In order of arrival. Not a queue.Queue: the work of a client that hangs up must be removed from the middle.
        # Otherwise a client that connects and hangs up in a loop would grow the queue without bound.
        self._waiting: dict[Future[Any], Callable[[], Any]] = {}
        self._busy = 0
        self._keeps_memory = False
        self._started = False
        self._closed = False

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` on a hashing thread and return what it returns, or raise what it raises.

        When the caller is cancelled, work that still waits is dropped. Work that has begun runs to its end and counts
        against the bound until then: a client that hangs up early gains no larger share.

        Raises:
            Unavailable: the queue is full, or the pool is closed; nothing was done.
        """
        return await asyncio.wrap_future(self._enter(work))

    @property
    def length(self) -> int:
        """Pieces of work in progress or waiting at this moment. A figure for metrics; do not base decisions on it."""
        return self._busy + len(self._waiting)

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Stop the threads. Waiting work is refused, and begun work runs to its end. Closing again changes nothing."""
        with self._changed:
            self._closed = True
            refused = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        for future in refused:
            if future.set_running_or_notify_cancel():
                future.set_exception(_closed())

    def _enter(self, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise _closed()
            if self._busy + len(self._waiting) >= self.workers + self.queue:
                raise errors.Unavailable("the password hashing queue is full", retry_after=RETRY_AFTER)
            self._start()
            self._waiting[future] = work
            self._changed.notify()
        future.add_done_callback(self._forget)
        return future

    def _start(self) -> None:
        if not self._started:
            self._started = True
            for number in range(self.workers):
                # Daemons: the process exits without waiting for a hash.
                threading.Thread(target=self._serve, name=f"dutchdoor-hashing-{number}", daemon=True).start()

    def _forget(self, future: Future[Any]) -> None:
        with self._changed:
            self._waiting.pop(future, None)

    def _serve(self) -> None:
        _stand_back()
        while True:
            if not self._wait_for_work():
                _give_back_memory()
                continue
            with self._changed:
                if self._closed:
                    return
                future = next(iter(self._waiting), None)
                if future is None:  # another thread took it
                    continue
                work = self._waiting.pop(future)
                if not future.set_running_or_notify_cancel():
                    continue
                self._busy += 1
            _carry_out(work, future, self._leave)
            # A thread that waits for work must not keep the last password in memory.
            del work, future

    def _wait_for_work(self) -> bool:
        """Wait for work or the end. Return False when there was none for a while, once after each piece of work."""
        with self._changed:
            while not (self._waiting or self._closed):
                patience = GIVES_BACK_AFTER if self._keeps_memory else None
                if not self._changed.wait(patience) and self._keeps_memory and not self._busy:
                    self._keeps_memory = False
                    return False
        return True

    def _leave(self) -> None:
        with self._changed:
            self._busy -= 1
            self._keeps_memory = True


def available_cores() -> int:
    """The number of cores this process may use: in a container or under taskset(1), fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _carry_out(work: Callable[[], T], future: Future[T], leave: Callable[[], None]) -> None:
    # The place is freed before the caller gets the result, so that a caller who retries at once finds it free.
    try:
        result = work()
    except BaseException as exc:  # noqa: BLE001 - whatever it is, the caller is the one to know
        leave()
        future.set_exception(exc)
    else:
        leave()
        future.set_result(result)


def _give_back_memory() -> None:
    if _TRIM is not None:
        _TRIM(0)


def _closed() -> errors.Unavailable:
    return errors.Unavailable("the password hashing threads are closed", retry_after=RETRY_AFTER)


def _stand_back() -> None:
    # On Linux a nice value belongs to the thread. Elsewhere it belongs to the process, and the event loop with it.
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)
