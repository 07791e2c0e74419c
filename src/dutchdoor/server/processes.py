"""The processes that serve: one, or a parent with several workers that it replaces when they end.

A process stops only after the proxy in front had the time to notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import time
from collections.abc import Callable, Generator
from typing import ClassVar

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from dutchdoor.web.health import Readiness

__all__ = ["Node", "One", "Several"]

WORKERS_READY_FOR = 60.0
WORKER_AGAIN_AFTER = 5.0
"""Seconds until a worker that could not start is replaced. The other workers serve in the meantime."""
WORKER_SAYS_WITHIN = 15.0
"""Seconds in which a running worker answers that it is ready, even on a busy machine."""
_TICK = 0.1
"""Seconds between two calls of `on_tick` during a handover, as in uvicorn, which updates the Date header by them."""

log = logging.getLogger("dutchdoor")


class Node(uvicorn.Server):
    """A server that stops only after the proxy in front had the time to notice."""

    readiness: ClassVar[Readiness]
    handover_for: ClassVar[float] = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.readiness.hold(self.handover_for)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.readiness.hold(math.inf)
        # A proxy must not send its next request on a connection that is about to be closed.
        self.config.encoded_headers.append((b"connection", b"close"))
        for tick in range(int(self.handover_for / _TICK)):
            await self.on_tick(tick)
            if self.force_exit:
                self.force_exit = False  # one more signal ends the requests too
                break
            await asyncio.sleep(_TICK)
        await super().shutdown(sockets)


class One(Node):
    """A server in this process."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    def run_on(self, listener: socket.socket) -> int:
        try:
            self.run([listener])
        except SystemExit as exc:
            return 1 if exc.code else 0
        return 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # As in uvicorn, but the signal is not raised again at the end: a requested stop exits with 0.
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, action in before.items():
                signal.signal(number, action)


class Worker(Process):
    """One of several server processes."""

    @property
    def server(self) -> uvicorn.Server:
        if self._server is None:
            self._server = Node(self.config)
        return self._server


class Several(Multiprocess):
    """The parent of several server processes."""

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        ready: Callable[[], None],
        *,
        reload: Callable[[], Callable[[], ASGIApp]] | None,
        forget: Callable[[int | None], None],
    ) -> None:
        """`ready` is called once that every worker is. `reload` reads the settings again, and returns what makes the
        application of workers to come; None if SIGHUP ends the server. `forget` is given the id of each dead worker.
        """
        super().__init__(config, [listener])
        self._ready, self._reload, self._forget = ready, reload, forget
        self._failed = False
        self._again_at = 0.0

    def handle_hup(self) -> None:
        """Read the settings again, here for workers to come, and in each worker."""
        if self._reload is None:
            self.should_exit.set()
            return
        self.config.app = self._reload()
        for process in self.processes:
            if process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGHUP)

    def run_all(self) -> int:
        self.run()
        return 1 if self._failed else 0

    def init_processes(self) -> None:
        self.processes = [self._another() for _ in range(self.processes_num)]
        waiting = list(self.processes)
        for _ in range(int(WORKERS_READY_FOR / 0.05)):
            self.handle_signals()
            waiting = [process for process in waiting if not (process.process.is_alive() and process.is_ready(0.5))]
            if self.should_exit.is_set():
                return
            if not waiting:
                self._ready()
                return
            if any(process.exitcode is not None for process in waiting):
                break
            self.should_exit.wait(0.05)
        log.error("stopping: not every worker process became ready")
        self._failed = True
        self.should_exit.set()

    def keep_subprocess_alive(self) -> None:
        """Replace each worker that ended or does not answer, and log it."""
        for index, process in enumerate(self.processes):
            if self.should_exit.is_set() or time.monotonic() < self._again_at:
                return
            if process.is_alive(self.config.timeout_worker_healthcheck):
                continue
            hangs = process.exitcode is None
            process.kill()
            process.join()
            self._forget(process.pid)
            if process.exitcode == STARTUP_FAILURE:
                # All workers started once, so the missing part, most likely the database, will come back; the running
                # workers can wait for it. Without a running worker, the parent exits, so that clients do not connect
                # to a dead port.
                if not any(each.exitcode is None and each.is_ready(WORKER_SAYS_WITHIN) for each in self.processes):
                    self._failed = True
                    self.should_exit.set()
                    return
                self._again_at = time.monotonic() + WORKER_AGAIN_AFTER
                log.warning("a worker process could not start; starting it again, the others keep serving")
            else:
                how = "did not answer" if hangs else _ending(process.exitcode)
                log.warning("worker process %d %s; starting another", process.pid, how)
            self.processes[index] = self._another()

    def _another(self) -> Process:
        process = Worker(self.config, self.sockets)
        process.start()
        return process


def _ending(exitcode: int | None) -> str:
    """Say how a process ended: `was ended by SIGKILL`, `exited with 3`."""
    if exitcode is not None and exitcode < 0:
        return f"was ended by {signal.Signals(-exitcode).name}"
    return f"exited with {exitcode}"
