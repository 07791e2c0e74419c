"""The page of one's own sign-ins: which browsers and programs are signed in, and buttons that end them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from dutchdoor.errors import DutchdoorError, NotAuthenticated
from dutchdoor.model.sessions import Session
from dutchdoor.web.api import Call, Route
from dutchdoor.web.body import Body
from dutchdoor.web.fences import fence
from dutchdoor.web.form_pages import LOGIN_PATH, Pages
from dutchdoor.web.http import Header, Response
from dutchdoor.web.problems import problem
from dutchdoor.web.schemas import Text
from dutchdoor.web.sign_in_page import opens_a_page, way_to_sign_in

__all__ = ["DEVICES_PATH", "DevicesPage", "SignOutForm"]

DEVICES_PATH = "/auth/devices"
OTHERS = "others"


class Ended(Body, frozen=True):
    session: Text
    """The id of a session, or `others`: all but the one that asks."""


class DevicesPage:
    """Shows the sessions of the account, and ends the one that a button stands beside."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages

    def routes(self) -> list[Route]:
        """Return the page, and the endpoint of its buttons."""
        return [
            Route(
                method="GET",
                path=DEVICES_PATH,
                handler=self.show,
                demands="caller",
                unproven=self.to_sign_in,
                query=("ended",),
                summary="Show where the account is signed in.",
            ),
            Route(
                method="POST",
                path=DEVICES_PATH,
                handler=self.end,
                demands="caller",
                body=Ended,
                page=self,
                unproven=self.to_sign_in,
                summary="End sessions from the page.",
            ),
        ]

    async def show(self, call: Call) -> Response:
        caller = call.required
        account, session = await call.holding()
        if session is None or not caller.by_cookie:  # a token shows nothing in a browser, and its page has no buttons
            raise NotAuthenticated("no cookie proves this")
        live = await call.authority.sessions(account.subject)
        return self.pages.show(
            "devices",
            who=account.address or account.name or account.subject,
            csrf_token=call.csrf_token(session.id),
            devices=[_shown(each, session.id) for each in sorted(live, key=lambda each: -each.last_seen_at)],
            ended=call.query.get("ended", ""),
        )

    def to_sign_in(self, call: Call, error: NotAuthenticated) -> Response:
        """Send a browser to the sign-in page and back; refuse a program."""
        if opens_a_page(call.request, call.request.method):
            base = self.pages.base
            return Response(303, [(b"location", way_to_sign_in(base + LOGIN_PATH, base + DEVICES_PATH))], kind="page")
        return call.api.refusal(call.request, error)

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

    def refuse(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        return self.pages.error(error, problem(error))


class SignOutForm:
    """The button that ends the session of this browser."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:  # noqa: ARG002 - for every form
        return {}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        gone = self.pages.go(self.pages.base + LOGIN_PATH, response)
        kept: list[Header] = [header for header in response.headers if header[0] == b"clear-site-data"]
        return Response(gone.status, [*gone.headers, *kept], kind="page")

    def refuse(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        # Signed out already is what the button was for.
        if type(error) is NotAuthenticated:
            return self.pages.go(self.pages.base + LOGIN_PATH, Response(303))
        return self.pages.error(error, problem(error))


def _shown(session: Session, current: str) -> dict[str, Any]:
    seen = datetime.fromtimestamp(int(session.last_seen_at), UTC)
    return {
        "id": session.id,
        "current": session.id == current,
        "device": session.device or "An unknown device",
        "place": " · ".join(filter(None, [session.country, session.address])),
        "seen": f"{seen.day} {seen:%B %Y, %H:%M} UTC",
        "seen_at": f"{seen:%Y-%m-%dT%H:%M:%SZ}",
        "mode": {"session": "browser session", "hybrid": "tokens"}.get(session.mode, session.mode),
    }
