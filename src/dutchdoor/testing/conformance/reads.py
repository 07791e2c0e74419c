"""Laws of reads: what is written is what is read, in order and in pages."""

# ruff: noqa: PLR2004 - laws count

from __future__ import annotations

import asyncio
import math
import random
from base64 import b64encode
from collections.abc import Awaitable, Callable
from functools import partial
from operator import attrgetter

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.errors import InvalidInput
from dutchdoor.jose.signing_keys import StoredKey
from dutchdoor.model.accounts import Account, Credential, external_account
from dutchdoor.model.audit_events import AuditCursor, AuditEvent, AuditSearch
from dutchdoor.model.ids import new_id, new_ordered_id
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.service_credentials import RegisteredClient, VerifierKey
from dutchdoor.model.sessions import Session
from dutchdoor.revocation.log import Revocation
from dutchdoor.stores.base import (
    AccountStatus,
    Add,
    End,
    EndAll,
    Log,
    Remove,
    Revoke,
    Store,
    Swap,
)
from dutchdoor.testing.conformance.samples import (
    AT_ONCE,
    NOW,
    PATIENCE,
    Law,
    a_client,
    a_credential,
    a_key,
    a_revocation,
    a_session,
    a_token,
    a_verifier,
    an_account,
    an_event,
    is_refused,
    the_log,
    tokens_of,
)

__all__ = ["LAWS", "what_is_written_is_what_is_read"]


async def registrations_are_listed_by_their_age(store: Store) -> None:
    """7. The result is the accounts that wait for a verified address, in the order of their subjects, in pages."""
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
            binding=text if n % 2 else None,
            browser_key=None if n % 2 else text,
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
    """7. Unknown ids return None, or nothing. Removing what is absent changes nothing and does not fail."""
    ada = an_account()
    for stranger in ("", "unknown", new_id(), "x" * 5000, "' OR 1=1 --", "\N{SNOWMAN}"):
        assert await store.session(stranger) is None
        assert await store.account(stranger) is None
        assert await store.account_by_email(stranger) is None
        assert await store.get(Credential, stranger, "password", "") is None
        assert await store.get(OneTimeToken, stranger) is None
        assert await store.get(RegisteredClient, stranger) is None
        assert await store.get(VerifierKey, stranger) is None
        assert await store.live_revocations(stranger, NOW) == 0
        assert not await store.sessions_of(stranger)
        assert not await store.events(subject=stranger or "unknown")
    assert [
        await store.select(StoredKey),
        await store.select(RegisteredClient),
        await store.accounts(),
        await the_log(store),
    ] == [[]] * 4
    assert await store.select(VerifierKey) == []
    await store.node_forget(new_id(), new_id())
    await store.commit(Remove(ada), Remove(a_credential(ada)), Remove(a_client()), Remove(a_verifier()))
    await store.commit(tokens_of("unknown", "setup"))
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
    """7. Removing an account removes its credentials and one-time tokens, and nothing of another account."""
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
    """7. A session whose account was removed reads as None, and a later account of its subject does not inherit it."""
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


async def a_read_follows_every_commit(store: Store) -> None:
    """8. A read that begins after a commit returned sees it, whatever other processes write meanwhile."""
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


async def sessions_are_listed_newest_first(store: Store) -> None:
    """Reads: sessions of a subject that were not ended, including expired ones, newest first, up to the limit."""
    ada, bob = an_account("ada"), an_account("bob")
    sessions = [a_session(ada, NOW + n) for n in range(4)]
    expired = a_session(ada, NOW - 1e6)
    mixed = [sessions[2], sessions[0], expired, sessions[3], sessions[1]]
    await store.commit(Add(ada), Add(bob), *map(Add, mixed), Add(a_session(bob)), End(sessions[1].id, "logout", NOW))
    assert await store.sessions_of(ada.subject) == [sessions[3], sessions[2], sessions[0], expired]
    assert await store.sessions_of(ada.subject, limit=2) == [sessions[3], sessions[2]]
    assert await store.sessions_of(ada.subject, limit=9) == await store.sessions_of(ada.subject)


