"""A standby that lagged is promoted under three nodes at work (I-15): it lacks revocations that were acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tests.backing import PASSWORD, Postgres, a_postgres, a_standby
from tests.faults.client import Wire
from tests.faults.cluster import HERE, Cluster, begin, cluster
from tests.faults.test_nodes import fenced, proof_of

from dutchdoor.errors import NotAuthenticated
from dutchdoor.services.presenting import SignedIn
from dutchdoor.services.reapplying import Reapplying

BACK_WITHIN = 60.0
"""Seconds: a node that is not back by then is not coming. How long it takes is reported, and not asserted."""


@contextlib.contextmanager
def replicated(folder: Path, primary: Postgres, standby: Postgres, **more: str) -> Iterator[Cluster]:
    """Three nodes that know two servers, the primary and its standby."""
    hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    # Without TLS: the driver complains to the loop where a server goes away while it asks for it.
    both = f"postgresql://postgres:{PASSWORD}@{hosts}/postgres?sslmode=disable"
    with cluster(folder, database=primary.url(), start=False, lease="2s", **more) as ours:
        ours.database = both
        for node in ours.nodes:
            node.environment["DUTCHDOOR_DATABASE"] = both
        ours.start()
        yield ours


async def status(wire: Wire, held: SignedIn) -> int:
    """What a node says of a cookie or an access token; 0 for nothing."""
    try:
        return (await wire.send("GET", "/auth/me", **proof_of(held))).status
    except (OSError, EOFError, TimeoutError):
        return 0


async def refreshing(wire: Wire, held: SignedIn) -> int:
    try:
        return (await wire.send("POST", "/auth/refresh", {"refresh_token": held.refresh_token})).status
    except (OSError, EOFError, TimeoutError):
        return 0


async def promoted(primary: Postgres, standby: Postgres) -> float:
    """Lose the primary, and let the standby take its place. Gives when it did."""
    await asyncio.to_thread(primary.kill)
    await asyncio.to_thread(standby.promote)
    return time.monotonic()


async def decided(ask: Callable[[Wire, SignedIn], Awaitable[int]], wire: Wire, held: SignedIn) -> int:
    """What a node says when it can say anything: a busy machine's database may be out of reach for a moment."""
    async with asyncio.timeout(BACK_WITHIN):
        while (said := await ask(wire, held)) in {0, 503}:
            await asyncio.sleep(0.05)
    return said


async def all_refuse(wires: list[Wire], held: list[SignedIn]) -> None:
    for wire in wires:
        for one in held:
            assert await decided(status, wire, one) == 401


async def in_use(wire: Wire, dead: list[SignedIn], over: asyncio.Event) -> set[int]:
    """Use what has ended at one node, again and again. Gives what it said."""
    said = set[int]()
    while not over.is_set():
        for one in dead:
            said.add(await status(wire, one))
            if one.refresh_token:
                said.add(await refreshing(wire, one))
        await asyncio.sleep(0.02)
    return said


async def back(wire: Wire, held: SignedIn) -> float:
    """When a node serves again what needs the database."""
    async with asyncio.timeout(BACK_WITHIN):
        while await refreshing(wire, held) != 200:
            await asyncio.sleep(0.02)
    return time.monotonic()


