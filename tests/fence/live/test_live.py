"""The fence with real processes: verifiers that check tokens without pause, while sessions are ended at random and
everything between them and the authority breaks.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from pathlib import Path
from statistics import quantiles

import pytest
from tests.backing import new_database
from tests.faults.client import Answer, Wire
from tests.faults.cluster import Cluster, begin, cluster
from tests.faults.stores import stored
from tests.fence.live.verifying import Process, Seen, verifiers

from dutchdoor.auth import Auth
from dutchdoor.model.ids import new_id
from dutchdoor.model.service_credentials import VerifierKey, VerifierSecret
from dutchdoor.services.presenting import SignedIn
from dutchdoor.stores.base import Add


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

    def __init__(self, ours: Cluster, seed: int, *, lease: float = 2.0) -> None:
        self.ours, self.lots, self.lease = ours, random.Random(seed), lease
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

    async def end_some(self, places: list[int]) -> None:
        """End one after the other: all of them, or until no more faults come."""
        async with self.ours.wires(1) as (wire,):
            wire.port = self.ours.balancer.port
            for place in places:
                if self.over:
                    break
                self.endings.append(await self.end_one(wire, place))
                await asyncio.sleep(self.lots.random() * 0.05)

    async def break_things(self, ways, rounds: int) -> None:
        """Every fault in some order, so many times; and then no more."""
        for _ in range(rounds):
            for way in self.lots.sample(ways, k=len(ways)):
                await way()
                self.faults[way.__name__] += 1
        self.over = True

    # Ways

    async def cut(self) -> None:
        self.ours.balancer.reset()
        await asyncio.sleep(self.lots.uniform(0.05, 0.5))

    async def black_hole(self) -> None:
        self.ours.balancer.hold()
        await asyncio.sleep(self.lots.uniform(0.1, 1.5 * self.lease))
        self.ours.balancer.heal()
        await asyncio.sleep(self.lots.uniform(0.1, self.lease))

    async def stop_some(self) -> None:
        chosen = self.lots.sample(self.processes, k=self.lots.randrange(1, 4))
        for each in chosen:
            each.pause()
        await asyncio.sleep(self.lots.uniform(0.1, 1.5 * self.lease))
        for each in chosen:
            each.go_on()
        await asyncio.sleep(self.lots.uniform(0.05, 0.5))

    async def kill_authority(self) -> None:
        node = self.lots.choice(self.ours.nodes)
        await asyncio.to_thread(node.kill)
        await asyncio.sleep(self.lots.uniform(0.0, self.lease))
        await asyncio.to_thread(node.start)
        await asyncio.sleep(self.lots.uniform(0.5, 2 * self.lease))

    async def store_gone(self) -> None:
        """One node's way to the store is cut, held, or both."""
        link = self.lots.choice(self.ours.to_store())
        self.lots.choice([link.reset, link.hold, link.half_open, link.refuse])()
        await asyncio.sleep(self.lots.uniform(0.1, 1.5 * self.lease))
        link.heal()
        await asyncio.sleep(self.lots.uniform(0.2, self.lease))

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


async def run(
    live: Live,
    *,
    count: int,
    ends: int,
    checks: int,
    ways=(),
    rounds: int = 1,
    pause: float = 0.02,
    at_once: int = 2,
    deaf: bool = False,
) -> int:
    """End sessions under verifiers, while everything breaks in each of the ways; gives how many checks were made.

    `pause`: of each verifier after a few dozen checks, so that there is something left of the machine.
    """
    with verifiers(count, live.ours.public, live.key, live.tokens, pause=pause, deaf=deaf) as live.processes:
        places = list(range(ends))
        async with asyncio.TaskGroup() as group:
            for n in range(at_once):
                group.create_task(live.end_some(places[n::at_once]))
            if ways:
                group.create_task(live.break_things(ways, rounds))
        # What was fenced stays so.
        await asyncio.sleep(0.2)
        seen = await asyncio.to_thread(lambda: [each.stop() for each in live.processes])
    live.judge(seen)
    made = sum(one.checks for one in seen)
    assert made > checks, "too few checks to say anything"
    assert len(live.endings) >= 4
    waits = [each.fenced_at - each.asked_at for each in live.endings]
    print(figures("call to fenced", waits), "|", figures("call to last acceptance", live.last_acceptances(seen)))
    print(f"{made} checks, {dict(sum((one.answers for one in seen), Counter()))}, {dict(live.faults)}")
    return made


