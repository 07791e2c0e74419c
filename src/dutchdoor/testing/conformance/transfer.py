"""Laws of moving from one store into another."""

# ruff: noqa: PLR2004 - laws count

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable

from msgspec.structs import replace

from dutchdoor.errors import Conflict, InvalidInput, Misconfigured
from dutchdoor.model.audit_events import AuditCursor, AuditEvent
from dutchdoor.model.rate_limits import Bucket
from dutchdoor.model.sessions import Session
from dutchdoor.stores.base import (
    Add,
    End,
    Remove,
    Revoke,
    Store,
    Swap,
)
from dutchdoor.stores.transfer import LogState, Movable, Page, Tally
from dutchdoor.testing.conformance.kinds import records_of_every_kind
from dutchdoor.testing.conformance.reads import what_is_written_is_what_is_read
from dutchdoor.testing.conformance.samples import (
    NOW,
    SLOW,
    MoveLaw,
    World,
    a_key,
    a_revocation,
    a_row,
    a_session,
    an_account,
    an_event,
    is_refused,
    the_log,
)

__all__ = ["MOVE_LAWS", "log_state"]


async def log_state(store: Store) -> LogState:
    read = await store.read_log(0, 0)
    return LogState(read.log_epoch, read.salt, read.head)


async def tallied(store: Movable, kind: str, *, limit: int = 7) -> tuple[int, str]:
    """Read a kind page by page. Each page but the last is full, and no record comes twice."""
    tally, after = Tally(), None
    while True:
        page = await store.export(kind, after, limit=limit)
        tally.add(page.records)
        if (after := page.after) is None:
            return tally.count, tally.digest
        assert len(page.records) == limit


async def all_moved(source: Movable, target: Movable, *, times: int = 1) -> None:
    """Move everything that is not moved yet."""
    noted = await target.unfinished()
    assert noted is not None
    done: dict[str, str | None] = {**noted}
    for kind in source.kinds.tables:
        after = done.get(kind)
        while kind not in done or after is not None:
            page = await source.export(kind, after, limit=7)
            for _ in range(times):
                await target.take_in(kind, page)
            after = done[kind] = page.after


async def everything_moves_as_it_stands(source: Movable, target: Movable) -> None:
    """Moving: every record of every kind, to the bit, with its revision; a repeat of a page changes nothing."""
    await what_is_written_is_what_is_read(source)
    world = World(source)
    world.key = a_key(100)
    await world.fill()
    await source.commit(*map(Add, records_of_every_kind(source)))
    await source.commit(Swap(replace(world.credential, proof="second")), Swap(replace(world.key, revoked_at=NOW)))
    await source.commit(*[Revoke(a_revocation(subject="x", expires_at=NOW + n)) for n in range(20)])
    await source.purge(before=NOW + 5, events_before=0.0)
    spent = Bucket("spent", SLOW)
    while (await source.hit([spent], NOW))[0] == 0.0:
        pass
    # No read returns the session of an account that was removed, and no move carries it.
    gone = an_account("gone")
    await source.commit(Add(gone), Add(a_session(gone)))
    await source.commit(Remove(gone))
    await source.node_register(a_row())
    before, log, state = await source.counts(), await the_log(source), await log_state(source)
    await target.begin_move(state)
    await all_moved(source, target, times=2)
    for kind in source.kinds.tables:
        assert await tallied(source, kind) == await tallied(target, kind, limit=3), kind
    counts = await target.counts()
    assert counts == {**before, "sessions": before["sessions"] - 1}
    assert min(counts.values()) > 0, "a kind was not tried"
    assert (await the_log(target), await log_state(target)) == (log, state)
    assert await source.session(world.ended.id) == await target.session(world.ended.id)
    assert await source.counts() == before, "reading changes nothing"

    # Once complete, it continues where the source stopped.
    people = await target.accounts(limit=1000)
    log_epoch = await target.end_move(NOW, ended := an_event())
    assert await target.unfinished() is None
    assert log_epoch == max(int(NOW * 1000), state.log_epoch + 1)
    assert await target.accounts(limit=1000) == [
        replace(person, epoch=log_epoch, revision=person.revision + 1) for person in people
    ]
    assert await log_state(target) == replace(state, log_epoch=log_epoch)
    assert await the_log(target) == log
    assert (await target.node_rows()).rows == []
    assert ended in await target.events(limit=1000)
    await _follow_anew(source, target)
    assert (await target.hit([spent], NOW)) == (await source.hit([spent], NOW))
    done = await target.commit(Swap(world.live), End(world.other.id, "logout", NOW), Revoke(a_revocation()))
    assert (done.seq, done.log_epoch) == (state.seq + 1, log_epoch)
    assert await is_refused(target, Swap(replace(world.ended, revision=1)))
    found = await target.sessions_of(world.ada.subject)
    assert [session.id for session in found] == [world.live.id]
    await target.close()
    await target.open()


async def _follow_anew(source: Store, target: Store) -> None:
    """12. A follower of the audit log gets each event that was moved once. A cursor of the source is refused: it would
    skip some.
    """
    followed: list[AuditEvent] = []
    cursor: AuditCursor | None = None
    while page := await target.events_after(cursor, limit=3):
        cursor = page[-1][0]
        followed += [each for _, each in page]
    events = await target.events(limit=1000)
    assert sorted(each.id for each in followed) == sorted(each.id for each in events)
    try:
        await target.events_after(await source.audit_end())
    except InvalidInput:
        return
    raise AssertionError("a cursor of the source was read")


