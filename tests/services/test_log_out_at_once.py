"""Fifty log-outs of one account at once: a late one finds that all is revoked, and reports that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.backing import new_database
from tests.standins import HOME, Clock, Gate, Interleaved, authority, make, proof_of

from dutchdoor.errors import InvalidToken
from dutchdoor.revocation.log import COALESCE_ABOVE, RevocationLog
from dutchdoor.services.presenting import SignedIn
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Revoked
from dutchdoor.stores.postgres import PostgresStore
from dutchdoor.testing.conformance import the_log

AT_ONCE = 50


@pytest.fixture(params=[pytest.param("memory", marks=pytest.mark.long), "sqlite", "postgres"])
async def nodes(request: pytest.FixtureRequest, tmp_path: Path, patience: None) -> AsyncIterator[list[Authority]]:
    """Two nodes over one store, each call of which may be overtaken; the account is `alice`."""
    with ExitStack() as stack:
        store = PostgresStore(stack.enter_context(new_database())) if request.param == "postgres" else None
        made = authority(store or make(request.param, tmp_path), Clock())
        await made.open()
        await made.provide("alice")
        yield [made, *(authority(Interleaved(made.store, seed), made.clock) for seed in range(2))]  # type: ignore[arg-type]
        await made.close()


async def begin(over: Authority, mode: str = "hybrid") -> SignedIn:
    return await over.start(await proof_of(over), mode=mode, client=HOME)  # type: ignore[arg-type]


async def are_ended(over: Authority, *tokens: str) -> bool:
    """Ask a node that begins now: one that is there already may have a lease, for which only a fence waits."""
    node = authority(over.store, over.clock)  # type: ignore[arg-type]
    try:
        for token in tokens:
            with pytest.raises(InvalidToken):
                await node.verify(token)
    finally:
        await node.fencing.close()
    return True


async def test_logging_out_everywhere(nodes: list[Authority]) -> None:
    """Fifty times at once: each succeeds, behind a fence that covers the ending; every token is refused."""
    over, *others = nodes
    held = [await begin(over, mode) for mode in ("hybrid", "session", "jwt", "hybrid")]
    done = await asyncio.gather(*(others[n % 2].end_all("alice", client=HOME, actor="alice") for n in range(AT_ONCE)))
    assert await over.sessions("alice") == []
    assert await are_ended(over, *(one.access_token for one in held if one.access_token))
    assert sum(one.count for one in done) == 3
    first = min(one.seq for one in done)
    assert all(one.seq >= first >= 1 and one.log_epoch == done[0].log_epoch for one in done)


@pytest.mark.parametrize("ended_before", [pytest.param(0, marks=pytest.mark.long), COALESCE_ABOVE])
async def test_ending_each_session(nodes: list[Authority], ended_before: int) -> None:
    """Fifty sessions, each ended by a call of its own, at once: all of them end, though one entry covers many."""
    over, *others = nodes
    for _ in range(ended_before):
        await end(over, await begin(over))
    held = [await begin(over) for _ in range(AT_ONCE)]
    done = await asyncio.gather(*(end(others[n % 2], one) for n, one in enumerate(held)))
    assert [one.count for one in done] == [1] * AT_ONCE
    assert await over.sessions("alice") == []
    assert await are_ended(over, *(one.access_token for one in held))


async def end(over: Authority, one: SignedIn) -> Revoked:
    assert one.session is not None
    return await over.end(one.session.id, client=HOME, actor="alice")


@pytest.mark.parametrize("ended_before", [pytest.param(0, marks=pytest.mark.long), COALESCE_ABOVE])
async def test_ending_the_other_sessions(nodes: list[Authority], ended_before: int) -> None:
    """Fifty sessions, each of which ends all others, at once: one is left at most, and none has to be repeated."""
    over, *others = nodes
    for _ in range(ended_before):
        await end(over, await begin(over))
    held = [await begin(over) for _ in range(AT_ONCE)]
    done = await asyncio.gather(
        *(others[n % 2].end_others("alice", one.session.id, client=HOME) for n, one in enumerate(held) if one.session)
    )
    assert len(await over.sessions("alice")) <= 1
    assert sum(one.count for one in done) >= AT_ONCE - 1


@pytest.mark.parametrize("ended_before", [pytest.param(0, marks=pytest.mark.long), COALESCE_ABOVE])
async def test_ending_stateless_tokens(nodes: list[Authority], ended_before: int) -> None:
    """Fifty stateless tokens, each logged out by a call of its own, at once: all of them end."""
    over, *others = nodes
    for _ in range(ended_before):
        await end(over, await begin(over))
    held = [await over.claims((await begin(over, "jwt")).access_token) for _ in range(AT_ONCE)]
    done = await asyncio.gather(*(others[n % 2].end_named(one, client=HOME) for n, one in enumerate(held)))
    log = RevocationLog((await over.store.read_log(0, 0)).salt)
    log.apply(await the_log(over.store))
    assert all(log.covering_token(one) for one in held)
    assert all(one.seq >= 1 for one in done)


async def test_a_log_out_that_a_restore_overtook(nodes: list[Authority]) -> None:
    """An epoch that rose with a new log has ended nothing: a log-out everywhere still works then."""
    over, *_ = nodes
    token = (await begin(over, "jwt")).access_token
    gate = Gate(over.store, "commit")
    ending = asyncio.create_task(
        authority(gate, over.clock).end_all("alice", client=HOME, actor="alice")  # type: ignore[arg-type]
    )
    await gate.reached.wait()
    await over.store.begin_log_epoch(over.clock())
    gate.open.set()
    assert (await ending).seq == 1
    assert await are_ended(over, token)
