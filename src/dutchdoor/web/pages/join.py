"""The page of an invitation, in two steps: the link alone, and the page says who invites whom; then a name and a
password. Nothing is said about a link before it is sent: opening it uses nothing up, and shows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from dutchdoor.errors import DutchdoorError, InvalidToken
from dutchdoor.mail.letters import JOIN_PATH
from dutchdoor.web import life_routes
from dutchdoor.web.api import Call, Handler, Page, Route
from dutchdoor.web.http import Response
from dutchdoor.web.pages.links import LinkForm, find_token, with_address
from dutchdoor.web.pages.site import Pages
from dutchdoor.web.schemas import InvitationView

__all__ = ["forms", "routes"]

LOOK_PATH, DONE_PATH = f"{JOIN_PATH}/look", f"{JOIN_PATH}/done"


def routes(pages: Pages) -> list[Route]:
    return [
        pages.page(JOIN_PATH, LookForm(pages).show, summary="Show the page of an invitation."),
        pages.page(DONE_PATH, JoinForm(pages).done, summary="Say that the account is ready."),
        pages.way_from(LOOK_PATH, JOIN_PATH),
    ]


def forms(pages: Pages) -> dict[Handler, Page]:
    return {
        life_routes.look_at_invitation: LookForm(pages),
        life_routes.accept_invitation: JoinForm(pages),
    }


class LookForm(LinkForm):
    """The first step: read the invitation."""

    name = "join"

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:
        found = msgspec.json.decode(response.body, type=InvitationView)
        token = find_token(fields["token"])
        kept = {"token": token, "email": found.email, "inviter": found.invited_by, "name": found.name}
        choose = JoinForm(self.pages)
        return self.pages.show(call.request, choose.name, kept=kept, error=None, **choose.values(call))


class JoinForm(LinkForm):
    """The second step: choose a name and a password. It signs no one in."""

    name = "join_choose"
    keeps: tuple[str, ...] = ("token", "name", "email", "inviter")

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:
        chosen = {name: fields[name] for name in ("password", "name") if name in fields}
        return {**super().take(call, fields), **chosen}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        return self.pages.go(with_address(self.pages.base + DONE_PATH, response), response)

    async def refuse(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response:
        if isinstance(error, InvalidToken):
            return await LookForm(self.pages).refuse(call, error, fields)
        return await super().refuse(call, error, fields)

    async def done(self, call: Call) -> Response:
        return self.pages.show(call.request, "join_done", **await self.pages.visitor(call))
