"""What an access token says, whatever its format.

`access_token.py` is the format we issue, `jws.py` its signature, `token_cache.py` caches verified tokens, and
`inspect.py` explains a token in words. Encrypted tokens (JWE) are refused: data that a client must not read belongs in
the session.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

from msgspec import Meta, Struct

from dutchdoor.model.principal import Principal

__all__ = ["MAX_TIME", "MAX_TOKEN", "Claims", "Confirmation", "principal_of"]

MAX_TOKEN: Final = 8192
"""Characters. Common servers accept 8 KiB of headers in all, so a longer token cannot have come through one."""
MAX_TIME: Final = 253402300799
"""The last second of the year 9999. A later time is not a date for many libraries, and overflows in some."""

# Kept as int or float: 1800000000 must not be written again as 1800000000.0. The reader bounds it, because an integer
# in JSON may have thousands of digits.
_IN_RANGE: Final = Meta(ge=0, le=MAX_TIME)
Time: TypeAlias = Annotated[int, _IN_RANGE] | Annotated[float, _IN_RANGE]
Epoch: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]


class Confirmation(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The key that a token is bound to (RFC 7800, RFC 9449). Another way to name a key is refused, not passed over."""

    jkt: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{43}$")]
    """Its thumbprint (RFC 7638)."""


class Claims(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The claims of a verified access token (RFC 9068, plus what revocation needs). Times are seconds since 1970.

    The fields are written in this order. Every token of ours has the fields without a default.
    """

    iss: str
    sub: str
    aud: str | tuple[str, ...]
    exp: Time
    iat: Time
    jti: str
    client_id: str
    sid: str | None = None
    """The id of the token's session; None for a stateless token."""
    epoch: Epoch
    """The subject's epoch when the token was issued: a revocation of the subject covers every lower epoch."""
    auth_time: Time | None = None
    amr: tuple[str, ...]
    acr: str = ""
    """How strong the sign-in was (`Principal.acr`); "" where no person signed in."""
    roles: tuple[str, ...]
    scope: str = ""
    nbf: Time | None = None
    cnf: Confirmation | None = None
    """The key whose proof must come with the token; None for a bearer token. Code that reads claims checks this."""
    kid: str = ""
    """The id of the key that signed the token, from its header. A key can be revoked, and all its tokens with it."""
    extra: dict[str, Any] = {}
    """All other claims, as the operator's hook or another issuer wrote them."""


def principal_of(claims: Claims) -> Principal:
    """Return the principal of a request whose token has these claims."""
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
        bound_to="" if claims.cnf is None else claims.cnf.jkt,
        claims=claims.extra,
    )
