"""Another e-mail address for an account: asked for, confirmed by a link to the new one, undone from the old one.

The new address is the account's when a person who reads its mailbox follows the link. Until then nothing has changed.
The former address gets a notice with a second link. For a week (`Policy.restore_email_for`) that link brings the
address back, revokes every session and sets a new password: a thief who knows the password, or sits at an open browser,
changes the address first, so that no reset reaches the owner.

The answer to the one who asks is the same whether the new address has an account or not; the rest goes to its mailbox.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.credentials.passkey import PASSKEY
from dutchdoor.credentials.password import PASSWORD
from dutchdoor.credentials.totp import TOTP
from dutchdoor.errors import InvalidInput, InvalidToken, NotFound, Taken
from dutchdoor.mail.letters import Notice
from dutchdoor.model import one_time_tokens
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import account_event
from dutchdoor.model.departures import Departure
from dutchdoor.model.email_address import canonical, mailbox, without_tag
from dutchdoor.model.http_client import Client
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.rate_limits import bucket_of
from dutchdoor.model.set_aside import PREPARED_FOR
from dutchdoor.services.deeds import Deeds
from dutchdoor.services.invitations import withdrawing
from dutchdoor.services.one_time import tokens_of
from dutchdoor.services.part import Part, Shared
from dutchdoor.services.passwords import choosing
from dutchdoor.services.registration import Registration, is_unproved, verifying
from dutchdoor.services.retry import RACES, retried
from dutchdoor.stores.base import Add, Change, Log, Remove, Revoked, Store, Swap, Take
from dutchdoor.texts import mark

__all__ = ["EmailChange", "former_addresses"]

_HAS_ANOTHER = mark(
    "This address has another account by now. Sign in to that one; to get this one back, delete that one first, or ask "
    "an administrator."
)


class Wanted(Struct, frozen=True):
    """The payload of a link that confirms an address."""

    address: str
    epoch: int
    """The account's when the change was asked for. What revokes the owner's sessions also revokes the link: a thief
    must not confirm, after the owner has chosen a new password, what they asked for before.
    """


class Former(Struct, frozen=True):
    """The payload of a link that brings an address back."""

    address: str


class EmailChange(Part):
    """Changes the addresses of accounts over one authority. `client` is the client that asks. Every verb raises
    `Unavailable` when the store is out of reach.
    """

    def __init__(self, shared: Shared, registration: Registration, deeds: Deeds) -> None:
        super().__init__(shared)
        self.registration, self.deeds = registration, deeds

    async def ask(self, account: Account, email: str, *, client: Client) -> None:
        """Mail a link to the address `email` that makes it the address of an `account`. A link that was mailed before
        is void. If the address has an account already, a mail to it says so, and the caller learns nothing.

        The caller has proved recently who they are. Otherwise a thief at an open browser could take the account.

        Raises:
            InvalidInput: `email` is not an address, or is the account's own.
            NotFound: the account has no address: its directory is elsewhere.
            RateLimited: too many changes of this account, or too much mail to this mailbox.
        """
        key = canonical(email)
        if account.email is None:
            raise NotFound("the account has no address")
        if key == account.email:
            raise InvalidInput(mark("This is the address of your account already."), field="email")
        limits, digest = self.attempts.limits, self.attempts.digest
        await self.attempts.take(
            [
                bucket_of(limits.change_email_by_account, account.subject),
                bucket_of(limits.register_by_mailbox, digest(without_tag(key))),
            ]
        )
        # The same token and event whether the address has an account: the caller sees both, on the activity page and in
        # an export, and must not learn which addresses have one. The token of a taken address is never mailed.
        address = mailbox(email)
        wanted = Wanted(address, account.epoch)
        secret = await self.one_time.issue(
            "change_email",
            account,
            self.policy.verify_email_for,
            client,
            "email_change_requested",
            account.subject,
            msgspec.json.encode(wanted),
        )
        self.post.later(self._write(address, secret.text(), client.languages))

    async def _write(self, address: str, token: str, language: str) -> None:
        letters, lives_for = self.post.letters, self.policy.verify_email_for
        if await self.registration.holder(canonical(address)) is None:
            await self.post.send(letters.change_email, address, token=token, valid_for=lives_for, language=language)
        else:
            await self.post.send(letters.address_taken, address, language=language)

    @retried(RACES, "changing the address")
    async def confirm(self, token: str, *, client: Client) -> tuple[Account, Revoked]:
        """Make the address that a mailed `token` was sent to the account's: token, address, epoch and event in one
        transaction. Sign-in by the former address stops. Sessions stay, and access tokens are stale.

        Returns the account, and the fence of what was revoked. The former address gets a notice, if it was verified,
        with a link that undoes the change. A mailbox that no one ever proved gets none: a stranger may read it, and
        would take the account.

        Raises:
            InvalidToken: the token is not valid or was used, or the account changed since: its address, its password.
            Taken: the address has an account by now.
            RateLimited: too many attempts from there.
        """
        stored = await self.one_time.redeem(token, "change_email", client)
        account = await self.one_time.owner_of(stored)
        wanted = msgspec.json.decode(stored.payload, type=Wanted)
        if account.epoch != wanted.epoch:
            raise InvalidToken("the account changed since the link was mailed")
        now, key = self.clock(), canonical(wanted.address)
        changed = replace(account, email=key, address=wanted.address, email_verified_at=now, epoch=account.epoch + 1)
        undo, secret = one_time_tokens.issue(
            "restore_email",
            subject=account.subject,
            email=key,
            now=now,
            lives_for=self.policy.restore_email_for,
            payload=msgspec.json.encode(Former(account.address or "")),
        )
        proved = account.address if account.email_verified_at is not None else None
        done = await self.store.commit(
            Take(stored),
            *await self._vacating(key, client, account, now),
            Swap(changed),
            *self.authority.staling(changed, now),
            *self._voiding(account),
            *([Add(undo)] if proved else []),
            self.attempts.forgiving(account),
            Log(account_event("email_changed", account, client, now)),
        )
        if proved:
            self.post.later(
                self.post.send(
                    self.post.letters.email_changed,
                    proved,
                    token=secret.text(),
                    valid_for=self.policy.restore_email_for,
                    client=client,
                    at=now,
                    language=await self.post.language_of(account.subject),
                )
            )
        return changed, done

    @retried(RACES, "restoring the address")
    async def restore(self, token: str, new: str, *, client: Client, marks: str = "") -> tuple[Account, str, Revoked]:
        """Undo a change of the address by the `token` that was mailed to the former one, and set a `new` password:
        address, hash, tokens, sessions, epoch and event in one transaction.

        A thief may have changed the address several times: the oldest link wins, and voids those of later changes. What
        was enrolled since, such as a passkey, is removed, because the thief may have enrolled it.

        Returns the account, a known-device mark for the browser, and what was revoked.

        Raises:
            InvalidToken: the token is not valid or was used, or the account is disabled.
            Taken: the former address has a verified account by now.
            WeakPassword, InvalidInput: the new password is not acceptable.
            RateLimited: too many attempts from there.
        """
        stored = await self.one_time.redeem(token, "restore_email", client)
        account = await self.store.account(stored.subject)
        departure = await self.store.get(Departure, stored.subject)
        # A thief may have deleted the account after they changed its address; an administrator's decision stands.
        if account is None or (not account.active and (departure is None or departure.is_final)):
            raise InvalidToken("the account of the link is gone or disabled")
        former = msgspec.json.decode(stored.payload, type=Former)
        key = canonical(former.address)
        proof = await self.passwords.encoded(new, key, account.name, field="new_password")
        now = self.clock()
        enrolled = await self.store.select(Credential, subject=account.subject)
        password, stores_it = choosing(account.subject, enrolled, proof, now)
        links = await self.store.select(OneTimeToken, subject=account.subject, purpose="restore_email")
        keeping: list[Change] = []
        deeds = await self.deeds.lately(account, since=stored.created_at - PREPARED_FOR)
        if departure is not None:
            keeping = [Take(departure), tokens_of(account.subject, "keep_account")]
        restored = replace(
            account,
            email=key,
            address=former.address,
            email_verified_at=now,
            epoch=account.epoch + 1,
            status="active",
        )
        done = await self.store.commit(
            Take(stored),
            *await self._vacating(key, client, account, now, since=stored.created_at),
            Swap(restored),
            stores_it,
            *self.authority.ending_all(restored, "email_restored", now),
            *self._voiding(account),
            *keeping,
            *[Remove(each) for each in links if each.created_at >= stored.created_at],
            *self._removing(account, enrolled, stored, client, now),
            *await withdrawing(self.store, account, client, now),
            self.attempts.forgiving(restored),
            Log(account_event("email_restored", account, client, now)),
        )
        await self._remove_late(restored, stored, client)
        self.post.notify(Notice.PASSWORD_CHANGED, restored, client, now, deeds=deeds)
        mark = self.attempts.marked(marks, self.attempts.digest(key), "", password.created_at)
        return restored, mark, done

    @staticmethod
    def _removing(
        account: Account, held: Sequence[Credential], link: OneTimeToken, client: Client, now: float
    ) -> list[Change]:
        """Return what removes those among the credentials `held` that a thief may have added before the owner used a
        `link`, or since.
        """
        gone = [each for each in held if each.created_at >= link.created_at - PREPARED_FOR and each.method != PASSWORD]
        # A reset counts what was removed: `had_factor`.
        factors = [each.method for each in gone if each.method in {PASSKEY, TOTP}]
        logged = [Log(account_event("factor_removed", account, client, now, detail=method)) for method in factors]
        return [*map(Remove, gone), *logged]

    @retried(RACES, "removing what was added")
    async def _remove_late(self, account: Account, link: OneTimeToken, client: Client) -> None:
        """Remove what a thief added while the address was being restored. From now on, their epoch is too old."""
        held = await self.store.select(Credential, subject=account.subject)
        late = self._removing(account, held, link, client, self.clock())
        late += await withdrawing(self.store, account, client, self.clock())
        if late:
            await self.store.commit(*late)

    async def _vacating(
        self, key: str, client: Client, account: Account, now: float, *, since: float | None = None
    ) -> list[Change]:
        """Return what frees an address for an account, after a person has proved its mailbox. Raises `Taken`.

        A registration that waits for its address proves nothing, and is removed. Where people use accounts that were
        never verified, only one that was created `since` the address was given up is removed: a thief could create it
        to keep the owner out.
        """
        found = await self.store.account_by_email(key)
        if found is None or found.subject == account.subject:
            return []
        squats = since is not None and is_unproved(found) and not found.roles and found.created_at >= since
        if not squats and not await self.registration.is_registration(found):
            raise Taken("the address has an account", message=None if since is None else _HAS_ANOTHER)
        return self.registration.expiring(found, client, account.subject, now)

    @staticmethod
    def _voiding(account: Account) -> list[Change]:
        """Return what deletes the links that were mailed to the address that an account gives up."""
        return [
            *verifying(account),
            tokens_of(account.subject, "reset_password"),
            tokens_of(account.subject, "change_email"),
        ]


async def former_addresses(store: Store, subject: str, now: float) -> list[str]:
    """Return the addresses that an account had, and whose owners can still undo the change."""
    links = await store.select(OneTimeToken, subject=subject, purpose="restore_email")
    return [msgspec.json.decode(each.payload, type=Former).address for each in links if now < each.expires_at]
