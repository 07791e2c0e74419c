"""Signing in where the application has users of its own.

The order is that of `sign_in.py`: attempts are counted before any work, and an unknown login and a wrong password get
one answer. How long that takes is up to the application's `authenticate`.

The account is found by the subject that `authenticate` returns, so its epoch is read after the password was checked. A
change of the password in between must make this sign-in fail. Such a change writes an entry to the revocation log: the
log is read up to its end before the check, and from there on after the account.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NoReturn

from dutchdoor.credentials.base import Method
from dutchdoor.credentials.password import PASSWORD
from dutchdoor.errors import Conflict, NotAuthenticated, RateLimited, WrongCredentials
from dutchdoor.model import rate_limits
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.http_client import Client
from dutchdoor.model.rate_limits import Standing, bucket_of, by_address
from dutchdoor.model.sessions import Session
from dutchdoor.model.sign_in import Proof, Refuse
from dutchdoor.model.unicode_text import is_stream_safe
from dutchdoor.services.attempts import Place
from dutchdoor.services.browser import Browser
from dutchdoor.services.external_accounts import ExternalAccounts
from dutchdoor.services.factors import Factors
from dutchdoor.services.own_steps import OwnSteps
from dutchdoor.services.part import Shared
from dutchdoor.services.sign_in import Rechecked, SignIn
from dutchdoor.services.sign_in_steps import Proved
from dutchdoor.stores.base import Forgive
from dutchdoor.texts import mark

__all__ = ["ExternalSignIn"]

AMR: Final = "pwd"
CHOSEN_AT: Final = 0.0
"""The same for each password: the application does not say when one was chosen. So a known-device mark stays valid
after a change of the password, until it is 180 days old."""
ATTEMPTS: Final = 2


class ExternalSignIn(SignIn):
    """Signs in the users of an application."""

    def __init__(
        self,
        shared: Shared,
        methods: Mapping[str, Method],
        factors: Factors,
        steps: OwnSteps,
        accounts: ExternalAccounts,
    ) -> None:
        """`methods` are those of second factors, by their names, `steps` are the application's, and `accounts` follow
        its users.
        """
        super().__init__(shared, methods, factors, steps)
        self.accounts = accounts

    async def _prove(self, email: str, password: str, browser: Browser) -> Proved:
        client, now, limits = browser.client, self.clock(), self.attempts.limits
        digest = self.attempts.digest(_counted_as(email))
        charged = by_address(limits.sign_in_by_address, client.networks)
        device = self.attempts.device_of(browser.marks, digest, CHOSEN_AT)
        if device:
            charged = ()
        else:
            await self.attempts.take(charged)
        standing = Standing.DEVICE if device else Standing.STRANGER
        own = rate_limits.sign_in_buckets(
            limits,
            account=digest,
            network=client.network,
            standing=standing,
            device=device,
            # Not known before the check. As for an unknown address, a day without attempts empties the ceiling: the
            # owner of a login that is attacked has no mailed link of ours by which to come in.
            known=False,
        )
        try:
            await self.attempts.take(own)
        except RateLimited:
            await self.attempts.give_back(charged, client)
            raise
        account = await self._authenticated(email, password)
        if account is None:
            await self._refuse(None, client, "unknown login or wrong password")
        proof = Proof(method=PASSWORD, amr=(AMR,), at=now)
        held = await self.store.select(Credential, subject=account.subject)
        step = await self.next_of(account, (proof,), held, browser.remembered, digest)
        if isinstance(step, Refuse):
            await self._refuse(account, client, step.why)
        ceilings = rate_limits.sign_in_ceilings(limits, digest)
        return Proved(
            account=account,
            step=step,
            proof=proof,
            chosen_at=CHOSEN_AT,
            # Only a mail would depend on whether it is familiar, and dutchdoor has no address.
            place=Place(device, standing, familiar=True),
            digest=digest,
            changes=(Forgive(give_back=charged, forget=(own[0], *ceilings)),),
            held=held,
        )

    async def _current(self, account: Account) -> Account | None:
        return await self.accounts.admitted(account)

    async def _authenticated(self, login: str, password: str) -> Account | None:
        """Return the account of a login and a password, as its user is now; None if there is none, or it changed twice
        meanwhile.
        """
        fencing = self.authority.fencing
        for _ in range(ATTEMPTS):
            await fencing.follow()
            log_epoch, seq = fencing.node.log_epoch, fencing.node.applied_seq
            subject = await self.accounts.authenticate(login, password)
            if subject is None:
                return None
            account = await self.accounts.provide(subject)
            since = await self.store.read_log(log_epoch, seq)
            if since.log_epoch != log_epoch or since.upto < since.head:
                continue
            if any(entry.kind == "subject" and entry.id == subject for entry in since.entries):
                continue
            with suppress(Conflict):
                return await self.accounts.admitted(account)
        return None

    async def _refuse(self, account: Account | None, client: Client, why: str) -> NoReturn:
        await self.attempts.refuse(account, client, why)
        raise WrongCredentials("sign-in refused", message=mark("The login or the password is not right."))

    async def check_password(
        self, account: Account, session: Session | None, password: str, *, client: Client, login: str = ""
    ) -> Rechecked:
        """Check the `login` and the `password` of an `account` again inside its `session`, and start nothing.

        Raises:
            WrongCredentials: the password is wrong, or the login is another user's.
            RateLimited: too many attempts.
            NotAuthenticated: the account is disabled.
        """
        limits, digest = self.attempts.limits, self.attempts.digest(_counted_as(login))
        # As a stranger's: the login may be another user's, whose known devices this client must not lock out.
        guesses = rate_limits.sign_in_buckets(
            limits, account=digest, network=client.network, standing=Standing.STRANGER, known=False
        )
        inside = bucket_of(limits.password_by_session, session.id if session else account.subject)
        await self.attempts.take([inside, *guesses])
        found = await self._authenticated(login, password)
        if found is None or found.subject != account.subject:
            await self.attempts.refuse(account, client, "wrong password")
            raise WrongCredentials("wrong password", message=mark("The login or the password is not right."))
        if not found.active:
            raise NotAuthenticated("the account is disabled")
        forgiven = Forgive(forget=(guesses[0], *rate_limits.sign_in_ceilings(limits, digest)))
        return Rechecked(found, (AMR,), forgiven)


def _counted_as(login: str) -> str:
    """Return the text that attempts at a login are counted by: an application may take two spellings for one."""
    text = unicodedata.normalize("NFKC", login) if is_stream_safe(login) else login
    return text.strip().casefold()
