"""Calls the functions that an application gives: coroutine functions in the event loop, plain ones in threads.

A plain function may wait for a database, or compute a hash. In the event loop, every other request would wait for it.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

__all__ = ["Calling", "is_coroutine_function"]


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Return whether a function, or an object that is called like one, returns a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


class Calling:
    """Calls functions, with up to `threads` threads for plain ones. They start when they are needed."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self.around: Callable[[], AbstractContextManager[object]] = nullcontext
        """What a function runs in, such as the application context of Flask."""

    async def __call__(self, function: Callable[..., Any], *args: object) -> Any:
        """Call a function, and return its result. Raises what it raises."""
        if is_coroutine_function(function):
            with self.around():
                return await function(*args)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="dutchdoor-application")
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._pool, lambda: context.run(self._run, function, args))
        return await result if inspect.isawaitable(result) else result  # such as that of a lambda

    def _run(self, function: Callable[..., Any], args: tuple[object, ...]) -> Any:
        with self.around():
            return function(*args)

    def close(self) -> None:
        """Let the threads end. The next call starts others."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None
