"""Those who follow in bad faith, or own a key that is not theirs, delay no other fence beyond the maximum wait, and
what they make the server keep is bounded.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from pathlib import Path

import pytest
from tests.faults.client import Wire
from tests.faults.cluster import Cluster, begin, cluster
from tests.fence.live.test_live import add_key
from tests.fence.live.verifying import verifiers

POLL = "/auth/revocations/poll"
LEASE = 1.0
GUARDED = LEASE * 1.1 / 0.9


def judge_times(took: list[float], at_most: float) -> None:
    """No fence takes longer than so many seconds, a moment of this machine's own aside; the one that met with no such
    moment shows it.
    """
    *others, longest = sorted(took)
    assert max(others) < at_most + 8.0, took
    assert longest < at_most + 15.0, took
    assert min(took) < at_most + 1.0, took


def poll_of(holder: str, *, applied: int = 0, epoch: int = 0, wait: float = 0.0) -> dict[str, object]:
    return {"holder": holder, "log_epoch": epoch, "applied_seq": applied, "wait_ms": int(wait * 1000)}


class Flood:
    """Many connections that ask the same kind of thing without pause until asked to stop."""

    def __init__(self, ours: Cluster, connections: int, make) -> None:
        self.ours, self.make, self.over = ours, make, False
        self.connections = connections
        self.since = 0.0
        """What was asked before is not counted."""
        self.statuses: dict[int, int] = {}

    async def _go(self, n: int) -> None:
        wire = self.ours.nodes[n % len(self.ours.nodes)].wire()
        while not self.over:
            began = time.monotonic()
            try:
                answer = await self.make(wire, n)
            except (OSError, EOFError, TimeoutError):
                await asyncio.sleep(0.01)
                continue
            if began < self.since:
                continue
            self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
            if answer.status == 429:
                await asyncio.sleep(0.01)
        wire.close()

    async def __aenter__(self):
        self.tasks = [asyncio.create_task(self._go(n)) for n in range(self.connections)]
        return self

    async def __aexit__(self, *exc):
        self.over = True
        await asyncio.gather(*self.tasks)


async def fence_times(ours: Cluster, held, count: int) -> list[float]:
    """End so many sessions, one after the other; gives how long each fence took."""
    took = []
    async with ours.wires(1) as (wire,):
        for one in held[:count]:
            began = time.monotonic()
            body = {"refresh_token": one.refresh_token}
            answer = await wire.send("POST", "/auth/logout", body, headers=[("Prefer", "wait=20")])
            assert (answer.status, answer.json["fenced"]) == (200, True), answer
            took.append(time.monotonic() - began)
    return took


def memory(pid: int) -> int:
    """Kilobytes that a process has in memory now."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


async def test_one_that_never_acknowledges(tmp_path: Path) -> None:
    """A verifier that polls and acknowledges nothing, whatever it was sent, costs fences the maximum wait while it is
    believed, and then nothing: it gets no lease any more, and another one is not held up at all.
    """
    with cluster(tmp_path / "cluster", nodes=1, local=True, lease=f"{LEASE:.0f}s") as ours:
        async with ours.beside() as node:
            stubborn, honest = await add_key(node, "stubborn"), await add_key(node, "honest")
            held = [await begin(node) for _ in range(12)]
        holder = secrets.token_urlsafe(16)

        async def ask(wire: Wire, n: int):
            await asyncio.sleep(0.02)
            return await wire.send("POST", POLL, poll_of(holder), bearer=stubborn)

        with verifiers(2, ours.public, honest, [one.access_token for one in held]) as following:
            async with Flood(ours, 1, ask) as flood:
                took = await fence_times(ours, held, 4)
                await asyncio.sleep(2 * GUARDED)
                later = await fence_times(ours, held[6:], 6)
            seen = await asyncio.to_thread(lambda: [each.stop() for each in following])
        assert set(flood.statuses) <= {200, 429}
        judge_times(took, GUARDED)
        assert min(later) < GUARDED / 2, "it is still waited for"
        assert all(one.answers["accepted"] and one.answers["refused"] for one in seen)


