"""Records to test a store with, and what its reads return for them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.errors import Conflict
from dutchdoor.jose.signing_keys import StoredKey
from dutchdoor.model.accounts import Account, Credential, new_account
from dutchdoor.model.audit_events import AuditEvent, event
from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import new_id, new_ordered_id
from dutchdoor.model.one_time_tokens import OneTimeToken, Purpose
from dutchdoor.model.rate_limits import Limit
from dutchdoor.model.service_credentials import RegisteredClient, VerifierKey
from dutchdoor.model.sessions import Session
from dutchdoor.revocation.log import Revocation
from dutchdoor.revocation.node_messages import NodeRow
from dutchdoor.stores.base import (
    Add,
    Change,
    Discard,
    End,
    Log,
    Revoke,
    Store,
    Swap,
)
from dutchdoor.stores.transfer import Movable

__all__ = [
    "AT_ONCE",
    "FAST",
    "NOW",
    "PATIENCE",
    "SLOW",
    "Law",
    "MakeStore",
    "MoveLaw",
    "SharedLaw",
    "World",
    "a_client",
    "a_credential",
    "a_key",
    "a_revocation",
    "a_row",
    "a_session",
    "a_token",
    "a_verifier",
    "an_account",
    "an_event",
    "first",
    "how_many_succeed",
    "is_refused",
    "the_log",
    "tokens_of",
]


MakeStore = Callable[[], Store]
Law = Callable[[Store], Awaitable[None]]
MoveLaw = Callable[[Movable, Movable], Awaitable[None]]
SharedLaw = Callable[[MakeStore], None]
NOW = 1_800_000_000.123456
"""A binary fraction cannot represent it: it exposes a store that rounds."""
AT_ONCE = 50
PATIENCE = 60.0
"""Seconds after which a store that does not answer, or does not wake a watcher, has failed its law."""


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
    """Return every entry after a number, however many reads it takes."""
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
    """Make all attempts at once. A failed attempt must fail with a conflict."""
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, Conflict):
            raise outcome
    return sum(not isinstance(outcome, Conflict) for outcome in outcomes)


class World:
    """A store with a sample of every record, and what every read returns for it."""

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


async def first(reading: Awaitable[Any]) -> object:
    return (await reading)[0]


SLOW = Limit(name="slow", count=1, per_seconds=3600.0, burst=5)
FAST = Limit(name="fast", count=1000, per_seconds=1.0, burst=1000)
