"""Wall clocks that are wrong, step and stand still (I-21). Over several machines, time is the database's."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from tests.faults.client import Wire
from tests.faults.cluster import HERE, Cluster, begin, cluster
from tests.faults.shifted import FROZEN
from tests.faults.stores import stored

HOUR = 3600.0
APART = 300.0


async def works_on(wires: list[Wire], tokens: list[str], access: list[str], *, strictly: bool = True) -> None:
    """Refresh every session on every node in turn, and use what comes. No one is logged out by a clock."""
    for n in range(len(tokens)):
        for wire in wires:
            answer = await wire.served("POST", "/auth/refresh", {"refresh_token": tokens[n]})
            if answer.status == 429 and not strictly:
                # A bucket that was used an hour later is empty now, and fills again from here.
                assert answer.header("retry-after") == "1"
                continue
            assert answer.status == 200, answer
            tokens[n], access[n] = answer.json["refresh_token"], answer.json["access_token"]
            for other in wires:
                used = await other.served("GET", "/auth/me", bearer=access[n])
                assert used.status == 200, (used, other.node, wire.node)


async def nobody_stole(ours: Cluster) -> None:
    async with ours.beside() as node:
        names = {event.name for event in await node.store.events(limit=5000)}
    assert names & {"refresh_theft", "refresh_impossible", "session_ended"} == set()


@pytest.mark.parametrize("clocks", [(-APART, APART), pytest.param((-APART, 0.0, APART), marks=pytest.mark.long)])
async def test_i21_clocks_of_nodes_that_differ(
    tmp_path: Path, full_place: dict[str, str], clocks: tuple[float, ...]
) -> None:
    """Nodes whose clocks are five minutes ahead and behind make and accept the same tokens at the same time: the
    database's. What has expired by it is refused by the one that is behind, too.
    """
    with cluster(tmp_path / "cluster", nodes=len(clocks), clocks=True, start=False, **full_place) as ours:
        for node, ahead in zip(ours.nodes, clocks, strict=True):
            node.set_clock(ahead)
        ours.start()
        async with ours.nodes_beside() as (now, then), ours.wires(len(clocks)) as wires:
            held = [await begin(then) for _ in range(4)] + [await begin(now) for _ in range(2)]
            for wire in wires:
                for one in held[:4]:
                    assert (await wire.served("GET", "/auth/me", bearer=one.access_token)).status == 401, "expired"
            await works_on(wires, [one.refresh_token for one in held], [one.access_token for one in held])
            # An hour back, on all of them: what has expired does not come back to life.
            for node in ours.nodes:
                node.set_clock(-HOUR)
            for wire in wires:
                assert (await wire.served("GET", "/auth/me", bearer=held[0].access_token)).status == 401, "expired"
        await nobody_stole(ours)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("sqlite", marks=pytest.mark.long),
        pytest.param("postgres", marks=pytest.mark.long),
        pytest.param("valkey", marks=pytest.mark.soak),
    ],
)
async def test_i21_clocks_that_step(tmp_path: Path, kind: str) -> None:
    """The clock of all nodes goes an hour back, an hour ahead, stands still and goes on, under sessions in use: access
    tokens may have to be fetched anew, limits may ask for a second's wait, and no one is logged out or called a thief.
    """
    with stored(kind) as place, cluster(tmp_path / "cluster", clocks=True, **place) as ours:
        async with ours.beside() as now, ours.wires(3) as wires:
            held = [await begin(now) for _ in range(3)]
            cookies = [await begin(now, mode="session") for _ in range(2)]
            tokens, access = [one.refresh_token for one in held], [one.access_token for one in held]
            await works_on(wires, tokens, access)
            for ahead in (-HOUR, 0.0, HOUR, 0.0, FROZEN, 0.0, -HOUR + FROZEN, HOUR, 0.0):
                for node in ours.nodes:
                    node.set_clock(ahead)
                await works_on(wires, tokens, access, strictly=False)
                for wire in wires:
                    for one in cookies:
                        cookie = f"__Host-dd_session={one.session_token}"
                        assert (await wire.served("GET", "/auth/me", cookie=cookie)).status == 200
            await asyncio.sleep(1.1)
            await works_on(wires[:1], tokens, access)
        await nobody_stole(ours)


async def test_i21_a_retry_at_a_node_whose_reading_is_behind(tmp_path: Path) -> None:
    """Two nodes read one clock a moment apart. A client whose answer was lost tries again at the one that is behind,
    and gets the same token: by that node's reading the session is rotated in the future, and the retry is no replay.
    """
    with cluster(tmp_path / "cluster", start=False) as ours:
        reading = time.time
        async with (
            ours.beside(lambda: reading() - 900.0) as then,
            ours.beside(lambda: reading() + 0.4) as ahead,
            ours.beside(lambda: reading() - 0.4) as behind,
        ):
            held = await begin(then)
            first = await ahead.authority.refresh(held.refresh_token, HERE)
            again = await behind.authority.refresh(held.refresh_token, HERE)
            assert again.refresh_token == first.refresh_token
            assert (await behind.authority.refresh(first.refresh_token, HERE)).refresh_token == first.refresh_token
            assert "refresh_replayed" not in {event.name for event in await then.store.events()}
