"""The gate of a process without an event loop: Flask, Django, WSGI.

One thread runs the engine's event loop. It starts at the first request and not before, so a server may fork after it
has loaded the application. Most requests never enter it: who sends them is known from memory, in the request's own
thread.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # first: what it registers for the end of the process must run after ours
import os
import queue
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from dutchdoor.errors import DutchdoorError, Misconfigured, Unavailable
from dutchdoor.guard.gates import Gate, Known, Verifying
from dutchdoor.guard.unloaded import STORED
from dutchdoor.model.session_data import SessionData
from dutchdoor.services.calling import HOST
from dutchdoor.web.http import Header, Request

__all__ = ["Errands", "SyncGate"]

T = TypeVar("T")

WAITS_FOR: Final = 30.0
"""The most seconds that a request waits for the engine's thread."""
STOPS_WITHIN: Final = 5.0
"""Seconds that the end of the process waits for the engine to close."""


class SyncGate:
    """A gate for threads. `make` creates the gate of this process, and again that of each forked child."""

    def __init__(self, make: Callable[[], Gate]) -> None:
        self._make, self._lock = make, threading.Lock()
        self._gate = make()  # a wrong setting is an error here, not at the first request
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._is_open = False
        _alive.add(self)

    @property
    def gate(self) -> Gate:
        """The gate of this process."""
        return self._gate

    def identify(self, asked: Request, csrf_field: str | None) -> Known | None:
        """Return who sent a request; None if it carries no proof. Raises what `Auth.principal` raises."""
        found, known = self.identify_at_once(asked, csrf_field)
        if found:
            return known
        return self.run(self._gate.identify(asked, websocket=False, csrf_field=csrf_field))

    def identify_at_once(self, asked: Request, csrf_field: str | None) -> tuple[bool, Known | None]:
        """Do what `identify` does without waiting. (False, None) if it has to wait."""
        gate = self._gate
        if self._is_open or gate.application is None:
            return gate.identify_at_once(asked, csrf_field=csrf_field)
        return False, None

    def user(self, known: Known) -> Any:
        """Return the user behind a proof. Raises `NotAuthenticated` if there is none any more, and `Unavailable`."""
        gate = self._gate
        user = gate.user_at_once(known)
        return self.run(gate.user(known)) if user is None else user

    def check(self, known: Known) -> None:
        """Check a proof once more, mostly from memory. Raises what `identify` raises."""
        gate = self._gate
        if not gate.check_at_once(known):
            self.run(gate.check(known))

    def session_data(self, asked: Request, known: Known | None) -> SessionData:
        """Return the data of the caller's session, or of the visitor whose cookie a request carries. Raises
        `Misconfigured` in a service that only verifies, and `Unavailable`.
        """
        gate = self._gate
        if gate.application is None:
            gate.unloaded.refuse()
        return self.run(gate.session_data(asked, known))

    def save(self, asked: Request, data: SessionData) -> list[Header]:
        """Store what a request changed, once. Returns the headers for its response. Raises what `Gate.save` raises."""
        try:
            return self.run(self._gate.save(asked, data))
        finally:
            data.close(STORED)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the engine's thread, and return its result.

        Raises:
            Unavailable: it took too long, or the process is ending.
            Misconfigured: this is the engine's thread, which would wait for itself.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise Misconfigured(
                "A hook runs in the engine's thread, and cannot wait for it. Await dutchdoor.Auth there."
            )
        errands = Errands()
        token = HOST.set(errands)
        try:
            waiting = self.begin(work)
        finally:
            HOST.reset(token)
        try:
            return errands.run_until(waiting, WAITS_FOR)
        except TimeoutError:
            waiting.cancel()
            raise Unavailable("the engine's thread is busy") from None

    def begin(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run `work` in the engine's thread, for a caller with an event loop of its own, who awaits the future."""
        return asyncio.run_coroutine_threadsafe(self._opened(work), self._running())

    async def _opened(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            if not self._is_open:
                await self._gate.open()
                self._is_open = True
        except DutchdoorError:
            work.close()
            raise
        return await work

    def _running(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is not None:
            return loop
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                # A daemon: it must not keep a process alive whose server has stopped. `close` runs at its exit.
                self._thread = threading.Thread(target=_serve, args=(loop,), name="dutchdoor", daemon=True)
                self._thread.start()
                self._loop = loop
            return self._loop

    def close(self) -> None:
        """Close the engine, and end its thread. Idempotent."""
        with self._lock:
            loop, self._loop = self._loop, None
        if isinstance(self._gate, Verifying):
            self._gate.verifier.close()  # it needs no loop
        if loop is None:
            return
        closing = asyncio.run_coroutine_threadsafe(self._gate.close(), loop)
        try:
            closing.result(STOPS_WITHIN)
        except (TimeoutError, DutchdoorError):
            closing.cancel()
        self._is_open = False
        loop.call_soon_threadsafe(loop.stop)

    def _forked(self) -> None:
        """Runs in the child of a fork. The parent's thread, its loop and its connections are not there."""
        self._lock = threading.Lock()
        if self._loop is not None or self._is_open:
            self._loop, self._is_open = None, False
            self._gate = self._make()


class Errands:
    """What the engine asks the thread to do that waits for it: to call functions of the application."""

    def __init__(self) -> None:
        self._given: queue.SimpleQueue[tuple[Callable[[], Any], concurrent.futures.Future[Any]] | None]
        self._given = queue.SimpleQueue()
        self._lock, self._is_over = threading.Lock(), False

    def __call__(self, function: Callable[[], Any]) -> Awaitable[Any] | None:
        """Take a function, in the engine's thread. None if no thread waits any more."""
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()
        with self._lock:
            if self._is_over:  # what runs in the background began with this request, and outlives it
                return None
            self._given.put((function, done))
        return asyncio.wrap_future(done)

    def run_until(self, waiting: concurrent.futures.Future[T], seconds: float) -> T:
        """Call functions until the result is there. Raises `TimeoutError`, and what the engine raises."""
        waiting.add_done_callback(lambda _: self._given.put(None))
        until = time.monotonic() + seconds
        try:
            while True:
                given = self._given.get(timeout=max(0.0, until - time.monotonic()))
                if given is None:
                    return waiting.result()
                function, done = given
                if done.set_running_or_notify_cancel():
                    try:
                        done.set_result(function())
                    except BaseException as error:  # noqa: BLE001 - it is raised where the function was called
                        done.set_exception(error)
        except queue.Empty:
            raise TimeoutError from None
        finally:
            self._end()

    def _end(self) -> None:
        with self._lock:
            self._is_over = True
        while True:
            try:
                given = self._given.get_nowait()
            except queue.Empty:
                return
            if given is not None and given[1].set_running_or_notify_cancel():
                given[1].set_exception(Unavailable("the request does not wait any more"))


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


_alive: weakref.WeakSet[SyncGate] = weakref.WeakSet()


def _close_all() -> None:
    for gate in tuple(_alive):
        gate.close()


def _after_fork() -> None:
    for gate in tuple(_alive):
        gate._forked()  # noqa: SLF001 - the class registers itself here


# Before the standard library refuses work to its pools of threads, which the store needs to close: that is earlier than
# `atexit`.
getattr(threading, "_register_atexit", atexit.register)(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