async def accounts_are_paged_and_filtered(store: Store) -> None:
    """Reads: accounts in the order of their subjects, and the newest first, with a status or all of them."""
    people = [an_account(f"user{n}") for n in range(9)]
    people = [
        replace(p, email_verified_at=None if n % 2 else NOW, created_at=NOW + n // 2) for n, p in enumerate(people)
    ]
    alone = external_account("of-the-application", NOW - 1e-6)  # it has no address to verify
    people = [replace(each, status="disabled") if n % 3 == 0 else each for n, each in enumerate([*people, alone])]
    await store.commit(*map(Add, random.Random(1).sample(people, len(people))))
    people.sort(key=lambda person: person.subject)
    assert await store.accounts() == people
    paged: list[Account] = []
    while page := await store.accounts(after=paged[-1].subject if paged else "", limit=2):
        assert len(page) <= 2
        paged += page
    assert paged == people
    people.sort(key=lambda person: (person.created_at, person.subject), reverse=True)
    kept: dict[AccountStatus, list[Account]] = {
        "any": people,
        "active": [each for each in people if each.active],
        "disabled": [each for each in people if not each.active],
        "unverified": [each for each in people if each.email_verified_at is None and each.email is not None],
    }
    for status, expected in kept.items():
        assert await store.newest_accounts(status=status) == expected
        before: tuple[float, str] | None = None
        paged = []
        while page := await store.newest_accounts(status=status, before=before, limit=2):
            assert len(page) <= 2
            paged += page
            before = page[-1].created_at, page[-1].subject
        assert paged == expected
    admins = sorted((each for each in people if each.active), key=lambda person: person.subject)
    await store.commit(*[Swap(replace(each, roles=("admin", "writer"))) for each in admins])
    assert [each.subject for each in await store.accounts_with_role("admin", limit=99)] == [a.subject for a in admins]
    assert [each.subject for each in await store.accounts_with_role("admin", after=admins[0].subject, limit=2)] == [
        each.subject for each in admins[1:3]
    ]


async def accounts_are_searched(store: Store) -> None:
    """Reads: a search finds accounts by the beginning of each word of their address and name, with case folded, in the
    order of what it found; each once over all pages, also if one is removed meanwhile.
    """
    names = [
        "Zoë Müller-Lüdenscheidt",
        "STRAßE 9",
        "100%",
        "under_score",
        "back\\slash",
        "",
        "Ada Ada's Adas",
        "山田 太郎",
    ]
    people = [replace(an_account(f"user{n}.last"), name=name) for n, name in enumerate(names)]
    await store.commit(*map(Add, people))

    async def found(text: str) -> set[str]:
        cursors, accounts = zip(*await store.search_accounts(text), strict=True) if text else ((), ())
        assert len({*cursors}) == len({each.subject for each in accounts}) == len(accounts)
        return {each.name for each in accounts}

    for text, name in (
        ("zoË", names[0]), ("LÜDEN", names[0]), ("müller-lüdenscheidt ", names[0]), ("strasse", names[1]),
        ("100%", names[2]), ("under_s", names[3]), ("score", names[3]), ("back\\s", names[4]),
        ("user5.LAST@exam", names[5]), ("user5 last ex", names[5]), ("ada's a", names[6]), ("太", names[7]),
    ):  # fmt: skip
        assert await found(text) == {name}, text
    assert await found("last@") == await found("@example.com") == set(names)
    for absent in (
        "",
        " ",
        "%",
        "%user%",
        "'",
        "_",
        "ser1",
        "enscheidt",
        "ada adas",
        "user9",
        "\U0010ffff",
        "x" * 5000,
    ):
        assert await store.search_accounts(absent) == []
    assert await _searched(store, "user") == people
    by_subject = attrgetter("subject")
    assert sorted(await _searched(store, "exam"), key=by_subject) == sorted(people, key=by_subject)
    changed = replace(people[0], name="Eve", email="eve@example.org", address="Eve@example.org")
    await store.commit(Swap(changed), Remove(people[6]))
    assert await store.search_accounts("zoë") == await store.search_accounts("user0") == []
    assert [each.name for _, each in await store.search_accounts("eve")] == ["Eve"]
    assert await _searched(store, "user") == [each for n, each in enumerate(people) if n not in {0, 6}]
    first, second = await store.search_accounts("user", limit=2)
    await store.commit(Remove(second[1]))
    rest = [each for _, each in await store.search_accounts("user", after=second[0])]
    assert [first[1], second[1], *rest] == [each for n, each in enumerate(people) if n not in {0, 6}]
    # A name of many words is found by the first of them, and costs no more than 32.
    long = replace(an_account("long"), name=" ".join(f"w{n}" for n in range(60)))
    await store.commit(Add(long))
    assert [each for _, each in await store.search_accounts("w20 w21")] == [long]
    assert await store.search_accounts("w59") == []
    for wrong in ("x", "[]", "[1, 2]", '["a"]', '{"a": 1}', '["\\ud800", 1]', '["a", "\\ud800"]', "[" * 100_000):
        assert await _is_no_cursor(store, b64encode(wrong.encode()).decode())
    for odd in ('["user", 1e400]', f'["user", {2**70}]', '["user", "x"]', '["zzz", null]', '["user", -1]'):
        await store.search_accounts("user", after=b64encode(odd.encode()).decode())
    for wrong in ("x", "\N{SNOWMAN}", "=", "a b"):
        assert await _is_no_cursor(store, wrong)


async def _is_no_cursor(store: Store, text: str) -> bool:
    try:
        await store.search_accounts("user", after=text)
    except InvalidInput:
        return True
    return False


async def _searched(store: Store, text: str) -> list[Account]:
    """Everything that a search finds, two at a time."""
    found: list[Account] = []
    cursor = ""
    while page := await store.search_accounts(text, after=cursor, limit=2):
        found += [account for _, account in page]
        cursor = page[-1][0]
    return found


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


async def events_are_looked_for(store: Store) -> None:
    """Reads: audit events of a search, newest first, page by page; a page looks at a bounded number of events, and says
    where the next one goes on.
    """
    events = [
        replace(
            an_event("ada" if n % 3 else "bob", NOW + n * 0.25),
            name="logout" if n % 2 else "login",
            outcome="refused" if n % 5 else "ok",
            address=f"192.0.2.{n % 4}",
            actor=f"actor{n % 3}",
        )
        for n in range(40)
    ]
    for happened in random.Random(2).sample(events, len(events)):
        await store.commit(Log(happened))
    newest = events[::-1]
    searches = [
        AuditSearch(),
        AuditSearch(subject="ada"),
        AuditSearch(subject="bob", name="login"),
        AuditSearch(outcome="ok"),
        AuditSearch(address="192.0.2.3", name="logout"),
        AuditSearch(address="192.0.2.9"),
        AuditSearch(actor="actor1", name="login", since=NOW + 1),
        AuditSearch(since=NOW + 2, until=NOW + 5),
        AuditSearch(since=NOW + 1, until=NOW + 8, outcome="refused", subject="ada", address="192.0.2.1"),
    ]
    for wanted in searches:
        expected = [happened for happened in newest if wanted.finds(happened)]
        assert await store.look_for_events(wanted) == (expected, ""), wanted
        for limit, look_at in ((3, 1000), (100, 7), (2, 5)):
            found: list[AuditEvent] = []
            before, calls = "", 0
            while calls == 0 or before:
                page, before = await store.look_for_events(wanted, before=before, limit=limit, look_at=look_at)
                found += page
                calls += 1
                assert len(page) <= limit
                assert calls < 50
            assert found == expected, (wanted, limit, look_at)
    assert await store.look_for_events(AuditSearch(address="192.0.2.9"), look_at=7) == ([], newest[6].id)


async def events_are_counted(store: Store) -> None:
    """Reads: events of a name, counted from one instant to the next."""
    for n in range(40):
        await store.commit(Log(replace(an_event("ada", NOW + n * 0.25), name="logout" if n % 4 else "login")))
    edges = [NOW, NOW + 0.5, NOW + 3, NOW + 3, NOW + 9]
    counted = await store.count_events(["login", "logout", "email_verified"], edges)
    assert counted == {"login": [1, 2, 0, 6], "logout": [1, 8, 0, 18], "email_verified": [0, 0, 0, 0]}
    assert await store.count_events(["login"], [NOW - 5, NOW]) == {"login": [0]}


async def details_of_events_are_counted(store: Store) -> None:
    """Reads: events of a name and of one account, counted by their details from an instant on."""
    for n in range(24):
        happened = an_event("ada" if n % 3 else "bob", NOW + n)
        name = "factor_added" if n % 4 else "factor_removed"
        await store.commit(Log(replace(happened, name=name, detail="totp" if n % 2 else "passkey")))
    assert await store.count_details("factor_added", subject="ada", since=NOW) == {"passkey": 4, "totp": 8}
    assert await store.count_details("factor_added", subject="ada", since=NOW + 19) == {"totp": 2, "passkey": 1}
    assert await store.count_details("factor_removed", subject="bob", since=NOW) == {"passkey": 2}
    assert await store.count_details("factor_added", subject="eve", since=NOW) == {}
    assert await store.count_details("logout", subject="ada", since=NOW) == {}


async def the_audit_log_is_followed_in_the_order_of_commits(store: Store) -> None:
    """12. A follower gets each event once and in the order of commits, whatever their times and ids say; its cursor
    outlives a purge and another log epoch, and a cursor of another database is refused.
    """
    begun = await store.audit_end()
    events = [an_event("ada", NOW - n) for n in range(7)]
    for happened in events:
        await store.commit(Log(happened))
    assert await is_refused(store, Log(an_event("bob", NOW)), End(new_id(), "logout", NOW))
    followed, cursor = await _follow(store, None, count=7, limit=3)
    assert followed == events
    assert await _follow(store, begun, count=7, limit=100) == (events, cursor)
    assert await store.events_after(AuditCursor.parse(cursor.text()), limit=1) == []
    assert await store.events_after(await store.audit_end()) == []
    await store.purge(before=NOW - 100, events_before=NOW + 1)
    assert await store.events_after(None) == []
    await store.begin_log_epoch(NOW)
    later = [an_event("ada", NOW - 50), an_event("ada", NOW - 60)]
    for happened in later:
        await store.commit(Log(happened))
    assert (await _follow(store, cursor, count=2, limit=1))[0] == later
    try:
        await store.events_after(replace(cursor, log="another"))
    except InvalidInput:
        return
    raise AssertionError("a cursor of another database was read")


async def a_part_of_the_audit_log_is_followed(store: Store) -> None:
    """12. Of one account, of none, or from an instant on, events come in the same order and by the same cursors."""
    events = [an_event(("ada", "bob", "")[n % 3], NOW + n) for n in range(12)]
    for happened in events:
        await store.commit(Log(happened))
    await _follow(store, None, count=12, limit=12)
    for subject in ("ada", "bob", "", "eve", None):
        for since in (0.0, NOW + 5):
            expected = [each for each in events if subject in {None, each.subject} and each.at >= since]
            page = await store.events_after(None, subject=subject, since=since)
            assert [each for _, each in page] == expected
            for number, (cursor, _) in enumerate(page):
                rest = await store.events_after(cursor, subject=subject, since=since, limit=2)
                assert rest == page[number + 1 : number + 3]


async def a_follower_of_the_audit_log_misses_no_commit(store: Store) -> None:
    """12. While many commit at once, a follower that polls gets every event once, however their commits overtake each
    other.
    """
    events = [an_event(f"user {n}", NOW + n % 3) for n in range(AT_ONCE)]
    following = asyncio.create_task(_follow(store, None, count=AT_ONCE, limit=7))
    await asyncio.gather(*[store.commit(Log(happened)) for happened in events])
    followed, cursor = await following
    assert sorted(each.id for each in followed) == sorted(each.id for each in events)
    assert await store.events_after(cursor) == []


async def _follow(
    store: Store, cursor: AuditCursor | None, *, count: int, limit: int
) -> tuple[list[AuditEvent], AuditCursor]:
    """Follow until a number of events has come: another transaction of the server may hold them back for a moment."""
    found: list[AuditEvent] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count or cursor is None:
            page = await store.events_after(cursor, limit=limit)
            assert len(page) <= limit
            found += [each for _, each in page]
            cursor = page[-1][0] if page else cursor
            await asyncio.sleep(0 if page else 0.005)
    return found, cursor


async def a_sign_in_reads_what_it_needs_at_once(store: Store) -> None:
    """7. `known` gives an account with all its credentials, and when and from where its newest sessions that have not
    been ended were created.
    """
    ada, bob = an_account("ada"), an_account("bob")
    credentials = [a_credential(ada), replace(a_credential(ada, "\x01\x00"), method="code", created_at=NOW + 0.1)]
    sessions = [a_session(ada, NOW + n, address=f"192.0.2.{n}") for n in range(6)]
    await store.commit(Add(ada), Add(bob), *map(Add, [*credentials, a_credential(bob, "b"), *sessions]))
    await store.commit(End(sessions[4].id, "logout", NOW))
    assert ada.email is not None
    known = await store.known(ada.email, recent=3)
    assert known is not None
    assert known.account == ada == await store.account(ada.subject)
    assert sorted(known.credentials, key=lambda each: each.method) == credentials[::-1]
    assert known.recent == [(NOW + n, f"192.0.2.{n}") for n in (5, 3, 2)]
    alone = await store.known(bob.email or "", recent=3)
    assert alone is not None
    assert (alone.account, alone.recent) == (bob, [])
    await store.commit(Remove(a_credential(bob, "b")))
    alone = await store.known(bob.email or "", recent=3)
    assert alone is not None
    assert alone.credentials == []
    assert await store.known("unknown@example.com", recent=3) is None
    assert await store.known("", recent=3) is None


LAWS: tuple[Law, ...] = (
    registrations_are_listed_by_their_age,
    what_is_written_is_what_is_read,
    unknown_is_none_and_removing_the_absent_is_fine,
    two_texts_are_two_ids,
    an_account_takes_what_is_its_own_with_it,
    a_removed_account_leaves_no_session_behind,
    a_read_follows_every_commit,
    sessions_are_listed_newest_first,
    a_sign_in_reads_what_it_needs_at_once,
    accounts_are_paged_and_filtered,
    accounts_are_searched,
    events_are_paged_and_filtered,
    events_are_looked_for,
    events_are_counted,
    details_of_events_are_counted,
    the_audit_log_is_followed_in_the_order_of_commits,
    a_follower_of_the_audit_log_misses_no_commit,
    a_part_of_the_audit_log_is_followed,
)
