"""Caches recent session look-ups: the next request with a session costs a memory hit, and revocation still works at
once.

A remembered session is judged like an access token: at every hit, by the clock and by the revocation log. It is used
for at most `REMEMBERED_FOR` after its read began, and for seconds while its browser may still bind it. Every operation
that revokes a session, disables an account or changes its roles writes an entry that covers what was read before it.
Changes without an entry (another name, a verified address, a later expiry, another result of the `claims` hook) show
after that time at the latest. A session that seems idle too long is looked up again before it is refused.

There are two generations, as in `jose/token_cache.py`: a hit moves a session to the young one, and the old one is
dropped as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from dutchdoor.model.accounts import Account
from dutchdoor.model.principal import Principal
from dutchdoor.model.sessions import Session, is_live, principal_of
from dutchdoor.revocation.log import Named, RevocationLog
from dutchdoor.stores.base import REMEMBERED_FOR

__all__ = ["GENERATION", "Remembered", "RememberedSessions"]

GENERATION = 1024
"""Sessions in a generation, at about 2 kB each."""


class Remembered(Struct, frozen=True, kw_only=True):
    """A session and its account as they were read together."""

    session: Session
    account: Account
    principal: Principal
    named: Named
    read_at: float
    kept_for: float
    """Seconds for which it is used after the read began."""
    used_before: float
    """When the session was used before this read, as far as the store knows."""


class RememberedSessions:
    """A bounded memory of sessions, for one process."""

    __slots__ = ("_claims_of", "_kept_for", "_old", "_young")

    def __init__(
        self,
        claims_of: Callable[[Account, str], Mapping[str, Any]] = lambda _account, _session_id: {},
        kept_for: Callable[[Session, float], float] = lambda _session, _read_at: REMEMBERED_FOR,
    ) -> None:
        """`claims_of` returns what the `claims` hook adds. It is called once for each read of a live session.
        `kept_for` returns for how many seconds at most a session is used that was read at a time.
        """
        self._claims_of, self._kept_for = claims_of, kept_for
        self._young: dict[str, Remembered] = {}
        self._old: dict[str, Remembered] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, session_id: str, log: RevocationLog, now: float) -> Remembered | None:
        """Return a session that is still valid by everything known here, or None when it has to be looked up."""
        held = self._young.get(session_id) or self._old.get(session_id)
        if held is None or not 0 <= now - held.read_at < held.kept_for:
            return None
        if log.covers(held.named) or not is_live(held.session, held.account, now):
            return None
        return held

    def keep(
        self,
        session: Session,
        account: Account,
        read_at: float,
        *,
        remember: bool = True,
        used_before: float | None = None,
    ) -> Remembered:
        """Remember what was read; `read_at` is from before the read began, and `used_before` when the session was used
        before that, if it was used since its row says so. Without `remember`, it is for this request only.
        """
        # The account's epoch at this read, not the session's own at its start: a change of roles leaves sessions valid,
        # and what was read after it needs no second look-up.
        named = Named(session.subject, account.epoch, session.id, "", session.client_id, "")
        # One that was revoked is refused: its owner may be gone, and the hook need not know them.
        asks = self._claims_of if is_live(session, account, read_at) else None
        claims = {} if asks is None else asks(account, session.id)
        held = Remembered(
            session=session,
            account=account,
            principal=principal_of(session, account, claims),
            named=named,
            read_at=read_at,
            kept_for=self._kept_for(session, read_at),
            used_before=session.last_seen_at if used_before is None else used_before,
        )
        if remember:
            if len(self._young) >= GENERATION:
                self._young, self._old = {}, self._young
            self._young[session.id] = held
        return held

    def drop(self, session_id: str) -> None:
        """Forget one session."""
        self._young.pop(session_id, None)
        self._old.pop(session_id, None)

    def forget(self) -> None:
        """Forget everything."""
        self._young, self._old = {}, {}
