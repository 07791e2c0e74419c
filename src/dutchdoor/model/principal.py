"""Who a request is, and the proof that starts a session."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

__all__ = ["Principal", "Verified"]


class Verified(Struct, frozen=True, kw_only=True):
    """Outcome of a proof. Only a credential verifier makes one, and only a Verified can start a session.

    `epoch` was read together with the credential and is never read again: a session started from it is refused if the
    account's epoch has risen since, so that a log-in that overlaps a password change does not survive it.
    """

    subject: str
    epoch: int
    amr: tuple[str, ...]
    """How (RFC 8176): `pwd`, `otp`, ..."""
    at: float


class Principal(Struct, frozen=True, kw_only=True):
    """Who this request is, whichever way it was proved. The one type application code sees."""

    subject: str
    method: Literal["session", "access_token"]
    session_id: str | None
    """None for a stateless token."""
    client_id: str
    roles: tuple[str, ...]
    scope: str
    auth_time: float
    amr: tuple[str, ...]
    expires_at: float
    """When this proof ends by itself: the session's next expiry, or the token's `exp`."""
    email: str | None = None
    name: str = ""
    token_id: str = ""
    """Of an access token (`jti`)."""

    def has_role(self, role: str) -> bool:
        return role in self.roles
