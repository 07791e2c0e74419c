"""A thread with an event loop for the work of fixtures: a test may have no loop, or a running one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from dutchdoor.guard.threads import Errands
from dutchdoor.services.calling import HOST

__all__ = ["EngineThread"]

T = TypeVar("T")

WAITS_FOR: Final = 30.0
"""The most seconds that a fixture waits for the engine."""


class EngineThread:
    """Runs coroutines one after another, for callers in any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dutchdoor-testing", daemon=True)
        self._thread.start()

    def is_current(self) -> bool:
        """Return whether the caller is in this thread."""
        return threading.current_thread() is self._thread

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of `work`, or raise its error. Functions of the application run in the thread of the test,
        which has its transaction.
        """
        errands = Errands()
        token = HOST.set(errands)
        try:
            waiting = asyncio.run_coroutine_threadsafe(work, self._loop)
        finally:
            HOST.reset(token)
        return errands.run_until(waiting, WAITS_FOR)

    def close(self) -> None:
        """End the thread."""
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAITS_FOR)
        self._loop.close()
