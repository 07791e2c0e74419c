"""Refreshing a session: what each token of its past does, and that clients at once converge."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.services.lives import begin, beside, dead, refused, stored
from tests.standins import HOME, MASTER, THIEF, Broken, Clock, Interleaved, Wrapped, opened

from dutchdoor.errors import InvalidToken, Superseded, Unavailable
from dutchdoor.model.policy import STANDARD
from dutchdoor.model.refresh_tokens import RefreshToken, mint
from dutchdoor.services.sessions import Authority

W = STANDARD.refresh_window


async def test_what_a_cookie_jar_is_sent(over: Authority, clock: Clock) -> None:
    """R2a gives what the client holds and sets nothing; R2b, R3a and R3c give another token and set it."""
    first = (await begin(over)).refresh_token
    again = await over.refresh(first, HOME)
    assert (again.refresh_token, again.rotated) == (first, False)
    clock.forward(900)
    second = await over.refresh(first, HOME)
    assert (second.refresh_token != first, second.rotated) == (True, True)
    clock.forward(1)
    lost = await over.refresh(first, HOME)
    assert (lost.refresh_token, lost.rotated) == (second.refresh_token, True)
    clock.forward(900)
    sibling = await over.refresh(first, HOME)
    assert (sibling.refresh_token not in {first, second.refresh_token}, sibling.rotated) == (True, True)
    assert len(await over.store.events(name="refresh_replayed")) == 1


class Slow(Wrapped):
    """A store, or a process that is stopped while it waits for one: each look-up of a session takes seconds."""

    def __init__(self, inner: Any, clock: Clock) -> None:
        super().__init__(inner)
        self.clock = clock

    async def session(self, session_id: str) -> Any:
        found = await self.inner.session(session_id)
        self.clock.forward(5)
        return found


async def test_what_is_signed_counts_from_the_read(over: Authority, clock: Clock) -> None:
    """A refresh that writes nothing signs for as long as its session was known to live, and not from when the answer
    came: a log-out in between is kept in the log for what was signed before it.
    """
    first = await begin(over)
    late = beside(over, Slow(over.store, clock))
    await late.fencing.open()
    read_at = clock()
    again = await late.refresh(first.refresh_token, HOME)
    assert not again.rotated
    claims = await over.claims(again.access_token)
    assert (claims.iat, claims.exp) == (int(read_at), int(read_at + STANDARD.access_for))
    await late.fencing.close()


async def test_two_generations_old(over: Authority, clock: Clock) -> None:
    """R5 and R6: a grandparent inside the window is superseded and ends nothing; outside it is theft."""
    first = (await begin(over)).refresh_token
    clock.forward(900)
    second = (await over.refresh(first, HOME)).refresh_token
    clock.forward(900)
    third = await over.refresh(second, HOME)
    with pytest.raises(Superseded):
        await over.refresh(first, HOME)
    await over.refresh(third.refresh_token, HOME)
    clock.forward(W + 1)
    assert await refused(over.refresh(first, HOME))
    assert await dead(over, third)
    (theft,) = await over.store.events(name="refresh_theft")
    assert (theft.detail, theft.outcome) == ("R6", "refused")


async def test_another_client_ends_nothing(over: Authority, clock: Clock) -> None:
    """R1, O04: a token presented by a client it was not given to is refused, is an event, and lives on for its own."""
    started = await begin(over)
    clock.forward(900)
    with pytest.raises(InvalidToken):
        await over.refresh(started.refresh_token, HOME, client_id="other")
    (event,) = await over.store.events(name="refresh_wrong_client")
    assert event.outcome == "refused"
    await over.refresh(started.refresh_token, HOME)


async def test_a_bad_tag_changes_nothing(over: Authority, clock: Clock) -> None:
    """R0: a forged token for a session that exists, of whichever generation, is refused before it can end anything."""
    started = await begin(over)
    row = await stored(over, started)
    clock.forward(900)
    for generation in (0, 1, 7):
        genuine = RefreshToken.parse(mint(MASTER.current, replace(row, salt=b"x" * 16), generation, 0))
        forged = mint(MASTER.current, replace(row, salt=b"x" * 16), generation, 0)
        assert genuine.session_id == row.id
        with pytest.raises(InvalidToken):
            await over.refresh(forged, THIEF)
    assert await stored(over, started) == row
    assert await over.store.events(name="refresh_theft") == []


async def test_an_impossible_token_ends_the_session(over: Authority, clock: Clock) -> None:
    """R7: a genuine token newer than any we issued can come from a leaked key only: the session ends, critically."""
    started = await begin(over)
    future = mint(MASTER.current, await stored(over, started), 5, 0)
    assert await refused(over.refresh(future, HOME))
    assert await dead(over, started)
    assert (await stored(over, started)).end_reason == "impossible_token"
    assert len(await over.store.events(name="refresh_impossible")) == 1


async def test_after_a_restore_a_newer_token_is_no_alarm(tmp_path: Path, clock: Clock) -> None:
    """R7: a client that refreshed after the backup holds a newer token than the row. Its session ends without an alarm,
    and one that did not refresh goes on; for a row that was written since the restore it is an alarm again.
    """
    async with opened("sqlite", tmp_path, clock) as over:  # memory is never restored
        lost, kept = await begin(over), await begin(over)
        future = mint(MASTER.current, await stored(over, lost), 5, 0)
        clock.forward(900)
        await over.store.begin_log_epoch(clock())
        clock.forward(60)
        assert await refused(over.refresh(future, HOME))
        assert (await stored(over, lost)).end_reason == "lost_in_restore"
        assert await over.store.events(name="refresh_impossible") == []
        (ended,) = await over.store.events(name="session_ended")
        assert ended.detail == "lost_in_restore"
        again = await over.refresh(kept.refresh_token, HOME)
        assert await refused(over.refresh(mint(MASTER.current, await stored(over, again), 5, 0), HOME))
        assert len(await over.store.events(name="refresh_impossible")) == 1


@pytest.mark.parametrize("all_of_them", [False, True])
async def test_a_theft_ends_one_session_or_all(kind: str, tmp_path: Path, clock: Clock, all_of_them: bool) -> None:
    """I-08: a proven theft ends its own session, the others of its account by choice, and never those of another
    account.
    """
    async with opened(kind, tmp_path, clock, replace(STANDARD, theft_ends_all=all_of_them)) as over:
        await over.provide("bob")
        stolen, other, bobs = await begin(over), await begin(over), await begin(over, subject="bob")
        clock.forward(900)
        await over.refresh(stolen.refresh_token, HOME)
        clock.forward(900)
        assert await refused(over.refresh(stolen.refresh_token, THIEF))
        assert await dead(over, stolen)
        assert await refused(over.refresh(other.refresh_token, HOME)) is all_of_them
        assert not await refused(over.refresh(bobs.refresh_token, HOME))
        if all_of_them:
            assert await refused(over.verify(other.access_token))


@pytest.mark.parametrize("crowd", [2, 8, 64])
async def test_refreshes_at_once_converge(over: Authority, clock: Clock, crowd: int) -> None:
    """I-05: however many tabs refresh in one moment, all are answered with the same token, one generation on."""
    started = await begin(over)
    clock.forward(900)
    crowded = beside(over, Interleaved(over.store, seed=crowd))
    answers = await asyncio.gather(*(crowded.refresh(started.refresh_token, HOME) for _ in range(crowd)))
    assert len({answer.refresh_token for answer in answers}) == 1
    assert (await stored(over, started)).generation == 1
    for answer in answers:
        await over.verify(answer.access_token)


async def test_siblings_at_once_converge(over: Authority, clock: Clock) -> None:
    """I-05: a crowd that presents a parent whose answer was lost gets one sibling, not one each."""
    started = await begin(over)
    clock.forward(900)
    await over.refresh(started.refresh_token, HOME)
    clock.forward(900)
    crowded = beside(over, Interleaved(over.store, seed=1))
    answers = await asyncio.gather(*(crowded.refresh(started.refresh_token, HOME) for _ in range(16)))
    assert len({answer.refresh_token for answer in answers}) == 1
    assert (await stored(over, started)).sibling == 1


async def test_a_refresh_whose_answer_was_lost_is_retried(over: Authority, clock: Clock) -> None:
    """O02, I-04: committed and never answered, or never committed: the same token again succeeds either way."""
    for how in ("lost", "unknown"):
        started = await begin(over)
        clock.forward(900)
        with pytest.raises(Unavailable):
            await beside(over, Broken(over.store, at=0, how=how)).refresh(started.refresh_token, HOME)
        clock.forward(5)
        retried = await over.refresh(started.refresh_token, HOME)
        clock.forward(900)
        await over.refresh(retried.refresh_token, HOME)
    assert await over.store.events(name="refresh_theft") == []
