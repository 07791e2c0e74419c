"""The page to ask for a link to a new password."""

from __future__ import annotations

from collections.abc import Mapping

from dutchdoor.mail.letters import FORGOT_PATH
from dutchdoor.web import account_routes
from dutchdoor.web.api import Call, Handler, Page, Route
from dutchdoor.web.http import Response
from dutchdoor.web.pages.forms import Form
from dutchdoor.web.pages.site import Pages

__all__ = ["forms", "routes"]

SENT_PATH = f"{FORGOT_PATH}/sent"


def routes(pages: Pages) -> list[Route]:
    form = ForgotForm(pages)
    return [
        pages.page(FORGOT_PATH, form.show, summary="Show the page that mails a link to a new password."),
        pages.page(SENT_PATH, form.sent, summary="Say that a link was sent, if there is an account."),
        pages.way_from("/auth/password/forgot", FORGOT_PATH),
    ]


def forms(pages: Pages) -> dict[Handler, Page]:
    return {account_routes.forgot: ForgotForm(pages)}


class ForgotForm(Form):
    """Mail a link, if the address has an account. The page after it is the same either way."""

    name = "forgot"
    keeps = takes = ("email",)

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        return self.pages.go(self.pages.base + SENT_PATH, response)

    async def sent(self, call: Call) -> Response:
        """Say what happens next."""
        return self.pages.show(call.request, "forgot_sent")
