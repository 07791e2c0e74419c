"""Laws of changes: all or none, swaps, tokens, endings."""

# ruff: noqa: PLR2004 - laws count

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from msgspec.structs import replace

from dutchdoor.jose.signing_keys import StoredKey
from dutchdoor.model.accounts import Credential
from dutchdoor.model.ids import new_id
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.service_credentials import RegisteredClient, VerifierKey
from dutchdoor.stores.base import (
    Add,
    Change,
    End,
    EndAll,
    Expect,
    ExpectLive,
    ExpectRole,
    Log,
    Remove,
    Revoke,
    Store,
    Swap,
    Take,
)
from dutchdoor.testing.conformance.samples import (
    AT_ONCE,
    NOW,
    Law,
    World,
    a_client,
    a_credential,
    a_key,
    a_revocation,
    a_row,
    a_session,
    a_token,
    a_verifier,
    an_account,
    an_event,
    first,
    how_many_succeed,
    is_refused,
    the_log,
    tokens_of,
)

__all__ = ["LAWS"]


async def a_commit_is_all_or_none(store: Store) -> None:
    """1. Any impossible change undoes the whole commit, and raises `Conflict`."""
    world = await World(store).fill()
    ada, bob, live, ended = world.ada, world.bob, world.live, world.ended
    await store.node_register(a_row())
    good: list[Change] = [
        Add(an_account("eve")), Add(a_session(bob)), Add(a_credential(bob)), Add(a_token(bob.subject)), Add(a_key(2)),
        Add(a_client("second")), Add(a_verifier("second")), Swap(replace(ada, email="new@example.com", epoch=1)),
        Swap(replace(live, generation=1)), Swap(replace(world.credential, proof="new")),
        Swap(replace(world.key, revoked_at=NOW)), Swap(replace(world.client, name="new")), Expect(ada.subject, 1),
        ExpectLive(live.id, ada.subject), Take(world.token), End(world.other.id, "logout", NOW),
        tokens_of(bob.subject, "reset_password"),
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
        Add(a_verifier("second")), ExpectLive(ended.id, ada.subject), ExpectLive(new_id(), ada.subject),
        ExpectLive(live.id, bob.subject),
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
    """1. A change sees the effects of the changes before it in its commit."""
    ada = an_account()
    session, token = a_session(ada), a_token(ada.subject)
    assert await is_refused(store, Expect(ada.subject, 0), Add(ada))
    assert await is_refused(store, Add(session), Add(ada))
    await store.commit(
        Add(ada), Expect(ada.subject, 0), Swap(replace(ada, epoch=1)), Expect(ada.subject, 1), Add(session), Add(token),
        Take(token), Swap(session), Swap(replace(session, revision=1, generation=5, binding="b", browser_key="k")),
        End(session.id, "logout", NOW),
    )  # fmt: skip
    kept = replace(session, generation=5, binding="b", browser_key="k", ended_at=NOW, end_reason="logout", revision=3)
    assert await store.session(session.id) == (kept, replace(ada, epoch=1, revision=1))
    assert await store.get(OneTimeToken, token.id) is None


async def a_commit_of_nothing_says_where_the_log_ends(store: Store) -> None:
    """1. and 6. A commit returns the highest `seq` after it: 0 for an empty log."""
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
    """3. A unique value has one record: of simultaneous registrations and changes to one address, one succeeds."""
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
    """1. An expected role exists when the commit happens, however many remove it; disabled accounts have none."""
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


async def an_address_is_free_once_its_account_leaves_it(store: Store) -> None:
    """3. A unique value belongs to the record that has it now: after a change or a removal it is free."""
    ada, bob, eve = an_account("ada"), an_account("bob"), an_account("eve")
    await store.commit(Add(ada))
    assert await is_refused(store, Add(replace(bob, email=ada.email)))
    await store.commit(Swap(replace(ada, email="elsewhere@example.com")), Add(replace(bob, email=ada.email)))
    await store.commit(Remove(bob), Add(replace(eve, email=ada.email)))
    found = await store.account_by_email(ada.email or "")
    assert found is not None
    assert found.subject == eve.subject


async def a_token_is_taken_once(store: Store) -> None:
    """4. A one-time token is taken at most once, ever, however many callers try."""
    token = a_token("")
    await store.commit(Add(token))
    assert await store.get(OneTimeToken, token.id) == token, "reading does not take"
    assert await how_many_succeed([store.commit(Take(token)) for _ in range(AT_ONCE)]) == 1
    assert await store.get(OneTimeToken, token.id) is None
    assert await is_refused(store, Take(token))


async def discarding_names_subject_and_purpose(store: Store) -> None:
    """4. Discard deletes the tokens of one subject for one purpose, and no others; it succeeds if there are none."""
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
    """5. Whatever swaps overlap an `End`, the session has ended when both are done: no swap revives it."""
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
    """5. A session that a swap replaces with an ended one has ended."""
    ada = an_account()
    session = a_session(ada)
    await store.commit(Add(ada), Add(session), Swap(replace(session, ended_at=NOW, end_reason="replaced")))
    assert await store.sessions_of(ada.subject) == []
    assert await is_refused(store, Swap(replace(session, revision=1)))
    assert await is_refused(store, End(session.id, "logout", NOW))


async def ending_all_spares_one_and_counts(store: Store) -> None:
    """5. EndAll ends every session of a subject that has not ended, except one, and returns how many."""
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


async def verifiers_have_names_of_their_own(store: Store) -> None:
    """3. and 7. A verifier's key is read by id and listed by name; its name is unique, and free once it is removed."""
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


async def a_session_keeps_its_subject(store: Store) -> None:
    """5. A session has an owner from its start: without an account it is not added, and no swap moves it to another."""
    ada, bob = an_account("ada"), an_account("bob")
    session = a_session(ada)
    assert await is_refused(store, Add(session))
    await store.commit(Add(ada), Add(bob), Add(session))
    assert await is_refused(store, Swap(replace(session, subject=bob.subject)))
    assert await store.session(session.id) == (session, ada)


async def a_cancelled_caller_harms_no_other(store: Store) -> None:
    """1. A commit whose caller was cancelled happened or did not, and leaves nothing open."""
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
    # A database may still finish what a cancelled caller sent, between any two reads: the log is read on both sides.
    before = [entry.id for entry in await the_log(store)]
    ended = set()
    for session in sessions:
        found = await store.session(session.id)
        assert found is not None
        if found[0].ended_at is not None:
            ended.add(session.id)
    after = [entry.id for entry in await the_log(store)]
    assert len(after) == len(set(after))
    assert set(before) <= ended <= set(after)
    assert {session.id for session, ack in zip(sessions, acknowledged, strict=True) if ack} <= set(before)


LAWS: tuple[Law, ...] = (
    a_commit_is_all_or_none,
    changes_apply_in_order,
    a_commit_of_nothing_says_where_the_log_ends,
    a_cancelled_caller_harms_no_other,
    a_swap_needs_the_stored_revision,
    an_added_record_has_revision_0,
    of_simultaneous_swaps_one_succeeds,
    of_simultaneous_registrations_of_one_address_one_succeeds,
    of_two_who_take_a_role_from_the_last_two_one_succeeds,
    an_address_is_free_once_its_account_leaves_it,
    a_token_is_taken_once,
    discarding_names_subject_and_purpose,
    a_session_ends_once_and_for_all,
    an_end_beats_every_swap_it_overlaps,
    a_swap_may_end_a_session,
    ending_all_spares_one_and_counts,
    a_session_keeps_its_subject,
    verifiers_have_names_of_their_own,
)
