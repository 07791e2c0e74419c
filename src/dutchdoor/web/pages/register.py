"""The page to create an account."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from dutchdoor.web import account_routes, auth_routes
from dutchdoor.web.api import Call, Handler, Page, Route
from dutchdoor.web.http import Response
from dutchdoor.web.pages.forms import Form, browser_mode
from dutchdoor.web.pages.site import REGISTER_PATH, Pages
from dutchdoor.web.schemas import Login

__all__ = ["forms", "routes"]

SENT_PATH = f"{REGISTER_PATH}/sent"


def routes(pages: Pages) -> list[Route]:
    form = RegistrationForm(pages)
    return [
        Route(
            method="GET",
            path=REGISTER_PATH,
            handler=form.show,
            bundled=True,
            summary="Show the registration page.",
            query=("next",),
        ),
        Route(method="GET", path=SENT_PATH, handler=form.sent, bundled=True, summary="Say what happens next."),
    ]


def forms(pages: Pages) -> dict[Handler, Page]:
    return {account_routes.register: RegistrationForm(pages)}


class RegistrationForm(Form):
    """Create an account, and sign in with it unless its address must be confirmed first."""

    name = "register"
    keeps = ("email", "name", "next")

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:  # noqa: ARG002
        return {name: fields[name] for name in ("email", "password", "name") if fields.get(name)}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:
        if response.status == HTTPStatus.ACCEPTED:
            return self.pages.go(f"{self.pages.base}{SENT_PATH}", response)
        call.body = Login(email=fields["email"], password=fields["password"], mode=browser_mode(call))
        return self.pages.go(self.pages.after(call, fields), await auth_routes.login(call))

    def values(self, call: Call) -> dict[str, Any]:
        return {"password_minimum": call.authority.policy.password_minimum}

    async def sent(self, call: Call) -> Response:
        """Show what happens next."""
        return self.pages.show(call.request, "registered")
