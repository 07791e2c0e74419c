"""Identities: the log-ins of other issuers that are linked to an account.

An identity is a credential whose handle is the issuer and its `sub`. No two accounts have the same one, and an address
never finds one: an issuer may give an address to another person.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence

import msgspec
from msgspec import Struct

from dutchdoor.credentials.passkey import PASSKEY
from dutchdoor.credentials.password import PASSWORD
from dutchdoor.errors import IssuerRefused, NotAuthenticated, NotFound, Refused, SessionInDoubt
from dutchdoor.issuers.identity import Identity
from dutchdoor.issuers.issuer import Issuer
from dutchdoor.mail.letters import Notice
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import account_event
from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import encode
from dutchdoor.model.issuer_sessions import IssuerSession
from dutchdoor.model.unicode_text import shown
from dutchdoor.services.fencing import as_one
from dutchdoor.services.one_time import tokens_of
from dutchdoor.services.part import Part, Shared
from dutchdoor.services.retry import RACES, retried
from dutchdoor.stores.base import Add, Change, Expect, Log, Remove, Revoked, Swap
from dutchdoor.texts import mark

__all__ = ["IDENTITY", "Identities", "Linked", "handle_of", "record_of", "ways_in"]

IDENTITY = "identity"
"""The method of the credential that is an identity at an issuer."""
SHOWN_AT_MOST = 254
IDENTITIES_AT_MOST = 20
"""Log-ins that one account links."""


class Kept(Struct, frozen=True):
    """What is kept of an identity beside its key."""

    issuer: str
    """The name under which the issuer is configured."""
    shown: str
    """The address or name that the person has there, for them to recognise it."""


class Linked(Struct, frozen=True):
    """An identity of an account."""

    id: str
    """Names it among those of the account."""
    issuer: str
    title: str
    shown: str
    linked_at: float


class Identities(Part):
    """Links and unlinks identities, over one authority. Every verb raises `Unavailable` when the store is out of
    reach.
    """

    def __init__(self, shared: Shared, issuers: Mapping[str, Issuer]) -> None:
        super().__init__(shared)
        self.issuers = issuers

    async def of(self, subject: str) -> list[Linked]:
        """Return the identities of a `subject`, oldest first."""
        return self.among(await self.store.select(Credential, subject=subject))

    def among(self, held: Sequence[Credential]) -> list[Linked]:
        """Return the identities among the credentials that an account has (`held`), oldest first."""
        found = [self._linked(each) for each in held if each.method == IDENTITY]
        return sorted(found, key=lambda each: each.linked_at)

    async def only_way_in(self, account: Account) -> Credential | None:
        """Return the credential of an account that alone signs in to it; None if there are more, or the application
        keeps the passwords.
        """
        if account.email is None:
            return None
        found = ways_in(await self.store.select(Credential, subject=account.subject), self.issuers)
        return found[0] if len(found) == 1 else None

    async def holder(self, identity: Identity) -> Account | None:
        """Return the account that an identity belongs to."""
        record = await self.store.find(Credential, method=IDENTITY, handle=handle_of(identity))
        return None if record is None else await self.store.account(record.subject)

    def linking(self, account: Account, identity: Identity, issuer: Issuer, client: Client, now: float) -> list[Change]:
        """Return the changes that link an identity to an account. They conflict if another account has it."""
        return [
            Add(record_of(account.subject, identity, issuer, now)),
            Log(account_event("identity_linked", account, client, now, detail=issuer.name)),
        ]

    async def link(
        self, account: Account, session_id: str, identity: Identity, issuer: Issuer, *, client: Client
    ) -> None:
        """Link an identity to the account of a signed-in owner. It may be linked to it already.

        Args:
            account: the owner, as it was read when they began.
            session_id: the session in which they began, which must be live still; "" for a stateless sign-in.
            identity: what the issuer says.
            issuer: the issuer.
            client: the client that asks.

        Raises:
            IssuerRefused: the identity belongs to another account.
            NotAuthenticated: the session ended, or the account changed, since they began.
            SessionInDoubt: the session was used in a suspicious way since they began.
        """

        @retried(RACES, "linking the log-in")
        async def once() -> None:
            if session_id:
                held = await self.authority.recall(session_id)
                if held is None or held.session.subject != account.subject or held.session.ended_at is not None:
                    raise NotAuthenticated("the session ended meanwhile")
                if self.authority.must_prove(session_id):
                    raise SessionInDoubt("a sign-in in doubt links nothing")
            holder = await self.holder(identity)
            if holder is not None and holder.subject == account.subject:
                return
            if holder is not None:
                message = mark(
                    "This account at %(issuer)s is linked to another account here. Unlink it there first.",
                    issuer=issuer.title,
                )
                raise IssuerRefused("the identity of another account", message=message)
            if len(await self.of(account.subject)) >= IDENTITIES_AT_MOST:
                raise IssuerRefused("too many identities", message=mark("Your account has too many log-ins linked."))
            now = self.clock()
            current = await self.store.account(account.subject)
            if current is None or not current.active or current.epoch != account.epoch:
                raise NotAuthenticated("the account changed meanwhile")
            changes = self.linking(account, identity, issuer, client, now)
            await self.store.commit(Expect(account.subject, account.epoch), *changes)
            self.post.notify(Notice.IDENTITY_LINKED, account, client, now)

        await once()

    async def unlink(self, account: Account, id: str, *, client: Client, actor: str = "", keep: str = "") -> Revoked:
        """Unlink an identity, and revoke the sessions that began by it.

        Args:
            account: its owner.
            id: which identity, as `of` returns it.
            client: the client that asks.
            actor: who unlinks it; "" for the owner.
            keep: the session of the caller, which stays.

        Raises:
            NotFound: the account has no such identity.
            Refused: it is the last way to sign in.
        """

        @retried(RACES, "unlinking the log-in")
        async def once() -> Credential:
            held = await self.store.select(Credential, subject=account.subject)
            found = next((each for each in held if each.method == IDENTITY and _id_of(each) == id), None)
            if found is None:
                raise NotFound("no such identity", message=mark("There is no such log-in here."))
            other = next((each for each in ways_in(held, self.issuers) if each is not found), None)
            if other is None:
                raise Refused(
                    "the last way in",
                    message=mark(
                        "This is the only way into the account. Choose a password, or link another one first."
                    ),
                )
            now = self.clock()
            await self.store.commit(
                Swap(other),  # two calls at once must not each see the other's as the one that is left
                Remove(found),
                tokens_of(account.subject, "sign_in"),  # one that began by it and waits for its next step
                Log(account_event("identity_unlinked", account, client, now, actor=actor, detail=_kept(found).issuer)),
            )
            self.post.notify(Notice.IDENTITY_UNLINKED, account, client, now)
            return found

        issuer, _, subject = (await once()).handle.partition(" ")
        began = await self.store.select(IssuerSession, issuer=issuer, issuer_subject=subject)
        ended = [
            await self.authority.end(each.id, client=client, actor=actor or account.subject, reason="identity_unlinked")
            for each in began
            if each.id != keep and each.subject == account.subject
        ]
        return as_one([await self.authority.fencing.nothing_left(), *ended])

    def _linked(self, credential: Credential) -> Linked:
        kept = _kept(credential)
        issuer = self.issuers.get(kept.issuer)
        title = kept.issuer if issuer is None else issuer.title
        return Linked(_id_of(credential), kept.issuer, title, kept.shown, credential.created_at)


def ways_in(held: Sequence[Credential], issuers: Collection[str]) -> list[Credential]:
    """Return which of the credentials that an account has (`held`) sign in to it by themselves. `issuers` are the names
    of those that are configured: another one lets no one in. A command knows none, and counts all.
    """
    return [
        each
        for each in held
        if each.method in {PASSWORD, PASSKEY}
        or (each.method == IDENTITY and (not issuers or _kept(each).issuer in issuers))
    ]


def handle_of(identity: Identity) -> str:
    """Return the key of an identity. Neither part has a space in it."""
    return f"{identity.issuer} {identity.subject}"


def record_of(subject: str, identity: Identity, issuer: Issuer, now: float) -> Credential:
    """Return the credential of an identity that a `subject` has."""
    kept = Kept(issuer.name, shown((identity.email or identity.name)[:SHOWN_AT_MOST]))
    return Credential(
        subject=subject,
        method=IDENTITY,
        handle=handle_of(identity),
        proof=msgspec.json.encode(kept).decode(),
        created_at=now,
    )


def _kept(credential: Credential) -> Kept:
    return msgspec.json.decode(credential.proof, type=Kept)


def _id_of(credential: Credential) -> str:
    return encode(hashlib.blake2b(credential.handle.encode(), digest_size=16).digest())
