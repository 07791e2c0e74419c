"""The page of a link that confirms an address."""

from __future__ import annotations

from collections.abc import Mapping

from dutchdoor.errors import AnotherBrowser, DutchdoorError, InvalidToken
from dutchdoor.mail.letters import VERIFY_PATH
from dutchdoor.web import account_routes
from dutchdoor.web.api import Call, Handler, Page, Route
from dutchdoor.web.http import Response
from dutchdoor.web.pages.links import LinkForm, with_address
from dutchdoor.web.pages.site import Pages

__all__ = ["forms", "routes"]

DONE_PATH = f"{VERIFY_PATH}/done"


def routes(pages: Pages) -> list[Route]:
    form = VerifyForm(pages)
    return [
        pages.page(VERIFY_PATH, form.show, summary="Show the page of a link that confirms an address."),
        pages.page(DONE_PATH, form.done, summary="Say that the address is confirmed, and offer to sign in."),
        pages.way_from("/auth/email/verify", VERIFY_PATH),
    ]


def forms(pages: Pages) -> dict[Handler, Page]:
    return {account_routes.verify_email: VerifyForm(pages)}


class VerifyForm(LinkForm):
    """Confirm an address. It signs no one in. In another browser than the one that registered, the page asks for a
    password, and only then.
    """

    name = "verify"
    keeps: tuple[str, ...] = ("token", "choose")

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:
        taken = super().take(call, fields)
        return {**taken, "password": fields["password"]} if fields.get("choose") and "password" in fields else taken

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        return self.pages.go(with_address(self.pages.base + DONE_PATH, response), response)

    async def refuse(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response:
        if isinstance(error, AnotherBrowser):
            fields = {**fields, "choose": "1"}
        elif isinstance(error, InvalidToken):
            fields = {**fields, "choose": ""}
        return await super().refuse(call, error, fields)

    async def done(self, call: Call) -> Response:
        return self.pages.show(call.request, "verify_done", **await self.pages.visitor(call))
