"""Announcing: calls an application's listeners for each audit event, after the commit that wrote it.

`Announcing` is a store around the store, because each event is written by a commit: a lost race, which commits nothing,
announces nothing. The verb does not wait for listeners. Otherwise the time of an answer would reveal that an address
has an account, for which a listener sends a mail.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from dutchdoor.model.audit_events import AuditEvent
from dutchdoor.services.hooks import Hooks, Listener, notify
from dutchdoor.stores.base import Around, Change, Log, Revoked, Store

__all__ = ["WAITING_AT_MOST", "Announcing"]

WAITING_AT_MOST: Final = 1000
"""Calls of listeners that are under way at once. With more of them, memory would fill up behind a slow listener."""
FINISHES_WITHIN: Final = 5.0
"""Seconds that `drain` waits."""

_log = logging.getLogger("dutchdoor")


class Announcing(Around):
    """A store that announces what it commits to the listeners of `hooks`."""

    def __init__(self, inner: Store, hooks: Hooks) -> None:
        super().__init__(inner)
        self._hooks = hooks
        self._calls: set[asyncio.Task[None]] = set()

    async def commit(self, *changes: Change) -> Revoked:
        done = await self._inner.commit(*changes)
        logged = [change.event for change in changes if type(change) is Log]
        if logged:
            notify(self._hooks.logged)
            for event in logged:
                self._announce(event)
        return done

    def _announce(self, event: AuditEvent) -> None:
        for listener in self._hooks.listeners.get(event.name, ()):
            if len(self._calls) >= WAITING_AT_MOST:
                _log.error("listeners are too slow: %s %s was not announced", event.name, event.id)
                continue
            task = asyncio.get_running_loop().create_task(self._call(listener, event))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

    async def _call(self, listener: Listener, event: AuditEvent) -> None:
        try:
            await self._hooks.calling(listener, event)
        except Exception:  # noqa: BLE001 - the event is committed, and no caller waits
            _log.exception("a listener of %s failed", event.name)

    async def drain(self) -> None:
        """Wait for the listeners that were called, a few seconds at most."""
        here = asyncio.get_running_loop()
        waiting = {task for task in self._calls if task.get_loop() is here}
        if waiting:
            _, slow = await asyncio.wait(waiting, timeout=FINISHES_WITHIN)
            for task in slow:
                task.cancel()
        self._hooks.calling.close()
