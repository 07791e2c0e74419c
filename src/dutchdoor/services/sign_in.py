"""Signing in: proof of an address and a password, then a session.

Unknown, disabled, not verified and wrong are one answer after the same work: the same calls to the store in the same
order, and one hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.credentials.password import PASSWORD
from dutchdoor.errors import (
    Conflict,
    InvalidInput,
    NotAuthenticated,
    RateLimited,
    SessionLimitReached,
    Unavailable,
    WrongCredentials,
)
from dutchdoor.model import rate_limits
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import event
from dutchdoor.model.email_address import canonical
from dutchdoor.model.http_client import Client, network_of
from dutchdoor.model.policy import Mode
from dutchdoor.model.principal import Verified
from dutchdoor.model.rate_limits import Standing, by_address
from dutchdoor.model.sessions import Session
from dutchdoor.services.attempts import Attempts
from dutchdoor.services.passwords import Passwords
from dutchdoor.services.post import Post
from dutchdoor.services.sessions import Authority, SignedIn
from dutchdoor.stores.base import Forgive, Log, Swap

__all__ = ["SignIn", "Welcome"]

RECENT = 4
"""Sign-ins whose networks count as the owner's."""
_NOT_RIGHT_OR_NOT_VERIFIED = (
    "The e-mail address or the password is not right, or the address is not verified yet: follow the link in the mail, "
    "or choose a new password."
)


class Welcome(Struct, frozen=True, kw_only=True):
    """A proof that succeeded, and the mark by which this browser is known next time it is asked for this account."""

    verified: Verified
    account: Account
    mark: str
    familiar: bool
    """Whether the account signed in from here before, or never signed in at all."""


