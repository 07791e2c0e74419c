"""What tests of fences share: a node over a store, a verifier that polls it, and entries of its log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from tests.standins import T0, Wrapped

from dutchdoor.errors import Unavailable
from dutchdoor.revocation.fence import Fence
from dutchdoor.revocation.follower import Follower
from dutchdoor.revocation.lease import Terms
from dutchdoor.revocation.log import Revocation
from dutchdoor.revocation.node_messages import NodeRow, Renewed, Rows
from dutchdoor.services.fencing import Fencing
from dutchdoor.stores.base import Revoke, Revoked, Store

LEASE = 10.0


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


class Verifying:
    """A verifier's process, as far as the fence sees it: the real follower, polling one node."""

    def __init__(self, fencing: Fencing, *, name: str = "service") -> None:
        self.fencing, self.name = fencing, name
        self.follower = Follower()
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            now = self.fencing.now()
            await asyncio.sleep(max(0.0, self.follower.poll_at - now))
            poll = self.follower.poll(self.fencing.now())
            answer = await self.fencing.poll(poll, credential=self.name)
            self.follower.take(poll, answer, self.fencing.now(), T0)

    @property
    def leased(self) -> bool:
        return self.follower.leased_for(self.fencing.now()) > 0

    async def silence(self) -> None:
        """Hang up, and never come back."""
        self.task.cancel()
        await asyncio.wait([self.task])


class Headless(Wrapped):
    """A store that is a network away, and sometimes out of reach."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.down, self.asked = False, 0

    def head(self) -> None:
        return None

    def _reached(self) -> None:
        self.asked += 1
        if self.down:
            raise Unavailable("injected")

    async def read_log(self, log_epoch: int, after: int) -> Renewed:
        self._reached()
        return await self.inner.read_log(log_epoch, after)

    async def node_register(self, row: NodeRow) -> None:
        self._reached()
        await self.inner.node_register(row)

    async def node_renew(self, row: NodeRow, after: int) -> Renewed:
        self._reached()
        return await self.inner.node_renew(row, after)

    async def node_rows(self) -> Rows:
        self._reached()
        return await self.inner.node_rows()


def entry(id: str) -> Revoke:
    return Revoke(Revocation(kind="session", id=id, expires_at=T0 + 3600, subject="ann"))


async def revoke(fencing: Fencing, id: str, *, wait: float = 20.0) -> Fence:
    return await fencing.fence(await ended(fencing, id), wait=wait)


async def ended(fencing: Fencing, id: str) -> Revoked:
    return await fencing.store.commit(entry(id))


@contextlib.asynccontextmanager
async def a_node(store: Store, elapsed: Callable[[], float] | None = None, **terms: float) -> AsyncIterator[Fencing]:
    """One server process's fencing over a store that is open."""
    named = {} if elapsed is None else {"elapsed": elapsed}
    fencing = Fencing(store, clock=lambda: T0, terms=Terms(**terms), **named)  # type: ignore[arg-type]
    await fencing.open()
    try:
        yield fencing
    finally:
        await fencing.close()
        # Closing leaves nothing behind that runs.
        assert fencing._tasks == set()
        assert (fencing._timer, fencing._sweeper, fencing._unwatch) == (None, None, None)
        assert fencing._woken not in [woken for _, woken in getattr(store, "_watchers", {}).values()]
