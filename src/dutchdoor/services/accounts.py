"""The directory: the bundled accounts and their passwords, for whoever does not bring users of their own.

Every verb here takes the client at the other end, counts the attempt before it does any work, and says the same thing
in the same time whether an address has an account or not.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from hmac import compare_digest
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.credentials.legacy import imported
from dutchdoor.credentials.password import PasswordHasher
from dutchdoor.credentials.strength import check_new_password
from dutchdoor.errors import (
    AnotherBrowser,
    Conflict,
    DutchdoorError,
    InvalidInput,
    InvalidToken,
    LastAdministrator,
    NotAuthenticated,
    NotFound,
    RateLimited,
    RegistrationClosed,
    SessionLimitReached,
    Taken,
    Unavailable,
    WrongCredentials,
)
from dutchdoor.mail import Mail, Transport
from dutchdoor.mail.letters import Letters
from dutchdoor.model import one_time_tokens
from dutchdoor.model import rate_limits as limit_rules
from dutchdoor.model.accounts import Account, Credential, new_account, renewed, with_roles
from dutchdoor.model.audit_events import AuditEvent, EventName, event
from dutchdoor.model.email_address import canonical, without_tag
from dutchdoor.model.http_client import Client, network_of
from dutchdoor.model.ids import new_id
from dutchdoor.model.one_time_tokens import OneTimeSecret, OneTimeToken, Purpose
from dutchdoor.model.policy import Mode
from dutchdoor.model.principal import Verified
from dutchdoor.model.rate_limits import Bucket, Limits, Standing, bucket_of, by_address
from dutchdoor.model.sessions import Session
from dutchdoor.model.unicode_text import check_name
from dutchdoor.services.retry import RACES, retried
from dutchdoor.services.sessions import Authority, SignedIn
from dutchdoor.stores.base import Add, Change, Discard, Expect, ExpectRole, Forgive, Log, Remove, Revoked, Swap, Take

__all__ = ["Directory", "Welcome", "check_roles"]

PASSWORD, REGISTRATION = "password", "registration"
"""Methods of credentials. A registration's proof is a hash of the secret that the browser keeps, and the credential is
there until the address is verified.
"""
ADMIN = "admin"
"""The role of administrators."""
RECENT = 4
"""Sign-ins whose networks count as the owner's."""
_NOT_RIGHT_OR_NOT_VERIFIED = (
    "The e-mail address or the password is not right, or the address is not verified yet: follow the link in the mail, "
    "or choose a new password."
)
_NEVER_VERIFIED = (
    "There is an account with this e-mail address, and the address was never verified: another person may have "
    "registered it. Mail a link by which the owner of the mailbox takes the account over (`dutchdoor user reset "
    "ADDRESS`), and give it roles only after that."
)
log = logging.getLogger("dutchdoor")


class Welcome(Struct, frozen=True, kw_only=True):
    """A proof that succeeded, and the mark by which this browser is known next time it is asked for this account."""

    verified: Verified
    account: Account
    mark: str
    familiar: bool
    """Whether the account signed in from here before, or never signed in at all."""