class SignIn:
    """Signs people in over one authority. `client` is the client that asks, and `marks` is what its known-device cookie
    holds ("" for none). Every verb raises `Unavailable` when the store is out of reach, or too many passwords are
    being hashed.
    """

    def __init__(self, authority: Authority, attempts: Attempts, post: Post, passwords: Passwords) -> None:
        self.authority, self.store, self.policy, self.clock = (
            authority,
            authority.store,
            authority.policy,
            authority.clock,
        )
        self.attempts, self.post, self.passwords = attempts, post, passwords

    async def prove(self, email: str, password: str, *, client: Client, marks: str = "") -> Welcome:
        """Check an address, `email`, and its `password`. Unknown, disabled, not verified where that is required, and
        wrong are one answer, after the same work.

        Raises:
            WrongCredentials: that is not an address and its password.
            RateLimited: too many attempts; the right password is refused then too, or the refusal would tell.
        """
        welcome, forgiving = await self._prove(email, password, client, marks)
        await self.store.commit(forgiving)
        return welcome

    async def _prove(self, email: str, password: str, client: Client, marks: str) -> tuple[Welcome, Forgive]:
        """`prove`, and the forgetting of failures that success brings, to be written with whatever else is."""
        now = self.clock()
        try:
            key = canonical(email)
        except InvalidInput:
            key = ""
        digest = self.attempts.digest(key)
        charged = by_address(self.attempts.limits.sign_in_by_address, client.networks)
        mark = self.attempts.find_mark(marks, digest, now)
        if mark is None:
            # Before anything is read: a client that is refused here could otherwise measure, at no cost, what was read.
            await self.attempts.take(charged)
        # From here on the same reads in the same order, whether there is an account or not: no account has subject "".
        account = await self.store.account_by_email(key)
        subject = account.subject if account is not None else ""
        credential = await self.store.get(Credential, subject, PASSWORD, "")
        device = ""
        if mark is not None:
            if credential is not None and self.attempts.is_of(mark, credential.created_at):
                device, charged = mark.device, ()
            else:
                await self.attempts.take(charged)  # it knew a password that is not the account's any more
        networks = set() if device else await self._recent_networks(subject, now)
        standing = rate_limits.standing_of(device=device, network=client.network, recent_networks=networks)
        own = rate_limits.sign_in_buckets(
            self.attempts.limits,
            account=digest,
            network=client.network,
            standing=standing,
            device=device,
            known=account is not None,
        )
        try:
            await self.attempts.take(own)
        except RateLimited:
            await self.attempts.give_back(charged, client)
            raise
        if credential is None or account is None:
            await self.passwords.hasher.verify_nothing(password)
            right = False
        else:
            right = await self.passwords.hasher.verify(password, credential.proof)
        unverified = self.policy.require_verified_email and (account is None or account.email_verified_at is None)
        if not right or account is None or credential is None or not account.active or unverified:
            why = "unknown address" if account is None else "wrong password" if not right else "disabled"
            await self.attempts.refuse(account, client, "address not verified" if right and unverified else why)
            # One answer: anyone can register an address, with a password of their own, and then try that password.
            message = _NOT_RIGHT_OR_NOT_VERIFIED if self.policy.require_verified_email else None
            raise WrongCredentials("sign-in refused", message=message)
        if self.passwords.hasher.needs_rehash(credential.proof):
            credential = await self._rehash(credential, password, client)
        welcome = Welcome(
            verified=Verified(subject=account.subject, epoch=account.epoch, amr=("pwd",), at=now),
            account=account,
            mark=self.attempts.marked(marks, digest, device, credential.created_at, now),
            familiar=standing is not Standing.STRANGER or not networks,
        )
        ceilings = rate_limits.sign_in_ceilings(self.attempts.limits, digest)
        return welcome, Forgive(give_back=charged, forget=(own[0], *ceilings))

    async def by_password(
        self,
        email: str,
        password: str,
        *,
        mode: Mode,
        client: Client,
        client_id: str = "",
        marks: str = "",
        replacing: Sequence[Session] = (),
    ) -> tuple[SignedIn, str]:
        """Prove, and start. Gives what starts, and the browser's mark.

        Args:
            email: the address as it was typed.
            password: the password as it was typed.
            mode: `session`, `hybrid` or `jwt`.
            client_id: the registered client that the sign-in belongs to; "" for the application itself.
            replacing: sessions that end with it, such as the one this browser held.

        Raises:
            WrongCredentials: that is not an address and its password.
            RateLimited: too many attempts.
            SessionLimitReached: the policy refuses one more session.
            Misconfigured: the `claims` hook gives what no token may carry.
        """
        for last in (False, True):
            welcome, forgiving = await self._prove(email, password, client, marks)
            try:
                signed_in = await self.authority.start(
                    welcome.verified,
                    mode=mode,
                    client=client,
                    client_id=client_id,
                    replacing=replacing,
                    also=[forgiving],
                )
            except SessionLimitReached:
                await self.store.commit(forgiving)
                raise
            except NotAuthenticated:
                # The account changed between proof and start: a role was given, or the password changed. Prove again.
                if last:
                    raise WrongCredentials("the account kept changing") from None
            else:
                if not welcome.familiar:
                    self.post.notify(self.post.letters.new_device, welcome.account, client, self.clock())
                return signed_in, welcome.mark
        raise AssertionError

    async def _recent_networks(self, subject: str, now: float) -> set[str]:
        return {
            network_of(session.address)
            for session in await self.store.sessions_of(subject, limit=RECENT)
            if now - session.created_at <= rate_limits.NETWORK_FOR
        }

    async def _rehash(self, credential: Credential, password: str, client: Client) -> Credential:
        # It changed meanwhile, another log-in upgraded it, or there is no thread free: the next log-in upgrades.
        with suppress(Conflict, Unavailable):
            fresh = replace(credential, proof=await self.passwords.hasher.hash(password))
            record = event(
                "password_rehashed", now=self.clock(), client=client, subject=credential.subject, actor="system"
            )
            await self.store.commit(Swap(fresh), Log(record))
            return fresh
        return credential

    async def reauthenticate(
        self, account: Account, session: Session | None, password: str, *, client: Client, client_id: str
    ) -> SignedIn:
        """Prove the password again inside a sign-in (RFC 9470): a fresh `auth_time`, in a new session that replaces the
        old.

        Args:
            account: whose password it is.
            session: the session that this happens in; None for a stateless sign-in.
            password: the password as it was typed.
            client_id: the registered client that the sign-in belongs to.

        Raises:
            WrongCredentials: the password is not right.
            RateLimited: too many attempts.
            NotAuthenticated: the account changed, or the session ended, meanwhile.
        """
        await self.attempts.take(self.attempts.inside(account, session))
        credential = await self.store.get(Credential, account.subject, PASSWORD, "")
        if credential is None or not await self.passwords.hasher.verify(password, credential.proof):
            await self.attempts.refuse(account, client, "wrong password")
            raise WrongCredentials("wrong password")
        verified = Verified(subject=account.subject, epoch=account.epoch, amr=("pwd",), at=self.clock())
        also = [self.attempts.forgiving(account)]
        if session is None:
            return await self.authority.start(verified, mode="jwt", client=client, client_id=client_id, also=also)
        return await self.authority.start(
            verified, mode=session.mode, client=client, client_id=client_id, scope=session.scope, inside=session,
            also=also,
        )  # fmt: skip
