"""Signing in: the first proof, by password, by passkey or by an identity elsewhere.

What the policy still requires comes after it (`sign_in_steps`).

An unknown, disabled or unverified account and a wrong password get one answer after the same work: the same calls to
the store in the same order, and one hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn

from dutchdoor.credentials.base import Method
from dutchdoor.credentials.passkey import PASSKEY
from dutchdoor.credentials.password import PASSWORD
from dutchdoor.errors import (
    Conflict,
    InvalidInput,
    NotAuthenticated,
    RateLimited,
    SessionLimitReached,
    SignInUnfinished,
    Unavailable,
    WrongCredentials,
)
from dutchdoor.model import rate_limits
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.acting import SYSTEM
from dutchdoor.model.audit_events import event
from dutchdoor.model.email_address import canonical
from dutchdoor.model.http_client import Client
from dutchdoor.model.issuer_sessions import Issued
from dutchdoor.model.policy import Mode
from dutchdoor.model.rate_limits import by_address
from dutchdoor.model.sessions import Session
from dutchdoor.model.sign_in import Ask, Proof, Refuse, Start
from dutchdoor.services.attempts import RECENT, chosen_at
from dutchdoor.services.browser import Browser
from dutchdoor.services.passkeys import Ceremony, unknown_passkey
from dutchdoor.services.passwords import WRONG_PASSWORD
from dutchdoor.services.presenting import SignedIn
from dutchdoor.services.retry import RACES, retried
from dutchdoor.services.sign_in_steps import Proved, SignInSteps
from dutchdoor.stores.base import Forgive, Known, Log, Swap
from dutchdoor.texts import mark

__all__ = ["Rechecked", "SignIn"]

_NOT_RIGHT_OR_NOT_VERIFIED = mark(
    "The e-mail address or the password is not right, or the address is not verified yet: follow the link in the mail, "
    "or choose a new password."
)


class Rechecked(NamedTuple):
    """A password that was right once more."""

    account: Account
    amr: tuple[str, ...]
    forgiving: Forgive
    """What to forget of the failures before it."""


class SignIn(SignInSteps):
    """Signs people in over one authority. These parameters are common to its verbs:

        client: the client that asks.
        browser: the client that signs in, and what its cookies hold.
        mode: what starts: `session`, `hybrid` or `jwt`.
        client_id: the registered client that the sign-in belongs to; "" for the application itself.

    Every verb raises `Unavailable` when the store is out of reach, or too many passwords are being hashed.
    """

    # By password

    async def by_password(
        self,
        email: str,
        password: str,
        browser: Browser,
        *,
        mode: Mode,
        client_id: str = "",
    ) -> tuple[SignedIn, str]:
        """Check an address and a password, and start a session. Returns what starts, and the browser's known-device
        mark.

        Args:
            email: the address as the person typed it.
            password: the password as the person typed it.

        Raises:
            WrongCredentials: the address or the password is wrong.
            SignInUnfinished: they are right, and another proof is needed. Nothing started; `proceed` continues.
            RateLimited: too many attempts.
            SessionLimitReached: the policy refuses one more session.
            Misconfigured: the `claims` hook returns claims that no token may carry.
        """
        for _ in range(2):
            proved = await self._prove(email, password, browser)
            try:
                return await self.begin(proved, browser, mode=mode, client_id=client_id)
            except SessionLimitReached:
                await self.store.commit(*proved.changes)
                raise
            except SignInUnfinished:
                raise
            except (Conflict, NotAuthenticated):
                # The account changed between proof and start: its roles or its password changed. Prove again.
                continue
        raise WrongCredentials("the account kept changing")

    async def _prove(self, email: str, password: str, browser: Browser) -> Proved:
        client, now, method = browser.client, self.clock(), self.methods[PASSWORD]
        try:
            key = canonical(email)
        except InvalidInput:
            key = ""
        digest = self.attempts.digest(key)
        charged = by_address(self.attempts.limits.sign_in_by_address, client.networks)
        mark = self.attempts.find_mark(browser.marks, digest, now)
        if mark is None:
            # Before anything is read: otherwise a refused client could measure, at no cost, what was read.
            await self.attempts.take(charged)
        # From here on, the same calls in the same order, whether there is an account or not.
        known = await self.store.known(key, recent=RECENT)
        account = None if known is None else known.account
        record = _record_of(known, method, password)
        device = ""
        if mark is not None:
            if record is not None and self.attempts.is_of(mark, record.created_at):
                device, charged = mark.device, ()
            else:
                await self.attempts.take(charged)  # the client knew a password that the account no longer has
        place = self.attempts.place_of(device, client, () if known is None else known.recent)
        own = rate_limits.sign_in_buckets(
            self.attempts.limits,
            account=digest,
            network=client.network,
            standing=place.standing,
            device=device,
            known=account is not None,
        )
        try:
            await self.attempts.take(own)
        except RateLimited:
            await self.attempts.give_back(charged, client)
            raise
        right = await method.check(record if account is not None else None, password, now)
        if known is None or account is None or record is None or right is None:
            await self._refuse(account, client, "unknown address" if account is None else "wrong password")
        proof = Proof(method=method.name, amr=(method.amr,), at=now)
        # Further properties of the account show after its first proof, and never before.
        step = await self.next_of(account, (proof,), known.credentials, browser.remembered, digest)
        if isinstance(step, Refuse):
            await self._refuse(account, client, step.why)
        record = await self._upgraded(method, record, password, client)
        ceilings = rate_limits.sign_in_ceilings(self.attempts.limits, digest)
        return Proved(
            account=account,
            step=step,
            proof=proof,
            chosen_at=record.created_at,
            place=place,
            digest=digest,
            changes=(Forgive(give_back=charged, forget=(own[0], *ceilings)),),
            held=known.credentials,
        )

    async def _upgraded(self, method: Method, record: Credential, response: str, client: Client) -> Credential:
        # The account changed meanwhile, another log-in upgraded it, or no thread is free: the next log-in upgrades it.
        with suppress(Conflict, Unavailable):
            better = await method.upgraded(record, response)
            if better is None:
                return record
            upgrade = event("password_rehashed", now=self.clock(), client=client, subject=record.subject, actor=SYSTEM)
            await self.store.commit(Swap(better), Log(upgrade))
            return better
        return record

    async def _refuse(self, account: Account | None, client: Client, why: str) -> NoReturn:
        await self.attempts.refuse(account, client, why)
        # One answer: anyone can register an address with a password of their own, and then try that password.
        message = _NOT_RIGHT_OR_NOT_VERIFIED if self.policy.require_verified_email else None
        raise WrongCredentials("sign-in refused", message=message)

    async def check_password(
        self,
        account: Account,
        session: Session | None,
        password: str,
        *,
        client: Client,
        login: str = "",  # noqa: ARG002 - the account has its address
    ) -> Rechecked:
        """Check the `password` of an `account` again inside its `session`, and start nothing. `login` is what the
        person typed as login; it is read only where the application has users of its own.

        Raises:
            WrongCredentials: the password is wrong.
            RateLimited: too many attempts.
        """
        await self.attempts.take(self.attempts.inside(account, session))
        method = self.methods[PASSWORD]
        record = await self.store.get(Credential, account.subject, method.name, method.handle_of(password))
        if await method.check(record, password, self.clock()) is None:
            await self.attempts.refuse(account, client, "wrong password")
            raise WrongCredentials("wrong password", message=WRONG_PASSWORD)
        return Rechecked(account, (method.amr,), self.attempts.forgiving(account))

    # By passkey

    @retried(RACES, "signing in by a passkey")
    async def by_passkey(
        self,
        answer: str,
        ceremony: Ceremony,
        browser: Browser,
        *,
        mode: Mode,
        client_id: str = "",
    ) -> tuple[SignedIn, str]:
        """Check the answer of a passkey, and start a session for its owner. Returns what starts, and the browser's
        known-device marks.

        Args:
            answer: what the browser answered to `Passkeys.sign_in_options`, as JSON.
            ceremony: where it was done.

        Raises:
            WrongCredentials: the passkey is not known, the answer is wrong, or the account cannot sign in.
            InvalidToken: the challenge is unknown, too old or used, or was given to another browser or page.
            InvalidInput: the answer is malformed.
            SignInUnfinished: it is right, and another proof is needed. Nothing started; `proceed` continues.
            NotAuthenticated: the account changed between the proof and the start.
            RateLimited: too many wrong answers from there.
            SessionLimitReached: the policy refuses one more session.
        """
        client, now = browser.client, self.clock()
        proven = await self.factors.passkeys.found(answer, ceremony, client=client)
        owner = await self.store.account(proven.record.subject)
        account = None if owner is None else await self._current(owner)
        if account is None:
            raise unknown_passkey()
        held = await self.store.select(Credential, subject=account.subject)
        digest = self.attempts.digest(account.email or account.subject)
        device = self.attempts.device_of(browser.marks, digest, chosen_at(held))
        newest = await self.store.sessions_of(account.subject, limit=RECENT)
        place = self.attempts.place_of(device, client, [(each.created_at, each.address) for each in newest])
        proof = Proof(method=PASSKEY, amr=proven.amr, at=now)
        step = await self.next_of(account, (proof,), held, "", digest)
        if isinstance(step, Refuse):
            await self.attempts.refuse(account, client, step.why)
            raise unknown_passkey()
        return await self.begin(
            Proved(
                account=account,
                step=step,
                proof=proof,
                chosen_at=chosen_at(held),
                place=place,
                digest=digest,
                changes=(*proven.changes, self.attempts.forgiving(account)),
                held=held,
            ),
            browser,
            mode=mode,
            client_id=client_id,
            tries_again=False,
        )

    async def _current(self, account: Account) -> Account | None:
        """Return an account as its user is now. An application's own users may have changed since."""
        return account

    # By an identity at another issuer

    def first_proof(
        self,
        known: Known,
        step: Start | Ask,
        proofs: Sequence[Proof],
        identity: Credential,
        issued: Issued,
        browser: Browser,
    ) -> Proved:
        """Return what `begin` takes, for an account whose identity at another issuer was proved.

        Args:
            known: the account, and where it signed in last.
            step: what comes next.
            proofs: what was proved.
            identity: the credential that was proved.
            issued: the session at the issuer.
        """
        account, since = known.account, chosen_at(known.credentials)
        digest = self.attempts.digest(account.email or "")
        device = self.attempts.device_of(browser.marks, digest, since)
        return Proved(
            account=account,
            step=step,
            proof=proofs[0],
            further=tuple(proofs[1:]),
            chosen_at=since,
            place=self.attempts.place_of(device, browser.client, known.recent),
            digest=digest,
            # The identity as it is: if its owner unlinks it at this moment, nothing may start by it any more.
            changes=(Swap(identity), self.attempts.forgiving(account)),
            held=known.credentials,
            issued=issued,
        )


def _record_of(known: Known | None, method: Method, response: str) -> Credential | None:
    wanted = method.name, method.handle_of(response)
    return None if known is None else next((c for c in known.credentials if (c.method, c.handle) == wanted), None)
