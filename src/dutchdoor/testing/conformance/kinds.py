"""Laws of every general kind: a record is created from the kind's description, and the store is tested with it."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.errors import Conflict
from dutchdoor.model.accounts import new_account
from dutchdoor.model.ids import new_id
from dutchdoor.model.sessions import Session
from dutchdoor.stores.base import Add, Change, Discard, End, EndAll, ExpectLive, Log, Remove, Store, Swap, Take
from dutchdoor.stores.kinds import Column, Kind
from dutchdoor.testing.conformance.samples import AT_ONCE, NOW, Law, a_session, an_account, an_event, is_refused

__all__ = ["LAWS", "a_record", "records_of_every_kind"]

HARD_TEXTS = (" ", "Zoë", "' OR 1=1 --", "%_\\", "a\nb\tc\0d\1e", "😀" * 50, "x" * 10_000)


def a_record(kind: Kind[Any], n: int = 0, **values: object) -> Any:
    """Create a record of a kind. Records with different numbers share only their owner, which is one of three."""
    made = {column.name: _value(column, n) for column in kind.columns}
    if kind.owner:
        made[kind.owner] = f"person {n % 3 if _of_one_owner(kind, 3) > 1 else n}"
    return kind.record(**{**made, **({"revision": 0} if kind.has_revision else {}), **values})


def _of_one_owner(kind: Kind[Any], wanted: int) -> int:
    """How many records of a kind one owner may have, of those that a law wants: one, if the owner is their key."""
    return 1 if kind.key == (kind.owner,) else wanted


def _value(column: Column, n: int) -> object:
    hard = HARD_TEXTS[n % len(HARD_TEXTS)]
    match column.form:
        case "text":
            return f"{column.name} {n} {hard}"
        case "id":
            return new_id()
        case "bytes":
            return os.urandom(n % 5 * 1000) + b"\0"
        case "int":
            return n * 2**40
        case "float":
            return math.nextafter(NOW + n, math.inf)
        case "bool":
            return n % 2 == 0
        case "words":
            return ("admin", "häß")[: n % 3]


def records_of_every_kind(store: Store) -> Iterator[Struct]:
    for kind in store.kinds.general:
        for n in range(3):
            yield a_record(kind, n + 1000)


async def is_a_mistake(attempt: Callable[[], Awaitable[object]]) -> bool:
    try:
        await attempt()
    except TypeError:
        return True
    return False


async def read(store: Store, record: Any) -> Any:
    return await store.get(type(record), *store.kinds.of(type(record)).key_of(record))


async def every_kind_is_written_as_it_is_read(store: Store) -> None:
    """7. Records of each kind, to the bit: by key, by unique value, and among all; a missing value finds none."""
    for kind in store.kinds.general:
        records = [a_record(kind, n) for n in range(9)]
        optional = {column.name: None for column in kind.columns if column.optional}
        records.append(a_record(kind, 9, **optional))
        for record in records:
            assert await read(store, record) is None
            await store.commit(Add(record))
            assert await read(store, record) == record
            for group, values in kind.claims(record):
                assert await store.find(kind.record, **dict(zip(group, values, strict=True))) == record
        found = await store.select(kind.record)
        assert sorted(map(repr, found)) == sorted(map(repr, records))
        assert (await store.counts())[kind.table] == len(records)


async def a_key_and_a_unique_value_are_given_once(store: Store) -> None:
    """3. A key or unique value that exists conflicts; an empty value belongs to no record; a removed one is free."""
    for kind in store.kinds.general:
        first, second = a_record(kind, 1), a_record(kind, 2)
        await store.commit(Add(first), Add(second))
        assert await is_refused(store, Add(a_record(kind, 3, **_of(first, kind.key))))
        for group in kind.unique:
            taken = replace(a_record(kind, 3), **_of(first, group))
            assert await is_refused(store, Add(taken))
            assert await read(store, taken) is None
            if not set(group) & set(kind.key) and kind.has_revision:
                assert await is_refused(store, Swap(replace(second, **_of(first, group))))
            empty = [c.name for c in kind.columns if c.name in group and c.form == "text"]
            if empty:
                nameless = [replace(a_record(kind, n), **dict.fromkeys(empty, "")) for n in (4, 5)]
                nameless = [replace(one, **_of(nameless[0], [n for n in group if n not in empty])) for one in nameless]
                await store.commit(*map(Add, nameless))
                assert await store.find(kind.record, **_of(nameless[0], group)) is None
                await store.commit(*map(Remove, nameless))
            await store.commit(Remove(first), Add(taken))
            assert await store.find(kind.record, **_of(taken, group)) == taken
            await store.commit(Remove(taken), Add(first))


def _of(record: Any, names: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}


async def every_kind_is_swapped_from_its_revision(store: Store) -> None:
    """3. A swap needs the stored revision, and writes it plus one; a kind without a revision is not swapped."""
    for kind in store.kinds.general:
        record = a_record(kind, 1)
        await store.commit(Add(replace(record, revision=7) if kind.has_revision else record))
        assert await read(store, record) == record, "a record is added with revision 0"
        if not kind.has_revision:
            assert await is_a_mistake(lambda record=record: store.commit(Swap(record)))  # type: ignore[misc]
            continue
        other = replace(a_record(kind, 2), **_of(record, kind.key))
        for revision in (-1, 1):
            assert await is_refused(store, Swap(replace(other, revision=revision)))
        assert await read(store, record) == record
        await store.commit(Swap(other))
        assert await read(store, record) == replace(other, revision=1)
        assert await is_refused(store, Swap(a_record(kind, 3))), "it is not there"


async def every_kind_is_taken_once(store: Store) -> None:
    """4. A record is taken once and may be removed any number of times, and nothing else is removed with it."""
    for kind in store.kinds.general:
        record, other = a_record(kind, 1), a_record(kind, 2)
        await store.commit(Add(record), Add(other), Take(record))
        assert await is_refused(store, Remove(other), Take(record))
        assert await read(store, record) is None
        await store.commit(Remove(record), Add(record), Remove(record), Remove(record))
        assert [await read(store, one) for one in (record, other)] == [None, other]


async def every_index_finds_its_records(store: Store) -> None:
    """Reads: records that have some values, in the order of the listing, in pages; `Discard` deletes the same ones."""
    for kind in store.kinds.general:
        records = [a_record(kind, n) for n in range(7)]
        await store.commit(*map(Add, records))
        listed = await store.select(kind.record)
        after: tuple[Any, ...] = ()
        paged: list[Any] = []
        while page := await store.select(kind.record, after=after, limit=3):
            paged += page
            after = tuple(getattr(page[-1], name) for name in kind.listing)
        assert paged == listed
        for group in kind.indexed:
            for length in range(1, len(group) + 1):
                for record in records:
                    values = _of(record, group[:length])
                    expected = [one for one in listed if _of(one, values) == values]
                    assert await store.select(kind.record, **values) == expected
                    assert await store.select(kind.record, limit=1, **values) == expected[:1]
        unknown = {name: "nothing" for name, form, _ in kind.columns if form == "bytes"}
        for name, value in unknown.items():
            assert await is_a_mistake(lambda n=name, v=value, k=kind: store.select(k.record, **{n: v}))  # type: ignore[misc]
        values = _of(records[0], kind.indexed[-1])
        await store.commit(Discard(kind.record, values), Discard(kind.record, values))
        assert await store.select(kind.record) == [one for one in listed if _of(one, values) != values]


async def an_owner_takes_every_kind_along(store: Store) -> None:
    """7. Removing an account removes its records of each kind that has an owner, and nothing of another account."""
    ada, bob = (new_account(address=f"{name}@example.com", name=name, now=NOW) for name in ("ada", "bob"))
    owned = [kind for kind in store.kinds.general if kind.owner]
    mine = [a_record(kind, n, **{kind.owner: ada.subject}) for kind in owned for n in range(_of_one_owner(kind, 3))]
    theirs = [
        a_record(kind, n + 5, **{kind.owner: bob.subject}) for kind in owned for n in range(_of_one_owner(kind, 2))
    ]
    free = [a_record(kind, 1) for kind in store.kinds.general if not kind.owner]
    await store.commit(Add(ada), Add(bob), *map(Add, [*mine, *theirs, *free]))
    await store.commit(Remove(ada))
    assert {await read(store, one) for one in mine} == {None}
    assert [await read(store, one) for one in [*theirs, *free]] == [*theirs, *free]


def _belonging(store: Store, sessions: Sequence[Session]) -> list[Struct]:
    kinds = [kind for kind in store.kinds.general if kind.session]
    return [
        a_record(kind, n, **{kind.session: session.id, **({kind.owner: session.subject} if kind.owner else {})})
        for kind in kinds
        for n, session in enumerate(sessions)
    ]


async def the_end_of_a_session_takes_along_what_belongs_to_it(store: Store) -> None:
    """5. What belongs to a session is deleted by the change that ends it, in whichever way, and nothing else is."""
    ada, bob = an_account("ada"), an_account("bob")
    sessions = [a_session(ada, NOW + n) for n in range(6)]
    theirs = a_session(bob)
    await store.commit(Add(ada), Add(bob), *map(Add, [*sessions, theirs]))
    belonging = _belonging(store, [*sessions, theirs])
    await store.commit(*map(Add, belonging))

    async def left() -> set[str]:
        return {str(getattr(one, store.kinds.of(type(one)).session)) for one in belonging if await read(store, one)}

    ids = [session.id for session in sessions]
    everything = {*ids, theirs.id} if belonging else set()
    assert await is_refused(store, End(ids[0], "logout", NOW), EndAll(ada.subject, "x", NOW), Swap(sessions[0]))
    assert await left() == everything
    await store.commit(End(ids[0], "logout", NOW))
    await store.commit(Swap(replace(sessions[1], ended_at=NOW, end_reason="logout")), Swap(sessions[2]))
    assert await left() == everything - {*ids[:2]}
    await store.commit(EndAll(ada.subject, "logout_all", NOW, keep=ids[3]))
    assert await left() == everything & {ids[3], theirs.id}
    await store.commit(EndAll(ada.subject, "logout_all", NOW))
    assert await left() == everything & {theirs.id}


async def nothing_is_written_for_a_session_that_ends(store: Store) -> None:
    """5. and `ExpectLive`: a write that expects a live session comes before its end, which deletes it, or is refused.
    It is the same when its account is removed.
    """
    for n in range(AT_ONCE):
        ada = an_account(f"ada{n}")
        session = a_session(ada)
        await store.commit(Add(ada), Add(session))
        ways: list[Change] = [End(session.id, "logout", NOW), EndAll(ada.subject, "logout_all", NOW), Remove(ada)]
        belonging = _belonging(store, [session])
        attempts = [store.commit(ExpectLive(session.id, ada.subject), Add(one)) for one in belonging]
        attempts.insert(n % 2, store.commit(ways[n % 3], Log(an_event())))
        for outcome in await asyncio.gather(*attempts, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, Conflict):
                raise outcome
        assert {await read(store, one) for one in belonging} <= {None}
        assert await is_refused(store, ExpectLive(session.id, ada.subject))


async def what_expires_is_purged(store: Store) -> None:
    """Upkeep: for each kind that names an expiry field, expired records are deleted, and no others."""
    for kind in store.kinds.general:
        over, lasting = a_record(kind, 1), a_record(kind, 2)
        if kind.expires:
            over, lasting = replace(over, **{kind.expires: NOW - 1}), replace(lasting, **{kind.expires: NOW})
        await store.commit(Add(over), Add(lasting))
        await store.purge(before=NOW, events_before=0.0)
        assert (await read(store, over) is None) == bool(kind.expires)
        assert await read(store, lasting) == lasting


LAWS: tuple[Law, ...] = (
    every_kind_is_written_as_it_is_read,
    a_key_and_a_unique_value_are_given_once,
    every_kind_is_swapped_from_its_revision,
    every_kind_is_taken_once,
    every_index_finds_its_records,
    an_owner_takes_every_kind_along,
    the_end_of_a_session_takes_along_what_belongs_to_it,
    nothing_is_written_for_a_session_that_ends,
    what_expires_is_purged,
)
