"""The pages where a link leads to the choice of a password: a new one, or the first one after an invitation."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import msgspec

from dutchdoor.mail.letters import INVITATION_PATH, RESET_PATH
from dutchdoor.web import account_routes
from dutchdoor.web.api import Call, Handler, Page, Route
from dutchdoor.web.http import Response
from dutchdoor.web.pages.links import LinkForm, with_address
from dutchdoor.web.pages.site import ACCOUNT_PATH, Pages

__all__ = ["forms", "routes"]


def routes(pages: Pages) -> list[Route]:
    form = ResetForm(pages)
    return [
        pages.page(RESET_PATH, form.show, summary="Show the page of a link to a new password."),
        pages.page(
            f"{RESET_PATH}/done",
            form.done,
            query=("ended", "asks", "acted"),
            summary="Say that the password is changed, and offer to sign in.",
        ),
        pages.page(INVITATION_PATH, form.invite, summary="Show the page of an invitation."),
        pages.page(
            f"{INVITATION_PATH}/done",
            form.welcome,
            summary="Say that the account is ready, and offer to sign in.",
        ),
        pages.way_from("/auth/password/reset", RESET_PATH),
    ]


def forms(pages: Pages) -> dict[Handler, Page]:
    return {account_routes.reset: ResetForm(pages)}


class ResetForm(LinkForm):
    """Choose a password by the token of a link. It signs no one in, and ends every sign-in there is."""

    name = "reset"
    keeps: tuple[str, ...] = ("token", "invited")

    async def invite(self, call: Call) -> Response:
        """Show the same form to a person whom an administrator invited.

        The page does not name the administrator: it says nothing about a token before the token is sent, and the name
        of an account is text that its owner chose.
        """
        return self.pages.show(
            call.request, self.name, kept={"token": "", "invited": "1"}, error=None, **self.values(call)
        )

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:
        taken = super().take(call, fields)
        return {**taken, "new_password": fields["new_password"]} if "new_password" in fields else taken

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:
        if fields.get("invited"):
            to = f"{INVITATION_PATH}/done"
        else:
            to = f"{RESET_PATH}/done?ended={'now' if response.status == HTTPStatus.OK else 'soon'}"
            subject = msgspec.json.decode(response.body)["user"]["id"]
            to += "&asks=1" if await call.directory.set_aside.of(subject) else ""
            account = await call.authority.store.account(subject)
            to += "&acted=1" if account and await call.directory.deeds.of(account) else ""
        return self.pages.go(with_address(self.pages.base + to, response), response)

    async def done(self, call: Call) -> Response:
        # A reset ends every sign-in. To a browser that is signed in, a link of a stranger leads here, or the way back.
        if (await self.pages.visitor(call))["who"]:
            return self.pages.go(self.pages.base + ACCOUNT_PATH, Response(303))
        # Signing in leads to the page that asks whose the things are that were set aside, and lists what was done.
        asks, acted, ended = bool(call.query.get("asks")), bool(call.query.get("acted")), call.query.get("ended", "")
        kept = {"next": self.pages.base + ACCOUNT_PATH} if asks or acted else {}
        return self.pages.show(
            call.request, "reset_done", ended=ended, invited=False, asks=asks, acted=acted, kept=kept
        )

    async def welcome(self, call: Call) -> Response:
        return self.pages.show(call.request, "reset_done", ended="", invited=True, asks=False, acted=False, kept={})
