"""Credentials of programs: adding, changing and removing registered clients and verifier keys.

The command line, the admin API and the console call these verbs. Each writes an audit event with the change it records.
A secret is returned once, by the verb that makes it, and only its hash is stored.

A removed client is refused wherever it presents itself: it signs no one in, exchanges no refresh token and introspects
nothing. Its access tokens are revoked by an entry of the log. Browser sessions that began under its name go on: they
are proven by the cookie alone, and their owner or an administrator can end them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from msgspec.structs import replace

from dutchdoor.errors import Conflict, InvalidInput, NotFound
from dutchdoor.model.audit_events import event
from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import new_id
from dutchdoor.model.policy import LONGEST_ACCESS
from dutchdoor.model.service_credentials import ClientSecret, RegisteredClient, VerifierKey, VerifierSecret
from dutchdoor.model.unicode_text import check_name
from dutchdoor.revocation.log import Revocation
from dutchdoor.services.retry import RACES, retried
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Add, Log, Remove, Revoke, Revoked, Swap, Take
from dutchdoor.texts import mark

__all__ = [
    "NewClient",
    "NewVerifier",
    "add_client",
    "add_verifier",
    "check_client_name",
    "check_verifier_name",
    "removal_of",
    "remove_client",
    "remove_verifier",
    "rotate_client",
    "rotate_verifier",
]

CLIENT_NAME_AT_MOST = 100
_VERIFIER_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class NewClient(NamedTuple):
    """A registered client, and its secret as text: "" for a public client."""

    client: RegisteredClient
    secret: str

    def __repr__(self) -> str:
        return f"NewClient({self.client!r})"


class NewVerifier(NamedTuple):
    """A verifier key, its secret as text, and what the commit revoked: the key before it, if there was one."""

    key: VerifierKey
    secret: str
    done: Revoked

    def __repr__(self) -> str:
        return f"NewVerifier({self.key!r})"


def check_client_name(name: str) -> str:
    """Return the name of a client as it is stored. Raises `InvalidInput` for one that is empty or not one line."""
    name = check_name(name, at_most=CLIENT_NAME_AT_MOST)
    if not name:
        raise InvalidInput(mark("The name of the client is empty."), field="name")
    return name


def check_verifier_name(name: str) -> str:
    """Return the name of a verifier: it is a label of metrics. Raises `InvalidInput` for one that is not a word."""
    if not _VERIFIER_NAME.fullmatch(name):
        raise InvalidInput(
            mark("The name of a verifier has 1 to 64 letters, digits or characters of - _ . :"), field="name"
        )
    return name


def removal_of(row: RegisteredClient | VerifierKey, now: float) -> Revocation:
    """Return the log entry for the removal of a client or a key, to be committed with the removal.

    It covers each access token of the client, for as long as the youngest may live. It covers no token of a verifier
    key, because the client of a token is never the id of such a key.
    """
    return Revocation(kind="client", id=row.id, min_epoch=1, expires_at=now + LONGEST_ACCESS)


async def add_client(authority: Authority, name: str, *, public: bool = False, client: Client, actor: str) -> NewClient:
    """Register a client, and return it with its secret.

    Args:
        authority: whose store keeps it.
        name: the name that people see.
        public: whether it has no secret: an application that runs on users' machines.
        client: the client that asks, for the audit event.
        actor: who acts, for the audit event.

    Raises:
        InvalidInput: the name is empty, too long, or not one line.
    """
    secret = ClientSecret.mint(new_id())
    now = authority.clock()
    row = RegisteredClient(
        id=secret.id, name=check_client_name(name), secret_hash=b"" if public else secret.hash(), created_at=now
    )
    record = event("client_added", now=now, client=client, actor=actor, client_id=row.id, detail=row.name)
    await authority.store.commit(Add(row), Log(record))
    return NewClient(row, "" if public else secret.text())


@retried(RACES, "changing the secret of the client")
async def rotate_client(authority: Authority, id: str, *, client: Client, actor: str) -> NewClient:
    """Give a client a new secret. The old one is refused from now on; what the client was issued stays valid.

    Raises:
        NotFound: there is no such client.
        InvalidInput: the client is public, and has no secret.
    """
    row = await _client(authority, id)
    if not row.confidential:
        raise InvalidInput(mark("This client is public: it has no secret."), field="client_id")
    secret = ClientSecret.mint(row.id)
    record = event(
        "client_secret_changed", now=authority.clock(), client=client, actor=actor, client_id=row.id, detail=row.name
    )
    changed = replace(row, secret_hash=secret.hash())
    await authority.store.commit(Swap(changed), Log(record))
    return NewClient(changed, secret.text())


async def remove_client(authority: Authority, id: str, *, client: Client, actor: str) -> Revoked:
    """Remove a client. It is refused from now on, and its access tokens are revoked.

    Raises:
        NotFound: there is no such client.
    """
    row = await _client(authority, id)
    now = authority.clock()
    record = event("client_removed", now=now, client=client, actor=actor, client_id=row.id, detail=row.name)
    return await authority.store.commit(Remove(row), Revoke(removal_of(row, now)), Log(record))


async def _client(authority: Authority, id: str) -> RegisteredClient:
    row = await authority.store.get(RegisteredClient, id)
    if row is None:
        text = mark("There is no client %(client)s.", client=ascii(id[:64]))
        raise NotFound(text, message=text)
    return row


async def add_verifier(authority: Authority, name: str, *, client: Client, actor: str) -> NewVerifier:
    """Create a verifier key for a service, and return it with its secret.

    Args:
        authority: whose store keeps it.
        name: the name in fences, in metrics and for people. It is unique.
        client: the client that asks, for the audit event.
        actor: who acts, for the audit event.

    Raises:
        InvalidInput: the name is not a word of at most 64 characters.
        Conflict: another key has this name.
    """
    secret = VerifierSecret.mint(new_id())
    now = authority.clock()
    row = VerifierKey(id=secret.id, name=check_verifier_name(name), secret_hash=secret.hash(), created_at=now)
    record = event("verifier_added", now=now, client=client, actor=actor, client_id=row.id, detail=name)
    try:
        done = await authority.store.commit(Add(row), Log(record))
    except Conflict:
        text = mark("Verifier %(name)s already exists. Remove it first, or choose another name.", name=repr(name))
        raise Conflict(text, message=text) from None
    return NewVerifier(row, secret.text(), done)


@retried(RACES, "changing the verifier key")
async def rotate_verifier(authority: Authority, name: str, *, client: Client, actor: str) -> NewVerifier:
    """Replace the key of this name by a new one. Every node refuses the old key from now on, and its last lease has
    expired when the result is fenced.

    A service without the new key then refuses all tokens. For a change without a gap, add a key under another name,
    give it to the service, and remove the first.

    Raises:
        NotFound: there is no such key.
    """
    old = await _verifier(authority, name)
    secret = VerifierSecret.mint(new_id())
    now = authority.clock()
    # Under a new id: the log entry that refuses the old key on every node names its id.
    row = VerifierKey(id=secret.id, name=old.name, secret_hash=secret.hash(), created_at=now)
    record = event("verifier_key_changed", now=now, client=client, actor=actor, client_id=row.id, detail=row.name)
    done = await authority.store.commit(Take(old), Add(row), Revoke(removal_of(old, now)), Log(record))
    return NewVerifier(row, secret.text(), done)


async def remove_verifier(authority: Authority, name: str, *, client: Client, actor: str) -> Revoked:
    """Remove the verifier key of this name. Every node refuses it from now on, and its last lease has expired when the
    result is fenced.

    Raises:
        NotFound: there is no such key.
    """
    row = await _verifier(authority, name)
    now = authority.clock()
    record = event("verifier_removed", now=now, client=client, actor=actor, client_id=row.id, detail=row.name)
    return await authority.store.commit(Remove(row), Revoke(removal_of(row, now)), Log(record))


async def _verifier(authority: Authority, name: str) -> VerifierKey:
    row = await authority.store.find(VerifierKey, name=name)
    if row is None:
        text = mark("There is no verifier %(name)s.", name=ascii(name[:64]))
        raise NotFound(text, message=text)
    return row
