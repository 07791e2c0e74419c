"""The directory: the bundled accounts and their passwords, for an application that has no user directory of its own.

Its verbs are in parts, one file each, such as `registration`, `sign_in` and `recovery`. Each verb takes the client that
asks, and counts the attempt before any work. Its answer and its timing are the same whether an address has an account
or not. The parts share `attempts` (counting), `post` (mail) and `one_time` (mailed links).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from dutchdoor.credentials.base import Method
from dutchdoor.credentials.password import Password, PasswordHasher
from dutchdoor.issuers.issuer import Issuer
from dutchdoor.mail import Transport
from dutchdoor.mail.letters import Letters, Notice
from dutchdoor.model.accounts import Account
from dutchdoor.model.http_client import Client
from dutchdoor.model.rate_limits import DEFAULT_LIMITS, Limits
from dutchdoor.model.suspicion import Reaction
from dutchdoor.services.administration import Administration
from dutchdoor.services.attempts import Attempts
from dutchdoor.services.deeds import Deeds
from dutchdoor.services.deletion import Deletion
from dutchdoor.services.email_change import EmailChange
from dutchdoor.services.export import Export
from dutchdoor.services.external_accounts import ExternalAccounts
from dutchdoor.services.external_sign_in import ExternalSignIn
from dutchdoor.services.external_users import ExternalUsers
from dutchdoor.services.factors import Factors
from dutchdoor.services.giving_up import GivingUp
from dutchdoor.services.identities import Identities
from dutchdoor.services.invitations import Invitations
from dutchdoor.services.issuer_accounts import IssuerAccounts
from dutchdoor.services.issuers import IssuerLogins
from dutchdoor.services.lost_factors import LostFactors
from dutchdoor.services.mail_codes import MailedCodes
from dutchdoor.services.one_time import OneTimeTokens
from dutchdoor.services.own_steps import OwnSteps, SignInStep
from dutchdoor.services.part import Shared
from dutchdoor.services.passkeys import Passkeys, RelyingParty
from dutchdoor.services.passwords import Passwords
from dutchdoor.services.post import Post
from dutchdoor.services.profile import Profile
from dutchdoor.services.recovery import Recovery
from dutchdoor.services.registration import Registration
from dutchdoor.services.sessions import Authority
from dutchdoor.services.set_aside import SetAside
from dutchdoor.services.sign_in import SignIn
from dutchdoor.services.step_up import StepUp

__all__ = ["Directory"]

ANSWERED_WITHIN = 60.0
"""Seconds for which a mail about a session in doubt waits for the answer of its browser."""


class Directory:
    """Accounts and passwords over one authority and its store."""

    def __init__(
        self,
        authority: Authority,
        *,
        hasher: PasswordHasher,
        mail: Transport,
        letters: Letters,
        limits: Limits = DEFAULT_LIMITS,
        product: str = "dutchdoor",
        party: RelyingParty | None = None,
        methods: Sequence[Method] = (),
        users: ExternalUsers[Any] | None = None,
        issuers: Sequence[Issuer] = (),
        steps: Sequence[SignInStep] = (),
    ) -> None:
        """`party` is the site that passkeys are for, the issuer's host if not given. `methods` are further
        authentication methods, and `steps` what the application asks besides. With `users`, it keeps them and their
        passwords. `issuers` are other log-ins, such as Google.
        """
        self.authority, self.store, self.policy = authority, authority.store, authority.policy
        self.clock, self.hasher, self.limits = authority.clock, hasher, limits
        attempts = Attempts(authority, limits)
        passwords = Passwords(hasher, policy=authority.policy, product=product, hooks=authority.hooks)
        self.post = Post(mail, letters, attempts, authority)
        shared = Shared(authority, attempts, self.post, OneTimeTokens(attempts), passwords)
        self.registration, self.deletion, self.deeds = Registration(shared), Deletion(shared), Deeds(shared)
        party = party or RelyingParty(id=urlsplit(authority.issuer).hostname or "localhost", name=product)
        passkeys = Passkeys(shared, party)
        named = {each.name: each for each in issuers}
        self.factors, self.profile = Factors(shared, passkeys, issuers=named, product=product), Profile(shared)
        self.recovery = Recovery(shared, self.deletion, self.factors, self.deeds)
        known: tuple[Method, ...] = (
            Password(hasher), passkeys.method, self.factors.totp, self.factors.codes, *methods
        )  # fmt: skip
        by_name = {each.name: each for each in known}
        self.steps = OwnSteps(steps, taken=by_name)
        self.external = None if users is None else ExternalAccounts(authority, users)
        self.sign_in = (
            SignIn(shared, by_name, self.factors, self.steps)
            if self.external is None
            else ExternalSignIn(shared, by_name, self.factors, self.steps, self.external)
        )
        self.step_up = StepUp(shared, self.sign_in)
        self.mailed_codes = MailedCodes(shared, self.sign_in, self.step_up)
        self.lost_factors = LostFactors(shared, self.sign_in)
        self.email_change = EmailChange(shared, self.registration, self.deeds)
        self.export = Export(shared)
        self.invitations = Invitations(shared, self.registration)
        self.admin = Administration(shared, self.registration)
        self.identities = Identities(shared, named)
        self.set_aside = SetAside(shared, self.identities)
        self.giving_up = GivingUp(shared, self.sign_in, self.identities)
        self.issuers = self._issuer_logins(shared, issuers)
        authority.hooks.refresh_theft.append(self._notify_of_theft)
        authority.hooks.suspected.append(self._notify_of_suspicion)

    def _issuer_logins(self, shared: Shared, issuers: Sequence[Issuer]) -> IssuerLogins:
        # Most applications have none, and need no HTTP client.
        make = import_module("dutchdoor.issuers.providers").make_providers if issuers else None
        return IssuerLogins(
            shared,
            self.identities.issuers,
            {} if make is None else make(issuers, self.clock),
            identities=self.identities,
            accounts=IssuerAccounts(shared, self.identities, self.registration, self.admin),
            sign_in=self.sign_in,
            step_up=self.step_up,
        )

    def open(self) -> None:
        """Take work again after `close`."""
        self.hasher.open()

    async def close(self) -> None:
        """Wait for mail that is being sent, a few seconds at most."""
        await self.post.close()
        await self.issuers.close()
        self.hasher.close()
        self.steps.close()
        if self.external is not None:
            self.external.close()

    async def _notify_of_suspicion(self, subject: str, client: Client, reaction: Reaction, answers: str) -> None:
        if answers:
            self.post.later(self._notify_unless_answered(subject, client, answers, self.clock()))
            return
        account = await self.store.account(subject)
        if account is not None:
            notice = Notice.USED_ELSEWHERE if reaction == "notify" else Notice.USE_REFUSED
            self.post.notify(notice, account, client, self.clock())

    async def _notify_unless_answered(self, subject: str, client: Client, session_id: str, at: float) -> None:
        """Mail the owner about a session in doubt if its browser does not answer for it: a mail about each journey is
        one that people learn not to read.
        """
        await self.post.wait(ANSWERED_WITHIN)
        await self.authority.fencing.follow()
        account = await self.store.account(subject)
        if account is not None and self.authority.must_prove(session_id):
            self.post.notify(Notice.USE_REFUSED, account, client, at)

    async def _notify_of_theft(self, account: Account, client: Client) -> None:
        self.post.notify(Notice.SIGN_IN_COPIED, account, client, self.clock())
