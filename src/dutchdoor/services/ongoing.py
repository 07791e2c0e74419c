"""A sign-in that goes on: inside of it, its owner proves again who they are, or adds a second factor."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.errors import NotAuthenticated
from dutchdoor.model.accounts import Account
from dutchdoor.model.http_client import Client
from dutchdoor.model.sessions import Session
from dutchdoor.stores.base import Store

__all__ = ["Ongoing", "as_now"]


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


async def as_now(store: Store, ongoing: Ongoing) -> Ongoing:
    """Return a sign-in with its rows as they are now. Raises `NotAuthenticated` if the session or the account was
    revoked meanwhile.
    """
    session = ongoing.session
    if session is not None:
        found = await store.session(session.id)
        if found is None or found[0].ended_at is not None:
            raise NotAuthenticated("the session ended meanwhile")
        session = found[0]
    account = await store.account(ongoing.account.subject)
    if account is None or not account.active:
        raise NotAuthenticated("the account ended meanwhile")
    return replace(ongoing, account=account, session=session)
