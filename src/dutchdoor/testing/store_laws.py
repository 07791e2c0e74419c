"""The laws of `dutchdoor.stores.base` as code, for whoever writes a store.

A law takes an open, empty store and fails by an `AssertionError`; its docstring names the law it holds. Those in
`SHARED_LAWS` are for stores that several processes share, or that outlive theirs: they take what makes the store,
something that can be pickled, and try it from processes of their own.

    @pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
    async def test_law(law, tmp_path):
        store = SqliteStore(tmp_path / "test.db")
        await store.open()
        await law(store)
        await store.close()


    @pytest.mark.parametrize("law", SHARED_LAWS, ids=lambda law: law.__name__)
    def test_shared_law(law, tmp_path):
        law(partial(SqliteStore, tmp_path / "test.db"))

Those in `MOVE_LAWS` take two empty stores, one to move from and one to move into, opened both; the second with
`to_move=True`. Each wants stores of its own.

The races are part of the law; none of it waits for luck. Law 10 is about the records and not about the store. That a
commit raises `Unavailable` when its backing is gone is for the store's own tests, who alone know how to take the
backing away.
"""

# ruff: noqa: PLR2004 - laws count

from __future__ import annotations

import asyncio
import contextlib
import math
import multiprocessing
import os
import random
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, Self

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.errors import Conflict, Misconfigured, Unavailable
from dutchdoor.jose.signing_keys import StoredKey
from dutchdoor.model.accounts import Account, Credential, new_account
from dutchdoor.model.audit_events import AuditEvent, event
from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import new_id, new_ordered_id
from dutchdoor.model.oauth_clients import RegisteredClient
from dutchdoor.model.one_time_tokens import OneTimeToken, Purpose
from dutchdoor.model.rate_limits import Bucket, Limit
from dutchdoor.model.sessions import Session
from dutchdoor.model.verifier_keys import VerifierKey
from dutchdoor.revocation.log import Revocation
from dutchdoor.revocation.node_messages import NodeRow, Renewed
from dutchdoor.stores.base import (
    Add,
    Change,
    Discard,
    End,
    EndAll,
    Expect,
    ExpectRole,
    Forgive,
    Log,
    Remove,
    Revoke,
    Revoked,
    Store,
    Swap,
    Take,
)
from dutchdoor.stores.transfer import LogState, Movable, Page, Tally
from dutchdoor.testing.kinds import KIND_LAWS, records_of_every_kind

__all__ = [
    "LAWS", "MOVE_LAWS", "SHARED_LAWS", "Law", "MakeStore", "MoveLaw", "SharedLaw",
    "an_acknowledged_commit_survives_kill",
]  # fmt: skip

MakeStore = Callable[[], Store]
Law = Callable[[Store], Awaitable[None]]
MoveLaw = Callable[[Movable, Movable], Awaitable[None]]
SharedLaw = Callable[[MakeStore], None]

NOW = 1_800_000_000.123456
"""A binary fraction does not hold it: a store that rounds is found out."""
AT_ONCE = 50
PATIENCE = 60.0
"""Seconds after which whoever does not answer, or is not woken, has failed its law."""


# --- records to try it with -------------------------------------------------------------------------------------------


def an_account(name: str = "ada") -> Account:
    return new_account(address=f"{name}@Example.com", name=name.title(), now=NOW)


def a_session(account: Account, now: float = NOW, **changes: Any) -> Session:
    session = Session(
        id=new_ordered_id(now),
        subject=account.subject,
        mode="session",
        client_id="",
        scope="",
        secret_hash=os.urandom(32),
        salt=b"",
        master_key_id=b"",
        epoch=0,
        amr=("pwd",),
        auth_time=now - 0.5,
        created_at=now,
        last_seen_at=now,
        idle_expires_at=now + 3600,
        expires_at=now + 86400,
        rotated_at=now,
        sibling_at=now,
        fingerprint="Firefox|Linux",
        device="Firefox on Linux",
        address="2001:db8::1",
        country="NL",
    )
    return replace(session, **changes)


def a_credential(account: Account, handle: str = "") -> Credential:
    return Credential(subject=account.subject, method="password", handle=handle, proof="$argon2id$...", created_at=NOW)


def a_token(subject: str, purpose: Purpose = "reset_password", expires_at: float = NOW + 60) -> OneTimeToken:
    return OneTimeToken(
        id=new_id(),
        purpose=purpose,
        subject=subject,
        email="ada@example.com",
        secret_hash=os.urandom(32),
        created_at=NOW,
        expires_at=expires_at,
    )


def a_key(number: int = 1) -> StoredKey:
    return StoredKey(
        kid=new_id(),
        number=number,
        alg="ES256",
        sealed=os.urandom(60),
        created_at=NOW,
        signs_at=NOW,
        signs_until=NOW + 1,
        verifies_until=NOW + 2,
    )


def a_client(id: str = "reports") -> RegisteredClient:
    return RegisteredClient(id=id, name="Reports", secret_hash=os.urandom(32), created_at=NOW)


def a_verifier(name: str = "orders") -> VerifierKey:
    return VerifierKey(id=new_id(), name=name, secret_hash=os.urandom(32), created_at=NOW)


def a_revocation(id: str = "", expires_at: float = NOW + 600, subject: str = "") -> Revocation:
    return Revocation(kind="session", id=id or new_id(), expires_at=expires_at, subject=subject)


def a_row(**changes: Any) -> NodeRow:
    row = NodeRow(id=new_id(), stamp=new_id(), log_epoch=1, acked_seq=0, lease_for=10.0)
    return replace(row, **changes)


def an_event(subject: str = "", now: float = NOW) -> AuditEvent:
    return event("login", now=now, client=Client(address="192.0.2.1"), subject=subject)


def tokens_of(subject: str, purpose: Purpose) -> Discard:
    return Discard(OneTimeToken, {"subject": subject, "purpose": purpose})


async def the_log(store: Store, after: int = 0) -> list[Revocation]:
    """Give every entry after a number, however many readings it takes."""
    log_epoch = (await store.node_rows()).log_epoch
    found: list[Revocation] = []
    while True:
        read = await store.read_log(log_epoch, after)
        found += read.entries
        if read.upto >= read.head:
            return found
        after = read.upto


async def is_refused(store: Store, *changes: Change) -> bool:
    try:
        await store.commit(*changes)
    except Conflict:
        return True
    return False


async def how_many_succeed(attempts: Sequence[Coroutine[Any, Any, Any]]) -> int:
    """Make all attempts at once. Whatever fails must fail as a conflict."""
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, Conflict):
            raise outcome
    return sum(not isinstance(outcome, Conflict) for outcome in outcomes)


