"""Registration: accounts that people create for themselves, and registrations that expire without a verified address.

Where a verified address is required, no answer reveals which addresses have accounts: the rest goes by mail.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from msgspec.structs import replace

from dutchdoor.credentials.passkey import PASSKEY
from dutchdoor.credentials.password import PASSWORD
from dutchdoor.credentials.recovery_code import RECOVERY_CODE
from dutchdoor.credentials.totp import TOTP
from dutchdoor.errors import Conflict, RegistrationClosed, Taken
from dutchdoor.model.accounts import Account, Credential, new_account
from dutchdoor.model.acting import NO_CLIENT, SYSTEM
from dutchdoor.model.audit_events import EventName, account_event, event
from dutchdoor.model.email_address import canonical, without_tag
from dutchdoor.model.http_client import Client
from dutchdoor.model.rate_limits import Bucket, bucket_of, by_address
from dutchdoor.model.unicode_text import check_name
from dutchdoor.services.identities import IDENTITY
from dutchdoor.services.one_time import tokens_of
from dutchdoor.services.part import Part
from dutchdoor.stores.base import Add, Change, Discard, Log, Remove, Swap
from dutchdoor.texts import mark

__all__ = ["REGISTRATION", "Registration", "evicting", "is_unproved", "proof_of", "taken", "verifying"]

REGISTRATION = "registration"
"""The method of a credential that exists until the address is verified. Its proof is a hash of the secret that the
browser keeps.
"""

_NEVER_VERIFIED = mark(
    "There is an account with this e-mail address, and the address was never verified: another person may have "
    "registered it. Mail a link by which the owner of the mailbox takes the account over (`dutchdoor user reset "
    "ADDRESS`), and give it roles only after that."
)


class Registration(Part):
    """Registers people over one authority."""

    async def register(
        self, email: str, password: str, name: str, *, client: Client, browser: str = ""
    ) -> Account | None:
        """Create an account, and mail a link that verifies its address.

        Where verified e-mail is required, it always returns None, and the rest goes by mail. An account whose address
        was never verified blocks no registration: a mailed link gives it to the person who reads the mailbox, and the
        answer is None too.

        Args:
            email: the address as the person typed it.
            password: the password of the new account.
            name: the name people see; "" for none.
            client: the client that asks.
            browser: a secret that the browser keeps: with it, the mailed link verifies the address and asks for nothing
                else.

        Raises:
            InvalidInput, WeakPassword: the address or the password is not acceptable.
            Taken: the address has a verified account, and the policy allows saying so.
            RegistrationClosed: only invited people get accounts here.
            RateLimited: too many registrations from there.
            Unavailable: the store is out of reach, or too many passwords are being hashed.
        """
        if self.policy.registration != "open":
            raise RegistrationClosed(f"registration is by {self.policy.registration}")
        key = canonical(email)
        await self.attempts.take(by_address(self.attempts.limits.register_by_address, client.networks))
        name = check_name(name)
        password = await self.passwords.accepted(password, key, name)
        if not self.policy.require_verified_email:
            encoded = await self.passwords.hasher.hash(password)
            try:
                return await self.add(email, name, encoded, client=client)
            except Taken:
                found = await self.store.account_by_email(key)
                if found is None or not is_unproved(found):
                    raise
            await self.attempts.take(self._mailbox(key))
            self.post.later(self.send_verification(found, client))
            return None
        await self.attempts.take(self._mailbox(key))
        # The hash is computed either way, or the response time would reveal which addresses are known.
        encoded = await self.passwords.hasher.hash(password)
        self.post.later(self._register_quietly(key, email, name, encoded, client, browser))
        return None

    async def _register_quietly(
        self, key: str, email: str, name: str, encoded: str, client: Client, browser: str
    ) -> None:
        with suppress(Taken):
            await self.add(email, name, encoded, client=client, registration=proof_of(browser))
        await self.mail_about(key, client)

    async def mail_about(self, key: str, client: Client) -> None:
        """Mail what someone who registers the address of a `key` has to know: a link that verifies it, or that it has
        an account. `client` is the client that asks.
        """
        # The same work either way: other callers could measure the difference.
        account = await self.store.account_by_email(key)
        if account is None or not account.address:
            return
        if is_unproved(account):
            # The link decides who owns it. The password stays that of the first person, who has proved nothing either.
            await self.send_verification(account, client)
            return
        record = event(
            "account_created", now=self.clock(), client=client, outcome="refused", detail="address has an account"
        )
        await self.store.commit(Log(record))
        await self.post.send(self.post.letters.already_registered, account.address, language=client.languages)

    async def add(
        self, email: str, name: str, encoded: str | None, *, client: Client, roles: tuple[str, ...] = (),
        verified: bool = False, disabled: bool = False, actor: str = "", also: Sequence[Change] = (),
        how: EventName = "account_created", registration: str | None = None,
        beside: Callable[[Account], Sequence[Change]] | None = None,
    ) -> Account:  # fmt: skip
        """Create an account, for callers that have checked its contents.

        Args:
            email: the address as the person typed it.
            name: the name people see.
            encoded: the hash of its password; None for none.
            client: the client that asks.
            roles: its roles, checked.
            verified: whether the address counts as verified.
            disabled: whether the account may not sign in.
            actor: who creates it, for audit events; "" for the owner.
            also: further changes of the same transaction.
            how: the name of the audit event.
            beside: returns further ones about the account that is created.
            registration: the proof of the browser, for an account that expires unless its address is verified.

        Raises:
            InvalidInput: the address or the name is not acceptable.
            Taken: the address has an account.
            Unavailable: the store is out of reach.
        """
        now = self.clock()
        account = new_account(address=email, name=check_name(name), now=now, roles=roles, verified=verified)
        if disabled:
            account = replace(account, status="disabled")
        changes: list[Change] = [Add(account), *also]
        found: Account | None = None
        if actor or verified:  # by an administrator, a command or the set-up link
            found = await self.store.account_by_email(account.email or "")
            if found is not None and await self.is_registration(found):
                changes = [*self.expiring(found, client, actor or account.subject, now), *changes]
        for method, proof in ((PASSWORD, encoded), (REGISTRATION, registration)):
            if proof is not None:
                changes.append(
                    Add(Credential(subject=account.subject, method=method, handle="", proof=proof, created_at=now))
                )
        changes.append(Log(account_event(how, account, client, now, actor=actor)))
        if beside is not None:
            changes += beside(account)
        try:
            await self.store.commit(*changes)
        except Conflict:
            raise taken(found) from None
        return account

    async def holder(self, key: str) -> Account | None:
        """Return the account that has the address of a `key`; None also for a registration that expires."""
        found = await self.store.account_by_email(key)
        return None if found is None or await self.is_registration(found) else found

    async def is_registration(self, account: Account) -> bool:
        """Return whether an `account` is a registration that expires. If an administrator gave it roles or disabled it,
        it does not expire.
        """
        if account.roles or not is_unproved(account):
            return False
        return await self.store.get(Credential, account.subject, REGISTRATION, "") is not None

    def expiring(self, account: Account, client: Client, actor: str, now: float) -> list[Change]:
        """Return the changes that remove an `account` whose address was never verified, with all that it has.

        Args:
            account: the account as it was read.
            client: the client that asks.
            actor: who removes it, for the audit event.
            now: the instant.
        """
        raised = replace(account, epoch=account.epoch + 1)
        return [
            Swap(raised),  # first: it fails if the address was verified at this moment
            *self.authority.ending_all(raised, "expired", now),
            Remove(raised),
            Log(account_event("account_expired", account, client, now, actor=actor)),
        ]

    async def tidy(self) -> int:
        """Remove accounts whose address was not verified in time, and return their number. Such accounts block no
        registration before that; this deletes what a stranger may have typed. Where the policy does not require a
        verified address (any more), people use such accounts, and none is removed.
        """
        if not self.policy.require_verified_email:
            return 0
        now, last, count = self.clock(), "", 0
        while found := await self.store.registered_before(now - self.policy.unverified_for, after=last):
            last = found[-1].subject
            for account in found:
                with suppress(Conflict):  # verified at this moment
                    await self.store.commit(*self.expiring(account, NO_CLIENT, SYSTEM, now))
                    count += 1
        return count

    async def send_verification(self, account: Account, client: Client) -> None:
        """Mail the owner of an `account` a link that verifies its address, for the `client` that asks. Links that were
        mailed before stay valid.
        """
        if account.address and account.email:
            secret = await self.one_time.issue(
                "verify_email", account, self.policy.verify_email_for, client, "email_verification_sent", ""
            )
            await self.post.send(
                self.post.letters.verify_email,
                account.address,
                token=secret.text(),
                valid_for=self.policy.verify_email_for,
                language=client.languages,
            )

    def _mailbox(self, key: str) -> list[Bucket]:
        return [bucket_of(self.attempts.limits.register_by_mailbox, self.attempts.digest(without_tag(key)))]


def is_unproved(account: Account) -> bool:
    """Whether the person who reads its mailbox may take an account over by the next link."""
    return account.active and account.email_verified_at is None


def taken(account: Account | None) -> Taken:
    """Return the error for an address that has an account, which says where the account was never verified."""
    message = _NEVER_VERIFIED if account is not None and is_unproved(account) else None
    return Taken("the address has an account", message=message)


def evicting(account: Account, held: Sequence[Credential], keeping: Collection[str]) -> list[Change]:
    """Return what removes the credentials of an account that a stranger may have registered, but for the methods that
    stay (`keeping`). `held` are those that were read: one that the stranger adds at this moment goes as well.
    """
    methods = {IDENTITY, PASSKEY, TOTP, RECOVERY_CODE, *(each.method for each in held)} - set(keeping)
    return [Discard(Credential, {"subject": account.subject, "method": method}) for method in sorted(methods)]


def proof_of(browser: str) -> str:
    """Return what is stored of the secret that a browser keeps. Without a secret, the result equals nothing."""
    return hashlib.sha256(browser.encode()).hexdigest() if browser else ""


def verifying(account: Account) -> list[Change]:
    """Return what to remove when an address is verified: its registration, and the links that would verify it."""
    registration = Credential(subject=account.subject, method=REGISTRATION, handle="", proof="", created_at=0.0)
    return [Remove(registration), tokens_of(account.subject, "verify_email")]
