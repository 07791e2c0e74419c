"""How a session starts, what it shows of itself while it lives, and when it ends by itself."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest
from msgspec.structs import replace
from tests.services.lives import begin, beside, dead, refused, stored
from tests.standins import HOME, MASTER, T0, Broken, Clock

from dutchdoor.errors import InvalidToken, Unavailable
from dutchdoor.model.accounts import with_roles
from dutchdoor.model.ids import new_id
from dutchdoor.model.policy import STANDARD
from dutchdoor.model.refresh_tokens import mint
from dutchdoor.model.sessions import SessionToken
from dutchdoor.revocation.log import COALESCE_ABOVE
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Swap


@pytest.mark.parametrize("mode", ["session", "hybrid", "jwt"])
async def test_each_pattern_starts_and_is_checked(over: Authority, mode: Literal["session", "hybrid", "jwt"]) -> None:
    """Whichever pattern presents it, the principal is whose proof it was, with the time of that proof."""
    started = await begin(over, mode, scope="read")
    principals = []
    if started.session_token:
        principals.append((await over.resume(started.session_token)).principal)
    if started.access_token:
        principals.append(await over.verify(started.access_token))
    assert len(principals) == 1
    for principal in principals:
        assert (principal.subject, principal.scope, principal.auth_time) == ("alice", "read", T0)
    assert (started.session is None) is (mode == "jwt")
    assert bool(started.refresh_token) is (mode == "hybrid")


async def test_a_sign_in_that_loses_a_race_begins_again_from_its_proof(over: Authority) -> None:
    """A sign-in that folds the subject's revocations raises the epoch. If it then loses a race, nothing was written,
    and its second attempt starts from the epoch of the proof.
    """
    old = await begin(over)
    for _ in range(COALESCE_ABOVE):
        ending = await begin(over)
        await over.end(ending.session.id, client=HOME, actor="alice")  # type: ignore[union-attr]
    losing = beside(over, Broken(over.store, at=0, how="conflict"))
    assert old.session is not None
    renewed = await begin(losing, replacing=[(old.session, old.account)])
    assert await dead(over, old)
    assert not await refused(over.refresh(renewed.refresh_token, HOME))


async def test_parallel_sign_ins_share_nothing(over: Authority) -> None:
    """I-19: fifty sign-ins at once have fifty ids and fifty secrets."""
    started = await asyncio.gather(*(begin(over, mode) for mode in ("session", "hybrid") * 25))  # type: ignore[arg-type]
    assert len({one.session.id for one in started if one.session}) == 50
    assert len({one.session_token or one.refresh_token for one in started}) == 50
    assert len(await over.sessions("alice")) == 50


async def test_an_id_of_the_clients_choice_is_not_adopted(over: Authority) -> None:
    """S03: a well-formed token that we did not make is unknown, stays unknown, and leaves no row."""
    before = await over.store.counts()
    chosen = SessionToken.mint(new_id())
    row = replace(await stored(over, await begin(over)), id=chosen.id)
    for _ in range(2):
        with pytest.raises(InvalidToken):
            await over.resume(chosen.text())
        with pytest.raises(InvalidToken):
            await over.refresh(mint(MASTER.current, row, 0, 0), HOME)
    assert await over.store.session(chosen.id) is None
    assert (await over.store.counts())["sessions"] == before["sessions"] + 1


async def test_one_kind_of_token_is_not_another(over: Authority) -> None:
    """C20: a session, refresh or access token where another is expected is an invalid token, and changes nothing."""
    session, hybrid = await begin(over, "session"), await begin(over)
    for text in (hybrid.refresh_token, hybrid.access_token, "", "x", "dds1_", session.session_token[:-1]):
        with pytest.raises(InvalidToken):
            await over.resume(text)
    for text in (session.session_token, hybrid.access_token, "", "ddr1_"):
        with pytest.raises(InvalidToken):
            await over.refresh(text, HOME)
    for text in (session.session_token, hybrid.refresh_token, "", "a.b.c"):
        with pytest.raises(InvalidToken):
            await over.verify(text)
    # A hybrid session has no secret: an empty hash must match none.
    assert hybrid.session is not None
    with pytest.raises(InvalidToken):
        await over.resume(SessionToken.mint(hybrid.session.id).text())
    assert not await dead(over, session)
    assert not await dead(over, hybrid)


async def test_idle_and_absolute_expiry(over: Authority, clock: Clock) -> None:
    """S04, O03: unused for too long, or too old however busy, a session is refused to the instant."""
    idle = await begin(over, "session")
    clock.now = T0 + STANDARD.idle_for - 0.01
    await over.resume(idle.session_token)
    clock.now += STANDARD.idle_for
    assert await refused(over.resume(idle.session_token))

    clock.now = T0 + 1000
    busy, hybrid = await begin(over, "session"), await begin(over)
    token, absolute = hybrid.refresh_token, clock() + STANDARD.absolute_for
    while clock() + 86_400 < absolute:
        clock.forward(86_400)
        await over.resume(busy.session_token)
        answer = await over.refresh(token, HOME)
        token = answer.refresh_token
        assert answer.session is not None
        assert answer.session.expires_at == absolute
    clock.now = absolute - 1
    last = await over.refresh(token, HOME)
    assert last.expires_in <= 1, "no access token outlives its session"
    await over.resume(busy.session_token)
    clock.now = absolute
    assert await refused(over.resume(busy.session_token))
    assert await refused(over.refresh(last.refresh_token, HOME))


async def test_being_seen_is_written_once_a_minute(over: Authority, clock: Clock) -> None:
    """A session in use is written at a bounded rate, by whichever of many requests at once."""
    started = await begin(over, "session")
    revision = (await stored(over, started)).revision
    clock.forward(61)
    await asyncio.gather(*(over.resume(started.session_token) for _ in range(20)))
    assert (await stored(over, started)).revision == revision + 1
    clock.forward(30)
    await over.resume(started.session_token)
    assert (await stored(over, started)).revision == revision + 1


async def test_a_store_out_of_reach_is_not_signed_out(over: Authority, clock: Clock) -> None:
    """P02: an outage is reported as one: no one has to sign in again because a disk is full."""
    session, hybrid = await begin(over, "session"), await begin(over)
    clock.forward(STANDARD.access_for)
    for how in ("lost", "unknown"):
        with pytest.raises(Unavailable):
            await beside(over, Broken(over.store, at=0, how=how)).refresh(hybrid.refresh_token, HOME)
        with pytest.raises(Unavailable):
            await beside(over, Broken(over.store, at=0, how=how)).resume(session.session_token)
        clock.forward(61)
    await over.resume(session.session_token)
    await over.refresh(hybrid.refresh_token, HOME)


async def test_a_role_taken_away_is_gone(over: Authority, clock: Clock) -> None:
    """I-20: after a change of roles the next request sees it, by a session or by an access token, which is stale."""
    account = await over.store.account("alice")
    assert account is not None
    await over.store.commit(Swap(with_roles(account, ("admin",))))
    session, hybrid = await begin(over, "session"), await begin(over)
    assert (await over.resume(session.session_token)).principal.has_role("admin")
    account = await over.store.account("alice")
    assert account is not None
    lowered = with_roles(account, ())
    await over.store.commit(Swap(lowered), *over.staling(lowered, clock()))
    assert not (await over.resume(session.session_token)).principal.has_role("admin")
    assert await refused(over.verify(hybrid.access_token))
    fresh = await over.refresh(hybrid.refresh_token, HOME)
    principal = await over.verify(fresh.access_token)
    assert not principal.has_role("admin")
    assert principal.auth_time == T0
