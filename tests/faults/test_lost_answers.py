"""Answers that break off: a client that retries with what it holds is never logged out (I-04)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.faults.client import Answer
from tests.faults.cluster import Cluster, Node, begin, cluster
from tests.faults.proxy import How

LOGGED_OUT = {"refresh_theft", "refresh_replayed", "refresh_impossible", "session_ended", "logout"}


class Lost:
    """Refreshes whose answers are cut, each by a client that holds a session of its own."""

    def __init__(self, ours: Cluster, transport: str) -> None:
        self.ours, self.transport = ours, transport
        self.tried = 0

    async def ask(self, send: Callable[..., Awaitable[Answer]], token: str, csrf: str) -> Answer:
        if self.transport == "body":
            return await send("POST", "/auth/refresh", {"refresh_token": token})
        cookie = f"__Host-dd_refresh={token}"
        return await send("POST", "/auth/refresh", cookie=cookie, headers=[("X-CSRF-Token", csrf)])

    async def csrf(self, node: Node, token: str) -> str:
        if self.transport == "body":
            return ""
        wire = node.wire(direct=True)
        answer = await wire.served("GET", "/auth/csrf", cookie=f"__Host-dd_refresh={token}")
        wire.close()
        return answer.json["csrf_token"]

    async def one(self, node: Node, then, cut_at: int, length: int, how: How) -> None:
        """Cut one answer after so many bytes; the client tries again with what it still holds, elsewhere."""
        held = await begin(then)
        token = held.refresh_token
        csrf = await self.csrf(node, token)
        node.link.down.cut(after=cut_at, how=how, once=True)
        wire = node.wire()
        try:
            first = await self.ask(wire.send, token, csrf)
        except (OSError, EOFError):
            first = None
        finally:
            wire.close()
            node.link.down.heal()
        if not node.link.down.cuts:
            # Answers differ by the digits of a time: one that was shorter than the first is whole.
            assert first is not None, "nothing was cut"
            assert (first.status, length - 8 < first.size < cut_at) == (200, True), (cut_at, first)
            return
        node.link.down.cuts = 0
        other = self.ours.nodes[(self.ours.nodes.index(node) + 1) % len(self.ours.nodes)]
        wire = other.wire(direct=True)
        again = await self.ask(wire.served, token, csrf)
        assert again.status == 200, (cut_at, how, again)
        assert (await wire.served("GET", "/auth/me", bearer=again.json["access_token"])).status == 200
        if self.transport == "cookie":
            # Without the cookie the jar would keep the parent.
            assert again.cookies["__Host-dd_refresh"] not in {"", token}
        if first is not None:
            assert (first.status, first.size) == (200, cut_at)
        wire.close()
        self.tried += 1

    async def whole(self, node: Node, then) -> int:
        """How long an answer is."""
        held = await begin(then)
        csrf = await self.csrf(node, held.refresh_token)
        wire = node.wire(direct=True)
        size = (await self.ask(wire.served, held.refresh_token, csrf)).size
        wire.close()
        return size

    async def all(self, step: int, hows: list[How]) -> int:
        """Cut at every offset; each node has every third."""
        async with self.ours.nodes_beside() as (now, then):
            before = {event.id for event in await now.store.events(limit=5000)}
            length = await self.whole(self.ours.nodes[0], then)
            offsets = list(range(0, length, step))

            async def some(place: int) -> None:
                node = self.ours.nodes[place]
                for cut_at in offsets[place :: len(self.ours.nodes)]:
                    await self.one(node, then, cut_at, length, hows[self.tried % len(hows)])

            await asyncio.gather(*(some(place) for place in range(len(self.ours.nodes))))
            bad = {event.name for event in await now.store.events(limit=5000) if event.id not in before} & LOGGED_OUT
            assert bad == set(), "a lost answer was taken for something else"
        return length


@pytest.mark.parametrize(
    ("transport", "step"),
    [
        ("body", 131),
        ("cookie", 331),
        pytest.param("body", 13, marks=pytest.mark.long),
        pytest.param("cookie", 37, marks=pytest.mark.long),
    ],
)
async def test_i04_an_answer_cut_at_any_byte_logs_no_one_out(shared: Cluster, transport: str, step: int) -> None:
    """The answer to a refresh breaks off, by a reset or an early end, after so many bytes; the client tries again with
    the token it still holds, at another node, and goes on. No one is logged out, and nothing is taken for theft.
    """
    lost = Lost(shared, transport)
    length = await lost.all(step, [How.RST, How.FIN])
    assert length > 500


@pytest.mark.soak
@pytest.mark.parametrize("how", [How.RST, How.FIN])
@pytest.mark.parametrize("transport", ["body", "cookie"])
async def test_i04_every_offset(tmp_path: Path, place: dict[str, str], transport: str, how: How) -> None:
    """The same after every single byte."""
    with cluster(tmp_path / "cluster", **place) as ours:
        lost = Lost(ours, transport)
        length = await lost.all(1, [how])
        assert lost.tried > length - 8
