"""Whose account an identity is: its own, the one of an address that both sides have verified, or a new one.

An issuer's word about an address counts only for the addresses that it is trusted for. So a stranger with an issuer or
a tenant of their own, or with an address that passed on to them, gets into no account by it. Where accounts need a
verified address, no answer reveals which addresses have one: the rest goes by mail.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NoReturn

from dutchdoor.errors import InvalidInput, IssuerRefused, LastAdministrator, Taken
from dutchdoor.issuers.identity import Identity
from dutchdoor.issuers.issuer import Issuer
from dutchdoor.mail.letters import Notice
from dutchdoor.model.accounts import ADMIN, Account
from dutchdoor.model.acting import SYSTEM
from dutchdoor.model.email_address import canonical, without_tag
from dutchdoor.model.http_client import Client
from dutchdoor.model.rate_limits import bucket_of
from dutchdoor.model.unicode_text import NAME_AT_MOST, check_name
from dutchdoor.services.administration import Administration
from dutchdoor.services.identities import Identities
from dutchdoor.services.part import Part, Shared
from dutchdoor.services.registration import Registration, is_unproved, proof_of
from dutchdoor.stores.base import Expect
from dutchdoor.texts import Text, mark

__all__ = ["IssuerAccounts"]

_NOT_ADMITTED = mark(
    "Your account at %(issuer)s is not one that may come in here. Choose another one there, such as that of "
    "your organisation."
)
_DISABLED = mark("This account cannot sign in. Ask an administrator.")
_NO_ADDRESS = mark(
    "%(issuer)s gave no e-mail address of yours, and an account needs one. Let %(issuer)s give it, or sign in "
    "another way and link %(issuer)s on the page of your account."
)
_NO_ACCOUNT = mark(
    "There is no account for you here yet, and you cannot create one by %(issuer)s. Ask an administrator for "
    "an invitation. If you have an account, sign in to it and link %(issuer)s there."
)


class IssuerAccounts(Part):
    """Finds and creates accounts for identities, over one authority."""

    def __init__(
        self, shared: Shared, identities: Identities, registration: Registration, admin: Administration
    ) -> None:
        super().__init__(shared)
        self.identities, self.registration, self.admin = identities, registration, admin

    async def account_of(
        self, issuer: Issuer, identity: Identity, *, name: str, registrant: str, client: Client
    ) -> Account | None:
        """Return the account of an identity. None: a mail was sent, and its link comes first.

        Args:
            issuer: the issuer.
            identity: what it says.
            name: the name of the person, for a new account.
            registrant: a secret that the browser keeps: with it, the mailed link asks for nothing else.
            client: the client that asks.

        Raises:
            IssuerRefused: there is none, and none may be created. The message says what to do.
            Taken, Conflict: another sign-in created or changed it at this moment: look again.
            RateLimited: too much mail to this mailbox.
        """
        holder = await self.identities.holder(identity)
        if holder is not None:
            return holder
        try:
            key = canonical(identity.email)
        except InvalidInput:
            await self._refuse(issuer, client, "no address", _NO_ADDRESS)
        vouched = issuer.vouches_for(identity)
        found = await self.store.account_by_email(key)
        if found is not None and found.email_verified_at is not None and vouched:
            await self._link_by_address(issuer, identity, found, client)
            return found
        may_register = issuer.registers == "always" or (
            issuer.registers == "policy" and self.policy.registration == "open"
        )
        if not may_register and not (found is not None and vouched):
            # The same for an address with an account, unless it is that of the person who asks.
            await self._refuse(issuer, client, "no account", _NO_ACCOUNT)
        if not (vouched or not self.policy.require_verified_email):
            await self._register_quietly(issuer, identity, key, name, registrant, client)
            return None
        expires = found is not None and vouched and await self.registration.is_registration(found)
        if found is None or (expires and may_register):
            return await self._register(issuer, identity, name, client, verified=vouched)
        await self.log_refusal(issuer, client, "the address has an account", found)
        raise IssuerRefused("the address has an account", message=_has_account(issuer, found, vouched=vouched))

    async def _link_by_address(self, issuer: Issuer, identity: Identity, found: Account, client: Client) -> None:
        if not found.active:
            await self.refuse_disabled(issuer, found, client)
        now = self.clock()
        linked = self.identities.linking(found, identity, issuer, client, now)
        await self.store.commit(Expect(found.subject, found.epoch), *linked)
        self.post.notify(Notice.IDENTITY_LINKED, found, client, now)

    async def _register(
        self,
        issuer: Issuer,
        identity: Identity,
        name: str,
        client: Client,
        *,
        verified: bool,
        registration: str | None = None,
    ) -> Account:
        return await self.registration.add(
            identity.email,
            _name(name),
            None,
            client=client,
            verified=verified,
            registration=registration,
            beside=lambda made: self.identities.linking(made, identity, issuer, client, made.created_at),
        )

    async def _register_quietly(
        self, issuer: Issuer, identity: Identity, key: str, name: str, registrant: str, client: Client
    ) -> None:
        mailbox = bucket_of(self.attempts.limits.register_by_mailbox, self.attempts.digest(without_tag(key)))
        await self.attempts.take([mailbox])
        self.post.later(self._create_and_mail(issuer, identity, key, name, registrant, client))

    async def _create_and_mail(
        self, issuer: Issuer, identity: Identity, key: str, name: str, registrant: str, client: Client
    ) -> None:
        with suppress(Taken):
            await self._register(issuer, identity, name, client, verified=False, registration=proof_of(registrant))
        await self.registration.mail_about(key, client)

    async def mail_again(self, account: Account, client: Client) -> None:
        """Mail the link that verifies the address of an account once more, to the holder of its identity. Raises
        `RateLimited`.
        """
        digest = self.attempts.digest(without_tag(account.email or ""))
        await self.attempts.take([bucket_of(self.attempts.limits.register_by_mailbox, digest)])
        self.post.later(self.registration.send_verification(account, client))

    async def with_roles(self, issuer: Issuer, identity: Identity, account: Account, *, client: Client) -> Account:
        """Give and take the roles that the issuer decides on, and return the account as it is then. The last
        administrator stays one.
        """
        if not issuer.roles or not account.active:
            return account
        managed = frozenset(issuer.roles.values())
        wanted = (frozenset(account.roles) - managed) | issuer.roles_of(identity)
        if wanted == frozenset(account.roles):
            return account
        try:
            await self.admin.set_roles(account.subject, sorted(wanted), client=client, actor=SYSTEM)
        except LastAdministrator:
            await self.admin.set_roles(account.subject, sorted(wanted | {ADMIN}), client=client, actor=SYSTEM)
        return await self.store.account(account.subject) or account

    # Refusals

    async def log_refusal(self, issuer: Issuer, client: Client, why: str, account: Account | None = None) -> None:
        """Record a sign-in by an issuer that failed."""
        await self.attempts.refuse(account, client, f"{issuer.name}: {why}")

    async def check_admitted(self, issuer: Issuer, identity: Identity, *, client: Client) -> None:
        """Raise `IssuerRefused` unless the rules of the issuer let a person in."""
        if issuer.admits(identity):
            return
        await self._refuse(issuer, client, "not of an admitted domain", _NOT_ADMITTED)

    async def refuse_disabled(self, issuer: Issuer, account: Account, client: Client) -> NoReturn:
        """Raise `IssuerRefused` for an account that may not sign in."""
        await self._refuse(issuer, client, "disabled", _DISABLED, account)

    async def _refuse(
        self, issuer: Issuer, client: Client, why: str, message: str, account: Account | None = None
    ) -> NoReturn:
        await self.log_refusal(issuer, client, why, account)
        raise IssuerRefused(why, message=Text(message, {"issuer": issuer.title}))


def _name(text: str) -> str:
    """Return a name that an issuer gives, or none if it is not one that we keep."""
    with suppress(InvalidInput):
        return check_name(text[:NAME_AT_MOST])
    return ""


def _has_account(issuer: Issuer, found: Account | None, *, vouched: bool) -> str:
    if vouched and found is not None and is_unproved(found):
        return mark(
            "There is an account with your e-mail address, but that address was never confirmed. Choose a new password "
            "by mail to take the account over. Then link %(issuer)s on the page of your account.",
            issuer=issuer.title,
        )
    return mark(
        "There is an account with your e-mail address already. Sign in to it as you did before, and link %(issuer)s on "
        "the page of your account.",
        issuer=issuer.title,
    )
