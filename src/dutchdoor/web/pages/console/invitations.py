"""The page of invitations: who is invited and until when, and forms that invite, send again and withdraw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from dutchdoor.services.invitations import Invitation
from dutchdoor.web.api import Call, Route
from dutchdoor.web.http import Response
from dutchdoor.web.pages.console.drafts import DraftPage, Person
from dutchdoor.web.pages.console.frame import INVITATIONS_PATH, Console
from dutchdoor.web.pages.console.listing import PAGE, next_page
from dutchdoor.web.schemas import instant

__all__ = ["PATH", "routes"]

PATH = INVITATIONS_PATH


def routes(console: Console) -> list[Route]:
    page = InvitationsPage(console)
    shown = console.page(PATH, page.show, query=("after",), summary="Show the invitations.")
    return [
        replace(shown, bundled=True),
        console.act(PATH, page.invite, body=Person, again=page.again, bundled=True, summary="Invite a person."),
        console.act(PATH + "/{id}/send", page.send, bundled=True, summary="Send an invitation again."),
        console.act(PATH + "/{id}/withdraw", page.withdraw, bundled=True, summary="Withdraw an invitation."),
    ]


class InvitationsPage(DraftPage):
    draft = Person

    async def show_with(
        self, call: Call, status: int = 200, *, kept: Mapping[str, str], error: Mapping[str, Any] | None = None
    ) -> Response:
        after, now = call.query.get("after", "")[:64], call.authority.clock()
        found = await call.directory.invitations.listed(after=after, limit=PAGE + 1)
        return self.console.show(
            call,
            "invitations",
            status,
            invitations=[_shown(each, now) for each in found[:PAGE]],
            following=next_page(PATH, after=found[PAGE - 1].id if len(found) > PAGE else ""),
            closed=call.authority.policy.registration == "closed",
            error=error,
            kept=kept,
        )

    async def invite(self, call: Call) -> Response:
        draft: Person = call.body
        await call.directory.invitations.invite(draft.email, name=draft.name, roles=draft.roles.split(), **call.by)
        return self.console.done(PATH, "invitation-sent")

    async def send(self, call: Call) -> Response:
        await call.directory.invitations.send_again(call.params["id"], **call.by)
        return self.console.done(PATH, "invitation-sent")

    async def withdraw(self, call: Call) -> Response:
        await call.directory.invitations.withdraw(call.params["id"], **call.by)
        return self.console.done(PATH, "invitation-withdrawn")


def _shown(invitation: Invitation, now: float) -> dict[str, Any]:
    return {
        "id": invitation.id,
        "address": invitation.address,
        "name": invitation.name,
        "roles": invitation.roles,
        "inviter": invitation.inviter,
        "until": instant(invitation.expires_at),
        "expired": invitation.expires_at <= now,
    }
