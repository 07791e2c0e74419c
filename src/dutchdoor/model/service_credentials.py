"""Credentials of programs: registered clients and verifier keys. Each has a name for people, and the hash of a secret.

A registered client is an application or service that may introspect tokens or sign people in under its own name. With a
secret it is confidential (a service that introspects); without one it is public (a mobile or command-line application).
Only the client that a refresh token was issued to may use it (RFC 6749, section 6).

With a verifier key, a service may follow the revocation log and introspect tokens, and nothing else.
"""

from __future__ import annotations

from msgspec import Struct

from dutchdoor.model.ids import Opaque

__all__ = ["ClientSecret", "RegisteredClient", "VerifierKey", "VerifierSecret"]


class ClientSecret(Opaque):
    """The secret of a confidential client. Printed once."""

    __slots__ = ()
    prefix = "ddc1_"


class VerifierSecret(Opaque):
    """The secret that a verifier presents as a bearer token. Printed once."""

    __slots__ = ()
    prefix = "ddv1_"


class _ServiceCredential(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    secret_hash: bytes
    created_at: float
    revision: int = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, name={self.name!r})"


class RegisteredClient(_ServiceCredential, frozen=True, kw_only=True):
    """`secret_hash` is empty for a public client."""

    @property
    def confidential(self) -> bool:
        return bool(self.secret_hash)


class VerifierKey(_ServiceCredential, frozen=True, kw_only=True):
    """One credential for verifiers: all processes of one service share it. Its `name` is unique: it names the key in a
    fence, in the metrics and for the operator.
    """
