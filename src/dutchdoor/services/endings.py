"""Endings: how sessions and tokens are revoked before their time.

Each verb loads what is there, appends entries to the revocation log, and commits both with the events, all in one
transaction. An ending is tried more often than other verbs: one that gave up would leave a client signed in.

`end` ends one session, `end_all` everything of an account, `end_others` all sessions of an account but one, `end_token`
a stateless token, and `end_everything` everything of every account.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple, TypeAlias

from msgspec.structs import replace

from dutchdoor.errors import Conflict, NotFound
from dutchdoor.jose.claims import Claims
from dutchdoor.model import sessions
from dutchdoor.model.accounts import Account
from dutchdoor.model.audit_events import AuditEvent, EventName, event
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
"""Accounts of which everything ends in one transaction: more would keep other writers waiting."""

ENDED_ONE_BY_ONE = COALESCE_ABOVE
"""Sessions that end with an entry and an event each. Anyone can start thousands for one account, and as many
changes in one transaction keep every other writer waiting.
"""


class Leaving(NamedTuple):
    """A session that is about to end, why, and by whose hand if not the caller's."""

    session: Session
    account: Account
    reason: str = "replaced"
    actor: str = ""


class Endings(Issuer):
    """An issuer that revokes what it issued, and the sessions behind it. Every verb raises `Unavailable` when the store
    is out of reach, or when it lost too many races. `reason` is one word, kept with the session and in the audit
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
        """End one session, whoever holds it. Idempotent: one that ended before counts 0, and its fence is the log's
        head.

        Args:
            session_id: the session's public id (`sid`), not a secret.
            subject: whose it must be; None for anyone's.
            found: the session and its account as they were read a moment ago, which saves a look-up.

        Raises:
            NotFound: there is no such session, or, with `subject`, it is another's: exactly as one that never was.
        """
        known, first = found, True

        @retried(ENDINGS, "ending the session")
        async def once() -> Revoked:
            nonlocal known, first
            # What was read before is good for one attempt: the commit is conditional on it, and the next one reads.
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
        """End everything of a subject: its sessions, and by its epoch every token there is.

        Args:
            subject: whose sessions end.
            also: gives further changes of the same transaction for the account as it was read.
            change: alters the account in the same transaction (disabling it, say).

        Raises:
            NotFound: there is no such account. Further, what `also` raises.
        """
        epoch: int | None = None

        @retried(ENDINGS, "ending all sessions")
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
            record = event(name, now=now, client=client, subject=subject, actor=actor, detail=reason)
            more = [] if also is None else await also(account)
            return await self.store.commit(Swap(raised), *self.ending_all(raised, reason, now), *more, Log(record))

        return await once()

    async def end_everything(
        self,
        *,
        client: Client,
        actor: str,
        reason: str = "ended_by_admin",
        progress: Callable[[int], None] = lambda _accounts: None,
    ) -> Revoked:
        """End every session and every token of every account. The way back in is a new proof, for the caller too.

        It goes from account to account, by their epochs: what started before the call ends, and so does what starts
        while it runs, unless its account was done by then or was created meanwhile. A call that was cut off has ended
        what it came to; called again, it ends the rest. The fence of the last covers all. `progress` is called with the
        number of accounts after each transaction.
        """
        # One entry of the log for each account: an entry covers a token, a remembered session or a copy of one by what
        # these name, and they name the epoch of one account. To kill the signing keys instead would end no session, and
        # take the secret from every service that checks HS256.
        done, after, accounts = await self.fencing.nothing_left(), "", 0
        while page := await self.store.accounts(after=after, limit=ENDED_AT_ONCE):
            now = self.clock()
            changes: list[Change] = []
            for account in page:
                raised = replace(account, epoch=account.epoch + 1)
                record = event(
                    "session_ended", now=now, client=client, subject=account.subject, actor=actor, detail=reason
                )
                changes += [Swap(raised), *self.ending_all(raised, reason, now), Log(record)]
            try:
                found = [await self.store.commit(*changes)]
            except Conflict:  # one of them changed meanwhile: each by itself, for as often as that takes
                found = []
                for account in page:
                    with suppress(NotFound):
                        found.append(await self.end_all(account.subject, client=client, actor=actor, reason=reason))
            done = as_one([done, *found])
            after, accounts = page[-1].subject, accounts + len(page)
            progress(accounts)
        return done

    async def _is_over(self, subject: str, epoch: int) -> bool:
        """Tell whether another call has ended everything that a subject had at an epoch of the account. That the epoch
        has risen does not say so: after a restore it has, and nothing was ended.
        """
        if await self.store.sessions_of(subject, limit=1):
            return False
        await self.fencing.follow()
        return self.log.covers(Named(subject, epoch, None, "", "", ""))

    @retried(ENDINGS, "ending the other sessions")
    async def end_others(self, subject: str, keep: str, *, client: Client) -> Revoked:
        """End every session of a `subject` but one, all in one transaction. The one with the id `keep` may itself have
        ended; that changes nothing. An unknown subject has nothing to end: that counts 0 and raises nothing.

        Where there are more than `ENDED_ONE_BY_ONE`, they end by the subject's epoch: the access tokens of the session
        that is kept are stale then, and its next refresh brings one that is not.
        """
        now = self.clock()
        account = await self.store.account(subject)
        if account is None:
            return await self.fencing.nothing_left()
        found = await self.store.sessions_of(subject, limit=ENDED_ONE_BY_ONE + 2)
        if len(found) > ENDED_ONE_BY_ONE + 1:
            raised = replace(account, epoch=account.epoch + 1)
            record = event(
                "session_ended", now=now, client=client, subject=subject, actor=subject, detail="endedby_owner"
            )
            return await self.store.commit(
                Swap(raised), *self.ending_all(raised, "endedby_owner", now, keep or None), Log(record)
            )
        others = [
            Leaving(s, account, "endedby_owner") for s in found if s.id != keep and sessions.is_live(s, account, now)
        ]
        if not others:
            return await self.fencing.nothing_left()
        changes, _ = await self._ending(account, others, client, actor=subject, now=now)
        done = await self.store.commit(*changes)
        return replace(done, count=len(others))

    async def end_named(self, claims: Claims, *, client: Client) -> Revoked:
        """End what the `claims` of an access token name (RFC 7009): its session, or itself if it is stateless.
        Idempotent.

        A session whose row was deleted since is as ended as can be: that is success, and counts 0.
        """
        if claims.sid is None:
            return await self.end_token(claims, client=client)
        try:
            return await self.end(claims.sid, client=client, actor=claims.sub)
        except NotFound:
            return await self.fencing.nothing_left()

    async def end_token(self, claims: Claims, *, client: Client) -> Revoked:
        """End a stateless token before its time, by the `jti` of its `claims`. Idempotent: an ended one counts 0."""
        first = True

        @retried(ENDINGS, "ending the token")
        async def once() -> Revoked:
            nonlocal first
            is_first, first = first, False
            await self.fencing.follow()
            if self.log.covering_token(claims) is not None:
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
            # Not `exp`: what was passed on to a service has the same `jti` and another end.
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
        """The one way sessions end: their rows, their entries in the log, their events. Nothing else may end one. Gives
        the account as it is after. In a first attempt nothing is read: the commit conflicts where reading was needed.
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
            record = self._event(name, session, client, now, detail=reason, actor=who or actor)
            changes += [End(session.id, reason, now), Log(record)]
        return changes, raised

    async def _revoking(
        self, account: Account, entries: Sequence[Revocation], now: float, *, is_first: bool = False
    ) -> tuple[list[Change], Account]:
        """Append entries of a subject's sessions or tokens; or, where many of them live already, one that covers
        them all, for which the epoch rises: no account fills every verifier's memory with its own log-outs.
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
        """The one way all of a subject's sessions end, but that with the id `keep`, at the instant `now`. `raised`
        carries the new epoch: every token below it is dead.
        """
        return [EndAll(raised.subject, reason, now, keep), *self.staling(raised, now)]

    def staling(self, raised: Account, now: float) -> list[Change]:
        """What makes every token of a subject stale while its sessions live on: after a change of roles, at the instant
        `now`. `raised` carries the new epoch.
        """
        entry = Revocation(kind="subject", id=raised.subject, min_epoch=raised.epoch, expires_at=now + LONGEST_ACCESS)
        return [Revoke(entry)]

    def _event(
        self,
        name: EventName,
        session: Session,
        client: Client,
        now: float,
        *,
        detail: str = "",
        actor: str = "",
        outcome: Literal["ok", "refused"] = "ok",
    ) -> AuditEvent:
        return event(
            name,
            now=now,
            client=client,
            subject=session.subject,
            actor=actor or session.subject,
            session_id=session.id,
            client_id=session.client_id,
            detail=detail,
            outcome=outcome,
        )


def by_owner(leaving: Sequence[Leaving]) -> list[tuple[Account, list[Leaving]]]:
    """Sessions by whose they are, with the account as it was read last. A browser that signs in may have been another
    person's.
    """
    owners: dict[str, tuple[Account, list[Leaving]]] = {}
    for each in leaving:
        _, theirs = owners.get(each.account.subject, (each.account, []))
        owners[each.account.subject] = each.account, [*theirs, each]
    return list(owners.values())
