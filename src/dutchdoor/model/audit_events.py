"""Audit events: what happened to which account, who did it, from where, and with which outcome.

An event is written in the transaction of the change it records: no change without its event, and no event without its
change. No event holds a secret or a token: a session is named by its public id. An ordinary rotation of a refresh token
is no event (the session's row records it); an unusual one is an event.
"""

from __future__ import annotations

import math
from typing import Self

from msgspec import Struct

from dutchdoor.errors import InvalidInput
from dutchdoor.model.accounts import Account
from dutchdoor.model.audit_entry import AuditEvent, EventName, Outcome
from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import new_ordered_id
from dutchdoor.model.sessions import Session
from dutchdoor.model.unicode_text import shown

__all__ = [
    "AuditCursor",
    "AuditEvent",
    "AuditSearch",
    "EventName",
    "Outcome",
    "account_event",
    "event",
    "session_event",
]


class AuditCursor(Struct, frozen=True):
    """A place in the audit log, in the order in which the log is followed. What is committed later comes after it.

    The times and ids of events do not have that order: a transaction that began earlier may be committed later, and a
    follower that asks for what is newer than the last event would miss it.
    """

    log: str
    """Which audit log: a move into another database, or a move back, begins another one."""
    log_epoch: int
    number: int
    id: str

    def text(self) -> str:
        return f"{self.log}.{self.log_epoch}.{self.number}.{self.id}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `text` wrote. Raises `InvalidInput`."""
        parts = text.split(".", 3) if len(text) <= _CURSOR_AT_MOST else []
        if len(parts) == _CURSOR_PARTS and all(part.isascii() and part.isdigit() for part in parts[1:3]):
            log_epoch, number = int(parts[1]), int(parts[2])
            if max(log_epoch, number) < 2**63:  # a larger number fits no column
                return cls(parts[0], log_epoch, number, parts[3])
        raise InvalidInput("This is no cursor of the audit log.", field="after")

    def must_be_in(self, log: str) -> None:
        """Raise `InvalidInput` unless the cursor is one of this log."""
        if self.log != log:
            message = (
                "This cursor is one of another database: everything was moved since. Begin again without a cursor."
            )
            raise InvalidInput(message, field="after")


_CURSOR_AT_MOST, _CURSOR_PARTS = 128, 4


class AuditSearch(Struct, frozen=True, kw_only=True):
    """Which events someone looks for. An empty value means any."""

    subject: str = ""
    name: str = ""
    outcome: str = ""
    actor: str = ""
    """Who did it: a subject, `system` or `cli`."""
    address: str = ""
    """The address of the client."""
    since: float = 0.0
    until: float = math.inf
    """The instant before which the events happened. Times are in seconds since 1970."""

    def finds(self, event: AuditEvent) -> bool:
        """Whether it finds an event."""
        return (
            (not self.subject or event.subject == self.subject)
            and (not self.name or event.name == self.name)
            and (not self.outcome or event.outcome == self.outcome)
            and (not self.actor or event.actor == self.actor)
            and (not self.address or event.address == self.address)
            and self.since <= event.at < self.until
        )


def event(
    name: EventName,
    *,
    now: float,
    client: Client,
    subject: str = "",
    actor: str = "",
    session_id: str = "",
    client_id: str = "",
    outcome: Outcome = "ok",
    detail: str = "",
) -> AuditEvent:
    return AuditEvent(
        id=new_ordered_id(now),
        at=now,
        name=name,
        outcome=outcome,
        subject=subject,
        actor=actor,
        session_id=session_id,
        client_id=shown(client_id),
        address=client.address,
        country=client.country,
        device=client.device,
        detail=shown(detail[:200]),
    )


def account_event(
    name: EventName, account: Account, client: Client, now: float, *, actor: str = "", detail: str = ""
) -> AuditEvent:
    """Describe what happened to an account, by its owner if there is no other `actor`."""
    return event(name, now=now, client=client, subject=account.subject, actor=actor or account.subject, detail=detail)


def session_event(
    name: EventName,
    session: Session,
    client: Client,
    now: float,
    *,
    detail: str = "",
    actor: str = "",
    outcome: Outcome = "ok",
) -> AuditEvent:
    """Describe what happened to a session, by its owner if there is no other `actor`."""
    return event(
        name,
        now=now,
        client=client,
        subject=session.subject,
        actor=actor or session.subject,
        session_id=session.id,
        client_id=session.client_id,
        detail=detail,
        outcome=outcome,
    )
