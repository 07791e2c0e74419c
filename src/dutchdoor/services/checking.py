"""Checking: which session a cookie proves, from memory or by one look-up.

A remembered session is judged by the revocation log, as a token is: what the log covers is not returned.
"""

from __future__ import annotations

import math
from contextlib import suppress

from msgspec.structs import replace

from dutchdoor.errors import Conflict, InvalidToken, NotAuthenticated, SessionInDoubt
from dutchdoor.model import sessions
from dutchdoor.model.accounts import Account
from dutchdoor.model.http_client import Client
from dutchdoor.model.sessions import SessionToken
from dutchdoor.services.endings import Found
from dutchdoor.services.lifting import Lifting
from dutchdoor.services.session_cache import Remembered, RememberedSessions
from dutchdoor.services.watching import Use
from dutchdoor.stores.base import Copies, Swap

__all__ = ["Checking"]


class Checking(Lifting):
    """An issuer that checks its sessions, and remembers them for a moment."""

    _remembered: RememberedSessions
    _copies: Copies | None
    _forgot_at = -math.inf
    _log_epoch = 0

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

    def _checked(self, presented: SessionToken, held: Remembered | None, *, in_doubt: bool = False) -> Remembered:
        # An id that was not issued here is unknown and stays unknown: nothing is ever created from what a client sends.
        if held is None or held.session.mode != "session" or not presented.matches(held.session.secret_hash):
            raise InvalidToken("no session has this token")
        sessions.check_live(held.session, held.account, self.clock())
        if not in_doubt and self.must_prove(presented.id):
            raise SessionInDoubt("the session is in doubt")
        return held

    # Looking up

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

    def recall_at_once(self, session_id: str) -> Remembered | None:
        """Return the session of a `session_id` from memory, in any thread; None if a look-up is needed."""
        node = self.fencing.node
        if not self.fencing.is_current() or node.log_epoch != self._log_epoch:
            return None
        return self._remembered.get(session_id, node.log, self.clock())

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

    def _is_newest(self, log_epoch: int) -> bool:
        """Return whether no newer log is known. What was read under one log may be revoked under the other."""
        return self.fencing.node.log_epoch == log_epoch and not self.fencing.is_behind()

    async def _current(self, account: Account) -> Account:
        """Return the account of a live session as it is now. Raises `NotAuthenticated` if its user is gone."""
        if self.hooks.current is None:
            return account
        current = await self.hooks.current(account)
        if current is None:
            raise NotAuthenticated("the application has no such user any more")
        return current

    def look_up_again(self, session_id: str) -> None:
        """Look the session of a `session_id` up again, after a change without an entry in the log. Other nodes see it a
        minute later.
        """
        self._remembered.drop(session_id)

    def forget_remembered(self) -> None:
        """Look every session up again: after a change that has no entry in the log."""
        self._remembered.forget()
        self._forgot_at = self.clock()

    # What else names or uses a session

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
