"""Registration: accounts that people make for themselves, and those that expire because nobody verified the address.

No answer says which addresses have accounts where a verified address is required: the rest goes by mail.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress

from msgspec.structs import replace

from dutchdoor.credentials.password import PASSWORD
from dutchdoor.errors import Conflict, RegistrationClosed, Taken
from dutchdoor.model.accounts import Account, Credential, new_account
from dutchdoor.model.audit_events import EventName, account_event, event
from dutchdoor.model.email_address import canonical, without_tag
from dutchdoor.model.http_client import Client
from dutchdoor.model.rate_limits import Bucket, bucket_of, by_address
from dutchdoor.model.unicode_text import check_name
from dutchdoor.services.attempts import Attempts
from dutchdoor.services.one_time import OneTimeTokens
from dutchdoor.services.passwords import Passwords
from dutchdoor.services.post import Post
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Add, Change, Log, Remove, Swap

__all__ = ["REGISTRATION", "Registration", "proof_of"]

REGISTRATION = "registration"
"""The method of a credential that is there until the address is verified. Its proof is a hash of the secret that the
browser keeps.
"""

_NEVER_VERIFIED = (
    "There is an account with this e-mail address, and the address was never verified: another person may have "
    "registered it. Mail a link by which the owner of the mailbox takes the account over (`dutchdoor user reset "
    "ADDRESS`), and give it roles only after that."
)


class Registration:
    """Registers people over one authority."""

    def __init__(
        self, authority: Authority, attempts: Attempts, post: Post, one_time: OneTimeTokens, passwords: Passwords
    ) -> None:
        self.authority, self.store, self.policy, self.clock = (
            authority,
            authority.store,
            authority.policy,
            authority.clock,
        )
        self.attempts, self.post, self.one_time, self.passwords = attempts, post, one_time, passwords

    async def register(
        self, email: str, password: str, name: str, *, client: Client, browser: str = ""
    ) -> Account | None:
        """Create an account, and mail a link that verifies its address.

        With verified e-mail required it gives None always, and the rest goes by mail. An account whose address was
        never verified is in no one's way: a link is mailed that gives it to the person who reads the mailbox, and the
        answer is None too.

        Args:
            email: the address as it was typed.
            password: the password that the account gets.
            name: the name people see; "" for none.
            client: the client that asks.
            browser: a secret that the browser keeps: with it the mailed link verifies the address and asks for nothing.

        Raises:
            InvalidInput, WeakPassword: the address or the password is not acceptable.
            Taken: the address has a verified account, where saying so is allowed.
            RegistrationClosed: people are invited here.
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
        # The hash is made either way, or the time taken would tell whose address is known.
        encoded = await self.passwords.hasher.hash(password)
        self.post.later(self._register_quietly(key, email, name, encoded, client, browser))
        return None

    async def _register_quietly(
        self, key: str, email: str, name: str, encoded: str, client: Client, browser: str
    ) -> None:
        with suppress(Taken):
            await self.add(email, name, encoded, client=client, registration=proof_of(browser))
        # The same work either way, for what it takes shows in what others wait for meanwhile.
        account = await self.store.account_by_email(key)
        if account is None or not account.address:
            return
        if is_unproved(account):
            # Whose it is shows at the link: the password stays that of the first, whom nothing has proved either.
            await self.send_verification(account, client)
            return
        record = event(
            "account_created", now=self.clock(), client=client, outcome="refused", detail="address has an account"
        )
        await self.store.commit(Log(record))
        await self.post.send(self.post.letters.already_registered, account.address)

    async def add(
        self, email: str, name: str, encoded: str | None, *, client: Client, roles: tuple[str, ...] = (),
        verified: bool = False, disabled: bool = False, actor: str = "", also: Sequence[Change] = (),
        how: EventName = "account_created", registration: str | None = None,
    ) -> Account:  # fmt: skip
        """Create an account, for the parts that have checked what it is made of.

        Args:
            email: the address as it was typed.
            name: the name people see.
            encoded: the hash of its password; None for none.
            client: the client that asks.
            roles: its roles, checked.
            verified: whether the address counts as verified.
            disabled: whether the account may not sign in.
            actor: who does it, for audit events; "" for the owner.
            also: further changes of the same transaction.
            how: the name of the audit event.
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
            message = _NEVER_VERIFIED if found is not None and is_unproved(found) else None
            raise Taken("the address has an account", message=message) from None
        return account

    async def is_registration(self, account: Account) -> bool:
        """Tell whether an `account` is a registration that expires. One that an administrator gave roles to, or
        disabled, is more than that.
        """
        if account.roles or not is_unproved(account):
            return False
        return await self.store.get(Credential, account.subject, REGISTRATION, "") is not None

    def _expiring(self, account: Account, client: Client, actor: str, now: float) -> list[Change]:
        raised = replace(account, epoch=account.epoch + 1)
        return [
            Swap(raised),  # first: it fails if the address was verified in this moment
            *self.authority.ending_all(raised, "expired", now),
            Remove(raised),
            Log(account_event("account_expired", account, client, now, actor=actor)),
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
            )

    def _mailbox(self, key: str) -> list[Bucket]:
        return [bucket_of(self.attempts.limits.register_by_mailbox, self.attempts.digest(without_tag(key)))]


def is_unproved(account: Account) -> bool:
    """Whether the person who reads its mailbox may take an account over by the next link."""
    return account.active and account.email_verified_at is None


def proof_of(browser: str) -> str:
    """What is stored of the secret that a browser keeps; nothing equals that of none."""
    return hashlib.sha256(browser.encode()).hexdigest() if browser else ""
