"""The audit log of one's own account, as its owner may read it: by a person on a page, and by a program as JSON.

An event is about the account, but another person may have acted: an administrator, or a person who signed in with the
same browser. Who that was, from where and on what device is theirs, and not shown. Where no one has proved who they are
(a wrong password, a mailed link that was asked for), the place is shown: the owner must be able to recognise it.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from dutchdoor.errors import InvalidInput
from dutchdoor.model.acting import SYSTEM
from dutchdoor.model.audit_events import AuditEvent, EventName, Outcome
from dutchdoor.model.ids import is_id
from dutchdoor.texts import mark
from dutchdoor.web.api import Call, Route
from dutchdoor.web.http import Response, json_response
from dutchdoor.web.schemas import instant

__all__ = ["PAGE", "REASONS", "ROUTES", "OwnEvent", "events_before", "own_event"]

PAGE = 50
"""Events of a page, and of an answer."""

REASONS = frozenset({
    "deleted", "disabled", "ended_again", "ended_by_admin", "ended_by_application", "ended_by_owner", "expired",
    "impossible_token", "limit", "lost_in_restore", "password_changed", "password_removed", "password_reset",
    "replaced", "suspected", "theft",
    "address not verified", "passkey without verification", "wrong current password", "wrong passkey", "wrong password",
    "wrong recovery_code", "wrong totp",
})  # fmt: skip
"""What an event may say of why a sign-in ended or was refused. Another word is the application's, for its own log."""

By = Literal["you", "administrator", "another", "system", "anyone"]
"""Who acted: the owner; an administrator; another account that signed in with the same browser; the server or the
application by itself; anyone, without a proof."""


class OwnEvent(Struct, frozen=True):
    """An event of the caller's account. `by` says who acted; the place and the device are theirs, "" if not shown."""

    id: str
    at: str
    name: EventName
    outcome: Outcome
    by: By
    session_id: str
    client_id: str
    address: str
    country: str
    device: str
    reason: str
    """Why a sign-in ended, or what was refused; "" for other events."""


class OwnEvents(Struct):
    """`next` is the `before` of the next request; null at the end."""

    events: list[OwnEvent]
    next: str | None


async def events_before(call: Call) -> tuple[list[AuditEvent], str | None]:
    """Return a page of the caller's events, newest first, and the `before` of the next page. Raises `InvalidInput`."""
    before = call.query.get("before", "")
    if before and not is_id(before):
        raise InvalidInput(mark("There is no such event."), field="before")
    subject = call.actor
    found = await call.authority.store.events(subject=subject, before=before, limit=PAGE + 1)
    return found[:PAGE], found[PAGE - 1].id if len(found) > PAGE else None


def own_event(event: AuditEvent) -> OwnEvent:
    """Return an event without what belongs to other people."""
    by = _by(event)
    shown = by in {"you", "anyone"}
    return OwnEvent(
        id=event.id,
        at=instant(event.at),
        name=event.name,
        outcome=event.outcome,
        by=by,
        session_id=event.session_id,
        client_id=event.client_id,
        address=event.address if shown else "",
        country=event.country if shown else "",
        device=event.device if shown else "",
        reason=event.detail if event.detail in REASONS else "",
    )


def _by(event: AuditEvent) -> By:
    if event.actor == event.subject:
        return "you"
    if not event.actor:
        return "anyone"
    if event.actor == SYSTEM:
        return "system"
    # The browser that signs in with another account ends the sign-in that it held.
    return "another" if event.detail == "replaced" else "administrator"


async def list_own_events(call: Call) -> Response:
    found, after = await events_before(call)
    return json_response(200, OwnEvents([own_event(event) for event in found], after))


ROUTES = (
    Route(
        method="GET",
        path="/auth/events",
        handler=list_own_events,
        demands="caller",
        gives=OwnEvents,
        query=("before",),
        summary="The audit log of the caller's account, newest first, 50 at a time.",
    ),
)
