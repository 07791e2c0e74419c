"""Laws of limits and of upkeep."""

# ruff: noqa: PLR2004 - laws count

from __future__ import annotations

import asyncio
import math

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.rate_limits import Bucket, Limit
from dutchdoor.model.sessions import Session
from dutchdoor.stores.base import (
    Add,
    Forgive,
    Log,
    Remove,
    Revoke,
    Store,
)
from dutchdoor.testing.conformance.samples import (
    AT_ONCE,
    FAST,
    NOW,
    SLOW,
    Law,
    World,
    a_client,
    a_credential,
    a_key,
    a_revocation,
    a_session,
    a_token,
    an_account,
    an_event,
    the_log,
)

__all__ = ["LAWS"]


async def a_limit_is_exact(store: Store) -> None:
    """Limits: of many attempts at once, exactly as many pass as the bucket holds; the others get the time to wait."""
    slow, fast = Bucket("slow:x", SLOW), Bucket("fast:x", FAST)
    hits = await asyncio.gather(*[store.hit([fast, slow], NOW) for _ in range(AT_ONCE)])
    assert hits.count((0.0, "")) == 5
    wait, by = await store.hit([fast, slow], NOW)
    assert by == "slow"
    assert 3599 < wait <= 3600
    # The refused attempts took nothing from the other bucket: it has all but the five.
    spent = [await store.hit([fast], NOW) for _ in range(996)]
    assert [wait > 0 for wait, _ in spent] == [False] * 995 + [True]
    assert (await store.hit([slow], NOW + wait))[0] == 0.0, "waiting as long as the store said is enough"
    assert (await store.hit([slow], NOW + wait))[0] > 0.0
    assert await store.hit([Bucket("slow:y", SLOW)], NOW) == (0.0, ""), "another key is another bucket"
    assert await store.hit([], NOW) == (0.0, "")


async def an_attempt_is_given_back_or_forgotten(store: Store) -> None:
    """Limits: an attempt that is given back can be taken again, once; a forgotten one does not count."""
    bucket, absent = Bucket("slow:x", SLOW), Bucket("slow:absent", SLOW)
    for _ in range(5):
        assert await store.hit([bucket], NOW) == (0.0, "")
    await store.commit(Forgive(give_back=(bucket, absent)))
    assert [(await store.hit([bucket], NOW))[0] > 0 for _ in range(2)] == [False, True]
    await store.commit(Forgive(forget=(bucket, absent)))
    assert [(await store.hit([bucket], NOW))[0] > 0 for _ in range(6)] == [False] * 5 + [True]
    for _ in range(5):
        assert await store.hit([absent], NOW) == (0.0, ""), "giving back what was not taken gives nothing"
    assert (await store.hit([absent], NOW))[0] > 0


async def a_purge_takes_what_is_over_and_nothing_else(store: Store) -> None:
    """Upkeep: sessions by absolute expiry only, one-time tokens, log entries and full buckets; audit events by age."""
    ada = an_account()
    gone: list[Struct] = [a_session(ada, NOW - 1e6, expires_at=NOW - 1.0), a_token("", "setup", NOW - 1.0)]
    kept: list[Struct] = [
        a_session(ada, NOW - 1e6, idle_expires_at=NOW - 9.0, expires_at=NOW),  # idle too long is not absolutely expired
        a_session(ada, NOW - 1e6, ended_at=NOW - 9.0, expires_at=NOW + 1.0),  # nor is an ended session
        a_token("", "setup", NOW),
        replace(a_key(), verifies_until=NOW - 9.0),
        a_client(),
        a_credential(ada),
    ]
    old, young = an_event(now=NOW - 3.0), an_event(now=NOW - 2.0)
    lasting = [a_revocation(expires_at=NOW), a_revocation(expires_at=math.inf)]
    await store.commit(Add(ada), *map(Add, gone + kept), Log(old), Log(young))
    await store.commit(Revoke(a_revocation(expires_at=NOW - 1.0)), *map(Revoke, lasting))
    ceiling = Bucket("c", Limit(name="c", count=1, per_seconds=math.inf, burst=1))
    await store.hit([Bucket("full", SLOW), Bucket("-A", SLOW), Bucket("\x01", SLOW)], NOW - 4000.0)
    await store.hit([Bucket("spent", SLOW), ceiling], NOW - 3000.0)
    assert await store.purge(before=NOW, events_before=NOW - 2.0) == 7
    assert await store.purge(before=NOW, events_before=NOW - 2.0) == 0
    for record in gone + kept:
        if isinstance(record, Session):
            assert (await store.session(record.id) is None) == (record in gone)
        elif isinstance(record, OneTimeToken):
            assert (await store.get(OneTimeToken, record.id) is None) == (record in gone)
    assert [entry.id for entry in await the_log(store)] == [entry.id for entry in lasting]
    assert await store.events() == [young]
    assert (await store.hit([ceiling], NOW))[0] > 0, "a ceiling does not grow back with time"
    counts = await store.counts()
    assert (counts["accounts"], counts["credentials"], counts["keys"], counts["clients"]) == (1, 1, 1, 1)
    assert await store.purge(before=NOW, events_before=math.inf) == 1


