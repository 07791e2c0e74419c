"""The page of one account: who it is, where it is signed in, how it proves itself, what happened, what can be done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlencode

from msgspec import Meta

from dutchdoor.credentials.passkey import PASSKEY, facts_of
from dutchdoor.credentials.password import PASSWORD
from dutchdoor.credentials.recovery_code import RECOVERY_CODE
from dutchdoor.credentials.totp import TOTP
from dutchdoor.model.accounts import Credential
from dutchdoor.model.acting import COMMAND, SYSTEM
from dutchdoor.model.audit_events import AuditEvent
from dutchdoor.model.departures import Departure
from dutchdoor.model.factor_removal import removable_at
from dutchdoor.model.sessions import Session
from dutchdoor.model.set_aside import SET_ASIDE, put_back
from dutchdoor.services.identities import IDENTITY
from dutchdoor.stores.base import Revoked
from dutchdoor.texts import mark
from dutchdoor.web.api import Call, Route
from dutchdoor.web.body import Body
from dutchdoor.web.fences import wait_for
from dutchdoor.web.http import Response
from dutchdoor.web.pages.bound import bound_or_why_not
from dutchdoor.web.pages.console.accounts import ACCOUNT_PATH, PATH, shown
from dutchdoor.web.pages.console.frame import Console
from dutchdoor.web.pages.site import CONSOLE_PATH
from dutchdoor.web.schemas import PasskeyId, instant

__all__ = ["routes"]

SESSIONS, EVENTS, FACTORS = 50, 10, 50
"""Rows of each table at most."""

FACTOR_NAMES: Mapping[str, str] = {
    PASSWORD: mark("Password"),
    TOTP: mark("Authenticator app"),
    RECOVERY_CODE: mark("Recovery codes"),
    PASSKEY: mark("Passkey"),
    IDENTITY: mark("Other log-in"),
}
"""What people call the ways to prove who one is."""

Subject = Annotated[str, Meta(max_length=255)]


class Of(Body, frozen=True):
    subject: Subject


class NewRoles(Body, frozen=True):
    subject: Subject
    roles: Annotated[str, Meta(max_length=2200)] = ""
    """Words with spaces between them."""


class OneFactor(Body, frozen=True):
    subject: Subject
    method: Annotated[str, Meta(max_length=32)]
    id: PasskeyId = ""


class OneSession(Body, frozen=True):
    subject: Subject
    session: Annotated[str, Meta(max_length=64)]


class OneIdentity(Body, frozen=True):
    subject: Subject
    id: Annotated[str, Meta(max_length=64)]


def routes(console: Console) -> list[Route]:
    page = AccountPage(console)
    acts = [
        console.act(f"{PATH}/disable", page.disable, body=Of, summary="Disable an account from the console."),
        console.act(f"{PATH}/enable", page.enable, body=Of, summary="Enable an account from the console."),
        console.act(f"{PATH}/reset", page.reset, body=Of, bundled=True, summary="Mail a link to a new password."),
        console.act(
            f"{PATH}/factor", page.remove_factor, body=OneFactor, bundled=True, summary="Remove a second factor."
        ),
        console.act(f"{PATH}/identity", page.unlink, body=OneIdentity, bundled=True, summary="Unlink another log-in."),
        console.act(f"{PATH}/delete", page.delete, body=Of, bundled=True, summary="Delete an account for good."),
        console.act(f"{PATH}/sign-out", page.sign_out, body=Of, summary="End all sign-ins of an account."),
        console.act(f"{PATH}/end", page.end, body=OneSession, summary="End one sign-in of an account."),
    ]
    if not console.pages.own_roles:
        acts.append(console.act(f"{PATH}/roles", page.set_roles, body=NewRoles, summary="Set the roles of an account."))
    return [console.page(ACCOUNT_PATH, page.show, query=("id",), summary="Show an account."), *acts]


class AccountPage:
    """Shows one account. Each of its tables has a bound."""

    def __init__(self, console: Console) -> None:
        self.console = console

    async def show(self, call: Call) -> Response:
        account = await call.account_of(call.query.get("id", "")[:255])
        store = call.authority.store
        sessions = await call.authority.sessions(account.subject)
        factors = await store.select(Credential, subject=account.subject, limit=FACTORS)
        aside = [put_back(each) for each in factors if each.method == SET_ASIDE]
        events = await store.events(subject=account.subject, limit=EVENTS)
        departure = await store.get(Departure, account.subject)
        removable = removable_at(account, factors, call.authority.clock())
        own = call.required.principal
        return self.console.show(
            call,
            "account",
            account={**shown(account), "verified": _instant(account.email_verified_at)},
            leaves="" if departure is None else instant(departure.due_at),
            removable="" if removable is None else instant(removable),
            sessions=[_session(call, each, own.session_id) for each in sessions[:SESSIONS]],
            further=len(sessions) - SESSIONS,
            factors=[
                *[_factor(each) for each in factors if _is_shown(each)],
                *[_factor(each) | {"aside": True} for each in aside if _is_shown(each)],
            ],
            identities=[
                {"id": each.id, "title": each.title, "shown": each.shown, "at": instant(each.linked_at)}
                for each in call.directory.identities.among(factors)
            ],
            events=[_event(each) for each in events],
            log=f"{CONSOLE_PATH}/events?{urlencode({'who': account.subject})}",
            is_oneself=account.subject == own.subject,
            own_roles=self.console.pages.own_roles,
        )

    async def disable(self, call: Call) -> Response:
        done = await call.directory.admin.disable(call.body.subject, **call.by)
        return await self._done(call, "account-disabled", done)

    async def enable(self, call: Call) -> Response:
        await call.directory.admin.enable(call.body.subject, **call.by)
        return await self._done(call, "account-enabled")

    async def set_roles(self, call: Call) -> Response:
        wanted: NewRoles = call.body
        _, done = await call.directory.admin.set_roles(wanted.subject, wanted.roles.split(), **call.by)
        return await self._done(call, "roles-changed", done)

    async def reset(self, call: Call) -> Response:
        account = await call.account_of(call.body.subject)
        await call.directory.recovery.send_reset(account, **call.by)
        return await self._done(call, "reset-mailed")

    async def remove_factor(self, call: Call) -> Response:
        one: OneFactor = call.body
        account = await call.account_of(one.subject)
        await call.directory.factors.remove(account, one.method, one.id, amr=None, **call.by)
        return await self._done(call, "factor-removed")

    async def unlink(self, call: Call) -> Response:
        one: OneIdentity = call.body
        account = await call.account_of(one.subject)
        done = await call.directory.identities.unlink(account, one.id, **call.by)
        return await self._done(call, "identity-unlinked", done)

    async def delete(self, call: Call) -> Response:
        done = await call.directory.deletion.erase(call.body.subject, **call.by)
        return self.console.done(PATH, "account-deleted", await wait_for(call, done))

    async def sign_out(self, call: Call) -> Response:
        done = await call.authority.end_all(
            call.body.subject, **call.by, reason="ended_by_admin", also=call.directory.sign_in.forgetting_devices
        )
        return await self._done(call, "signed-out", done)

    async def end(self, call: Call) -> Response:
        one: OneSession = call.body
        done = await call.authority.end(one.session, **call.by, reason="ended_by_admin", subject=one.subject)
        return await self._done(call, "session-ended", done)

    async def _done(self, call: Call, notice: str, done: Revoked | None = None) -> Response:
        fence = None if done is None else await wait_for(call, done)
        return self.console.done(ACCOUNT_PATH, notice, fence, id=call.body.subject)


def _instant(at: float | None) -> str:
    return "" if at is None else instant(at)


def _is_shown(credential: Credential) -> bool:
    return credential.method in FACTOR_NAMES and credential.method != IDENTITY


def _factor(credential: Credential) -> dict[str, Any]:
    return {
        "words": FACTOR_NAMES[credential.method],
        "name": facts_of(credential).name if credential.method == PASSKEY else "",
        "at": instant(credential.created_at),
        "method": credential.method,
        "id": credential.handle,
        "aside": False,
        "is_second": credential.method not in {PASSWORD, RECOVERY_CODE},
    }


def _session(call: Call, session: Session, own: str | None) -> dict[str, Any]:
    return {
        "id": session.id,
        "current": session.id == own,
        "device": session.device,
        "client": session.client_id,
        "place": " · ".join(filter(None, [session.country, session.address])),
        "created": instant(session.created_at),
        "seen": instant(session.last_seen_at),
        "mode": mark("browser session") if session.mode == "session" else mark("tokens"),
        "bound": bound_or_why_not(call, session),
    }


def _event(event: AuditEvent) -> dict[str, Any]:
    return {
        "name": event.name,
        "outcome": event.outcome,
        "at": instant(event.at),
        "device": event.device,
        "place": " · ".join(filter(None, [event.country, event.address])),
        "detail": event.detail,
        "by_owner": event.actor in {event.subject, ""},
        "actor": event.actor,
        "actor_page": "" if event.actor in {COMMAND, SYSTEM} else f"{ACCOUNT_PATH}?{urlencode({'id': event.actor})}",
    }
