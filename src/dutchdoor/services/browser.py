"""What a client brings to a sign-in: who it is, and what the cookies of a browser hold."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from dutchdoor.model.http_client import Client
from dutchdoor.services.endings import Found

__all__ = ["Browser"]


class Browser(Struct, frozen=True):
    """A client that signs in, and what its cookies hold; "" for what it does not have. A program has none of them."""

    client: Client
    """The client itself, for audit events, limits and the list of sessions."""
    marks: str = ""
    """Its known-device marks."""
    remembered: str = ""
    """What lets it skip the second factor."""
    registrant: str = ""
    """The secret that it keeps from registering, by which it verifies an address."""
    visitor: str = ""
    """The token of its visitor's cookie, whose session data a new session takes over."""
    replacing: Sequence[Found] = ()
    """The sessions that it holds, each with its account: a new one revokes them."""

    def __repr__(self) -> str:
        return "<Browser>"
