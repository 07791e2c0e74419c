"""Notifies watchers when the log has grown."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from dutchdoor.errors import Unavailable
from dutchdoor.stores.postgres.connection import ANSWER_FOR, STATEMENT_FOR, Connector, Lane, Row

__all__ = ["Watch"]

_LISTEN_EVERY = 1.0
"""Seconds between two checks: that the listening connection is alive, and of the log itself."""
_POLL_EVERY = 0.1
"""Seconds between two checks of the log where no connection can listen."""
_CHANNEL = "dutchdoor"


class Watch:
    """The connection that listens while there are watchers; or a regular check of the log where none can listen."""

    def __init__(self, connect: Connector) -> None:
        self._connect = connect
        self._woken: dict[object, Callable[[], None]] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, woken: Callable[[], None]) -> Callable[[], None]:
        watcher = object()
        self._woken[watcher] = woken
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

        def unwatch() -> None:
            self._woken.pop(watcher, None)
            if not self._woken and self._task is not None:
                self._task.cancel()
                self._task = None

        return unwatch

    async def close(self) -> None:
        task, self._task = self._task, None
        self._woken = {}
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _wake(self, *_: object) -> None:
        for woken in list(self._woken.values()):
            woken()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(Unavailable):
                await (self._poll() if self._connect.by_transaction else self._listen())
            await asyncio.sleep(_POLL_EVERY)

    async def _listen(self) -> None:
        """Wake at each notification. Also check the log now and then, which proves that the connection is alive."""
        made_at = asyncio.get_running_loop().time()
        connection = await self._connect(STATEMENT_FOR)
        try:
            async with asyncio.timeout(ANSWER_FOR):
                await connection.add_listener(_CHANNEL, self._wake)
            seen: Row | None = None  # changes from before the LISTEN were missed
            while made_at > self._connect.lost_at:
                async with asyncio.timeout(ANSWER_FOR):
                    head = await connection.fetchrow(_HEAD)
                if head != seen:
                    seen = head
                    self._wake()
                await asyncio.sleep(_LISTEN_EVERY)
        except Exception as exc:
            raise Unavailable("postgres: the connection that waits for notifications was lost") from exc
        finally:
            connection.terminate()

    async def _poll(self) -> None:
        lane = Lane(self._connect, STATEMENT_FOR)
        try:
            seen: Row | None = None
            while True:
                (head,) = await lane.fetch(_HEAD, within=ANSWER_FOR)
                if head != seen:
                    seen = head
                    self._wake()
                await asyncio.sleep(_POLL_EVERY)
        finally:
            lane.drop()


_HEAD = "SELECT epoch, seq FROM dutchdoor.revocation_log"
