"""The page of one's own sign-ins: which browsers and programs are signed in, and buttons that end them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from dutchdoor.errors import InvalidInput
from dutchdoor.model.service_credentials import RegisteredClient
from dutchdoor.model.sessions import Session
from dutchdoor.services.sessions import LISTED
from dutchdoor.texts import mark
from dutchdoor.web.api import Call, Route
from dutchdoor.web.body import Body
from dutchdoor.web.fences import fence
from dutchdoor.web.http import Response
from dutchdoor.web.pages.bound import bound_or_why_not
from dutchdoor.web.pages.forms import OwnForm
from dutchdoor.web.pages.in_force import in_force
from dutchdoor.web.pages.site import DEVICES_PATH, Pages
from dutchdoor.web.schemas import Text

__all__ = ["routes"]

OTHERS = "others"
PAGE = 50
"""Sign-ins that one page lists."""

MODES: Mapping[str, str] = {
    "session": mark("browser"),
    "hybrid": mark("application with tokens"),
}
ENDED = "session_ended"
SAID = {ENDED: mark("Ended.")}


class Ended(Body, frozen=True):
    session: Text
    """The id of a session, or `others`: all but the one that asks."""


def routes(pages: Pages) -> list[Route]:
    page = DevicesPage(pages)
    own = partial(Route, path=DEVICES_PATH, demands="caller", by_refresh_cookie=True, unproven=pages.to_sign_in)
    return [
        own(method="GET", handler=page.show, query=("done", "page"), summary="Show where the account is signed in."),
        own(method="POST", handler=page.end, body=Ended, page=page, summary="End sessions from the page."),
    ]


class DevicesPage(OwnForm):
    """Shows the sessions of the account, and ends the one that a button stands beside."""

    takes = ("session",)

    async def show(self, call: Call) -> Response:
        principal = call.required.principal
        live = await call.authority.sessions(principal.subject)
        live.sort(key=lambda each: (each.id != principal.session_id, -each.last_seen_at))  # this one first
        pages = max(1, -(-len(live) // PAGE))
        number = _number(call.query.get("page", "1"), pages)
        shown = live[(number - 1) * PAGE : number * PAGE]
        names = await _names(call, shown)
        done = await self.pages.done(call, SAID)
        return await self.pages.show_own(
            call,
            "devices",
            devices=[_shown(call, each, principal.session_id, names) for each in shown],
            done=done,
            in_force=await in_force(call) if done else None,
            number=number,
            pages=pages,
            many=len(live),
            listed=LISTED,
        )

    async def end(self, call: Call) -> Response:
        body: Ended = call.body
        principal, client = call.required.principal, call.observed()
        authority, subject = call.authority, principal.subject
        if body.session != principal.session_id:  # a thief must not sign the owner out
            await call.api.check_fresh(principal)
        if body.session == OTHERS:
            return await fence(call, await authority.end_others(subject, principal.session_id or "", client=client))
        done = await authority.end(body.session, client=client, actor=subject, reason="ended_by_owner", subject=subject)
        return await fence(call, done)

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        return self.pages.go(f"{self.pages.base}{DEVICES_PATH}?done={ENDED}", response)


def _number(text: str, pages: int) -> int:
    """Read the number of a page. Raises `InvalidInput`."""
    if not text.isascii() or not text.isdigit() or len(text) > 2 or int(text) < 1:  # noqa: PLR2004 - 500 by 50 are 10
        raise InvalidInput(mark("There is no such page."), field="page")
    return min(int(text), pages)  # the last one is gone if its sign-ins have ended meanwhile


async def _names(call: Call, shown: Sequence[Session]) -> dict[str, str]:
    """Return the names of the registered clients that hold these sessions; the application itself has none."""
    named: dict[str, str] = {call.authority.client_id: ""}
    for session in shown:
        if session.client_id not in named:
            client = await call.authority.store.get(RegisteredClient, session.client_id)
            named[session.client_id] = client.name if client is not None else session.client_id
    return named


def _shown(call: Call, session: Session, current: str | None, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": session.id,
        "current": session.id == current,
        "device": session.device,
        "country": session.country,
        "address": session.address,
        "program": names[session.client_id],
        "mode": MODES[session.mode],
        "bound": bound_or_why_not(call, session),
        "since": session.created_at,
        "seen": session.last_seen_at,
    }
