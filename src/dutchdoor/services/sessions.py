"""The authority: the side that starts, checks and refreshes sign-ins. `Verifier` is the other side, which only checks.

Each verb works the same way: load the records, decide with a pure function that takes `now`, commit everything the
decision asks for as one transaction, and answer. A verb that lost a race is tried again from its first line (`retry`).
An authority has four layers, a file each: `tokens` has its keys and access tokens, `endings` revokes, `watching` looks
at how sessions are used, and this file starts and keeps them.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.errors import (
    Conflict,
    DpopRequired,
    InvalidDpopProof,
    InvalidToken,
    NotAuthenticated,
    SessionInDoubt,
    SessionLimitReached,
    Superseded,
    Unavailable,
)
from dutchdoor.jose.dpop import ONE_PROOF
from dutchdoor.model import sessions
from dutchdoor.model.accounts import Account, external_account
from dutchdoor.model.audit_events import AuditEvent, event, session_event
from dutchdoor.model.bindings import Binding
from dutchdoor.model.http_client import Client
from dutchdoor.model.master_key import MasterKeys
from dutchdoor.model.policy import STANDARD, Mode, Policy
from dutchdoor.model.principal import Verified
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
    mint,
    time_of,
)
from dutchdoor.model.refresh_tokens import Superseded as IsSuperseded
from dutchdoor.model.sessions import Session, SessionToken
from dutchdoor.revocation.lease import Terms
from dutchdoor.services.endings import Found, Leaving, by_owner
from dutchdoor.services.hooks import Hooks, announce, notify
from dutchdoor.services.retention import events_kept_from
from dutchdoor.services.retry import RACES, retried
from dutchdoor.services.seen_lately import SeenLately
from dutchdoor.services.session_cache import Remembered, RememberedSessions
from dutchdoor.services.session_data import DataVerbs
from dutchdoor.services.watching import Use, Watching
from dutchdoor.stores.base import Add, Change, Copies, Expect, Log, Revoked, Store, Swap

__all__ = ["Authority", "SignedIn"]

KEPT_FOR = 600.0
"""Seconds for which expired records are kept: twice the largest allowed difference between two wall clocks."""

LISTED = 500
"""Sessions of one account that are listed at once. An account has more only on purpose, and a list of all of them would
delay every other caller.
"""


class SignedIn(Struct, frozen=True, kw_only=True):
    """What a sign-in or a refresh issues. The tokens are readable only here and at the client."""

    account: Account
    """Who signed in."""
    mode: Mode
    """How the client presents the sign-in."""
    session: Session | None = None
    """The row behind it; None in the mode `jwt`."""
    session_token: str = ""
    """The value of the session cookie in the mode `session`, else ""."""
    refresh_token: str = ""
    """In the mode `hybrid`, else ""."""
    access_token: str = ""
    """The signed JWT (RFC 9068); "" in the mode `session`."""
    expires_in: int = 0
    """Seconds the access token lives."""
    bound_to: str = ""
    """The thumbprint of the key whose proof the access token needs; "" for a bearer token."""
    rotated: bool = True
    """False when a refresh returned what the client already had: no cookie is set then."""
    visitor_moved: bool = False
    """Whether the session has taken over what the visitor of a cookie had kept: that cookie is cleared."""
    ended: Revoked | None = None
    """What was revoked with it, where that is fenced: everything from before a change of the password."""

    def __repr__(self) -> str:
        return f"SignedIn(subject={self.account.subject!r}, mode={self.mode!r})"


class Authority(Watching):
    """One node's authority over a store: an issuer that keeps sessions, too. Use it from one event loop; several nodes
    may share a store.

    Every verb raises `Unavailable` when the store is out of reach, or when a decision lost too many races. Verbs have
    these parameters in common:

        client: the client that asks, for audit events and for the list of sessions.
        client_id: the registered client that the sign-in belongs to; "" for the application itself.
    """

    def __init__(
        self,
        store: Store,
        *,
        master: MasterKeys,
        issuer: str,
        audience: Sequence[str] = (),
        policy: Policy = STANDARD,
        alg: str = "ES256",
        client_id: str = "app",
        hooks: Hooks | None = None,
        lease: float = Terms().lease_for,
        copies: Copies | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Take a store that is opened later.

        Args:
            store: the store of all records.
            master: the keys that seal signing keys and derive refresh tokens.
            issuer: the `iss` of tokens, an origin with any base path.
            audience: the `aud` of tokens; the issuer itself if empty.
            policy: every duration (seconds) and limit.
            alg: the algorithm of access tokens: `ES256`, `EdDSA`, `RS256` or `HS256`.
            client_id: the name of the application itself among clients.
            hooks: what is added to the verbs (`services.hooks`).
            lease: seconds for which a verifier may trust what it knows of the revocation log.
            copies: copies of sessions that other nodes looked up, if there are any.
            clock: the time of day; None takes the store's where it has one for all nodes, else this machine's.

        Raises:
            Misconfigured: HS256 is asked for with more than one audience (a service that verifies can mint for all), or
                `lease` is out of bounds.
        """
        super().__init__(
            store,
            master=master,
            issuer=issuer,
            audience=audience,
            policy=policy,
            alg=alg,
            hooks=hooks,
            lease=lease,
            clock=clock,
        )
        self.client_id = client_id
        self.data = DataVerbs(self.store, policy, self.clock)
        self._remembered, self._copies, self._forgot_at = RememberedSessions(self.claims_of), copies, -math.inf
        self._log_epoch = 0
        self.seen_lately = SeenLately()

    # Starting

    async def start(
        self,
        verified: Verified,
        *,
        mode: Mode,
        client: Client,
        client_id: str = "",
        scope: str = "",
        account: Account | None = None,
        replacing: Sequence[Found] = (),
        inside: Session | None = None,
        visitor: str = "",
        also: Sequence[Change] = (),
        beside: Callable[[Session], Sequence[Change]] | None = None,
        tries_again: bool = True,
    ) -> SignedIn:
        """Start a sign-in from a proof. Every call creates a new id, and revokes what it replaces in the same
        transaction.

        Args:
            verified: the proof. Its epoch was read together with the credential.
            mode: `session`, `hybrid` or `jwt`.
            scope: the `scope` of access tokens (RFC 6749, section 3.3); "" for none.
            account: the account as it was read for the proof, which saves a look-up.
            replacing: sessions to revoke with it, such as the one this browser held, each with its account. Some may
                be revoked already.
            inside: the session in which the proof was given. It is replaced, too, and must be live.
            visitor: the token of a visitor's cookie, whose session data the new session takes over; "" for none. It
                also takes over that of the sessions of the same account that it replaces.
            also: further changes of the same transaction.
            beside: returns further ones about the session that starts; not called for a stateless sign-in.
            tries_again: whether to try again after a lost race. False raises `Conflict`, for a caller whose `also` must
                be decided again.

        Raises:
            NotAuthenticated: the account is gone or disabled, or its epoch has risen since the proof: prove again. Or
                the session in which the proof was given was revoked.
            SessionLimitReached: the policy refuses one more session.
            Misconfigured: the `claims` hook returns claims that no token may carry.
        """
        known = account
        first = True
        binding = self._binding(mode, client, inside)

        async def once() -> SignedIn:
            nonlocal known, first
            now = self.clock()
            # What was read before serves for one attempt: the commit is conditional on it, and the next attempt reads.
            account, known = known or await self.store.account(verified.subject), None
            is_first, first = first, False
            if account is None or not account.active or account.epoch != verified.epoch:
                raise NotAuthenticated("the account changed since the proof")
            leaving = [
                Leaving(*found)
                for given in replacing
                if (found := await self._live(given[0].id, now, given if is_first else None))
            ]
            if inside is not None:
                found = await self._live(inside.id, now)
                if found is None:
                    raise NotAuthenticated("the session ended meanwhile")  # or it would outlive its own log-out
                leaving.append(Leaving(*found))
            replaced = [each.session for each in leaving]
            if mode != "jwt":
                leaving += await self._over_the_limit(account, leaving, now)
            changes: list[Change] = [Expect(account.subject, verified.epoch)]
            raised, proof = account, verified
            for owner, theirs in by_owner(leaving):
                ends, after = await self._ending(
                    owner, theirs, client, actor=account.subject, now=now, is_first=is_first
                )
                changes += ends
                if owner.subject == account.subject:
                    raised = after
            if mode != "jwt" and raised is account:
                changes += self._in_turn(account)
            if raised is not account:
                # The epoch rises in the same transaction that expects the proof's epoch: nothing came in between.
                account, proof = raised, replace(verified, epoch=raised.epoch)
            in_name_of = client_id or self.client_id
            moved: list[Change] = []
            history, places = await self._starting(account, client, now, inside=inside)
            if mode == "jwt":
                signed_in, record = await self._issue_stateless(account, proof, client, in_name_of, scope, now, binding)
                changes += self._beginning(record.detail, account.subject, history, now + self.policy.access_for)
            else:
                session, token = sessions.start(
                    proof,
                    mode=mode,
                    client=client,
                    client_id=in_name_of,
                    scope=scope,
                    master_key_id=self.master.current.id,
                    now=now,
                    policy=self.policy,
                    binding=None if binding is None else binding.text(),
                )
                changes += [Add(session), *(beside(session) if beside else ())]
                if inside is not None:
                    changes += self._beginning(session.id, account.subject, history, session.expires_at)
                moved = await self.data.moving(visitor, replaced, session)
                record = session_event("session_started", session, client, now, detail=mode)
                signed_in = await self._present(account, session, token.text() if token else "", 0, 0, now)
                signed_in = replace(signed_in, visitor_moved=bool(visitor))
            await self.store.commit(*moved, *changes, *places, *also, Log(record))
            return signed_in

        return await (retried(RACES, "starting a session")(once) if tries_again else once)()

    async def _live(self, session_id: str, now: float, given: Found | None = None) -> Found | None:
        found = given or await self.store.session(session_id)
        return found if found is not None and sessions.is_live(*found, now) else None

    def _binding(self, mode: Mode, client: Client, inside: Session | None) -> Binding | None:
        """Return the key that a sign-in is bound to, if it is."""
        if inside is not None and inside.binding is not None and mode == "hybrid":
            return Binding.parse(inside.binding)
        proved = client.proved
        if mode == "session" or proved is None:
            return None
        if self.policy.device_binding == "off" and not proved.came_with_token:
            return None
        return Binding("confirmed", proved.alg, proved.thumbprint)

    async def _issue_stateless(
        self,
        account: Account,
        verified: Verified,
        client: Client,
        client_id: str,
        scope: str,
        now: float,
        binding: Binding | None,
    ) -> tuple[SignedIn, AuditEvent]:
        bound_to = "" if binding is None else binding.thumbprint
        access, expires_in, token_id = await self._sign(
            account, None, verified, client_id, scope, now, self.policy.access_for, bound_to=bound_to
        )
        record = event(
            "token_issued",
            now=now,
            client=client,
            subject=account.subject,
            actor=account.subject,
            client_id=client_id,
            detail=token_id,
        )
        signed_in = SignedIn(account=account, mode="jwt", access_token=access, expires_in=expires_in, bound_to=bound_to)
        return signed_in, record

    async def _over_the_limit(self, account: Account, leaving: Sequence[Leaving], now: float) -> list[Leaving]:
        """Return what to revoke so that one more session of an account can start. Raises `SessionLimitReached`."""
        if self.policy.max_sessions is None:
            return []
        gone = {each.session.id for each in leaving}
        live = [
            session
            for session in await self.store.sessions_of(account.subject)
            if session.id not in gone and sessions.is_live(session, account, now)
        ]
        over = sessions.to_end_for(live, self.policy)
        if over is None:
            raise SessionLimitReached(f"{len(live)} sessions are live")
        return [Leaving(session, account, "limit", "system") for session in over]

    def _in_turn(self, account: Account) -> list[Change]:
        # The account is swapped although it does not change, so that two sign-ins at once take turns and the second
        # counts the first. A count alone would let both through.
        return [] if self.policy.max_sessions is None else [Swap(account)]

    async def provide(self, subject: str) -> Account:
        """Return the account of a `subject` whose directory is elsewhere. At the first sign-in, create one without an
        address.

        Raises:
            InvalidInput: no token and no header can carry this subject.
        """
        account = await self.store.account(subject)
        if account is None:
            await self.fencing.follow()
            made = external_account(subject, self.clock(), epoch=self.fencing.node.epochs_from)
            with suppress(Conflict):  # another call created it at the same moment
                await self.store.commit(Add(made))
            account = await self.store.account(subject)
        if account is None:
            raise Unavailable("the account vanished while it was made")
        return account

    # Checking

    async def resume(self, token: str, *, in_doubt: bool = False) -> Remembered:
        """Return the session that a cookie's `token` proves: a memory hit or one look-up. `last_seen_at` is written at
        a bounded rate. With `in_doubt`, it is returned also if it must be proved again.

        Raises:
            InvalidToken: the token was not issued here.
            NotAuthenticated: the session or its account was revoked or expired.
            SessionInDoubt: its owner must prove again who they are.
            Unavailable: the store is out of reach. The caller must never treat this as signed out.
        """
        presented = SessionToken.parse(token)
        held = await self.recall(presented.id)
        return self._checked(presented, held, in_doubt=in_doubt)

    def resume_at_once(self, token: str) -> Remembered | None:
        """Do what `resume` does with a `token`, in any thread and without waiting; None if a look-up is needed. Raises
        `InvalidToken`, `NotAuthenticated` and `SessionInDoubt` as `resume` does.
        """
        presented = SessionToken.parse(token)
        held = self.recall_at_once(presented.id)
        return None if held is None else self._checked(presented, held)

    def recall_at_once(self, session_id: str) -> Remembered | None:
        """Return the session of a `session_id` from memory, in any thread; None if a look-up is needed."""
        node = self.fencing.node
        if not self.fencing.is_current() or node.log_epoch != self._log_epoch:
            return None
        return self._remembered.get(session_id, node.log, self.clock())

    def _checked(self, presented: SessionToken, held: Remembered | None, *, in_doubt: bool = False) -> Remembered:
        # An id that was not issued here is unknown and stays unknown: nothing is ever created from what a client sends.
        if held is None or held.session.mode != "session" or not presented.matches(held.session.secret_hash):
            raise InvalidToken("no session has this token")
        sessions.check_live(held.session, held.account, self.clock())
        if not in_doubt and self.must_prove(presented.id):
            raise SessionInDoubt("the session is in doubt")
        return held

    async def recall(self, session_id: str) -> Remembered | None:
        """Return the session of a `session_id` with its account, or None. They come from memory if they were read a
        moment ago and nothing has revoked them since.

        A looked-up session is returned as it is, revoked or not; a remembered one is live.
        """
        if not self.fencing.is_current():
            await self.fencing.follow()
        node = self.fencing.node
        log_epoch = node.log_epoch
        if log_epoch != self._log_epoch:  # after a restore: a remembered session may not exist in the restored store
            self._remembered.forget()
            self._log_epoch = log_epoch
        now = self.clock()
        held = self._remembered.get(session_id, node.log, now) or await self._copied(session_id, log_epoch, now)
        if held is not None:
            return held
        found = await self.store.session(session_id)
        if found is None:
            return None
        session, account = found
        if self.hooks.current is not None and sessions.is_live(session, account, now):
            account = await self._current(account)
        used_before = session.last_seen_at
        if sessions.is_live(session, account, now):
            seen = sessions.touched(session, now, self.policy)
            # Refreshes keep a hybrid session in use; the use of its access token does not prolong it.
            if seen is not None and session.mode == "session":
                # Another call touched, changed or revoked it meanwhile. Drop the update, and never force it: a request
                # that read the session before its revocation must not write it back to life.
                with suppress(Conflict):
                    await self.store.commit(Swap(seen))
                    session = replace(seen, revision=seen.revision + 1)
            if self._copies is not None and self._is_newest(log_epoch):
                self._copies.keep_recent(session, account, now, log_epoch)
        remember = self._is_newest(log_epoch)
        return self._remembered.keep(session, account, now, remember=remember, used_before=used_before)

    async def _current(self, account: Account) -> Account:
        """Return the account of a live session as it is now. Raises `NotAuthenticated` if its user is gone."""
        if self.hooks.current is None:
            return account
        current = await self.hooks.current(account)
        if current is None:
            raise NotAuthenticated("the application has no such user any more")
        return current

    def _is_newest(self, log_epoch: int) -> bool:
        """Return whether no newer log is known. What was read under one log may be revoked under the other."""
        return self.fencing.node.log_epoch == log_epoch and not self.fencing.is_behind()

    async def _copied(self, session_id: str, log_epoch: int, now: float) -> Remembered | None:
        """Return a session that another node has looked up, if its copy is as recent as a remembered one may be; None
        when it has to be looked up.
        """
        copy = None if self._copies is None else await self._copies.recent_session(session_id, log_epoch)
        node = self.fencing.node
        if copy is None or node.log_epoch != log_epoch:
            return None
        session, account, read_at = copy
        if read_at <= self._forgot_at:
            return None
        self._remembered.keep(session, account, read_at)
        return self._remembered.get(session_id, node.log, now)

    async def bearer_of(self, token: str, *, even_ended: bool = False) -> Found:
        """Return the session of a cookie's `token`, and its account; with `even_ended` also a session that was revoked
        or has expired.

        Raises:
            InvalidToken: no session has this token.
            NotAuthenticated: the session was revoked or has expired.
        """
        presented = SessionToken.parse(token)
        found = await self.store.session(presented.id)
        if found is None or found[0].mode != "session" or not presented.matches(found[0].secret_hash):
            raise InvalidToken("no session has this token")
        if not even_ended:
            sessions.check_live(*found, self.clock())
        return found

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

    # Refreshing

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

    async def _check_key(self, session: Session, account: Account, client: Client, now: float) -> None:
        """Let a client refresh a session that is bound, if it has proved the key. Raises `InvalidToken`."""
        proved = client.proved
        if proved is None:
            # A thief who copied the token has no key. It ends nothing: something on the way may drop the header.
            raise DpopRequired("R1: the session is bound to a key, and no proof came")
        if not hmac.compare_digest(proved.thumbprint, session.bound_to):
            await self._end_stolen(session, account, client, now, "another key")
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
                await self._end_stolen(session, account, client, now, rule)
                raise InvalidToken(f"{rule}: two holders of one refresh token")
            case Impossible():
                # A session from before this log began may have been refreshed since, and the store has lost that. Alert
                # only where that is impossible: a key has leaked.
                await self.fencing.follow()
                lost = max(session.rotated_at, session.sibling_at) < self.fencing.node.epochs_from / 1000
                leaving = Leaving(session, account, "lost_in_restore" if lost else "impossible_token")
                changes, _ = await self._ending(account, [leaving], client, actor="system", now=now)
                if not lost:
                    alarm = session_event("refresh_impossible", session, client, now, detail="newer than any issued")
                    changes.append(Log(alarm))
                await self.store.commit(*changes)
                raise InvalidToken("R7: newer than any issued")

    async def _end_stolen(self, session: Session, account: Account, client: Client, now: float, rule: str) -> None:
        if self.policy.theft_ends_all:
            raised = replace(account, epoch=account.epoch + 1)
            changes = [Swap(raised), *self.ending_all(raised, "theft", now)]
        else:
            leaving = Leaving(session, account, "theft")
            changes, _ = await self._ending(account, [leaving], client, actor="system", now=now)
        record = session_event("refresh_theft", session, client, now, detail=rule, outcome="refused")
        await self.store.commit(*changes, Log(record))
        await announce(self.hooks.refresh_theft, account, client)

    async def sight_at_verifier(self, token: str, client: Client) -> None:
        """Look at a use of an access token, `token`, at a service that only verifies. `client` is where it was used,
        as the service reports. That may put the token in doubt, and never ends anything: the service may lie.

        Raises:
            InvalidToken: the token is not valid: the service was not given it.
            SessionInDoubt: it is in doubt, already or from now on.
            Unavailable: the store is out of reach.
        """
        claims, principal = await self._recognised(token, issued=True)
        if principal.bound_to:
            return  # a copy of it is worth nothing
        held = None if claims.sid is None else await self.recall(claims.sid)
        if claims.sid is not None and (held is None or held.session.ended_at is not None):
            raise InvalidToken("its session has ended")
        use = Use(
            claims.sub, None if held is None else held.session, "" if held else claims.jti,
            0.0 if held is None else held.used_before, claims.client_id,
        )  # fmt: skip
        await self.sight(use, client, at_most="step_up")

    # Listing

    async def sessions(self, subject: str) -> list[Session]:
        """Return the live sessions of a `subject`, newest first, among the latest `LISTED`. An unknown subject has
        none.
        """
        account = await self.store.account(subject)
        if account is None:
            return []
        now = self.clock()
        return [s for s in await self.store.sessions_of(subject, limit=LISTED) if sessions.is_live(s, account, now)]

    async def renew(
        self,
        session: Session | None,
        account: Account,
        *,
        raised: Account,
        client: Client,
        client_id: str,
        scope: str = "",
        changes: Sequence[Change],
        amr: tuple[str, ...],
        now: float,
    ) -> SignedIn:
        """Commit changes that raise an account's epoch and revoke its other sessions. This session continues under new
        secrets: whatever was copied from the client before is worthless afterwards.

        Args:
            session: the session that continues; None for a stateless sign-in, which gets a new access token.
            account: the account as it was read.
            raised: the account with its new epoch.
            client: the client that asks. A stateless sign-in that is bound to its key stays so.
            scope: the scope of a stateless sign-in; a session has its own.
            changes: further changes of the same transaction.
            amr: how the owner authenticated (RFC 8176).
            now: the instant of the proof.

        Raises:
            Conflict: the account or the session changed meanwhile. Nothing was written.
        """
        verified = Verified(subject=account.subject, epoch=raised.epoch, amr=amr, at=now)
        if session is None:
            bound_to = "" if client.proved is None else client.proved.thumbprint
            access, expires_in, _ = await self._sign(
                raised, None, verified, client_id, scope, now, self.policy.access_for, bound_to=bound_to
            )
            done = await self.store.commit(*changes)
            return SignedIn(
                account=raised, mode="jwt", access_token=access, expires_in=expires_in, bound_to=bound_to, ended=done
            )
        fresh, token = sessions.renew(session, verified, now)
        done = await self.store.commit(*changes, Swap(fresh))
        signed_in = await self._present(raised, fresh, token.text() if token else "", 0, 0, now)
        return replace(signed_in, ended=done)

    def forget_remembered(self) -> None:
        """Look every session up again: after a change that has no entry in the log."""
        self._remembered.forget()
        self._forgot_at = self.clock()

    # Presenting

    async def _present(
        self,
        account: Account,
        session: Session,
        session_token: str,
        generation: int,
        sibling: int,
        now: float,
        *,
        rotated: bool = True,
    ) -> SignedIn:
        if session.mode == "session":
            return SignedIn(account=account, mode="session", session=session, session_token=session_token)
        master = self.master.get(session.master_key_id)
        if master is None:
            raise InvalidToken("R0: sealed by a master key that is not configured")
        verified = Verified(subject=account.subject, epoch=account.epoch, amr=session.amr, at=session.auth_time)
        lives_for = min(self.policy.access_for, session.expires_at - now)  # no token outlives its session
        access, expires_in, _ = await self._sign(
            account, session.id, verified, session.client_id, session.scope, now, lives_for, bound_to=session.bound_to
        )
        return SignedIn(
            account=account,
            mode="hybrid",
            session=session,
            refresh_token=mint(master, session, generation, sibling),
            access_token=access,
            expires_in=expires_in,
            bound_to=session.bound_to,
            rotated=rotated,
        )

    async def tidy(self) -> int:
        """Delete records that no longer matter; return the number of rows. Any process may call it at any time."""
        now = self.clock()
        keep_from = await events_kept_from(self.store, now, self.policy.max_audit_for)
        return await self.store.purge(before=now - KEPT_FOR, events_before=keep_from)
