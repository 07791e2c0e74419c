"""The page of the link that a server prints at its first start: it makes the first administrator."""

from __future__ import annotations

from collections.abc import Mapping

from dutchdoor.web import account_routes
from dutchdoor.web.api import Call, Handler, Page, Route
from dutchdoor.web.http import Response
from dutchdoor.web.pages.forms import signed_in
from dutchdoor.web.pages.links import LinkForm
from dutchdoor.web.pages.site import ACCOUNT_PATH, CONSOLE_PATH, SETUP_PATH, Pages

__all__ = ["forms", "routes"]


def routes(pages: Pages) -> list[Route]:
    form = SetupForm(pages)
    summary = "Show the page that makes the first administrator."
    return [pages.page(SETUP_PATH, form.show, summary=summary)]


def forms(pages: Pages) -> dict[Handler, Page]:
    return {account_routes.setup: SetupForm(pages)}


class SetupForm(LinkForm):
    """Make the first administrator, and sign the browser in: who has the link may make any account."""

    name = "setup"
    keeps: tuple[str, ...] = ("token", "email", "name")

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:
        chosen = {name: fields[name] for name in ("email", "password", "name") if fields.get(name)}
        return {**super().take(call, fields), **chosen}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        console = CONSOLE_PATH if self.pages.console else ACCOUNT_PATH
        return await signed_in(self.pages, call, fields, self.pages.base + console)
