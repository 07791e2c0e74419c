"""What an open engine does by itself: it deletes expired records, and stores its settings for commands."""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec
from msgspec.structs import replace

from dutchdoor.errors import Conflict, DutchdoorError, Unavailable
from dutchdoor.model.deployment import SERVERS, Deployment, Served
from dutchdoor.services.accounts import Directory
from dutchdoor.services.hooks import notify
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Add, Swap

__all__ = ["Upkeep"]

TIDY_FIRST, TIDY_EVERY = 60.0, 3600.0
"""Seconds from the start to the first deletion of expired records, and from one to the next. A process that is
restarted often deletes them too, and a start is not slowed by it.
"""

log = logging.getLogger("dutchdoor")


class Upkeep:
    """The upkeep of one process over one authority. `served` are the settings that commands need to know."""

    def __init__(self, authority: Authority, directory: Directory, served: Served) -> None:
        self.authority, self.directory, self.served = authority, directory, served
        self._housekeeping: asyncio.Task[None] | None = None
        self._storing: asyncio.Task[None] | None = None  # a loop alone does not keep its tasks alive

    async def begin(self) -> None:
        await self._store_settings()
        self._housekeeping = asyncio.create_task(self._keep_house())

    def end(self) -> None:
        if self._housekeeping is not None:
            self._housekeeping.cancel()

    def move(self, local_url: str) -> None:
        """Tell commands that an application in development is served at another URL than it was thought to be."""
        self.served = replace(self.served, local_url=local_url)
        self._storing = asyncio.create_task(self._store_settings())

    async def tidy(self) -> int:
        """Delete expired records by the policy, and return their number. Raises `Unavailable`."""
        started = time.monotonic()
        count = await self.directory.registration.tidy() + await self.directory.deletion.tidy()
        count += await self.authority.tidy()
        notify(self.authority.hooks.tidied, count, time.monotonic() - started)
        return count

    async def _keep_house(self) -> None:
        """Delete expired records at intervals. Several processes may do so at the same time without harm."""
        wait = TIDY_FIRST
        while True:
            await asyncio.sleep(wait)
            wait = TIDY_EVERY
            try:
                await self.tidy()
            except DutchdoorError as exc:
                log.warning("could not delete expired records, trying again later: %s", exc.reason)
            except Exception:
                # The loop must go on: otherwise this process would never delete expired records again.
                log.exception("could not delete expired records")

    async def _store_settings(self) -> None:
        """Store the settings for commands, if they differ from those of the server that started last."""
        text = msgspec.json.encode(self.served).decode()
        try:
            before = await self.authority.store.get(Deployment, SERVERS)
            if before is None or before.settings != text:
                change = Add(Deployment(settings=text)) if before is None else Swap(replace(before, settings=text))
                await self.authority.store.commit(change)
        except (Conflict, Unavailable) as exc:  # another process did at this moment; or the disk is full
            log.warning("settings are not stored for commands: %s", exc.reason)
