"""Access tokens, one file a format. This file holds what all formats have in common: what a token says, and how it is
asked.

`jwt.py` is the format we issue, with its parts `jws.py` (the signature), `cache.py` (tokens already verified) and
`inspect.py` (the findings, in words). Encrypted tokens (JWE) are refused: what a client must not read belongs in the
session.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

from msgspec import Meta, Struct

from dutchdoor.model.principal import Principal

__all__ = ["MAX_TIME", "MAX_TOKEN", "Claims", "principal_of"]

MAX_TOKEN: Final = 8192
"""Characters. Common servers take 8 KiB of headers in all; what is longer never came through one."""
MAX_TIME: Final = 253402300799
"""The last second of the year 9999. What lies beyond is no date, and overflows somewhere."""

# As written: 1800000000 must not become 1800000000.0 when it is written again. Bounded where it is read, because an
# integer in JSON may have thousands of digits.
_IN_RANGE: Final = Meta(ge=0, le=MAX_TIME)
Time: TypeAlias = Annotated[int, _IN_RANGE] | Annotated[float, _IN_RANGE]
Epoch: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]


class Claims(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a verified access token says (RFC 9068, and what revocation needs). Times are seconds since 1970.

    The order of the fields is the order in which they are written. Fields without a default are in every token of ours.
    """

    iss: str
    sub: str
    aud: str | tuple[str, ...]
    exp: Time
    iat: Time
    jti: str
    client_id: str
    sid: str | None = None
    """The session it speaks for; None for a stateless token."""
    epoch: Epoch
    """The subject's epoch when it was issued: a revocation of the subject covers every lower one."""
    auth_time: Time | None = None
    amr: tuple[str, ...]
    roles: tuple[str, ...]
    scope: str = ""
    nbf: Time | None = None
    kid: str = ""
    """The key that signed it, from its header. A key can be revoked as a whole."""
    extra: dict[str, Any] = {}
    """What else is in it, as the operator's hook or another issuer wrote it."""

    @property
    def audiences(self) -> tuple[str, ...]:
        return (self.aud,) if isinstance(self.aud, str) else self.aud


def principal_of(claims: Claims) -> Principal:
    """Give who a request is that brought a token with these claims."""
    return Principal(
        subject=claims.sub,
        method="access_token",
        session_id=claims.sid,
        client_id=claims.client_id,
        roles=claims.roles,
        scope=claims.scope,
        auth_time=claims.iat if claims.auth_time is None else claims.auth_time,
        amr=claims.amr,
        expires_at=claims.exp,
        token_id=claims.jti,
    )
