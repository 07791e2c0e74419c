"""Ending sessions: one, the others, and everything of everyone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal

import pytest
from msgspec.structs import replace
from tests.services.lives import (
    ENDINGS,
    Ending,
    begin,
    beside,
    broken,
    dead,
    disable,
    log_out,
    refused,
    stored,
    unlogged,
)
from tests.standins import HOME, Clock, Gate, Interleaved, authority, make, opened

from dutchdoor.errors import NotAuthenticated, NotFound, Unavailable
from dutchdoor.model.accounts import with_roles
from dutchdoor.model.ids import new_id
from dutchdoor.services import endings
from dutchdoor.services.ongoing import Ongoing
from dutchdoor.services.presenting import SignedIn
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Remove, Swap


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("mode", ["session", "hybrid"])
async def test_what_is_ended_is_dead(over: Authority, mode: Literal["session", "hybrid"], ending: Ending) -> None:
    """I-01, O05, S06, S07: once an end is acknowledged every token of the session is refused, here and elsewhere."""
    elsewhere = beside(over, over.store)
    started = await begin(over, mode)
    if started.access_token:
        await elsewhere.verify(started.access_token)  # remembered there
    await ending(over, started)
    assert await dead(over, started)
    if started.access_token:
        assert await refused(elsewhere.verify(started.access_token))
    if ending is not disable:
        assert not await dead(over, await begin(over, mode)), "and a new sign-in is fine"


async def test_a_stateless_token_is_ended(over: Authority) -> None:
    """J18: a token without a session is refused once it, or everything of its subject, was ended; others' are not."""
    one, other = await begin(over, "jwt"), await begin(over, "jwt")
    await over.end_token(await over.claims(one.access_token), client=HOME)
    assert await refused(over.verify(one.access_token))
    await over.verify(other.access_token)
    await over.end_all("alice", client=HOME, actor="alice")
    assert await refused(over.verify(other.access_token))
    await over.verify((await begin(over, "jwt")).access_token)


async def test_ending_tells_the_truth(over: Authority) -> None:
    """P06: ending counts what it ended; what ended before counts nothing; another's session is as good as none."""
    await over.provide("bob")
    started, other = await begin(over), await begin(over, "session")
    assert started.session is not None
    for stranger in ("bob", ""):
        with pytest.raises(NotFound):
            await over.end(started.session.id, client=HOME, actor="bob", subject=stranger)
    with pytest.raises(NotFound):
        await over.end(new_id(), client=HOME, actor="bob")
    with pytest.raises(NotFound):
        await over.end("no id at all", client=HOME, actor="bob")
    done = await over.end(started.session.id, client=HOME, actor="alice", subject="alice")
    again = await over.end(started.session.id, client=HOME, actor="alice")
    assert (done.count, again.count) == (1, 0)
    assert again.seq >= done.seq > 0
    assert (await over.end_all("alice", client=HOME, actor="alice")).count == 1
    assert (await over.end_others("alice", other.session.id if other.session else "", client=HOME)).count == 0
    with pytest.raises(NotFound):
        await over.end_all("nobody", client=HOME, actor="cli")


async def test_the_others_are_ended(over: Authority) -> None:
    """S09: ending the others ends every one of them and leaves the one that asked."""
    mine, *others = [await begin(over, mode) for mode in ("session", "session", "hybrid", "hybrid")]  # type: ignore[arg-type]
    assert mine.session is not None
    assert (await over.end_others("alice", mine.session.id, client=HOME)).count == 3
    ended = await over.store.events(subject="alice", name="session_ended")
    assert {event.detail for event in ended} == {"ended_by_owner"}, "the same word as for one session"
    assert not await dead(over, mine)
    for other in others:
        assert await dead(over, other)


async def test_ends_at_once_are_one_end(over: Authority) -> None:
    """I-01: of many that end one session at once exactly one did, all get the true answer, and one event says so."""
    started = await begin(over)
    assert started.session is not None
    ending = beside(over, Interleaved(over.store, seed=3))
    done = await asyncio.gather(*(ending.end(started.session.id, client=HOME, actor="alice") for _ in range(20)))
    assert sum(one.count for one in done) == 1
    assert min(one.seq for one in done) >= 1
    assert len(await over.store.events(name="logout")) == 1


async def test_new_secrets_end_the_old_ones(over: Authority, clock: Clock) -> None:
    """S02: after a new password a session's old secret, refresh and access tokens are refused; its id stays."""
    for mode in ("session", "hybrid"):
        before = await begin(over, mode)  # type: ignore[arg-type]
        assert not await dead(over, before), "and it is remembered now"
        clock.forward(900 if mode == "hybrid" else 1)
        account = await over.store.account("alice")
        row = await stored(over, before)
        assert account is not None
        raised = replace(account, epoch=account.epoch + 1)
        changes = [Swap(raised), *over.ending_all(raised, "password_changed", clock(), row.id)]
        ongoing = Ongoing(account, row, HOME, "app")
        after = await over.renew(ongoing, raised=raised, changes=changes, amr=("pwd",), now=clock())
        assert await dead(over, before)
        assert not await dead(over, after)
        assert after.session is not None
        assert after.session.id == row.id


