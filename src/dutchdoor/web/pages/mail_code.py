"""The pages to sign in by a mailed code: one asks where to mail it, and one takes it.

The browser's half of the proof is in a cookie that is `SameSite=Strict`: it is not sent when a person follows the link
from their web mail, and is sent with the form of the page that the link opens. So the page is the same in every
browser. Only after the form was sent, it says that another browser asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from dutchdoor.errors import DutchdoorError, NotAuthenticated, RateLimited, SignInUnfinished, WrongCredentials
from dutchdoor.mail.letters import CODE_PATH
from dutchdoor.web import mail_code_routes
from dutchdoor.web.api import Call, Handler, Page, Route
from dutchdoor.web.http import Response
from dutchdoor.web.pages.forms import Form, OwnForm, browser_mode
from dutchdoor.web.pages.site import CONFIRM_PATH, Pages
from dutchdoor.web.schemas import CodeSent

__all__ = ["forms", "routes"]

ASK_PATH = "/auth/code"


def routes(pages: Pages) -> list[Route]:
    ask, take = AskForm(pages).show, CodeForm(pages).show
    return [
        pages.page(ASK_PATH, ask, query=("next",), summary="Show the page that mails a code for signing in."),
        pages.page(CODE_PATH, take, query=("next",), summary="Show the page that takes a mailed code."),
        pages.way_from("/auth/reauthenticate/code", CONFIRM_PATH),
    ]


def forms(pages: Pages) -> dict[Handler, Page]:
    return {
        mail_code_routes.ask_for_code: AskForm(pages),
        mail_code_routes.sign_in_by_code: CodeForm(pages),
        mail_code_routes.ask_again: AskAgainForm(pages),
    }


def _kept_in(call: Call, response: Response) -> Response:
    """Return an answer that keeps the browser's half of the proof in its cookie."""
    given = msgspec.json.decode(response.body, type=CodeSent)
    return Response(303, [call.cookies.step.set(given.token, max_age=given.expires_in)])


def _with_next(path: str, fields: Mapping[str, str]) -> str:
    return f"{path}?{urlencode({'next': fields['next']})}" if fields.get("next") else path


class AskForm(Form):
    """Mail a code, if the address has an account. The page after it is the same either way."""

    name = "code"
    takes = ("email",)

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:
        return self.pages.go(_with_next(self.pages.base + CODE_PATH, fields), _kept_in(call, response))

    def values(self, call: Call) -> dict[str, Any]:
        return {"by_mail": call.authority.policy.sign_in_by_mail}


class CodeForm(Form):
    """Sign in by the code, in the browser that asked for it."""

    name = "code_sent"
    keeps: tuple[str, ...] = ("next",)

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:
        return {"code": fields.get("response", ""), "mode": browser_mode(call)}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:
        return self.pages.go(self.pages.after(call, fields), response)

    def wrong(self, error: DutchdoorError) -> dict[str, Any]:
        """Say what is wrong, and whether it is the code: then another one can be typed."""
        again = isinstance(error, (WrongCredentials, RateLimited)) or not isinstance(error, NotAuthenticated)
        return {**super().wrong(error), "field": "response" if again else ""}

    async def refuse(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response:
        answer = await super().refuse(call, error, fields)
        if isinstance(error, NotAuthenticated) and not isinstance(error, (SignInUnfinished, WrongCredentials)):
            answer = answer.beside(call.cookies.step.cleared)
        return answer


class AskAgainForm(OwnForm):
    """Mail a code to the person who is signed in, and go back to the page that asks for a proof."""

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:
        query = {"by": "mail_code", **{name: fields[name] for name in ("next", "factors") if fields.get(name)}}
        return self.pages.go(f"{self.pages.base}{CONFIRM_PATH}?{urlencode(query)}", _kept_in(call, response))
