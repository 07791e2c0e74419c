"""A sign-in that goes on: inside of it, its owner proves again who they are, or adds a second factor."""

from __future__ import annotations

from msgspec import Struct

from dutchdoor.model.accounts import Account
from dutchdoor.model.http_client import Client
from dutchdoor.model.sessions import Session

__all__ = ["Ongoing"]


class Ongoing(Struct, frozen=True):
    """A sign-in, and the client that asks inside of it."""

    account: Account
    """Its owner."""
    session: Session | None
    """The session; None for a stateless sign-in."""
    client: Client
    client_id: str
    """The registered client that it belongs to."""
    held: tuple[str, ...] = ()
    """What it has proved so far (`amr`), which stays true of it."""
    scope: str = ""
    in_doubt: bool = False
    """Whether it is refused until its owner proves again who they are."""

    def __repr__(self) -> str:
        return f"Ongoing(subject={self.account.subject!r})"
