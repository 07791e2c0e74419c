"""Where the log ends, as all processes on one machine see it: two words of shared memory, and their watchers."""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path

from dutchdoor.errors import Unavailable
from dutchdoor.revocation.node_messages import LogHead
from dutchdoor.stores.sqlite.permissions import planted, refuse_open

__all__ = ["LOOK_EVERY", "Head", "Watch"]

LOOK_EVERY = 0.005
"""Seconds between two checks of what other processes may have committed."""


class Head:
    """Two words of memory that all processes share: the log's epoch, and a `seq` that no entry of it exceeds.

    Every request with a token asks what is new in the log, and nearly always nothing is. SQLite's shortest read takes 3
    to 5 microseconds; reading these words takes a few tenths of one.

    A writer changes them only under the database's write lock, and before the commit. So a client that got the answer
    to a revocation, or any reader of the commit, finds them raised already. A reader that reads one word before the
    change and the other after it has a pair that differs from the one it knows, so it looks at the log. If the commit
    then fails, the words stay too high, which costs a look-up and hides nothing. Opening the database corrects them,
    whatever a crash or a restored copy left in them.
    """

    def __init__(self, path: Path, log_epoch: int, seq: int) -> None:
        """Map the words and set them. The caller holds the write lock."""
        # Never through a link: the file that it points to would be overwritten.
        head = path.with_name(path.name + "-head")
        try:
            file = os.open(head, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                raise planted(head) from None
            raise
        try:
            database = path.stat()
            refuse_open(head, os.fstat(file), database.st_uid)
            if os.geteuid() == 0:  # or a command run by root would leave the server a file that it cannot open
                os.fchown(file, database.st_uid, database.st_gid)
            # Written and not only extended: the first access to a page of a sparse file on a full disk kills the
            # process.
            words = log_epoch.to_bytes(8, sys.byteorder) + seq.to_bytes(8, sys.byteorder)
            os.pwrite(file, words, 0)
            self._map = mmap.mmap(file, len(words))
        finally:
            os.close(file)
        self.words = memoryview(self._map).cast("Q")

    def close(self) -> None:
        self.words.release()
        self._map.close()


class Watch:
    """One timer of one event loop, for all watchers of the log in that loop.

    Another process raises the head before it commits, and a commit may take long. So the head says only that the
    database is worth a query. The watcher queries it until it has what the head says.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        head: Callable[[], LogHead | None],
        committed: Callable[[], LogHead | None],
    ) -> None:
        self.woken: dict[object, Callable[[], None]] = {}
        self._loop, self._head, self._committed = loop, head, committed
        self._seen: LogHead | None = None
        self._timer = loop.call_soon(self._tick)

    def stop(self) -> None:
        self._timer.cancel()

    def look(self) -> None:
        """Wake all watchers if the log has grown."""
        if self._head() == self._seen:
            return
        try:
            committed = self._committed()
        except Unavailable:
            return  # the next check may find it
        if committed != self._seen:
            self._seen = committed
            for woken in list(self.woken.values()):
                woken()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(LOOK_EVERY, self._tick)
        self.look()
