"""Registered clients: the applications and services that may introspect tokens or sign people in under their own name.

A client with a secret is confidential (a service that introspects); a client without one is public (a mobile or
command-line application). Only the client that a refresh token was issued to may use it (RFC 6749, section 6).
"""

from __future__ import annotations

from msgspec import Struct

from dutchdoor.model.ids import Opaque

__all__ = ["ClientSecret", "RegisteredClient"]


class ClientSecret(Opaque):
    """The secret of a confidential client. Printed once."""

    __slots__ = ()
    prefix = "ddc1_"


class RegisteredClient(Struct, frozen=True, kw_only=True):
    """`secret_hash` is empty for a public client."""

    id: str
    name: str
    secret_hash: bytes
    created_at: float
    revision: int = 0

    @property
    def confidential(self) -> bool:
        return bool(self.secret_hash)

    def __repr__(self) -> str:
        return f"RegisteredClient(id={self.id!r}, name={self.name!r})"
