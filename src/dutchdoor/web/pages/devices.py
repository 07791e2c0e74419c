"""The page of one's own sign-ins: which browsers and programs are signed in, and buttons that end them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

from dutchdoor.errors import DutchdoorError
from dutchdoor.model.sessions import Session
from dutchdoor.texts import mark
from dutchdoor.web.api import Call, Route
from dutchdoor.web.body import Body
from dutchdoor.web.fences import fence
from dutchdoor.web.http import Response
from dutchdoor.web.pages.site import DEVICES_PATH, Pages
from dutchdoor.web.problems import problem
from dutchdoor.web.schemas import Text

__all__ = ["routes"]

OTHERS = "others"


class Ended(Body, frozen=True):
    session: Text
    """The id of a session, or `others`: all but the one that asks."""


def routes(pages: Pages) -> list[Route]:
    page = DevicesPage(pages)
    own = partial(Route, path=DEVICES_PATH, demands="caller", unproven=pages.to_sign_in)
    return [
        own(method="GET", handler=page.show, query=("ended",), summary="Show where the account is signed in."),
        own(method="POST", handler=page.end, body=Ended, page=page, summary="End sessions from the page."),
    ]


class DevicesPage:
    """Shows the sessions of the account, and ends the one that a button stands beside."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages

    async def show(self, call: Call) -> Response:
        principal = call.required.principal
        live = await call.authority.sessions(principal.subject)
        return await self.pages.show_own(
            call,
            "devices",
            devices=[_shown(each, principal.session_id) for each in sorted(live, key=lambda each: -each.last_seen_at)],
            ended=call.query.get("ended", ""),
        )

    async def end(self, call: Call) -> Response:
        body: Ended = call.body
        principal, client = call.required.principal, call.observed()
        authority, subject = call.authority, principal.subject
        if body.session == OTHERS:
            return await fence(call, await authority.end_others(subject, principal.session_id or "", client=client))
        done = await authority.end(body.session, client=client, actor=subject, reason="ended_by_owner", subject=subject)
        return await fence(call, done)

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:  # noqa: ARG002 - for every form
        return {"session": fields["session"]} if "session" in fields else {}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        when = "now" if response.status == HTTPStatus.OK else "soon"
        return self.pages.go(f"{self.pages.base}{DEVICES_PATH}?ended={when}", response)

    async def refuse(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        return self.pages.error(call.request, error, problem(error))


def _shown(session: Session, current: str | None) -> dict[str, Any]:
    return {
        "id": session.id,
        "current": session.id == current,
        "device": session.device,
        "place": " · ".join(filter(None, [session.country, session.address])),
        "seen": session.last_seen_at,
        "mode": mark("browser session") if session.mode == "session" else mark("tokens"),
    }