async def test_an_end_without_its_entry_is_noticed(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The law of endings can fail: without an entry in the log, an access token outlives its session."""
    async with opened("memory", tmp_path, clock) as over:
        monkeypatch.setattr(Authority, "_revoking", unlogged)
        await broken(test_what_is_ended_is_dead(over, "hybrid", log_out))


MODES: tuple[Literal["session", "hybrid", "jwt"], ...] = ("session", "hybrid", "jwt")


@pytest.mark.parametrize("alg", ["ES256", "HS256"])
async def test_s29_one_call_ends_everything_of_every_account(
    kind: str, tmp_path: Path, clock: Clock, alg: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call ends every session and every token of every account, in each mode: for a process that remembers them
    and for one that starts now. It says how many sessions ended, its fence is that of the last, and a new proof is the
    way back in.
    """
    monkeypatch.setattr(endings, "ENDED_AT_ONCE", 3)
    over = authority(make(kind, tmp_path), clock, alg=alg)
    await over.open()
    try:
        given = []
        for name in (f"person-{n}" for n in range(8)):
            await over.provide(name)
            given += [await begin(over, mode, name) for mode in MODES]
        for each in given:
            if each.session_token:
                await over.resume(each.session_token)
        done = await over.end_everything(client=HOME, actor="cli")
        assert done.count == 16
        assert done.seq == (await over.fencing.nothing_left()).seq
        assert all([await dead(over, each) for each in given])
        assert len(await over.store.events(name="session_ended", limit=100)) == 8
        assert not await dead(over, await begin(over, "session", "person-3"))
        assert (await over.end_everything(client=HOME, actor="cli")).count == 1
    finally:
        await over.close()


async def test_s29_with_no_account_there_is_nothing_to_end(kind: str, tmp_path: Path, clock: Clock) -> None:
    """Ending everything where there is no account counts 0."""
    over = authority(make(kind, tmp_path), clock)
    await over.open()
    assert (await over.end_everything(client=HOME, actor="cli")).count == 0
    await over.close()


@pytest.mark.parametrize("mode", MODES)
async def test_s29_a_sign_in_that_everything_overtakes_is_refused(over: Authority, mode: Any) -> None:
    """A sign-in that was proved before everything ended, and is committed after, does not start."""
    gate = Gate(over.store, "commit")
    starting = asyncio.create_task(begin(beside(over, gate), mode))
    await gate.reached.wait()
    await over.end_everything(client=HOME, actor="cli")
    gate.open.set()
    assert await refused(starting)


async def test_s29_sign_ins_at_the_same_time_end_or_start_after(
    over: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of sign-ins and refreshes that run while everything ends, what is alive afterwards was proved after its account
    was done.
    """
    monkeypatch.setattr(endings, "ENDED_AT_ONCE", 2)
    names = [f"person-{n}" for n in range(6)]
    for name in names:
        await over.provide(name)
    before = [await begin(over, mode, name) for name in names for mode in MODES]
    racing = [beside(over, Interleaved(over.store, seed=n)) for n in range(4)]
    results = await asyncio.gather(
        racing[0].end_everything(client=HOME, actor="cli"),
        *(begin(racing[n % 4], MODES[n % 3], names[n % 6]) for n in range(36)),
        *(racing[n % 4].refresh(each.refresh_token, HOME) for n, each in enumerate(before) if each.refresh_token),
        return_exceptions=True,
    )
    assert not isinstance(results[0], BaseException), results[0]
    assert all(isinstance(result, SignedIn | NotAuthenticated | Unavailable) for result in results[1:]), results
    for each in (*before, *results[1:]):
        if isinstance(each, SignedIn) and not await dead(over, each):
            assert each.account.epoch == 1
    assert all([await dead(over, each) for each in before])


async def test_s29_one_that_changes_meanwhile_is_ended_too(over: Authority) -> None:
    """Where accounts change while everything ends, or go, the others and they are ended all the same."""
    for name in ("bob", "carol"):
        await over.provide(name)
    given = [await begin(over, mode, name) for name in ("alice", "bob", "carol") for mode in MODES]
    gate = Gate(over.store, "commit")
    ending = asyncio.create_task(beside(over, gate).end_everything(client=HOME, actor="cli"))
    await gate.reached.wait()
    found = {name: await over.store.account(name) for name in ("alice", "bob")}
    await over.store.commit(*(Swap(with_roles(found["alice"], ("editor",))), Remove(found["bob"])))  # type: ignore[arg-type]
    gate.open.set()
    await ending
    assert all([await dead(over, each) for each in given if each.account.subject != "bob"])