def every_way(live: Live):
    return live.cut, live.black_hole, live.stop_some, live.kill_authority, live.both_at_once


@pytest.mark.long
async def test_twenty_verifiers_and_no_fault(tmp_path: Path) -> None:
    """Twenty verifiers check without pause while sessions end: no check that began after a fenced answer accepts."""
    with cluster(tmp_path / "cluster", nodes=1, local=True, lease="2s") as ours:
        live = Live(ours, 1)
        await live.prepare(40)
        await run(live, count=20, ends=30, checks=10_000)


async def test_one_that_does_not_listen_is_noticed(tmp_path: Path) -> None:
    """The judgement can fail: a verifier that acknowledges entries and goes on accepting is found out."""
    with cluster(tmp_path / "cluster", nodes=1, local=True, lease="1s") as ours:
        live = Live(ours, 5)
        await live.prepare(12)
        with pytest.raises(AssertionError, match=r"assert \[\("):
            await run(live, count=2, ends=8, checks=100, deaf=True)


@pytest.mark.long
async def test_twenty_verifiers_and_every_fault(tmp_path: Path) -> None:
    """The same while connections are cut and held, verifiers are stopped and go on, the authority is killed with -9 and
    started again, and both at once.
    """
    with cluster(tmp_path / "cluster", nodes=1, local=True, lease="1s") as ours:
        live = Live(ours, 2, lease=1.0)
        await live.prepare(60)
        await run(live, count=20, ends=50, checks=10_000, ways=every_way(live))


@pytest.mark.parametrize(("nodes", "count", "checks"), [(2, 3, 500), pytest.param(3, 6, 5_000, marks=pytest.mark.long)])
async def test_three_nodes_and_every_fault(tmp_path: Path, nodes: int, count: int, checks: int) -> None:
    """The same with verifiers spread over two nodes, and three, and PostgreSQL, of which any may be out of reach of
    any.
    """
    with (
        new_database() as url,
        cluster(tmp_path / "cluster", nodes=nodes, local=True, lease="1s", database=url) as ours,
    ):
        live = Live(ours, 3, lease=1.0)
        await live.prepare(60)
        ways = (*every_way(live), live.store_gone) if nodes == 3 else (live.kill_authority, live.store_gone)
        await run(live, count=count, ends=50, checks=checks, ways=ways, at_once=3)


async def test_a_killed_key_is_refused_by_every_verifier(tmp_path: Path) -> None:
    """After `dutchdoor key revoke` says that it is fenced, no verifier accepts anything that the key signed."""
    with cluster(tmp_path / "cluster", nodes=1, local=True, lease="2s") as ours:
        live = Live(ours, 4)
        await live.prepare(10)
        async with ours.beside() as node:
            kid = node.authority.ring.signing(node.authority.clock(), "ES256").kid
        with verifiers(4, ours.public, live.key, live.tokens) as following:
            await asyncio.sleep(0.3)
            asked_at = time.monotonic()
            said = await asyncio.to_thread(ours.nodes[0].command, "key", "revoke", "--yes", "--json", "--", kid)
            fenced_at = time.monotonic()
            assert json.loads(said)["fenced"] is True
            await asyncio.sleep(0.3)
            seen = await asyncio.to_thread(lambda: [each.stop() for each in following])
        last = [max(one.accepted.values()) for one in seen]
        assert asked_at < max(last) < fenced_at


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", ["one node", "four workers", "three nodes", "three nodes and Valkey"])
async def test_a_million_checks_under_every_fault(tmp_path: Path, kind: str) -> None:
    """Twenty verifiers, every fault, round after round, until a million checks were made."""
    store = {"three nodes": "postgres", "three nodes and Valkey": "valkey"}.get(kind, "sqlite")
    made = rounds = 0
    while made < 1_000_000 or rounds < 5:
        rounds += 1
        more = {"nodes": 1 if store == "sqlite" else 3, "workers": 4 if kind == "four workers" else 1}
        with (
            stored(store) as place,
            cluster(tmp_path / f"{rounds}", local=True, lease="1s", **more, **place) as ours,
        ):
            live = Live(ours, rounds, lease=1.0)
            await live.prepare(200)
            ways = (*every_way(live), live.store_gone) if place else every_way(live)
            made += await run(live, count=20, ends=180, checks=10_000, ways=ways, at_once=3, pause=0.002, rounds=4)
