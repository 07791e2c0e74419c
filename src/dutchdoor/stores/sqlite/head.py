"""Where the log ends, as all processes on one machine see it: two words of shared memory, and who watches them."""

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
"""Seconds between two looks at what other processes may have committed."""


class Head:
    """Two words of memory that all processes share: the log's epoch, and a `seq` that no entry of it exceeds.

    Every request with a token asks what is new in the log, and nearly always nothing is. To begin and end SQLite's
    shortest read costs 3 to 5 microseconds; to look at these words, a few tenths of one.

    They are right because they are written only under the database's write lock, and before the commit: whoever was
    told of a revocation, or reads anything that was committed with it, finds them raised already. Somebody who reads
    one word before such a writing and the other after it has a pair that differs from what he knows, as either pair
    does: he looks. A commit that then fails leaves them too high, which costs a look-up and hides nothing. Opening the
    database sets them right, whatever a crash or a restored copy left in them.
    """

    def __init__(self, path: Path, log_epoch: int, seq: int) -> None:
        """Map the words and set them. The caller holds the write lock."""
        # Never through a link: what it leads to would be overwritten.
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
            if os.geteuid() == 0:  # or a command that root ran would leave the server a file that it may not open
                os.fchown(file, database.st_uid, database.st_gid)
            # Written and not just lengthened: a page of a sparse file, first touched on a full disk, kills the process.
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
    """One timer of one event loop, for all who want to know there when the log has grown.

    Another process raises the head before it commits, and a commit may take long. So the head tells only that it is
    worth the while to ask the database, which is asked until it has what the head tells.
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
        """Wake everybody if there is more in the log than there was."""
        if self._head() == self._seen:
            return
        try:
            committed = self._committed()
        except Unavailable:
            return  # the next look may find it
        if committed != self._seen:
            self._seen = committed
            for woken in list(self.woken.values()):
                woken()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(LOOK_EVERY, self._tick)
        self.look()