async def lose_and_judge(ours: Cluster, primary: Postgres, standby: Postgres) -> list[float]:
    """Sign in, let the standby lag, sign out, promote it: nothing that was refused is accepted. Gives the seconds in
    which each node was back.
    """
    async with ours.beside() as node, ours.wires(3) as wires, ours.wires(3) as others:
        cookie, stateless = await begin(node, mode="session"), await begin(node, mode="jwt")
        everywhere, hybrid, *living = [await begin(node) for _ in range(5)]
        all_cookies = await begin(node, mode="session")
        for wire in wires:
            for one in (cookie, all_cookies, hybrid, everywhere, stateless, *living):
                assert await decided(status, wire, one) == 200
        standby.catch_up(primary)
        standby.lag()
        await fenced(node, await node.authority.end(cookie.session.id, client=HERE, actor="cli"))
        answer = await wires[1].served(
            "POST", "/auth/logout", {"refresh_token": hybrid.refresh_token}, headers=[("Prefer", "wait=20")]
        )
        assert answer.json["fenced"]
        for one in (all_cookies, everywhere, stateless):
            await fenced(node, await node.authority.end_all(one.account.subject, client=HERE, actor="cli"))
        unknown = await begin(node, mode="session")
        dead = [cookie, all_cookies, hybrid, everywhere, stateless]
        await all_refuse(wires, dead)
        over = asyncio.Event()
        using = [asyncio.create_task(in_use(wire, dead, over)) for wire in wires]
        lost_at = await promoted(primary, standby)
        back_at = await asyncio.gather(*map(back, others, living))
        lost = ", ".join(f"'{one.account.subject}'" for one in dead)
        ended_again = (
            "SELECT count(*) FROM dutchdoor.sessions s JOIN dutchdoor.accounts a ON a.number = s.account "
            f"WHERE s.end_reason = 'ended_again' AND a.subject IN ({lost})"
        )
        async with asyncio.timeout(BACK_WITHIN):
            while await asyncio.to_thread(standby.sql, ended_again) != "4":
                await asyncio.sleep(0.05)
            over.set()
            answers = await asyncio.gather(*using)
        assert all(said <= {401, 429, 503, 0} for said in answers), answers
        assert all(401 in said for said in answers), "nothing was refused: nothing was tested"
        # In the database too: what a node that starts anew believes.
        async with ours.beside() as anew:
            for one in [*dead, unknown]:
                with pytest.raises(NotAuthenticated):
                    await (
                        anew.authority.verify(one.access_token)
                        if one.access_token
                        else anew.authority.resume(one.session_token)
                    )
            for one in (hybrid, everywhere):
                with pytest.raises(NotAuthenticated):
                    await anew.authority.refresh(one.refresh_token, HERE)
        async with ours.wires(3) as fresh:
            await all_refuse(fresh, [*dead, unknown])
            for wire in fresh:
                for one in (hybrid, everywhere):
                    assert await decided(refreshing, wire, one) == 401
            # A new log-out is fenced, and true.
            later = await begin(node)
            for wire in fresh:
                assert await decided(status, wire, later) == 200
            await fenced(node, await node.authority.end(later.session.id, client=HERE, actor="cli"))
            await all_refuse(fresh, [later])
        return [at - lost_at for at in back_at]


def epochs(server: Postgres) -> tuple[int, int]:
    begun, epoch = server.sql("SELECT begun, epoch FROM dutchdoor.lineage").split("|")
    return int(begun), int(epoch)


@pytest.mark.long
async def test_i15_a_standby_that_lagged_is_promoted(tmp_path: Path) -> None:
    """Log-outs that were acknowledged and fenced, and that the promoted standby lacks, hold at every node meanwhile,
    and afterwards in the database too: for cookies, access tokens, refresh tokens, and all of a person. Nodes come back
    by themselves, one new log begins, and new fences are true.
    """
    with (
        a_postgres() as primary,
        a_standby(primary) as standby,
        replicated(tmp_path / "cluster", primary, standby) as ours,
    ):
        took = await lose_and_judge(ours, primary, standby)
        print("served again after", [round(one, 2) for one in took])
        assert epochs(standby)[0] == 1
        assert sum(len(re.findall(r"revocation log \d+ begins", node.said)) for node in ours.nodes) >= 3


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_i15_one_promotion_after_the_other(tmp_path: Path) -> None:
    """The same again and again, each time to a standby of the one that was promoted last."""
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(a_postgres())
        for n in range(4):
            standby = stack.enter_context(a_standby(primary))
            with replicated(tmp_path / "cluster", primary, standby) as ours:
                took = await lose_and_judge(ours, primary, standby)
            print("served again after", [round(one, 2) for one in took])
            assert epochs(standby)[0] == n + 1
            primary = standby


BROKEN = {
    "nothing is revoked again": "from dutchdoor.services.reapplying import Reapplying as r; r._known = lambda self: {}",
    "the store is believed": """
import asyncio
from dutchdoor.services.reapplying import Reapplying
Reapplying.session = lambda self, id: self._inner.session(id)
tries = Reapplying._revoke_again
async def later(self, lost, now):
    await asyncio.sleep(2)
    await tries(self, lost, now)
Reapplying._revoke_again = later
""",
    "the timeline is not asked for": "",
}


@pytest.mark.soak
@pytest.mark.parametrize("broken", BROKEN)
async def test_a_promotion_that_is_not_met_is_noticed(
    tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judgement can fail: each part is taken out, in every process, and found missing."""
    for name in ("_known", "session", "_revoke_again"):
        monkeypatch.setattr(Reapplying, name, getattr(Reapplying, name))
    exec(BROKEN[broken], {})  # in this process too; it is undone
    with (
        a_postgres() as primary,
        a_standby(primary) as standby,
        replicated(tmp_path / "cluster", primary, standby, broken=BROKEN[broken]) as ours,
    ):
        if not BROKEN[broken]:
            nothing = (
                "(whole boolean, known bigint) RETURNS SETOF bigint LANGUAGE sql AS 'SELECT 0::bigint WHERE false'"
            )
            primary.sql(f"CREATE OR REPLACE FUNCTION dutchdoor.attend_1{nothing}")
        with pytest.raises((AssertionError, TimeoutError)) as noticed:
            await lose_and_judge(ours, primary, standby)
        print(broken, "->", repr(noticed.value)[:300])