async def a_move_goes_on_where_it_was(source: Movable, target: Movable) -> None:
    """Moving: what was taken in is noted with its page; after a new start, the target is empty."""
    await World(source).fill()
    people = [an_account(f"person{n}") for n in range(20)]
    await source.commit(*map(Add, people), *[Add(a_session(person)) for person in people])
    state = await log_state(source)
    assert await target.unfinished() is None
    await target.begin_move(state)
    assert await target.unfinished() == {}
    first = await source.export("accounts", limit=8)
    await target.take_in("accounts", first)
    assert await target.unfinished() == {"accounts": first.after}
    second = await source.export("accounts", first.after, limit=8)
    third = await source.export("sessions", limit=100)
    assert (await target.counts())["accounts"] == 8
    refused = [target.take_in("sessions", third), target.take_in("accounts", replace(second, after="x"))]
    outcomes = await asyncio.gather(*refused, return_exceptions=True)
    assert isinstance(outcomes[0], Conflict), "a session without its account"
    assert await target.unfinished() == {"accounts": "x"}, "what failed leaves no note"
    assert (await target.counts())["sessions"] == 0, "what failed leaves no record"
    await target.take_in("accounts", second)
    await all_moved(source, target)
    assert set(await target.unfinished() or ()) == set(source.kinds.tables)
    assert [await tallied(source, kind) for kind in source.kinds.tables] == [
        await tallied(target, kind) for kind in source.kinds.tables
    ]
    # The record that comes now replaces, in all its parts, one that was taken in before.
    session = next(one for one in third.records if isinstance(one, Session))
    ended = replace(session, ended_at=NOW, end_reason="logout", revision=7, generation=3)
    person = replace(people[3], name="another", epoch=9, revision=4)
    await target.take_in("accounts", Page([person], None))
    await target.take_in("sessions", Page([ended], None))
    assert ended in (await target.export("sessions")).records
    assert await target.account(person.subject) == person
    assert len([one for one in (await target.export("sessions")).records if one == session]) == 0
    # Another account took an address in the source meanwhile.
    taken = replace(people[0], email=people[1].email)
    for records in ([taken], [replace(people[2], name="first"), taken]):
        try:
            await target.take_in("accounts", replace(second, records=records))
        except Conflict:
            continue
        raise AssertionError("two accounts have one address")
    assert await target.account(people[2].subject) == people[2]
    await target.begin_move(state)
    assert await target.unfinished() == {}
    assert set((await target.counts()).values()) == {0}
    await all_moved(source, target)
    assert await target.end_move(NOW, an_event()) > state.log_epoch


async def a_move_needs_an_empty_store(source: Movable, target: Movable) -> None:
    """Moving: nothing is moved into a store that has or had records; without a start there is no end."""
    world = await World(source).fill()
    state, page = await log_state(source), await source.export("accounts")

    async def refuses(attempt: Awaitable[object]) -> None:
        try:
            await attempt
        except Conflict:
            return
        raise AssertionError("not refused")

    seen = await world.seen()
    await refuses(source.begin_move(state))
    for store in (source, target):
        await refuses(store.take_in("accounts", page))
        await refuses(store.end_move(NOW, an_event()))
    assert await world.seen() == seen
    await target.hit([Bucket("x", SLOW)], NOW)
    await refuses(target.begin_move(state))
    await target.purge(before=math.inf, events_before=0.0)
    await target.node_register(a_row())
    await target.begin_move(state)
    assert (await target.node_rows()).rows == []
    await target.end_move(NOW, an_event())
    await refuses(target.begin_move(state))
    assert await target.unfinished() is None


async def a_store_that_was_left_opens_for_a_move_alone(source: Movable, target: Movable) -> None:
    """Moving: a store that was left opens only for a move. It may be taken back, and only its own copy may return."""
    await World(source).fill()
    state = await log_state(source)
    assert not await source.is_left()
    for _ in range(2):
        await source.leave()
    assert await source.is_left()
    assert await source.unfinished() is None, "left is not unfinished"
    await source.close()
    try:
        await source.open()
    except Misconfigured as exc:
        assert "migrate" in str(exc)  # noqa: PT017 - laws use no test runner
    else:
        raise AssertionError("it was opened")
    await source.open(to_move=True)
    counts = await source.counts()
    for _ in range(2):
        await source.take_back()
    await source.close()
    await source.open()
    await source.close()
    await source.open(to_move=True)
    assert (await source.is_left(), await source.counts()) == (False, counts)

    await target.begin_move(state)
    await all_moved(source, target)
    await source.leave()
    await target.end_move(NOW, an_event())
    try:
        await source.begin_move(replace(state, salt=b"another database"))
    except Conflict:
        assert await source.counts() == counts
    else:
        raise AssertionError("another database's records were moved over its own")
    await source.begin_move(await log_state(target))
    await all_moved(target, source)
    assert not await source.is_left()
    await source.end_move(NOW, an_event())
    assert (await log_state(source)).log_epoch > (await log_state(target)).log_epoch
    await source.close()
    await source.open()


MOVE_LAWS: tuple[MoveLaw, ...] = (
    everything_moves_as_it_stands,
    a_move_goes_on_where_it_was,
    a_move_needs_an_empty_store,
    a_store_that_was_left_opens_for_a_move_alone,
)
