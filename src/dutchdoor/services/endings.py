"""Endings: how sessions and tokens are revoked before they expire.

Each verb loads the records, appends entries to the revocation log, and commits both with the audit events, all in one
transaction. A revocation is retried more often than other verbs: if it gave up, a client would stay signed in.

`end` revokes one session, `end_all` everything of an account, `end_others` all sessions of an account but one,
`end_token` a stateless token, and `end_everything` everything of every account.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeAlias

from msgspec.structs import replace

from dutchdoor.errors import Conflict, NotFound
from dutchdoor.jose.claims import Claims
from dutchdoor.model import sessions
from dutchdoor.model.accounts import Account
from dutchdoor.model.audit_events import EventName, account_event, event, session_event
from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import is_id
from dutchdoor.model.policy import LONGEST_ACCESS
from dutchdoor.model.sessions import Session
from dutchdoor.revocation.log import COALESCE_ABOVE, Named, Revocation, coalesced
from dutchdoor.services.fencing import as_one
from dutchdoor.services.retry import ENDINGS, retried
from dutchdoor.services.tokens import Issuer
from dutchdoor.stores.base import Change, End, EndAll, ExpectFew, Log, Revoke, Revoked, Swap

__all__ = ["ENDED_ONE_BY_ONE", "Endings", "Found", "Leaving", "by_owner"]

Found: TypeAlias = tuple[Session, Account]
"""A session and its account, as they were read together."""

ENDED_AT_ONCE = 100
"""Accounts that one transaction revokes. With more of them, other writers would wait."""

ENDED_ONE_BY_ONE = COALESCE_ABOVE
"""Sessions that are revoked with an entry and an event each. Anyone can start thousands for one account, and one
transaction with that many changes would block every other writer.
"""


class Leaving(NamedTuple):
    """A session that is to be revoked, the reason, and the actor if it is not the caller."""

    session: Session
    account: Account
    reason: str = "replaced"
    actor: str = ""


class Endings(Issuer):
    """An issuer that revokes what it issued, and the sessions behind it. Every verb raises `Unavailable` when the store
    is out of reach, or when the verb lost too many races. `reason` is one word, kept with the session and in the audit
    event.
    """

    async def end(
        self,
        session_id: str,
        *,
        client: Client,
        actor: str,
        reason: str = "logout",
        subject: str | None = None,
        found: Found | None = None,
    ) -> Revoked:
        """Revoke one session. Idempotent: a session that is already revoked counts 0, and its fence is the head of the
        log.

        Args:
            session_id: the session's public id (`sid`), not a secret.
            subject: the subject that must own the session; None for any.
            found: the session and its account as they were read a moment ago, which saves a look-up.

        Raises:
            NotFound: there is no such session, or it belongs to another subject: the answer is the same for both.
        """
        known, first = found, True

        @retried(ENDINGS, "revoking the session")
        async def once() -> Revoked:
            nonlocal known, first
            # What was read before serves for one attempt: the commit is conditional on it, and the next attempt reads.
            is_first, first = first, False
            found, known = known or (await self.store.session(session_id) if is_id(session_id) else None), None
            if found is None or (subject is not None and found[0].subject != subject):
                raise NotFound("no such session")
            session, account = found
            if session.ended_at is not None:
                return await self.fencing.nothing_left()
            leaving = [Leaving(session, account, reason)]
            changes, _ = await self._ending(account, leaving, client, actor=actor, now=self.clock(), is_first=is_first)
            done = await self.store.commit(*changes)
            return replace(done, count=1)

        return await once()

    async def end_all(
        self,
        subject: str,
        *,
        client: Client,
        actor: str,
        reason: str = "logout_all",
        also: Callable[[Account], Awaitable[Sequence[Change]]] | None = None,
        change: Callable[[Account], Account] | None = None,
    ) -> Revoked:
        """Revoke everything of a subject: its sessions, and by its epoch every token.

        Args:
            subject: the owner of the sessions.
            also: returns further changes for the same transaction, from the account as it was read.
            change: alters the account in the same transaction (disabling it, say).

        Raises:
            NotFound: there is no such account. Also what `also` raises.
        """
        epoch: int | None = None

        @retried(ENDINGS, "revoking all sessions")
        async def once() -> Revoked:
            nonlocal epoch
            account = await self.store.account(subject)
            if account is None:
                raise NotFound("no such account")
            if epoch is None:
                epoch = account.epoch
            elif change is None and also is None and await self._is_over(subject, epoch):
                return await self.fencing.nothing_left()
            now = self.clock()
            raised = replace(change(account) if change else account, epoch=account.epoch + 1)
            name: EventName = "logout_all" if reason == "logout_all" else "session_ended"
            record = account_event(name, account, client, now, actor=actor, detail=reason)
            more = [] if also is None else await also(account)
            return await self.store.commit(Swap(raised), *self.ending_all(raised, reason, now), *more, Log(record))

        return await once()

    async def end_everything(
        self,
        *,
        client: Client,
        actor: str,
        progress: Callable[[int], None] = lambda _accounts: None,
    ) -> Revoked:
        """Revoke every session and every token of every account. Everyone must sign in again, the caller too.

        The call goes from account to account and raises their epochs. Everything that started before the call is
        revoked. A sign-in during the call is revoked too, unless the call had already passed its account or the account
        is new. A call that was interrupted has revoked what it reached; the next call revokes the rest. The fence of
        the last revocation covers all of them. `progress` is called with the number of accounts after each transaction.
        """
        # The log gets one entry for each account. An entry covers a token, a remembered session or a copy of one by the
        # names that these carry, and they carry the epoch of one account. Killing the signing keys instead would revoke
        # no session, and would take the secret from every service that checks HS256.
        done, after, accounts, reason = await self.fencing.nothing_left(), "", 0, "ended_by_admin"
        while page := await self.store.accounts(after=after, limit=ENDED_AT_ONCE):
            now = self.clock()
            changes: list[Change] = []
            for account in page:
                raised = replace(account, epoch=account.epoch + 1)
                record = account_event("session_ended", account, client, now, actor=actor, detail=reason)
                changes += [Swap(raised), *self.ending_all(raised, reason, now), Log(record)]
            try:
                found = [await self.store.commit(*changes)]
            except Conflict:  # an account changed meanwhile: revoke them one by one, as often as that takes
                found = []
                for account in page:
                    with suppress(NotFound):
                        found.append(await self.end_all(account.subject, client=client, actor=actor, reason=reason))
            done = as_one([done, *found])
            after, accounts = page[-1].subject, accounts + len(page)
            progress(accounts)
        return done

    async def _is_over(self, subject: str, epoch: int) -> bool:
        """Return whether another call has revoked everything that a subject had at an epoch of the account. A higher
        epoch alone does not prove that: a restore raises the epoch and revokes nothing.
        """
        if await self.store.sessions_of(subject, limit=1):
            return False
        await self.fencing.follow()
        return self.log.covers(Named(subject, epoch, None, "", "", ""))

    @retried(ENDINGS, "revoking the other sessions")
    async def end_others(self, subject: str, keep: str, *, client: Client) -> Revoked:
        """Revoke every session of a `subject` but one, all in one transaction. The session with the id `keep` may
        itself be revoked already; that changes nothing. For an unknown subject the count is 0, and nothing is raised.

        When there are more than `ENDED_ONE_BY_ONE`, they are revoked by the subject's epoch. The access tokens of the
        kept session are then stale, and its next refresh issues a fresh one.
        """
        now = self.clock()
        account = await self.store.account(subject)
        if account is None:
            return await self.fencing.nothing_left()
        found = await self.store.sessions_of(subject, limit=ENDED_ONE_BY_ONE + 2)
        if len(found) > ENDED_ONE_BY_ONE + 1:
            raised = replace(account, epoch=account.epoch + 1)
            record = account_event("session_ended", account, client, now, detail="ended_by_owner")
            return await self.store.commit(
                Swap(raised), *self.ending_all(raised, "ended_by_owner", now, keep or None), Log(record)
            )
        others = [
            Leaving(s, account, "ended_by_owner") for s in found if s.id != keep and sessions.is_live(s, account, now)
        ]
        if not others:
            return await self.fencing.nothing_left()
        changes, _ = await self._ending(account, others, client, actor=subject, now=now)
        done = await self.store.commit(*changes)
        return replace(done, count=len(others))

    async def end_named(self, claims: Claims, *, client: Client) -> Revoked:
        """Revoke what the `claims` of an access token name (RFC 7009): its session, or the token itself if it is
        stateless. Idempotent.

        A session whose row was deleted is over already: that is success, and counts 0.
        """
        if claims.sid is None:
            return await self.end_token(claims, client=client)
        try:
            return await self.end(claims.sid, client=client, actor=claims.sub)
        except NotFound:
            return await self.fencing.nothing_left()

    async def end_token(self, claims: Claims, *, client: Client) -> Revoked:
        """Revoke a stateless token by the `jti` of its `claims`. Idempotent: a revoked one counts 0."""
        first = True

        @retried(ENDINGS, "revoking the token")
        async def once() -> Revoked:
            nonlocal first
            is_first, first = first, False
            await self.fencing.follow()
            if self.log.covering_token(claims) not in {None, "doubt"}:
                return await self.fencing.nothing_left()
            now = self.clock()
            record = event(
                "token_revoked",
                now=now,
                client=client,
                subject=claims.sub,
                actor=claims.sub,
                client_id=claims.client_id,
                detail=claims.jti,
            )
            # Not `exp`: the token that a proxy passes on to a service has the same `jti` and another expiry.
            entry = Revocation(kind="token", id=claims.jti, expires_at=now + LONGEST_ACCESS, subject=claims.sub)
            account = await self.store.account(claims.sub)
            changes: list[Change] = [Revoke(entry)]
            if account is not None:
                changes, _ = await self._revoking(account, [entry], now, is_first=is_first)
            done = await self.store.commit(*changes, Log(record))
            return replace(done, count=1)

        return await once()

    async def _ending(
        self,
        account: Account,
        leaving: Sequence[Leaving],
        client: Client,
        *,
        actor: str,
        now: float,
        is_first: bool = False,
    ) -> tuple[list[Change], Account]:
        """The only function that revokes sessions: their rows, their entries in the log, their events. Returns the
        account as it is afterwards. A first attempt reads nothing: the commit conflicts if a read was needed.
        """
        entries = [
            Revocation(
                kind="session", id=each.session.id, expires_at=now + LONGEST_ACCESS, subject=each.session.subject
            )
            for each in leaving
        ]
        changes, raised = await self._revoking(account, entries, now, is_first=is_first)
        for session, _, reason, who in leaving:
            name: EventName = "logout" if reason == "logout" else "session_ended"
            record = session_event(name, session, client, now, detail=reason, actor=who or actor)
            changes += [End(session.id, reason, now), Log(record)]
        return changes, raised

    async def _revoking(
        self, account: Account, entries: Sequence[Revocation], now: float, *, is_first: bool = False
    ) -> tuple[list[Change], Account]:
        """Append one entry for each session or token of a subject. When many are live already, append one that covers
        them all and raise the epoch: an account must not fill every verifier's memory with its own log-outs.
        """
        room = COALESCE_ABOVE - len(entries)
        if is_first and room >= 0:  # hardly any account has many: the commit looks
            return [ExpectFew(account.subject, room, now), *map(Revoke, entries)], account
        live = await self.store.live_revocations(account.subject, now)
        folded = [
            coalesced(
                entry,
                subject=account.subject,
                epoch=account.epoch,
                live=live + number,
                expires_at=now + LONGEST_ACCESS,
            )
            for number, entry in enumerate(entries)
        ]
        whole = next((entry for entry in folded if entry.kind == "subject"), None)
        if whole is None:
            return [Revoke(entry) for entry in folded], account
        raised = replace(account, epoch=whole.min_epoch)
        return [Swap(raised), Revoke(whole)], raised

    def ending_all(self, raised: Account, reason: str, now: float, keep: str | None = None) -> list[Change]:
        """The only function that revokes all sessions of a subject except `keep`, at the instant `now`. `raised`
        carries the new epoch: every token with a lower epoch is dead.
        """
        return [EndAll(raised.subject, reason, now, keep), *self.staling(raised, now)]

    def staling(self, raised: Account, now: float) -> list[Change]:
        """Return what makes every token of a subject stale while its sessions stay valid: after a change of roles, at
        the instant `now`. `raised` carries the new epoch.
        """
        entry = Revocation(kind="subject", id=raised.subject, min_epoch=raised.epoch, expires_at=now + LONGEST_ACCESS)
        return [Revoke(entry)]


def by_owner(leaving: Sequence[Leaving]) -> list[tuple[Account, list[Leaving]]]:
    """Group sessions by their owner, with the account as it was last read. The browser that signs in may have a session
    of another person.
    """
    owners: dict[str, tuple[Account, list[Leaving]]] = {}
    for each in leaving:
        _, theirs = owners.get(each.account.subject, (each.account, []))
        owners[each.account.subject] = each.account, [*theirs, each]
    return list(owners.values())
