"""No client ever gets an answer about another one (I-25), whatever breaks off in between."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from tests.backing import a_postgres
from tests.faults.cluster import Cluster, begin, cluster
from tests.faults.test_nodes import proof_of


async def identity_holds(ours: Cluster, requests: int, *, people: int = 24, connections: int = 18) -> int:
    """Many people at once, over kept connections that all of them share in turn; some hang up in the middle. Gives how
    many were answered.
    """
    lots, answered, asked = random.Random(25), 0, 0
    async with ours.beside() as node, ours.wires(connections) as wires:
        held = [await begin(node, f"{n} of {requests}", mode="session" if n % 2 else "hybrid") for n in range(people)]

        async def ask(wire) -> None:
            nonlocal answered, asked
            while asked < requests:
                asked += 1
                one = lots.choice(held)
                subject = one.account.subject
                if one.refresh_token and lots.random() < 0.2:
                    request = wire.served("POST", "/auth/refresh", {"refresh_token": one.refresh_token})
                else:
                    request = wire.served("GET", lots.choice(["/auth/me", "/auth/sessions"]), **proof_of(one))
                if lots.random() < 0.15:
                    hanging_up = asyncio.create_task(request)
                    await asyncio.sleep(lots.random() * 0.004)
                    hanging_up.cancel()
                    await asyncio.gather(hanging_up, return_exceptions=True)
                    continue
                answer = await request
                assert answer.status in {200, 429}, answer
                if answer.status == 200:
                    answered += 1
                    said = answer.json
                    if "sessions" in said:
                        assert [each["id"] for each in said["sessions"]] == [one.session.id]
                    else:
                        assert said["user"]["id"] == subject
                        assert said["session"]["id"] == one.session.id

        await asyncio.gather(*(ask(wire) for wire in wires))
    return answered


@pytest.mark.parametrize("requests", [400, pytest.param(2_000, marks=pytest.mark.long)])
async def test_i25_answers_never_cross_over_nodes(shared: Cluster, requests: int) -> None:
    """Hundreds of interleaved requests of two dozen people over three nodes, one in seven cut off in the middle: each
    answer is about who asked.
    """
    assert await identity_holds(shared, requests) > 0.6 * requests


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_i25_a_million_answers_never_cross(tmp_path: Path, place: dict[str, str]) -> None:
    """The same a million times."""
    with cluster(tmp_path / "cluster", **place) as ours:
        assert await identity_holds(ours, 1_000_000, connections=48) > 500_000


@pytest.mark.soak
async def test_i25_a_request_that_was_cut_off_leaves_no_transaction(tmp_path: Path) -> None:
    """After thousands of requests that were cut off, while the way to the database is slow, no connection of a node is
    in a transaction, and no lock is held.
    """
    with a_postgres() as postgres, cluster(tmp_path / "cluster", database=postgres.url()) as ours:
        for link in ours.to_store():
            link.down.delay = 0.002
        await identity_holds(ours, 600)
        ours.heal()
        await asyncio.sleep(0.5)
        mine = "datname = 'postgres' AND pid <> pg_backend_pid()"
        assert postgres.sql(f"SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%' AND {mine}") == "0"
        held = postgres.sql("SELECT count(*) FROM pg_locks WHERE pid <> pg_backend_pid() AND locktype <> 'virtualxid'")
        assert held == "0"
        connected = int(postgres.sql(f"SELECT count(*) FROM pg_stat_activity WHERE state IS NOT NULL AND {mine}"))
        assert 0 < connected <= 3 * 24, "connections pile up"
