"""A second factor that is lost, with the recovery codes: removed by mail, after a waiting time that the operator sets.

Three things together take the place of the factor: the first proof of a sign-in, a mailed link, and time in which the
owner can object. A thief who has the password has no mailbox, and one who has the mailbox, and with it the way to a new
password, has to wait. Meanwhile every mailbox of the account is written to, and every page of the account says so on
every device that is signed in. Any sign-in ends the waiting, and so does all that raises the account's epoch: a new
password, or signing out everywhere.

Administrators wait in vain: their factor is removed by another administrator, or on the command line.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.errors import InvalidToken, NotFound, Refused
from dutchdoor.mail.letters import Notice
from dutchdoor.model import one_time_tokens
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import account_event
from dutchdoor.model.factor_removal import REMOVAL, Removal, removable_at
from dutchdoor.model.http_client import Client
from dutchdoor.model.one_time_tokens import OneTimeToken, Purpose
from dutchdoor.model.policy import DAY, HOUR
from dutchdoor.model.rate_limits import bucket_of
from dutchdoor.model.set_aside import still_asked
from dutchdoor.services.email_change import former_addresses
from dutchdoor.services.one_time import tokens_of
from dutchdoor.services.part import Part, Shared
from dutchdoor.services.retry import RACES, retried
from dutchdoor.services.sign_in import SignIn
from dutchdoor.stores.base import Add, Change, Expect, Log, Remove, Revoked, Swap, Take
from dutchdoor.texts import mark

__all__ = ["LostFactors"]

ASK_FOR: Final = HOUR
"""Seconds in which the first link begins the waiting time."""
LINK_FOR: Final = 7 * DAY
"""Seconds after the waiting time in which the last link removes the factors: a week covers an absence."""

_NOT_YET = mark("The waiting time is not over yet. The mail with this link says when it is.")
_BY_OTHERS = mark(
    "The second factor of this account is not removed by mail. Ask another administrator, or those who run this site."
)
_NO_MORE = mark("The removal was cancelled: there was a sign-in, or a new password, or it is done already.")


class Begun(Struct, frozen=True):
    """The payload of a link of the waiting time."""

    epoch: int
    """Of the account when it began."""


class LostFactors(Part):
    """Removes second factors that are lost over one authority. `client` is the client that asks. Every verb raises
    `Unavailable` when the store is out of reach.
    """

    def __init__(self, shared: Shared, sign_in: SignIn) -> None:
        super().__init__(shared)
        self.signing_in = sign_in

    async def ask(self, token: str, *, client: Client) -> None:
        """Mail a link that begins the waiting time, to the owner of an account whose sign-in waits for a second factor.

        Args:
            token: the token of the `SignInUnfinished`.

        Raises:
            InvalidToken: the token is unknown, used or too old, or the sign-in asks for no factor that there is.
            Refused: the policy removes no factors by mail, the account is an administrator's, or it has no verified
                address.
            RateLimited: too many links were asked for.
        """
        account = await self.signing_in.locked_out(token, client=client)
        if not self.signing_in.recovers_by_mail(account) or not account.address:
            raise Refused("no removal by mail for this account", message=_BY_OTHERS)
        await self.attempts.take([bucket_of(self.attempts.limits.lost_factors_by_account, account.subject)])
        secret = await self.one_time.issue(
            "lost_factors",
            account,
            ASK_FOR,
            client,
            "factor_removal_requested",
            account.subject,
            msgspec.json.encode(Begun(account.epoch)),
        )
        self.post.later(
            self.post.send(
                self.post.letters.lost_factors,
                account.address,
                token=secret.text(),
                valid_for=self.policy.factor_recovery_after,
                client=client,
                at=self.clock(),
                language=client.languages,
            )
        )

    @retried(RACES, "beginning the waiting time")
    async def begin(self, token: str, *, client: Client) -> tuple[Account, float]:
        """Begin the waiting time by the mailed `token`, and notify every mailbox of the account. Returns the account,
        and the instant at which its factors can be removed. A waiting time that has begun goes on.

        Raises:
            InvalidToken: the token is not valid or was used, or the account changed since.
            Refused: the account is an administrator's, or the policy removes no factors by mail any more.
            RateLimited: too many attempts from there.
        """
        stored, account = await self._redeem(token, "lost_factors", client)
        now = self.clock()
        held = await self.store.select(Credential, subject=account.subject)
        before = next((each for each in held if each.method == REMOVAL), None)
        running = None if before is None else Removal.read(before)
        due_at = now + self.policy.factor_recovery_after
        if running is not None and running.is_live(account, now):
            due_at = running.due_at
        removal = Removal(due_at=due_at, until=due_at + LINK_FOR, epoch=account.epoch)
        record = removal.record(account.subject, now)
        finishing, finish = self._token("remove_factors", account, now, removal)
        cancelling, cancel = self._token("keep_factors", account, now, removal)
        await self.store.commit(
            Expect(account.subject, account.epoch),
            Take(stored),
            Add(record) if before is None else Swap(replace(record, revision=before.revision)),
            tokens_of(account.subject, "remove_factors"),
            tokens_of(account.subject, "keep_factors"),
            Add(finishing),
            Add(cancelling),
            Log(account_event("factor_removal_begun", account, client, now)),
        )
        self.post.later(self._write(account, now, due_at, finish, cancel))
        return account, due_at

    def _token(self, purpose: Purpose, account: Account, now: float, removal: Removal) -> tuple[OneTimeToken, str]:
        token, secret = one_time_tokens.issue(
            purpose,
            subject=account.subject,
            email=account.email or "",
            now=now,
            lives_for=removal.until - now,
            payload=msgspec.json.encode(Begun(account.epoch)),
        )
        return token, secret.text()

    async def _write(self, account: Account, now: float, due_at: float, finish: str, cancel: str) -> None:
        language = await self.post.language_of(account.subject)
        letters = self.post.letters
        # A thief may have changed the address: the mailbox before it still undoes that, and is written to as well.
        own = account.address or ""
        for address in dict.fromkeys([own, *await former_addresses(self.store, account.subject, now)]):
            await self.post.send(letters.factors_in_danger, address, token=cancel, until=due_at, language=language)
        await self.post.send(letters.factors_removable, own, token=finish, until=due_at, language=language)

    async def waiting(self, account: Account) -> float | None:
        """Return the instant from which the factors of an `account` can be removed; None if no waiting time runs."""
        record = await self.store.get(Credential, account.subject, REMOVAL, "")
        return removable_at(account, [] if record is None else [record], self.clock())

    @retried(RACES, "cancelling the removal")
    async def cancel(self, token: str, *, client: Client) -> Account:
        """Keep the factors, by the `token` that every mailbox got.

        Raises:
            InvalidToken: the token is not valid or was used, or nothing is to be cancelled any more.
            RateLimited: too many attempts from there.
        """
        _, account = await self._redeem(token, "keep_factors", client)
        await self._cancel(account, client)
        return account

    @retried(RACES, "cancelling the removal")
    async def cancel_own(self, account: Account, *, client: Client) -> None:
        """Keep the factors, for the owner of an `account` who is signed in.

        Raises:
            NotFound: no waiting time runs.
        """
        if await self.waiting(account) is None:
            raise NotFound("no removal is under way", message=_NO_MORE)
        await self._cancel(account, client)

    async def _cancel(self, account: Account, client: Client) -> None:
        now = self.clock()
        record = await self.store.get(Credential, account.subject, REMOVAL, "")
        if record is None:
            raise InvalidToken("no removal is under way", message=_NO_MORE)
        await self.store.commit(
            Take(record),
            tokens_of(account.subject, "remove_factors"),
            tokens_of(account.subject, "keep_factors"),
            Log(account_event("factor_removal_cancelled", account, client, now)),
        )
        self.post.notify(Notice.FACTORS_KEPT, account, client, now)

    @retried(RACES, "removing the factors")
    async def finish(self, token: str, *, client: Client) -> tuple[Account, Revoked]:
        """Remove every second factor and the recovery codes of an account by the mailed `token`, once the waiting time
        is over, and revoke all its sessions: one transaction. Signing in begins with the first proof alone then, and
        enrols another factor where the policy demands one.

        Returns the account, and what was revoked.

        Raises:
            InvalidToken: the token is not valid or was used, or the removal was cancelled.
            Refused: the waiting time is not over, or the account is an administrator's by now.
            RateLimited: too many attempts from there.
        """
        stored, account = await self._redeem(token, "remove_factors", client)
        now = self.clock()
        held = await self.store.select(Credential, subject=account.subject)
        record = next((each for each in held if each.method == REMOVAL), None)
        removal = None if record is None else Removal.read(record)
        if record is None or removal is None or not removal.is_live(account, now):
            raise InvalidToken("the removal was cancelled", message=_NO_MORE)
        if now < removal.due_at:
            raise Refused("the waiting time is not over", message=_NOT_YET)
        raised = replace(account, epoch=account.epoch + 1)
        # With those that are set aside and still asked for: the owner has lost these, too.
        lost: list[Change] = [
            Remove(each) for each in held if self.signing_in.second.is_second(each) or still_asked([each])
        ]
        done = await self.store.commit(
            Take(stored),
            Take(record),
            Swap(raised),
            *lost,
            tokens_of(account.subject, "keep_factors"),
            tokens_of(account.subject, "sign_in"),
            *self.authority.ending_all(raised, "factors_removed", now),
            Log(account_event("factors_removed", account, client, now)),
        )
        self.post.notify(Notice.FACTORS_REMOVED, raised, client, now)
        return raised, done

    async def _redeem(self, token: str, purpose: Purpose, client: Client) -> tuple[OneTimeToken, Account]:
        stored = await self.one_time.redeem(token, purpose, client)
        account = await self.one_time.owner_of(stored)
        if msgspec.json.decode(stored.payload, type=Begun).epoch != account.epoch:
            raise InvalidToken("the account changed since", message=_NO_MORE)
        if not self.signing_in.recovers_by_mail(account):
            raise Refused("no removal by mail for this account", message=_BY_OTHERS)
        return stored, account
