"""The fence with real processes: verifiers that check tokens without pause, while sessions are ended at random and
everything between them and the authority breaks.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path
from statistics import quantiles

from tests.faults.client import Answer, Wire
from tests.faults.cluster import Cluster, begin, cluster
from tests.fence.live.verifying import Process, Seen, verifiers

from dutchdoor.auth import Auth
from dutchdoor.authority import SignedIn
from dutchdoor.ids import new_id
from dutchdoor.store import Add
from dutchdoor.verifier_keys import VerifierKey, VerifierSecret

LEASE = 2.0
GUARDED = LEASE * 1.1 / 0.9


async def add_key(node: Auth, name: str = "orders") -> str:
    secret = VerifierSecret.mint(new_id())
    row = VerifierKey(id=secret.id, name=name, secret_hash=secret.hash(), created_at=time.time())
    await node.store.commit(Add(row))
    return secret.text()


class Ending:
    """When a sign-in was asked to end, and when that was fenced."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.asked_at = self.fenced_at = 0.0


class Live:
    """A cluster, verifiers that follow it, and tokens of sessions that are ended at random."""

    def __init__(self, ours: Cluster, seed: int) -> None:
        self.ours, self.lots = ours, random.Random(seed)
        self.held: list[SignedIn] = []
        self.endings: list[Ending] = []
        self.key = ""
        self.processes: list[Process] = []
        self.over = False
        self.faults: Counter[str] = Counter()

    async def prepare(self, sessions: int) -> None:
        async with self.ours.beside() as node:
            self.key = await add_key(node)
            self.held = list(await asyncio.gather(*(begin(node) for _ in range(sessions))))

    @property
    def tokens(self) -> list[str]:
        return [one.access_token for one in self.held]

    async def end_one(self, wire: Wire, place: int) -> Ending:
        """End a session, and ask again until it is fenced or the time has passed that was named."""
        done = Ending(place)
        done.asked_at = time.monotonic()
        body = {"refresh_token": self.held[place].refresh_token}
        while True:
            answer = await self._ask(wire, body)
            if answer is None or answer.status in {503, 429}:
                await asyncio.sleep(0.05)
                continue
            assert answer.status in {200, 202}, answer
            if answer.json["fenced"]:
                done.fenced_at = time.monotonic()
                return done

    async def _ask(self, wire: Wire, body) -> Answer | None:
        try:
            return await wire.send("POST", "/auth/logout", body, headers=[("Prefer", "wait=3")])
        except (OSError, EOFError, TimeoutError):
            return None

    async def end_some(self, places: list[int], pause: float) -> None:
        async with self.ours.wires(1) as (wire,):
            wire.port = self.ours.balancer.port
            for place in places:
                self.endings.append(await self.end_one(wire, place))
                await asyncio.sleep(self.lots.random() * pause)

    async def break_things(self, *ways) -> None:
        while not self.over:
            way = self.lots.choice(ways)
            await way()
            self.faults[way.__name__] += 1

    # Ways

    async def cut(self) -> None:
        self.ours.balancer.reset()
        await asyncio.sleep(self.lots.uniform(0.05, 0.5))

    async def black_hole(self) -> None:
        self.ours.balancer.hold()
        await asyncio.sleep(self.lots.uniform(0.1, 1.5 * LEASE))
        self.ours.balancer.heal()
        await asyncio.sleep(self.lots.uniform(0.1, LEASE))

    async def stop_some(self) -> None:
        chosen = self.lots.sample(self.processes, k=self.lots.randrange(1, 4))
        for each in chosen:
            each.pause()
        await asyncio.sleep(self.lots.uniform(0.1, 1.5 * LEASE))
        for each in chosen:
            each.go_on()
        await asyncio.sleep(self.lots.uniform(0.05, 0.5))

    async def kill_authority(self) -> None:
        node = self.lots.choice(self.ours.nodes)
        await asyncio.to_thread(node.kill)
        await asyncio.sleep(self.lots.uniform(0.0, LEASE))
        await asyncio.to_thread(node.start)
        await asyncio.sleep(self.lots.uniform(0.2, LEASE))

    async def both_at_once(self) -> None:
        await asyncio.gather(self.stop_some(), self.kill_authority())

    # Judging

    def judge(self, seen: list[Seen]) -> None:
        """Not one acceptance on a request that began after a fenced answer."""
        fenced_at = {each.place: each.fenced_at for each in self.endings}
        wrong = [
            (place, began - fenced_at[place])
            for one in seen
            for place, began in one.accepted.items()
            if place in fenced_at and began > fenced_at[place]
        ]
        assert wrong == []
        assert all(one.answers["accepted"] for one in seen), "one has never accepted anything"
        assert all(one.answers["refused"] for one in seen), "one has never refused anything"

    def last_acceptances(self, seen: list[Seen]) -> list[float]:
        """For each ending: seconds from the call to the last check that accepted the token anywhere."""
        return [max(0.0, *(one.accepted.get(each.place, 0.0) - each.asked_at for one in seen)) for each in self.endings]


def figures(name: str, values: list[float]) -> str:
    at = quantiles(values, n=100, method="inclusive")
    return f"{name}: p50 {at[49] * 1000:.1f} ms, p99 {at[98] * 1000:.1f} ms, max {max(values) * 1000:.1f} ms"


async def run(live: Live, *, count: int, ends: int, checks: int, ways=(), pause: float = 0.02, at_once: int = 2) -> int:
    """End sessions under verifiers until so many checks were made; gives how many."""
    with verifiers(count, live.ours.public, live.key, live.tokens) as live.processes:
        breaking = asyncio.create_task(live.break_things(*ways)) if ways else None
        places = list(range(ends))
        try:
            await asyncio.gather(*(live.end_some(places[n::at_once], pause) for n in range(at_once)))
        finally:
            live.over = True
            if breaking is not None:
                await breaking
        # What was fenced stays so.
        await asyncio.sleep(0.2)
        seen = await asyncio.to_thread(lambda: [each.stop() for each in live.processes])
    live.judge(seen)
    made = sum(one.checks for one in seen)
    assert made > checks, "too few checks to say anything"
    waits = [each.fenced_at - each.asked_at for each in live.endings]
    print(figures("call to fenced", waits), "|", figures("call to last acceptance", live.last_acceptances(seen)))
    print(f"{made} checks, {dict(sum((one.answers for one in seen), Counter()))}, {dict(live.faults)}")
    return made


async def test_twenty_verifiers_and_no_fault(tmp_path: Path) -> None:
    """Twenty verifiers check without pause while sessions end: no check that began after a fenced answer accepts."""
    with cluster(tmp_path / "cluster", nodes=1, local=True, lease=f"{LEASE:.0f}s") as ours:
        live = Live(ours, 1)
        await live.prepare(80)
        await run(live, count=20, ends=60, checks=10_000)


async def test_twenty_verifiers_and_every_fault(tmp_path: Path) -> None:
    """The same while connections are cut and held, verifiers are stopped and go on, the authority is killed with -9 and
    started again, and both at once.
    """
    with cluster(tmp_path / "cluster", nodes=1, local=True, lease=f"{LEASE:.0f}s") as ours:
        live = Live(ours, 2)
        await live.prepare(60)
        ways = (live.cut, live.black_hole, live.stop_some, live.kill_authority, live.both_at_once)
        await run(live, count=20, ends=16, checks=10_000, ways=ways)
