"""Deletion: an account that its owner gives up is disabled at once, and erased when its time is over.

For `Policy.keep_deleted_for` a mailed link keeps the account: a thief at an open browser, or a bad day, must not
destroy it. Signing in does not: an attacker who has the password would decide, and the answer to a right password would
show that there is an account. Those who ask for a new password meanwhile get the link again.

Erasing removes the account and all that belongs to it: credentials, sessions, session data, mailed links, counters
under its address. Audit events stay under the subject, a random id that leads nowhere then. They name no client any
more: no address, country or device. So an operator can still see what happened, and not to whom.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from dutchdoor.errors import Conflict, InvalidToken, NotFound
from dutchdoor.model import one_time_tokens
from dutchdoor.model.accounts import Account
from dutchdoor.model.acting import NO_CLIENT, SYSTEM
from dutchdoor.model.audit_events import account_event
from dutchdoor.model.departures import Departure
from dutchdoor.model.email_address import without_tag
from dutchdoor.model.http_client import Client
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.rate_limits import bucket_of, sign_in_ceilings
from dutchdoor.services.invitations import invitations_about
from dutchdoor.services.one_time import tokens_of
from dutchdoor.services.part import Part
from dutchdoor.services.retry import RACES, retried
from dutchdoor.services.roles import check_not_oneself, keeping_an_administrator
from dutchdoor.stores.base import Add, Change, Forgive, Log, Remove, Revoked, Swap, Take

__all__ = ["Deletion"]

_PAGE: Final = 100


class Deletion(Part):
    """Deletes accounts of one authority. For audit events, `client` is the client that asks, and `actor` the subject
    that acts (or `cli`, or `system`). Every verb raises `Unavailable` when the store is out of reach.
    """

    async def ask(self, subject: str, *, client: Client) -> tuple[Departure, Revoked]:
        """Delete the account of a `subject`, for its owner, who has proved recently who they are. It can no longer sign
        in, and all its sessions and tokens are revoked. It is erased when its time is over, at once if the policy keeps
        nothing. Until then the link that is mailed to its address keeps it.

        While a former address may still take the account back, it is kept at least that long: a thief who changed the
        address must not destroy what its owner can save.

        Returns when the account is erased, and what was revoked.

        Raises:
            NotFound: there is no such account, or it is disabled.
            LastAdministrator: it is the last active administrator.
        """
        departure = Departure(subject=subject, asked_at=0.0, due_at=0.0)
        letter: tuple[str, str] | None = None

        async def also(account: Account) -> Sequence[Change]:
            nonlocal departure, letter
            if not account.active:
                raise NotFound("the account is disabled")
            now = self.clock()
            undoing = await self.store.select(OneTimeToken, subject=subject, purpose="restore_email")
            due_at = max([now + self.policy.keep_deleted_for, *(each.expires_at for each in undoing)])
            there = await self.store.get(Departure, subject)  # an older version of this program enabled the account
            departure = Departure(subject=subject, asked_at=now, due_at=due_at)
            changes: list[Change] = [
                Add(departure) if there is None else Swap(replace(departure, revision=there.revision)),
                tokens_of(subject, "reset_password"),
                tokens_of(subject, "change_email"),
                tokens_of(subject, "verify_email"),
                *await keeping_an_administrator(self.store, account, without=True),
                Log(account_event("deletion_requested", account, client, now)),
            ]
            if account.address and due_at > now:
                token, secret = self._keep_token(account, now, due_at)
                changes.append(Add(token))
                letter = account.address, secret
            return changes

        done = await self.authority.end_all(
            subject, client=client, actor=subject, reason="deleted", change=_disabled, also=also
        )
        if letter is not None:
            self.post.later(self._write(*letter, departure))
        if departure.due_at <= self.clock():
            await self._erase(departure, actor=subject)
        return departure, done

    def _keep_token(self, account: Account, now: float, due_at: float) -> tuple[OneTimeToken, str]:
        token, secret = one_time_tokens.issue(
            "keep_account", subject=account.subject, email=account.email or "", now=now, lives_for=due_at - now
        )
        return token, secret.text()

    async def _write(self, address: str, token: str, departure: Departure) -> None:
        language = await self.post.language_of(departure.subject)
        await self.post.send(
            self.post.letters.account_deleted, address, token=token, until=departure.due_at, language=language
        )

    async def remind(self, account: Account, departure: Departure) -> bool:
        """Mail the link that keeps a deleted `account` once more; earlier ones are void. Returns False, and does
        nothing, if the account cannot be kept any more.
        """
        now = self.clock()
        if account.active or departure.is_final or now >= departure.due_at or not account.address:
            return False
        token, secret = self._keep_token(account, now, departure.due_at)
        await self.store.commit(Swap(departure), tokens_of(account.subject, "keep_account"), Add(token))
        await self._write(account.address, secret, departure)
        return True

    @retried(RACES, "keeping the account")
    async def keep(self, token: str, *, client: Client) -> Account:
        """Keep a deleted account by the `token` that was mailed to its address. It can sign in again; what was revoked
        stays revoked.

        Raises:
            InvalidToken: the token is not valid or was used, the time is over, or an administrator decided otherwise.
            RateLimited: too many attempts from there.
        """
        stored = await self.one_time.redeem(token, "keep_account", client)
        account = await self.store.account(stored.subject)
        departure = await self.store.get(Departure, stored.subject)
        if account is None or departure is None or departure.is_final or self.clock() >= departure.due_at:
            raise InvalidToken("the account is not to be kept by this link")
        kept = replace(account, status="active")
        await self.store.commit(
            Take(stored),
            Take(departure),
            Swap(kept),
            tokens_of(account.subject, "keep_account"),
            Log(account_event("deletion_cancelled", account, client, self.clock())),
        )
        return kept

    async def erase(self, subject: str, *, client: Client, actor: str) -> Revoked:
        """Erase the account of a `subject` now: its sessions and tokens are revoked, and nothing brings it back. If the
        process is killed in between, the next one that deletes expired records finishes the work.

        Raises:
            NotFound: there is no such account.
            LastAdministrator: it is the last active administrator.
            Refused: the account is that of the `actor`.
        """
        check_not_oneself(subject, actor)
        departure = Departure(subject=subject, asked_at=0.0, due_at=0.0)

        async def also(account: Account) -> Sequence[Change]:
            nonlocal departure
            now = self.clock()
            there = await self.store.get(Departure, subject)
            departure = Departure(subject=subject, asked_at=now, due_at=now, is_final=True)
            if there is not None:
                departure = replace(there, due_at=min(now, there.due_at), is_final=True)
            return [
                Add(departure) if there is None else Swap(departure),
                *await keeping_an_administrator(self.store, account, without=True),
                Log(account_event("deletion_requested", account, client, now, actor=actor)),
            ]

        done = await self.authority.end_all(
            subject, client=client, actor=actor, reason="deleted", change=_disabled, also=also
        )
        await self._erase(departure, actor=actor)
        return done

    async def tidy(self) -> int:
        """Erase the accounts whose time is over, and return their number. Any process may call it at any time."""
        count, last = 0, ""
        while found := await self.store.select(Departure, after=[last] if last else (), limit=_PAGE):
            last = found[-1].subject
            for departure in found:
                if departure.due_at <= self.clock() and await self._erase(departure, actor=SYSTEM):
                    count += 1
        return count

    async def _erase(self, departure: Departure, *, actor: str) -> bool:
        """Erase an account that is disabled already. Returns False if it was kept, or erased by another process."""
        subject = departure.subject
        for _ in range(RACES):
            account, there = await self.store.account(subject), await self.store.get(Departure, subject)
            if account is None or there is None or there.due_at > self.clock():
                return False
            now = self.clock()
            await self.store.forget(subject)
            raised = replace(account, epoch=account.epoch + 1)
            try:
                await self.store.commit(
                    Swap(raised),  # first: it fails if the account was kept at this moment
                    Take(there),
                    *self.authority.ending_all(raised, "erased", now),
                    Remove(raised),
                    *map(Remove, await invitations_about(self.store, account)),
                    self._counters(account),
                    # No client: who asked, and from where, must not remain. `actor` may be the erased person.
                    Log(account_event("account_erased", account, NO_CLIENT, now, actor=actor)),
                )
            except Conflict:
                continue
            return True
        return False  # the next process that looks finishes it

    def _counters(self, account: Account) -> Forgive:
        """Return what removes the counters that are kept under the address. Their keys hold a keyed digest of it."""
        limits, own = self.attempts.limits, account.subject
        buckets = [
            bucket_of(limits.change_email_by_account, own),
            bucket_of(limits.change_name_by_account, own),
            bucket_of(limits.export_by_account, own),
            bucket_of(limits.factors_by_account, own),
            bucket_of(limits.lost_factors_by_account, own),
            bucket_of(limits.password_by_session, own),
        ]
        if account.email is not None:
            digest = self.attempts.digest(account.email)
            buckets += [
                *sign_in_ceilings(limits, digest),
                bucket_of(limits.sign_in_by_stranger, digest),
                bucket_of(limits.reset_by_mailbox, digest),
                bucket_of(limits.register_by_mailbox, self.attempts.digest(without_tag(account.email))),
            ]
        return Forgive(forget=tuple(buckets))


def _disabled(account: Account) -> Account:
    return replace(account, status="disabled")