class World:
    """A store with something of everything in it, and what it looks like through every read there is."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ada, self.bob, self.out = an_account("ada"), an_account("bob"), an_account("out")
        self.live, self.other, self.ended = (a_session(self.ada, NOW + n) for n in range(3))
        self.credential, self.token = a_credential(self.ada), a_token(self.ada.subject)
        self.key, self.client, self.verifier = a_key(1), a_client("reports"), a_verifier("orders")
        self.first = an_event(self.ada.subject)

    async def fill(self) -> World:
        everything: list[Struct] = [
            self.ada, self.bob, self.out, self.live, self.other, self.ended, self.credential, self.token, self.key,
            self.client, self.verifier,
        ]  # fmt: skip
        await self.store.commit(*map(Add, everything), Revoke(a_revocation()), Log(self.first))
        disabled = replace(self.out, status="disabled")
        await self.store.commit(End(self.ended.id, "logout", NOW), Swap(disabled))
        return self

    async def seen(self) -> list[object]:
        store, people = self.store, (self.ada, self.bob, self.out)
        return [
            await store.accounts(),
            [await store.account_by_email(person.email or "") for person in people],
            [await store.session(session.id) for session in (self.live, self.other, self.ended)],
            [await store.sessions_of(person.subject) for person in people],
            [await store.get(Credential, person.subject, "password", "") for person in people],
            await store.get(OneTimeToken, self.token.id),
            await store.select(StoredKey),
            await store.select(RegisteredClient),
            await store.select(VerifierKey),
            await the_log(store),
            await store.node_rows(),
            await store.events(),
            await store.counts(),
        ]


# --- the laws ---------------------------------------------------------------------------------------------------------


async def a_commit_is_all_or_none(store: Store) -> None:
    """1. Whatever makes one change impossible undoes the whole commit, and raises `Conflict`."""
    world = await World(store).fill()
    ada, bob, live, ended = world.ada, world.bob, world.live, world.ended
    await store.node_register(a_row())
    good: list[Change] = [
        Add(an_account("eve")), Add(a_session(bob)), Add(a_credential(bob)), Add(a_token(bob.subject)), Add(a_key(2)),
        Add(a_client("second")), Add(a_verifier("second")), Swap(replace(ada, email="new@example.com", epoch=1)),
        Swap(replace(live, generation=1)), Swap(replace(world.credential, proof="new")),
        Swap(replace(world.key, revoked_at=NOW)), Swap(replace(world.client, name="new")), Expect(ada.subject, 1),
        Take(world.token), End(world.other.id, "logout", NOW), tokens_of(bob.subject, "reset_password"),
        EndAll(ada.subject, "logout_all", NOW), Revoke(a_revocation()), Revoke(a_revocation()), Log(an_event()),
        Remove(world.credential), Remove(world.client), Remove(world.verifier), Remove(ada),
    ]  # fmt: skip
    stranger = an_account("stranger")
    bad: list[Change] = [
        Add(bob), Add(replace(stranger, email=bob.email)), Add(ended), Add(a_session(stranger)), Add(world.key),
        Add(replace(a_key(1), number=world.key.number)), Add(a_client("second")), Log(world.first),
        Swap(replace(bob, revision=1)), Swap(stranger), Swap(replace(bob, email=world.out.email)), Swap(a_session(bob)),
        Swap(replace(ended, revision=1)), Swap(replace(world.key, revision=7)), Swap(a_key(9)), Swap(a_client("third")),
        Swap(a_credential(stranger)), Expect(bob.subject, 1), Expect(stranger.subject, 0), Expect(world.out.subject, 0),
        Take(world.token), Take(a_token("")), End(ended.id, "logout", NOW), End(new_id(), "logout", NOW),
        Add(a_verifier("second")),
    ]  # fmt: skip
    before = await world.seen()
    for change in bad:
        assert await is_refused(store, *good, change), f"{change} after much else"
        assert await world.seen() == before, f"{change} left something of what came before it"
        assert await is_refused(store, change, *good), f"{change} before much else"
        assert await world.seen() == before, f"{change} left something of what came after it"
    await store.commit(*good)
    assert await world.seen() != before


async def changes_apply_in_order(store: Store) -> None:
    """1. A change sees what those before it in its commit have done."""
    ada = an_account()
    session, token = a_session(ada), a_token(ada.subject)
    assert await is_refused(store, Expect(ada.subject, 0), Add(ada))
    assert await is_refused(store, Add(session), Add(ada))
    await store.commit(
        Add(ada), Expect(ada.subject, 0), Swap(replace(ada, epoch=1)), Expect(ada.subject, 1), Add(session), Add(token),
        Take(token), Swap(session), Swap(replace(session, revision=1, generation=5)), End(session.id, "logout", NOW),
    )  # fmt: skip
    kept = replace(session, generation=5, ended_at=NOW, end_reason="logout", revision=3)
    assert await store.session(session.id) == (kept, replace(ada, epoch=1, revision=1))
    assert await store.get(OneTimeToken, token.id) is None


async def a_commit_of_nothing_says_where_the_log_ends(store: Store) -> None:
    """1. and 6. A commit gives the highest `seq` after it: 0 for an empty log."""
    assert (await store.commit()).seq == 0
    assert (await store.commit(Revoke(a_revocation()), Revoke(a_revocation()))).seq == 2
    assert (await store.commit()).seq == 2


async def a_swap_needs_the_stored_revision(store: Store) -> None:
    """3. A swap succeeds if and only if the stored revision is the record's, and writes it plus one."""
    world = await World(store).fill()
    ada = world.ada
    written: list[tuple[Any, Any, Callable[[], Awaitable[object]]]] = [
        (ada, replace(ada, name="Countess", roles=("admin",)), lambda: store.account(ada.subject)),
        (
            world.credential,
            replace(world.credential, proof="n"),
            lambda: store.get(Credential, ada.subject, "password", ""),
        ),
        (world.key, replace(world.key, revoked_at=NOW, exported_at=NOW), lambda: first(store.select(StoredKey))),
        (world.client, replace(world.client, secret_hash=b""), lambda: store.get(RegisteredClient, "reports")),
        (world.live, replace(world.live, device="Other"), lambda: first(store.session(world.live.id))),
    ]
    for old, new, read in written:
        assert await read() == old
        for revision in (-1, 1, 2):
            assert await is_refused(store, Swap(replace(new, revision=revision)))
        assert await read() == old
        await store.commit(Swap(new))
        assert await read() == replace(new, revision=1)
        assert await is_refused(store, Swap(new)), "the revision was used already"
        await store.commit(Swap(replace(old, revision=1)))
        assert await read() == replace(old, revision=2)


async def first(reading: Awaitable[Any]) -> object:
    return (await reading)[0]


async def an_added_record_has_revision_0(store: Store) -> None:
    """3. An added record has revision 0, whatever it says."""
    ada = replace(an_account(), revision=5)
    session = replace(a_session(ada), revision=5)
    await store.commit(Add(ada), Add(session))
    assert await store.session(session.id) == (replace(session, revision=0), replace(ada, revision=0))


async def of_simultaneous_swaps_one_succeeds(store: Store) -> None:
    """3. Of any number of simultaneous swaps from one revision exactly one succeeds."""
    world = await World(store).fill()
    for revision in range(5):
        session = replace(world.live, revision=revision)
        account = replace(world.ada, revision=revision)
        swaps = [store.commit(Swap(replace(session, generation=n))) for n in range(AT_ONCE)]
        assert await how_many_succeed(swaps) == 1
        assert await how_many_succeed([store.commit(Swap(account), Log(an_event())) for _ in range(AT_ONCE)]) == 1
    found = await store.session(world.live.id)
    assert found is not None
    assert (found[0].revision, found[1].revision) == (5, 5)
    assert len(await store.events()) == 6, "a swap that lost its race must not have logged anything"


