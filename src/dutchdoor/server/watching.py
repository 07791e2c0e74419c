"""What a node looks at every few seconds, whether requests come or not: the audit log, and its own state.

The audit log records what every process did, commands included. One process of a node follows it: the one that holds a
lock on a file. The file has the cursor, so that another process continues there when the first one ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from dutchdoor.auth import Auth
from dutchdoor.errors import Unavailable
from dutchdoor.model.acting import COMMAND
from dutchdoor.model.audit_events import AuditCursor, AuditEvent
from dutchdoor.server.instrumentation import log_event

__all__ = ["LOOK_EVERY", "Watch", "log_foreign"]

LOOK_EVERY: Final = 2.0
"""Seconds between two looks."""
PAGE: Final = 500
_CURSOR_AT_MOST: Final = 256

log = logging.getLogger("dutchdoor")


def log_foreign(event: AuditEvent) -> None:
    """Write the line of an event that no server process wrote a line for: of a command, and of a promotion."""
    if event.actor == COMMAND or event.name == "log_begun":
        log_event(event)


class Watch:
    """The looks of one process.

    Args:
        auth: what to watch. It must be open before `begin`.
        happened: called with each audit event that is committed from now on, in the process that follows.
        looks: called one after the other at each look.
        place: the file that the processes of this node share; None for the only process.
    """

    def __init__(
        self,
        auth: Auth,
        *,
        happened: Sequence[Callable[[AuditEvent], None]],
        looks: Sequence[Callable[[Auth], Awaitable[None]]] = (),
        place: Path | None = None,
    ) -> None:
        self._auth, self._happened, self._looks, self._place = auth, happened, looks, place
        self._file: int | None = None
        self._cursor: AuditCursor | None = None
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Begin where the audit log ends now, unless another process of this node follows it already."""
        await self._lead()
        await self._look_safely()  # a scrape finds no gauge that was never set
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._file is not None:
            os.close(self._file)  # and with it the lock
        self._task = self._file = self._cursor = None

    async def look(self) -> None:
        """Read what was committed since the last look, and look at this process."""
        for look in self._looks:
            await look(self._auth)
        if not await self._lead():
            return
        while page := await self._auth.store.events_after(self._cursor, limit=PAGE):
            for self._cursor, event in page:
                for happened in self._happened:
                    happened(event)
            self._keep()

    async def _lead(self) -> bool:
        """Whether this process follows the audit log for its node."""
        if self._cursor is not None:
            return True
        if self._place is not None and not self._lock(self._place):
            return False
        kept = b"" if self._file is None else os.pread(self._file, _CURSOR_AT_MOST, 0)
        self._cursor = AuditCursor.parse(kept.decode()) if kept else await self._auth.store.audit_end()
        self._keep()
        return True

    def _lock(self, place: Path) -> bool:
        if self._file is None:
            self._file = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _keep(self) -> None:
        if self._file is not None and self._cursor is not None:
            text = self._cursor.text().encode()
            os.pwrite(self._file, text, 0)
            os.ftruncate(self._file, len(text))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await self._look_safely()

    async def _look_safely(self) -> None:
        try:
            await self.look()
        except Unavailable as exc:
            log.debug("the next look at the audit log reads what this one missed: %s", exc.reason)
        except Exception:
            # The loop must go on: otherwise this process would never count an event again.
            log.exception("a look at the audit log failed")
