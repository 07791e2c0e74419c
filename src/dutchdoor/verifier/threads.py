"""Waiting without keeping an event loop waiting: what takes time runs in a few threads of a verifier's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from dutchdoor.errors import Unavailable

__all__ = ["Waiting", "in_a_thread", "in_event_loop"]

AT_ONCE: Final = 8
WAITING_AT_MOST: Final = 64
"""Requests that wait for a thread. One more is told to come again: behind so many it would only run out of time."""

_T = TypeVar("_T")


class Waiting:
    """Threads that wait for others, made when the first has to."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="dutchdoor-verifier")
        self._waiting = 0

    async def for_(self, call: Callable[[], _T]) -> _T:
        """Run in a thread, and give what it gives. Raises `Unavailable` when too many wait already."""
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
        """Wait for the threads to end: what they wait for has been cut."""
        self._threads.shutdown(wait=True)


async def in_a_thread(call: Callable[[], _T]) -> _T:
    """Run in a thread of its own, which has ended when this returns."""
    with ThreadPoolExecutor(1, thread_name_prefix="dutchdoor-verifier") as thread:
        return await asyncio.wrap_future(thread.submit(call))


def in_event_loop() -> bool:
    """Whether this thread runs an event loop, which must not be kept waiting."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
