"""A sign-in, a check or a refresh that overlaps an end, in any order."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest
from msgspec.structs import replace
from tests.services.lives import ENDINGS, Ending, begin, beside, broken, dead, log_out, refused, stored, unlogged
from tests.standins import HOME, Clock, Gate, Interleaved, opened, proof_of

from dutchdoor.errors import NotAuthenticated
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.sessions import Session
from dutchdoor.services import starting as starts
from dutchdoor.services.presenting import SignedIn
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Discard, Swap


@pytest.mark.parametrize("mode", ["session", "hybrid", "jwt"])
@pytest.mark.parametrize("at", ["account", "commit"])
async def test_a_sign_in_that_overlaps_an_end_of_all(
    over: Authority, mode: Literal["session", "hybrid", "jwt"], at: str
) -> None:
    """`proof_epoch`: a proof from before everything was ended starts nothing, wherever the end overtook it."""
    gate = Gate(over.store, at)
    late = beside(over, gate)
    proof = await proof_of(over)
    starting = asyncio.create_task(late.start(proof, mode=mode, client=HOME))
    await gate.reached.wait()
    await over.end_all("alice", client=HOME, actor="alice", reason="password_changed")
    gate.open.set()
    with pytest.raises(NotAuthenticated):
        await starting
    assert await over.sessions("alice") == []


async def test_a_proof_is_not_freshened(over: Authority) -> None:
    """`proof_epoch`: a proof that waited through an end of all or a disabling is worth nothing."""
    proof = await proof_of(over)
    await over.end_all("alice", client=HOME, actor="alice")
    with pytest.raises(NotAuthenticated):
        await over.start(proof, mode="session", client=HOME)
    proof = await proof_of(over)
    await over.end_all("alice", client=HOME, actor="a", change=lambda a: replace(a, status="disabled"))
    with pytest.raises(NotAuthenticated):
        await over.start(proof, mode="session", client=HOME)
    with pytest.raises(NotAuthenticated):
        await over.start(await proof_of(over), mode="session", client=HOME)


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_sighting_does_not_revive(over: Authority, clock: Clock, ending: Ending) -> None:
    """I-02: a request that read the session before it ended and writes its sighting after cannot bring it back."""
    started = await begin(over, "session")
    clock.forward(61)
    gate = Gate(over.store, "commit", only=lambda *changes: isinstance(changes[0], Swap))
    seen = asyncio.create_task(beside(over, gate).resume(started.session_token))
    await gate.reached.wait()
    await ending(over, started)
    ended = await stored(over, started)
    gate.open.set()
    await refused(seen)
    assert await stored(over, started) == ended
    assert ended.ended_at is not None
    assert await dead(over, started)


AWAITS = [(method, after) for method in ("session", "commit", "select", "read_log") for after in (False, True)]
HELD = {
    "R2a": lambda first, second: (second, 1.0),
    "R2b": lambda first, second: (second, 900.0),
    "R3a": lambda first, second: (first, 1.0),
    "R3c": lambda first, second: (first, 900.0),
    "R6": lambda first, second: (first, -1.0),
}


@pytest.mark.parametrize("rule", ["R2a", "R2b", "R3a", "R3c"])
@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_refresh_that_overlaps_an_end(over: Authority, clock: Clock, rule: str, ending: Ending) -> None:
    """I-06, I-02: wherever an end overtakes a refresh, no token that the refresh then gives is accepted."""
    answered = 0
    for method, after in AWAITS:
        account = await over.store.account("alice")
        assert account is not None
        if not account.active:
            await over.store.commit(Swap(replace(account, status="active")))
        started = await begin(over)
        clock.forward(900)
        second = await over.refresh(started.refresh_token, HOME)
        presented, wait = HELD[rule](started.refresh_token, second.refresh_token)
        clock.forward(wait)
        gate = Gate(over.store, method, after=after)
        refreshing = asyncio.create_task(beside(over, gate).refresh(presented, HOME))
        reached = asyncio.create_task(gate.reached.wait())
        await asyncio.wait([refreshing, reached], return_when=asyncio.FIRST_COMPLETED)
        await ending(over, second)
        gate.open.set()
        reached.cancel()
        try:
            answer = await refreshing
        except NotAuthenticated:
            pass
        else:
            answered += 1
            assert await dead(over, answer), (method, after)
        assert await dead(over, second)
        assert (await stored(over, second)).ended_at is not None
    assert answered, "the race was never lost by the end: the schedule tests nothing"


@pytest.mark.parametrize("seed", range(10))
async def test_refreshes_and_an_end_in_any_order(over: Authority, clock: Clock, seed: int) -> None:
    """I-06: a crowd of refreshes with an end among them: what any of them gave is dead when the end has returned."""
    started = await begin(over)
    clock.forward(900)
    crowded = beside(over, Interleaved(over.store, seed=seed, most=12))
    given: list[SignedIn] = []

    async def refresh() -> None:
        with suppress(NotAuthenticated):
            given.append(await crowded.refresh(started.refresh_token, HOME))

    async def end() -> None:
        await asyncio.sleep(0)
        await log_out(crowded, started)

    await asyncio.gather(*(refresh() for _ in range(8)), end(), *(refresh() for _ in range(8)))
    for answer in given:
        assert await dead(over, answer)
    assert await dead(over, started)


class Forgetful:
    """A store under which swaps ignore the revision and the end of a session: what every race above relies on."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def commit(self, *changes: Any) -> Any:
        for change in changes:
            if isinstance(change, Swap) and isinstance(change.record, Session):
                memory = self.inner._inner._inner
                stored = memory._sessions.rows[change.record.id,]
                memory._sessions.rows[change.record.id,] = replace(change.record, revision=stored.revision + 1)
                memory._live[change.record.subject][change.record.id] = None
        rest = [c for c in changes if not (isinstance(c, Swap) and isinstance(c.record, Session))]
        return await self.inner.commit(*rest)


async def test_lost_updates_are_noticed(tmp_path: Path, clock: Clock) -> None:
    """The races can fail: over a store whose swap is unconditional, an end is undone by who read before it."""
    async with opened("memory", tmp_path, clock) as over:
        over.store = Forgetful(over.store)  # type: ignore[assignment]
        await broken(test_a_sighting_does_not_revive(over, clock, log_out))
        await broken(test_a_refresh_that_overlaps_an_end(over, clock, "R2b", log_out))


async def test_an_unlogged_end_is_noticed(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The races can fail: were an end written without its entry in the log, access tokens would outlive it."""
    async with opened("memory", tmp_path, clock) as over:
        monkeypatch.setattr(Authority, "_revoking", unlogged)
        for rule in ("R2a", "R3a"):
            await broken(test_a_refresh_that_overlaps_an_end(over, clock, rule, log_out))


async def test_a_freshened_proof_is_noticed(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """`proof_epoch` can fail: an authority that starts without expecting the proof's epoch is found out."""
    monkeypatch.setattr(
        starts, "Expect", lambda subject, epoch: Discard(OneTimeToken, {"subject": subject, "purpose": "setup"})
    )
    async with opened("memory", tmp_path, clock) as over:
        await broken(test_a_sign_in_that_overlaps_an_end_of_all(over, "session", "commit"))
