"""Garbage by the thousand, at every door (I-24): memory is bounded, and who belongs here is served meanwhile."""

from __future__ import annotations

import asyncio
import random
import re
import secrets
import time
from pathlib import Path

import pytest
from tests.faults.client import Wire
from tests.faults.cluster import Cluster, begin, cluster
from tests.faults.test_nodes import proof_of

from dutchdoor.model.policy import STANDARD

MEGABYTE = "x" * 1_048_576


def memory(pid: int) -> int:
    """Kilobytes that a process has in memory now."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


def garbage(lots: random.Random, one) -> tuple[tuple, dict]:
    """A request without a proof: new each time, so that nothing can be remembered of it."""
    noise = secrets.token_urlsafe(24)
    header, payload, signature = one.access_token.split(".")
    match lots.randrange(9):
        case 0:
            return ("GET", "/auth/me"), {"bearer": f"{header}.{payload}.{noise}{signature[32:]}"}
        case 1:
            return ("GET", "/auth/me"), {"bearer": f"{header}.{noise}.{signature}"}
        case 2:
            return ("GET", "/auth/me"), {"cookie": f"__Host-dd_session=dds1_{noise}"}
        case 3:
            return ("POST", "/auth/refresh", {"refresh_token": f"ddr1_{noise}"}), {}
        case 4:
            return ("POST", "/auth/refresh", {"refresh_token": one.refresh_token[:-6] + noise[:6]}), {}
        case 5:
            return ("GET", f"/{noise}"), {}
        case 6:
            return ("POST", "/auth/login", {"email": f"{noise}@example.com", "password": noise, noise: 1}), {}
        case 7:
            return ("GET", "/auth/me"), {"bearer": noise * 200}
        case _:
            return ("POST", "/auth/logout", {"refresh_token": noise, "x": [[[[noise]]]]}), {}


async def hostile(ours: Cluster, requests: int, bodies: int) -> dict[int, int]:
    """Send garbage over many connections while one person works; gives how much memory each node gained, in kB."""
    lots, sent, refused = random.Random(24), 0, 0
    async with ours.beside() as node, ours.wires(27) as wires:
        one = await begin(node)
        cookie = await begin(node, mode="session")
        honest, *attackers = wires

        async def attack(wire: Wire, limit: int) -> None:
            nonlocal sent, refused
            while sent < limit:
                sent += 1
                request, more = garbage(lots, one)
                try:
                    answer = await wire.send(*request, **more)
                except (OSError, EOFError):
                    continue
                if answer.status == 503:  # a busy machine's database was slow
                    continue
                assert 400 <= answer.status < 500, answer
                refused += 1

        async def large(wire: Wire) -> None:
            for _ in range(bodies):
                try:
                    answer = await wire.send("POST", "/auth/login", {"email": MEGABYTE, "password": MEGABYTE})
                except (OSError, EOFError):
                    continue
                assert answer.status == 413
            wire.close()

        async def work() -> int:
            served, mine, until = 0, one, time.monotonic() + STANDARD.access_for / 2
            while sent < requests:
                if time.monotonic() > until:
                    mine, until = await begin(node), time.monotonic() + STANDARD.access_for / 2
                for proof in (proof_of(mine), proof_of(cookie)):
                    answer = await honest.served("GET", "/auth/me", **proof)
                    assert answer.status == 200, answer
                    served += 1
                await asyncio.sleep(0.01)
            return served

        # What it takes to serve at all, and what limits and caches are allowed to hold, is there before.
        await asyncio.gather(*(attack(wire, requests // 3) for wire in attackers))
        before = [memory(node.pid) for node in ours.nodes]
        served, *_ = await asyncio.gather(
            work(), *(attack(wire, requests) for wire in attackers), *(large(wire) for wire in ours_of(attackers))
        )
        assert served >= requests // 300
        assert refused > requests * 0.8
        return {node.pid: memory(node.pid) - was for node, was in zip(ours.nodes, before, strict=True)}


def ours_of(wires: list[Wire]) -> list[Wire]:
    """One more connection to each node."""
    return [Wire(wire.port, public=f"{wire.scheme}://{wire.host}") for wire in wires[:3]]


@pytest.mark.parametrize("requests", [600, pytest.param(3_000, marks=pytest.mark.long)])
async def test_i24_garbage_at_every_door(several: Cluster, requests: int) -> None:
    """Forged and broken tokens, long ones, bodies of a megabyte, unknown paths: each is refused, and a client with a
    valid proof is served in between. No node's memory grows with it.
    """
    gained = await hostile(several, requests, max(1, requests // 1_000))
    assert max(gained.values()) < 20_000, gained


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_i24_a_million_of_them(tmp_path: Path) -> None:
    """The same, a million times."""
    with cluster(tmp_path / "cluster") as ours:
        gained = await hostile(ours, 1_000_000, 100)
        assert max(gained.values()) < 60_000, gained