async def of_simultaneous_registrations_of_one_address_one_succeeds(store: Store) -> None:
    """3. A unique value is given once: of simultaneous registrations and changes to one address one succeeds."""
    others = [an_account(f"other{n}") for n in range(AT_ONCE // 2)]
    await store.commit(*map(Add, others))
    wanted = "wanted@example.com"
    attempts = [store.commit(Add(replace(an_account(f"new{n}"), email=wanted))) for n in range(AT_ONCE // 2)]
    attempts += [store.commit(Swap(replace(other, email=wanted))) for other in others]
    assert await how_many_succeed(attempts) == 1
    assert await store.account_by_email(wanted) is not None
    bare = [replace(an_account(f"bare{n}"), email=None) for n in range(2)]
    await store.commit(*map(Add, bare))


async def of_two_who_take_a_role_from_the_last_two_one_succeeds(store: Store) -> None:
    """1. An expected role is there when its commit is, however many take it away; disabled accounts have none."""
    assert await is_refused(store, ExpectRole("admin"))
    for n in range(20):
        role, other = f"role-{n}", f"role-{n}-of-another-name"
        one, two, out, similar = (an_account(f"{name}{n}") for name in ("one", "two", "out", "similar"))
        one, two = replace(one, roles=(role,)), replace(two, roles=("a", role, "z"))
        out, similar = replace(out, roles=(role,), status="disabled"), replace(similar, roles=(other,))
        await store.commit(Add(one), Add(two), Add(out), Add(similar), ExpectRole(role))
        holders = [account.subject for account in await store.accounts_with_role(role, limit=9)]
        assert holders == sorted([one.subject, two.subject])
        assert [a.subject for a in await store.accounts_with_role(role, limit=1)] == holders[:1]
        taking = [
            store.commit(Swap(replace(one, roles=())), ExpectRole(role)),
            store.commit(Swap(replace(two, status="disabled")), ExpectRole(role)),
        ]
        assert await how_many_succeed(taking) == 1
        assert len(await store.accounts_with_role(role, limit=9)) == 1


async def registrations_are_listed_by_their_age(store: Store) -> None:
    """7. What is given are the accounts that wait for a verified address, in the order of their subjects, in pages."""
    waiting: list[Account] = []
    for n in range(7):
        account = an_account(f"waiting{n}")
        waiting.append(account)
        await store.commit(Add(account), Add(replace(a_credential(account), method="registration", created_at=NOW)))
    for name, changes in (
        ("verified", {"email_verified_at": NOW}), ("disabled", {"status": "disabled"}), ("admin", {"roles": ("a",)}),
    ):  # fmt: skip
        account = replace(an_account(name), **changes)
        await store.commit(Add(account), Add(replace(a_credential(account), method="registration", created_at=NOW)))
    await store.commit(Add(young := an_account("young")))
    await store.commit(Add(replace(a_credential(young), method="registration", created_at=NOW + 1)))
    await store.commit(Add(other := an_account("other")), Add(replace(a_credential(other), created_at=NOW)))
    assert await store.registered_before(NOW) == []
    found, after = list[str](), ""
    while page := await store.registered_before(NOW + 0.5, after=after, limit=3):
        after = page[-1].subject
        found += [account.subject for account in page]
    assert found == sorted(account.subject for account in waiting)


async def an_address_is_free_once_its_account_leaves_it(store: Store) -> None:
    """3. A unique value belongs to whoever holds it now: changed or removed, it is free."""
    ada, bob, eve = an_account("ada"), an_account("bob"), an_account("eve")
    await store.commit(Add(ada))
    assert await is_refused(store, Add(replace(bob, email=ada.email)))
    await store.commit(Swap(replace(ada, email="elsewhere@example.com")), Add(replace(bob, email=ada.email)))
    await store.commit(Remove(bob), Add(replace(eve, email=ada.email)))
    found = await store.account_by_email(ada.email or "")
    assert found is not None
    assert found.subject == eve.subject


async def a_token_is_taken_once(store: Store) -> None:
    """4. A one-time token is taken at most once, ever, however many try."""
    token = a_token("")
    await store.commit(Add(token))
    assert await store.get(OneTimeToken, token.id) == token, "reading does not take"
    assert await how_many_succeed([store.commit(Take(token)) for _ in range(AT_ONCE)]) == 1
    assert await store.get(OneTimeToken, token.id) is None
    assert await is_refused(store, Take(token))


async def discarding_names_subject_and_purpose(store: Store) -> None:
    """4. Discard deletes the tokens of one subject for one purpose, and no other; none is fine."""
    ada, bob = an_account("ada"), an_account("bob")
    gone = [a_token(ada.subject), a_token(ada.subject)]
    kept = [a_token(ada.subject, "verify_email"), a_token(bob.subject), a_token("", "setup")]
    await store.commit(*map(Add, gone + kept))
    for _ in range(2):
        await store.commit(tokens_of(ada.subject, "reset_password"))
        assert [await store.get(OneTimeToken, token.id) for token in gone] == [None, None]
        assert [await store.get(OneTimeToken, token.id) for token in kept] == kept
    await store.commit(tokens_of("", "setup"))
    assert await store.get(OneTimeToken, kept[2].id) is None


async def a_session_ends_once_and_for_all(store: Store) -> None:
    """5. An `End` succeeds once; an ended session never lives again, and no swap can change that."""
    ada = an_account()
    session = a_session(ada)
    await store.commit(Add(ada), Add(session))
    assert await how_many_succeed([store.commit(End(session.id, "logout", NOW + n)) for n in range(AT_ONCE)]) == 1
    found = await store.session(session.id)
    assert found is not None
    ended = found[0]
    assert ended.ended_at is not None
    assert (ended.end_reason, ended.revision) == ("logout", 1)
    for revision in range(3):
        assert await is_refused(store, Swap(replace(session, revision=revision)))
        assert await is_refused(store, Swap(replace(ended, device="", revision=revision)))
    await store.commit(EndAll(ada.subject, "disabled", NOW + 9))
    assert await store.session(session.id) == (ended, ada), "the first end is the one that counts"
    assert await store.sessions_of(ada.subject) == []


async def an_end_beats_every_swap_it_overlaps(store: Store) -> None:
    """5. Whatever swaps overlap an `End`, the session has ended when both are done: nothing writes it back."""
    ada = an_account()
    sessions = [a_session(ada, NOW + n) for n in range(AT_ONCE)]
    await store.commit(Add(ada), *map(Add, sessions))
    attempts: list[Coroutine[Any, Any, Any]] = []
    for n, session in enumerate(sessions):
        both = [store.commit(Swap(replace(session, generation=1))), store.commit(End(session.id, "logout", NOW))]
        attempts += both if n % 2 else reversed(both)
    assert await how_many_succeed(attempts) >= AT_ONCE
    for session in sessions:
        found = await store.session(session.id)
        assert found is not None
        assert found[0].ended_at == NOW


async def a_swap_may_end_a_session(store: Store) -> None:
    """5. A session swapped for one that has ended has ended."""
    ada = an_account()
    session = a_session(ada)
    await store.commit(Add(ada), Add(session), Swap(replace(session, ended_at=NOW, end_reason="replaced")))
    assert await store.sessions_of(ada.subject) == []
    assert await is_refused(store, Swap(replace(session, revision=1)))
    assert await is_refused(store, End(session.id, "logout", NOW))


async def ending_all_spares_one_and_counts(store: Store) -> None:
    """5. EndAll ends every session of a subject that has not ended, but one, and says how many."""
    ada, bob = an_account("ada"), an_account("bob")
    mine = [a_session(ada, NOW + n) for n in range(5)]
    theirs = a_session(bob)
    await store.commit(Add(ada), Add(bob), *map(Add, mine), Add(theirs), End(mine[0].id, "logout", NOW))
    done = await store.commit(EndAll(ada.subject, "logout_all", NOW + 1, keep=mine[4].id))
    assert done.count == 3
    assert await store.sessions_of(ada.subject) == [mine[4]]
    assert await store.sessions_of(bob.subject) == [theirs]
    done = await store.commit(EndAll(ada.subject, "logout_all", NOW + 2), EndAll(bob.subject, "disabled", NOW))
    assert done.count == 2
    assert (
        await store.commit(EndAll(ada.subject, "logout_all", NOW + 3), EndAll(new_id(), "disabled", NOW))
    ).count == 0
    found = await store.session(mine[2].id)
    assert found == (replace(mine[2], ended_at=NOW + 1, end_reason="logout_all", revision=1), ada)


async def the_log_is_dense_and_in_commit_order(store: Store) -> None:
    """6. An entry that is read was committed, and none with a lower `seq` appears later; what failed leaves no gap."""
    read: list[Revocation] = []

    async def write(name: int) -> None:
        for n in range(20):
            entries = [Revoke(a_revocation(f"{name} {n} {m}")) for m in range(n % 3 + 1)]
            if n % 4 == 3:
                assert await is_refused(store, *entries, Take(a_token("")))
            else:
                done = await store.commit(*entries)
                log = await the_log(store)
                assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
                assert done.seq <= len(log)
                assert {change.entry.id for change in entries} <= {entry.id for entry in log[: done.seq]}

    async def follow(until: asyncio.Event) -> None:
        while not until.is_set():
            read.extend(await the_log(store, len(read)))
            await asyncio.sleep(0)

    done = asyncio.Event()
    following = asyncio.create_task(follow(done))
    await asyncio.gather(*[write(name) for name in range(10)])
    done.set()
    await following
    read.extend(await the_log(store, len(read)))
    assert read == await the_log(store)
    assert [entry.seq for entry in read] == list(range(1, len(read) + 1))
    assert (await store.commit()).seq == len(read)
    assert await the_log(store, len(read)) == await the_log(store, len(read) + 5) == []
    for name in range(10):
        mine = [entry.id for entry in read if entry.id.startswith(f"{name} ")]
        assert mine == sorted(mine, key=lambda id: [int(part) for part in id.split()]), (
            "one writer's entries in its order"
        )


async def the_log_goes_on_after_a_purge(store: Store) -> None:
    """6. A number is never given twice, though the entry that had it was purged."""
    await store.commit(*[Revoke(a_revocation(expires_at=NOW)) for _ in range(3)])
    assert await store.purge(before=NOW + 1, events_before=0.0) == 3
    assert await the_log(store) == []
    assert (await store.commit()).seq == 3
    entry = a_revocation()
    assert (await store.commit(Revoke(entry))).seq == 4
    assert await the_log(store) == await the_log(store, 3) == [replace(entry, seq=4)]


async def the_log_is_read_in_pages(store: Store) -> None:
    """6. However long the log is, readings follow each other without gap or overlap; another log begins at 0."""
    many = 2500
    done = await store.commit()
    for n in range(4):
        done = await store.commit(*[Revoke(a_revocation(f"{n} {m}")) for m in range(many)])
    first = await store.read_log(done.log_epoch, 0)
    assert (first.there, first.log_epoch, first.after, first.rows) == (True, done.log_epoch, 0, ())
    assert len(first.salt) == 16
    entries, read = list(first.entries), first
    while read.upto < read.head:
        assert read.entries
        assert read.entries[-1].seq == read.upto
        read = await store.read_log(done.log_epoch, read.upto)
        assert (read.after, read.salt) == (entries[-1].seq, first.salt)
        entries += read.entries
    assert read.upto == read.head == done.seq == 4 * many
    assert [entry.id for entry in entries] == [f"{n} {m}" for n in range(4) for m in range(many)]
    assert [entry.seq for entry in entries] == list(range(1, 4 * many + 1))
    for log_epoch in (0, done.log_epoch - 1, done.log_epoch + 1):
        assert replace(await store.read_log(log_epoch, 7000), at=first.at) == first
    last = await store.read_log(done.log_epoch, done.seq)
    assert (list(last.entries), last.after, last.upto, last.head) == ([], done.seq, done.seq, done.seq)
    # What was purged leaves no reader behind.
    await store.purge(before=math.inf, events_before=0.0)
    emptied = await store.read_log(0, 0)
    assert (list(emptied.entries), emptied.upto, emptied.head) == ([], done.seq, done.seq)


async def the_head_is_never_behind(store: Store) -> None:
    """6. `head`, where it tells anything, and `read_log` are never behind a commit that returned before."""

    async def append(n: int) -> None:
        done = await store.commit(*[Revoke(a_revocation()) for _ in range(n % 3)])
        head = store.head()
        assert head is None or (head.log_epoch == done.log_epoch and head.seq >= done.seq)
        assert (await store.read_log(done.log_epoch, done.seq)).head >= done.seq

    for _ in range(4):
        await asyncio.gather(*[append(n) for n in range(AT_ONCE)])
        assert await is_refused(store, Revoke(a_revocation()), Take(a_token("")))
    done, head = await store.commit(), store.head()
    assert head in (None, (done.log_epoch, done.seq))


async def whoever_watches_is_woken(store: Store) -> None:
    """6. Who watches is called when the log has grown, each time, and no more once he stopped."""
    first, second = asyncio.Event(), asyncio.Event()
    unwatch_first, unwatch_second = store.watch(first.set), store.watch(second.set)

    async def wakes(event: asyncio.Event) -> None:
        """A watcher who is woken and finds nothing sleeps on: he must be woken again when there is something."""
        before = (await store.commit()).seq
        event.clear()
        written = asyncio.create_task(store.commit(Revoke(a_revocation())))
        while (await store.read_log((await store.node_rows()).log_epoch, before)).upto == before:
            await asyncio.wait_for(event.wait(), PATIENCE)
            event.clear()
        await written

    for _ in range(20):
        await wakes(first)
        await wakes(second)
    unwatch_first()
    await wakes(second)
    await asyncio.sleep(0)
    first.clear()
    await wakes(second)
    second.clear()
    await store.begin_log_epoch(NOW)
    await asyncio.wait_for(second.wait(), PATIENCE)
    assert not first.is_set()
    unwatch_second()
    unwatch_second()


async def live_revocations_are_counted(store: Store) -> None:
    """Reads: the entries of one subject's sessions and tokens that have not expired."""
    ada, bob = "ada", "bob"
    entries = [a_revocation(subject=ada, expires_at=NOW + n) for n in range(4)]
    token = Revocation(kind="token", id=new_id(), expires_at=NOW + 9, subject=ada)
    await store.commit(*map(Revoke, [*entries, token, a_revocation(subject=bob), a_revocation()]))
    assert await is_refused(store, Revoke(a_revocation(subject=ada)), Take(a_token("")))
    assert [await store.live_revocations(ada, NOW + n) for n in range(5)] == [4, 3, 2, 1, 1]
    assert await store.live_revocations(bob, NOW) == 1
    assert await store.live_revocations("ad", NOW) == 0
    await store.purge(before=NOW + 3, events_before=0.0)
    assert await store.live_revocations(ada, 0.0) == 2


async def verifiers_have_names_of_their_own(store: Store) -> None:
    """3. and 7. A verifier's key is read by id, listed by name; its name is given once, and free once it is removed."""
    names = ["zeta", "Orders service", "orders"]
    keys = [a_verifier(name) for name in names]
    await store.commit(*map(Add, keys))
    assert await store.select(VerifierKey) == sorted(keys, key=lambda key: key.name)
    assert [await store.get(VerifierKey, key.id) for key in keys] == keys
    assert await is_refused(store, Add(keys[0]))
    assert await is_refused(store, Add(replace(keys[0], name="another")))
    attempts = [store.commit(Add(a_verifier("wanted"))) for _ in range(AT_ONCE)]
    assert await how_many_succeed(attempts) == 1
    await store.commit(Remove(keys[0]), Add(a_verifier("zeta")))
    assert await store.get(VerifierKey, keys[0].id) is None
    assert [key.name for key in await store.select(VerifierKey)] == ["Orders service", "orders", "wanted", "zeta"]


# --- nodes ------------------------------------------------------------------------------------------------------------


def of(read: Renewed, id: str) -> list[NodeRow]:
    return [row for row in read.rows if row.id == id]


async def a_row_is_replaced_only_where_it_is(store: Store) -> None:
    """11. A renewal replaces a row if it is there; whoever forgets it must know its stamp."""
    row, other = a_row(), a_row(lease_for=0.1 + 0.2, acked_seq=2**53)
    absent = await store.node_renew(row, 0)
    assert not absent.there
    assert (await store.node_rows()).rows == [], "a renewal brings no row"
    await store.node_register(row)
    await store.node_register(other)
    rows = await store.node_rows()
    assert sorted(rows.rows, key=lambda row: row.lease_for) == [other, row]
    assert rows.log_epoch == absent.log_epoch
    renewed = replace(row, stamp=new_id(), acked_seq=7, log_epoch=3, lease_for=60.0)
    read = await store.node_renew(renewed, 0)
    assert read.there
    assert sorted(read.rows, key=lambda row: row.lease_for) == [other, renewed]
    await store.node_forget(row.id, row.stamp)
    await store.node_forget(other.id, renewed.stamp)
    assert len((await store.node_rows()).rows) == 2, "a stamp that is no longer there, and another's"
    await store.node_register(row)
    assert of(await store.node_renew(other, 0), row.id) == [row], "asked again for a row that is there, it is written"
    await store.node_forget(row.id, row.stamp)
    assert (await store.node_rows()).rows == [other]
    assert not (await store.node_renew(replace(row, stamp=new_id()), 0)).there
    assert (await store.node_rows()).rows == [other]


async def of_a_renewal_and_a_forgetting_one_wins(store: Store) -> None:
    """11. Of a renewal and a `node_forget` at once one wins, and no row comes back after it was forgotten."""
    for n in range(AT_ONCE):
        row = a_row()
        await store.node_register(row)
        stamps = [new_id() for _ in range(4)]
        attempts: list[Coroutine[Any, Any, Any]] = [
            store.node_renew(replace(row, stamp=stamp, acked_seq=n), 0) for stamp in stamps
        ]
        attempts.insert(n % 5, store.node_forget(row.id, row.stamp))
        outcomes = [done for done in await asyncio.gather(*attempts) if isinstance(done, Renewed)]
        there = {read.there for read in outcomes}
        assert len(there) == 1, "of four renewals some found the row, and some did not: it came back"
        left = [found.stamp for found in (await store.node_rows()).rows if found.id == row.id]
        assert len(left) == (1 if there == {True} else 0)
        assert set(left) <= set(stamps)
        for stamp in left:
            await store.node_forget(row.id, stamp)


async def a_renewal_sees_every_commit_before_it(store: Store) -> None:
    """11. and 8. A renewal sees every commit and every row from before it began, and reads as `read_log` does."""
    log_epoch = (await store.commit()).log_epoch
    rows = [a_row(log_epoch=log_epoch) for _ in range(5)]

    async def follow(row: NodeRow) -> None:
        await store.node_register(row)
        seen: list[Revocation] = []
        for _ in range(12):
            done = await store.commit(*[Revoke(a_revocation()) for _ in range(3)])
            row = replace(row, stamp=new_id(), acked_seq=len(seen))
            read = await store.node_renew(row, len(seen))
            assert (read.there, of(read, row.id), read.after) == (True, [row], len(seen))
            assert read.head >= read.upto >= done.seq
            seen += read.entries
            assert [entry.seq for entry in seen] == list(range(1, read.upto + 1))
            newcomer = a_row()
            await store.node_register(newcomer)
            found = await store.node_renew(replace(row, stamp=new_id(), log_epoch=log_epoch + 1), len(seen))
            assert of(found, newcomer.id)
            assert (found.after, found.log_epoch) == (0, log_epoch), "a seq of another log counts for nothing"
            await store.node_forget(newcomer.id, newcomer.stamp)

    await asyncio.gather(*map(follow, rows))


async def a_commit_knows_the_longest_lease(store: Store) -> None:
    """11. A commit that revoked tells the longest lease of any row that was there before it."""
    assert (await store.commit(Revoke(a_revocation()))).longest_lease == 0.0
    short, long = a_row(lease_for=5.0), a_row(lease_for=60.5)
    await store.node_register(short)
    assert (await store.commit(Revoke(a_revocation()))).longest_lease == 5.0
    await store.node_register(long)
    assert (await store.commit(Log(an_event()))).longest_lease == 0.0
    commits = [store.commit(Revoke(a_revocation()), Log(an_event())) for _ in range(AT_ONCE)]
    assert [done.longest_lease for done in await asyncio.gather(*commits)] == [60.5] * AT_ONCE
    await store.node_renew(replace(long, stamp="x", lease_for=1.5), 0)
    assert (await store.commit(Revoke(a_revocation()))).longest_lease == 5.0
    await store.node_forget(short.id, short.stamp)
    assert (await store.commit(Revoke(a_revocation()))).longest_lease == 1.5


async def a_new_log_epoch_outdates_all_that_was_handed_out(store: Store) -> None:
    """6. and 11. A new log epoch keeps entries, numbers and salt; rows are gone, and epochs above all before."""
    world = await World(store).fill()
    ahead = replace(an_account("ahead"), epoch=2**50)
    done = await store.commit(Add(ahead))
    row = a_row(log_epoch=done.log_epoch)
    await store.node_register(row)
    before, log = await store.node_renew(row, 0), await the_log(store)
    now = max(NOW, done.log_epoch / 1000 + 5)
    assert store.first_epoch == done.log_epoch, "a store that lost nothing is not taken for a restored one"
    begun = await store.begin_log_epoch(now)
    assert begun == int(now * 1000) > done.log_epoch == store.first_epoch
    head = store.head()
    assert head in (None, (begun, done.seq))
    assert await store.node_rows() == await store.node_rows()
    assert ((await store.node_rows()).log_epoch, list((await store.node_rows()).rows)) == (begun, [])
    read = await store.read_log(done.log_epoch, done.seq)
    assert (read.log_epoch, read.after, read.salt, read.head) == (begun, 0, before.salt, done.seq)
    assert list(read.entries) == log == await the_log(store)
    assert not (await store.node_renew(replace(row, stamp=new_id()), done.seq)).there
    for person in (world.ada, world.bob):
        assert await store.account(person.subject) == replace(person, epoch=begun, revision=1)
    raised = await store.account(ahead.subject)
    assert raised == replace(ahead, epoch=2**50 + 1, revision=1), "an epoch never falls, and always rises"
    live = await store.session(world.live.id)
    assert live == (world.live, replace(world.ada, epoch=begun, revision=1)), "sessions live on"
    assert await is_refused(store, Expect(world.ada.subject, 0)), "a proof read before it starts nothing after it"
    assert await is_refused(store, Swap(replace(world.ada, name="new")))
    after = await store.commit(Revoke(a_revocation()))
    assert (after.seq, after.log_epoch, after.longest_lease) == (done.seq + 1, begun, 0.0)
    # The clock may have gone back: the epoch must not.
    assert await store.begin_log_epoch(NOW - 1e6) == begun + 1
    assert [await store.begin_log_epoch(now + 1), await store.begin_log_epoch(now + 1)] == [
        int((now + 1) * 1000),
        int((now + 1) * 1000) + 1,
    ]


async def commits_and_a_new_log_epoch_are_in_one_order(store: Store) -> None:
    """6. A commit belongs to one log, the one its numbers count in, however many begin meanwhile."""
    done = await asyncio.gather(
        *[store.commit(Revoke(a_revocation())) for _ in range(AT_ONCE)],
        *[store.begin_log_epoch(NOW) for _ in range(3)],
        *[store.commit(Revoke(a_revocation())) for _ in range(AT_ONCE)],
    )
    committed = sorted((one.seq, one.log_epoch) for one in done if isinstance(one, Revoked))
    assert [seq for seq, _ in committed] == list(range(1, 2 * AT_ONCE + 1))
    assert [log_epoch for _, log_epoch in committed] == sorted(log_epoch for _, log_epoch in committed)
    assert (await store.commit()).log_epoch == max(one for one in done if isinstance(one, int))


HARD_TEXTS = (
    "",
    " ",
    "Zoë",
    "\N{ZERO WIDTH JOINER}",
    "日本語",
    "' OR 1=1 --",
    "%_\\",
    "a\nb\tc",
    "😀" * 50,
    "x" * 10_000,
)
HARD_INSTANTS = (0.0, 0.1 + 0.2, NOW, math.nextafter(NOW, math.inf), 1e15, 5e-324)


async def what_is_written_is_what_is_read(store: Store) -> None:
    """7. To the bit: texts, bytes, instants, counters, missing values, ids that are not ours."""
    for n, text in enumerate(HARD_TEXTS):
        at = HARD_INSTANTS[n % len(HARD_INSTANTS)]
        person = replace(
            an_account(),
            subject=f"app|{text}|{n}",
            email=text or None,
            address=text or None,
            name=text,
            roles=("admin", "häß")[: n % 3],
            status="disabled" if n % 2 else "active",
            email_verified_at=at if n % 2 else None,
            epoch=n,
            created_at=at,
        )
        session = a_session(
            person,
            mode="hybrid" if n % 2 else "session",
            client_id=text,
            scope=text,
            secret_hash=b"" if n % 2 else bytes(range(256)),
            salt=b"\0" * n,
            master_key_id=text.encode(),
            epoch=n,
            amr=("pwd", "otp", "mfa")[: n % 4],
            auth_time=at,
            created_at=at + 1,
            last_seen_at=at + 2,
            idle_expires_at=at + 3,
            expires_at=at + 4,
            generation=2**42 - 1,
            sibling=n,
            parent_sibling=n - 1,
            rotated_at=at + 5,
            sibling_at=at + 6,
            fingerprint=text,
            device=text,
            address=text,
            country=text,
            ended_at=at if n % 3 else None,
            end_reason=text,
        )
        credential = replace(a_credential(person, handle=text), method=text, proof=text, created_at=at)
        token = replace(
            a_token(person.subject, "verify_email", at),
            email=text,
            secret_hash=text.encode(),
            created_at=at,
            payload=bytes(range(256)) * n,
        )
        key = replace(a_key(n), alg=text, sealed=text.encode(), created_at=at, revoked_at=at, exported_at=at)
        client = replace(a_client(f"{text}{n}"), name=text, secret_hash=b"", created_at=at)
        verifier = replace(a_verifier(text), secret_hash=b"\0" * n, created_at=at)
        entry = Revocation(kind="key", id=text, min_epoch=n, expires_at=math.inf if n % 2 else at, subject=text)
        happened = AuditEvent(
            id=new_ordered_id(NOW + n), at=at, name="login", outcome="refused", subject=text, actor=text,
            session_id=text, client_id=text, address=text, country=text, device=text, detail=text,
        )  # fmt: skip
        records: list[Struct] = [person, session, credential, token, key, client, verifier]
        done = await store.commit(*map(Add, records), Revoke(entry), Log(happened))
        assert await store.account(person.subject) == person
        assert await store.account_by_email(person.email or "\0") == (person if person.email else None)
        assert await store.session(session.id) == (session, person)
        assert await store.sessions_of(person.subject) == ([] if n % 3 else [session])
        assert await store.get(Credential, person.subject, text, text) == credential
        assert await store.get(OneTimeToken, token.id) == token
        assert key in await store.select(StoredKey)
        assert await store.get(RegisteredClient, client.id) == client
        assert await store.get(VerifierKey, verifier.id) == verifier
        assert verifier in await store.select(VerifierKey)
        assert await the_log(store, done.seq - 1) == [replace(entry, seq=done.seq)]
        assert (await store.events(limit=1)) == [happened]


async def unknown_is_none_and_removing_the_absent_is_fine(store: Store) -> None:
    """7. Unknown ids give None, or nothing. Removing what is absent changes nothing and fails nothing."""
    ada = an_account()
    for stranger in ("", "nobody", new_id(), "x" * 5000, "' OR 1=1 --", "\N{SNOWMAN}"):
        assert await store.session(stranger) is None
        assert await store.account(stranger) is None
        assert await store.account_by_email(stranger) is None
        assert await store.get(Credential, stranger, "password", "") is None
        assert await store.get(OneTimeToken, stranger) is None
        assert await store.get(RegisteredClient, stranger) is None
        assert await store.get(VerifierKey, stranger) is None
        assert await store.live_revocations(stranger, NOW) == 0
        assert not await store.sessions_of(stranger)
        assert not await store.events(subject=stranger or "nobody")
    assert [
        await store.select(StoredKey),
        await store.select(RegisteredClient),
        await store.accounts(),
        await the_log(store),
    ] == [[]] * 4
    assert await store.select(VerifierKey) == []
    await store.node_forget(new_id(), new_id())
    await store.commit(Remove(ada), Remove(a_credential(ada)), Remove(a_client()), Remove(a_verifier()))
    await store.commit(tokens_of("nobody", "setup"))
    assert set((await store.counts()).values()) == {0}


async def two_texts_are_two_ids(store: Store) -> None:
    """7. An id is found by its own text only: not by one that differs in spare bits, case, padding or alphabet."""
    ada = an_account()
    session, token = a_session(ada), a_token("", "setup")
    await store.commit(Add(ada), Add(session), Add(token))
    reads: list[tuple[str, Callable[[str], Awaitable[object]]]] = [
        (session.id, store.session), (token.id, partial(store.get, OneTimeToken)),
    ]  # fmt: skip
    for known, read in reads:
        assert await read(known) is not None
        last = chr(ord(known[-1]) + 1)
        for other in (
            known[:-1] + last,
            known + "==",
            known + "=",
            known.swapcase(),
            known[:-1],
            known + "A",
            f" {known}",
        ):
            assert await read(other) is None
    for text in ("-" * 21 + "A", "_" * 21 + "A", "+" * 21 + "A", "/" * 21 + "A", "A" * 21 + "B", "A" * 22, "A" * 23):
        await store.commit(Add(replace(session, id=text)), Add(replace(token, id=text)))
        found = await store.session(text)
        assert found is not None
        assert found[0].id == text
        assert await store.get(OneTimeToken, text) == replace(token, id=text)


async def an_account_takes_what_is_its_own_with_it(store: Store) -> None:
    """7. Removing an account removes its credentials and one-time tokens, and nothing of another's."""
    ada, bob = an_account("ada"), an_account("bob")
    mine, theirs = a_token(ada.subject), a_token(bob.subject)
    records: list[Struct] = [
        ada, bob, a_credential(ada), a_credential(ada, "second"), a_credential(bob), mine, theirs, a_session(ada),
    ]  # fmt: skip
    await store.commit(*map(Add, records))
    await store.commit(Remove(ada))
    assert await store.account(ada.subject) is None
    assert [await store.get(Credential, ada.subject, "password", handle) for handle in ("", "second")] == [None, None]
    assert await store.get(Credential, bob.subject, "password", "") == a_credential(bob)
    assert (await store.get(OneTimeToken, mine.id), await store.get(OneTimeToken, theirs.id)) == (None, theirs)
    assert (await store.counts())["sessions"] == 1


async def a_removed_account_leaves_no_session_behind(store: Store) -> None:
    """7. A session whose account was removed gives None, and a later account of its subject does not inherit it."""
    ada = an_account()
    session = a_session(ada)
    await store.commit(Add(ada), Add(session))
    await store.commit(Remove(ada))
    for _ in range(2):
        assert await store.session(session.id) is None
        assert await store.sessions_of(ada.subject) == []
        assert await is_refused(store, Swap(session))
        assert await is_refused(store, Add(session)), "its id is still taken"
        assert (await store.commit(EndAll(ada.subject, "deleted", NOW))).count == 0
        await store.commit(*([] if await store.account(ada.subject) else [Add(ada)]))


async def a_session_keeps_its_subject(store: Store) -> None:
    """5. A session is somebody's from its start: for nobody it is not added, and no swap hands it to another."""
    ada, bob = an_account("ada"), an_account("bob")
    session = a_session(ada)
    assert await is_refused(store, Add(session))
    await store.commit(Add(ada), Add(bob), Add(session))
    assert await is_refused(store, Swap(replace(session, subject=bob.subject)))
    assert await store.session(session.id) == (session, ada)


async def a_read_follows_every_commit(store: Store) -> None:
    """8. A read that begins after a commit returned sees it, whoever else writes meanwhile."""
    ada = an_account()
    sessions = [a_session(ada, NOW + n) for n in range(20)]
    await store.commit(Add(ada), *map(Add, sessions))

    async def end(session: Session) -> None:
        done = await store.commit(End(session.id, "logout", NOW), Revoke(a_revocation(session.id)))
        found = await store.session(session.id)
        assert found is not None
        assert found[0].ended_at == NOW
        assert session not in await store.sessions_of(ada.subject)
        assert session.id in [entry.id for entry in await the_log(store, done.seq - 1)]

    await asyncio.gather(*map(end, sessions))


async def a_cancelled_caller_harms_nobody(store: Store) -> None:
    """1. A commit whose caller was cancelled happened or did not, and nothing of it stays open."""
    ada = an_account()
    sessions = [a_session(ada, NOW + n) for n in range(AT_ONCE)]
    await store.commit(Add(ada), *map(Add, sessions))
    tasks = [
        asyncio.create_task(store.commit(End(session.id, "logout", NOW), Revoke(a_revocation(session.id))))
        for session in sessions
    ]
    dice = random.Random(1)
    for task in tasks:
        for _ in range(dice.randrange(3)):
            await asyncio.sleep(0)
        task.cancel()
    acknowledged = [
        not isinstance(done, BaseException) for done in await asyncio.gather(*tasks, return_exceptions=True)
    ]
    await store.commit()
    revoked = [entry.id for entry in await the_log(store)]
    assert len(revoked) == len(set(revoked))
    for session, ack in zip(sessions, acknowledged, strict=True):
        found = await store.session(session.id)
        assert found is not None
        assert (found[0].ended_at is not None) == (session.id in revoked)
        assert session.id in revoked or not ack


async def sessions_are_listed_newest_first(store: Store) -> None:
    """Reads: sessions of a subject that were not ended, expired ones included, newest first, no more than asked for."""
    ada, bob = an_account("ada"), an_account("bob")
    sessions = [a_session(ada, NOW + n) for n in range(4)]
    expired = a_session(ada, NOW - 1e6)
    mixed = [sessions[2], sessions[0], expired, sessions[3], sessions[1]]
    await store.commit(Add(ada), Add(bob), *map(Add, mixed), Add(a_session(bob)), End(sessions[1].id, "logout", NOW))
    assert await store.sessions_of(ada.subject) == [sessions[3], sessions[2], sessions[0], expired]
    assert await store.sessions_of(ada.subject, limit=2) == [sessions[3], sessions[2]]
    assert await store.sessions_of(ada.subject, limit=9) == await store.sessions_of(ada.subject)


async def accounts_are_paged_and_searched(store: Store) -> None:
    """Reads: accounts in the order of their subjects; a search is literal, folds case, looks at addresses and names."""
    names = ["Zoë", "STRAßE", "100%", "under_score", "back\\slash", "plain"]
    people = sorted(
        (replace(an_account(f"user{n}"), name=name) for n, name in enumerate(names)), key=lambda person: person.subject
    )
    await store.commit(*map(Add, people))
    assert await store.accounts() == people
    paged: list[Account] = []
    while page := await store.accounts(after=paged[-1].subject if paged else "", limit=2):
        assert len(page) <= 2
        paged += page
    assert paged == people
    for part, name in (
        ("zoË", "Zoë"),
        ("strasse", "STRAßE"),
        ("%", "100%"),
        ("_", "under_score"),
        ("\\", "back\\slash"),
    ):
        assert [person.name for person in await store.accounts(search=part)] == [name]
    assert [person.name for person in await store.accounts(search="USER5@exam")] == ["plain"]
    assert await store.accounts(search="%user%") == await store.accounts(search="'") == []


async def events_are_paged_and_filtered(store: Store) -> None:
    """Reads: audit events, newest first, by subject, name and time, from the last one seen."""
    events = [an_event("ada" if n % 3 else "bob", NOW + n * 0.25) for n in range(20)]
    events = [replace(happened, name="logout") if n % 2 else happened for n, happened in enumerate(events)]
    for happened in random.Random(1).sample(events, len(events)):
        await store.commit(Log(happened))
    newest = events[::-1]
    assert await store.events() == newest
    assert await store.events(limit=3) == newest[:3]
    paged: list[AuditEvent] = []
    while page := await store.events(subject="ada", before=paged[-1].id if paged else "", limit=4):
        paged += page
    assert paged == [happened for happened in newest if happened.subject == "ada"]
    assert await store.events(name="logout") == [happened for happened in newest if happened.name == "logout"]
    assert await store.events(since=NOW + 2) == [happened for happened in newest if happened.at >= NOW + 2]
    assert await store.events(subject="bob", name="login", since=NOW + 1, before=newest[2].id) == [
        happened for happened in newest[3:]
        if (happened.subject, happened.name) == ("bob", "login") and happened.at >= NOW + 1
    ]  # fmt: skip


SLOW = Limit(name="slow", count=1, per_seconds=3600.0, burst=5)
FAST = Limit(name="fast", count=1000, per_seconds=1.0, burst=1000)


async def a_limit_is_exact(store: Store) -> None:
    """Limits: of any number of attempts at once as many pass as the bucket holds; others are told how long to wait."""
    slow, fast = Bucket("slow:x", SLOW), Bucket("fast:x", FAST)
    hits = await asyncio.gather(*[store.hit([fast, slow], NOW) for _ in range(AT_ONCE)])
    assert hits.count((0.0, "")) == 5
    wait, by = await store.hit([fast, slow], NOW)
    assert by == "slow"
    assert 3599 < wait <= 3600
    # The refused attempts took nothing from the other bucket: it has all but the five.
    spent = [await store.hit([fast], NOW) for _ in range(996)]
    assert [wait > 0 for wait, _ in spent] == [False] * 995 + [True]
    assert (await store.hit([slow], NOW + wait))[0] == 0.0, "waiting as long as told is enough"
    assert (await store.hit([slow], NOW + wait))[0] > 0.0
    assert await store.hit([Bucket("slow:y", SLOW)], NOW) == (0.0, ""), "another key is another bucket"
    assert await store.hit([], NOW) == (0.0, "")


async def an_attempt_is_given_back_or_forgotten(store: Store) -> None:
    """Limits: what is given back can be taken again, once; what is forgotten never happened."""
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
        a_session(ada, NOW - 1e6, ended_at=NOW - 9.0, expires_at=NOW + 1.0),  # nor is ended
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
    await store.hit([Bucket("full", SLOW)], NOW - 4000.0)
    await store.hit([Bucket("spent", SLOW), ceiling], NOW - 3000.0)
    assert await store.purge(before=NOW, events_before=NOW - 2.0) == 5
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
    """Upkeep: thousands of rows over go in one call, those between them stay, and commits go on meanwhile."""
    ada = an_account()
    sessions = [a_session(ada, NOW + n, expires_at=NOW - 1 if n % 3 else NOW + 1) for n in range(2000)]
    await store.commit(Add(ada), *map(Add, sessions))
    deleted, *_ = await asyncio.gather(
        store.purge(before=NOW, events_before=0.0), *[store.commit(Log(an_event())) for _ in range(20)]
    )
    assert deleted == sum(session.expires_at < NOW for session in sessions)
    assert {s.id for s in await store.sessions_of(ada.subject)} == {s.id for s in sessions if s.expires_at > NOW}


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
    """Upkeep: `open` may be repeated, and `close`."""
    await store.open()
    await store.close()
    await store.close()
    await store.open()
    assert (await store.commit()).seq == 0


async def trying_to_write_refuses_nothing_and_is_purged(store: Store) -> None:
    """Whoever only looks whether the store can be written may look as often as it likes; nothing of it stays."""
    for _ in range(3):
        await asyncio.gather(*[store.try_writing(NOW) for _ in range(500)])
    await store.purge(before=NOW + 60, events_before=0.0)
    assert await store.purge(before=NOW + 60, events_before=0.0) == 0


LAWS: tuple[Law, ...] = (
    *KIND_LAWS,
    trying_to_write_refuses_nothing_and_is_purged,
    a_commit_is_all_or_none,
    changes_apply_in_order,
    a_commit_of_nothing_says_where_the_log_ends,
    a_cancelled_caller_harms_nobody,
    a_swap_needs_the_stored_revision,
    an_added_record_has_revision_0,
    of_simultaneous_swaps_one_succeeds,
    of_simultaneous_registrations_of_one_address_one_succeeds,
    of_two_who_take_a_role_from_the_last_two_one_succeeds,
    registrations_are_listed_by_their_age,
    an_address_is_free_once_its_account_leaves_it,
    a_token_is_taken_once,
    discarding_names_subject_and_purpose,
    a_session_ends_once_and_for_all,
    an_end_beats_every_swap_it_overlaps,
    a_swap_may_end_a_session,
    ending_all_spares_one_and_counts,
    a_session_keeps_its_subject,
    the_log_is_dense_and_in_commit_order,
    the_log_goes_on_after_a_purge,
    the_log_is_read_in_pages,
    the_head_is_never_behind,
    whoever_watches_is_woken,
    live_revocations_are_counted,
    verifiers_have_names_of_their_own,
    a_row_is_replaced_only_where_it_is,
    of_a_renewal_and_a_forgetting_one_wins,
    a_renewal_sees_every_commit_before_it,
    a_commit_knows_the_longest_lease,
    a_new_log_epoch_outdates_all_that_was_handed_out,
    commits_and_a_new_log_epoch_are_in_one_order,
    what_is_written_is_what_is_read,
    unknown_is_none_and_removing_the_absent_is_fine,
    two_texts_are_two_ids,
    an_account_takes_what_is_its_own_with_it,
    a_removed_account_leaves_no_session_behind,
    a_read_follows_every_commit,
    sessions_are_listed_newest_first,
    accounts_are_paged_and_searched,
    events_are_paged_and_filtered,
    a_limit_is_exact,
    an_attempt_is_given_back_or_forgotten,
    a_purge_takes_what_is_over_and_nothing_else,
    a_purge_is_bounded_and_misses_nothing,
    everything_is_counted,
    closing_twice_is_fine,
)


# --- the laws of moving -----------------------------------------------------------------------------------------------


async def log_state(store: Store) -> LogState:
    read = await store.read_log(0, 0)
    return LogState(read.log_epoch, read.salt, read.head)


async def tallied(store: Movable, kind: str, *, limit: int = 7) -> tuple[int, str]:
    """Read a kind page by page. Each page but the last is full, and nothing comes twice."""
    tally, after = Tally(), None
    while True:
        page = await store.export(kind, after, limit=limit)
        tally.add(page.records)
        if (after := page.after) is None:
            return tally.count, tally.digest
        assert len(page.records) == limit


async def all_moved(source: Movable, target: Movable, *, limit: int = 7, times: int = 1) -> None:
    """Move whatever is not moved yet."""
    noted = await target.unfinished()
    assert noted is not None
    done: dict[str, str | None] = {**noted}
    for kind in source.kinds.tables:
        after = done.get(kind)
        while kind not in done or after is not None:
            page = await source.export(kind, after, limit=limit)
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
    # No read gives the session of an account that was removed, and no move carries it.
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

    # Whole, it goes on where the source stopped.
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
    assert (await target.hit([spent], NOW)) == (await source.hit([spent], NOW))
    done = await target.commit(Swap(world.live), End(world.other.id, "logout", NOW), Revoke(a_revocation()))
    assert (done.seq, done.log_epoch) == (state.seq + 1, log_epoch)
    assert await is_refused(target, Swap(replace(world.ended, revision=1)))
    found = await target.sessions_of(world.ada.subject)
    assert [session.id for session in found] == [world.live.id]
    await target.close()
    await target.open()


async def a_move_goes_on_where_it_was(source: Movable, target: Movable) -> None:
    """Moving: what was taken in is noted with its page; begun again, the target is empty."""
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
    # A record that was taken in before is replaced by the one that comes now, in all its parts.
    session = next(one for one in third.records if isinstance(one, Session))
    ended = replace(session, ended_at=NOW, end_reason="logout", revision=7, generation=3)
    person = replace(people[3], name="another", epoch=9, revision=4)
    await target.take_in("accounts", Page([person], None))
    await target.take_in("sessions", Page([ended], None))
    assert ended in (await target.export("sessions")).records
    assert await target.account(person.subject) == person
    assert len([one for one in (await target.export("sessions")).records if one == session]) == 0
    # Somebody took an address in the source meanwhile.
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
    """Moving: into a store that has anything, or had, nothing is moved; without a beginning there is no end."""
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
    """Moving: what was left is refused to everybody, may be taken back, and may be moved back into; not by another."""
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
        assert "migrate" in str(exc)  # noqa: PT017 - laws know no test runner
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


# --- the laws over several processes ----------------------------------------------------------------------------------

PROCESSES = 4
_processes: ForkServerContext | SpawnContext = (
    multiprocessing.get_context("forkserver")
    if "forkserver" in multiprocessing.get_all_start_methods()
    else multiprocessing.get_context("spawn")
)

Work = Callable[[Store, Connection, int], Coroutine[Any, Any, None]]


class Workers:
    """Processes that each open the store, and do the same work at once. What they send back comes by their pipes."""

    def __init__(self, make: MakeStore, work: Work, count: int) -> None:
        self.pipes: list[Connection] = []
        self.processes = []
        ends: list[tuple[Any, Any]] = [_processes.Pipe() for _ in range(count)]  # typed otherwise on Windows
        for n, (ours, theirs) in enumerate(ends):
            process = _processes.Process(target=_work, args=(make, work, theirs, n), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)
        # All have opened the store before the first is let go: a race begins with everybody at the line.
        for n in range(count):
            assert self.receive(n) == "ready"
        for pipe in self.pipes:
            pipe.send("go")

    def receive(self, n: int = 0) -> Any:
        assert self.pipes[n].poll(PATIENCE), f"process {n} does not answer"
        return self.pipes[n].recv()

    def results(self) -> list[Any]:
        """What each sent last. Fails when one failed."""
        found = [self.receive(n) for n in range(len(self.pipes))]
        for process in self.processes:
            process.join(PATIENCE)
            assert process.exitcode == 0
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self.processes:
            if process.is_alive():
                process.kill()
            process.join()
        for pipe in self.pipes:
            pipe.close()


def _work(make: MakeStore, work: Work, pipe: Connection, n: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def main() -> None:
        store = make()
        await store.open()
        pipe.send("ready")
        assert pipe.recv() == "go"
        try:
            await work(store, pipe, n)
        finally:
            await store.close()

    asyncio.run(main())


def contests_have_one_winner_over_processes(make: MakeStore) -> None:
    """3., 4., 5. and limits: swap, token, end and address are won once over all processes; a limit is exact."""

    async def prepare() -> Prizes:
        store = make()
        await store.open()
        ada = an_account()
        prizes = (
            [a_session(ada, NOW + n) for n in range(20)],
            [a_session(ada, NOW + 20 + n) for n in range(20)],
            [a_token("", "setup") for _ in range(20)],
        )
        await store.commit(Add(ada), *(Add(record) for kind in prizes for record in kind))
        await store.close()
        return prizes

    prizes = asyncio.run(prepare())
    with Workers(make, _contest, PROCESSES) as workers:
        for pipe in workers.pipes:
            pipe.send(prizes)
        won = workers.results()
    for contest in ("swap", "end", "take", "register"):
        winners = sorted(n for result in won for n in result[contest])
        assert winners == list(range(20)), f"{contest}: each prize has one winner"
    assert sum(len(result["hit"]) for result in won) == 20 * SLOW.burst


Prizes = tuple[list[Session], list[Session], list[OneTimeToken]]


async def _contest(store: Store, pipe: Connection, me: int) -> None:
    to_swap, to_end, to_take = pipe.recv()
    won: dict[str, list[int]] = {"swap": [], "end": [], "take": [], "register": [], "hit": []}

    async def attempt(contest: str, n: int, *changes: Change) -> None:
        if not await in_turn(lambda: is_refused(store, *changes)):
            won[contest].append(n)

    async def hit(n: int) -> None:
        if await in_turn(lambda: store.hit([Bucket(f"race:{n}", SLOW)], NOW)) == (0.0, ""):
            won["hit"].append(n)

    async def in_turn(ask: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await ask()
        except Unavailable:  # on a busy machine somebody waits for the others in vain, and writes nothing
            return await ask()

    for n in range(20):
        await asyncio.gather(
            attempt("swap", n, Swap(replace(to_swap[n], generation=me))),
            attempt("end", n, End(to_end[n].id, "logout", NOW), Log(an_event())),
            attempt("take", n, Take(to_take[n])),
            attempt("register", n, Add(replace(an_account(), email=f"{n}@example.com"))),
            *[hit(n) for _ in range(4)],
        )
    pipe.send(won)


def the_log_is_dense_over_processes(make: MakeStore) -> None:
    """6. While several processes append, whoever reads sees every entry once, in order, and without a gap."""
    with Workers(make, _append_or_follow, PROCESSES) as workers:
        *_, followed = workers.results()
    assert [seq for seq, _ in followed] == list(range(1, len(followed) + 1))
    assert len(followed) == (PROCESSES - 1) * 60 * 2


async def _append_or_follow(store: Store, pipe: Connection, me: int) -> None:
    if me < PROCESSES - 1:
        for n in range(60):
            done = await store.commit(Revoke(a_revocation(f"{me} {n}")), Log(an_event()), Revoke(a_revocation()))
            mine = [entry.id for entry in await the_log(store, done.seq - 2)]
            assert mine[0] == f"{me} {n}", "a commit's entries follow each other, and it says where they end"
        pipe.send("done")
        return
    read: list[tuple[int, str]] = []
    while len(read) < (PROCESSES - 1) * 60 * 2:
        for entry in await the_log(store, len(read)):
            read.append((entry.seq, entry.id))
            assert entry.seq == len(read)
        await asyncio.sleep(0)
    pipe.send(read)


def a_commit_is_seen_by_every_process(make: MakeStore, rounds: int = 300) -> None:
    """8. When a commit has returned in one process, a read that begins later in any other sees it."""

    async def main(workers: Workers) -> None:
        store = make()
        await store.open()
        ada, applied = an_account(), 0
        sessions = [a_session(ada, NOW + n) for n in range(rounds)]
        await store.commit(Add(ada), *map(Add, sessions))
        for session in sessions:
            done = await store.commit(End(session.id, "logout", NOW), Revoke(a_revocation(session.id)))
            workers.pipes[0].send((session.id, applied, done.seq))
            # The other process has looked, and has committed an entry of its own.
            applied = workers.receive()
            entries = await the_log(store, done.seq)
            assert [entry.seq for entry in entries] == list(range(done.seq + 1, entries[-1].seq + 1))
            assert entries[-1].seq >= applied
        for pipe in workers.pipes:
            pipe.send(None)
        await store.close()

    with Workers(make, _look_and_answer, 2) as workers:
        asyncio.run(main(workers))


async def _look_and_answer(store: Store, pipe: Connection, me: int) -> None:
    if me == 1:  # writes without pause, so that nothing is seen by the luck of a quiet database
        while not pipe.poll():
            with contextlib.suppress(Unavailable):  # a disk that stalls refuses whoever waits for its writer longest
                await store.hit([Bucket(f"noise:{random.random()}", SLOW)], NOW)
                await store.commit(Log(an_event()))
        return
    row, woken = a_row(), asyncio.Event()
    await store.node_register(row)
    unwatch = store.watch(woken.set)
    while (told := await asyncio.to_thread(pipe.recv)) is not None:
        session_id, before, seq = told
        await asyncio.wait_for(woken.wait(), PATIENCE)
        woken.clear()
        head = store.head()
        assert head is None or head.seq >= seq, "the head is behind a commit of another process"
        row = replace(row, stamp=new_id(), log_epoch=(await store.node_rows()).log_epoch)
        renewed = await store.node_renew(row, seq - 1)
        assert [entry.id for entry in renewed.entries][:1] == [session_id], "a renewal sees every commit before it"
        found = await store.session(session_id)
        assert found is not None
        assert found[0].ended_at == NOW, "the session's end was acknowledged elsewhere, and is not seen here"
        entries = await the_log(store, before)
        assert seq in [entry.seq for entry in entries], (
            "the revocation was acknowledged elsewhere, and is not seen here"
        )
        assert entries[-1].id == session_id
        pipe.send((await store.commit(Revoke(a_revocation()))).seq)
    unwatch()


def a_row_stays_forgotten_over_processes(make: MakeStore) -> None:
    """11. While processes renew and others forget, no row comes back; salt and log epoch are one for all of them."""
    with Workers(make, _renew_or_forget, PROCESSES) as workers:
        told = workers.results()
    assert len({(log_epoch, salt) for log_epoch, salt, _ in told}) == 1
    assert sum(lost for *_, lost in told) == 2 * 15, "each row was lost to somebody who forgot it, once"


async def _renew_or_forget(store: Store, pipe: Connection, me: int) -> None:
    """Half of the processes have rows and renew them; the others forget all rows they see, whenever they can."""
    lost = 0
    if me % 2:
        for _ in range(15):
            row = a_row()
            await store.node_register(row)
            while (await store.node_renew(row := replace(row, stamp=new_id()), 0)).there:
                pass
            assert not (await store.node_renew(replace(row, stamp=new_id()), 0)).there
            assert row.id not in [found.id for found in (await store.node_rows()).rows]
            lost += 1
    else:
        gone: set[str] = set()
        quiet = 0
        while quiet < 300:
            rows = (await store.node_rows()).rows
            assert gone.isdisjoint(row.id for row in rows), "a row that was gone is back"
            quiet = 0 if rows else quiet + 1
            for row in rows:
                await store.node_forget(row.id, row.stamp)
                left = [found.stamp for found in (await store.node_rows()).rows if found.id == row.id]
                if not left:
                    gone.add(row.id)
                assert row.stamp not in left
            await asyncio.sleep(0.001)
    read = await store.read_log(0, 0)
    pipe.send((read.log_epoch, read.salt, lost))


def an_acknowledged_commit_survives_kill(make: MakeStore, kills: int = 5, seed: int = 1) -> None:
    """1. and 2. Killed at any instant, a process leaves every commit it acknowledged, and half of none.

    Each time the database is opened by another process that goes on where the last was killed.
    """
    dice = random.Random(seed)
    ada, acknowledged = an_account(), set[str]()

    async def begin() -> None:
        store = make()
        await store.open()
        await store.commit(Add(ada))
        await store.close()

    async def check() -> None:
        store = make()
        await store.open()
        log = await the_log(store)
        assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
        revoked = {entry.id for entry in log}
        logged = {happened.session_id for happened in await store.events(limit=1_000_000)}
        counts = await store.counts()
        found = await store.account(ada.subject)
        assert found is not None
        assert acknowledged <= revoked, "an acknowledged commit is lost"
        assert revoked == logged, "half a commit: the log of revocations and the audit log differ"
        assert counts["sessions"] == found.epoch == len(revoked), "half a commit: sessions, epoch and log differ"
        for session_id in acknowledged:
            pair = await store.session(session_id)
            assert pair is not None
            assert pair[0].ended_at == NOW
        await store.close()

    asyncio.run(begin())
    for _ in range(kills):
        enough = dice.randrange(1, 40)
        with Workers(make, _commit_until_killed, 1) as workers:
            workers.pipes[0].send(ada.subject)
            for _ in range(enough):
                acknowledged.add(workers.receive())
            workers.processes[0].kill()
            workers.processes[0].join()
            # What it still said before it died counts too.
            while True:
                try:
                    acknowledged.add(workers.receive())
                except (EOFError, ConnectionResetError):
                    break
        asyncio.run(check())


async def _commit_until_killed(store: Store, pipe: Connection, _: int) -> None:
    subject: str = pipe.recv()

    async def one() -> None:
        while True:
            account = await store.account(subject)
            assert account is not None
            session = a_session(account)
            happened = replace(an_event(subject), session_id=session.id)
            try:
                await store.commit(
                    Swap(replace(account, epoch=account.epoch + 1)), Add(session), End(session.id, "logout", NOW),
                    Revoke(a_revocation(session.id)), Log(happened),
                )  # fmt: skip
            except Conflict:
                continue
            pipe.send(session.id)

    await asyncio.gather(*[one() for _ in range(4)])


SHARED_LAWS: tuple[SharedLaw, ...] = (
    contests_have_one_winner_over_processes,
    the_log_is_dense_over_processes,
    a_commit_is_seen_by_every_process,
    a_row_stays_forgotten_over_processes,
    an_acknowledged_commit_survives_kill,
)