class Directory:
    """Accounts and passwords over one authority and its store."""

    def __init__(
        self,
        authority: Authority,
        *,
        hasher: PasswordHasher,
        mail: Transport,
        letters: Letters,
        limits: Limits = limit_rules.DEFAULT_LIMITS,
        product: str = "dutchdoor",
        breached: Callable[[str], bool] | None = None,
    ) -> None:
        self.authority, self.store, self.policy, self.clock = (
            authority,
            authority.store,
            authority.policy,
            authority.clock,
        )
        self.hasher, self.mail, self.letters = hasher, mail, letters
        self.limits, self.product, self.breached = limits, product, breached
        self._mark_key = authority.master.current.derive("device mark")
        self._digest_key = authority.master.current.derive("account digest")
        self._posting: set[asyncio.Task[None]] = set()
        authority.on_theft = self._tell_of_theft  # type: ignore[method-assign]

    async def close(self) -> None:
        """Wait for mail that is on its way, a few seconds at most."""
        if self._posting:
            await asyncio.wait(self._posting, timeout=5)
        self.hasher.close()

    # Registering

    async def register(
        self, email: str, password: str, name: str, *, client: Client, browser: str = ""
    ) -> Account | None:
        """Create an account. With verified e-mail required gives None always, and the rest goes by mail. `browser` is
        a secret that the browser keeps: with it the mailed link verifies the address and asks for nothing.

        An account whose address was never verified is in no one's way: a link is mailed that gives it to the person who
        reads the mailbox, and the answer is None too.

        Raises:
            InvalidInput, WeakPassword: the address or the password is not acceptable.
            Taken: the address has a verified account, where saying so is allowed.
            RegistrationClosed: people are invited here.
            RateLimited: too many registrations from there.
        """
        if self.policy.registration != "open":
            raise RegistrationClosed(f"registration is by {self.policy.registration}")
        key = canonical(email)
        await self._take(by_address(self.limits.register_by_address, client.networks))
        name = check_name(name)
        password = await self._acceptable(password, key, name)
        if not self.policy.require_verified_email:
            encoded = await self.hasher.hash(password)
            try:
                return await self._add(email, name, encoded, client=client)
            except Taken:
                found = await self.store.account_by_email(key)
                if found is None or not _is_unproved(found):
                    raise
            await self._take([bucket_of(self.limits.register_by_mailbox, self._digest(without_tag(key)))])
            self._post(self._send_verification(found, client))
            return None
        await self._take([bucket_of(self.limits.register_by_mailbox, self._digest(without_tag(key)))])
        # The hash is made either way, or the time taken would tell whose address is known.
        encoded = await self.hasher.hash(password)
        self._post(self._register_quietly(key, email, name, encoded, client, browser))
        return None

    async def _register_quietly(
        self, key: str, email: str, name: str, encoded: str, client: Client, browser: str
    ) -> None:
        with suppress(Taken):
            await self._add(email, name, encoded, client=client, registration=_proof_of(browser))
        # The same work either way, for what it takes shows in what others wait for meanwhile.
        account = await self.store.account_by_email(key)
        if account is None or not account.address:
            return
        if _is_unproved(account):
            # Whose it is shows at the link: the password stays that of the first, whom nothing has proved either.
            await self._send_verification(account, client)
            return
        record = event(
            "account_created", now=self.clock(), client=client, outcome="refused", detail="address has an account"
        )
        await self.store.commit(Log(record))
        await self._mail(self.letters.already_registered, account.address)

    async def _add(
        self, email: str, name: str, encoded: str | None, *, client: Client, roles: tuple[str, ...] = (),
        verified: bool = False, disabled: bool = False, actor: str = "", also: Sequence[Change] = (),
        how: EventName = "account_created", registration: str | None = None,
    ) -> Account:  # fmt: skip
        """`registration` is the proof of the browser, for an account that expires unless its address is verified."""
        now = self.clock()
        account = new_account(address=email, name=check_name(name), now=now, roles=roles, verified=verified)
        if disabled:
            account = replace(account, status="disabled")
        changes: list[Change] = [Add(account), *also]
        found: Account | None = None
        if actor or verified:  # by an administrator, a command or the set-up link
            found = await self.store.account_by_email(account.email or "")
            if found is not None and await self._is_registration(found):
                changes = [*self._expiring(found, client, actor or account.subject, now), *changes]
        for method, proof in ((PASSWORD, encoded), (REGISTRATION, registration)):
            if proof is not None:
                changes.append(
                    Add(Credential(subject=account.subject, method=method, handle="", proof=proof, created_at=now))
                )
        changes.append(Log(event(how, now=now, client=client, subject=account.subject, actor=actor or account.subject)))
        try:
            await self.store.commit(*changes)
        except Conflict:
            message = _NEVER_VERIFIED if found is not None and _is_unproved(found) else None
            raise Taken("the address has an account", message=message) from None
        return account

    async def create(
        self,
        email: str,
        *,
        client: Client,
        actor: str,
        name: str = "",
        roles: tuple[str, ...] = (),
        password: str | None = None,
    ) -> Account:
        """Create an account on someone's behalf. Its owner chooses the password by a mailed link, unless one is given
        (by a command on the server's own machine; never over the network).

        Raises `Taken`, `InvalidInput`, `WeakPassword`, and `RegistrationClosed` for anyone but a command.
        """
        if self.policy.registration == "closed" and actor != "cli":
            raise RegistrationClosed(
                "accounts are made by command", message="Accounts are made by `dutchdoor user create` alone."
            )
        key = canonical(email)
        encoded = await self.hasher.hash(await self._acceptable(password, key, name)) if password is not None else None
        account = await self._add(
            email, name, encoded, client=client, roles=check_roles(roles), verified=True, actor=actor
        )
        if encoded is None and account.address:
            # Not counted: one for an account that is new, and a stranger must not be able to use up what it takes.
            lives_for = self.policy.unverified_for
            secret = await self._one_time(
                "reset_password", account, lives_for, client, "password_reset_requested", actor
            )
            await self._mail(self.letters.invitation, account.address, token=secret.text(), valid_for=lives_for)
        return account

    async def adopt(
        self,
        email: str,
        encoded: str | None,
        *,
        name: str = "",
        roles: tuple[str, ...] = (),
        verified: bool = False,
        disabled: bool = False,
        client: Client,
    ) -> Account:
        """Import an account with the password hash it had elsewhere; it is upgraded at its first log-in.

        Raises `Taken`, and `InvalidInput` for a hash of a kind we refuse (plain MD5, SHA-1) or do not know.
        """
        encoded = None if encoded is None else imported(encoded)
        return await self._add(
            email,
            name,
            encoded,
            client=client,
            roles=check_roles(roles),
            verified=verified,
            disabled=disabled,
            actor="cli",
            how="account_imported",
        )

    async def is_taken(self, email: str) -> bool:
        """Tell whether an address has an account that `create` and `adopt` do not displace. Raises `InvalidInput`."""
        found = await self.store.account_by_email(canonical(email))
        return found is not None and not await self._is_registration(found)

    async def _is_registration(self, account: Account) -> bool:
        """Whether an account is a registration that expires. One that an administrator gave roles to, or disabled, is
        more than that.
        """
        if account.roles or not _is_unproved(account):
            return False
        return await self.store.get(Credential, account.subject, REGISTRATION, "") is not None

    def _expiring(self, account: Account, client: Client, actor: str, now: float) -> list[Change]:
        raised = replace(account, epoch=account.epoch + 1)
        return [
            Swap(raised),  # first: it fails if the address was verified in this moment
            *self.authority.ending_all(raised, "expired", now),
            Remove(raised),
            Log(self._event("account_expired", account, client, now, actor=actor)),
        ]

    async def tidy(self) -> int:
        """Remove accounts whose address was not verified in time, and give their number. They block nothing before
        that; this forgets what a stranger may have typed. Where no verified address is required (any more), people use
        such accounts, and none is removed.
        """
        if not self.policy.require_verified_email:
            return 0
        now, last, count = self.clock(), "", 0
        while found := await self.store.registered_before(now - self.policy.unverified_for, after=last):
            last = found[-1].subject
            for account in found:
                with suppress(Conflict):  # verified in this moment
                    await self.store.commit(*self._expiring(account, Client(), "system", now))
                    count += 1
        return count

    # Signing in

    async def prove(self, email: str, password: str, *, client: Client, marks: str = "") -> Welcome:
        """Check an address and a password. Unknown, disabled, not verified where that is required, and wrong are one
        answer, after the same work.

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
        digest = self._digest(key)
        charged = by_address(self.limits.sign_in_by_address, client.networks)
        mark = limit_rules.find_mark(self._mark_key, marks, account=digest, now=now)
        if mark is None:
            # Before anything is read: a client that is refused here could otherwise measure, at no cost, what was read.
            await self._take(charged)
        # From here on the same reads in the same order, whether there is an account or not: no account has subject "".
        account = await self.store.account_by_email(key)
        subject = account.subject if account is not None else ""
        credential = await self.store.get(Credential, subject, PASSWORD, "")
        device = ""
        if mark is not None:
            if credential is not None and mark.is_of(self._mark_key, credential.created_at):
                device, charged = mark.device, ()
            else:
                await self._take(charged)  # it knew a password that is not the account's any more
        networks = set() if device else await self._recent_networks(subject, now)
        standing = limit_rules.standing_of(device=device, network=client.network, recent_networks=networks)
        own = limit_rules.sign_in_buckets(
            self.limits,
            account=digest,
            network=client.network,
            standing=standing,
            device=device,
            known=account is not None,
        )
        try:
            await self._take(own)
        except RateLimited:
            await self._give_back(charged, client)
            raise
        if credential is None or account is None:
            await self.hasher.verify_nothing(password)
            right = False
        else:
            right = await self.hasher.verify(password, credential.proof)
        unverified = self.policy.require_verified_email and (account is None or account.email_verified_at is None)
        if not right or account is None or credential is None or not account.active or unverified:
            why = "unknown address" if account is None else "wrong password" if not right else "disabled"
            await self._refuse(account, client, "address not verified" if right and unverified else why)
            # One answer: anyone can register an address, with a password of their own, and then try that password.
            message = _NOT_RIGHT_OR_NOT_VERIFIED if self.policy.require_verified_email else None
            raise WrongCredentials("sign-in refused", message=message)
        if self.hasher.needs_rehash(credential.proof):
            credential = await self._rehash(credential, password, client)
        welcome = Welcome(
            verified=Verified(subject=account.subject, epoch=account.epoch, amr=("pwd",), at=now),
            account=account,
            mark=self._marked(marks, digest, device, credential.created_at, now),
            familiar=standing is not Standing.STRANGER or not networks,
        )
        ceilings = limit_rules.sign_in_ceilings(self.limits, digest)
        return welcome, Forgive(give_back=charged, forget=(own[0], *ceilings))

    async def sign_in(
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
        """Prove, and start. Gives what starts, and the browser's mark. Raises what `prove` and `Authority.start`
        raise.
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
                    self._notify(self.letters.new_device, welcome.account, client, self.clock())
                return signed_in, welcome.mark
        raise AssertionError

    async def _give_back(self, charged: Sequence[Bucket], client: Client) -> None:
        """Give back to an address what a sign-in took that the account's bucket refused, a bounded number of times."""
        if charged:
            wait, _ = await self.store.hit(by_address(self.limits.refused_by_address, client.networks), self.clock())
            if wait <= 0:
                await self.store.commit(Forgive(give_back=tuple(charged)))

    async def _recent_networks(self, subject: str, now: float) -> set[str]:
        return {
            network_of(session.address)
            for session in await self.store.sessions_of(subject, limit=RECENT)
            if now - session.created_at <= limit_rules.NETWORK_FOR
        }

    async def _rehash(self, credential: Credential, password: str, client: Client) -> Credential:
        # It changed meanwhile, another log-in upgraded it, or there is no thread free: the next log-in upgrades.
        with suppress(Conflict, Unavailable):
            fresh = replace(credential, proof=await self.hasher.hash(password))
            record = event(
                "password_rehashed", now=self.clock(), client=client, subject=credential.subject, actor="system"
            )
            await self.store.commit(Swap(fresh), Log(record))
            return fresh
        return credential

    async def _refuse(self, account: Account | None, client: Client, why: str) -> None:
        # The address that was typed is not recorded: people type their password there.
        record = event(
            "login",
            now=self.clock(),
            client=client,
            subject=account.subject if account else "",
            outcome="refused",
            detail=why,
        )
        await self.store.commit(Log(record))

    # Changing and resetting the password

    async def change_password(
        self,
        account: Account,
        session: Session | None,
        current: str,
        new: str,
        *,
        client: Client,
        client_id: str,
        marks: str = "",
    ) -> tuple[SignedIn, str]:
        """Change the caller's password: one transaction with the end of every other session, and fresh tokens for this
        one. Gives them, and the browser's mark: those of the password before are void.

        Raises:
            WrongCredentials: the current password is not right.
            WeakPassword, InvalidInput: the new one is not acceptable.
            RateLimited: too many guesses at the current one.
        """
        await self._take(self._guesses_inside(account, session))

        @retried(RACES, "changing the password")
        async def once() -> tuple[SignedIn, str]:
            nonlocal account, session
            credential = await self.store.get(Credential, account.subject, PASSWORD, "")
            if credential is None:
                await self.hasher.verify_nothing(current)
                raise WrongCredentials("the account has no password")
            if not await self.hasher.verify(current, credential.proof):
                await self._refuse(account, client, "wrong current password")
                raise WrongCredentials("wrong current password")
            accepted = await self._acceptable(new, account.email or "", account.name, field="new_password")
            proof, now = await self.hasher.hash(accepted), self.clock()
            fresh = renewed(credential, proof, now)
            raised = replace(account, epoch=account.epoch + 1)
            changes: list[Change] = [
                Swap(fresh),
                Swap(raised),
                *self.authority.ending_all(raised, "password_changed", now, session.id if session else None),
                _tokens_of(account.subject, "reset_password"),
                self._forgiving(account),
                Log(self._event("password_changed", account, client, now)),
            ]
            try:
                signed_in = await self.authority.renew(
                    session, account, raised=raised, client_id=client_id, changes=changes, amr=("pwd",), now=now
                )
            except Conflict:
                found = await self.store.session(session.id) if session else None
                if session and (found is None or found[0].ended_at is not None):
                    raise NotAuthenticated("the session ended meanwhile") from None
                session = found[0] if found else None
                again = await self.store.account(account.subject)
                if again is None or not again.active:
                    raise NotAuthenticated("the account ended meanwhile") from None
                account = again
                raise
            self._notify(self.letters.password_changed, account, client, now)
            return signed_in, self._marked(marks, self._digest(account.email or ""), "", fresh.created_at, now)

        return await once()

    async def reauthenticate(
        self, account: Account, session: Session | None, password: str, *, client: Client, client_id: str
    ) -> SignedIn:
        """Prove the password again inside a session: a fresh `auth_time`, in a new session that replaces the old.

        Raises `WrongCredentials`, `RateLimited`, and `NotAuthenticated` when the account changed meanwhile.
        """
        await self._take(self._guesses_inside(account, session))
        credential = await self.store.get(Credential, account.subject, PASSWORD, "")
        if credential is None or not await self.hasher.verify(password, credential.proof):
            await self._refuse(account, client, "wrong password")
            raise WrongCredentials("wrong password")
        verified = Verified(subject=account.subject, epoch=account.epoch, amr=("pwd",), at=self.clock())
        also = [self._forgiving(account)]
        if session is None:
            return await self.authority.start(verified, mode="jwt", client=client, client_id=client_id, also=also)
        return await self.authority.start(
            verified, mode=session.mode, client=client, client_id=client_id, scope=session.scope, inside=session,
            also=also,
        )  # fmt: skip

    async def forget_password(self, email: str, *, client: Client, marks: str = "") -> None:
        """Mail a reset link, if the address has an account. The caller learns nothing, not even by the time it takes.

        A browser that the account signed in from before is not counted by its address: others there may have used the
        address's bucket up. Raises `InvalidInput` for what is no address, `RateLimited` for too many.
        """
        key = canonical(email)
        digest = self._digest(key)
        known = limit_rules.find_mark(self._mark_key, marks, account=digest, now=self.clock()) is not None
        address = () if known else by_address(self.limits.reset_by_address, client.networks)
        await self._take([*address, bucket_of(self.limits.reset_by_mailbox, digest)])
        self._post(self._forget_quietly(key, client))

    async def _forget_quietly(self, key: str, client: Client) -> None:
        account = await self.store.account_by_email(key)
        shared = without_tag(key)
        if shared != key and (account is None or account.email_verified_at is None):
            # A stranger can register any number of tags of one mailbox, each of which has a bucket.
            await self._take([bucket_of(self.limits.reset_by_mailbox, self._digest(shared))])
        if account is not None and account.active and account.address:
            await self._send_reset(account, account.address, client, "")
            return
        # The same work for an address without an account, for what it takes shows in what others wait for meanwhile: a
        # token that is of no account, and a letter that is not sent.
        now = self.clock()
        token, secret = one_time_tokens.issue("reset_password", subject="", email="", now=now, lives_for=0.0)
        record = event("password_reset_requested", now=now, client=client, outcome="refused", detail="no such account")
        await self.store.commit(_tokens_of("", "reset_password"), Add(token), Log(record))
        await asyncio.to_thread(self.letters.reset_password, key, token=secret.text(), valid_for=self.policy.reset_for)

    async def send_reset(self, account: Account, *, client: Client, actor: str = "") -> None:
        """Mail a reset link; links mailed before are dead. The mailbox alone ever sees it. Raises `NotFound`,
        `RateLimited`: the latest link is younger than ten minutes.
        """
        if not account.address or not account.email:
            raise NotFound("the account has no address")
        await self._take([bucket_of(self.limits.reset_by_mailbox, self._digest(account.email))])
        await self._send_reset(account, account.address, client, actor)

    async def _send_reset(self, account: Account, address: str, client: Client, actor: str) -> None:
        secret = await self._one_time(
            "reset_password", account, self.policy.reset_for, client, "password_reset_requested", actor
        )
        await self._mail(self.letters.reset_password, address, token=secret.text(), valid_for=self.policy.reset_for)

    @retried(RACES, "resetting the password")
    async def reset_password(
        self,
        token: str,
        new: str,
        *,
        client: Client,
        marks: str = "",
        purpose: Literal["reset_password", "verify_email"] = "reset_password",
    ) -> tuple[Account, str, Revoked]:
        """Set a new password by a mailed token: hash, token, sessions, epoch and event in one transaction.

        Gives the account, the browser's mark, and what ended. The mark, because the mailbox proved whose browser it is,
        and an attacker who keeps the account's bucket for strangers empty must not keep its owner out of it now.

        Raises `InvalidToken`, `WeakPassword`, `InvalidInput`, `RateLimited`.
        """
        resetting = purpose == "reset_password"
        stored = await self._redeem(token, purpose, client)
        account = await self._owner(stored)
        field = "new_password" if resetting else "password"
        proof = await self.hasher.hash(await self._acceptable(new, account.email or "", account.name, field=field))
        now = self.clock()
        credential = await self.store.get(Credential, account.subject, PASSWORD, "")
        raised = replace(account, epoch=account.epoch + 1, email_verified_at=account.email_verified_at or now)
        fresh = (
            renewed(credential, proof, now)
            if credential
            else Credential(subject=account.subject, method=PASSWORD, handle="", proof=proof, created_at=now)
        )
        done = await self.store.commit(
            Take(stored),
            Swap(fresh) if credential else Add(fresh),
            Swap(raised),
            *self.authority.ending_all(raised, "password_reset", now),
            _tokens_of(account.subject, "reset_password"),
            *self._verifying(account),
            self._forgiving(account),
            Log(self._event("password_reset" if resetting else "email_verified", account, client, now)),
        )
        if resetting:
            self._notify(self.letters.password_changed, raised, client, now)
        return raised, self._marked(marks, self._digest(account.email or ""), "", fresh.created_at, now), done

    # Verifying an address, and the first administrator

    async def _send_verification(self, account: Account, client: Client) -> None:
        if account.address and account.email:
            secret = await self._one_time(
                "verify_email", account, self.policy.verify_email_for, client, "email_verification_sent", ""
            )
            await self._mail(
                self.letters.verify_email,
                account.address,
                token=secret.text(),
                valid_for=self.policy.verify_email_for,
            )

    @retried(RACES, "verifying the address")
    async def verify_email(self, token: str, *, client: Client, browser: str) -> Account:
        """Take a mailed token as proof that the account's owner reads its address, in the browser that registered.

        Anywhere else the token says who reads the mailbox, and nothing about who chose the password: a stranger may
        have registered the address. `reset_password` with this purpose sets one, and revokes all that began before.

        Raises `InvalidToken`, `AnotherBrowser`, `RateLimited`.
        """
        stored = await self._redeem(token, "verify_email", client)
        now = self.clock()
        account = await self._owner(stored)
        registration = await self.store.get(Credential, account.subject, REGISTRATION, "")
        if registration is None or not browser or not compare_digest(registration.proof, _proof_of(browser)):
            await self._redeem(token, "verify_email", client)  # used in this moment, it opens nothing anywhere
            raise AnotherBrowser("the link was opened in another browser than the one that registered")
        verified = replace(account, email_verified_at=now)
        await self.store.commit(
            Take(stored),
            Swap(verified),
            *self._verifying(account),
            Log(self._event("email_verified", account, client, now)),
        )
        self.authority.forget_remembered()  # no entry of the log tells of this
        return verified

    @staticmethod
    def _verifying(account: Account) -> list[Change]:
        """What ends with an address that is proved: its registration, and the other links."""
        registration = Credential(subject=account.subject, method=REGISTRATION, handle="", proof="", created_at=0.0)
        return [Remove(registration), _tokens_of(account.subject, "verify_email")]

    async def offer_setup(self) -> OneTimeSecret | None:
        """Create a one-time token for the first administrator, if there is none. Each node that starts creates one, and
        prints it: those from before are valid until they expire, or there is an administrator.
        """
        if await self.store.accounts_with_role(ADMIN, limit=1):
            return None
        token, secret = one_time_tokens.issue(
            "setup", subject="", email="", now=self.clock(), lives_for=self.policy.setup_for
        )
        await self.store.commit(Add(token))
        return secret

    async def set_up(self, token: str, email: str, password: str, name: str, *, client: Client) -> Account:
        """Make the first administrator. Raises `InvalidToken`, `Taken`, `InvalidInput`, `WeakPassword`,
        `RateLimited`.
        """
        stored = await self._redeem(token, "setup", client)
        if await self.store.accounts_with_role(ADMIN, limit=1):
            raise InvalidToken("there is an administrator already")
        key = canonical(email)
        encoded = await self.hasher.hash(await self._acceptable(password, key, name))
        return await self._add(
            email, name, encoded, client=client, roles=(ADMIN,), verified=True,
            # The others too: of two people with two links one finds his gone, and is refused.
            also=[Take(stored), _tokens_of("", "setup")],
        )  # fmt: skip

    # What administrators do

    async def disable(self, subject: str, *, client: Client, actor: str) -> Revoked:
        """Bar an account: it cannot sign in, and everything it holds is dead when this returns. Raises `NotFound`."""

        async def also(account: Account) -> list[Change]:
            record = event("account_disabled", now=self.clock(), client=client, subject=subject, actor=actor)
            return [Log(record), *await self._keeping_an_administrator(account, without=True)]

        return await self.authority.end_all(
            subject,
            client=client,
            actor=actor,
            reason="disabled",
            change=lambda account: replace(account, status="disabled"),
            also=also,
        )

    async def enable(self, subject: str, *, client: Client, actor: str) -> Account:
        """Let an account sign in again; nothing that was ended comes back. Raises `NotFound`."""
        changed, _ = await self._alter(subject, lambda a: replace(a, status="active"), "account_enabled", client, actor)
        return changed

    async def set_roles(
        self, subject: str, roles: Sequence[str], *, client: Client, actor: str
    ) -> tuple[Account, Revoked]:
        """Give an account these roles and no others. Sessions live on, with the new roles at their next request; access
        tokens are stale at once: what is given beside the account is for their fence. Raises `NotFound`,
        `InvalidInput`.
        """
        wanted = check_roles(roles)
        changed, done = await self._alter(
            subject,
            lambda a: with_roles(a, wanted),
            "roles_changed",
            client,
            actor,
            detail=" ".join(wanted),
            stale=True,
        )
        return changed, done

    @retried(RACES, "changing the account")
    async def _alter(
        self,
        subject: str,
        change: Callable[[Account], Account],
        name: EventName,
        client: Client,
        actor: str,
        *,
        detail: str = "",
        stale: bool = False,
    ) -> tuple[Account, Revoked]:
        account = await self.store.account(subject)
        if account is None:
            raise NotFound("no such account")
        now = self.clock()
        changed = change(account)
        changes: list[Change] = [
            Swap(changed),
            Log(self._event(name, account, client, now, actor=actor, detail=detail)),
        ]
        if stale:
            changes += self.authority.staling(changed, now)
        changes += await self._keeping_an_administrator(account, without=not _administers(changed))
        if _administers(changed):
            changes.append(_tokens_of("", "setup"))
        done = await self.store.commit(*changes)
        return changed, done

    async def _keeping_an_administrator(self, account: Account, *, without: bool) -> list[Change]:
        """What fails in the transaction that takes the last administrator away. Raises `LastAdministrator`."""
        if not (without and _administers(account)):
            return []
        others = await self.store.accounts_with_role(ADMIN, limit=2)
        if all(other.subject == account.subject for other in others):
            raise LastAdministrator(f"{account.subject} is the last administrator")
        return [ExpectRole(ADMIN)]  # the others may be taken away at this moment, too

    # Shared steps

    async def _acceptable(self, password: str, key: str, name: str, *, field: str = "password") -> str:
        # In a thread: it estimates for milliseconds, and may read a list on a slow disk.
        return await asyncio.to_thread(
            check_new_password,
            password,
            minimum=self.policy.password_minimum,
            email=key or None,
            product=self.product,
            words=(name,),
            breached=self.breached,
            field=field,
        )

    def _guesses_inside(self, account: Account, session: Session | None) -> list[Bucket]:
        """What a guess at the password takes from that a signed-in caller makes. It counts among the account's failures
        in a row like one at a marked browser: who copied a session would otherwise go on for as long as it lives.
        """
        wanted = [bucket_of(self.limits.password_by_session, session.id if session else account.subject)]
        if account.email:
            wanted.append(bucket_of(self.limits.devices_in_a_row, self._digest(account.email)))
        return wanted

    async def _redeem(self, text: str, purpose: Purpose, client: Client) -> OneTimeToken:
        """Give the stored half of a mailed token. The address is counted for those that are refused, and for them
        alone: the owner's link opens though others at the address have used its bucket up, and guessing is hopeless.
        Raises `InvalidToken`, `RateLimited`.
        """
        try:
            secret = OneTimeSecret.parse(text)
            return one_time_tokens.check(await self.store.get(OneTimeToken, secret.id), secret, purpose, self.clock())
        except InvalidToken:
            await self._take(by_address(self.limits.one_time_by_address, client.networks))
            raise

    async def _take(self, wanted: Sequence[Bucket]) -> None:
        """Count an attempt before any work is done for it. Raises `RateLimited`."""
        wait, by = await self.store.hit(wanted, self.clock())
        if wait > 0:
            raise RateLimited(by, retry_after=wait)

    async def _one_time(
        self, purpose: Purpose, account: Account, lives_for: float, client: Client, name: EventName, actor: str
    ) -> OneTimeSecret:
        now = self.clock()
        token, secret = one_time_tokens.issue(
            purpose, subject=account.subject, email=account.email or "", now=now, lives_for=lives_for
        )
        record = event(name, now=now, client=client, subject=account.subject, actor=actor)
        # Links that verify live on beside each other: a stranger who registers an address again would otherwise kill
        # the link that its owner is about to open.
        older = [] if purpose == "verify_email" else [_tokens_of(account.subject, purpose)]
        await self.store.commit(Expect(account.subject, account.epoch), *older, Add(token), Log(record))
        return secret

    async def _owner(self, token: OneTimeToken) -> Account:
        account = await self.store.account(token.subject)
        # A token mailed to an address proves nothing about an account that has another one by now.
        if account is None or not account.active or account.email != token.email:
            raise InvalidToken("the account of the one-time token changed")
        return account

    def _marked(self, marks: str, digest: str, device: str, chosen_at: float, now: float) -> str:
        """The browser's marks with a fresh one for this account and its password."""
        device = device or new_id()
        fresh = limit_rules.mint_mark(self._mark_key, account=digest, device=device, chosen_at=chosen_at, now=now)
        return limit_rules.with_mark(marks, fresh)

    def _forgiving(self, account: Account) -> Forgive:
        """What an account's failures so far are worth once its owner has proved something."""
        ceilings = limit_rules.sign_in_ceilings(self.limits, self._digest(account.email)) if account.email else ()
        return Forgive(forget=ceilings)

    async def _tell_of_theft(self, account: Account, client: Client) -> None:
        self._notify(self.letters.sign_in_copied, account, client, self.clock())

    def _digest(self, key: str) -> str:
        """A name for an address in the limits' keys, which are no place for addresses."""
        return hashlib.blake2b(key.encode(), key=self._digest_key, digest_size=15).hexdigest()

    def _event(
        self, name: EventName, account: Account, client: Client, now: float, *, actor: str = "", detail: str = ""
    ) -> AuditEvent:
        return event(
            name, now=now, client=client, subject=account.subject, actor=actor or account.subject, detail=detail
        )

    def _notify(self, write: Callable[..., Mail], account: Account, client: Client, at: float) -> None:
        """Post a notice to the account's owner, if its address was ever verified: a stranger can register any other."""
        if account.address and account.email_verified_at is not None:
            self._post(self._send_notice(write, account.address, client, at))

    async def _send_notice(self, write: Callable[..., Mail], address: str, client: Client, at: float) -> None:
        key = f"{write.__name__}:{self._digest(canonical(address))}"
        with suppress(RateLimited):
            await self._take([bucket_of(self.limits.notice_by_mailbox, key)])
            await self._mail(write, address, client=client, at=at)

    async def _mail(self, write: Callable[..., Mail], address: str, **more: object) -> None:
        """Write a letter and hand it over. It is written in a thread: in the loop, the answers of the next callers
        would wait for it, and tell that there is an account.
        """
        await self.mail.send(await asyncio.to_thread(write, address, **more))

    def _post(self, work: Awaitable[None]) -> None:
        """Do something after the answer: mail is slow, and its time would tell which addresses are known."""

        async def carefully() -> None:
            try:
                await work
            except RateLimited as exc:
                log.info("mail was not sent: %s", exc.reason)
            except Exception as exc:  # noqa: BLE001 - nobody waits for it; the log is where it is seen
                # The text of what is not ours may quote an address. Its place is enough to find a mistake of our own.
                place = traceback.extract_tb(exc.__traceback__)[-1]
                ours = exc.reason.removeprefix("mail not sent: ") if isinstance(exc, DutchdoorError) else ""
                log.warning("mail was not sent: %s", ours or f"{type(exc).__name__} at {place.filename}:{place.lineno}")

        task = asyncio.ensure_future(carefully())
        self._posting.add(task)
        task.add_done_callback(self._posting.discard)


def _administers(account: Account) -> bool:
    return account.active and ADMIN in account.roles


def _is_unproved(account: Account) -> bool:
    """Whether the person who reads its mailbox may take an account over by the next link."""
    return account.active and account.email_verified_at is None


def _proof_of(browser: str) -> str:
    """What is stored of the secret that a browser keeps; nothing equals that of none."""
    return hashlib.sha256(browser.encode()).hexdigest() if browser else ""


_ROLE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


def _tokens_of(subject: str, purpose: Purpose) -> Discard:
    return Discard(OneTimeToken, {"subject": subject, "purpose": purpose})


def check_roles(roles: Sequence[str]) -> tuple[str, ...]:
    """Return roles in order, each once. Raises `InvalidInput` for a role that is no plain word: they are written into
    tokens and headers, with spaces between them.
    """
    for role in roles:
        if not _ROLE.fullmatch(role):
            raise InvalidInput("A role is 1 to 64 letters, digits, or - _ . :", field="roles")
    if len(set(roles)) > 32:  # noqa: PLR2004 - they ride in every token
        raise InvalidInput("An account has at most 32 roles.", field="roles")
    return tuple(sorted(set(roles)))
