"""Verifier keys: a service presents one to follow the revocation log and to introspect tokens, and for nothing else."""

from __future__ import annotations

from msgspec import Struct

from dutchdoor.model.ids import Opaque

__all__ = ["VerifierKey", "VerifierSecret"]


class VerifierSecret(Opaque):
    """The secret that a verifier presents as a bearer token. Printed once."""

    __slots__ = ()
    prefix = "ddv1_"


class VerifierKey(Struct, frozen=True, kw_only=True):
    """One credential for verifiers: all processes of one service share it."""

    id: str
    name: str
    """The unique name of the key in a fence, in the metrics and for the operator."""
    secret_hash: bytes
    created_at: float
    revision: int = 0

    def __repr__(self) -> str:
        return f"VerifierKey(id={self.id!r}, name={self.name!r})"
