"""Recovery: how an owner regains an account or keeps others out, by a new password or a mailed link."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hmac import compare_digest
from typing import Literal

from msgspec.structs import replace

from dutchdoor.credentials.password import PASSWORD
from dutchdoor.errors import AnotherBrowser, Conflict, NotFound, WrongCredentials
from dutchdoor.mail.letters import Notice
from dutchdoor.model import one_time_tokens
from dutchdoor.model.accounts import Account, Credential, renewed
from dutchdoor.model.audit_events import account_event, event
from dutchdoor.model.departures import Departure
from dutchdoor.model.email_address import canonical, without_tag
from dutchdoor.model.http_client import Client
from dutchdoor.model.rate_limits import Bucket, bucket_of, by_address
from dutchdoor.services.deeds import Deeds
from dutchdoor.services.deletion import Deletion
from dutchdoor.services.factors import Factors
from dutchdoor.services.invitations import withdrawing
from dutchdoor.services.one_time import tokens_of
from dutchdoor.services.ongoing import Ongoing, as_now
from dutchdoor.services.part import Part, Shared
from dutchdoor.services.passwords import WRONG_PASSWORD, choosing
from dutchdoor.services.presenting import SignedIn
from dutchdoor.services.registration import REGISTRATION, evicting, is_unproved, proof_of, verifying
from dutchdoor.services.retry import RACES, retried
from dutchdoor.services.set_aside import had_factor, prepared, setting_aside
from dutchdoor.stores.base import Add, Change, Log, Revoked, Swap, Take

__all__ = ["Recovery"]


class Recovery(Part):
    """Changes and resets passwords and verifies addresses over one authority. `client` is the client that asks, and
    `marks` is what its known-device cookie holds ("" for none). Every verb raises `Unavailable` when the store is
    out of reach, or too many passwords are being hashed.
    """

    def __init__(self, shared: Shared, deletion: Deletion, factors: Factors, deeds: Deeds) -> None:
        super().__init__(shared)
        self.deletion, self.factors, self.deeds = deletion, factors, deeds

    async def change_password(
        self, ongoing: Ongoing, current: str, new: str, *, marks: str = ""
    ) -> tuple[SignedIn, str]:
        """Change the caller's password and revoke every other session in one transaction, and issue fresh tokens for
        this one. Returns them and a new known-device mark: marks for the old password are void.

        Args:
            ongoing: the sign-in that continues.
            current: the current password.
            new: the new password.

        Raises:
            StepUpRequired: the account has a second factor, and the sign-in did not prove one.
            WrongCredentials: the current password is wrong.
            WeakPassword, InvalidInput: the new one is not acceptable.
            RateLimited: too many guesses at the current one.
            NotAuthenticated: the session or the account was revoked meanwhile.
        """
        # A thief with the password and a session from before the factor must not lock the owner out with a new one.
        await self.factors.check_proved(ongoing.account.subject, ongoing.held)
        await self.attempts.take(self.attempts.inside(ongoing.account, ongoing.session))
        # A factor that was proved long ago does not become fresh by the password: see `StepUp.by_first`.
        proved_at = ongoing.session.auth_time if ongoing.session else 0.0
        is_old = self.clock() - proved_at > self.policy.step_up_for
        held = () if is_old and (await self.factors.of(ongoing.account.subject))[0] else ongoing.held
        client, amr = ongoing.client, tuple(dict.fromkeys((*held, "pwd")))

        @retried(RACES, "changing the password")
        async def once() -> tuple[SignedIn, str]:
            nonlocal ongoing
            account, session = ongoing.account, ongoing.session
            credential = await self.store.get(Credential, account.subject, PASSWORD, "")
            if credential is None:
                await self.passwords.hasher.verify_nothing(current)
                raise WrongCredentials("the account has no password", message=WRONG_PASSWORD)
            if not await self.passwords.hasher.verify(current, credential.proof):
                await self.attempts.refuse(account, client, "wrong current password")
                raise WrongCredentials("wrong current password", message=WRONG_PASSWORD)
            proof = await self.passwords.encoded(new, account.email or "", account.name, field="new_password")
            now, deeds = self.clock(), await self.deeds.lately(account)
            fresh = renewed(credential, proof, now)
            raised = replace(account, epoch=account.epoch + 1)
            changes: list[Change] = [
                Swap(fresh),
                Swap(raised),
                *self.authority.ending_all(raised, "password_changed", now, session.id if session else None),
                tokens_of(account.subject, "reset_password"),
                self.attempts.forgiving(account),
                Log(account_event("password_changed", account, client, now)),
            ]
            try:
                signed_in = await self.authority.renew(ongoing, raised=raised, changes=changes, amr=amr, now=now)
            except Conflict:
                ongoing = await as_now(self.store, ongoing)
                raise
            # A new password leaves what a thief may have added, and the session proved what is needed to look at it.
            young = prepared(account, await self.store.select(Credential, subject=account.subject), now)
            notice = Notice.PASSWORD_CHANGED_ALONE if young else Notice.PASSWORD_CHANGED
            self.post.notify(notice, account, client, now, deeds=deeds)
            return signed_in, self.attempts.marked(
                marks, self.attempts.digest(account.email or ""), "", fresh.created_at
            )

        return await once()

    async def forget_password(self, email: str, *, client: Client, marks: str = "") -> None:
        """Mail a reset link to `email`, if the address has an account. The caller learns nothing about that, not even
        from the response time.

        A browser from which the account signed in before is not counted by its client address: others there may have
        used up that address's bucket. A known-device cookie from an older password counts here too. It cannot be used
        to guess anything, the letter goes to the mailbox alone, and the mailbox's bucket bounds the letters.

        Raises:
            InvalidInput: `email` is not an address.
            RateLimited: too many requests from there, or for this mailbox.
        """
        key = canonical(email)
        digest = self.attempts.digest(key)
        known = self.attempts.find_mark(marks, digest, self.clock()) is not None
        address = () if known else by_address(self.attempts.limits.reset_by_address, client.networks)
        await self.attempts.take([*address, self._mailbox(key)])
        self.post.later(self._forget_quietly(key, client))

    async def _forget_quietly(self, key: str, client: Client) -> None:
        account = await self.store.account_by_email(key)
        departure = await self.store.get(Departure, account.subject if account else "")
        shared = without_tag(key)
        if shared != key and (account is None or account.email_verified_at is None):
            # A stranger can register any number of tagged addresses of one mailbox, and each of them has a bucket.
            await self.attempts.take([self._mailbox(shared)])
        if account is not None and account.active and account.address:
            await self._send_reset(account, account.address, client, "")
            return
        if account is not None and departure is not None and await self.deletion.remind(account, departure):
            return  # its owner has deleted it, and wants to sign in
        # The same work for an address without an account, because other callers could measure the difference: a token
        # that belongs to no account, and a letter that is not sent.
        now = self.clock()
        token, secret = one_time_tokens.issue("reset_password", subject="", email="", now=now, lives_for=0.0)
        record = event("password_reset_requested", now=now, client=client, outcome="refused", detail="no such account")
        await self.store.commit(tokens_of("", "reset_password"), Add(token), Log(record))
        await asyncio.to_thread(
            self.post.letters.reset_password,
            key,
            token=secret.text(),
            valid_for=self.policy.reset_for,
            language=client.languages,
        )

    async def send_reset(self, account: Account, *, client: Client, actor: str = "") -> None:
        """Mail a reset link to the owner of an `account`; links mailed before are void. Only the mailbox receives it.
        `actor` is who asked for it, for audit events; "" for the owner.

        Raises:
            NotFound: the account has no address.
            RateLimited: the latest link is younger than ten minutes.
        """
        if not account.address or not account.email:
            raise NotFound("the account has no address")
        await self.attempts.take([self._mailbox(account.email)])
        await self._send_reset(account, account.address, client, actor)

    async def _send_reset(self, account: Account, address: str, client: Client, actor: str) -> None:
        secret = await self.one_time.issue(
            "reset_password", account, self.policy.reset_for, client, "password_reset_requested", actor
        )
        await self.post.send(
            self.post.letters.reset_password,
            address,
            token=secret.text(),
            valid_for=self.policy.reset_for,
            # An administrator asks in a language of their own.
            language=await self.post.language_of(account.subject) if actor else client.languages,
        )

    def _mailbox(self, key: str) -> Bucket:
        return bucket_of(self.attempts.limits.reset_by_mailbox, self.attempts.digest(key))

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

        Returns the account, a known-device mark and what was revoked. The browser gets the mark because the mailbox
        proved that it is the owner's. An attacker who keeps the account's bucket for strangers empty must not lock the
        owner out now.

        A second factor stays, and is asked for at the next sign-in. What was added within the last week, such as a
        passkey, is set aside until its owner keeps it. Of an account without roles whose address no one ever verified,
        all is removed: the mailbox decides whose it is.

        Args:
            token: the token in the link.
            new: the new password.
            purpose: the purpose of the link: to reset the password, or to verify the address in another browser.

        Raises:
            InvalidToken: the token is not valid, or was used.
            WeakPassword, InvalidInput: the new password is not acceptable.
            RateLimited: too many attempts from there.
        """
        resetting = purpose == "reset_password"
        stored = await self.one_time.redeem(token, purpose, client)
        account = await self.one_time.owner_of(stored)
        field = "new_password" if resetting else "password"
        proof = await self.passwords.encoded(new, account.email or "", account.name, field=field)
        now = self.clock()
        enrolled = await self.store.select(Credential, subject=account.subject)
        # A stranger may have registered the address, and enrolled a factor that its owner could never prove.
        strange = is_unproved(account) and not account.roles
        raised = replace(account, epoch=account.epoch + 1, email_verified_at=account.email_verified_at or now)
        password, stores_it = choosing(account.subject, enrolled, proof, now)
        by_mail = await self._by_mail(raised, enrolled, now)
        aside = [] if strange else setting_aside(account, enrolled, client, now, by_mail=by_mail)
        deeds = await self.deeds.lately(account)
        done = await self.store.commit(
            Take(stored),
            stores_it,
            Swap(raised),
            *self.authority.ending_all(raised, "password_reset", now),
            *aside,
            *await withdrawing(self.store, account, client, now),
            tokens_of(account.subject, "reset_password"),
            *verifying(account),
            *(evicting(account, enrolled, {PASSWORD, REGISTRATION}) if strange else ()),
            *await self.post.keeping_language(account, client),
            self.attempts.forgiving(account),
            Log(account_event("password_reset" if resetting else "email_verified", account, client, now)),
        )
        if not strange:
            await self._set_aside_late(raised, client)
        if resetting:
            self.post.notify(
                Notice.PASSWORD_RESET if aside else Notice.PASSWORD_CHANGED, raised, client, now, deeds=deeds
            )
        mark = self.attempts.marked(marks, self.attempts.digest(account.email or ""), "", password.created_at)
        return raised, mark, done

    @retried(RACES, "setting aside what was added")
    async def _set_aside_late(self, account: Account, client: Client) -> None:
        """Set aside what a thief added while the password was being reset. From now on, their epoch is too old."""
        held = await self.store.select(Credential, subject=account.subject)
        now = self.clock()
        late = setting_aside(account, held, client, now, by_mail=await self._by_mail(account, held, now))
        late += await withdrawing(self.store, account, client, now)
        if late:
            await self.store.commit(*late)

    async def _by_mail(self, account: Account, held: Sequence[Credential], now: float) -> bool:
        """Return whether mail may remove the second factors of an account, whose credentials are `held`."""
        may = self.factors.removable_by_mail(account)
        return may and not await had_factor(self.store, account.subject, held, now)

    @retried(RACES, "verifying the address")
    async def verify_email(self, token: str, *, client: Client, browser: str) -> Account:
        """Accept a mailed `token` as proof that the account's owner reads its address, in the browser that registered.
        `browser` is the secret that this browser keeps.

        In any other browser, the token proves who reads the mailbox and nothing about who chose the password: a
        stranger may have registered the address. `reset_password` with this purpose sets a new one, and revokes every
        session and token from before.

        Raises:
            InvalidToken: the token is not valid, or was used.
            AnotherBrowser: another browser registered: the owner must choose a password.
            RateLimited: too many attempts from there.
        """
        stored = await self.one_time.redeem(token, "verify_email", client)
        now = self.clock()
        account = await self.one_time.owner_of(stored)
        registration = await self.store.get(Credential, account.subject, REGISTRATION, "")
        if registration is None or not browser or not compare_digest(registration.proof, proof_of(browser)):
            await self.one_time.redeem(token, "verify_email", client)  # it is used now, so it opens nothing elsewhere
            raise AnotherBrowser("the link was opened in another browser than the one that registered")
        verified = replace(account, email_verified_at=now)
        await self.store.commit(
            Take(stored),
            Swap(verified),
            *verifying(account),
            *await self.post.keeping_language(account, client),
            Log(account_event("email_verified", account, client, now)),
        )
        self.authority.forget_remembered()  # no entry of the log reports this change
        return verified
