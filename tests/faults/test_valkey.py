"""Valkey emptied, gone, and back from the past (I-14, I-15), under three nodes at work."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest
import redis
from tests.backing import Valkey, a_valkey, new_database
from tests.faults.cluster import HERE, Cluster, begin, cluster
from tests.faults.test_nodes import address, at_once, ends_hold, guess, judge, proof_of, register

from dutchdoor.model.rate_limits import DEFAULT_LIMITS


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """Three nodes, and the Valkey beside their database."""
    folder = tmp_path_factory.mktemp("valkey")
    with new_database() as url, a_valkey() as valkey, cluster(folder, database=url, redis=valkey.url) as ours:
        yield ours, valkey


async def test_i14_emptied_under_load(beside: tuple[Cluster, Valkey]) -> None:
    """FLUSHALL again and again, while sessions are used and ended on every node: nothing that ended is accepted, nobody
    is logged out, and no answer says that anything is wrong.
    """
    ours, valkey = beside
    over = False

    def empty() -> int:
        with redis.Redis.from_url(valkey.url) as client:
            times = 0
            while not over:
                client.flushall()
                times += 1
                time.sleep(0.02)
            return times

    emptying = asyncio.create_task(asyncio.to_thread(empty))
    history = await ends_hold(ours, ends=30, askers=9, seed=14)
    over = True
    assert await emptying > 10
    judge(history, 30)
    assert Counter(each.status for each in history.operations)[503] == 0


async def test_i15_valkey_from_before_a_log_out(beside: tuple[Cluster, Valkey]) -> None:
    """A Valkey as it was before a log-out, as a replica that lagged and was promoted is: what ended is refused by every
    node.
    """
    ours, valkey = beside
    async with ours.beside() as node, ours.wires(6) as wires:
        held = [await begin(node, mode=mode) for mode in ("session", "hybrid") for _ in range(3)]
        for wire in wires:
            for one in held:
                assert (await wire.send("GET", "/auth/me", **proof_of(one))).status == 200
        await asyncio.sleep(0.3)  # copies are written behind the answer
        with redis.Redis.from_url(valkey.url) as client:
            before = {key: client.dump(key) for key in client.scan_iter()}
            assert before, "no copy was made: nothing is tested"
            for one in held:
                if one.refresh_token:
                    body = {"refresh_token": one.refresh_token}
                    answer = await wires[0].send("POST", "/auth/logout", body, headers=[("Prefer", "wait=20")])
                    assert answer.status == 200
                else:
                    done = await node.authority.end_all(one.account.subject, client=HERE, actor="cli")
                    assert (await node.authority.fencing.fence(done, wait=20.0)).fenced
            client.flushall()
            for key, value in before.items():
                client.restore(key, 0, value)
        for node_ in ours.nodes[1:]:
            node_.stop()
            node_.start()  # with nothing in memory but what Valkey says
        async with ours.wires(3) as fresh:
            for wire in fresh:
                for one in held:
                    assert (await wire.send("GET", "/auth/me", **proof_of(one))).status == 401


async def test_i14_no_ceiling_is_lifted(beside: tuple[Cluster, Valkey]) -> None:
    """Whoever empties Valkey between two rounds of guessing gets a burst more each time, and not one guess above the
    ceiling of guesses in a row.
    """
    email, looked_at = address(), 0
    ours, valkey = beside
    await register(ours, email)
    for _ in range(9):
        looked_at += (await at_once(ours, 12, guess(email))).count(401)
        with redis.Redis.from_url(valkey.url) as client:
            client.flushall()
    assert looked_at == DEFAULT_LIMITS.strangers_in_a_row.burst


async def test_i16_without_valkey_credentials_wait_and_sessions_do_not(beside: tuple[Cluster, Valkey]) -> None:
    """With Valkey gone, signing in is 503 with Retry-After, since nobody counts; sessions and tokens are checked and
    refreshed as before. When it is back, signing in works, without a restart.
    """
    ours, _ = beside
    email = address()
    await register(ours, email)
    login = {"email": email, "password": "a wrong password"}
    async with ours.nodes_beside() as (node, then), ours.wires(3) as wires:
        held = [await begin(node, mode="session"), await begin(node)]
        old = [await begin(then) for _ in wires]
        for link in ours.to_redis():
            link.hold()
        for wire, one in zip(wires, old, strict=True):
            for _ in range(5):
                for each in held:
                    assert (await wire.send("GET", "/auth/me", **proof_of(each))).status == 200
            assert (await wire.send("POST", "/auth/refresh", {"refresh_token": one.refresh_token})).status == 200
            answer = await wire.send("POST", "/auth/login", login)
            assert answer.status == 503
            assert int(answer.header("retry-after") or "") >= 1
        ours.heal()
        for wire in wires:
            async with asyncio.timeout(5):
                while (await wire.send("POST", "/auth/login", login)).status == 503:
                    await asyncio.sleep(0.05)
