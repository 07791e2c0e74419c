"""Presenting: what a sign-in or a refresh hands to the client, once its rows are written."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.errors import InvalidToken
from dutchdoor.model import sessions
from dutchdoor.model.accounts import Account
from dutchdoor.model.policy import Mode
from dutchdoor.model.principal import Verified
from dutchdoor.model.refresh_tokens import mint
from dutchdoor.model.sessions import Session
from dutchdoor.services.checking import Checking
from dutchdoor.services.ongoing import Ongoing
from dutchdoor.stores.base import Change, Revoked, Swap

__all__ = ["Presenting", "SignedIn"]


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


class Presenting(Checking):
    """An issuer that presents a session as a cookie, or as a refresh token and an access token."""

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

    async def renew(
        self,
        ongoing: Ongoing,
        *,
        raised: Account,
        changes: Sequence[Change],
        amr: tuple[str, ...],
        now: float,
    ) -> SignedIn:
        """Commit changes that raise an account's epoch and revoke its other sessions. This session continues under new
        secrets: whatever was copied from the client before is worthless afterwards. A stateless sign-in gets a new
        access token, which is bound to the client's key as before.

        Args:
            ongoing: the sign-in that continues.
            raised: the account with its new epoch.
            changes: further changes of the same transaction.
            amr: how the owner authenticated (RFC 8176).
            now: the instant of the proof.

        Raises:
            Conflict: the account or the session changed meanwhile. Nothing was written.
        """
        verified = Verified(subject=raised.subject, epoch=raised.epoch, amr=amr, at=now)
        if ongoing.session is None:
            proved, lives_for = ongoing.client.proved, self.policy.access_for
            bound_to = "" if proved is None else proved.thumbprint
            access, expires_in, _ = await self._sign(
                raised, None, verified, ongoing.client_id, ongoing.scope, now, lives_for, bound_to=bound_to
            )
            done = await self.store.commit(*changes)
            return SignedIn(
                account=raised, mode="jwt", access_token=access, expires_in=expires_in, bound_to=bound_to, ended=done
            )
        fresh, token = sessions.renew(ongoing.session, verified, now)
        done = await self.store.commit(*changes, Swap(fresh))
        signed_in = await self._present(raised, fresh, token.text() if token else "", 0, 0, now)
        return replace(signed_in, ended=done)
