"""Access tokens, one file a format. This file holds what all formats have in common: what a token says, and how it is
asked.

`jwt.py` is the format we issue, with its parts `jws.py` (the signature), `cache.py` (tokens already verified) and
`inspect.py` (the findings, in words). `jwe.py` wraps any of them for operators who must hide claims from the client.
"""

from __future__ import annotations

from typing import Any, Protocol

from msgspec import Struct

__all__ = ["Claims", "TokenVerifier"]


class Claims(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a verified access token says (RFC 9068, and what revocation needs). Times are seconds since 1970.

    The order of the fields is the order in which they are written. Fields without a default are in every token of ours.
    """

    iss: str
    sub: str
    aud: str | tuple[str, ...]
    exp: int | float
    iat: int | float
    jti: str
    client_id: str
    sid: str | None = None
    """The session it speaks for; None for a stateless token."""
    epoch: int
    """The subject's epoch when it was issued: a revocation of the subject covers every lower one."""
    auth_time: int | float | None = None
    amr: tuple[str, ...]
    roles: tuple[str, ...]
    scope: str = ""
    nbf: int | float | None = None
    kid: str = ""
    """The key that signed it, from its header. A key can be revoked as a whole."""
    extra: dict[str, Any] = {}
    """What else is in it, as the operator's hook or another issuer wrote it."""

    @property
    def audiences(self) -> tuple[str, ...]:
        return (self.aud,) if isinstance(self.aud, str) else self.aud

    @property
    def scopes(self) -> frozenset[str]:
        return frozenset(self.scope.split())


class TokenVerifier(Protocol):
    """Takes a token to the claims it proves, or refuses it.

    Law: a verifier does no I/O. It gives claims only for a token whose signature, type, issuer, audience and times hold
    at `now` (seconds since 1970); without `now` it reads the clock it was made with. For anything else, whatever it is,
    it raises `InvalidToken` and nothing but it.
    """

    def __call__(self, token: str | bytes, *, now: float | None = None) -> Claims: ...
