"""Calls the functions that an application gives: coroutine functions in the event loop, plain ones in threads.

A plain function may wait for a database, or compute a hash. In the event loop, every other request would wait for it.
Where the thread of a request waits for the event loop anyway, that thread is the `HOST`: the function finds its
database session there, and sees what the request's transaction has written.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias

from dutchdoor.errors import DutchdoorError, Unavailable

__all__ = ["HOST", "Calling", "Host", "asking", "is_coroutine_function", "is_own_thread"]

_NAME = "dutchdoor-application"

_log = logging.getLogger("dutchdoor")

Host: TypeAlias = Callable[[Callable[[], Any]], Awaitable[Any] | None]
"""Calls a function elsewhere, and returns what to await; None if it cannot any more."""

HOST: contextvars.ContextVar[Host | None] = contextvars.ContextVar("dutchdoor_host", default=None)
"""The thread that waits for what runs in this context."""


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Return whether a function, or an object that is called like one, returns a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def is_own_thread() -> bool:
    """Return whether this thread is one of ours, for functions of the application."""
    return threading.current_thread().name.startswith(_NAME)


class Calling:
    """Calls functions, with up to `threads` threads for plain ones. They start when they are needed. With `in_request`,
    a function that a request waits for runs in that request's thread.
    """

    def __init__(self, threads: int, *, in_request: bool = False) -> None:
        self._threads, self._in_request = threads, in_request
        self._pool: ThreadPoolExecutor | None = None
        self.around: Callable[[], AbstractContextManager[object]] = nullcontext
        """What a function runs in, such as the application context of Flask."""

    async def __call__(self, function: Callable[..., Any], *args: object) -> Any:
        """Call a function, and return its result. Raises what it raises."""
        if is_coroutine_function(function):
            with self.around():
                return await function(*args)
        host = HOST.get() if self._in_request else None
        hosted = None if host is None else host(lambda: self._run(function, args))
        if hosted is not None:
            result = await hosted
            return await result if inspect.isawaitable(result) else result
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=_NAME)
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._pool, lambda: context.run(self._run, function, args))
        return await result if inspect.isawaitable(result) else result  # such as that of a lambda

    def _run(self, function: Callable[..., Any], args: tuple[object, ...]) -> Any:
        with self.around():
            try:
                return function(*args)
            except StopIteration as error:
                # A `next()` that found nothing. No future can hold this one: its caller would wait for ever.
                raise RuntimeError("StopIteration").with_traceback(error.__traceback__) from None

    def close(self) -> None:
        """Let the threads end. The next call starts others."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Turn an exception of an application's function into `Unavailable`, and log where it was raised: no one signs in
    by it, and no one is signed out. `what` names the function.
    """
    try:
        yield
    except DutchdoorError:
        raise
    except Exception as exc:  # noqa: BLE001 - whatever it is
        # Not the text of the exception: a database's error quotes the statement with what the person typed.
        frames = traceback.extract_tb(exc.__traceback__)[-3:]
        where = " <- ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(frames))
        _log.error("%s failed: %s at %s", what, type(exc).__name__, where)
        raise Unavailable(f"{what} failed: {type(exc).__name__}") from None
