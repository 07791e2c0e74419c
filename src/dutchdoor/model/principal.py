"""Who a request is, and the proof that starts a session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Struct

from dutchdoor.errors import Misconfigured

__all__ = ["FromProof", "Principal", "Verified", "assurance_of", "factors_of"]

# The kinds of proof: what one knows, has, or is. Two methods of one kind are one factor (NIST SP 800-63B-4, 2.2).
# `fed` is another issuer's word. It counts as a password: that may be all it saw.
_KIND = {
    # A mailed code (`mca`) proves the mailbox, which also opens the way to a new password: it stands in for the
    # password, and is no second kind beside it.
    **dict.fromkeys(("pwd", "pin", "kba", "fed", "mca"), "known"),
    **dict.fromkeys(("otp", "hwk", "swk", "sms", "tel", "sc", "pop"), "held"),
    **dict.fromkeys(("face", "fpt", "iris", "retina", "vbm"), "inherent"),
}


class Verified(Struct, frozen=True, kw_only=True):
    """Outcome of a proof. Only the check of a credential creates a Verified, and only a Verified can start a session.

    `epoch` was read together with the credential and is never read again. A session start is refused if the account's
    epoch has risen since: a log-in that overlaps a password change must not survive the change.
    """

    subject: str
    """The subject of the account."""
    epoch: int
    """The account's epoch, as it was read together with the credential."""
    amr: tuple[str, ...]
    """The methods (RFC 8176): `pwd`, `otp`, ..."""
    at: float
    """The instant of the proof, in seconds since 1970."""


class FromProof:
    """Stands in the annotation of a first field. FastAPI reads it where the class is a dependency itself (`Depends()`).
    It would fill the fields with values of the query: a caller could be anyone.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: object) -> Any:
        raise Misconfigured(
            "User and Principal are no dependencies: each caller could write one into the query. Write "
            "user: CurrentUser, or principal: CurrentPrincipal, without Depends."
        )


class Principal(Struct, frozen=True, kw_only=True):
    """Who makes this request, in every mode. The one type that application code sees."""

    subject: Annotated[str, FromProof]
    """The opaque name of the account (`sub`): what an application stores."""
    method: Literal["session", "access_token"]
    """Whether a session cookie or an access token proved it."""
    session_id: str | None
    """None for a stateless token."""
    client_id: str
    """The registered client that the sign-in belongs to."""
    roles: tuple[str, ...]
    """The account's roles: current for a session, those of the last refresh for a token."""
    scope: str
    """The scope of the sign-in, words with spaces between them (RFC 6749); "" for none."""
    auth_time: float
    """The instant of that proof, in seconds since 1970."""
    amr: tuple[str, ...]
    """How the owner proved themselves at sign-in (RFC 8176): `pwd`, `otp`, ..."""
    expires_at: float
    """When this proof expires: the session's next expiry, or the token's `exp`."""
    email: str | None = None
    """The address, where a session proved it; else None."""
    name: str = ""
    """The name people see, where a session proved it; else ""."""
    token_id: str = ""
    """The id of an access token (`jti`)."""
    bound_to: str = ""
    """The thumbprint (RFC 7638) of the client's key, without which the proof is worth nothing; "" for a bearer token or
    cookie, of which a copy is worth as much.
    """
    claims: Mapping[str, Any] = {}
    """What the `claims` hook adds, as JSON gives it back; in a token, every claim that has no field here. Requests
    share it: do not change it.
    """

    def __hash__(self) -> int:  # a mapping has none
        return hash((self.subject, self.method, self.session_id, self.token_id, self.roles, self.auth_time))

    @property
    def acr(self) -> str:
        """How strong the sign-in was (NIST SP 800-63B): "aal2" for two kinds of proof, else "aal1"."""
        return assurance_of(self.amr)

    def has_role(self, role: str) -> bool:
        """Return whether the account has a `role`."""
        return role in self.roles


def factors_of(amr: tuple[str, ...]) -> int:
    """Count the kinds of proof in the methods of a sign-in (RFC 8176)."""
    kinds = {_KIND[method] for method in amr if method in _KIND}
    return max(len(kinds), 2 if "mfa" in amr else 0)


def assurance_of(amr: tuple[str, ...]) -> str:
    """Return the authenticator assurance level of a sign-in by these methods (RFC 8176)."""
    return "aal2" if factors_of(amr) > 1 else "aal1"
