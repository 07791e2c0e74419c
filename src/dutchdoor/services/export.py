"""Export: all that is known of an account, as its owner may take it away (GDPR, articles 15 and 20).

One document, without any secret: of a credential its kind and its age, of a link that is under way its purpose. What it
may hold is bounded, and it says so when the bound was reached.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct

from dutchdoor.errors import NotFound
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import AuditEvent, account_event
from dutchdoor.model.http_client import Client
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.rate_limits import bucket_of
from dutchdoor.model.session_data import StoredData
from dutchdoor.model.sessions import Session
from dutchdoor.model.sightings import Place, Sightings
from dutchdoor.services.part import Part
from dutchdoor.stores.base import Log

__all__ = ["EVENTS_AT_MOST", "Copy", "Export"]

EVENTS_AT_MOST: Final = 10_000
"""Audit events in one export, some two megabytes: years of ordinary use."""
_PAGE: Final = 500


class Copy(Struct, frozen=True, kw_only=True):
    """All that is known of an account at one moment."""

    at: float
    account: Account
    credentials: tuple[Credential, ...]
    links: tuple[OneTimeToken, ...]
    """Mailed links and sign-ins that wait for their second step."""
    sessions: tuple[Session, ...]
    data: dict[str, Raw]
    """What the application keeps for each live session, by the session's id."""
    places: tuple[Place, ...]
    """From where its sessions were used, coarsely."""
    events: tuple[AuditEvent, ...]
    """The newest first."""
    complete: bool
    """Whether these are all events: there are more than `EVENTS_AT_MOST` otherwise."""

    def __repr__(self) -> str:
        return f"<Copy of {self.account.subject}>"


class Export(Part):
    """Collects what is known of the accounts of one authority."""

    async def collect(self, subject: str, *, client: Client) -> Copy:
        """Return all that is known of the account of a `subject`, for its owner, who has proved recently who they are.
        Otherwise a thief at an open browser could take everything away at once. `client` is the client that asks, for
        the audit event.

        Raises:
            NotFound: there is no such account.
            RateLimited: too many exports of this account.
            Unavailable: the store is out of reach.
        """
        await self.attempts.take([bucket_of(self.attempts.limits.export_by_account, subject)])
        account = await self.store.account(subject)
        if account is None:
            raise NotFound("no such account")
        now = self.clock()
        await self.store.commit(Log(account_event("account_exported", account, client, now)))
        sessions = await self.authority.sessions(subject)
        live = {session.id for session in sessions}
        data = [each for each in await self.store.select(StoredData, subject=subject) if each.id in live]
        events: list[AuditEvent] = []
        while len(events) < EVENTS_AT_MOST:
            last = events[-1].id if events else ""
            page = await self.store.events(subject=subject, before=last, limit=_PAGE)
            events += page
            if len(page) < _PAGE:
                break
        histories = [each.read() for each in await self.store.select(Sightings, subject=subject, limit=_PAGE)]
        return Copy(
            at=now,
            account=account,
            credentials=tuple(await self.store.select(Credential, subject=subject)),
            links=tuple(await self.store.select(OneTimeToken, subject=subject)),
            sessions=tuple(sessions),
            data={each.id: msgspec.Raw(each.data.encode()) for each in data},
            places=tuple(place for history in histories if history is not None for place in history.places),
            events=tuple(events),
            complete=len(events) < EVENTS_AT_MOST,
        )
