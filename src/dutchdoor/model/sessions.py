"""Sessions: one sign-in on one client, the server-side record behind a cookie or a refresh token.

Everything here is a decision: it takes the records read and `now`, and returns what to write. Nothing is read or
written here. Identifiers follow the OWASP session management guide: we create a new id at every sign-in, and never
adopt an id we did not create.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.errors import NotAuthenticated
from dutchdoor.model.accounts import Account
from dutchdoor.model.bindings import Binding
from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import Opaque, new_ordered_id
from dutchdoor.model.policy import Policy
from dutchdoor.model.principal import Principal, Verified

__all__ = [
    "Session",
    "SessionToken",
    "check_live",
    "is_live",
    "principal_of",
    "prolonged",
    "renew",
    "start",
    "to_end_for",
    "touched",
]


class Session(Struct, frozen=True, kw_only=True):
    """One sign-in on one client. Instants are seconds since 1970 UTC; the store assigns `revision`."""

    id: str
    subject: str
    mode: Literal["session", "hybrid"]
    client_id: str
    scope: str
    secret_hash: bytes
    """The SessionToken's hash; empty in the hybrid mode, whose tokens are derived from `salt`."""
    salt: bytes
    master_key_id: bytes
    epoch: int
    """The subject's epoch when the proof was read."""
    amr: tuple[str, ...]
    auth_time: float
    created_at: float
    last_seen_at: float
    idle_expires_at: float
    expires_at: float
    generation: int = 0
    sibling: int = 0
    parent_sibling: int = -1
    rotated_at: float = 0.0
    sibling_at: float = 0.0
    fingerprint: str
    device: str
    address: str
    country: str
    ended_at: float | None = None
    end_reason: str = ""
    binding: str | None = None
    """The key of the client that the session is bound to, as `Binding` writes it; None for none."""
    browser_key: str | None = None
    """The public key that the browser's script brought to the sign-in, as `jose/browser_key.py` reads it; None for
    none. No use of the session needs it."""
    revision: int = 0

    @property
    def bound_to(self) -> str:
        """The thumbprint of the key whose proof must come with each token (DPoP); "" if none must."""
        binding = None if self.binding is None else Binding.parse(self.binding)
        if binding is None or binding.state != "confirmed" or binding.is_of_browser:
            return ""
        return binding.thumbprint

    @property
    def bound_key(self) -> str:
        """The thumbprint of the key that every use of the session needs, of a program or a browser; "" for none."""
        binding = None if self.binding is None else Binding.parse(self.binding)
        return binding.thumbprint if binding is not None and binding.state == "confirmed" else ""

    @property
    def known_as(self) -> str:
        """The id by which a browser knows the key of this session: that of the session in which it registered it."""
        binding = None if self.binding is None else Binding.parse(self.binding)
        return self.id if binding is None else binding.known_as or self.id

    @property
    def proved_at(self) -> float:
        """When its owner last signed in, or proved again who they are, in seconds since 1970."""
        return max(self.created_at, self.auth_time)

    def __repr__(self) -> str:
        return f"Session(id={self.id!r}, subject={self.subject!r}, mode={self.mode!r})"


class SessionToken(Opaque):
    """The content of a browser's cookie: session id and secret, 53 characters."""

    __slots__ = ()
    prefix = "dds1_"


def start(
    verified: Verified,
    *,
    mode: Literal["session", "hybrid"],
    client: Client,
    client_id: str,
    scope: str,
    master_key_id: bytes,
    now: float,
    policy: Policy,
    binding: str | None = None,
    browser_key: str | None = None,
) -> tuple[Session, SessionToken | None]:
    """Start a session from a proof. In the session mode, only the returned token holds the secret."""
    session_id = new_ordered_id(now)
    token = SessionToken.mint(session_id) if mode == "session" else None
    return (
        Session(
            id=session_id,
            subject=verified.subject,
            mode=mode,
            client_id=client_id,
            scope=scope,
            secret_hash=token.hash() if token else b"",
            salt=b"" if token else secrets.token_bytes(16),
            master_key_id=b"" if token else master_key_id,
            epoch=verified.epoch,
            amr=verified.amr,
            auth_time=verified.at,
            created_at=now,
            last_seen_at=now,
            idle_expires_at=min(now + policy.idle_for, now + policy.absolute_for),
            expires_at=now + policy.absolute_for,
            rotated_at=now,
            sibling_at=now,
            fingerprint=client.fingerprint,
            device=client.device,
            address=client.address,
            country=client.country,
            binding=binding,
            browser_key=browser_key,
        ),
        token,
    )


def renew(session: Session, verified: Verified, now: float) -> tuple[Session, SessionToken | None]:
    """Return a session with new secrets after a new proof. Its public id stays; every earlier token is invalid.

    The salt changes too: otherwise a thief's copy of the last refresh token would be the parent of the new one.
    """
    token = SessionToken.mint(session.id) if session.mode == "session" else None
    renewed = replace(
        session,
        secret_hash=token.hash() if token else b"",
        salt=b"" if token else secrets.token_bytes(16),
        epoch=verified.epoch,
        amr=verified.amr,
        auth_time=verified.at,
        generation=0,
        sibling=0,
        parent_sibling=-1,
        rotated_at=now,
        sibling_at=now,
    )
    return renewed, token


def is_live(session: Session, account: Account, now: float) -> bool:
    return session.ended_at is None and now < session.idle_expires_at and now < session.expires_at and account.active


def check_live(session: Session, account: Account, now: float) -> None:
    """Raises `NotAuthenticated` unless the session is live and its account may sign in; the reason is for the log."""
    if session.ended_at is not None:
        raise NotAuthenticated(f"session ended: {session.end_reason}")
    if now >= session.expires_at:
        raise NotAuthenticated("session reached its absolute expiry")
    if now >= session.idle_expires_at:
        raise NotAuthenticated("session was idle too long")
    if not account.active:
        raise NotAuthenticated("account is disabled")


def prolonged(session: Session, now: float, policy: Policy) -> Session:
    """Return a session with the life that the policy gives it, after something has cut that short."""
    expires_at = session.created_at + policy.absolute_for
    return replace(session, expires_at=expires_at, idle_expires_at=min(now + policy.idle_for, expires_at))


def touched(session: Session, now: float, policy: Policy) -> Session | None:
    """Return the session as seen now, or None if `last_seen_at` is recent enough."""
    if now - session.last_seen_at < policy.touch_every:
        return None
    return replace(session, last_seen_at=now, idle_expires_at=min(now + policy.idle_for, session.expires_at))


def to_end_for(live: list[Session], policy: Policy) -> list[Session] | None:
    """Return the live sessions that one more sign-in revokes: none or the least recently used; None refuses the
    sign-in.
    """
    if policy.max_sessions is None or len(live) < policy.max_sessions:
        return []
    if policy.at_limit == "refuse":
        return None
    by_use = sorted(live, key=lambda s: (s.last_seen_at, s.id))
    return by_use[: len(live) - policy.max_sessions + 1]


def principal_of(session: Session, account: Account, claims: Mapping[str, Any]) -> Principal:
    return Principal(
        subject=session.subject,
        method="session",
        session_id=session.id,
        client_id=session.client_id,
        roles=account.roles,
        scope=session.scope,
        auth_time=session.auth_time,
        amr=session.amr,
        expires_at=min(session.idle_expires_at, session.expires_at),
        email=account.address,
        name=account.name,
        bound_to=session.bound_key,
        claims=claims,
    )
