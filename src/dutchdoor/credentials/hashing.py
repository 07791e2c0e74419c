"""The threads passwords are hashed on: few, last in line for the processor, and never behind an endless queue.

A password hash is made to be expensive, so whoever can ask for one can spend our processor. Three bounds keep a flood
of log-ins from reaching anything else: one thread for each core, so that hashing never has more than the cores; a
lower scheduling priority, so that the event loop runs first when both want the same core; and a queue that refuses
when full, so that memory and waiting stay bounded and an honest client learns at once when to come back.

Left out deliberately: processes instead of threads. Argon2id, scrypt, PBKDF2 and bcrypt all release the GIL.
"""

from __future__ import annotations

import asyncio
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
"""How far the hashing threads stand back, in the steps of nice(2): against a busy event loop they keep a quarter of the
core. At 19 they would keep a seventieth, and a thread that is hardly ever scheduled may hold the GIL when it is set
aside for another process: then the event loop waits for the very thread it was meant to overtake."""

RETRY_AFTER = 2.0
"""Seconds a refused caller is told to wait: about what a full queue of the default length takes to drain."""


class HashingPool:
    """A bounded number of threads with a bounded queue in front.

    `workers` defaults to the cores this process may use. `queue` is how many pieces of work may wait besides those
    being done; the one after that is refused. Threads start at the first use, so that a process may fork before it.

    Raises:
        Misconfigured: fewer than one worker, or a queue of negative length.
    """

    def __init__(self, *, workers: int | None = None, queue: int = 64) -> None:
        self.workers = available_cores() if workers is None else workers
        self.queue = queue
        if self.workers < 1 or queue < 0:
            raise errors.Misconfigured(f"A hashing pool cannot have {self.workers} workers and a queue of {queue}.")
        self._changed = threading.Condition()
        # In the order they came. Not a queue.Queue: a caller who hangs up must vanish from the middle of it, or a
        # client that connects and hangs up in a loop would grow it without bound.
        self._waiting: dict[Future[Any], Callable[[], Any]] = {}
        self._busy = 0
        self._started = False
        self._closed = False

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` on a hashing thread and return what it returns, or raise what it raises.

        When the caller is cancelled, work that still waits is dropped. Work that has begun goes on to its end and keeps
        its place until then, so that hanging up early buys nobody more than their share.

        Raises:
            Unavailable: the queue is full, or the pool is closed; nothing was done.
        """
        return await asyncio.wrap_future(self._enter(work))

    @property
    def length(self) -> int:
        """Pieces of work being done or waiting, at this moment: a figure to watch, and nothing to decide by."""
        return self._busy + len(self._waiting)

    def close(self) -> None:
        """Let the threads go. What waits is refused, what has begun ends. Closing again changes nothing."""
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
                # Daemons: leaving the process waits for nobody's password.
                threading.Thread(target=self._serve, name=f"dutchdoor-hashing-{number}", daemon=True).start()

    def _forget(self, future: Future[Any]) -> None:
        with self._changed:
            self._waiting.pop(future, None)

    def _serve(self) -> None:
        _stand_back()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                future = next(iter(self._waiting))
                work = self._waiting.pop(future)
                if not future.set_running_or_notify_cancel():
                    continue
                self._busy += 1
            _carry_out(work, future, self._leave)
            # A thread that waits for its next work must not hold the last one's password.
            del work, future

    def _leave(self) -> None:
        with self._changed:
            self._busy -= 1


def available_cores() -> int:
    """The cores this process may use, which in a container or under taskset(1) are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _carry_out(work: Callable[[], T], future: Future[T], leave: Callable[[], None]) -> None:
    # The place is freed before the caller is told: one who comes back at once finds it free.
    try:
        result = work()
    except BaseException as exc:  # noqa: BLE001 - whatever it is, the caller is the one to know
        leave()
        future.set_exception(exc)
    else:
        leave()
        future.set_result(result)


def _closed() -> errors.Unavailable:
    return errors.Unavailable("the password hashing threads are closed", retry_after=RETRY_AFTER)


def _stand_back() -> None:
    # On Linux a nice value belongs to the thread. Elsewhere it belongs to the process, and the event loop with it.
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)
