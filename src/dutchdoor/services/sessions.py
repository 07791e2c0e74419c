"""The authority: the side that starts, checks and refreshes sign-ins. `Verifier` is the other side, which only checks.

Each verb works the same way: load the records, decide with a pure function that takes `now`, commit everything the
decision asks for as one transaction, and answer. A verb that lost a race is tried again from its first line (`retry`).
An authority has layers, a file each: `tokens` has its keys and access tokens, `endings` revokes, `watching` looks at
how sessions are used, `lifting` lets a browser answer for its own, `checking` finds the session of a cookie,
`presenting` hands out what proves one, `starting` starts it, and `refreshing` keeps it. This file puts them together
over a store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dutchdoor.model.device_binding import ON_THE_WAY, may_be_bound_soon
from dutchdoor.model.master_key import MasterKeys
from dutchdoor.model.policy import STANDARD, Policy
from dutchdoor.model.sessions import Session, is_live
from dutchdoor.revocation.lease import Terms
from dutchdoor.services.hooks import Hooks
from dutchdoor.services.refreshing import Refreshing
from dutchdoor.services.retention import events_kept_from
from dutchdoor.services.seen_lately import SeenLately
from dutchdoor.services.session_cache import RememberedSessions
from dutchdoor.services.session_data import DataVerbs
from dutchdoor.stores.base import REMEMBERED_FOR, Copies, Store

__all__ = ["LISTED", "Authority"]

KEPT_FOR = 600.0
"""Seconds for which expired records are kept: twice the largest allowed difference between two wall clocks."""

LISTED = 500
"""Sessions of one account that are listed at once. An account has more only on purpose, and a list of all of them would
delay every other caller.
"""


class Authority(Refreshing):
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
        self._remembered, self._copies = RememberedSessions(self.claims_of, self._kept_for), copies
        self.seen_lately = SeenLately()

    def _kept_for(self, session: Session, read_at: float) -> float:
        """Return for how many seconds a session is remembered."""
        return ON_THE_WAY if may_be_bound_soon(session, self.policy.device_binding, read_at) else REMEMBERED_FOR

    async def sessions(self, subject: str) -> list[Session]:
        """Return the live sessions of a `subject`, newest first, among the latest `LISTED`. An unknown subject has
        none.
        """
        account = await self.store.account(subject)
        if account is None:
            return []
        now = self.clock()
        return [s for s in await self.store.sessions_of(subject, limit=LISTED) if is_live(s, account, now)]

    async def tidy(self) -> int:
        """Delete records that no longer matter; return the number of rows. Any process may call it at any time."""
        now = self.clock()
        keep_from = await events_kept_from(self.store, now, self.policy.max_audit_for)
        return await self.store.purge(before=now - KEPT_FOR, events_before=keep_from)
