"""Waiting without blocking an event loop: slow work runs in a few threads that belong to the verifier."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from dutchdoor.errors import Unavailable

__all__ = ["Waiting", "in_a_thread", "in_event_loop"]

AT_ONCE: Final = 8
WAITING_AT_MOST: Final = 64
"""Requests that may wait for a thread. One more is refused with a time to retry: behind so many it would only
time out.
"""

_T = TypeVar("_T")


class Waiting:
    """Threads that wait for the authority, started when a request first has to wait."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="dutchdoor-verifier")
        self._waiting = 0

    async def for_(self, call: Callable[[], _T]) -> _T:
        """Run work in a thread, and return its result. Raises `Unavailable` when too many requests wait already."""
        if self._waiting >= WAITING_AT_MOST:
            raise Unavailable("too many requests wait for the authority")
        try:
            waiting = self._threads.submit(call)
        except RuntimeError:
            raise Unavailable("the verifier is closed") from None
        self._waiting += 1
        try:
            return await asyncio.wrap_future(waiting)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Wait for the threads to end: their connections have been cut."""
        self._threads.shutdown(wait=True)


async def in_a_thread(call: Callable[[], _T]) -> _T:
    """Run work in a new thread, which has ended when this returns."""
    with ThreadPoolExecutor(1, thread_name_prefix="dutchdoor-verifier") as thread:
        return await asyncio.wrap_future(thread.submit(call))


def in_event_loop() -> bool:
    """Whether this thread runs an event loop, which must not be blocked."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
