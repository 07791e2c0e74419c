"""The page to create an account."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from dutchdoor.web import account_routes
from dutchdoor.web.api import Call, Handler, Page, Route
from dutchdoor.web.http import Response
from dutchdoor.web.pages.forms import Form, signed_in
from dutchdoor.web.pages.site import REGISTER_PATH, Pages

__all__ = ["forms", "routes"]

SENT_PATH = f"{REGISTER_PATH}/sent"


def routes(pages: Pages) -> list[Route]:
    form = RegistrationForm(pages)
    return [
        pages.page(REGISTER_PATH, form.show, query=("next",), summary="Show the registration page."),
        pages.page(SENT_PATH, form.sent, summary="Say what happens next."),
    ]


def forms(pages: Pages) -> dict[Handler, Page]:
    return {account_routes.register: RegistrationForm(pages)}


class RegistrationForm(Form):
    """Create an account, and sign in with it unless its address must be confirmed first."""

    name = "register"
    keeps: tuple[str, ...] = ("email", "name", "next")

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:  # noqa: ARG002
        return {name: fields[name] for name in ("email", "password", "name") if fields.get(name)}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:
        if response.status == HTTPStatus.ACCEPTED:
            return self.pages.go(f"{self.pages.base}{SENT_PATH}", response)
        return await signed_in(self.pages, call, fields, self.pages.after(call, fields))

    async def show(self, call: Call) -> Response:
        # Where registration is not open, the page says how people get an account. The status is that of the endpoint.
        page = await super().show(call)
        if call.authority.policy.registration != "open":
            page.status = HTTPStatus.FORBIDDEN
        return page

    def values(self, call: Call) -> dict[str, Any]:
        policy = call.authority.policy
        return {
            "password_minimum": policy.password_minimum,
            "confirms": policy.require_verified_email,
            "by_invitation": policy.registration == "invite",
        }

    async def sent(self, call: Call) -> Response:
        """Show what happens next."""
        return self.pages.show(call.request, "registered")