@pytest.mark.long
async def test_a_stolen_key(tmp_path: Path) -> None:
    """The thief of a verifier's key polls under a thousand names, hangs and never acknowledges. Others' fences take the
    maximum wait at most, the verifier of another key goes on undisturbed, memory is bounded; and once the key is
    removed it is worth nothing, on every connection it holds.
    """
    with cluster(tmp_path / "cluster", nodes=1, local=True, lease=f"{LEASE:.0f}s") as ours:
        async with ours.beside() as node:
            stolen, honest = await add_key(node, "stolen"), await add_key(node, "honest")
            held = [await begin(node) for _ in range(10)]
        names = [secrets.token_urlsafe(16) for _ in range(1000)]
        asked = 0

        async def ask(wire: Wire, n: int):
            nonlocal asked
            asked += 1
            return await wire.send("POST", POLL, poll_of(names[asked % len(names)], wait=0.3), bearer=stolen)

        with verifiers(1, ours.public, honest, [one.access_token for one in held]) as following:
            before = memory(ours.nodes[0].pid)
            async with Flood(ours, 30, ask) as flood:
                await asyncio.sleep(1.0)
                took = await fence_times(ours, held, 3)
                assert memory(ours.nodes[0].pid) - before < 50_000
                said = await asyncio.to_thread(ours.nodes[0].command, "verifier", "remove", "stolen", "--json")
                assert json.loads(said)["fenced"] is True
                flood.since = time.monotonic()
                flood.statuses.clear()
                await asyncio.sleep(0.3)
                after = dict(flood.statuses)
            quick = await fence_times(ours, held[5:], 3)
            (seen,) = await asyncio.to_thread(lambda: [each.stop() for each in following])
        judge_times(took, GUARDED)
        assert set(after) <= {401, 429}, "the key is removed, and still good"
        assert min(quick) < GUARDED / 2
        assert seen.answers["unavailable"] * 20 <= seen.checks, "another's key was disturbed"


@pytest.mark.long
async def test_a_flood_of_polls(tmp_path: Path) -> None:
    """Polls without a key, with a wrong one, malformed and over-long ones, as fast as they go: no fence is held up by
    more than the maximum wait, and memory is bounded.
    """
    with cluster(tmp_path / "cluster", nodes=1, local=True, lease=f"{LEASE:.0f}s") as ours:
        async with ours.beside() as node:
            honest = await add_key(node, "honest")
            held = [await begin(node) for _ in range(12)]
        bodies = [
            poll_of(secrets.token_urlsafe(16)),
            poll_of("x" * 64, applied=2**53),
            {"holder": "x"},
            [1] * 1000,
            "x" * 20_000,
        ]
        keys = ["", "ddv1_" + "A" * 48, honest[:-2] + ("AA" if honest[-2:] != "AA" else "BB"), "x" * 4000]

        async def ask(wire: Wire, n: int):
            kind = secrets.randbelow(20)
            return await wire.send("POST", POLL, bodies[kind % len(bodies)], bearer=keys[kind % len(keys)])

        with verifiers(2, ours.public, honest, [one.access_token for one in held]) as following:
            before = memory(ours.nodes[0].pid)
            async with Flood(ours, 24, ask) as flood:
                took = await fence_times(ours, held, 10)
            assert memory(ours.nodes[0].pid) - before < 50_000
            seen = await asyncio.to_thread(lambda: [each.stop() for each in following])
        assert sum(flood.statuses.values()) > 200
        assert set(flood.statuses) <= {400, 401, 413, 422, 429, 431}, flood.statuses
        judge_times(took, GUARDED)
        assert all(one.answers["refused"] for one in seen)


@pytest.mark.long
async def test_a_flood_of_ones_own_log_outs(tmp_path: Path) -> None:
    """A person who signs in and out again as fast as possible fills no verifier's memory: above sixteen live entries of
    one subject they become one. Others' fences are not delayed.
    """
    with cluster(tmp_path / "cluster", nodes=1, local=True, lease=f"{LEASE:.0f}s") as ours:
        async with ours.beside() as node:
            honest = await add_key(node, "honest")
            others = [await begin(node) for _ in range(8)]
            his = [await begin(node, "the busy one") for _ in range(100)]
        with verifiers(2, ours.public, honest, [one.access_token for one in others]) as following:
            pending = iter(his)

            async def ask(wire: Wire, n: int):
                one = next(pending, None)
                if one is None:
                    await asyncio.sleep(0.05)
                    return await wire.send("GET", "/livez")
                return await wire.send("POST", "/auth/logout", {"refresh_token": one.refresh_token})

            async with Flood(ours, 8, ask) as flood:
                took = await fence_times(ours, others, 6)
                while next(iter(pending), None) is not None:
                    await asyncio.sleep(0.05)
            seen = await asyncio.to_thread(lambda: [each.stop() for each in following])
        # 503: so many of his own at once that one lost its turn too often, and is to come again.
        assert set(flood.statuses) <= {200, 202, 503}, flood.statuses
        judge_times(took, GUARDED)
        assert max(one.entries for one in seen) <= 6 + 40, "his log-outs fill everybody's memory"
