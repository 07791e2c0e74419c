"""What an issuer says of a person, and how a flow to it and back is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct

__all__ = ["Flow", "Identity", "Provider"]


class Identity(Struct, frozen=True, kw_only=True):
    """A person, as an issuer names them. `issuer` and `subject` together are the key: an address changes owners."""

    issuer: str
    """The `iss` of the ID token: with many tenants, that of the tenant."""
    subject: str
    """The `sub`: never reassigned within one issuer."""
    email: str = ""
    email_verified: bool = False
    """Whether the issuer says so, by JSON `true` and nothing else."""
    name: str = ""
    sid: str = ""
    """The session at the issuer, for its back-channel log-out."""
    auth_time: float | None = None
    """When the person proved who they are at the issuer, if it says so; seconds since 1970."""
    amr: tuple[str, ...] = ()
    claims: Mapping[str, Any] = {}
    """All claims, for roles."""

    def __repr__(self) -> str:
        return f"Identity(issuer={self.issuer!r})"


class Flow(Struct, frozen=True, kw_only=True):
    """The values of one way to an issuer and back. All but the redirect URI are secret until they are sent."""

    state: str
    nonce: str
    verifier: str
    """The PKCE code verifier (RFC 7636)."""
    redirect_uri: str
    began_at: float
    anew: bool = False
    """Whether the person must prove who they are again (`prompt=login`, `max_age=0`)."""

    def __repr__(self) -> str:
        return "<Flow>"


class Provider(Protocol):
    """Speaks to one issuer. Every verb raises `IssuerUnavailable` if the issuer does not answer as it should."""

    async def way_to(self, flow: Flow) -> str:
        """Return the URL of the issuer's own log-in."""
        ...

    async def identify(self, code: str, flow: Flow, *, iss: str | None) -> Identity:
        """Exchange the code of an answer. `iss` is the parameter of RFC 9207.

        Raises:
            InvalidToken: the answer is not for this flow; the reason says why.
        """
        ...

    async def close(self) -> None: ...
