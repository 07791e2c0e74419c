"""Refreshing: a refresh token becomes a new one, or is found to have two holders.

What a token means is decided by `model/refresh_tokens.py`, whose rules R0 to R7 are named here.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from msgspec.structs import replace

from dutchdoor.errors import (
    DpopRequired,
    InvalidDpopProof,
    InvalidToken,
    NotAuthenticated,
    SessionInDoubt,
    Superseded,
)
from dutchdoor.jose.dpop import ONE_PROOF
from dutchdoor.model import sessions
from dutchdoor.model.accounts import Account
from dutchdoor.model.acting import SYSTEM
from dutchdoor.model.audit_events import EventName, session_event
from dutchdoor.model.http_client import Client
from dutchdoor.model.rate_limits import bucket_of
from dutchdoor.model.refresh_tokens import (
    Impossible,
    Outcome,
    RefreshToken,
    Repeated,
    Replayed,
    Rotated,
    Stolen,
    decide,
    time_of,
)
from dutchdoor.model.refresh_tokens import Superseded as IsSuperseded
from dutchdoor.model.sessions import Session
from dutchdoor.services.endings import Found, Leaving
from dutchdoor.services.hooks import announce, notify
from dutchdoor.services.presenting import SignedIn
from dutchdoor.services.retry import RACES, retried
from dutchdoor.services.session_cache import Remembered
from dutchdoor.services.starting import Starting
from dutchdoor.services.watching import Use
from dutchdoor.stores.base import Log, Swap

__all__ = ["Refreshing"]


class Refreshing(Starting):
    """An issuer that exchanges refresh tokens."""

    async def refresh(
        self,
        text: str | RefreshToken,
        client: Client,
        *,
        client_id: str = "",
        admit: Callable[[Session], None] | None = None,
    ) -> SignedIn:
        """Exchange a refresh token (RFC 6749, section 6), by the rules R0 to R7.

        Args:
            text: the refresh token, as it came or as it was read already.
            admit: called once, with the session, when the token is known to be genuine and nothing is decided yet. If
                it raises, the exchange is refused. Called earlier, it would let anyone who knows the id of the session,
                which is not secret, use up a limit.

        Raises:
            InvalidToken: not issued here (R0), revoked or expired (R1), another client's, or proof of theft.
            DpopRequired, InvalidDpopProof: the session is bound to a key, and the client has proved none, or with a
                proof that was used before. Another key is proof of theft.
            Superseded: the token is two generations old and was replaced moments ago (R5).
            SessionInDoubt: the session was used in a suspicious way, and is refused until its owner signs in again.
            Misconfigured: the `claims` hook returns claims that no token may carry.
        """
        token = RefreshToken.read(text)
        is_proof_spent = False

        @retried(RACES, "the refresh")
        async def once() -> SignedIn:
            nonlocal admit, is_proof_spent
            read_at = self.clock()
            found = await self.store.session(token.session_id)
            now = self.clock()
            if found is None or not self._is_ours(token, found[0]):
                raise InvalidToken("R0: no session has this refresh token")
            session, account = found
            if admit is not None:
                admit(session)
                admit = None
            try:
                sessions.check_live(session, account, now)
            except NotAuthenticated as exc:
                raise InvalidToken(f"R1: {exc.reason}") from None
            if (client_id or self.client_id) != session.client_id:
                # A wrong client learns nothing and revokes nothing. Otherwise any client could revoke another client's
                # sessions.
                record = session_event(
                    "refresh_wrong_client", session, client, now, detail=client_id, outcome="refused"
                )
                await self.store.commit(Log(record))
                raise InvalidToken("R1: presented by another client")
            try:
                account = await self._current(account)
            except NotAuthenticated as exc:
                raise InvalidToken(f"R1: {exc.reason}") from None
            if session.bound_to:
                await self._check_key(session, account, client, now)
                if not is_proof_spent:
                    await self._spend(client)
                    is_proof_spent = True  # a lost race decides anew, by the same proof
            await self.fencing.follow()
            if self.must_prove(session.id):
                raise SessionInDoubt("the session is in doubt")
            outcome = decide(session, token, client, time_of(session, now), self.policy)
            if self.watches and not isinstance(outcome, (IsSuperseded, Stolen, Impossible)):
                await self.sight(
                    Use(
                        session.subject, session, "", session.last_seen_at, session.client_id,
                        replayed=isinstance(outcome, Replayed),
                        bound=bool(session.bound_key),
                    ),
                    client,
                )  # fmt: skip
            return await self._carry_out(outcome, token, session, account, client, read_at=read_at, now=now)

        try:
            signed_in = await once()
        except InvalidToken:
            notify(self.hooks.refreshed, False)  # noqa: FBT003 - the hook says what it means
            raise
        notify(self.hooks.refreshed, True)  # noqa: FBT003
        return signed_in

    async def opened_by(
        self,
        text: str,
        client: Client,
        *,
        admit: Callable[[Session], None],
        exchanging: Callable[[Session], None],
        in_doubt: bool = False,
    ) -> tuple[Remembered, SignedIn | None]:
        """Return the session of the refresh token, `text`, in the cookie of a browser that opens a page of ours, and
        what the token was exchanged for; None if it stays as it is.

        The tabs of an application have the same cookie, so a page exchanges it no oftener than they do: when the last
        exchange is as old as an access token may be. A copy opens pages for as long as a copied access token would
        work. After that it has to be exchanged, which shows two holders (R3 to R6).

        Args:
            admit: called with the session when the token is known to be genuine. If it raises, nothing is opened.
            exchanging: as the `admit` of `refresh`, called only if the token is exchanged.
            in_doubt: whether a session that must be proved again is returned, too.

        Raises:
            NotAuthenticated: the token opens no page: it is a program's, say.
            InvalidToken, Superseded, SessionInDoubt: as `refresh` says.
        """
        if self.policy.rotation == "strict":
            # Each token works once, and a page cannot wait for its turn: two at once would end the session as stolen.
            raise NotAuthenticated("rotation is strict: a refresh token opens no page")
        token = RefreshToken.parse(text)
        read_at = self.clock()
        session, account = await self.holder(token)
        if session.client_id != self.client_id or session.bound_to:
            raise NotAuthenticated("a program's sign-in: a page proves neither its client nor its key")
        admit(session)
        account = await self._current(account)
        await self.fencing.follow()
        doubted = self.must_prove(session.id)
        if doubted and not in_doubt:
            raise SessionInDoubt("the session is in doubt")
        now = self.clock()
        outcome = decide(session, token, client, time_of(session, now), self.policy)
        is_young = 0 <= now - session.rotated_at < self.policy.access_for
        signed_in = None
        if not isinstance(outcome, Repeated) and not (isinstance(outcome, Rotated) and (is_young or doubted)):
            if doubted:  # nothing is exchanged in doubt
                raise NotAuthenticated("replaced, and its session is in doubt")
            signed_in = await self.refresh(token, client, admit=exchanging)
            session, account = await self.holder(signed_in.refresh_token)
        # Not remembered: no entry of the log says that a token was exchanged.
        return self._remembered.keep(session, account, read_at, remember=False), signed_in

    async def _check_key(self, session: Session, account: Account, client: Client, now: float) -> None:
        """Let a client refresh a session that is bound, if it has proved the key. Raises `InvalidToken`."""
        proved = client.proved
        if proved is None:
            # A thief who copied the token has no key. It ends nothing: something on the way may drop the header.
            raise DpopRequired("R1: the session is bound to a key, and no proof came")
        if not hmac.compare_digest(proved.thumbprint, session.bound_to):
            await self.end_stolen(session, account, client, now, "another key")
            raise InvalidToken("another key: two holders of one refresh token")

    async def _spend(self, client: Client) -> None:
        """Take the proof of a client once, over all nodes. Raises `InvalidDpopProof`, `Unavailable`."""
        if client.proved is not None and client.proved.spent_as:
            wait, _ = await self.store.hit([bucket_of(ONE_PROOF, client.proved.spent_as)], self.clock())
            if wait > 0:
                raise InvalidDpopProof("it was used before: each request needs a new one, with a `jti` of its own")

    async def _carry_out(
        self,
        outcome: Outcome,
        token: RefreshToken,
        session: Session,
        account: Account,
        client: Client,
        *,
        read_at: float,
        now: float,
    ) -> SignedIn:
        """Commit what a refresh decision asks for, then sign. If signing fails, the answer is lost, which is safe.

        The token's lifetime counts from `read_at`, before the row was read. A repeat writes nothing that could conflict
        with a log-out: a process that paused in between would sign a token that outlives the log-out's entry.
        """
        match outcome:
            case Repeated(generation, sibling):
                # R2a returns what the client holds. R3a returns the child of what it holds. If that cookie were not
                # set, the jar would present the parent again after the window, and the server would take it for a lost
                # answer.
                held = (token.generation, token.sibling) == (generation, sibling)
                return await self._present(account, session, "", generation, sibling, read_at, rotated=not held)
            case Rotated(new):
                await self.store.commit(Swap(new))
                return await self._present(account, new, "", new.generation, new.sibling, read_at)
            case Replayed(new, sibling):
                detail = "parent replayed" if new else "parent replayed; no sibling is made any more"
                record = Log(session_event("refresh_replayed", session, client, now, detail=detail))
                await self.store.commit(*([Swap(new)] if new else []), record)
                return await self._present(account, new or session, "", session.generation, sibling, read_at)
            case IsSuperseded():
                raise Superseded("R5: two generations old")
            case Stolen(rule):
                await self.end_stolen(session, account, client, now, rule)
                raise InvalidToken(f"{rule}: two holders of one refresh token")
            case Impossible():
                # A session from before this log began may have been refreshed since, and the store has lost that. Alert
                # only where that is impossible: a key has leaked.
                await self.fencing.follow()
                lost = max(session.rotated_at, session.sibling_at) < self.fencing.node.epochs_from / 1000
                leaving = Leaving(session, account, "lost_in_restore" if lost else "impossible_token")
                changes, _ = await self._ending(account, [leaving], client, actor=SYSTEM, now=now)
                if not lost:
                    alarm = session_event("refresh_impossible", session, client, now, detail="newer than any issued")
                    changes.append(Log(alarm))
                await self.store.commit(*changes)
                raise InvalidToken("R7: newer than any issued")

    async def end_stolen(
        self,
        session: Session,
        account: Account,
        client: Client,
        now: float,
        rule: str,
        *,
        name: EventName = "refresh_theft",
    ) -> None:
        """Revoke a `session` of an `account` that has two holders, record that as the event `name`, and notify the
        owner. `client` is the one that showed it, `now`, and `rule` says how.
        """
        if self.policy.theft_ends_all:
            raised = replace(account, epoch=account.epoch + 1)
            changes = [Swap(raised), *self.ending_all(raised, "theft", now)]
        else:
            leaving = Leaving(session, account, "theft")
            changes, _ = await self._ending(account, [leaving], client, actor=SYSTEM, now=now)
        record = session_event(name, session, client, now, detail=rule, outcome="refused")
        await self.store.commit(*changes, Log(record))
        await announce(self.hooks.refresh_theft, account, client)

    async def holder(self, text: str | RefreshToken, *, even_ended: bool = False) -> Found:
        """Return the session of a refresh token, `text`, of any generation, and its account. Use it only to name
        or revoke the session, never to issue. With `even_ended` also a session that was revoked or has expired.

        Raises:
            InvalidToken: no session has this refresh token.
            NotAuthenticated: the session was revoked or has expired.
        """
        token = RefreshToken.read(text)
        found = await self.store.session(token.session_id)
        if found is None or not self._is_ours(token, found[0]):
            raise InvalidToken("R0: no session has this refresh token")
        if not even_ended:
            sessions.check_live(*found, self.clock())
        return found

    def _is_ours(self, token: RefreshToken, session: Session) -> bool:
        """Return whether a refresh token was issued here for this session. Check it before any state can change."""
        master = self.master.get(session.master_key_id)
        return (
            session.mode == "hybrid"
            and master is not None
            and token.master_key_id == master.id
            and token.is_genuine(master, session.salt, session.client_id)
        )
