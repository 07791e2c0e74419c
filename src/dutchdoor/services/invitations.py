"""Invitations: an administrator invites an address, and its owner creates the account.

An invitation is a mailed link, and no account: until the owner has chosen a name and a password, nothing stands under
the address, and an invitation that is withdrawn or too old leaves nothing behind. It is valid only while the
administrator who sent it is one. Otherwise a person who was an administrator for an hour could come back as one.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from dutchdoor.errors import InvalidToken, NotFound, RegistrationClosed
from dutchdoor.model import one_time_tokens
from dutchdoor.model.accounts import Account
from dutchdoor.model.acting import COMMAND
from dutchdoor.model.audit_events import EventName, event
from dutchdoor.model.email_address import canonical, mailbox
from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import is_id
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.unicode_text import check_name
from dutchdoor.services.part import Part, Shared
from dutchdoor.services.registration import Registration, taken
from dutchdoor.services.retry import RACES, retried
from dutchdoor.services.roles import administers, check_roles
from dutchdoor.stores.base import Add, Change, Log, Remove, Store, Take

__all__ = ["Invitation", "Invitations", "invitation_of", "invitations_about", "withdrawing"]


class Invited(Struct, frozen=True):
    """The payload of the link."""

    address: str
    name: str
    roles: tuple[str, ...]
    by: str
    """The subject of the administrator, or `COMMAND`."""
    inviter: str
    """What the invited person reads of them: a name, or an address; "" for a command."""


class Invitation(Struct, frozen=True, kw_only=True):
    """An invitation that is under way."""

    id: str
    """Its public id, which opens nothing."""
    address: str
    name: str
    roles: tuple[str, ...]
    invited_by: str
    """The subject of the administrator, or `COMMAND`."""
    inviter: str
    """The name of the administrator, or their address; "" for a command."""
    created_at: float
    expires_at: float


class Invitations(Part):
    """Invites people to one authority. For audit events, `client` is the client that asks, and `actor` the subject that
    acts, or `cli`. Every verb raises `Unavailable` when the store is out of reach.
    """

    def __init__(self, shared: Shared, registration: Registration) -> None:
        super().__init__(shared)
        self.registration = registration

    async def invite(
        self, email: str, *, client: Client, actor: str, name: str = "", roles: Sequence[str] = ()
    ) -> Invitation:
        """Mail an invitation to the address `email`. An earlier one to the same address is void.

        Args:
            email: the address, which counts as verified once the invitation is accepted.
            name: the name people see, as a suggestion; "" for none.
            roles: the roles of the account, each a plain word.

        Raises:
            Taken: the address has an account.
            InvalidInput: the address, the name or a role is not acceptable.
            RegistrationClosed: only commands create accounts here.
        """
        if self.policy.registration == "closed" and actor != COMMAND:
            raise RegistrationClosed("accounts are made by command")
        key = canonical(email)
        found = await self.registration.holder(key)
        if found is not None:
            raise taken(found)
        inviter = await self._inviter(actor)
        invited = Invited(mailbox(email), check_name(name), check_roles(roles), actor, inviter)
        earlier = [Remove(token) for token in await self._tokens() if token.email == key]
        return await self._send(invited, earlier, client, actor)

    async def _inviter(self, actor: str) -> str:
        by = None if actor == COMMAND else await self.store.account(actor)
        return "" if by is None else by.name or by.address or ""

    async def _send(self, invited: Invited, earlier: Sequence[Change], client: Client, actor: str) -> Invitation:
        token, secret = one_time_tokens.issue(
            "invitation",
            subject="",
            email=canonical(invited.address),
            now=self.clock(),
            lives_for=self.policy.invitation_for,
            payload=msgspec.json.encode(invited),
        )
        await self.store.commit(*earlier, Add(token), self._log("invitation_sent", token, client, actor))
        await self.post.send(
            self.post.letters.invited,
            invited.address,
            token=secret.text(),
            valid_for=self.policy.invitation_for,
            inviter=invited.inviter,
        )
        return invitation_of(token)

    async def listed(self, *, after: str = "", limit: int = 100) -> list[Invitation]:
        """Return invitations in the order of their ids, `limit` at most, after the named one. Those that are too old
        are among them, until they are purged.
        """
        found = await self.store.select(
            OneTimeToken, subject="", purpose="invitation", after=[after] if is_id(after) else (), limit=limit
        )
        return [invitation_of(token) for token in found]

    async def _tokens(self) -> list[OneTimeToken]:
        return await self.store.select(OneTimeToken, subject="", purpose="invitation")

    async def _found(self, invitation_id: str) -> OneTimeToken:
        token = await self.store.get(OneTimeToken, invitation_id) if is_id(invitation_id) else None
        if token is None or token.purpose != "invitation":
            raise NotFound("no such invitation")
        return token

    @retried(RACES, "withdrawing the invitation")
    async def withdraw(self, invitation_id: str, *, client: Client, actor: str) -> Invitation:
        """Withdraw an invitation: its link opens nothing any more.

        Raises:
            NotFound: there is no such invitation: it was accepted, withdrawn, sent again or is too old.
        """
        token = await self._found(invitation_id)
        await self.store.commit(Take(token), self._log("invitation_withdrawn", token, client, actor))
        return invitation_of(token)

    @retried(RACES, "sending the invitation")
    async def send_again(self, invitation_id: str, *, client: Client, actor: str) -> Invitation:
        """Mail an invitation again, with a new link and the full time; the link before is void. Returns it under its
        new id. It is an invitation of `actor` from then on.

        Raises:
            NotFound: there is no such invitation: it was accepted, withdrawn, sent again or is too old.
        """
        token = await self._found(invitation_id)
        before = msgspec.json.decode(token.payload, type=Invited)
        invited = msgspec.structs.replace(before, by=actor, inviter=await self._inviter(actor))
        return await self._send(invited, [Take(token)], client, actor)

    async def look(self, token: str, *, client: Client) -> Invitation:
        """Return the invitation that the `token` of a link belongs to, and use nothing up.

        Raises:
            InvalidToken: it is not valid any more.
            RateLimited: too many attempts from there.
        """
        stored = await self.one_time.redeem(token, "invitation", client)
        await self._check_inviter(stored)
        return invitation_of(stored)

    async def _check_inviter(self, stored: OneTimeToken) -> None:
        invited = msgspec.json.decode(stored.payload, type=Invited)
        if invited.by != COMMAND:
            by = await self.store.account(invited.by)
            if by is None or not administers(by):
                raise InvalidToken("the person who sent the invitation is no administrator any more")

    async def accept(self, token: str, password: str, name: str, *, client: Client) -> Account:
        """Create the account of an invitation by the `token` of its link: account, hash, token and event in one
        transaction. A registration of another person under the address is removed.

        Args:
            password: the password of the new account.
            name: the name people see; "" for the one that the administrator suggested.

        Raises:
            InvalidToken: the token is not valid, or was used or withdrawn.
            Taken: the address has an account by now.
            InvalidInput, WeakPassword: the name or the password is not acceptable.
            RateLimited: too many attempts from there.
        """
        stored = await self.one_time.redeem(token, "invitation", client)
        await self._check_inviter(stored)
        invited = msgspec.json.decode(stored.payload, type=Invited)
        name = check_name(name) or invited.name
        encoded = await self.passwords.encoded(password, stored.email, name)
        return await self.registration.add(
            invited.address,
            name,
            encoded,
            client=client,
            roles=invited.roles,
            verified=True,
            actor=invited.by,
            also=[Take(stored)],
        )

    def _log(self, name: EventName, token: OneTimeToken, client: Client, actor: str) -> Log:
        # Without the address: the log outlives the invitation.
        return Log(event(name, now=self.clock(), client=client, actor=actor, detail=token.id))


def invitation_of(token: OneTimeToken) -> Invitation:
    """Return the invitation whose link has a `token`."""
    invited = msgspec.json.decode(token.payload, type=Invited)
    return Invitation(
        id=token.id,
        address=invited.address,
        name=invited.name,
        roles=invited.roles,
        invited_by=invited.by,
        inviter=invited.inviter,
        created_at=token.created_at,
        expires_at=token.expires_at,
    )


async def invitations_about(store: Store, account: Account) -> list[OneTimeToken]:
    """Return the invitations that name an account: those to its address, and those that its owner has sent."""
    return [
        token
        for token in await store.select(OneTimeToken, subject="", purpose="invitation")
        if account.subject == msgspec.json.decode(token.payload, type=Invited).by or token.email == account.email
    ]


async def withdrawing(store: Store, account: Account, client: Client, now: float) -> list[Change]:
    """Return what withdraws the invitations by which an administrator gave roles, when the `account` is taken back: a
    thief who was inside could come back by one of them as an administrator.
    """
    changes: list[Change] = []
    if account.roles:
        for token in await store.select(OneTimeToken, subject="", purpose="invitation"):
            invited = msgspec.json.decode(token.payload, type=Invited)
            if invited.by == account.subject and invited.roles:
                record = event("invitation_withdrawn", now=now, client=client, actor=account.subject, detail=token.id)
                changes += [Take(token), Log(record)]
    return changes
