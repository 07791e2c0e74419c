"""Registered clients: the applications and services that may ask about tokens or sign people in under a name of their
own.

A client with a secret is confidential (a service that introspects); one without is public (a mobile or command-line
application). A refresh token belongs to the client it was issued to, and to no other (RFC 6749, section 6).
"""

from __future__ import annotations

from msgspec import Struct

from dutchdoor.model.ids import Opaque

__all__ = ["ClientSecret", "RegisteredClient"]


class ClientSecret(Opaque):
    """What a confidential client presents. Printed once."""

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
