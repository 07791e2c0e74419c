"""The threads passwords are hashed on: few, slow to be given the processor, and never behind an endless queue.

A password hash is made to be expensive, so whoever can ask for one can spend our processor. Three bounds keep a flood
of log-ins from reaching anything else: one thread for each core, so that hashing never has more than the cores; a
lower scheduling priority, so that the event loop runs first when both want the same core; and a queue that refuses
when full, so that memory and waiting time stay bounded and an honest client learns at once when to come back.

Left out deliberately: processes instead of threads. Argon2id, scrypt, PBKDF2 and bcrypt release the GIL.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from dutchdoor import errors

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HashingPool", "available_cores"]

T = TypeVar("T")

NICENESS = 5
"""How much the hashing threads give way, in the steps of nice(2). See `_give_way` for why it is not 19."""

RETRY_AFTER = 2.0
"""Seconds a refused caller is told to wait: about what a full queue of the default length takes to drain."""


class HashingPool:
    """A bounded number of threads with a bounded queue in front.

    `workers` defaults to the cores this process may use. `queue` is how many pieces of work may wait besides those
    being done; the one after that is refused.
    """

    def __init__(self, *, workers: int | None = None, queue: int = 64) -> None:
        self.workers = available_cores() if workers is None else workers
        if self.workers < 1 or queue < 0:
            raise errors.Misconfigured(f"a hashing pool of {workers} workers and a queue of {queue}")
        self._room = self.workers + queue
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(self.workers, "dutchdoor-hashing", initializer=_give_way)

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` on a hashing thread and return what it returns, or raise what it raises.

        When the caller is cancelled while waiting, the work is dropped; once begun, it ends and its place is freed
        then, so that a client who connects and hangs up again and again gains nothing.

        Raises:
            Unavailable: the queue is full, or the pool is closed.
        """
        return await asyncio.wrap_future(self._submit(work))

    def close(self) -> None:
        """Let go of the threads. What waits is dropped, what has begun ends."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        with self._lock:
            if self._room == 0:
                raise errors.Unavailable("the password hashing queue is full", retry_after=RETRY_AFTER)
            self._room -= 1
        try:
            future = self._threads.submit(work)
        except RuntimeError as exc:
            self._leave(None)
            raise errors.Unavailable("the password hashing threads are closed", retry_after=RETRY_AFTER) from exc
        future.add_done_callback(self._leave)
        return future

    def _leave(self, _: Future[T] | None) -> None:
        with self._lock:
            self._room += 1


def available_cores() -> int:
    """The cores this process may use, which in a container or under taskset(1) are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _give_way() -> None:
    # On Linux a nice value belongs to the thread. Elsewhere it belongs to the process, and lowering that would slow
    # the event loop as well. The value is moderate: a thread that is hardly ever scheduled may be holding the GIL when
    # it is set aside, and then the event loop waits for the very thread it was meant to overtake.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