async def a_purge_is_bounded_and_misses_nothing(store: Store) -> None:
    """Upkeep: one call deletes thousands of expired rows, those between them stay, and commits continue meanwhile."""
    ada = an_account()
    sessions = [a_session(ada, NOW + n, expires_at=NOW - 1 if n % 3 else NOW + 1) for n in range(2000)]
    await store.commit(Add(ada), *map(Add, sessions))
    deleted, *_ = await asyncio.gather(
        store.purge(before=NOW, events_before=0.0), *[store.commit(Log(an_event())) for _ in range(20)]
    )
    assert deleted == sum(session.expires_at < NOW for session in sessions)
    assert {s.id for s in await store.sessions_of(ada.subject)} == {s.id for s in sessions if s.expires_at > NOW}


async def what_is_forgotten_is_gone(store: Store) -> None:
    """Erasure: sessions of one account are gone, ended ones too, and its events name no client; nothing else changes.
    It may be repeated, and the events keep their place in the audit log.
    """
    ada, bob = an_account(), an_account("bob")
    live, ended = a_session(ada), a_session(ada, ended_at=NOW)
    theirs = a_session(bob)
    events = [
        replace(an_event(now=NOW + n), subject=account.subject, address="192.0.2.7", country="NL", device="Firefox")
        for n, account in enumerate((ada, bob, ada))
    ]
    await store.commit(*map(Add, (ada, bob, live, ended, theirs)), *map(Log, events))
    before = [cursor for cursor, _ in await store.events_after(None)]
    assert await store.forget(ada.subject) == 4
    assert await store.forget(ada.subject) == 0
    assert await store.forget("unknown") == 0
    assert [await store.session(each.id) for each in (live, ended)] == [None, None]
    assert (await store.counts())["sessions"] == 1
    assert await store.sessions_of(bob.subject) == [theirs]
    emptied = [replace(each, address="", country="", device="") for each in events]
    after = await store.events_after(None)
    assert [cursor for cursor, _ in after] == before
    assert [event for _, event in after] == [emptied[0], events[1], emptied[2]]
    await store.commit(Remove(ada))
    assert await store.account(ada.subject) is None


async def everything_is_counted(store: Store) -> None:
    """Upkeep: rows are counted by kind, limits included."""
    world = await World(store).fill()
    await store.hit([Bucket("a", SLOW), Bucket("b", SLOW)], NOW)
    assert await store.counts() == {
        **dict.fromkeys(store.kinds.tables, 0),
        "accounts": 3, "credentials": 1, "sessions": 3, "one_time_tokens": 1, "keys": 1, "clients": 1, "verifiers": 1,
        "revocations": 1, "events": 1, "limits": 2,
    }  # fmt: skip
    await store.commit(Remove(world.client))
    assert (await store.counts())["clients"] == 0


async def closing_twice_is_fine(store: Store) -> None:
    """Upkeep: `open` and `close` may be repeated."""
    await store.open()
    await store.close()
    await store.close()
    await store.open()
    assert (await store.commit()).seq == 0


async def trying_to_write_refuses_nothing_and_is_purged(store: Store) -> None:
    """Upkeep: a check that the store can be written may run any number of times; it leaves nothing behind."""
    for _ in range(3):
        await asyncio.gather(*[store.try_writing(NOW) for _ in range(500)])
    await store.purge(before=NOW + 60, events_before=0.0)
    assert await store.purge(before=NOW + 60, events_before=0.0) == 0


LAWS: tuple[Law, ...] = (
    trying_to_write_refuses_nothing_and_is_purged,
    a_limit_is_exact,
    an_attempt_is_given_back_or_forgotten,
    a_purge_takes_what_is_over_and_nothing_else,
    a_purge_is_bounded_and_misses_nothing,
    what_is_forgotten_is_gone,
    everything_is_counted,
    closing_twice_is_fine,
)
