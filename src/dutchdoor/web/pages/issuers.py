"""The pages on the way to another log-in and back, which lead on by themselves without a script.

They lead on by the header `Refresh`. A redirect in answer to a form would be stopped by `form-action 'self'`, wherever
the issuer passes the browser on to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from dutchdoor.errors import DutchdoorError, NotFound, SignInUnfinished, Unavailable
from dutchdoor.model.rate_limits import MARK_FOR
from dutchdoor.texts import mark
from dutchdoor.web import issuer_routes
from dutchdoor.web.api import Call, Handler, Page, Route
from dutchdoor.web.http import Header, Response
from dutchdoor.web.issuer_routes import CALLBACK_PATH, FINISH_PATH, WayView, answer_of, query_of
from dutchdoor.web.pages.forms import OwnForm, browser_mode, to_next_step
from dutchdoor.web.pages.register import SENT_PATH
from dutchdoor.web.pages.sign_in import SignInForm
from dutchdoor.web.pages.site import ACCOUNT_PATH, Pages, retry_after
from dutchdoor.web.problems import problem
from dutchdoor.web.sign_in_answer import cookies_of

__all__ = ["forms", "routes"]

LINKED: Final = f"{ACCOUNT_PATH}?done=identity_linked"


def routes(pages: Pages) -> list[Route]:
    back = WayBack(pages)
    return [
        Route(
            method="GET",
            path=CALLBACK_PATH,
            handler=back.arrive,
            bundled=True,
            query_of_another=True,
            summary="Come back from another log-in.",
        ),
        Route(
            method="POST",
            path=CALLBACK_PATH,
            handler=back.arrive,
            bundled=True,
            own_origin=False,  # a page of the issuer posts it, and it touches nothing here
            query_of_another=True,
            summary="Come back from another log-in that posts a form.",
        ),
        Route(
            method="GET",
            path=FINISH_PATH,
            handler=back.finish,
            bundled=True,
            query_of_another=True,
            summary="Sign in by what another log-in has sent.",
        ),
    ]


def forms(pages: Pages) -> dict[Handler, Page]:
    return {
        issuer_routes.start: StartForm(pages),
        issuer_routes.link: InsideForm(pages),
        issuer_routes.confirm_by: InsideForm(pages),
    }


class StartForm(SignInForm):
    """The button to sign in by another log-in."""

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:  # noqa: ARG002 - for every form
        return {"next": fields["next"]} if fields.get("next") else {}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        return way_there(self.pages, call, response, call.params["name"])


class InsideForm(OwnForm):
    """The buttons to link another log-in, and to prove again by one."""

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:  # noqa: ARG002 - for every form
        return {name: fields[name] for name in ("issuer", "next") if fields.get(name)}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:
        return way_there(self.pages, call, response, fields.get("issuer", ""))


class WayBack:
    """Takes a browser that comes back."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages

    async def arrive(self, call: Call) -> Response:
        """Lead on to `finish`, with the parameters that we know."""
        if call.params["name"] not in call.directory.issuers.issuers:
            # It goes into a header: a line break in it would begin another one.
            return self._failed(call, NotFound("no such issuer", message=mark("There is no such log-in here.")))
        posted = call.request.method == "POST"
        answer = answer_of(call.request.body if posted else call.request.query)
        way = f"{self.pages.base}{FINISH_PATH.replace('{name}', call.params['name'])}?{query_of(answer)}"
        return self.pages.lead_on(call.request, "issuer_back", way, title=self._title(call))

    async def finish(self, call: Call) -> Response:
        try:
            came, cookies = await issuer_routes.finish(call, browser_mode(call))
        except SignInUnfinished as error:
            return to_next_step(self.pages, call, error, {})
        except DutchdoorError as error:
            return self._failed(call, error)
        headers: list[Header] = list(cookies)
        if came.signed_in is not None:
            headers += cookies_of(call.cookies, came.signed_in, call.authority.clock())
            headers += call.offer(came.signed_in.session)
        if came.mark:
            headers.append(call.cookies.mark.set(came.mark, max_age=MARK_FOR))
        if came.purpose == "link":
            to = self.pages.base + LINKED
        elif came.signed_in is None:
            to = self.pages.base + SENT_PATH
        else:
            to = self.pages.after(call, {"next": came.next})
        return self.pages.go(to, Response(303, headers))

    def _failed(self, call: Call, error: DutchdoorError) -> Response:
        if isinstance(error, Unavailable):
            call.api.outages.note(error)
        answer = problem(error)
        return self.pages.show(
            call.request,
            "issuer_failed",
            answer.status,
            retry_after(answer),
            words=error.message,
            title=self._title(call),
            to=self.pages.sign_in_page,
        )

    @staticmethod
    def _title(call: Call) -> str:
        issuer = call.directory.issuers.issuers.get(call.params["name"])
        return "" if issuer is None else issuer.title


def way_there(pages: Pages, call: Call, response: Response, name: str) -> Response:
    """Show the page that leads to the issuer."""
    url = msgspec.json.decode(response.body, type=WayView).url
    cookies = [header for header in response.headers if header[0] == b"set-cookie"]
    title = call.directory.issuers.issuers[name].title
    return pages.lead_on(call.request, "issuer_there", url, *cookies, title=title)
